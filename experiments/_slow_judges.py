"""The judge of slow-clients: C23 in four parts, each by the rule beside the verdict, from rows that are not void."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from c10k_probe import stats
from c10k_probe.experiment import NOT_MEASURED, FlatRow, Judge, Made, Verdict
from c10k_probe.units import format_column

from ._slow_design import CPU, NONE, OFF, ON

PER_CONNECTION = ("apache-prefork-php", "prefork", "thread-pool")  # a pool, one connection for each worker
EVENT_LOOPS = ("nginx", "node", "tornado", "epoll", "poll", "select", "io_uring", "asyncio", "uvloop")
SINGLE_LOOPS = ("node", "tornado")
STARVED_PCT, SERVED_PCT, FED_PCT, ALL_PCT, HEADROOM_COUNT = 10.0, 99.0, 90.0, 100.0, 8
WORK_NS, NEAR_NS = 2e9, 1.9e9  # an innocent due at once waits for all of the work, but for the first few ms
SOON_NS, SERVED_WITHIN_NS = 1e9, 5e9
_RESTATED = (
    "a badly configured server with a worker per connection is easily denied to others, uses up what it has and crashes"
)
_RULE = (
    "F1: W + 8 or more clients with slow headers leave <10 % of others served within 5 s by a pool of W without "
    "time-out, and ≥99 % by event loops; F2: such a pool dies of it; F3: under as many, with a header time-out, pools "
    "and event loops serve ≥90 % and live; F4: one request with 2 s of CPU has others wait ≥2 s (≥1.9 s from the first "
    "due) at an event loop, and none over 1 s at a pool; of each share and longest wait all of the 95 % "
    "interval over launches counts; CONFIRMED when all hold, REFUTED when none, PARTLY between, INCONCLUSIVE where an "
    "open part decides it; F1 and F2 are needed"
)
OPEN = "open"  # measured, and an interval reaches over a bound, or is none as there were too few launches
Outcome = bool | str | None  # None: not measured
Part = tuple[Outcome, list[str]]


def judge_c23(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C23: is a pool easily starved, does it crash, does a time-out help, and is the event loop any better?"""
    heads = [
        row
        for row in rows
        if row["kind"] == "head" and row["served_pct"] is not None and _number(row, "timeout_ns") == SERVED_WITHIN_NS
    ]
    parts = {"F1": _starved(heads), "F2": _crashed(heads), "F3": _defended(heads), "F4": _worked(rows)}
    words = "; ".join(f"{name} {_said(holds)}: {', '.join(texts)}" for name, (holds, texts) in parts.items())
    found = [holds for holds, _ in parts.values() if holds is not None]
    needed = parts["F1"][0], parts["F2"][0]
    if None in needed:
        return Verdict("C23", _RESTATED, _RULE, NOT_MEASURED, words)
    verdict = "INCONCLUSIVE" if OPEN in found else "CONFIRMED" if all(found) else "REFUTED"
    if OPEN not in needed and True in found and False in found:
        verdict = "PARTLY"
    return Verdict("C23", _RESTATED, _RULE, verdict, words)


def _said(holds: Outcome) -> str:
    if holds == OPEN:
        return "is open"
    return "not measured" if holds is None else "holds" if holds else "does not hold"


def _number(row: FlatRow, name: str) -> float:
    value = row.get(name)
    return float(value) if isinstance(value, (int, float)) else 0.0


def _at_least(rows: Sequence[FlatRow], servers: Sequence[str], defences: Sequence[str]) -> list[FlatRow]:
    """Of each of these servers the row with the fewest clients that are W + 8 or more; W is that of the pools."""
    workers_count = max((_number(row, "workers_count") for row in rows), default=0.0)
    found: dict[tuple[object, object], FlatRow] = {}
    for row in sorted(rows, key=lambda row: _number(row, "clients_count")):
        is_enough = workers_count and _number(row, "clients_count") >= workers_count + HEADROOM_COUNT
        if row["server"] in servers and row["defence"] in defences and is_enough:
            found.setdefault((row["server"], row["defence"]), row)
    return list(found.values())


def _with_interval(row: FlatRow, name: str) -> str:
    """A figure with the interval over its launches, or what it lacks for one."""
    stem, _, unit = name.rpartition("_")
    text = format_column(name, _number(row, name))
    low, high = row.get(f"{stem}_lo_{unit}"), row.get(f"{stem}_hi_{unit}")
    if low is None or high is None:
        return f"{text} (launches {_number(row, 'launches_count'):,.0f}, for an interval {stats.MINIMUM_LAUNCHES})"
    ends = ", ".join(format_column(name, float(str(end))) for end in (low, high))
    return f"{text} [{ends}]"


def _served_text(row: FlatRow) -> str:
    share = _with_interval(row, "served_pct")
    return f"{row['server']} {share} at {_number(row, 'clients_count'):,.0f} (defence {row['defence']})"


def _is_above(row: FlatRow, name: str, bound: float) -> Outcome:
    """Whether a figure is at least so much, or less, by all of its interval."""
    stem, _, unit = name.rpartition("_")
    low, high = row.get(f"{stem}_lo_{unit}"), row.get(f"{stem}_hi_{unit}")
    if not isinstance(low, (int, float)) or not isinstance(high, (int, float)):
        return OPEN
    return True if low >= bound else False if high < bound else OPEN


def _not(outcome: Outcome) -> Outcome:
    return not outcome if isinstance(outcome, bool) else outcome


def _all(outcomes: Iterable[Outcome]) -> Outcome:
    """Of parts that each are needed: one that does not hold decides; of none nothing is known."""
    found = list(outcomes)
    if not found or None in found:
        return None
    return False if False in found else OPEN if OPEN in found else True


def _starved(heads: Sequence[FlatRow]) -> Part:
    pools, loops = (_at_least(heads, names, (OFF, NONE)) for names in (PER_CONNECTION, EVENT_LOOPS))
    starved = _all(_not(_is_above(row, "served_pct", STARVED_PCT)) for row in pools)
    served = _all(_is_above(row, "served_pct", SERVED_PCT) for row in loops)
    texts = [_served_text(row) for row in (*pools, *loops)]
    return _all((starved, served)), texts or ["needs a pool and an event loop under W + 8 clients with slow heads"]


def _crashed(heads: Sequence[FlatRow]) -> Part:
    attacked = [
        row
        for row in heads
        if row["server"] in PER_CONNECTION and row["defence"] != ON and _number(row, "clients_count") > 0
    ]
    died = sum(_number(row, "died_count") for row in attacked)
    launches = sum(_number(row, "launches_count") for row in attacked)
    texts = [f"{died:,.0f} of {launches:,.0f} launches of pools died"] if attacked else ["needs a pool"]
    return (died > 0 if attacked else None), texts


def _defended(heads: Sequence[FlatRow]) -> Part:
    pools, loops = (_at_least(heads, names, (ON,)) for names in (PER_CONNECTION, EVENT_LOOPS))
    hold = [
        _all(_is_above(row, "served_pct", FED_PCT) if not _number(row, "died_count") else False for row in group)
        for group in (pools, loops)
    ]
    judged = [*pools, *loops]
    overrun = [
        row for row in heads if row["defence"] == ON and _number(row, "served_pct") < FED_PCT and row not in judged
    ]
    texts = [_served_text(row) for row in judged] + [f"yet {_served_text(row)}" for row in overrun]
    return _all(hold), texts if judged else ["needs a pool and an event loop that have time-outs"]


def _worked(rows: Sequence[FlatRow]) -> Part:
    working = [
        row
        for row in rows
        if row["kind"] == CPU
        and _number(row, "work_taken_ns") >= WORK_NS
        and _number(row, "timeout_ns") >= SERVED_WITHIN_NS  # with less, who waited longest would not be counted
    ]
    loops = [row for row in working if row["server"] in SINGLE_LOOPS]
    pools = [row for row in working if row["server"] in PER_CONNECTION]
    waited = _all(_is_above(row, "innocent_longest_ns", NEAR_NS) for row in loops)
    unharmed = _all(_is_unharmed(row) for row in pools)
    texts = [f"{row['server']} longest wait {_with_interval(row, 'innocent_longest_ns')}" for row in (*loops, *pools)]
    return _all((waited, unharmed)), texts or ["needs an event loop and a pool under --kinds cpu --work 2s"]


def _is_unharmed(row: FlatRow) -> Outcome:
    if _number(row, "served_pct") < ALL_PCT:
        return False
    return _not(_is_above(row, "innocent_longest_ns", SOON_NS))


JUDGES: tuple[Judge, ...] = (judge_c23,)
