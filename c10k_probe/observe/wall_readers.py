"""How each wall is read from the kernel: its limit in force, its use, and the command that would raise it.

The table that names them is in walls.py.
Sources: getrlimit(2), proc_sys_fs(5), proc_sys_kernel(5), proc_sys_vm(5), ip(7), tcp(7), cgroups(7),
kernel/fork.c, fs/file_table.c.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

from c10k_probe.observe import cgroups
from c10k_probe.observe.procfs import (
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


class Level(NamedTuple):
    limit: int | None
    used: int | None
    source: str
    lift: str | None = None
    kind: Kind = "administrative"


class Machine:
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


def sysctl_level(machine: Machine, name: str, used: int | None, at_least: int) -> Level | None:
    limit = machine.sysctl(name)
    if limit is None:
        return None
    return Level(limit, used, _source(name), machine.set_sysctl(name, _raised(limit, at_least)))


def _source(sysctl: str) -> str:
    return "/proc/sys/" + sysctl.replace(".", "/")


def _entries_count(folder: Path) -> int | None:
    try:
        return sum(1 for _ in folder.iterdir())
    except OSError:
        return None


def _fullest_table_count(folder: Path) -> int | None:
    """Descriptors in the fullest of the tables that a process's threads have, since the limit bounds each table.

    The size of an ``fd`` folder is how many are open (fs/proc/fd.c, since Linux 6.2): so a thread costs one call and
    not a listing. Before that it is 0, and the table of the first thread is all that is told.
    """
    counts = [_entries_count(folder / "fd")]
    for task in folder.glob("task/*/fd"):
        try:
            counts.append(task.stat().st_size)
        except OSError:
            continue  # it has ended, or is not ours to look at
    return max((count for count in counts if count is not None), default=None)


def descriptors(machine: Machine) -> Level | None:
    """The hard limit counts, since a helper raises its own soft limit to it."""
    if "nofile" not in machine.rlimits:
        return None
    hard, most = machine.rlimits["nofile"][1], machine.sysctl("fs.nr_open")
    limit = min((bound for bound in (hard, most) if bound is not None), default=None)
    used = _STANDARD_DESCRIPTORS_COUNT if machine.pid is None else _fullest_table_count(machine.folder)
    return Level(limit, used, "RLIMIT_NOFILE (hard)", _descriptors_lift(machine, limit, most))


def _descriptors_lift(machine: Machine, limit: int | None, most: int | None) -> str | None:
    """None where the capability to raise a hard limit has been dropped for good."""
    if limit is None or not machine.has_capability(_CAP_SYS_RESOURCE, "CapBnd"):
        return None
    wanted = max(_raised(limit, 2**20), most or 0) if limit == most else (most or 2**20)
    first = f"{machine.set_sysctl('fs.nr_open', wanted)} && " if limit == most else ""
    return f"{first}{machine.sudo}prlimit --pid $$ --nofile={wanted}:{wanted}"


def select_set(machine: Machine) -> Level:
    """It bounds the number of a descriptor; the lowest that is free is given out, so that the use is how many are."""
    used = _STANDARD_DESCRIPTORS_COUNT if machine.pid is None else _fullest_table_count(machine.folder)
    return Level(_SELECT_SET_COUNT, used, "FD_SETSIZE in sys/select.h, select(2)", None, "architectural")


def system_descriptors(machine: Machine) -> Level | None:
    """fs/file_table.c: CAP_SYS_ADMIN is not bound by it."""
    numbers = read_ints(sysctl_path("fs.file-nr", machine.proc))
    level = sysctl_level(machine, "fs.file-max", numbers[0] if numbers else None, 2**20)
    if level is not None and machine.has_capability(_CAP_SYS_ADMIN):
        return Level(None, level.used, level.source + " (does not bind CAP_SYS_ADMIN)")
    return level


def _reserved_ports_count(machine: Machine, low: int, high: int) -> int:
    """Ports of the range that the kernel never hands out by itself."""
    text = read_text(sysctl_path("net.ipv4.ip_local_reserved_ports", machine.proc)) or ""
    ranges = [item.partition("-") for item in text.split(",") if item]
    bounds = [(max(low, int(first)), min(high, int(last or first))) for first, _, last in ranges]
    return sum(max(0, last - first + 1) for first, last in bounds)


def ports(machine: Machine) -> Level | None:
    """Per source address, towards one destination address and port."""
    name = "net.ipv4.ip_local_port_range"
    bounds = read_ints(sysctl_path(name, machine.proc))
    if len(bounds) != 2:
        return None
    low, high = bounds
    limit = high - low + 1 - _reserved_ports_count(machine, low, high)
    if low <= 1024 and high >= 65535:
        return Level(limit, None, _source(name), None, "architectural")
    return Level(limit, None, _source(name), machine.set_sysctl(name, "1024 65535"))


def pids(machine: Machine) -> Level | None:
    limit = machine.sysctl("kernel.pid_max")
    if limit is None:
        return None
    at_most = limit >= _MOST_PIDS_COUNT
    lift = None if at_most else machine.set_sysctl("kernel.pid_max", _MOST_PIDS_COUNT)
    source = f"/proc/sys/kernel/pid_max less {_RESERVED_PIDS_COUNT} that are reserved"
    kind: Kind = "architectural" if at_most else "administrative"
    return Level(limit - _RESERVED_PIDS_COUNT, machine.tasks_count, source, lift, kind)


def _user_tasks_count(machine: Machine) -> int | None:
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


def user_tasks(machine: Machine) -> Level | None:
    """kernel/fork.c: root of the initial user namespace, CAP_SYS_RESOURCE and CAP_SYS_ADMIN are not bound."""
    if "nproc" not in machine.rlimits:
        return None
    limit, source = machine.rlimits["nproc"][0], "RLIMIT_NPROC (soft)"
    is_root = machine.in_initial_namespace and machine.user_id == 0
    if is_root or any(machine.has_capability(number) for number in (_CAP_SYS_ADMIN, _CAP_SYS_RESOURCE)):
        return Level(None, None, source + " (does not bind root)")
    lift = f"{machine.sudo}prlimit --pid $$ --nproc=unlimited"
    return Level(limit, None if limit is None else _user_tasks_count(machine), source, lift)


def cgroup_level(machine: Machine, controller: str) -> Level | None:
    level = cgroups.tightest(controller, machine.proc, machine.sys)
    if level is None:
        return None
    word = "-1" if controller == "memory" and level.version == 1 else "max"
    lift = None if level.limit is None else f"echo {word} | {machine.sudo}tee {level.path}"
    return Level(level.limit, level.used, f"cgroup {level.path.name}", lift)


def cgroup_memory(machine: Machine) -> Level | None:
    level = cgroup_level(machine, "memory")
    if level is None or level.limit is None:
        return level
    limit = level.limit - reserve_bytes(level.limit)
    return Level(limit, level.used, f"{level.source} less the reserve kept free", level.lift)


def memory(machine: Machine) -> Level | None:
    total, available = machine.meminfo.get("MemTotal"), machine.meminfo.get("MemAvailable")
    if total is None:
        return None
    used = None if available is None else total - available
    source = "/proc/meminfo MemTotal less the reserve kept free"
    return Level(total - reserve_bytes(total), used, source, None, "architectural")


def commit(machine: Machine) -> Level | None:
    """Strict accounting only; in the other modes promised memory is not counted."""
    mode, limit = machine.sysctl("vm.overcommit_memory"), machine.meminfo.get("CommitLimit")
    if mode is None or limit is None:
        return None
    source = "/proc/meminfo CommitLimit"
    if mode != 2:
        return Level(None, machine.meminfo.get("Committed_AS"), source + " (only with vm.overcommit_memory=2)")
    lift = machine.set_sysctl("vm.overcommit_memory", 0)
    return Level(limit, machine.meminfo.get("Committed_AS"), source, lift)


def tcp_memory(machine: Machine) -> Level | None:
    """Above it nothing more is taken into any socket of TCP: what comes is dropped, what is sent waits."""
    bounds = read_ints(sysctl_path("net.ipv4.tcp_mem", machine.proc))
    if len(bounds) != 3:
        return None
    page = os.sysconf("SC_PAGESIZE")
    text = read_text(machine.proc / "net/sockstat") or ""
    words = next((line.split() for line in text.splitlines() if line.startswith("TCP:")), [])
    pages = to_int(words[words.index("mem") + 1]) if "mem" in words[:-1] else None
    lift = machine.set_sysctl("net.ipv4.tcp_mem", " ".join(str(2 * bound) for bound in bounds))
    source = f"{_source('net.ipv4.tcp_mem')}, the last, in pages"
    return Level(bounds[2] * page, None if pages is None else pages * page, source, lift)


def maps(machine: Machine) -> Level | None:
    used = None
    if machine.pid is not None:
        text = read_text(machine.folder / "maps")
        used = None if text is None else text.count("\n") + 1
    return sysctl_level(machine, "vm.max_map_count", used, 2**20)


def backlog(machine: Machine) -> Level | None:
    return sysctl_level(machine, "net.core.somaxconn", None, 65535)


def conntrack(machine: Machine) -> Level | None:
    """Counts only while firewall rules that use it are loaded."""
    used = machine.sysctl("net.netfilter.nf_conntrack_count")
    return sysctl_level(machine, "net.netfilter.nf_conntrack_max", used, 2**20)


def watches(machine: Machine) -> Level | None:
    return sysctl_level(machine, "fs.epoll.max_user_watches", None, 2**20)


def address_space(machine: Machine) -> Level | None:
    words = machine.status.get("VmSize", "").split() if machine.pid is not None else []
    used = int(words[0]) * 1024 if words else None
    soft = machine.rlimits.get("as", (None, None))[0]
    if soft is None:
        return Level(_USER_ADDRESS_SPACE_BYTES, used, "user half of 48-bit addresses", None, "architectural")
    return Level(soft, used, "RLIMIT_AS (soft)", f"{machine.sudo}prlimit --pid $$ --as=unlimited")
