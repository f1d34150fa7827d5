"""The design of fork-latency: which states are measured with which method, and which walls forbid them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from itertools import product
from typing import Any
from unittest import mock

import pytest
from c10k_probe.experiments import _creation_design as design
from c10k_probe.experiments.fork_latency import EXPERIMENT, ForkLatency, ForkLatencyParameters
from mock_experiment import Recorder

from c10k_probe import limits, native
from c10k_probe.exits import ExitCode, UsageError
from c10k_probe.experiment import Bench, Cell, Row, Samples, columns
from c10k_probe.limits import Wall
from c10k_probe.parameters import build_parameters
from c10k_probe.runner import Plan, Run, Tee

MIB = 1 << 20
STATE = {name: f"asked_{name}_{'bytes' if 'rss' in name else 'count'}" for name in design.NUMERIC}
AXES = {axis.name: axis for axis in design.AXES}


def cells_of(**chosen: Any) -> list[Cell]:
    return EXPERIMENT.cells(ForkLatencyParameters(**chosen))


def values_of(cells: list[Cell], *names: str) -> list[tuple[object, ...]]:
    return sorted(tuple(cell.key[name] for name in names) for cell in cells)


def state_of(cell: Cell) -> dict[str, object]:
    """What of the parent's state is not at rest."""
    return {name: cell.key[column] for name, column in STATE.items() if cell.key[column]}


# --- what is typed ----------------------------------------------------------------------------------------------------


def test_the_default_is_every_method_in_both_builds_in_a_parent_with_nothing() -> None:
    cells = cells_of()
    methods = ("fork", "vfork", "posix_spawn", "clone3", "pthread_create")
    assert values_of(cells, "method", "linking") == sorted(product(methods, ("dynamic", "static")))
    assert {(cell.key["axis"], cell.key["alive_kind"], cell.key["huge_pages"]) for cell in cells} == {
        ("base", "none", "off")
    }
    assert all(state_of(cell) == {} for cell in cells)


def test_the_levels_that_are_typed_are_combined() -> None:
    levels: dict[str, tuple[int, ...]] = {
        "rss": (0, MIB),
        "file_rss": (0, 4096),
        "mappings": (5, 10),
        "descriptors": (0, 3),
        "alive": (0, 2),
    }
    cells = cells_of(method=("fork", "pthread_create"), linking=("static",), **levels)
    asked = values_of(cells, "method", *(STATE[name] for name in levels))
    assert asked == sorted(product(("fork", "pthread_create"), *levels.values()))
    assert {cell.key["axis"] for cell in cells} == {"given"}


def test_placements_and_linkings_multiply() -> None:
    cells = cells_of(method=("fork",), linking=native.LINKINGS, placement=("one-cpu", "any-cpu"), rss=(0, MIB))
    assert values_of(cells, "linking", "placement", "asked_rss_bytes") == sorted(
        product(native.LINKINGS, ("one-cpu", "any-cpu"), (0, MIB))
    )


def test_what_means_the_same_twice_is_measured_once() -> None:
    """Own children are children; nobody alive is of no kind; a program in Python is not linked in two ways."""
    cells = cells_of(
        method=("fork", "pthread_create"), linking=("static",), alive=(0, 5), alive_kind=("own", "children")
    )
    assert values_of(cells, "method", "asked_alive_count", "alive_kind") == [
        ("fork", 0, "none"),
        ("fork", 5, "children"),
        ("pthread_create", 0, "none"),
        ("pthread_create", 5, "children"),
        ("pthread_create", 5, "threads"),
    ]
    assert values_of(cells_of(method=("os.fork",)), "method", "linking") == [("os.fork", "python")]


@pytest.mark.parametrize("chosen", [{}, {"sweep": True}, {"fit": True}, {"sweep": True, "fit": True}, {"stall": True}])
def test_no_two_cells_are_the_same(chosen: dict[str, bool]) -> None:
    everything = (*design.C_METHODS, *design.PYTHON_METHODS)
    cells = cells_of(method=everything, linking=native.LINKINGS, placement=("one-cpu", "any-cpu"), **chosen)
    assert [count for count in Counter(tuple(cell.key.values()) for cell in cells).values() if count > 1] == []
    assert len({cell.name for cell in cells}) == len(cells)
    keys = [item.name for item in columns(EXPERIMENT.row_type) if item.key]
    assert all(set(cell.key) == set(keys) for cell in cells)


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("fork", "children"),
        ("vfork", "children"),
        ("fork_exec_static", "children"),
        ("pthread_create", "threads"),
        ("pthread_create_64k", "threads"),
    ],
)
def test_who_is_alive_is_of_the_methods_own_kind(method: str, kind: str) -> None:
    (cell,) = cells_of(method=(method,), linking=("static",), alive=(7,))
    assert cell.key["alive_kind"] == kind


@pytest.mark.parametrize("kind", ["children", "threads"])
def test_who_is_alive_may_be_chosen(kind: str) -> None:
    """Fork from a parent that holds threads, and a thread beside children."""
    cells = cells_of(method=("fork", "pthread_create"), linking=("static",), alive=(7,), alive_kind=(kind,))
    assert {cell.key["alive_kind"] for cell in cells} == {kind}


# --- what goes with what ----------------------------------------------------------------------------------------------


def test_programs_in_python_are_measured_in_their_own_state_alone() -> None:
    """Nobody holds mappings for an interpreter: only a parent with nothing further is the same thing."""
    cells = cells_of(method=("fork", "os.fork", "threading.Thread"), linking=("dynamic",), rss=(0, MIB), alive=(0, 3))
    ours = [cell for cell in cells if cell.key["method"] != "fork"]
    assert values_of(ours, "method", "linking") == [("os.fork", "python"), ("threading.Thread", "python")]
    assert all(state_of(cell) == {} for cell in ours)
    assert len(cells) - len(ours) == 4


@pytest.mark.parametrize("method", design.PYTHON_METHODS)
def test_a_sweep_leaves_programs_in_python_at_the_base(method: str) -> None:
    for chosen in ({"sweep": True}, {"fit": True}):
        assert [state_of(cell) for cell in cells_of(method=(method,), **chosen)] == [{}]


def test_libraries_are_loaded_by_dynamic_programs_alone() -> None:
    cells = cells_of(method=("fork",), linking=native.LINKINGS, libraries=(0, 8))
    assert values_of(cells, "linking", "asked_libraries_count") == [
        ("dynamic", 0),
        ("dynamic", 8),
        ("static", 0),
        ("static-pie", 0),
    ]


def test_huge_pages_need_memory_to_lie_in() -> None:
    cells = cells_of(method=("fork",), linking=("static",), rss=(0, 16 * MIB), huge_pages=("off", "on"))
    assert values_of(cells, "asked_rss_bytes", "huge_pages") == [(0, "off"), (16 * MIB, "off"), (16 * MIB, "on")]


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"libraries": (8,), "linking": ("static",)}, ("--libraries", "--linking", "dynamic")),
        ({"libraries": (0, 8), "linking": ("static", "static-pie")}, ("--libraries", "--linking")),
        ({"huge_pages": ("on",)}, ("--huge-pages", "--rss")),
        ({"huge_pages": ("off", "on"), "rss": (0,)}, ("--huge-pages", "--rss")),
        ({"stall": True, "sweep": True}, ("--stall", "--sweep")),
        ({"stall": True, "fit": True}, ("--stall", "--fit")),
    ],
)
def test_what_cannot_be_combined_is_refused(chosen: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        EXPERIMENT.check(ForkLatencyParameters(**chosen))
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    "chosen",
    [
        {"libraries": (8,), "linking": ("static", "dynamic")},
        {"libraries": (0,), "linking": ("static",)},
        {"huge_pages": ("on",), "rss": (MIB,)},
        {"huge_pages": ("off",)},
        {"sweep": True, "fit": True},
        {"stall": True, "rss": (MIB,)},
    ],
)
def test_what_can_be_combined_is_not(chosen: dict[str, Any]) -> None:
    EXPERIMENT.check(ForkLatencyParameters(**chosen))


def test_a_stall_has_a_loop_that_spawns_nothing_beside_it() -> None:
    cells = cells_of(stall=True, method=("fork", "vfork"), linking=("static",), rss=(0, MIB))
    assert values_of(cells, "method", "asked_rss_bytes") == sorted(product(("none", "fork", "vfork"), (0, MIB)))


# --- sweeps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", design.COPYING_METHODS)
@pytest.mark.parametrize("linking", native.LINKINGS)
def test_a_sweep_varies_each_axis_alone(method: str, linking: str) -> None:
    cells = cells_of(sweep=True, method=(method,), linking=(linking,))
    by_axis: dict[str, list[Cell]] = {}
    for cell in cells:
        by_axis.setdefault(str(cell.key["axis"]), []).append(cell)
    assert set(by_axis) == {"base", *AXES, "huge_pages"} | ({"libraries"} if linking == "dynamic" else set())
    assert [state_of(cell) for cell in by_axis["base"]] == [{}]
    levels = {name: axis.levels for name, axis in AXES.items()} | {"libraries": design.LIBRARY_LEVELS}
    for name in by_axis.keys() - {"base", "huge_pages"}:
        assert [state_of(cell) for cell in by_axis[name]] == [{name: level} for level in levels[name]]
        assert {cell.key["huge_pages"] for cell in by_axis[name]} == {"off"}
    assert [state_of(cell) for cell in by_axis["huge_pages"]] == [{"rss": level} for level in design.HUGE_LEVELS]
    assert {cell.key["huge_pages"] for cell in by_axis["huge_pages"]} == {"on"}


def test_huge_pages_are_compared_with_the_same_memory_in_small_ones() -> None:
    assert set(design.HUGE_LEVELS) <= set(AXES["rss"].levels)


@pytest.mark.parametrize("method", ["vfork", "posix_spawn", "clone3", "pthread_create", "posix_spawn_static"])
def test_what_copies_nothing_is_swept_at_the_far_end_of_one_build(method: str) -> None:
    assert [state_of(cell) for cell in cells_of(sweep=True, method=(method,), linking=("static",))] == [{}]
    cells = cells_of(sweep=True, method=(method,), linking=("dynamic",))
    assert [state_of(cell) for cell in cells if cell.key["huge_pages"] == "off"] == [
        {},
        *({name: axis.levels[-1]} for name, axis in AXES.items()),
        {"libraries": design.LIBRARY_LEVELS[-1]},
    ]


def test_levels_that_were_typed_are_measured_beside_the_sweep() -> None:
    cells = cells_of(sweep=True, method=("fork",), linking=("static",), rss=(512 * MIB,))
    given = [cell for cell in cells if cell.key["axis"] == "given"]
    assert [state_of(cell) for cell in given] == [{"rss": 512 * MIB}]


# --- the joint design -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2026])
def test_the_joint_design_meets_each_stratum_of_each_axis_once(seed: int) -> None:
    states = list(design.joint_states(seed))
    assert len(states) == design.JOINT_POINTS
    for name, axis in AXES.items():
        steps = [axis.joint * step // (design.JOINT_POINTS - 1) for step in range(design.JOINT_POINTS)]
        assert sorted(getattr(state, name) for state in states) == steps
        assert (steps[0], steps[-1]) == (0, axis.joint)
    assert {(state.axis, state.huge_pages, state.libraries) for state in states} == {("joint", "off", 0)}


def test_the_joint_design_follows_from_its_seed() -> None:
    assert list(design.joint_states(1)) == list(design.joint_states(1))
    assert list(design.joint_states(1)) != list(design.joint_states(2))


def test_the_axes_of_the_joint_design_do_not_go_together() -> None:
    """Two axes in step could not be told apart by any fit."""
    ranks = {
        name: [round(getattr(state, name) / axis.joint * 11) for state in design.joint_states(0)]
        for name, axis in AXES.items()
    }
    for first, second in product(AXES, AXES):
        if first < second:
            apart = sum((a - b) ** 2 for a, b in zip(ranks[first], ranks[second], strict=True))
            correlation = 1 - 6 * apart / (12 * (12**2 - 1))  # Spearman's
            assert abs(correlation) < 0.75, (first, second)


def test_a_fit_has_the_base_every_axis_alone_and_all_together() -> None:
    cells = cells_of(fit=True, method=("fork",), linking=("static",))
    axes = Counter(cell.key["axis"] for cell in cells)
    assert set(axes) == {"base", *AXES, "huge_pages", "joint"}
    assert axes["joint"] == design.JOINT_POINTS
    sweep = cells_of(sweep=True, method=("fork",), linking=("static",))
    assert [cell for cell in cells if cell.key["axis"] != "joint"] == sweep


def test_quick_is_the_same_design_with_fewer_samples() -> None:
    quick = build_parameters(ForkLatencyParameters, {"sweep": "1"}, quick=True)
    full = build_parameters(ForkLatencyParameters, {"sweep": "1"}, quick=False)
    assert quick.n < full.n
    assert quick.budget < full.budget
    assert [cell.key for cell in EXPERIMENT.cells(quick)] == [cell.key for cell in EXPERIMENT.cells(full)]


# --- walls ------------------------------------------------------------------------------------------------------------

ROOMY = {"descriptors": 10**6, "pids": 10**7, "threads": 10**7, "maps": 10**7, "memory": 10**15, "address-space": 2**47}


def walls_with(**changed: int) -> list[Wall]:
    return [
        Wall(name.replace("_", "-"), "administrative", limit, 0, "things", "machine", "test", f"raise {name}")
        for name, limit in (ROOMY | changed).items()
    ]


class Refusing(ForkLatency):
    """Measures nothing, and remembers what it was asked to measure."""

    name = "fork-latency"
    question = "?"

    def __init__(self) -> None:
        self.asked: list[Cell] = []

    def measure(self, parameters: ForkLatencyParameters, cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        self.asked.append(cell)
        yield from ()


@pytest.mark.parametrize(
    ("chosen", "method", "walls", "named"),
    [
        ({"descriptors": (0, 20_000)}, "fork", {"descriptors": 20_000}, "descriptors"),
        ({"mappings": (0, 65_530)}, "fork", {"maps": 65_530}, "maps"),
        ({"alive": (0, 32_000)}, "fork", {"pids": 32_000}, "pids"),
        ({"alive": (0, 32_000)}, "pthread_create", {"threads": 32_000}, "threads"),
        ({"alive": (0, 33_000)}, "pthread_create", {"maps": 65_530}, "maps"),
        ({"libraries": (0, 128)}, "fork", {"maps": 500}, "maps"),
        ({"rss": (0, 8 << 30)}, "fork", {"memory": 8 << 30}, "memory"),
        ({"file_rss": (0, 8 << 30)}, "vfork", {"memory": 8 << 30}, "memory"),
        ({"alive": (0, 100_000)}, "fork", {"memory": 2 << 30}, "memory"),
        ({"alive": (0, 100_000)}, "pthread_create", {"memory": 2 << 30}, "memory"),
        ({"rss": (0, 8 << 30)}, "fork", {"commit": 12 << 30}, "commit"),
        ({"alive": (0, 2000)}, "pthread_create", {"commit": 12 << 30}, "commit"),
        ({"rss": (0, 1 << 46)}, "vfork", {"address_space": 1 << 45, "memory": 1 << 50}, "address-space"),
    ],
)
def test_a_state_beyond_a_wall_is_skipped_and_the_wall_is_named(
    chosen: dict[str, Any], method: str, walls: dict[str, int], named: str
) -> None:
    """Before anything is started; the state that fits is measured."""
    experiment, recorder = Refusing(), Recorder()
    parameters = ForkLatencyParameters(method=(method,), linking=("dynamic",), **chosen)
    with mock.patch.object(limits, "walls", lambda: walls_with(**walls)):
        Run(experiment, parameters, Plan(1, 1), Tee([recorder])).go({})
    (row,) = recorder.rows.values()
    assert (row["status"], row["grade"]) == ("skipped", "void")
    assert str(row["reason"]).startswith(f"{named}: ")
    assert f"raise {named.replace('-', '_')}" in str(row["reason"])
    assert [state_of(cell) for cell in experiment.asked] == [{}]
    ((name, (_, high)),) = chosen.items()
    assert row[STATE[name]] == high


def test_only_states_beyond_a_wall_is_nothing_measured() -> None:
    experiment, recorder = Refusing(), Recorder()
    parameters = ForkLatencyParameters(method=("fork",), descriptors=(10_000,))
    with mock.patch.object(limits, "walls", lambda: walls_with(descriptors=1024)):
        code = Run(experiment, parameters, Plan(1, 1), Tee([recorder])).go({})
    assert code == ExitCode.NOTHING_MEASURED
    assert experiment.asked == []


def test_a_wall_in_a_sweep_costs_its_states_alone() -> None:
    experiment, recorder = Refusing(), Recorder()
    parameters = ForkLatencyParameters(method=("fork",), linking=("static",), sweep=True)
    with mock.patch.object(limits, "walls", lambda: walls_with(maps=5000, descriptors=5000)):
        Run(experiment, parameters, Plan(1, 1), Tee([recorder])).go({})
    skipped = sorted((row["axis"], str(row["reason"]).partition(":")[0]) for row in recorder.rows.values())
    assert skipped == [("descriptors", "descriptors"), ("mappings", "maps")]
    assert len(experiment.asked) == len(cells_of(method=("fork",), linking=("static",), sweep=True)) - 2


@pytest.mark.parametrize("name", design.NUMERIC)
def test_every_axis_needs_more_of_some_limit(name: str) -> None:
    method = ("fork",)
    none, some = (cells_of(method=method, linking=("dynamic",), **{name: (level,)})[0] for level in (0, 100))
    less, more = (dataclasses.astuple(cell.needs) for cell in (none, some))
    assert all(a <= b for a, b in zip(less, more, strict=True))
    assert less != more
    assert some.weight >= none.weight
