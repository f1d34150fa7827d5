"""Launches of slow-clients: fresh servers, each with its innocents and its slow clients, one or several side by side.

A launch goes by stages and yields after each. Of several, each has its turn, so that all servers are started before any
has a client, and their schedules and the waits for the last answers, in which nothing is computed, run together.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace

from c10k_probe import native
from c10k_probe.experiment import Scalar
from c10k_probe.load import Crowd, OpenLoad, OpenLoop, Sender, SlowClients, Work
from c10k_probe.observe import processes
from c10k_probe.observe.series import read_memory
from c10k_probe.servers import RealServer, Server

from ._slow_design import CPU, NS_PER_S, SERVERS, SPARE_COUNT, Ask, work_path
from ._slow_exhausted import MEMORY, Facts, killed_for_memory_count, look
from ._slow_figures import (
    GOOD_COUNT,
    GOOD_NS,
    Innocent,
    due_within,
    innocents_of,
    recovery_of,
    served_count,
    starvation_ns,
)

_WARM_COUNT = 16
_AFTER_NS = (NS_PER_S // 2, 3 * NS_PER_S)  # innocents go on for so long after the slow ones left; the second if needed
_TAIL_NS = NS_PER_S // 10  # innocents go on after the request that works
_SLACK_S = 30.0
_STEP_S = 0.25


@dataclass(frozen=True)
class Launch:
    """What one launch came to: facts, and the innocents that are judged."""

    facts: Mapping[str, Scalar]
    values: Mapping[str, Sequence[int]]


Stages = Generator[None, None, Launch]


@dataclass(frozen=True)
class _Run:
    """What belongs to one launch."""

    ask: Ask
    server: Server
    sender: Sender
    remaining_s: Callable[[], float]


def outcomes(asks: Sequence[Ask], remaining_s: Callable[[], float]) -> list[Launch | native.HelperError]:
    """One for each ask, side by side: a launch, or why it could not go on; the others do."""
    stages = [_launch(ask, remaining_s) for ask in asks]
    done: dict[int, Launch | native.HelperError] = {}
    with contextlib.ExitStack() as stack:
        for launch in stages:
            stack.callback(launch.close)
        while len(done) < len(stages):
            for place, launch in enumerate(stages):
                if place not in done:
                    try:
                        next(launch)
                    except StopIteration as end:
                        done[place] = end.value
                    except native.HelperError as error:
                        done[place] = error
    return [done[place] for place in range(len(stages))]


def _launch(ask: Ask, remaining_s: Callable[[], float]) -> Stages:
    waiting_count = ask.rate_per_s * ask.timeout_ns // NS_PER_S + SPARE_COUNT
    killed_count = killed_for_memory_count()
    with SERVERS[ask.server].start(ask.options) as server:
        if isinstance(server, RealServer):
            server.warm_up(min(_WARM_COUNT, ask.room_count or _WARM_COUNT))
        with Sender(server.port, waiting_count, keep_alive=False, timeout_s=ask.timeout_ns / NS_PER_S) as sender:
            run = _Run(ask, server, sender, remaining_s)
            way = _worked if ask.kind == CPU else _slowed if ask.clients_count else _undisturbed
            launch = yield from way(run)
        death = _death(server)
        if isinstance(server, RealServer):
            server.begin_close()
        yield  # all end together
        facts = {
            "server_version": server.version if isinstance(server, RealServer) else None,
            "defence_settings": ask.defence_text or None,
            "defence_ns": None if ask.options.defence_s is None else ask.options.defence_s * NS_PER_S,
            "workers_count": ask.room_count,
            "death": death,
            "timeout_ns": ask.timeout_ns,
            **launch.facts,
        }
    if death and killed_for_memory_count() > killed_count:
        facts["exhausted"] = ", ".join(filter(None, (MEMORY, str(facts.get("exhausted") or ""))))
    return replace(launch, facts=facts)


# --- slow clients -----------------------------------------------------------------------------------------------------


def _undisturbed(run: _Run) -> Stages:
    """Innocents alone."""
    yield from _passed(2)
    run.sender.begin_send(OpenLoad(run.ask.rate_per_s, run.ask.duration_ns / NS_PER_S, run.ask.seed))
    end_ns = time.monotonic_ns() + run.ask.duration_ns
    yield
    _wait_until(end_ns, run)
    facts = look(run.server, run.ask.room_count)
    yield
    report = _finish(run.sender, run)
    judged = innocents_of(report)
    return Launch(facts | _report_facts(report, judged, run.ask), _values(judged, report.start_ns))


def _passed(stages_count: int) -> Generator[None, None, None]:
    """Stages in which others have something to do."""
    for _ in range(stages_count):
        yield


def _slowed(run: _Run) -> Stages:
    """Innocents while slow clients are there, and after they have left.

    A first series of them begins with the slow clients, and tells when starvation begins; the second one is judged. It
    begins once all slow clients of all launches have what connections they get.
    """
    ask, server = run.ask, run.server
    waiting_count = ask.rate_per_s * ask.timeout_ns // NS_PER_S + SPARE_COUNT
    timeout_s = ask.timeout_ns / NS_PER_S
    with (
        SlowClients(server, ask.kind, ask.interval_ns / NS_PER_S) as slow,
        Sender(server.port, waiting_count, keep_alive=False, timeout_s=timeout_s) as arriving,
    ):
        yield
        arriving.begin_send(OpenLoad(ask.rate_per_s, ask.lead_ns / NS_PER_S, ask.seed))
        began_ns = time.monotonic_ns()
        slow.set_count(ask.clients_count)
        yield
        left_ns = began_ns + ask.lead_ns - time.monotonic_ns()
        slow.settle(max(0, left_ns) / NS_PER_S)
        yield
        run.sender.begin_send(OpenLoad(ask.rate_per_s, ask.duration_ns / NS_PER_S, ask.seed))
        start_ns, cpu_ns = time.monotonic_ns(), slow.status().cpu_ns
        yield
        _wait_until(start_ns + ask.duration_ns, run)
        crowd, span_ns = slow.status(), time.monotonic_ns() - start_ns
        memory = read_memory(slow.pid)
        facts = look(server, ask.room_count) | _crowd_facts(crowd, (crowd.cpu_ns - cpu_ns) / span_ns)
        facts["slow_pss_bytes"] = memory.pss_bytes if memory else None
        yield
        arrived, report = _finish(arriving, run), _finish(run.sender, run)
        if not _death(server):
            facts |= yield from _left(run, slow)
    judged = innocents_of(report)
    facts["starvation_ns"] = starvation_ns([*innocents_of(arrived), *judged], began_ns, ask.timeout_ns)
    facts |= _report_facts(report, judged, ask)
    facts["sender_failure"] = facts["sender_failure"] or arrived.own_failure
    return Launch(facts, _values(judged, report.start_ns))


def _left(run: _Run, slow: SlowClients) -> Generator[None, None, Facts]:
    """The slow ones leave; innocents go on until they are served again, or for as long as they may.

    A second sender begins where the schedule of the first ends, before what became of that is known: there is no gap.
    """
    rate, seed = run.ask.rate_per_s, run.ask.seed
    durations_ns = [max(each, 2 * GOOD_COUNT * NS_PER_S // rate) for each in _AFTER_NS]
    waiting_count = rate * GOOD_NS // NS_PER_S + SPARE_COUNT
    second = Sender(run.server.port, waiting_count, keep_alive=False, timeout_s=GOOD_NS / NS_PER_S)
    try:
        left_ns = time.monotonic_ns()
        slow.set_count(0)
        run.sender.begin_send(OpenLoad(rate, durations_ns[0] / NS_PER_S, seed))
        end_ns = time.monotonic_ns() + durations_ns[0]
        yield
        _wait_until(end_ns, run)
        second.begin_send(OpenLoad(rate, durations_ns[1] / NS_PER_S, seed))
        report = _finish(run.sender, run)
        innocents, end_ns = innocents_of(report), report.start_ns + report.duration_ns
        found = recovery_of(innocents, left_ns)
        if found is None:
            yield
            report = second.finish_send(durations_ns[1] / NS_PER_S + _SLACK_S)
            innocents += innocents_of(report)
            found, end_ns = recovery_of(innocents, left_ns), report.start_ns + report.duration_ns
    finally:
        second.kill()  # in the midst of its schedule where that is not needed
    return {
        "recovery_ns": found.took_ns if found else None,
        "recovery_resolution_ns": found.resolution_ns if found else None,
        "watched_ns": end_ns - left_ns,
    }


def _crowd_facts(crowd: Crowd, cpu_ratio: float) -> Facts:
    return {
        "slow_open_count": crowd.open_count,
        "slow_pending_count": crowd.pending_count,
        "slow_ended_count": crowd.ended_count,
        "slow_refused_count": crowd.refused_count,
        "slow_sent_bytes": crowd.sent_bytes,
        "slow_received_bytes": crowd.received_bytes,
        "slow_bytes": crowd.slow_bytes,
        "slow_latest_ns": crowd.latest_turn_ns,
        "slow_cpu_pct": 100 * cpu_ratio,
        "slow_failure": crowd.failure,
    }


# --- one request that works -------------------------------------------------------------------------------------------


def _worked(run: _Run) -> Stages:
    """Innocents that were due while the server worked for one other; others that are side by side wait meanwhile."""
    ask = run.ask
    yield from _passed(5)
    run.sender.begin_send(OpenLoad(ask.rate_per_s, (ask.work_ns + _TAIL_NS) / NS_PER_S, ask.seed))
    path = f"{work_path(ask.server)}?ms={ask.work_ns // 1_000_000}"
    with Work(run.server, path, ask.work_ns / NS_PER_S + _SLACK_S) as work:
        taken_ns = work.wait()
        started_ns = work.started_ns
    report = _finish(run.sender, run)
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


def _finish(sender: Sender, run: _Run) -> OpenLoop:
    longest_s = (run.ask.duration_ns + run.ask.work_ns + run.ask.timeout_ns) / NS_PER_S + _SLACK_S
    return sender.finish_send(min(longest_s, run.remaining_s() + 0.1))


def _death(server: Server) -> str:
    """How the server ended; empty while it lives."""
    return "" if processes.is_alive(server.session) else server.death() or f"{server.name} ended"
