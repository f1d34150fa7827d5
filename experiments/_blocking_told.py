"""Rows of ``blocking`` as its judges read and tell them."""

from __future__ import annotations

from collections.abc import Sequence

from c10k_probe.experiment import FlatRow
from c10k_probe.units import format_column


def of(rows: Sequence[FlatRow], part: str) -> list[FlatRow]:
    """Its rows that were measured and are not void."""
    return [row for row in rows if row["part"] == part and row["status"] == "ok" and row["grade"] != "void"]


def number(row: FlatRow, name: str) -> float | None:
    """A value; None where there is none."""
    value = row[name]
    return float(value) if isinstance(value, int | float) else None


def text(name: str, row: FlatRow, low: str, high: str) -> str:
    """With its interval, where there are launches enough for one."""
    if row[low] is None or row[high] is None:
        return f"{format_column(name, row[name])} (no interval)"
    return f"{format_column(name, row[name])} [{format_column(low, row[low])}, {format_column(high, row[high])}]"
