"""From the rows of a run folder to the lines of a chart. Knows no experiment: what a run can show stands in its folder.

Rows that differ in a key column which the chart does not name are never joined: that column's values become part of the
lines' names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from c10k_probe.charts.axes import Axis, make_axis
from c10k_probe.charts.declared import printable
from c10k_probe.charts.rows import (
    NOTHING,
    REPETITION,
    Point,
    Row,
    check_columns,
    differ,
    interval_name,
    joined,
    notes_on,
    nothing_left,
    number,
    point_of,
    sort_key,
    source_of,
    take,
    value_name,
)
from c10k_probe.experiment import Chart
from c10k_probe.results import StoredRun, Value

FEW_LONE: Final = 3  # lines of a single point that a legend has room for


@dataclass(frozen=True)
class Line:
    """The points of one series, in the order of ``x``; the name is empty when there is nothing to tell apart, and for
    a point alone among many.
    """

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Drawing:
    """All that a renderer needs. ``categories`` is empty unless ``x`` is text."""

    chart: Chart
    lines: tuple[Line, ...]
    categories: tuple[str, ...]
    notes: tuple[str, ...]
    source: str

    @property
    def names(self) -> tuple[str, ...]:
        """The names in the legend."""
        return tuple(line.name for line in self.lines if line.name)

    @property
    def varies(self) -> bool:
        """Whether there is more than one place across."""
        return len({point.x for line in self.lines for point in line.points}) > 1

    def x_axis(self, most_ticks: int) -> Axis:
        """The axis of a numeric ``x``."""
        values = [point.x for line in self.lines for point in line.points if isinstance(point.x, float)]
        return make_axis(self.chart.x, values, most_ticks, log=self.chart.log_x)

    def y_axis(self, most_ticks: int) -> Axis:
        """The axis of the values and their intervals; a linear one begins at 0."""
        parts = [part for line in self.lines for point in line.points for part in (point.y, point.low, point.high)]
        values = [part for part in parts if part is not None and (part > 0 or not self.chart.log_y)]
        return make_axis(self.chart.y, values, most_ticks, log=self.chart.log_y, from_zero=True)


def draw_lines(run: StoredRun, chart: Chart) -> Drawing:
    """The lines of one chart. Raises ``UserError`` when nothing is left to draw, and says why."""
    kinds = dict(run.facts["columns"])
    check_columns(run, chart, (chart.x, *chart.series), [name for name in (chart.y, chart.low, chart.high) if name])
    taken = take(run, chart, lambda row: _is_drawable(row, chart, kinds))
    rows, notes = taken.rows, notes_on(taken, log=chart.log_x or chart.log_y)
    if not rows:
        raise nothing_left(run, chart, taken, notes)
    if chart.low and chart.high:
        notes = (f"bars: {interval_name(chart.low, chart.high)}", *notes)
    names = _line_columns(run, chart, rows, kinds)
    groups: dict[tuple[Value, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    groups = _with_beginnings(groups, [name in chart.series for name in names])
    is_text = kinds[chart.x] == "str"
    categories = tuple(dict.fromkeys(printable(str(row[chart.x])) for row in rows)) if is_text else ()
    telling = _telling(names, groups)
    lines = tuple(
        Line(_line_name(names, key, telling), _points(groups[key], chart, categories))
        for key in sorted(groups, key=sort_key)
    )
    if not is_text:
        lines, unnamed = _without_lone_names(lines)
        notes += unnamed
    if sum(len(line.points) for line in lines) < sum(map(len, groups.values())):
        notes += ("repetitions: their median, with a bar that spans them",)
    notes = (*_told(chart, rows), *notes)
    return Drawing(chart, lines, categories, notes, source_of(run, rows))


def _told(chart: Chart, rows: Sequence[Row]) -> Iterator[str]:
    """The conditions that the picture must tell; one that differs from row to row, or that none has, is no such."""
    for name in chart.told:
        values = {row.get(name) for row in rows}
        value = values.pop()
        if not values and value is not None:
            yield value_name(name, value)


def _is_drawable(row: Row, chart: Chart, kinds: Mapping[str, str]) -> bool:
    """Whether both values are there and their axes can hold them: a logarithmic one across begins at 0."""
    x, y = row.get(chart.x), row.get(chart.y)
    if x is None or x == "" or y is None:
        return False
    height = number(y)
    if height is None or (chart.log_y and height <= 0):
        return False
    place = 0.0 if kinds[chart.x] == "str" else number(x)
    return place is not None and (place >= 0 or not chart.log_x)


def _line_columns(run: StoredRun, chart: Chart, rows: Sequence[Row], kinds: Mapping[str, str]) -> list[str]:
    """The columns whose values make a line: those of the chart, and every other key that rows differ in."""
    named = list(chart.series)
    fixed = {chart.x, REPETITION, *(name for name, _ in chart.where)}
    others = [name for name in run.facts.get("keys", ()) if name not in {*named, *fixed}]
    named += [name for name in others if kinds[name] == "str" and len({row[name] for row in rows}) > 1]
    for name in others:
        if kinds[name] != "str" and differ(name, [*named, chart.x], rows):
            named.append(name)
    return named


def _without_lone_names(lines: tuple[Line, ...]) -> tuple[tuple[Line, ...], tuple[str, ...]]:
    """Many lines of one point beside longer ones lose their names: they would fill the legend."""
    lone = sum(len(line.points) == 1 for line in lines)
    if lone <= FEW_LONE or lone == len(lines):
        return lines, ()
    named = tuple(line if len(line.points) > 1 else dataclasses.replace(line, name="") for line in lines)
    return named, (f"{lone} marks that stand alone are not named",)


def _with_beginnings(
    groups: Mapping[tuple[Value, ...], list[Row]], is_series: Sequence[bool]
) -> dict[tuple[Value, ...], list[Row]]:
    """Rows of a column's ``none`` begin the lines that differ in that column alone: nothing is of every kind."""
    joined_groups = {key: list(rows) for key, rows in groups.items()}
    for key, rows in groups.items():
        for index in (index for index, value in enumerate(key) if value == NOTHING and not is_series[index]):
            kinds = [other for other in groups if other != key and _without(other, index) == _without(key, index)]
            for other in kinds:
                joined_groups[other] += rows
            if kinds:
                joined_groups.pop(key, None)
    return joined_groups


def _without(key: tuple[Value, ...], index: int) -> tuple[Value, ...]:
    return (*key[:index], *key[index + 1 :])


def _points(rows: Sequence[Row], chart: Chart, categories: Sequence[str]) -> tuple[Point, ...]:
    """The points of one line in the order of x, or of the names on it; repetitions put together."""
    places: dict[float | str, list[Point]] = {}
    for row in rows:
        point = point_of(row, chart.x, chart.y, chart.low, chart.high)
        places.setdefault(point.x, []).append(point)
    order = [name for name in categories if name in places] if categories else sorted(places)
    return tuple(joined(places[x]) for x in order)


def _telling(names: Sequence[str], keys: Iterable[tuple[Value, ...]]) -> list[bool]:
    """Which of the columns tell lines apart; when none does, the first still says what is drawn."""
    known = list(keys)
    varies = [len({key[index] for key in known}) > 1 for index in range(len(names))]
    return varies if any(varies) else [index == 0 for index in range(len(names))]


def _line_name(names: Sequence[str], key: tuple[Value, ...], telling: Sequence[bool]) -> str:
    parts = [value_name(name, value) for name, value, tells in zip(names, key, telling, strict=True) if tells]
    return ", ".join(parts)
