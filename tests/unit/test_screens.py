"""What a person sees: the table at 80 and 140 columns, marks without colour, the time that is left."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from functools import cache

import pytest
from mock_experiment import MockExperiment, MockRow, confirmed, go, undecided
from pictures import every_experiment, rows_of, started
from rich.console import Console

from c10k_probe.events import CellStarted, RunFinished, RunStarted
from c10k_probe.exits import ExitCode
from c10k_probe.experiment import AnyExperiment, Bench, Cell, Row, Samples, View
from c10k_probe.parameters import build_parameters
from c10k_probe.sinks.progress import Clock
from c10k_probe.sinks.table import LiveTable
from c10k_probe.sinks.text import expected_text

every_width = pytest.mark.parametrize("width", [80, 140])


@cache
def picture(experiment: AnyExperiment, width: int) -> str:
    """All of what the table prints for a full run with wide numbers, without colour."""
    stream = io.StringIO()
    table = LiveTable(Console(file=stream, width=width, no_color=True), live=False)
    table.handle(started(experiment))
    cells = experiment.cells(build_parameters(experiment.parameters_type, {}, quick=False))
    count = 0
    for index, cell in enumerate(cells):
        for number in range(3):
            for row in rows_of(experiment, cell, number, ("ok", "shaky", "void")[(index + number) % 3]):
                table.handle(row)
                count += 1
    table.handle(RunFinished(ExitCode.OK, "complete", 12.3, count))
    table.close()
    return stream.getvalue()


# --- the table ------------------------------------------------------------------------------------------------------


@every_experiment
@every_width
def test_nothing_is_cut_off(experiment: AnyExperiment, width: int) -> None:
    text = picture(experiment, width)
    assert "…" not in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    headers = " ".join(text.splitlines()).replace("  ", " ")
    for view in experiment.views:
        if view.priority == 1:
            assert view.header in headers, f"{experiment.name} at {width} columns does not show {view.header}"
    for cell in experiment.cells(build_parameters(experiment.parameters_type, {}, quick=False)):
        words = {f"{value:,}" if isinstance(value, int) else value for value in cell.key.values()}
        telling = {word for word in words if word in text}
        assert telling, f"no row of {cell.name}"


@every_experiment
def test_a_wide_terminal_shows_the_ends_of_intervals_or_their_width(experiment: AnyExperiment) -> None:
    text = picture(experiment, 400)
    if any(view.low for view in experiment.views):
        assert re.search(r"\[[\d.,]+[^\]]*, [\d.,]+[^\]]*\]", text)
    assert all(view.header in text for view in experiment.views)


@every_experiment
@every_width
def test_grades_are_readable_without_colour(experiment: AnyExperiment, width: int) -> None:
    text = picture(experiment, width)
    assert "\x1b" not in text
    lines = [line.rstrip() for line in text.splitlines()]
    assert any(line.endswith(" ~") for line in lines)
    assert any(line.endswith(" !") for line in lines)
    assert any(line.startswith("shaky") and "±15 %" in line for line in lines)
    assert any(line.startswith("void") for line in lines)


def mock_picture(experiment: MockExperiment, width: int = 80, **options: object) -> str:
    stream = io.StringIO()
    go(experiment, LiveTable(Console(file=stream, width=width, **options), live=False))  # type: ignore[arg-type]
    return stream.getvalue()


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    colours = re.compile(r"\x1b\[[\d;]*3[0-7]")
    assert colours.search(mock_picture(MockExperiment(), force_terminal=True))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colours.search(mock_picture(MockExperiment(), force_terminal=True))


def graded(cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
    name = str(cell.key["cell"])
    grade = {"a": "ok", "b": "shaky", "c": "void"}[name]
    reason = "" if grade == "ok" else "noisy"
    yield MockRow(cell=name, step=None, value_ns=52_123, n_count=5, grade=grade, grade_reason=reason)


def test_rows_marks_reasons_and_verdicts_of_a_table() -> None:
    experiment = MockExperiment(graded)
    experiment.judges = (confirmed,)
    text = mock_picture(experiment)
    lines = {line.split()[0]: line.rstrip() for line in text.splitlines() if line.strip()}
    assert "52.1 µs" in lines["a"]
    assert lines["a"].endswith("5")
    assert lines["b"].endswith("5 ~")
    assert lines["c"].endswith("5 !")
    assert lines["shaky"] == "shaky noisy"
    assert lines["void"] == "void noisy"
    assert "CONFIRMED" in lines["M1"]
    assert "seed 1" in text


def test_claims_that_were_not_measured_are_one_line_of_a_table() -> None:
    """Most runs answer a few claims only; what the others would need stands in the run folder."""
    experiment = MockExperiment()
    experiment.judges = (undecided, confirmed, undecided)
    lines = [line.rstrip() for line in mock_picture(experiment, width=140).splitlines()]
    assert [line for line in lines if "M2" in line] == [
        "not judged in this run: M2, M2 (what each needs: see verdicts in run.json)"
    ]
    assert "needs --elephants" not in "\n".join(lines)
    assert sum("M1 CONFIRMED" in line for line in lines) == 1


def test_a_table_of_nothing_is_not_shown() -> None:
    experiment = MockExperiment()
    experiment.views = (View("value", "value_ns"), View("n", "n_count", group="counts"))
    assert "counts" in mock_picture(experiment)
    experiment.script = lambda cell, _: iter([MockRow(cell=str(cell.key["cell"]), step=None, value_ns=5)])
    text = mock_picture(experiment)
    assert "counts" not in text
    assert "5 ns" in text


def test_long_reasons_and_warnings_are_wrapped_not_cut() -> None:
    words = [f"word{number}" for number in range(60)]

    def script(cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        bench.warn(" ".join(words), "because", "do this")
        yield MockRow(cell=str(cell.key["cell"]), step=None, status="failed", reason=" ".join(words), grade="void")

    text = mock_picture(MockExperiment(script, ("a",)))
    assert "…" not in text
    for word in words:
        assert len(re.findall(rf"\b{word}\b", text)) >= 2


def test_text_in_square_brackets_is_shown_as_it_is() -> None:
    """Brackets are markup to the library that draws: a reason or a key must not vanish."""

    def script(cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        bench.warn("[bold] seen", "[/x] cause", "")
        yield MockRow(cell=str(cell.key["cell"]), step=None, value_ns=1, status="failed", reason="[red] why")

    text = mock_picture(MockExperiment(script, ("[a]",)))
    for word in ("[a]", "[bold] seen", "[/x] cause", "[red] why"):
        assert word in text


def test_an_experiment_without_views_has_a_table_of_its_keys() -> None:
    experiment = MockExperiment()
    experiment.views = ()
    text = mock_picture(experiment)
    assert all(re.search(rf"^ *{name}\b", text, re.MULTILINE) for name in "abc")


@pytest.mark.parametrize("height", [5, 24])
def test_the_live_table_draws_and_gives_the_terminal_back(height: int) -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=80, height=height, force_terminal=True)
    table = LiveTable(console)
    table._clock = Clock(iter(range(10_000)).__next__)  # a second passes with each look: every event draws
    _, recorder = go(MockExperiment(cells=[f"cell{number}" for number in range(40)]), table)
    table.close()
    text = stream.getvalue()
    assert "cell39" in text
    assert text.rfind("\x1b[?25h") >= text.rfind("\x1b[?25l")
    assert recorder.finished.code == ExitCode.OK


def test_the_live_table_is_drawn_seldom() -> None:
    """With a clock that stands still nothing is drawn between the first cell and the end."""
    stream = io.StringIO()
    table = LiveTable(Console(file=stream, width=80, height=24, force_terminal=True))
    table._clock = Clock(lambda: 5.0)
    table.handle(started(MockExperiment()))
    table.handle(CellStarted(Cell({"cell": "first"}), 0, 0.0))
    assert "first" in stream.getvalue()
    before = stream.tell()
    for number in range(100):
        table.handle(CellStarted(Cell({"cell": "a"}), number, number / 100))
    assert stream.tell() == before
    table.close()
    table.close()


# --- time -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("elapsed_s", "share", "text"),
    [
        (0.4, 0.5, ""),
        (10.0, 0.01, ""),
        (10.0, 0.0, ""),
        (10.0, 0.5, "about 10 s left"),
        (30.0, 0.2, "about 2 min left"),
        (29.0, 0.2, "about 116 s left"),
        (60.0, 0.02, "about 49 min left"),
        (10.0, 1.0, "about 0 s left"),
    ],
)
def test_time_left(elapsed_s: float, share: float, text: str) -> None:
    times = iter([100.0, 100.0 + elapsed_s])
    assert Clock(times.__next__).left_text(share) == text


def test_until_there_is_something_to_go_by_it_is_what_was_expected() -> None:
    clock = Clock(iter([0.0, 0.0, 1.0, 40.0]).__next__)
    clock.start(390.0)
    assert clock.left_text(0.01) == "about 6 min in all"
    assert clock.left_text(0.1) == "about 6 min left"


def test_what_a_run_takes_is_told_before_it_begins_where_weights_are_seconds() -> None:
    class Timed(MockExperiment):
        weights_are_s = True

    _, recorder = go(Timed(cells=["a", "b"]), repeats=5)
    (event,) = (event for event in recorder.events if isinstance(event, RunStarted))
    assert expected_text(event) == "about 10 s: 2 cases, up to 5 launches of each; Ctrl-C keeps what is there"
    assert expected_text(started(MockExperiment())) == ""


def test_due_limits_how_often() -> None:
    times = iter([0.0, 0.1, 0.24, 0.25, 0.3, 0.49, 0.5, 9.0])
    clock = Clock(times.__next__)
    assert [clock.due(0.25) for _ in range(7)] == [False, False, True, False, False, True, True]


def test_elapsed_counts_from_the_start() -> None:
    times = iter([5.0, 7.0, 9.5])
    clock = Clock(times.__next__)
    clock.start()
    assert clock.elapsed_s() == 2.5
