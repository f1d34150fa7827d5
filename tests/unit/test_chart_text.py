"""Charts in the terminal: where marks and bars stand, what fits a width."""

from __future__ import annotations

import dataclasses
import re
from itertools import pairwise

import pytest
from charting import CHART, NAMES, row, stored

from c10k_probe.charts.choice import draw
from c10k_probe.charts.terminal import MARKERS, text_chart


def canvas_of(text: str) -> list[str]:
    """The rows inside the frame, from the top."""
    rows = text.splitlines()
    top = next(index for index, line in enumerate(rows) if "┌" in line)
    end = next(index for index, line in enumerate(rows) if "└" in line)
    left = rows[top].index("┌") + 1
    return [line[left : left + len(rows[top].strip()) - 2].ljust(1) for line in rows[top + 1 : end]]


def places_of(text: str, marker: str) -> list[tuple[int, int]]:
    """(column, row from the bottom) of each mark, from the left."""
    rows = canvas_of(text)
    return sorted(
        (column, len(rows) - 1 - index)
        for index, line in enumerate(rows)
        for column, letter in enumerate(line)
        if letter == marker
    )


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_text_keeps_to_the_width(width: int) -> None:
    rows = [row(model, 10**power, 1000.0 * power) for model in ("epoll", "thread") for power in range(1, 5)]
    for chart in (CHART, dataclasses.replace(CHART, log_y=True), NAMES):
        text = text_chart(draw(stored(rows), chart), width, 24)
        assert max(map(len, text.splitlines())) <= width
        assert width - 2 <= max(len(line) for line in text.splitlines() if "┐" in line or "┘" in line) <= width


def test_text_fits_a_terminal_of_24_rows() -> None:
    rows = [row(open_count=10**power) for power in range(1, 5)]
    assert len(text_chart(draw(stored(rows), CHART), 80, 23).splitlines()) <= 23


def test_marks_stand_where_their_values_are() -> None:
    """On two log axes a power law is a straight line: every step goes as far right and as far up."""
    rows = [row(open_count=10**power, y=10.0**power) for power in range(1, 5)]
    chart = dataclasses.replace(CHART, low="", high="", log_y=True)
    text = text_chart(draw(stored(rows), chart), 80, 30)
    marks = places_of(text, "o")
    assert len(marks) == 4
    for axis in (0, 1):
        steps = [after[axis] - before[axis] for before, after in pairwise(marks)]
        assert max(steps) - min(steps) <= 1
        assert min(steps) >= 3


def test_marks_stand_above_their_tick_and_beside_it() -> None:
    rows = [row(open_count=count, y=count * 1e3) for count in (10, 100, 1000)]
    lines = text_chart(draw(stored(rows), dataclasses.replace(CHART, log_y=True)), 80, 30).splitlines()
    labels = next(line for line in lines if " 10 " in line and " 100 " in line and "1,000" in line)
    frame = next(line for line in lines if "└" in line)
    for label, count in (("10 µs", "10"), ("100 µs", "100"), ("1 ms", "1,000")):
        (line,) = [line for line in lines if line.startswith(label.rjust(len("100 µs")) + "┤")]
        centre = labels.index(f" {count}") + 1 + len(count) / 2
        assert "o" in line
        assert frame[line.index("o")] == "┬"
        assert abs(line.index("o") - centre) <= 3


def test_intervals_reach_from_low_to_high() -> None:
    ends = {"echo_p50_lo_ns": 100.0, "echo_p50_hi_ns": 900.0}
    rows = [row(y=500.0, **ends), row(open_count=100, y=1000.0)]
    text = text_chart(draw(stored(rows), CHART), 80, 24)
    height = len(canvas_of(text))
    left = min(column for column, _ in places_of(text, "│"))
    bar = [place for column, place in places_of(text, "│") if column == left]
    assert min(bar) == pytest.approx(0.1 * height / 1.14, abs=1.1)
    assert max(bar) == pytest.approx(0.9 * height / 1.14, abs=1.1)


def test_marks_that_meet_stand_side_by_side() -> None:
    rows = [row(model, count, 1000.0) for model in ("epoll", "fork", "thread") for count in (10, 100)]
    text = text_chart(draw(stored(rows), CHART), 80, 24)
    assert len([line for line in canvas_of(text) if line.count("ox+") == 2]) == 1
    assert [column for column, _ in places_of(text, "x")] == sorted({column for column, _ in places_of(text, "│")})
    assert "marks side by side: values in one place" in text
    assert "o epoll   x fork   + thread" in text
    assert "side by side" not in text_chart(draw(stored(rows[:2]), CHART), 80, 24)


def test_marks_without_room_side_by_side_are_counted() -> None:
    rows = [row(model, count, 1000.0) for model in ("epoll", "fork", "thread") for count in range(10, 60)]
    text = text_chart(draw(stored(rows), dataclasses.replace(CHART, log_x=False)), 80, 24)
    assert len(places_of(text, "3")) > 40
    assert "a digit: so many marks in one place" in text


def test_eight_lines_of_five_points_can_be_told_apart() -> None:
    """Every one of 40 values keeps its own mark, though half of the lines lie upon each other."""
    rows = [row(f"model {line}", 10**power, 1e3 * (1 + line // 2)) for line in range(8) for power in range(1, 6)]
    for width in (80, 120):
        text = text_chart(draw(stored(rows), CHART), width, 24)
        assert [len(places_of(text, marker)) for marker in MARKERS[:8]] == [5] * 8
        assert not places_of(text, "2")


def test_names_get_a_row_for_each_line() -> None:
    rows = [row(name, 10, 1e3 * (1 + index), placement=where) for index, name in enumerate("abc") for where in "pq"]
    chart = dataclasses.replace(NAMES, series=("placement",))
    text = text_chart(draw(stored(rows), chart), 80, 24)
    marks = places_of(text, "o")
    assert [place for _, place in marks] == [7, 4, 1]
    assert [place for _, place in places_of(text, "x")] == [6, 3, 0]
    assert [column for column, _ in marks] == sorted({column for column, _ in marks})
    assert "─" in canvas_of(text)[0]
    assert [line[0] for line in text.splitlines() if "┤" in line] == ["a", "b", "c"]


def test_one_point_and_many_lines_can_be_drawn() -> None:
    many = [row(f"model {number}", 10 * (1 + step), 1e3 + number) for number in range(40) for step in range(3)]
    for rows in ([row()], [row(y=0.0)], many):
        assert "└" in text_chart(draw(stored(rows), CHART), 80, 24)
    assert len(set(MARKERS)) == len(MARKERS) > 25


def test_a_long_name_leaves_room_for_the_picture() -> None:
    text = text_chart(draw(stored([row("m" * 200), row("short")]), NAMES), 80, 24)
    assert max(map(len, text.splitlines())) <= 80
    assert len(places_of(text, "o")) == 2


def test_a_name_cannot_command_the_terminal() -> None:
    rows = [row("\x1b[31mred\x07\n"), row("b")]
    for chart in (CHART, NAMES):
        text = text_chart(draw(stored(rows, experiment="\x1b]0;x"), dataclasses.replace(chart, title="t")), 80, 24)
        assert re.search(r"[^\n -~│─┌┐└┘┤┬·µ×…]", text) is None
