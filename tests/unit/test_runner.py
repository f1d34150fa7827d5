"""The runner with an experiment that does what it is told: order, failures, limits, time and ends."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace

import pytest
from mock_experiment import (
    BrokenSink,
    MockExperiment,
    MockParameters,
    MockRow,
    Recorder,
    Script,
    confirmed,
    go,
    one_sample,
    samples_of,
)

from c10k_probe import limits, native, runner
from c10k_probe.events import (
    BlockFinished,
    CellProgressed,
    CellStarted,
    RowMeasured,
    RunFinished,
    RunStarted,
    SamplesTaken,
    VerdictReached,
    Warned,
)
from c10k_probe.exits import ExitCode
from c10k_probe.experiment import Bench, Cell, Row, Samples, columns
from c10k_probe.limits import Needs, Wall
from c10k_probe.results import csv_line

NAMES = ("a", "b", "c", "d", "e", "f")


def fails(error: native.HelperError, names: str, from_block: int = 0) -> Script:
    """These cells fail from a block on, the others are measured."""

    def script(cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        if str(cell.key["cell"]) in names and bench.block >= from_block:
            raise error
        yield from one_sample(cell, bench)

    return script


def per_block(starts: list[tuple[int, str]]) -> dict[int, list[str]]:
    blocks: dict[int, list[str]] = {}
    for block, name in starts:
        blocks.setdefault(block, []).append(name)
    return blocks


def states(recorder: Recorder) -> dict[object, tuple[object, object]]:
    return {values["cell"]: (values["status"], values["reason"]) for values in recorder.rows.values()}


# --- order ----------------------------------------------------------------------------------------------------------


def test_each_block_holds_each_cell_once() -> None:
    code, recorder = go(MockExperiment(cells=NAMES), repeats=7)
    assert code == ExitCode.OK
    blocks = per_block(recorder.starts)
    assert list(blocks) == list(range(7))
    assert all(sorted(order) == list(NAMES) for order in blocks.values())


def test_blocks_come_one_after_the_other() -> None:
    _, recorder = go(MockExperiment(cells=NAMES), repeats=5)
    assert [block for block, _ in recorder.starts] == sorted(block for block, _ in recorder.starts)


def test_order_depends_on_the_seed_and_changes_between_blocks() -> None:
    first, again, other = (go(MockExperiment(cells=NAMES), repeats=6, seed=seed)[1].starts for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert len({tuple(order) for order in per_block(first).values()}) > 1


def test_order_depends_on_nothing_else() -> None:
    """Not on failures, limits of time, sinks, or what others draw from the global generator."""
    plain = go(MockExperiment(cells=NAMES), repeats=6)[1].starts

    def draws(cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        random.seed(0)
        yield from one_sample(cell, bench)

    assert go(MockExperiment(draws, NAMES), BrokenSink(), repeats=6, timeout_s=3600)[1].starts == plain
    failing = go(MockExperiment(fails(native.HelperError("no"), "b", 2), NAMES), repeats=6)[1].starts
    assert failing == [(block, name) for block, name in plain if name != "b" or block <= 2]


def test_every_position_is_taken_by_every_cell() -> None:
    """Over many blocks no cell is always first."""
    _, recorder = go(MockExperiment(cells=("a", "b", "c")), repeats=60, seed=3)
    firsts = Counter(order[0] for order in per_block(recorder.starts).values())
    assert min(firsts[name] for name in "abc") >= 10


def test_the_seed_of_a_launch_depends_on_run_cell_and_block() -> None:
    def seeds_of(seed: int, names: tuple[str, ...]) -> dict[tuple[object, int], int]:
        seeds: dict[tuple[object, int], int] = {}

        def script(cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
            seeds[cell.key["cell"], bench.block] = bench.seed
            assert bench.blocks_count == 3
            yield from one_sample(cell, bench)

        go(MockExperiment(script, names), repeats=3, seed=seed)
        return seeds

    first = seeds_of(1, ("a", "b"))
    assert len(set(first.values())) == 6
    assert all(0 <= seed < 2**31 for seed in first.values())
    assert seeds_of(1, ("b", "a", "c")).items() >= first.items()
    assert not set(first.values()) & set(seeds_of(2, ("a", "b")).values())


# --- events ---------------------------------------------------------------------------------------------------------


def steps(cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
    for step in range(4):
        bench.progress(step, 4, f"step {step}")
    yield samples_of(cell, bench, 5)
    bench.progress(1, 1, "closing")


@pytest.mark.parametrize("weights", [{}, {"a": 5.0, "b": 0.25}])
def test_order_of_events_and_the_share_that_is_done(weights: Mapping[str, float]) -> None:
    _, recorder = go(MockExperiment(steps, weights=weights), repeats=3)
    events = recorder.events
    assert isinstance(events[0], RunStarted)
    assert isinstance(events[-1], RunFinished)
    assert (len(recorder.of(RunStarted)), len(recorder.of(RunFinished))) == (1, 1)
    shares = [e.done_share for e in events if isinstance(e, (CellStarted, CellProgressed, BlockFinished))]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] == pytest.approx(1)
    assert max(shares) <= 1
    assert [e.block for e in events if isinstance(e, BlockFinished)] == [0, 1, 2]


def test_share_with_cells_left_out_still_ends_at_one() -> None:
    _, recorder = go(MockExperiment(fails(native.HelperError("no"), "ab")), repeats=2)
    shares = [e.done_share for e in recorder.events if isinstance(e, (CellStarted, BlockFinished))]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)


def test_a_note_reaches_the_sinks() -> None:
    _, recorder = go(MockExperiment(steps, cells=("a",)))
    notes = [e.note for e in recorder.events if isinstance(e, CellProgressed)]
    assert notes == ["step 0", "step 1", "step 2", "step 3", "closing"]


def test_the_start_says_everything_about_the_plan() -> None:
    experiment = MockExperiment()
    _, recorder = go(experiment, repeats=4, seed=99)
    start = recorder.events[0]
    assert isinstance(start, RunStarted)
    assert (start.experiment, start.question, start.experiment_version) == ("mock", experiment.question, 3)
    assert (start.cells_count, start.blocks_count, start.seed) == (3, 4, 99)
    assert start.columns == columns(MockRow)
    assert start.views == experiment.views
    assert start.parameters["n"] == MockParameters().n
    assert start.facts == {"fact": 1}


def test_rows_from_samples_are_final_once_and_last() -> None:
    _, recorder = go(MockExperiment(), repeats=5)
    finals = [event for event in recorder.events if isinstance(event, RowMeasured) and event.final]
    assert Counter(event.key for event in finals) == {(name, None): 1 for name in "abc"}
    last_block = max(index for index, event in enumerate(recorder.events) if isinstance(event, BlockFinished))
    assert all(recorder.events.index(event) > last_block for event in finals)
    assert all(event.values["n_count"] == 5 and event.values["value_ns"] == 102 for event in finals)
    assert len(recorder.of(SamplesTaken)) == 15


def test_rows_that_are_yielded_are_final_at_once() -> None:
    def script(cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        for step in range(3):
            yield MockRow(cell=str(cell.key["cell"]), step=step, n_count=step)

    code, recorder = go(MockExperiment(script, ("a", "b")))
    assert code == ExitCode.OK
    assert [e.final for e in recorder.events if isinstance(e, RowMeasured)] == [True] * 6
    assert recorder.finished.rows_count == 6


def test_judges_see_all_rows_but_void_ones() -> None:
    def script(cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        name = str(cell.key["cell"])
        yield MockRow(cell=name, step=0, grade={"a": "ok", "b": "shaky", "c": "void"}[name])

    experiment = MockExperiment(script)
    experiment.judges = (confirmed,)
    _, recorder = go(experiment)
    assert [e.verdict.evidence for e in recorder.events if isinstance(e, VerdictReached)] == ["2 rows"]


def test_a_warning_of_the_experiment_reaches_the_sinks() -> None:
    def script(cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        bench.warn("5 of 9 lost", "noise", "close the browser")
        yield from one_sample(cell, bench)

    _, recorder = go(MockExperiment(script, ("a",)))
    assert recorder.warnings == ["5 of 9 lost; noise; close the browser"]


def test_without_a_time_out_there_is_plenty_of_time() -> None:
    left: list[float] = []

    def script(cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        left.append(bench.remaining_s())
        yield from one_sample(cell, bench)

    go(MockExperiment(script, ("a",)))
    go(MockExperiment(script, ("a",)), timeout_s=500)
    assert left[0] >= 3600
    assert 400 < left[1] <= 500


# --- failures -------------------------------------------------------------------------------------------------------


def test_a_cell_that_fails_is_left_out_and_the_others_go_on() -> None:
    code, recorder = go(MockExperiment(fails(native.HelperError("helper fell over"), "b")), repeats=4)
    assert code == ExitCode.INCOMPLETE
    assert Counter(name for _, name in recorder.starts) == {"a": 4, "b": 1, "c": 4}
    assert states(recorder) == {"a": ("ok", ""), "b": ("failed", "helper fell over"), "c": ("ok", "")}
    assert any("b failed: helper fell over" in text for text in recorder.warnings)
    assert recorder.rows["b", None]["value_ns"] is None
    assert recorder.rows["b", None]["grade"] == "void"
    assert "helper fell over" in recorder.finished.summary


def test_a_cell_that_fails_later_keeps_what_was_measured_and_says_so() -> None:
    code, recorder = go(MockExperiment(fails(native.HelperError("gone"), "b", from_block=2)), repeats=4)
    assert code == ExitCode.INCOMPLETE
    values = recorder.rows["b", None]
    assert (values["status"], values["reason"], values["n_count"]) == ("failed", "gone", 2)
    assert len(recorder.rows) == 3


def test_all_failed_is_an_error() -> None:
    code, recorder = go(MockExperiment(fails(native.HelperError("gone"), "abc")), repeats=3)
    assert code == ExitCode.ERROR
    assert {status for status, _ in states(recorder).values()} == {"failed"}


def test_what_is_not_supported_is_skipped_and_exit_77_when_that_is_all() -> None:
    code, recorder = go(MockExperiment(fails(native.HelperUnsupported("no clone3 here"), "abc")), repeats=3)
    assert code == ExitCode.NOTHING_MEASURED
    assert set(states(recorder).values()) == {("skipped", "no clone3 here")}
    assert len(recorder.starts) == 3


def test_skipped_and_failed_without_anything_measured_is_an_error() -> None:
    def script(cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        kind = native.HelperUnsupported if cell.key["cell"] == "a" else native.HelperError
        raise kind("no")
        yield  # pragma: no cover

    code, recorder = go(MockExperiment(script, ("a", "b")))
    assert code == ExitCode.ERROR
    assert states(recorder) == {"a": ("skipped", "no"), "b": ("failed", "no")}


def test_a_ramp_that_breaks_keeps_its_rows_and_has_a_failed_one() -> None:
    def script(cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        yield MockRow(cell=str(cell.key["cell"]), step=1, n_count=10)
        raise native.HelperError("gone")

    code, recorder = go(MockExperiment(script, ("a", "b")))
    assert code == ExitCode.INCOMPLETE
    for name in "ab":
        assert recorder.rows[name, 1]["status"] == "ok"
        assert recorder.rows[name, None]["status"] == "failed"


def test_a_measurement_is_always_closed() -> None:
    closed: list[str] = []

    def script(cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        try:
            yield from one_sample(cell, bench)
            if cell.key["cell"] == "b":
                raise native.HelperError("gone")
        finally:
            closed.append(str(cell.key["cell"]))

    go(MockExperiment(script))
    assert sorted(closed) == ["a", "b", "c"]


# --- limits ---------------------------------------------------------------------------------------------------------


def wall(limit: int, lift: str | None = "ulimit -n 99") -> Wall:
    return Wall("descriptors", "administrative", limit, 10, "descriptors", "process", "/proc", lift)


def test_a_cell_over_a_limit_is_skipped_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "walls", lambda: [wall(100)])
    experiment = MockExperiment(needs={"b": Needs(descriptors_count=91), "c": Needs(descriptors_count=90)})
    _, recorder = go(experiment, repeats=2)
    assert Counter(name for _, name in recorder.starts) == {"a": 2, "c": 2}
    status, reason = states(recorder)["b"]
    assert status == "skipped"
    for word in ("descriptors", "90", "100", "ulimit -n 99"):
        assert word in str(reason)
    kinds = [type(event) for event in recorder.events]
    assert kinds.index(RowMeasured) < kinds.index(CellStarted)


def test_all_cells_over_a_limit_is_exit_77(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "walls", lambda: [wall(100, lift=None)])
    code, recorder = go(MockExperiment(needs={name: Needs(descriptors_count=1e6) for name in "abc"}))
    assert code == ExitCode.NOTHING_MEASURED
    assert recorder.starts == []
    assert "None" not in str(states(recorder)["a"][1])


# --- time -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still unless a test moves it."""
    time = SimpleNamespace(now=1000.0)
    time.monotonic = lambda: time.now
    monkeypatch.setattr(runner, "time", time)
    return time


def test_time_out_between_cells(clock: SimpleNamespace) -> None:
    def script(cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        yield from one_sample(cell, bench)
        clock.now += 4

    code, recorder = go(MockExperiment(script, NAMES), timeout_s=10)
    assert code == ExitCode.INCOMPLETE
    assert len(recorder.starts) == 3
    measured = {name for _, name in recorder.starts}
    for name, (status, reason) in states(recorder).items():
        assert (status == "ok") == (name in measured)
        assert name in measured or "--timeout of 10 s" in str(reason)
    assert len(recorder.rows) == len(NAMES)
    assert "timed-out" in recorder.finished.summary


def test_time_out_within_a_cell_keeps_its_rows_and_closes_it(clock: SimpleNamespace) -> None:
    closed: list[bool] = []

    def script(cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        try:
            for step in range(100):
                clock.now += 3
                yield MockRow(cell=str(cell.key["cell"]), step=step)
        finally:
            closed.append(True)

    code, recorder = go(MockExperiment(script, ("a", "b")), timeout_s=10)
    assert code == ExitCode.INCOMPLETE
    (_, name), *others = recorder.starts
    assert not others
    assert [key for key in recorder.rows if key[0] == name] == [(name, step) for step in range(4)]
    assert closed == [True]


def test_no_verdict_on_a_run_that_did_not_end(clock: SimpleNamespace) -> None:
    def script(cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        clock.now += 100
        yield from one_sample(cell, bench)

    experiment = MockExperiment(script)
    experiment.judges = (confirmed,)
    _, recorder = go(experiment, timeout_s=10)
    assert recorder.of(VerdictReached) == []


# --- sinks that break -----------------------------------------------------------------------------------------------


def meaning(recorder: Recorder) -> list[str]:
    """What was recorded, without the warnings about sinks and what differs between two runs anyway."""
    kept = [event for event in recorder.events if not isinstance(event, (Warned, RunStarted, RunFinished))]
    return [csv_line([repr(event)]) for event in kept]


@pytest.mark.parametrize(
    "kinds", [(RunStarted,), (CellStarted,), (SamplesTaken,), (RowMeasured,), (BlockFinished,), (RunFinished,)]
)
def test_a_sink_that_breaks_costs_the_others_nothing(kinds: tuple[type, ...]) -> None:
    expected = meaning(go(MockExperiment(), repeats=3)[1])
    broken = BrokenSink(kinds)
    code, recorder = go(MockExperiment(), broken, repeats=3)
    assert code == ExitCode.ERROR or kinds == (RunFinished,)
    assert meaning(recorder) == expected
    assert broken.refused == 1
    assert broken.closed == recorder.closed == 1
    (warning,) = recorder.warnings
    assert "broken" in warning
    assert "No space left" in warning


def test_the_others_hear_of_the_start_before_the_warning() -> None:
    _, recorder = go(MockExperiment(), BrokenSink((RunStarted,)))
    assert isinstance(recorder.events[0], RunStarted)
    assert isinstance(recorder.events[-1], RunFinished)


@pytest.mark.parametrize("kinds", [(RunStarted,), (RowMeasured,), (RunFinished,)])
def test_two_sinks_on_one_full_disk(kinds: tuple[type, ...]) -> None:
    """The second one cannot keep the warning about the first either."""
    first, second = BrokenSink(kinds, "first"), BrokenSink((*kinds, Warned), "second")
    _, recorder = go(MockExperiment(), first, second, repeats=2)
    assert isinstance(recorder.events[-1], RunFinished)
    assert len(recorder.rows) == 3
    assert first.refused == second.refused == 1
    assert sorted(text.split()[0] for text in recorder.warnings) == ["first", "second"]


def test_a_sink_that_cannot_be_closed_keeps_no_other_from_it() -> None:
    class Stuck(Recorder):
        def close(self) -> None:
            raise OSError("stuck")

    stuck, after = Stuck("stuck"), Recorder("after")
    tee = runner.Tee([stuck, after])
    tee.close()
    assert after.closed == 1
    assert [sink.name for sink, _ in tee.failed] == ["stuck"]


def test_an_error_that_is_no_disk_is_not_hidden() -> None:
    class Wrong(Recorder):
        def handle(self, event: object) -> None:
            raise KeyError("a mistake in a sink")

    check: Callable[[], object] = lambda: go(MockExperiment(), Wrong())  # noqa: E731
    with pytest.raises(KeyError):
        check()
