"""The rows of readiness: columns, tables and charts, and how launches become rows, exponents and crossovers."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from c10k_probe import stats
from c10k_probe.experiment import Chart, Finding, Row, Samples, View, WinnerMap, column, estimate
from c10k_probe.traced import calls_column, counted_column, dropped_column, price_column, tracing_column, wait_column

from ._readiness_design import C_MECHANISMS, PYTHON_MECHANISMS, SAME, WORKLOADS, cost_ns

BASE = "epoll"
PYTHON_BASE = "select.epoll"
FEWEST_EXPONENT_LEVELS = 3
GROWTH_ACTIVE = ("1", "100", "100%")
MECHANISMS = (*C_MECHANISMS, *PYTHON_MECHANISMS)
_EACH = "for one event, traced"

_Launch = Callable[[Samples], float | None]
_Line = dict[int, dict[int, float]]  # watched -> block -> nanoseconds per event


@dataclass(frozen=True, kw_only=True)
class ReadinessRow(Row):
    """One mechanism that watches so many descriptors, so many of which are active."""

    workload: str = column("chain: events travel; short: connections come and go among idle ones", key=True)
    mechanism: str = column("how events are waited for; names of Python modules are measured from Python", key=True)
    watched_count: int = column("descriptors that are watched", key=True)
    active: str = column("descriptors with an event at a time, as asked for", key=True, ramp=True)
    active_count: int | None = column("descriptors with an event at a time")
    event_ns: stats.Interval | None = estimate("event_ns", "time for one delivered event, median of launches")
    over_epoll_ratio: stats.Interval | None = estimate(
        "over_epoll_ratio", f"event_ns over that of {BASE}; in Python over that of {PYTHON_BASE}"
    )
    over_best_ratio: stats.Interval | None = estimate(
        "over_best_ratio", "event_ns over that of the cheapest mechanism of the same kind, C or Python"
    )
    calls_per_event: float | None = column("system calls for one event")
    cpu_ns: float | None = column("CPU time, user and system, for one event")
    system_pct: float | None = column("share of the CPU time that was spent in the kernel")
    register_ns: stats.Interval | None = estimate(
        "register_ns", "registering and unregistering one short connection, part of event_ns"
    )
    setup_ns: stats.Interval | None = estimate("setup_ns", "registering one descriptor at the start")
    kernel_bytes_per_descriptor: stats.Interval | None = estimate(
        "kernel_bytes_per_descriptor", "growth of slab by registering, for one watched descriptor"
    )
    calls: str | None = column("system calls for one event, by name")
    events_count: int | None = column("events delivered in all passes")
    passes_count: int | None = column("passes, over all launches")
    launches_count: int | None = column("fresh processes that the passes come from")
    dropped_count: int | None = column("passes thrown away because an event was lost or came twice")
    voluntary_switches_count: int | None = column("voluntary context switches in all passes")
    involuntary_switches_count: int | None = column("involuntary context switches in all passes")
    traced_by: str = tracing_column()
    traced_calls_per_event: stats.Interval | None = counted_column("traced_calls_per_event", _EACH)
    traced_calls: str | None = calls_column(_EACH)
    voluntary_switches_per_event: stats.Interval | None = counted_column("voluntary_switches_per_event", _EACH)
    involuntary_switches_per_event: stats.Interval | None = counted_column("involuntary_switches_per_event", _EACH)
    page_faults_per_event: stats.Interval | None = counted_column("page_faults_per_event", _EACH)
    runqueue_wait_ns: stats.Interval | None = wait_column(_EACH)
    traced_over_off_ratio: stats.Interval | None = price_column("time of an event")
    trace_dropped_count: int | None = dropped_column()


_SETUP = "set-up"
VIEWS = (
    View("ready at once", "active_count", priority=2),
    View("per event", "event_ns", "event_lo_ns", "event_hi_ns"),
    View("over epoll", "over_epoll_ratio", "over_epoll_lo_ratio", "over_epoll_hi_ratio"),
    View("calls", "calls_per_event", priority=2),
    View("CPU", "cpu_ns", priority=3),
    View("in the kernel", "system_pct", priority=4),
    View("register", "register_ns", "register_lo_ns", "register_hi_ns", priority=3),
    View("per descriptor", "setup_ns", "setup_lo_ns", "setup_hi_ns", group=_SETUP),
    View(
        "kernel memory",
        "kernel_bytes_per_descriptor",
        "kernel_lo_bytes_per_descriptor",
        "kernel_hi_bytes_per_descriptor",
        group=_SETUP,
    ),
)


def _growth_chart(name: str, title: str, workload: str, active: str) -> Chart:
    ends = ("event_lo_ns", "event_hi_ns")
    where = (("workload", workload), ("active", active))
    return Chart(name, title, "watched_count", "event_ns", *ends, ("mechanism",), log_x=True, log_y=True, where=where)


CHARTS = (
    _growth_chart("one-active", "Cost of an event, 1 active", "chain", "1"),
    _growth_chart("hundred-active", "Cost of an event, 100 active", "chain", "100"),
    _growth_chart("half-active", "Cost of an event, half of all active", "chain", "50%"),
    _growth_chart("all-active", "Cost of an event, all active", "chain", "100%"),
    _growth_chart("short", "Cost of a short connection, 1 at a time among idle ones", "short", "1"),
    Chart(
        "set-up",
        "Registering one descriptor",
        "watched_count",
        "setup_ns",
        "setup_lo_ns",
        "setup_hi_ns",
        ("mechanism",),
        log_x=True,
        log_y=True,
        where=(("workload", "chain"),),
    ),
)
_WINNERS: dict[str, Any] = {
    "x": "watched_count",
    "y": "active_count",
    "value": "over_best_ratio",
    "low": "over_best_lo_ratio",
    "high": "over_best_hi_ratio",
    "contestant": "mechanism",
    "log_x": True,
    "log_y": True,
    "same_ratio": SAME,
}
MAPS = (
    WinnerMap("map", "Who delivers an event the fastest", **_WINNERS, where=(("workload", "chain"),)),
    WinnerMap("map-short", "Who serves a short connection the fastest", **_WINNERS, where=(("workload", "short"),)),
)


def summarise(taken: Sequence[Samples], seed: int) -> list[Row]:
    """One row for each mechanism, count and activity that has samples; C and Python apart, mechanisms side by side."""
    by_key: dict[tuple[str, int, int, str], list[Samples]] = {}
    for item in taken:
        by_key.setdefault(_key(item), []).append(item)
    return [_row(by_key[key], by_key, seed) for key in sorted(by_key, key=_order)]


def _order(key: tuple[str, int, int, str]) -> tuple[str, bool, int, int, int]:
    """Workload, C before Python, watched, active, then mechanisms as they are declared."""
    workload, watched, active, mechanism = key
    return workload, mechanism in PYTHON_MECHANISMS, watched, active, MECHANISMS.index(mechanism)


def _key(item: Samples) -> tuple[str, int, int, str]:
    """Workload, watched, active, mechanism: the order in which rows are read."""
    active = int(item.facts["active_count"] or 0)
    return str(item.key["workload"]), int(item.key["watched_count"]), active, str(item.key["mechanism"])


def _row(
    launches: Sequence[Samples], by_key: Mapping[tuple[str, int, int, str], Sequence[Samples]], seed: int
) -> ReadinessRow:
    first = launches[0]
    workload, watched, active, mechanism = _key(first)
    base = by_key.get((workload, watched, active, PYTHON_BASE if mechanism in PYTHON_MECHANISMS else BASE), ())
    event = stats.interval_of_all(map(cost_ns, launches), seed)
    grade = _grade_quiet(launches, stats.grade_interval(event, "time per event"))
    dropped = sum(int(item.facts["dropped_count"] or 0) for item in launches)
    if dropped:
        grade = grade.worse("void", f"{dropped} passes lost events or delivered them twice")
    events = sum(int(item.facts["events_per_pass_count"] or 0) * len(item.values["pass"]) for item in launches)
    cpu = [_cpu_ns(item) for item in launches]
    return ReadinessRow(
        workload=workload,
        mechanism=mechanism,
        watched_count=watched,
        active=str(first.key["active"]),
        active_count=active,
        event_ns=event,
        over_epoll_ratio=stats.paired_ratio(_by_block(launches), _by_block(base), seed) if base else None,
        over_best_ratio=_over_best(launches, by_key, seed),
        calls_per_event=stats.median_of_known(_per_event(item, "calls_count") for item in launches),
        cpu_ns=stats.median_of_known(map(_cpu_ns, launches)) if None not in cpu else None,
        system_pct=stats.median_of_known(map(_system_pct, launches)),
        register_ns=stats.interval_of_all(map(_register_ns, launches), seed),
        setup_ns=stats.interval_of_all(map(_setup_ns, launches), seed),
        kernel_bytes_per_descriptor=stats.interval_of_all(map(_kernel_bytes, launches), seed),
        calls=str(first.facts["calls"]) if first.facts["calls"] else None,
        events_count=events,
        passes_count=sum(len(item.values["pass"]) for item in launches),
        launches_count=len(launches),
        dropped_count=dropped,
        voluntary_switches_count=_total(launches, "voluntary_switches_count"),
        involuntary_switches_count=_total(launches, "involuntary_switches_count"),
        grade=grade.level,
        grade_reason=grade.reason,
    )


def _grade_quiet(launches: Sequence[Samples], grade: stats.Grade) -> stats.Grade:
    """Shaky also where much of the time was others': nothing here waits, so all of it should be CPU time of our own."""
    cpu, elapsed = stats.median_of_known(map(_cpu_ns, launches)), statistics.median(map(cost_ns, launches))
    if cpu and elapsed > SAME * cpu:
        grade = grade.worse("shaky", f"others had the CPU for {100 * (1 - cpu / elapsed):.0f} % of the time")
    return grade


def _over_best(
    launches: Sequence[Samples], by_key: Mapping[tuple[str, int, int, str], Sequence[Samples]], seed: int
) -> stats.Interval | None:
    """Over the cheapest at the same place, block by block; the cheapest itself is 1."""
    *place, mechanism = _key(launches[0])
    kind = mechanism in PYTHON_MECHANISMS
    rivals = [
        items for (*where, name), items in by_key.items() if where == place and (name in PYTHON_MECHANISMS) == kind
    ]
    best = min(rivals, key=lambda items: statistics.median(map(cost_ns, items)))
    return stats.paired_ratio(_by_block(launches), _by_block(best), seed)


# --- numbers of one launch --------------------------------------------------------------------------------------------


def _events(item: Samples) -> float:
    return float(item.facts["events_per_pass_count"] or 0) * len(item.values["pass"])


def _per_event(item: Samples, fact: str) -> float | None:
    value = item.facts[fact]
    return None if value is None or not _events(item) else float(value) / _events(item)


def _cpu_ns(item: Samples) -> float | None:
    user, system = _per_event(item, "cpu_user_ns"), _per_event(item, "cpu_system_ns")
    return None if user is None or system is None else user + system


def _system_pct(item: Samples) -> float | None:
    user, system = item.facts["cpu_user_ns"], item.facts["cpu_system_ns"]
    if user is None or system is None or not float(user) + float(system):
        return None
    return 100 * float(system) / (float(user) + float(system))


def _register_ns(item: Samples) -> float | None:
    values = item.values.get("register")
    return statistics.median(values) / float(item.facts["events_per_pass_count"] or 1) if values else None


def _setup_ns(item: Samples) -> float | None:
    value = item.facts["setup_ns"]
    return None if value is None else float(value) / int(item.key["watched_count"])


def _kernel_bytes(item: Samples) -> float | None:
    value = item.facts["kernel_bytes"]
    return None if value is None else float(value) / int(item.key["watched_count"])


def _total(launches: Iterable[Samples], fact: str) -> int | None:
    values = [item.facts[fact] for item in launches]
    return None if None in values else sum(int(value or 0) for value in values)


def _by_block(launches: Iterable[Samples]) -> dict[int, list[float]]:
    return {item.block: [cost_ns(item)] for item in launches}


# --- what no single row shows -----------------------------------------------------------------------------------------


def findings(taken: Sequence[Samples], seed: int, *, all_pairs: bool) -> list[Finding]:
    """How the cost of an event grows with the number watched, and where one mechanism overtakes another."""
    taken = [item for item in taken if not item.facts["dropped_count"]]  # what is void decides nothing
    return [*_exponents(taken, seed), *_crossovers(taken, seed, all_pairs=all_pairs)]


def _lines(taken: Sequence[Samples], of: Callable[[Samples], float]) -> dict[tuple[str, str, str], _Line]:
    """(workload, active, mechanism) -> watched -> block -> nanoseconds per event, as ``of`` tells them."""
    lines: dict[tuple[str, str, str], dict[int, dict[int, float]]] = {}
    for item in taken:
        line = lines.setdefault((str(item.key["workload"]), str(item.key["active"]), str(item.key["mechanism"])), {})
        line.setdefault(int(item.key["watched_count"]), {})[item.block] = of(item)
    return dict(sorted(lines.items(), key=lambda line: _line_order(*line[0])))


def _line_order(workload: str, active: str, mechanism: str) -> tuple[int, bool, bool, float, int]:
    """As rows stand: workload, C before Python, active (counts, then shares), then mechanisms as they are declared."""
    share = active.endswith("%"), float(active.rstrip("%"))
    return WORKLOADS.index(workload), mechanism in PYTHON_MECHANISMS, *share, MECHANISMS.index(mechanism)


def _exponents(taken: Sequence[Samples], seed: int) -> Iterator[Finding]:
    """Slope of the log of CPU time on log watched, of each launch block; where the same number is active, or all."""
    for (workload, active, mechanism), line in _lines(taken, _cpu_or_cost_ns).items():
        if len(line) < FEWEST_EXPONENT_LEVELS or active not in GROWTH_ACTIVE:
            continue
        blocks = set.intersection(*(set(values) for values in line.values()))
        slopes = [
            statistics.linear_regression(
                [math.log(watched) for watched in line], [math.log(line[watched][block]) for watched in line]
            ).slope
            for block in sorted(blocks)
        ]
        if slopes:
            value = stats.median_interval(slopes, seed)
            note = f"from {min(line):,} to {max(line):,} watched"
            yield Finding(exponent_subject(workload, active, mechanism), "growth_exponent", value, note)


def _cpu_or_cost_ns(item: Samples) -> float:
    """CPU time for one event, which others do not add to; elapsed time where it is unknown."""
    return _cpu_ns(item) or cost_ns(item)


def exponent_subject(workload: str, active: str, mechanism: str) -> str:
    """The name under which a growth exponent is found."""
    return f"{mechanism}, {workload}, {active} active"


def _crossovers(taken: Sequence[Samples], seed: int, *, all_pairs: bool) -> Iterator[Finding]:
    """For each pair of one kind, C or Python: the count of watched descriptors from which the other is the cheaper."""
    lines = _lines(taken, cost_ns)
    kinds = itertools.groupby(lines, key=lambda line: (line[0], line[1], line[2] in PYTHON_MECHANISMS))
    for (workload, active, _), group in kinds:
        pairs = itertools.combinations([name for *_, name in group], 2)
        for one, other in (pair for pair in pairs if all_pairs or {BASE, PYTHON_BASE} & {*pair}):
            found = _crossover(lines[workload, active, one], lines[workload, active, other], seed)
            if found is not None:
                first, second = (other, one) if found.rises else (one, other)
                subject = f"{first} overtakes {second}, {workload}, {active} active"
                yield Finding(subject, "watched_count", found.watched)


class _Overtaking(NamedTuple):
    """Where the cheaper of two changes, and whether the first is the dearer from there on."""

    watched: stats.Interval
    rises: bool


def _crossover(line: _Line, other: _Line, seed: int) -> _Overtaking | None:
    """The count from which the order of two lines is the other way round; its interval is over launch blocks."""
    watched = sorted(line.keys() & other.keys())
    blocks = sorted(set.intersection(*({*line[count]} & {*other[count]} for count in watched))) if watched else []
    if len(watched) < 2 or not blocks:
        return None
    decided = [_decided(line[count], other[count], seed) for count in watched]
    found = crossing(watched, [_log_ratio(line[count], other[count], blocks) for count in watched])
    if found is None or not _change(decided, rises=found[1]):
        return None
    ends = []
    for block in blocks:
        ratios = [_log_ratio(line[count], other[count], [block]) for count in watched]
        each = crossing(watched, ratios)
        is_over = (ratios[-1] > 0) == found[1]
        ends.append(_clipped(each if each and each[1] == found[1] else None, watched, is_over=is_over))
    return _Overtaking(stats.median_interval(ends, seed), found[1])


def _decided(costs: Mapping[int, float], others: Mapping[int, float], seed: int) -> int:
    """1 when the first is the dearer, -1 when it is the cheaper, 0 when that is open or they count as the same."""
    ratio = stats.paired_ratio(
        {block: [cost] for block, cost in costs.items()}, {block: [cost] for block, cost in others.items()}, seed
    )
    if ratio is None or ratio.low is None or ratio.high is None:
        return 0
    if 1 / SAME <= ratio.middle <= SAME:
        return 0
    return 1 if ratio.low > 1 else -1 if ratio.high < 1 else 0


def _change(decided: Sequence[int], *, rises: bool) -> bool:
    """Whether one is surely the cheaper at some count, and surely the dearer at a higher one."""
    before, after = (-1, 1) if rises else (1, -1)
    return before in decided and after in decided[decided.index(before) :]


def _log_ratio(costs: Mapping[int, float], others: Mapping[int, float], blocks: Sequence[int]) -> float:
    return math.log(
        statistics.median(costs[block] for block in blocks) / statistics.median(others[block] for block in blocks)
    )


def crossing(watched: Sequence[int], ratios: Sequence[float]) -> tuple[float, bool] | None:
    """Where the logarithm of a ratio changes its sign for good, and whether it rises there; None when it does not.

    Interpolated between the two neighbours on a logarithmic axis of counts.
    """
    last = len(ratios) - 1
    while last > 0 and (ratios[last - 1] > 0) == (ratios[-1] > 0):
        last -= 1
    if last == 0:
        return None
    left, right = math.log(watched[last - 1]), math.log(watched[last])
    before, after = ratios[last - 1], ratios[last]
    return math.exp(left + (right - left) * before / (before - after)), after > 0


def _clipped(found: tuple[float, bool] | None, watched: Sequence[int], *, is_over: bool) -> float:
    """The crossing of one block; without one it lies at an end of what was measured: the low one if it is over."""
    return found[0] if found else float(watched[0] if is_over else watched[-1])
