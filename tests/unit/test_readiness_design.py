"""The design of readiness: how many descriptors are watched and active, and what a map asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import pytest
from c10k_probe.experiments import _readiness_design as design
from c10k_probe.experiments.readiness import EXPERIMENT, ReadinessParameters
from hypothesis import given
from hypothesis import strategies as st
from made_readiness import flat, launches, linear

from c10k_probe import limits
from c10k_probe.exits import UsageError
from c10k_probe.experiment import TRACED_BY, Cell, Samples, columns
from c10k_probe.limits import Wall

DECADES = (100, 300, 1000, 3000, 10_000, 30_000, 100_000)
ONE = ("1",)
EVERYTHING = (*design.C_MECHANISMS, *design.PYTHON_MECHANISMS)


def walls_of(descriptors: int | None, system: int | None = None) -> list[Wall]:
    """The walls of descriptors of a machine on which nothing is used yet."""
    return [
        Wall(name, "administrative", limit, 0, "descriptors", scope, "test", None)
        for name, limit, scope in (("descriptors", descriptors, "process"), ("descriptors-system", system, "machine"))
    ] + [Wall("fd-setsize", "architectural", 1024, 3, "descriptors", "process", "test", None)]


@pytest.fixture(autouse=True)
def fresh_cache() -> Iterator[None]:
    """The most that fits is read once a process; here it changes."""
    design.fitting_count.cache_clear()
    yield
    design.fitting_count.cache_clear()


@pytest.fixture
def twenty_thousand() -> Iterator[None]:
    """A hard limit of 20,000 descriptors."""
    with mock.patch.object(limits, "walls", lambda: walls_of(20_000)):
        yield


def cells_of(**chosen: Any) -> list[Cell]:
    return EXPERIMENT.cells(ReadinessParameters(**chosen))


def counts_of(cells: list[Cell], mechanism: str, workload: str = "chain") -> list[int]:
    wanted = {"mechanism": mechanism, "workload": workload}
    return [int(cell.key["watched_count"]) for cell in cells if wanted.items() <= cell.key.items()]


# --- how many are watched ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("descriptors", "system", "fits"),
    [
        (20_000, None, 19_900),
        (20_000, 5000, 4900),
        (1024, None, 900),
        (264, None, 200),
        (100, None, 1),
        (10, None, 1),
        (None, None, 10**7),
    ],
)
def test_what_fits_is_in_hundreds_below_the_lowest_wall(descriptors: int | None, system: int | None, fits: int) -> None:
    with mock.patch.object(limits, "walls", lambda: walls_of(descriptors, system)):
        assert design.fitting_count() == fits


@pytest.mark.usefixtures("twenty_thousand")
@pytest.mark.parametrize("mechanism", [name for name in EVERYTHING if name not in ("select", "select.select")])
def test_beyond_a_wall_stand_the_most_that_fits_and_the_row_of_the_wall(mechanism: str) -> None:
    assert design.levels(DECADES, mechanism, "chain", ONE) == [100, 300, 1000, 3000, 10_000, 19_900, 30_000]
    assert design.levels((100, 1000), mechanism, "chain", ONE) == [100, 1000]
    assert design.levels((100, 19_900), mechanism, "chain", ONE) == [100, 19_900]
    assert design.levels((19_900, 100_000), mechanism, "chain", ONE) == [19_900, 100_000]
    assert design.levels((100_000, 50_000), mechanism, "chain", ONE) == [19_900, 50_000]
    assert design.levels((1000, 100), mechanism, "chain", ONE) == [100, 1000]


@pytest.mark.usefixtures("twenty_thousand")
@pytest.mark.parametrize("mechanism", ["select", "select.select"])
def test_select_stops_at_its_own_wall_and_has_one_row_for_it(mechanism: str) -> None:
    """No further count is invented: the most that select can watch lies beside what was asked for."""
    for workload in design.WORKLOADS:
        assert design.levels(DECADES, mechanism, workload, ONE) == [100, 300, 1000, 3000]
        assert design.levels((5000, 2000), mechanism, workload, ONE) == [2000]


@pytest.mark.parametrize("limit", [256, 512, 1024, 4096, 20_000])
@pytest.mark.parametrize("workload", design.WORKLOADS)
@pytest.mark.parametrize("mechanism", ["select", "poll", "select.epoll"])
def test_all_that_is_planned_below_a_wall_fits_and_its_row_does_not(mechanism: str, workload: str, limit: int) -> None:
    """Whatever the limit, nothing that would fit is left out."""
    with mock.patch.object(limits, "walls", lambda: walls_of(limit)):
        cells = cells_of(fds=DECADES, mechanism=(mechanism,), workload=(workload,))
    *within, last = (limits.check(cell.needs, walls_of(limit)) for cell in cells)
    assert within == [None] * len(within)
    assert last is not None
    planned = counts_of(cells, mechanism, workload)
    assert planned == sorted(planned)
    below = [count for count in DECADES if count < planned[-1]]
    assert set(below) <= set(planned)


@pytest.mark.usefixtures("twenty_thousand")
@pytest.mark.parametrize("mechanism", ["select", "select.select"])
def test_the_most_that_select_can_watch_has_room_and_one_pair_more_has_not(mechanism: str) -> None:
    most = design.SELECT_MOST_COUNT
    cells = cells_of(fds=(most, most + 2), active=ONE, mechanism=(mechanism,), workload=("chain",))
    walls = [limits.check(cell.needs, walls_of(20_000)) for cell in cells]
    assert [cell.key["watched_count"] for cell in cells] == [most, most + 2]
    assert walls[0] is None
    assert walls[1] is not None and walls[1].name == "fd-setsize"
    assert 1000 <= most < 1021


@pytest.mark.usefixtures("twenty_thousand")
def test_what_short_connections_open_is_taken_off_the_most_that_fits() -> None:
    """Both ends of those that come at once."""
    asked = (100, 100_000)
    assert design.levels(asked, "epoll", "short", ("1",)) == [100, 19_800, 100_000]
    assert design.levels(asked, "epoll", "short", ("1", "100")) == [100, 19_700, 100_000]
    assert design.levels(asked, "epoll", "short", ("1", "1000")) == [100, 17_900, 100_000]
    assert design.levels(asked, "epoll", "chain", ("1", "1000")) == [100, 19_900, 100_000]


@pytest.mark.usefixtures("twenty_thousand")
def test_the_row_of_selects_wall_names_it() -> None:
    cells = cells_of(fds=(100, 3000), active=("1",), mechanism=("select", "poll"), workload=("chain",))
    walls = {
        (cell.key["mechanism"], cell.key["watched_count"]): limits.check(cell.needs, walls_of(20_000)) for cell in cells
    }
    named = {key: wall.name for key, wall in walls.items() if wall}
    assert named == {("select", 3000): "fd-setsize"}


# --- how many are active ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "watched", "chain", "short"),
    [
        (("1", "10", "100"), 1000, {1: "1", 10: "10", 100: "100"}, {1: "1", 10: "10", 100: "100"}),
        (("100", "1"), 1000, {1: "1", 100: "100"}, {1: "1", 100: "100"}),
        (("1", "1%"), 100, {1: "1"}, {1: "1"}),
        (("1%", "1"), 100, {1: "1%"}, {1: "1%"}),
        (("10", "100%"), 10, {10: "100%"}, {10: "100%"}),
        (("100%", "10"), 10, {10: "100%"}, {10: "100%"}),
        (("1", "1%", "100%"), 1, {1: "100%"}, {1: "100%"}),
        (("0.1%",), 100, {1: "0.1%"}, {1: "0.1%"}),
        (("50%",), 101, {50: "50%"}, {50: "50%"}),
        (("1", "1000"), 100, {1: "1"}, {1: "1"}),
        (("1000",), 100, {}, {}),
        (("1", "100%"), 1000, {1: "1", 1000: "100%"}, {1: "1", 1000: "100%"}),
        (
            ("1", "1000", "2000", "100%"),
            5000,
            {1: "1", 1000: "1000", 2000: "2000", 5000: "100%"},
            {1: "1", 1000: "1000"},
        ),
    ],
)
def test_each_number_of_active_ones_once(
    asked: tuple[str, ...], watched: int, chain: Mapping[int, str], short: Mapping[int, str]
) -> None:
    """Ascending; of two ways to ask for the same 100% stands, else the first; short has a cap of its own."""
    for workload, found in (("chain", chain), ("short", short)):
        assert list(design.active_levels(asked, watched, workload, "epoll").items()) == list(found.items())
    assert design.SHORT_MOST_COUNT == 1000


@pytest.mark.parametrize("mechanism", ["select", "select.select"])
def test_short_connections_under_select_must_have_room_beside_the_idle_ones(mechanism: str) -> None:
    """Of each both ends are open; what has no room is left out, and one stays."""
    assert list(design.active_levels(("1", "10", "100"), 900, "short", mechanism)) == [1, 10]
    assert list(design.active_levels(("1", "10", "100"), 1000, "short", mechanism)) == [1]
    assert list(design.active_levels(("1", "10", "100"), 1000, "chain", mechanism)) == [1, 10, 100]


@given(
    st.lists(st.sampled_from((*design.MAP_ACTIVE, "1%", "50%", "100%")), unique=True, min_size=1),
    st.integers(1, 100_000),
    st.sampled_from(design.WORKLOADS),
    st.sampled_from(EVERYTHING),
)
def test_no_activity_is_more_than_is_watched(asked: list[str], watched: int, workload: str, mechanism: str) -> None:
    found = design.active_levels(asked, watched, workload, mechanism)
    assert list(found) == sorted(set(found))
    assert all(1 <= count <= watched for count in found)
    assert set(found.values()) <= set(asked)


def test_a_count_without_any_activity_has_no_cell() -> None:
    cells = cells_of(fds=(10, 100), active=("50",), mechanism=("poll",), workload=("chain",))
    assert counts_of(cells, "poll") == [100]


def test_only_activities_that_no_count_can_have_are_refused() -> None:
    EXPERIMENT.check(ReadinessParameters(fds=(10, 100), active=("50", "1000")))
    EXPERIMENT.check(ReadinessParameters(fds=(10,), active=("100%",)))
    with pytest.raises(UsageError, match="--active: more than can be: at most the 100 of --fds"):
        EXPERIMENT.check(ReadinessParameters(fds=(10, 100), active=("101", "1000")))


# --- cells ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("twenty_thousand")
@pytest.mark.parametrize("is_map", [False, True])
def test_no_two_cells_are_the_same_and_each_has_the_keys(is_map: bool) -> None:
    cells = cells_of(mechanism=EVERYTHING, map=is_map)
    assert len({cell.name for cell in cells}) == len(cells)
    keys = {item.name for item in columns(EXPERIMENT.row_type) if item.key and not item.ramp} - {TRACED_BY}
    assert all(cell.key.keys() == keys for cell in cells)
    assert all(cell.weight > 0 for cell in cells)


def test_a_map_is_of_the_chain_unless_workloads_are_named() -> None:
    assert {cell.key["workload"] for cell in cells_of(map=True)} == {"chain"}
    assert {cell.key["workload"] for cell in cells_of(map=True, workload=("short",))} == {"short"}
    assert {cell.key["workload"] for cell in cells_of()} == {"chain", "short"}


def test_the_maps_are_shown_at_once_when_they_were_asked_for() -> None:
    plain, mapped = (EXPERIMENT.charts_of(ReadinessParameters(map=is_map)) for is_map in (False, True))
    assert [chart.name for chart in mapped if chart.at_end] == ["map", "map-short"]
    assert not any(chart.at_end for chart in plain)
    assert {chart.name for chart in plain} == {chart.name for chart in mapped}


@pytest.mark.usefixtures("twenty_thousand")
def test_a_map_begins_with_decades_unless_counts_are_named() -> None:
    assert counts_of(cells_of(map=True), "epoll") == [100, 1000, 10_000, 19_900, 100_000]
    assert counts_of(cells_of(fds=(100, 300, 1000, 10_000), map=True), "epoll") == [100, 1000, 10_000]  # of --quick
    assert counts_of(cells_of(fds=(200, 500, 5000), map=True), "epoll") == [200, 500, 5000]
    assert counts_of(cells_of(fds=(100, 300, 1000), map=True), "epoll") == [100, 300, 1000]
    assert design.map_levels((5000, 100), [DECADES]) == [100, 5000]


def test_a_map_looks_at_more_activities_unless_they_are_named() -> None:
    plain, mapped, named = (
        ReadinessParameters(fds=(10_000,), mechanism=("poll",), workload=("chain",), map=is_map, **active)
        for is_map, active in ((False, {}), (True, {}), (True, {"active": ("1", "7")}))
    )
    weights = [EXPERIMENT.cells(parameters)[0].weight for parameters in (named, plain, mapped)]
    assert weights == sorted(weights)
    assert len(set(weights)) == 3


@pytest.mark.parametrize("active", [{}, {"active": ("1", "100", "100%")}])
def test_what_is_usual_does_not_name_the_activities_of_a_map(active: dict[str, tuple[str, ...]]) -> None:
    """The shares among them, also those of --quick, would be refused: a map has its own."""
    parameters = ReadinessParameters(fds=(10_000,), mechanism=("poll",), workload=("chain",), map=True, **active)
    EXPERIMENT.check(parameters)
    (cell,) = EXPERIMENT.cells(parameters)
    assert cell.weight == design.make_cell("chain", "poll", 10_000, design.MAP_ACTIVE).weight


@pytest.mark.parametrize("active", [("100%",), ("1", "1%")])
def test_a_map_refuses_shares(active: tuple[str, ...]) -> None:
    EXPERIMENT.check(ReadinessParameters(active=active))
    with pytest.raises(UsageError, match="--map: its axes are counts; name --active without percentages"):
        EXPERIMENT.check(ReadinessParameters(active=active, map=True))


@pytest.mark.parametrize("mechanism", EVERYTHING)
def test_more_watched_need_more(mechanism: str) -> None:
    less, more = (design.make_cell("chain", mechanism, count, ("1",)) for count in (100, 900))
    assert less.needs.descriptors_count < more.needs.descriptors_count
    assert less.needs.memory_bytes < more.needs.memory_bytes
    assert less.weight < more.weight


def test_an_odd_count_needs_the_other_end_too() -> None:
    odd, even = (design.make_cell("chain", "select", count, ("1",)).needs for count in (7, 8))
    assert (odd.descriptors_count, odd.select_count) == (even.descriptors_count, even.select_count)


def test_short_connections_need_both_ends_of_those_that_come_at_once() -> None:
    chain, short = (design.make_cell(workload, "epoll", 1000, ("1", "100")).needs for workload in design.WORKLOADS)
    assert short.descriptors_count - chain.descriptors_count == 200


# --- refining ---------------------------------------------------------------------------------------------------------

TAKEN: list[Samples] = launches({"poll": linear(10), "epoll": flat(2000)}, (100, 1000))


def test_without_map_nothing_is_asked() -> None:
    assert EXPERIMENT.refine(ReadinessParameters(fds=(100, 1000)), TAKEN, 1) == []


@pytest.mark.usefixtures("twenty_thousand")
def test_with_map_every_mechanism_is_asked_at_the_new_count_that_it_can_watch() -> None:
    parameters = ReadinessParameters(fds=(100, 1000), mechanism=("select", "poll", "epoll"), map=True)
    cells = EXPERIMENT.refine(parameters, TAKEN, 1)
    assert [tuple(cell.key.values()) for cell in cells] == [
        ("chain", name, 320) for name in ("select", "poll", "epoll")
    ]
    taken = launches({"poll": linear(10), "epoll": flat(50_000)}, (1000, 10_000))
    beyond = EXPERIMENT.refine(parameters, taken, 1)
    assert [cell.key["mechanism"] for cell in beyond] == ["poll", "epoll"]
