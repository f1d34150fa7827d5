"""What the judges of fork-latency share: which rows they read, three-valued parts of a rule, and numbers as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from c10k_probe import units
from c10k_probe.experiment import NOT_MEASURED, FlatRow, Scalar, Verdict

Part = Literal["holds", "does not hold", "is open"]
Ends = tuple[float, float, float]  # middle, low and high

STATE_COLUMNS = (
    "asked_rss_bytes",
    "asked_file_rss_bytes",
    "asked_mappings_count",
    "asked_descriptors_count",
    "asked_alive_count",
    "asked_libraries_count",
)


def select(rows: Iterable[FlatRow], **wanted: Scalar) -> list[FlatRow]:
    """The rows that agree with every named value."""
    return [row for row in rows if all(row.get(name) == value for name, value in wanted.items())]


def varied(rows: Iterable[FlatRow], column: str, **wanted: Scalar) -> list[FlatRow]:
    """Rows of a parent whose state differs in one column only, that of nothing included."""
    others: dict[str, Scalar] = {name: 0 for name in STATE_COLUMNS if name != column}
    return select(rows, **{"placement": "one-cpu", "huge_pages": "off", **others, **wanted})


def plain(rows: Iterable[FlatRow], **wanted: Scalar) -> list[FlatRow]:
    """Rows of a parent without further state, on one CPU; axes name their own zero, so there may be several."""
    none: dict[str, Scalar] = dict.fromkeys(STATE_COLUMNS, 0)
    return select(rows, **{"placement": "one-cpu", "huge_pages": "off", **none, **wanted})


def not_measured(claim: str, restated: str, rule: str, reason: str) -> Verdict:
    """A claim that these rows say nothing about, and what it needs."""
    return Verdict(claim, restated, rule, NOT_MEASURED, reason)


def number(row: FlatRow, name: str) -> float | None:
    """A numeric value of a row."""
    value = row.get(name)
    return float(value) if isinstance(value, (int, float)) else None


def interval(row: FlatRow, stem: str, suffix: str) -> Ends | None:
    """Middle, low and high of an estimate; None without an interval."""
    middle, low, high = (number(row, name) for name in (f"{stem}{suffix}", f"{stem}_lo{suffix}", f"{stem}_hi{suffix}"))
    return None if middle is None or low is None or high is None else (middle, low, high)


def text(column: str, middle: float | None, low: float | None = None, high: float | None = None) -> str:
    """A value with the unit of ``column``, and its interval when it has one."""
    value = units.format_column(column, middle)
    if low is None or high is None:
        return value
    return f"{value} [{units.format_column(column, low)}, {units.format_column(column, high)}]"


def part(*, holds: bool, fails: bool) -> Part:
    """One part of a rule: an interval that lies on both sides of a threshold leaves it open."""
    return "holds" if holds else "does not hold" if fails else "is open"


def combined(parts: Sequence[Part]) -> str:
    """The verdict on a claim of several parts; an open one decides nothing, and keeps all from being decided."""
    if "holds" in parts and "does not hold" in parts:
        return "PARTLY"
    if "is open" in parts:
        return "INCONCLUSIVE"
    return "CONFIRMED" if "holds" in parts else "REFUTED"
