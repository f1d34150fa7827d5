"""Rows, views and charts of servers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from c10k_probe import stats
from c10k_probe.experiment import Chart, Row, Samples, View, column, estimate

from ._servers_design import ARTICLE, NULL

BUSY_PCT = 80  # of a load generator, of one CPU
FULL_PCT = 95  # of a server, of one CPU: starting and ending the load is in the window too
NEAR_CEILING = 0.9
FEW_READINGS = 3
Key = tuple[str, str, str, str, str]  # server, arm, load, keep_alive, observed


@dataclass(frozen=True, kw_only=True)
class ServersRow(Row):
    """One server in one arm under one load; medians of launches."""

    server: str = column("system under test", key=True)
    arm: str = column("article: as installed and as the article tested it; fair: equal settings", key=True)
    load: str = column("load generator: ab (HTTP/1.0) or wrk (HTTP/1.1)", key=True)
    keep_alive: str = column("whether a connection is used again: on or off", key=True)
    observed: str = column("whether sockets and memory were looked at meanwhile: on or off", key=True)
    server_version: str | None = column("what the server says it is; empty for the project's own")
    connections_count: int | None = column("connections that the load generator keeps open or opens again")
    header_bytes: int | None = column("status line and headers of an answer to HTTP/1.1")
    body_bytes: int | None = column("body of an answer")
    launches_count: int | None = column("fresh servers that were measured")
    requests_count: int | None = column("requests that came to an end, over all launches")
    told_requests_count: int | None = column("the same by the server's own count, where it has one")
    failed_count: int | None = column("failed as the generator counts it, and wrong answers, over all launches")
    failed_connect_count: int | None = column("of these: refused connections (ab)")
    failed_receive_count: int | None = column("of these: broken while receiving (ab)")
    failed_length_count: int | None = column("of these: another length than the first answer (ab)")
    failed_exceptions_count: int | None = column("of these: exceptions (ab)")
    wrong_answers_count: int | None = column("of these: answers that were neither 2xx nor 3xx (ab)")
    throughput_per_s: stats.Interval | None = estimate("throughput_per_s", "right answers, by the generator's clock")
    of_null_ratio: float | None = column("throughput over that of the null server under the same load")
    request_p50_ns: stats.Interval | None = estimate("request_p50_ns", "median latency of a request under this load")
    request_p99_ns: float | None = column("99th percentile of latency, median of launches")
    request_longest_ns: float | None = column("longest request, of all launches (ab, whole milliseconds)")
    requests_per_cpu_s: float | None = column("right answers for each second of the server's CPU, median of launches")
    cpu_per_request_ns: stats.Interval | None = estimate("cpu_per_request_ns", "the server's CPU time for an answer")
    server_cpu_pct: stats.Interval | None = estimate("server_cpu_pct", "CPU of the server's tree, of one CPU")
    server_user_pct: float | None = column("of that, in user mode, by clock ticks")
    server_system_pct: float | None = column("of that, in the kernel, by clock ticks")
    load_cpu_pct: float | None = column("CPU of the load generator, of one CPU")
    rest_bytes: float | None = column("memory before the load: PSS, page tables, kernel stacks")
    peak_bytes: stats.Interval | None = estimate("peak_bytes", "the most at once: PSS, page tables, kernel stacks")
    rest_pss_bytes: float | None = column("PSS of the tree before the load")
    peak_pss_bytes: float | None = column("PSS of the tree, the most at one reading")
    mean_pss_bytes: float | None = column("PSS of the tree, mean of the readings")
    peak_rss_bytes: float | None = column("sum of RSS, which counts shared pages once for each process; the most")
    available_fall_bytes: float | None = column("by how much the machine's MemAvailable fell, whoever it was")
    memory_readings_count: int | None = column("readings of the whole tree's memory, over all launches")
    processes_count: int | None = column("processes of the tree, the most")
    threads_count: int | None = column("threads of all processes of the tree, the most")
    served_max_count: int | None = column("connections accepted and open at one moment, the most")
    served_median_count: float | None = column("connections accepted and open at one moment, median of readings")
    sockets_readings_count: int | None = column("readings of the server's sockets, over all launches")
    queued_max_count: int | None = column("connections that waited to be accepted, the most")
    overflows_count: int | None = column("times that an accept queue was full, over all launches, machine-wide")
    timeouts_count: int | None = column("times that TCP sent again after a time-out, over all launches, machine-wide")
    forks_count: int | None = column("processes and threads that began meanwhile, over all launches, machine-wide")
    new_processes_count: int | None = column("processes of the tree after the load that were not before, the most")
    waits_in: str | None = column("functions of the kernel in which its processes slept before the load (wchan)")


CPU, MEMORY, SERVED = "CPU", "memory of the tree", "served at once"
VIEWS = (
    View("requests/s", "throughput_per_s", "throughput_lo_per_s", "throughput_hi_per_s"),
    View("failed", "failed_count"),
    View("p50", "request_p50_ns", "request_p50_lo_ns", "request_p50_hi_ns"),
    View("p99", "request_p99_ns"),
    View("longest", "request_longest_ns", priority=2),
    View("CPU/request", "cpu_per_request_ns", "cpu_per_request_lo_ns", "cpu_per_request_hi_ns", priority=3),
    View("server", "server_cpu_pct", "server_cpu_lo_pct", "server_cpu_hi_pct", group=CPU),
    View("user", "server_user_pct", group=CPU),
    View("system", "server_system_pct", group=CPU),
    View("load generator", "load_cpu_pct", group=CPU),
    View("requests/CPU s", "requests_per_cpu_s", group=CPU),
    View("of null server", "of_null_ratio", group=CPU, priority=2),
    View("at rest", "rest_pss_bytes", group=MEMORY),
    View("peak", "peak_pss_bytes", group=MEMORY),
    View("mean", "mean_pss_bytes", group=MEMORY),
    View("peak by RSS sum", "peak_rss_bytes", group=MEMORY),
    View("peak with kernel", "peak_bytes", "peak_lo_bytes", "peak_hi_bytes", group=MEMORY, priority=2),
    View("most served", "served_max_count", group=SERVED),
    View("median", "served_median_count", group=SERVED),
    View("most queued", "queued_max_count", group=SERVED),
    View("overflows", "overflows_count", group=SERVED),
    View("timeouts", "timeouts_count", group=SERVED, priority=2),
    View("processes", "processes_count", group=SERVED),
    View("threads", "threads_count", group=SERVED),
)


_LINES = ("arm", "load", "keep_alive")


def _by_server(name: str, title: str, stem: str, suffix: str, *, at_end: bool = False) -> Chart:
    ends = (f"{stem}_lo{suffix}", f"{stem}_hi{suffix}")
    return Chart(name, title, "server", f"{stem}{suffix}", *ends, series=_LINES, at_end=at_end)


CHARTS = (
    _by_server("throughput", "Right answers a second", "throughput", "_per_s", at_end=True),
    Chart(
        "memory-over-time",
        "PSS of the server's processes while it is loaded",
        "at_ns",
        "pss_bytes",
        series=("server", "arm"),
        from_samples=True,
    ),
    _by_server("latency", "Median latency at full load", "request_p50", "_ns"),
    Chart("efficiency", "Right answers for a second of CPU", "server", "requests_per_cpu_s", series=_LINES),
    _by_server("memory", "Peak memory with page tables and stacks", "peak", "_bytes"),
)
SUMS = (
    "requests_count",
    "told_requests_count",
    "failed_count",
    "failed_connect_count",
    "failed_receive_count",
    "failed_length_count",
    "failed_exceptions_count",
    "wrong_answers_count",
    "memory_readings_count",
    "sockets_readings_count",
    "overflows_count",
    "timeouts_count",
    "forks_count",
)
_MEDIANS = {
    "request_p99_ns": "p99_ns",
    "requests_per_cpu_s": "requests_per_cpu_s",
    "server_user_pct": "server_user_pct",
    "server_system_pct": "server_system_pct",
    "load_cpu_pct": "load_cpu_pct",
    "rest_bytes": "rest_bytes",
    "rest_pss_bytes": "rest_pss_bytes",
    "peak_pss_bytes": "peak_pss_bytes",
    "mean_pss_bytes": "mean_pss_bytes",
    "peak_rss_bytes": "peak_rss_bytes",
    "available_fall_bytes": "available_fall_bytes",
    "served_median_count": "served_median_count",
}
_MOST = {
    "request_longest_ns": "longest_ns",
    "processes_count": "processes_count",
    "threads_count": "threads_count",
    "served_max_count": "served_max_count",
    "queued_max_count": "queued_max_count",
    "new_processes_count": "new_processes_count",
}
_INTERVALS = {
    "throughput_per_s": "throughput_per_s",
    "request_p50_ns": "p50_ns",
    "cpu_per_request_ns": "cpu_per_request_ns",
    "server_cpu_pct": "server_cpu_pct",
    "peak_bytes": "peak_bytes",
}
_SAME = ("waits_in", "server_version", "header_bytes", "body_bytes", "connections_count")


def rows(samples: Sequence[Samples], seed: int) -> list[ServersRow]:
    """One row for each cell that has launches, in the order in which cells were first measured by name."""
    groups = by_cell(samples)
    made = [_row(key, groups[key], seed) for key in sorted(groups, key=_order)]
    return [_with_null(row, made) for row in made]


def by_cell(samples: Sequence[Samples]) -> dict[Key, list[Samples]]:
    """Launches by the values of their cell's key."""
    groups: dict[Key, list[Samples]] = {}
    for item in samples:
        server, arm, load, keep_alive, observed = map(str, item.key.values())
        groups.setdefault((server, arm, load, keep_alive, observed), []).append(item)
    return groups


def _order(key: Key) -> tuple[object, ...]:
    server, arm, _, keep_alive, observed = key
    return (arm != ARTICLE, keep_alive == "on", server == NULL, server, observed == "off")


def _row(key: Key, launches: Sequence[Samples], seed: int) -> ServersRow:
    found: dict[str, Any] = {name: launches[0].facts[name] for name in _SAME}
    found |= {name: whole_sum(name, launches) for name in SUMS}
    found |= {name: stats.median(known(fact, launches)) for name, fact in _MEDIANS.items()}
    found |= {name: max(known(fact, launches), default=None) for name, fact in _MOST.items()}
    for name in (name for name in _MOST if name.endswith("_count")):
        found[name] = None if found[name] is None else int(found[name])
    found |= {name: interval(fact, launches, seed) for name, fact in _INTERVALS.items()}
    server, arm, load, keep_alive, observed = key
    grade = _grade(found, observed == "on", arm)
    return ServersRow(
        server=server,
        arm=arm,
        load=load,
        keep_alive=keep_alive,
        observed=observed,
        launches_count=len(launches),
        grade=grade.level,
        grade_reason=grade.reason,
        **found,
    )


def _grade(found: Mapping[str, Any], is_observed: bool, arm: str) -> stats.Grade:
    grade = stats.grade_interval(found["throughput_per_s"], "throughput")
    if not found["requests_count"] or not found["throughput_per_s"] or not found["throughput_per_s"].middle:
        grade = grade.worse("void", "no request was answered as it should")
    load_pct, server = found["load_cpu_pct"], found["server_cpu_pct"]
    is_full = server is not None and server.middle >= FULL_PCT
    if load_pct is None:
        grade = grade.worse("void", "the load generator's CPU time is unknown: it may have been the limit")
    elif load_pct > BUSY_PCT and not is_full:
        grade = grade.worse("void", f"the load generator used {load_pct:.0f} % of its CPU: it was the limit")
    elif load_pct > BUSY_PCT:
        text = f"the load generator used {load_pct:.0f} % of its CPU, though the server had nothing left of its own"
        grade = grade.worse("shaky", text)
    if found["failed_count"]:
        grade = grade.worse("shaky", f"{found['failed_count']:,} of {found['requests_count']:,} requests failed")
    if is_observed and (found["memory_readings_count"] or 0) < FEW_READINGS:
        count = found["memory_readings_count"] or 0
        grade = grade.worse("shaky", f"memory of the whole tree was read {count} times only")
    return grade


def _with_null(row: ServersRow, made: Sequence[ServersRow]) -> ServersRow:
    """Beside the null server: where a load generator had no more to give on that one either, it was the limit."""
    null = next((other for other in made if (other.server, *_load_of(other)) == (NULL, *_load_of(row))), None)
    above, below = row.throughput_per_s, None if null is None else null.throughput_per_s
    if null is None or above is None or below is None or not below.middle:
        return row
    ratio = above.middle / below.middle
    row = dataclasses.replace(row, of_null_ratio=ratio)
    is_ceiling = (null.load_cpu_pct or 0) > BUSY_PCT
    if row.server == NULL or not is_ceiling or ratio < NEAR_CEILING or row.grade == "void":
        return row
    text = f"{ratio:.2f}× of what the load generator reaches on the null server: it was the limit"
    grade = stats.Grade(row.grade, row.grade_reason).worse("void", text)
    return dataclasses.replace(row, grade=grade.level, grade_reason=grade.reason)


def _load_of(row: ServersRow) -> tuple[str, ...]:
    return row.arm, row.load, row.keep_alive, row.observed


def known(name: str, launches: Sequence[Samples]) -> list[float]:
    """A fact of the launches that have it."""
    return [float(value) for item in launches if isinstance(value := item.facts.get(name), (int, float))]


def whole_sum(name: str, launches: Sequence[Samples]) -> int | None:
    """The sum over all launches; None unless each has it."""
    values = known(name, launches)
    return round(sum(values)) if values and len(values) == len(launches) else None


def interval(name: str, launches: Sequence[Samples], seed: int) -> stats.Interval | None:
    """The median of launches; None unless each has the fact."""
    return stats.interval_of_all([item.facts.get(name) for item in launches], seed)  # type: ignore[misc]


def by_block(name: str, launches: Sequence[Samples]) -> dict[int, list[float]]:
    """A fact by the block it was measured in."""
    return {item.block: values for item in launches if (values := known(name, [item]))}
