"""From the rows of a run folder to the lines of a chart. Knows no experiment: what a run can show stands in its folder.

Rows that differ in a key column which the chart does not name are never joined: that column's values become part of the
lines' names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from c10k_probe.charts.axes import Axis, make_axis
from c10k_probe.charts.declared import printable
from c10k_probe.charts.rows import (
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


@dataclass(frozen=True)
class Line:
    """The points of one series, in the order of ``x``; the name is empty when there is nothing to tell apart."""

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
    is_text = kinds[chart.x] == "str"
    categories = tuple(dict.fromkeys(printable(str(row[chart.x])) for row in rows)) if is_text else ()
    telling = _telling(names, groups)
    lines = tuple(
        Line(_line_name(names, key, telling), _points(groups[key], chart, categories))
        for key in sorted(groups, key=sort_key)
    )
    if sum(len(line.points) for line in lines) < len(rows):
        notes += ("repetitions: their median, with a bar that spans them",)
    return Drawing(chart, lines, categories, notes, source_of(run, rows))


def _is_drawable(row: Row, chart: Chart, kinds: Mapping[str, str]) -> bool:
    """Whether both values are there and, on a logarithmic axis, above 0."""
    x, y = row.get(chart.x), row.get(chart.y)
    if x is None or x == "" or y is None:
        return False
    checks = [(y, chart.log_y), *([(x, chart.log_x)] if kinds[chart.x] != "str" else [])]
    numbers = [(number(value), log) for value, log in checks]
    return all(value is not None and (value > 0 or not log) for value, log in numbers)


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
