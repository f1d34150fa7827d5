"""Traced launches of fork-latency: how large they are, what one more creation adds, and their rows."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from c10k_probe import stats
from c10k_probe.experiment import OFF, Cell, Row, Samples, Scalar
from c10k_probe.traced import Key, by_key, slowdown
from c10k_probe.tracing.result import Trace

from ._creation_rows import INTERVALS, ForkLatencyRow, Launch, values_of
from ._creation_rows import samples as samples_of
from ._traced_launch import TRACED_CALLS, calls_text, grade_counts, names_of_calls, per_one

SLOWER = 20  # times: a traced launch is to be cut by its budget no earlier than another
SMALL_PART = 4
EACH = (
    "calls_count",
    "voluntary_switches_count",
    "involuntary_switches_count",
    "page_faults_count",
    "runqueue_wait_ns",
)
CUT = "the traced launches were cut by --budget, so that nothing can be subtracted"


def sizes(count: int) -> tuple[int, int]:
    """Creations of the smaller and the larger launch; the larger is as large as an untraced one where that can be."""
    large = max(count, 2)
    return max(1, large // SMALL_PART), large


def samples(launches: Sequence[Launch], traces: Sequence[Trace]) -> Samples:
    """The larger launch, with what each creation that it made more was counted with.

    Raises ``HelperError`` when no sample is valid.
    """
    small, large = launches
    more = _made(large) - _made(small) if _warmups(small) == _warmups(large) else 0
    taken = samples_of(large)
    found = per_one(traces[0], traces[1], more)
    return Samples(taken.key, taken.block, taken.values, {**taken.facts, **found.facts(), "is_cut": int(more < 1)})


def _made(launch: Launch) -> int:
    return len(launch.taken.get("return_ns") or ()) + int(launch.facts.get("dropped_count") or 0)


def _warmups(launch: Launch) -> int:
    """The same in both launches, unless one was cut."""
    return int(launch.taken.get("warmups_count") or 0)


def summarise(cells: Sequence[Cell], taken: Sequence[Samples], seed: int) -> list[Row]:
    """One row per traced cell that has samples."""
    groups = by_key(item for item in taken if item.traced_by != OFF)
    bases = by_key(item for item in taken if item.traced_by == OFF)
    order: list[Key] = [tuple(cell.key.items()) for cell in cells]
    ranked = sorted(groups.items(), key=lambda item: order.index(item[0][:-1]))
    return [_row(launches, bases.get(key[:-1], ()), seed) for key, launches in ranked]


def _row(launches: Sequence[Samples], base: Sequence[Samples], seed: int) -> ForkLatencyRow:
    each = {name: stats.interval_of_all(map(_fact(name), launches), seed) for name in EACH}
    times = {name: stats.summarise(values_of(launches, name), seed) for name in INTERVALS}
    calls = _calls(launches)
    exact = {f"{name}_per_creation": calls.get(name) for name in TRACED_CALLS if name != "futex"}
    ratio = slowdown(launches, base, "cycle" if times["cycle"] is not None else "return", seed)
    grade = _grade(launches, each, ratio)
    return ForkLatencyRow(
        **launches[0].key,  # type: ignore[arg-type]
        n_count=sum(len(item.values.get("return", ())) for item in launches),
        return_=times["return"],
        started=times["started"],
        exec_=times["exec"],
        cycle=times["cycle"],
        calls_per_creation=each["calls_count"],
        **exact,  # type: ignore[arg-type]
        calls=calls_text(calls),
        voluntary_switches_per_creation=each["voluntary_switches_count"],
        involuntary_switches_per_creation=each["involuntary_switches_count"],
        page_faults_per_creation=each["page_faults_count"],
        runqueue_wait_ns=each["runqueue_wait_ns"],
        traced_over_off_ratio=ratio,
        trace_dropped_count=_sum(launches, "trace_dropped_count"),
        launches_count=len(launches),
        dropped_count=_sum(launches, "dropped_count"),
        grade=grade.level,
        grade_reason=grade.reason,
    )


def _grade(
    launches: Sequence[Samples], each: Mapping[str, stats.Interval | None], ratio: stats.Interval | None
) -> stats.Grade:
    """Of what was counted: traced times are no results."""
    grade = stats.Grade()
    lost = _sum(launches, "trace_dropped_count")
    if lost:
        grade = grade.worse("void", f"{lost:,} tasks or events could not be counted")
    if any(item.facts["is_cut"] for item in launches):
        grade = grade.worse("shaky", CUT)
    if len(launches) < stats.MINIMUM_LAUNCHES:
        grade = grade.worse("shaky", "traced: too few launches for an interval")
    else:
        counts = {f"traced {name.rpartition('_')[0].replace('_', ' ')}": interval for name, interval in each.items()}
        part = grade_counts({**counts, "traced over off": ratio})
        grade = grade if part.level == "ok" else grade.worse(part.level, part.reason)
    missed = [str(item.facts["notes"]) for item in launches if item.traced_by == "bcc" and item.facts["notes"]]
    return grade.worse("shaky", missed[0]) if missed else grade


def _calls(launches: Sequence[Samples]) -> dict[str, float]:
    """Calls by name, the median of the launches; a name that a launch does not mention was not made there."""
    known = [item for item in launches if any(name.startswith("call ") for name in item.facts)]
    return {
        name: float(statistics.median(float(item.facts.get(f"call {name}") or 0) for item in known))
        for name in names_of_calls(item.facts for item in known)
    }


def _fact(name: str) -> Callable[[Samples], float | None]:
    def value(item: Samples) -> float | None:
        found: Scalar = item.facts[name]
        return None if found is None else float(found)

    return value


def _sum(launches: Sequence[Samples], name: str) -> int | None:
    known = [int(value) for item in launches if (value := item.facts.get(name)) is not None]
    return sum(known) if known else None
