"""What tests of screens draw: the start of any experiment's run, and rows as wide as they get."""

from __future__ import annotations

import pytest

from c10k_probe.events import RowMeasured, RunStarted
from c10k_probe.experiment import TRACED_BY, AnyExperiment, Cell, Scalar, columns
from c10k_probe.parameters import build_parameters
from c10k_probe.registry import find_experiments

PACKAGED = find_experiments()
every_experiment = pytest.mark.parametrize("experiment", PACKAGED.values(), ids=PACKAGED.keys())
# By the unit of a column: what an unlucky user may see, each about as wide as it gets.
WIDE = {
    "_ns": 123_456.7,
    "_per_s": 123_456.7,
    "_bytes_per_connection": 123_456.7,
    "_bytes_per_descriptor": 123_456.7,
    "_per_event": 12.34,
    "_per_request": 12.34,
    "_per_connection": 12.34,
    "_per_creation": 12.34,
    "_exponent": 0.123,
    "_index": 0.123,
    "_bytes": 123_456_789_012,
    "_s": 123.4,
    "_count": 1_000_000,
    "_ratio": 123.4,
    "_pct": 99.9,
}


def started(experiment: AnyExperiment) -> RunStarted:
    cells = experiment.cells(build_parameters(experiment.parameters_type, {}, quick=False))
    return RunStarted(
        run_id="abc123",
        experiment=experiment.name,
        question=experiment.question,
        experiment_version=experiment.version,
        parameters={},
        columns=columns(experiment.row_type),
        views=experiment.views,
        cells_count=len(cells),
        blocks_count=20,
        seed=2**31 - 1,
    )


def rows_of(experiment: AnyExperiment, cell: Cell, number: int, grade: str, *, final: bool = True) -> list[RowMeasured]:
    """A wide row of one cell, and where there are traced rows one of those."""
    values = values_of(experiment, cell, number, grade)
    arms = [(values, False)]
    if any(view.traced for view in experiment.views):
        arms.append(({**values, TRACED_BY: "bcc"}, True))
    names = [item.name for item in columns(experiment.row_type) if item.key]
    return [RowMeasured(tuple(row[name] for name in names), row, final, is_traced) for row, is_traced in arms]


def values_of(experiment: AnyExperiment, cell: Cell, number: int, grade: str) -> dict[str, Scalar]:
    """A row of one cell with wide numbers in every column."""
    row: dict[str, Scalar] = {}
    for item in columns(experiment.row_type):
        suffix = max((s for s in WIDE if item.name.endswith(s)), key=len, default="")
        value = WIDE.get(suffix)
        if item.key:
            row[item.name] = cell.key.get(
                item.name, number * 100_000 if item.ramp else "off" if item.kind == "str" else 0
            )
        elif item.kind == "str":
            row[item.name] = "some words"
        elif value is None:
            row[item.name] = None
        else:
            share = 0.85 if "_lo_" in item.name else 1.15 if "_hi_" in item.name else 1.0
            row[item.name] = round(value * share) if item.kind == "int" else value * share
    state = {"status": "ok", "reason": "", "grade": grade, "grade_reason": "" if grade == "ok" else "cycle: ±15 %"}
    return row | state
