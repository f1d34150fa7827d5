"""A map in the terminal: what stands in which cell, with and without colours, at any width."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from charting import CONTEST, MAP, place, row, stored

from c10k_probe.charts.choice import draw
from c10k_probe.charts.terminal import text_chart

_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def text_of(rows: list[dict[str, Any]], width: int = 80, *, colour: bool = False, **changes: Any) -> str:
    chart = dataclasses.replace(MAP, **changes)
    return text_chart(draw(stored(rows, chart), chart), width, 24, colour=colour)


def grid_of(text: str) -> dict[str, list[str]]:
    """Label of y -> the words in its row."""
    rows = (line.split("│") for line in text.splitlines() if "│" in line)
    return {label.strip(): cells.split() for label, cells in rows}


def many(xs: int, ys: int = 3) -> list[dict[str, Any]]:
    """epoll wins where more than half of the places lie to the left."""
    rows = []
    for x in range(xs):
        values = (1e3, 2e3) if x > xs / 2 else (2e3, 1e3)
        rows += [item for y in range(ys) for item in place(100 + x, 1 + y, epoll=values[0], poll=values[1])]
    return rows


def test_a_map_of_known_rows() -> None:
    text = text_of(CONTEST)
    lines = text.splitlines()
    assert lines[0] == "Who answers first"
    assert lines[1] == "E = epoll: 3 of 5   P = poll: 1 of 5   S = select: 0 of 4"
    assert lines[2] == "(cells won of those it was measured in)   = too close to call: 1"
    assert lines[3] == "a small letter: the only one measured: 1   . not measured: 3"
    assert "active (count)" in lines
    assert grid_of(text) == {
        "100": [".", ".", "s"],
        "10": [".", "=EP", "E", ">999"],
        "1": ["P", "1.5", "E", "2.5", "E", "12"],
    }
    assert list(grid_of(text)) == ["100", "10", "1"]  # upwards
    labels = next(line for line in lines if line.split() == ["10", "100", "1,000"])
    cells = next(line for line in lines if line.startswith("  1 │"))
    assert [cells.index(part) for part in ("P 1.5", "E 2.5", "E 12")] == [
        labels.index(f" {part}") + 1 for part in ("10", "100", "1,000")
    ]
    assert lines[lines.index(labels) + 1].strip() == "open (count)"
    assert "too close: E/P in 1" in " ".join(lines)
    assert lines[-1] == "run abc123, mock v3, kernel 6.1.0-test, 2030-01-02, n = 14 rows"


def test_shaky_values_are_marked() -> None:
    rows = [item | ({"grade": "shaky"} if item["active_count"] != 1 else {}) for item in CONTEST]
    grid = grid_of(text_of(rows))
    assert grid["100"][2] == "s~"
    assert grid["10"][1:] == ["=EP~", "E~>999"]
    assert grid["1"][0] == "P"


def test_axes_have_units() -> None:
    rows = [row("epoll", 10, ramp_s=seconds) for seconds in (0.25, 0.5, 1.0)]
    text = text_of(rows, y="ramp_s")
    assert "ramp (s)" in text.splitlines()
    assert list(grid_of(text)) == ["1", "0.5", "0.25"]


@pytest.mark.parametrize("width", [1, 40, 80, 120, 200])
@pytest.mark.parametrize("xs", [1, 7, 10, 25, 40, 91])
def test_any_width_holds_every_cell(width: int, xs: int) -> None:
    """As many signs as there are cells, also where they stand in panels one below the other."""
    text = text_of(many(xs), width)
    assert max(map(len, text.splitlines())) <= max(40, width)
    assert "\x1b" not in text
    grid = "".join(line.partition("│")[2] for line in text.splitlines() if "│" in line)
    won = sum(x > xs / 2 for x in range(xs)) * 3
    assert (grid.count("E"), grid.count("P")) == (won, 3 * xs - won)
    assert f"E = epoll: {won} of {3 * xs}" in text


@pytest.mark.parametrize("width", [40, 80, 120])
def test_narrow_cells_have_their_sign_alone(width: int) -> None:
    text = text_of(many(30), width)
    assert set("".join(grid_of(text)["1"])) == {"E", "P"}
    assert "how many times" not in text
    wide = text_of(many(4), width)
    assert grid_of(wide)["1"] == ["P", "2.0"] * 3 + ["E", "2.0"]
    assert "how many times" in wide


def test_many_candidates_end_in_a_plus() -> None:
    rows = [row(f"{letter}-model", 10, 1000.0 + number) for number, letter in enumerate("abcdefghij")]
    text = text_of(rows)
    assert grid_of(text)["1"] == ["=ABC+"]
    assert "too close: A/B/C/D/E/F/G/H/I/J in 1" in text.replace("\n", " ")


@pytest.mark.parametrize("width", [40, 80, 120])
def test_colours_add_nothing_but_colour(width: int) -> None:
    for rows in (CONTEST, many(25), many(91)):
        coloured = text_of(rows, width, colour=True)
        plain = [line.rstrip() for line in _ESCAPE.sub("", coloured).splitlines()]
        assert plain == text_of(rows, width).splitlines()
        assert not any(_ESCAPE.sub("", line).strip() == "" for line in coloured.splitlines())


def test_a_win_has_the_colour_of_its_contestant() -> None:
    text = text_of(CONTEST, colour=True)
    paints = dict(re.findall(r"(\x1b\[[0-9;]+m)([A-Z])\x1b\[0m = ", text))
    assert sorted(paints.values()) == ["E", "P", "S"]
    cells = re.findall(r"(\x1b\[[0-9;]+m) ([A-Z]) ", text)
    assert [letter for _, letter in cells] == ["E", "P", "E", "E"]
    assert all(paints[paint] == letter for paint, letter in cells)
    assert re.search(r"\x1b\[[0-9;]+m =EP", text)
    assert not re.search(r"m s ", text)  # a win of nobody has no colour
    assert text.count("\x1b[0m") == text.count("\x1b[") / 2


def test_a_name_cannot_command_the_terminal() -> None:
    rows = [row("\x1b[31mred\x07\n", 10, 1.0), row("日本", 10, 2.0), row("", 10, 3.0)]
    text = text_of(rows, title="t")
    assert re.search(r"[^\n -~│─└日本]", text) is None
    assert "?[31mred??: 1 of 1" in text
