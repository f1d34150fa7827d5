"""From the rows of a run folder to the lines of a chart. Knows no experiment: what a run can show stands in its folder.

Void rows and missing values are left out, and the drawing says how many. Rows that differ in a key column which the
chart does not name are never joined: that column's values become part of the lines' names. Only repetitions of the same
thing are put together, as their median with a bar that spans them.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from c10k_probe.charts.axes import Axis, base_factor, make_axis, stem, value_text
from c10k_probe.exits import UsageError, UserError
from c10k_probe.experiment import Chart
from c10k_probe.results import StoredRun, Value

REPETITION: Final = "block"  # the key column that counts repetitions of the same thing
_FIELDS: Final = frozenset(item.name for item in dataclasses.fields(Chart))

Row = Mapping[str, Value]


@dataclass(frozen=True)
class Point:
    """One value, in base units; ``x`` is text on an axis of names. The interval's ends are None where there is none."""

    x: float | str
    y: float
    low: float | None
    high: float | None
    shaky: bool


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


# --- which chart ------------------------------------------------------------------------------------------------------


def charts_of(run: StoredRun) -> tuple[Chart, ...]:
    """The charts that the run's experiment declared. Raises ``UserError`` for a run without any."""
    found = run.facts.get("charts") or []
    if not found:
        raise UserError(f"{run.path} names no charts; its rows are in {run.path / 'rows.csv'}")
    try:
        return tuple(_stored_chart(item) for item in found)
    except (TypeError, ValueError, AttributeError, KeyError):
        raise UserError(f"{run.path / 'run.json'} holds charts that this version cannot read") from None


def choose(run: StoredRun, name: str | None) -> Drawing:
    """The chart of that name; without a name the first one that has something to draw. Raises ``UserError``."""
    charts = charts_of(run)
    names = [chart.name for chart in charts]
    if name is None:
        return _first_drawable(run, charts)
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"--chart: {name!r} is not known; {hint}this run has {', '.join(names)}")
    return draw(run, charts[names.index(name)])


def _first_drawable(run: StoredRun, charts: Sequence[Chart]) -> Drawing:
    refusals: list[UserError] = []
    for chart in charts:
        try:
            return draw(run, chart)
        except UserError as error:
            refusals.append(error)
    raise refusals[0]


def _stored_chart(item: Mapping[str, Any]) -> Chart:
    """A chart as JSON holds it; what a later version added is left aside."""
    known = {name: value for name, value in item.items() if name in _FIELDS}
    where = tuple(
        (str(column), tuple(value) if isinstance(value, list) else value) for column, value in known.pop("where", ())
    )
    chart = Chart(**{**known, "series": tuple(known.get("series", ())), "where": where})
    return dataclasses.replace(chart, name=printable(chart.name), title=printable(chart.title))


# --- its lines --------------------------------------------------------------------------------------------------------


def draw(run: StoredRun, chart: Chart) -> Drawing:
    """The lines of one chart. Raises ``UserError`` when nothing is left to draw, and says why."""
    kinds = dict(run.facts["columns"])
    _check_columns(run, chart, kinds)
    asked = [row for row in run.rows if all(_is_asked(row.get(name), value) for name, value in chart.where)]
    solid = [row for row in asked if row.get("grade") != "void"]
    rows = [row for row in solid if _is_drawable(row, chart, kinds)]
    notes = _notes(chart, rows, void_count=len(asked) - len(solid), missing_count=len(solid) - len(rows))
    if not rows:
        raise _nothing_left(run, chart, len(asked), notes)
    names = _line_columns(run, chart, rows, kinds)
    groups: dict[tuple[Value, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    is_text = kinds[chart.x] == "str"
    categories = tuple(dict.fromkeys(printable(str(row[chart.x])) for row in rows)) if is_text else ()
    telling = _telling(names, groups)
    lines = tuple(
        Line(_line_name(names, key, telling), _points(groups[key], chart, categories))
        for key in sorted(groups, key=_sort_key)
    )
    if sum(len(line.points) for line in lines) < len(rows):
        notes += ("repetitions: their median, with a bar that spans them",)
    return Drawing(chart, lines, categories, notes, _source(run, rows))


def _check_columns(run: StoredRun, chart: Chart, kinds: Mapping[str, str]) -> None:
    """Every column that the chart names is there, and ``y`` and its interval are numbers."""
    ends = [name for name in (chart.low, chart.high) if name]
    for name in (chart.x, chart.y, *ends, *chart.series, *(name for name, _ in chart.where)):
        if name not in kinds:
            raise UserError(f"{run.path}: chart {chart.name} needs the column {name}, which this run does not have")
    for name in (chart.y, *ends):
        if kinds[name] == "str":
            raise UserError(f"{run.path}: chart {chart.name} needs numbers in {name}, which holds text")


def _is_drawable(row: Row, chart: Chart, kinds: Mapping[str, str]) -> bool:
    """Whether both values are there and, on a logarithmic axis, above 0."""
    x, y = row.get(chart.x), row.get(chart.y)
    if x is None or x == "" or y is None:
        return False
    checks = [(y, chart.log_y), *([(x, chart.log_x)] if kinds[chart.x] != "str" else [])]
    numbers = [(_number(value), log) for value, log in checks]
    return all(value is not None and (value > 0 or not log) for value, log in numbers)


def _line_columns(run: StoredRun, chart: Chart, rows: Sequence[Row], kinds: Mapping[str, str]) -> list[str]:
    """The columns whose values make a line: those of the chart, and every other key that rows differ in."""
    named = list(chart.series)
    fixed = {chart.x, REPETITION, *(name for name, _ in chart.where)}
    others = [name for name in run.facts.get("keys", ()) if name not in {*named, *fixed}]
    named += [name for name in others if kinds[name] == "str" and len({row[name] for row in rows}) > 1]
    for name in others:
        if kinds[name] != "str" and _collides(name, [*named, chart.x], rows):
            named.append(name)
    return named


def _collides(name: str, names: Sequence[str], rows: Iterable[Row]) -> bool:
    """Whether rows of the same line and place differ in column ``name``."""
    seen: dict[tuple[Value, ...], Value] = {}
    return any(seen.setdefault(tuple(row[part] for part in names), row[name]) != row[name] for row in rows)


def _points(rows: Sequence[Row], chart: Chart, categories: Sequence[str]) -> tuple[Point, ...]:
    """The points of one line in the order of x, or of the names on it; repetitions put together."""
    places: dict[float | str, list[Point]] = {}
    for row in rows:
        point = _point(row, chart)
        places.setdefault(point.x, []).append(point)
    order = [name for name in categories if name in places] if categories else sorted(places)
    return tuple(_joined(places[x]) for x in order)


def _point(row: Row, chart: Chart) -> Point:
    x, y = row[chart.x], row[chart.y]
    assert x is not None
    assert isinstance(y, (int, float))
    low, high = (_number(row.get(name)) for name in (chart.low, chart.high))
    factor = base_factor(chart.y)
    return Point(
        printable(x) if isinstance(x, str) else float(x) * base_factor(chart.x),
        float(y) * factor,
        None if low is None or high is None else low * factor,
        None if low is None or high is None else high * factor,
        row.get("grade") == "shaky",
    )


def _joined(points: Sequence[Point]) -> Point:
    """Repetitions as one point."""
    if len(points) == 1:
        return points[0]
    low = min(point.y if point.low is None else point.low for point in points)
    high = max(point.y if point.high is None else point.high for point in points)
    middle = statistics.median(point.y for point in points)
    return Point(points[0].x, middle, low, high, any(point.shaky for point in points))


def _number(value: Value) -> float | None:
    """A finite number; None for anything else."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


# --- words ------------------------------------------------------------------------------------------------------------


def printable(text: str) -> str:
    """Text from a file, without what would command a terminal or break an SVG."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _telling(names: Sequence[str], keys: Iterable[tuple[Value, ...]]) -> list[bool]:
    """Which of the columns tell lines apart; when none does, the first still says what is drawn."""
    known = list(keys)
    varies = [len({key[index] for key in known}) > 1 for index in range(len(names))]
    return varies if any(varies) else [index == 0 for index in range(len(names))]


def _line_name(names: Sequence[str], key: tuple[Value, ...], telling: Sequence[bool]) -> str:
    parts = [_value_name(name, value) for name, value, tells in zip(names, key, telling, strict=True) if tells]
    return ", ".join(parts)


def _value_name(name: str, value: Value) -> str:
    """A text says itself; a number needs to be told what it is of."""
    if value is None or value == "":
        return f"no {stem(name)}"
    return printable(value) if isinstance(value, str) else f"{stem(name)} {value_text(name, value * base_factor(name))}"


def _sort_key(key: tuple[Value, ...]) -> tuple[tuple[bool, bool, float, str], ...]:
    """Numbers by size, then texts, then what is missing: a series has the same marker in every run."""
    return tuple(
        (value is None, isinstance(value, str), value if isinstance(value, (int, float)) else 0.0, str(value))
        for value in key
    )


def _notes(chart: Chart, rows: Sequence[Row], *, void_count: int, missing_count: int) -> tuple[str, ...]:
    """What a reader must know to read the picture right."""
    shaky_count = sum(row.get("grade") == "shaky" for row in rows)
    on_log = " or cannot be on a log axis" if chart.log_x or chart.log_y else ""
    return tuple(
        text
        for count, text in (
            (chart.low and chart.high and rows, f"bars: {_interval_name(chart)}"),
            (shaky_count, f"{shaky_count} of {len(rows)} values are shaky"),
            (void_count, f"left out: {void_count} void"),
            (missing_count, f"left out: {missing_count} whose value is missing{on_log}"),
        )
        if count
    )


def _interval_name(chart: Chart) -> str:
    """Columns with ``_lo`` and ``_hi`` are the 95 % interval everywhere in this project."""
    if "_lo" in chart.low and "_hi" in chart.high:
        return "95 % interval"
    return f"{stem(chart.low)} to {stem(chart.high)}"


def _nothing_left(run: StoredRun, chart: Chart, asked_count: int, notes: Sequence[str]) -> UserError:
    condition = " and ".join(f"{name} {_asked_text(value)}" for name, value in chart.where)
    rows = f"{asked_count} rows" + (f" with {condition}" if condition else "")
    why = "; ".join([rows, *notes])
    names = ", ".join(other.name for other in charts_of(run))
    return UserError(f"{run.path}: nothing to draw for {chart.name} ({why}); charts of this run: {names}")


def _source(run: StoredRun, rows: Sequence[Row]) -> str:
    """Where the numbers come from: run, experiment, kernel, date, n, and how the run ended unless it is finished."""
    facts = run.facts
    counts = sorted({int(count) for row in rows if isinstance(count := row.get("n_count"), (int, float))})
    samples = " to ".join(f"{count:,}" for count in dict.fromkeys(counts[:1] + counts[-1:]))
    parts = [
        f"run {facts.get('run_id')}, {facts.get('experiment')} v{facts.get('experiment_version')}",
        f"kernel {facts.get('machine', {}).get('kernel_release')}",
        str(facts.get("started"))[:10],
        f"n = {samples}" if samples else f"n = {len(rows)} rows",
        *([run.state] if run.state != "finished" else []),
    ]
    return printable(", ".join(parts))


def _is_asked(value: Value, wanted: object) -> bool:
    """Whether a row's value is the one that a chart takes, or one of them."""
    return value in wanted if isinstance(wanted, tuple) else value == wanted


def _asked_text(wanted: object) -> str:
    return " or ".join(map(str, wanted)) if isinstance(wanted, tuple) else str(wanted)
