"""Traced launches of servers: what a server's tree asks of the kernel for one request, and which threads do the work.

Counted from before the load generator's start until every task of the server sleeps again, over the requests that the
server says it has answered, or else those that the generator had answers to. What a connection takes is in it: with
keep-alive some hundredths of a call for each request. Throughput, latency and memory of a traced launch are not told: a
tracer changes them, and ``traced_over_off_ratio`` says by how much.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from c10k_probe import stats
from c10k_probe.experiment import OFF, Row, Samples, Scalar, Stack, column
from c10k_probe.observe import tree
from c10k_probe.servers import MODELS, Server
from c10k_probe.traced import (
    by_key,
    calls_column,
    counted_column,
    done_calls_column,
    dropped_column,
    price_column,
    slowdown,
    tracing_column,
    untraced,
    views,
    wait_column,
)
from c10k_probe.tracing.base import Options
from c10k_probe.tracing.choose import BACKENDS
from c10k_probe.tracing.result import Trace

from ._servers_rows import ServersRow, known, whole_sum
from ._traced_launch import attached, call_count, calls_text, done_count, grade_traced, settle

EPOLL: Final = ("epoll_wait", "epoll_pwait", "epoll_pwait2")
POLL: Final = ("poll", "ppoll", "select", "pselect6")
# What a call is for, in the order of a request; `other` is the rest, and what a backend does not count by name.
GROUPS: Final[Mapping[str, tuple[str, Collection[str]]]] = {
    "wait": ("wait for events", (*EPOLL, *POLL, "io_uring_enter")),
    "watch": ("say what to wait for", ("epoll_ctl",)),
    "accept": ("accept", ("accept", "accept4")),
    "read": ("read", ("read", "readv", "recvfrom", "recvmsg")),
    "write": ("write", ("write", "writev", "sendto", "sendmsg", "sendfile")),
    "close": ("close", ("close", "shutdown")),
    "socket": ("socket options", ("setsockopt", "getsockopt", "getsockname", "getpeername", "fcntl", "ioctl")),
    "file": (
        "files",
        ("open", "openat", "stat", "lstat", "fstat", "newfstatat", "statx", "access", "getcwd", "lseek", "chdir"),
    ),
    "memory": ("memory", ("mmap", "munmap", "mremap", "mprotect", "madvise", "brk")),
    "task": (
        "tasks and locks",
        ("clone", "clone3", "fork", "vfork", "wait4", "exit", "exit_group", "futex", "set_robust_list", "rseq"),
    ),
}
OTHER: Final = "other"
BUSY_SHARE: Final = 0.01  # of the tree's CPU time: a thread with less has no part in the requests
RARE: Final = 0.0005
RATE: Final = "rate"  # of a launch's values: right answers for a second
_COUNTS: Final = (
    *("calls_count", "voluntary_switches_count", "involuntary_switches_count", "page_faults_count"),
    *("accepts_count", "forks_count", "threads_count"),
)
_EACH = "for one request, traced"


@dataclass(frozen=True, kw_only=True)
class TracedServersRow(ServersRow):
    """A row of either kind; of a traced one the columns of throughput, latency, CPU and memory are empty."""

    threads_ran_count: int | None = column("threads that had 1 % or more of the tree's CPU time under load, the most")
    traced_by: str = tracing_column()
    calls_per_request: stats.Interval | None = counted_column("calls_per_request", _EACH)
    calls: str | None = calls_column(_EACH)
    done_calls: str | None = done_calls_column(_EACH)
    wait_calls_per_request: float | None = column(f"calls that wait for events, such as epoll_wait, {_EACH}")
    watch_calls_per_request: float | None = column(f"epoll_ctl {_EACH}")
    accept_calls_per_request: float | None = column(f"accept and accept4, also in vain, {_EACH}")
    read_calls_per_request: float | None = column(f"calls that read or receive {_EACH}")
    write_calls_per_request: float | None = column(f"calls that write or send {_EACH}")
    close_calls_per_request: float | None = column(f"close and shutdown {_EACH}")
    socket_calls_per_request: float | None = column(f"calls about a socket's options and addresses {_EACH}")
    file_calls_per_request: float | None = column(f"calls that look up and open files {_EACH}")
    memory_calls_per_request: float | None = column(f"calls that map memory {_EACH}")
    task_calls_per_request: float | None = column(f"calls about tasks, and futex, {_EACH}")
    other_calls_per_request: float | None = column(f"all other calls, and those not counted by name, {_EACH}")
    voluntary_switches_per_request: stats.Interval | None = counted_column("voluntary_switches_per_request", _EACH)
    involuntary_switches_per_request: stats.Interval | None = counted_column("involuntary_switches_per_request", _EACH)
    page_faults_per_request: stats.Interval | None = counted_column("page_faults_per_request", _EACH)
    runqueue_wait_ns: stats.Interval | None = wait_column(_EACH)
    forks_per_request: stats.Interval | None = counted_column("forks_per_request", _EACH)
    tree_forks_count: int | None = column("processes that the tree began while it was traced, over all launches")
    tree_threads_count: int | None = column("threads that the tree began while it was traced, over all launches")
    tree_accepts_count: int | None = column("connections that it accepted while it was traced, over all launches")
    epoll_waits_count: int | None = column("calls of epoll_wait and its like, over all traced launches")
    polls_count: int | None = column("calls of poll, select and their like, over all traced launches")
    traced_over_off_ratio: stats.Interval | None = price_column("answers a second")
    trace_dropped_count: int | None = dropped_column()


_FIGURES = ("calls", "voluntary_switches", "involuntary_switches", "forks")
VIEWS: Final = tuple(views("request", _FIGURES, price="rate over untraced"))
CHARTS: Final = (
    Stack(
        "calls",
        "System calls for one request",
        ("server", "arm", "keep_alive"),
        tuple(f"{name}_calls_per_request" for name in (*GROUPS, OTHER)),
        (*(words for words, _ in GROUPS.values()), "others"),
        where=(("traced_by", tuple(BACKENDS)),),
    ),
)


# --- one launch -------------------------------------------------------------------------------------------------------


@contextmanager
def counting(backend: str, server: Server) -> Iterator[dict[str, Scalar]]:
    """Count what a sleeping server does in the block until it sleeps again; the facts are there after the block.

    Which threads ran is told of untraced launches too. Raises ``HelperUnsupported`` where the backend cannot work.
    """
    facts: dict[str, Scalar] = {}
    with ExitStack() as stack:
        tracer = None
        if backend != OFF:
            pids = tree.session_pids(server.session)
            tracer = stack.enter_context(attached(backend, pids, Options(interval_s=1.0)))
        before = tree.run_ns_of_threads(server.session)
        yield facts
        after = tree.run_ns_of_threads(server.session)
        facts["threads_ran_count"] = ran_count(before, after)
        if tracer is None:
            return
        settle(server.session)
        trace = tracer.stop()
    has_lost_tasks = bool(before.keys() - after.keys()) or _comes_and_goes(server.name)
    facts.update(facts_of(_blind(trace) if trace.backend == "proc" and has_lost_tasks else trace))


def ran_count(before: Mapping[int, int], after: Mapping[int, int]) -> int | None:
    """Threads with a share in the CPU time between two readings (tid -> ns); None where there was none."""
    ran = [ns - before.get(tid, 0) for tid, ns in after.items()]
    whole = sum(ran)
    return sum(ns >= BUSY_SHARE * whole for ns in ran) if whole > 0 else None


def _comes_and_goes(name: str) -> bool:
    """Whether tasks of a model of ours end with their connection."""
    return name in MODELS and bool(MODELS[name].per_connection.tasks_count)


def _blind(trace: Trace) -> Trace:
    """What /proc tells of a server whose tasks come and go between two looks is not of the whole server: nothing."""
    return Trace(trace.backend, trace.elapsed_s, notes=trace.notes)


def facts_of(trace: Trace) -> dict[str, Scalar]:
    """Flat, for the raw samples: counts as they are; a call's under ``call NAME``, without failures ``done NAME``."""
    facts: dict[str, Scalar] = {f"trace_{name}": getattr(trace, name) for name in _COUNTS}
    facts["trace_runqueue_wait_ns"] = None if trace.runqueue_wait_s is None else trace.runqueue_wait_s * 1e9
    facts["trace_dropped_count"] = trace.dropped_count
    facts["epoll_waits_count"] = _sum_of(trace, EPOLL)
    facts["polls_count"] = _sum_of(trace, POLL)
    for name, (_, calls) in GROUPS.items():
        facts[f"{name}_calls_count"] = _sum_of(trace, calls)
    grouped = [facts[f"{name}_calls_count"] for name in GROUPS]
    is_known = trace.calls is not None and trace.calls_count is not None
    facts[f"{OTHER}_calls_count"] = (trace.calls_count or 0) - sum(map(_whole, grouped)) if is_known else None
    for name in trace.calls or {}:
        facts[f"call {name}"], facts[f"done {name}"] = call_count(trace, name), done_count(trace, name)
    facts["notes"] = "; ".join(trace.notes)
    return facts


def _sum_of(trace: Trace, names: Collection[str]) -> int | None:
    return None if trace.calls is None else sum(call_count(trace, name) for name in names)


def _whole(value: Scalar) -> int:
    assert isinstance(value, int)
    return value


# --- rows -------------------------------------------------------------------------------------------------------------


def with_threads(row: ServersRow, launches: Sequence[Samples]) -> TracedServersRow:
    """An untraced row with what is told of it here."""
    values = {item.name: getattr(row, item.name) for item in dataclasses.fields(row)}
    return TracedServersRow(**values, threads_ran_count=_most("threads_ran_count", launches))


def rows_of(samples: Sequence[Samples], untraced_rows: Sequence[ServersRow], seed: int) -> Iterator[Row]:
    """The untraced rows and those of traced launches, each behind the one that it belongs to."""
    plain, traced = by_key(untraced(samples)), by_key(item for item in samples if item.traced_by != OFF)
    for row in untraced_rows:
        keys = [key for key in plain if all(getattr(row, name) == value for name, value in key)]
        yield with_threads(row, plain[keys[0]] if keys else ())
    for key, launches in sorted(traced.items(), key=str):
        yield _row(launches, plain.get(key[:-1], ()), seed)


def _most(name: str, launches: Sequence[Samples]) -> int | None:
    return max(map(int, known(name, launches)), default=None)


def _row(launches: Sequence[Samples], base: Sequence[Samples], seed: int) -> TracedServersRow:
    def each(name: str) -> stats.Interval | None:
        return stats.interval_of_all(map(_per_request(name), launches), seed)

    figures = {
        "calls_per_request": each("trace_calls_count"),
        "voluntary_switches_per_request": each("trace_voluntary_switches_count"),
        "involuntary_switches_per_request": each("trace_involuntary_switches_count"),
        "page_faults_per_request": each("trace_page_faults_count"),
        "runqueue_wait_ns": each("trace_runqueue_wait_ns"),
        "forks_per_request": each("trace_forks_count"),
    }
    ratio = slowdown(launches, base, RATE, seed)
    failed_count = whole_sum("failed_count", launches)
    counts = {name: value for name, value in figures.items() if name != "runqueue_wait_ns"}
    grade = grade_traced(launches, {**counts, "traced_over_off_ratio": ratio})
    if failed_count:
        grade = grade.worse("shaky", f"{failed_count:,} requests failed while traced")
    if not any(map(_requests_count, launches)):
        grade = grade.worse("void", "no request was answered while traced")
    sums = {"requests_count": "requests_count", "told_requests_count": "told_requests_count"}
    sums |= {"tree_forks_count": "trace_forks_count", "tree_threads_count": "trace_threads_count"}
    sums |= {"tree_accepts_count": "trace_accepts_count", "epoll_waits_count": "epoll_waits_count"}
    sums |= {"polls_count": "polls_count", "trace_dropped_count": "trace_dropped_count"}
    same = ("server_version", "header_bytes", "body_bytes", "connections_count")
    return TracedServersRow(
        **launches[0].key,  # type: ignore[arg-type]
        **{name: launches[0].facts.get(name) for name in same},  # type: ignore[arg-type]
        **{column: whole_sum(fact, launches) for column, fact in sums.items()},  # type: ignore[arg-type]
        **{f"{name}_calls_per_request": _median(f"{name}_calls_count", launches) for name in (*GROUPS, OTHER)},  # type: ignore[arg-type]
        **figures,  # type: ignore[arg-type]
        failed_count=failed_count,
        launches_count=len(launches),
        threads_ran_count=_most("threads_ran_count", launches),
        calls=_calls_text("call ", launches),
        done_calls=_calls_text("done ", launches),
        traced_over_off_ratio=ratio,
        grade=grade.level,
        grade_reason=grade.reason,
    )


def _requests_count(item: Samples) -> float:
    """What the server says it has answered, or else what came back."""
    told = item.facts.get("told_requests_count")
    return float(told if told is not None else item.facts["answered_count"] or 0)


def _per_request(name: str) -> Callable[[Samples], float | None]:
    def value(item: Samples) -> float | None:
        count, requests = item.facts.get(name), _requests_count(item)
        return None if count is None or not requests else float(count) / requests

    return value


def _median(name: str, launches: Sequence[Samples]) -> float | None:
    values = [value for item in launches if (value := _per_request(name)(item)) is not None]
    return statistics.median(values) if values and len(values) == len(launches) else None


def _calls_text(prefix: str, launches: Sequence[Samples]) -> str | None:
    """The median launch's calls by name; None where the backend does not know."""
    names = sorted({name for item in launches for name in item.facts if name.startswith(prefix)})
    if any(item.facts.get(name, 0) is None for item in launches for name in names):
        return None
    found = {
        name.removeprefix(prefix): statistics.median(_per_request(name)(item) or 0 for item in launches)
        for name in names
    }
    return calls_text({name: round(count, 4) for name, count in found.items() if count >= RARE})
