"""The judges of servers: each claim by the rule beside its verdict, from rows that are not void and from findings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from c10k_probe.experiment import NOT_MEASURED, Finding, FlatRow, Judge, Made, Verdict
from c10k_probe.stats import Interval
from c10k_probe.units import format_column

from ._servers_design import APACHE, ARTICLE, FAIR, NODE, TORNADO
from ._servers_findings import CPU_DIFFERENCE, SHARE_DIFFERENCE, subject_of, table_subject

EVENT_LOOPS = ("nginx", NODE, TORNADO, "epoll", "asyncio", "uvloop")
FORKED, NOT_FORKED = 0.9, 0.05  # process creations for each request
SERVED_SHARE = 0.95
FASTER, TWICE, HALF, MORE_CPU_PCT, MORE_EFFICIENT, LARGE = 1.10, (1.6, 2.5), (0.40, 0.62), 10.0, 1.2, 1.5
_EPOLL = re.compile(r"\b(ep_poll|do_epoll_wait)")  # fs/eventpoll.c; which of them a compiler has left as a function
WAYS = ((ARTICLE, "off"), (FAIR, "off"), (FAIR, "on"))
NEEDS = "needs node, tornado and apache-prefork-php, valid, with --article-launches 5 and --repeats 5 or more"


def select(rows: Iterable[FlatRow], **wanted: str) -> list[FlatRow]:
    """The rows that agree with every named value, observed ones."""
    return [row for row in rows if all(row.get(name) == value for name, value in (wanted | {"observed": "on"}).items())]


def number(row: FlatRow, name: str) -> float | None:
    """A numeric value of a row."""
    value = row.get(name)
    return float(value) if isinstance(value, (int, float)) else None


def _found(made: Sequence[Made], subject: str, column: str) -> Interval | None:
    """A finding's value when it has an interval."""
    for item in made:
        if isinstance(item, Finding) and (item.subject, item.column) == (subject, column):
            value = item.value
            return None if value is None or value.low is None or value.high is None else value
    return None


def _text(column: str, value: Interval) -> str:
    low, high = (format_column(column, end) for end in (value.low, value.high))
    return f"{format_column(column, value.middle)} [{low}, {high}]"


def _is_within(value: Interval, low: float, high: float) -> bool | None:
    """Whether an interval lies inside, outside (False), or across an end (None)."""
    assert value.low is not None
    assert value.high is not None
    if low <= value.low and value.high <= high:
        return True
    return False if value.high < low or value.low > high else None


def _combined(parts: Sequence[bool | None]) -> str:
    """The verdict on a claim of several parts."""
    if True in parts and False in parts:
        return "PARTLY"
    if None in parts:
        return "INCONCLUSIVE"
    return "CONFIRMED" if True in parts else "REFUTED"


def _compared(
    made: Sequence[Made], column: str, bounds: tuple[float, float], ways: Sequence[tuple[str, str]]
) -> tuple[list[bool | None], list[str]]:
    """Node and Tornado against Apache: whether each ratio lies within bounds, and the ratios in words."""
    parts, words = [], []
    for arm, keep_alive in ways:
        for name in (NODE, TORNADO):
            subject = subject_of(name, APACHE, arm, keep_alive)
            if value := _found(made, subject, column):
                parts.append(_is_within(value, *bounds))
                words.append(f"{subject}: {_text(column, value)}")
    return parts, words


def _has_both(words: Sequence[str], arm: str) -> bool:
    way = "as the article" if arm == ARTICLE else "fair"
    return all(any(word.startswith(name) and f", {way}" in word for word in words) for name in (NODE, TORNADO))


# --- judges -----------------------------------------------------------------------------------------------------------


def judge_c01(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C01: does Apache make a process for each request?"""
    restated = "Apache makes one process for each request"
    rule = (
        f"CONFIRMED when there are ≥{FORKED} new processes for each of Apache's requests, REFUTED when on the whole "
        f"machine <{NOT_FORKED} began, PARTLY between; a mean over new connections, prefork module"
    )
    found = [row for row in select(rows, server=APACHE, keep_alive="off") if number(row, "forks_count") is not None]
    if not found:
        return Verdict("C01", restated, rule, NOT_MEASURED, "needs --server apache-prefork-php")
    requests, forks = (sum(number(row, name) or 0 for row in found) for name in ("requests_count", "forks_count"))
    each = forks / requests if requests else 0.0
    verdict = "CONFIRMED" if each >= FORKED else "REFUTED" if each < NOT_FORKED else "PARTLY"
    return Verdict("C01", restated, rule, verdict, f"{forks:,.0f} began, {requests:,.0f} requests: {each:.4f} for each")


def judge_c30(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C30: does nginx serve by an event loop?"""
    restated = "nginx serves its connections by an event loop"
    rule = (
        "CONFIRMED when a process sleeps in epoll_wait before the load and none of its processes began meanwhile, "
        "else REFUTED"
    )
    found = select(rows, server="nginx")
    known = [row for row in found if row.get("waits_in") and row.get("new_processes_count") is not None]
    if not known:
        return Verdict("C30", restated, rule, NOT_MEASURED, "needs --server nginx, and root for wchan")
    holds = all(_EPOLL.search(str(row["waits_in"])) and not row["new_processes_count"] for row in known)
    waits, new = known[0]["waits_in"], max(int(number(row, "new_processes_count") or 0) for row in known)
    evidence = f"before the load its processes slept in {waits}; {new} processes of it began while it was loaded"
    return Verdict("C30", restated, rule, "CONFIRMED" if holds else "REFUTED", evidence)


def judge_c32(_: Sequence[FlatRow], made: Sequence[Made]) -> Verdict:
    """C32, its measurable half: does Tornado do more for a second of CPU than threads in Python?"""
    restated = "Tornado does without blocking what threads in Python do"
    rule = f"CONFIRMED when its requests per CPU second are ≥{LARGE}× those of a thread per connection (low end)"
    words, parts = [], []
    for keep_alive in ("off", "on"):
        subject = subject_of(TORNADO, "python-threading", FAIR, keep_alive)
        if value := _found(made, subject, "requests_per_cpu_ratio"):
            parts.append(_is_within(value, LARGE, float("inf")))
            words.append(f"{subject}: {_text('x_ratio', value)}")
    if not parts:
        return Verdict(
            "C32", restated, rule, NOT_MEASURED, "needs --fair --server tornado,python-threading --repeats 5"
        )
    return Verdict("C32", restated, rule, _combined(parts), "; ".join(words) + "; the two do not parse alike")


def judge_c36(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C36: one thread for everything?"""
    restated = "an event-driven server handles all requests in one thread"
    rule = "CONFIRMED when each event-driven server has as many threads as processes under load, REFUTED when none has"
    counts: dict[str, tuple[int, int]] = {}
    for row in select(rows):
        processes, threads = number(row, "processes_count"), number(row, "threads_count")
        if row["server"] in EVENT_LOOPS and processes and threads:
            counts[str(row["server"])] = (int(processes), int(threads))
    if not counts:
        return Verdict("C36", restated, rule, NOT_MEASURED, "needs an event-driven server, observed")
    parts = [processes == threads for processes, threads in counts.values()]
    verdict = _combined(parts)
    words = (f"{name}: {threads} threads in {processes} processes" for name, (processes, threads) in counts.items())
    return Verdict("C36", restated, rule, verdict, "; ".join(words))


def judge_c41(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C41, what can be shown: were 1,000 connections served at once?"""
    restated = "ab with 1,000 connections has Apache serve 1,000 at once"
    rule = f"CONFIRMED when at one moment ≥{SERVED_SHARE:.0%} of ab's connections were accepted and open, else REFUTED"
    found = [row for row in select(rows, server=APACHE, arm=ARTICLE) if number(row, "served_max_count") is not None]
    if not found or (number(found[0], "connections_count") or 0) < 1000:
        return Verdict(
            "C41", restated, rule, NOT_MEASURED, "needs --as-article --server apache-prefork-php, 1,000 connections"
        )
    row = found[0]
    served, asked = number(row, "served_max_count") or 0, number(row, "connections_count") or 0
    evidence = (
        f"{served:,.0f} of {asked:,.0f} at the most, {number(row, 'queued_max_count') or 0:,.0f} waited; "
        f"the queue was full {number(row, 'overflows_count') or 0:,.0f} times; "
        f"ab took {number(row, 'load_cpu_pct') or 0:.0f} % of a CPU"
    )
    return Verdict("C41", restated, rule, "CONFIRMED" if served >= SERVED_SHARE * asked else "REFUTED", evidence)


def judge_c42(_: Sequence[FlatRow], made: Sequence[Made]) -> Verdict:
    """C42: are both faster than Apache?"""
    restated = "Node.js and Tornado both answer more requests a second than Apache"
    rule = f"CONFIRMED when the ratio is above {FASTER} (low end) for both, as the article and fair, REFUTED for none"
    parts, words = _compared(made, "throughput_ratio", (FASTER, float("inf")), WAYS)
    if not (_has_both(words, ARTICLE) and _has_both(words, FAIR)):
        return Verdict("C42", restated, rule, NOT_MEASURED, "; ".join([NEEDS, *words]))
    return Verdict("C42", restated, rule, _combined(parts), "; ".join(words))


@dataclass(frozen=True)
class _OfTheArticle:
    """The judge of a claim that a figure of both, over Apache's, lies within bounds in the article's own test."""

    claim: str
    restated: str
    column: str
    low: float
    high: float = float("inf")

    def __call__(self, rows: Sequence[FlatRow], made: Sequence[Made]) -> Verdict:
        """See the class."""
        bounds, way = (self.low, self.high), [(ARTICLE, "off")]
        where = f"at least {self.low}" if self.high == float("inf") else f"between {self.low} and {self.high}"
        what = self.column.replace("_", " ")
        rule = f"CONFIRMED when {what} over Apache is {where} (whole interval) for both, REFUTED when for none"
        parts, words = _compared(made, self.column, bounds, way)
        if not _has_both(words, ARTICLE):
            return Verdict(self.claim, self.restated, rule, NOT_MEASURED, "; ".join([NEEDS, *words]))
        evidence = "; ".join(words)
        if self.column == "memory_ratio":
            for other in ("rss_sum_ratio", "available_fall_ratio"):
                _, beside = _compared(made, other, bounds, way)
                evidence += f"; {other.replace('_', ' ')}: {'; '.join(beside)}" if beside else ""
        return Verdict(self.claim, self.restated, rule, _combined(parts), evidence)


def judge_c47(_: Sequence[FlatRow], made: Sequence[Made]) -> Verdict:
    """C47: is it the language's runtime rather than the event loop?"""
    restated = "Node.js is fast for its runtime, too"
    rule = (
        "CONFIRMED when runtime explains more of the variance of log(requests per CPU second) than architecture "
        "(interval of the difference above 0) in {C, CPython} × {event loop, thread, process per connection}; "
        "REFUTED when less"
    )
    parts, words = [], []
    for keep_alive in ("off", "on"):
        if value := _found(made, table_subject(keep_alive), SHARE_DIFFERENCE):
            assert value.low is not None
            assert value.high is not None
            parts.append(True if value.low > 0 else False if value.high < 0 else None)
            words.append(f"keep-alive {keep_alive}: runtime's share less architecture's {_text('x_pct', value)}")
    if not parts:
        return Verdict(
            "C47", restated, rule, NOT_MEASURED, "needs --fair with all six servers of the table, --repeats 5"
        )
    evidence = "; ".join(words) + "; Node.js without its compiler (--jitless) was not measured"
    return Verdict("C47", restated, rule, _combined(parts), evidence)


def _unmeasured(claim: str, restated: str, rule: str, why: str, _: Sequence[FlatRow], __: Sequence[Made]) -> Verdict:
    return Verdict(claim, restated, rule, NOT_MEASURED, why)


JUDGES: tuple[Judge, ...] = (
    judge_c01,
    partial(
        _unmeasured,
        "C05",
        "a process of PHP takes much memory",
        "CONFIRMED when one more process that has answered takes ≥10 MiB, PSS and kernel (interval of the slope)",
        "needs a slope over processes, which a load does not give",
    ),
    judge_c30,
    judge_c32,
    partial(
        _unmeasured,
        "C34",
        "these four solve C10K, and only event-driven servers do",
        "CONFIRMED when each holds 10,000 connections with p99 <1 s at 1,000 requests a second, and no other does",
        "needs 10,000 held connections at a fixed rate",
    ),
    judge_c36,
    judge_c41,
    judge_c42,
    _OfTheArticle("C43", "both answer twice as many requests a second", "throughput_ratio", *TWICE),
    _OfTheArticle("C44", "both take half of the memory", "memory_ratio", *HALF),
    _OfTheArticle("C45", "both take more CPU", CPU_DIFFERENCE, MORE_CPU_PCT),
    _OfTheArticle("C46", "more CPU shows that they use it better", "requests_per_cpu_ratio", MORE_EFFICIENT),
    judge_c47,
    partial(
        _unmeasured,
        "C54",
        "one thread suits one cloud instance",
        "CONFIRMED when this instance has one CPU, REFUTED when a loop at full load leaves CPUs idle",
        "servers are kept to one CPU here",
    ),
)
