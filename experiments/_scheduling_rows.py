"""The rows of scheduling: their columns, and how launches become rows."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from c10k_probe import stats
from c10k_probe.experiment import Row, Samples, Scalar, column, estimate, spread
from c10k_probe.traced import dropped_column, price_column, tracing_column, wait_column

OWN_CPU_SHARE = 0.97
NEAR_EDGE_NS = 200_000
PLURAL = {"thread": "threads", "process": "processes"}

_Of = Callable[[Samples], float | None]


@dataclass(frozen=True, kw_only=True)
class SchedulingRow(Row):
    """One thing that was asked of the scheduler."""

    measure: str = column("switch, loss, slice, fairness, tick, runnable or fresh", key=True)
    method: str = column("how a task is made to give way, or the scheduling policy", key=True)
    kind: str = column("whether a task is a thread or a process", key=True)
    tasks_count: int = column("tasks", key=True)
    working_set_bytes: int = column("memory that each task goes through when its turn comes", key=True)
    work_ns: int = column("work that each task does at its turn, as asked for", key=True)
    cpus_count: int = column("CPUs that the tasks run on by turns", key=True)
    switch_ns: stats.Interval | None = estimate(
        "switch_ns", "one switch on one CPU, on two one turn's wake-up of the other; the harness's own cost taken out"
    )
    hop_ns: stats.Interval | None = estimate("hop_ns", "one task's turn with everything in it")
    harness_ns: stats.Interval | None = estimate("harness_ns", "the same calls, memory and work without a switch")
    refill_ns: stats.Interval | None = estimate(
        "refill_ns", "what going through as much memory as all tasks have costs over one task's own"
    )
    switches_per_hop_ratio: float | None = column("context switches that the kernel counted, for one turn")
    switches_per_s: stats.Interval | None = estimate("switches_per_s", "context switches, all tasks together")
    lost_pct: stats.Interval | None = estimate("lost_pct", "of the work that is done without switches")
    run: stats.Summary | None = spread("run", "time on the CPU from one switch to the next")
    base_slice_ns: float | None = column("slice that the kernel gives a task; only debugfs tells")
    whole_slice_ns: float | None = column("the same rounded up to a tick, at which its end is noticed")
    wait_max_ns: float | None = column("longest time that a task was ready and did not run")
    share_min_pct: float | None = column("CPU share of the task that got least, of an equal share, least of launches")
    fairness_index: float | None = column("Jain's index of the tasks' CPU times, smallest of launches")
    near_edge_pct: stats.Interval | None = estimate(
        "near_edge_pct", "of the interruptions: within 0.2 ms of an edge of the tick"
    )
    involuntary_switches_count: int | None = column("involuntary context switches of all tasks")
    voluntary_switches_count: int | None = column("voluntary context switches of all tasks")
    tick_config_ns: float | None = column("period of the tick by the kernel's configuration")
    tick_coarse_ns: stats.Interval | None = estimate("tick_coarse_ns", "period of the tick by the coarse clock's steps")
    tick_interrupt_ns: stats.Interval | None = estimate(
        "tick_interrupt_ns", "period of the tick by timer interrupts on a busy CPU"
    )
    tick_always: str | None = column("whether a running task is always ticked, and why")
    scheduler: str | None = column("the fair scheduler of this kernel")
    fresh_share_pct: stats.Interval | None = estimate(
        "fresh_share_pct", "CPU share of a fresh task beside one that has long been running"
    )
    burned_ns: float | None = column(
        "CPU time that the old task had used when the first fresh one came, least of launches"
    )
    window_ns: float | None = column("how long was watched in one launch, or one trial, least of them")
    n_count: int | None = column("samples: passes, runs or trials")
    launches_count: int | None = column("fresh processes that they come from")
    dropped_count: int | None = column("samples lost for want of room")
    traced_by: str = tracing_column()
    traced_switches_count: int | None = column("context switches that the tracer counted, of whole launches")
    charged_switches_count: int | None = column("the same by the kernel's account of what has ended (getrusage)")
    traced_over_charged_ratio: stats.Interval | None = estimate(
        "traced_over_charged_ratio", "switches by the tracer over those by the kernel's account"
    )
    runqueue_wait_ns: stats.Interval | None = wait_column("for one switch, traced")
    calls_count: int | None = column("system calls of whole launches, traced")
    traced_over_off_ratio: stats.Interval | None = price_column("time of a pass")
    trace_dropped_count: int | None = dropped_column()


def summarise(taken: Sequence[Samples], seed: int, facts: Mapping[str, Scalar]) -> list[SchedulingRow]:
    """One row for each cell that has samples, in their order; ``facts`` are those of the machine."""
    by_key: dict[tuple[Scalar, ...], list[Samples]] = {}
    for item in taken:
        by_key.setdefault(tuple(item.key.values()), []).append(item)
    return [_row(launches, seed, facts) for launches in by_key.values()]


def _row(launches: Sequence[Samples], seed: int, facts: Mapping[str, Scalar]) -> SchedulingRow:
    values = _ROWS[str(launches[0].key["measure"])](launches, seed, facts)
    grade = values.pop("grade")
    assert isinstance(grade, stats.Grade)
    dropped = [item.facts.get("dropped_count") for item in launches]
    return SchedulingRow(
        **launches[0].key,  # type: ignore[arg-type]
        **values,  # type: ignore[arg-type]
        launches_count=len({item.block for item in launches}),
        dropped_count=sum(int(count or 0) for count in dropped),
        grade=grade.level,
        grade_reason=grade.reason,
    )


# --- a ring of tasks --------------------------------------------------------------------------------------------------


def _ring(launches: Sequence[Samples], seed: int, _: Mapping[str, Scalar]) -> dict[str, object]:
    switch = stats.interval_of_all(map(_switch_ns, launches), seed)
    return {
        "switch_ns": switch,
        "hop_ns": stats.interval_of_all((_hop(item, "pass") for item in launches), seed),
        "harness_ns": stats.interval_of_all((_hop(item, "harness") for item in launches), seed),
        "refill_ns": stats.interval_of_all(map(_refill, launches), seed)
        if launches[0].key["working_set_bytes"]
        else None,
        "switches_per_hop_ratio": stats.median_of_known(map(_switches_per_hop, launches)),
        **_switch_counts(launches),
        "n_count": _count(launches, "pass"),
        "grade": stats.grade_interval(switch, "switch"),
    }


def _loss(launches: Sequence[Samples], seed: int, _: Mapping[str, Scalar]) -> dict[str, object]:
    lost = stats.interval_of_all(map(lost_pct, launches), seed)
    return {
        "lost_pct": lost,
        "switches_per_s": stats.interval_of_all(map(rate_per_s, launches), seed),
        **_switch_counts(launches),
        "n_count": _count(launches, "pass"),
        "grade": _grade_points(lost),
    }


def _switch_ns(item: Samples) -> float | None:
    """On one CPU a turn takes one switch or more; on two it takes a wake-up, and who is idle there is not switched."""
    turn = _hop(item, "pass") - _hop(item, "harness")
    if item.key["cpus_count"] != 1:
        return turn
    switches = _switches_per_hop(item)
    return turn / switches if switches else None


def _hop(item: Samples, name: str) -> float:
    """Nanoseconds of one task's turn in the median pass."""
    return statistics.median(item.values[name]) / float(item.facts["hops_per_pass_count"] or 1)


def _refill(item: Samples) -> float | None:
    return _hop(item, "harness") - _hop(item, "single_set") if "single_set" in item.values else None


def lost_pct(item: Samples) -> float:
    return 100 * (1 - _hop(item, "harness") / _hop(item, "pass"))


def rate_per_s(item: Samples) -> float:
    return (_switches_per_hop(item) or 0.0) * 1e9 / _hop(item, "pass")


def _switches_per_hop(item: Samples) -> float | None:
    """The switches were counted over somewhat more turns than were timed."""
    switches, hops = _switches(item), float(item.facts["counted_hops_count"] or 0)
    return None if switches is None or not hops else switches / hops


def _switches(item: Samples) -> float | None:
    voluntary, involuntary = item.facts["voluntary_switches_count"], item.facts["involuntary_switches_count"]
    return None if voluntary is None or involuntary is None else float(voluntary) + float(involuntary)


def _grade_points(value: stats.Interval | None) -> stats.Grade:
    """A share near 0 has no relative width: it is shaky when it is known to less than a percentage point."""
    if value is None or value.low is None or value.high is None:
        return stats.Grade("shaky", "work lost: too few measurements for an interval")
    half = (value.high - value.low) / 2
    return stats.Grade("shaky", f"work lost: known to ±{half:.1f} percentage points") if half > 1 else stats.Grade()


# --- tasks that contend for a CPU -------------------------------------------------------------------------------------


def _slice(launches: Sequence[Samples], seed: int, facts: Mapping[str, Scalar]) -> dict[str, object]:
    run = stats.summarise([item.values["run"] for item in launches], seed)
    waits = [max(item.values["longest_wait"]) for item in launches if item.values["longest_wait"]]
    return {
        "run": run,
        **_slices(facts["sched_base_slice_ns"], launches[0].facts["coarse_resolution_ns"]),
        "wait_max_ns": float(max(waits)) if waits else None,
        "fairness_index": min(map(fairness, (item.values["cpu"] for item in launches))),
        "share_min_pct": min(100 * min(cpu) * len(cpu) / sum(cpu) for cpu in (item.values["cpu"] for item in launches)),
        "near_edge_pct": stats.interval_of_all(map(_near_edge_pct, launches), seed),
        **_switch_counts(launches),
        "window_ns": _least(launches, "window_ns"),
        "n_count": run.samples_count if run else 0,
        "grade": _grade_slice(launches, run),
    }


def _slices(base_ns: Scalar, tick_ns: Scalar) -> dict[str, object]:
    """The base slice, and the whole ticks that it takes: preemption of a running task is decided at the tick.

    Source: kernel/sched/fair.c (entity_tick, update_deadline). A kernel with SCHED_HRTICK stops it in time.
    """
    base = float(base_ns) if base_ns else None
    tick = float(tick_ns) if tick_ns else None
    whole = math.ceil(base / tick) * tick if base and tick else None
    return {"base_slice_ns": base, "whole_slice_ns": whole}


def _grade_slice(launches: Sequence[Samples], run: stats.Summary | None) -> stats.Grade:
    """Shaky also when others had a part of the CPU that the tasks were to share."""
    is_one_launch = launches[0].key["measure"] == "fairness"  # by its rule, which asks for no interval
    grade = stats.Grade() if is_one_launch else stats.grade_interval(run.p50 if run else None, "uninterrupted run")
    had = min(sum(item.values["cpu"]) / float(item.facts["window_ns"] or 1) for item in launches)
    if had < OWN_CPU_SHARE:
        grade = grade.worse("shaky", f"others used {100 * (1 - had):.0f} % of the CPU that the tasks were to share")
    return grade


def fairness(cpu: Sequence[int]) -> float:
    """Jain's index: the square of the sum over n times the sum of squares; 1 when all got the same, 1/n at worst.

    Source: Jain, Chiu and Hawe, DEC-TR-301, 1984.
    """
    squares = sum(value * value for value in cpu)
    return sum(cpu) ** 2 / (len(cpu) * squares) if squares else 0.0


def _near_edge_pct(item: Samples) -> float | None:
    distances = item.values.get("edge_distance", ())
    return 100 * sum(value <= NEAR_EDGE_NS for value in distances) / len(distances) if distances else None


def _runnable(launches: Sequence[Samples], seed: int, _: Mapping[str, Scalar]) -> dict[str, object]:
    switch = stats.interval_of_all(map(yield_ns, launches), seed)
    return {
        "switch_ns": switch,
        "n_count": _count(launches, "pass"),
        "grade": stats.grade_interval(switch, "switch"),
    }


def yield_ns(item: Samples) -> float | None:
    """Nanoseconds of CPU of one switch among tasks that all yield, in the median pass."""
    each = [time / count for time, count in zip(item.values["cpu"], item.values["switches"], strict=True) if count]
    return statistics.median(each) if each else None


# --- the tick, and a fresh task ---------------------------------------------------------------------------------------


def _tick(launches: Sequence[Samples], seed: int, facts: Mapping[str, Scalar]) -> dict[str, object]:
    coarse = stats.interval_of_all(map(_coarse_step_ns, launches), seed)
    hertz = facts["kernel_tick_hz"]
    return {
        "tick_config_ns": 1e9 / float(hertz) if hertz else None,
        "tick_coarse_ns": coarse,
        "tick_interrupt_ns": stats.interval_of_all(map(_interrupt_ns, launches), seed),
        "tick_always": str(facts["tick_always"]) if facts["tick_always"] else None,
        "scheduler": str(facts["scheduler"]) if facts["scheduler"] else None,
        "window_ns": _least(launches, "duration_ns"),
        "n_count": _count(launches, "coarse_step"),
        "grade": stats.grade_interval(coarse, "step of the coarse clock"),
    }


def _coarse_step_ns(item: Samples) -> float | None:
    """The median step of the coarse clock; one that spans several ticks, since the loop was off the CPU, is parted."""
    steps = item.values["coarse_step"]
    shortest = min(steps, default=0)
    return statistics.median(step / round(step / shortest) for step in steps) if shortest else None


def _interrupt_ns(item: Samples) -> float | None:
    count = item.facts["timer_interrupts_count"]
    return float(item.facts["duration_ns"] or 0) / float(count) if count else None


def _fresh(launches: Sequence[Samples], seed: int, _: Mapping[str, Scalar]) -> dict[str, object]:
    """Each trial has samples of its own; where some are missing, the row says why."""
    trials = [item for item in launches if item.values]
    shares = [value for item in trials if (value := _fresh_share_pct(item)) is not None]
    share = stats.median_interval(shares, seed) if shares else None
    return {
        "fresh_share_pct": share,
        "burned_ns": _least(trials, "hog_burned_ns"),
        "window_ns": float(min(item.values["window"][0] for item in trials)),
        "n_count": len(shares),
        "grade": stats.grade_interval(share, "share of the fresh task"),
        **_end_of_trials(launches, len(trials)),
    }


def _fresh_share_pct(item: Samples) -> float | None:
    """The fresh task's part of what both got."""
    (fresh,), (hog,) = item.values["fresh_cpu"], item.values["hog_cpu"]
    return 100 * fresh / (fresh + hog) if fresh + hog else None


def _end_of_trials(launches: Sequence[Samples], done: int) -> dict[str, object]:
    """Status and reason of trials that were broken off, by a failure or from outside; nothing when all were made."""
    asked = max(int(item.facts.get("trials_count") or 0) for item in launches)
    failures = [str(item.facts["failure"]) for item in launches if "failure" in item.facts]
    if done >= asked and not failures:
        return {}
    told = f"{done} of {asked} trials were measured before the end"
    status = "failed" if failures else "interrupted"
    return {"status": status, "reason": "; ".join((*failures, told))}


_ROWS: Mapping[str, Callable[[Sequence[Samples], int, Mapping[str, Scalar]], dict[str, object]]] = {
    "switch": _ring,
    "loss": _loss,
    "slice": _slice,
    "fairness": _slice,
    "tick": _tick,
    "runnable": _runnable,
    "fresh": _fresh,
}


# --- parts ------------------------------------------------------------------------------------------------------------


def _least(launches: Iterable[Samples], fact: str) -> float | None:
    """The smallest of the launches' numbers of this name; None unless every launch has it."""
    found = [item.facts.get(fact) for item in launches]
    return None if None in found else min(float(value or 0) for value in found)


def _count(launches: Iterable[Samples], name: str) -> int:
    return sum(len(item.values[name]) for item in launches)


def _switch_counts(launches: Sequence[Samples]) -> dict[str, object]:
    names = ("voluntary_switches_count", "involuntary_switches_count")
    found = {name: [item.facts.get(name) for item in launches] for name in names}
    return {
        name: None if None in counts else sum(int(count or 0) for count in counts) for name, counts in found.items()
    }
