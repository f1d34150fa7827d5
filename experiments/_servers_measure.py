"""One launch of servers: a fresh server, a load, what both took, and what was seen meanwhile."""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, Self

from c10k_probe import native
from c10k_probe.experiment import OFF, Scalar
from c10k_probe.load import Ab, AbReport, ClosedLoop, Wrk, find_generator
from c10k_probe.observe import counters, processes, tree
from c10k_probe.observe.ledger import KERNEL_STACK_BYTES
from c10k_probe.observe.procfs import PROC, read_text
from c10k_probe.observe.series import Memory, Series, read_memory
from c10k_probe.servers import RealServer, Server

from ._servers_design import FAIR, model_of, options_of
from ._servers_traced import RATE, counting

_PATIENCE_S = 600.0
_ANSWER_S = 5.0
_READ_BYTES = 65_536
_WAIT_S = 1.0
_NS_PER_S = 1e9
Facts = dict[str, Scalar]


@dataclass(frozen=True)
class Ask:
    """What one launch is to measure."""

    server: str
    arm: str
    command: str
    connections_count: int
    requests_count: int
    duration_s: int
    keeps_alive: bool
    is_observed: bool
    traced_by: str = OFF


class Load(Protocol):
    """A load generator that has begun; a context manager that leaves nothing behind."""

    cpu_s: float
    elapsed_s: float

    def wait(self, timeout_s: float) -> bool:
        """Whether it has ended, after waiting this long at most."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


@dataclass(frozen=True)
class Launch:
    """What one launch came to: facts, and the memory of the tree over time."""

    facts: Mapping[str, Scalar]
    values: Mapping[str, list[int]]


def measure(ask: Ask, remaining_s: Callable[[], float]) -> Launch:
    """One launch. Raises ``native.HelperError``; ``HelperUnsupported`` for what is missing here."""
    find_generator("wrk" if ask.arm == FAIR else "ab")
    options, _ = options_of(ask.server, ask.arm, ask.connections_count)
    with model_of(ask.server, ask.command).start(options) as server:
        _keep_to_one_cpu(server)
        rest, waits_in = read_memory(server.session), _waits_in(server.session)
        if ask.arm == FAIR and isinstance(server, RealServer):
            server.warm_up(ask.connections_count)
        facts = {**_answer_facts(server), "waits_in": waits_in}
        told_before = _told_count(server)
        with _telling_of_death(server), _beside_the_client(), counting(ask.traced_by, server) as counted:
            came_to, values = _loaded(ask, server, rest, remaining_s)
        told_after = _told_count(server)
        known = told_before is not None and told_after is not None
        facts["told_requests_count"] = (told_after or 0) - (told_before or 0) if known else None
        per_s = came_to["throughput_per_s"]
        rate = [round(per_s)] if isinstance(per_s, (int, float)) else []
        return Launch({**facts, **came_to, **counted}, {**values, RATE: rate})


def _loaded(
    ask: Ask, server: Server, rest: Memory | None, remaining_s: Callable[[], float]
) -> tuple[Facts, Mapping[str, list[int]]]:
    """The window itself: from the start of the load generator to its end."""
    pids = set(tree.session_pids(server.session))
    counted, before = counters.read_counters(), tree.read_tree(server.session, memory=False)
    series = Series(server.session, server.port)
    with _begin(ask, f"http://127.0.0.1:{server.port}/") as load:
        while not load.wait(series.until_next_s() if ask.is_observed else _WAIT_S):
            if remaining_s() <= 0:
                raise native.HelperError("the run's time is over")
            if ask.is_observed:
                series.take()
            if _death(server):
                raise native.HelperError("the server died")  # told in full by _telling_of_death
        after, counted_after = tree.read_tree(server.session, memory=False), counters.read_counters()
        new_count = len(set(tree.session_pids(server.session)) - pids)
        report = load.finish(_PATIENCE_S) if isinstance(load, Ab) else load.finish()
        facts = _ab_facts(report) if isinstance(report, AbReport) else _wrk_facts(report)
    facts |= _cpu_facts(before, after, load, facts)
    facts |= _kernel_facts(counters.counters_delta(counted, counted_after)) | _series_facts(series, rest)
    facts["new_processes_count"] = new_count
    return facts, {
        "at_ns": [round(item.at_s * _NS_PER_S) for item in series.memory],
        "pss_bytes": [item.pss_bytes for item in series.memory],
        "rss_bytes": [item.rss_bytes for item in series.memory],
    }


def _begin(ask: Ask, url: str) -> Ab | Wrk:
    if ask.arm == FAIR:
        return Wrk(url, ask.connections_count, ask.duration_s, keep_alive=ask.keeps_alive)
    return Ab(url, ask.requests_count, ask.connections_count, keep_alive=ask.keeps_alive)


@contextlib.contextmanager
def _telling_of_death(server: Server) -> Iterator[None]:
    """A load that fails because the server has died says so."""
    try:
        yield
    except native.HelperError:
        if death := _death(server):
            raise native.HelperError(f"{death}; it was under load") from None
        raise
    if death := _death(server):
        raise native.HelperError(f"{death}; it was under load")


def _death(server: Server) -> str:
    """How the server ended, without waiting for it while it lives."""
    return "" if processes.is_alive(server.session) else server.death()


@contextlib.contextmanager
def _beside_the_client() -> Iterator[None]:
    """This process keeps off the server's CPU meanwhile."""
    usable = os.sched_getaffinity(0)
    _, clients = native.split_cpus()
    os.sched_setaffinity(0, clients)
    try:
        yield
    finally:
        os.sched_setaffinity(0, usable)


def _keep_to_one_cpu(server: Server) -> None:
    """So that one CPU's worth is full load for every server on every machine; what it starts later inherits it."""
    for tid in processes.walk_threads(tree.session_pids(server.session)):
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(tid, [min(server.cpus)])


# --- facts ------------------------------------------------------------------------------------------------------------


def _answer_facts(server: Server) -> Facts:
    """Version, and sizes of an answer."""
    if isinstance(server, RealServer):
        page = server.look()
        return {"server_version": server.version, "header_bytes": page.header_bytes, "body_bytes": page.body_bytes}
    head, _, body = _answer(server.port).partition(b"\r\n\r\n")
    return {"server_version": None, "header_bytes": len(head) + 4, "body_bytes": len(body)}


def _answer(port: int) -> bytes:
    """One whole answer, after which the server closes. Raises ``native.HelperError``."""
    try:
        with socket.create_connection(("127.0.0.1", port), _ANSWER_S) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            pieces = iter(lambda: connection.recv(_READ_BYTES), b"")
            return b"".join(pieces)
    except OSError as error:
        raise native.HelperError(f"the server does not answer: {error}") from None


def _told_count(server: Server) -> int | None:
    """Requests that the server says it has answered; None where it does not."""
    count = server.status().get("requests_count")
    return None if count is None else int(count)


def _ab_facts(report: AbReport) -> Facts:
    return {
        "requests_count": report.complete_count,
        "answered_count": report.answered_count,
        "failed_count": report.failed_count + report.wrong_answers_count,
        "failed_connect_count": report.failed_connect_count,
        "failed_receive_count": report.failed_receive_count,
        "failed_length_count": report.failed_length_count,
        "failed_exceptions_count": report.failed_exceptions_count,
        "wrong_answers_count": report.wrong_answers_count,
        "throughput_per_s": report.answered_count / report.taken_s if report.taken_s else None,
        "p50_ns": report.latency_p50_ns,
        "p99_ns": report.latency_p99_ns,
        "longest_ns": report.latency_longest_ns,
    }


def _wrk_facts(report: ClosedLoop) -> Facts:
    lost = dict.fromkeys(("failed_connect_count", "failed_receive_count", "failed_length_count"))
    return {
        "requests_count": report.requests_count,
        "answered_count": report.requests_count,
        "failed_count": report.failed_count,
        **lost,
        "failed_exceptions_count": None,
        "wrong_answers_count": None,
        "throughput_per_s": report.requests_per_s,
        "p50_ns": report.latency_p50_ns,
        "p99_ns": report.latency_p99_ns,
        "longest_ns": None,
    }


def _cpu_facts(before: tree.TreeReading, after: tree.TreeReading, load: Ab | Wrk, facts: Facts) -> Facts:
    """CPU of the tree with its ended children: the sum by the scheduler's account, its parts by ticks."""
    run_s = _since(before.cpu_run_s, after.cpu_run_s)
    user_s, system_s = (_since(getattr(before, name), getattr(after, name)) for name in ("cpu_user_s", "cpu_system_s"))
    ticks_s = None if user_s is None or system_s is None else user_s + system_s
    share = user_s / ticks_s if user_s is not None and ticks_s else None
    pct = None if run_s is None or not load.elapsed_s else 100 * run_s / load.elapsed_s
    answered = facts["answered_count"]
    assert isinstance(answered, int)
    return {
        "server_cpu_s": run_s,
        "server_cpu_pct": pct,
        "server_user_pct": None if pct is None or share is None else pct * share,
        "server_system_pct": None if pct is None or share is None else pct * (1 - share),
        "load_cpu_pct": 100 * load.cpu_s / load.elapsed_s if load.elapsed_s else None,
        "requests_per_cpu_s": answered / run_s if run_s else None,
        "cpu_per_request_ns": run_s * _NS_PER_S / answered if run_s is not None and answered else None,
    }


def _since(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _kernel_facts(delta: counters.Counters) -> Facts:
    """What the kernel counted meanwhile: in the whole network namespace, and of the whole machine."""
    return {
        "overflows_count": delta.listen_overflows_count,
        "timeouts_count": delta.tcp_timeouts_count,
        "forks_count": delta.forks_count,
    }


def _waits_in(session: int) -> str | None:
    """The kernel's functions in which the tree's first threads sleep (wchan); None where that is not told."""
    texts = {read_text(PROC / str(pid) / "wchan") or "" for pid in tree.session_pids(session)}
    return " ".join(sorted(texts - {"", "0"})) or None


def _series_facts(series: Series, rest: Memory | None) -> Facts:
    """Most and middle of what was seen while the load lasted; None for what was not."""
    served = [item.served_count for item in series.sockets]
    queued = [item.queued_count for item in series.sockets]
    memory = series.memory
    top = max(memory, key=_whole_bytes, default=None)
    available = [item.available_bytes for item in memory if item.available_bytes is not None]
    fall = rest.available_bytes - min(available) if rest and rest.available_bytes and available else None
    return {
        "served_max_count": max(served, default=None),
        "served_median_count": statistics.median(served) if served else None,
        "queued_max_count": max(queued, default=None),
        "sockets_readings_count": len(served),
        "rest_bytes": _whole_bytes(rest) if rest else None,
        "rest_pss_bytes": rest.pss_bytes if rest else None,
        "peak_bytes": _whole_bytes(top) if top else None,
        "peak_pss_bytes": max((item.pss_bytes for item in memory), default=None),
        "mean_pss_bytes": statistics.fmean(item.pss_bytes for item in memory) if memory else None,
        "peak_rss_bytes": max((item.rss_bytes for item in memory), default=None),
        "available_fall_bytes": fall,
        "memory_readings_count": len(memory),
        "processes_count": max((item.processes_count for item in memory), default=None),
        "threads_count": max((item.tasks_count for item in memory), default=None),
    }


def _whole_bytes(item: Memory) -> int:
    """What ending the server would give back: its share of user memory, page tables, kernel stacks."""
    return item.pss_bytes + item.page_table_bytes + item.tasks_count * KERNEL_STACK_BYTES
