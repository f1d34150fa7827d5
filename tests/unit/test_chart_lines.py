"""Which rows become which lines of a chart, and what cannot be drawn is refused."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from charting import CHART, MAP, NAMES, points_of, row, stored

from c10k_probe.charts.choice import choose, draw
from c10k_probe.charts.declared import charts_of
from c10k_probe.charts.rows import Point
from c10k_probe.exits import ExitCode, UserError
from c10k_probe.results import StoredRun


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


def test_a_condition_that_all_rows_have_is_told_and_one_that_differs_is_not() -> None:
    chart = dataclasses.replace(CHART, told=("ramp_s", "open_count", "spare_bytes"))
    assert draw(stored([row(), row(open_count=20)]), chart).notes[0] == "ramp 2 s"
    assert "ramp 2 s" not in draw(stored([row(), row(open_count=20)]), CHART).notes
    assert not any("open" in note for note in draw(stored([row(), row(open_count=20)]), chart).notes)


def test_what_a_log_axis_cannot_hold_is_left_out() -> None:
    """Upward all that is not above 0; across what lies below 0, as the axis begins there."""
    rows = [row(open_count=-5), row(open_count=0), row(open_count=10, y=0.0), row(open_count=20, y=5.0)]
    assert points_of(draw(stored(rows), dataclasses.replace(CHART, log_y=True))) == {"epoll": [(0, 1000), (20, 5)]}
    assert points_of(draw(stored(rows), dataclasses.replace(CHART, log_x=False)))["epoll"][0] == (-5, 1000)


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


def test_nothing_begins_the_line_of_every_kind() -> None:
    """Beside no connection there is no kind of them: not a line of one point, but the beginning of the others."""
    rows = [row(y=1.0, open_count=0, placement="none"), row(y=2.0, placement="own"), row(y=3.0, placement="other")]
    assert points_of(draw(stored(rows), CHART)) == {"other": [(0, 1), (10, 3)], "own": [(0, 1), (10, 2)]}
    assert not any("median" in note for note in draw(stored(rows), CHART).notes)
    assert points_of(draw(stored(rows[:2]), CHART)) == {"epoll": [(0, 1), (10, 2)]}
    assert points_of(draw(stored(rows[:1]), CHART)) == {"epoll": [(0, 1)]}
    of_a_series = dataclasses.replace(CHART, series=("placement",))
    assert set(points_of(draw(stored(rows), of_a_series))) == {"none", "other", "own"}


def test_nothing_of_another_series_stays_apart() -> None:
    rows = [row("epoll", 0, 1.0, placement="none"), row("thread", 10, 2.0, placement="own")]
    assert points_of(draw(stored(rows), CHART)) == {"epoll, none": [(0, 1)], "thread, own": [(10, 2)]}


@pytest.mark.parametrize(("lone", "named"), [(3, True), (4, False)])
def test_many_points_that_stand_alone_are_not_in_the_legend(lone: int, named: bool) -> None:
    rows = [row("epoll"), row("epoll", 20), *(row(f"m{index}", 30) for index in range(lone))]
    drawing = draw(stored(rows), CHART)
    assert len(drawing.lines) == 1 + lone
    assert drawing.names == ("epoll", *(f"m{index}" for index in range(lone) if named))
    assert (f"{lone} marks that stand alone are not named" in drawing.notes) == (not named)
    assert len(draw(stored(rows[2:]), CHART).names) == lone  # nothing else is there to name


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


def test_unasked_a_chart_along_which_something_varies_comes_first() -> None:
    still = dataclasses.replace(CHART, name="still", x="active_count")
    rows = [row(open_count=10), row(open_count=20)]
    assert choose(stored(rows, still, CHART), None).chart.name == "echo"
    assert choose(stored(rows[:1], still, CHART), None).chart.name == "still"  # neither varies
    assert choose(stored(rows, still, CHART), "still").chart.name == "still"
    assert choose(stored(rows, still, MAP), None).chart.name == "map"
