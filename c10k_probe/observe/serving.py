"""One look at a running server, from outside and without touching it.

Connections and accept queues are the kernel's own list of its ports; overflows are counted by the kernel for the whole
network namespace. Memory of processes is read from smaps_rollup, which costs the kernel 0.15 ms and more a process, so
a server of many is read less often: a look in between carries the last figures, which are at most ``memory_age_s`` old.
Sources: proc_pid_status(5), proc_pid_smaps(5), proc_net(5), sock_diag(7).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from c10k_probe.observe import processes
from c10k_probe.observe.counters import read_netstat
from c10k_probe.observe.memory import read_slab_caches
from c10k_probe.observe.procfs import PROC, read_text
from c10k_probe.observe.sockets import established_count, listen_queue
from c10k_probe.observe.tree import TreeReading, read_processes

_PAUSE_FACTOR: Final = 50  # between two readings of memory, in times of what one takes: 2 % of a core
# slab caches that grow with connections: the socket, what names it, epoll's items (net/core, fs/eventpoll.c)
_SOCKET_CACHES: Final = ("TCP", "TCPv6", "sock_inode_cache", "eventpoll_epi", "eventpoll_pwq", "filp", "dentry")


@dataclass(frozen=True)
class Look:
    """One look; None is unknown. Counts without a word more are as they are now.

    overflows_count, drops_count: of all listeners in the network namespace, since the first look.
    cpu_s, voluntary_switches_count, involuntary_switches_count: since the server began, of what lives.
    private_bytes: user memory that ending the server would free; shared_bytes: its share of what is shared (PSS).
    socket_slab_bytes: the machine's slab in sockets and what belongs to them, needs root; tcp_buffers_bytes: the
    machine's TCP buffers.
    """

    time_s: float
    connections_count: int | None = None
    accept_queue_count: int | None = None
    backlog_count: int | None = None
    overflows_count: int | None = None
    drops_count: int | None = None
    processes_count: int | None = None
    threads_count: int | None = None
    cpu_s: float | None = None
    voluntary_switches_count: int | None = None
    involuntary_switches_count: int | None = None
    private_bytes: int | None = None
    shared_bytes: int | None = None
    page_tables_bytes: int | None = None
    socket_slab_bytes: int | None = None
    tcp_buffers_bytes: int | None = None
    memory_age_s: float | None = None

    @property
    def user_bytes(self) -> int | None:
        """Private memory and page tables: what the server's processes hold for themselves."""
        if self.private_bytes is None or self.page_tables_bytes is None:
            return None
        return self.private_bytes + self.page_tables_bytes


class Server:
    """A running server: the trees of ``roots``, and the ports that are looked at."""

    def __init__(self, roots: Sequence[int], ports: Sequence[int] = (), proc_root: Path = PROC) -> None:
        """Without ports, those that the tree listens on at each look."""
        self._roots, self._ports, self._root = list(roots), list(ports), proc_root
        self._first_netstat = read_netstat(proc_root)
        self._memory: TreeReading | None = None
        self._memory_s = self._memory_cost_s = 0.0

    def look(self) -> Look:
        """One look."""
        pids = self._living()
        tree = read_processes(pids, memory=False, proc_root=self._root) if pids else None
        values: dict[str, int | float | None] = {}
        values |= self._sockets(pids) | self._overflows() | self._kernel_memory()
        if tree is not None:
            values |= {
                "processes_count": tree.processes_count,
                "threads_count": tree.tasks_count,
                "cpu_s": tree.cpu_run_s,
                "voluntary_switches_count": tree.voluntary_switches_count,
                "involuntary_switches_count": tree.involuntary_switches_count,
                "page_tables_bytes": tree.page_table_bytes,
                **self._user_memory(pids),
            }
        return Look(time_s=time.monotonic(), **values)  # type: ignore[arg-type]

    def is_over(self) -> bool:
        """Whether all processes have ended; never, when only ports are looked at."""
        known = [pid for pid in self._roots if processes.is_alive(pid, self._root)]
        return bool(self._roots) and not known and not self._living()

    def _living(self) -> list[int]:
        found = processes.with_descendants(self._roots, (os.getpid(),), self._root)
        living = [pid for pid in found if processes.is_alive(pid, self._root)]
        self._roots = living or self._roots  # so that they are still known when their parent ends
        return living

    def _sockets(self, pids: Sequence[int]) -> dict[str, int | float | None]:
        ports = self._ports or sorted(processes.listening_ports(pids, self._root))
        queues = [queue for port in ports if (queue := listen_queue(port, proc_root=self._root)) is not None]
        counts = [established_count(port, proc_root=self._root) for port in ports]
        backlogs = [queue.backlog_count for queue in queues]
        return {
            "connections_count": _sum(counts),
            "accept_queue_count": _sum([queue.queued_count for queue in queues]),
            "backlog_count": _sum(backlogs),
        }

    def _overflows(self) -> dict[str, int | float | None]:
        now = read_netstat(self._root)
        names = {"overflows_count": "ListenOverflows", "drops_count": "ListenDrops"}
        return {
            field: now[name] - self._first_netstat[name]
            for field, name in names.items()
            if name in now and name in self._first_netstat
        }

    def _kernel_memory(self) -> dict[str, int | float | None]:
        caches = read_slab_caches(self._root)
        slab = None if caches is None else sum(a * b for name, (a, b) in caches.items() if name in _SOCKET_CACHES)
        return {"socket_slab_bytes": slab, "tcp_buffers_bytes": _tcp_buffers_bytes(self._root)}

    def _user_memory(self, pids: Sequence[int]) -> dict[str, int | float | None]:
        now_s = time.monotonic()
        if self._memory is None or now_s - self._memory_s >= _PAUSE_FACTOR * self._memory_cost_s:
            self._memory = read_processes(pids, proc_root=self._root)
            self._memory_s = time.monotonic()
            self._memory_cost_s = self._memory_s - now_s
        tree = self._memory
        if not tree.is_complete or tree.pss_bytes is None or tree.private_bytes is None:
            return {}  # part of a sum is no sum
        shared = tree.pss_bytes - tree.private_bytes
        age_s = max(0.0, now_s - self._memory_s)
        return {"private_bytes": tree.private_bytes, "shared_bytes": shared, "memory_age_s": age_s}


def per_connection_bytes(before: Look, now: Look, field: str, least_count: int = 100) -> float | None:
    """Growth of a figure for each connection more; None when there are not ``least_count`` more.

    Everything else that the server did meanwhile is in it.
    """
    old, new = getattr(before, field), getattr(now, field)
    if None in (old, new, before.connections_count, now.connections_count):
        return None
    more = (now.connections_count or 0) - (before.connections_count or 0)
    return (new - old) / more if more >= least_count else None


def as_values(look: Look) -> dict[str, int | float | None]:
    """Field -> value."""
    return {item.name: getattr(look, item.name) for item in fields(look)}


def _sum(values: Sequence[int | None]) -> int | None:
    """The sum; None without any, or when one is unknown."""
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def _tcp_buffers_bytes(proc_root: Path) -> int | None:
    """Pages of all TCP sockets' buffers: ``mem`` of the TCP line of sockstat."""
    for line in (read_text(proc_root / "net/sockstat") or "").splitlines():
        words = line.split()
        with contextlib.suppress(ValueError, IndexError):
            if words[0] == "TCP:":
                return int(words[words.index("mem") + 1]) * os.sysconf("SC_PAGESIZE")
    return None
