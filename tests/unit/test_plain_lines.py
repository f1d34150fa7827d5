"""Plain lines: each row once, with units, states, grades and verdicts; and the texts shared with tables."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator, Sequence

import pytest
from mock_experiment import MockExperiment, MockRow, confirmed, go, undecided
from pictures import every_experiment, rows_of, started

from c10k_probe.events import BlockFinished, CellProgressed, RowMeasured, RunFinished, Warned
from c10k_probe.exits import ExitCode
from c10k_probe.experiment import AnyExperiment, Bench, Cell, Row, Samples, Scalar, View, columns
from c10k_probe.parameters import build_parameters
from c10k_probe.sinks.plain import PlainLines
from c10k_probe.sinks.progress import Clock
from c10k_probe.sinks.text import groups, interval_text, last_of_each, telling_keys
from c10k_probe.units import label

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


def test_a_run_that_knows_how_long_it_takes_says_so_first() -> None:
    stream, start = io.StringIO(), started(MockExperiment())
    lines = PlainLines(stream)
    lines.handle(dataclasses.replace(start, expected_s=107.0))
    assert "\nabout 107 s: " in stream.getvalue()
    lines.handle(start)
    assert stream.getvalue().endswith(", run abc123)\n")


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


def test_claims_that_were_not_measured_are_one_plain_line() -> None:
    experiment = MockExperiment()
    experiment.judges = (undecided, confirmed, undecided)
    lines = plain(experiment)
    assert lines[-2] == "not judged in this run: M2, M2 (what each needs: see verdicts in run.json)"
    assert sum("M2" in line for line in lines) == 1
    assert sum("M1 CONFIRMED" in line for line in lines) == 1


def test_without_undecided_claims_there_is_no_such_line() -> None:
    experiment = MockExperiment()
    experiment.judges = (confirmed,)
    assert "not judged" not in "\n".join(plain(experiment))


def test_a_plain_group_without_values_is_no_line() -> None:
    experiment = MockExperiment(lambda cell, _: iter([MockRow(cell=str(cell.key["cell"]), step=None, value_ns=5)]))
    experiment.views = (View("value", "value_ns"), View("n", "n_count", group="counts"))
    assert not any(line.startswith("counts") for line in plain(experiment))


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("method", "fork", "fork"),
        ("alive_kind", "none", ""),
        ("huge_pages", "off", ""),
        ("huge_pages", "on", "huge pages on"),
        ("active", "100", "active 100"),
        ("active", "50%", "active 50%"),
        ("asked_rss_bytes", 0, ""),
        ("asked_rss_bytes", 64 << 20, "rss 64.0 MiB"),
        ("asked_file_rss_bytes", 1 << 30, "file rss 1.00 GiB"),
        ("asked_alive_count", 1000, "alive 1,000"),
        ("target_count", 500, "target 500"),
        ("step", None, ""),
        ("note", "", ""),
    ],
)
def test_a_key_in_a_line_without_columns(name: str, value: Scalar, text: str) -> None:
    """Words speak for themselves; numbers and switches need their name; what is at rest is not mentioned."""
    assert label(name, value) == text


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
    rows = rows_of(experiment, cell, 1, "ok")
    for row in (*rows, *rows_of(experiment, cell, 1, "ok", final=False)):
        sink.handle(row)
    sink.handle(RunFinished(ExitCode.OK, "complete", 12.3, len(rows)))
    _, *lines, last = stream.getvalue().splitlines()
    assert last == f"complete; {len(rows)} row{'' if len(rows) == 1 else 's'} in 12.3 s"
    assert len(lines) == len(groups(started(experiment)))
    for view in experiment.views:
        own = [line for line in lines if line.startswith(f"{view.group}: ")]
        # the main group of untraced rows stands in the first line, that of traced ones in the second
        (line,) = (own or lines[1:2]) if view.group else lines[:1]
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


# --- which rows stand for all ---------------------------------------------------------------------------------------


def test_of_a_ramp_the_last_measured_step_stands_for_it() -> None:
    start = started(MockExperiment())

    def row(cell: str, step: int, value_ns: float | None) -> RowMeasured:
        return RowMeasured((cell, step), {"cell": cell, "step": step, "value_ns": value_ns, "n_count": None}, True)

    rows = [row("a", 1, 5.0), row("b", 1, 7.0), row("a", 2, 6.0), row("b", 2, None), row("c", 1, None)]
    assert [item.key for item in last_of_each(start, rows)] == [("a", 2), ("b", 1)]


def test_of_what_is_no_ramp_every_row_stands_for_itself() -> None:
    """A number that is a key is another cell, unless the column is declared as a ramp's step."""
    start = dataclasses.replace(
        started(MockExperiment()), columns=tuple(dataclasses.replace(c, ramp=False) for c in columns(MockRow))
    )
    rows = [RowMeasured(("a", n), {"cell": "a", "step": n, "value_ns": 1.0, "n_count": 1}, True) for n in range(3)]
    assert last_of_each(start, rows) == rows


def test_keys_that_are_the_same_everywhere_take_no_space() -> None:
    start = started(MockExperiment())
    rows = [RowMeasured(("a", n), {"cell": "a", "step": n, "value_ns": 1.0}, True) for n in range(3)]
    assert telling_keys(start, rows) == ["cell", "step"]
    assert telling_keys(start, rows[:1]) == ["cell"]
