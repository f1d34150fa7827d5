"""The table of every wall a measurement can run into, and how each is read from the kernel.

A wall is added in WALLS and nowhere else: a row says how the limit is read, which field of limits.Needs
counts against it, and which failed calls are its sign. A limit_count of None means that nothing bounds; a
wall whose source does not exist on this kernel is left out.
Sources: getrlimit(2), proc_sys_fs(5), proc_sys_kernel(5), proc_sys_vm(5), ip(7), tcp(7), cgroups(7),
kernel/fork.c, fs/file_table.c.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

from c10k_probe.observe import cgroups
from c10k_probe.observe.procfs import (
    PROC,
    SYS,
    raw_field,
    read_int,
    read_ints,
    read_meminfo,
    read_raw,
    read_rlimits,
    read_status,
    read_text,
    sysctl_path,
    to_int,
)

Kind = Literal["administrative", "architectural"]
Scope = Literal["process", "user", "cgroup", "machine", "address"]

RESERVE_BYTES = 512 * 2**20
RESERVE_SHARE = 0.10
# On a machine or in a group under 2 GiB the fixed reserve would leave nothing to measure with.
RESERVE_MOST_SHARE = 0.25

_STANDARD_DESCRIPTORS_COUNT = 3
_RESERVED_PIDS_COUNT = 300  # kernel/pid.c, RESERVED_PIDS
_MOST_PIDS_COUNT = 4 * 2**20  # linux/threads.h, PID_MAX_LIMIT on 64 bits
_USER_ADDRESS_SPACE_BYTES = 2**47
_SELECT_SET_COUNT = 1024  # FD_SETSIZE of every C library on Linux, whatever the limit of descriptors
_CAP_SYS_ADMIN = 21
_CAP_SYS_RESOURCE = 24


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


class _Level(NamedTuple):
    limit: int | None
    used: int | None
    source: str
    lift: str | None = None
    kind: Kind = "administrative"


class _Machine:
    """What the readers of the walls look at; with a pid, the use by that process, else by a fresh helper."""

    def __init__(self, pid: int | None, proc_root: Path, sys_root: Path) -> None:
        self.pid, self.proc, self.sys = pid, proc_root, sys_root
        self.folder = proc_root / str(pid if pid is not None else "self")

    @cached_property
    def status(self) -> dict[str, str]:
        return read_status(self.proc, self.folder.name)

    @cached_property
    def rlimits(self) -> dict[str, tuple[int | None, int | None]]:
        return read_rlimits(self.proc, self.folder.name)

    @cached_property
    def meminfo(self) -> dict[str, int]:
        return read_meminfo(self.proc)

    @cached_property
    def tasks_count(self) -> int | None:
        """Threads on the machine: `running/all` in /proc/loadavg."""
        words = (read_text(self.proc / "loadavg") or "").split()
        return to_int(words[3].partition("/")[2]) if len(words) > 3 else None

    @property
    def user_id(self) -> int:
        return to_int((self.status.get("Uid") or "").partition("\t")[0]) or 0

    @property
    def sudo(self) -> str:
        return "" if self.user_id == 0 else "sudo "

    def has_capability(self, number: int, which: str = "CapEff") -> bool:
        """True only in the initial user namespace: elsewhere a capability does not count for these limits."""
        return self.in_initial_namespace and bool(int(self.status.get(which, "0"), 16) >> number & 1)

    @cached_property
    def in_initial_namespace(self) -> bool:
        words = (read_text(self.folder / "uid_map") or "0 0 4294967295").split()
        return words == ["0", "0", "4294967295"]

    def sysctl(self, name: str) -> int | None:
        return read_int(sysctl_path(name, self.proc))

    def set_sysctl(self, name: str, value: object) -> str:
        text = f'"{value}"' if " " in str(value) else str(value)
        return f"{self.sudo}sysctl -w {name}={text}"


def reserve_bytes(total_bytes: int) -> int:
    """Memory that a measurement leaves free: the larger of 512 MiB and 10 %, but at most a quarter."""
    reserve = max(RESERVE_BYTES, RESERVE_SHARE * total_bytes)
    return int(min(reserve, RESERVE_MOST_SHARE * total_bytes))


def _raised(limit: int, at_least: int) -> int:
    return max(2 * limit, at_least)


def _sysctl_level(machine: _Machine, name: str, used: int | None, at_least: int) -> _Level | None:
    limit = machine.sysctl(name)
    if limit is None:
        return None
    return _Level(limit, used, _source(name), machine.set_sysctl(name, _raised(limit, at_least)))


def _source(sysctl: str) -> str:
    return "/proc/sys/" + sysctl.replace(".", "/")


def _entries_count(folder: Path) -> int | None:
    try:
        return sum(1 for _ in folder.iterdir())
    except OSError:
        return None


def _descriptors(machine: _Machine) -> _Level | None:
    """The hard limit counts, since a helper raises its own soft limit to it."""
    if "nofile" not in machine.rlimits:
        return None
    hard, most = machine.rlimits["nofile"][1], machine.sysctl("fs.nr_open")
    limit = min((bound for bound in (hard, most) if bound is not None), default=None)
    used = _STANDARD_DESCRIPTORS_COUNT if machine.pid is None else _entries_count(machine.folder / "fd")
    return _Level(limit, used, "RLIMIT_NOFILE (hard)", _descriptors_lift(machine, limit, most))


def _descriptors_lift(machine: _Machine, limit: int | None, most: int | None) -> str | None:
    """None where the capability to raise a hard limit has been dropped for good."""
    if limit is None or not machine.has_capability(_CAP_SYS_RESOURCE, "CapBnd"):
        return None
    wanted = max(_raised(limit, 2**20), most or 0) if limit == most else (most or 2**20)
    first = f"{machine.set_sysctl('fs.nr_open', wanted)} && " if limit == most else ""
    return f"{first}{machine.sudo}prlimit --pid $$ --nofile={wanted}:{wanted}"


def _select_set(_: _Machine) -> _Level:
    return _Level(
        _SELECT_SET_COUNT, _STANDARD_DESCRIPTORS_COUNT, "FD_SETSIZE in sys/select.h, select(2)", None, "architectural"
    )


def _system_descriptors(machine: _Machine) -> _Level | None:
    """fs/file_table.c: CAP_SYS_ADMIN is not bound by it."""
    numbers = read_ints(sysctl_path("fs.file-nr", machine.proc))
    level = _sysctl_level(machine, "fs.file-max", numbers[0] if numbers else None, 2**20)
    if level is not None and machine.has_capability(_CAP_SYS_ADMIN):
        return _Level(None, level.used, level.source + " (does not bind CAP_SYS_ADMIN)")
    return level


def _reserved_ports_count(machine: _Machine, low: int, high: int) -> int:
    """Ports of the range that the kernel never hands out by itself."""
    text = read_text(sysctl_path("net.ipv4.ip_local_reserved_ports", machine.proc)) or ""
    ranges = [item.partition("-") for item in text.split(",") if item]
    bounds = [(max(low, int(first)), min(high, int(last or first))) for first, _, last in ranges]
    return sum(max(0, last - first + 1) for first, last in bounds)


def _ports(machine: _Machine) -> _Level | None:
    """Per source address, towards one destination address and port."""
    name = "net.ipv4.ip_local_port_range"
    bounds = read_ints(sysctl_path(name, machine.proc))
    if len(bounds) != 2:
        return None
    low, high = bounds
    limit = high - low + 1 - _reserved_ports_count(machine, low, high)
    if low <= 1024 and high >= 65535:
        return _Level(limit, None, _source(name), None, "architectural")
    return _Level(limit, None, _source(name), machine.set_sysctl(name, "1024 65535"))


def _pids(machine: _Machine) -> _Level | None:
    limit = machine.sysctl("kernel.pid_max")
    if limit is None:
        return None
    at_most = limit >= _MOST_PIDS_COUNT
    lift = None if at_most else machine.set_sysctl("kernel.pid_max", _MOST_PIDS_COUNT)
    source = f"/proc/sys/kernel/pid_max less {_RESERVED_PIDS_COUNT} that are reserved"
    kind: Kind = "architectural" if at_most else "administrative"
    return _Level(limit - _RESERVED_PIDS_COUNT, machine.tasks_count, source, lift, kind)


def _user_tasks_count(machine: _Machine) -> int | None:
    """Threads of this user on the machine; read only where the limit binds."""
    total = 0
    wanted = b"\nUid:\t%d\t" % machine.user_id
    for entry in os.scandir(machine.proc):
        if entry.name.isdigit():
            try:
                data = read_raw(os.fsencode(entry.path) + b"/status")
            except OSError:
                continue  # it has ended
            total += (raw_field(data, b"\nThreads:") or 0) if wanted in data else 0
    return total or None


def _user_tasks(machine: _Machine) -> _Level | None:
    """kernel/fork.c: root of the initial user namespace, CAP_SYS_RESOURCE and CAP_SYS_ADMIN are not bound."""
    if "nproc" not in machine.rlimits:
        return None
    limit, source = machine.rlimits["nproc"][0], "RLIMIT_NPROC (soft)"
    is_root = machine.in_initial_namespace and machine.user_id == 0
    if is_root or any(machine.has_capability(number) for number in (_CAP_SYS_ADMIN, _CAP_SYS_RESOURCE)):
        return _Level(None, None, source + " (does not bind root)")
    lift = f"{machine.sudo}prlimit --pid $$ --nproc=unlimited"
    return _Level(limit, None if limit is None else _user_tasks_count(machine), source, lift)


def _cgroup_level(machine: _Machine, controller: str) -> _Level | None:
    level = cgroups.tightest(controller, machine.proc, machine.sys)
    if level is None:
        return None
    word = "-1" if controller == "memory" and level.version == 1 else "max"
    lift = None if level.limit is None else f"echo {word} | {machine.sudo}tee {level.path}"
    return _Level(level.limit, level.used, f"cgroup {level.path.name}", lift)


def _cgroup_memory(machine: _Machine) -> _Level | None:
    level = _cgroup_level(machine, "memory")
    if level is None or level.limit is None:
        return level
    limit = level.limit - reserve_bytes(level.limit)
    return _Level(limit, level.used, f"{level.source} less the reserve kept free", level.lift)


def _memory(machine: _Machine) -> _Level | None:
    total, available = machine.meminfo.get("MemTotal"), machine.meminfo.get("MemAvailable")
    if total is None:
        return None
    used = None if available is None else total - available
    source = "/proc/meminfo MemTotal less the reserve kept free"
    return _Level(total - reserve_bytes(total), used, source, None, "architectural")


def _commit(machine: _Machine) -> _Level | None:
    """Strict accounting only; in the other modes promised memory is not counted."""
    mode, limit = machine.sysctl("vm.overcommit_memory"), machine.meminfo.get("CommitLimit")
    if mode is None or limit is None:
        return None
    source = "/proc/meminfo CommitLimit"
    if mode != 2:
        return _Level(None, machine.meminfo.get("Committed_AS"), source + " (only with vm.overcommit_memory=2)")
    lift = machine.set_sysctl("vm.overcommit_memory", 0)
    return _Level(limit, machine.meminfo.get("Committed_AS"), source, lift)


def _maps(machine: _Machine) -> _Level | None:
    used = None
    if machine.pid is not None:
        text = read_text(machine.folder / "maps")
        used = None if text is None else text.count("\n") + 1
    return _sysctl_level(machine, "vm.max_map_count", used, 2**20)


def _backlog(machine: _Machine) -> _Level | None:
    return _sysctl_level(machine, "net.core.somaxconn", None, 65535)


def _conntrack(machine: _Machine) -> _Level | None:
    """Counts only while firewall rules that use it are loaded."""
    used = machine.sysctl("net.netfilter.nf_conntrack_count")
    return _sysctl_level(machine, "net.netfilter.nf_conntrack_max", used, 2**20)


def _watches(machine: _Machine) -> _Level | None:
    return _sysctl_level(machine, "fs.epoll.max_user_watches", None, 2**20)


def _address_space(machine: _Machine) -> _Level | None:
    words = machine.status.get("VmSize", "").split() if machine.pid is not None else []
    used = int(words[0]) * 1024 if words else None
    soft = machine.rlimits.get("as", (None, None))[0]
    if soft is None:
        return _Level(_USER_ADDRESS_SPACE_BYTES, used, "user half of 48-bit addresses", None, "architectural")
    return _Level(soft, used, "RLIMIT_AS (soft)", f"{machine.sudo}prlimit --pid $$ --as=unlimited")


class WallRow(NamedTuple):
    """One row of the table.

    need: field of limits.Needs that counts against it. signs: `call:errno` that it causes, `*` for any call.
    """

    name: str
    need: str
    unit: str
    scope: Scope
    read: Callable[[_Machine], _Level | None]
    signs: tuple[str, ...]


_CREATE = tuple(f"{call}:EAGAIN" for call in ("fork", "vfork", "clone", "clone3", "posix_spawn", "pthread_create"))
_NO_MEMORY = ("*:ENOMEM", "*:ENOBUFS", "pthread_create:EAGAIN")
# glibc's pthread_create says EAGAIN also when its mmap for the stack failed with ENOMEM.
_NO_MAPPING = ("mmap:ENOMEM", "mprotect:ENOMEM", "pthread_create:EAGAIN", "pthread_create:ENOMEM")
# A connect() that times out by SO_SNDTIMEO says EINPROGRESS.
_NO_ANSWER = ("connect:ETIMEDOUT", "connect:EINPROGRESS")

# Of two walls that bind alike, the one that stands first is named.
WALLS: tuple[WallRow, ...] = (
    WallRow("descriptors", "descriptors_count", "descriptors", "process", _descriptors, ("*:EMFILE",)),
    WallRow("fd-setsize", "select_count", "descriptors", "process", _select_set, ("select:EINVAL",)),
    WallRow(
        "descriptors-system",
        "system_descriptors_count",
        "descriptors",
        "machine",
        _system_descriptors,
        ("*:ENFILE",),
    ),
    WallRow("ports", "ports_count", "ports", "address", _ports, ("*:EADDRNOTAVAIL", "bind:EADDRINUSE")),
    WallRow("cgroup-pids", "tasks_count", "tasks", "cgroup", lambda m: _cgroup_level(m, "pids"), _CREATE),
    WallRow("user-tasks", "tasks_count", "tasks", "user", _user_tasks, _CREATE),
    WallRow("pids", "tasks_count", "tasks", "machine", _pids, _CREATE),
    WallRow(
        "threads",
        "tasks_count",
        "tasks",
        "machine",
        lambda m: _sysctl_level(m, "kernel.threads-max", m.tasks_count, 2**18),
        _CREATE,
    ),
    WallRow("maps", "mappings_count", "mappings", "process", _maps, _NO_MAPPING),
    WallRow("backlog", "backlog_count", "connections", "address", _backlog, _NO_ANSWER),
    WallRow("cgroup-memory", "memory_bytes", "bytes", "cgroup", _cgroup_memory, _NO_MEMORY),
    WallRow("memory", "memory_bytes", "bytes", "machine", _memory, _NO_MEMORY),
    WallRow("commit", "commit_bytes", "bytes", "machine", _commit, _NO_MEMORY),
    WallRow(
        "conntrack",
        "flows_count",
        "flows",
        "machine",
        _conntrack,
        (*_NO_ANSWER, "connect:EPERM", "send:EPERM", "sendto:EPERM"),
    ),
    WallRow("epoll-watches", "watches_count", "watches", "user", _watches, ("epoll_ctl:ENOSPC",)),
    WallRow("address-space", "address_space_bytes", "bytes", "process", _address_space, _NO_MAPPING),
)


def _wall(row: WallRow, machine: _Machine) -> Wall | None:
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
    machine = _Machine(pid, proc_root, sys_root)
    return [wall for wall in (_wall(row, machine) for row in WALLS) if wall is not None]


def memory_rooms(proc_root: Path = PROC, sys_root: Path = SYS) -> dict[str, int]:
    """Bytes that may still be used without touching the reserve, of the machine and of the control group.

    A negative room means that the reserve is touched already; what is unlimited or unknown is left out.
    """
    machine = _Machine(None, proc_root, sys_root)
    levels = {"machine": _memory(machine), "control group": _cgroup_memory(machine)}
    return {
        name: level.limit - level.used
        for name, level in levels.items()
        if level is not None and level.limit is not None and level.used is not None
    }
