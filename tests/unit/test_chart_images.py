"""Charts as images: what an SVG says, where its marks are, and targets that refuse."""

from __future__ import annotations

import dataclasses
import io
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from charting import CHART, NAMES, ROWS, row, stored

from c10k_probe.charts.choice import AnyDrawing, draw
from c10k_probe.charts.image import check_target, image_bytes, save_chart
from c10k_probe.charts.terminal import text_chart
from c10k_probe.exits import UsageError
from c10k_probe.experiment import Chart


def svg_of(drawing: AnyDrawing) -> ElementTree.Element:
    return ElementTree.fromstring(image_bytes(drawing, "svg"))


def texts_of(drawing: AnyDrawing) -> list[str]:
    return ["".join(item.itertext()).strip() for item in svg_of(drawing).iter("{http://www.w3.org/2000/svg}text")]


def pixels_of(picture: bytes) -> Any:
    import numpy
    from PIL import Image  # comes with matplotlib

    with Image.open(io.BytesIO(picture)) as image:
        return numpy.asarray(image.convert("L"))


@pytest.mark.parametrize("chart", [CHART, dataclasses.replace(CHART, log_y=True), NAMES], ids=["lin", "log", "names"])
def test_a_png_is_a_picture_with_something_on_it(chart: Chart) -> None:
    pixels = pixels_of(image_bytes(draw(stored(ROWS), chart), "png"))
    height, width = pixels.shape
    assert width == 1200
    assert height >= 750
    assert 0.9 < (pixels > 250).mean() < 0.995
    assert (pixels < 60).sum() > 500


def test_an_svg_says_everything_in_text() -> None:
    texts = texts_of(draw(stored([*ROWS, row(open_count=5, grade="shaky")]), CHART))
    for text in ("Echo", "epoll", "thread", "echo p50 (µs)", "open (count, log)", "1,000", "10,000"):
        assert text in texts
    assert any("run abc123, mock v3, kernel 6.1.0-test, 2030-01-02" in text for text in texts)
    assert any("95 % interval" in text and "1 of 9 values are shaky (hollow)" in text for text in texts)


def test_an_svg_of_names_has_them_on_the_axis() -> None:
    texts = texts_of(draw(stored([row("fork", 10, 1e6), row("vfork", 10, 2e6)]), NAMES))
    assert {"fork", "vfork", "model", "echo p50 (ms)", "0", "1", "2"} <= set(texts)


def test_zero_is_on_a_logarithmic_axis_of_an_image() -> None:
    """At its left end, and the rest as far apart as on any logarithmic axis."""
    rows = [row(open_count=count, y=1000.0 * (1 + index)) for index, count in enumerate((0, 10, 100, 1000))]
    drawing = draw(stored(rows), dataclasses.replace(CHART, low="", high=""))
    assert {"0", "10", "100", "1,000", "open (count, log)"} <= set(texts_of(drawing))
    steps = [after - before for (before, _), (after, _) in pairwise(marks_of(drawing)[:4])]
    assert 0.4 < steps[0] / steps[1] < 0.7
    assert steps[1] == pytest.approx(steps[2], rel=0.01)


def test_what_has_no_name_is_drawn_and_not_in_the_legend() -> None:
    rows = [row("epoll"), row("epoll", 20), *(row(f"lone{index}", 30) for index in range(4))]
    texts = texts_of(draw(stored(rows), CHART))
    assert "epoll" in texts
    assert not any(text.startswith("lone") for text in texts)
    assert any("4 marks that stand alone are not named" in text for text in texts)


def test_the_same_run_gives_the_same_bytes() -> None:
    for ending in ("svg", "png"):
        assert image_bytes(draw(stored(ROWS), CHART), ending) == image_bytes(draw(stored(ROWS), CHART), ending)


def marks_of(drawing: AnyDrawing) -> list[tuple[float, float]]:
    """Where the values' marks are, in points from the left and from the top, in the order of drawing."""
    uses = svg_of(drawing).iter("{http://www.w3.org/2000/svg}use")
    styled = [use for use in uses if "stroke: #111111" in use.get("style", "") and "fill" in use.get("style", "")]
    return [(float(use.get("x", "")), float(use.get("y", ""))) for use in styled]


def test_the_marks_of_an_image_are_those_of_the_file() -> None:
    rows = [row(open_count=10**power, y=10.0**power) for power in range(1, 5)]
    chart = dataclasses.replace(CHART, low="", high="", log_y=True)
    marks = marks_of(draw(stored(rows), chart))[:4]  # after them comes that of the legend
    for axis, sign in ((0, 1), (1, -1)):
        steps = [sign * (after[axis] - before[axis]) for before, after in pairwise(marks)]
        assert min(steps) > 30
        assert max(steps) == pytest.approx(min(steps), rel=1e-3)


def test_odd_names_can_be_written() -> None:
    names = ("$x^$", "_hidden", "a<b>&c", "\x00\x1b", "日本", "%s")
    for chart in (CHART, NAMES):
        drawing = draw(stored([row(name) for name in names]), chart)
        texts = texts_of(drawing)
        assert {"$x^$", "_hidden", "a<b>&c", "??", "日本", "%s"} <= set(texts)
        assert image_bytes(drawing, "png")


def test_bars_and_bands_reach_no_further_than_a_log_axis() -> None:
    """An interval that reaches below 0 ends at the frame; 30 points make a band."""
    for count in (3, 30):
        rows = [row(open_count=1 + number, y=5.0, echo_p50_lo_ns=-1.0) for number in range(count)]
        drawing = draw(stored(rows), dataclasses.replace(CHART, log_y=True))
        assert image_bytes(drawing, "svg")
        assert text_chart(drawing, 80, 24)


def test_lines_are_told_apart_without_colour() -> None:
    from c10k_probe.charts.image import _look

    looks = [_look(index) for index in range(20)]
    assert len({(look.marker, str(look.stroke)) for look in looks}) == len(looks)
    greys = [sum(w * int(look.colour[at : at + 2], 16) for w, at in ((0.3, 1), (0.59, 3), (0.11, 5))) for look in looks]
    assert max(greys) < 190
    assert abs(greys[0] - greys[1]) > 40
    assert abs(greys[1] - greys[2]) > 40


def test_a_target_that_refuses_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "x.svg"
    old.write_text("old")

    def full(path: Path, data: bytes) -> int:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UsageError, match=r"--save: .*x\.svg cannot be written: No space left on device"):
        save_chart(draw(stored(ROWS), CHART), old)
    assert [path.name for path in tmp_path.iterdir()] == ["x.svg"]
    assert old.read_text() == "old"


@pytest.mark.parametrize("name", ["x", "x.pdf", "x.png.gz", ".png", "png", "missing/x.png", "folder.png"])
def test_a_bad_target_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UsageError, match="--save"):
        check_target(name)
