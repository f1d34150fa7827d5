"""The table of every wall a measurement can run into.

A wall is added in WALLS and nowhere else: a row says how the limit is read (wall_readers.py), which field of
limits.Needs counts against it, and which failed calls are its sign. A limit_count of None means that nothing bounds; a
wall whose source does not exist on this kernel is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from c10k_probe.observe import wall_readers as readers
from c10k_probe.observe.procfs import PROC, SYS
from c10k_probe.observe.wall_readers import Kind, reserve_bytes

__all__ = ["WALLS", "Wall", "WallRow", "memory_rooms", "read_wall", "reserve_bytes", "walls"]

Scope = Literal["process", "user", "cgroup", "machine", "address"]


@dataclass(frozen=True)
class Wall:
    """One limit in force. Counts are in `unit`; limit_count None: unlimited; used_count None: unknown.

    kind: administrative (a setting) or architectural (the hardware or the kernel's design).
    scope: what shares the limit. lift: the command that would raise it, None if there is none for this user.
    """

    name: str
    kind: Kind
    limit_count: int | None
    used_count: int | None
    unit: str
    scope: Scope
    source: str
    lift: str | None = None

    @property
    def room_count(self) -> int | None:
        """What is left, never below 0; None when unlimited. Unknown use counts as none."""
        return None if self.limit_count is None else max(0, self.limit_count - (self.used_count or 0))


class WallRow(NamedTuple):
    """One row of the table.

    need: field of limits.Needs that counts against it. signs: `call:errno` that it causes, `*` for any call.
    least_share: how full it must be for a sign to be of it, where other things have the same.
    """

    name: str
    need: str
    unit: str
    scope: Scope
    read: Callable[[readers.Machine], readers.Level | None]
    signs: tuple[str, ...]
    least_share: float = 0.0


_CREATE = tuple(f"{call}:EAGAIN" for call in ("fork", "vfork", "clone", "clone3", "posix_spawn", "pthread_create"))
_NO_MEMORY = ("*:ENOMEM", "*:ENOBUFS", "pthread_create:EAGAIN")
# glibc's pthread_create says EAGAIN also when its mmap for the stack failed with ENOMEM.
_NO_MAPPING = ("mmap:ENOMEM", "mprotect:ENOMEM", "pthread_create:EAGAIN", "pthread_create:ENOMEM")
# A connect() that times out by SO_SNDTIMEO says EINPROGRESS.
_NO_ANSWER = ("connect:ETIMEDOUT", "connect:EINPROGRESS")
_NO_DATA = ("send:ETIMEDOUT", "recv:ETIMEDOUT", "send:ENOBUFS")
_FULL = 0.9

# Of two walls that bind alike, the one that stands first is named.
WALLS: tuple[WallRow, ...] = (
    WallRow("descriptors", "descriptors_count", "descriptors", "process", readers.descriptors, ("*:EMFILE",)),
    WallRow("fd-setsize", "select_count", "descriptors", "process", readers.select_set, ("select:EINVAL",)),
    WallRow(
        "descriptors-system",
        "system_descriptors_count",
        "descriptors",
        "machine",
        readers.system_descriptors,
        ("*:ENFILE",),
    ),
    WallRow("ports", "ports_count", "ports", "address", readers.ports, ("*:EADDRNOTAVAIL", "bind:EADDRINUSE")),
    WallRow("cgroup-pids", "tasks_count", "tasks", "cgroup", lambda m: readers.cgroup_level(m, "pids"), _CREATE),
    WallRow("user-tasks", "tasks_count", "tasks", "user", readers.user_tasks, _CREATE),
    WallRow("pids", "tasks_count", "tasks", "machine", readers.pids, _CREATE),
    WallRow(
        "threads",
        "tasks_count",
        "tasks",
        "machine",
        lambda m: readers.sysctl_level(m, "kernel.threads-max", m.tasks_count, 2**18),
        _CREATE,
    ),
    WallRow("maps", "mappings_count", "mappings", "process", readers.maps, _NO_MAPPING),
    WallRow("backlog", "backlog_count", "connections", "address", readers.backlog, _NO_ANSWER),
    WallRow("cgroup-memory", "memory_bytes", "bytes", "cgroup", readers.cgroup_memory, _NO_MEMORY),
    WallRow("memory", "memory_bytes", "bytes", "machine", readers.memory, _NO_MEMORY),
    WallRow("tcp-memory", "tcp_bytes", "bytes", "machine", readers.tcp_memory, _NO_DATA, _FULL),
    WallRow("commit", "commit_bytes", "bytes", "machine", readers.commit, _NO_MEMORY),
    WallRow(
        "conntrack",
        "flows_count",
        "flows",
        "machine",
        readers.conntrack,
        (*_NO_ANSWER, "connect:EPERM", "send:EPERM", "sendto:EPERM"),
    ),
    WallRow("epoll-watches", "watches_count", "watches", "user", readers.watches, ("epoll_ctl:ENOSPC",)),
    WallRow("address-space", "address_space_bytes", "bytes", "process", readers.address_space, _NO_MAPPING),
)


def _wall(row: WallRow, machine: readers.Machine) -> Wall | None:
    try:
        level = row.read(machine)
    except (OSError, ValueError):
        return None  # a file of an unknown shape: the wall is unknown, not an error
    if level is None:
        return None
    return Wall(row.name, level.kind, level.limit, level.used, row.unit, row.scope, level.source, level.lift)


def walls(*, pid: int | None = None, proc_root: Path = PROC, sys_root: Path = SYS) -> list[Wall]:
    """Every wall of this machine in the order of WALLS, read now.

    With `pid`, limits and use of that process (to diagnose a failure while it still holds what it has);
    without, those of a helper that has just started.
    """
    machine = readers.Machine(pid, proc_root, sys_root)
    return [wall for wall in (_wall(row, machine) for row in WALLS) if wall is not None]


def read_wall(name: str, pid: int, *, proc_root: Path = PROC, sys_root: Path = SYS) -> Wall | None:
    """One wall by its name, with the use by this process; None where it is not known here."""
    row = next(row for row in WALLS if row.name == name)
    return _wall(row, readers.Machine(pid, proc_root, sys_root))


def memory_rooms(proc_root: Path = PROC, sys_root: Path = SYS) -> dict[str, int]:
    """Bytes that may still be used without touching the reserve, of the machine and of the control group.

    A negative room means that the reserve is touched already; what is unlimited or unknown is left out.
    """
    machine = readers.Machine(None, proc_root, sys_root)
    levels = {"machine": readers.memory(machine), "control group": readers.cgroup_memory(machine)}
    return {
        name: level.limit - level.used
        for name, level in levels.items()
        if level is not None and level.limit is not None and level.used is not None
    }
