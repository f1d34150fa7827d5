"""What the backends share that leave the counting to a program: perf and strace.

A running tree is attached to. A command is started by the program itself where it must be (``starts_commands``), else
it waits until the program has attached to it. What the program writes goes to memory (memfd_create(2)): it leaves no
file behind, however it ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Final

from c10k_probe.exits import UsageError
from c10k_probe.observe import processes
from c10k_probe.tracing.base import READY_PATIENCE_S, Options, Target, Tracer, TracerUnavailable
from c10k_probe.tracing.launch import Launched, find_program

_POLL_S: Final = 0.005
_GRACE_S: Final = 5.0


class ToolTracer(Tracer):
    """A tracer that is a program of its own."""

    package: str
    starts_commands: ClassVar[bool]

    def __init__(self, target: Target, options: Options) -> None:
        super().__init__(target, options)
        self.report = os.memfd_create(f"{self.name}-report")
        self._errors = os.memfd_create(f"{self.name}-errors")
        self._tool: Launched | None = None
        self.started_s = 0.0
        self.traced: list[int] = []  # the processes that were attached to

    @abstractmethod
    def command_line(self) -> Sequence[str]:
        """The program's command line, up to the command or the processes to trace."""

    @abstractmethod
    def is_attached(self) -> bool:
        """Whether every process of the target is being traced."""

    def start(self) -> None:
        """Start the program, and wait until it counts."""
        self.check()
        os.set_inheritable(self.report, True)
        if self.target.command:
            find_program(self.target.command[0])
        if self.target.command and self.starts_commands:
            command = [*self.command_line(), "--", *self.target.command]
            self._tool = self.launched = Launched.suspended(command, self.target.output)
            self.started_s = time.monotonic()
            self._tool.release()
            return
        if self.target.command:
            self.launched = Launched.suspended(self.target.command, self.target.output)
            self.traced = [self.launched.pid]
        else:
            self.traced = processes.with_descendants(self.target.pids, without=(os.getpid(),))
        self._tool = Launched.suspended([*self.command_line(), *self.attach_options()], self._errors, apart=True)
        self._tool.release()
        self._wait_until_attached()
        if self.launched is not None:
            self.launched.release()

    @property
    def own_pids(self) -> tuple[int, ...]:
        """The program; strace, too, when it started the command itself."""
        return () if self._tool is None else (self._tool.pid,)

    def check(self) -> None:
        """Raises ``TracerUnavailable`` when the program is missing, or cannot work for this user."""
        try:
            find_program(self.name)
        except UsageError:
            sudo = "" if os.geteuid() == 0 else "sudo "
            raise TracerUnavailable(
                self.name, f"{self.name} is not installed", f"{sudo}apt-get install {self.package}"
            ) from None

    def attach_options(self) -> list[str]:
        """``-p PID`` for each process."""
        return [word for pid in self.traced for word in ("-p", str(pid))]

    def _wait_until_attached(self) -> None:
        assert self._tool is not None
        deadline = time.monotonic() + READY_PATIENCE_S
        while not self.is_attached():
            if self._tool.has_ended():
                raise TracerUnavailable(self.name, self.complaint() or "it ended at once", self.lift())
            if time.monotonic() > deadline:
                raise TracerUnavailable(self.name, f"not ready within {READY_PATIENCE_S:g} s")
            time.sleep(_POLL_S)
        self.started_s = time.monotonic()

    def complaint(self) -> str:
        """What the program says is wrong, in one line."""
        lines = [line.strip() for line in _content(self._errors).splitlines() if line.strip()]
        telling = [line for line in lines if "ermi" in line or "rror:" in line or "No such" in line]
        return (telling or lines or [""])[0].removeprefix("Error:").removeprefix(f"{self.name}:").strip()

    def lift(self) -> str:
        """The command that would help against a refusal."""
        return "" if os.geteuid() == 0 else "sudo c10k-probe ..."

    def is_over(self) -> bool:
        """Whether the program has ended, which it does with the last process that it traces."""
        is_reaped = self._is_reaped()  # each time, or it would stay a zombie
        return is_reaped and (self._tool is None or self._tool.has_ended())

    def end_tool(self) -> str:
        """Make the program report; its report."""
        assert self._tool is not None
        if self._tool is self.launched:
            self._end_command()
        else:
            self._tool.end(signal.SIGINT)
        return self.reported()

    def reported(self) -> str:
        """What the program has reported so far."""
        return _content(self.report)

    def _end_command(self) -> None:
        """End the command; the program then reports and ends too."""
        assert self.launched is not None
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.launched.has_ended():
                return
            for pid in processes.with_descendants([self.launched.pid])[1:]:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
            self.launched.wait(_GRACE_S)
        self.launched.end()

    def close(self) -> None:
        """End the program; a command that it started ends with it."""
        if self._tool is not None:
            self._tool.end(signal.SIGTERM if self._tool is self.launched else signal.SIGINT)
            self._tool = None
        for descriptor in (self.report, self._errors):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self.report = self._errors = -1


def _content(descriptor: int) -> str:
    """All that is in a file, whoever wrote it, without moving its position."""
    pieces, offset = [], 0
    while piece := os.pread(descriptor, 1 << 20, offset):
        pieces.append(piece)
        offset += len(piece)
    return b"".join(pieces).decode(errors="replace")
