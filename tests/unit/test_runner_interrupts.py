"""Ctrl-C, SIGTERM, SIGHUP in the middle of a run: what was measured is kept, and the signals are given back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mock_experiment import MockExperiment, MockRow, Script, confirmed, go, one_sample, samples_of

from c10k_probe.events import RunFinished, VerdictReached
from c10k_probe.exits import ExitCode
from c10k_probe.experiment import Bench, Cell, Row, Samples
from c10k_probe.interrupts import SIGNALS, Interrupted, Interrupts

every_signal = pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)


def interrupted_at(number: signal.Signals, at: int) -> Script:
    """The ``at``-th launch (from 0) sends this process a signal before it has measured anything."""
    count = iter(range(1000))

    def script(cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        if next(count) == at:
            os.kill(os.getpid(), number)
            yield samples_of(cell, bench, 666)  # must never arrive
        yield from one_sample(cell, bench)

    return script


@every_signal
def test_a_signal_ends_the_run_and_keeps_what_there_is(number: signal.Signals) -> None:
    names = ("a", "b", "c", "d")
    code, recorder = go(MockExperiment(interrupted_at(number, 2), names))
    assert code == ExitCode.INTERRUPTED
    assert isinstance(recorder.events[-1], RunFinished)
    assert recorder.finished.code == ExitCode.INTERRUPTED
    measured = {name for _, name in recorder.starts[:2]}
    assert len(recorder.starts) == 3
    assert {values["cell"] for values in recorder.rows.values()} == set(names)
    for values in recorder.rows.values():
        if values["cell"] in measured:
            assert values["value_ns"] == 100
        else:
            assert (values["status"], values["value_ns"]) == ("interrupted", None)
            assert "interrupted" in str(values["reason"])
            assert values["grade"] == "void"
    assert "interrupted" in recorder.finished.summary


@every_signal
def test_with_a_time_out_too(number: signal.Signals) -> None:
    code, recorder = go(MockExperiment(interrupted_at(number, 1)), timeout_s=3600)
    assert code == ExitCode.INTERRUPTED
    assert len(recorder.rows) == 3


def test_rows_of_earlier_blocks_are_final_after_an_interruption() -> None:
    code, recorder = go(MockExperiment(interrupted_at(signal.SIGINT, 4)), repeats=5)
    assert code == ExitCode.INTERRUPTED
    assert {values["cell"] for values in recorder.rows.values()} == {"a", "b", "c"}
    assert sorted(int(str(values["n_count"])) for values in recorder.rows.values()) == [1, 1, 2]


def test_steps_of_a_ramp_are_kept() -> None:
    def script(cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        name = str(cell.key["cell"])
        yield MockRow(cell=name, step=1, n_count=1)
        os.kill(os.getpid(), signal.SIGINT)
        yield MockRow(cell=name, step=2, n_count=2)

    code, recorder = go(MockExperiment(script, ("a", "b")))
    assert code == ExitCode.INTERRUPTED
    ((_, name),) = recorder.starts
    assert recorder.rows[name, 1]["status"] == "ok"
    assert (name, 2) not in recorder.rows


@every_signal
def test_handlers_are_given_back(number: signal.Signals) -> None:
    before = {item: signal.getsignal(item) for item in SIGNALS}
    go(MockExperiment(interrupted_at(number, 0)))
    go(MockExperiment())
    assert {item: signal.getsignal(item) for item in SIGNALS} == before


def test_handlers_are_given_back_after_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> list[Row]:
        raise ZeroDivisionError

    monkeypatch.setattr(MockExperiment, "summarise", broken)
    before = {item: signal.getsignal(item) for item in SIGNALS}
    with pytest.raises(ZeroDivisionError):
        go(MockExperiment())
    assert {item: signal.getsignal(item) for item in SIGNALS} == before


def test_an_experiment_cannot_swallow_it_and_is_closed() -> None:
    closed: list[bool] = []

    def script(cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            yield from one_sample(cell, bench)
        except Exception:
            yield samples_of(cell, bench, 666)
        finally:
            closed.append(True)

    code, recorder = go(MockExperiment(script))
    assert code == ExitCode.INTERRUPTED
    assert closed == [True]
    assert len(recorder.starts) == 1


def test_no_verdict_after_an_interruption() -> None:
    experiment = MockExperiment(interrupted_at(signal.SIGTERM, 2))
    experiment.judges = (confirmed,)
    _, recorder = go(experiment)
    assert recorder.of(VerdictReached) == []


def test_a_signal_while_a_row_is_written_waits_until_it_is() -> None:
    """A sink is never torn: the signal takes effect before the next launch."""

    class Slow:
        name = "slow"
        handled = 0

        def handle(self, event: object) -> None:
            if self.handled == 3:
                os.kill(os.getpid(), signal.SIGINT)
            self.handled += 1

        def close(self) -> None:
            pass

    code, recorder = go(MockExperiment(cells=("a", "b", "c", "d", "e")), Slow())
    assert code == ExitCode.INTERRUPTED
    assert len(recorder.starts) == 2
    assert recorder.finished.rows_count == 5


def test_a_signal_that_came_before_is_raised_once_armed() -> None:
    interrupts = Interrupts()
    with interrupts.installed():
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.seen == signal.SIGINT
        with pytest.raises(Interrupted), interrupts.armed():
            pytest.fail("must not be reached")


SECOND = """
import os, signal, sys
sys.path.insert(0, {folder!r})
from mock_experiment import MockExperiment, go, one_sample

def script(cell, bench):
    try:
        os.kill(os.getpid(), signal.SIGINT)
        yield from one_sample(cell, bench)
    finally:
        os.kill(os.getpid(), signal.SIGINT)  # whoever cleans up hears it a second time
        print("not reached", flush=True)

go(MockExperiment(script))
print("not reached", flush=True)
"""


def test_twice_leaves_at_once() -> None:
    code = SECOND.format(folder=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == ExitCode.INTERRUPTED
    assert done.stdout == ""
    assert done.stderr == ""
