"""Charts as experiments declare them and runs keep them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from charting import CHART, ROWS, stored
from mock_experiment import MockExperiment, go

from c10k_probe import units
from c10k_probe.charts.choice import choose, draw
from c10k_probe.charts.declared import charts_of
from c10k_probe.charts.lines import Line
from c10k_probe.exits import UserError
from c10k_probe.experiment import AnyChart, Chart, Experiment, Stack, WinnerMap, columns
from c10k_probe.registry import find_experiments
from c10k_probe.results import load, newest
from c10k_probe.sinks.folder import RunFolderSink


def test_a_run_keeps_its_charts_and_keys(tmp_path: Path) -> None:
    experiment = MockExperiment()
    chart = Chart("value", "Value", "cell", "value_ns", where=(("n_count", 1),))
    experiment.charts = (chart,)  # type: ignore[misc]
    sink = RunFolderSink(tmp_path, {})
    go(experiment, sink)
    assert sink.path is not None
    run = load(sink.path)
    assert charts_of(run) == (chart,)
    assert run.facts["keys"] == ["cell", "step"]
    assert choose(run, None).categories == tuple(str(item["cell"]) for item in run.rows)
    assert newest(tmp_path) == sink.path


def test_the_newest_run_is_the_last_by_its_stamp(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        newest(tmp_path / "missing")
    for name in ("20300101T000000Z-b-2", "20300102T000000Z-a-1", "reference-zzz", "20310101T000000Z-empty-1"):
        (tmp_path / name).mkdir()
        if "empty" not in name:
            (tmp_path / name / "run.json").write_text("{}")
    assert newest(tmp_path).name == "20300102T000000Z-a-1"


EXPERIMENTS = find_experiments()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_declared_charts_name_columns_of_their_rows(name: str) -> None:
    experiment: Experiment[Any] = EXPERIMENTS[name]
    known = {column.name: column for column in columns(experiment.row_type)}
    assert len({chart.name for chart in experiment.charts}) == len(experiment.charts)
    for chart in experiment.charts:
        if isinstance(chart, Chart) and chart.from_samples:  # what samples hold is declared nowhere
            assert {*chart.series, *(column for column, _ in chart.where)} <= known.keys()
            assert None not in (units.column_suffix(chart.x), units.column_suffix(chart.y))
            continue
        numbers, keys = columns_of(chart)
        places = chart.x if isinstance(chart, Stack) else (chart.x,)
        assert {*places, *numbers, *keys, *(column for column, _ in chart.where)} <= known.keys()
        assert all(known[column].kind != "str" for column in numbers)
        assert all(known[column].key for column in keys)
        assert re.fullmatch(r"[a-z0-9-]+", chart.name)
        assert len(chart.title) <= 78


def columns_of(chart: AnyChart) -> tuple[list[str], list[str]]:
    """Columns in which a chart needs numbers, and those that must be keys."""
    if isinstance(chart, Stack):
        assert len(chart.parts) == len(chart.names) == len({*chart.names})
        return [*chart.parts, *([chart.last] if chart.last else [])], list(chart.x)
    ends = [end for end in (chart.low, chart.high) if end]
    assert len(ends) != 1, "an interval has two ends"
    if isinstance(chart, WinnerMap):
        return [chart.x, chart.y, chart.value, *ends], [chart.contestant]
    return [chart.y, *ends], [*chart.series]


def test_reading_a_run_loads_neither_drawing_library() -> None:
    code = """
import sys
import c10k_probe.charts.choice, c10k_probe.charts.terminal, c10k_probe.charts.image, c10k_probe.cli.plot
print(*sorted({name.split(".")[0] for name in sys.modules}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & {"numpy", "matplotlib", "plotext", "rich"} == set()


def test_a_line_without_points_is_none() -> None:
    """Every line that is drawn has at least one point."""
    assert all(isinstance(line, Line) and line.points for line in draw(stored(ROWS), CHART).lines)
