"""What ab prints, read: whole reports, failures by kind, quantiles in microseconds, and what is no report."""

from __future__ import annotations

import dataclasses

import pytest

from c10k_probe.load.ab import AbReport, read_report
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
    assert (told.complete_count, told.answered_count, told.told_failed_count) == (100_000, 100_000, 0)
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
    assert told.told_failed_count == sum(kinds)
    assert (told.wrong_answers_count, told.write_errors_count, told.kept_alive_count) == (40, 3, 99_000)
    # 2 cut off on receiving and 3 on sending, by length among the 50 like the 40 wrong ones; 1 that never was a request
    assert told.lost_count == 50 + 1
    assert told.answered_count == 100_000 - 50


def test_a_wrong_answer_of_the_same_length_is_lost_as_well() -> None:
    told = read_report(TROUBLED.replace("responses:      40", "responses:      90"), TABLE)
    # 45 at the most of another length and of an answer that came to its end
    assert (told.lost_count, told.answered_count) == (1 + 50 + 90 - 45, 100_000 - 50 - 90 + 45)


def failing(kinds: str, length: int, bodies: int, more: str = "") -> AbReport:
    """A report of 40 requests for a body of 11 bytes, as ab 2.4 prints it of a server whose deeds are known."""
    text = USUAL.replace("100000\n", "40\n").replace(
        "Failed requests:        0\n", f"Failed requests: 1\n   ({kinds})\n{more}"
    )
    text = text.replace("Length:        11 bytes", f"Length:        {length} bytes")
    report = read_report(text.replace("1100000 bytes", f"{bodies} bytes"), TABLE)
    return dataclasses.replace(report, body_bytes=11)


@pytest.mark.parametrize(
    ("kinds", "length", "bodies", "more"),
    [
        ("Connect: 0, Receive: 8, Length: 8, Exceptions: 8", 11, 352, ""),  # a reset: all of them at once
        ("Connect: 0, Receive: 8, Length: 31, Exceptions: 8", 0, 352, ""),  # the first one, whose length it takes, too
        ("Connect: 0, Receive: 0, Length: 8, Exceptions: 0", 11, 416, ""),  # cut short
        ("Connect: 0, Receive: 0, Length: 31, Exceptions: 0", 0, 352, ""),  # empty, and the first one so
        ("Connect: 0, Receive: 0, Length: 8, Exceptions: 0", 11, 352, "Write errors:           8\n"),
        ("Connect: 0, Receive: 0, Length: 8, Exceptions: 0", 11, 376, "Non-2xx responses:      8\n"),
        ("Connect: 0, Receive: 0, Length: 0, Exceptions: 0", 11, 440, "Non-2xx responses:      8\n"),
        ("Connect: 0, Receive: 4, Length: 8, Exceptions: 4", 11, 364, "Non-2xx responses:      4\n"),
    ],
)
def test_each_request_that_failed_is_counted_once(kinds: str, length: int, bodies: int, more: str) -> None:
    report = failing(kinds, length, bodies, more)
    assert (report.lost_count, report.answered_count) == (8, 32)


def test_a_page_that_changes_is_no_failure_of_the_first_length() -> None:
    report = failing("Connect: 0, Receive: 0, Length: 39, Exceptions: 0", 12, 400)
    assert report.lost_count == 0, "the page that was asked for before had 11 bytes, the first of these had 12"


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
