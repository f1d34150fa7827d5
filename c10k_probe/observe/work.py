"""What the tasks of a tree did from look to look: context switches and CPU time, task by task.

A task that has ended takes its switches with it: /proc keeps none of a thread or process that is gone. Two sums over
what lives would lose them in silence, so every task is compared with itself: one that lives at both looks gives its
growth, one that began in between all it has done. What is lost is told: tasks that were seen and have ended, and signs
of others that came and went between two looks. A process shows these by the page faults of children it waited for, and
by CPU time that belongs to none of its living threads, which the kernel counts to the nanosecond. Children that nobody
waits for leave no sign; where they are ignored (SIGCHLD), what the machine has started counts as one. With neither the
sums are whole, else they are the least. CPU time of ended processes is not lost where a parent waited for them.
Sources: proc_pid_stat(5), proc_pid_status(5), proc_stat(5) (processes), clock_getcpuclockid(3), sched-stats.rst.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from c10k_probe.observe import processes
from c10k_probe.observe.procfs import PROC, raw_field, read_raw

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
# position after the command name in /proc/PID/stat (the manual's number less 3)
_STATE, _USER, _SYSTEM, _CHILDREN_USER, _CHILDREN_SYSTEM, _THREADS, _START = 0, 11, 12, 13, 14, 17, 19
_CHILDREN_MINOR, _CHILDREN_MAJOR = 8, 10  # page faults of children that were waited for
_SIGCHLD_BIT: Final = 1 << 16  # of SigIgn in /proc/PID/status: ended children are handed to nobody


class Task(NamedTuple):
    """A thread's context switches since it began, and whether it has ended and only waits to be waited for."""

    voluntary: int
    involuntary: int
    is_zombie: bool


class Process(NamedTuple):
    """A process: when it began (ticks since boot), CPU seconds of its own and of children waited for, its tasks.

    children_faults_count: page faults of children waited for, at least one each. ended_threads_ns: CPU time that its
    ended threads have had, at least and at most, since threads that run are not read all at once; None unknown.
    """

    start_ticks: int
    own_s: float
    children_s: float
    ignores_children: bool
    is_zombie: bool
    tasks: dict[int, Task]
    children_faults_count: int = 0
    ended_threads_ns: tuple[int, int] | None = None


@dataclass(frozen=True)
class Reading:
    """All processes of a tree, zombies too; tasks started in the machine before and after it, None unknown."""

    boot_ticks: int
    forks_before: int | None
    processes: dict[int, Process]
    forks_after: int | None

    @property
    def living(self) -> list[int]:
        """Those that are no zombies."""
        return [pid for pid, process in self.processes.items() if not process.is_zombie]


@dataclass
class Work:
    """What a tree did since the first reading. Counts and seconds only grow.

    ended_tasks_count: seen, and gone with what they did last. unseen_tasks_count: the most that can have come and gone
    between two readings, of the whole machine; None when the kernel does not tell. unseen_signs_count: how often a
    process of the tree showed that some did. unwaited_count: ended processes
    whose CPU time nobody took over, so that cpu_s is the least.
    """

    voluntary_switches_count: int = 0
    involuntary_switches_count: int = 0
    cpu_s: float = 0.0
    ended_tasks_count: int = 0
    ended_processes_count: int = 0
    unseen_tasks_count: int | None = 0
    unseen_signs_count: int = 0
    unwaited_count: int = 0
    _before: Reading | None = field(default=None, repr=False)
    _debt_s: float = field(default=0.0, repr=False)

    def add(self, now: Reading) -> None:
        """Take in one more reading; the first only says where counting begins."""
        before, self._before = self._before, now
        if before is not None:
            self._add_switches(before, now)
            self._add_cpu(before, now)
            signs = (_shows_unseen(before, now, pid) for pid in now.processes if _is_new(before, now, pid))
            self.unseen_signs_count += sum(signs) + self._unseen_of_ignoring(before, now)

    def _add_switches(self, before: Reading, now: Reading) -> None:
        old, new = _tasks(before), _tasks(now)
        began = {key for key in new if key not in old and _is_new(before, now, key[0])}
        for key in (old.keys() & new.keys()) | began:
            base = old.get(key, Task(0, 0, False))
            self.voluntary_switches_count += max(0, new[key].voluntary - base.voluntary)
            self.involuntary_switches_count += max(0, new[key].involuntary - base.involuntary)
        self.ended_tasks_count += sum(not old[key].is_zombie for key in old.keys() - new.keys())
        forks_count = _difference(before.forks_before, now.forks_after)
        if forks_count is None or self.unseen_tasks_count is None:
            self.unseen_tasks_count = None
        else:
            self.unseen_tasks_count += max(0, forks_count - len(began))

    def _add_cpu(self, before: Reading, now: Reading) -> None:
        both = [(before.processes[pid], new) for pid, new in now.processes.items() if _is_same(before, pid, new)]
        began = [new for pid, new in now.processes.items() if not _is_same(before, pid, new) and _is_fresh(new, before)]
        ended = [old for pid, old in before.processes.items() if not _is_same(now, pid, old)]
        living_s = sum(max(0.0, new.own_s - old.own_s) for old, new in both) + sum(new.own_s for new in began)
        waited_s = sum(new.children_s - old.children_s for old, new in both) + sum(new.children_s for new in began)
        # a child's time goes to its parent whole: what it had at the last reading has been counted already
        change_s = living_s + waited_s - sum(old.own_s + old.children_s for old in ended) + self._debt_s
        ended_count = sum(not old.is_zombie for old in ended)
        self.ended_processes_count += ended_count
        unseen_count = self._unseen_of_ignoring(before, now)
        if change_s < living_s - (2 + len(ended)) / _TICKS_PER_S:
            self.unwaited_count += max(1, len(ended))
            change_s = living_s
        elif unseen_count or (ended_count and _any_ignores(now)):
            self.unwaited_count += unseen_count + ended_count
        self.cpu_s += max(0.0, change_s)
        self._debt_s = min(0.0, change_s)  # parts of a tick, given back by the next reading

    def _unseen_of_ignoring(self, before: Reading, now: Reading) -> int:
        """How many children may have come and gone of a parent that waits for none; 0 where all wait."""
        if not _any_ignores(now):
            return 0
        forks_count = _difference(before.forks_before, now.forks_after)
        began_count = sum(pid not in before.processes for pid in now.processes)
        return 1 if forks_count is None else max(0, forks_count - began_count)


def read_work(pids: Iterable[int], proc_root: Path = PROC) -> Reading:
    """Read these processes; one that ends meanwhile is left out."""
    boot_ticks = int(time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS_PER_S)
    forks_before = tasks_started(proc_root)
    found = {pid: process for pid in pids if (process := _read_process(pid, proc_root)) is not None}
    return Reading(boot_ticks, forks_before, found, tasks_started(proc_root))


def tasks_started(proc_root: Path = PROC) -> int | None:
    """Processes and threads that the machine has started since boot; None when it does not tell."""
    try:
        return raw_field(read_raw(os.fsencode(proc_root / "stat"), 1 << 20), b"\nprocesses ")
    except OSError:
        return None


def _read_process(pid: int, proc_root: Path) -> Process | None:
    folder = f"{proc_root}/{pid}".encode()  # no Path: read by the thousand
    try:
        fields = processes.stat_fields(pid, proc_root)
        status = read_raw(folder + b"/status")
        ticks = [int(fields[column]) for column in (_USER, _SYSTEM, _CHILDREN_USER, _CHILDREN_SYSTEM)]
        start_ticks, is_alone = int(fields[_START]), fields[_THREADS] == b"1"
        faults_count = int(fields[_CHILDREN_MINOR]) + int(fields[_CHILDREN_MAJOR])
        before_ns = _clock_ns(pid, proc_root)
        tasks, run_ns = _read_alone(pid, folder, status) if is_alone else _read_tasks(folder)
        after_ns = _clock_ns(pid, proc_root)
    except (OSError, IndexError, ValueError):
        return None
    ended_ns = None if before_ns is None or after_ns is None else (before_ns - run_ns, after_ns - run_ns)
    # the clock is exact; else ticks hold threads that have ended, schedstat holds parts of a tick: each is the least
    own_s = max((ticks[0] + ticks[1]) / _TICKS_PER_S, run_ns / 1e9) if before_ns is None else before_ns / 1e9
    children_s = (ticks[2] + ticks[3]) / _TICKS_PER_S
    is_zombie = fields[_STATE] in (b"Z", b"X") and len(tasks) <= 1
    return Process(start_ticks, own_s, children_s, _ignores(status), is_zombie, tasks, faults_count, ended_ns)


def _clock_ns(pid: int, proc_root: Path) -> int | None:
    """CPU time of a process and all its threads, ended ones too: its CPU clock (linux/posix-timers_types.h)."""
    if proc_root != PROC:
        return None
    try:
        return time.clock_gettime_ns((~pid << 3) | 2)  # CPUCLOCK_SCHED; what clock_getcpuclockid(3) gives
    except OSError:
        return None  # it has ended


def _read_alone(pid: int, folder: bytes, status: bytes) -> tuple[dict[int, Task], int]:
    """What ``_read_tasks`` gives for a process of one thread, which is spared some reading: there may be thousands."""
    task = _task_of(status)
    return ({} if task is None else {pid: task}), _run_ns(folder)


def _read_tasks(process_folder: bytes) -> tuple[dict[int, Task], int]:
    """Every thread, and the time on a CPU of all of them, ns; raises ``OSError`` when the process has gone."""
    tasks, run_ns = {}, 0
    for name in os.listdir(process_folder + b"/task"):  # noqa: PTH208 -- thousands of names, as bytes
        folder = process_folder + b"/task/" + name
        try:
            task = _task_of(read_raw(folder + b"/status"))
        except OSError:
            continue  # this thread has ended
        if task is not None:
            tasks[int(name)] = task
            run_ns += _run_ns(folder)
    return tasks, run_ns


def _task_of(status: bytes) -> Task | None:
    counts = [raw_field(status, b"\n" + kind + b"voluntary_ctxt_switches:") for kind in (b"", b"non")]
    if counts[0] is None or counts[1] is None:
        return None
    return Task(counts[0], counts[1], b"\nState:\tZ" in status or b"\nState:\tX" in status)


def _run_ns(folder: bytes) -> int:
    """Time on a CPU; 0 where the kernel has no schedstat."""
    try:
        return int(read_raw(folder + b"/schedstat", 128).split(None, 1)[0])
    except (OSError, ValueError, IndexError):
        return 0


def _ignores(status: bytes) -> bool:
    start = status.find(b"\nSigIgn:")
    try:
        return start >= 0 and bool(int(status[start + 8 :].split(None, 1)[0], 16) & _SIGCHLD_BIT)
    except (ValueError, IndexError):
        return False


def _any_ignores(reading: Reading) -> bool:
    return any(process.ignores_children for process in reading.processes.values())


def _tasks(reading: Reading) -> dict[tuple[int, int, int], Task]:
    """(pid, when it began, tid) -> task."""
    return {
        (pid, process.start_ticks, tid): task
        for pid, process in reading.processes.items()
        for tid, task in process.tasks.items()
    }


def _is_same(before: Reading, pid: int, new: Process) -> bool:
    old = before.processes.get(pid)
    return old is not None and old.start_ticks == new.start_ticks


def _shows_unseen(before: Reading, now: Reading, pid: int) -> bool:
    """Whether children or threads of this process ended since the reading before, or since it began."""
    new = now.processes[pid]
    old = before.processes[pid] if _is_same(before, pid, new) else None
    if new.children_faults_count > (old.children_faults_count if old else 0):
        return True
    most_before_ns = 0 if old is None else None if old.ended_threads_ns is None else old.ended_threads_ns[1]
    if new.ended_threads_ns is None or most_before_ns is None:
        return False
    return new.ended_threads_ns[0] > most_before_ns


def _is_new(before: Reading, now: Reading, pid: int) -> bool:
    """Whether a task of this process that was not there before is new: not of a process that was only found late."""
    process = now.processes[pid]
    return _is_same(before, pid, process) or _is_fresh(process, before)


def _is_fresh(process: Process, before: Reading) -> bool:
    """Whether it began after the last reading, so that all it did is new; a tick is forgiven."""
    return process.start_ticks >= before.boot_ticks - 1


def _difference(before: int | None, now: int | None) -> int | None:
    return None if before is None or now is None else now - before
