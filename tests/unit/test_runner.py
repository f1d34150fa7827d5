"""The runner with an experiment that does what it is told: order, events and what they say."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping

import pytest
from mock_experiment import (
    BrokenSink,
    MockExperiment,
    MockParameters,
    MockRow,
    confirmed,
    fails,
    go,
    one_sample,
    samples_of,
)

from c10k_probe import native
from c10k_probe.events import (
    BlockFinished,
    CellProgressed,
    CellStarted,
    RowMeasured,
    RunFinished,
    RunStarted,
    SamplesTaken,
    VerdictReached,
)
from c10k_probe.exits import ExitCode
from c10k_probe.experiment import Bench, Cell, Row, Samples, columns

NAMES = ("a", "b", "c", "d", "e", "f")


def per_block(starts: list[tuple[int, str]]) -> dict[int, list[str]]:
    blocks: dict[int, list[str]] = {}
    for block, name in starts:
        blocks.setdefault(block, []).append(name)
    return blocks


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


def test_a_noisy_machine_decides_nothing() -> None:
    experiment = MockExperiment()
    experiment.judges = (confirmed,)
    _, recorder = go(experiment, noise="others used 40 % of the CPUs")
    (verdict,) = [e.verdict for e in recorder.events if isinstance(e, VerdictReached)]
    assert verdict.verdict == "INCONCLUSIVE"
    for words in ("3 rows", "CONFIRMED", "others used 40 % of the CPUs"):
        assert words in verdict.evidence


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
