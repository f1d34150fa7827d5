"""What wrk prints, read: whole reports, units, failures, and what is no report."""

from __future__ import annotations

import pytest

from c10k_probe.load.wrk import read_report
from c10k_probe.native import HelperError

HEAD = """\
Running 1s test @ http://127.0.0.1:18099/file
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   663.07us  121.46us   3.02ms   90.96%
    Req/Sec    96.03k     3.11k   98.86k    80.00%
"""
USUAL = (
    HEAD
    + """\
  Latency Distribution
     50%  632.00us
     75%    1.08ms
     90%    1.50s
     99%    1.10m
  45788 requests in 1.01s, 6.55MB read
Requests/sec:  45115.24
Transfer/sec:      6.45MB
"""
)
TROUBLED = USUAL.replace(
    "6.55MB read\n",
    "6.55MB read\n  Socket errors: connect 1, read 20, write 300, timeout 4000\n  Non-2xx or 3xx responses: 50000\n",
)


def few(count: int) -> str:
    return USUAL.replace("45788", str(count))


def test_a_usual_report() -> None:
    told = read_report(USUAL, cpu_s=0.5, elapsed_s=1.25)
    assert (told.requests_count, told.failed_count, told.requests_per_s) == (45788, 0, 45115.24)
    assert (told.latency_p50_ns, told.latency_p90_ns, told.latency_p99_ns) == (632_000, 1.5e9, pytest.approx(66e9))
    assert (told.cpu_s, told.elapsed_s) == (0.5, 1.25)


def test_errors_of_every_kind_are_failures() -> None:
    assert read_report(TROUBLED).failed_count == 54321


def test_its_rate_counts_wrong_answers_and_ours_does_not() -> None:
    """With 4,578 of 45,788 answers an error, nine in ten were right."""
    told = read_report(TROUBLED.replace("responses: 50000", "responses: 4578"))
    assert (told.requests_count, told.wrong_answers_count, told.answered_count) == (45788, 4578, 41210)
    assert told.answers_per_s == pytest.approx(45115.24 * 41210 / 45788)
    assert told.requests_per_s == 45115.24
    assert read_report(USUAL).answers_per_s == 45115.24
    assert read_report(few(0)).answers_per_s == 0.0


@pytest.mark.parametrize(
    ("count", "known"),
    [(0, (False, False, False)), (9, (False, False, False)), (10, (True, False, False)), (49, (True, False, False))],
)
def test_a_quantile_needs_requests_beyond_it(count: int, known: tuple[bool, ...]) -> None:
    told = read_report(few(count))
    found = (told.latency_p50_ns, told.latency_p90_ns, told.latency_p99_ns)
    assert tuple(value is not None for value in found) == known


def test_the_tail_needs_five_hundred() -> None:
    assert read_report(few(499)).latency_p99_ns is None
    assert read_report(few(500)).latency_p99_ns is not None


@pytest.mark.parametrize("text", ["", HEAD, "unable to connect to 127.0.0.1:1 Connection refused\n"])
def test_what_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(HelperError, match="no report"):
        read_report(text)
