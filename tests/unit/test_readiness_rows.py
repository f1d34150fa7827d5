"""The rows of readiness: known launches become known costs, ratios and calls, in their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from c10k_probe.experiments import _readiness_design as design
from c10k_probe.experiments import _readiness_rows as rows
from c10k_probe.experiments.readiness import EXPERIMENT, ReadinessParameters
from made_readiness import BLOCKS, EVENTS, Cost, flat, launch, launches

from c10k_probe.experiment import Samples, WinnerMap, columns
from c10k_probe.stats import Interval

SEED = 1


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


@pytest.mark.parametrize(("cpu_ns", "grade"), [(100.0, "ok"), (92.0, "ok"), (90.0, "shaky"), (40.0, "shaky")])
def test_time_that_was_not_cpu_time_makes_a_row_shaky(cpu_ns: float, grade: str) -> None:
    """100 ns elapsed: over 1.10 of the CPU time is too much. A row says whose it was."""
    user = round(cpu_ns * EVENTS)
    used = {"cpu_user_ns": user, "cpu_system_ns": 2 * user}  # of three passes
    row = row_of([launch("poll", 10, 100, block=block, **used) for block in range(BLOCKS)])
    assert (row.grade, row.cpu_ns) == (grade, cpu_ns)
    others_pct = round(100 - cpu_ns)
    assert row.grade_reason == ("" if grade == "ok" else f"others had the CPU for {others_pct} % of the time")


def test_one_launch_that_others_held_up_makes_no_row_shaky() -> None:
    taken = [launch("poll", 10, 100, block=block) for block in range(BLOCKS - 1)]
    taken.append(launch("poll", 10, 400, block=4, cpu_user_ns=100 * EVENTS, cpu_system_ns=200 * EVENTS))
    assert row_of(taken).grade_reason.count("others") == 0


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


def test_rows_stand_by_workload_kind_watched_and_active_with_mechanisms_as_declared() -> None:
    """C before Python, whatever order launches come in; side by side is what is compared."""
    named = ("uvloop", "select.poll", "io_uring_recv", "select", "epoll")
    costs: dict[str, Cost] = {name: flat(1) for name in named}
    taken = [
        item
        for active in ("100%", "1")
        for workload in ("short", "chain")
        for item in launches(costs, (100, 10), blocks=1, active=active, workload=workload)
    ]
    made = [row for row in rows.summarise(taken, SEED) if isinstance(row, rows.ReadinessRow)]
    assert [(row.workload, row.watched_count, row.active_count, row.mechanism) for row in made] == [
        (workload, watched, active, mechanism)
        for workload in ("chain", "short")
        for kind in (("select", "epoll", "io_uring_recv"), ("select.poll", "uvloop"))
        for watched in (10, 100)
        for active in (1, watched)
        for mechanism in kind
    ]


def test_the_best_is_of_the_same_kind() -> None:
    """Python and C are never compared: each kind has a cheapest, which is 1."""
    costs: dict[str, Cost] = {name: flat(cost) for name, cost in BOTH.items()}
    taken = launches(costs, (10,))
    ratios = {name: middle(row_of(taken, mechanism=name).over_best_ratio) for name in BOTH}
    assert ratios == {"epoll": 1, "poll": 2, "select.epoll": 1, "select.poll": 3}
    python = [item for item in taken if item.key["mechanism"] == "select.poll"]
    assert middle(row_of(python, mechanism="select.poll").over_best_ratio) == 1


@pytest.mark.parametrize(
    ("mechanisms", "contestants"),
    [
        (("epoll", "asyncio"), design.C_MECHANISMS),
        (("asyncio", "uvloop"), design.PYTHON_MECHANISMS),
        (("poll",), design.C_MECHANISMS),
    ],
)
def test_a_map_has_contestants_of_one_kind(mechanisms: tuple[str, ...], contestants: tuple[str, ...]) -> None:
    charts = EXPERIMENT.charts_of(ReadinessParameters(mechanism=mechanisms, map=True))
    maps = [chart for chart in charts if isinstance(chart, WinnerMap)]
    assert [dict(chart.where)["mechanism"] for chart in maps] == [contestants] * 2
    assert [chart.same_ratio for chart in maps] == [1.10] * 2


def test_views_and_charts_name_columns_that_there_are() -> None:
    names = {item.name for item in columns(rows.ReadinessRow)}
    for view in rows.VIEWS:
        assert {view.column, view.low, view.high} - {""} <= names
    for chart in rows.CHARTS:
        assert {chart.x, chart.y, chart.low, chart.high, *chart.series} <= names
    for drawn in rows.MAPS:
        assert {drawn.x, drawn.y, drawn.value, drawn.low, drawn.high, drawn.contestant} <= names
    assert EXPERIMENT.charts == (*rows.CHARTS, *rows.MAPS)


def test_without_samples_there_are_no_rows() -> None:
    assert rows.summarise([], SEED) == []
