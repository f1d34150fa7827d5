"""Rows, views and charts of goodput."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from c10k_probe import stats
from c10k_probe.experiment import Chart, Row, Samples, View, column, estimate

from ._goodput_design import CLOSED, FEW_LOAD_PCT, FULL_PCT, KNEE_SEARCH, OPEN
from ._goodput_knee import Trial, Way, cut, evidence, interval, of_load, of_rate, trial_of, way_of

CLIENT_FULL_PCT: Final = 90  # of a CPU: the sender was the limit
LATE_SHAKY_SHARE: Final = 0.25  # of the bound, by which the sender itself was late
PASSING_RATIO: Final = 1.25  # of the capacity, which is known within a tenth or so: more goodput is not for long
UNSENT_SHAKY_SHARE: Final = 0.01  # of what was due: the limit of connections decided what the server was asked
Key = tuple[str, str, str, str, int, int]  # model, work, keep_alive, loop, load, clients


@dataclass(frozen=True, kw_only=True)
class GoodputRow(Row):
    """One model under one load; medians of launches, sums of counts."""

    model: str = column("how a connection is served", key=True)
    work: str = column("what the handler does for each request", key=True)
    keep_alive: str = column("whether connections stay (on), or each request has a new one (off)", key=True)
    loop: str = column(
        "open: requests on a schedule; closed: each client asks again when it has its answer; "
        "knee: all loads that were tried after a rush",
        key=True,
    )
    load_pct: int = column(
        "offered load, of the capacity of the launch; of a closed loop, which offers itself, and of a knee 100",
        key=True,
    )
    clients_count: int = column("clients of a closed loop; connections at a time, at most, of an open one", key=True)
    launches_count: int | None = column("fresh servers that were measured")
    bound_ns: int | None = column("the latency up to which an answer is good")
    capacity_per_s: stats.Interval | None = estimate("capacity_per_s", "answers of 64 clients in a closed loop")
    offered_per_s: float | None = column("requests that were due; empty in a closed loop")
    goodput_per_s: stats.Interval | None = estimate("goodput_per_s", "requests answered within the bound")
    good_pct: stats.Interval | None = estimate("good_pct", "of the requests that were due, those answered in time")
    of_best_ratio: stats.Interval | None = estimate("of_best_ratio", "goodput over the best of any load, by launch")
    knee_pct: stats.Interval | None = estimate(
        "knee_pct", "highest load, of capacity, of which 99 % is answered in time after a rush"
    )
    knee_per_s: stats.Interval | None = estimate("knee_per_s", "the same, in requests offered")
    due_count: int | None = column("requests that were due in the counted window, over all launches")
    good_count: int | None = column("of these: answered within the bound")
    late_count: int | None = column("of these: answered later")
    timed_out_count: int | None = column(
        "of these: given up by the client, twice the bound after they were due or at the end of the load"
    )
    unsent_count: int | None = column("of these: found no free connection until they were given up")
    rush_count: int | None = column("requests of the rush before an open load, not counted, over all launches")
    overflows_count: int | None = column(
        "handshakes that found an accept queue full, whole network namespace, from the start of each server to its "
        "end, which is over all loads above capacity, or over all up to it"
    )
    refused_count: int | None = column("of these: their connection was refused")
    reset_count: int | None = column("of these: their connection broke")
    wrong_count: int | None = column("of these: answered with another status than 2xx")
    failed_count: int | None = column("of these: had no right answer; of a closed loop, where kinds are not told apart")
    request_p50_ns: float | None = column("median latency of what was due, median of launches; empty: never answered")
    request_p99_ns: float | None = column("99th percentile of latency, median of launches; empty: never answered")
    served_clients_count: int | None = column("clients that had an answer in the window, the fewest of a launch")
    walls_count: int | None = column("calls of the server that failed for a limit, over all launches")
    client_cpu_pct: float | None = column("CPU of the sender, of one CPU, the most of a launch")
    longest_late_ns: int | None = column("how late the sender itself was at most, of all launches")


_COUNTS = (
    *("due", "good", "late", "timed_out", "unsent", "refused", "reset", "wrong", "failed"),
    *("rush", "overflows", "walls"),
)
_ALIKE_POINTS = 1.0  # shares in time of two launches that are as good as the same
VIEWS = (
    View("in time", "good_pct", "good_lo_pct", "good_hi_pct"),
    View("goodput", "goodput_per_s", "goodput_lo_per_s", "goodput_hi_per_s"),
    View("of best", "of_best_ratio", "of_best_lo_ratio", "of_best_hi_ratio"),
    View("knee", "knee_pct", "knee_lo_pct", "knee_hi_pct"),
    View("offered", "offered_per_s", priority=2),
    View("p99", "request_p99_ns", priority=2),
    View("client CPU", "client_cpu_pct", priority=3),
    View("p50", "request_p50_ns", priority=4),
)
_SERIES = ("model", "work", "keep_alive")
_CONDITIONS = ("bound_ns",)
CHARTS = (
    Chart(
        "goodput",
        "Requests answered in time, by the load that was offered",
        "load_pct",
        "goodput_per_s",
        "goodput_lo_per_s",
        "goodput_hi_per_s",
        series=_SERIES,
        where=(("loop", OPEN),),
        at_end=True,
        told=_CONDITIONS,
    ),
    Chart(
        "in-time",
        "Share of requests answered in time, by the load that was offered",
        "load_pct",
        "good_pct",
        "good_lo_pct",
        "good_hi_pct",
        series=_SERIES,
        where=(("loop", OPEN),),
        told=_CONDITIONS,
    ),
    Chart(
        "knee",
        "The knee: the highest load of which 99 % is answered in time after a rush",
        "model",
        "knee_pct",
        "knee_lo_pct",
        "knee_hi_pct",
        series=("work", "keep_alive"),
        where=(("loop", KNEE_SEARCH),),
        told=_CONDITIONS,
    ),
    Chart(
        "clients",
        "Requests answered in time, by clients in a closed loop",
        "clients_count",
        "goodput_per_s",
        "goodput_lo_per_s",
        "goodput_hi_per_s",
        series=_SERIES,
        where=(("loop", CLOSED),),
        log_x=True,
        told=_CONDITIONS,
    ),
    Chart(
        "latency",
        "99th percentile of latency, by the load that was offered",
        "load_pct",
        "request_p99_ns",
        series=_SERIES,
        where=(("loop", OPEN),),
        log_y=True,
        told=_CONDITIONS,
    ),
)


def rows(samples: Sequence[Samples], seed: int, bound_ns: int) -> list[GoodputRow]:
    """One row for each load of each cell, by model and then by load; and one for each knee."""
    groups, best = by_load(samples), best_by_launch(samples)
    made = {key: _row(key, launches, best, seed, bound_ns) for key, launches in groups.items() if key[3] != KNEE_SEARCH}
    for way, launches in tried(samples, seed, bound_ns).items():
        row = _knee_row(way, launches, seed, bound_ns)
        made[*way, KNEE_SEARCH, FULL_PCT, row.clients_count] = row
    return [made[key] for key in sorted(made, key=_place)]


def tried(samples: Sequence[Samples], seed: int, bound_ns: int) -> dict[Way, list[Samples]]:
    """The launches with one load after a rush in which the sender was not the limit."""
    found: dict[Way, list[Samples]] = {}
    for item in samples:
        if item.key["loop"] == KNEE_SEARCH and grade_of([item], bound_ns, seed).level != "void":
            found.setdefault(way_of(item.key), []).append(item)
    return found


def trials_of(launches: Sequence[Samples]) -> list[Trial]:
    """What they say of the knee."""
    return [trial for item in launches if (trial := trial_of(item)) is not None]


def knee_note(trials: Sequence[Trial]) -> str:
    """What was seen near it, or why there is none."""
    found = cut(itertools.chain(*of_load(trials)))
    side = (
        "all loads that were tried are carried" if found.above == float("inf") else "no load that was tried is carried"
    )
    return evidence(trials, found) if found.is_inside else f"{side}; {evidence(trials, found)}"


def best_by_launch(samples: Sequence[Samples]) -> dict[tuple[Way, int], float]:
    """The best goodput of any load in an open loop that its server can give for long, of each launch."""
    best: dict[tuple[Way, int], float] = {}
    for item in samples:
        if item.key["loop"] == OPEN and (values := known("goodput_per_s", [item])) and not is_passing(item):
            place = way_of(item.key), item.block
            best[place] = max(best.get(place, 0.0), *values)
    return best


def by_load(samples: Sequence[Samples]) -> dict[Key, list[Samples]]:
    """Launches by the row they belong to."""
    groups: dict[Key, list[Samples]] = {}
    for item in samples:
        model, work, keep_alive, loop = (str(item.key[name]) for name in ("model", "work", "keep_alive", "loop"))
        key = (model, work, keep_alive, loop, int(item.key["load_pct"]), int(item.key["clients_count"]))
        groups.setdefault(key, []).append(item)
    return groups


def known(name: str, launches: Sequence[Samples]) -> list[float]:
    """A fact of the launches that have it."""
    return [float(value) for item in launches if isinstance(value := item.facts.get(name), (int, float))]


def is_passing(item: Samples) -> bool:
    """Whether more was in time than the server can do for long: of a short window, by what it leaves for later."""
    goodput, capacity = (known(name, [item]) for name in ("goodput_per_s", "capacity_per_s"))
    return bool(goodput and capacity and goodput[0] > PASSING_RATIO * capacity[0])


def by_block(name: str, launches: Sequence[Samples]) -> dict[int, list[float]]:
    """A fact by the block it was measured in."""
    return {item.block: values for item in launches if (values := known(name, [item]))}


def grade_of(launches: Sequence[Samples], bound_ns: int, seed: int) -> stats.Grade:
    """How far a row may be trusted: void where the sender was the limit."""
    grade = _grade_width(launches, seed)
    failures = [str(item.facts["own_failure"]) for item in launches if item.facts.get("own_failure")]
    if failures:
        grade = grade.worse("void", f"the sender could not open connections: {failures[0]}")
    if not sum(known("due_count", launches)):
        grade = grade.worse("void", "no request was due")
    for name, what in (("client_cpu_pct", "the sender"), ("capacity_client_pct", "the sender, for the capacity,")):
        if (most := max(known(name, launches), default=0.0)) > CLIENT_FULL_PCT:
            grade = grade.worse("void", f"{what} used {most:.0f} % of its CPU: it was the limit")
    if wall := next((str(item.facts["first_wall"]) for item in launches if item.facts.get("first_wall")), ""):
        grade = grade.worse("shaky", f"the server ran into a limit ({wall})")
    if launches[0].key["loop"] == OPEN and 2 * sum(map(is_passing, launches)) > len(launches):
        grade = grade.worse("void", "more is in time than the server can do for long: a longer --window shows what is")
    keeps_alive = any(item.key["keep_alive"] == "on" for item in launches)  # their number is what is asked there
    unsent_count, due_count = sum(known("unsent_count", launches)), sum(known("due_count", launches))
    if not keeps_alive and unsent_count > UNSENT_SHAKY_SHARE * due_count:
        share_pct = 100 * unsent_count / due_count
        grade = grade.worse("shaky", f"{share_pct:.0f} % found no connection free: --connections is the limit")
    late_ns = max(known("longest_late_ns", launches), default=0.0)
    if late_ns > LATE_SHAKY_SHARE * bound_ns:
        level = "void" if late_ns > bound_ns else "shaky"
        grade = grade.worse(
            level, f"the sender was late by {late_ns / 1e6:.1f} ms itself, at a bound of {bound_ns / 1e6:g} ms"
        )
    return grade


def _grade_width(launches: Sequence[Samples], seed: int) -> stats.Grade:
    """By goodput. Where its middle is 0, which no width can be compared with, by the share in time, in points.

    A load that is asked of few launches by intent is as good as their shares in time are alike.
    """
    shares = known("good_pct", launches)
    is_few = len(launches) < stats.MINIMUM_LAUNCHES and all(
        item.key["loop"] == OPEN and int(item.key["load_pct"]) <= FEW_LOAD_PCT for item in launches
    )
    if is_few and len(shares) == len(launches) > 1:
        apart = max(shares) - min(shares)
        return stats.Grade("shaky", f"in time: {apart:.0f} points apart") if apart > _ALIKE_POINTS else stats.Grade()
    goodput, share_pct = (_interval(name, launches, seed) for name in ("goodput_per_s", "good_pct"))
    if goodput is None or goodput.middle or share_pct is None or share_pct.low is None or share_pct.high is None:
        return stats.grade_interval(goodput, "goodput")
    half_pct = (share_pct.high - share_pct.low) / 2
    if half_pct > 100 * stats.SHAKY_RELATIVE_HALF_WIDTH:
        return stats.Grade("shaky", f"in time: interval is ±{half_pct:.0f} points")
    return stats.Grade()


def _place(key: Key) -> tuple[object, ...]:
    """Where a row stands: open loops, knees, closed loops, each by its amount."""
    model, work, keep_alive, loop, load_pct, clients_count = key
    return work, keep_alive, (OPEN, KNEE_SEARCH, CLOSED).index(loop), model, load_pct, clients_count


def _knee_row(way: Way, launches: Sequence[Samples], seed: int, bound_ns: int) -> GoodputRow:
    """What a search has found; counts are over all its launches."""
    trials = trials_of(launches)
    found = interval(of_load(trials), seed)
    grade = stats.grade_interval(found, "knee") if found else stats.Grade("shaky", f"knee: {knee_note(trials)}")
    return GoodputRow(
        model=way[0],
        work=way[1],
        keep_alive=way[2],
        loop=KNEE_SEARCH,
        load_pct=FULL_PCT,
        clients_count=int(launches[0].key["clients_count"]),
        launches_count=len(by_block("capacity_per_s", launches)),
        bound_ns=bound_ns,
        capacity_per_s=_capacity(launches, seed),
        knee_pct=found,
        knee_per_s=interval(of_rate(trials), seed),
        grade=grade.level,
        grade_reason=grade.reason,
        **_facts_of_all(launches),
    )


def _capacity(launches: Sequence[Samples], seed: int) -> stats.Interval | None:
    """Each launch has one, whatever it tried."""
    return stats.interval_of_all([values[0] for values in by_block("capacity_per_s", launches).values()], seed)


def _row(
    key: Key, launches: Sequence[Samples], best: Mapping[tuple[Way, int], float], seed: int, bound_ns: int
) -> GoodputRow:
    model, work, keep_alive, loop, load_pct, clients_count = key
    grade = grade_of(launches, bound_ns, seed)
    return GoodputRow(
        model=model,
        work=work,
        keep_alive=keep_alive,
        loop=loop,
        load_pct=load_pct,
        clients_count=clients_count,
        launches_count=len(launches),
        bound_ns=bound_ns,
        capacity_per_s=_interval("capacity_per_s", launches, seed),
        offered_per_s=stats.median(known("offered_per_s", launches)),
        goodput_per_s=_interval("goodput_per_s", launches, seed),
        good_pct=_interval("good_pct", launches, seed),
        request_p50_ns=_median_of_all("p50_ns", launches),
        request_p99_ns=_median_of_all("p99_ns", launches),
        served_clients_count=_whole(min(known("served_count", launches), default=None)),
        of_best_ratio=_of_best(launches, best, seed) if loop == OPEN else None,
        grade=grade.level,
        grade_reason=grade.reason,
        **_facts_of_all(launches),
    )


def _facts_of_all(launches: Sequence[Samples]) -> dict[str, Any]:
    """Sums of counts, and what the sender took at most."""
    counts: dict[str, Any] = {f"{name}_count": _sum(f"{name}_count", launches) for name in _COUNTS}
    return counts | {
        "client_cpu_pct": max(known("client_cpu_pct", launches), default=None),
        "longest_late_ns": _whole(max(known("longest_late_ns", launches), default=None)),
    }


def _of_best(launches: Sequence[Samples], best: Mapping[tuple[Way, int], float], seed: int) -> stats.Interval | None:
    ratios = []
    for item in launches:
        (goodput,), most = known("goodput_per_s", [item]) or (None,), best.get((way_of(item.key), item.block))
        ratios.append(goodput / most if goodput is not None and most else None)
    return stats.interval_of_all(ratios, seed)


def _interval(name: str, launches: Sequence[Samples], seed: int) -> stats.Interval | None:
    return stats.interval_of_all([item.facts.get(name) for item in launches], seed)  # type: ignore[misc]


def _median_of_all(name: str, launches: Sequence[Samples]) -> float | None:
    """None unless every launch has it: the others' quantile was never answered."""
    values = known(name, launches)
    return stats.median(values) if len(values) == len(launches) else None


def _sum(name: str, launches: Sequence[Samples]) -> int | None:
    values = known(name, launches)
    return round(sum(values)) if values and len(values) == len(launches) else None


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
