"""What tests of charts draw: a stored run made of rows, with charts of lines, of names on an axis, and of winners."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from c10k_probe.charts.lines import Drawing
from c10k_probe.experiment import AnyChart, Chart, WinnerMap
from c10k_probe.results import StoredRun

COLUMNS = (
    ("model", "str"),
    ("placement", "str"),
    ("open_count", "int"),
    ("active_count", "int"),
    ("block", "int"),
    ("echo_p50_ns", "float"),
    ("echo_p50_lo_ns", "float"),
    ("echo_p50_hi_ns", "float"),
    ("ramp_s", "float"),
    ("grade", "str"),
)
KEYS = ("model", "placement", "open_count", "active_count", "block")
CHART = Chart(
    "echo", "Echo", "open_count", "echo_p50_ns", "echo_p50_lo_ns", "echo_p50_hi_ns", series=("model",), log_x=True
)
MAP = WinnerMap(
    "map",
    "Who answers first",
    "open_count",
    "active_count",
    "echo_p50_ns",
    "echo_p50_lo_ns",
    "echo_p50_hi_ns",
    "model",
    log_x=True,
    log_y=True,
)
NAMES = dataclasses.replace(CHART, name="names", x="model", series=(), log_x=False)


def row(model: str = "epoll", open_count: int | None = 10, y: float | None = 1000.0, **more: Any) -> dict[str, Any]:
    ends = {"echo_p50_lo_ns": y and y * 0.9, "echo_p50_hi_ns": y and y * 1.1}
    plain = {"placement": "one", "active_count": 1, "block": 0, "ramp_s": 2.0, "grade": "ok"}
    return {"model": model, "open_count": open_count, "echo_p50_ns": y, **ends, **plain, **more}


def stored(rows: Sequence[Mapping[str, Any]], *charts: AnyChart, **facts: Any) -> StoredRun:
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


def place(x: int, y: int, **values: float | None) -> list[dict[str, Any]]:
    """Rows of one place of the map: contestant -> value, with an interval of 10 % on either side."""
    return [row(model, x, value, active_count=y) for model, value in values.items()]


# epoll wins three cells, poll one, one is too close, select is alone in one; 3 places of the grid of 9 have no rows.
CONTEST = [
    *place(10, 1, epoll=2000.0, poll=1000.0, select=1500.0),
    *place(100, 1, epoll=1000.0, poll=2500.0, select=9000.0),
    *place(1000, 1, epoll=1000.0, poll=12_000.0),
    *place(100, 10, epoll=1050.0, poll=1000.0, select=5000.0),
    *place(1000, 10, epoll=1000.0, poll=1_500_000.0),
    *place(1000, 100, select=1000.0),
]
