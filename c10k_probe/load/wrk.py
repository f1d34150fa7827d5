"""wrk: requests over kept-alive HTTP connections in a closed loop, one thread on a CPU of its own.

It counts whole seconds only, and tells everything at its end. A closed loop sends the next request when the answer has
come: its latencies are those at the rate that the server reached, not at one that was asked for.
Source: wrk's README, src/wrk.c and src/wrk.lua.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from c10k_probe import native
from c10k_probe.load.generator import Generator, find_generator

_GRACE_S: Final = 10.0
_UNITS_NS: Final = {"us": 1e3, "ms": 1e6, "s": 1e9, "m": 60e9, "h": 3600e9}
_QUANTILE: Final = re.compile(r"^\s+(\d+)%\s+([0-9.]+)(us|ms|s|m|h)\s*$", re.MULTILINE)
_TOTAL: Final = re.compile(r"^\s+(\d+) requests in ", re.MULTILINE)
_RATE: Final = re.compile(r"^Requests/sec:\s+([0-9.]+)", re.MULTILINE)
_SOCKET_ERRORS: Final = re.compile(r"^\s+Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", re.M)
_WRONG_ANSWERS: Final = re.compile(r"^\s+Non-2xx or 3xx responses: (\d+)", re.MULTILINE)
_REQUEST: Final = "GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"
_SAMPLES_BEYOND: Final = 5  # what a quantile needs


@dataclass(frozen=True)
class ClosedLoop:
    """What a run of a load generator came to. A quantile that too few requests support is None.

    requests_count: whole answers, wrong ones included. failed_count: connections refused or broken, time-outs, and
    answers that were not 2xx or 3xx; wrong_answers_count: the last of these.
    requests_per_s: ``requests_count`` over the time that the generator took, by its own clock.
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
    wrong_answers_count: int = 0

    @property
    def answered_count(self) -> int:
        """Whole answers that were right."""
        return self.requests_count - self.wrong_answers_count

    @property
    def answers_per_s(self) -> float:
        """Right answers a second, by the generator's clock."""
        return self.requests_per_s * self.answered_count / self.requests_count if self.requests_count else 0.0


def find_wrk() -> str:
    """The program. Raises ``native.HelperUnsupported``, which names the command that installs it."""
    return find_generator("wrk")


class Wrk(Generator):
    """One run of wrk, begun. Raises ``native.HelperError``; a context manager that leaves no process behind."""

    def __init__(self, url: str, connections_count: int, duration_s: int, *, keep_alive: bool = True) -> None:
        """Start it on the CPU for clients. Without keep_alive each request asks the server to close.

        request_bytes: what it sends for each request on a kept connection, as wrk.lua makes it; else None.
        """
        close = () if keep_alive else ("-H", "Connection: close")
        asked = _REQUEST.format(path=urlsplit(url).path, host=urlsplit(url).netloc)
        self.request_bytes = len(asked) if keep_alive else None
        super().__init__("wrk", ("-t1", f"-c{connections_count}", f"-d{duration_s}s", "--latency", *close, url))
        self._duration_s = duration_s

    def finish(self) -> ClosedLoop:
        """What it came to; waits for its end. Raises ``native.HelperError``."""
        text = self.text(self._duration_s + _GRACE_S)
        return read_report(text, self.cpu_s, self.elapsed_s)


def read_report(text: str, cpu_s: float = 0.0, elapsed_s: float = 0.0) -> ClosedLoop:
    """What wrk printed. Raises ``native.HelperError`` when it is not a report with ``--latency``."""
    total, rate = _TOTAL.search(text), _RATE.search(text)
    if total is None or rate is None:
        raise native.HelperError("wrk printed no report")
    errors, wrong = _SOCKET_ERRORS.search(text), _WRONG_ANSWERS.search(text)
    wrong_count = int(wrong[1]) if wrong else 0
    requests_count = int(total[1])
    quantiles = {int(share): float(value) * _UNITS_NS[unit] for share, value, unit in _QUANTILE.findall(text)}
    known = {
        share: value for share, value in quantiles.items() if requests_count * (100 - share) >= _SAMPLES_BEYOND * 100
    }
    return ClosedLoop(
        requests_count=requests_count,
        failed_count=sum(map(int, errors.groups() if errors else ())) + wrong_count,
        requests_per_s=float(rate[1]),
        latency_p50_ns=known.get(50),
        latency_p90_ns=known.get(90),
        latency_p99_ns=known.get(99),
        cpu_s=cpu_s,
        elapsed_s=elapsed_s,
        wrong_answers_count=wrong_count,
    )
