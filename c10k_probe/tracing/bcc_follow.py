"""Which running tasks the eBPF counter follows when it starts; those that they create later follow by themselves."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Protocol

from c10k_probe.observe import processes
from c10k_probe.observe.procfs import PROC

_SWEEPS_MAX: Final = 50
_ENDING_S: Final = 1.0  # longer than a task takes from the tracepoint of its end to being seen as ended


class Followed(Protocol):
    """What can follow tasks: ``bcc_programs.Programs``."""

    def follow(self, tid: int, *, active: bool) -> None:
        """Follow a task."""

    def forget(self, tid: int) -> None:
        """Follow it no more."""

    def add_ports(self, numbers: Iterable[int]) -> None:
        """Local ports whose connections count."""


class Follower:
    """Follows the tasks of running trees, and none that has ended: its end would never be seen."""

    def __init__(self, programs: Followed, proc_root: Path = PROC) -> None:
        self._programs, self._root = programs, proc_root
        self._seen: set[tuple[int, int]] = set()  # (process, thread)
        self._check_at_s: float | None = None

    def follow_trees(self, roots: list[int]) -> None:
        """Follow every task of these trees; again until a sweep finds no new one, since they go on creating tasks."""
        for _ in range(_SWEEPS_MAX):
            pids = processes.with_descendants(roots, (os.getpid(), os.getppid()), self._root)
            tasks = ((pid, tid) for pid in pids for tid in processes.threads_of(pid, self._root))
            fresh = {task for task in tasks if task not in self._seen and processes.is_running(*task, self._root)}
            if not fresh:
                break
            for _, tid in fresh:
                self._programs.follow(tid, active=True)
            self._seen |= fresh
            self._programs.add_ports(processes.listening_ports(pids, self._root))
        self._check_at_s = time.monotonic() + _ENDING_S

    def forget_ended(self) -> None:
        """Once, when tasks that were about to end while they were being followed have ended, forget those."""
        if self._check_at_s is None or time.monotonic() < self._check_at_s:
            return
        for task in self._seen:
            if not processes.is_running(*task, self._root):
                self._programs.forget(task[1])
        self._check_at_s = None
