"""Rows, views and charts of servers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from c10k_probe import stats
from c10k_probe.experiment import Chart, Row, Samples, View, column, estimate

from ._servers_design import ARTICLE, FAIR, FULL_PCT, INSIDE, NULL, OPEN, PLACES
from ._servers_grades import BUSY_PCT, grade_inside, grade_load, is_full_load

NEAR_CEILING = 0.9


class Key(NamedTuple):
    """What tells one row from another; see the columns."""

    server: str
    arm: str
    load: str
    keep_alive: str
    rate_pct: int
    observed: str


@dataclass(frozen=True, kw_only=True)
class ServersRow(Row):
    """One server in one arm under one load; medians of launches."""

    server: str = column("system under test", key=True)
    arm: str = column("article: as installed and as the article tested it; fair: equal settings", key=True)
    load: str = column("ab (HTTP/1.0) or wrk (HTTP/1.1), both closed loops; or an open loop", key=True)
    keep_alive: str = column("whether a connection is used again: on or off", key=True)
    rate_pct: int = column("rate asked for, of what the server answers in a closed loop, which is 100", key=True)
    observed: str = column("whether sockets and memory were looked at meanwhile: on or off", key=True)
    kind: str | None = column("runtime and architecture; empty for what is not compared by these")
    server_version: str | None = column("what the server says it is; empty for the project's own")
    script_cache: str | None = column("whether PHP keeps compiled scripts, as it says: on or off; empty without PHP")
    workers_count: int | None = column("workers of a pool that were asked for; empty for the server's own choice")
    connections_count: int | None = column("connections that the load generator keeps open or opens again")
    header_bytes: int | None = column("status line and headers of an answer to HTTP/1.1")
    body_bytes: int | None = column("body of an answer")
    launches_count: int | None = column("fresh servers that were measured")
    requests_count: int | None = column("requests that came to an end (open loop: were due), over all launches")
    told_requests_count: int | None = column("the same by the server's own count, where it has one")
    failed_count: int | None = column(
        "requests that failed, wrong answers among them, each once (wrk: as it counts), over all launches"
    )
    failed_connect_count: int | None = column(
        "of these: refused connections (ab, open loop; a request of ab may be in several of its counters)"
    )
    failed_receive_count: int | None = column("of these: broken while receiving (ab, open loop)")
    failed_length_count: int | None = column("of these: another length than the first answer (ab)")
    failed_exceptions_count: int | None = column("of these: exceptions (ab)")
    wrong_answers_count: int | None = column(
        "of these: answers that were no success (open loop: not 2xx; else neither 2xx nor 3xx)"
    )
    timed_out_count: int | None = column("of these: not answered within 2 s of being sent (open loop)")
    unsent_count: int | None = column("of these: for which no connection was free for 2 s (open loop)")
    capacity_per_s: stats.Interval | None = estimate("capacity_per_s", "right answers of a closed loop just before")
    capacity_load_cpu_pct: float | None = column("CPU of the load generator in that closed loop, of one CPU")
    intended_per_s: float | None = column("rate that was asked for, median of launches (open loop)")
    throughput_per_s: stats.Interval | None = estimate("throughput_per_s", "right answers, by the generator's clock")
    of_null_ratio: float | None = column("throughput over that of the null server under the same load")
    request_p50_ns: stats.Interval | None = estimate(
        "request_p50_ns", "median latency of a request: from its being sent; in the open loop from its being due"
    )
    request_p90_ns: stats.Interval | None = estimate("request_p90_ns", "90th percentile of latency")
    request_p99_ns: stats.Interval | None = estimate("request_p99_ns", "99th percentile of latency")
    request_longest_ns: float | None = column("longest request, of all launches (ab: whole milliseconds; open loop)")
    sender_late_ns: float | None = column("by how much the sender was late at the most (open loop)")
    requests_per_cpu_s: float | None = column("right answers for each second of the server's CPU, median of launches")
    cpu_per_request_ns: stats.Interval | None = estimate("cpu_per_request_ns", "the server's CPU time for an answer")
    counted_by: str | None = column(
        "who counted the requests of that: the kernel, in the middle of wrk's window; else over the whole, the server "
        "or the load generator"
    )
    server_cpu_pct: stats.Interval | None = estimate(
        "server_cpu_pct", "CPU of the server's tree, of one CPU (wrk: in the middle of its window)"
    )
    server_user_pct: float | None = column("of that, in user mode, by clock ticks")
    server_system_pct: float | None = column("of that, in the kernel, by clock ticks")
    server_idle_pct: float | None = column(
        "time in which the server's CPU had nothing to do, in the middle of wrk's window; above 5 it had some left"
    )
    load_cpu_pct: float | None = column("CPU of the load generator, of one CPU (wrk: in the middle of its window)")
    rest_bytes: float | None = column("memory just after the start: PSS, page tables, kernel stacks")
    peak_bytes: stats.Interval | None = estimate("peak_bytes", "the most at once: PSS, page tables, kernel stacks")
    rest_pss_bytes: float | None = column("PSS of the tree just after the start")
    peak_pss_bytes: float | None = column("PSS of the tree, the most at one reading")
    mean_pss_bytes: float | None = column("PSS of the tree, mean of the readings")
    peak_rss_bytes: float | None = column("sum of RSS, which counts shared pages once for each process; the most")
    available_fall_bytes: float | None = column("by how much the machine's MemAvailable fell, whoever it was")
    memory_readings_count: int | None = column("readings of the whole tree's memory, over all launches")
    processes_count: int | None = column("processes of the tree, the most")
    threads_count: int | None = column("threads of all processes of the tree, the most")
    served_max_count: int | None = column("connections that a process of the server had open, most of a reading")
    served_mean_count: float | None = column("connections that a process of the server had open, mean of readings")
    sockets_readings_count: int | None = column("readings of the server's sockets, over all launches")
    queued_max_count: int | None = column("connections that waited to be accepted, the most")
    overflows_count: int | None = column("times that an accept queue was full, over all launches, machine-wide")
    timeouts_count: int | None = column("times that TCP sent again after a time-out, over all launches, machine-wide")
    forks_count: int | None = column("processes and threads that began meanwhile, over all launches, machine-wide")
    began_count: int | None = column(
        "of these in the server's tree, by the kernel's event of each; for Apache in the article's test"
    )
    new_processes_count: int | None = column("processes of the tree after the load that were not before, the most")
    waits_in: str | None = column("functions of the kernel in which its processes slept before the load (wchan)")
    idle_forks_count: int | None = column(
        "forks_count in as long without a load, measured for 2 s at most, where began_count is unknown"
    )
    process_bytes: stats.Interval | None = estimate(
        "process_bytes", "what one more process that has answered takes: PSS, page table, kernel stack"
    )
    process_pss_bytes: float | None = column("the same by PSS alone")
    process_private_bytes: float | None = column("the same by private pages alone")
    process_rss_bytes: float | None = column("the same by the sum of RSS")
    threads_ratio: stats.Interval | None = estimate("threads_ratio", "time of a loop on one thread over split on all")
    jobs_count: int | None = column("threads that a loop was split over; files that were opened at once")
    at_once_count: int | None = column("files of these whose opening had begun while the first ones lasted, the most")
    wave_ratio: stats.Interval | None = estimate("wave_ratio", "time of the last of these over that of the first")
    sockets_count: int | None = column("TCP sockets that the server had open, listeners too")
    nonblocking_sockets_count: int | None = column("of these non-blocking, the least")
    engine_version: str | None = column("the language's engine, as Node.js says")
    cpus_count: float | None = column("CPUs that this machine lets us have, by affinity and quota")
    left_pct: stats.Interval | None = estimate("left_pct", "CPU time of all CPUs that the server did not take")


INSIDE_A_SERVER = "inside a server"
CPU, MEMORY, SERVED = "CPU", "memory of the tree", "served at once"
VIEWS = (
    View("requests/s", "throughput_per_s", "throughput_lo_per_s", "throughput_hi_per_s"),
    View("failed", "failed_count"),
    View("p50", "request_p50_ns", "request_p50_lo_ns", "request_p50_hi_ns"),
    View("p99", "request_p99_ns", "request_p99_lo_ns", "request_p99_hi_ns"),
    View("longest", "request_longest_ns", priority=2),
    View("CPU/request", "cpu_per_request_ns", "cpu_per_request_lo_ns", "cpu_per_request_hi_ns", priority=3),
    View("server", "server_cpu_pct", "server_cpu_lo_pct", "server_cpu_hi_pct", group=CPU),
    View("user", "server_user_pct", group=CPU),
    View("system", "server_system_pct", group=CPU),
    View("CPU idle", "server_idle_pct", group=CPU, priority=2),
    View("load generator", "load_cpu_pct", group=CPU),
    View("requests/CPU s", "requests_per_cpu_s", group=CPU),
    View("of null server", "of_null_ratio", group=CPU, priority=2),
    View("at rest", "rest_pss_bytes", group=MEMORY),
    View("peak", "peak_pss_bytes", group=MEMORY),
    View("mean", "mean_pss_bytes", group=MEMORY),
    View("peak by RSS sum", "peak_rss_bytes", group=MEMORY),
    View("peak with kernel", "peak_bytes", "peak_lo_bytes", "peak_hi_bytes", group=MEMORY, priority=2),
    View("most served", "served_max_count", group=SERVED),
    View("mean", "served_mean_count", group=SERVED),
    View("most queued", "queued_max_count", group=SERVED),
    View("overflows", "overflows_count", group=SERVED),
    View("timeouts", "timeouts_count", group=SERVED, priority=2),
    View("processes", "processes_count", group=SERVED),
    View("threads", "threads_count", group=SERVED),
    View("a process", "process_bytes", "process_lo_bytes", "process_hi_bytes", group=INSIDE_A_SERVER),
    View("by RSS", "process_rss_bytes", group=INSIDE_A_SERVER, priority=2),
    View("split loop", "threads_ratio", "threads_lo_ratio", "threads_hi_ratio", group=INSIDE_A_SERVER),
    View("at once", "at_once_count", group=INSIDE_A_SERVER),
    View("last/first", "wave_ratio", "wave_lo_ratio", "wave_hi_ratio", group=INSIDE_A_SERVER, priority=2),
    View("CPU left", "left_pct", "left_lo_pct", "left_hi_pct", group=INSIDE_A_SERVER),
)


_LINES = ("arm", "load", "keep_alive")
_FULL = (("rate_pct", FULL_PCT), ("arm", (ARTICLE, FAIR)))
_OPEN = (("load", OPEN), ("keep_alive", "on"))
_TABLE = (("load", OPEN), ("keep_alive", "off"))


def _by_server(name: str, title: str, stem: str, suffix: str, *, at_end: bool = False) -> Chart:
    ends = (f"{stem}_lo{suffix}", f"{stem}_hi{suffix}")
    return Chart(name, title, "server", f"{stem}{suffix}", *ends, series=_LINES, at_end=at_end, where=_FULL)


def _by_rate(share: str, title: str) -> Chart:
    stem = f"request_{share}"
    ends = (f"{stem}_ns", f"{stem}_lo_ns", f"{stem}_hi_ns")
    name = f"latency-by-rate-{share}"
    return Chart(name, title, "rate_pct", *ends, series=("server",), log_y=True, where=_OPEN)


CHARTS = (
    _by_server("throughput", "Right answers a second", "throughput", "_per_s", at_end=True),
    Chart(
        "memory-over-time",
        "PSS of the server's processes while it is loaded",
        "at_ns",
        "pss_bytes",
        series=("server", "arm"),
        where=_FULL,
        from_samples=True,
    ),
    _by_server("latency", "Median latency at full load", "request_p50", "_ns"),
    _by_rate("p50", "Median latency from the intended moment, by share of capacity"),
    _by_rate("p99", "p99 latency from the intended moment, by share of capacity"),
    Chart(
        "latency-distribution",
        "Latency from the intended moment, not exceeded by a share, at 70 % of capacity",
        "share_pct",
        "latency_ns",
        series=("server",),
        log_y=True,
        where=(*_OPEN, ("rate_pct", 70)),
        from_samples=True,
    ),
    Chart(
        "efficiency", "Right answers for a second of CPU", "server", "requests_per_cpu_s", series=_LINES, where=_FULL
    ),
    Chart(
        "runtime-and-architecture",
        "CPU time for an answer by runtime and architecture, at half of capacity",
        "server",
        "cpu_per_request_ns",
        "cpu_per_request_lo_ns",
        "cpu_per_request_hi_ns",
        log_y=True,
        where=_TABLE,
    ),
    _by_server("memory", "Peak memory with page tables and stacks", "peak", "_bytes"),
)
PROCESS_METERS = {
    "tree_bytes": "process_bytes",
    "pss_bytes": "process_pss_bytes",
    "private_bytes": "process_private_bytes",
    "rss_bytes": "process_rss_bytes",
}
SUMS = (
    "requests_count",
    "told_requests_count",
    "failed_count",
    "failed_connect_count",
    "failed_receive_count",
    "failed_length_count",
    "failed_exceptions_count",
    "wrong_answers_count",
    "timed_out_count",
    "unsent_count",
    "memory_readings_count",
    "sockets_readings_count",
    "overflows_count",
    "timeouts_count",
    "forks_count",
    "began_count",
    "idle_forks_count",
)
_MEDIANS = {
    "capacity_load_cpu_pct": "capacity_load_cpu_pct",
    "intended_per_s": "intended_per_s",
    "requests_per_cpu_s": "requests_per_cpu_s",
    "server_user_pct": "server_user_pct",
    "server_system_pct": "server_system_pct",
    "server_idle_pct": "server_idle_pct",
    "load_cpu_pct": "load_cpu_pct",
    "rest_bytes": "rest_bytes",
    "rest_pss_bytes": "rest_pss_bytes",
    "peak_pss_bytes": "peak_pss_bytes",
    "mean_pss_bytes": "mean_pss_bytes",
    "peak_rss_bytes": "peak_rss_bytes",
    "available_fall_bytes": "available_fall_bytes",
    "served_mean_count": "served_mean_count",
}
_MOST = {
    "request_longest_ns": "longest_ns",
    "sender_late_ns": "sender_late_ns",
    "processes_count": "processes_count",
    "threads_count": "threads_count",
    "served_max_count": "served_max_count",
    "queued_max_count": "queued_max_count",
    "new_processes_count": "new_processes_count",
    "at_once_count": "at_once_count",
}
_INTERVALS = {
    "throughput_per_s": "throughput_per_s",
    "capacity_per_s": "capacity_per_s",
    "request_p50_ns": "p50_ns",
    "request_p90_ns": "p90_ns",
    "request_p99_ns": "p99_ns",
    "cpu_per_request_ns": "cpu_per_request_ns",
    "server_cpu_pct": "server_cpu_pct",
    "peak_bytes": "peak_bytes",
    "threads_ratio": "threads_ratio",
    "wave_ratio": "wave_ratio",
    "left_pct": "left_pct",
}
_SAME = (
    "jobs_count",
    "engine_version",
    "cpus_count",
    "sockets_count",
    "waits_in",
    "server_version",
    "header_bytes",
    "body_bytes",
    "connections_count",
    "script_cache",
    "workers_count",
)


def rows(samples: Sequence[Samples], seed: int) -> list[ServersRow]:
    """One row for each cell that has launches, in the order in which cells were first measured by name."""
    groups = by_cell(samples)
    made = [_row(key, groups[key], seed) for key in sorted(groups, key=_order)]
    return [_with_null(row, made) for row in made]


def by_cell(samples: Sequence[Samples]) -> dict[Key, list[Samples]]:
    """Launches by the values of their cell's key."""
    groups: dict[Key, list[Samples]] = {}
    for item in samples:
        texts = {name: str(item.key[name]) for name in Key._fields}
        key = Key(**{**texts, "rate_pct": int(item.key["rate_pct"])})  # type: ignore[arg-type]
        groups.setdefault(key, []).append(item)
    return groups


def _order(key: Key) -> tuple[object, ...]:
    ways = (key.arm != ARTICLE, key.arm == INSIDE, key.load == OPEN, key.keep_alive == "on")
    return (*ways, key.server == NULL, key.server, key.rate_pct, key.observed == "off")


def _row(key: Key, launches: Sequence[Samples], seed: int) -> ServersRow:
    found: dict[str, Any] = {name: launches[0].facts.get(name) for name in _SAME}
    counters = {str(item.facts["counted_by"]) for item in launches if item.facts.get("counted_by")}
    found["counted_by"] = " or ".join(sorted(counters)) or None
    found |= {name: whole_sum(name, launches) for name in SUMS}
    found |= {name: stats.median(known(fact, launches)) for name, fact in _MEDIANS.items()}
    found |= {name: max(known(fact, launches), default=None) for name, fact in _MOST.items()}
    for name in (name for name in _MOST if name.endswith("_count")):
        found[name] = None if found[name] is None else int(found[name])
    found |= {name: interval(fact, launches, seed) for name, fact in _INTERVALS.items()}
    found["nonblocking_sockets_count"] = _least("nonblocking_sockets_count", launches)
    found |= _of_a_process(launches)
    grade = grade_inside(found, key.load) if key.arm == INSIDE else grade_load(found, key.load, key.observed)
    found["kind"] = ", ".join(PLACES[key.server]) if key.server in PLACES else None
    found |= {"launches_count": len(launches), "grade": grade.level, "grade_reason": grade.reason}
    return ServersRow(**key._asdict(), **found)


def _least(name: str, launches: Sequence[Samples]) -> int | None:
    values = known(name, launches)
    return int(min(values)) if values else None


def _of_a_process(launches: Sequence[Samples]) -> dict[str, Any]:
    """What one process more takes: slopes over the numbers of processes, of all launches together."""
    counts = [count for item in launches for count in item.values.get("workers_count", ())]
    found: dict[str, Any] = {}
    for meter, name in PROCESS_METERS.items():
        sizes = [size for item in launches for size in item.values.get(meter, ())]
        slope = stats.slope(counts, sizes) if counts and len(sizes) == len(counts) else None
        found[name] = slope if name == "process_bytes" or slope is None else slope.middle
    return found


def _with_null(row: ServersRow, made: Sequence[ServersRow]) -> ServersRow:
    """Beside the null server: where a load generator had no more to give on that one either, it was the limit."""
    null = next((other for other in made if (other.server, *_load_of(other)) == (NULL, *_load_of(row))), None)
    above, below = row.throughput_per_s, None if null is None else null.throughput_per_s
    if null is None or above is None or below is None or not below.middle:
        return row
    ratio = above.middle / below.middle
    row = dataclasses.replace(row, of_null_ratio=ratio)
    is_ceiling = (null.load_cpu_pct or 0) > BUSY_PCT and not is_full_load(vars(null))  # else the null server was it
    if row.server == NULL or row.load == OPEN or not is_ceiling or ratio < NEAR_CEILING or row.grade == "void":
        return row
    text = f"{ratio:.2f}× of what the load generator reaches on the null server: it was the limit"
    grade = stats.Grade(row.grade, row.grade_reason).worse("void", text)
    return dataclasses.replace(row, grade=grade.level, grade_reason=grade.reason)


def _load_of(row: ServersRow) -> tuple[str, ...]:
    return row.arm, row.load, row.keep_alive, str(row.rate_pct), row.observed


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
