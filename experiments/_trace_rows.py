"""Rows, views, charts and findings of trace-overhead."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from c10k_probe import stats, units
from c10k_probe.experiment import Chart, Finding, Row, Samples, View, column, estimate

from ._trace_measure import BACKENDS, OFF

BUSY_PCT = 80  # of a load generator, of one CPU
FULL_PCT = 95  # starting and ending the generator is in the window too


@dataclass(frozen=True, kw_only=True)
class TraceOverheadRow(Row):
    """One server, traced by one backend. Latencies and rates are those under that tracer."""

    server: str = column("system under test", key=True)
    tracer: str = column("who traced the server while this row was measured; off: nobody", key=True)
    server_version: str | None = column("what the server says it is, with its version; empty for the project's own")
    header_bytes: int | None = column("status line and headers of an HTTP answer")
    body_bytes: int | None = column("body of an HTTP answer")
    launches_count: int | None = column("fresh servers that were measured")
    requests_count: int | None = column("requests answered, over all launches")
    failed_count: int | None = column("connections refused or broken, time-outs and wrong answers, over all launches")
    throughput_per_s: stats.Interval | None = estimate("throughput_per_s", "requests answered, median of launches")
    throughput_over_off_ratio: stats.Interval | None = estimate(
        "throughput_over_off_ratio", "throughput over that of the untraced server, by blocks"
    )
    traced_p50_ns: stats.Interval | None = estimate(
        "traced_p50_ns", "median latency of a request under this tracer, median of launches"
    )
    p50_over_off_ratio: stats.Interval | None = estimate(
        "p50_over_off_ratio", "median latency over that of the untraced server, by blocks"
    )
    traced_p90_ns: float | None = column("90th percentile of latency under this tracer, median of launches")
    traced_p99_ns: float | None = column("99th percentile of latency under this tracer, median of launches")
    cpu_per_request_ns: stats.Interval | None = estimate(
        "cpu_per_request_ns", "the server's CPU time for a request, what tracing adds to it included"
    )
    cpu_over_off_ratio: stats.Interval | None = estimate(
        "cpu_over_off_ratio", "the server's CPU time for a request over that of the untraced server, by blocks"
    )
    calls_per_request_count: float | None = column("system calls that the tracer counted, for each request")
    switches_per_request_count: float | None = column("context switches that the tracer counted, for each request")
    dropped_count: int | None = column("tasks and events that the tracer could not count, over all launches")
    ready_s: float | None = column("from opening the tracer until it counts, median of launches")
    tracer_cpu_pct: float | None = column("CPU that the tracer's own processes took, of one CPU, median of launches")
    tracer_peak_rss_bytes: float | None = column("most memory the tracer's own processes had (VmHWM), median")
    server_cpu_pct: float | None = column("CPU that the server took, of one CPU, median of launches")
    load_cpu_pct: float | None = column("CPU that the load generator took, of one CPU, median of launches")


COST = "what it takes itself"
VIEWS = (
    View(
        "throughput/off",
        "throughput_over_off_ratio",
        "throughput_over_off_lo_ratio",
        "throughput_over_off_hi_ratio",
    ),
    View("requests/s", "throughput_per_s", "throughput_lo_per_s", "throughput_hi_per_s", priority=2),
    View("p50/off", "p50_over_off_ratio", "p50_over_off_lo_ratio", "p50_over_off_hi_ratio"),
    View("p50 so traced", "traced_p50_ns", "traced_p50_lo_ns", "traced_p50_hi_ns", priority=3),
    View("CPU/off", "cpu_over_off_ratio", "cpu_over_off_lo_ratio", "cpu_over_off_hi_ratio", priority=2),
    View("ready in", "ready_s", group=COST),
    View("CPU", "tracer_cpu_pct", group=COST),
    View("memory", "tracer_peak_rss_bytes", group=COST),
    View("calls a request", "calls_per_request_count", group=COST),
    View("switches", "switches_per_request_count", group=COST, priority=2),
    View("dropped", "dropped_count", group=COST),
    View("load's CPU", "load_cpu_pct", group=COST, priority=2),
)
CHARTS = (
    Chart(
        "throughput",
        "Throughput while traced, over untraced",
        "tracer",
        "throughput_over_off_ratio",
        "throughput_over_off_lo_ratio",
        "throughput_over_off_hi_ratio",
        series=("server",),
    ),
    Chart(
        "latency",
        "Median latency while traced, over untraced",
        "tracer",
        "p50_over_off_ratio",
        "p50_over_off_lo_ratio",
        "p50_over_off_hi_ratio",
        series=("server",),
    ),
)
_MEDIANS = ("calls_per_request_count", "switches_per_request_count", "ready_s", "tracer_cpu_pct")
_MORE_MEDIANS = ("tracer_peak_rss_bytes", "server_cpu_pct", "load_cpu_pct")
_SUMS = ("requests_count", "failed_count", "dropped_count")
_SAME = ("server_version", "header_bytes", "body_bytes")  # in each launch


def rows(samples: Sequence[Samples], seed: int) -> list[TraceOverheadRow]:
    """One row for each server and backend that has launches; off first, then from little to much."""
    cells: dict[tuple[str, str], list[Samples]] = {}
    for item in samples:
        cells.setdefault((str(item.key["server"]), str(item.key["tracer"])), []).append(item)
    order = (OFF, *BACKENDS)
    names = sorted(cells, key=lambda name: (name[0], order.index(name[1])))
    made = [_row(name, cells[name], cells.get((name[0], OFF), []), seed) for name in names]
    return [_with_base_grade(row, made) for row in made]


def _row(name: tuple[str, str], launches: Sequence[Samples], base: Sequence[Samples], seed: int) -> TraceOverheadRow:
    throughput_ratio = _ratio("throughput_per_s", launches, base, seed)
    facts: dict[str, Any] = {key: _median_of(key, launches) for key in (*_MEDIANS, *_MORE_MEDIANS)}
    sums: dict[str, Any] = {key: _sum_of(key, launches) for key in _SUMS}
    interval = _interval("throughput_per_s", launches, seed) if name[1] == OFF else throughput_ratio
    untraced_pct = _median_of("server_cpu_pct", base)
    grade = _grade(stats.grade_interval(interval, "throughput"), facts, sums, untraced_pct)
    same: dict[str, Any] = {key: launches[0].facts[key] for key in _SAME}
    return TraceOverheadRow(
        server=name[0],
        tracer=name[1],
        launches_count=len(launches),
        throughput_per_s=_interval("throughput_per_s", launches, seed),
        throughput_over_off_ratio=throughput_ratio,
        traced_p50_ns=_interval("p50_ns", launches, seed),
        p50_over_off_ratio=_ratio("p50_ns", launches, base, seed),
        traced_p90_ns=_median("p90_ns", launches),
        traced_p99_ns=_median("p99_ns", launches),
        cpu_per_request_ns=_interval("cpu_per_request_ns", launches, seed),
        cpu_over_off_ratio=_ratio("cpu_per_request_ns", launches, base, seed),
        grade=grade.level,
        grade_reason=grade.reason,
        **same,
        **sums,
        **facts,
    )


def _grade(
    grade: stats.Grade, facts: Mapping[str, float | None], sums: Mapping[str, int | None], untraced_pct: float | None
) -> stats.Grade:
    load_pct, server_pct = facts["load_cpu_pct"], facts["server_cpu_pct"]
    is_full = server_pct is not None and server_pct >= FULL_PCT
    if load_pct is None:
        grade = grade.worse("void", "the load generator's CPU time is unknown: it may have been the limit")
    elif load_pct > BUSY_PCT and (load_pct >= FULL_PCT or not is_full):
        grade = grade.worse("void", f"the load generator used {load_pct:.0f} % of its CPU: it may have been the limit")
    elif load_pct > BUSY_PCT:
        # its share is padded by waits of a few microseconds, each with a sleep and a wake-up
        text = f"the load generator used {load_pct:.0f} % of its CPU, though the server had nothing left of its own"
        grade = grade.worse("shaky", text)
    elif untraced_pct is not None and untraced_pct < FULL_PCT:  # a traced one may wait for its tracer
        grade = grade.worse("shaky", f"the untraced server used {untraced_pct:.0f} % of its CPU: not at full load")
    if sums["dropped_count"]:
        grade = grade.worse("shaky", f"{sums['dropped_count']:,} tasks or events were dropped: counts are lower bounds")
    if sums["failed_count"]:
        grade = grade.worse("shaky", f"{sums['failed_count']:,} requests failed")
    return grade


def _with_base_grade(row: TraceOverheadRow, made: Sequence[TraceOverheadRow]) -> TraceOverheadRow:
    """A ratio is void when what it is compared with is."""
    base = next((other for other in made if (other.server, other.tracer) == (row.server, OFF)), None)
    if row.tracer == OFF or row.grade == "void" or (base is not None and base.grade != "void"):
        return row
    reason = "; ".join(part for part in (row.grade_reason, "there is no valid untraced row to compare with") if part)
    return dataclasses.replace(row, grade="void", grade_reason=reason)


def findings(made: Sequence[TraceOverheadRow]) -> Iterator[Finding]:
    """What each backend costs in throughput; none for void rows."""
    for row in made:
        ratio = row.throughput_over_off_ratio
        if row.tracer != OFF and row.grade != "void" and ratio is not None:
            yield Finding(f"{row.server} traced by {row.tracer}", "throughput_cost_pct", cost_pct(ratio), _note(row))


def cost_pct(ratio: stats.Interval) -> stats.Interval:
    """0.93 [0.91, 0.96] of the throughput is left -> 7 % [4 %, 9 %] are lost."""
    low, high = ((None if end is None else (1 - end) * 100) for end in (ratio.high, ratio.low))
    return stats.Interval((1 - ratio.middle) * 100, low, high)


def _note(row: TraceOverheadRow) -> str:
    if row.calls_per_request_count is None:
        return "counts no calls"
    return f"{units.format_quantity(row.calls_per_request_count, 'count')} calls a request"


def _by_block(name: str, launches: Sequence[Samples]) -> dict[int, Sequence[int]]:
    return {item.block: item.values[name] for item in launches if name in item.values}


def _ratio(name: str, launches: Sequence[Samples], base: Sequence[Samples], seed: int) -> stats.Interval | None:
    return stats.paired_ratio(_by_block(name, launches), _by_block(name, base), seed)


def _interval(name: str, launches: Sequence[Samples], seed: int) -> stats.Interval | None:
    values = [values[0] for values in _by_block(name, launches).values()]
    return stats.median_interval(values, seed) if values else None


def _median(name: str, launches: Sequence[Samples]) -> float | None:
    return stats.median([values[0] for values in _by_block(name, launches).values()])


def _known(name: str, launches: Sequence[Samples]) -> list[float]:
    return [float(value) for item in launches if (value := item.facts[name]) is not None]


def _median_of(name: str, launches: Sequence[Samples]) -> float | None:
    return stats.median(_known(name, launches))


def _sum_of(name: str, launches: Sequence[Samples]) -> int | None:
    known = _known(name, launches)
    return round(sum(known)) if known else None
