"""A server's sockets and memory over time, at little cost: after each reading a pause of 50 times what it took.

Two meters with a rhythm of their own: the sockets of its port, and the memory of its processes, which is dearer the
more processes there are. Each takes 2 % of a CPU at most, which should be the client's. Nothing runs by itself: whoever
waits for the load asks ``until_next_s`` how long to wait, and calls ``take``. Whoever wants to hear of each reading at
once gives ``tell``; what that takes is no part of a reading.

The pause bounds the cost of what lasts long. In a window of a second one reading of the memory of a thousand processes
is a fifth of it: where the window's length is known, such a tree is read once, by ``take_last``, when the load is over.
Clock: CLOCK_MONOTONIC. Sources: proc_pid_smaps(5), sock_diag(7), proc_meminfo(5).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from c10k_probe.observe import sockets, tree
from c10k_probe.observe.procfs import read_meminfo

_EVERY_S: Final = 0.1
_LOOPBACK: Final = "127.0.0.1"  # others may use the port on another address
_PAUSE_FACTOR: Final = 50


@dataclass(frozen=True)
class Sockets:
    """Connections at one moment. accepted_count: those that a process of the server has, see ``sockets``;
    queued_count: those that wait to be accepted.
    """

    at_s: float
    accepted_count: int
    queued_count: int


@dataclass(frozen=True)
class Memory:
    """Memory of a whole tree at one moment; part of a tree is no Memory."""

    at_s: float
    processes_count: int
    tasks_count: int
    pss_bytes: int
    rss_bytes: int
    page_table_bytes: int
    available_bytes: int | None  # MemAvailable of the machine
    cpu_run_s: float | None = None  # of the tree since its start, ended children included


Tell = Callable[[float, Mapping[str, float]], None]  # at_s, column name with its unit -> value


def _tell_nobody(at_s: float, values: Mapping[str, float]) -> None:
    """Nobody listens."""


class _Meter:
    """When the next reading is due. read: gives what of it is to be told, None for no reading."""

    def __init__(self, read: Callable[[float], Mapping[str, float] | None], due_s: float) -> None:
        self._read = read
        self.due_s = due_s

    def take(self, at_s: float) -> Mapping[str, float] | None:
        started_s = time.monotonic()
        if started_s < self.due_s:
            return None
        values = self._read(at_s)
        ended_s = time.monotonic()
        self.due_s = ended_s + max(_EVERY_S, _PAUSE_FACTOR * (ended_s - started_s))
        return values


class Series:
    """Readings of the tree of a session and of its port, from now on; times are seconds since it was made.

    window_s: how long the load lasts, where that is known; then a first reading tells what one takes, and is not kept.
    """

    def __init__(self, session: int, port: int, tell: Tell = _tell_nobody, window_s: float = math.inf) -> None:
        self.sockets: list[Sockets] = []
        self.memory: list[Memory] = []
        self._session, self._port, self._tell = session, port, tell
        self._families = sockets.listening_families(port)
        self._grown_count: int | None = None  # processes of a tree that is too dear to be read meanwhile
        self._started_s = time.monotonic()
        if window_s < math.inf:
            self._learn_what_it_takes(window_s)
        first_s = self._started_s + _EVERY_S  # the load is there then
        memory_s = first_s if self._grown_count is None else math.inf
        self._meters = (_Meter(self._read_sockets, first_s), _Meter(self._read_memory, memory_s))

    def _learn_what_it_takes(self, window_s: float) -> None:
        began_s = time.thread_time()  # and not how long others had the CPU
        count = tree.read_tree(self._session).processes_count
        if _PAUSE_FACTOR * (time.thread_time() - began_s) > window_s:
            self._grown_count = count
        self._started_s = time.monotonic()

    def until_next_s(self) -> float:
        """Seconds until a reading is due, 0 when it is."""
        return max(0.0, min(meter.due_s for meter in self._meters) - time.monotonic())

    def take(self) -> None:
        """The readings that are due."""
        for meter in self._meters:
            at_s = time.monotonic() - self._started_s
            if (values := meter.take(at_s)) is not None:
                self._tell(at_s, values)

    def take_last(self) -> None:
        """The load has just ended: the one reading of a tree that was too dear; none when processes of it are gone."""
        if self._grown_count is None:
            return
        reading = read_memory(self._session, time.monotonic() - self._started_s)
        if reading is not None and reading.processes_count >= self._grown_count:
            self.memory.append(reading)

    def _read_sockets(self, at_s: float) -> Mapping[str, float] | None:
        accepted = sockets.accepted_count(self._port, self._families, address=_LOOPBACK)
        queue = sockets.listen_queue(self._port)
        if accepted is None or queue is None:
            return None
        self.sockets.append(Sockets(at_s, accepted, queue.queued_count))
        return {"served_at_once_count": accepted, "queued_count": queue.queued_count}

    def _read_memory(self, at_s: float) -> Mapping[str, float] | None:
        reading = read_memory(self._session, at_s)
        if reading is None:
            return None
        self.memory.append(reading)
        return _told(reading, self.memory[-2] if len(self.memory) > 1 else None)


def _told(reading: Memory, last: Memory | None) -> dict[str, float]:
    """What of a reading is for the eye; CPU since the last one, of one CPU."""
    values: dict[str, float] = {"tree_pss_bytes": reading.pss_bytes, "processes_count": reading.processes_count}
    if last is None or last.cpu_run_s is None or reading.cpu_run_s is None or reading.at_s <= last.at_s:
        return values
    spent_s = reading.cpu_run_s - last.cpu_run_s
    return {"tree_cpu_pct": 100 * spent_s / (reading.at_s - last.at_s), **values} if spent_s >= 0 else values


def read_memory(session: int, at_s: float = 0.0) -> Memory | None:
    """Memory of the whole tree now; None when a process ended while it was read, or is not ours to read."""
    found = tree.read_tree(session)
    if not found.is_complete or found.pss_bytes is None or found.rss_bytes is None or found.page_table_bytes is None:
        return None
    return Memory(
        at_s=at_s,
        processes_count=found.processes_count,
        tasks_count=found.tasks_count,
        pss_bytes=found.pss_bytes,
        rss_bytes=found.rss_bytes,
        page_table_bytes=found.page_table_bytes,
        available_bytes=read_meminfo().get("MemAvailable"),
        cpu_run_s=found.cpu_run_s,
    )
