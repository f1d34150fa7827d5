"""Parameters that are written as ranges or as amounts: what they stand for, and what is refused."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c10k_probe.exits import UsageError
from c10k_probe.parameters import (
    Option,
    Parameters,
    amount_of,
    build_parameters,
    decades,
    parameter,
    parse_option,
)

COUNTS = Option("Counts.", minimum=1, maximum=1_000_000, many=True, ranges=True)
AMOUNTS = Option("Amounts.", dimension="amount", many=True)


def counts(text: str, option: Option = COUNTS) -> object:
    return parse_option("how_many", option, text)


def amounts(text: str) -> object:
    return parse_option("active", AMOUNTS, text)


def refusal(option: Option, text: str) -> str:
    """The one line that refuses a text; it begins with the option's name and has the text."""
    with pytest.raises(UsageError) as refused:
        parse_option("how_many", option, text)
    line = str(refused.value)
    assert line.startswith("--how-many: ")
    assert "\n" not in line
    return line


# --- ranges -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("100..100000", (100, 300, 1000, 3000, 10_000, 30_000, 100_000)),
        ("100..100k", (100, 300, 1000, 3000, 10_000, 30_000, 100_000)),
        ("1..10", (1, 3, 10)),
        ("1..2", (1, 2)),
        ("2..5", (2, 3, 5)),
        ("150..2500", (150, 300, 1000, 2500)),
        ("299..301", (299, 300, 301)),
        ("7..7", (7,)),
        (" 100 .. 1000 ", (100, 300, 1000)),
        ("1..10,20,100..300", (1, 3, 10, 20, 100, 300)),
        ("1000,100..300", (1000, 100, 300)),
    ],
)
def test_a_range_is_both_ends_and_the_decades_between(text: str, values: tuple[int, ...]) -> None:
    assert counts(text) == values


@given(st.integers(1, 10**9), st.integers(0, 10**9))
def test_every_range_ascends_from_end_to_end_in_steps_of_ten_thirds_at_most(low: int, width: int) -> None:
    found = list(decades(low, low + width))
    assert (found[0], found[-1]) == (low, low + width)
    assert all(one < other <= 10 / 3 * one + 1 for one, other in itertools.pairwise(found))
    assert all(str(step).strip("0") in ("1", "3") for step in found[1:-1])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1000..100", ("'1000..100'", "backwards", "smaller end first")),
        ("..100", ("'..100'", "end missing", "100..10k")),
        ("100..", ("'100..'", "end missing")),
        ("..", ("'..'", "end missing")),
        ("0..100", ("'0'", "at least 1")),
        ("-5..100", ("'-5'", "at least 1")),
        ("100..2m", ("'2m'", "at most 1m")),
        ("100..lots", ("'lots'",)),
        ("1..2..3", ("2..3",)),
        ("1.5..3", ("1.5",)),
        ("100...1000", (".1000",)),
        ("100..1000,300", ("twice",)),
        ("5,5", ("twice",)),
        ("1..10,10..30", ("twice",)),
        ("100,", ("''",)),
        ("", ("''",)),
    ],
)
def test_a_range_that_cannot_be_is_refused_with_its_rule(text: str, words: tuple[str, ...]) -> None:
    line = refusal(COUNTS, text)
    assert [word for word in words if word not in line] == []


@pytest.mark.parametrize(
    ("text", "values"),
    [("1..4", (1, 2, 4)), ("1..8", (1, 2, 4, 8)), ("3..7", (3, 4, 7)), ("1..6,12", (1, 2, 4, 6, 12)), ("5..5", (5,))],
)
def test_a_range_may_double(text: str, values: tuple[int, ...]) -> None:
    assert parse_option("workers", dataclasses.replace(COUNTS, doubles=True), text) == values


def test_where_ranges_are_not_meant_dots_are_a_mistake() -> None:
    refusal(Option("Counts.", many=True), "1..10")
    assert counts("a..b", Option("Words.", dimension="text")) == "a..b"


# --- amounts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("10", ("10",)),
        ("1k", ("1000",)),
        ("1%", ("1%",)),
        ("1.0%", ("1%",)),
        ("0.1%", ("0.1%",)),
        (".5%", ("0.5%",)),
        ("5 %", ("5%",)),
        ("100%", ("100%",)),
        ("1, 10,50% ,100%", ("1", "10", "50%", "100%")),
        ("100,100%", ("100", "100%")),
    ],
)
def test_an_amount_is_a_count_or_a_percentage_in_one_spelling(text: str, values: tuple[str, ...]) -> None:
    assert amounts(text) == values


@pytest.mark.parametrize("text", ["0%", "0.0%", "-1%", "101%", "100.1%", "nan%", "inf%", "-inf%", "1e400%"])
def test_a_percentage_out_of_range_is_refused(text: str) -> None:
    line = refusal(AMOUNTS, text)
    assert f"{text!r} is out of range" in line
    assert "above 0 and at or below 100" in line


@pytest.mark.parametrize("text", ["0", "-3"])
def test_a_count_below_one_is_refused(text: str) -> None:
    assert "the least is 1" in refusal(AMOUNTS, text)


@pytest.mark.parametrize("text", ["", "%", "half", "half%", "1.5", "5%%", "%5", "5s", "1..10", "nan", "10%..50%"])
def test_what_is_no_amount_is_refused_with_an_example(text: str) -> None:
    line = refusal(AMOUNTS, text)
    assert f"{text!r} is not an amount such as 100 or 5%" in line


@pytest.mark.parametrize("text", ["10,10", "1k,1000", "5%,5.0%", "100%,100 %"])
def test_the_same_amount_twice_is_refused(text: str) -> None:
    assert "names the same value twice" in refusal(AMOUNTS, text)


@pytest.mark.parametrize(
    ("text", "whole", "count"),
    [
        ("10", 5, 10),
        ("1%", 100, 1),
        ("1%", 10_000, 100),
        ("50%", 101, 50),
        ("100%", 12_345, 12_345),
        ("33%", 100, 33),
        ("0.1%", 10_000, 10),
        ("0.1%", 100, 1),
        ("0.001%", 1, 1),
    ],
)
def test_what_an_amount_stands_for(text: str, whole: int, count: int) -> None:
    """A percentage of anything is one at least."""
    assert amount_of(text, whole) == count


@given(st.floats(0.0001, 100), st.integers(1, 10**7))
def test_a_percentage_is_never_none_and_never_more_than_all(share: float, whole: int) -> None:
    (text,) = parse_option("active", AMOUNTS, f"{share:.6f}%")  # type: ignore[misc]
    assert 1 <= amount_of(text, whole) <= whole


def test_defaults_and_quick_values_are_as_they_would_be_typed() -> None:
    @dataclass(frozen=True)
    class Some(Parameters):
        """One of each."""

        fds: tuple[int, ...] = parameter((1, 3), "Counts.", many=True, ranges=True, quick=(1,))
        active: tuple[str, ...] = parameter(("1", "100%"), "Amounts.", dimension="amount", many=True)

    assert build_parameters(Some, {}, quick=False) == Some((1, 3), ("1", "100%"))
    assert build_parameters(Some, {}, quick=True).fds == (1,)
    typed = build_parameters(Some, {"fds": "1..10", "active": "2,50%"}, quick=True)
    assert typed == Some((1, 3, 10), ("2", "50%"))


def test_all_stands_for_every_choice() -> None:
    option = Option("", choices=("one", "two"), many=True)
    assert parse_option("model", option, "all") == ("one", "two")
    with pytest.raises(UsageError, match="'all' is not known"):
        parse_option("model", Option("", choices=("one", "two")), "all")
