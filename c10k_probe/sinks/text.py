"""What the table and the plain lines share: a value with its interval as text, and which rows stand for all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from c10k_probe.events import RowMeasured, RunStarted
from c10k_probe.experiment import Scalar, View
from c10k_probe.units import format_column

IntervalStyle = Literal["ends", "percent", "none"]


def interval_text(
    column: str, middle: Scalar, low: Scalar = None, high: Scalar = None, style: IntervalStyle = "ends"
) -> str:
    """``52.1 µs [51.8 µs, 52.9 µs]``, or ``52.1 µs ±1.1%``, or without its interval; empty where nothing is known."""
    text = format_column(column, middle)
    if not text or style == "none" or not isinstance(low, (int, float)) or not isinstance(high, (int, float)):
        return text
    if style == "percent" and isinstance(middle, (int, float)) and middle:
        half_pct = (high - low) / 2 / abs(middle) * 100
        return f"{text} ±{half_pct:.1f}%" if half_pct < 10 else f"{text} ±{half_pct:.0f}%"
    return f"{text} [{format_column(column, low)}, {format_column(column, high)}]"


def view_text(view: View, row: RowMeasured, style: IntervalStyle = "ends") -> str:
    """The text of one view of a row."""
    middle, low, high = (row.values.get(name) for name in (view.column, view.low, view.high))
    return interval_text(view.column, middle, low, high, style)


def groups(start: RunStarted) -> list[str]:
    """The groups of views, in the order in which they were declared; the first is the main table."""
    return list(dict.fromkeys(view.group for view in start.views)) or [""]


def last_of_each(start: RunStarted, rows: Iterable[RowMeasured]) -> list[RowMeasured]:
    """Of a ramp its last measured step: one row per combination of the text keys; rows without numbers do not count."""
    texts = [column.name for column in start.columns if column.key and column.kind == "str"]
    numbers = [column.name for column in start.columns if not column.key and column.kind != "str"]
    measured = [row for row in rows if any(row.values[name] is not None for name in numbers)]
    return list({tuple(row.values[name] for name in texts): row for row in measured}.values())


def telling_keys(start: RunStarted, rows: Sequence[RowMeasured]) -> list[str]:
    """The key columns that tell rows apart; one that is the same everywhere takes no space, the first always stays."""
    keys = [column.name for column in start.columns if column.key]
    return [name for index, name in enumerate(keys) if index == 0 or len({row.values[name] for row in rows}) > 1]
