"""A chart as text for a terminal: plotext draws the frame, lines and marks; no colour is needed to tell lines apart.

Everything is placed on whole character cells here, so that marks that fall together are known and put side by side.
All that is words (title, legend, units, notes) stands around the picture and is wrapped to the width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from c10k_probe.charts.axes import Axis, stem
from c10k_probe.charts.choice import AnyDrawing
from c10k_probe.charts.lines import Drawing, Line
from c10k_probe.charts.rows import Point
from c10k_probe.charts.stacks import StackDrawing
from c10k_probe.charts.terminal_map import text_map
from c10k_probe.charts.terminal_stack import text_stack
from c10k_probe.charts.winners import MapDrawing
from c10k_probe.charts.words import SMALLEST_WIDTH, flow, wrap

MARKERS: Final = "ox+*#@%&$abcdefghijklmnpqrstuvwyz"
_TRACE, _UPRIGHT, _FLAT = "·", "│", "─"
_FRAME: Final = 2  # cells that the frame takes across
_ROWS_BELOW: Final = 3  # the frame's two and the labels
_ROWS_A_TICK: Final = 3
_CELLS_A_LABEL: Final = 3
_FEW_LINES: Final = 4
_ROWS_OF_FEW, _ROWS_OF_MANY = 10, 19  # the least height; many lines need room to be told apart, also above the screen

Cell = tuple[int, int]  # column from the left, row from the bottom


@dataclass
class _Canvas:
    """What is drawn, on cells, and the words beside it."""

    columns: int
    rows: int
    x_ticks: dict[int, str]
    y_ticks: dict[int, str]
    up: str  # what the vertical axis is
    across: str
    traces: list[list[Cell]] = field(default_factory=list)
    bars: dict[Cell, str] = field(default_factory=dict)
    marks: dict[Cell, list[str]] = field(default_factory=dict)

    def mark(self, cell: Cell, marker: str) -> None:
        """Put a mark; its cell may hold others."""
        self.marks.setdefault(cell, []).append(marker)

    def spread(self) -> set[str]:
        """Put different marks of one cell side by side where there is room; else a digit says how many there are.

        Returns which of both, ``beside`` and ``digit``, were needed.
        """
        ways: set[str] = set()
        for cell, markers in list(self.marks.items()):
            different = list(dict.fromkeys(markers))
            if len(different) > 1:
                places = self._free_places(cell, len(different))
                ways.add("beside" if places else "digit")
                self.marks[cell] = [str(min(9, len(different)))]
                self.marks.update({place: [marker] for place, marker in zip(places, different, strict=False)})
        return ways

    def _free_places(self, cell: Cell, places_count: int) -> list[Cell]:
        """So many cells around one, when they and the next ones hold no mark; else none."""
        column, row = cell
        first = column - (places_count - 1) // 2
        around = {(first + step, row) for step in range(-1, places_count + 1)} - {cell}
        if first < 0 or first + places_count > self.columns or around & self.marks.keys():
            return []
        return [(first + step, row) for step in range(places_count)]

    def bar(self, cells: Iterator[Cell], glyph: str) -> None:
        """Put a bar below the marks."""
        self.bars.update(dict.fromkeys(cells, glyph))


def text_chart(drawing: AnyDrawing, width: int, height: int, *, colour: bool = False) -> str:
    """The whole chart, at most ``width`` columns wide (at least 40) and, where its content allows, ``height`` rows.

    Only a map has colours, and is readable without them.
    """
    width = max(width, SMALLEST_WIDTH)
    if isinstance(drawing, MapDrawing):
        return text_map(drawing, width, colour=colour)
    return text_stack(drawing, width) if isinstance(drawing, StackDrawing) else _lines(drawing, width, height)


def _lines(drawing: Drawing, width: int, height: int) -> str:
    head = [*wrap(drawing.chart.title, width), *_legend(drawing, width)]
    foot = wrap("; ".join(drawing.notes), width) + wrap(drawing.source, width)
    room = max(_ROWS_OF_FEW if len(drawing.lines) <= _FEW_LINES else _ROWS_OF_MANY, height - len(head) - len(foot) - 3)
    canvas = _dots(drawing, width) if drawing.categories else _curves(drawing, width, room)
    foot = wrap(_meeting_note(canvas.spread()), width) + foot
    return "\n".join([*head, canvas.up, *_picture(canvas, width), canvas.across.rjust(width - 1), *foot]) + "\n"


def _meeting_note(ways: set[str]) -> str:
    """How marks that meet are shown."""
    notes = {"beside": "marks side by side: values in one place", "digit": "a digit: so many marks in one place"}
    return "; ".join(note for way, note in notes.items() if way in ways)


def _legend(drawing: Drawing, width: int) -> list[str]:
    entries = [f"{_marker(index)} {line.name}" for index, line in enumerate(drawing.lines) if line.name]
    return flow(entries, width)


def _marker(index: int) -> str:
    return MARKERS[index % len(MARKERS)]


def _place(axis: Axis, value: float, cells: int) -> int:
    return round(axis.share(value) * (cells - 1))


def _span(point: Point) -> tuple[float, float] | None:
    return None if point.low is None or point.high is None else (point.low, point.high)


# --- numeric x: values upward -----------------------------------------------------------------------------------------


def _curves(drawing: Drawing, width: int, room: int) -> _Canvas:
    """Points over a numeric axis, joined in its order."""
    rows = room - _ROWS_BELOW
    y_axis = drawing.y_axis(room // _ROWS_A_TICK)
    columns = width - _FRAME - max((len(tick.label) for tick in y_axis.ticks), default=0)
    x_axis = _fitting(drawing.x_axis, columns)
    canvas = _Canvas(
        columns, rows, _places(x_axis, columns), _places(y_axis, rows), up=y_axis.title, across=x_axis.title
    )
    for index, line in enumerate(drawing.lines):
        _draw_curve(canvas, line, x_axis, y_axis, _marker(index))
    return canvas


def _draw_curve(canvas: _Canvas, line: Line, x_axis: Axis, y_axis: Axis, marker: str) -> None:
    trace: list[Cell] = []
    for point in line.points:
        assert isinstance(point.x, float)
        column = _place(x_axis, point.x, canvas.columns)
        trace.append((column, _place(y_axis, point.y, canvas.rows)))
        canvas.mark(trace[-1], marker)
        span = _span(point)
        if span is not None:
            low, high = (_place(y_axis, end, canvas.rows) for end in span)
            canvas.bar(((column, row) for row in range(low, high + 1)), _UPRIGHT)
    canvas.traces.append(trace)


def _fitting(axis_for: Callable[[int], Axis], columns: int) -> Axis:
    """The axis with as many ticks as have room for their labels side by side."""
    for most in range(columns // 5, 2, -1):
        axis = axis_for(most)
        if _labels_fit(axis, columns):
            return axis
    return axis_for(2)


def _labels_fit(axis: Axis, columns: int) -> bool:
    """Whether each label, centred on its tick, leaves a gap to the next one."""
    ends = [(_place(axis, tick.value, columns), len(tick.label) / 2) for tick in axis.ticks]
    return all(after - before >= (left + right) + _CELLS_A_LABEL for (before, left), (after, right) in pairwise(ends))


def _places(axis: Axis, cells: int) -> dict[int, str]:
    return {_place(axis, tick.value, cells): tick.label for tick in axis.ticks}


# --- names: values to the right ---------------------------------------------------------------------------------------


def _dots(drawing: Drawing, width: int) -> _Canvas:
    """A row for each name and line, from the top; an empty one between names when there are several lines."""
    gap = 1 if len(drawing.lines) > 1 else 0
    each = len(drawing.lines) + gap
    rows = each * len(drawing.categories) - gap
    tops = {name: rows - 1 - each * index for index, name in enumerate(drawing.categories)}
    most = width // 3
    names = {top: name if len(name) <= most else name[: most - 1] + "…" for name, top in tops.items()}
    columns = width - _FRAME - max(map(len, names.values()))
    axis = _fitting(drawing.y_axis, columns)
    canvas = _Canvas(columns, rows, _places(axis, columns), names, up=stem(drawing.chart.x), across=axis.title)
    for index, line in enumerate(drawing.lines):
        for point in line.points:
            row = tops[str(point.x)] - index
            span = _span(point)
            if span is not None:
                low, high = (_place(axis, end, columns) for end in span)
                canvas.bar(((column, row) for column in range(low, high + 1)), _FLAT)
            canvas.mark((_place(axis, point.y, columns), row), _marker(index))
    return canvas


# --- plotext ----------------------------------------------------------------------------------------------------------


def _picture(canvas: _Canvas, width: int) -> list[str]:
    """The canvas with its frame and tick labels, as rows of text."""
    import plotext

    plotext.terminal.limit(False, False)  # the size is given, also where there is no terminal
    figure = plotext.figure
    figure.clear()
    figure.plot_size(width, canvas.rows + _ROWS_BELOW)
    _set_ruler(figure.ruler("x"), canvas.columns, canvas.x_ticks)
    _set_ruler(figure.ruler("y"), canvas.rows, canvas.y_ticks)
    for trace in canvas.traces:
        figure.draw(figure.signal(*zip(*trace, strict=True), marker=_TRACE).lines(True))
    for glyph, cells in _by_glyph(canvas):
        figure.draw(figure.signal(*zip(*cells, strict=True), marker=glyph))
    return [row.rstrip() for row in figure.build().string(colorless=True).splitlines() if row.strip()]


def _set_ruler(ruler: Any, cells: int, ticks: dict[int, str]) -> None:
    ruler.lim(0, max(1, cells - 1))
    ruler.ticks(list(ticks), labels=list(ticks.values()))


def _by_glyph(canvas: _Canvas) -> Iterator[tuple[str, list[Cell]]]:
    """Bars, then marks over them."""
    glyphs: dict[str, list[Cell]] = {}
    for cell, glyph in canvas.bars.items():
        glyphs.setdefault(glyph, []).append(cell)
    for cell, markers in canvas.marks.items():
        glyphs.setdefault(markers[0], []).append(cell)
    yield from glyphs.items()
