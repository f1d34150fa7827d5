"""What can go wrong in a run: cells that fail, limits, a time-out, sinks that break; the rest goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from mock_experiment import (
    BrokenSink,
    MockExperiment,
    MockParameters,
    MockRow,
    Recorder,
    confirmed,
    fails,
    go,
    one_sample,
)

from c10k_probe import limits, native, runner
from c10k_probe.events import (
    BlockFinished,
    CellStarted,
    RowMeasured,
    RunFinished,
    RunStarted,
    SamplesTaken,
    VerdictReached,
    Warned,
)
from c10k_probe.exits import ExitCode
from c10k_probe.experiment import Bench, Cell, Row, Samples
from c10k_probe.limits import Needs, Wall
from c10k_probe.results import csv_line

NAMES = ("a", "b", "c", "d", "e", "f")


def states(recorder: Recorder) -> dict[object, tuple[object, object]]:
    return {values["cell"]: (values["status"], values["reason"]) for values in recorder.rows.values()}


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

    class Kept(MockExperiment):
        """Keeps its measurements, so that it is not the garbage collector that closes them."""

        def measure(self, parameters: MockParameters, cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
            measurements.append(super().measure(parameters, cell, bench))
            return measurements[-1]

    measurements: list[Iterator[Row | Samples]] = []
    code, recorder = go(Kept(script, ("a", "b")), timeout_s=10)
    assert code == ExitCode.INCOMPLETE
    (_, name), *others = recorder.starts
    assert not others
    keys = [(name, step) for step in (0, 1, 2, 3, None)]  # the last says that there was more to come
    assert [key for key in recorder.rows if key[0] == name] == keys
    assert recorder.rows[name, None]["status"] == "interrupted"
    assert closed == [True]


def test_a_run_that_timed_out_decides_nothing_but_tells_what_it_saw(clock: SimpleNamespace) -> None:
    def script(cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        clock.now += 100
        yield from one_sample(cell, bench)

    experiment = MockExperiment(script)
    experiment.judges = (confirmed,)
    _, recorder = go(experiment, timeout_s=10)
    (reached,) = recorder.of(VerdictReached)
    assert reached.verdict.verdict == "INCONCLUSIVE"
    assert reached.verdict.evidence.endswith("would be CONFIRMED, but the run was cut short by --timeout")


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
    assert code == ExitCode.ERROR
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
    assert len(recorder.of(RunFinished)) == 1
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
