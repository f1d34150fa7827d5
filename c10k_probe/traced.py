"""Traced launches beside untraced ones: the cells that are measured traced too, the columns and tables of their rows,
and what tracing did to their times."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from c10k_probe import stats, units
from c10k_probe.experiment import (
    OFF,
    TRACED_BY,
    Cell,
    Finding,
    Row,
    Samples,
    Scalar,
    View,
    column,
    columns,
    estimate,
)

REPETITION = "block"  # the key column of such rows that counts repetitions
DROPPED = "trace_dropped_count"  # the column of traced rows that says what was lost
Key = tuple[tuple[str, str | int], ...]


def tracing_column() -> Any:
    """Declare the key column ``traced_by``, which keeps rows of traced launches apart from the others."""
    help = "the tracing backend under which this was measured; off: under none"
    return dataclasses.field(default=OFF, metadata={"help": help, "key": True})


# What is counted of traced launches for each creation, connection, request or event: the same columns everywhere.
FIGURES: Mapping[str, str] = {
    "calls": "system calls",
    "accepts": "connections that accept(2) gave",
    "voluntary_switches": "context switches to sleep",
    "involuntary_switches": "context switches of tasks that could have gone on",
    "page_faults": "page faults",
    "forks": "new processes",
}
SHOWN = ("calls", "voluntary_switches", "involuntary_switches", "page_faults")


def counted_column(name: str, of: str) -> Any:
    """Declare ``calls_per_request`` or its like: a figure and the ends of its interval. of: for what, in words."""
    return estimate(name, f"{FIGURES[name.rpartition('_per_')[0].removeprefix('traced_')]} {of}")


def wait_column(of: str) -> Any:
    """Declare ``runqueue_wait_ns``."""
    return estimate("runqueue_wait_ns", f"waits of runnable tasks {of}")


def calls_column(of: str) -> Any:
    """Declare a column of calls by name."""
    return column(f"system calls by name, name=count {of}, the most frequent first")


def done_calls_column(of: str) -> Any:
    """Declare the same without failures."""
    return column(f"the same without calls that failed, such as by EAGAIN, {of}")


def price_column(what: str) -> Any:
    """Declare ``traced_over_off_ratio``. what: of which figure."""
    return estimate("traced_over_off_ratio", f"{what} while traced over untraced, block by block")


def dropped_column() -> Any:
    """Declare ``trace_dropped_count``."""
    return column("tasks and events that the tracer could not count")


def views(unit: str, figures: Sequence[str] = SHOWN, price: str = "", calls: str = "calls") -> Iterator[View]:
    """The tables of traced rows. unit: what is counted for each; price: the header of the slowdown, if it is shown;
    calls: the column of calls by name."""
    group = f"traced, for each {unit}"
    for name in figures:
        header, priority = name.removesuffix("_switches").replace("_", " "), 1 + (name == "involuntary_switches")
        yield interval_view(header, f"{name}_per_{unit}", group, priority)
    yield interval_view("waiting to run", "runqueue_wait_ns", group, 2)
    if price:
        yield interval_view(price, "traced_over_off_ratio", group)
    header = "system calls that did not fail" if calls == "done_calls" else "system calls"
    yield View(header, calls, group=f"system calls for each {unit}", traced=True)


def interval_view(header: str, name: str, group: str, priority: int = 1) -> View:
    """A view of traced rows with the ends of its interval."""
    unit = units.column_suffix(name) or ""
    stem = name.removesuffix(unit)
    return View(header, name, f"{stem}_lo{unit}", f"{stem}_hi{unit}", group, priority, traced=True)


def unset_keys(row_type: type[Row]) -> list[str]:
    """The key columns that have no value of their own."""
    fields = dataclasses.fields(row_type)
    return [item.name for item in fields if item.metadata.get("key") and item.default is dataclasses.MISSING]


def is_traced(row: Row) -> bool:
    """Whether a row is of traced launches, whose times are not those of untraced ones."""
    names = [item.name for item in dataclasses.fields(row) if item.metadata.get("key")]
    return TRACED_BY in names and getattr(row, TRACED_BY) != OFF


def with_traced(cells: Sequence[Cell], backend: str, extra_weight: float) -> list[Cell]:
    """The cells, and each a second time under a backend: the shuffle of a block puts traced and untraced in turn."""
    wanted = [cell for cell in cells if backend != OFF and cell.is_traceable]
    return [*cells, *(traced_cell(cell, backend, extra_weight) for cell in wanted)]


def untraced(samples: Iterable[Samples]) -> list[Samples]:
    """The samples of untraced launches."""
    return [item for item in samples if item.traced_by == OFF]


def traced_cell(cell: Cell, backend: str, extra_weight: float) -> Cell:
    """The cell under a tracing backend: measured, measured smaller to be subtracted, and the tracer's own time."""
    key = {**cell.key, TRACED_BY: backend}
    return dataclasses.replace(cell, key=key, weight=2 * cell.weight + extra_weight)


def slowdown(traced: Sequence[Samples], untraced: Sequence[Samples], name: str, seed: int) -> stats.Interval | None:
    """Traced over untraced medians of the values ``name``, from the blocks that hold both; None without any."""
    arm, base = ({item.block: item.values[name] for item in part if name in item.values} for part in (traced, untraced))
    return stats.paired_ratio(arm, base, seed)


def slowdowns(samples: Sequence[Samples], names: Sequence[str], seed: int) -> Iterator[Finding]:
    """What tracing did to each cell's values of these names: one finding for each that both arms have."""
    plain = by_key(untraced(samples))
    traced = by_key(item for item in samples if item.traced_by != OFF)
    for key, launches in sorted(traced.items(), key=str):
        own = tuple(pair for pair in key if pair[0] != TRACED_BY)
        base, label, backend = plain.get(own, []), Cell(dict(own)).label, launches[0].traced_by
        for name in names:
            ratio = slowdown(launches, base, name, seed)
            if ratio is not None:
                subject = f"{name} of {label}"
                yield Finding(subject, "traced_over_off_ratio", ratio, f"traced by {backend} over untraced, by blocks")


def slowdowns_of_rows(rows: Sequence[Row], names: Sequence[str], seed: int) -> Iterator[Finding]:
    """The same of columns of rows that are each of one block, and of one step of a ramp.

    Only steps that both arms of a block have count; they are alike in all blocks, so that a block is one pair.
    """
    steps: dict[tuple[Scalar, ...], dict[bool, Row]] = {}
    for row in rows if names else ():
        steps.setdefault(_key_without(row, TRACED_BY), {})[is_traced(row)] = row
    pairs = [(arms[True], arms[False]) for arms in steps.values() if len(arms) == 2]
    groups: dict[tuple[Scalar, ...], list[tuple[Row, Row]]] = {}
    ramps = {item.name for row in rows[:1] for item in columns(type(row)) if item.ramp}
    for pair in pairs:
        groups.setdefault(_key_without(pair[1], TRACED_BY, REPETITION, *ramps), []).append(pair)
    for key, found in sorted(groups.items(), key=str):
        note = f"traced by {getattr(found[0][0], TRACED_BY)} over untraced, by blocks"
        for name in names:
            ratio = stats.paired_ratio(_by_block(found, 0, name), _by_block(found, 1, name), seed)
            if ratio is not None:
                subject = f"{_words(name)} of {' '.join(map(str, key))}"
                yield Finding(subject, "traced_over_off_ratio", ratio, note)


def dropped_count(rows: Sequence[Row]) -> int | None:
    """Events that no tracer of this run could count, by the rows' own sums; None where nobody knows.

    A step of a ramp has the sum of all steps before it: the last one counts.
    """
    most: dict[tuple[Scalar, ...], int] = {}
    for row in rows:
        count = getattr(row, DROPPED, None)
        if count is not None:
            ramps = [item.name for item in columns(type(row)) if item.ramp]
            key = _key_without(row, *ramps)
            most[key] = max(count, most.get(key, 0))
    return sum(most.values()) if most else None


def _words(name: str) -> str:
    """``echo_p50_ns`` -> ``echo p50``."""
    return name.rpartition("_")[0].replace("_", " ")


def _key_without(row: Row, *names: str) -> tuple[Scalar, ...]:
    return tuple(getattr(row, item.name) for item in columns(type(row)) if item.key and item.name not in names)


def _by_block(pairs: Sequence[tuple[Row, Row]], arm: int, name: str) -> dict[int, list[float]]:
    """The values of one arm, of the steps in which both arms have one."""
    values: dict[int, list[float]] = {}
    for pair in pairs:
        if all(getattr(row, name) is not None for row in pair):
            values.setdefault(getattr(pair[arm], REPETITION), []).append(float(getattr(pair[arm], name)))
    return values


def by_key(samples: Iterable[Samples]) -> dict[Key, list[Samples]]:
    """The launches of each cell."""
    groups: dict[Key, list[Samples]] = {}
    for item in samples:
        groups.setdefault(tuple(item.key.items()), []).append(item)
    return groups
