"""The design of scheduling: its cells, how often each is launched, and how long its passes are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import product
from unittest import mock

import pytest
from c10k_probe.experiments import _scheduling_rows as rows
from c10k_probe.experiments._scheduling_design import KINDS, MEASURES, TOKENS, SchedulingParameters, hops
from c10k_probe.experiments._scheduling_launch import scheduler_of
from c10k_probe.experiments.scheduling import EXPERIMENT
from made_scheduling import loss, ring, yields

from c10k_probe import native
from c10k_probe.experiment import TRACED_BY, Bench, Cell, Finding, Row, Samples, columns
from c10k_probe.parameters import build_parameters


@pytest.mark.parametrize("quick", [False, True])
def test_each_axis_is_varied_alone_and_no_cell_twice(quick: bool) -> None:
    parameters = build_parameters(SchedulingParameters, {}, quick=quick)
    cells = EXPERIMENT.cells(parameters)
    assert len({cell.name for cell in cells}) == len(cells)
    keys = [item.name for item in columns(rows.SchedulingRow) if item.key and item.name != TRACED_BY]
    assert all(list(cell.key) == keys and cell.weight > 0 for cell in cells)
    counts = Counter(str(cell.key["measure"]) for cell in cells)
    assert set(counts) == set(MEASURES)
    tasks, memory = len(parameters.tasks) - 1, len(parameters.working_set) - 1
    assert counts["switch"] == 3 * 2 * 2 + 2 * (tasks + memory)
    assert counts["loss"] == 2 * (memory + 1) * len(parameters.work)
    assert counts["slice"] == len(parameters.contenders) + 1
    assert (counts["tick"], counts["fairness"], counts["fresh"]) == (1, 1, 1)


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_that_is_asked_for_is_the_only_one(name: str) -> None:
    cells = EXPERIMENT.cells(SchedulingParameters(measure=(name,)))
    assert {cell.key["measure"] for cell in cells} == {name}


SHUFFLED = (
    *(yields(1000, tasks) for tasks in (4096, 2, 64)),
    *(ring(9, 1, method=token, kind=kind, cpus_count=cpus) for cpus in (2, 1) for kind in KINDS for token in TOKENS),
    *(ring(9, 1, kind="process", tasks_count=tasks) for tasks in (64, 16)),
    *(
        loss(rate, lost, work, block, kind=kind, working_set_bytes=memory)
        for rate, lost, work in ((10**4, 2, 30_000), (10**5, 8, 3_000))
        for block in (4, 2, 3, 1, 0)
        for memory, kind in product((1 << 20, 0), ("process", "thread"))
    ),
)


def test_rows_and_findings_come_in_the_order_in_which_they_were_asked_for() -> None:
    """Whatever order they were measured in."""
    asked = SchedulingParameters(
        measure=("loss", "runnable", "switch"),
        token=("pipe", "futex", "eventfd"),
        cpus=(1, 2),
        tasks=(2, 16, 64),
        working_set=(0, 1 << 20),
        work=(30_000, 3_000),
        runnable=(2, 64, 4096),
    )
    keys = [item.name for item in columns(rows.SchedulingRow) if item.key and item.name != TRACED_BY]
    found = [tuple(getattr(row, key) for key in keys) for row in EXPERIMENT.summarise(asked, SHUFFLED, 1)]
    wanted = [tuple(cell.key.values()) for cell in EXPERIMENT.cells(asked)]
    assert found == [key for key in wanted if key in found]
    assert len(found) == 3 + 12 + 2 + 8
    subjects = [item.subject for item in EXPERIMENT.fit(asked, SHUFFLED, 1) if isinstance(item, Finding)]
    told = [("threads" in subject, " 0 KiB" in subject) for subject in subjects if "lost" in subject]
    assert told == [(True, True), (True, False), (False, True), (False, False)]


class Once:
    """A bench in one of several blocks."""

    seed, blocks_count = 1, 3

    def __init__(self, block: int) -> None:
        self.block = block

    def remaining_s(self) -> float:
        return 60.0

    def progress(self, done: float, total: float, note: str) -> None: ...

    def warn(self, seen: str, cause: str, advice: str) -> None: ...


class Started(Exception):
    """A helper would have been started."""


@pytest.mark.parametrize("name", ["fresh", "fairness"])
def test_what_takes_long_is_launched_in_one_block_only(name: str) -> None:
    """The cell says so; ten seconds and thirty trials are not meant for every block."""
    parameters = SchedulingParameters(measure=(name,))
    (cell,) = EXPERIMENT.cells(parameters)
    assert cell.launches == 1

    def measured(block: int) -> Iterator[Row | Samples]:
        bench: Bench = Once(block)
        return EXPERIMENT.measure(parameters, cell, bench)

    with mock.patch.object(native, "Helper", side_effect=Started):
        with pytest.raises(Started):
            next(measured(0))
        assert [list(measured(block)) for block in (1, 2)] == [[], []]


@pytest.mark.parametrize(
    ("tasks", "memory", "work"), [(2, 0, 0), (4096, 0, 0), (2, 8 << 20, 0), (2, 0, 300_000), (256, 1 << 20, 10**9)]
)
def test_a_pass_is_whole_rounds_and_not_too_long(tasks: int, memory: int, work: int) -> None:
    turns = hops(Cell({"tasks_count": tasks, "working_set_bytes": memory, "work_ns": work}))
    assert turns % tasks == 0
    assert turns >= tasks
    assert turns == tasks or turns * (work + memory / 8) < 6e6


@pytest.mark.parametrize(
    ("release", "name"),
    [
        ("6.18.44-generic", "EEVDF"),
        ("6.6.0", "EEVDF"),
        ("6.5.13", "CFS"),
        ("3.10.0-1160.el7", "CFS"),
        ("2.6.32", "CFS or older"),
        ("6.6", "EEVDF"),
        ("7.0.1", "EEVDF"),
        ("unknown", None),
        ("", None),
    ],
)
def test_the_scheduler_by_the_kernels_release(release: str, name: str | None) -> None:
    assert scheduler_of(release) == name
