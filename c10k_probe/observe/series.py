"""A server's sockets and memory over time, at little cost: after each reading a pause of 50 times what it took.

Two meters with a rhythm of their own: the sockets of its port, and the memory of its processes, which is dearer the
more processes there are. Each takes 2 % of a CPU at most, which should be the client's. Nothing runs by itself: whoever
waits for the load asks ``until_next_s`` how long to wait, and calls ``take``.
Clock: CLOCK_MONOTONIC. Sources: proc_pid_smaps(5), sock_diag(7), proc_meminfo(5).
"""

from __future__ import annotations

import time
from collections.abc import Callable
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


class _Meter:
    """When the next reading is due."""

    def __init__(self, read: Callable[[], None], due_s: float) -> None:
        self._read = read
        self.due_s = due_s

    def take(self) -> None:
        started_s = time.monotonic()
        if started_s >= self.due_s:
            self._read()
            ended_s = time.monotonic()
            self.due_s = ended_s + max(_EVERY_S, _PAUSE_FACTOR * (ended_s - started_s))


class Series:
    """Readings of the tree of a session and of its port, from now on; times are seconds since it was made."""

    def __init__(self, session: int, port: int) -> None:
        self.sockets: list[Sockets] = []
        self.memory: list[Memory] = []
        self._session, self._port = session, port
        self._families = sockets.listening_families(port)
        self._started_s = time.monotonic()
        first_s = self._started_s + _EVERY_S  # the load is there then
        self._meters = (_Meter(self._read_sockets, first_s), _Meter(self._read_memory, first_s))

    def until_next_s(self) -> float:
        """Seconds until a reading is due, 0 when it is."""
        return max(0.0, min(meter.due_s for meter in self._meters) - time.monotonic())

    def take(self) -> None:
        """The readings that are due."""
        for meter in self._meters:
            meter.take()

    def _read_sockets(self) -> None:
        at_s = time.monotonic() - self._started_s
        accepted = sockets.accepted_count(self._port, self._families, address=_LOOPBACK)
        queue = sockets.listen_queue(self._port)
        if accepted is not None and queue is not None:
            self.sockets.append(Sockets(at_s, accepted, queue.queued_count))

    def _read_memory(self) -> None:
        reading = read_memory(self._session, time.monotonic() - self._started_s)
        if reading is not None:
            self.memory.append(reading)


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
    )
