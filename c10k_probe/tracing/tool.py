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
from c10k_probe.native import HelperError
from c10k_probe.observe import processes
from c10k_probe.tracing.base import READY_PATIENCE_S, Options, Target, Tracer, TracerUnavailable
from c10k_probe.tracing.launch import Launched, check_exec, find_program
from c10k_probe.tracing.lift import lift_by_root
from c10k_probe.tracing.tree import Tree

_POLL_S: Final = 0.005
_GRACE_S: Final = 5.0
_TELLING: Final = ("ermi", "rror:", "No such")


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
        self.tree = Tree(target.pids)
        self._is_stopping = False

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
            self._start_command()
            return
        if self.target.command:
            self.launched = Launched.suspended(self.target.command, self.target.output)
            self.tree = Tree([self.launched.pid], self.launched)
            self.traced = [self.launched.pid]
        else:
            self.traced = self.tree.living()
            if not self.traced:
                raise TracerUnavailable(self.name, f"no process {', '.join(map(str, self.target.pids))}")
        self._tool = Launched.suspended([*self.command_line(), *self.attach_options()], self._errors, apart=True)
        self._tool.release()
        self._wait_until_attached()
        if self.launched is not None:
            self.launched.release()

    @property
    def own_pids(self) -> tuple[int, ...]:
        """The program; strace, too, when it started the command itself."""
        return () if self._tool is None else (self._tool.pid,)

    def _start_command(self) -> None:
        """Let the program start the command; ready when that is there, or has ended already."""
        refused = check_exec(self.target.command)  # which the program would tell in words of its own
        if refused:
            raise TracerUnavailable(self.name, f"ptrace(2) is refused: {refused}", self.lift())
        command = [*self.command_line(), "--", *self.target.command]
        self._tool = self.launched = Launched.suspended(command, self.target.output, is_tracer=True)
        self.started_s = time.monotonic()
        self._tool.release()
        deadline = time.monotonic() + READY_PATIENCE_S
        while not self._tool.has_ended() and not self._has_command():
            if time.monotonic() > deadline:
                raise TracerUnavailable(self.name, f"not ready within {READY_PATIENCE_S:g} s")
            time.sleep(_POLL_S)

    def _has_command(self) -> bool:
        """Whether a child of the program is the command: those by which strace tries ptrace(2) bear its own words."""
        assert self._tool is not None
        children = processes.children_of(self._tool.pid)
        own = processes.command_line(self._tool.pid)
        others = ("", own, self.name)  # gone, such a child, the same as a zombie
        return any(processes.command_line(pid) not in others for pid in children)

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
        return read_complaint(_content(self._errors), self.name)

    def lift(self) -> str:
        """The command that would help against a refusal."""
        return lift_by_root()

    def is_over(self) -> bool:
        """Whether the program has ended, which it does with the last process that it traces.

        Raises ``HelperError`` when it has ended otherwise.
        """
        is_reaped = self._is_reaped()  # each time, or it would stay a zombie
        return is_reaped and (self._tool is None or self.has_tool_ended())

    def has_tool_ended(self) -> bool:
        """Whether the program has ended well. Raises ``HelperError`` when it has failed, with its own reason."""
        assert self._tool is not None
        if not self._tool.has_ended():
            return False
        if self._tool is not self.launched and self._tool.exit_code and not self._is_stopping:
            code = self._tool.exit_code
            how = f"exit code {code}" if code > 0 else f"signal {-code}"
            said = self.complaint()
            raise HelperError(f"{self.name} ended by itself ({how}){f': {said}' if said else ''}")
        return True

    def end_tool(self) -> str:
        """Make the program report; its report."""
        assert self._tool is not None
        self.has_tool_ended()  # or the reason is lost
        self._is_stopping = True
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


def read_complaint(text: str, name: str) -> str:
    """The line in which a program of this name says what is wrong; "" when it says nothing.

    That is the one behind perf's ``Error:``, which may be on a line of its own; else the first that sounds like it.
    """
    marked = text.partition("\nError:")[2] or text.removeprefix("Error:")
    lines = [line.strip().removeprefix(f"{name}:").strip() for line in marked.splitlines() if line.strip()]
    telling = [line for line in lines if any(word in line for word in _TELLING)]
    return ((lines if marked != text else telling) or lines or [""])[0]


def _content(descriptor: int) -> str:
    """All that is in a file, whoever wrote it, without moving its position."""
    pieces, offset = [], 0
    while piece := os.pread(descriptor, 1 << 20, offset):
        pieces.append(piece)
        offset += len(piece)
    return b"".join(pieces).decode(errors="replace")
