"""Charts: which rows become which lines, axes and their ticks, and what stands in the text and in the images."""

from __future__ import annotations

import dataclasses
import io
import math
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mock_experiment import MockExperiment, go

from c10k_probe.charts.axes import make_axis, stem, value_text
from c10k_probe.charts.data import Drawing, Line, Point, charts_of, choose, draw
from c10k_probe.charts.image import check_target, image_bytes, save_chart
from c10k_probe.charts.terminal import MARKERS, text_chart
from c10k_probe.exits import ExitCode, UsageError, UserError
from c10k_probe.experiment import Chart, Experiment, columns
from c10k_probe.registry import find_experiments
from c10k_probe.results import StoredRun, load, newest
from c10k_probe.sinks.folder import RunFolderSink

COLUMNS = (
    ("model", "str"),
    ("placement", "str"),
    ("open_count", "int"),
    ("block", "int"),
    ("echo_p50_ns", "float"),
    ("echo_p50_lo_ns", "float"),
    ("echo_p50_hi_ns", "float"),
    ("ramp_s", "float"),
    ("grade", "str"),
)
KEYS = ("model", "placement", "open_count", "block")
CHART = Chart(
    "echo", "Echo", "open_count", "echo_p50_ns", "echo_p50_lo_ns", "echo_p50_hi_ns", series=("model",), log_x=True
)
NAMES = dataclasses.replace(CHART, name="names", x="model", series=(), log_x=False)


def row(model: str = "epoll", open_count: int | None = 10, y: float | None = 1000.0, **more: Any) -> dict[str, Any]:
    ends = {"echo_p50_lo_ns": y and y * 0.9, "echo_p50_hi_ns": y and y * 1.1}
    plain = {"placement": "one", "block": 0, "ramp_s": 2.0, "grade": "ok"}
    return {"model": model, "open_count": open_count, "echo_p50_ns": y, **ends, **plain, **more}


def stored(rows: Sequence[Mapping[str, Any]], *charts: Chart, **facts: Any) -> StoredRun:
    known = {
        "run_id": "abc123",
        "experiment": "mock",
        "experiment_version": 3,
        "started": "2030-01-02T03:04:05+00:00",
        "state": "finished",
        "machine": {"kernel_release": "6.1.0-test"},
        "columns": [list(item) for item in COLUMNS],
        "keys": list(KEYS),
        "charts": [dataclasses.asdict(chart) for chart in charts or (CHART,)],
    }
    return StoredRun(Path("results/x"), known | facts, tuple(rows), ())


def points_of(drawing: Drawing) -> dict[str, list[tuple[float | str, float]]]:
    return {line.name: [(point.x, point.y) for point in line.points] for line in drawing.lines}


# --- from rows to lines -----------------------------------------------------------------------------------------------


def test_each_value_of_the_series_is_a_line_in_the_order_of_x() -> None:
    rows = [row("thread", 20, 5.0), row("epoll", 30, 3.0), row("epoll", 10, 1.0), row("thread", 10, 4.0)]
    drawing = draw(stored(rows), CHART)
    assert points_of(drawing) == {"epoll": [(10, 1), (30, 3)], "thread": [(10, 4), (20, 5)]}
    assert drawing.lines[0].points[0] == Point(10.0, 1.0, 0.9, 1.1, False)


def test_void_rows_and_missing_values_are_left_out_and_counted() -> None:
    rows = [row(y=1.0), row(y=9.0, open_count=20, grade="void"), row(y=None, open_count=30), row(open_count=None)]
    drawing = draw(stored([*rows, row(y=math.nan, open_count=40)]), CHART)
    assert points_of(drawing) == {"epoll": [(10, 1)]}
    assert any("1 void" in note for note in drawing.notes)
    assert any("3 whose value is missing" in note for note in drawing.notes)


def test_a_shaky_value_is_drawn_and_said() -> None:
    drawing = draw(stored([row(), row(open_count=20, grade="shaky")]), CHART)
    assert [point.shaky for point in drawing.lines[0].points] == [False, True]
    assert "1 of 2 values are shaky" in drawing.notes


def test_what_a_log_axis_cannot_hold_is_left_out() -> None:
    rows = [row(open_count=0), row(open_count=10, y=-1.0), row(open_count=20, y=5.0)]
    assert points_of(draw(stored(rows), dataclasses.replace(CHART, log_y=True))) == {"epoll": [(20, 5)]}
    assert points_of(draw(stored(rows), dataclasses.replace(CHART, log_x=False)))["epoll"][0] == (0, 1000)


def test_where_takes_rows() -> None:
    rows = [row("epoll"), row("thread"), row("thread", 20)]
    chart = dataclasses.replace(CHART, where=(("model", "thread"), ("open_count", 20)))
    assert points_of(draw(stored(rows), chart)) == {"thread": [(20, 1000)]}


def test_values_are_drawn_in_base_units() -> None:
    chart = dataclasses.replace(CHART, y="ramp_s", low="", high="")
    drawing = draw(stored([row()]), chart)
    assert drawing.lines[0].points == (Point(10.0, 2e9, None, None, False),)
    assert drawing.y_axis(5).title == "ramp (s)"


def test_a_text_key_that_the_chart_does_not_name_is_not_mixed() -> None:
    """Rows of two placements are two lines, also where the chart's author thought of one."""
    rows = [row(y=1.0), row(y=2.0, placement="any"), row(y=3.0, open_count=20)]
    assert points_of(draw(stored(rows), CHART)) == {"any": [(10, 2)], "one": [(10, 1), (20, 3)]}
    both = [*rows, row("thread", y=4.0)]
    assert set(points_of(draw(stored(both), CHART))) == {"epoll, any", "epoll, one", "thread, one"}


def test_a_number_key_is_told_apart_only_where_rows_meet() -> None:
    chart = dataclasses.replace(NAMES, series=("placement",))
    apart = [row("epoll", 10), row("thread", 20)]
    assert len(draw(stored(apart), chart).lines) == 1
    meeting = [row("epoll", 10, 1.0), row("epoll", 20, 2.0)]
    assert points_of(draw(stored(meeting), chart)) == {"open 10": [("epoll", 1)], "open 20": [("epoll", 2)]}


def test_repetitions_become_their_median_and_range() -> None:
    rows = [row(y=value, block=block) for block, value in enumerate((5.0, 1.0, 3.0))]
    drawing = draw(stored(rows), CHART)
    (point,) = drawing.lines[0].points
    assert (point.y, point.low, point.high) == (3.0, 0.9, pytest.approx(5.5))
    assert any("median" in note for note in drawing.notes)
    assert not any("median" in note for note in draw(stored(rows[:1]), CHART).notes)


def test_names_on_the_axis_stay_in_the_order_of_the_rows() -> None:
    drawing = draw(stored([row("vfork"), row("fork"), row("clone")]), NAMES)
    assert drawing.categories == ("vfork", "fork", "clone")
    assert [point.x for point in drawing.lines[0].points] == ["vfork", "fork", "clone"]
    assert drawing.lines[0].name == ""


def test_the_source_says_where_the_numbers_come_from() -> None:
    source = draw(stored([row()]), CHART).source
    assert source == "run abc123, mock v3, kernel 6.1.0-test, 2030-01-02, n = 1 rows"
    assert draw(stored([row()], state="interrupted"), CHART).source.endswith(", interrupted")
    counted = stored([row(n_count=100), row(open_count=20, n_count=1000)])
    assert draw(counted, CHART).source.endswith("n = 100 to 1,000")


def test_a_bar_is_called_what_it_is() -> None:
    assert "bars: 95 % interval" in draw(stored([row()]), CHART).notes
    chart = dataclasses.replace(CHART, low="ramp_s")
    assert "bars: ramp to echo p50 hi" in draw(stored([row()]), chart).notes
    assert draw(stored([row()]), dataclasses.replace(CHART, low="", high="")).notes == ()


# --- refusals ---------------------------------------------------------------------------------------------------------


def refusal(run: StoredRun, name: str | None = None) -> tuple[str, ExitCode]:
    with pytest.raises(UserError) as caught:
        choose(run, name)
    assert "\n" not in str(caught.value)
    return str(caught.value), caught.value.code


def test_nothing_to_draw_is_refused_with_the_reason_and_the_charts() -> None:
    chart = dataclasses.replace(CHART, where=(("placement", "one"),))
    message, code = refusal(stored([row(grade="void"), row(y=None), row(placement="x")], chart, NAMES), "echo")
    for part in ("nothing to draw for echo", "2 rows with placement one", "1 void", "1 whose value", "echo, names"):
        assert part in message
    assert code == ExitCode.ERROR


def test_an_unknown_chart_is_refused_with_the_known_ones() -> None:
    message, code = refusal(stored([row()], CHART, NAMES), "ehco")
    assert ("'ehco'" in message, "did you mean echo" in message, "echo, names" in message) == (True, True, True)
    assert code == ExitCode.USAGE


@pytest.mark.parametrize("facts", [{"charts": None}, {"charts": []}])
def test_a_run_without_charts_is_refused(facts: dict[str, Any]) -> None:
    message, _ = refusal(stored([row()], **facts))
    assert "rows.csv" in message


@pytest.mark.parametrize("charts", [5, ["x"], [{}], [{"name": "a"}], {"a": 1}, [{**vars(CHART), "where": [1]}]])
def test_charts_that_cannot_be_read_are_refused(charts: object) -> None:
    assert "cannot read" in refusal(stored([row()], charts=charts))[0]


def test_what_a_later_version_adds_to_a_chart_is_left_aside() -> None:
    run = stored([row()], charts=[{**dataclasses.asdict(CHART), "colour": "red"}])
    assert charts_of(run) == (CHART,)


@pytest.mark.parametrize("change", [{"x": "gone"}, {"y": "gone_ns"}, {"low": "gone_ns"}, {"series": ("gone",)}])
def test_a_column_that_is_not_there_is_named(change: dict[str, Any]) -> None:
    assert "gone" in refusal(stored([row()], dataclasses.replace(CHART, **change)), "echo")[0]
    assert "holds text" in refusal(stored([row()], dataclasses.replace(CHART, y="model")), "echo")[0]


def test_unasked_the_first_chart_that_can_be_drawn_is_drawn() -> None:
    empty = dataclasses.replace(CHART, name="empty", where=(("model", "none"),))
    assert choose(stored([row()], empty, CHART), None).chart.name == "echo"
    assert "nothing to draw for empty" in refusal(stored([], empty, CHART))[0]


# --- axes -------------------------------------------------------------------------------------------------------------


@given(
    st.sampled_from(("a_ns", "a_bytes", "a_count", "a_ratio", "a_per_s", "a_pct", "a_s", "plain")),
    st.lists(st.floats(1e-3, 1e15), min_size=1, max_size=5),
    st.integers(2, 12),
    st.booleans(),
)
@example("a_count", [1.0], 5, False)
@example("a_ns", [1e9, 1e9 + 1], 8, True)
def test_ticks_are_few_ordered_within_the_axis_and_told_apart(
    column: str, values: list[float], most: int, log: bool
) -> None:
    axis = make_axis(column, values, most, log=log)
    places = [tick.value for tick in axis.ticks]
    assert axis.low < min(values) or axis.low == min(values) == 0 or not log
    assert axis.low <= min(values) <= max(values) <= axis.high
    assert places == sorted(set(places))
    assert len(places) <= most
    assert places or most == 2 or not log
    assert all(axis.low * (1 - 1e-6) <= place <= axis.high * (1 + 1e-6) for place in places)
    if max(values) > min(values) * 1.01:
        assert len({tick.label for tick in axis.ticks}) == len(places)


@pytest.mark.parametrize(
    ("column", "values", "log", "title", "labels"),
    [
        ("echo_p50_ns", [0, 50_000], False, "echo p50 (µs)", ["0", "20", "40"]),
        ("echo_p50_ns", [1e3, 1e6], True, "echo p50 (log)", ["1 µs", "10 µs", "100 µs", "1 ms"]),
        ("rss_bytes", [2**20, 2**24], True, "rss (MiB, log)", ["1", "2", "4", "8", "16"]),
        ("rss_bytes", [0, 2**21], False, "rss (MiB)", ["0", "0.5", "1", "1.5", "2"]),
        ("open_count", [10, 10_000], True, "open (count, log)", ["10", "100", "1,000", "10,000"]),
        ("alive_count", [0, 2], False, "alive (count)", ["0", "1", "2"]),
        ("connect_rate_per_s", [0, 30_000], False, "connect rate (1/s)", ["0", "10,000", "20,000", "30,000"]),
        ("cycle_ratio", [0, 4], False, "cycle ratio (×)", ["0", "1", "2", "3", "4"]),
        ("server_bytes_per_connection", [0, 4096], False, "server per connection (KiB)", ["0", "1", "2", "3", "4"]),
    ],
)
def test_axes(column: str, values: list[float], log: bool, title: str, labels: list[str]) -> None:
    axis = make_axis(column, values, 5, log=log)
    assert (axis.title, [tick.label for tick in axis.ticks]) == (title, labels)


def test_linear_values_start_at_zero_where_they_are_compared_by_length() -> None:
    assert make_axis("a_ns", [90.0, 100.0], 5, log=False).low > 0
    assert make_axis("a_ns", [90.0, 100.0], 5, log=False, from_zero=True).low == 0
    assert make_axis("a_ns", [-5.0, 100.0], 5, log=False, from_zero=True).low < -5


def test_share() -> None:
    linear, log = make_axis("a", [0.0, 100.0], 5, log=False), make_axis("a", [1.0, 100.0], 5, log=True)
    assert linear.share(linear.low) == 0
    assert linear.share(linear.high) == 1
    assert log.share(10) == pytest.approx(0.5)
    assert log.share(-1) == 0
    assert log.share(1e9) == 1


def test_words() -> None:
    assert (stem("echo_p50_ns"), stem("model"), stem("cycle_ratio")) == ("echo p50", "model", "cycle ratio")
    assert value_text("rss_bytes", 64 * 2**20) == "64 MiB"
    assert value_text("alive_count", 10_000) == "10,000"


# --- in the terminal --------------------------------------------------------------------------------------------------


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


def test_marks_that_meet_are_counted() -> None:
    rows = [row(model, count, 1000.0) for model in ("epoll", "fork", "thread") for count in (10, 100)]
    text = text_chart(draw(stored(rows), CHART), 80, 24)
    assert len(places_of(text, "3")) == 2
    assert "a digit: so many marks in one place" in text
    assert "o epoll   x fork   + thread" in text
    assert "digit" not in text_chart(draw(stored(rows[:2]), CHART), 80, 24)


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


# --- as images --------------------------------------------------------------------------------------------------------

ROWS = [row(model, 10**power, 1000.0 * power) for model in ("epoll", "thread") for power in range(1, 5)]


def svg_of(drawing: Drawing) -> ElementTree.Element:
    return ElementTree.fromstring(image_bytes(drawing, "svg"))


def texts_of(drawing: Drawing) -> list[str]:
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


def test_the_same_run_gives_the_same_bytes() -> None:
    for ending in ("svg", "png"):
        assert image_bytes(draw(stored(ROWS), CHART), ending) == image_bytes(draw(stored(ROWS), CHART), ending)


def marks_of(drawing: Drawing) -> list[tuple[float, float]]:
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


# --- what is kept, what is declared -----------------------------------------------------------------------------------


def test_a_run_keeps_its_charts_and_keys(tmp_path: Path) -> None:
    experiment = MockExperiment()
    chart = Chart("value", "Value", "cell", "value_ns", where=(("n_count", 1),))
    experiment.charts = (chart,)  # type: ignore[misc]
    sink = RunFolderSink(tmp_path, {})
    go(experiment, sink)
    assert sink.path is not None
    run = load(sink.path)
    assert charts_of(run) == (chart,)
    assert run.facts["keys"] == ["cell", "step"]
    assert choose(run, None).categories == tuple(str(item["cell"]) for item in run.rows)
    assert newest(tmp_path) == sink.path


def test_the_newest_run_is_the_last_by_its_stamp(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        newest(tmp_path / "missing")
    for name in ("20300101T000000Z-b-2", "20300102T000000Z-a-1", "reference-zzz", "20310101T000000Z-empty-1"):
        (tmp_path / name).mkdir()
        if "empty" not in name:
            (tmp_path / name / "run.json").write_text("{}")
    assert newest(tmp_path).name == "20300102T000000Z-a-1"


EXPERIMENTS = find_experiments()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_declared_charts_name_columns_of_their_rows(name: str) -> None:
    experiment: Experiment[Any] = EXPERIMENTS[name]
    known = {column.name: column for column in columns(experiment.row_type)}
    assert len({chart.name for chart in experiment.charts}) == len(experiment.charts)
    for chart in experiment.charts:
        ends = [end for end in (chart.low, chart.high) if end]
        assert {chart.x, chart.y, *ends, *chart.series, *(column for column, _ in chart.where)} <= known.keys()
        assert all(known[column].kind != "str" for column in (chart.y, *ends))
        assert all(known[column].key for column in chart.series)
        assert len(ends) != 1, "an interval has two ends"
        assert re.fullmatch(r"[a-z0-9-]+", chart.name)
        assert len(chart.title) <= 78


def test_reading_a_run_loads_neither_drawing_library() -> None:
    code = """
import sys
import c10k_probe.charts.data, c10k_probe.charts.terminal, c10k_probe.charts.image, c10k_probe.cli.plot
print(*sorted({name.split(".")[0] for name in sys.modules}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & {"numpy", "matplotlib", "plotext", "rich"} == set()


def test_a_line_without_points_is_none() -> None:
    """Every line that is drawn has at least one point."""
    assert all(isinstance(line, Line) and line.points for line in draw(stored(ROWS), CHART).lines)
