"""What a person sees: plain lines, the table at 80 and 140 columns, marks without colour, the time that is left."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence

import pytest
from mock_experiment import MockExperiment, MockRow, confirmed, go
from rich.console import Console

from c10k_probe.events import BlockFinished, CellProgressed, CellStarted, RowMeasured, RunFinished, RunStarted, Warned
from c10k_probe.exits import ExitCode
from c10k_probe.experiment import AnyExperiment, Bench, Cell, Row, Samples, Scalar, build_parameters, columns
from c10k_probe.registry import find_experiments
from c10k_probe.sinks.plain import PlainLines
from c10k_probe.sinks.progress import Clock
from c10k_probe.sinks.table import LiveTable
from c10k_probe.sinks.text import groups, interval_text, last_of_each

PACKAGED = find_experiments()
every_experiment = pytest.mark.parametrize("experiment", PACKAGED.values(), ids=PACKAGED.keys())
every_width = pytest.mark.parametrize("width", [80, 140])
# By the unit of a column: what an unlucky user may see, each about as wide as it gets.
WIDE = {
    "_ns": 123_456.7,
    "_per_s": 123_456.7,
    "_bytes_per_connection": 123_456.7,
    "_bytes": 123_456_789_012,
    "_s": 123.4,
    "_count": 1_000_000,
    "_ratio": 123.4,
    "_pct": 99.9,
}


def started(experiment: AnyExperiment) -> RunStarted:
    cells = experiment.cells(build_parameters(experiment.parameters_type, {}, quick=False))
    return RunStarted(
        run_id="abc123",
        experiment=experiment.name,
        question=experiment.question,
        experiment_version=experiment.version,
        parameters={},
        columns=columns(experiment.row_type),
        views=experiment.views,
        cells_count=len(cells),
        blocks_count=20,
        seed=2**31 - 1,
    )


def values_of(experiment: AnyExperiment, cell: Cell, number: int, grade: str) -> dict[str, Scalar]:
    """A row of one cell with wide numbers in every column."""
    row: dict[str, Scalar] = {}
    for item in columns(experiment.row_type):
        suffix = max((s for s in WIDE if item.name.endswith(s)), key=len, default="")
        value = WIDE.get(suffix)
        if item.key:
            row[item.name] = cell.key.get(item.name, number * 100_000 if item.name.endswith("_count") else number % 3)
        elif item.kind == "str":
            row[item.name] = ""
        elif value is None:
            row[item.name] = None
        else:
            share = 0.85 if "_lo_" in item.name else 1.15 if "_hi_" in item.name else 1.0
            row[item.name] = round(value * share) if item.kind == "int" else value * share
    state = {"status": "ok", "reason": "", "grade": grade, "grade_reason": "" if grade == "ok" else "cycle: ±15 %"}
    return row | state


def picture(experiment: AnyExperiment, width: int, **options: object) -> str:
    """All of what the table prints for a full run with wide numbers."""
    stream = io.StringIO()
    table = LiveTable(Console(file=stream, width=width, **options), live=False)  # type: ignore[arg-type]
    table.handle(started(experiment))
    cells = experiment.cells(build_parameters(experiment.parameters_type, {}, quick=False))
    count = 0
    for index, cell in enumerate(cells):
        for number in range(3):
            values = values_of(experiment, cell, number, ("ok", "shaky", "void")[(index + number) % 3])
            key = tuple(values[item.name] for item in columns(experiment.row_type) if item.key)
            table.handle(RowMeasured(key, values, final=True))
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
        telling = {value for value in cell.key.values() if str(value) in text}
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
    text = picture(experiment, width, no_color=True)
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
    """With a clock that stands still nothing is drawn between the start and the end."""
    stream = io.StringIO()
    table = LiveTable(Console(file=stream, width=80, height=24, force_terminal=True))
    table._clock = Clock(lambda: 5.0)
    table.handle(started(MockExperiment()))
    before = stream.tell()
    for number in range(100):
        table.handle(CellStarted(Cell({"cell": "a"}), number, number / 100))
    assert stream.tell() == before
    table.close()
    table.close()


# --- plain lines ----------------------------------------------------------------------------------------------------


def plain(experiment: MockExperiment, **options: int) -> list[str]:
    stream = io.StringIO()
    go(experiment, PlainLines(stream), **options)  # type: ignore[arg-type]
    return stream.getvalue().splitlines()


def test_plain_lines_say_each_final_row_once() -> None:
    lines = plain(MockExperiment(), repeats=5, seed=42)
    assert lines[0].startswith("mock: Does the runner do what it says? (seed 42, run ")
    rows = [line for line in lines if line[:2] in ("a:", "b:", "c:")]
    assert len(rows) == 3
    assert all("value 102 ns" in line and "n 5" in line for line in rows)
    assert lines[-1].startswith("complete; 3 rows in ")
    assert not any("\x1b" in line for line in lines)


def test_plain_lines_say_states_grades_warnings_and_verdicts() -> None:
    def script(cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        bench.warn("seen", "cause", "advice")
        yield MockRow(cell="x", step=None, status="failed", reason="gone", grade="void", grade_reason="not measured")

    experiment = MockExperiment(script, ("x",))
    experiment.judges = (confirmed,)
    text = "\n".join(plain(experiment))
    for words in (
        "warning: seen; cause; advice",
        "failed, gone",
        "[void: not measured]",
        "M1 REFUTED: there are rows",
    ):
        assert words in text


def test_a_missing_key_is_shown_as_nothing() -> None:
    """Missing is empty: never the word None."""
    assert not any("None" in line for line in plain(MockExperiment()))


def progress_lines(events: Sequence[BlockFinished | CellProgressed], every_s: float) -> list[str]:
    stream = io.StringIO()
    sink = PlainLines(stream)
    now = [0.0]
    sink._clock = Clock(lambda: now[0])
    for event in events:
        now[0] += every_s
        sink.handle(event)
    return stream.getvalue().splitlines()


def test_progress_is_told_once_a_second_at_most_and_not_at_the_end() -> None:
    blocks = [BlockFinished(number, (number + 1) / 40) for number in range(40)]
    assert len(progress_lines(blocks, 0.25)) == 9  # of ten seconds, the last says itself
    assert len(progress_lines(blocks, 2.0)) == 39
    assert progress_lines([BlockFinished(0, 0.25)], 4.0) == [" 25%, about 12 s left"]
    told = progress_lines([CellProgressed(Cell({"cell": "epoll"}), "to 1,000", 0.5)], 10.0)
    assert told == [" 50%, epoll: to 1,000, about 10 s left"]


@every_experiment
def test_plain_rows_have_every_view(experiment: AnyExperiment) -> None:
    stream = io.StringIO()
    sink = PlainLines(stream)
    sink.handle(started(experiment))
    cell = experiment.cells(build_parameters(experiment.parameters_type, {}, quick=False))[0]
    sink.handle(RowMeasured((), values_of(experiment, cell, 1, "ok"), final=True))
    sink.handle(RowMeasured((), values_of(experiment, cell, 1, "ok"), final=False))
    sink.handle(RunFinished(ExitCode.OK, "complete", 12.3, 1))
    _, *lines, last = stream.getvalue().splitlines()
    assert last == "complete; 1 rows in 12.3 s"
    assert len(lines) == len(groups(started(experiment)))
    for view in experiment.views:
        (line,) = [line for line in lines if line.startswith(f"{view.group}: ")] if view.group else lines[:1]
        assert view.header in line


@pytest.mark.parametrize(
    ("values", "short", "text"),
    [
        ((52_100.0, 51_800.0, 52_900.0), False, "52.1 µs [51.8 µs, 52.9 µs]"),
        ((52_100.0, 51_800.0, 52_900.0), True, "52.1 µs ±1.1%"),
        ((52_100.0, None, None), False, "52.1 µs"),
        ((52_100.0, None, None), True, "52.1 µs"),
        ((None, None, None), False, ""),
        ((None, 1.0, 2.0), True, ""),
        ((-200.0, -220.0, -180.0), True, "-200 ns ±10%"),
    ],
)
def test_interval_text(values: tuple[Scalar, Scalar, Scalar], short: bool, text: str) -> None:
    assert interval_text("x_ns", *values, style="percent" if short else "ends") == text


def test_warnings_leave_out_what_is_not_known() -> None:
    assert str(Warned("seen", "", "do")) == "seen; do"


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


def test_due_limits_how_often() -> None:
    times = iter([0.0, 0.1, 0.24, 0.25, 0.3, 0.49, 0.5, 9.0])
    clock = Clock(times.__next__)
    assert [clock.due(0.25) for _ in range(7)] == [False, False, True, False, False, True, True]


def test_elapsed_counts_from_the_start() -> None:
    times = iter([5.0, 7.0, 9.5])
    clock = Clock(times.__next__)
    clock.start()
    assert clock.elapsed_s() == 2.5


# --- which rows stand for all ---------------------------------------------------------------------------------------


def test_of_a_ramp_the_last_measured_step_stands_for_it() -> None:
    start = started(MockExperiment())

    def row(cell: str, step: int, value_ns: float | None) -> RowMeasured:
        return RowMeasured((cell, step), {"cell": cell, "step": step, "value_ns": value_ns, "n_count": None}, True)

    rows = [row("a", 1, 5.0), row("b", 1, 7.0), row("a", 2, 6.0), row("b", 2, None), row("c", 1, None)]
    assert [item.key for item in last_of_each(start, rows)] == [("a", 2), ("b", 1)]
