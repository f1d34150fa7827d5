"""The rows of a run that a chart takes, their values, and what a reader must be told about them.

Void rows and missing values are left out, and the drawing says how many. Only repetitions of the same thing are put
together, as their median with an interval that spans them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from c10k_probe.charts.axes import base_factor, stem, value_text
from c10k_probe.charts.declared import charts_of, printable
from c10k_probe.exits import UserError
from c10k_probe.experiment import OFF, TRACED_BY, AnyChart
from c10k_probe.results import StoredRun, Value

NOTHING: Final = "none"  # the value of a text key where there is nothing that could be of a kind
REPETITION: Final = "block"  # the key column that counts repetitions of the same thing

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
class Taken:
    """The rows that a chart asked for, those of them that it can draw, and how many of the others there are."""

    asked: tuple[Row, ...]
    rows: tuple[Row, ...]
    void_count: int
    missing_count: int


def take(run: StoredRun, chart: AnyChart, is_drawable: Callable[[Row], bool]) -> Taken:
    """The rows of one chart."""
    where = (*_untraced(run, chart), *chart.where)
    asked = tuple(row for row in run.rows if all(_is_asked(row.get(name), value) for name, value in where))
    solid = [row for row in asked if row.get("grade") != "void"]
    rows = tuple(row for row in solid if is_drawable(row))
    return Taken(asked, rows, len(asked) - len(solid), len(solid) - len(rows))


def _untraced(run: StoredRun, chart: AnyChart) -> tuple[tuple[str, str], ...]:
    """Only untraced rows, where a run tells them apart and the chart does not itself say which it takes."""
    is_told = TRACED_BY in run.facts.get("keys", ()) and TRACED_BY not in dict(chart.where)
    return ((TRACED_BY, OFF),) if is_told else ()


def check_columns(run: StoredRun, chart: AnyChart, texts: Iterable[str], numbers: Iterable[str]) -> None:
    """Every column that the chart names is there, and numbers where it needs them. Raises ``UserError``."""
    kinds = dict(run.facts["columns"])
    numbers = tuple(numbers)
    for name in (*texts, *numbers, *(name for name, _ in chart.where)):
        if name not in kinds:
            raise UserError(f"{run.path}: chart {chart.name} needs the column {name}, which this run does not have")
    for name in numbers:
        if kinds[name] == "str":
            raise UserError(f"{run.path}: chart {chart.name} needs numbers in {name}, which holds text")


def number(value: Value) -> float | None:
    """A finite number; None for anything else."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def point_of(row: Row, x: str, y: str, low: str, high: str) -> Point:
    """The point of a row by the columns' names; both values are there."""
    place, value = row[x], row[y]
    assert place is not None
    assert isinstance(value, (int, float))
    factor = base_factor(y)
    bottom, top = (number(row.get(name)) for name in (low, high))
    return Point(
        printable(place) if isinstance(place, str) else float(place) * base_factor(x),
        float(value) * factor,
        None if bottom is None or top is None else bottom * factor,
        None if bottom is None or top is None else top * factor,
        row.get("grade") == "shaky",
    )


def joined(points: Sequence[Point]) -> Point:
    """Repetitions as one point."""
    if len(points) == 1:
        return points[0]
    low = min(point.y if point.low is None else point.low for point in points)
    high = max(point.y if point.high is None else point.high for point in points)
    middle = statistics.median(point.y for point in points)
    return Point(points[0].x, middle, low, high, any(point.shaky for point in points))


def differ(name: str, names: Sequence[str], rows: Iterable[Row]) -> bool:
    """Whether rows that agree in columns ``names`` differ in column ``name``."""
    seen: dict[tuple[Value, ...], Value] = {}
    return any(seen.setdefault(tuple(row[part] for part in names), row[name]) != row[name] for row in rows)


# --- words ------------------------------------------------------------------------------------------------------------


def value_name(name: str, value: Value) -> str:
    """A text says itself, but on and off; a number needs to be told what it is of."""
    if value is None or value == "":
        return f"no {stem(name)}"
    if value in ("on", "off"):
        return f"{stem(name)} {value}"
    return printable(value) if isinstance(value, str) else f"{stem(name)} {value_text(name, value * base_factor(name))}"


def sort_key(key: tuple[Value, ...]) -> tuple[tuple[bool, bool, float, str], ...]:
    """Numbers by size, then texts, then what is missing: a series has the same marker in every run."""
    return tuple(
        (value is None, isinstance(value, str), value if isinstance(value, (int, float)) else 0.0, str(value))
        for value in key
    )


def notes_on(taken: Taken, *, log: bool) -> tuple[str, ...]:
    """What a reader must know of the rows: shaky ones, and those that were left out."""
    shaky_count = sum(row.get("grade") == "shaky" for row in taken.rows)
    on_log = " or cannot be on a log axis" if log else ""
    return tuple(
        text
        for count, text in (
            (shaky_count, f"{shaky_count} of {len(taken.rows)} values are shaky"),
            (taken.void_count, f"left out: {taken.void_count} void"),
            (taken.missing_count, f"left out: {taken.missing_count} whose value is missing{on_log}"),
        )
        if count
    )


def interval_name(low: str, high: str) -> str:
    """Columns with ``_lo`` and ``_hi`` are the 95 % interval everywhere in this project."""
    return "95 % interval" if "_lo" in low and "_hi" in high else f"{stem(low)} to {stem(high)}"


def nothing_left(run: StoredRun, chart: AnyChart, taken: Taken, notes: Sequence[str]) -> UserError:
    """The refusal of a chart without rows: why there are none, and which charts there are."""
    condition = " and ".join(f"{name} {_asked_text(value)}" for name, value in chart.where)
    rows = f"{len(taken.asked)} rows" + (f" with {condition}" if condition else "")
    why = "; ".join([rows, *notes])
    names = ", ".join(other.name for other in charts_of(run))
    return UserError(f"{run.path}: nothing to draw for {chart.name} ({why}); charts of this run: {names}")


def source_of(run: StoredRun, rows: Sequence[Row]) -> str:
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
