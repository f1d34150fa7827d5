"""Which chart of a run is drawn, and the drawing of it, whatever its kind."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from c10k_probe.charts.declared import charts_of
from c10k_probe.charts.lines import Drawing, draw_lines
from c10k_probe.charts.raw import from_samples
from c10k_probe.charts.stacks import StackDrawing, draw_stack
from c10k_probe.charts.winners import MapDrawing, draw_map
from c10k_probe.exits import UsageError, UserError
from c10k_probe.experiment import AnyChart, Stack, WinnerMap
from c10k_probe.results import StoredRun

AnyDrawing = Drawing | MapDrawing | StackDrawing


def draw(run: StoredRun, chart: AnyChart) -> AnyDrawing:
    """What one chart shows of a run. Raises ``UserError`` when nothing is left to draw, and says why."""
    if isinstance(chart, WinnerMap):
        return draw_map(run, chart)
    if isinstance(chart, Stack):
        return draw_stack(run, chart)
    return draw_lines(from_samples(run, chart) if chart.from_samples else run, chart)


def choose(run: StoredRun, name: str | None) -> AnyDrawing:
    """The chart of that name; without a name the first one that has something to draw. Raises ``UserError``."""
    charts = charts_of(run)
    names = [chart.name for chart in charts]
    if name is None:
        return _first_drawable(run, charts)
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"--chart: {name!r} is not known; {hint}this run has {', '.join(names)}")
    return draw(run, charts[names.index(name)])


def shown_at_end(run: StoredRun) -> Iterator[AnyDrawing]:
    """The drawings that a run shows unasked when it has ended; a chart with nothing to draw is passed over."""
    for chart in charts_of(run):
        if chart.at_end:
            try:
                yield draw(run, chart)
            except UserError:
                continue


def _first_drawable(run: StoredRun, charts: tuple[AnyChart, ...]) -> AnyDrawing:
    """The first chart along whose axis something varies; when none does, the first that has anything to draw."""
    refusals: list[UserError] = []
    still: list[AnyDrawing] = []
    for chart in charts:
        try:
            drawing = draw(run, chart)
        except UserError as error:
            refusals.append(error)
            continue
        if not isinstance(drawing, Drawing) or drawing.varies:
            return drawing
        still.append(drawing)
    if still:
        return still[0]
    raise refusals[0]
