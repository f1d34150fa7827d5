"""Rows, grades and findings of trace-overhead, from made samples."""

from __future__ import annotations

import pytest
from c10k_probe.experiments._trace_load import AUTO, COMMAND, SERVERS, resolve
from c10k_probe.experiments._trace_rows import TraceOverheadRow, cost_pct, findings, rows
from made_overhead import launch, run

from c10k_probe.experiment import Samples
from c10k_probe.stats import Interval

RATES = {
    "strace": [1000, 1100, 1000, 1000, 1000],
    "bcc": [85_000, 86_000, 84_000, 85_000, 85_000],
    "off": [100_000, 101_000, 99_000, 100_000, 100_000],
}


def by_name(samples: list[Samples]) -> dict[str, TraceOverheadRow]:
    return {row.tracer: row for row in rows(samples, 1)}


def test_rows_stand_from_little_to_much_with_ratios_over_off() -> None:
    made = by_name(run(RATES))
    assert list(made) == ["off", "bcc", "strace"]
    assert made["off"].throughput_over_off_ratio == Interval(1.0, 1.0, 1.0)
    ratio = made["bcc"].throughput_over_off_ratio
    assert ratio is not None
    assert ratio.middle == pytest.approx(0.85)
    assert ratio.low is not None
    assert ratio.high is not None
    assert ratio.low <= ratio.middle <= ratio.high
    assert {row.grade for row in made.values()} == {"ok"}
    assert {(row.server_version, row.header_bytes, row.body_bytes) for row in made.values()} == {("nginx/1.2", 200, 11)}
    assert made["bcc"].requests_count == sum(RATES["bcc"])


def test_what_nobody_measured_is_empty() -> None:
    made = by_name(run({**RATES, "proc": [99_000] * 5}))
    off = made["off"]
    assert (off.ready_s, off.tracer_cpu_pct, off.tracer_peak_rss_bytes, off.calls_per_request_count) == (None,) * 4
    assert (off.dropped_count, made["strace"].dropped_count, made["bcc"].dropped_count) == (None, None, 0)
    assert made["proc"].calls_per_request_count is None


def test_a_block_without_an_untraced_launch_is_in_no_ratio() -> None:
    samples = [*run({"bcc": [1000] * 5, "off": [2000] * 4}), launch("bcc", 9, 1_000_000)]
    ratio = by_name(samples)["bcc"].throughput_over_off_ratio
    assert ratio is not None
    assert (ratio.middle, ratio.low) == (0.5, None)


def test_each_server_is_compared_with_itself() -> None:
    samples = run(RATES) + [
        launch(name, block, rate, server="epoll")
        for name, rate in (("off", 50_000), ("bcc", 25_000))
        for block in range(5)
    ]
    made = {(row.server, row.tracer): row.throughput_over_off_ratio for row in rows(samples, 1)}
    assert made["epoll", "bcc"] == Interval(0.5, 0.5, 0.5)
    assert made["nginx", "bcc"] != made["epoll", "bcc"]


@pytest.mark.parametrize(
    ("load_cpu_pct", "server_cpu_pct", "grade"),
    [(79.0, 96.0, "ok"), (81.0, 90.0, "void"), (81.0, 99.0, "shaky"), (97.0, 99.0, "void"), (None, 99.0, "void")],
)
def test_a_busy_generator_is_the_limit_unless_the_server_had_nothing_left(
    load_cpu_pct: float | None, server_cpu_pct: float, grade: str
) -> None:
    samples = run(RATES, load_cpu_pct=load_cpu_pct, server_cpu_pct=server_cpu_pct)
    made = by_name(samples)
    assert {row.grade for row in made.values()} == {grade}
    assert len(list(findings(list(made.values())))) == (0 if grade == "void" else 2)


@pytest.mark.parametrize(("untraced_pct", "traced_pct", "grade"), [(94.0, 99.0, "shaky"), (96.0, 30.0, "ok")])
def test_only_the_untraced_server_must_be_at_full_load(untraced_pct: float, traced_pct: float, grade: str) -> None:
    """A server that waits for its tracer cannot be, and that is the price."""
    untraced = run({"off": RATES["off"]}, server_cpu_pct=untraced_pct)
    made = by_name(untraced + run({"bcc": RATES["bcc"]}, server_cpu_pct=traced_pct))
    assert {row.grade for row in made.values()} == {grade}
    assert all(("used 94 % of its CPU" in row.grade_reason) == (grade == "shaky") for row in made.values())


def test_nothing_is_compared_with_a_void_row() -> None:
    samples = [launch("off", block, 100_000, load_cpu_pct=99.0) for block in range(5)]
    made = by_name(samples + run({"bcc": [50_000] * 5}))
    assert made["bcc"].grade == "void"
    assert "no valid untraced row" in made["bcc"].grade_reason
    assert list(findings(list(made.values()))) == []


@pytest.mark.parametrize(("fact", "word"), [("dropped_count", "dropped"), ("failed_count", "failed")])
def test_dropped_events_and_failed_requests_are_told(fact: str, word: str) -> None:
    made = by_name(run(RATES, **{fact: 2.0}))
    assert made["bcc"].grade == "shaky"
    assert "10 " in made["bcc"].grade_reason
    assert word in made["bcc"].grade_reason


def test_costs_are_what_is_lost() -> None:
    made = by_name(run(RATES))
    found = {item.subject: item for item in findings(list(made.values()))}
    assert list(found) == ["nginx traced by bcc", "nginx traced by strace"]
    cost = found["nginx traced by bcc"].value
    assert cost is not None
    assert cost.middle == pytest.approx(15)
    assert cost_pct(Interval(0.9, 0.8, 0.95)) == Interval(pytest.approx(10), pytest.approx(5), pytest.approx(20))
    assert cost_pct(Interval(0.9, None, None)) == Interval(pytest.approx(10), None, None)


def test_auto_is_nginx_and_the_model_too_where_a_tool_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from c10k_probe import parts

    there = parts.Part("x", "", True, "/bin/x", "x", "", ())
    missing = parts.Part("x", "", False, None, "x", "apt-get install x", ())
    monkeypatch.setattr(parts, "find_part", lambda name: there)
    assert resolve((AUTO,), "") == ("nginx",)
    monkeypatch.setattr(parts, "find_part", lambda name: missing if name == "wrk" else there)
    assert resolve((AUTO,), "") == ("nginx", "epoll")
    assert resolve(("thread",), "") == ("thread",)
    assert resolve((AUTO, "epoll", "node"), "") == ("nginx", "epoll", "node")
    assert resolve((AUTO,), "serve {port}") == (COMMAND,)
    assert resolve((AUTO, *SERVERS, COMMAND), "") == tuple(SERVERS)
    assert resolve((AUTO, *SERVERS, COMMAND), "serve {port}") == (*SERVERS, COMMAND)
