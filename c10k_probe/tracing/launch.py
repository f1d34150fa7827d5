"""A command that waits to begin until its tracer is ready, all that it starts, and how it ended.

While it runs this process is the reaper of its orphans (prctl(2), PR_SET_CHILD_SUBREAPER): a descendant whose parent
has ended becomes a child of ours, so that none of the tree is lost from sight, nor left behind.
Sources: prctl(2), execve(2), ptrace(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import signal
import time
from collections.abc import Sequence
from resource import struct_rusage
from typing import Final

from c10k_probe import native
from c10k_probe.exits import UsageError
from c10k_probe.observe import processes
from c10k_probe.observe.procfs import PROC, read_text

_GRACE_S: Final = 2.0
_POLL_S: Final = 0.01
_FAILED_EXEC: Final = 127
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_PTRACE_TRACEME: Final = 0
_NO_PTRACE: Final = b"ptrace "  # before the error number of what was refused
_HINTS: Final = {
    errno.ENOEXEC: "it is no program of this machine; a script needs a first line such as #!/bin/sh",
    errno.ENOENT: "what its first line, or its ELF header, names as interpreter is not there",
}
_started: set[int] = set()  # processes that were started here and are not reaped


def find_program(name: str) -> str:
    """The file that a command's first word means. Raises ``UsageError``."""
    path = shutil.which(name)
    if path is None:
        there = os.path.exists(name)  # noqa: PTH110 -- a name as the user typed it
        why = "is not a program that can be executed" if there else "is no such program"
        raise UsageError(f"the command cannot start: {name} {why}; give its path, or a name in PATH")
    return path


def check_exec(command: Sequence[str]) -> str:
    """Why this process may not use ptrace(2), else "". Raises ``UsageError`` when the command cannot be executed.

    A child asks to be traced and executes the command: the kernel stops it before its first instruction.
    """
    path = find_program(command[0])
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.restype = ctypes.c_long
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if ptrace(_PTRACE_TRACEME, 0, None, None):
                os.write(tell, _NO_PTRACE + str(ctypes.get_errno()).encode())
            else:
                os.execv(path, list(command))
        except OSError as error:
            os.write(tell, str(error.errno).encode())
        finally:
            os._exit(_FAILED_EXEC)
    os.close(tell)
    with open(told, "rb") as file:  # noqa: PTH123 -- a descriptor
        said = file.read()
    os.kill(pid, signal.SIGKILL)
    while os.WIFSTOPPED(os.waitpid(pid, 0)[1]):
        pass
    if said.startswith(_NO_PTRACE):
        return os.strerror(int(said.removeprefix(_NO_PTRACE)))
    _check_told(command[0], said)
    return ""


def _check_told(name: str, said: bytes) -> None:
    """What a child said before it became the command: nothing, or the error of execve(2). Raises ``UsageError``."""
    if said:
        hint = _HINTS.get(int(said), "give its path, or a name in PATH")
        raise UsageError(f"the command cannot start: {name}: {os.strerror(int(said))}; {hint}")


class Launched:
    """A process of ours that runs, or will run, a command. It stays in our process group, as Ctrl-C is for it too."""

    def __init__(self, pid: int, name: str = "", gate: int | None = None, told: int | None = None) -> None:
        self.pid = pid
        self._name, self._gate, self._told = name, gate, told
        self._status: int | None = None
        self._before: set[int] | None = None  # children of ours that are no orphans of it; None: nobody is adopted
        self.usage: list[struct_rusage] = []  # of each that was reaped, with all descendants that it waited for
        _started.add(pid)

    @classmethod
    def suspended(
        cls, command: Sequence[str], output: int | None = None, *, apart: bool = False, is_tracer: bool = False
    ) -> Launched:
        """Fork; the child executes the command when ``release`` is called. Raises ``UsageError``.

        output: descriptor for what it would write to a terminal of ours.
        apart: a tool of ours, not the user's command: in a session of its own, which Ctrl-C does not reach,
        interrupted when this process ends, with output in place of ours, terminal or not; its orphans are not ours.
        is_tracer: a tool of ours that starts the user's command: killed when this process is, so that the command runs
        on as it does under the others. strace(1) blocks every other signal that would end it.
        """
        path = find_program(command[0])
        outlet, gate = os.pipe()
        told, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            if apart:
                _live_apart()
            elif is_tracer:
                _end_with_parent(signal.SIGKILL)
            for descriptor in (1, 2):
                if output is not None and (apart or os.isatty(descriptor)):
                    os.dup2(output, descriptor)
            _become(path, command, (outlet, tell), (gate, told))
        os.close(outlet)
        os.close(tell)
        launched = cls(pid, command[0], gate, told)
        if not apart:
            launched.adopt(wanted=True)
        return launched

    @classmethod
    def idle(cls) -> Launched:
        """A process that does nothing until it is ended, or this one ends."""
        pid = os.fork()
        if pid == 0:
            try:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                _live_apart()
                os.closerange(0, os.sysconf("SC_OPEN_MAX"))
                signal.pause()
            finally:
                os._exit(0)
        return cls(pid)

    def release(self) -> None:
        """Let the command begin. Raises ``UsageError`` when the kernel refuses to execute it."""
        if self._gate is not None and self._told is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._gate, b"\n")
            said = os.read(self._told, 16)  # ends at execve(2), which closes the other end
            self._close_pipes()
            _check_told(self._name, said)

    def adopt(self, *, wanted: bool) -> None:
        """Whether descendants whose parents have ended become children of ours from now on."""
        if wanted:
            self._before = set(processes.children_of(os.getpid())) - {self.pid}
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0)

    def has_ended(self) -> bool:
        """Whether the command's own process has ended; its descendants may live."""
        if self._status is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self._status = status
                self.usage.append(usage)
                _started.discard(pid)
        return self._status is not None

    def adopted(self) -> list[int]:
        """Living descendants whose parents have ended; those that have ended are reaped."""
        if self._before is None:
            return []
        living = []
        for pid in self._orphans(_listed_children()) or self._orphans(set(processes.children_of(os.getpid()))):
            with contextlib.suppress(ChildProcessError):  # reaped by whoever started it
                reaped, _, usage = os.wait4(pid, os.WNOHANG)
                if reaped:
                    self.usage.append(usage)
                else:
                    living.append(pid)
        return living

    def _orphans(self, children: set[int]) -> set[int]:
        """Of children of ours those that nobody here has started."""
        return children - (self._before or set()) - _started - native.running_pids()

    def living(self) -> list[int]:
        """The command's process and all its descendants that live, orphans too."""
        roots = [*([] if self.has_ended() else [self.pid]), *self.adopted()]
        return [pid for pid in processes.with_descendants(roots) if processes.is_alive(pid)] if roots else []

    @property
    def exit_code(self) -> int | None:
        """Its exit code, negative for the signal that ended it; None while it runs."""
        return os.waitstatus_to_exitcode(self._status) if self._status is not None else None

    def end(self, number: int = signal.SIGTERM) -> None:
        """End it if it runs, and what it started: by this signal, and when that does not do, by SIGKILL."""
        self._close_pipes()
        for sent in (number, signal.SIGKILL):
            for pid in self.living():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, sent)
            deadline = time.monotonic() + _GRACE_S
            while living := self.living():
                if time.monotonic() > deadline:
                    break
                time.sleep(_POLL_S)
            if not living:
                break
        self.has_ended()

    def wait(self, patience_s: float) -> None:
        """Wait for its end, but no longer than this."""
        deadline = time.monotonic() + patience_s
        while not self.has_ended() and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def _close_pipes(self) -> None:
        for descriptor in (self._gate, self._told):
            if descriptor is not None:
                os.close(descriptor)
        self._gate = self._told = None


def _listed_children() -> set[int]:
    """Children of this process as the kernel lists them, which may leave out some while others end (proc(5))."""
    folder = PROC / str(os.getpid()) / "task"
    texts = (read_text(folder / str(tid) / "children") for tid in processes.threads_of(os.getpid()))
    return {int(word) for text in texts for word in (text or "").split()}


def _live_apart() -> None:
    os.setsid()
    _end_with_parent(signal.SIGINT)


def _end_with_parent(number: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def _become(path: str, command: Sequence[str], ours: tuple[int, int], others: tuple[int, int]) -> None:
    """In the child: wait at the gate, then be the command. A gate that closes means that nobody wants it."""
    outlet, tell = ours
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        for descriptor in others:
            os.close(descriptor)
        if os.read(outlet, 1):
            os.execv(path, list(command))
    except OSError as error:
        os.write(tell, str(error.errno).encode())
    finally:
        os._exit(_FAILED_EXEC)
