"""A chart of raw samples: every launch's values, by the samples' keys, and of the rows their grades only."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from c10k_probe.charts.choice import draw
from c10k_probe.charts.lines import Drawing
from c10k_probe.exits import UserError
from c10k_probe.experiment import Chart
from c10k_probe.results import StoredRun

CHART = Chart("memory-over-time", "Memory", "at_ns", "pss_bytes", series=("server",), from_samples=True)
COLUMNS = [["server", "str"], ["throughput_per_s", "float"]]


def sample(server: str, block: int, values: dict[str, list[int]]) -> dict[str, Any]:
    return {"key": {"server": server}, "block": block, "values": values, "facts": {}}


def stored(*samples: dict[str, Any]) -> StoredRun:
    rows = ({"server": "node", "throughput_per_s": 1.0, "grade": "ok"},)
    return StoredRun(Path("run"), {"columns": COLUMNS, "charts": [vars(CHART)]}, rows, samples)


def points_of(run: StoredRun, chart: Chart = CHART) -> dict[str, list[tuple[float | str, float]]]:
    drawing = draw(run, chart)
    assert isinstance(drawing, Drawing)
    return {line.name: [(point.x, point.y) for point in line.points] for line in drawing.lines}


def test_lines_are_the_samples_as_they_are_where_there_is_one_launch() -> None:
    run = stored(
        sample("node", 0, {"at_ns": [100, 200], "pss_bytes": [4096, 8192]}),
        sample("nginx", 1, {"at_ns": [150], "pss_bytes": [2048]}),
        sample("epoll", 0, {}),
    )
    assert points_of(run) == {"node": [(100.0, 4096.0), (200.0, 8192.0)], "nginx": [(150.0, 2048.0)]}


def test_launches_at_other_moments_meet_in_stretches_of_time() -> None:
    """Every launch counts: in stretches of 15, the median of their means with what they span."""
    run = stored(
        sample("node", 0, {"at_ns": [10, 20, 30, 40], "pss_bytes": [10, 20, 30, 50]}),
        sample("node", 1, {"at_ns": [12, 25, 45], "pss_bytes": [30, 60, 90]}),
    )
    drawing = draw(run, CHART)
    assert isinstance(drawing, Drawing)
    (line,) = drawing.lines
    told = [(point.x, point.y, point.low, point.high) for point in line.points]
    assert told == [(7.5, 20, 10, 30), (22.5, 40, 20, 60), (37.5, 40, None, None), (52.5, 90, None, None)]
    assert any("repetitions" in note for note in drawing.notes)


def test_launches_at_the_same_places_are_repetitions() -> None:
    chart = dataclasses.replace(CHART, x="share_pct")
    samples = (sample("node", block, {"share_pct": [50, 99], "pss_bytes": [block, 10 * block]}) for block in (1, 2, 6))
    assert points_of(stored(*samples), chart) == {"node": [(50.0, 2.0), (99.0, 20.0)]}


def test_what_is_void_as_a_row_is_so_as_samples() -> None:
    shown, hidden = (sample(name, 0, {"at_ns": [100], "pss_bytes": [4096]}) for name in ("node", "epoll"))
    run = stored(shown, hidden)
    void = {"server": "epoll", "throughput_per_s": 9.0, "grade": "void"}
    run = dataclasses.replace(run, rows=(*run.rows, void))
    drawing = draw(run, CHART)
    assert isinstance(drawing, Drawing)
    assert len(drawing.lines) == 1
    assert drawing.notes == ("left out: 1 void",)


def test_on_and_off_say_of_what() -> None:
    rows = tuple({"keep_alive": way, "rate_pct": 50 * n, "cpu_pct": 1.0} for way in ("on", "off") for n in (1, 2))
    columns = [["keep_alive", "str"], ["rate_pct", "int"], ["cpu_pct", "float"]]
    chart = Chart("cpu", "CPU", "rate_pct", "cpu_pct", series=("keep_alive",))
    run = StoredRun(Path("run"), {"columns": columns, "charts": [vars(chart)]}, rows, ())
    assert set(points_of(run, chart)) == {"keep alive on", "keep alive off"}


def test_of_a_run_that_tells_tracing_apart_it_is_the_untraced_samples() -> None:
    """Samples of untraced launches have no such key, and are there to be drawn all the same."""
    traced = sample("node", 0, {"at_ns": [100, 200], "pss_bytes": [1, 2]})
    traced["key"]["traced_by"] = "bcc"
    untraced = sample("node", 0, {"at_ns": [100, 200], "pss_bytes": [4096, 8192]})
    for samples in ((traced, untraced), (untraced,)):
        run = stored(*samples)
        run = dataclasses.replace(run, facts={**run.facts, "keys": ["server", "traced_by"]})
        drawing = draw(run, CHART)
        assert isinstance(drawing, Drawing)
        assert [[point.y for point in line.points] for line in drawing.lines] == [[4096.0, 8192.0]]


def test_without_samples_there_is_nothing_to_draw() -> None:
    with pytest.raises(UserError, match="nothing to draw"):
        draw(stored(sample("node", 0, {})), CHART)
