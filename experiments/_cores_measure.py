"""One launch of cores: a fresh server, a closed loop for what it can do, an open loop at a share of that, and for
wake-ups a sparse one that finds every worker asleep."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from c10k_probe import native
from c10k_probe.experiment import Scalar
from c10k_probe.load.open_loop import OpenLoad, OpenLoop, Sender
from c10k_probe.observe import processes, tree
from c10k_probe.observe.procfs import PROC
from c10k_probe.servers import RealServer, Server, ServerOptions
from c10k_probe.servers.behind_nginx import WORK_PATH, shares

from ._cores_design import ARMS, LONG, OPEN_COUNT, Arm, CoresParameters

_TIMEOUT_S: Final = 10.0
_WARM_UP_S: Final = 0.1
_WARM_UPS_COUNT: Final = 50
_SPARSE_PER_S: Final = 100.0  # at most: each connection is to find every worker asleep
_SPARSE_UTILISATION: Final = 0.1  # of one CPU, at most
_SPARSE_S: Final = 0.2  # or ten connections
_SPARSE_COUNT: Final = 10
_LEAST_WORK_NS: Final = 300_000  # of a request, where the handler has less
_MOST_SLOWED: Final = 4
_PATIENCE_S: Final = 30.0  # for the sender to tell
_NS_PER_S: Final = 1e9


@dataclass(frozen=True)
class Ask:
    """What one launch is to measure."""

    parameters: CoresParameters
    name: str
    workers_count: int
    load: str
    seed: int

    @property
    def arm(self) -> Arm:
        """How connections come to the workers."""
        return ARMS[self.name]

    def sender(self, server: Server, connections_count: int) -> Sender:
        """A client with so many connections."""
        path = WORK_PATH.format(ns=self.parameters.work) if self.arm.base != "epoll" else "/"
        keep_alive = self.load == LONG
        return Sender(server.port, connections_count, keep_alive=keep_alive, timeout_s=_TIMEOUT_S, path=path)

    @property
    def longest_s(self) -> float:
        """Of an open loop on a machine that has a quarter to give of what it should; with less p99 is missing."""
        work_s = max(self.parameters.work, _LEAST_WORK_NS) / _NS_PER_S
        return _MOST_SLOWED * OPEN_COUNT * work_s * 100 / self.parameters.utilisation

    @property
    def duration_s(self) -> float:
        """Of a window."""
        return self.parameters.duration / _NS_PER_S


@dataclass(frozen=True)
class Launch:
    """What one launch came to: latencies and shares, and the facts of it."""

    latency_ns: Sequence[int]
    worker_requests: Sequence[int]
    facts: dict[str, Scalar]


@dataclass(frozen=True)
class _Reading:
    """Voluntary switches of all processes, and of those that serve; requests by worker."""

    switches_count: int | None
    workers_switches_count: int | None
    requests: list[int]


def measure(ask: Ask) -> Launch:
    """One launch. Raises ``native.HelperError``; ``HelperUnsupported`` for what is missing here."""
    # the timing of requests, which --work-cpu-ns brings with it, costs the same in every arm of C
    connections_count = ask.parameters.connections if ask.load == LONG else 2 * ask.parameters.concurrency
    options = ServerOptions(
        protocol="http",
        workers_count=ask.workers_count,
        work_cpu_ns=ask.parameters.work,
        capacity_count=2 * connections_count if ask.arm.has_front else None,  # one to a worker for each of a client
    )
    if ask.arm.model.missing:
        raise native.HelperUnsupported(ask.arm.model.missing)
    with ask.arm.model.start(options) as server, _telling_of_death(ask, server):
        facts = _closed(ask, server)
        rate_per_s = float(facts["throughput_per_s"] or 0) * ask.parameters.utilisation / 100
        if rate_per_s <= 0:
            raise native.HelperError(f"{ask.name} answered nothing in the closed loop")
        sent, before, after, worked_s = _open(ask, server, connections_count, rate_per_s)
        busy_cpus_count = ask.arm.busy_cpus_count(ask.workers_count, len(server.cpus))
        facts |= _open_facts(sent, before, after, None if worked_s is None else worked_s / busy_cpus_count)
        facts |= _sparse(ask, server)
        facts |= {"cpus_count": len(os.sched_getaffinity(0)), "server_cpus_count": len(server.cpus)}
    worker_requests = [now - old for now, old in zip(after.requests, before.requests, strict=True)]
    return Launch([value for value in sent.latency_ns if value >= 0], worker_requests, facts)


@contextlib.contextmanager
def _telling_of_death(ask: Ask, server: Server) -> Iterator[None]:
    """A launch in which a worker died is none of so many workers. Raises ``native.HelperError``."""
    try:
        yield
    except native.HelperError:
        _check_alive(ask, server)
        raise
    _check_alive(ask, server)


def _check_alive(ask: Ask, server: Server) -> None:
    if not processes.is_alive(server.session):
        raise native.HelperError(f"{server.death()}; it was under load")
    dead = [wall["message"] for wall in server.walls() if wall["call"] == "worker"]
    if dead:
        raise native.HelperError(f"{dead[0]}; the server has fewer than its {ask.workers_count} workers")


def _closed(ask: Ask, server: Server) -> dict[str, Scalar]:
    """What it can do."""
    with ask.sender(server, ask.parameters.concurrency) as sender:
        _warm_up(ask, sender)
        before = tree.read_tree(server.session, memory=False).cpu_run_s
        report = sender.pump(ask.duration_s)
        after = tree.read_tree(server.session, memory=False).cpu_run_s
    _refuse_own(report.own_failure)
    # CPU also of what was still answered after the window, so it is per request and not per time of the window
    done_count = report.warmup_count + report.requests_count + report.drained_count
    used_ns = None if before is None or after is None or not done_count else (after - before) * _NS_PER_S / done_count
    return {
        "throughput_per_s": report.rate_per_s,
        "closed_count": report.requests_count + report.failed_count,
        "closed_failed_count": report.failed_count,
        "closed_client_pct": 100 * report.client_busy_ratio,
        "cpu_per_request_ns": used_ns,
    }


def _warm_up(ask: Ask, sender: Sender) -> None:
    """For 100 ms, and until something was answered: a program that was just started may take longer."""
    for _ in range(_WARM_UPS_COUNT):
        if sender.pump(_WARM_UP_S).requests_count:
            return
    raise native.HelperError(f"{ask.name} answered nothing within {_WARM_UPS_COUNT * _WARM_UP_S:g} s")


def _open(
    ask: Ask, server: Server, connections_count: int, rate_per_s: float
) -> tuple[OpenLoop, _Reading, _Reading, float | None]:
    """At a share of that, by chance as users come, with as many as a p99 needs; CPU time of the workers meanwhile, s.

    That of opening the kept connections before it, and of closing them, is not in it.
    """
    server.wait_until_idle()
    duration_s = max(ask.duration_s, min(OPEN_COUNT / rate_per_s, ask.longest_s))
    before = _read(ask, server, is_first=True)
    with ask.sender(server, connections_count) as sender:
        sender.begin_send(OpenLoad(rate_per_s, duration_s, ask.seed, arrivals="poisson"))
        began_s = _workers(ask, server).cpu_run_s
        sent = sender.finish_send(duration_s + _TIMEOUT_S + _PATIENCE_S)
        ended_s = _workers(ask, server).cpu_run_s
    server.wait_until_idle()
    _refuse_own(sent.own_failure)
    worked_s = None if began_s is None or ended_s is None else ended_s - began_s
    return sent, before, _read(ask, server, is_first=False), worked_s


def _sparse(ask: Ask, server: Server) -> dict[str, Scalar]:
    """Connections so far apart that every worker sleeps when one comes: whom does it wake?"""
    if ask.load == LONG:
        return {}
    rate_per_s = min(_SPARSE_PER_S, _SPARSE_UTILISATION * _NS_PER_S / ask.parameters.work)
    before = _read(ask, server, is_first=True)
    with ask.sender(server, 2 * ask.parameters.concurrency) as sender:
        sent = sender.send(OpenLoad(rate_per_s, max(_SPARSE_S, _SPARSE_COUNT / rate_per_s), ask.seed))
    server.wait_until_idle()
    _refuse_own(sent.own_failure)
    after = _read(ask, server, is_first=False)
    opened_count = sent.opened_connections_count
    return {
        "sparse_count": opened_count,
        "sparse_failed_count": sent.intended_count - sent.answered_count,
        "wakeups": _each(before.workers_switches_count, after.workers_switches_count, opened_count),
        "all_wakeups": _each(before.switches_count, after.switches_count, opened_count),
    }


def _refuse_own(failure: str) -> None:
    if failure:
        raise native.HelperError(f"the client could open no more connections: {failure}; ask for fewer")


def _read(ask: Ask, server: Server, *, is_first: bool) -> _Reading:
    """To be asked for counts wakes workers of Node.js: they are asked before the first switches and after the last."""
    requests = _requests(ask, server) if is_first else []
    every, workers = tree.read_tree(server.session, memory=False), _workers(ask, server)
    requests = requests or _requests(ask, server)
    return _Reading(every.voluntary_switches_count, workers.voluntary_switches_count, requests)


def _workers(ask: Ask, server: Server) -> tree.TreeReading:
    """Of all processes that serve, and of one that stands before them."""
    pids = tree.session_pids(server.session, PROC)
    return tree.read_processes(
        [pid for pid in pids if pid != server.session] if ask.arm.has_master else pids, memory=False
    )


def _requests(ask: Ask, server: Server) -> list[int]:
    """Of each worker so far, by its own count."""
    if isinstance(server, RealServer):
        return [count for _, count in shares(server, ask.workers_count)]
    status = server.status()
    return status.get("worker_requests_count") or [status["work"]["requests_count"]]


def _each(before: int | None, after: int | None, count: int) -> float | None:
    return None if before is None or after is None or not count else (after - before) / count


def _open_facts(sent: OpenLoop, before: _Reading, after: _Reading, worked_s: float | None) -> dict[str, Scalar]:
    """worked_s: CPU time of each CPU that the workers could have."""
    opened_count = sent.opened_connections_count
    return {
        "p50_ns": sent.quantile_ns(0.5),
        "p99_ns": sent.quantile_ns(0.99),
        "utilisation_pct": None if worked_s is None else 100 * worked_s * _NS_PER_S / sent.taken_ns,
        "intended_count": sent.intended_count,
        "open_failed_count": sent.intended_count - sent.answered_count,
        "accepted_count": opened_count,
        "open_client_pct": 100 * sent.client_busy_ratio,
        "longest_late_ns": sent.longest_late_ns,
        "busy_wakeups": _each(before.workers_switches_count, after.workers_switches_count, opened_count),
    }
