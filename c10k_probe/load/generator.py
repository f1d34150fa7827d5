"""Load generators of others: a process on the CPU for clients that dies with us, and what it printed and took."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from c10k_probe import native, parts

_PR_SET_PDEATHSIG: Final = 1


def find_generator(name: str) -> str:
    """The program. Raises ``native.HelperUnsupported``, which names the command that installs it."""
    part = parts.find_part(name)
    if part.path is None:
        raise native.HelperUnsupported(f"{name} is not installed; {part.command}")
    return part.path


class Generator:
    """One run of a load generator, begun. A context manager that leaves no process behind.

    cpu_s: its user and system time; elapsed_s: from its start to its end, by our clock; both once it has ended.
    """

    def __init__(self, name: str, arguments: Sequence[str], pass_fds: Sequence[int] = ()) -> None:
        """Start it, with as many descriptors as are allowed. Raises ``native.HelperError``."""
        command = [find_generator(name), *arguments]
        _, cpus = native.split_cpus()
        prctl = ctypes.CDLL(None).prctl
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

        def prepare() -> None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            os.sched_setaffinity(0, cpus)
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

        self._name = name
        self._report = tempfile.TemporaryFile()  # noqa: SIM115 -- closed by kill
        self.started_s = time.monotonic()
        self.cpu_s = self.elapsed_s = 0.0
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._report,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=pass_fds,
                preexec_fn=prepare,  # noqa: PLW1509 -- three system calls, from a process that has one thread
            )
        except OSError as error:
            self._report.close()
            raise native.HelperError(f"{name} cannot be started: {error.strerror}") from None
        self._ended = os.pidfd_open(self._process.pid)
        self._watcher = threading.Thread(target=self._stamp_end, daemon=True)
        self._watcher.start()

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def _stamp_end(self) -> None:
        """Whoever waits may be late, having something to read meanwhile: the end is stamped when it comes."""
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        self.elapsed_s = time.monotonic() - self.started_s

    def wait(self, timeout_s: float) -> bool:
        """Whether it has ended, after waiting this long at most."""
        if self._process.returncode is None and select.select([self._ended], [], [], max(0.0, timeout_s))[0]:
            self._watcher.join()
            _, status, usage = os.wait4(self._process.pid, 0)
            self._process.returncode = os.waitstatus_to_exitcode(status)
            self.cpu_s = usage.ru_utime + usage.ru_stime
        return self._process.returncode is not None

    def text(self, patience_s: float) -> str:
        """What it printed; waits for its end. Raises ``native.HelperError`` without it, or after a failure."""
        if not self.wait(self.started_s + patience_s - time.monotonic()):
            raise native.HelperError(f"{self._name} did not end within {patience_s:g} s")
        self._report.seek(0)
        text = self._report.read().decode(errors="replace")
        if self._process.returncode:
            last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
            why = f"{self._name} failed (exit code {self._process.returncode}): {last}"
            raise native.HelperError(why.removesuffix(": "))
        return text

    def kill(self) -> None:
        """End it at once; may be called twice."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)
            self._watcher.join()
            self._process.wait()
        if self._ended >= 0:
            os.close(self._ended)
            self._ended = -1
        self._report.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
