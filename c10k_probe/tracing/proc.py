"""The /proc backend: context switches of both kinds, page faults, CPU time, waits for a CPU. Needs no privilege.

It looks from time to time and takes differences. A thread that has ended takes its switches and waits with it: they
are counted up to the last look, and a process that began and ended between two looks is not seen at all; but of a
command that was started here the kernel tells everything at its end (wait4(2)). System calls
are not in /proc.
Sources: proc_pid_status(5), proc_pid_stat(5), sched-stats.rst (schedstat), clock_getcpuclockid(3).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from resource import struct_rusage
from typing import ClassVar, Final, NamedTuple

from c10k_probe.observe import processes
from c10k_probe.observe.procfs import PROC, raw_field, read_raw
from c10k_probe.tracing.base import Options, Target, Tracer, TracerUnavailable
from c10k_probe.tracing.launch import Launched
from c10k_probe.tracing.result import Trace, add_known
from c10k_probe.tracing.tree import Tree

_TICK_NS: Final = 10**9 // os.sysconf("SC_CLK_TCK")
_CPUCLOCK_SCHED: Final = 2  # kind of a process's clock, in the lowest bits of its number
_MINOR, _MAJOR, _USER, _SYSTEM, _START = 7, 9, 11, 12, 19  # after the command name in /proc/PID/stat


class _Figures(NamedTuple):
    """What one thread, or one process, has done since it began; None: not told."""

    voluntary: int | None = None
    involuntary: int | None = None
    wait_ns: int | None = None
    faults: int | None = None
    cpu_ns: int | None = None


_Key = tuple[int, int, str]  # pid or tid, when it began, which of the two


class ProcTracer(Tracer):
    """Reads /proc."""

    name: ClassVar[str] = "proc"

    def __init__(self, target: Target, options: Options, proc_root: Path = PROC) -> None:
        super().__init__(target, options)
        self._root = proc_root
        self._tree = Tree(target.pids, None, proc_root)
        self._before: dict[_Key, _Figures] = {}
        self._now: dict[_Key, _Figures] = {}
        self._alive: set[_Key] = set()
        self._ended_count = 0
        self._tasks_count = 0
        self._started_s = 0.0

    def start(self) -> None:
        """Take the first look."""
        if self.target.command:
            self.launched = Launched.suspended(self.target.command, self.target.output)
            self._tree = Tree([self.launched.pid], self.launched, self._root)
        elif not self._tree.living():
            raise TracerUnavailable(self.name, f"no process {', '.join(map(str, self.target.pids))}")
        self._look()
        self._before = dict(self._now)
        self._started_s = time.monotonic()
        if self.launched is not None:
            self.launched.release()

    def _look(self) -> None:
        seen: dict[_Key, _Figures] = {}
        self._tasks_count = 0
        for pid in self._tree.living():
            seen.update(_read_process(pid, self._root))
            self._tasks_count += len(processes.threads_of(pid, self._root))
        self._ended_count += len([key for key in self._alive - seen.keys() if key[2] == "thread"])
        self._alive = set(seen)
        self._now.update(seen)

    def snapshot(self) -> Trace | None:
        """Look again, and take the difference to the first look."""
        self._look()
        return self._trace()

    def is_over(self) -> bool:
        """Whether no process of the tree lives."""
        return self._tree.is_over()

    def stop(self) -> Trace:
        """The last look."""
        self._look()
        return self._trace()

    def close(self) -> None:
        """Nothing was opened."""

    def _trace(self) -> Trace:
        changes = {
            key: _difference(figures, self._before.get(key))
            for key, figures in self._now.items()
            if key in self._alive or figures is not self._before.get(key)  # of what ended unseen nothing is known
        }
        wait_ns = _total(changes.values(), "wait_ns")
        if self.launched is None or not self.launched.usage:
            return self._summed(changes.values(), wait_ns)
        # What the kernel charges the command leaves out descendants that it never waited for; what was seen leaves out
        # what came after the last look. Neither is more than there was, so that the larger is the better.
        alive = [change for key, change in changes.items() if key in self._alive]
        charged = _sum([*alive, *map(_figures_of, self.launched.usage)])
        return self._summed([_larger(_sum(changes.values()), charged)], wait_ns)

    def _summed(self, changes: Collection[_Figures], wait_ns: int | None) -> Trace:
        cpu_ns = _total(changes, "cpu_ns")
        return Trace(
            backend=self.name,
            elapsed_s=time.monotonic() - self._started_s,
            voluntary_switches_count=_total(changes, "voluntary"),
            involuntary_switches_count=_total(changes, "involuntary"),
            runqueue_wait_s=None if wait_ns is None else wait_ns / 1e9,
            page_faults_count=_total(changes, "faults"),
            cpu_s=None if cpu_ns is None else cpu_ns / 1e9,
            tasks_count=self._tasks_count,
            notes=self._notes(),
        )

    def _notes(self) -> tuple[str, ...]:
        """What the figures leave out: of a command that has ended only what the kernel did not charge it with."""
        if not self._ended_count:
            return ()
        many = f"{self._ended_count} ended task{'s' * (self._ended_count > 1)}"
        if self.launched is not None and self.launched.exit_code is not None and not self._tasks_count:
            return (f"{many}: waits for a CPU, and all of what no parent waited for, counted up to the last look",)
        return (f"{many}: counted up to the last look",)


def _difference(now: _Figures, before: _Figures | None) -> _Figures:
    if before is None:
        return now
    return _Figures(*(None if new is None or old is None else new - old for new, old in zip(now, before, strict=True)))


def _figures_of(usage: struct_rusage) -> _Figures:
    """What the kernel says of a command that has ended, with all its descendants that were waited for."""
    cpu_ns = round((usage.ru_utime + usage.ru_stime) * 1e9)
    return _Figures(usage.ru_nvcsw, usage.ru_nivcsw, None, usage.ru_minflt + usage.ru_majflt, cpu_ns)


def _sum(changes: Collection[_Figures]) -> _Figures:
    return _Figures(*(_total(changes, name) for name in _Figures._fields))


def _larger(one: _Figures, other: _Figures) -> _Figures:
    pairs = ([part for part in pair if part is not None] for pair in zip(one, other, strict=True))
    return _Figures(*(max(known, default=None) for known in pairs))


def _total(changes: Iterable[_Figures], name: str) -> int | None:
    return add_known([getattr(change, name) for change in changes])


def _read_process(pid: int, proc_root: Path) -> dict[_Key, _Figures]:
    """The process's own figures and those of its threads; nothing when it has ended meanwhile."""
    try:
        fields = processes.stat_fields(pid, proc_root)
        faults, ticks = int(fields[_MINOR]) + int(fields[_MAJOR]), int(fields[_USER]) + int(fields[_SYSTEM])
        start = int(fields[_START])
    except (OSError, IndexError, ValueError):
        return {}
    found = {(pid, start, "process"): _Figures(faults=faults, cpu_ns=_cpu_ns(pid, ticks, proc_root))}
    for tid in processes.threads_of(pid, proc_root):
        folder = os.fsencode(proc_root / str(pid) / "task" / str(tid))
        try:
            status = read_raw(folder + b"/status")
        except OSError:
            continue
        voluntary, involuntary = (
            raw_field(status, b"\n" + kind + b"voluntary_ctxt_switches:") for kind in (b"", b"non")
        )
        found[tid, start, "thread"] = _Figures(voluntary, involuntary, _wait_ns(folder))
    return found


def _cpu_ns(pid: int, ticks: int, proc_root: Path) -> int:
    """CPU time of a process with its ended threads: by its own clock, else by ticks."""
    if proc_root == PROC:
        with contextlib.suppress(OSError):
            return time.clock_gettime_ns(~pid << 3 | _CPUCLOCK_SCHED)
    return ticks * _TICK_NS


def _wait_ns(folder: bytes) -> int | None:
    """Time that a thread was ready and had no CPU; None when the kernel does not keep it.

    A kernel without CONFIG_SCHED_INFO has no such file, or one of zeros: a thread that ran has at least one turn.
    """
    try:
        _, waited_ns, turns_count = map(int, read_raw(folder + b"/schedstat", 128).split())
    except (OSError, ValueError):
        return None
    return waited_ns if turns_count else None
