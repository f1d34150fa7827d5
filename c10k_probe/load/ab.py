"""ApacheBench: requests from one thread, each on a connection of its own unless kept alive, in a closed loop.

It speaks HTTP/1.0, so that each answer of a server that keeps no connection costs a connection. Told apart are what it
counts as failed: refused connections, broken answers, answers of another length than the first (a page that changes is
all failures), and exceptions. Answers that are no success it counts as complete. Its "time per request" is no latency
and is not read. What breaks on receiving is counted and does not end it (-r).

A quantile is taken from its table in microseconds (-e), which has no longest request: that is of its report, in
milliseconds. Sources: ab(1), support/ab.c of httpd 2.4.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final

from c10k_probe import native
from c10k_probe.load.generator import Generator

MAX_CONNECTIONS: Final = 20_000  # MAX_CONCURRENCY in ab.c
_SILENCE_S: Final = 30  # without an answer it gives up
_TABLE_BYTES: Final = 1 << 16
_SAMPLES_BEYOND: Final = 5  # what a quantile needs
_NS_PER_MS: Final = 1e6
_COMPLETE: Final = re.compile(r"^Complete requests:\s+(\d+)", re.MULTILINE)
_FAILED: Final = re.compile(r"^Failed requests:\s+(\d+)", re.MULTILINE)
_KINDS: Final = re.compile(r"\(Connect: (\d+), Receive: (\d+), Length: (\d+), Exceptions: (\d+)\)")
_WRITE_ERRORS: Final = re.compile(r"^Write errors:\s+(\d+)", re.MULTILINE)
_WRONG_ANSWERS: Final = re.compile(r"^Non-2xx responses:\s+(\d+)", re.MULTILINE)
_KEPT: Final = re.compile(r"^Keep-Alive requests:\s+(\d+)", re.MULTILINE)
_TAKEN: Final = re.compile(r"^Time taken for tests:\s+([0-9.]+) seconds", re.MULTILINE)
_RATE: Final = re.compile(r"^Requests per second:\s+([0-9.]+)", re.MULTILINE)
_LONGEST: Final = re.compile(r"^\s*100%\s+(\d+) \(longest request\)", re.MULTILINE)
_QUANTILE: Final = re.compile(r"^(\d+),([0-9.]+)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class AbReport:
    """What a run of ab came to. A quantile that too few requests support is None.

    complete_count: requests that came to an end, failed ones included. failed_count: as ab counts it, the sum of the
    four kinds. wrong_answers_count: of the complete ones, neither 2xx nor 3xx; one of another length is failed, too.
    taken_s: the test by ab's clock. requests_per_s: complete ones, by that.
    cpu_s: user and system time of ab; elapsed_s: from its start to its end, by our clock.
    """

    complete_count: int
    failed_count: int
    failed_connect_count: int
    failed_receive_count: int
    failed_length_count: int
    failed_exceptions_count: int
    write_errors_count: int
    wrong_answers_count: int
    kept_alive_count: int
    taken_s: float
    requests_per_s: float
    latency_p50_ns: float | None
    latency_p99_ns: float | None
    latency_longest_ns: float | None
    cpu_s: float = 0.0
    elapsed_s: float = 0.0

    @property
    def lost_count(self) -> int:
        """Failures and wrong answers; the most, as ab counts what breaks on receiving by its length, too.

        An error page mostly has another length than the page, or the page than an error page that came first: what is
        wrong in both ways is counted once.
        """
        twice_count = min(self.failed_length_count, self.wrong_answers_count)
        return self.failed_count + self.wrong_answers_count - twice_count

    @property
    def answered_count(self) -> int:
        """Requests that were answered as they should; the least."""
        return max(0, self.complete_count - self.lost_count)


class Ab(Generator):
    """One run of ab, begun. Raises ``native.HelperError``; a context manager that leaves no process behind."""

    def __init__(self, url: str, requests_count: int, connections_count: int, *, keep_alive: bool = False) -> None:
        """Start it on the CPU for clients."""
        self._table = os.memfd_create("ab-quantiles")  # no file that could be left
        kept = ("-k",) if keep_alive else ()
        counts = ("-n", str(requests_count), "-c", str(connections_count), "-s", str(_SILENCE_S))
        where = ("-e", f"/proc/self/fd/{self._table}", url)
        try:
            super().__init__("ab", ("-q", "-r", *counts, *kept, *where), (self._table,))
        except BaseException:
            os.close(self._table)
            self._table = -1
            raise

    def finish(self, patience_s: float) -> AbReport:
        """What it came to; waits so long for its end, from its start. Raises ``native.HelperError``."""
        text = self.text(patience_s)
        table = os.pread(self._table, _TABLE_BYTES, 0).decode(errors="replace")
        return read_report(text, table, self.cpu_s, self.elapsed_s)

    def kill(self) -> None:
        """See ``Generator``."""
        super().kill()
        if self._table >= 0:
            os.close(self._table)
            self._table = -1


def read_report(text: str, table: str, cpu_s: float = 0.0, elapsed_s: float = 0.0) -> AbReport:
    """What ab printed, and its table of quantiles. Raises ``native.HelperError`` when it is not a report."""
    complete, taken, rate = _COMPLETE.search(text), _TAKEN.search(text), _RATE.search(text)
    if complete is None or taken is None or rate is None:
        raise native.HelperError("ab printed no report")
    kinds = _KINDS.search(text)
    connect, receive, length, exceptions = map(int, kinds.groups()) if kinds else (0, 0, 0, 0)
    count, longest = int(complete[1]), _LONGEST.search(text)
    quantiles = {int(share): float(value) * _NS_PER_MS for share, value in _QUANTILE.findall(table)}
    known = {share: ns for share, ns in quantiles.items() if count * (100 - share) >= _SAMPLES_BEYOND * 100}
    return AbReport(
        complete_count=count,
        failed_count=_number(_FAILED, text),
        failed_connect_count=connect,
        failed_receive_count=receive,
        failed_length_count=length,
        failed_exceptions_count=exceptions,
        write_errors_count=_number(_WRITE_ERRORS, text),
        wrong_answers_count=_number(_WRONG_ANSWERS, text),
        kept_alive_count=_number(_KEPT, text),
        taken_s=float(taken[1]),
        requests_per_s=float(rate[1]),
        latency_p50_ns=known.get(50),
        latency_p99_ns=known.get(99),
        latency_longest_ns=int(longest[1]) * _NS_PER_MS if longest and quantiles else None,
        cpu_s=cpu_s,
        elapsed_s=elapsed_s,
    )


def _number(pattern: re.Pattern[str], text: str) -> int:
    """ab leaves out a line whose count is 0."""
    found = pattern.search(text)
    return int(found[1]) if found else 0
