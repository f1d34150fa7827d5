"""From the rows of a run folder to bars that are cut into their parts.

A bar stands for one value of the chart's columns. Of repetitions it is the median of each part; a part that is missing
in any is left out and the bar says so; one below 0 takes no room, and the notes say so.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from c10k_probe import units
from c10k_probe.charts.axes import Axis, base_factor, make_axis
from c10k_probe.charts.rows import (
    REPETITION,
    Row,
    Taken,
    check_columns,
    notes_on,
    nothing_left,
    number,
    sort_key,
    source_of,
    take,
    value_name,
)
from c10k_probe.experiment import Stack
from c10k_probe.results import StoredRun, Value

_SHARES = "share_pct"


@dataclass(frozen=True)
class Bar:
    """One whole. ``sizes`` are its parts in base units (in percent of it where shares are drawn), never below 0."""

    name: str
    sizes: tuple[float, ...]
    total_text: str


@dataclass(frozen=True)
class StackDrawing:
    """All that a renderer needs; ``names`` are those of the parts that some bar has."""

    chart: Stack
    bars: tuple[Bar, ...]
    names: tuple[str, ...]
    notes: tuple[str, ...]
    source: str

    def axis(self, most_ticks: int) -> Axis:
        """From 0 to the longest bar."""
        column = _SHARES if self.chart.as_shares else self.chart.parts[0]
        axis = make_axis(column, [sum(bar.sizes) for bar in self.bars], most_ticks, log=False, from_zero=True)
        _, bracket, unit = axis.title.rpartition("(")
        return dataclasses.replace(axis, title=f"all parts {bracket}{unit}" if bracket else "all parts")


def draw_stack(run: StoredRun, chart: Stack) -> StackDrawing:
    """The bars of one chart. Raises ``UserError`` when nothing is left to draw, and says why."""
    check_columns(run, chart, chart.x, [*chart.parts, *([chart.last] if chart.last else [])])
    taken = take(run, chart, lambda row: any(number(row[part]) is not None for part in chart.parts))
    if not taken.rows:
        raise nothing_left(run, chart, taken, notes_on(taken, log=False))
    groups: dict[tuple[Value, ...], list[Row]] = {}
    for row in taken.rows:
        groups.setdefault(tuple(row[name] for name in chart.x), []).append(row)
    telling = [index for index in range(len(chart.x)) if len({key[index] for key in groups}) > 1] or [0]
    ends = {key: _last_of_each(rows, chart.last) for key, rows in groups.items()}
    sizes = {key: [_typical(rows, part) for part in chart.parts] for key, rows in ends.items()}
    kept = [index for index in range(len(chart.parts)) if any((own[index] or 0) > 0 for own in sizes.values())]
    bars = tuple(
        _bar(chart, ", ".join(value_name(chart.x[index], key[index]) for index in telling), sizes[key], kept)
        for key in sorted(groups, key=sort_key)
    )
    rows = [row for own in ends.values() for row in own]
    notes = notes_on(Taken(taken.asked, tuple(rows), taken.void_count, 0), log=False)
    notes += _own_notes(list(sizes.values()), is_repeated=any(len(own) > 1 for own in ends.values()))
    return StackDrawing(chart, bars, tuple(chart.names[index] for index in kept), notes, source_of(run, rows))


def _last_of_each(rows: Sequence[Row], last: str) -> list[Row]:
    """Of each repetition the row that went farthest."""
    ends: dict[Value, Row] = {}
    for row in rows:
        known = ends.get(row.get(REPETITION))
        if known is None or not last or (number(row[last]) or 0) >= (number(known[last]) or 0):
            ends[row.get(REPETITION)] = row
    return list(ends.values())


def _typical(rows: Sequence[Row], part: str) -> float | None:
    values = [number(row[part]) for row in rows]
    known = [value for value in values if value is not None]
    return statistics.median(known) * base_factor(part) if known and len(known) == len(values) else None


def _bar(chart: Stack, name: str, sizes: Sequence[float | None], kept: Sequence[int]) -> Bar:
    lengths = [max(0.0, sizes[index] or 0.0) for index in kept]
    whole = sum(lengths)
    text = units.format_quantity(whole, units.SUFFIXES[units.column_suffix(chart.parts[0]) or "_count"].dimension)
    text += " and more" if None in sizes else ""
    if chart.as_shares and whole:
        lengths = [100 * length / whole for length in lengths]
    return Bar(name, tuple(lengths), text)


def _own_notes(sizes: Sequence[Sequence[float | None]], *, is_repeated: bool) -> tuple[str, ...]:
    known = [size for own in sizes for size in own if size is not None]
    below = sum(size < 0 for size in known)
    return tuple(
        text
        for holds, text in (
            (is_repeated, "repetitions: the median of each part"),
            (below, f"{below} of {len(known)} parts are below 0 and take no room"),
            (any(None in own for own in sizes), "and more: a part of it could not be measured"),
        )
        if holds
    )
