"""What ab prints, read: whole reports, failures by kind, quantiles in microseconds, and what is no report."""

from __future__ import annotations

import pytest

from c10k_probe.load.ab import read_report
from c10k_probe.native import HelperError

USUAL = """\
This is ApacheBench, Version 2.3 <$Revision: 1923142 $>

Document Path:          /
Document Length:        11 bytes

Concurrency Level:      1000
Time taken for tests:   8.003 seconds
Complete requests:      100000
Failed requests:        0
Total transferred:      12600000 bytes
HTML transferred:       1100000 bytes
Requests per second:    12495.31 [#/sec] (mean)
Time per request:       80.030 [ms] (mean)

Percentage of the requests served within a certain time (ms)
  50%     59
  99%    118
 100%   3133 (longest request)
"""
TABLE = "Percentage served,Time in ms\n0,1.250\n50,59.012\n99,118.500\n"
TROUBLED = USUAL.replace(
    "Failed requests:        0\n",
    "Failed requests:        60\n   (Connect: 1, Receive: 2, Length: 50, Exceptions: 7)\nWrite errors:           3\n"
    "Non-2xx responses:      40\nKeep-Alive requests:    99000\n",
)


def test_a_usual_report() -> None:
    told = read_report(USUAL, TABLE, cpu_s=2.5, elapsed_s=8.1)
    assert (told.complete_count, told.answered_count, told.failed_count) == (100_000, 100_000, 0)
    assert (told.taken_s, told.requests_per_s) == (8.003, 12495.31)
    assert (told.latency_p50_ns, told.latency_p99_ns) == (pytest.approx(59_012_000), pytest.approx(118_500_000))
    assert told.latency_longest_ns == 3_133_000_000
    assert (told.kept_alive_count, told.wrong_answers_count, told.write_errors_count) == (0, 0, 0)
    assert (told.cpu_s, told.elapsed_s) == (2.5, 8.1)


def test_failures_are_told_apart() -> None:
    told = read_report(TROUBLED, TABLE)
    kinds = (told.failed_connect_count, told.failed_receive_count)
    kinds += (told.failed_length_count, told.failed_exceptions_count)
    assert kinds == (1, 2, 50, 7)
    assert told.failed_count == sum(kinds)
    assert (told.wrong_answers_count, told.write_errors_count, told.kept_alive_count) == (40, 3, 99_000)
    assert told.lost_count == 60  # the 40 are among the 50 of another length
    assert told.answered_count == 100_000 - 60


def test_a_wrong_answer_of_the_same_length_is_lost_as_well() -> None:
    told = read_report(TROUBLED.replace("responses:      40", "responses:      90"), TABLE)
    assert (told.lost_count, told.answered_count) == (100, 100_000 - 100)


def test_a_quantile_needs_requests_beyond_it() -> None:
    few, enough = (
        read_report(USUAL.replace("requests:      100000", f"requests: {count}"), TABLE) for count in (499, 500)
    )
    assert (few.latency_p50_ns is None, few.latency_p99_ns) == (False, None)
    assert enough.latency_p99_ns == pytest.approx(118_500_000)


def test_without_a_table_no_latency_is_known() -> None:
    told = read_report(USUAL, "")
    assert (told.latency_p50_ns, told.latency_p99_ns, told.latency_longest_ns) == (None, None, None)


@pytest.mark.parametrize("text", ["", USUAL[:200], "apr_socket_recv: Connection refused (111)\n"])
def test_what_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(HelperError, match="no report"):
        read_report(text, TABLE)
