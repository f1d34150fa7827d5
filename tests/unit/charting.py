"""What tests of charts draw: a stored run made of rows, with a chart of lines and one of names on an axis."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from c10k_probe.charts.lines import Drawing
from c10k_probe.experiment import Chart
from c10k_probe.results import StoredRun

COLUMNS = (
    ("model", "str"),
    ("placement", "str"),
    ("open_count", "int"),
    ("block", "int"),
    ("echo_p50_ns", "float"),
    ("echo_p50_lo_ns", "float"),
    ("echo_p50_hi_ns", "float"),
    ("ramp_s", "float"),
    ("grade", "str"),
)
KEYS = ("model", "placement", "open_count", "block")
CHART = Chart(
    "echo", "Echo", "open_count", "echo_p50_ns", "echo_p50_lo_ns", "echo_p50_hi_ns", series=("model",), log_x=True
)
NAMES = dataclasses.replace(CHART, name="names", x="model", series=(), log_x=False)


def row(model: str = "epoll", open_count: int | None = 10, y: float | None = 1000.0, **more: Any) -> dict[str, Any]:
    ends = {"echo_p50_lo_ns": y and y * 0.9, "echo_p50_hi_ns": y and y * 1.1}
    plain = {"placement": "one", "block": 0, "ramp_s": 2.0, "grade": "ok"}
    return {"model": model, "open_count": open_count, "echo_p50_ns": y, **ends, **plain, **more}


def stored(rows: Sequence[Mapping[str, Any]], *charts: Chart, **facts: Any) -> StoredRun:
    known = {
        "run_id": "abc123",
        "experiment": "mock",
        "experiment_version": 3,
        "started": "2030-01-02T03:04:05+00:00",
        "state": "finished",
        "machine": {"kernel_release": "6.1.0-test"},
        "columns": [list(item) for item in COLUMNS],
        "keys": list(KEYS),
        "charts": [dataclasses.asdict(chart) for chart in charts or (CHART,)],
    }
    return StoredRun(Path("results/x"), known | facts, tuple(rows), ())


def points_of(drawing: Drawing) -> dict[str, list[tuple[float | str, float]]]:
    return {line.name: [(point.x, point.y) for point in line.points] for line in drawing.lines}


ROWS = [row(model, 10**power, 1000.0 * power) for model in ("epoll", "thread") for power in range(1, 5)]
