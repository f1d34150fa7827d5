"""A map as an image: what an SVG says, where its cells are, and that it can be read in grey."""

from __future__ import annotations

import dataclasses
import io
import struct
from collections import Counter
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import pytest
from charting import CONTEST, MAP, place, row, stored

from c10k_probe.charts.image import image_bytes
from c10k_probe.charts.image_legend import Legend
from c10k_probe.charts.image_map import Scale, look_of
from c10k_probe.charts.winners import MapDrawing, draw_map

SVG = "{http://www.w3.org/2000/svg}"


def map_of(rows: list[dict[str, Any]], **changes: Any) -> MapDrawing:
    return draw_map(stored(rows), dataclasses.replace(MAP, **changes))


def texts_of(drawing: MapDrawing) -> list[str]:
    tree = ElementTree.fromstring(image_bytes(drawing, "svg"))
    return ["".join(item.itertext()).strip() for item in tree.iter(f"{SVG}text")]


def size_of(png: bytes) -> tuple[int, int]:
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def test_an_svg_says_everything_in_text() -> None:
    texts = texts_of(map_of(CONTEST))
    legend = ["E = epoll: 3 of 5", "P = poll: 1 of 5", "S = select: 0 of 4", "= too close to call: 1"]
    legend += ["a small letter: the only one measured: 1", ". not measured: 3"]
    axes = ["open (count, log)", "active (count, log)", "10", "100", "1,000", "1"]
    assert set(legend) | set(axes) | {"Who answers first"} <= set(texts)
    cells = Counter(text for text in texts if text[0] in "EPSs=." and ":" not in text)
    assert cells == Counter(["P 1.5", "E 2.5", "E 12", "E >999", "= E/P", "s", ".", ".", "."])
    assert any("run abc123, mock v3, kernel 6.1.0-test, 2030-01-02" in text for text in texts)
    small = " ".join(texts)
    for note in ("cells won of those it was measured in", "too close: E/P in 1", "the 95 % interval lies below"):
        assert note in small


def test_a_png_is_as_high_as_its_rows_need() -> None:
    few = size_of(image_bytes(map_of(CONTEST), "png"))
    many = [item for y in range(1, 41) for item in place(10, y, epoll=1.0, poll=2.0)]
    tall = size_of(image_bytes(map_of(many), "png"))
    assert few[0] == tall[0] == 1200
    assert 700 <= few[1] <= 900
    assert tall[1] > 1300


def test_the_same_run_gives_the_same_bytes() -> None:
    for ending in ("svg", "png"):
        assert image_bytes(map_of(CONTEST), ending) == image_bytes(map_of(CONTEST), ending)


def test_small_cells_keep_their_letter_and_very_small_ones_their_colour() -> None:
    for count, said in ((25, 25), (300, 0)):
        rows = [item for x in range(count) for item in place(100 + x, 1, epoll=1.0, poll=2.0)]
        texts = texts_of(map_of(rows, log_x=False))
        assert texts.count("E") == said
        assert f"E = epoll: {count} of {count}" in texts


@pytest.mark.parametrize("rows", [place(10, 1, epoll=1.0), place(1, 1, a=1.0, b=1.0), place(5, 7, a=1.0, b=9.0)])
@pytest.mark.parametrize("log", [True, False])
def test_one_cell_can_be_drawn(rows: list[dict[str, Any]], log: bool) -> None:
    assert image_bytes(map_of(rows, log_x=log, log_y=log), "svg")


def test_zero_can_be_on_a_linear_axis() -> None:
    rows = [*place(0, 0, epoll=1.0), *place(10, 0, epoll=1.0)]
    assert "0" in texts_of(map_of(rows, log_x=False, log_y=False))


def test_odd_names_can_be_written() -> None:
    names = ("$x^$", "_hidden", "a<b>&c", "\x00\x1b", "日本", "%s")
    drawing = map_of([row(name, 10, 1.0 + number) for number, name in enumerate(names)])
    assert {f"{one.letter} = {one.name}: {one.won_count} of 1" for one in drawing.contestants} <= set(texts_of(drawing))
    assert image_bytes(drawing, "png")


# --- places, looks ----------------------------------------------------------------------------------------------------


def test_borders_lie_midway_on_the_scale() -> None:
    log = Scale.around((1.0, 100.0, 1000.0), log=True)
    assert log.edges == pytest.approx((0.1, 10, 316.228, 3162.28), rel=1e-5)
    assert log.share(1.0, 10.0) == pytest.approx(1 / 4.5)
    linear = Scale.around((0.0, 10.0, 30.0), log=False)
    assert linear.edges == pytest.approx((-5, 5, 20, 40))
    assert linear.middle((5.0, 20.0)) == 12.5
    for scale in (log, linear, Scale.around((7.0,), log=True), Scale.around((0.0,), log=False)):
        assert all(low < value < high for value, (low, high) in scale.spans)
        assert sum(scale.share(*edges) for edges in pairwise(scale.edges)) == pytest.approx(1)


def grey_of(colour: str) -> float:
    return sum(weight * int(colour[at : at + 2], 16) for weight, at in ((0.3, 1), (0.59, 3), (0.11, 5)))


def test_contestants_are_told_apart_in_grey_and_letters_can_be_read() -> None:
    looks = [look_of(index) for index in range(26)]
    assert len(set(looks)) == len(looks)
    assert len({look.hatch for look in looks[:8]}) == 8
    assert all(grey_of(look.colour) > 150 for look in looks)


def test_cells_of_two_contestants_differ_in_grey() -> None:
    import numpy
    from PIL import Image  # comes with matplotlib

    def pixels(winner: str) -> Any:
        values = {"epoll": 2.0, "poll": 2.0, winner: 1.0}
        with Image.open(io.BytesIO(image_bytes(map_of(place(10, 1, **values)), "png"))) as image:
            return numpy.asarray(image.convert("L"))[300:500, 300:500]

    assert abs(float(pixels("epoll").mean()) - float(pixels("poll").mean())) > 20


def test_a_legend_of_many_names_is_set_small_and_makes_room() -> None:
    few, many = Legend.of(["epoll", "poll"]), Legend.of([f"a mechanism with a name {number}" for number in range(12)])
    assert (few.points, few.rows_count, few.extra_inches) == (10, 1, 0)
    assert (many.points, many.rows_count) == (8, 4)
    assert many.extra_inches > 0
    assert Legend.of(["x" * 300]).columns == 1
