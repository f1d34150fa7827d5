"""Who wins where: which rows take part, when a cell is won, and what cannot be a map is refused."""

from __future__ import annotations

import dataclasses
import json
import math
import string
from typing import Any

import pytest
from charting import CONTEST, MAP, place, row, stored
from hypothesis import given
from hypothesis import strategies as st

from c10k_probe.charts.choice import choose, draw, shown_at_end
from c10k_probe.charts.declared import charts_of
from c10k_probe.charts.rows import Point
from c10k_probe.charts.winners import MapDrawing, Outcome, draw_map, judge, lead_text, letters_for
from c10k_probe.exits import UserError
from c10k_probe.experiment import AnyChart, Chart

Value = tuple[float, float | None, float | None]


def point(y: float, low: float | None, high: float | None, shaky: bool = False) -> Point:
    return Point(1.0, y, low, high, shaky)


def map_of(rows: list[dict[str, Any]], **changes: Any) -> MapDrawing:
    return draw_map(stored(rows), dataclasses.replace(MAP, **changes))


def outcomes(drawing: MapDrawing) -> dict[tuple[float, float], tuple[Outcome, tuple[str, ...]]]:
    return {place: (cell.outcome, cell.names) for place, cell in drawing.cells.items()}


# --- one cell ---------------------------------------------------------------------------------------------------------

# contestant -> value, low, high | how it ends | winner, candidates (lowest first) or the only one | lead
ENDS: tuple[tuple[dict[str, Value], Outcome, str, float | None], ...] = (
    ({"a": (10, 9, 11), "b": (20, 19, 21)}, Outcome.WON, "a", 2.0),
    ({"a": (20, 19, 21), "b": (10, 9, 11), "c": (15, 14, 16)}, Outcome.WON, "b", 1.5),
    ({"a": (10, 9, 11), "b": (10.5, 10, 11)}, Outcome.CLOSE, "ab", None),
    ({"a": (10, 9, 11), "b": (12, 11, 13)}, Outcome.CLOSE, "ab", None),  # they touch
    ({"a": (10, 9, 11), "b": (12, 11.001, 13)}, Outcome.WON, "a", 1.2),
    ({"a": (13, 8, 20), "b": (10, 9, 11), "c": (50, 49, 51)}, Outcome.CLOSE, "ba", None),
    # the second is far away and certain, the third reaches back to the first
    ({"a": (10, 9, 11), "b": (12, 11.5, 12.5), "c": (20, 5, 90)}, Outcome.CLOSE, "ac", None),
    ({"a": (10, 9, 11)}, Outcome.ALONE, "a", None),
    ({"a": (10, None, None)}, Outcome.ALONE, "a", None),
    ({"a": (10, None, None), "b": (1000, 999, 1001)}, Outcome.CLOSE, "ab", None),
    ({"a": (10, 9, 11), "b": (1000, None, None), "c": (2000, 1999, 2001)}, Outcome.CLOSE, "ab", None),
    ({"a": (0, 0, 0), "b": (10, 9, 11)}, Outcome.WON, "a", None),
    ({"a": (-2, -3, -1), "b": (10, 9, 11)}, Outcome.WON, "a", None),
)


@pytest.mark.parametrize(("values", "outcome", "names", "lead"), ENDS)
def test_known_ends(values: dict[str, Value], outcome: Outcome, names: str, lead: float | None) -> None:
    cell = judge({name: point(*value) for name, value in values.items()})
    assert (cell.outcome, "".join(cell.names)) == (outcome, names)
    assert cell.lead_ratio == (pytest.approx(lead) if lead else None)


@pytest.mark.parametrize(
    ("other", "outcome"),
    [
        ((109, 108, 110), Outcome.CLOSE),  # surely slower, and within 1.10
        ((110, 109, 111), Outcome.CLOSE),
        ((110.1, 109, 111), Outcome.WON),
        ((200, 99.5, 300), Outcome.CLOSE),  # far away, and the intervals overlap
    ],
)
def test_within_what_counts_as_the_same_nobody_wins(other: Value, outcome: Outcome) -> None:
    field = {"a": point(100, 99, 100), "b": point(*other)}
    assert judge(field, 1.10).outcome is outcome
    assert judge(field).outcome is (Outcome.CLOSE if other[0] == 200 else Outcome.WON)


def test_a_win_is_beyond_the_same_over_each() -> None:
    """The second decides nothing, the third is far away: the first does not win, and the third is no candidate."""
    cell = judge({"a": point(100, 99, 101), "b": point(105, 104, 106), "c": point(200, 199, 201)}, 1.10)
    assert (cell.outcome, cell.names) == (Outcome.CLOSE, ("a", "b"))


SPANS = st.tuples(st.floats(1, 100), st.floats(0, 20), st.floats(0, 20))
FIELDS = st.dictionaries(st.sampled_from(string.ascii_lowercase), SPANS, min_size=1, max_size=8)


@given(FIELDS, st.sampled_from([1.0, 1.10, 2.0]), st.randoms(use_true_random=False))
def test_a_win_is_a_win_over_each(spans: dict[str, tuple[float, float, float]], same: float, random: Any) -> None:
    field = {name: point(y, y - below, y + above) for name, (y, below, above) in spans.items()}
    cell = judge(field, same)
    best = cell.names[0]
    others = [other for name, other in field.items() if name != best]
    assert field[best].y == min(other.y for other in field.values())
    y, high = field[best].y, field[best].high
    ends = [high < other.low and other.y > same * y for other in others]  # type: ignore[operator]
    assert (cell.outcome is Outcome.ALONE) == (not others)
    assert (cell.outcome is Outcome.WON) == (bool(others) and all(ends))
    assert len(cell.names) == (1 + ends.count(False) if cell.outcome is Outcome.CLOSE else 1)
    shuffled = list(field.items())
    random.shuffle(shuffled)
    assert judge(dict(shuffled), same) == cell


def test_a_shaky_value_that_decides_is_said() -> None:
    sure, shaky = point(10, 9, 11), point(20, 19, 21, shaky=True)
    far = point(90, 89, 91, shaky=True)
    assert judge({"a": sure, "b": shaky}).shaky
    assert not judge({"a": sure, "b": point(20, 19, 21), "c": far}).shaky
    assert judge({"a": far}).shaky


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(1.0, "1.00"), (1.049, "1.05"), (1.0951, "1.1"), (1.54, "1.5"), (9.94, "9.9"), (9.96, "10"), (999.4, "999")],
)
def test_a_lead_is_short(ratio: float, text: str) -> None:
    assert lead_text(ratio) == text


def test_a_lead_beyond_all_measure_is_short_too() -> None:
    assert (lead_text(1e9), lead_text(math.inf), lead_text(None)) == (">999", ">999", "")


# --- from rows to the map ---------------------------------------------------------------------------------------------


def test_a_map_of_known_rows() -> None:
    drawing = map_of(CONTEST)
    assert outcomes(drawing) == {
        (10, 1): (Outcome.WON, ("poll",)),
        (100, 1): (Outcome.WON, ("epoll",)),
        (1000, 1): (Outcome.WON, ("epoll",)),
        (100, 10): (Outcome.CLOSE, ("poll", "epoll")),
        (1000, 10): (Outcome.WON, ("epoll",)),
        (1000, 100): (Outcome.ALONE, ("select",)),
    }
    assert (drawing.xs, drawing.ys, drawing.missing_count) == ((10, 100, 1000), (1, 10, 100), 3)
    scores = [contestant.score for contestant in drawing.contestants]
    assert scores == ["E = epoll: 3 of 5", "P = poll: 1 of 5", "S = select: 0 of 4"]
    assert drawing.ties() == [("E/P", 1)]
    assert [drawing.count(outcome) for outcome in Outcome] == [4, 1, 1]
    assert drawing.cells[1000, 10].lead_ratio == pytest.approx(1500)
    assert drawing.source == "run abc123, mock v3, kernel 6.1.0-test, 2030-01-02, n = 14 rows"


def test_a_map_decides_by_its_own_measure_of_the_same() -> None:
    rows = [row("epoll", 10, 100.0, echo_p50_hi_ns=101.0), row("poll", 10, 109.0, echo_p50_lo_ns=108.0)]
    assert outcomes(map_of(rows)) == {(10, 1): (Outcome.WON, ("epoll",))}
    assert outcomes(map_of(rows, same_ratio=1.10)) == {(10, 1): (Outcome.CLOSE, ("epoll", "poll"))}


def test_void_and_missing_values_take_no_part() -> None:
    rows = [
        *place(10, 1, epoll=2.0, poll=4.0, select=None),
        row("fork", 10, 1.0, grade="void"),
        row("thread", 10, math.nan),
    ]
    drawing = map_of(rows)
    assert outcomes(drawing) == {(10, 1): (Outcome.WON, ("epoll",))}
    assert [(one.name, one.measured_count) for one in drawing.contestants] == [
        ("epoll", 1),
        ("fork", 0),
        ("poll", 1),
        ("select", 0),
        ("thread", 0),
    ]
    assert {"left out: 1 void", "left out: 2 whose value is missing or cannot be on a log axis"} <= set(drawing.notes)


def test_a_place_without_any_value_is_not_measured() -> None:
    rows = [*CONTEST, row("epoll", 10, 1.0, active_count=10, grade="void"), row("poll", 5000, None)]
    drawing = map_of(rows)
    assert (10, 10) not in drawing.cells
    assert drawing.xs == (10, 100, 1000, 5000)
    assert drawing.missing_count == 6


def test_what_a_log_axis_cannot_hold_is_left_out() -> None:
    rows = [*place(10, 0, epoll=1.0), *place(10, 1, epoll=1.0)]
    assert map_of(rows).ys == (1,)
    assert map_of(rows, log_y=False).ys == (0, 1)


def test_where_takes_rows_and_units_become_base_units() -> None:
    rows = [row("epoll", 10, 1.0), row("poll", 10, 9.0, ramp_s=3.0), row("poll", 10, 0.1, placement="any")]
    drawing = map_of(rows, y="ramp_s", where=(("placement", "one"),))
    assert drawing.ys == (2e9, 3e9)
    assert outcomes(drawing)[10, 3e9] == (Outcome.ALONE, ("poll",))


def test_repetitions_are_put_together() -> None:
    """Their median counts, and the interval spans them all: here it reaches the other's."""
    rows = [row("epoll", 10, value, block=block) for block, value in enumerate((5.0, 1.0, 3.0))]
    drawing = map_of([*rows, row("poll", 10, 4.0), row("select", 10, 90.0)])
    assert outcomes(drawing) == {(10, 1): (Outcome.CLOSE, ("epoll", "poll"))}
    assert "repetitions: their median, with an interval that spans them" in drawing.notes


def test_what_a_reader_must_know_is_said() -> None:
    bare = row("poll", 10, 9000.0, echo_p50_hi_ns=None)
    drawing = map_of([row("epoll", 10, grade="shaky"), bare, *place(100, 1, epoll=1.0, poll=2.0)])
    assert "a win: the 95 % interval lies below every other's" in drawing.notes
    assert "1 of 4 values have no interval and decide nothing" in drawing.notes
    assert "1 of 4 values are shaky" in drawing.notes
    same = map_of(CONTEST, same_ratio=1.10).notes
    assert "a win: the 95 % interval lies below every other's and the value by more than 10 %" in same
    told = drawing.remarks(with_leads=True)
    assert "too close: E/P in 1" in told
    assert "~: a value that decides is shaky" in told
    assert any("how many times" in note for note in told)
    assert not any("how many times" in note for note in drawing.remarks(with_leads=False))


def test_a_contestant_may_be_a_number() -> None:
    drawing = map_of([row(open_count=10, y=2.0), row(open_count=20, y=9.0)], x="ramp_s", contestant="open_count")
    assert [one.name for one in drawing.contestants] == ["open 10", "open 20"]
    assert outcomes(drawing) == {(2e9, 1): (Outcome.WON, ("open 10",))}


# --- letters ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "letters"),
    [
        ("select poll epoll epoll_edge epoll_oneshot io_uring_poll io_uring_poll_multishot io_uring_recv", "SPEDOUMR"),
        ("select.select select.poll select.epoll selectors asyncio uvloop", "LPESAU"),
        ("a-model b-model c-model", "ABC"),
        ("x xx xxx", "XAB"),
    ],
)
def test_letters_are_those_of_the_names(names: str, letters: str) -> None:
    found = letters_for(names.split())
    assert "".join(found[name] for name in names.split()) == letters


@given(st.lists(st.text(max_size=12), min_size=1, max_size=26, unique=True))
def test_every_name_has_a_letter_of_its_own(names: list[str]) -> None:
    letters = letters_for(names)
    assert letters.keys() == set(names)
    assert len(set(letters.values())) == len(names)
    assert set(letters.values()) <= set(string.ascii_uppercase)


def test_a_letter_does_not_depend_on_what_was_measured() -> None:
    whole = map_of(CONTEST).letters
    for name in whole:
        spoilt = [item | ({"grade": "void"} if item["model"] == name else {}) for item in CONTEST]
        assert map_of(spoilt).letters == whole


# --- declared, kept, chosen, refused ----------------------------------------------------------------------------------


def refusal(rows: list[dict[str, Any]], **changes: Any) -> str:
    chart = dataclasses.replace(MAP, **changes)
    with pytest.raises(UserError) as caught:
        draw(stored(rows, chart), chart)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nothing_to_draw_is_refused_with_the_reason() -> None:
    message = refusal([row(grade="void"), row(y=None), row(placement="any")], where=(("placement", "one"),))
    for part in ("nothing to draw for map", "2 rows with placement one", "1 void", "1 whose value", "this run: map"):
        assert part in message


def test_rows_of_two_kinds_at_one_place_are_refused() -> None:
    rows = [row("epoll"), row("poll"), row("epoll", placement="any")]
    message = refusal(rows)
    assert "must take one placement of several (any, one)" in message
    assert map_of(rows, where=(("placement", "one"),))
    apart = [row("epoll", 10), row("epoll", 20, placement="any")]
    assert len(map_of(apart).cells) == 2


@pytest.mark.parametrize("column", ["x", "y", "value", "low", "high", "contestant"])
def test_a_column_that_is_not_there_is_named(column: str) -> None:
    assert "needs the column gone_ns" in refusal([row()], **{column: "gone_ns"})
    if column != "contestant":
        assert "needs numbers in model" in refusal([row()], **{column: "model"})


def test_more_contestants_than_letters_are_refused() -> None:
    assert "27 contestants and 26 letters" in refusal([row(f"model {number}") for number in range(27)])
    assert len(map_of([row(f"model {number}") for number in range(26)]).contestants) == 26


def test_a_run_keeps_both_kinds() -> None:
    charts: tuple[AnyChart, ...] = (
        dataclasses.replace(
            MAP, at_end=True, where=(("model", ("epoll", "poll")), ("open_count", 10)), same_ratio=1.10
        ),
        Chart("echo", "Echo", "open_count", "echo_p50_ns", at_end=True),
    )
    kept = json.loads(json.dumps([dataclasses.asdict(chart) for chart in charts]))
    assert [item["kind"] for item in kept] == ["winners", "lines"]
    assert charts_of(stored([], charts=kept)) == charts
    old = {name: value for name, value in kept[1].items() if name not in ("kind", "at_end")}
    assert charts_of(stored([], charts=[old])) == (dataclasses.replace(charts[1], at_end=False),)
    before = {name: value for name, value in kept[0].items() if name != "same_ratio"}
    assert charts_of(stored([], charts=[before])) == (dataclasses.replace(charts[0], same_ratio=1.0),)
    with pytest.raises(UserError, match="cannot read"):
        charts_of(stored([], charts=[kept[1] | {"kind": "pie"}]))


def test_a_map_is_chosen_by_its_name() -> None:
    run = stored(CONTEST, Chart("echo", "Echo", "open_count", "echo_p50_ns"), MAP)
    assert isinstance(choose(run, "map"), MapDrawing)
    assert choose(run, None).chart.name == "echo"


def test_at_the_end_are_shown_those_that_want_it_and_can() -> None:
    shown = dataclasses.replace(MAP, at_end=True)
    empty = dataclasses.replace(shown, name="empty", where=(("model", "none"),))
    echo = Chart("echo", "Echo", "open_count", "echo_p50_ns", at_end=True)
    drawings = shown_at_end(stored(CONTEST, MAP, empty, shown, echo))
    assert [drawing.chart for drawing in drawings] == [shown, echo]
