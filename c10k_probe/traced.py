"""Traced launches beside untraced ones: the cells that are measured traced too, and what tracing did to their times."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from c10k_probe import stats
from c10k_probe.experiment import OFF, TRACED_BY, Cell, Finding, Row, Samples, Scalar, columns

REPETITION = "block"  # the key column of such rows that counts repetitions
DROPPED = "trace_dropped_count"  # the column of traced rows that says what was lost
Key = tuple[tuple[str, str | int], ...]


def tracing_column() -> Any:
    """Declare the key column ``traced_by``, which keeps rows of traced launches apart from the others."""
    help = "the tracing backend under which this was measured; off: under none"
    return dataclasses.field(default=OFF, metadata={"help": help, "key": True})


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
