"""Units: one table that both parses ``10k``, ``64MiB``, ``2s`` and prints them.

A quantity is a number in its dimension's base unit: a count in ones, a size in bytes, a duration in
nanoseconds. Column names carry their unit as a suffix (``_ns``, ``_bytes`` ...); ``SUFFIXES`` says which
dimension, and which multiple of its base unit, each suffix stands for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Final, NamedTuple


class Scale(NamedTuple):
    """One written unit: ``symbol`` is printed, ``spellings`` are also read (case-insensitively)."""

    symbol: str
    factor: int
    spellings: tuple[str, ...] = ()
    printed: bool = True


SCALES: Final[Mapping[str, tuple[Scale, ...]]] = {
    "count": (Scale("", 1), Scale("k", 10**3), Scale("m", 10**6), Scale("g", 10**9, ("b",))),
    "bytes": (
        Scale("B", 1, ("", "byte", "bytes")),
        Scale("KiB", 2**10, ("k", "ki")),
        Scale("MiB", 2**20, ("m", "mi")),
        Scale("GiB", 2**30, ("g", "gi")),
        Scale("TiB", 2**40, ("t", "ti")),
        Scale("kB", 10**3, printed=False),
        Scale("MB", 10**6, printed=False),
        Scale("GB", 10**9, printed=False),
    ),
    "duration": (
        Scale("ns", 1),
        Scale("µs", 10**3, ("us", "μs")),
        Scale("ms", 10**6),
        Scale("s", 10**9, ("", "sec")),
        Scale("min", 60 * 10**9, ("m",)),
        Scale("h", 3600 * 10**9),
    ),
}


class Suffix(NamedTuple):
    """What a column suffix means: its dimension and the factor to that dimension's base unit."""

    dimension: str
    factor: float = 1.0


SUFFIXES: Final[Mapping[str, Suffix]] = {
    "_ns": Suffix("duration"),
    "_per_s": Suffix("rate"),
    "_per_cpu_s": Suffix("rate"),
    "_s": Suffix("duration", 1e9),
    "_bytes": Suffix("bytes"),
    "_bytes_per_connection": Suffix("bytes"),
    "_bytes_per_descriptor": Suffix("bytes"),
    "_per_event": Suffix("count"),
    "_per_request": Suffix("count"),
    "_per_connection": Suffix("count"),
    "_per_creation": Suffix("count"),
    "_exponent": Suffix("number"),
    "_index": Suffix("number"),
    "_count": Suffix("count"),
    "_ratio": Suffix("ratio"),
    "_pct": Suffix("percent"),
}

_PLAIN_SYMBOLS: Final[Mapping[str, str]] = {"ratio": "×", "percent": " %", "rate": "/s", "number": ""}
_WHOLE = r"[0-9]{1,3}(?:[,_][0-9]{3})+|[0-9]+"  # a comma parts thousands and nothing else
_WRITTEN = re.compile(rf"\s*([+-]?(?:{_WHOLE})\.?[0-9]*(?:e[+-]?[0-9]{{1,2}})?|[+-]?\.[0-9]+)\s*([^\W\d_]*)\s*")


def parse(text: str, dimension: str) -> int:
    """The quantity written in ``text``, in the base unit of ``dimension``.

    Raises ``ValueError`` with a sentence that names the text and the units that are understood. A number that is not
    whole in the base unit (``1.5`` connections) is refused, never rounded.
    """
    match = _WRITTEN.fullmatch(text.lower())
    if match is None:
        raise ValueError(f"{text!r} is not {_article(dimension)}")
    number, symbol = match.groups()
    factor = _factors(dimension).get(symbol)
    if factor is None:
        raise ValueError(f"{text!r} has an unknown unit; known are {known_units(dimension)}")
    value = Fraction(number.replace("_", "").replace(",", "")) * factor
    if value.denominator != 1:
        raise ValueError(f"{text!r} is not a whole number of {SCALES[dimension][0].symbol or 'ones'}")
    return int(value)


def known_units(dimension: str) -> str:
    """The printed unit symbols of a dimension, as one phrase."""
    return ", ".join(scale.symbol for scale in SCALES[dimension] if scale.symbol and scale.printed)


def format_exact(value: int, dimension: str) -> str:
    """The shortest spelling that ``parse`` reads back as exactly ``value`` (``10000`` -> ``10k``)."""
    for scale in reversed([scale for scale in SCALES[dimension] if scale.printed]):
        if value and value % scale.factor == 0:
            return f"{value // scale.factor}{scale.symbol}"
    return f"{value}{SCALES[dimension][0].symbol}"


def format_quantity(value: float, dimension: str) -> str:
    """``value`` (base unit) for a reader: three significant digits, or all of the whole part, and a unit."""
    if dimension in _PLAIN_SYMBOLS:
        return f"{_digits(value)}{_PLAIN_SYMBOLS[dimension]}"
    if dimension == "count":
        return f"{value:,.0f}" if float(value).is_integer() else _digits(value)
    scales = [scale for scale in SCALES[dimension] if scale.printed]
    fitting = [scale for scale in scales if abs(value) >= scale.factor] or scales[:1]
    if fitting[-1].factor == 1 and float(value).is_integer():
        return f"{value:.0f} {fitting[-1].symbol}"
    return f"{_digits(value / fitting[-1].factor)} {fitting[-1].symbol}"


def column_suffix(name: str) -> str | None:
    """The unit suffix of a column name (the longest that fits), or None."""
    fitting = [suffix for suffix in SUFFIXES if name.endswith(suffix)]
    return max(fitting, key=len, default=None)


def format_column(name: str, value: object) -> str:
    """A cell of a table: the value of column ``name`` with its unit; nothing for a missing one."""
    if value is None:
        return ""
    suffix = column_suffix(name)
    if suffix is None or not isinstance(value, (int, float)) or isinstance(value, bool):
        return str(value)
    meaning = SUFFIXES[suffix]
    return format_quantity(value * meaning.factor, meaning.dimension)


AT_REST: Final = (None, 0, "", "none", "off")


def label(name: str, value: object) -> str:
    """A value of column ``name`` where no header names it: a word as it is, anything else with its name.

    What is at rest (nothing, none, off) is not mentioned.
    """
    if value in AT_REST:
        return ""
    if isinstance(value, str) and not value[:1].isdigit() and value != "on":
        return value
    stem = name.removeprefix("asked_").removesuffix(column_suffix(name) or "").replace("_", " ")
    return f"{stem} {format_column(name, value)}"


def _digits(value: float) -> str:
    """Three significant digits, or all digits of the whole part when there are more."""
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 1 or size == 0 else f"{value:.3g}"


def _factors(dimension: str) -> dict[str, int]:
    """Every accepted spelling, lower-cased, with its factor."""
    return {
        spelling.lower(): scale.factor for scale in SCALES[dimension] for spelling in (scale.symbol, *scale.spellings)
    }


def _article(dimension: str) -> str:
    """What was expected, as a noun phrase with an example."""
    return {
        "count": "a whole number such as 1000 or 10k",
        "bytes": "a size such as 4096 or 64MiB",
        "duration": "a duration such as 500ms or 2s",
    }[dimension]
