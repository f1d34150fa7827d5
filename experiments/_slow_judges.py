"""The judge of slow-clients: C23 in four parts, each by the rule beside the verdict, from rows that are not void."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from c10k_probe.experiment import NOT_MEASURED, FlatRow, Judge, Made, Verdict
from c10k_probe.units import format_column

from ._slow_design import CPU, NONE, OFF, ON

PER_CONNECTION = ("apache-prefork-php", "prefork", "thread-pool")  # a pool, one connection for each worker
EVENT_LOOPS = ("nginx", "node", "tornado", "epoll", "poll", "select", "io_uring", "asyncio", "uvloop")
SINGLE_LOOPS = ("node", "tornado")
STARVED_PCT, SERVED_PCT, FED_PCT, HEADROOM_COUNT = 10.0, 99.0, 90.0, 8
WORK_NS, NEAR_NS = 2e9, 1.9e9  # an innocent due at once waits for all of the work, but for the first few ms
SOON_NS, SERVED_WITHIN_NS = 1e9, 5e9
_RESTATED = (
    "a badly configured server with a worker per connection is easily denied to others, uses up what it has and crashes"
)
_RULE = (
    "F1: W + 8 or more clients with slow headers leave <10 % of others served within 5 s by a pool of W without "
    "time-out, and ≥99 % by event loops; F2: such a pool dies of it; F3: under as many, with a header time-out, pools "
    "and event loops serve ≥90 % and live; F4: one request with 2 s of CPU has others wait ≥2 s (≥1.9 s from the first "
    "due) at an event loop, and none over 1 s at a pool; CONFIRMED when all hold, REFUTED when none, PARTLY between; "
    "F1 and F2 are needed"
)
Part = tuple[bool | None, list[str]]


def judge_c23(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C23: is a pool easily starved, does it crash, does a time-out help, and is the event loop any better?"""
    heads = [
        row
        for row in rows
        if row["kind"] == "head" and row["served_pct"] is not None and _number(row, "timeout_ns") == SERVED_WITHIN_NS
    ]
    parts = {"F1": _starved(heads), "F2": _crashed(heads), "F3": _defended(heads), "F4": _worked(rows)}
    words = "; ".join(f"{name} {_said(holds)}: {', '.join(texts)}" for name, (holds, texts) in parts.items())
    known = [holds for holds, _ in parts.values() if holds is not None]
    if parts["F1"][0] is None or parts["F2"][0] is None:
        return Verdict("C23", _RESTATED, _RULE, NOT_MEASURED, words)
    verdict = "CONFIRMED" if all(known) else "PARTLY" if any(known) else "REFUTED"
    return Verdict("C23", _RESTATED, _RULE, verdict, words)


def _said(holds: bool | None) -> str:
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


def _served_text(row: FlatRow) -> str:
    share = format_column("served_pct", _number(row, "served_pct"))
    return f"{row['server']} {share} at {_number(row, 'clients_count'):,.0f} (defence {row['defence']})"


def _all(rows: Sequence[FlatRow], is_so: Callable[[FlatRow], bool]) -> bool | None:
    return all(map(is_so, rows)) if rows else None


def _both(first: bool | None, second: bool | None) -> bool | None:
    """A part that has two halves needs both."""
    return None if first is None or second is None else first and second


def _starved(heads: Sequence[FlatRow]) -> Part:
    pools, loops = (_at_least(heads, names, (OFF, NONE)) for names in (PER_CONNECTION, EVENT_LOOPS))
    starved = _all(pools, lambda row: _number(row, "served_pct") < STARVED_PCT)
    served = _all(loops, lambda row: _number(row, "served_pct") >= SERVED_PCT)
    texts = [_served_text(row) for row in (*pools, *loops)]
    return _both(starved, served), texts or ["needs a pool and an event loop under W + 8 clients with slow heads"]


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
        _all(group, lambda row: _number(row, "served_pct") >= FED_PCT and not _number(row, "died_count"))
        for group in (pools, loops)
    ]
    judged = [*pools, *loops]
    overrun = [
        row for row in heads if row["defence"] == ON and _number(row, "served_pct") < FED_PCT and row not in judged
    ]
    texts = [_served_text(row) for row in judged] + [f"yet {_served_text(row)}" for row in overrun]
    return _both(*hold), texts if judged else ["needs a pool and an event loop that have time-outs"]


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
    waited = _all(loops, lambda row: _number(row, "innocent_longest_ns") >= NEAR_NS)
    unharmed = _all(pools, _is_unharmed)
    texts = [
        f"{row['server']} longest wait {format_column('x_ns', _number(row, 'innocent_longest_ns'))}"
        for row in (*loops, *pools)
    ]
    return _both(waited, unharmed), texts or ["needs an event loop and a pool under --kinds cpu --work 2s"]


def _is_unharmed(row: FlatRow) -> bool:
    return _number(row, "served_pct") == 100.0 and _number(row, "innocent_longest_ns") <= SOON_NS


JUDGES: tuple[Judge, ...] = (judge_c23,)
