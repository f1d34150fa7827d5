"""The rows of ``blocking``, and what is shown of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from c10k_probe import native, stats
from c10k_probe.experiment import Chart, Row, Samples, View, column, estimate

from ._blocking_design import CALLS, LIMIT, LIMIT_WORKERS, OPEN, PARTS, SECOND

BUSY_CLIENT_PCT: Final = 80
BUSY_SERVER_PCT: Final = 90  # of each of its CPUs
REACHED: Final = 0.95  # of what Little's law allows


@dataclass(frozen=True, kw_only=True)
class BlockingRow(Row):
    """One load on one server, or one call alone. What a part does not measure is empty."""

    part: str = column("what was asked: plateau, second-user, limit, surface, one-cpu, calls", key=True)
    model: str = column("how requests are served; of calls: which call, and what ends it", key=True)
    workers: str = column("workers that requests share, or per request", key=True)
    delay_ns: int | str = column(
        "the backend's delay, or its mean, or never; of calls: when the other end acts", key=True
    )
    cpu_ns: int = column("CPU time that the handler spends on each request", key=True)
    concurrency_count: int = column(
        "requests under way at a time; of open-loop: offered, the arrivals' rate times the delay", key=True, ramp=True
    )
    places_count: int | None = column("requests that the server can have under way, W of Little's law")
    requests_per_s: stats.Interval | None = estimate("requests_per_s", "answers a second, median of launches")
    line_per_s: float | None = column(
        "Little's law: the fewer of requests and places over delay and CPU time; no more than the CPUs can do; "
        "of open-loop with places enough: what came"
    )
    of_line_ratio: stats.Interval | None = estimate("of_line_ratio", "answers a second over the line")
    limited_by: str = column(
        "what limits answers a second: requests under way, places (W/S), server CPU, client CPU; empty: none is reached"
    )
    queue_ns: stats.Interval | None = estimate(
        "queue_ns",
        "from the kernel's reception of a request to its worker, mean; empty where the queue was still growing",
    )
    queue_by_little_ns: stats.Interval | None = estimate(
        "queue_by_little_ns",
        "the same by Little's law: requests under way over answers a second, less in_worker_ns; connecting included",
    )
    in_worker_ns: stats.Interval | None = estimate("in_worker_ns", "from its worker's first byte to the answer, mean")
    in_worker_over_full_ratio: stats.Interval | None = estimate(
        "in_worker_over_full_ratio", "in_worker_ns over that with as many requests as workers, in the same launch"
    )
    backend_wait_ns: stats.Interval | None = estimate("backend_wait_ns", "what a worker waited for the backend, mean")
    latency_p50_ns: float | None = column("the client's: from connecting to the answer, median of launches' medians")
    waiting_pct: stats.Interval | None = estimate(
        "waiting_pct", "of the workers asleep (state S or D) at a random look"
    )
    off_cpu_pct: stats.Interval | None = estimate("off_cpu_pct", "of the places' wall time that no CPU was used")
    server_cpu_pct: stats.Interval | None = estimate("server_cpu_pct", "CPU time of all the server's tasks, of one CPU")
    requests_per_cpu_s: stats.Interval | None = estimate(
        "requests_per_cpu_s", "answers for a second of the server's CPU"
    )
    memory_bytes: int | None = column("PSS, page tables and kernel stacks of the server when the window ends, median")
    tasks_count: int | None = column("processes and threads of the server when the window ends, median")
    alone_ns: stats.Interval | None = estimate("alone_ns", "a second user's request while nobody else is there")
    beside_ns: stats.Interval | None = estimate("beside_ns", "the same while the first user's request waits")
    added_ns: stats.Interval | None = estimate("added_ns", "by how much the first user's request delays it, in pairs")
    blocked_ns: stats.Interval | None = estimate("blocked_ns", "how long the call blocked")
    after_ns: stats.Interval | None = estimate("after_ns", "how long after the other end's act it returned")
    backend_asked_count: int | None = column("questions, by the backend's own count")
    server_asked_count: int | None = column("questions, by the server's count")
    backend_failed_count: int | None = column("requests that failed for the backend, warm-up and end included")
    failed_count: int | None = column("requests without a right answer, in the window; of calls: that ended otherwise")
    listen_drops_count: int | None = column(
        "times that a SYN or the end of a handshake found the server's accept queue full (sk_drops of its listener)"
    )
    client_cpu_pct: float | None = column("the client's CPU time, of one CPU, median")
    backend_cpu_pct: float | None = column("the backend's CPU time, of the same CPU, median")
    launches_count: int | None = column("fresh servers")


def _view(header: str, name: str, unit: str, group: str = "", priority: int = 1) -> View:
    return View(header, name + unit, f"{name}_lo{unit}", f"{name}_hi{unit}", group=group, priority=priority)


_WAITING, _SECOND, _COST, _CALLS = "where the time goes", "a second user", "what it takes", "calls alone"
VIEWS: Final = (
    _view("requests/s", "requests", "_per_s"),
    View("W/S", "line_per_s", priority=2),
    _view("of W/S", "of_line", "_ratio"),
    View("limited by", "limited_by", priority=2),
    _view("CPU", "server_cpu", "_pct", priority=2),
    _view("in queue", "queue", "_ns", _WAITING),
    _view("by Little", "queue_by_little", "_ns", _WAITING, 2),
    _view("in worker", "in_worker", "_ns", _WAITING),
    _view("over full", "in_worker_over_full", "_ratio", _WAITING, 2),
    _view("asleep", "waiting", "_pct", _WAITING, 2),
    _view("off CPU", "off_cpu", "_pct", _WAITING, 3),
    _view("alone", "alone", "_ns", _SECOND, 2),
    _view("beside", "beside", "_ns", _SECOND),
    _view("added", "added", "_ns", _SECOND),
    _view("requests/CPU s", "requests", "_per_cpu_s", _COST),
    View("memory", "memory_bytes", group=_COST),
    View("tasks", "tasks_count", group=_COST, priority=2),
    _view("blocked", "blocked", "_ns", _CALLS),
    _view("after the act", "after", "_ns", _CALLS),
)


def _chart(name: str, title: str, stem: str, unit: str) -> Chart:
    y, low, high = f"{stem}{unit}", f"{stem}_lo{unit}", f"{stem}_hi{unit}"
    series = ("part", "model", "workers", "delay_ns", "cpu_ns")
    return Chart(name, title, "concurrency_count", y, low, high, series, log_x=True, log_y=True)


CHARTS: Final = (
    _chart("throughput", "Answers a second by requests under way", "requests", "_per_s"),
    _chart("queue", "Time in the queue by requests under way, by Little's law", "queue_by_little", "_ns"),
    _chart("in-worker", "Time in the worker by requests under way", "in_worker", "_ns"),
    Chart(
        "memory",
        "Memory of the server by requests under way",
        "concurrency_count",
        "memory_bytes",
        series=("part", "model", "workers", "delay_ns", "cpu_ns"),
        log_x=True,
        log_y=True,
    ),
)

_ESTIMATES: Final = (
    "requests_per_s",
    "of_line_ratio",
    "queue_ns",
    "queue_by_little_ns",
    "in_worker_ns",
    "backend_wait_ns",
    "waiting_pct",
    "off_cpu_pct",
    "server_cpu_pct",
    "requests_per_cpu_s",
)
_OF_TRIALS: Final = ("alone", "beside", "added", "blocked", "after")


def rows(samples: Sequence[Samples], seed: int) -> list[BlockingRow]:
    """One row for each load that has launches."""
    by_key: dict[tuple[str | int, ...], list[Samples]] = {}
    for item in samples:
        by_key.setdefault(tuple(item.key.values()), []).append(item)
    return [_row(launches, samples, seed) for _, launches in sorted(by_key.items(), key=_place)]


def _place(pair: tuple[tuple[str | int, ...], list[Samples]]) -> tuple[object, ...]:
    """Where a row stands: numbers by their size, also the number of workers, and by the order of the parts."""
    key = pair[1][0].key
    workers = str(key["workers"])
    workers_count = int(workers) if workers.isdigit() else 0
    delay_ns = key["delay_ns"] if isinstance(key["delay_ns"], int) else math.inf
    numbers = (delay_ns, int(key["cpu_ns"]), int(key["concurrency_count"]))
    return PARTS.index(str(key["part"])), str(key["model"]), workers_count, *numbers


def usable(samples: Sequence[Samples], seed: int) -> list[Samples]:
    """Those of rows that are not void."""
    void = {tuple(getattr(row, name) for name in samples[0].key) for row in rows(samples, seed) if row.grade == "void"}
    return [item for item in samples if tuple(item.key.values()) not in void]


def _fact(name: str) -> Callable[[Samples], float | None]:
    return lambda item: None if item.facts.get(name) is None else float(item.facts[name] or 0)


def _row(launches: Sequence[Samples], samples: Sequence[Samples], seed: int) -> BlockingRow:
    key = dict(launches[0].key)
    estimates = {name: stats.interval_of_all(map(_fact(name), launches), seed) for name in _ESTIMATES}
    estimates |= {f"{name}_ns": _of_trials(launches, name, seed) for name in _OF_TRIALS}
    if key["part"] == LIMIT:
        estimates["in_worker_over_full_ratio"] = _over_full(launches, samples, seed)
    grade = _grade(launches, estimates)
    values: dict[str, Any] = {**key, **estimates}
    for name in ("memory_bytes", "tasks_count"):
        middle = stats.median_of_known(map(_fact(name), launches))
        values[name] = None if middle is None else round(middle)
    return BlockingRow(
        **values,
        places_count=_whole(launches[0].facts.get("places_count")),
        line_per_s=stats.median_of_known(map(_fact("line_per_s"), launches)),
        latency_p50_ns=stats.median_of_known(map(_fact("latency_p50_ns"), launches)),
        backend_asked_count=_sum(launches, "backend_asked_count"),
        server_asked_count=_sum(launches, "server_asked_count"),
        backend_failed_count=_sum(launches, "backend_failed_count"),
        failed_count=_sum(launches, "failed_count"),
        listen_drops_count=_sum(launches, "listen_drops_count"),
        client_cpu_pct=stats.median_of_known(map(_fact("client_cpu_pct"), launches)),
        backend_cpu_pct=stats.median_of_known(map(_fact("backend_cpu_pct"), launches)),
        limited_by=_limited_by(launches, estimates),
        launches_count=len(launches),
        grade=grade.level,
        grade_reason=grade.reason,
    )


def _of_trials(launches: Sequence[Samples], name: str, seed: int) -> stats.Interval | None:
    medians = [stats.median(item.values[name]) for item in launches if len(item.values.get(name, ()))]
    return stats.interval_of_all(medians, seed) if medians else None


def _over_full(launches: Sequence[Samples], samples: Sequence[Samples], seed: int) -> stats.Interval | None:
    """Over the step of the same launch in which every worker is busy and nobody waits."""
    full = {
        item.block: [value]
        for item in samples
        if item.key["part"] == LIMIT
        and item.key["concurrency_count"] == LIMIT_WORKERS
        and (value := _fact("in_worker_ns")(item)) is not None
    }
    arm = {item.block: [value] for item in launches if (value := _fact("in_worker_ns")(item)) is not None}
    return stats.paired_ratio(arm, full, seed)


def _grade(launches: Sequence[Samples], estimates: dict[str, stats.Interval | None]) -> stats.Grade:
    part = launches[0].key["part"]
    grade = stats.Grade()
    if part in (CALLS, SECOND):  # its width is not compared: microseconds of one second
        name = "blocked" if part == CALLS else "added"
        interval = estimates[f"{name}_ns"]
        if interval is None or interval.low is None:
            grade = stats.Grade("shaky", f"{name}: too few launches for an interval")
    else:
        # how many come in an open loop is chance, and not the server's
        name, words = ("of_line_ratio", "of W/S") if part == OPEN else ("requests_per_s", "requests/s")
        grade = stats.grade_interval(estimates[name], words)
        client_pct = _clients_cpu_pct(launches)
        if client_pct > BUSY_CLIENT_PCT:
            words = f"client and backend used {client_pct:.0f} % of their CPU: the server could do more"
            grade = grade.worse("shaky", words)
    failed = _sum(launches, "failed_count") or 0
    if failed:
        grade = grade.worse("shaky", f"{failed:,} failed")
    dropped = _sum(launches, "listen_drops_count") or 0
    if dropped and not _is_kept_busy(launches, estimates["of_line_ratio"]):
        grade = grade.worse("shaky", f"the accept queue dropped {dropped:,} SYNs, which come again after 1 s and more")
    by_backend = _sum(launches, "backend_failed_count") or 0
    if by_backend:
        grade = grade.worse("shaky", f"the backend failed {by_backend:,} requests, or was too slow for them")
    if (due := next((item for item in launches if item.facts.get("fault_after_count") is not None), None)) is not None:
        words = f"the backend's fault had not begun: it comes after {due.facts['fault_after_count']:,} questions"
        grade = grade.worse("shaky", words)
    asked, by_server = _sum(launches, "backend_asked_count"), _sum(launches, "server_asked_count")
    if asked != by_server:
        grade = grade.worse("void", f"the backend counted {asked or 0:,} questions, the server {by_server or 0:,}")
    return _with_own_failures(grade, launches)


def _clients_cpu_pct(launches: Sequence[Samples]) -> float:
    """Client and backend share a CPU: of that one, both together."""
    return sum(
        stats.median_of_known(map(_fact(name), launches)) or 0.0 for name in ("client_cpu_pct", "backend_cpu_pct")
    )


def _is_kept_busy(launches: Sequence[Samples], of_line: stats.Interval | None) -> bool:
    """More requests than places, and answers as the law has them: what the queue dropped did not keep a place idle."""
    places_count = _whole(launches[0].facts.get("places_count"))
    is_more = places_count is not None and int(launches[0].key["concurrency_count"]) > places_count
    return is_more and of_line is not None and (of_line.middle if of_line.low is None else of_line.low) >= REACHED


def _limited_by(launches: Sequence[Samples], estimates: dict[str, stats.Interval | None]) -> str:
    of_line, cpu = estimates["of_line_ratio"], estimates["server_cpu_pct"]
    places_count = _whole(launches[0].facts.get("places_count"))
    if of_line is None or cpu is None or places_count is None:
        return ""
    if _clients_cpu_pct(launches) > BUSY_CLIENT_PCT:
        return "client CPU"
    if cpu.middle > BUSY_SERVER_PCT * len(native.split_cpus()[0]):
        return "server CPU"
    if of_line.middle < REACHED:
        return ""
    return "places" if int(launches[0].key["concurrency_count"]) > places_count else "requests"


def _with_own_failures(grade: stats.Grade, launches: Sequence[Samples]) -> stats.Grade:
    """What failed on the client's side: void where fewer connections were served than asked for."""
    for item in launches:
        if not item.facts.get("own_failure"):
            continue
        served_count, asked_count = item.facts["served_connections_count"], item.key["concurrency_count"]
        level = "void" if int(served_count or 0) < int(asked_count) else "shaky"
        grade = grade.worse(level, f"the client could not open a connection: {item.facts['own_failure']}")
    return grade


def _sum(launches: Sequence[Samples], name: str) -> int | None:
    values = [item.facts.get(name) for item in launches]
    return None if None in values else sum(int(value or 0) for value in values)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None
