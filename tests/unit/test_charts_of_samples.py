"""A chart of raw samples: the first block's values, by the samples' keys, and nothing of the rows."""

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


def test_lines_are_the_samples_of_the_first_block() -> None:
    run = stored(
        sample("node", 0, {"at_ns": [100, 200], "pss_bytes": [4096, 8192]}),
        sample("node", 1, {"at_ns": [100], "pss_bytes": [1]}),
        sample("nginx", 0, {"at_ns": [150], "pss_bytes": [2048]}),
        sample("epoll", 0, {}),
    )
    drawing = draw(run, CHART)
    assert isinstance(drawing, Drawing)
    points = {line.name: [(point.x, point.y) for point in line.points] for line in drawing.lines}
    assert points["node"] == [(100.0, 4096.0), (200.0, 8192.0)]
    assert sorted(map(len, points.values())) == [1, 2]


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
