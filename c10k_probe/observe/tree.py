"""Processes, CPU, context switches and memory of a process tree, named by its session.

A helper is started in a session of its own, so session == process id of the root for every descendant, also
for one whose parent has died. One scan of /proc/*/stat finds the members; then status, schedstat and
smaps_rollup of each are read with plain open, read, close: 10,000 processes take about a second, half of it
smaps_rollup. Of a tree of more than SAMPLED_ABOVE processes the memory of the leader and of every so many of the
others is read, the sums of the others scaled, and the reading says how many were read. It is no snapshot: a tree that
changes meanwhile is read as it was at each process's turn.
Sources: proc_pid_stat(5), proc_pid_status(5), proc_pid_smaps(5), sched-stats.rst (schedstat), clock_getcpuclockid(3).
"""

from __future__ import annotations

import contextlib
import math
import os
import statistics
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from c10k_probe.observe import processes
from c10k_probe.observe.procfs import PROC, raw_field, read_raw

SAMPLED_ABOVE = 12_000
SAMPLE_COUNT = 4_000
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PROCESS_CLOCK = 2  # CPUCLOCK_SCHED; its number is made of the process's (clock_getcpuclockid in the C library)

# Position after the command name in /proc/PID/stat (the manual's number less 3).
_STATE, _SESSION, _UTIME, _STIME, _CUTIME, _CSTIME, _THREADS = 0, 3, 11, 12, 13, 14, 17

_ROLLUP_KEYS = {
    "pss": (b"\nPss:",),
    "private": (b"\nPrivate_Clean:", b"\nPrivate_Dirty:", b"\nPrivate_Hugetlb:"),
    "rss": (b"\nRss:",),
}


@dataclass(frozen=True)
class TreeReading:
    """One reading of a tree. A sum over nothing that could be read is None, never 0.

    tasks_count: threads of all living processes; zombies are counted apart.
    cpu_user_s, cpu_system_s: of every member and of its children already waited for, in clock ticks
        (10 ms), cut off for each process: far too low for many processes that each did little.
    cpu_run_s: user and system together from the scheduler's nanoseconds (children waited for in ticks);
        use this where many small processes are compared with one large. Children that nobody waited for
        (SIGCHLD ignored) are in neither.
    voluntary_switches_count, involuntary_switches_count: of all living threads.
    page_table_bytes: sum of VmPTE. pss, private (private clean + dirty) and rss: sums of smaps_rollup over
        read_count processes, of a sample scaled to the tree; the whole tree only if is_complete.
    chosen_count: processes whose memory was to be read, fewer than processes_count of a large tree.
    pss_doubt_bytes: half the 95 % interval of pss_bytes, from the scatter within the sample; 0 when all were read.
    """

    session: int
    processes_count: int
    tasks_count: int
    zombies_count: int
    read_count: int
    cpu_user_s: float | None
    cpu_system_s: float | None
    cpu_run_s: float | None
    voluntary_switches_count: int | None
    involuntary_switches_count: int | None
    page_table_bytes: int | None
    pss_bytes: int | None
    private_bytes: int | None
    rss_bytes: int | None
    chosen_count: int
    pss_doubt_bytes: float = 0.0

    @property
    def is_complete(self) -> bool:
        """True when the memory sums stand for every living process: all that were chosen could be read."""
        return self.read_count == self.chosen_count > 0

    @property
    def shared_bytes(self) -> int | None:
        """The tree's part of pages that others map too: pss less private."""
        return None if self.pss_bytes is None or self.private_bytes is None else self.pss_bytes - self.private_bytes


class _Member(NamedTuple):
    path: bytes
    is_zombie: bool
    threads_count: int
    user_ticks: int
    system_ticks: int
    children_user_ticks: int
    children_system_ticks: int


class _Sums:
    """Named sums; one that nothing was added to is None."""

    def __init__(self) -> None:
        self.totals: dict[str, int] = {}

    def add(self, name: str, value: int | None) -> None:
        if value is not None:
            self.totals[name] = self.totals.get(name, 0) + value

    def get(self, name: str, scale: int = 1) -> int | None:
        total = self.totals.get(name)
        return None if total is None else total * scale

    def add_scaled(self, other: _Sums, factor: float) -> None:
        for name, value in other.totals.items():
            self.add(name, round(value * factor))


def _process_paths(proc_root: Path) -> Iterator[bytes]:
    prefix = os.fsencode(proc_root) + b"/"
    try:
        names = os.listdir(prefix)  # noqa: PTH208 -- thousands of names, as bytes
    except OSError:
        return
    yield from (prefix + name for name in names if name.isdigit())


def _parse_member(path: bytes, data: bytes, session: bytes | None) -> _Member | None:
    """The process if it belongs to the session, None: to any; the command name may hold spaces and brackets."""
    fields = data[data.rfind(b")") + 2 :].split()
    if len(fields) <= _THREADS or session not in (None, fields[_SESSION]):
        return None
    threads_count = int(fields[_THREADS])
    # A leader that ended before its threads looks like a zombie, but the process lives.
    is_zombie = fields[_STATE] in b"ZX" and threads_count <= 1
    ticks = (int(fields[column]) for column in (_UTIME, _STIME, _CUTIME, _CSTIME))
    return _Member(path, is_zombie, threads_count, *ticks)


def _members(session: int, proc_root: Path) -> Iterator[_Member]:
    return _read_paths(_process_paths(proc_root), str(session).encode())


def _read_paths(paths: Iterable[bytes], wanted: bytes | None) -> Iterator[_Member]:
    for path in paths:
        try:
            member = _parse_member(path, read_raw(path + b"/stat", 2048), wanted)
        except OSError:
            continue  # it ended between the listing and the reading
        if member is not None:
            yield member


def session_pids(session: int, proc_root: Path = PROC) -> list[int]:
    """Process ids of the session that are alive (no zombies), in ascending order."""
    living = (member for member in _members(session, proc_root) if not member.is_zombie)
    return sorted(int(member.path.rpartition(b"/")[2]) for member in living)


def run_ns_of_threads(session: int, proc_root: Path = PROC) -> dict[int, int]:
    """Thread id -> its time on a CPU so far; threads that have ended are not told of."""
    return {
        tid: _run_ns(os.fsencode(proc_root / str(pid) / "task" / str(tid)))
        for pid in session_pids(session, proc_root)
        for tid in processes.threads_of(pid, proc_root)
    }


def process_cpu_s(pid: int) -> float:
    """CPU time of a living process, its ended threads included, by its own clock: one system call, and no ticks.

    A thread that runs at the moment is as it was at its last tick or switch. Raises ``OSError`` when there is none.
    """
    return time.clock_gettime(~pid << 3 | _PROCESS_CLOCK)


def session_cpu_s(session: int, pids: Collection[int] = ()) -> float:
    """CPU time of all processes of the session by their clocks, and of ended children, in ticks, that were waited for.

    As ``TreeReading.cpu_run_s``, for a tenth of its price: nothing but the stat of each process of the machine is read,
    and not even that where the caller knows that ``pids`` are all of them and have had no children. What the kernel
    does for a thread after it has closed its account, some 7 µs for each that ends, is in nobody's time.
    """
    if pids:
        return sum(map(_process_cpu_s, pids))
    total_s = 0.0
    for member in _members(session, PROC):
        total_s += (member.children_user_ticks + member.children_system_ticks) * _TICK_S
        total_s += _process_cpu_s(int(member.path.rpartition(b"/")[2]))
    return total_s


def _process_cpu_s(pid: int) -> float:
    """The same as ``process_cpu_s``, 0 of one that has just been waited for."""
    with contextlib.suppress(OSError):
        return process_cpu_s(pid)
    return 0.0


def session_is_empty(session: int, proc_root: Path = PROC) -> bool:
    """True when no process of the session is left, not even a zombie, which still holds kernel memory."""
    return next(_members(session, proc_root), None) is None


def _add_switches(sums: _Sums, status: bytes) -> None:
    sums.add("voluntary", raw_field(status, b"\nvoluntary_ctxt_switches:"))
    sums.add("involuntary", raw_field(status, b"\nnonvoluntary_ctxt_switches:"))


def _run_ns(task_path: bytes) -> int:
    """Time on a CPU of one thread, ns; 0 where the kernel has no schedstat."""
    try:
        return int(read_raw(task_path + b"/schedstat", 128).split(None, 1)[0])
    except (OSError, ValueError, IndexError):
        return 0


def _read_threads(sums: _Sums, member: _Member) -> int:
    """Add the switches of every thread (PID/status has the leader's only); return their run time, ns."""
    run_ns = 0
    for name in os.listdir(member.path + b"/task"):  # noqa: PTH208 -- likewise
        task_path = member.path + b"/task/" + name
        try:
            _add_switches(sums, read_raw(task_path + b"/status", 4096))
        except OSError:
            continue  # this thread has ended
        run_ns += _run_ns(task_path)
    return run_ns


def _add_rollup(sums: _Sums, data: bytes) -> None:
    for name, keys in _ROLLUP_KEYS.items():
        sizes = [size for size in (raw_field(data, key) for key in keys) if size is not None]
        if sizes:
            sums.add(name, sum(sizes))


def _read_cpu(sums: _Sums, member: _Member, run_ns: int) -> None:
    own_ticks = member.user_ticks + member.system_ticks
    children_ticks = member.children_user_ticks + member.children_system_ticks
    sums.add("user", member.user_ticks + member.children_user_ticks)
    sums.add("system", member.system_ticks + member.children_system_ticks)
    # Ticks hold threads that have ended, schedstat holds parts of a tick: each is a lower bound.
    tick_ns = round(_TICK_S * 1e9)
    sums.add("run", max(run_ns, own_ticks * tick_ns) + children_ticks * tick_ns)


def _read_living(sums: _Sums, member: _Member) -> None:
    """Everything but memory of one living process. Raises OSError, with nothing added, when it has ended."""
    status = read_raw(member.path + b"/status")
    if member.threads_count > 1:
        run_ns = _read_threads(sums, member)
    else:
        _add_switches(sums, status)
        run_ns = _run_ns(member.path)
    _read_cpu(sums, member, run_ns)
    sums.add("page_table", raw_field(status, b"\nVmPTE:"))
    sums.add("tasks", member.threads_count)
    sums.add("processes", 1)


def _read_memory(sums: _Sums, path: bytes) -> int | None:
    """Add what smaps_rollup says of one process; its PSS in KiB, None when it has ended or is not ours to read."""
    try:
        rollup = read_raw(path + b"/smaps_rollup", 4096)
    except OSError:
        return None
    if not rollup:
        return None
    _add_rollup(sums, rollup)
    sums.add("read", 1)
    return raw_field(rollup, b"\nPss:")


def _read_memories(sums: _Sums, paths: Sequence[bytes], leader: bytes) -> None:
    """Memory of these processes: of all, or of the leader and a sample of the others, which is then scaled."""
    if len(paths) <= SAMPLED_ABOVE:
        for path in paths:
            _read_memory(sums, path)
        sums.add("chosen", len(paths))
        return
    others = [path for path in paths if path != leader]
    if len(others) < len(paths):
        _read_memory(sums, leader)
    step = len(others) / SAMPLE_COUNT
    sample = _Sums()
    found = [_read_memory(sample, others[int(index * step)]) for index in range(SAMPLE_COUNT)]
    sums.add("chosen", len(paths) - len(others) + SAMPLE_COUNT)
    known = [value for value in found if value is not None]
    if len(known) > 1:
        read_count = sample.totals.pop("read")
        sums.add_scaled(sample, len(others) / read_count)
        sums.add("read", read_count)
        # the usual interval of a mean from a sample without replacement, times what it stands for
        left = max(0.0, 1 - len(known) / len(others))
        sums.add("doubt", round(1.96 * len(others) * statistics.stdev(known) * math.sqrt(left / len(known))))


def _read_members(sums: _Sums, members: Iterable[_Member], *, memory: bool = True, leader: bytes = b"") -> None:
    living: list[bytes] = []
    for member in members:
        if member.is_zombie:
            sums.add("zombies", 1)
            _read_cpu(sums, member, 0)
            continue
        try:
            _read_living(sums, member)
        except OSError:
            continue  # it ended between the scan and now: not counted
        living.append(member.path)
    if memory:
        _read_memories(sums, living, leader)


def read_tree(session: int, proc_root: Path = PROC, *, memory: bool = True) -> TreeReading:
    """Read all processes whose session is `session`; all counts are 0 when there are none. Memory takes long."""
    sums = _Sums()
    leader = os.fsencode(proc_root / str(session))
    _read_members(sums, list(_members(session, proc_root)), memory=memory, leader=leader)
    return _reading(sums, session)


def read_processes(pids: Iterable[int], *, memory: bool = True, proc_root: Path = PROC) -> TreeReading:
    """Read these processes, of whatever session; without memory nothing is read that takes long. Its session is 0."""
    paths = [os.fsencode(proc_root / str(pid)) for pid in pids]
    sums = _Sums()
    _read_members(sums, list(_read_paths(paths, None)), memory=memory)
    return _reading(sums, 0)


def _reading(sums: _Sums, session: int) -> TreeReading:
    user, system, run = sums.get("user"), sums.get("system"), sums.get("run")
    return TreeReading(
        session=session,
        processes_count=sums.get("processes") or 0,
        tasks_count=sums.get("tasks") or 0,
        zombies_count=sums.get("zombies") or 0,
        read_count=sums.get("read") or 0,
        cpu_user_s=None if user is None else user * _TICK_S,
        cpu_system_s=None if system is None else system * _TICK_S,
        cpu_run_s=None if run is None else run / 1e9,
        voluntary_switches_count=sums.get("voluntary"),
        involuntary_switches_count=sums.get("involuntary"),
        page_table_bytes=sums.get("page_table", 1024),
        pss_bytes=sums.get("pss", 1024),
        private_bytes=sums.get("private", 1024),
        rss_bytes=sums.get("rss", 1024),
        chosen_count=sums.get("chosen") or 0,
        pss_doubt_bytes=float(sums.get("doubt", 1024) or 0),
    )
