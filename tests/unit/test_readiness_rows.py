"""The rows of readiness: known launches become known costs, ratios, calls, exponents and crossovers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from c10k_probe.experiments import _readiness_rows as rows
from c10k_probe.experiments.readiness import EXPERIMENT
from hypothesis import given
from hypothesis import strategies as st
from made_readiness import BLOCKS, EVENTS, Cost, launch, launches

from c10k_probe.experiment import Finding, Samples, columns
from c10k_probe.stats import Interval

SEED = 1
COUNTS = (100, 1000, 10_000)


def row_of(taken: Sequence[Samples], **wanted: Any) -> rows.ReadinessRow:
    """The one row with these values."""
    made = rows.summarise(taken, SEED)
    (found,) = [row for row in made if all(getattr(row, name) == value for name, value in wanted.items())]
    assert isinstance(found, rows.ReadinessRow)
    return found


def middle(interval: Interval | None) -> float:
    assert interval is not None
    return interval.middle


# --- one row ----------------------------------------------------------------------------------------------------------


def test_the_cost_of_an_event_is_the_pass_by_its_events() -> None:
    """The median pass of each launch, the median of the launches, and an interval from five on."""
    taken = [launch("poll", 10, 200 + 2 * block, block=block) for block in range(BLOCKS)]
    row = row_of(taken)
    assert row.event_ns is not None
    assert row.event_ns.middle == 204
    assert 200 <= (row.event_ns.low or 0) < 204 < (row.event_ns.high or 0) <= 208
    assert (row.launches_count, row.passes_count, row.events_count) == (BLOCKS, 3 * BLOCKS, 3 * BLOCKS * EVENTS)
    assert row.grade == "ok"


def test_few_launches_have_no_interval_and_say_so() -> None:
    row = row_of(launches({"poll": lambda *_: 200}, (10,), blocks=4))
    assert row.event_ns == Interval(200, None, None)
    assert row.grade == "shaky"
    assert "time per event" in row.grade_reason


def test_counts_are_by_event_and_switches_are_added_up() -> None:
    taken = [
        launch(
            "poll",
            10,
            200,
            block=block,
            cpu_user_ns=300 * 10,
            cpu_system_ns=300 * 30,
            calls_count=300 * 4,
            voluntary_switches_count=2,
            involuntary_switches_count=block,
        )
        for block in range(3)
    ]
    row = row_of(taken)
    assert (row.calls_per_event, row.cpu_ns, row.system_pct) == (4, 40, 75)
    assert (row.voluntary_switches_count, row.involuntary_switches_count) == (6, 3)
    assert row.calls == "read 1, write 1, poll 1"


def test_what_cannot_be_told_is_empty_and_never_zero() -> None:
    taken = [launch("asyncio", 10, 200, calls_count=None, calls=None, setup_ns=None, cpu_user_ns=None)]
    row = row_of(taken)
    assert (row.calls_per_event, row.calls, row.setup_ns, row.cpu_ns, row.system_pct) == (None,) * 5
    assert (row.register_ns, row.kernel_bytes_per_descriptor, row.over_epoll_ratio) == (None,) * 3


def test_set_up_and_kernel_memory_are_for_one_descriptor() -> None:
    taken = [launch("poll", 1000, 200, block=block, setup_ns=70_000, kernel_bytes=128_000) for block in range(BLOCKS)]
    row = row_of(taken)
    assert row.setup_ns == Interval(70, 70, 70)
    assert row.kernel_bytes_per_descriptor == Interval(128, 128, 128)


def test_kernel_memory_that_one_launch_could_not_read_is_empty() -> None:
    taken = [launch("poll", 1000, 200, block=block, kernel_bytes=None if block else 5000) for block in range(BLOCKS)]
    assert row_of(taken).kernel_bytes_per_descriptor is None


def test_registration_is_for_one_short_connection() -> None:
    taken = [launch("epoll", 10, 200, workload="short", register_ns=[100, 5000, 90_000])]
    assert middle(row_of(taken).register_ns) == 5000 / EVENTS


def test_a_launch_that_lost_an_event_makes_its_row_void() -> None:
    taken = [launch("poll", 10, 200, block=block, dropped_count=2 if block == 1 else 0) for block in range(BLOCKS)]
    row = row_of(taken)
    assert (row.dropped_count, row.grade) == (2, "void")
    assert "2 passes lost events or delivered them twice" in row.grade_reason


# --- ratios -----------------------------------------------------------------------------------------------------------


def test_the_ratio_is_over_epoll_with_the_same_watched_and_active_in_the_same_blocks() -> None:
    """The machine gets slower by half in the middle of the run, and the ratio does not see it."""

    def drifting(cost_ns: float) -> Cost:
        return lambda watched, block: cost_ns * watched * (1 if block < 3 else 1.5)

    taken = launches({"epoll": drifting(1), "poll": drifting(4)}, (10, 100))
    taken += launches({"epoll": drifting(100), "poll": drifting(50)}, (10, 100), active="5")
    for watched in (10, 100):
        for active, ratio in (("1", 4), ("5", 0.5)):
            row = row_of(taken, mechanism="poll", watched_count=watched, active=active)
            assert row.over_epoll_ratio == Interval(*[pytest.approx(ratio)] * 3)
            assert middle(row_of(taken, mechanism="epoll", watched_count=watched, active=active).over_epoll_ratio) == 1


def test_python_is_compared_with_pythons_epoll() -> None:
    costs: dict[str, Cost] = {name: lambda *_, c=cost: c for name, cost in BOTH.items()}
    taken = launches(costs, (10,))
    ratios = {name: middle(row_of(taken, mechanism=name).over_epoll_ratio) for name in ("poll", "select.poll")}
    assert ratios == {"poll": 2, "select.poll": 3}
    only_c = [item for item in taken if item.key["mechanism"] != "select.epoll"]
    assert row_of(only_c, mechanism="select.poll").over_epoll_ratio is None


BOTH = {"epoll": 100.0, "poll": 200.0, "select.epoll": 1000.0, "select.poll": 3000.0}


def test_activities_that_mean_the_same_count_are_compared() -> None:
    """50 % of 20 and 10 are the same row's neighbours."""
    taken = [launch("poll", 20, 300, active="10"), launch("epoll", 20, 100, active="50%")]
    assert middle(row_of(taken, mechanism="poll").over_epoll_ratio) == 3


def test_rows_stand_by_workload_watched_and_active_with_mechanisms_side_by_side() -> None:
    taken = []
    for active in ("100%", "1"):
        for workload in ("short", "chain"):
            taken += launches(
                {"poll": lambda *_: 1.0, "epoll": lambda *_: 1.0}, (100, 10), active=active, workload=workload
            )
    made = [row for row in rows.summarise(taken, SEED) if isinstance(row, rows.ReadinessRow)]
    keys = [(row.workload, row.watched_count, row.active_count or 0) for row in made]
    assert keys == sorted(keys)
    assert len(made) == 16
    assert [row.mechanism for row in made[:2]] == ["poll", "epoll"]


def test_views_and_charts_name_columns_that_there_are() -> None:
    names = {item.name for item in columns(rows.ReadinessRow)}
    for view in rows.VIEWS:
        assert {view.column, view.low, view.high} - {""} <= names
    for chart in rows.CHARTS:
        assert {chart.x, chart.y, chart.low, chart.high, *chart.series} <= names
    for drawn in rows.MAPS:
        assert {drawn.x, drawn.y, drawn.value, drawn.low, drawn.high, drawn.contestant} <= names
    assert EXPERIMENT.charts == (*rows.CHARTS, *rows.MAPS)


# --- how the cost grows -----------------------------------------------------------------------------------------------


def power(exponent: float, scale: float = 1000.0) -> Cost:
    """Costs as watched^exponent, each launch on a machine of another speed."""
    return lambda watched, block: scale * (watched / 100) ** exponent * (1 + block / 10)


def findings(taken: Sequence[Samples], column: str, *, all_pairs: bool = False) -> dict[str, Finding]:
    made = rows.findings(taken, SEED, all_pairs=all_pairs)
    found = {item.subject: item for item in made if item.column == column}
    assert len({(item.subject, item.column) for item in made}) == len(made)
    return found


@pytest.mark.parametrize("exponent", [1.0, 0.0, 0.5, -0.2])
def test_a_known_exponent_is_recovered_whatever_the_launches_speed(exponent: float) -> None:
    found = findings(launches({"poll": power(exponent, 1e6)}, COUNTS), "growth_exponent")
    value = found[rows.exponent_subject("chain", "1", "poll")].value
    assert value is not None
    assert (value.middle, value.low, value.high) == tuple([pytest.approx(exponent, abs=1e-3)] * 3)
    assert found["poll, chain, 1 active"].note == "from 100 to 10,000 watched"


def test_an_exponents_interval_is_over_launches() -> None:
    taken = launches({"poll": lambda watched, block: 1000.0 * watched ** (0.8 + block / 10)}, COUNTS)
    value = findings(taken, "growth_exponent")["poll, chain, 1 active"].value
    assert value is not None
    assert value.middle == pytest.approx(1.0, abs=0.01)
    assert 0.79 < (value.low or 0) < 0.95
    assert 1.05 < (value.high or 0) < 1.21


@pytest.mark.parametrize(
    ("watched", "active", "blocks", "is_there"),
    [
        (COUNTS, "1", 5, True),
        (COUNTS, "100%", 5, True),
        (COUNTS, "50%", 5, False),  # neither the same number stays active, nor all
        (COUNTS[:2], "1", 5, False),  # a line through two points always fits
        (COUNTS, "1", 1, True),
    ],
)
def test_when_there_is_an_exponent(watched: tuple[int, ...], active: str, blocks: int, is_there: bool) -> None:
    taken = launches({"poll": power(1)}, watched, active=active, blocks=blocks)
    found = findings(taken, "growth_exponent")
    assert bool(found) == is_there
    assert all((item.value.low is None) == (blocks < 5) for item in found.values() if item.value)


def test_an_exponent_is_of_launches_that_have_every_count() -> None:
    taken = launches({"poll": power(1)}, COUNTS)
    torn = [item for item in taken if (item.block, item.key["watched_count"]) != (4, 1000)]
    value = findings(torn, "growth_exponent")["poll, chain, 1 active"].value
    assert value is not None
    assert (value.middle, value.low) == (pytest.approx(1, abs=1e-3), None)
    none = [item for item in taken if (item.block % 2 == 0) == (item.key["watched_count"] == 1000)]
    assert findings(none, "growth_exponent") == {}


def test_what_lost_events_is_in_no_finding() -> None:
    """A void row is never ranked and decides nothing."""
    taken = launches({"epoll": power(0, 4000)}, COUNTS)
    taken += [
        launch("poll", count, 40 * count, block=block, dropped_count=1) for count in COUNTS for block in range(BLOCKS)
    ]
    made = rows.findings(taken, SEED, all_pairs=True)
    assert [item.subject for item in made] == ["epoll, chain, 1 active"]


# --- where one overtakes another --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratios", "found"),
    [
        ([1.0, 1.0], None),
        ([-1.0, -2.0], None),
        ([-1.0, 1.0], (10.0, True)),
        ([1.0, -1.0], (10.0, False)),
        ([-1.0, 3.0], (100**0.25, True)),
        ([3.0, -1.0], (100**0.75, False)),
        ([0.0, 1.0], (1.0, True)),
        ([1.0], None),
    ],
)
def test_a_crossing_between_1_and_100(ratios: list[float], found: tuple[float, bool] | None) -> None:
    """Where a straight line on a logarithmic axis meets 0, and on which side it goes on."""
    crossed = rows.crossing([1, 100][: len(ratios)], ratios)
    assert crossed == (None if found is None else (pytest.approx(found[0]), found[1]))


@pytest.mark.parametrize(
    ("ratios", "found"),
    [
        ([-1.0, -1.0, 1.0], (math.sqrt(10_000 * 100), True)),
        ([-1.0, 1.0, 1.0], (math.sqrt(100), True)),
        ([-1.0, 1.0, -1.0], (math.sqrt(10_000 * 100), False)),
        ([1.0, -1.0, 1.0], (math.sqrt(10_000 * 100), True)),
    ],
)
def test_the_last_change_for_good_counts(ratios: list[float], found: tuple[float, bool]) -> None:
    assert rows.crossing([1, 100, 10_000], ratios) == (pytest.approx(found[0]), found[1])


@given(st.floats(0.2, 3), st.floats(110, 9000), st.booleans())
def test_the_crossing_of_known_lines_is_found(exponent: float, at: float, rises: bool) -> None:
    sign = 1 if rises else -1
    ratios = [sign * exponent * (math.log(count) - math.log(at)) for count in COUNTS]
    assert rows.crossing(COUNTS, ratios) == (pytest.approx(at), rises)


def test_epoll_overtakes_poll_where_the_costs_are_equal() -> None:
    """10 ns for each watched against 20 us at all: at 2,000, in every launch, on whatever machine."""
    costs: dict[str, Cost] = {
        "poll": lambda watched, block: 10 * watched * (1 + block),
        "epoll": lambda _, block: 20_000 * (1 + block),
    }
    found = findings(launches(costs, COUNTS), "watched_count")
    assert list(found) == ["epoll overtakes poll, chain, 1 active"]
    value = found["epoll overtakes poll, chain, 1 active"].value
    assert value is not None
    assert (value.middle, value.low, value.high) == tuple([pytest.approx(2000, rel=1e-3)] * 3)


def test_the_one_that_becomes_cheaper_overtakes() -> None:
    costs: dict[str, Cost] = {"poll": power(-1, 1000), "epoll": power(0, 100)}
    assert list(findings(launches(costs, COUNTS), "watched_count")) == ["poll overtakes epoll, chain, 1 active"]


def test_lines_that_do_not_cross_have_no_finding() -> None:
    assert findings(launches({"poll": power(1, 2000), "epoll": power(0, 100)}, COUNTS), "watched_count") == {}
    assert findings(launches({"poll": power(1), "epoll": power(0, 2000)}, (100,)), "watched_count") == {}


def test_the_interval_of_a_crossing_is_over_launches() -> None:
    """In each launch the lines meet elsewhere: at 600, 800, 1,000, 1,200 and 1,400."""
    costs: dict[str, Cost] = {
        "poll": lambda watched, _: 100 * watched,
        "epoll": lambda _, block: 100 * (600 + 200 * block),
    }
    value = findings(launches(costs, COUNTS), "watched_count")["epoll overtakes poll, chain, 1 active"].value
    assert value is not None
    assert value.middle == pytest.approx(1000, rel=0.01)
    assert 599 < (value.low or 0) < 900
    assert 1100 < (value.high or 0) < 1401


@pytest.mark.parametrize("blocks", [1, 4])
def test_few_launches_decide_no_crossing(blocks: int) -> None:
    taken = launches({"poll": power(1, 500), "epoll": power(0, 1000)}, COUNTS, blocks=blocks)
    assert findings(taken, "watched_count") == {}


@pytest.mark.parametrize(("end", "factor"), [(0, 0.1), (-1, 10)])
def test_an_order_that_launches_do_not_agree_on_is_no_crossing(end: int, factor: float) -> None:
    """The lines cross at 1,000, but at one end it is the other way round in two of five launches."""

    def unsure(watched: int, block: int) -> float:
        return 1000 * (factor if watched == COUNTS[end] and block % 2 else 1)

    line = power(0.5, 1000 * math.sqrt(0.1))
    ends = (COUNTS[0], COUNTS[-1])
    assert findings(launches({"poll": line, "epoll": unsure}, ends), "watched_count") == {}
    assert len(findings(launches({"poll": line, "epoll": power(0, 1000)}, ends), "watched_count")) == 1


def test_pairs_are_with_epoll_unless_all_are_wanted() -> None:
    costs: dict[str, Cost] = {"select": power(1, 500), "poll": power(0.8, 600), "epoll": power(0, 1000)}
    taken = launches(costs, COUNTS)
    assert set(findings(taken, "watched_count")) == {
        "epoll overtakes select, chain, 1 active",
        "epoll overtakes poll, chain, 1 active",
    }
    assert set(findings(taken, "watched_count", all_pairs=True)) == {
        "epoll overtakes select, chain, 1 active",
        "epoll overtakes poll, chain, 1 active",
        "poll overtakes select, chain, 1 active",
    }


def test_workloads_and_activities_are_compared_apart() -> None:
    costs: dict[str, Cost] = {"poll": power(1, 500), "epoll": power(0, 1000)}
    taken = launches(costs, COUNTS) + launches(costs, COUNTS, workload="short", active="10")
    assert set(findings(taken, "watched_count")) == {
        "epoll overtakes poll, chain, 1 active",
        "epoll overtakes poll, short, 10 active",
    }


def test_counts_that_only_one_has_are_left_out() -> None:
    """select ends below 1,024; what it has in common with epoll decides."""
    taken = launches({"select": power(1, 500), "epoll": power(0, 1000)}, (100, 1000))
    taken += launches({"epoll": power(0, 1000)}, (10_000,))
    value = findings(taken, "watched_count")["epoll overtakes select, chain, 1 active"].value
    assert middle(value) == pytest.approx(200, rel=0.01)


def test_without_samples_there_is_nothing() -> None:
    assert rows.summarise([], SEED) == []
    assert rows.findings([], SEED, all_pairs=True) == []
