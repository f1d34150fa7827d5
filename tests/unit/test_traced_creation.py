"""What one more creation, or one more connection, adds: from traces with known answers, without a tracer."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from c10k_probe.experiments import _connection_traced as connections
from c10k_probe.experiments import _creation_traced as creation
from c10k_probe.experiments import _traced_launch as launch
from c10k_probe.experiments._creation_rows import Launch
from c10k_probe.experiments.fork_latency import EXPERIMENT, ForkLatencyParameters

from c10k_probe import stats
from c10k_probe.experiment import Samples, Scalar, flatten
from c10k_probe.parameters import build_parameters
from c10k_probe.tracing.result import Call, Histogram, Trace

FIXED = 40  # calls of a launch, however many it creates


def trace(creations: int, backend: str = "bcc", dropped: int | None = 0, notes: tuple[str, ...] = ()) -> Trace:
    """A launch whose each creation makes one clone3, one wait4 and two mmap."""
    counts = {"clone3": creations, "wait4": creations, "mmap": 2 * creations + FIXED}
    return Trace(
        backend=backend,
        elapsed_s=1.0,
        calls={name: Call(name, count) for name, count in counts.items()},
        calls_count=sum(counts.values()),
        voluntary_switches_count=creations + 3,
        involuntary_switches_count=7,
        runqueue=Histogram((0,), 0),
        runqueue_wait_s=creations * 5e-6 + 0.1,
        page_faults_count=20 * creations + 300,
        dropped_events_count=dropped,
        dropped_tasks_count=None if dropped is None else 0,
        notes=notes,
    )


# --- per creation ---------------------------------------------------------------------------------------------------


def test_what_does_not_grow_with_the_number_is_left_out() -> None:
    found = launch.per_one(trace(10), trace(40), 30)
    assert found.each == {
        "calls_count": 4,
        "voluntary_switches_count": 1,
        "involuntary_switches_count": 0,
        "page_faults_count": 20,
        "runqueue_wait_ns": pytest.approx(5000),
    }
    assert found.calls is not None
    assert {name: count for name, count in found.calls.items() if count} == {"clone3": 1, "mmap": 2, "wait4": 1}
    assert found.calls["vfork"] == 0, "it counts every call: a name that it lacks was not made"
    assert found.dropped_count == 0


def test_what_a_backend_does_not_know_is_none() -> None:
    blind = Trace("proc", 1.0, voluntary_switches_count=5)
    found = launch.per_one(blind, Trace("proc", 1.0, voluntary_switches_count=25), 10)
    assert found.calls is None
    assert found.each["voluntary_switches_count"] == 2
    assert {name for name, value in found.each.items() if value is None} == {
        "calls_count",
        "involuntary_switches_count",
        "page_faults_count",
        "runqueue_wait_ns",
    }
    assert found.dropped_count is None


def test_of_perf_only_the_names_that_it_was_told_are_known() -> None:
    found = launch.per_one(trace(10, "perf"), trace(40, "perf"), 30)
    assert found.calls is not None
    assert "vfork" not in found.calls


def test_nothing_is_divided_by_no_difference() -> None:
    found = launch.per_one(trace(10), trace(10), 0)
    assert set(found.each.values()) == {None}
    assert found.calls is None


def test_calls_as_text() -> None:
    assert launch.calls_text({"wait4": 1.0, "mmap": 2.0, "clone3": 1.0, "vfork": 0.0, "write": 0.02}) == (
        "mmap=2 clone3=1 wait4=1 write=0.02"
    )
    assert launch.calls_text({}) is None


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, (1, 2)), (2, (1, 2)), (3, (1, 3)), (50, (12, 50)), (1000, (250, 1000))]
)
def test_the_two_launches_differ_in_size(count: int, sizes: tuple[int, int]) -> None:
    assert creation.sizes(count) == sizes


@pytest.mark.parametrize(
    ("ends", "level"),
    [
        ((100, 99, 101), "ok"),
        ((100, 90, 110), "shaky"),
        ((0.01, -0.03, 0.05), "ok"),  # wide beside itself, but nothing beside one call
        ((0, 0, 0), "ok"),
        ((0, -0.2, 0.2), "shaky"),
        ((4, None, None), "shaky"),
    ],
)
def test_counts_are_graded_by_their_intervals(ends: tuple[float, float | None, float | None], level: str) -> None:
    grade = launch.grade_counts({"calls": stats.Interval(*ends), "not counted": None})
    assert grade.level == level
    assert grade.reason.startswith("calls: ") == (level == "shaky")


# --- rows of fork-latency -------------------------------------------------------------------------------------------

PARAMETERS = build_parameters(ForkLatencyParameters, {"method": "fork", "linking": "static"}, quick=True)
(CELL,) = EXPERIMENT.cells(PARAMETERS)


def taken(
    block: int, cycle: int, backend: str = "off", small: int = 10, large: int = 40, **of_trace: object
) -> Samples:
    """A launch of 40 creations; traced ones were counted against one of 10."""
    if backend == "off":
        return Samples(CELL.key, block, {"return": [cycle // 2] * 40, "cycle": [cycle] * 40}, {"clock_cost_ns": 1})
    cell = type(CELL)({**CELL.key, "traced_by": backend})
    hello = {"helper": "fork_latency", "clock_cost_ns": 20}
    launches = [
        Launch(cell, block, n, 5, hello, {"dropped_count": 0}, {"return_ns": [cycle // 2] * n, "cycle_ns": [cycle] * n})
        for n in (small, large)
    ]
    return creation.samples(launches, [trace(n, backend, **of_trace) for n in (small, large)])  # type: ignore[arg-type]


def rows(*samples: Samples) -> list[Mapping[str, Scalar]]:
    return [flatten(row) for row in EXPERIMENT.summarise(PARAMETERS, samples, 1)]


def test_traced_rows_come_last_with_what_each_creation_takes() -> None:
    base = [taken(block, 1000) for block in range(5)]
    plain, traced = rows(*[taken(block, 3000, "bcc") for block in range(5)], *base)
    assert (plain["traced_by"], plain["cycle_p50_ns"], plain["calls_per_creation"], plain["calls"]) == (
        "off",
        1000,
        None,
        None,
    )
    assert (traced["traced_by"], traced["cycle_p50_ns"]) == ("bcc", 3000)
    assert traced["calls"] == "mmap=2 clone3=1 wait4=1"
    exact = {
        "clone": 0,
        "clone3": 1,
        "fork": 0,
        "vfork": 0,
        "execve": 0,
        "mmap": 2,
        "mprotect": 0,
        "munmap": 0,
        "wait4": 1,
    }
    assert {name: traced[f"{name}_per_creation"] for name in exact} == exact
    for name, value in (("calls", 4), ("voluntary_switches", 1), ("involuntary_switches", 0), ("page_faults", 20)):
        ends = [traced[f"{name}{part}_per_creation"] for part in ("", "_lo", "_hi")]
        assert ends == [value] * 3, name
    assert [traced[f"traced_over_off{part}_ratio"] for part in ("", "_lo", "_hi")] == [3, 3, 3]
    assert (traced["return_ratio"], traced["over_static_ratio"], traced["same_ratio"]) == (None, None, None)
    assert (traced["grade"], traced["trace_dropped_count"], traced["launches_count"]) == ("ok", 0, 5)


def test_untraced_rows_are_the_same_beside_traced_ones() -> None:
    base = [taken(block, 1000 + block) for block in range(5)]
    alone = rows(*base)
    assert rows(*base, *[taken(block, 3000, "bcc") for block in range(5)])[:1] == alone


@pytest.mark.parametrize(
    ("change", "grade", "reason"),
    [
        ({"dropped": 3}, "void", "30 tasks or events could not be counted"),
        ({"small": 40}, "shaky", creation.CUT),
        ({"notes": ("5 wake-ups were missed",)}, "shaky", "5 wake-ups were missed"),
    ],
)
def test_doubts_about_what_was_counted_are_told(change: dict[str, object], grade: str, reason: str) -> None:
    (row,) = rows(*[taken(block, 3000, "bcc", **change) for block in range(5)])  # type: ignore[arg-type]
    assert (row["grade"], row["grade_reason"]) == (grade, reason)


def test_few_traced_launches_are_shaky() -> None:
    (row,) = rows(taken(0, 3000, "bcc"))
    assert (row["grade"], row["calls_lo_per_creation"]) == ("shaky", None)
    assert row["calls_per_creation"] == 4


def test_the_loop_cannot_be_traced() -> None:
    assert "--stall" in EXPERIMENT.untraceable(build_parameters(ForkLatencyParameters, {"stall": "yes"}, quick=True))
    assert EXPERIMENT.untraceable(PARAMETERS) == ""


# --- per connection -------------------------------------------------------------------------------------------------


def ramped(opened: int, backend: str = "bcc", dropped: int = 0) -> Trace:
    """Each connection takes one accept4, and each step one that fails."""
    calls = {"accept4": Call("accept4", opened + 1, 1), "sendto": Call("sendto", opened, 0)}
    return Trace(backend, 1.0, calls, 2 * opened + 1, voluntary_switches_count=opened, dropped_events_count=dropped)


def counter(*steps: int, **how: object) -> connections._Counter:
    found = connections._Counter("bcc", None)  # type: ignore[arg-type]
    for opened in steps:
        found.add(opened, ramped(opened, **how))  # type: ignore[arg-type]
    return found


def test_slopes_over_the_steps() -> None:
    columns = counter(10, 10, 20, 40, 80, 160).columns()
    assert columns["voluntary_switches_per_connection"].middle == 1
    assert columns["done_calls"] == "accept4=1 sendto=1"
    assert 2 < columns["calls_per_connection"].middle < 2.2
    assert columns["calls_per_connection"].low is not None
    assert columns["page_faults_per_connection"] is None
    assert columns["trace_dropped_count"] == 0


def test_without_errors_nobody_knows_which_calls_were_done() -> None:
    found = connections._Counter("perf", None)  # type: ignore[arg-type]
    found.add(10, Trace("perf", 1.0, {"accept4": Call("accept4", 11)}, 11))
    assert found.columns()["done_calls"] is None
    assert found.columns()["calls"] == "accept4=1.1"
