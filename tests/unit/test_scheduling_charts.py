"""The charts of scheduling: they draw what was asked for, and name columns and cells that there are."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from c10k_probe.experiments._scheduling_charts import charts_of
from c10k_probe.experiments._scheduling_design import MEASURES, SchedulingParameters
from c10k_probe.experiments.scheduling import EXPERIMENT

from c10k_probe.experiment import Chart, columns
from c10k_probe.parameters import build_parameters

NAMES = {item.name for item in columns(EXPERIMENT.row_type)}
CHARTS = {
    "switch": ("switch", "ring", "working-set"),
    "loss": ("lost",),
    "slice": ("slices", "near-tick", "waits", "shares"),
    "runnable": ("runnable",),
}
ASKED = (
    {},
    {"token": "futex", "tasks": "4,8"},
    {"token": "eventfd,pipe", "cpus": "2", "working_set": "64KiB,1MiB"},
    {"kind": "process", "policy": "batch", "contenders": "3,5"},
)


def rows_drawn(chart: Chart, asked: SchedulingParameters) -> list[Mapping[str, str | int]]:
    """The cells whose rows a chart takes."""
    return [
        cell.key
        for cell in EXPERIMENT.cells(asked)
        if all(cell.key[column] == value for column, value in chart.where if column in cell.key)
    ]


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("given", ASKED)
def test_every_chart_has_something_to_draw(given: Mapping[str, str], quick: bool) -> None:
    asked = build_parameters(SchedulingParameters, given, quick=quick)
    found = EXPERIMENT.charts_of(asked)
    assert [chart.name for chart in found] == [name for measure in MEASURES for name in CHARTS.get(measure, ())]
    for chart in found:
        assert isinstance(chart, Chart)
        assert {chart.x, chart.y, chart.low, chart.high, *chart.series, *dict(chart.where)} - {""} <= NAMES
        taken = rows_drawn(chart, asked)
        lines = {tuple(key[name] for name in chart.series) for key in taken}
        points = {(*(key[name] for name in chart.series), key.get(chart.x, index)) for index, key in enumerate(taken)}
        assert len(points) == len(taken) > 0, chart.name  # no two rows at one place
        if chart.name not in ("switch", "lost"):
            assert len(taken) > len(lines), chart.name  # lines, not points


@pytest.mark.parametrize("measure", MEASURES)
def test_what_was_not_asked_for_has_no_chart(measure: str) -> None:
    assert tuple(chart.name for chart in charts_of(SchedulingParameters(measure=(measure,)))) == CHARTS.get(measure, ())
