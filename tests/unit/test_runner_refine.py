"""Experiments that ask for more: cells wanted because of what was found, and how skipped cells are told."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from unittest import mock

import pytest
from mock_experiment import MockExperiment, MockParameters, Recorder, Script, fails, go, one_sample

from c10k_probe import limits, native
from c10k_probe.events import (
    BlockFinished,
    CellProgressed,
    CellStarted,
    RowMeasured,
    RunStarted,
    SamplesTaken,
)
from c10k_probe.exits import ExitCode
from c10k_probe.experiment import Bench, Cell, Row, Samples
from c10k_probe.limits import Needs, Wall

Answer = Callable[[Sequence[Samples]], Sequence[str]]


class Curious(MockExperiment):
    """Asks by ``answer`` for further cells, and remembers what it had been given at each asking."""

    name = "mock"
    question = "Does the runner do what it says?"

    def __init__(self, answer: Answer, script: Script | None = None, cells: Sequence[str] = ("a", "b")) -> None:
        super().__init__(script, cells)
        self.answer = answer
        self.asked_with: list[Counter[tuple[str, int]]] = []

    def refine(self, parameters: MockParameters, samples: Sequence[Samples], seed: int) -> list[Cell]:
        self.asked_with.append(Counter((str(item.key["cell"]), item.block) for item in samples))
        wanted = self.answer(samples)
        self.names = (*self.names, *(name for name in wanted if name not in self.names))
        return [Cell({"cell": name}, self.needs.get(name, Needs())) for name in wanted]


def one_more_each(names: Sequence[str]) -> Answer:
    """Answers with one name after the other, then with none."""
    left = iter(names)
    return lambda _: [name] if (name := next(left, None)) else []


def starts_of(recorder: Recorder) -> Counter[tuple[int, str]]:
    return Counter(recorder.starts)


# --- rounds -----------------------------------------------------------------------------------------------------------


def test_it_is_asked_after_each_round_with_everything_that_was_measured() -> None:
    experiment = Curious(one_more_each(["c", "d"]))
    code, recorder = go(experiment, repeats=3)
    assert code == ExitCode.OK
    rounds = (["a", "b"], ["a", "b", "c"], ["a", "b", "c", "d"])
    assert experiment.asked_with == [Counter((name, block) for name in names for block in range(3)) for names in rounds]
    assert [name for _, name in recorder.starts[-6:]] == ["c"] * 3 + ["d"] * 3


def test_a_refined_cell_is_measured_in_every_block_and_gets_its_final_row() -> None:
    _, recorder = go(Curious(one_more_each(["c"])), repeats=5)
    assert starts_of(recorder) == Counter({(block, name): 1 for block in range(5) for name in "abc"})
    finals = Counter(event.key for event in recorder.events if isinstance(event, RowMeasured) and event.final)
    assert finals == {(name, None): 1 for name in "abc"}
    assert all((row["status"], row["n_count"]) == ("ok", 5) for row in recorder.rows.values())


def test_refined_cells_are_interleaved_and_shuffled_by_the_seed() -> None:
    wanted = [f"cell{number}" for number in range(6)]

    def orders(seed: int) -> list[list[str]]:
        _, recorder = go(Curious(lambda _: wanted, cells=("a",)), repeats=4, seed=seed)
        blocks = [event for event in recorder.starts if event[1] != "a"]
        assert [block for block, _ in blocks] == [block for block in range(4) for _ in wanted]
        return [[name for number, name in blocks if number == block] for block in range(4)]

    assert all(sorted(order) == wanted for order in orders(1))
    assert orders(1) == orders(1)
    assert orders(1) != orders(2)
    assert len({tuple(order) for order in orders(1)}) > 1


def test_the_first_rounds_order_does_not_depend_on_what_is_asked_later() -> None:
    plain = go(MockExperiment(cells=("a", "b")), repeats=4)[1].starts
    assert go(Curious(one_more_each(["c"])), repeats=4)[1].starts[: len(plain)] == plain


@pytest.mark.parametrize("known", [["a"], ["a", "b"]])
def test_what_was_measured_is_not_measured_again(known: list[str]) -> None:
    """An answer that has nothing new ends the run."""
    experiment = Curious(lambda _: known)
    code, recorder = go(experiment, repeats=2)
    assert code == ExitCode.OK
    assert len(experiment.asked_with) == 1
    assert set(starts_of(recorder).values()) == {1}


def test_known_cells_beside_new_ones_are_left_out_of_the_round() -> None:
    _, recorder = go(Curious(lambda _: ["a", "c", "b"]), repeats=2)
    assert starts_of(recorder) == Counter({(block, name): 1 for block in range(2) for name in "abc"})


def test_the_same_new_cell_twice_in_one_answer_is_measured_once() -> None:
    _, recorder = go(Curious(lambda _: ["c", "c"]), repeats=2)
    assert starts_of(recorder) == Counter({(block, name): 1 for block in range(2) for name in "abc"})


def test_a_refined_cell_that_fails_is_not_asked_for_again() -> None:
    experiment = Curious(lambda _: ["c"], fails(native.HelperError("broke"), "c"))
    code, recorder = go(experiment, repeats=3)
    assert code == ExitCode.INCOMPLETE
    assert starts_of(recorder)[0, "c"] == 1
    assert sum(count for (_, name), count in starts_of(recorder).items() if name == "c") == 1
    assert len(experiment.asked_with) == 2
    assert (recorder.rows["c", None]["status"], recorder.rows["c", None]["reason"]) == ("failed", "broke")


def test_a_refined_cell_that_is_not_supported_is_a_skipped_row() -> None:
    code, recorder = go(Curious(lambda _: ["c"], fails(native.HelperUnsupported("no such call"), "c")), repeats=2)
    assert code == ExitCode.OK
    assert (recorder.rows["c", None]["status"], recorder.rows["c", None]["reason"]) == ("skipped", "no such call")


def test_a_refined_cell_beyond_a_wall_is_skipped_and_does_not_loop() -> None:
    experiment = Curious(lambda _: ["c", "d"])
    experiment.needs = {"c": Needs(descriptors_count=500)}
    with mock.patch.object(limits, "walls", lambda: [wall(100)]):
        code, recorder = go(experiment, repeats=2)
    assert code == ExitCode.OK
    assert len(experiment.asked_with) == 2
    assert {name for _, name in recorder.starts} == {"a", "b", "d"}
    assert recorder.rows["c", None]["status"] == "skipped"
    assert str(recorder.rows["c", None]["reason"]).startswith("descriptors: 100 of 100 things are left")


def test_nothing_to_refine_from_is_asked_once_all_the_same() -> None:
    experiment = Curious(lambda samples: ["c"] if samples else [], fails(native.HelperError("no"), "ab"))
    code, _ = go(experiment)
    assert code == ExitCode.ERROR
    assert experiment.asked_with == [Counter()]


def test_the_start_counts_what_was_planned_only() -> None:
    _, recorder = go(Curious(one_more_each(["c"])))
    start = recorder.events[0]
    assert isinstance(start, RunStarted)
    assert start.cells_count == 2


# --- how far it is ----------------------------------------------------------------------------------------------------


def steps(cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
    bench.progress(1, 2, "half")
    yield from one_sample(cell, bench)
    bench.progress(1, 1, "whole")


def test_the_share_that_is_done_is_never_above_one_and_ends_there() -> None:
    _, recorder = go(Curious(one_more_each(["c", "d", "e"]), steps), repeats=3)
    shares = [e.done_share for e in recorder.events if isinstance(e, (CellStarted, CellProgressed, BlockFinished))]
    assert 0 == shares[0] <= max(shares) <= 1
    assert shares[-1] == pytest.approx(1)


# --- early ends -------------------------------------------------------------------------------------------------------


def interrupts(name: str, block: int) -> Script:
    """This cell sends the process Ctrl-C in this block."""

    def script(cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        if (cell.key["cell"], bench.block) == (name, block):
            os.kill(os.getpid(), signal.SIGINT)
        yield from one_sample(cell, bench)

    return script


def test_an_interruption_while_refining_keeps_both_rounds() -> None:
    experiment = Curious(lambda _: ["c"], interrupts("c", 2))
    code, recorder = go(experiment, repeats=4)
    assert code == ExitCode.INTERRUPTED
    assert len(experiment.asked_with) == 1
    assert {name: recorder.rows[name, None]["n_count"] for name in "abc"} == {"a": 4, "b": 4, "c": 2}
    assert [recorder.rows[name, None]["status"] for name in "abc"] == ["ok", "ok", "interrupted"]
    assert "2 of 4 launches" in str(recorder.rows["c", None]["reason"])


def test_refined_cells_that_were_not_reached_say_so() -> None:
    """Also the one that was being measured, and those whose turn had not come."""
    experiment = Curious(lambda _: ["c", "d", "e"], cells=("a",))
    reached: list[str] = []

    def script(cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        if cell.key["cell"] != "a":
            reached.append(str(cell.key["cell"]))
            os.kill(os.getpid(), signal.SIGINT)
        yield from one_sample(cell, bench)

    experiment.script = script
    code, recorder = go(experiment)
    assert code == ExitCode.INTERRUPTED
    (first,) = reached
    assert recorder.rows["a", None]["status"] == "ok"
    for name in "cde":
        row = recorder.rows[name, None]
        assert (row["status"], row["grade"], row["value_ns"]) == ("interrupted", "void", None)
        assert ("while this was measured" if name == first else "before this was measured") in str(row["reason"])


def test_an_experiment_that_never_has_enough_ends_with_the_time_out() -> None:
    numbers = iter(range(10**6))
    experiment = Curious(lambda _: [f"more{next(numbers)}"])
    code, recorder = go(experiment, timeout_s=0.3)
    assert code == ExitCode.INCOMPLETE
    assert len(recorder.of(SamplesTaken)) > 2
    assert "timed-out" in recorder.finished.summary


# --- skipped cells are told together ----------------------------------------------------------------------------------


def wall(limit: int, name: str = "descriptors", lift: str | None = "raise it") -> Wall:
    return Wall(name, "administrative", limit, 0, "things", "machine", "test", lift)


def skip_warnings(needs: dict[str, Needs], *walls: Wall) -> list[str]:
    experiment = MockExperiment(cells=("a", "b", "c", "d"), needs=needs)
    with mock.patch.object(limits, "walls", lambda: list(walls)):
        _, recorder = go(experiment)
    skipped = {values["cell"] for values in recorder.rows.values() if values["status"] == "skipped"}
    assert skipped == set(needs)
    return [text for text in recorder.warnings if "skipped" in text]


def test_cells_that_one_wall_forbids_are_one_warning() -> None:
    much = Needs(descriptors_count=500)
    (text,) = skip_warnings({"a": much, "b": much, "d": Needs(descriptors_count=900)}, wall(100))
    assert text.startswith("a and 2 more skipped: descriptors: 100 of 100 things are left")
    assert "raise it would raise it" in text


def test_one_skipped_cell_is_named_alone() -> None:
    (text,) = skip_warnings({"b": Needs(descriptors_count=500)}, wall(100, lift=None))
    assert text == "b skipped: descriptors: 100 of 100 things are left, this needs 500"


def test_each_wall_has_a_warning_of_its_own() -> None:
    needs = {"a": Needs(descriptors_count=500), "b": Needs(tasks_count=70), "c": Needs(descriptors_count=101)}
    first, second = skip_warnings(needs, wall(100), wall(50, "pids"))
    assert first.startswith("a and 1 more skipped: descriptors:")
    assert second.startswith("b skipped: pids:")
