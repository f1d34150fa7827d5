"""What is on the screen while a run lasts: it fits, whatever was measured; series, newest rows and marks are there."""

from __future__ import annotations

import dataclasses
import io

import pytest
from pictures import every_experiment, rows_of, started
from rich.console import Console
from rich.text import Text

from c10k_probe.events import CellStarted, Event, Reading, ReadingsTaken, RowMeasured, RunStarted
from c10k_probe.experiment import AnyExperiment, Cell
from c10k_probe.parameters import build_parameters
from c10k_probe.registry import find_experiments
from c10k_probe.sinks.picture import Bar, Picture
from c10k_probe.sinks.plain import PlainLines
from c10k_probe.sinks.sparks import Sparks, column_of, line_of
from c10k_probe.sinks.table import LiveTable

SIZES = pytest.mark.parametrize(("width", "height"), [(80, 24), (110, 40), (40, 10)])
SERVERS = find_experiments()["servers"]
WARNINGS = tuple(Text("warning " + "all of it is far too long for one line " * 5) for _ in range(5))


def readings(cell: Cell, count: int = 40, block: int = 0) -> ReadingsTaken:
    made = (
        Reading(n / 4, {"tree_cpu_pct": 99.0, "tree_pss_bytes": 2.0**20 * n, "queued_count": n}) for n in range(count)
    )
    return ReadingsTaken(cell, block, tuple(made))


def console_of(width: int, height: int) -> Console:
    return Console(file=io.StringIO(), width=width, height=height, no_color=True, force_terminal=True)


class Screen:
    """Table and console of one size, and what would be drawn now."""

    def __init__(self, experiment: AnyExperiment, width: int, height: int) -> None:
        self.console = console_of(width, height)
        self.start: RunStarted = started(experiment)
        table = LiveTable(self.console, live=False)
        table.handle(self.start)
        self.picture = Picture(self.console, table._table)

    def lines(self, now: str = "a cell of some name", *, is_over: bool = False) -> list[str]:
        drawn = self.picture.draw(self.start, Bar(0.25, now, "about 12 s left"), WARNINGS, is_over=is_over)
        lines = self.console.render_lines(drawn, pad=False)
        return ["".join(segment.text for segment in line).rstrip() for line in lines]


def cells_of(experiment: AnyExperiment) -> list[Cell]:
    return experiment.cells(build_parameters(experiment.parameters_type, {}, quick=False))


@every_experiment
@SIZES
def test_it_fits_and_begins_with_the_bar(experiment: AnyExperiment, width: int, height: int) -> None:
    screen, cells = Screen(experiment, width, height), cells_of(experiment)
    for number, cell in enumerate(cells[:15]):
        for row in rows_of(experiment, cell, number, ("ok", "shaky", "void")[number % 3], final=False):
            screen.picture.put(dataclasses.replace(row, launches=(1, 20)))
    screen.picture.sparks.take(readings(cells[0]))
    lines = screen.lines("a cell with a name that is as long as a terminal is wide, and then somewhat longer")
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    assert " 25% a cell" in lines[0] and lines[0].endswith("about 12 s left")
    if height >= 24:
        assert any(line.startswith("tree PSS") and line.endswith(" 39.0 MiB   most 39.0 MiB") for line in lines)
        assert any("1/20: launches so far" in line for line in lines)
        assert sum("1/20" in line for line in lines) >= 2, "the legend and a row"


def row_of(server: str, load: str, block: int, **values: float) -> RowMeasured:
    key = (server, "fair", load, "off", 100, "on")
    names = ("server", "arm", "load", "keep_alive", "rate_pct", "observed")
    empty = {column.name: None for column in started(SERVERS).columns}
    state = {"status": "ok", "reason": "", "grade": "ok", "grade_reason": ""}
    return RowMeasured(
        key, {**empty, **dict(zip(names, key, strict=True)), **values, **state}, False, False, (block, 3)
    )


def test_a_row_without_values_in_the_first_table_has_a_table_of_its_own() -> None:
    screen = Screen(SERVERS, 80, 24)
    screen.picture.put(row_of("node", "wrk", 1, throughput_per_s=9000.0))
    assert not any("inside a server" in line for line in screen.lines())
    screen.picture.put(row_of("apache-prefork-php", "held", 2, process_bytes=600_000.0))
    text = "\n".join(screen.lines())
    assert "9,000/s 1/3" in text
    assert "inside a server" in text
    assert "586 KiB 2/3" in text


def test_rows_that_changed_last_are_shown_and_the_others_counted() -> None:
    screen = Screen(SERVERS, 80, 24)
    for number in range(30):
        screen.picture.put(row_of(f"server-{number:02}", "wrk", 1, throughput_per_s=9000.0))
    screen.picture.put(row_of("server-03", "wrk", 2, throughput_per_s=9001.0))
    lines = screen.lines()
    shown = [line.split()[0] for line in lines if line.lstrip().startswith("server-")]
    assert shown == sorted(shown), "the order of rows does not change"
    assert {"server-03", "server-29", "server-28"} <= set(shown)
    assert f"2/3: launches so far; {30 - len(shown)} more" in "\n".join(lines)


def test_a_row_of_all_its_launches_bears_no_mark() -> None:
    screen = Screen(SERVERS, 80, 24)
    screen.picture.put(row_of("node", "wrk", 3, throughput_per_s=9000.0))
    assert not any("3/3" in line or "launches" in line for line in screen.lines())


# --- series ---------------------------------------------------------------------------------------------------------


def test_a_line_stands_on_zero_and_shows_what_was_not_read_as_empty() -> None:
    points = [(0.0, 0.0), (1.0, 7.0), (1.4, 7.0), (3.0, 3.5), (3.9, 3.5)]
    assert line_of(points, 1.0, 6) == "▁█ ▅"
    assert line_of([(0.0, 0.0), (1.0, 0.0)], 1.0, 6) == "▁▁"
    assert line_of([], 1.0, 6) == ""
    assert len(line_of([(float(second), 1.0) for second in range(100)], 1.0, 6)) == 6


def test_columns_have_round_lengths_and_hold_all_of_a_window() -> None:
    assert [column_of(seconds, 40) for seconds in (0.1, 7.9, 8.0, 19.9, 20.0, 399.0, 3999.0)] == pytest.approx(
        [0.2, 0.2, 0.5, 0.5, 1.0, 10.0, 100.0]
    )
    assert column_of(1.0, 40, between_s=0.3) == pytest.approx(0.5), "readings are further apart than a column"


def test_series_of_another_launch_begin_anew_and_stay_until_then() -> None:
    sparks, cells = Sparks(), cells_of(SERVERS)
    assert sparks.lines(80, 6, is_over=False) == []
    sparks.take(readings(cells[0], 5))
    sparks.take(readings(cells[0], 9, block=1))
    (head, *lines) = (line.plain for line in sparks.lines(80, 6, is_over=True))
    assert head == f"read of {cells[0].label}, 2.00 s over"
    assert [line.split("  ")[0] for line in lines] == ["tree CPU", "tree PSS", "queued"]
    assert len(sparks.lines(80, 3, is_over=True)) == 3
    plain = [line.plain for line in sparks.lines(80, 6, is_over=True, blocks=False)]
    assert all(line.isascii() for line in plain[1:])


# --- when it is drawn -----------------------------------------------------------------------------------------------


def test_readings_are_drawn_at_once_and_nothing_else_is_within_a_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    console = console_of(80, 24)
    table = LiveTable(console)
    drawn = []
    monkeypatch.setattr(table, "_drawing", lambda: drawn.append(now) or "picture")
    now, cell = 100.0, cells_of(SERVERS)[0]
    monkeypatch.setattr(table._clock, "_now", lambda: now)
    told: list[tuple[float, Event]] = [
        (100.0, started(SERVERS)),
        (101.0, row_of("node", "wrk", 1, throughput_per_s=1.0)),
        (101.1, row_of("epoll", "wrk", 1, throughput_per_s=1.0)),  # too soon
        (101.1, CellStarted(cell, 0, 0.1)),  # so that nothing old stands there while this lasts
        (101.2, CellStarted(cell, 0, 0.1)),  # too soon again
        (102.0, readings(cell)),
        (103.0, readings(cell)),
    ]
    try:
        for now, event in told:  # noqa: B007 - the clock reads it
            table.handle(event)
    finally:
        table.close()
    assert drawn == [100.0, 101.0, 101.1, 102.0, 103.0]


def test_plain_lines_say_readings_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, now = io.StringIO(), 100.0
    plain, cell = PlainLines(stream), cells_of(SERVERS)[0]
    monkeypatch.setattr(plain._clock, "_now", lambda: now)
    plain.handle(started(SERVERS))
    for now in (100.5, 101.0, 101.5, 102.0):  # noqa: B007 - the clock reads it
        plain.handle(readings(cell, 3))
    plain.handle(CellStarted(cell, 0, 0.25))  # what lies behind is told of a cell that tells readings alone as well
    now = 104.0
    plain.handle(readings(cell, 3))
    told = f"{cell.label}: tree CPU 99.0 %, tree PSS 2.00 MiB, queued 2"
    assert stream.getvalue().splitlines()[1:] == [f"  0%, {told}"] * 2 + [f" 25%, {told}, about 12 s left"]
