"""The steady middle of a load: what a server, its CPUs and its load generator did between two moments of it.

A load begins with connections that are made and ends with work that nobody waits for any more: over the whole of it, a
server at full load looks as if it had rested, and its CPU time holds requests that its client does not count. Between
two moments in the middle both are counted alike: whoever is under way at the first has his place taken at the second.

Requests are counted by the kernel, as they reach the server, without asking it anything: those of kept connections by
the bytes that these have received, of which each request has as many; else by the connections that were established in
this network namespace, whoever's they were. The caller knows whether somebody else made some.

Clock: CLOCK_MONOTONIC for the window; CPU time is that of the processes' own clocks, in which a thread that runs at the
moment is as it was at its last tick or switch; idle time is told in ticks of 10 ms. Sources: proc_stat(5),
clock_getcpuclockid(3), tcp(7) and struct tcp_info (tcpi_bytes_received), proc_net(5) (snmp: Tcp PassiveOpens).
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from c10k_probe.observe import sockets, tree

_IDLE_PLACES: Final = (4, 5)  # of a CPU's line: idle and iowait, in which it waits as well
_STAT: Final = Path("/proc/stat")


def idle_s(text: str, cpus: Collection[int], ticks_per_s: int) -> float | None:
    """Seconds that these CPUs had nothing to do since the start of the machine, together, by the text of /proc/stat;
    None where it does not tell of each."""
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.startswith("cpu")}
    found = [lines.get(f"cpu{cpu}", []) for cpu in cpus]
    if not found or any(len(line) <= max(_IDLE_PLACES) for line in found):
        return None
    return sum(int(line[place]) for line in found for place in _IDLE_PLACES) / ticks_per_s


@dataclass(frozen=True)
class Look:
    """One moment of a load; each since some start, None for what is not told.

    idle_s: of the server's CPUs together. server_cpu_s: of its tree, ended children included. load_cpu_s: of the load
    generator. received_bytes: of each connection that is there, by its cookie. opened_count: connections established.
    """

    at_s: float
    idle_s: float | None
    server_cpu_s: float | None
    load_cpu_s: float | None
    received_bytes: dict[int, int] | None
    opened_count: int | None


@dataclass(frozen=True)
class Middle:
    """What happened between two looks. idle_pct: of the time of the server's CPUs. requests_count: that reached it."""

    elapsed_s: float
    idle_pct: float | None
    server_cpu_s: float | None
    load_cpu_s: float | None
    requests_count: int | None

    @property
    def server_cpu_pct(self) -> float | None:
        """Of one CPU."""
        return None if self.server_cpu_s is None else 100 * self.server_cpu_s / self.elapsed_s

    @property
    def load_cpu_pct(self) -> float | None:
        """Of one CPU."""
        return None if self.load_cpu_s is None else 100 * self.load_cpu_s / self.elapsed_s


@dataclass(frozen=True)
class Watched:
    """Whom to look at. cpus: of the server, and of nobody else that matters; none where it has none of its own.

    load_pid: the load generator; 0 before it has begun. request_bytes: of each request on a kept connection; None where
    each has a new one. families: of the server's listeners. pids: all of the tree, where none comes or goes; else it is
    looked for.
    """

    session: int
    port: int
    load_pid: int = 0
    cpus: Collection[int] = ()
    request_bytes: int | None = None
    families: Collection[int] = sockets.FAMILIES
    pids: Collection[int] = ()

    def look(self) -> Look:
        """As it is now; takes 2 ms, and 10 µs for each process that is read and each connection that is kept."""
        server_cpu_s = tree.session_cpu_s(self.session, self.pids)
        load_cpu_s = None
        with contextlib.suppress(OSError):
            load_cpu_s = tree.process_cpu_s(self.load_pid)
        opened_count = sockets.passive_opens_count() if self.request_bytes is None else None
        at_s = time.monotonic()
        idle = idle_s(_STAT.read_text(encoding="ascii"), self.cpus, os.sysconf("SC_CLK_TCK")) if self.cpus else None
        received = None if self.request_bytes is None else sockets.received_bytes(self.port, self.families)
        return Look(at_s, idle, server_cpu_s, load_cpu_s, received, opened_count)

    def between(self, before: Look, after: Look) -> Middle:
        """What happened from one look to the other."""
        elapsed_s = after.at_s - before.at_s
        idle = _since(before.idle_s, after.idle_s)
        return Middle(
            elapsed_s=elapsed_s,
            idle_pct=None if idle is None else min(100.0, 100 * idle / (elapsed_s * len(self.cpus))),
            server_cpu_s=_since(before.server_cpu_s, after.server_cpu_s),
            load_cpu_s=_since(before.load_cpu_s, after.load_cpu_s),
            requests_count=self._requests_count(before, after),
        )

    def _requests_count(self, before: Look, after: Look) -> int | None:
        """None where connections came or went that should be kept, or what came is no whole number of requests."""
        if self.request_bytes is None:
            opened = _since(before.opened_count, after.opened_count)
            return None if opened is None else int(opened)
        old, new = before.received_bytes, after.received_bytes
        if not old or not new or old.keys() != new.keys():
            return None
        count, rest_bytes = divmod(sum(new.values()) - sum(old.values()), self.request_bytes)
        return None if rest_bytes else count


class MiddleWatch:
    """Looks at the first call after ``from_s`` and at the first after ``to_s``, both in seconds from now on."""

    def __init__(self, watched: Watched, from_s: float, to_s: float) -> None:
        self._watched = watched
        now_s = time.monotonic()
        self._due_s = [now_s + from_s, now_s + to_s]
        self._looks: list[Look] = []

    def until_next_s(self) -> float:
        """Seconds until a look is due; infinity after the second."""
        return max(0.0, self._due_s[0] - time.monotonic()) if self._due_s else math.inf

    def look(self) -> None:
        """Look, if that is due."""
        if self._due_s and time.monotonic() >= self._due_s[0]:
            del self._due_s[0]
            self._looks.append(self._watched.look())

    def result(self) -> Middle | None:
        """What happened between both looks; None where there were not two."""
        return self._watched.between(*self._looks) if len(self._looks) == 2 else None


def _since(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before
