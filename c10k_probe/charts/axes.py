"""The axes of a chart: range, ticks and a title with its unit, from a column's name and the values on it. Pure.

Values are in the base unit of the column's dimension (nanoseconds, bytes, ones).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

from c10k_probe import units

LINEAR_DECADES: Final = 0.5  # as wide as half a decade is the part of a logarithmic axis that reaches down to 0
_MARGIN: Final = 0.04  # of the range, on either side, so that no point lies on the frame
_SHORT_RANGE: Final = 20.0  # high over low of a logarithmic axis on which linear ticks still stand well
_PLAIN_SYMBOLS: Final = {"count": "count", "rate": "1/s", "ratio": "×", "percent": "%"}
# Where a logarithmic axis may have ticks, from few to many: (base, how many of its powers apart, multiples).
_DECIMAL: Final = (
    (10, 3, (1.0,)),
    (10, 2, (1.0,)),
    (10, 1, (1.0,)),
    (10, 1, (1.0, 3.0)),
    (10, 1, (1.0, 2.0, 5.0)),
    (10, 1, (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)),
)
_BINARY: Final = tuple((2, apart, (1.0,)) for apart in (20, 10, 5, 4, 2, 1))


@dataclass(frozen=True)
class Tick:
    """A value with its label."""

    value: float
    label: str


@dataclass(frozen=True)
class Axis:
    """What a renderer needs of one axis; ``title`` holds the unit, unless the labels hold theirs."""

    title: str
    low: float
    high: float
    ticks: tuple[Tick, ...]
    log: bool
    linear_to: float = 0.0  # of a logarithmic axis from 0: linear up to here

    def share(self, value: float) -> float:
        """Where a value lies, 0 at the low end and 1 at the high one; beyond them the end itself."""
        low, value, high = (self._place(part) for part in (self.low, value, self.high))
        return min(1.0, max(0.0, (value - low) / (high - low)))

    def _place(self, value: float) -> float:
        """On a logarithmic axis in decades; the linear part takes ``LINEAR_DECADES``."""
        if not self.log:
            return value
        if not self.linear_to:
            return math.log10(max(value, self.low))
        if value < self.linear_to:
            return LINEAR_DECADES * value / self.linear_to
        return LINEAR_DECADES + math.log10(value / self.linear_to)


def base_factor(column: str) -> float:
    """What a value of the column is multiplied by to be in the base unit of its dimension."""
    suffix = units.column_suffix(column)
    return units.SUFFIXES[suffix].factor if suffix else 1.0


def stem(column: str) -> str:
    """A column's name without its unit, for a reader: ``echo_p50_ns`` -> ``echo p50``, ``cycle_ratio`` -> itself."""
    suffix = units.column_suffix(column) or ""
    said = {"_bytes_per_connection": " per connection", "_ratio": " ratio"}.get(suffix, "")
    return column.removesuffix(suffix).replace("_", " ") + said


def value_text(column: str, value: float) -> str:
    """A value of the column (base unit) with its unit, as short as it can be said: ``64 MiB``, ``1,000``."""
    scale = _scale(_dimension(column), value)
    if scale is None:
        return _number(value)
    return f"{_number(value / scale.factor)} {scale.symbol}"


def make_axis(column: str, values: Sequence[float], most_ticks: int, *, log: bool, from_zero: bool = False) -> Axis:
    """The axis of a column for at least one value; a logarithmic one is for values above 0, and 0 itself.

    With a 0 it is linear from there to the smallest other value.
    """
    dimension = _dimension(column)
    above = [value for value in values if value > 0]
    if log and above and min(values) == 0:
        return _axis_from_zero(column, min(above), max(above), most_ticks)
    log = log and bool(above)
    if log:
        low, high = _log_range(min(values), max(values))
        places = _log_places(low, high, most_ticks, dimension)
    else:
        low, high = _linear_range(min(values), max(values), from_zero=from_zero)
        places = _linear_places(low, high, most_ticks, dimension)
    title, ticks = labelled(column, places, log=log)
    return Axis(title, low, high, ticks, log)


def _axis_from_zero(column: str, smallest: float, high: float, most_ticks: int) -> Axis:
    """Logarithmic from the smallest value above 0 on."""
    top = _log_range(smallest, high)[1]
    places = _log_places(smallest, top, most_ticks - 1, _dimension(column)) if most_ticks > 1 else []
    title, ticks = labelled(column, [0.0, *places], log=True)
    return Axis(title, 0.0, top, ticks, log=True, linear_to=smallest)


def labelled(column: str, places: Sequence[float], *, log: bool = False) -> tuple[str, tuple[Tick, ...]]:
    """The title of an axis with ticks at these places, and the ticks; one of them holds the unit."""
    unit, labels = _labels(column, places)
    notes = ", ".join(part for part in (unit, "log" if log else "") if part)
    title = f"{stem(column)} ({notes})" if notes else stem(column)
    return title, tuple(Tick(place, label) for place, label in zip(places, labels, strict=True))


# --- range ------------------------------------------------------------------------------------------------------------


def _log_range(low: float, high: float) -> tuple[float, float]:
    if low == high:
        return low / 2, high * 2
    margin = (high / low) ** _MARGIN
    return low / margin, high * margin


def _linear_range(low: float, high: float, *, from_zero: bool) -> tuple[float, float]:
    if from_zero or 0 <= low <= high / 2:
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        low, high = (low - abs(low) / 2, high + abs(high) / 2) if low else (0.0, 1.0)
    margin = (high - low) * _MARGIN
    return low - (margin if low else 0.0), high + (margin if high else 0.0)


# --- ticks ------------------------------------------------------------------------------------------------------------


def _linear_places(low: float, high: float, most: int, dimension: str) -> list[float]:
    """Multiples of 1, 2 or 5 in the unit that the largest value is told in."""
    scale = _scale(dimension, max(abs(low), abs(high)))
    factor = float(scale.factor) if scale else 1.0
    power = math.floor(math.log10((high - low) / factor / most))
    if dimension == "count" and math.floor(high) >= math.ceil(low):
        power = max(0, power)  # there is no half a thread, unless nothing whole lies on the axis: a mean of counts
    for step in (part * 10.0**ten * factor for ten in count(power) for part in (1, 2, 5)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            return [number * step for number in range(first, last + 1)]
    raise AssertionError("a step of the whole range has few places")


def _log_places(low: float, high: float, most: int, dimension: str) -> list[float]:
    """As many round numbers as there may be; on a range too short for three of them, linear ones."""
    choices = [_powers(low, high, *rule) for rule in (_BINARY if dimension == "bytes" else _DECIMAL)]
    best = max((places for places in choices if len(places) <= most), key=len, default=[])
    if len(best) >= min(3, most):
        return best
    if high / low < _SHORT_RANGE:
        return _linear_places(low, high, most, dimension)
    return choices[0][:: max(1, math.ceil(len(choices[0]) / most))] or _linear_places(low, high, most, dimension)


def _powers(low: float, high: float, base: int, apart: int, multiples: tuple[float, ...]) -> list[float]:
    first = math.floor(math.log(low, base)) // apart * apart
    last = math.ceil(math.log(high, base))
    places = [part * float(base) ** power for power in range(first, last + 1, apart) for part in multiples]
    return [place for place in places if low <= place <= high]


# --- words ------------------------------------------------------------------------------------------------------------


def _dimension(column: str) -> str:
    suffix = units.column_suffix(column)
    return units.SUFFIXES[suffix].dimension if suffix else ""


def _scale(dimension: str, value: float) -> units.Scale | None:
    """The written unit for a value; None where numbers are written as they are."""
    if dimension not in ("bytes", "duration"):
        return None
    scales = [scale for scale in units.SCALES[dimension] if scale.printed]
    return next((scale for scale in reversed(scales) if abs(value) >= scale.factor), scales[0])


def _labels(column: str, places: Sequence[float]) -> tuple[str, list[str]]:
    """The unit for the title and numbers; no unit and numbers with theirs, where one unit would not suit all."""
    dimension = _dimension(column)
    scale = _scale(dimension, max(map(abs, places), default=0.0))
    if scale is None:
        return _PLAIN_SYMBOLS.get(dimension, ""), [_number(place) for place in places]
    if any(0 < abs(place) < 0.1 * scale.factor for place in places):
        return "", [value_text(column, place) for place in places]
    return scale.symbol, [_number(place / scale.factor) for place in places]


def _number(value: float) -> str:
    """``10,000``, ``0.5``; never with an exponent where digits will do."""
    rounded = float(f"{value:.6g}")
    return f"{rounded:,.0f}" if rounded.is_integer() else f"{rounded:g}"
