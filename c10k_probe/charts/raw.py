"""Raw samples of a run as rows, for a chart of a figure over time or the like."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from c10k_probe.experiment import OFF, TRACED_BY, Chart
from c10k_probe.results import StoredRun, Value


def from_samples(run: StoredRun, chart: Chart) -> StoredRun:
    """The run with a row for each sample of the first block that has the chart's values, instead of its own."""
    kinds = dict(run.facts["columns"])
    keys = {TRACED_BY, *(name for item in run.samples for name in item.get("key", {}))}
    columns = [[name, kinds.get(name, "str")] for name in sorted(keys)] + [[chart.x, "int"], [chart.y, "int"]]
    rows = tuple(row for item in run.samples if item.get("block") == 0 for row in _rows(item, chart))
    return dataclasses.replace(run, rows=rows, facts={**run.facts, "columns": columns})


def _rows(item: Mapping[str, Any], chart: Chart) -> Iterator[dict[str, Value]]:
    values = item.get("values", {})
    for x, y in zip(values.get(chart.x, ()), values.get(chart.y, ()), strict=False):
        yield {TRACED_BY: OFF, **item["key"], chart.x: x, chart.y: y}  # an untraced launch has no such key
