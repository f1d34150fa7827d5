"""Raw samples of a run as rows, for a chart of a figure over time or the like.

Every launch counts, as a repetition. Where no two launches have a place across in common, as moments never are the
same, each launch's values are put together by equal stretches, so that its repetitions meet.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from c10k_probe.charts.rows import REPETITION
from c10k_probe.experiment import OFF, TRACED_BY, Chart
from c10k_probe.results import StoredRun, Value

Key = tuple[tuple[str, Value], ...]
Points = Sequence[tuple[float, float]]


def from_samples(run: StoredRun, chart: Chart) -> StoredRun:
    """The run with a row for each sample that has the chart's values, instead of its own. They have its rows' grades:
    what is void there is so here.
    """
    kinds = dict(run.facts["columns"])
    keys = {TRACED_BY, *(name for item in run.samples for name in item.get("key", {}))}
    columns = [[name, kinds.get(name, "str")] for name in sorted(keys)] + [[chart.x, "int"], [chart.y, "int"]]
    rows = tuple(
        row for key, launches in _by_key(run.samples, chart).items() for row in _rows(run, chart, key, launches)
    )
    return dataclasses.replace(run, rows=rows, facts={**run.facts, "columns": columns})


def _by_key(samples: Iterable[Mapping[str, Any]], chart: Chart) -> dict[Key, dict[int, Points]]:
    """The points of each launch, by what was measured and then by block."""
    found: dict[Key, dict[int, Points]] = {}
    for item in samples:
        values = item.get("values", {})
        points = list(zip(values.get(chart.x, ()), values.get(chart.y, ()), strict=False))
        if points:
            key = {TRACED_BY: OFF, **item["key"]}  # an untraced launch has no such key
            found.setdefault(tuple(sorted(key.items())), {})[int(item.get("block", 0))] = points
    return found


def _rows(run: StoredRun, chart: Chart, key: Key, launches: Mapping[int, Points]) -> Iterator[dict[str, Value]]:
    grade = _grade(run.rows, dict(key))
    for block, points in _met(launches).items():
        for x, y in points:
            yield {**dict(key), REPETITION: block, chart.x: x, chart.y: y, "grade": grade}


def _grade(rows: Iterable[Mapping[str, Value]], key: Mapping[str, Value]) -> Value:
    """The grade of the row that these samples made; ok where there is none."""
    own = (row for row in rows if all(str(row[name]) == str(value) for name, value in key.items() if name in row))
    return next((row.get("grade") for row in own), "ok")


def _met(launches: Mapping[int, Points]) -> Mapping[int, Points]:
    """Launches whose places across meet: as they are when some do or there is one only, else the means of stretches."""
    places = [{x for x, _ in points} for points in launches.values()]
    if len(places) < 2 or len(set().union(*places)) < sum(map(len, places)):
        return launches
    width = max(max(x for x, _ in points) / len(points) for points in launches.values())
    return {block: _by_stretch(points, width) for block, points in launches.items()} if width > 0 else launches


def _by_stretch(points: Points, width: float) -> Points:
    """The mean of the values of each stretch of this width, at its middle; one without values is left out."""
    found: dict[int, list[float]] = {}
    for x, y in points:
        found.setdefault(math.floor(x / width), []).append(y)
    return [((number + 0.5) * width, statistics.fmean(values)) for number, values in sorted(found.items())]
