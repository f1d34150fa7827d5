"""What a run tells while it lasts: rows after launches, readings within them, and nobody who reads."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from mock_experiment import MockExperiment, MockRow, Recorder, go, one_sample

from c10k_probe import results, runner
from c10k_probe.bench import READINGS_EVERY_S, Readings
from c10k_probe.events import CellStarted, Event, Reading, ReadingsTaken, RowMeasured, RunFinished
from c10k_probe.exits import ExitCode
from c10k_probe.experiment import Bench, Cell, Row, Samples
from c10k_probe.sinks.folder import RunFolderSink

NAMES = ("a", "b", "c")


@pytest.fixture(autouse=True)
def summaries_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A summary is due after every launch of the first block, whatever the clock of this machine says."""
    monkeypatch.setattr(runner, "FIRST_EVERY_S", 0.0)
    monkeypatch.setattr(runner, "SUMMARY_SHARE", 1e9)


def told_rows(recorder: Recorder) -> list[tuple[str, tuple[int, int] | None, bool]]:
    rows = [event for event in recorder.events if isinstance(event, RowMeasured)]
    return [(str(row.values["cell"]), row.launches, row.final) for row in rows]


# --- rows -----------------------------------------------------------------------------------------------------------


def test_a_row_is_told_before_the_next_cell_begins() -> None:
    _, recorder = go(MockExperiment(cells=NAMES), repeats=2)
    events = [event for event in recorder.events if isinstance(event, (CellStarted, RowMeasured))]
    for index, event in enumerate(events[:6:2]):
        assert isinstance(event, CellStarted)
        row = events[2 * index + 1]
        assert isinstance(row, RowMeasured)
        assert (row.values["cell"], row.launches, row.final) == (event.cell.name, (1, 2), False)


def test_a_row_says_of_how_many_launches_it_is_and_is_final_at_the_end_only() -> None:
    _, recorder = go(MockExperiment(cells=NAMES), repeats=3)
    rows = told_rows(recorder)
    assert [row for row in rows if row[2]] == [(name, (3, 3), True) for name in NAMES]
    assert {row[1] for row in rows if not row[2]} >= {(1, 3)}
    assert all(row[2] for row in rows[-3:])


def test_a_row_that_was_not_made_of_samples_is_final_and_of_no_launches() -> None:
    def yields_a_row(cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        yield MockRow(cell=cell.name, step=1, value_ns=1.0, n_count=1)

    assert told_rows(go(MockExperiment(yields_a_row, ("a",)))[1]) == [("a", None, True)]


def test_summaries_keep_to_their_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a share of nothing there are the first, which also imports and is not held against the second; one more
    after the first block; and one at the end.
    """
    monkeypatch.setattr(runner, "SUMMARY_SHARE", 1e-9)
    asked = []

    class Counts(MockExperiment):
        def summarise(self, parameters: object, samples: Sequence[Samples], seed: int) -> list[Row]:
            asked.append(len(samples))
            return super().summarise(parameters, samples, seed)  # type: ignore[arg-type]

    go(Counts(cells=NAMES), repeats=4)
    assert asked == [1, 2, 3, 12]


# --- readings -------------------------------------------------------------------------------------------------------


def test_readings_are_told_once_a_second_and_none_is_lost() -> None:
    now, told = [100.0], []

    def tell(event: Event) -> None:
        assert isinstance(event, ReadingsTaken)
        told.append((now[0], [reading.at_s for reading in event.readings]))

    readings, cell = Readings(tell, lambda: now[0]), Cell({"cell": "a"})
    for tenth in range(25):
        now[0] = 100 + tenth / 10
        readings.take(cell, 0, Reading(tenth / 10, {"pss_bytes": 1.0}))
    readings.tell()
    readings.tell()  # nothing waits
    assert [len(group) for _, group in told] == [1, 10, 10, 4]
    assert [at for _, group in told for at in group] == [tenth / 10 for tenth in range(25)]
    moments = [at for at, _ in told[:-1]]
    assert all(later - earlier >= READINGS_EVERY_S - 1e-9 for earlier, later in itertools.pairwise(moments))


def test_what_is_interrupted_while_it_is_told_is_not_told_again() -> None:
    """The launch's end tells what still waits; a sink may have had the event before Ctrl-C came."""
    told: list[list[float]] = []

    def tell(event: Event) -> None:
        assert isinstance(event, ReadingsTaken)
        told.append([reading.at_s for reading in event.readings])
        if len(told) == 1:
            raise KeyboardInterrupt

    readings, cell = Readings(tell, lambda: 100.0), Cell({"cell": "a"})
    with pytest.raises(KeyboardInterrupt):
        readings.take(cell, 0, Reading(0.1, {"pss_bytes": 1.0}))
    readings.tell()
    assert told == [[0.1]]
    readings.take(cell, 0, Reading(0.2, {"pss_bytes": 1.0}))
    assert told == [[0.1], [0.2]]


def test_readings_of_a_launch_are_told_before_the_next_begins() -> None:
    def reads(cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        for number in range(3):
            bench.reading(number / 10, {"served_count": float(bench.block * 10 + number)})
        yield from one_sample(cell, bench)

    _, recorder = go(MockExperiment(reads, ("a",)), repeats=2)
    events = [event for event in recorder.events if isinstance(event, (CellStarted, ReadingsTaken))]
    blocks: dict[int, list[float]] = {}
    now = -1
    for event in events:
        if isinstance(event, CellStarted):
            now = event.block
            continue
        assert event.block == now
        blocks.setdefault(now, []).extend(reading.values["served_count"] for reading in event.readings)
    assert blocks == {0: [0, 1, 2], 1: [10, 11, 12]}


# --- nobody reads ---------------------------------------------------------------------------------------------------


@dataclass
class Unread:
    """A sink whose reader goes at the event of some number of a kind."""

    kind: type[Event]
    at: int = 1
    name: str = "standard output"
    closed: int = 0

    def handle(self, event: Event) -> None:
        self.at -= isinstance(event, self.kind)
        if self.at <= 0:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def close(self) -> None:
        self.closed += 1


def stored(base: Path) -> results.StoredRun:
    (path,) = base.iterdir()
    return results.load(path)


def test_a_reader_that_goes_ends_the_run_quietly(tmp_path: Path) -> None:
    unread = Unread(CellStarted, 5)  # the second cell of the second block
    code, recorder = go(MockExperiment(cells=NAMES), RunFolderSink(tmp_path, {}), unread, repeats=2)
    assert code == ExitCode.UNREAD == 141
    assert (recorder.warnings, unread.closed) == ([], 1)
    assert len(recorder.starts) == 5
    assert "unread" in recorder.finished.summary
    run = stored(tmp_path)
    assert (run.state, run.facts["exit_code"], run.facts["verdicts"]) == ("interrupted", 141, [])
    counts = {row["cell"]: (row["status"], row["n_count"]) for row in run.rows}
    whole = {name for block, name in recorder.starts if block == 1}
    assert counts == {name: ("ok", 2) if name in whole else ("interrupted", 1) for name in NAMES}


def test_a_reader_that_goes_after_the_last_launch_leaves_a_whole_run(tmp_path: Path) -> None:
    code, recorder = go(MockExperiment(cells=NAMES), RunFolderSink(tmp_path, {}), Unread(RunFinished), repeats=2)
    assert (code, recorder.warnings) == (ExitCode.UNREAD, [])
    run = stored(tmp_path)
    assert (run.state, len(run.rows), {row["status"] for row in run.rows}) == ("finished", 3, {"ok"})
