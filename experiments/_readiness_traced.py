"""Traced launches of readiness: what a tracer counts of one delivered event, beside what the helper counts itself.

Two launches with as many events in each pass, and a different number of passes: what the larger counted more, over the
events that it delivered more. Making the sockets, registering them and warming up are in both, and drop out; what is
done once for each pass, such as reading the CPU time before and after it, is a small part of a call for each event.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from c10k_probe import native, stats
from c10k_probe.experiment import OFF, Cell, Samples, Scalar, View
from c10k_probe.traced import Key, by_key, untraced, views
from c10k_probe.tracing.base import Options

from ._readiness_design import PYTHON_MECHANISMS, cost_ns
from ._readiness_rows import ReadinessRow
from ._traced_launch import HeldHelper, calls_text, counted, grade_traced, names_of_calls, per_one

PASSES: Final = (2, 6)  # of the smaller launch and of the larger
EVENTS_LEAST_COUNT: Final = 1000  # in a pass, or one round of all that are active
BUDGET_MS: Final = 60_000  # so large that the number of passes ends a launch
RARE: Final = 0.0005
PLACES: Final = 3  # further ones are of what a tracer sees or misses of a launch's ends
FIGURES: Final = {
    "calls_count": "traced_calls_per_event",
    "voluntary_switches_count": "voluntary_switches_per_event",
    "involuntary_switches_count": "involuntary_switches_per_event",
    "page_faults_count": "page_faults_per_event",
    "runqueue_wait_ns": "runqueue_wait_ns",
}
VIEWS: Final = (
    View("told by itself", "calls_per_event", group="traced, for each event", traced=True),
    *views(
        "event",
        ("traced_calls", "voluntary_switches", "involuntary_switches"),
        price="time over untraced",
        calls="traced_calls",
    ),
)


@dataclass(frozen=True)
class _Size:
    """One launch: how many are active, and how many passes it makes."""

    active_count: int
    passes_count: int


def launches(cell: Cell, block: int, seed: int, actives: Mapping[int, str], patience_s: float) -> Iterator[Samples]:
    """Each activity in two launches. Raises ``HelperError``; ``HelperUnsupported`` where the backend cannot work."""
    linking = native.PYTHON if cell.key["mechanism"] in PYTHON_MECHANISMS else "dynamic"
    program = "readiness_in_python" if linking == native.PYTHON else "readiness"

    def start(size: _Size) -> HeldHelper:
        return HeldHelper(program, _arguments(cell, size, seed), linking)

    def run(helper: HeldHelper, _: _Size) -> native.Message:
        helper.release(patience_s)
        for name in ("opened", "watching"):
            helper.expect(name, patience_s)
        passes = helper.expect("passes", patience_s)
        return {**passes, "dropped_count": helper.finish()["dropped_count"]}

    sizes = [_Size(active, passes) for active in actives for passes in PASSES]
    found, traces = counted(cell.traced_by, start, run, sizes, Options(interval_s=1.0))
    for index, text in enumerate(actives.values()):
        (small, large), (less, more) = found[2 * index : 2 * index + 2], traces[2 * index : 2 * index + 2]
        each = per_one(less, more, _events_count(large) - _events_count(small), gate_calls=())
        facts = {**_own_facts(large), **each.facts()}
        yield Samples({**cell.key, "active": text}, block, {"pass": large["pass_ns"]}, facts)


def _arguments(cell: Cell, size: _Size, seed: int) -> list[object]:
    rounds_count = -(-EVENTS_LEAST_COUNT // size.active_count)
    pairs = {
        "--mechanism": cell.key["mechanism"],
        "--watched": cell.key["watched_count"],
        "--active": size.active_count,
        "--workload": cell.key["workload"],
        "--writes": rounds_count * size.active_count,
        "--passes": size.passes_count,
        "--budget-ms": BUDGET_MS,
        "--seed": seed,
    }
    return [part for pair in pairs.items() for part in pair]


def _events_count(passes: native.Message) -> int:
    """Of the passes that are kept; those thrown away, if any, spoil the difference, and the row is void."""
    return int(passes["events_per_pass_count"]) * len(passes["pass_ns"])


def _own_facts(passes: native.Message) -> dict[str, Scalar]:
    """What the helper says of the larger launch."""
    calls: Mapping[str, int] | None = passes["calls_count"]
    return {
        "active_count": passes["active_count"],
        "events_per_pass_count": passes["events_per_pass_count"],
        "told_calls_count": None if calls is None else sum(calls.values()),
        "dropped_count": passes["dropped_count"],
    }


# --- rows -------------------------------------------------------------------------------------------------------------


def rows(samples: Sequence[Samples], seed: int) -> Iterator[ReadinessRow]:
    """One row for each mechanism, count and activity that has traced launches."""
    plain = by_key(untraced(samples))
    traced = by_key(item for item in samples if item.traced_by != OFF)
    for key, found in sorted(traced.items(), key=_order):
        base = plain.get(tuple(pair for pair in key if pair[0] != "traced_by"), ())
        yield _row(found, base, seed)


def _order(item: tuple[Key, Sequence[Samples]]) -> tuple[str, int, int, str]:
    key, launches = dict(item[0]), item[1]
    active = int(launches[0].facts["active_count"] or 0)
    return str(key["workload"]), int(key["watched_count"]), active, str(key["mechanism"])


def _row(launches: Sequence[Samples], base: Sequence[Samples], seed: int) -> ReadinessRow:
    figures = {column: stats.interval_of_all(map(_fact(name), launches), seed) for name, column in FIGURES.items()}
    ratio = stats.paired_ratio(_costs(launches), _costs(base), seed) if base else None
    grade = grade_traced(launches, {**figures, "traced_over_off_ratio": ratio})
    dropped_count = sum(int(item.facts["dropped_count"] or 0) for item in launches)
    if dropped_count:
        grade = grade.worse("void", f"{dropped_count} passes lost events or delivered them twice")
    lost = [int(count) for item in launches if (count := item.facts["trace_dropped_count"]) is not None]
    return ReadinessRow(
        **launches[0].key,  # type: ignore[arg-type]
        active_count=int(launches[0].facts["active_count"] or 0),
        calls_per_event=stats.median_of_known(map(_told_calls, launches)),
        **figures,  # type: ignore[arg-type]
        traced_calls=_text(launches),
        traced_over_off_ratio=ratio,
        trace_dropped_count=sum(lost) if lost else None,
        events_count=sum(_events(item) for item in launches),
        passes_count=sum(len(item.values["pass"]) for item in launches),
        launches_count=len(launches),
        dropped_count=dropped_count,
        grade=grade.level,
        grade_reason=grade.reason,
    )


def _events(item: Samples) -> int:
    return int(item.facts["events_per_pass_count"] or 0) * len(item.values["pass"])


def _told_calls(item: Samples) -> float | None:
    count = item.facts["told_calls_count"]
    return None if count is None or not _events(item) else float(count) / _events(item)


def _costs(launches: Sequence[Samples]) -> dict[int, list[float]]:
    return {item.block: [cost_ns(item)] for item in launches}


def _fact(name: str) -> Callable[[Samples], float | None]:
    def value(item: Samples) -> float | None:
        found: Any = item.facts[name]
        return None if found is None else round(float(found), PLACES) + 0.0  # never -0.0

    return value


def _text(launches: Sequence[Samples]) -> str | None:
    """The median launch's calls by name; None where the backend does not know."""
    names = names_of_calls(item.facts for item in launches)
    found = {name: statistics.median(float(item.facts.get(f"call {name}") or 0) for item in launches) for name in names}
    return calls_text({name: round(count, 4) for name, count in found.items() if abs(count) >= RARE})
