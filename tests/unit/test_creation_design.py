"""The design of fork-latency: which states are measured with which method, and which walls forbid them."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Any
from unittest import mock

import pytest
from c10k_probe.experiments import _creation_design as design
from c10k_probe.experiments.fork_latency import EXPERIMENT, ForkLatencyParameters

from c10k_probe import native
from c10k_probe.exits import UsageError
from c10k_probe.experiment import TRACED_BY, Cell, columns
from c10k_probe.parameters import build_parameters

MIB = 1 << 20
STATE = {name: f"asked_{name}_{'bytes' if 'rss' in name else 'count'}" for name in design.NUMERIC}
AXES = {axis.name: axis for axis in design.axes()}


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
    keys = {item.name for item in columns(EXPERIMENT.row_type) if item.key} - {TRACED_BY}
    assert all(set(cell.key) == keys for cell in cells)


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
    parameters = ForkLatencyParameters(method=("fork", "os.fork"), linking=("dynamic",), rss=(0, MIB))
    cells = [cell for cell in EXPERIMENT.cells(parameters) if cell.key["method"] == "os.fork"]
    assert values_of(cells, "linking", "asked_rss_bytes") == [("python", 0), ("python", MIB)]
    (refused,) = [cell for cell in cells if state_of(cell)]
    with pytest.raises(native.HelperUnsupported, match="no state but its own"):  # a skipped row with this reason
        next(EXPERIMENT.measure(parameters, refused, mock.Mock(block=0, blocks_count=1)))


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
        ({"stall": True, "n": 50}, ("--n", "--stall", "--rate")),
        ({"stall": True, "method": ("fork", "os.fork")}, ("--stall", "os.fork")),
        ({"rate": 50}, ("--rate", "--stall")),
        ({"most_rss": MIB}, ("--most-rss", "--sweep", "--fit")),
        ({"placement": ("auto", "any-cpu")}, ("--placement", "auto")),
        ({"huge_pages": ("on",), "rss": (MIB,)}, ("--huge-pages", "2MiB", "--rss")),
        ({"huge_pages": ("off", "on"), "rss": (0, MIB, 64 * MIB)}, ("--huge-pages", "2MiB")),
        ({"method": ("os.fork",), "rss": (MIB,)}, ("--rss", "interpreter")),
        ({"method": ("os.fork", "threading.Thread"), "alive": (5,), "rss": (0, MIB)}, ("--alive", "interpreter")),
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
        {"huge_pages": ("on",), "rss": (2 * MIB,)},
        {"huge_pages": ("off", "on"), "rss": (0, 2 * MIB)},
        {"huge_pages": ("off",)},
        {"sweep": True, "fit": True},
        {"stall": True, "rss": (MIB,)},
        {"stall": True, "rate": 50, "warmup": 0},
        {"stall": True, "n": 100},  # of --quick
        {"method": ("os.fork", "fork"), "rss": (MIB,)},
        {"method": ("os.fork",), "rss": (0, MIB)},
    ],
)
def test_what_can_be_combined_is_not(chosen: dict[str, Any]) -> None:
    EXPERIMENT.check(ForkLatencyParameters(**chosen))


def test_a_stall_has_a_loop_that_spawns_nothing_beside_it() -> None:
    cells = cells_of(stall=True, method=("fork", "vfork"), linking=("static",), rss=(0, MIB))
    assert values_of(cells, "method", "asked_rss_bytes") == sorted(product(("none", "fork", "vfork"), (0, MIB)))


def test_one_cpu_is_usual_and_any_cpu_where_a_loop_ticks() -> None:
    """On one CPU the loop would spin before its child may start."""

    def placements(**chosen: Any) -> set[object]:
        return {cell.key["placement"] for cell in cells_of(**chosen)}

    assert (placements(), placements(stall=True)) == ({"one-cpu"}, {"any-cpu"})
    assert placements(stall=True, placement=("one-cpu",)) == {"one-cpu"}


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
    assert [state_of(cell) for cell in by_axis["huge_pages"]] == [{"rss": level} for level in design.huge_levels()]
    assert {cell.key["huge_pages"] for cell in by_axis["huge_pages"]} == {"on"}


def test_huge_pages_are_compared_with_the_same_memory_in_small_ones() -> None:
    assert set(design.huge_levels()) <= set(AXES["rss"].levels)


@pytest.mark.parametrize("method", ["vfork", "posix_spawn", "clone3", "pthread_create", "posix_spawn_static"])
def test_what_copies_nothing_is_swept_at_the_far_end_of_one_build(method: str) -> None:
    assert [state_of(cell) for cell in cells_of(sweep=True, method=(method,), linking=("static",))] == [{}]
    cells = cells_of(sweep=True, method=(method,), linking=("dynamic",))
    far_ends = [{name: axis.levels[-1]} for name, axis in AXES.items()]
    nearer = [{"alive": level} for level in AXES["alive"].levels[:-1]] if method == design.BASE_METHOD else []
    found = [state_of(cell) for cell in cells if cell.key["huge_pages"] == "off"]
    assert sorted(found, key=str) == sorted([{}, *far_ends, *nearer, {"libraries": design.LIBRARY_LEVELS[-1]}], key=str)


def test_a_sweep_compares_fork_with_threads_beside_every_count_of_live_tasks() -> None:
    """C19 is a ratio at each of them."""
    cells = cells_of(sweep=True)
    counts = {
        method: {cell.key["asked_alive_count"] for cell in cells if cell.key["method"] == method}
        for method in ("fork", "pthread_create")
    }
    assert counts["fork"] == counts["pthread_create"] == {0, *AXES["alive"].levels}
    assert max(AXES["alive"].levels) >= 1000


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


def test_quick_is_the_same_design_with_fewer_samples_and_less_memory() -> None:
    quick = build_parameters(ForkLatencyParameters, {"sweep": "1"}, quick=True)
    full = build_parameters(ForkLatencyParameters, {"sweep": "1"}, quick=False)
    assert quick.n < full.n
    assert quick.budget < full.budget
    assert quick.most_rss < full.most_rss
    few, many = EXPERIMENT.cells(quick), EXPERIMENT.cells(full)
    assert values_of(few, "method", "linking", "axis") == values_of(many, "method", "linking", "axis")
    assert [state_of(cell) for cell in few if "rss" not in str(state_of(cell))] == [
        state_of(cell) for cell in many if "rss" not in str(state_of(cell))
    ]


@pytest.mark.parametrize("most", [MIB, 3 * MIB, 32 * MIB, 1 << 30])
def test_the_largest_parent_of_a_sweep_may_be_chosen(most: int) -> None:
    cells = cells_of(fit=True, method=("fork",), linking=("static",), most_rss=most)
    assert max(int(cell.key["asked_rss_bytes"]) for cell in cells) == most
    huge = [int(cell.key["asked_rss_bytes"]) for cell in cells if cell.key["huge_pages"] == "on"]
    assert all(size >= 2 * MIB for size in huge)
    assert bool(huge) == (most >= 2 * MIB)
