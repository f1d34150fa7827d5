"""The strace backend: exact counts and errors of every call that returns, by stopping every task at it (ptrace(2)).

Needs no root for one's own processes. Slows calls down by an order of magnitude or two, so that times are not shown:
they would be strace's own. Tells at the end only. Sees no switches, faults or waits, and no call that has not returned
at its end or never does (exit_group).
Sources: strace(1), -c; Documentation/admin-guide/LSM/Yama.rst.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

from c10k_probe.native import HelperError
from c10k_probe.observe import processes
from c10k_probe.observe.procfs import read_int, read_status
from c10k_probe.tracing import syscalls
from c10k_probe.tracing.lift import lift_by_root
from c10k_probe.tracing.result import Call, Trace, add_known
from c10k_probe.tracing.tool import ToolTracer

_NOTES: Final = (
    "strace stops every task at every call: rates and times under it are not those without it",
    "strace counts calls when they return: exit_group and calls in progress are not among them",
)
PTRACE_SCOPE: Final = Path("/proc/sys/kernel/yama/ptrace_scope")
_RESTRICTED: Final = 1  # 2: root alone; 3: nobody, and no way back (Yama.rst)
_COMPAT_TABLE: Final = "summary for 32 bit mode"
_COLUMNS_COUNT: Final = 5  # % time, seconds, usecs/call, calls, [errors,] syscall


class StraceTracer(ToolTracer):
    """Counts by ptrace."""

    name: ClassVar[str] = "strace"
    package = "strace"
    starts_commands: ClassVar[bool] = True  # a machine may allow only a parent to trace (Yama)

    def command_line(self) -> Sequence[str]:
        """A summary of all calls of all tasks, into memory."""
        return ["strace", "-f", "-c", "-qq", "-o", f"/proc/self/fd/{self.report}"]

    def is_attached(self) -> bool:
        """Whether every thread has a tracer."""
        tids = list(processes.walk_threads(self.traced))
        return bool(tids) and all(read_status(pid=tid).get("TracerPid", "0") != "0" for tid in tids)

    def lift(self) -> str:
        """Root for another user's process; for an own one the setting by which only a parent may trace, if it is on."""
        by_root = lift_by_root()
        is_own = self.target.pids and all(_owner_of(pid) == os.geteuid() for pid in self.target.pids)
        if by_root and is_own and read_int(PTRACE_SCOPE) == _RESTRICTED:
            return f"{by_root}, or sudo sysctl kernel.yama.ptrace_scope=0"
        return by_root

    def snapshot(self) -> Trace | None:
        """Nothing before the end."""
        return None

    def stop(self) -> Trace:
        """What strace summed up."""
        elapsed_s = time.monotonic() - self.started_s
        report = self.end_tool()
        calls = parse_summary(report)
        if not report.strip() and self.starts_commands and self.target.command:
            raise HelperError("strace has counted nothing, not even the start of the command")
        self.close()
        return Trace(
            backend=self.name,
            elapsed_s=elapsed_s,
            calls=calls,
            calls_count=sum(call.count for call in calls.values()),
            call_errors_count=sum(call.errors_count or 0 for call in calls.values()),
            accepts_count=accepted(calls),
            notes=_NOTES,
        )


def parse_summary(text: str) -> dict[str, Call]:
    """The tables of ``strace -c``; lines of another shape are headers and rules.

    That of 32-bit programs is one of its own: its calls have other numbers, and are one sum here.
    """
    calls: dict[str, Call] = {}
    is_compat = False
    for line in text.splitlines():
        words = line.split()
        numbers = words[3:-1]
        is_compat = is_compat or _COMPAT_TABLE in line
        if len(words) >= _COLUMNS_COUNT and words[-1] != "total" and all(map(str.isdigit, numbers)):
            name = syscalls.COMPAT if is_compat else words[-1]
            before = calls.get(name, Call(name, 0, 0))
            errors_count = int(numbers[1]) if len(numbers) > 1 else 0
            calls[name] = Call(name, before.count + int(numbers[0]), (before.errors_count or 0) + errors_count)
    return calls


def _owner_of(pid: int) -> int | None:
    """Its effective user; None when it has ended."""
    words = read_status(pid=pid).get("Uid", "").split()
    return int(words[1]) if len(words) > 1 else None


def accepted(calls: dict[str, Call]) -> int | None:
    """Connections accepted: calls that did not fail; 0 when none was made."""
    made = [calls[name] for name in ("accept", "accept4") if name in calls]
    return add_known([call.count - (call.errors_count or 0) for call in made]) or 0
