"""The claims that scheduling judges, each by its rule: C11 to C17, C28 and C57."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from c10k_probe.experiment import NOT_MEASURED, Finding, FlatRow, Judge, Made, Scalar, Verdict
from c10k_probe.units import format_column

from ._scheduling_findings import LOST_PCT, runnable_subject

CLAIMED_TICK_NS = 10_000_000
TICK_TOLERANCE = 0.05
WATCHED_NS = 5e9
EDGE_SHARE_PCT = 90
DEMOTED_PCT = 45
EQUAL_PCT = (48, 52)
BURNED_NS = 10e9
BURNED_SHARE = 0.95  # of it: starting, and others on that CPU, take the rest
TRIAL_NS = 1e9
TRIALS = 30
MOST_GROWTH = 1.2
RUNNABLE = (2, 4096)
CLAIMED_RUN_NS = (9e6, 11e6)
FAIR_INDEX = 0.99
LONGEST_WAIT_SLICES = 4
SHARED_NS = 10e9

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


def _of_parts(*held: bool | None) -> str:
    """PARTLY where one part surely holds and another surely fails; None is a part that is open."""
    if True in held and False in held:
        return "PARTLY"
    return "INCONCLUSIVE" if None in held else "CONFIRMED" if all(held) else "REFUTED"


def _short_of(what: str, column: str, value: Scalar, asked: float, least: float | None = None) -> str:
    """What the rule asks for and this run did not do; empty where it did, or did at least ``least``."""
    if isinstance(value, (int, float)) and value >= (asked if least is None else least):
        return ""
    return f"{what} {format_column(column, value) or 'unknown'} (rule: {format_column(column, asked)})"


def _unless(verdict: Verdict, *shortfalls: str) -> Verdict:
    """The verdict; INCONCLUSIVE, with what it would be, where a condition of its rule is not met."""
    told = " and ".join(text for text in shortfalls if text)
    return verdict.capped(told) if told else verdict


def judge_c11(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C11: is a running process interrupted every 10 ms, by a constant of the build?"""
    restated = "the kernel interrupts a running process every 10 ms, a period fixed when it was built"
    rule = (
        "F1 the period is 10 ms ±5 % by every way that can be read (by interrupts, to which other timers add, at most "
        "that), F2 it is part of the build's configuration, F3 a running task is always ticked; CONFIRMED when all "
        "hold, REFUTED when all fail, PARTLY when some hold and some fail, else INCONCLUSIVE; watched for 5 s in all"
    )
    found = _rows(rows, measure="tick")
    periods = _periods(found[0]) if found else {}
    if not periods:
        return Verdict("C11", restated, rule, NOT_MEASURED, "needs --measure tick")
    always = str(found[0]["tick_always"] or "")
    held = (
        _is_ten_ms(periods),
        True if "configuration" in periods else None,
        always.startswith("yes") if always else None,
    )
    ways = ", ".join(f"{way} {format_column('x_ns', value)}" for way, value in periods.items())
    first, second, third = map(_yes, held)
    configuration = "" if held[1] else ": the kernel's configuration cannot be read"
    evidence = f"F1 {first}: {ways}; F2 {second}{configuration}; F3 {third}{f': {always}' if always else ''}"
    watched_ns = float(found[0]["window_ns"] or 0) * int(found[0]["launches_count"] or 0)
    verdict = Verdict("C11", restated, rule, _of_parts(*held), evidence)
    return _unless(verdict, _short_of("it was watched for", "x_ns", watched_ns, WATCHED_NS))


def _periods(row: FlatRow) -> Mapping[str, float]:
    columns = {"configuration": "tick_config_ns", "coarse clock": "tick_coarse_ns", "interrupts": "tick_interrupt_ns"}
    return {way: float(row[name] or 0) for way, name in columns.items() if row[name] is not None}


def _is_ten_ms(periods: Mapping[str, float]) -> bool | None:
    """None where only interrupts can be read, and come often enough: other timers may be among them."""
    relative = {way: value / CLAIMED_TICK_NS - 1 for way, value in periods.items()}
    is_slower = relative.pop("interrupts", 0.0) > TICK_TOLERANCE
    if is_slower or any(abs(value) > TICK_TOLERANCE for value in relative.values()):
        return False
    return True if relative else None


def _pair(rows: Sequence[FlatRow], stem: str, suffix: str) -> tuple[Ends | None, FlatRow | None, str]:
    """An estimate of two tasks' slices, its row, and where there are no two, of the fewest: what the rule asks for."""
    known = [(ends, row) for row in _rows(rows, measure="slice", method="other") if (ends := _ends(row, stem, suffix))]
    if not known:
        return None, None, ""
    ends, row = min(known, key=lambda pair: int(pair[1]["tasks_count"] or 0))
    tasks = int(row["tasks_count"] or 0)
    return ends, row, "" if tasks == 2 else f"these were {tasks} tasks (rule: two)"


def judge_c12(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C12: do involuntary switches happen at the tick?"""
    restated = "whether to switch is decided at the tick"
    rule = (
        "CONFIRMED when ≥90 % of two CPU-bound tasks' interruptions lie within 0.2 ms of a tick's edge (low end), "
        "REFUTED when fewer do (high end)"
    )
    ends, _row, shortfall = _pair(rows, "near_edge", "_pct")
    if ends is None:
        return Verdict("C12", restated, rule, NOT_MEASURED, "needs --measure slice with two tasks in five launches")
    verdict = "CONFIRMED" if ends[1] >= EDGE_SHARE_PCT else "REFUTED" if ends[2] < EDGE_SHARE_PCT else "INCONCLUSIVE"
    return _unless(Verdict("C12", restated, rule, verdict, f"{_text('x_pct', ends)} lie there"), shortfall)


def judge_c13(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C13: does an old CPU hog get less than a fresh task, as a multilevel feedback queue would have it?"""
    restated = "a task that has used much CPU falls behind one that is fresh (a multilevel feedback queue)"
    rule = (
        "CONFIRMED when the old task's share is under 45 % (high end), REFUTED when it is inside 48 to 52 %; after 10 "
        "s of CPU (±5 %), in the fresh task's first second, 30 trials"
    )
    found = _rows(rows, measure="fresh")
    fresh = _ends(found[0], "fresh_share", "_pct") if found else None
    if fresh is None:
        return Verdict("C13", restated, rule, NOT_MEASURED, "needs --measure fresh with five --trials")
    old: Ends = (100 - fresh[0], 100 - fresh[2], 100 - fresh[1])
    inside = EQUAL_PCT[0] <= old[1] and old[2] <= EQUAL_PCT[1]
    verdict = "CONFIRMED" if old[2] < DEMOTED_PCT else "REFUTED" if inside else "INCONCLUSIVE"
    trials = found[0]["n_count"]
    evidence = f"the old task got {_text('x_pct', old)} beside a fresh one, {trials} trials"
    return _unless(
        Verdict("C13", restated, rule, verdict, evidence),
        _short_of("the old task had used", "x_ns", found[0]["burned_ns"], BURNED_NS, BURNED_SHARE * BURNED_NS),
        _short_of("a trial lasted", "x_ns", found[0]["window_ns"], TRIAL_NS),
        _short_of("the trials were", "x_count", trials, TRIALS),
    )


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
        "S the slope of a switch's cost on log2 n has 0 in its interval, R most over fewest is <1.2 (its interval); "
        "CONFIRMED when both hold, REFUTED when both fail, PARTLY when one holds and one fails, else INCONCLUSIVE; n "
        "from 2 to 4,096"
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
    is_flat = slope_ends[1] <= 0 <= slope_ends[2]
    is_small = True if ratio_ends[2] < MOST_GROWTH else False if ratio_ends[1] >= MOST_GROWTH else None
    known = _rows(rows, measure="runnable", kind="thread", status="ok")
    counts = sorted(int(row["tasks_count"] or 0) for row in known) or [0]
    evidence = (
        f"S {_yes(is_flat)}: {_text('x_ns', slope_ends)} more for each doubling from {counts[0]:,} to {counts[-1]:,} "
        f"runnable threads; R {_yes(is_small)}: {_text('x_ratio', ratio_ends)} in all; the caches that more stacks "
        "take are in it, there is no control for them"
    )
    met = counts[0] <= RUNNABLE[0] and counts[-1] >= RUNNABLE[1]
    shortfall = "" if met else f"they were {counts[0]:,} to {counts[-1]:,} (rule: 2 to 4,096)"
    return _unless(Verdict("C15", restated, rule, _of_parts(is_flat, is_small), evidence), shortfall)


def judge_c16(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C16: is a process stopped every 10 ms?"""
    restated = "scheduling runs at 100 Hz: a process is stopped every 10 ms"
    rule = (
        "CONFIRMED when the median uninterrupted run of two CPU-bound tasks lies within 9 to 11 ms (its interval), "
        "REFUTED when outside"
    )
    ends, pair, shortfall = _pair(rows, "run_p50", "_ns")
    if ends is None or pair is None:
        return Verdict("C16", restated, rule, NOT_MEASURED, "needs --measure slice with two tasks in five launches")
    low, high = CLAIMED_RUN_NS
    outside = ends[2] < low or ends[1] > high
    verdict = "REFUTED" if outside else "CONFIRMED" if low <= ends[1] and ends[2] <= high else "INCONCLUSIVE"
    others = [
        f"{row['tasks_count']} tasks ({row['method']}) {format_column('x_ns', row['run_p50_ns'])}"
        for row in _rows(rows, measure="slice")
        if row is not pair
    ]
    who = "two tasks run" if pair["tasks_count"] == 2 else f"{pair['tasks_count']} tasks run"
    evidence = "; ".join((f"{who} {_text('x_ns', ends)} without interruption", *others, _slice_text(pair)))
    return _unless(Verdict("C16", restated, rule, verdict, evidence), shortfall)


def _slice_text(row: FlatRow) -> str:
    """What the kernel says of its slice."""
    if row["base_slice_ns"] is None:
        return "base slice unknown: needs debugfs"
    base, whole = (format_column("x_ns", row[name]) for name in ("base_slice_ns", "whole_slice_ns"))
    return f"base slice {base}, {whole} in whole ticks" if whole else f"base slice {base}"


def judge_c17(_: Sequence[FlatRow], made: Sequence[Made]) -> Verdict:
    """C17: how many switches cost 5 % of the throughput? That a server reaches so many is another run's part."""
    restated = "too many switches burn CPU and cut throughput"
    rule = (
        "CONFIRMED when at the rate of switches of a server with a process or thread per connection, at its own "
        "saturation, a fixed job loses ≥5 %; this run finds the rate at which 5 % are lost, not the server's"
    )
    found = [item for item in made if isinstance(item, Finding) and item.subject.startswith(f"{LOST_PCT:g} % of")]
    if not found:
        return Verdict("C17", restated, rule, NOT_MEASURED, "needs --measure loss")
    told = (f"{item.subject}{f' from {_rate_text(item)}' if item.value else f': {item.note}'}" for item in found)
    evidence = "; ".join((*told, "the server's own rate is not part of this run"))
    return Verdict("C17", restated, rule, "INCONCLUSIVE", evidence)


def _rate_text(item: Finding) -> str:
    """The rate with its interval, of which an end may be open; without one when there are too few launches."""
    assert item.value is not None
    middle, low, high = (
        format_column(item.column, end) or "open" for end in (item.value.middle, item.value.low, item.value.high)
    )
    return middle if (low, high) == ("open", "open") else f"{middle} [{low}, {high}]"


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
        "J eight equal tasks on one CPU have a Jain index ≥0.99, W none waits longer than four rounds of slices (4 x 8 "
        "x the base slice in whole ticks; where that cannot be read, the median run); CONFIRMED when both hold, "
        "REFUTED when both fail, else PARTLY; over 10 s"
    )
    found = _rows(rows, measure="fairness")
    row = found[0] if found else None
    if row is None or None in (row["fairness_index"], row["wait_max_ns"], row["run_p50_ns"]):
        return Verdict("C57", restated, rule, NOT_MEASURED, "needs --measure fairness")
    is_known = row["whole_slice_ns"] is not None
    slice_ns = float((row["whole_slice_ns"] if is_known else row["run_p50_ns"]) or 0)
    which = "the base slice in whole ticks" if is_known else "the median run, as the base slice could not be read"
    allowed = LONGEST_WAIT_SLICES * int(row["tasks_count"] or 0) * slice_ns
    fair, soon = float(row["fairness_index"] or 0) >= FAIR_INDEX, float(row["wait_max_ns"] or 0) <= allowed
    evidence = (
        f"J {_yes(fair)}: {format_column('x_index', row['fairness_index'])}; W {_yes(soon)}: the longest wait is "
        f"{format_column('x_ns', row['wait_max_ns'])} of {format_column('x_ns', allowed)} allowed, by a slice of "
        f"{format_column('x_ns', slice_ns)} ({which})"
    )
    verdict = Verdict("C57", restated, rule, _of_parts(fair, soon), evidence)
    return _unless(verdict, _short_of("they were watched for", "x_ns", row["window_ns"], SHARED_NS))


def _yes(holds: bool | None) -> str:
    return "is open" if holds is None else "holds" if holds else "fails"


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
