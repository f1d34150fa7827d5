"""Judges of servers that take what a tracer counted: forks and waits are then those of the server's own tree."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

from c10k_probe.experiment import NOT_MEASURED, OFF, TRACED_BY, FlatRow, Judge, Made, Verdict

from ._servers_design import APACHE, NODE, TORNADO
from ._servers_judges import FORKED, JUDGES, NOT_FORKED, judge_c01, judge_c30, judge_c36
from ._servers_verdicts import number

REQUESTS_LEAST_COUNT: Final = 10_000
MOST_PCT: Final = 50
POLLING: Final = ("nginx", NODE, TORNADO, "asyncio", "uvloop")
# Why an event-driven server has more threads than loops; Source: Node.js, "Don't block the event loop"; nginx's
# documentation of thread_pool; asyncio's of loop.run_in_executor.
WHY: Final = {
    NODE: "V8's workers, which compile and collect garbage, are started with it; libuv's pool is not before it is used",
    "nginx": "each worker is a process of its own; there are pools of threads only with aio threads",
    TORNADO: "its executor is started with the first blocking call",
    "asyncio": "its executor is started with the first blocking call",
}


def with_traced(judges: Sequence[Judge]) -> tuple[Judge, ...]:
    """The same judges on untraced rows; those that count what a tracer sees take traced rows where there are some."""
    by_trace = {judge_c01: traced_c01, judge_c30: traced_c30}
    made: list[Judge] = []
    for judge in judges:
        plain = partial(_of_untraced, judge_c36_why if judge is judge_c36 else judge)
        made.append(partial(_first, by_trace[judge], plain) if judge in by_trace else plain)
    return (*made, judge_c37)


def _of_untraced(judge: Judge, rows: Sequence[FlatRow], made: Sequence[Made]) -> Verdict:
    return judge([row for row in rows if row.get(TRACED_BY, OFF) == OFF], made)


def _first(by_trace: Judge, otherwise: Judge, rows: Sequence[FlatRow], made: Sequence[Made]) -> Verdict:
    verdict = by_trace(rows, made)
    return otherwise(rows, made) if verdict.verdict == NOT_MEASURED else verdict


def _traced(rows: Sequence[FlatRow], *names: str) -> Iterator[FlatRow]:
    """Traced rows of these servers, observed ones."""
    for row in rows:
        if row.get(TRACED_BY, OFF) != OFF and row.get("server") in names and row.get("observed") == "on":
            yield row


def _has(row: FlatRow, *names: str) -> bool:
    return all(number(row, name) is not None for name in names)


def _sum(rows: Sequence[FlatRow], *names: str) -> int:
    return sum(int(number(row, name) or 0) for row in rows for name in names)


def traced_c01(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C01 by the trace of Apache's own tree."""
    restated = "Apache makes one process for each request"
    rule = (
        f"CONFIRMED when Apache's tree began ≥{FORKED} processes or threads for each request on a new connection, "
        f"REFUTED when <{NOT_FORKED}, PARTLY between; by the trace, of {REQUESTS_LEAST_COUNT:,} requests or more"
    )
    found = [row for row in _traced(rows, APACHE) if row["keep_alive"] == "off" and _has(row, "tree_forks_count")]
    requests, forks = _sum(found, "requests_count"), _sum(found, "tree_forks_count", "tree_threads_count")
    if requests < REQUESTS_LEAST_COUNT:
        needs = f"needs {APACHE} traced by bcc or perf, {REQUESTS_LEAST_COUNT:,} requests"
        return Verdict("C01", restated, rule, NOT_MEASURED, needs)
    each = forks / requests
    verdict = "CONFIRMED" if each >= FORKED else "REFUTED" if each < NOT_FORKED else "PARTLY"
    evidence = f"{forks:,} began in Apache's tree, {requests:,} requests: {each:.4f} for each, by {found[0][TRACED_BY]}"
    return Verdict("C01", restated, rule, verdict, evidence)


def traced_c30(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C30 by the trace of nginx's tree."""
    restated = "nginx serves its connections by an event loop"
    rule = "CONFIRMED when nginx under load makes 0 processes and threads and waits in epoll_wait ≥1 time, else REFUTED"
    names = ("tree_forks_count", "tree_threads_count", "epoll_waits_count")
    found = [row for row in _traced(rows, "nginx") if _has(row, *names)]
    if not found:
        return Verdict("C30", restated, rule, NOT_MEASURED, "needs nginx traced by bcc or perf")
    forks, waits = _sum(found, *names[:2]), _sum(found, names[2])
    connections = max(_sum([row], "connections_count") for row in found)
    evidence = (
        f"{forks:,} processes and threads began and epoll_wait was called {waits:,} times, by {found[0][TRACED_BY]}: "
        f"{_sum(found, 'requests_count'):,} requests on {connections:,} connections at once"
    )
    return Verdict("C30", restated, rule, "REFUTED" if forks or not waits else "CONFIRMED", evidence)


def judge_c36_why(rows: Sequence[FlatRow], made: Sequence[Made]) -> Verdict:
    """C36, and which of the threads had a part in the work."""
    verdict, words = judge_c36(rows, made), []
    for name in dict.fromkeys(str(row["server"]) for row in rows):
        own = [row for row in rows if row["server"] == name and _has(row, "threads_count", "threads_ran_count")]
        many = max((int(number(row, "threads_count") or 0) for row in own), default=0)
        loops = max((int(number(row, "processes_count") or 0) for row in own), default=0)
        if f"{name}: " in verdict.evidence and many > 1:
            ran = max(int(number(row, "threads_ran_count") or 0) for row in own)
            why = f" ({WHY[name]})" if name in WHY and many > loops else ""
            words.append(f"of {name}'s {many}, {ran} had 1 % or more of its CPU time{why}")
    return dataclasses.replace(verdict, evidence="; ".join([verdict.evidence, *words]))


def judge_c37(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C37, F1: do these servers wait by poll or select?"""
    restated = "an event loop waits for requests by poll or select"
    rule = (
        f"F1: CONFIRMED when poll, select and their like are >{MOST_PCT} % of the calls by which each that was traced "
        f"of {', '.join(POLLING)} waits for events, REFUTED when of none; F2, what that costs, is readiness's"
    )
    pct: dict[str, float] = {}
    for name in POLLING:
        found = [row for row in _traced(rows, name) if _has(row, "polls_count", "epoll_waits_count")]
        waits = _sum(found, "polls_count", "epoll_waits_count")
        if waits:
            pct[name] = 100 * _sum(found, "polls_count") / waits
    if not pct:
        return Verdict("C37", restated, rule, NOT_MEASURED, f"needs --trace bcc and one of {', '.join(POLLING)}")
    holds = [share > MOST_PCT for share in pct.values()]
    verdict = "CONFIRMED" if all(holds) else "PARTLY" if any(holds) else "REFUTED"
    evidence = "; ".join(f"{name}: {share:.0f} % by poll or select, the rest by epoll" for name, share in pct.items())
    return Verdict("C37", restated, rule, verdict, evidence)


ALL_JUDGES: Final = with_traced(JUDGES)
