"""wrk: requests over kept-alive HTTP connections in a closed loop, one thread on a CPU of its own.

It counts whole seconds only, and tells everything at its end. A closed loop sends the next request when the answer has
come: its latencies are those at the rate that the server reached, not at one that was asked for.
Source: wrk's README and src/wrk.c.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from c10k_probe import native, parts

_PR_SET_PDEATHSIG: Final = 1
_GRACE_S: Final = 10.0
_UNITS_NS: Final = {"us": 1e3, "ms": 1e6, "s": 1e9, "m": 60e9, "h": 3600e9}
_QUANTILE: Final = re.compile(r"^\s+(\d+)%\s+([0-9.]+)(us|ms|s|m|h)\s*$", re.MULTILINE)
_TOTAL: Final = re.compile(r"^\s+(\d+) requests in ", re.MULTILINE)
_RATE: Final = re.compile(r"^Requests/sec:\s+([0-9.]+)", re.MULTILINE)
_SOCKET_ERRORS: Final = re.compile(r"^\s+Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", re.M)
_WRONG_ANSWERS: Final = re.compile(r"^\s+Non-2xx or 3xx responses: (\d+)", re.MULTILINE)
_SAMPLES_BEYOND: Final = 5  # what a quantile needs


@dataclass(frozen=True)
class ClosedLoop:
    """What a run of a load generator came to. A quantile that too few requests support is None.

    failed_count: connections refused or broken, time-outs, answers that were not 2xx or 3xx.
    requests_per_s: over the time that the generator took, by its own clock.
    cpu_s: user and system time of the generator; elapsed_s: from its start to its end, by our clock.
    """

    requests_count: int
    failed_count: int
    requests_per_s: float
    latency_p50_ns: float | None
    latency_p90_ns: float | None
    latency_p99_ns: float | None
    cpu_s: float = 0.0
    elapsed_s: float = 0.0


def find_wrk() -> str:
    """The program. Raises ``native.HelperUnsupported``, which names the command that installs it."""
    part = parts.find_part("wrk")
    if part.path is None:
        raise native.HelperUnsupported(f"wrk is not installed; {part.command}")
    return part.path


class Wrk:
    """One run of wrk, begun. Raises ``native.HelperError``; a context manager that leaves no process behind."""

    def __init__(self, url: str, connections_count: int, duration_s: int) -> None:
        """Start it on the CPU for clients."""
        command = [find_wrk(), "-t1", f"-c{connections_count}", f"-d{duration_s}s", "--latency", url]
        _, cpus = native.split_cpus()
        prctl = ctypes.CDLL(None).prctl

        def prepare() -> None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            os.sched_setaffinity(0, cpus)

        self._duration_s = duration_s
        self._report = tempfile.TemporaryFile()  # noqa: SIM115 -- closed by kill
        self._started_s = time.monotonic()
        self._cpu_s = self._elapsed_s = 0.0
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._report,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=prepare,  # noqa: PLW1509 -- two system calls, from a process that has one thread
            )
        except OSError as error:
            self._report.close()
            raise native.HelperError(f"wrk cannot be started: {error.strerror}") from None
        self._ended = os.pidfd_open(self._process.pid)

    def wait(self, timeout_s: float) -> bool:
        """Whether it has ended, after waiting this long at most."""
        if self._process.returncode is None and select.select([self._ended], [], [], max(0.0, timeout_s))[0]:
            self._elapsed_s = time.monotonic() - self._started_s
            _, status, usage = os.wait4(self._process.pid, 0)
            self._process.returncode = os.waitstatus_to_exitcode(status)
            self._cpu_s = usage.ru_utime + usage.ru_stime
        return self._process.returncode is not None

    def finish(self) -> ClosedLoop:
        """What it came to; waits for its end. Raises ``native.HelperError``."""
        patience_s = self._started_s + self._duration_s + _GRACE_S - time.monotonic()
        if not self.wait(patience_s):
            raise native.HelperError(f"wrk did not end within {self._duration_s + _GRACE_S:g} s")
        self._report.seek(0)
        text = self._report.read().decode(errors="replace")
        if self._process.returncode:
            last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
            raise native.HelperError(f"wrk failed (exit code {self._process.returncode}): {last}".removesuffix(": "))
        return read_report(text, self._cpu_s, self._elapsed_s)

    def kill(self) -> None:
        """End it at once; may be called twice."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)
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


def read_report(text: str, cpu_s: float = 0.0, elapsed_s: float = 0.0) -> ClosedLoop:
    """What wrk printed. Raises ``native.HelperError`` when it is not a report with ``--latency``."""
    total, rate = _TOTAL.search(text), _RATE.search(text)
    if total is None or rate is None:
        raise native.HelperError("wrk printed no report")
    failures = [match.groups() for match in (_SOCKET_ERRORS.search(text), _WRONG_ANSWERS.search(text)) if match]
    requests_count = int(total[1])
    quantiles = {int(share): float(value) * _UNITS_NS[unit] for share, value, unit in _QUANTILE.findall(text)}
    known = {
        share: value for share, value in quantiles.items() if requests_count * (100 - share) >= _SAMPLES_BEYOND * 100
    }
    return ClosedLoop(
        requests_count=requests_count,
        failed_count=sum(int(number) for group in failures for number in group),
        requests_per_s=float(rate[1]),
        latency_p50_ns=known.get(50),
        latency_p90_ns=known.get(90),
        latency_p99_ns=known.get(99),
        cpu_s=cpu_s,
        elapsed_s=elapsed_s,
    )
