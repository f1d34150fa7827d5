"""Bars cut into parts: from rows to bars, in a terminal and as an image."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from charting import row, stored

from c10k_probe.charts.choice import choose, draw
from c10k_probe.charts.image import image_bytes
from c10k_probe.charts.stacks import StackDrawing
from c10k_probe.charts.terminal import text_chart
from c10k_probe.charts.terminal_stack import GLYPHS
from c10k_probe.exits import UserError
from c10k_probe.experiment import Stack

STACK = Stack(
    "parts", "Where it goes", ("model", "placement"), ("echo_p50_ns", "ramp_s"), ("echoes", "ramps"), last="open_count"
)


def whole(model: str, first: float | None, second_s: float | None, **more: Any) -> dict[str, Any]:
    """A row with both parts, in nanoseconds and seconds."""
    return row(model, more.pop("open_count", 10), first, ramp_s=second_s, **more)


def drawn(rows: list[dict[str, Any]], **changes: Any) -> StackDrawing:
    chart = dataclasses.replace(STACK, **changes)
    drawing = draw(stored(rows, chart), chart)
    assert isinstance(drawing, StackDrawing)
    return drawing


def test_parts_are_in_one_unit_and_the_last_step_counts() -> None:
    """Columns of different units are added in their base unit; earlier steps of a ramp are passed over."""
    drawing = drawn(
        [whole("epoll", 5e9, 9.0, open_count=5), whole("epoll", 1e9, 3.0, open_count=10), whole("fork", 6e9, 2.0)]
    )
    assert {bar.name: bar.sizes for bar in drawing.bars} == {"epoll": (1e9, 3e9), "fork": (6e9, 2e9)}
    assert [bar.total_text for bar in drawing.bars] == ["4.00 s", "8.00 s"]


def test_repetitions_are_their_median_and_void_rows_are_left_out() -> None:
    rows = [whole("epoll", size * 1e9, 1.0, block=index) for index, size in enumerate((1, 2, 9))]
    drawing = drawn([*rows, whole("epoll", 50e9, 1.0, block=3, grade="void")])
    (bar,) = drawing.bars
    assert bar.sizes == (2e9, 1e9)
    assert "repetitions: the median of each part" in drawing.notes
    assert "left out: 1 void" in drawing.notes


def test_what_is_below_nothing_or_missing_is_said() -> None:
    drawing = drawn([whole("epoll", -1e9, 4.0), whole("fork", None, 2.0)])
    assert drawing.names == ("ramps",)  # a part that no bar has is not in the legend
    assert [bar.sizes for bar in drawing.bars] == [(4e9,), (2e9,)]
    assert drawing.bars[1].total_text == "2.00 s and more"
    assert any("below 0" in note for note in drawing.notes)
    assert any(note.startswith("and more:") for note in drawing.notes)


def test_shares_fill_every_bar() -> None:
    drawing = drawn([whole("epoll", 1e9, 3.0), whole("fork", 6e9, 2.0)], as_shares=True)
    assert [bar.sizes for bar in drawing.bars] == [(25.0, 75.0), (75.0, 25.0)]
    assert [bar.total_text for bar in drawing.bars] == ["4.00 s", "8.00 s"]  # the whole is told all the same
    assert drawing.axis(5).title == "all parts (%)"


@pytest.mark.parametrize("width", [40, 80, 200])
def test_bars_are_to_scale_and_fit_the_width(width: int) -> None:
    """The longest fills its room, the other is half of it; the parts of a bar are to scale within a cell."""
    text = text_chart(drawn([whole("epoll", 1e9, 3.0), whole("fork", 6e9, 2.0)]), width, 24)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    cells = {line.split(" │")[0].strip(): line.split("│")[1].split(" ")[0] for line in lines if "│" in line}
    assert len(cells["epoll"]) == pytest.approx(len(cells["fork"]) / 2, abs=1)
    assert cells["fork"].count(GLYPHS[0]) == pytest.approx(len(cells["fork"]) * 0.75, abs=1)
    assert set(cells["fork"]) == set(GLYPHS[:2])
    assert f"{GLYPHS[0]} echoes   {GLYPHS[1]} ramps" in text
    assert "4.00 s" in text


@pytest.mark.parametrize(("ending", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_images(ending: str, start: bytes) -> None:
    drawing = drawn([whole("epoll", 1e9, 3.0), whole("fork", 6e9, 2.0)])
    picture = image_bytes(drawing, ending)
    assert picture.startswith(start)
    assert picture == image_bytes(drawing, ending)
    if ending == "svg":
        text = picture.decode()
        assert all(f">{word}<" in text for word in ("epoll", "fork", "echoes", "ramps", "Where it goes"))
        assert " 4.00 s<" in text


def test_a_stack_is_read_back_from_json_and_chosen_by_name() -> None:
    run = stored([whole("epoll", 1e9, 3.0)], STACK)
    assert choose(run, "parts").chart == STACK
    with pytest.raises(UserError, match="nothing to draw for parts"):
        choose(stored([whole("epoll", None, None)], STACK), "parts")
