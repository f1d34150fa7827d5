"""One launch of servers in a closed loop: a load, what both ends took, and what was seen meanwhile."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from c10k_probe import native
from c10k_probe.experiment import Bench, Scalar
from c10k_probe.load import Ab, AbReport, Wrk, find_generator
from c10k_probe.observe import counters, sockets, tree
from c10k_probe.observe.births import Births, births_of
from c10k_probe.observe.middle import MiddleWatch, Watched
from c10k_probe.observe.series import Series

from ._servers_design import ARTICLE, FAIR, WORKER_NEEDS
from ._servers_facts import (
    GENERATOR,
    NS_PER_S,
    Facts,
    ab_facts,
    cost_by_its_own_count,
    cpu_facts,
    kernel_facts,
    middle_facts,
    series_facts,
    since,
    wrk_facts,
)
from ._servers_launch import (
    Ask,
    Started,
    beside_the_client,
    cpu_s,
    death_of,
    started,
    telling_of_death,
    told_count,
    told_since,
    wait_until_at_rest,
)
from ._servers_traced import RATE, counting

_PATIENCE_S = 600.0
_WAIT_S = 1.0
_CONTROL_S = 2.0
_STALL_EVERY_S, _STALL_LOOKS = 1.0, 3
_STALLED = (
    "ab waits for answers to requests that it has not sent: it loses count when an answer breaks off in the middle; "
    "find out why the server does that, or measure it with --fair: wrk counts what breaks off"
)
_MIDDLE = (0.25, 0.9)  # of wrk's window: its connections are made, and it has not begun to end

Ends = tuple[frozenset[int], frozenset[int]]  # CPUs of the server, and of its client


@dataclass(frozen=True)
class Launch:
    """What one launch came to: facts, and the memory of the tree over time."""

    facts: Mapping[str, Scalar]
    values: Mapping[str, list[int]]


def measure(ask: Ask, bench: Bench) -> Launch:
    """One launch; its readings are told while it lasts. Raises ``HelperError``; ``HelperUnsupported`` when a program is
    missing here."""
    find_generator("wrk" if ask.arm == FAIR else "ab")
    with started(ask) as ready:
        cpu_before_s, told_before = cpu_s(ready.server), told_count(ready.server)
        ends = native.split_cpus()  # before this process keeps to the client's
        with telling_of_death(ready.server), beside_the_client(), counting(ask.traced_by, ready.server) as counted:
            came_to, values = _loaded(ask, ready, bench, ends)
        if ask.arm == FAIR:
            wait_until_at_rest(ready.server)
        cpu_after_s, told = cpu_s(ready.server), told_since(told_before, told_count(ready.server))
        if ask.arm == FAIR and came_to["counted_by"] == GENERATOR:
            came_to |= cost_by_its_own_count(came_to, told, cpu_before_s, cpu_after_s)
        if came_to["began_count"] is None:
            came_to |= _idle_forks(ask, came_to)
    per_s = came_to["throughput_per_s"]
    rate = [round(per_s)] if isinstance(per_s, (int, float)) else []
    return Launch({**ready.facts, **came_to, **told, **counted}, {**values, RATE: rate})


def _loaded(ask: Ask, ready: Started, bench: Bench, ends: Ends) -> tuple[Facts, Mapping[str, list[int]]]:
    """The window itself: from the start of the load generator to its end."""
    server, body_bytes = ready.server, ready.facts["body_bytes"]
    assert isinstance(body_bytes, int)
    pids = set(tree.session_pids(server.session))
    counted, before = counters.read_counters(), tree.read_tree(server.session, memory=False)
    opened_before, watched = sockets.passive_opens_count(), _watched(ask, ends, ready, pids)
    window_s = float(ask.duration_s) if ask.arm == FAIR and ask.is_observed else math.inf  # ab's end is not known
    series = Series(server.session, server.port, bench.reading, window_s)
    with _births(ask, pids) as births, _begin(ask, f"http://127.0.0.1:{server.port}/", body_bytes) as load:
        middle, stall = _middle_watch(ask, watched, load), _Stall(load, server.port)
        while not load.wait(min(series.until_next_s() if ask.is_observed else _WAIT_S, middle.until_next_s())):
            if bench.remaining_s() <= 0:
                raise native.HelperError("the run's time is over")
            middle.look()
            stall.look()
            if births is not None:
                births.drain()
            if ask.is_observed:
                series.take()
            if death_of(server):
                raise native.HelperError("the server died")  # told in full by telling_of_death
        after, counted_after = tree.read_tree(server.session, memory=False), counters.read_counters()
        opened_after = sockets.passive_opens_count()
        new_count = len(set(tree.session_pids(server.session)) - pids)
        began_count = None if births is None else births.count()
        if ask.is_observed:
            series.take_last()
        report = load.finish(_PATIENCE_S) if isinstance(load, Ab) else load.finish()
        facts = ab_facts(report) if isinstance(report, AbReport) else wrk_facts(report)
    answered = facts["answered_count"]
    assert isinstance(answered, int)
    facts |= cpu_facts(before, after, load.elapsed_s, load.cpu_s, answered)
    facts |= kernel_facts(counters.counters_delta(counted, counted_after)) | series_facts(series, ready.rest)
    facts |= {"new_processes_count": new_count, "began_count": began_count, "elapsed_s": load.elapsed_s}
    opened_count = None if ask.keeps_alive else since(opened_before, opened_after)
    is_seen = not new_count or ask.server not in WORKER_NEEDS  # of a pool those are looked at that were there before
    facts |= middle_facts(facts, middle.result() if is_seen else None, opened_count, ask.connections_count)
    return facts, {
        "at_ns": [round(item.at_s * NS_PER_S) for item in series.memory],
        "pss_bytes": [item.pss_bytes for item in series.memory],
        "rss_bytes": [item.rss_bytes for item in series.memory],
    }


class _Stall:
    """Looks once a second whether ab still waits for an answer that can come.

    When an answer breaks off in the middle of its body, ab begins another connection and forgets it (support/ab.c:
    start_connect after POLLERR). In the end it waits for answers to requests that it has not sent, for 30 s, and then
    tells nothing at all.
    """

    def __init__(self, load: Ab | Wrk, port: int) -> None:
        self._port = port
        self._due_s = time.monotonic() + _STALL_EVERY_S if isinstance(load, Ab) else math.inf
        self._none_count = 0

    def look(self) -> None:
        """Look, if that is due. Raises ``native.HelperError`` when so many looks saw none."""
        if time.monotonic() < self._due_s:
            return
        self._due_s = time.monotonic() + _STALL_EVERY_S
        self._none_count = self._none_count + 1 if sockets.waiting_clients_count(self._port) == 0 else 0
        if self._none_count == _STALL_LOOKS:
            raise native.HelperError(_STALLED)


def _watched(ask: Ask, ends: Ends, ready: Started, pids: Collection[int]) -> Watched:
    """The server; a CPU that it shares with its client tells nothing of it."""
    servers, clients = ends
    return Watched(
        session=ready.server.session,
        port=ready.server.port,
        cpus=() if servers & clients else (min(servers),),  # the one that it is kept to
        families=sockets.listening_families(ready.server.port),
        pids=pids if ask.server in WORKER_NEEDS else (),
    )


def _middle_watch(ask: Ask, watched: Watched, load: Ab | Wrk) -> MiddleWatch:
    """Of the middle of wrk's window; ab's end is not known."""
    if isinstance(load, Ab):
        return MiddleWatch(watched, math.inf, math.inf)
    watched = dataclasses.replace(watched, load_pid=load.pid, request_bytes=load.request_bytes)
    return MiddleWatch(watched, *(share * ask.duration_s for share in _MIDDLE))


def _is_asked_for_births(ask: Ask) -> bool:
    """Only of Apache it is asked whether it makes a process for each request."""
    return ask.server.startswith("apache") and ask.arm == ARTICLE


@contextlib.contextmanager
def _births(ask: Ask, pids: Collection[int]) -> Iterator[Births | None]:
    """What begins in the server's tree; None where that is not asked for, or the kernel does not tell."""
    births = births_of(pids) if _is_asked_for_births(ask) else None
    if births is None:
        yield None
        return
    with births:
        yield births


def _idle_forks(ask: Ask, came_to: Facts) -> Facts:
    """Processes that begin while nobody asks the server, in as long: who else on this machine makes some.

    For where the kernel does not tell which of them were the server's.
    """
    elapsed_s = came_to["elapsed_s"]
    if not _is_asked_for_births(ask) or not isinstance(elapsed_s, float):
        return {}
    before = counters.read_counters()
    time.sleep(min(elapsed_s, _CONTROL_S))
    after = counters.read_counters()
    forks_count = counters.counters_delta(before, after).forks_count
    measured_s = after.time_s - before.time_s
    return {"idle_forks_count": None if forks_count is None else round(forks_count * elapsed_s / measured_s)}


def _begin(ask: Ask, url: str, body_bytes: int | None) -> Ab | Wrk:
    if ask.arm == FAIR:
        return Wrk(url, ask.connections_count, ask.duration_s, keep_alive=ask.keeps_alive)
    counts = (ask.requests_count, ask.connections_count)
    return Ab(url, *counts, keep_alive=ask.keeps_alive, body_bytes=body_bytes)
