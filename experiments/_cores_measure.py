"""One launch of cores: a fresh server, a closed loop for what it can do, an open loop at a share of that."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from c10k_probe import native
from c10k_probe.experiment import Scalar
from c10k_probe.load.open_loop import OpenLoop, Sender
from c10k_probe.observe import tree
from c10k_probe.observe.procfs import PROC
from c10k_probe.servers import RealServer, Server, ServerOptions
from c10k_probe.servers.node_cluster import WORK_PATH, shares

from ._cores_design import ARMS, LONG, Arm, CoresParameters

_TIMEOUT_S: Final = 10.0
_WARM_UP_S: Final = 0.2
_NS_PER_S: Final = 1e9


@dataclass(frozen=True)
class Launch:
    """What one launch came to: latencies and shares, and the facts of it."""

    latency_ns: Sequence[int]
    worker_requests: Sequence[int]
    facts: dict[str, Scalar]


@dataclass(frozen=True)
class _Reading:
    """Of all processes, and of those that serve: CPU time, and voluntary switches; requests by worker."""

    cpu_s: float | None
    switches_count: int | None
    workers_switches_count: int | None
    requests: list[int]


def measure(parameters: CoresParameters, name: str, workers_count: int, load: str, seed: int) -> Launch:
    """One launch. Raises ``native.HelperError``; ``HelperUnsupported`` for what is missing here."""
    arm = ARMS[name]
    # the timing of requests, which --work-cpu-ns brings with it, costs the same in every arm of C
    options = ServerOptions(protocol="http", workers_count=workers_count, work_cpu_ns=parameters.work)
    if arm.model.missing:
        raise native.HelperUnsupported(arm.model.missing)
    with arm.model.start(options) as server:
        closed = _closed(parameters, arm, server, load, workers_count)
        rate_per_s = float(closed["throughput_per_s"] or 0) * parameters.utilisation / 100
        if rate_per_s <= 0:
            raise native.HelperError(f"{name} answered nothing in the closed loop")
        sent, before, after = _open(parameters, arm, server, load, workers_count, rate_per_s, seed)
        _check_alive(server, workers_count, arm)
        facts = {**closed, **_open_facts(sent, before, after), "cpus_count": len(os.sched_getaffinity(0))}
        facts["server_cpus_count"] = len(server.cpus)
    worker_requests = [now - old for now, old in zip(after.requests, before.requests, strict=True)]
    return Launch([value for value in sent.latency_ns if value >= 0], worker_requests, facts)


def _closed(parameters: CoresParameters, arm: Arm, server: Server, load: str, workers_count: int) -> dict[str, Scalar]:
    """What it can do."""
    with Sender(
        server.port, parameters.concurrency, keep_alive=load == LONG, timeout_s=_TIMEOUT_S, path=_path(parameters, arm)
    ) as sender:
        sender.pump(_WARM_UP_S)
        before = tree.read_tree(server.session, memory=False).cpu_run_s
        report = sender.pump(parameters.duration / _NS_PER_S)
        after = tree.read_tree(server.session, memory=False).cpu_run_s
    _check_alive(server, workers_count, arm)
    _refuse_own(report.own_failure)
    # CPU also of what was still answered after the window, so it is per request and not per time of the window
    done_count = report.warmup_count + report.requests_count + report.drained_count
    used_ns = None if before is None or after is None or not done_count else (after - before) * _NS_PER_S / done_count
    return {
        "throughput_per_s": report.rate_per_s,
        "closed_failed_count": report.failed_count,
        "closed_client_pct": 100 * report.client_busy_ratio,
        "cpu_per_request_ns": used_ns,
    }


def _open(
    parameters: CoresParameters,
    arm: Arm,
    server: Server,
    load: str,
    workers_count: int,
    rate_per_s: float,
    seed: int,
) -> tuple[OpenLoop, _Reading, _Reading]:
    """At a share of that; idle workers are there to be woken."""
    connections_count = parameters.connections if load == LONG else 2 * parameters.concurrency
    server.wait_until_idle()
    before = _read(server, arm, workers_count)
    with Sender(
        server.port, connections_count, keep_alive=load == LONG, timeout_s=_TIMEOUT_S, path=_path(parameters, arm)
    ) as sender:
        sent = sender.send(rate_per_s, parameters.duration / _NS_PER_S, seed, arrivals="poisson")
    server.wait_until_idle()
    _refuse_own(sent.own_failure)
    return sent, before, _read(server, arm, workers_count)


def _path(parameters: CoresParameters, arm: Arm) -> str:
    return WORK_PATH.format(ns=parameters.work) if arm.base == "node" else "/"


def _refuse_own(failure: str) -> None:
    if failure:
        raise native.HelperError(f"the client could open no more connections: {failure}; ask for fewer")


def _read(server: Server, arm: Arm, workers_count: int) -> _Reading:
    """Switches first: to be asked for counts wakes workers."""
    pids = tree.session_pids(server.session, PROC)
    serving = [pid for pid in pids if pid != server.session] if arm.has_master else pids
    every = tree.read_processes(pids, memory=False)
    workers = tree.read_processes(serving, memory=False)
    if isinstance(server, RealServer):
        requests = [count for _, count in shares(server, workers_count)]
    else:
        status = server.status()
        requests = status.get("worker_requests_count") or [status["work"]["requests_count"]]
    return _Reading(every.cpu_run_s, every.voluntary_switches_count, workers.voluntary_switches_count, requests)


def _check_alive(server: Server, workers_count: int, arm: Arm) -> None:
    """A launch in which a worker died is none of so many workers. Raises ``native.HelperError``."""
    if death := server.death():
        raise native.HelperError(f"{death}; it was under load")
    dead = [wall["message"] for wall in server.walls() if wall["call"] == "worker"]
    if dead:
        raise native.HelperError(f"{arm.model.name}: {dead[0]}; measured would be fewer than {workers_count} workers")


def _open_facts(sent: OpenLoop, before: _Reading, after: _Reading) -> dict[str, Scalar]:
    opened_count = sent.opened_connections_count

    def per_accept(old: int | None, new: int | None) -> float | None:
        return None if old is None or new is None or not opened_count else (new - old) / opened_count

    return {
        "intended_count": sent.intended_count,
        "open_failed_count": sent.intended_count - sent.answered_count,
        "accepted_count": opened_count,
        "open_client_pct": 100 * sent.client_busy_ratio,
        "longest_late_ns": sent.longest_late_ns,
        "wakeups": per_accept(before.workers_switches_count, after.workers_switches_count),
        "all_wakeups": per_accept(before.switches_count, after.switches_count),
        "open_cpu_s": None if before.cpu_s is None or after.cpu_s is None else after.cpu_s - before.cpu_s,
        "open_taken_s": sent.taken_ns / _NS_PER_S,
    }
