"""The limits of the machine before fork-latency: a state beyond one is skipped, and the wall is named."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from c10k_probe.experiments import _creation_design as design
from c10k_probe.experiments.fork_latency import EXPERIMENT, ForkLatency, ForkLatencyParameters
from mock_experiment import Recorder

from c10k_probe import limits
from c10k_probe.events import Tee
from c10k_probe.exits import ExitCode
from c10k_probe.experiment import Bench, Cell, Row, Samples
from c10k_probe.limits import Wall
from c10k_probe.runner import Plan, Run

STATE = {name: f"asked_{name}_{'bytes' if 'rss' in name else 'count'}" for name in design.NUMERIC}


def cells_of(**chosen: Any) -> list[Cell]:
    return EXPERIMENT.cells(ForkLatencyParameters(**chosen))


def state_of(cell: Cell) -> dict[str, object]:
    """What of the parent's state is not at rest."""
    return {name: cell.key[column] for name, column in STATE.items() if cell.key[column]}


ROOMY = {"descriptors": 10**6, "pids": 10**7, "threads": 10**7, "maps": 10**7, "memory": 10**15, "address-space": 2**47}


def walls_with(**changed: int) -> list[Wall]:
    return [
        Wall(name.replace("_", "-"), "administrative", limit, 0, "things", "machine", "test", f"raise {name}")
        for name, limit in (ROOMY | changed).items()
    ]


class Refusing(ForkLatency):
    """Measures nothing, and remembers what it was asked to measure."""

    name = "fork-latency"
    question = "?"

    def __init__(self) -> None:
        self.asked: list[Cell] = []

    def measure(self, parameters: ForkLatencyParameters, cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        self.asked.append(cell)
        yield from ()


@pytest.mark.parametrize(
    ("chosen", "method", "walls", "named"),
    [
        ({"descriptors": (0, 20_000)}, "fork", {"descriptors": 20_000}, "descriptors"),
        ({"mappings": (0, 65_530)}, "fork", {"maps": 65_530}, "maps"),
        ({"alive": (0, 32_000)}, "fork", {"pids": 32_000}, "pids"),
        ({"alive": (0, 32_000)}, "pthread_create", {"threads": 32_000}, "threads"),
        ({"alive": (0, 33_000)}, "pthread_create", {"maps": 65_530}, "maps"),
        ({"libraries": (0, 128)}, "fork", {"maps": 500}, "maps"),
        ({"rss": (0, 8 << 30)}, "fork", {"memory": 8 << 30}, "memory"),
        ({"file_rss": (0, 8 << 30)}, "vfork", {"memory": 8 << 30}, "memory"),
        ({"alive": (0, 100_000)}, "fork", {"memory": 2 << 30}, "memory"),
        ({"alive": (0, 100_000)}, "pthread_create", {"memory": 2 << 30}, "memory"),
        ({"rss": (0, 8 << 30)}, "fork", {"commit": 12 << 30}, "commit"),
        ({"alive": (0, 2000)}, "pthread_create", {"commit": 12 << 30}, "commit"),
        ({"rss": (0, 1 << 46)}, "vfork", {"address_space": 1 << 45, "memory": 1 << 50}, "address-space"),
    ],
)
def test_a_state_beyond_a_wall_is_skipped_and_the_wall_is_named(
    chosen: dict[str, Any], method: str, walls: dict[str, int], named: str
) -> None:
    """Before anything is started; the state that fits is measured."""
    experiment, recorder = Refusing(), Recorder()
    parameters = ForkLatencyParameters(method=(method,), linking=("dynamic",), **chosen)
    with mock.patch.object(limits, "walls", lambda: walls_with(**walls)):
        Run(experiment, parameters, Plan(1, 1), Tee([recorder])).go({})
    (row,) = recorder.rows.values()
    assert (row["status"], row["grade"]) == ("skipped", "void")
    assert str(row["reason"]).startswith(f"{named}: ")
    assert f"raise {named.replace('-', '_')}" in str(row["reason"])
    assert [state_of(cell) for cell in experiment.asked] == [{}]
    ((name, (_, high)),) = chosen.items()
    assert row[STATE[name]] == high


def test_only_states_beyond_a_wall_is_nothing_measured() -> None:
    experiment, recorder = Refusing(), Recorder()
    parameters = ForkLatencyParameters(method=("fork",), descriptors=(10_000,))
    with mock.patch.object(limits, "walls", lambda: walls_with(descriptors=1024)):
        code = Run(experiment, parameters, Plan(1, 1), Tee([recorder])).go({})
    assert code == ExitCode.NOTHING_MEASURED
    assert experiment.asked == []


def test_a_wall_in_a_sweep_costs_its_states_alone() -> None:
    experiment, recorder = Refusing(), Recorder()
    parameters = ForkLatencyParameters(method=("fork",), linking=("static",), sweep=True)
    with mock.patch.object(limits, "walls", lambda: walls_with(maps=5000, descriptors=5000)):
        Run(experiment, parameters, Plan(1, 1), Tee([recorder])).go({})
    skipped = sorted((row["axis"], str(row["reason"]).partition(":")[0]) for row in recorder.rows.values())
    assert skipped == [("descriptors", "descriptors"), ("mappings", "maps")]
    assert len(experiment.asked) == len(cells_of(method=("fork",), linking=("static",), sweep=True)) - 2


@pytest.mark.parametrize("name", design.NUMERIC)
def test_every_axis_needs_more_of_some_limit(name: str) -> None:
    method = ("fork",)
    none, some = (cells_of(method=method, linking=("dynamic",), **{name: (level,)})[0] for level in (0, 100))
    less, more = (dataclasses.astuple(cell.needs) for cell in (none, some))
    assert all(a <= b for a, b in zip(less, more, strict=True))
    assert less != more
    assert some.weight >= none.weight
