"""Traced launches beside untraced ones: the cells that are measured traced too, and what tracing did to their times."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from c10k_probe import stats
from c10k_probe.experiment import OFF, TRACED_BY, Cell, Finding, Samples

Key = tuple[tuple[str, str | int], ...]


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
    untraced = by_key(item for item in samples if item.traced_by == OFF)
    traced = by_key(item for item in samples if item.traced_by != OFF)
    for key, launches in sorted(traced.items(), key=str):
        own = tuple(pair for pair in key if pair[0] != TRACED_BY)
        base, label, backend = untraced.get(own, []), Cell(dict(own)).label, launches[0].traced_by
        for name in names:
            ratio = slowdown(launches, base, name, seed)
            if ratio is not None:
                subject = f"{name} of {label}"
                yield Finding(subject, "traced_over_off_ratio", ratio, f"traced by {backend} over untraced, by blocks")


def by_key(samples: Iterable[Samples]) -> dict[Key, list[Samples]]:
    """The launches of each cell."""
    groups: dict[Key, list[Samples]] = {}
    for item in samples:
        groups.setdefault(tuple(item.key.items()), []).append(item)
    return groups
