"""A command that waits to begin until its tracer is ready, and how it ended."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import time
from collections.abc import Sequence
from resource import struct_rusage
from typing import Final

from c10k_probe.exits import UsageError
from c10k_probe.observe.processes import with_descendants

_GRACE_S: Final = 2.0
_POLL_S: Final = 0.01
_FAILED_EXEC: Final = 127
_PR_SET_PDEATHSIG: Final = 1


def find_program(name: str) -> str:
    """The file that a command's first word means. Raises ``UsageError``."""
    path = shutil.which(name)
    if path is None:
        there = os.path.exists(name)  # noqa: PTH110 -- a name as the user typed it
        why = "is not a program that can be executed" if there else "is no such program"
        raise UsageError(f"the command cannot start: {name} {why}; give its path, or a name in PATH")
    return path


class Launched:
    """A process of ours that runs, or will run, a command. It stays in our process group, as Ctrl-C is for it too."""

    def __init__(self, pid: int, gate: int | None = None) -> None:
        self.pid = pid
        self._gate = gate
        self._status: int | None = None
        self.usage: struct_rusage | None = None  # of the ended command and all descendants that were waited for

    @classmethod
    def suspended(cls, command: Sequence[str], output: int | None = None, *, apart: bool = False) -> Launched:
        """Fork; the child executes the command when ``release`` is called. Raises ``UsageError``.

        output: descriptor for what it would write to a terminal of ours.
        apart: a tool of ours, not the user's command: in a session of its own, which Ctrl-C does not reach,
        interrupted when this process ends, and with output in place of ours, terminal or not.
        """
        path = find_program(command[0])
        outlet, gate = os.pipe()
        pid = os.fork()
        if pid == 0:
            if apart:
                _live_apart()
            for descriptor in (1, 2):
                if output is not None and (apart or os.isatty(descriptor)):
                    os.dup2(output, descriptor)
            _become(path, command, outlet, gate)
        os.close(outlet)
        return cls(pid, gate)

    def release(self) -> None:
        """Let the command begin."""
        if self._gate is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._gate, b"\n")
            self._close_gate()

    def has_ended(self) -> bool:
        """Whether the command's own process has ended; its descendants may live."""
        if self._status is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self._status, self.usage = status, usage
        return self._status is not None

    @property
    def exit_code(self) -> int | None:
        """Its exit code, negative for the signal that ended it; None while it runs."""
        return os.waitstatus_to_exitcode(self._status) if self._status is not None else None

    def end(self, number: int = signal.SIGTERM) -> None:
        """End it if it runs, and what it started: by this signal, and when that does not do, by SIGKILL."""
        self._close_gate()
        for sent in (number, signal.SIGKILL):
            if self.has_ended():
                return
            for pid in with_descendants([self.pid]):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, sent)
            self.wait(_GRACE_S)

    def wait(self, patience_s: float) -> None:
        """Wait for its end, but no longer than this."""
        deadline = time.monotonic() + patience_s
        while not self.has_ended() and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def _close_gate(self) -> None:
        if self._gate is not None:
            os.close(self._gate)
            self._gate = None


def _live_apart() -> None:
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


def _become(path: str, command: Sequence[str], outlet: int, gate: int) -> None:
    """In the child: wait at the gate, then be the command. A gate that closes means that nobody wants it."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.close(gate)
        if os.read(outlet, 1):
            os.execv(path, list(command))
    except OSError as error:
        os.write(2, f"c10k-probe: {command[0]} cannot start: {error.strerror}\n".encode())
    finally:
        os._exit(_FAILED_EXEC)
