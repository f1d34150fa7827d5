"""The table of units: known answers, refusals, and that what is printed is what was meant."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c10k_probe import units

DIMENSIONS = sorted(units.SCALES)


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("10", "count", 10),
        ("10k", "count", 10_000),
        ("10K", "count", 10_000),
        (" 10 k ", "count", 10_000),
        ("1.5k", "count", 1500),
        ("2m", "count", 2_000_000),
        ("1g", "count", 10**9),
        ("1b", "count", 10**9),
        ("10_000", "count", 10_000),
        ("10,000", "count", 10_000),
        ("1e3", "count", 1000),
        ("-5", "count", -5),
        ("+5", "count", 5),
        ("0", "count", 0),
        ("4096", "bytes", 4096),
        ("1byte", "bytes", 1),
        ("64MiB", "bytes", 64 * 2**20),
        ("64mib", "bytes", 64 * 2**20),
        ("64M", "bytes", 64 * 2**20),
        ("64mi", "bytes", 64 * 2**20),
        ("1kB", "bytes", 1000),
        ("1KiB", "bytes", 1024),
        ("1MB", "bytes", 10**6),
        ("1GB", "bytes", 10**9),
        ("0.5KiB", "bytes", 512),
        ("2TiB", "bytes", 2 * 2**40),
        ("2", "duration", 2 * 10**9),
        ("2s", "duration", 2 * 10**9),
        (".5s", "duration", 500_000_000),
        ("500ms", "duration", 500_000_000),
        ("5us", "duration", 5000),
        ("5µs", "duration", 5000),
        ("5μs", "duration", 5000),
        ("7ns", "duration", 7),
        ("3min", "duration", 180 * 10**9),
        ("3m", "duration", 180 * 10**9),
        ("1h", "duration", 3600 * 10**9),
    ],
)
def test_parse_known_answers(text: str, dimension: str, value: int) -> None:
    assert units.parse(text, dimension) == value


@pytest.mark.parametrize(
    ("text", "dimension", "words"),
    [
        ("", "count", ("''", "whole number", "10k")),
        ("ten", "count", ("'ten'", "10k")),
        ("k", "count", ("'k'", "10k")),
        ("1 2", "count", ("'1 2'", "10k")),
        ("--5", "count", ("'--5'", "10k")),
        ("nan", "count", ("'nan'", "10k")),
        ("0x10", "count", ("'0x10'",)),
        ("１０", "count", ("'１０'", "10k")),
        ("1.5", "count", ("'1.5'", "whole number of ones")),
        ("1e-1", "count", ("'1e-1'", "whole number of ones")),
        ("10s", "count", ("'10s'", "unknown unit", "k, m, g")),
        ("10furlongs", "count", ("'10furlongs'", "unknown unit", "k, m, g")),
        ("", "bytes", ("''", "64MiB")),
        ("0.3B", "bytes", ("'0.3B'", "whole number of B")),
        ("5s", "bytes", ("'5s'", "unknown unit", "B, KiB, MiB, GiB, TiB")),
        ("soon", "duration", ("'soon'", "500ms")),
        ("0.5ns", "duration", ("'0.5ns'", "whole number of ns")),
        ("5MiB", "duration", ("'5MiB'", "unknown unit", "ns, µs, ms, s, min, h")),
    ],
)
def test_refusals_name_text_and_what_is_allowed(text: str, dimension: str, words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"is not|unknown unit") as caught:
        units.parse(text, dimension)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("dimension", DIMENSIONS)
@given(data=st.data())
def test_every_spelling_of_every_scale_is_read(dimension: str, data: st.DataObject) -> None:
    scale = data.draw(st.sampled_from(units.SCALES[dimension]))
    spelling = data.draw(st.sampled_from((scale.symbol, *scale.spellings)))
    written = data.draw(st.sampled_from((spelling, spelling.lower(), spelling.upper().replace("Μ", "µ"))))
    number = data.draw(st.integers(-(10**6), 10**6))
    assert units.parse(f"{number}{written}", dimension) == number * scale.factor


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_no_spelling_means_two_things(dimension: str) -> None:
    spellings = [spelling.lower() for scale in units.SCALES[dimension] for spelling in {scale.symbol, *scale.spellings}]
    assert len(spellings) == len(set(spellings))


@pytest.mark.parametrize(
    ("value", "dimension", "text"),
    [
        (0, "count", "0"),
        (999, "count", "999"),
        (10_000, "count", "10k"),
        (10_001, "count", "10001"),
        (2_000_000, "count", "2m"),
        (0, "bytes", "0B"),
        (1000, "bytes", "1000B"),
        (65536, "bytes", "64KiB"),
        (2**40, "bytes", "1TiB"),
        (0, "duration", "0ns"),
        (90 * 10**9, "duration", "90s"),
        (120 * 10**9, "duration", "2min"),
        (1500, "duration", "1500ns"),
        (2000, "duration", "2µs"),
    ],
)
def test_format_exact_known_answers(value: int, dimension: str, text: str) -> None:
    assert units.format_exact(value, dimension) == text


@pytest.mark.parametrize("dimension", DIMENSIONS)
@given(value=st.one_of(st.integers(-(2**63), 2**63), st.integers(-999, 999).map(lambda part: part * 3600 * 10**9)))
def test_format_exact_is_read_back_exactly(dimension: str, value: int) -> None:
    assert units.parse(units.format_exact(value, dimension), dimension) == value


@pytest.mark.parametrize(
    ("value", "dimension", "text"),
    [
        (52_123, "duration", "52.1 µs"),
        (999, "duration", "999 ns"),
        (0, "duration", "0 ns"),
        (0.25, "duration", "0.25 ns"),
        (1000, "duration", "1.00 µs"),
        (1_234_567, "duration", "1.23 ms"),
        (2.5e9, "duration", "2.50 s"),
        (90e9, "duration", "1.50 min"),
        (7200e9, "duration", "2.00 h"),
        (-52_123, "duration", "-52.1 µs"),
        (0, "bytes", "0 B"),
        (1023, "bytes", "1023 B"),
        (4096, "bytes", "4.00 KiB"),
        (10.5 * 2**20, "bytes", "10.5 MiB"),
        (5 * 2**50, "bytes", "5,120 TiB"),
        (1, "count", "1"),
        (1_234_567, "count", "1,234,567"),
        (2.5, "count", "2.50"),
        (1.5, "ratio", "1.50×"),
        (12.34, "percent", "12.3 %"),
        (123_456, "rate", "123,456/s"),
    ],
)
def test_format_quantity_known_answers(value: float, dimension: str, text: str) -> None:
    assert units.format_quantity(value, dimension) == text


PRINTED = re.compile(r"(-?[\d,]*\.?\d+(?:e[+-]\d+)?)(.*)")
OTHER_FACTORS = {"ratio": {"×": 1}, "percent": {"%": 1}, "rate": {"/s": 1}}


def scale_of(dimension: str, symbol: str) -> int:
    known = OTHER_FACTORS.get(dimension) or {scale.symbol: scale.factor for scale in units.SCALES[dimension]}
    return known[symbol.strip()]


@pytest.mark.parametrize("dimension", [*DIMENSIONS, *OTHER_FACTORS])
@given(
    value=st.one_of(
        st.integers(-(2**53), 2**53),
        st.floats(1e-6, 1e15),
        st.floats(-1e15, -1e-6),
        st.floats(999.0, 1001.0),
        st.floats(9.9, 10.1),
    )
)
def test_format_quantity_never_lies_by_more_than_its_last_digit(dimension: str, value: float) -> None:
    match = PRINTED.fullmatch(units.format_quantity(value, dimension))
    assert match is not None
    number, symbol = match[1].replace(",", ""), match[2]
    digits, _, exponent = number.partition("e")
    decimals = len(digits.partition(".")[2]) - int(exponent or 0)
    factor = scale_of(dimension, symbol)
    half_of_last_digit = Fraction(factor) / (Fraction(10) ** decimals * 2)
    slack = abs(Fraction(value)) / 10**12  # of the division in floating point
    assert abs(Fraction(number) * factor - Fraction(value)) <= half_of_last_digit + slack


@pytest.mark.parametrize("dimension", DIMENSIONS)
@given(value=st.floats(0.001, 1e15))
def test_format_quantity_shows_three_significant_digits_or_more(dimension: str, value: float) -> None:
    match = PRINTED.fullmatch(units.format_quantity(value, dimension))
    assert match is not None
    shown = float(match[1].replace(",", "")) * scale_of(dimension, match[2])
    assert shown == pytest.approx(value, rel=0.0051)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("cycle_p50_ns", "_ns"),
        ("ramp_s", "_s"),
        ("connect_rate_per_s", "_per_s"),
        ("server_lo_bytes_per_connection", "_bytes_per_connection"),
        ("rss_bytes", "_bytes"),
        ("n_count", "_count"),
        ("cycle_lo_ratio", "_ratio"),
        ("steal_pct", "_pct"),
        ("status", None),
        ("reason", None),
        ("bytes", None),
        ("ns_value", None),
    ],
)
def test_column_suffix(name: str, suffix: str | None) -> None:
    assert units.column_suffix(name) == suffix


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("cycle_p50_ns", 52_123.0, "52.1 µs"),
        ("ramp_s", 2.5, "2.50 s"),
        ("ramp_s", 0.0025, "2.50 ms"),
        ("rate_per_s", 70_000.0, "70,000/s"),
        ("server_bytes_per_connection", 2048.0, "2.00 KiB"),
        ("n_count", 10_000, "10,000"),
        ("cycle_ratio", 3.456, "3.46×"),
        ("steal_pct", 0.5, "0.5 %"),
        ("n_count", None, ""),
        ("method", "fork", "fork"),
        ("n_count", "many", "many"),
        ("block", 3, "3"),
        ("ready_count", True, "True"),
    ],
)
def test_format_column(name: str, value: object, text: str) -> None:
    assert units.format_column(name, value) == text


@pytest.mark.parametrize("suffix", sorted(units.SUFFIXES))
def test_every_suffix_can_be_printed(suffix: str) -> None:
    assert units.column_suffix("x" + suffix) == suffix
    assert re.search(r"\d", units.format_column("x" + suffix, 1234.5))


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_known_units_are_the_printed_ones(dimension: str) -> None:
    for symbol in units.known_units(dimension).split(", "):
        assert units.parse(f"1{symbol}", dimension) >= 1
