"""What the judges of servers share: which rows and findings they read, parts of a rule, and numbers as text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from c10k_probe.experiment import Finding, FlatRow, Made
from c10k_probe.stats import Interval
from c10k_probe.units import format_column


def select(rows: Iterable[FlatRow], **wanted: str) -> list[FlatRow]:
    """The rows that agree with every named value, observed ones."""
    return [row for row in rows if all(row.get(name) == value for name, value in ({"observed": "on"} | wanted).items())]


def number(row: FlatRow, name: str) -> float | None:
    """A numeric value of a row."""
    value = row.get(name)
    return float(value) if isinstance(value, (int, float)) else None


def found_interval(made: Sequence[Made], subject: str, column: str) -> Interval | None:
    """A finding's value when it has an interval."""
    for item in made:
        if isinstance(item, Finding) and (item.subject, item.column) == (subject, column):
            value = item.value
            return None if value is None or value.low is None or value.high is None else value
    return None


def in_words(column: str, value: Interval | float) -> str:
    """A value in its unit, with the ends of its interval."""
    if not isinstance(value, Interval):
        return format_column(column, value)
    low, high = (format_column(column, end) for end in (value.low, value.high))
    return f"{format_column(column, value.middle)} [{low}, {high}]"


def is_within(value: Interval, low: float, high: float) -> bool | None:
    """Whether an interval lies inside, outside (False), or across an end (None)."""
    assert value.low is not None
    assert value.high is not None
    if low <= value.low and value.high <= high:
        return True
    return False if value.high < low or value.low > high else None


def bounds_text(column: str, low: float, high: float) -> str:
    """What a rule asks of a value, such as ``at least 1.1×`` or ``1.6× to 2.5×``."""
    ends = [format_column(column, end) for end in (low, high) if math.isfinite(end)]
    if len(ends) == 2:
        return " to ".join(ends)
    return f"{'at least' if math.isfinite(low) else 'at most'} {ends[0]}"


def told_part(part: bool | None) -> str:
    """Whether a part of a rule holds, for a reader who does not know the rule."""
    return {True: "holds", False: "does not hold", None: "undecided, the interval reaches beyond what is asked for"}[
        part
    ]


def combined(parts: Sequence[bool | None]) -> str:
    """The verdict on a claim of several parts."""
    if True in parts and False in parts:
        return "PARTLY"
    if None in parts:
        return "INCONCLUSIVE"
    return "CONFIRMED" if True in parts else "REFUTED"


def interval_of(row: FlatRow, stem: str, suffix: str) -> Interval | None:
    """The interval in a row's columns; None without one."""
    middle, low, high = (number(row, f"{stem}{end}{suffix}") for end in ("", "_lo", "_hi"))
    return None if middle is None or low is None or high is None else Interval(middle, low, high)
