"""One look at a running server, from outside and without touching it.

Connections and accept queues are the kernel's own list of its ports, in the server's network namespace: ours by
netlink, another (a container) by /proc/PID/net, which does not tell how long an accept queue may be. Overflows are
counted by the kernel for a whole network namespace. Memory of processes is read from smaps_rollup, which costs the
kernel 0.15 ms and more a process, so a server of many is read less often: a look in between carries the last figures,
their age and the connections that were there then.
Sources: proc_pid_status(5), proc_pid_smaps(5), proc_net(5), sock_diag(7), network_namespaces(7).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, NamedTuple

from c10k_probe.observe import processes
from c10k_probe.observe.counters import read_netstat
from c10k_probe.observe.memory import read_slab_caches
from c10k_probe.observe.procfs import PROC, read_meminfo, read_text
from c10k_probe.observe.sockets import listen_queue, read_established
from c10k_probe.observe.tree import TreeReading, read_processes
from c10k_probe.observe.work import Reading, Work, read_work

_PAUSE_FACTOR: Final = 50  # between two readings of memory, in times of what one takes: 2 % of a core
_MOMENT_S: Final = 0.05  # a reading of memory that took longer saw connections come and go
# slab caches that grow with connections: the socket, what names it, epoll's items (net/core, fs/eventpoll.c)
_SOCKET_CACHES: Final = ("TCP", "TCPv6", "sock_inode_cache", "eventpoll_epi", "eventpoll_pwq", "filp", "dentry")


@dataclass(frozen=True)
class Look:
    """One look; None is unknown. Counts without a word more are as they are now.

    overflows_count, drops_count: of all listeners in the server's network namespace, since the first look.
    ended_*_count, unseen_*_count, unwaited_count, cpu_s, *_switches_count: since the first look, see ``work.Work``.
    private_bytes: user memory that ending the server would free; shared_bytes: its share of what is shared (PSS).
    memory_age_s, memory_connections_count: how old these and page_tables_bytes are, and the connections of that moment.
    kernel_stacks_bytes, slab_bytes, tcp_buffers_bytes: the machine's. socket_slab_bytes: the machine's slab in sockets
    and what belongs to them, needs root.
    hidden_processes_count: those whose memory or sockets this user may not see. sockets_source: who told of sockets.
    """

    time_s: float
    connections_count: int | None = None
    accept_queue_count: int | None = None
    backlog_count: int | None = None
    overflows_count: int | None = None
    drops_count: int | None = None
    processes_count: int | None = None
    threads_count: int | None = None
    ended_processes_count: int | None = None
    ended_tasks_count: int | None = None
    unseen_tasks_count: int | None = None
    unseen_signs_count: int | None = None
    unwaited_count: int | None = None
    cpu_s: float | None = None
    voluntary_switches_count: int | None = None
    involuntary_switches_count: int | None = None
    private_bytes: int | None = None
    shared_bytes: int | None = None
    page_tables_bytes: int | None = None
    memory_age_s: float | None = None
    memory_connections_count: int | None = None
    kernel_stacks_bytes: int | None = None
    slab_bytes: int | None = None
    socket_slab_bytes: int | None = None
    tcp_buffers_bytes: int | None = None
    hidden_processes_count: int | None = None
    sockets_source: str | None = None

    @property
    def user_bytes(self) -> int | None:
        """Private memory and page tables: what the server's processes hold for themselves."""
        if self.private_bytes is None or self.page_tables_bytes is None:
            return None
        return self.private_bytes + self.page_tables_bytes


_Values = dict[str, int | float | str | None]


class _Space(NamedTuple):
    """Ports in one network namespace. ``root``: where its lists of sockets are; ``pid``: a process in it, 0 is ours."""

    pid: int
    root: Path
    ports: list[int]


class _Budgeted:
    """Says when something that takes long may be done again: at most one part in ``_PAUSE_FACTOR`` of the time."""

    def __init__(self) -> None:
        self.at_s = self.cost_s = 0.0
        self._is_done = False

    def is_due(self) -> bool:
        return not self._is_done or time.monotonic() - self.at_s >= _PAUSE_FACTOR * self.cost_s

    def done(self, started_s: float) -> None:
        self.at_s = time.monotonic()
        self.cost_s, self._is_done = self.at_s - started_s, True


class Server:
    """A running server: the trees of ``roots``, and the ports that are looked at."""

    def __init__(self, roots: Sequence[int], ports: Sequence[int] = (), proc_root: Path = PROC) -> None:
        """Without ports, those that the tree listens on, in whatever network namespace."""
        self._roots, self._ports, self._root = list(roots), list(ports), proc_root
        self._spaces: list[_Space] = []
        self._spaces_budget, self._memory_budget = _Budgeted(), _Budgeted()
        self._first_netstat: dict[Path, dict[str, int]] = {}
        self._work = Work()
        self._memory: TreeReading | None = None
        self._memory_connections_count: int | None = None
        self._hidden_files_count = self._hidden_memory_count = 0
        self._is_listening = True

    def look(self) -> Look:
        """One look."""
        reading = self._read()
        pids = reading.living
        self._find_ports(pids)
        values: _Values = self._sockets() | self._overflows() | self._kernel_memory()
        time_s = time.monotonic()
        if pids:
            values |= self._tasks(reading)
            values |= self._user_memory(pids, values["connections_count"])
        return Look(time_s=time_s, **values)  # type: ignore[arg-type]

    def is_over(self) -> bool:
        """Whether all processes have ended; of ports alone, whether nobody listened at the last look."""
        if not self._roots:
            return not self._is_listening
        return not any(processes.is_alive(pid, self._root) for pid in self._roots) and not self._read().living

    def _read(self) -> Reading:
        """The trees as they are now, zombies too, and what their processes did."""
        reading = read_work(processes.with_descendants(self._roots, (os.getpid(),), self._root), self._root)
        self._roots = reading.living or self._roots  # so that they are still known when their parent ends
        return reading

    # --- sockets ------------------------------------------------------------------------------------------------------

    def _find_ports(self, pids: Sequence[int]) -> None:
        """Which ports in which namespaces; a server that holds many descriptors is asked less often."""
        if self._ports:
            self._spaces = [_Space(0, self._root, self._ports)]
            return
        gone = any(space.pid and not processes.is_alive(space.pid, self._root) for space in self._spaces)
        if not (gone or not self._spaces or self._spaces_budget.is_due()):
            return
        started_s = time.monotonic()
        held = processes.held_ports(pids, self._root)
        ours = processes.network_namespace(proc_root=self._root)
        self._spaces = [
            _Space(0, self._root, sorted(ports)) if space == ours else _Space(pid, self._root / str(pid), sorted(ports))
            for space, (pid, ports) in held.ports.items()
        ]
        self._hidden_files_count = held.hidden_count
        self._spaces_budget.done(started_s)

    def _sockets(self) -> _Values:
        pairs = [(space, port) for space in self._spaces for port in space.ports]
        queues = [listen_queue(port, use_netlink=not space.pid, proc_root=space.root) for space, port in pairs]
        counts = [read_established(port, use_netlink=not space.pid, proc_root=space.root) for space, port in pairs]
        self._is_listening = any(queues)
        sources = {
            f"{PROC}/PID/net/tcp" if space.pid else count.source
            for (space, _), count in zip(pairs, counts, strict=True)
        }
        return {
            "connections_count": _sum([count.count for count in counts]),
            "accept_queue_count": _sum([queue.queued_count for queue in queues if queue is not None]),
            "backlog_count": _sum([queue.backlog_count for queue in queues if queue is not None]),
            "sockets_source": " and ".join(sorted(source for source in sources if source)) or None,
        }

    def _overflows(self) -> _Values:
        """Of each namespace since it was first looked at."""
        grown = []
        for space in self._spaces:
            now = read_netstat(space.root)
            first = self._first_netstat.setdefault(space.root, now)
            grown.append({name: now[name] - first[name] for name in now.keys() & first.keys()})
        names = {"overflows_count": "ListenOverflows", "drops_count": "ListenDrops"}
        return {field: _sum([growth.get(name) for growth in grown]) for field, name in names.items()}

    # --- processes and memory -----------------------------------------------------------------------------------------

    def _tasks(self, reading: Reading) -> _Values:
        """What processes and threads there are and what they did."""
        self._work.add(reading)
        living = [reading.processes[pid] for pid in reading.living]
        names = [name for name in self._work.__dataclass_fields__ if not name.startswith("_")]
        return {
            "processes_count": len(living),
            "threads_count": sum(not task.is_zombie for process in living for task in process.tasks.values()),
            **{name: getattr(self._work, name) for name in names},
        }

    def _kernel_memory(self) -> _Values:
        caches, meminfo = read_slab_caches(self._root), read_meminfo(self._root)
        slab = None if caches is None else sum(a * b for name, (a, b) in caches.items() if name in _SOCKET_CACHES)
        return {
            "kernel_stacks_bytes": meminfo.get("KernelStack"),
            "slab_bytes": meminfo.get("Slab"),
            "socket_slab_bytes": slab,
            "tcp_buffers_bytes": _tcp_buffers_bytes(self._root),
        }

    def _user_memory(self, pids: Sequence[int], connections_count: object) -> _Values:
        if self._memory is None or self._memory_budget.is_due():
            self._read_memory(pids, connections_count)
        values: _Values = {
            "page_tables_bytes": self._memory.page_table_bytes if self._memory else None,
            "memory_age_s": max(0.0, time.monotonic() - self._memory_budget.at_s),
            "memory_connections_count": self._memory_connections_count,
            "hidden_processes_count": max(self._hidden_files_count, self._hidden_memory_count),
        }
        tree = self._memory
        if self._hidden_memory_count or tree is None or tree.pss_bytes is None or tree.private_bytes is None:
            return values  # part of a sum is no sum
        return values | {"private_bytes": tree.private_bytes, "shared_bytes": tree.pss_bytes - tree.private_bytes}

    def _read_memory(self, pids: Sequence[int], connections_before: object) -> None:
        """The connections of that moment are the mean of before and after: a large tree is read for seconds."""
        started_s = time.monotonic()
        self._memory = read_processes(pids, proc_root=self._root)
        self._memory_budget.done(started_s)
        # what was not read has ended meanwhile, or may not be read
        missing = () if self._memory.is_complete else pids
        self._hidden_memory_count = sum(_is_hidden(self._root / str(pid) / "smaps_rollup") for pid in missing)
        is_long = self._memory_budget.cost_s > _MOMENT_S
        after = self._sockets()["connections_count"] if is_long else connections_before
        known = isinstance(connections_before, int) and isinstance(after, int)
        self._memory_connections_count = round((connections_before + after) / 2) if known else None  # type: ignore[operator]


def per_connection_bytes(
    before: Look, now: Look, field: str, count_field: str = "connections_count", least_count: int = 100
) -> float | None:
    """Growth of a figure for each connection more; None when there are not ``least_count`` more.

    ``count_field``: the connections at the moment when the figure was read. All else that the server did is in it.
    """
    old, new = getattr(before, field), getattr(now, field)
    old_count, new_count = getattr(before, count_field), getattr(now, count_field)
    if None in (old, new, old_count, new_count) or new_count - old_count < least_count:
        return None
    growth: float = (new - old) / (new_count - old_count)
    return growth


def as_values(look: Look) -> dict[str, int | float | str | None]:
    """Field -> value."""
    return {item.name: getattr(look, item.name) for item in fields(look)}


def _sum(values: Sequence[int | None]) -> int | None:
    """The sum; None without any, or when one is unknown."""
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def _is_hidden(path: Path) -> bool:
    try:
        path.open("rb").close()
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _tcp_buffers_bytes(proc_root: Path) -> int | None:
    """Pages of all TCP sockets' buffers: ``mem`` of the TCP line of sockstat."""
    for line in (read_text(proc_root / "net/sockstat") or "").splitlines():
        words = line.split()
        with contextlib.suppress(ValueError, IndexError):
            if words[0] == "TCP:":
                return int(words[words.index("mem") + 1]) * os.sysconf("SC_PAGESIZE")
    return None
