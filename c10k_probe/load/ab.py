"""ApacheBench: requests from one thread, each on a connection of its own unless kept alive, in a closed loop.

It speaks HTTP/1.0, so that each answer of a server that keeps no connection costs a connection. Its counters of what
fails count events, and a request may be in several: one that is reset is a broken receive, an answer of another length
and an exception, since a reset socket is at once readable, hung up and in error. How many requests failed is therefore
reckoned here; see ``AbReport.lost_count``. The length that answers are held against is that of the first one, also when
that one was broken: then the whole ones are counted as failed. Answers that are no success it counts as complete. Its
"time per request" is no latency and is not read. What breaks on receiving is counted and does not end it (-r).

A quantile is taken from its table in microseconds (-e), which has no longest request: that is of its report, in
milliseconds. Sources: ab(1), support/ab.c of httpd 2.4; tcp_poll in net/ipv4/tcp.c.
"""

from __future__ import annotations

import dataclasses
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
_LENGTH: Final = re.compile(r"^Document Length:\s+(\d+) bytes", re.MULTILINE)
_BODIES: Final = re.compile(r"^HTML transferred:\s+(\d+) bytes", re.MULTILINE)
_QUANTILE: Final = re.compile(r"^(\d+),([0-9.]+)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class AbReport:
    """What a run of ab came to. A quantile that too few requests support is None.

    complete_count: requests that came to an end, failed ones included. told_failed_count: as ab says, the sum of its
    four counters of events; no number of requests. wrong_answers_count: of the complete ones, neither 2xx nor 3xx.
    first_length_bytes: body of the first answer, which the others are held against. bodies_bytes: all that came of
    bodies. body_bytes: of the right answer, as the caller knows it; None where it does not.
    taken_s: the test by ab's clock. requests_per_s: complete ones, by that.
    cpu_s: user and system time of ab; elapsed_s: from its start to its end, by our clock.
    """

    complete_count: int
    told_failed_count: int
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
    first_length_bytes: int | None = None
    bodies_bytes: int | None = None
    body_bytes: int | None = None

    @property
    def lost_count(self) -> int:
        """Requests that failed, each once: refused connections, and complete ones without a whole and right answer.

        The least number that all of what ab counted can be explained by. An error page mostly has another length than
        the page, or the page than an error page that came first: what is wrong in both ways is counted once.
        """
        cut_off_count = self.failed_receive_count + self.write_errors_count  # one request is not both
        length_count = self.failed_length_count if self._is_length_right else 0
        broken_count = max(cut_off_count, length_count, self.failed_exceptions_count, self._bodiless_count)
        twice_count = min(max(0, length_count - cut_off_count), self.wrong_answers_count)
        lost_count = broken_count + self.wrong_answers_count - twice_count
        return self.failed_connect_count + min(self.complete_count, lost_count)

    @property
    def _is_length_right(self) -> bool:
        """Whether answers were held against the right length; nothing has length 0 but what broke before its body."""
        if self.body_bytes is not None and self.first_length_bytes is not None:
            return self.first_length_bytes == self.body_bytes
        return bool(self.first_length_bytes) or not self.bodies_bytes

    @property
    def _bodiless_count(self) -> int:
        """Complete requests for which no body is left, when what came of bodies is dealt out to the others."""
        is_same = self.first_length_bytes in (0, self.body_bytes)  # else it is a page that changes
        if not self.body_bytes or not is_same or self.bodies_bytes is None or self.wrong_answers_count:
            return 0
        return max(0, self.complete_count - self.bodies_bytes // self.body_bytes)

    @property
    def answered_count(self) -> int:
        """Complete requests that were answered as they should."""
        return max(0, self.complete_count - (self.lost_count - self.failed_connect_count))


class Ab(Generator):
    """One run of ab, begun. Raises ``native.HelperError``; a context manager that leaves no process behind."""

    def __init__(
        self,
        url: str,
        requests_count: int,
        connections_count: int,
        *,
        keep_alive: bool = False,
        body_bytes: int | None = None,
    ) -> None:
        """Start it on the CPU for clients. body_bytes: of a right answer, where that is known."""
        self._body_bytes = body_bytes
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
        report = read_report(text, table, self.cpu_s, self.elapsed_s)
        return dataclasses.replace(report, body_bytes=self._body_bytes)

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
        told_failed_count=_number(_FAILED, text),
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
        first_length_bytes=_number_or_none(_LENGTH, text),
        bodies_bytes=_number_or_none(_BODIES, text),
    )


def _number(pattern: re.Pattern[str], text: str) -> int:
    """ab leaves out a line whose count is 0."""
    return _number_or_none(pattern, text) or 0


def _number_or_none(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    return int(found[1]) if found else None
