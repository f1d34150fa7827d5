"""The strace backend: exact counts and errors of every call, by stopping every task at every call (ptrace(2)).

Needs no root for one's own processes. Slows calls down by an order of magnitude or two, so that times are not shown:
they would be strace's own. Tells at the end only. Sees no switches, faults or waits.
Source: strace(1), -c.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import ClassVar, Final

from c10k_probe.observe import processes
from c10k_probe.observe.procfs import read_status
from c10k_probe.tracing.result import Call, Trace, add_known
from c10k_probe.tracing.tool import ToolTracer

_NOTE: Final = "strace stops every task at every call: rates and times under it are not those without it"
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
        """Another user's process, or a machine where only a parent may trace."""
        restricted = os.geteuid() != 0
        return "sudo c10k-probe ..., or sysctl kernel.yama.ptrace_scope=0" if restricted else ""

    def snapshot(self) -> Trace | None:
        """Nothing before the end."""
        return None

    def stop(self) -> Trace:
        """What strace summed up."""
        elapsed_s = time.monotonic() - self.started_s
        calls = parse_summary(self.end_tool())
        self.close()
        return Trace(
            backend=self.name,
            elapsed_s=elapsed_s,
            calls=calls,
            calls_count=sum(call.count for call in calls.values()),
            call_errors_count=sum(call.errors_count or 0 for call in calls.values()),
            accepts_count=accepted(calls),
            notes=(_NOTE,),
        )


def parse_summary(text: str) -> dict[str, Call]:
    """The table of ``strace -c``; lines of another shape are headers and rules."""
    calls = {}
    for line in text.splitlines():
        words = line.split()
        numbers = words[3:-1]
        if len(words) >= _COLUMNS_COUNT and words[-1] != "total" and all(map(str.isdigit, numbers)):
            errors_count = int(numbers[1]) if len(numbers) > 1 else 0
            calls[words[-1]] = Call(words[-1], int(numbers[0]), errors_count)
    return calls


def accepted(calls: dict[str, Call]) -> int | None:
    """Connections accepted: calls that did not fail; 0 when none was made."""
    made = [calls[name] for name in ("accept", "accept4") if name in calls]
    return add_known([call.count - (call.errors_count or 0) for call in made]) or 0
