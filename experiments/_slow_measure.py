"""One launch of slow-clients: a fresh server, its innocents, its slow clients, and what ran out meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from c10k_probe import limits, native
from c10k_probe.experiment import Scalar
from c10k_probe.load import Crowd, OpenLoop, Sender, SlowClients, Work
from c10k_probe.observe import counters, processes, sockets, tree
from c10k_probe.observe.procfs import PROC, read_rlimits
from c10k_probe.observe.series import read_memory
from c10k_probe.servers import RealServer, Server

from ._slow_design import CPU, LEAD_NS, NS_PER_S, SERVERS, SPARE_COUNT, Ask, work_path
from ._slow_figures import Innocent, due_within, innocents_of, recovery_ns, served_count, starvation_ns

_WARM_COUNT = 16
_AFTER_S = (0.5, 3.0)  # for how long innocents go on once the slow ones have left; the second where the first was short
_SLACK_S = 30.0
_STEP_S = 0.25
_NO_WORKER = "worker"  # by which the C models tell that a connection waits for one
_LOOKED_AT = 64  # processes whose descriptors are counted
Facts = dict[str, Scalar]


@dataclass(frozen=True)
class Launch:
    """What one launch came to: facts, and the innocents that are judged."""

    facts: Mapping[str, Scalar]
    values: Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class _Run:
    """What belongs to one launch."""

    ask: Ask
    server: Server
    sender: Sender
    remaining_s: Callable[[], float]


def measure(ask: Ask, remaining_s: Callable[[], float]) -> Launch:
    """One launch. Raises ``native.HelperError``; ``HelperUnsupported`` for what is missing here."""
    waiting_count = ask.rate_per_s * ask.timeout_ns // NS_PER_S + SPARE_COUNT
    with SERVERS[ask.server].start(ask.options) as server:
        if isinstance(server, RealServer):
            server.warm_up(min(_WARM_COUNT, ask.room_count or _WARM_COUNT))
        with Sender(server.port, waiting_count, keep_alive=False, timeout_s=ask.timeout_ns / NS_PER_S) as sender:
            run = _Run(ask, server, sender, remaining_s)
            counted = counters.read_counters()
            way = _worked if ask.kind == CPU else _slowed if ask.clients_count else _undisturbed
            launch = way(run)
            delta = counters.counters_delta(counted, counters.read_counters())
        facts = {
            "server_version": server.version if isinstance(server, RealServer) else None,
            "defence_settings": ask.defence_text or None,
            "defence_ns": None if ask.options.defence_s is None else ask.options.defence_s * NS_PER_S,
            "workers_count": ask.room_count,
            "death": _death(server),
            "timeout_ns": ask.timeout_ns,
            "overflows_count": delta.listen_overflows_count,
            "timeouts_count": delta.tcp_timeouts_count,
        }
        return replace(launch, facts={**facts, **launch.facts})


# --- slow clients -----------------------------------------------------------------------------------------------------


def _undisturbed(run: _Run) -> Launch:
    """Innocents alone."""
    run.sender.begin_send(run.ask.rate_per_s, run.ask.duration_ns / NS_PER_S, run.ask.seed)
    _wait_until(time.monotonic_ns() + run.ask.duration_ns, run)
    facts = _look(run)
    report = _finish(run)
    judged = innocents_of(report)
    return Launch(facts | _report_facts(report, judged, run.ask), _values(judged, report.start_ns))


def _slowed(run: _Run) -> Launch:
    """Innocents while slow clients are there, and after they have left."""
    ask = run.ask
    with SlowClients(run.server, ask.kind, ask.interval_ns / NS_PER_S) as slow:
        run.sender.begin_send(ask.rate_per_s, (LEAD_NS + ask.duration_ns) / NS_PER_S, ask.seed)
        began_ns = time.monotonic_ns()
        slow.set_count(ask.clients_count)
        cpu_ns = slow.settle(LEAD_NS / NS_PER_S).cpu_ns
        settled_ns = time.monotonic_ns()
        _wait_until(began_ns + LEAD_NS + ask.duration_ns, run)
        crowd, span_ns = slow.status(), time.monotonic_ns() - settled_ns
        facts = _look(run) | _crowd_facts(crowd, (crowd.cpu_ns - cpu_ns) / span_ns)
        report = _finish(run)
        if not _death(run.server):
            left_ns = time.monotonic_ns()
            slow.set_count(0)
            facts |= _recovered(run, left_ns)
    innocents = innocents_of(report)
    start_ns = max(report.start_ns + LEAD_NS, settled_ns)
    judged = due_within(innocents, start_ns, report.start_ns + report.duration_ns)
    facts["starvation_ns"] = starvation_ns(innocents, began_ns, ask.timeout_ns)
    return Launch(facts | _report_facts(report, judged, ask), _values(judged, start_ns))


def _recovered(run: _Run, left_ns: int) -> Facts:
    """Innocents go on until all are answered soon again, or for as long as they may."""
    found, watched_ns = None, 0
    for seconds in _AFTER_S:
        report = run.sender.send(run.ask.rate_per_s, seconds, run.ask.seed)
        found = recovery_ns(innocents_of(report), left_ns)
        watched_ns = report.start_ns + report.duration_ns - left_ns
        if found is not None or run.remaining_s() <= 0:
            break
    return {"recovery_ns": found, "watched_ns": watched_ns}


def _crowd_facts(crowd: Crowd, cpu_ratio: float) -> Facts:
    return {
        "slow_open_count": crowd.open_count,
        "slow_pending_count": crowd.pending_count,
        "slow_ended_count": crowd.ended_count,
        "slow_refused_count": crowd.refused_count,
        "slow_bytes": crowd.slow_bytes,
        "slow_latest_ns": crowd.latest_turn_ns,
        "slow_cpu_pct": 100 * cpu_ratio,
        "slow_failure": crowd.failure,
    }


# --- one request that works -------------------------------------------------------------------------------------------


def _worked(run: _Run) -> Launch:
    """Innocents that were due while the server worked for one other."""
    ask = run.ask
    run.sender.begin_send(ask.rate_per_s, (ask.work_ns + NS_PER_S) / NS_PER_S, ask.seed)
    path = f"{work_path(ask.server)}?ms={ask.work_ns // 1_000_000}"
    with Work(run.server, path, ask.work_ns / NS_PER_S + _SLACK_S) as work:
        taken_ns = work.wait()
        started_ns = work.started_ns
    report = _finish(run)
    if taken_ns is None:
        raise native.HelperError(_death(run.server) or f"{ask.server} did not answer the request that works")
    judged = due_within(innocents_of(report), started_ns, started_ns + taken_ns)
    facts = _report_facts(report, judged, ask) | {"work_taken_ns": taken_ns}
    return Launch(facts, _values(judged, started_ns))


# --- both -------------------------------------------------------------------------------------------------------------


def _report_facts(report: OpenLoop, judged: Sequence[Innocent], ask: Ask) -> Facts:
    latencies = [item.latency_ns for item in judged if item.latency_ns is not None]
    return {
        "innocents_count": len(judged),
        "served_count": served_count(judged, ask.timeout_ns),
        "longest_ns": max(latencies, default=None),
        "refused_count": report.refused_count,
        "reset_count": report.reset_count,
        "timed_out_count": report.timed_out_count,
        "wrong_count": report.wrong_count,
        "unsent_count": report.unsent_count,
        "late_ns": report.longest_late_ns,
        "sender_pct": 100 * report.client_busy_ratio,
        "sender_failure": report.own_failure,
    }


def _values(judged: Sequence[Innocent], start_ns: int) -> dict[str, list[int]]:
    """When each innocent was due, and its latency, -1 where it was not served."""
    return {
        "due_ns": [item.due_ns - start_ns for item in judged],
        "latency_ns": [-1 if item.latency_ns is None else item.latency_ns for item in judged],
    }


def _wait_until(moment_ns: int, run: _Run) -> None:
    while (left_s := (moment_ns - time.monotonic_ns()) / NS_PER_S) > 0:
        if run.remaining_s() <= 0:
            raise native.HelperError("the run's time is over")
        time.sleep(min(left_s, _STEP_S))


def _finish(run: _Run) -> OpenLoop:
    longest_s = (run.ask.duration_ns + run.ask.work_ns + run.ask.timeout_ns) / NS_PER_S + _SLACK_S
    return run.sender.finish_send(min(longest_s, run.remaining_s() + 0.1))


def _death(server: Server) -> str:
    """How the server ended; empty while it lives."""
    return "" if processes.is_alive(server.session) else server.death() or f"{server.name} ended"


# --- what ran out -----------------------------------------------------------------------------------------------------


def _look(run: _Run) -> Facts:
    """The server at the end of the schedule: connections, queue, descriptors, tasks, memory, and what is used up."""
    server = run.server
    queue = sockets.listen_queue(server.port)
    pids = tree.session_pids(server.session)
    memory = read_memory(server.session)
    descriptors_count, descriptors_limit = _descriptors(pids)
    facts: Facts = {
        "inside_count": sockets.accepted_count(server.port),
        "queued_count": queue.queued_count if queue else None,
        "backlog_count": server.backlog_count,
        "descriptors_count": descriptors_count,
        "descriptors_limit_count": descriptors_limit,
        "processes_count": len(pids),
        "threads_count": len(list(processes.walk_threads(pids))),
        "pss_bytes": memory.pss_bytes if memory else None,
    }
    return facts | {"exhausted": ", ".join(_exhausted(run, facts))}


def _descriptors(pids: Sequence[int]) -> tuple[int | None, int | None]:
    """Descriptors of the process that has most of them, and its limit; of a large tree the first ones are looked at."""
    most: tuple[int, int | None] | None = None
    for pid in pids[:_LOOKED_AT]:
        try:
            count = len(os.listdir(PROC / str(pid) / "fd"))  # noqa: PTH208 -- thousands of names
        except OSError:
            continue
        if most is None or count > most[0]:
            most = count, read_rlimits(pid=pid).get("nofile", (None, None))[0]
    return most or (None, None)


def _exhausted(run: _Run, facts: Facts) -> list[str]:
    """What the server had no more of."""
    found = []
    inside, queued = facts["inside_count"], facts["queued_count"]
    if run.ask.room_count is not None and isinstance(inside, int) and inside >= run.ask.room_count:
        found.append("workers")
    if isinstance(queued, int) and queued >= run.server.backlog_count:
        found.append("accept queue")
    used, limit = facts["descriptors_count"], facts["descriptors_limit_count"]
    if isinstance(used, int) and isinstance(limit, int) and used >= limit - 1:
        found.append("descriptors")
    for hit in run.server.walls() if processes.is_alive(run.server.session) else ():
        if hit["call"] == _NO_WORKER or "setting" in hit:
            found.append(str(hit.get("setting", "workers")))
            continue
        wall = limits.diagnose(str(hit["call"]), str(hit["name"]), walls=limits.walls())
        found.append(wall.name if wall else f"{hit['call']}: {hit['name']}")
    return list(dict.fromkeys(found))
