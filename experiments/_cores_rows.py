"""Rows, views and charts of cores."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from c10k_probe import stats
from c10k_probe.experiment import Chart, Finding, Row, Samples, View, column, estimate

from ._cores_design import ARMS, LONG, SHORT, CoresParameters, is_base, too_few_cpus

MOST_APART_PCT: Final = 10.0  # points of utilisation between two whose p99 is compared
BUSY_PCT: Final = 80.0  # of the client, of one CPU: above it the client was the limit
_PARTS: Final = {
    "closed": "closed_count",
    "open": "intended_count",
    "sparse": "sparse_count",
}  # of a launch: its requests
_MOST_FAILED: Final = 0.01  # of a part's requests
_STEPS: Final = 2000
_REACH: Final = 8.0  # standard deviations


@dataclass(frozen=True, kw_only=True)
class CoresRow(Row):
    """One arm with so many workers under one load; medians of launches."""

    arm: str = column("how connections come to several processes", key=True)
    workers_count: int = column("processes with an event loop", key=True)
    load: str = column("short: a connection for each request; long: kept connections", key=True)
    launches_count: int | None = column("fresh servers that were measured")
    cpus_count: int | None = column("CPUs that this run may use")
    server_cpus_count: int | None = column("of these: the server's; the client has one apart where there are two")
    throughput_per_s: stats.Interval | None = estimate("throughput_per_s", "closed loop: right answers")
    speed_up_ratio: stats.Interval | None = estimate(
        "speed_up_ratio", "throughput over that of one process with the same handler"
    )
    efficiency_ratio: stats.Interval | None = estimate("efficiency_ratio", "speed-up for each worker")
    speed_up_grade: str | None = column("ok, or void: then speed-up and efficiency are empty")
    speed_up_reason: str | None = column("why the speed-up is void")
    cpu_per_request_ns: stats.Interval | None = estimate(
        "cpu_per_request_ns", "closed loop: CPU time of the server's processes for an answer"
    )
    client_cpu_pct: float | None = column("closed loop: the client's CPU, of one CPU")
    failed_count: int | None = column("requests without a right answer, over all launches")
    intended_count: int | None = column("open loop: requests that were planned, over all launches")
    accepted_count: int | None = column("open loop: connections, over all launches")
    work_ns: int | None = column("CPU time of the handler for a request")
    utilisation_pct: float | None = column("open loop: CPU time of the workers, of what their CPUs could give")
    request_p50_ns: stats.Interval | None = estimate(
        "request_p50_ns", "open loop: median latency from the intended moment"
    )
    request_p99_ns: stats.Interval | None = estimate(
        "request_p99_ns", "open loop: 99th percentile of the same; what had no answer took for ever"
    )
    p99_over_single_ratio: stats.Interval | None = estimate(
        "p99_over_single_ratio", "p99 over that of one process, at the same share of its own capacity"
    )
    p99_reason: str | None = column("why p99 cannot be compared with that of one process")
    worker_shares: str | None = column("open loop: requests of each worker, first launch, the most first")
    max_to_mean_ratio: stats.Interval | None = estimate(
        "max_to_mean_ratio", "open loop: requests of the busiest worker over the mean"
    )
    binomial_ratio: float | None = column("what a fair hash of so many connections would give on average")
    wakeups_per_accept_ratio: stats.Interval | None = estimate(
        "wakeups_per_accept_ratio", "sparse loop: voluntary context switches of the workers for each connection"
    )
    all_wakeups_per_accept_ratio: stats.Interval | None = estimate(
        "all_wakeups_per_accept_ratio", "the same of all processes, a master's too"
    )
    busy_wakeups_per_accept_ratio: stats.Interval | None = estimate(
        "busy_wakeups_per_accept_ratio", "open loop: the same of the workers"
    )
    sparse_count: int | None = column("sparse loop: connections, over all launches")


@cache
def expected_highest(count: int) -> float:
    """The mean of the highest of ``count`` standard normal numbers."""
    normal, width = statistics.NormalDist(), 2 * _REACH / _STEPS
    points = [-_REACH + (step + 0.5) * width for step in range(_STEPS)]
    return sum(width * point * count * normal.pdf(point) * normal.cdf(point) ** (count - 1) for point in points)


def binomial_max_to_mean(connections_count: float, workers_count: int) -> float | None:
    """The mean of max over mean when each connection goes to one of the workers by chance, by the normal approximation.

    None under five connections for each worker, where it does not hold.
    """
    mean_count = connections_count / workers_count
    return 1 + expected_highest(workers_count) / mean_count**0.5 if mean_count >= 5 else None


def max_to_mean(requests: Sequence[int]) -> float | None:
    """None of one worker, and of no request."""
    total_count = sum(requests)
    return max(requests) * len(requests) / total_count if len(requests) > 1 and total_count else None


Found = Mapping[tuple[str, int, str], Sequence[Samples]]


def rows(parameters: CoresParameters, samples: Sequence[Samples], seed: int) -> list[CoresRow]:
    """One for each cell that has launches."""
    found: dict[tuple[str, int, str], list[Samples]] = {}
    for item in samples:
        key = (str(item.key["arm"]), int(item.key["workers_count"]), str(item.key["load"]))
        found.setdefault(key, []).append(item)
    order = {name: place for place, name in enumerate(ARMS)}
    return [
        _row(parameters, found, key, seed)
        for key in sorted(found, key=lambda key: (key[2] != SHORT, order[key[0]], key[1]))
    ]


def findings(parameters: CoresParameters, samples: Sequence[Samples], seed: int) -> list[Finding]:
    """Why there is no speed-up, or no p99 to compare, once for each reason, and of which arms; whether workers wait.

    Nothing where all is there.
    """
    made = rows(parameters, samples, seed)
    several = [row for row in made if not is_base(row.arm)]
    crowded = [row for row in several if row.workers_count > (row.server_cpus_count or 0)]
    found = _reasons(several, "speed-up", "speed_up_ratio", "speed_up_reason", "; shares and wake-ups stand")
    if crowded:
        most = max(crowded, key=lambda row: row.workers_count)
        cpus = "1 CPU" if most.server_cpus_count == 1 else f"{most.server_cpus_count} CPUs"
        found.append(Finding("workers", "workers_count", None, f"{most.workers_count} take turns on {cpus}"))
    return [*found, *_reasons(several, "p99 over single", "p99_over_single_ratio", "p99_reason", "")]


def _reasons(several: Sequence[CoresRow], what: str, name: str, reason_of: str, rest: str) -> list[Finding]:
    reasons: dict[str, list[str]] = {}
    for row in several:
        if reason := getattr(row, reason_of):
            reasons.setdefault(reason, []).append(f"{row.arm} ×{row.workers_count}")
    return [
        Finding(
            what if len(arms) == len(several) else f"{what} of {', '.join(dict.fromkeys(arms))}",
            name,
            None,
            f"void: {reason}{rest}",
        )
        for reason, arms in reasons.items()
    ]


def _row(parameters: CoresParameters, found: Found, key: tuple[str, int, str], seed: int) -> CoresRow:
    (name, workers_count, load), launches = key, found[key]
    base = found.get((ARMS[name].base, 1, load), ())
    throughput = stats.interval_of_all(_floats(launches, "throughput_per_s"), seed)
    failed_count = sum(_sum(launches, f"{part}_failed_count") for part in _PARTS)
    client_pct = stats.median_of_known(_floats(launches, "closed_client_pct"))
    grade = _grade(throughput, launches)
    return CoresRow(
        arm=name,
        workers_count=workers_count,
        load=load,
        launches_count=len(launches),
        cpus_count=_int(launches, "cpus_count"),
        server_cpus_count=_int(launches, "server_cpus_count"),
        throughput_per_s=throughput,
        **_speed_up(launches, base, workers_count, seed, single=is_base(name)),
        cpu_per_request_ns=stats.interval_of_all(_floats(launches, "cpu_per_request_ns"), seed),
        client_cpu_pct=client_pct,
        failed_count=failed_count,
        intended_count=_sum(launches, "intended_count"),
        accepted_count=_sum(launches, "accepted_count"),
        work_ns=parameters.work,
        utilisation_pct=_utilisation(launches),
        request_p50_ns=stats.interval_of_all(_floats(launches, "p50_ns"), seed),
        request_p99_ns=stats.interval_of_all(_floats(launches, "p99_ns"), seed),
        **({} if is_base(name) else _over_single(launches, base, parameters.utilisation, seed)),
        **_of_workers(parameters, key, launches, seed),
        grade=grade.level,
        grade_reason=grade.reason,
    )


def _speed_up(
    launches: Sequence[Samples], base: Sequence[Samples], workers_count: int, seed: int, *, single: bool
) -> dict[str, Any]:
    """Speed-up and efficiency, or why there is none; a single process has none to have."""
    if single:
        return {}
    why = too_few_cpus(_int(launches, "cpus_count"), _int(launches, "server_cpus_count"), workers_count)
    busiest_pct = max((float(value or 0) for value in _floats([*launches, *base], "closed_client_pct")), default=0.0)
    if not why and busiest_pct > BUSY_PCT:
        why = f"the client used {busiest_pct:.0f} % of its CPU, and may be the limit; a longer --work asks less of it"
    ratio = _paired(launches, base, "throughput_per_s", seed)
    if why or ratio is None:
        return {"speed_up_grade": "void", "speed_up_reason": why or "one process was not measured"}
    each = [None if end is None else end / workers_count for end in (ratio.low, ratio.high)]
    efficiency = stats.Interval(ratio.middle / workers_count, *each)
    return {"speed_up_ratio": ratio, "efficiency_ratio": efficiency, "speed_up_grade": "ok"}


def _of_workers(
    parameters: CoresParameters, key: tuple[str, int, str], launches: Sequence[Samples], seed: int
) -> dict[str, Any]:
    """Shares, and wake-ups where each request has a connection of its own."""
    name, workers_count, load = key
    shares = [item.values["worker_requests"] for item in launches]
    accepted_count = _sum(launches, "accepted_count") / len(launches)
    chances_count = accepted_count if load == SHORT else min(accepted_count, parameters.connections)
    is_hashed = ARMS[name].is_hashed and workers_count > 1
    found: dict[str, Any] = {
        "worker_shares": " ".join(map(str, sorted(shares[0], reverse=True))),
        "max_to_mean_ratio": stats.interval_of_all([max_to_mean(item) for item in shares], seed),
        "binomial_ratio": _chance(launches, chances_count, workers_count, load) if is_hashed else None,
    }
    if load == SHORT:
        found["sparse_count"] = _sum(launches, "sparse_count")
        for part in ("wakeups", "all_wakeups", "busy_wakeups"):
            found[f"{part}_per_accept_ratio"] = stats.interval_of_all(_floats(launches, part), seed)
    return found


def _chance(launches: Sequence[Samples], chances_count: float, workers_count: int, load: str) -> float | None:
    """Of kept connections both vary: how many a worker has, and how many requests come over each."""
    if load == LONG:
        requests_count = sum(sum(item.values["worker_requests"]) for item in launches) / len(launches)
        if not requests_count or not chances_count:
            return None
        chances_count = 1 / (1 / chances_count + 1 / requests_count)  # variances of the mean's parts add up
    return binomial_max_to_mean(chances_count, workers_count)


def _over_single(launches: Sequence[Samples], base: Sequence[Samples], asked_pct: int, seed: int) -> dict[str, Any]:
    """p99 over that of one process, or why there is none: at another utilisation it would say nothing."""
    ratio = _paired(launches, base, "p99_ns", seed)
    if ratio is None:
        return {"p99_reason": "one process was not measured, or a p99 is missing"}
    own_pct, base_pct = _utilisation(launches), _utilisation(base)
    if own_pct is None or base_pct is None:
        return {"p99_reason": "the workers' CPU time could not be read"}
    if abs(own_pct - base_pct) > MOST_APART_PCT:
        return {"p99_reason": f"utilisation is {own_pct:.0f} %, that of one process {base_pct:.0f} %"}
    if min(own_pct, base_pct) < asked_pct / 2:
        return {"p99_reason": f"utilisation is {min(own_pct, base_pct):.0f} % for {asked_pct} %: others had the CPU"}
    return {"p99_over_single_ratio": ratio}


def _utilisation(launches: Sequence[Samples]) -> float | None:
    return stats.median_of_known(_floats(launches, "utilisation_pct"))


def _grade(throughput: stats.Interval | None, launches: Sequence[Samples]) -> stats.Grade:
    """Of each loop by itself: what fails in a short one is not lost among the requests of a long one."""
    grade = stats.grade_interval(throughput, "throughput")
    for part, all_of_it in _PARTS.items():
        if failed_count := _sum(launches, f"{part}_failed_count"):
            level = "void" if failed_count > _MOST_FAILED * _sum(launches, all_of_it) else "shaky"
            grade = grade.worse(level, f"{part} loop: {failed_count} requests had no right answer")
    return grade


def _floats(launches: Sequence[Samples], name: str) -> list[float | None]:
    return [None if (value := item.facts.get(name)) is None else float(value) for item in launches]


def _sum(launches: Sequence[Samples], name: str) -> int:
    return sum(int(item.facts.get(name) or 0) for item in launches)


def _int(launches: Sequence[Samples], name: str) -> int:
    return int(launches[0].facts[name] or 0)


def _paired(launches: Sequence[Samples], base: Sequence[Samples], name: str, seed: int) -> stats.Interval | None:
    """The ratio of this fact, by blocks in which both have it."""
    above, below = (
        {item.block: [float(item.facts[name] or 0)] for item in of_arm if item.facts.get(name) is not None}
        for of_arm in (launches, base)
    )
    return stats.paired_ratio(above, below, seed)


_WORKERS, _OPEN = "shares and wake-ups", "at equal utilisation"
VIEWS = (
    View("requests/s", "throughput_per_s", "throughput_lo_per_s", "throughput_hi_per_s"),
    View("speed-up", "speed_up_ratio", "speed_up_lo_ratio", "speed_up_hi_ratio"),
    View("efficiency", "efficiency_ratio", "efficiency_lo_ratio", "efficiency_hi_ratio", priority=2),
    View("speed-up is", "speed_up_grade"),
    View("CPU/request", "cpu_per_request_ns", "cpu_per_request_lo_ns", "cpu_per_request_hi_ns", priority=3),
    View("client", "client_cpu_pct", priority=3),
    View("utilisation", "utilisation_pct", group=_OPEN),
    View("p50", "request_p50_ns", "request_p50_lo_ns", "request_p50_hi_ns", group=_OPEN, priority=2),
    View("p99", "request_p99_ns", "request_p99_lo_ns", "request_p99_hi_ns", group=_OPEN),
    View("over single", "p99_over_single_ratio", "p99_over_single_lo_ratio", "p99_over_single_hi_ratio", group=_OPEN),
    View("failed", "failed_count", group=_OPEN),
    View("max/mean", "max_to_mean_ratio", "max_to_mean_lo_ratio", "max_to_mean_hi_ratio", group=_WORKERS),
    View("by chance", "binomial_ratio", group=_WORKERS),
    View(
        "wake-ups",
        "wakeups_per_accept_ratio",
        "wakeups_per_accept_lo_ratio",
        "wakeups_per_accept_hi_ratio",
        group=_WORKERS,
    ),
    View("under load", "busy_wakeups_per_accept_ratio", group=_WORKERS, priority=2),
    View("requests of each", "worker_shares", group=_WORKERS, priority=3),
)
_LINES = ("workers_count", "load")
CHARTS = (
    Chart(
        "imbalance",
        "Requests of the busiest worker over the mean",
        "arm",
        "max_to_mean_ratio",
        "max_to_mean_lo_ratio",
        "max_to_mean_hi_ratio",
        series=_LINES,
    ),
    Chart(
        "wakeups",
        "Wake-ups of workers for each connection that finds all asleep",
        "arm",
        "wakeups_per_accept_ratio",
        "wakeups_per_accept_lo_ratio",
        "wakeups_per_accept_hi_ratio",
        series=("workers_count",),
        where=(("load", SHORT),),
        at_end=True,
    ),
    Chart(
        "p99",
        "p99 at an equal share of capacity",
        "arm",
        "request_p99_ns",
        "request_p99_lo_ns",
        "request_p99_hi_ns",
        series=_LINES,
    ),
    Chart(
        "throughput",
        "Right answers a second, closed loop",
        "arm",
        "throughput_per_s",
        "throughput_lo_per_s",
        "throughput_hi_per_s",
        series=_LINES,
    ),
    Chart(
        "speed-up",
        "Speed-up over one process",
        "workers_count",
        "speed_up_ratio",
        "speed_up_lo_ratio",
        "speed_up_hi_ratio",
        series=("arm", "load"),
    ),
)
