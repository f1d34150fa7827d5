"""A map of who wins where as an image: a rectangle for each cell, to the scale of the axes, with the winner's letter.

Contestants differ in lightness and hatching, so that the map can be read in grey.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from c10k_probe.charts.axes import labelled
from c10k_probe.charts.image_legend import Legend
from c10k_probe.charts.winners import MISSING, MapCell, MapDrawing, Outcome, lead_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH_INCHES: Final = 8.0
_MAP_WIDTH_POINTS: Final = 470.0  # about what the labels beside it leave
_MAP_INCHES: Final = 2.8  # the least height of the map itself
_ROW_INCHES: Final = 0.2
_WORDS_INCHES: Final = 2.3  # title, legend, labels below and small print
_CELL_POINTS: Final = (3.5, 8.0)  # smallest and largest letters in cells
_LETTER_WIDTH: Final = 0.75  # of its height, with what stands around it
_LABEL_SHARE: Final = {"x": 0.085, "y": 0.045}  # of an axis, that a label takes
_EDGE: Final = "#888888"


class _Look(NamedTuple):
    """How a contestant's cells are told from others."""

    colour: str
    hatch: str


# All light, so that dark letters stand on them.
_COLOURS: Final = ("#ffffb3", "#9ecae1", "#fdc692", "#6baed6", "#c7e9c0", "#f4936a", "#e4e0f2", "#74c476")
_HATCHES: Final = ("", "///", "...", "\\\\\\", "xxx", "---", "|||", "+++", "ooo")
_SIGN_LOOKS: Final[dict[Outcome | None, _Look]] = {
    Outcome.CLOSE: _Look("#808080", ""),
    Outcome.ALONE: _Look("#ffffff", ""),
    None: _Look("none", ""),
}


@dataclass(frozen=True)
class Scale:
    """The measured values of one axis, ascending, and the borders of the cells around them (one more)."""

    values: Sequence[float]
    edges: Sequence[float]
    log: bool

    @classmethod
    def around(cls, values: Sequence[float], *, log: bool) -> Scale:
        """Borders midway between neighbours, and as far from the outer values; one value has borders to be seen."""
        if len(values) == 1:
            (value,) = values
            return cls(values, (value / 2, value * 2) if log else (value - 0.5, value + 0.5), log)
        inner = [_middle(*pair, log=log) for pair in pairwise(values)]
        outer = [
            end * end / border if log else 2 * end - border
            for end, border in ((values[0], inner[0]), (values[-1], inner[-1]))
        ]
        return cls(values, (outer[0], *inner, outer[1]), log)

    @property
    def spans(self) -> list[tuple[float, tuple[float, float]]]:
        """Each value with its cell's borders."""
        return list(zip(self.values, pairwise(self.edges), strict=True))

    def middle(self, span: tuple[float, float]) -> float:
        """Where the eye sees the middle of a span."""
        return _middle(*span, log=self.log)

    def share(self, low: float, high: float) -> float:
        """How much of the axis a span takes."""
        low, high, first, last = (
            math.log(part) if self.log else part for part in (low, high, self.edges[0], self.edges[-1])
        )
        return (high - low) / (last - first)


def _middle(low: float, high: float, *, log: bool) -> float:
    return math.sqrt(low) * math.sqrt(high) if log else (low + high) / 2


def size_inches(drawing: MapDrawing) -> tuple[float, float]:
    """Width and height of the picture: as high as its rows and its legend need."""
    return _WIDTH_INCHES, _map_inches(drawing) + _WORDS_INCHES + Legend.of(_legend_names(drawing)).extra_inches


def _map_inches(drawing: MapDrawing) -> float:
    return max(_MAP_INCHES, len(drawing.ys) * _ROW_INCHES)


def draw_map(axes: Axes, drawing: MapDrawing) -> None:
    """Cells, axes with a label for each measured value where there is room, and the legend."""
    looks = {contestant.name: look_of(index) for index, contestant in enumerate(drawing.contestants)}
    across = Scale.around(drawing.xs, log=drawing.chart.log_x)
    up = Scale.around(drawing.ys, log=drawing.chart.log_y)
    _set_axis(axes, "x", drawing.chart.x, across)
    _set_axis(axes, "y", drawing.chart.y, up)
    axes.grid(False)
    for x, x_span in across.spans:
        for y, y_span in up.spans:
            cell = drawing.cells.get((x, y))
            if cell is not None:
                _fill(axes, x_span, y_span, _cell_look(cell, looks))
            size = (across.share(*x_span) * _MAP_WIDTH_POINTS, up.share(*y_span) * _map_inches(drawing) * 72)
            _write_cell(axes, drawing, cell, (across.middle(x_span), up.middle(y_span)), size)
    _write_legend(axes, drawing, looks)


# --- axes -------------------------------------------------------------------------------------------------------------


def _set_axis(axes: Axes, which: str, column: str, scale: Scale) -> None:
    title, ticks = labelled(column, scale.values, log=scale.log)
    shown = [ticks[0]]
    for tick in ticks[1:]:
        if scale.share(shown[-1].value, tick.value) >= _LABEL_SHARE[which]:
            shown.append(tick)
    settings: dict[str, Any] = {
        f"{which}scale": "log" if scale.log else "linear",
        f"{which}lim": (scale.edges[0], scale.edges[-1]),
        f"{which}label": title,
    }
    axes.set(**settings)
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_ticks([tick.value for tick in shown], labels=[tick.label for tick in shown])
    axis.set_ticks([], minor=True)


# --- cells ------------------------------------------------------------------------------------------------------------


def look_of(index: int) -> _Look:
    """The lists have lengths without common factor: a look returns late."""
    return _Look(_COLOURS[index % len(_COLOURS)], _HATCHES[index % len(_HATCHES)])


def _cell_look(cell: MapCell, looks: dict[str, _Look]) -> _Look:
    if cell.outcome is Outcome.WON:
        return looks[cell.names[0]]
    return _SIGN_LOOKS[cell.outcome]


def _fill(axes: Axes, x_span: tuple[float, float], y_span: tuple[float, float], look: _Look) -> None:
    from matplotlib.patches import Rectangle

    (left, right), (bottom, top) = x_span, y_span
    patch = Rectangle((left, bottom), right - left, top - bottom, **_patch_style(look), zorder=2)
    axes.add_patch(patch)


def _patch_style(look: _Look) -> dict[str, Any]:
    edge = "none" if look.colour == "none" else _EDGE
    return {"facecolor": look.colour, "hatch": look.hatch, "edgecolor": edge, "linewidth": 0.5}


def _write_cell(
    axes: Axes, drawing: MapDrawing, cell: MapCell | None, middle: tuple[float, float], size: tuple[float, float]
) -> None:
    """The cell's sign, as large as its size (in points) allows, and beside it what there is room for."""
    width, height = size
    smallest, largest = _CELL_POINTS
    points = min(largest, width / 1.5, height * 0.6)
    if points < smallest:
        return
    sign, more = _cell_words(drawing, cell)
    text = f"{sign} {more}" if more and width >= points * _LETTER_WIDTH * (len(sign) + 1 + len(more)) else sign
    box = None if cell is None else {"boxstyle": "round,pad=0.12", "facecolor": "white", "alpha": 0.8, "linewidth": 0}
    axes.text(*middle, text, size=points, ha="center", va="center", bbox=box, zorder=4)


def _cell_words(drawing: MapDrawing, cell: MapCell | None) -> tuple[str, str]:
    """The sign of a cell, and what may stand beside it: the lead, or the candidates."""
    if cell is None:
        return MISSING, ""
    more = "/".join(drawing.candidates(cell)) if cell.outcome is Outcome.CLOSE else lead_text(cell.lead_ratio)
    return drawing.symbol(cell) + ("~" if cell.shaky else ""), more


# --- the legend -------------------------------------------------------------------------------------------------------


def _legend_names(drawing: MapDrawing) -> list[str]:
    """The contestants, then the signs that are nobody's."""
    return [*(contestant.score for contestant in drawing.contestants), *drawing.signs().values()]


def _write_legend(axes: Axes, drawing: MapDrawing, looks: dict[str, _Look]) -> None:
    from matplotlib.patches import Patch

    shown = [looks[contestant.name] for contestant in drawing.contestants]
    shown += [_SIGN_LOOKS[outcome] for outcome in drawing.signs()]
    handles = [Patch(**_patch_style(look)) for look in shown]
    Legend.of(_legend_names(drawing)).write(axes, handles, handlelength=2.5)
