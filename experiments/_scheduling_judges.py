"""The claims that scheduling judges, each by its rule: C11 to C17, C28 and C57."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from c10k_probe.experiment import NOT_MEASURED, Finding, FlatRow, Judge, Made, Verdict
from c10k_probe.units import format_column

from ._scheduling_findings import LOST_PCT, runnable_subject

CLAIMED_TICK_NS = 10_000_000
TICK_TOLERANCE = 0.05
EDGE_SHARE_PCT = 90
DEMOTED_PCT = 45
EQUAL_PCT = (48, 52)
MOST_GROWTH = 1.2
CLAIMED_RUN_NS = (9e6, 11e6)
FAIR_INDEX = 0.99
LONGEST_WAIT_SLICES = 4

Ends = tuple[float, float, float]


def _rows(rows: Sequence[FlatRow], **asked: object) -> list[FlatRow]:
    return [row for row in rows if all(row[name] == value for name, value in asked.items())]


def _ends(row: FlatRow, stem: str, suffix: str) -> Ends | None:
    """Middle, low and high of an estimate; None unless all are there."""
    found = [row[f"{stem}{part}{suffix}"] for part in ("", "_lo", "_hi")]
    return None if None in found else tuple(float(value or 0) for value in found)  # type: ignore[return-value]


def _text(column: str, ends: Ends) -> str:
    middle, low, high = (format_column(column, value) for value in ends)
    return f"{middle} [{low}, {high}]"


def judge_c11(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C11: is a running process interrupted every 10 ms, by a constant of the build?"""
    restated = "the kernel interrupts a running process every 10 ms, a period fixed when it was built"
    rule = (
        "F1 the period is 10 ms ±5 % by every way that can be read, F2 it is part of the build's configuration, F3 a "
        "running task is always ticked; CONFIRMED when all hold, REFUTED when none does, else PARTLY"
    )
    found = _rows(rows, measure="tick")
    periods = _periods(found[0]) if found else {}
    if not periods:
        return Verdict("C11", restated, rule, NOT_MEASURED, "needs --measure tick")
    first = all(abs(value / CLAIMED_TICK_NS - 1) <= TICK_TOLERANCE for value in periods.values())
    second = found[0]["tick_config_ns"] is not None
    third = str(found[0]["tick_always"] or "").startswith("yes")
    held = [first, second, third]
    verdict = "CONFIRMED" if all(held) else "PARTLY" if any(held) else "REFUTED"
    ways = ", ".join(f"{way} {format_column('x_ns', value)}" for way, value in periods.items())
    evidence = f"F1 {_yes(first)}: {ways}; F2 {_yes(second)}; F3 {_yes(third)}: {found[0]['tick_always']}"
    return Verdict("C11", restated, rule, verdict, evidence)


def _periods(row: FlatRow) -> Mapping[str, float]:
    columns = {"configuration": "tick_config_ns", "coarse clock": "tick_coarse_ns", "interrupts": "tick_interrupt_ns"}
    return {way: float(row[name] or 0) for way, name in columns.items() if row[name] is not None}


def judge_c12(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C12: do involuntary switches happen at the tick?"""
    restated = "whether to switch is decided at the tick"
    rule = "CONFIRMED when ≥90 % of two CPU-bound tasks' interruptions lie within 0.2 ms of a tick's edge, else REFUTED"
    found = _rows(rows, measure="slice", tasks_count=2, method="other")
    ends = _ends(found[0], "near_edge", "_pct") if found else None
    if ends is None:
        return Verdict("C12", restated, rule, NOT_MEASURED, "needs --measure slice with two tasks in five launches")
    verdict = "CONFIRMED" if ends[1] >= EDGE_SHARE_PCT else "REFUTED" if ends[2] < EDGE_SHARE_PCT else "INCONCLUSIVE"
    return Verdict("C12", restated, rule, verdict, f"{_text('x_pct', ends)} lie there")


def judge_c13(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C13: does an old CPU hog get less than a fresh task, as a multilevel feedback queue would have it?"""
    restated = "a task that has used much CPU falls behind one that is fresh (a multilevel feedback queue)"
    rule = "CONFIRMED when the old task's share is under 45 % (high end), REFUTED when it is inside 48 to 52 %"
    found = _rows(rows, measure="fresh")
    fresh = _ends(found[0], "fresh_share", "_pct") if found else None
    if fresh is None:
        return Verdict("C13", restated, rule, NOT_MEASURED, "needs --measure fresh with five --trials")
    old: Ends = (100 - fresh[0], 100 - fresh[2], 100 - fresh[1])
    inside = EQUAL_PCT[0] <= old[1] and old[2] <= EQUAL_PCT[1]
    verdict = "CONFIRMED" if old[2] < DEMOTED_PCT else "REFUTED" if inside else "INCONCLUSIVE"
    evidence = f"the old task got {_text('x_pct', old)} beside a fresh one, {found[0]['n_count']} trials"
    return Verdict("C13", restated, rule, verdict, evidence)


def judge_c14(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C14 is a question to the source."""
    restated = "ready queues are kept in order with a heap"
    rule = "CONFIRMED when this kernel's fair scheduler keeps its runnable tasks in a binary heap; read from its source"
    found = _rows(rows, measure="tick")
    scheduler = found[0]["scheduler"] if found else None
    if not scheduler:
        return Verdict("C14", restated, rule, NOT_MEASURED, "needs --measure tick, which reads the kernel's release")
    evidence = (
        f"{scheduler}: a red-black tree ordered by virtual time (tasks_timeline in kernel/sched/fair.c); the O(1) "
        "scheduler of 2.6.0 to 2.6.22 had 140 lists and a bitmap; neither is a heap"
    )
    return Verdict("C14", restated, rule, "REFUTED", evidence, is_measured=False)


def judge_c15(rows: Sequence[FlatRow], made: Sequence[Made]) -> Verdict:
    """C15: does a switch cost the same however many tasks are runnable?"""
    restated = "the cost of a scheduling decision does not depend on the number of runnable tasks"
    rule = (
        "CONFIRMED when the slope of a switch's cost on log2 n has 0 in its interval and most over fewest is <1.2 "
        "(high end), REFUTED when the slope is above 0 and the ratio ≥1.2 (low end), else PARTLY"
    )
    values = {
        item.column: item.value
        for item in made
        if isinstance(item, Finding) and item.subject == runnable_subject("thread")
    }
    slope, ratio = values.get("growth_ns"), values.get("switch_ratio")
    if slope is None or ratio is None or None in (slope.low, slope.high, ratio.low, ratio.high):
        return Verdict("C15", restated, rule, NOT_MEASURED, "needs --measure runnable at three counts, five launches")
    slope_ends: Ends = (slope.middle, slope.low or 0.0, slope.high or 0.0)
    ratio_ends: Ends = (ratio.middle, ratio.low or 0.0, ratio.high or 0.0)
    holds = slope_ends[1] <= 0 <= slope_ends[2] and ratio_ends[2] < MOST_GROWTH
    fails = slope_ends[1] > 0 and ratio_ends[1] >= MOST_GROWTH
    counts = sorted(int(row["tasks_count"] or 0) for row in _rows(rows, measure="runnable", kind="thread"))
    evidence = (
        f"{_text('x_ns', slope_ends)} more for each doubling from {counts[0]:,} to {counts[-1]:,} runnable threads, "
        f"{_text('x_ratio', ratio_ends)} in all"
    )
    return Verdict("C15", restated, rule, "CONFIRMED" if holds else "REFUTED" if fails else "PARTLY", evidence)


def judge_c16(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C16: is a process stopped every 10 ms?"""
    restated = "scheduling runs at 100 Hz: a process is stopped every 10 ms"
    rule = "CONFIRMED when the median uninterrupted run of two CPU-bound tasks lies within 9 to 11 ms, else REFUTED"
    found = _rows(rows, measure="slice", tasks_count=2, method="other")
    ends = _ends(found[0], "run_p50", "_ns") if found else None
    if ends is None:
        return Verdict("C16", restated, rule, NOT_MEASURED, "needs --measure slice with two tasks in five launches")
    low, high = CLAIMED_RUN_NS
    outside = ends[2] < low or ends[1] > high
    verdict = "REFUTED" if outside else "CONFIRMED" if low <= ends[1] and ends[2] <= high else "INCONCLUSIVE"
    more = [
        f"{row['tasks_count']} tasks ({row['method']}) {format_column('x_ns', row['run_p50_ns'])}"
        for row in _rows(rows, measure="slice")
        if (row["tasks_count"], row["method"]) != (2, "other")
    ]
    others = f"; {', '.join(more)}" if more else ""
    return Verdict("C16", restated, rule, verdict, f"two tasks run {_text('x_ns', ends)} without interruption{others}")


def judge_c17(_: Sequence[FlatRow], made: Sequence[Made]) -> Verdict:
    """C17: how many switches cost 5 % of the throughput? That a server reaches so many is another run's part."""
    restated = "too many switches burn CPU and cut throughput"
    rule = (
        "CONFIRMED when at the rate of switches of a server with a process or thread per connection, at its own "
        "saturation, a fixed job loses ≥5 %; this run finds the rate at which 5 % are lost, not the server's"
    )
    found = [item for item in made if isinstance(item, Finding) and item.subject.startswith(f"{LOST_PCT:g} % of")]
    known = [item for item in found if item.value is not None]
    if not known:
        return Verdict("C17", restated, rule, NOT_MEASURED, "needs --measure loss at several --work")
    texts = [(item.subject, format_column("x_per_s", item.value.middle)) for item in known if item.value]
    evidence = "; ".join(f"{subject} from {rate}" for subject, rate in texts)
    return Verdict("C17", restated, rule, "INCONCLUSIVE", f"{evidence}; the server's own rate is not part of this run")


def judge_c28(rows: Sequence[FlatRow], made: Sequence[Made]) -> Verdict:
    """C28: a switch costs something (a number), and the model is unsuitable (not a question for a measurement)."""
    restated = "a context switch is an expense, and scheduling by the CPU does not suit a web server"
    rule = "the first half is C17's; the second is a judgement of taste"
    found = [
        (row, ends)
        for row in _rows(rows, measure="switch", cpus_count=1, tasks_count=2, working_set_bytes=0)
        if (ends := _ends(row, "switch", "_ns")) is not None
    ]
    evidence = "; ".join(f"{row['method']}, {row['kind']}: {_text('x_ns', ends)} a switch" for row, ends in found)
    return Verdict("C28", restated, rule, "NOT-FALSIFIABLE", evidence or "see C17")


def judge_c57(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C57: does every task get its share, and soon enough?"""
    restated = "a good scheduler shares the CPU fairly and starves nobody"
    rule = (
        "CONFIRMED when eight equal tasks on one CPU have a Jain index ≥0.99 and none waits longer than four rounds of "
        "slices (4 x 8 x the median run), REFUTED when neither holds, else PARTLY"
    )
    found = _rows(rows, measure="fairness")
    row = found[0] if found else None
    if row is None or None in (row["fairness_index"], row["wait_max_ns"], row["run_p50_ns"]):
        return Verdict("C57", restated, rule, NOT_MEASURED, "needs --measure fairness")
    allowed = LONGEST_WAIT_SLICES * int(row["tasks_count"] or 0) * float(row["run_p50_ns"] or 0)
    fair, soon = float(row["fairness_index"] or 0) >= FAIR_INDEX, float(row["wait_max_ns"] or 0) <= allowed
    verdict = "CONFIRMED" if fair and soon else "PARTLY" if fair or soon else "REFUTED"
    evidence = (
        f"index {format_column('x_index', row['fairness_index'])} ({_yes(fair)}); longest wait "
        f"{format_column('x_ns', row['wait_max_ns'])} of {format_column('x_ns', allowed)} allowed ({_yes(soon)})"
    )
    return Verdict("C57", restated, rule, verdict, evidence)


def _yes(holds: bool) -> str:
    return "holds" if holds else "fails"


JUDGES: tuple[Judge, ...] = (
    judge_c11,
    judge_c12,
    judge_c13,
    judge_c14,
    judge_c15,
    judge_c16,
    judge_c17,
    judge_c28,
    judge_c57,
)
