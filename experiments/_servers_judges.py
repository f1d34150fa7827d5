"""The judges of servers: each claim by the rule beside its verdict, from rows that are not void and from findings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from c10k_probe.experiment import NOT_MEASURED, FlatRow, Judge, Made, Verdict

from ._servers_design import APACHE, ARTICLE, FAIR, HTTP_SERVER, NODE, NODE_JITLESS, TORNADO
from ._servers_findings import CPU_DIFFERENCE, SHARE_DIFFERENCE, TABLE_SUBJECT, subject_of
from ._servers_inside_judges import judge_c05, judge_c31, judge_c33, judge_c48, judge_c54
from ._servers_verdicts import bounds_text, combined, found_interval, in_words, is_within, number, select, told_part

EVENT_LOOPS = ("nginx", NODE, TORNADO, "epoll", "asyncio", "uvloop")
FORKED, NOT_FORKED = 0.9, 0.05  # process creations for each request
SERVED_SHARE = 0.95
FASTER, TWICE, HALF, MORE_CPU_PCT, MORE_EFFICIENT, LARGE = 1.10, (1.6, 2.5), (0.40, 0.62), 10.0, 1.2, 1.5
SLOW_RATIO = 0.8
FORK_COUNTS = ("requests_count", "began_count", "forks_count", "idle_forks_count")
_EPOLL = re.compile(r"\b(ep_poll|do_epoll_wait)")  # fs/eventpoll.c; which of them a compiler has left as a function
WAYS = ((ARTICLE, "off"), (FAIR, "off"), (FAIR, "on"))
_TIMES = "the article's words can also be read as one time Apache's, 1.00×"
NEEDS = "needs node, tornado and apache-prefork-php, valid, with --article-launches 5 and --repeats 5 or more"


def _compared(
    made: Sequence[Made], column: str, bounds: tuple[float, float], ways: Sequence[tuple[str, str]]
) -> tuple[list[bool | None], list[str]]:
    """Node and Tornado against Apache: whether each ratio lies within bounds, and in words which it is and whether."""
    parts, words = [], []
    for arm, keep_alive in ways:
        for name in (NODE, TORNADO):
            subject = subject_of(name, APACHE, arm, keep_alive)
            if value := found_interval(made, subject, column):
                parts.append(is_within(value, *bounds))
                words.append(f"{subject}: {in_words(column, value)}, {told_part(parts[-1])}")
    return parts, words


def _asked(column: str, bounds: tuple[float, float], words: Sequence[str]) -> str:
    """The evidence, after what was asked for."""
    return f"asked for is {bounds_text(column, *bounds)}, with the whole interval; {'; '.join(words)}"


def _has_both(words: Sequence[str], arm: str) -> bool:
    way = "as the article" if arm == ARTICLE else "fair"
    return all(any(word.startswith(name) and f", {way}" in word for word in words) for name in (NODE, TORNADO))


# --- judges -----------------------------------------------------------------------------------------------------------


def judge_c01(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C01: does Apache make a process for each request?"""
    restated = "Apache makes one process for each request"
    rule = (
        f"CONFIRMED when ≥{FORKED} processes or threads begin in Apache's tree for each request, REFUTED when "
        f"<{NOT_FORKED}, PARTLY between; a mean over new connections, settings as installed, prefork module. Where "
        "those of the tree cannot be told, what begins on the whole machine beyond as long without a load, which can "
        "only refute"
    )
    rows = select(rows, server=APACHE, arm=ARTICLE)
    own = [row for row in rows if number(row, "began_count") is not None]
    found = own or [row for row in rows if None not in (number(row, "forks_count"), number(row, "idle_forks_count"))]
    if not found:
        return Verdict("C01", restated, rule, NOT_MEASURED, "needs --as-article --server apache-prefork-php")
    counts = {name: sum(number(row, name) or 0 for row in found) for name in FORK_COUNTS}
    requests, began, forks, idle = counts.values()
    each = (began if own else forks - idle) / requests if requests else 0.0
    verdict = "CONFIRMED" if each >= FORKED else "REFUTED" if each < NOT_FORKED else "PARTLY"
    where = "in Apache's tree" if own else f"on the whole machine, {idle:,.0f} without a load"
    evidence = (
        f"{began if own else forks:,.0f} began {where}, {requests:,.0f} requests: {each:.4f} for each; "
        f"{max(number(row, 'new_processes_count') or 0 for row in found):,.0f} new ones were Apache's at the end of a "
        "load: its pool grows to its size, and stays"
    )
    judged = Verdict("C01", restated, rule, verdict, evidence)
    return judged if own or verdict == "REFUTED" else judged.capped("whose they were is not known")


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
    rule = (
        f"CONFIRMED when requests per CPU second are ≥{LARGE}× (low end) for Tornado over http.server's "
        "ThreadingHTTPServer, and for asyncio over a thread per connection on one and the same parser; PARTLY when for "
        "one of the two, REFUTED for none"
    )
    words, parts = [], []
    for above, below in ((TORNADO, HTTP_SERVER), ("asyncio", "python-threading")):
        for keep_alive in ("off", "on"):
            subject = subject_of(above, below, FAIR, keep_alive)
            if value := found_interval(made, subject, "requests_per_cpu_ratio"):
                parts.append(is_within(value, LARGE, float("inf")))
                words.append(f"{subject}: {in_words('x_ratio', value)}")
    if not all(any(word.startswith(name) for word in words) for name in (TORNADO, "asyncio")):
        needs = "needs --fair --server tornado,python-http-server,asyncio,python-threading --repeats 5"
        return Verdict("C32", restated, rule, NOT_MEASURED, needs)
    evidence = "; ".join(words) + "; read, not measured: FriendFeed was a company that Facebook bought, no module of it"
    return Verdict("C32", restated, rule, combined(parts), evidence)


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
    verdict = combined(parts)
    words = (f"{name}: {_tasks_text(*of_server)}" for name, of_server in counts.items())
    return Verdict("C36", restated, rule, verdict, "; ".join(words))


def _tasks_text(processes: int, threads: int) -> str:
    """As ``1 thread in 1 process``."""
    words = f"{threads} thread{'' if threads == 1 else 's'}"
    return f"{words} in {processes} process{'' if processes == 1 else 'es'}"


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
    rule = (
        f"CONFIRMED when each of both answers more than {FASTER} times as many requests a second as Apache (low end), "
        "in the article's test and in the fair one, with and without keep-alive; PARTLY when in some of these, REFUTED "
        "when in none"
    )
    bounds = (FASTER, float("inf"))
    parts, words = _compared(made, "throughput_ratio", bounds, WAYS)
    if not (_has_both(words, ARTICLE) and _has_both(words, FAIR)):
        return Verdict("C42", restated, rule, NOT_MEASURED, "; ".join([NEEDS, *words]))
    return Verdict("C42", restated, rule, combined(parts), _asked("throughput_ratio", bounds, words))


@dataclass(frozen=True)
class _OfTheArticle:
    """The judge of a claim that a figure of both, over Apache's, lies within bounds in the article's own test."""

    claim: str
    restated: str
    column: str
    low: float
    high: float = float("inf")
    note: str = ""

    def __call__(self, rows: Sequence[FlatRow], made: Sequence[Made]) -> Verdict:
        """See the class."""
        bounds, way = (self.low, self.high), [(ARTICLE, "off")]
        where = f"at least {self.low}" if self.high == float("inf") else f"between {self.low} and {self.high}"
        what = self.column.replace("_", " ")
        rule = (
            f"CONFIRMED when {what} over Apache, in the article's test, is {where} (whole interval) for both; PARTLY "
            "when for one, REFUTED when for none"
        )
        parts, words = _compared(made, self.column, bounds, way)
        if not _has_both(words, ARTICLE):
            return Verdict(self.claim, self.restated, rule, NOT_MEASURED, "; ".join([NEEDS, *words]))
        evidence = _asked(self.column, bounds, words)
        if self.column == "memory_ratio":
            for other, meter in (
                ("rss_sum_ratio", "the sum of RSS"),
                ("available_fall_ratio", "the fall of MemAvailable"),
            ):
                _, beside = _compared(made, other, bounds, way)
                evidence += f"; by {meter} instead, {'; '.join(beside)}" if beside else ""
        evidence += f"; {self.note}" if self.note else ""
        return Verdict(self.claim, self.restated, rule, combined(parts), evidence)


def judge_c47(_: Sequence[FlatRow], made: Sequence[Made]) -> Verdict:
    """C47: is it the language's runtime rather than the event loop?"""
    restated = "Node.js is fast for its runtime, too"
    rule = (
        "CONFIRMED when runtime explains more of the variance of log(requests per CPU second) than architecture "
        "(interval of the difference above 0) in {C, CPython} × {event loop, thread, process per connection}, each at "
        "half of its own capacity, and "
        f"Node.js without V8's compilers has <{SLOW_RATIO}× of its requests per CPU second (high end); REFUTED when "
        "neither, PARTLY when one holds and one fails"
    )
    parts, words = [], []
    if value := found_interval(made, TABLE_SUBJECT, SHARE_DIFFERENCE):
        parts.append(is_within(value, 0, float("inf")))
        words.append(
            "of the differences among C and CPython as event loop, threads and processes, the share that the runtime "
            f"explains less the one that the architecture does: {in_words('x_pct', value)}, {told_part(parts[-1])}"
        )
    if not parts:
        return Verdict(
            "C47", restated, rule, NOT_MEASURED, "needs --fair with all six servers of the table, --repeats 5"
        )
    for keep_alive in ("off", "on"):
        subject = subject_of(NODE_JITLESS, NODE, FAIR, keep_alive)
        if value := found_interval(made, subject, "requests_per_cpu_ratio"):
            parts.append(is_within(value, float("-inf"), SLOW_RATIO))
            asked = f"asked for is {bounds_text('x_ratio', float('-inf'), SLOW_RATIO)}"
            told = f"{in_words('x_ratio', value)}, {told_part(parts[-1])}"
            words.append(f"{subject}, requests for a second of CPU, {asked}: {told}")
    if not any(word.startswith(NODE_JITLESS) for word in words):
        parts.append(None)
        words.append(f"{NODE_JITLESS} was not measured")
    return Verdict("C47", restated, rule, combined(parts), "; ".join(words))


def _unmeasured(claim: str, restated: str, rule: str, why: str, _: Sequence[FlatRow], __: Sequence[Made]) -> Verdict:
    return Verdict(claim, restated, rule, NOT_MEASURED, why)


JUDGES: tuple[Judge, ...] = (
    judge_c01,
    judge_c05,
    judge_c30,
    judge_c31,
    judge_c32,
    judge_c33,
    partial(
        _unmeasured,
        "C34",
        "these four solve C10K, and only event-driven servers do",
        "CONFIRMED when each holds 10,000 connections with p99 <1 s at 1,000 requests a second, and no other does",
        "connections judges it: --server nginx,cherokee,node,tornado --model thread,fork --to 10k --probe-rate 1k",
    ),
    judge_c36,
    judge_c41,
    judge_c42,
    _OfTheArticle(
        "C43",
        "Node.js and Tornado answer twice as many requests a second as Apache",
        "throughput_ratio",
        *TWICE,
        _TIMES,
    ),
    _OfTheArticle("C44", "Node.js and Tornado take half of Apache's memory", "memory_ratio", *HALF),
    _OfTheArticle("C45", "Node.js and Tornado take more CPU than Apache", CPU_DIFFERENCE, MORE_CPU_PCT),
    _OfTheArticle(
        "C46",
        "Node.js and Tornado answer more requests for a second of CPU than Apache",
        "requests_per_cpu_ratio",
        MORE_EFFICIENT,
        note="that a server takes a larger share of the CPU says nothing of this by itself",
    ),
    judge_c47,
    judge_c48,
    judge_c54,
)
