"""An experiment that does what a test tells it, a sink that remembers, and sinks that break."""

from __future__ import annotations

import errno
import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from unittest import mock

from c10k_probe import fits, machine, native
from c10k_probe.events import CellStarted, Event, RowMeasured, RunFinished, RunStarted, Sink, Tee, Warned
from c10k_probe.exits import ExitCode
from c10k_probe.experiment import (
    NOT_MEASURED,
    Bench,
    Cell,
    Experiment,
    Judge,
    Row,
    Samples,
    Scalar,
    Verdict,
    View,
    column,
)
from c10k_probe.limits import Needs
from c10k_probe.parameters import Parameters, parameter
from c10k_probe.runner import Plan, Run

Script = Callable[[Cell, Bench], Iterator[Row | Samples]]


@dataclass(frozen=True)
class MockParameters(Parameters):
    """One of each kind."""

    n: int = parameter(1000, "Samples.", minimum=1, maximum=10_000, quick=10)
    size: int = parameter(4096, "Bytes of a message.", dimension="bytes", minimum=1)
    wait: int = parameter(10**9, "Pause.", dimension="duration")
    colour: str = parameter("red", "One colour.", choices=("red", "green"))
    colours: tuple[str, ...] = parameter(("red", "green"), "Colours.", choices=("red", "green", "blue"), many=True)
    counts: tuple[int, ...] = parameter((1, 10), "Counts.", many=True, maximum=100)
    note: str = parameter("", "Anything.", dimension="text")
    often: bool = parameter(False, "More of it.", dimension="flag")


@dataclass(frozen=True, kw_only=True)
class MockRow(Row):
    """One cell."""

    cell: str = column("name of the cell", key=True)
    step: int | None = column("step within the cell", key=True, ramp=True)
    value_ns: float | None = column("median of the samples")
    n_count: int | None = column("samples")


class MockExperiment(Experiment[MockParameters]):
    """Cells by name, measured by ``script``; rows from samples, one per cell."""

    name = "mock"
    question = "Does the runner do what it says?"
    version = 3
    parameters_type = MockParameters
    row_type = MockRow
    views = (View("value", "value_ns"), View("n", "n_count", priority=2))
    judges: tuple[Judge, ...] = ()

    def __init__(
        self,
        script: Script | None = None,
        cells: Sequence[str] = ("a", "b", "c"),
        needs: Mapping[str, Needs] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self.script = script or one_sample
        self.names = cells
        self.needs = needs or {}
        self.weights = weights or {}

    def cells(self, parameters: MockParameters) -> list[Cell]:
        return [Cell({"cell": n}, self.needs.get(n, Needs()), self.weights.get(n, 1.0)) for n in self.names]

    def measure(self, parameters: MockParameters, cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        yield from self.script(cell, bench)

    def summarise(self, parameters: MockParameters, samples: Sequence[Samples], seed: int) -> list[Row]:
        rows: list[Row] = []
        for name in self.names:
            values = [value for item in samples if item.key == {"cell": name} for value in item.values["value_ns"]]
            if values:
                rows.append(MockRow(cell=name, step=None, value_ns=statistics.median(values), n_count=len(values)))
        return rows


def one_sample(cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
    """What a well-behaved cell does."""
    yield samples_of(cell, bench, 100 + bench.block)


def fails(error: native.HelperError, names: str, from_block: int = 0) -> Script:
    """These cells fail from a block on, the others are measured."""

    def script(cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        if str(cell.key["cell"]) in names and bench.block >= from_block:
            raise error
        yield from one_sample(cell, bench)

    return script


def samples_of(cell: Cell, bench: Bench, *values: int) -> Samples:
    """The samples of one launch."""
    return Samples(cell.key, bench.block, {"value_ns": list(values)})


@dataclass
class Recorder:
    """A sink that remembers every event."""

    name: str = "recorder"
    events: list[Event] = field(default_factory=list)
    closed: int = 0

    def handle(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        self.closed += 1

    def of(self, *kinds: type) -> list[Event]:
        """The events of these types, in order."""
        return [event for event in self.events if isinstance(event, kinds)]

    @property
    def starts(self) -> list[tuple[int, str]]:
        """(block, cell) in the order of measurement."""
        return [(event.block, event.cell.name) for event in self.events if isinstance(event, CellStarted)]

    @property
    def rows(self) -> dict[tuple[Scalar, ...], Mapping[str, Scalar]]:
        """The last state of each row."""
        return {event.key: event.values for event in self.events if isinstance(event, RowMeasured)}

    @property
    def warnings(self) -> list[str]:
        return [str(event) for event in self.events if isinstance(event, Warned)]

    @property
    def finished(self) -> RunFinished:
        last = self.events[-1]
        assert isinstance(last, RunFinished)
        return last


@dataclass
class BrokenSink:
    """A sink on a full disk: from the first event of ``kinds`` on every write fails."""

    kinds: tuple[type, ...] = (RunStarted,)
    name: str = "broken"
    refused: int = 0
    closed: int = 0

    def handle(self, event: Event) -> None:
        if isinstance(event, self.kinds):
            self.refused += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        self.closed += 1


def go(
    experiment: MockExperiment,
    *sinks: Sink,
    repeats: int = 1,
    seed: int = 1,
    timeout_s: float | None = None,
    noise: str | None = None,
) -> tuple[ExitCode, Recorder]:
    """One run, recorded, on a machine that is as quiet as ``noise`` says; further sinks come before the recorder."""
    recorder = Recorder()
    tee = Tee([*sinks, recorder])
    with mock.patch.object(machine, "noise_reason", lambda *_: noise):
        code = Run(experiment, MockParameters(), Plan(repeats, seed, timeout_s), tee).go({"fact": 1})
    tee.close()
    return code, recorder


def confirmed(rows: Sequence[Mapping[str, Scalar]], models: Sequence[fits.Fit]) -> Verdict:
    """A judge that counts what it was given."""
    evidence = f"{len(rows)} rows" + (f", {len(models)} models" if models else "")
    return Verdict("M1", "there are rows", "at least one", "CONFIRMED" if rows else "REFUTED", evidence)


def undecided(_: Sequence[Mapping[str, Scalar]], __: Sequence[fits.Fit]) -> Verdict:
    """A judge that was not given what it needs."""
    return Verdict("M2", "there are elephants", "at least one", NOT_MEASURED, "needs --elephants")
