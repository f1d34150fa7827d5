"""Bars cut into parts as an image; parts differ in lightness and hatching, so that it can be read in grey."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from c10k_probe.charts.axes import Axis
from c10k_probe.charts.image_legend import Legend
from c10k_probe.charts.stacks import StackDrawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS: Final = ("#9ecae1", "#ffffb3", "#fdc692", "#74c476", "#e4e0f2", "#6baed6", "#f4936a")
_HATCHES: Final = ("", "///", "...", "\\\\\\", "xxx", "---", "|||", "+++", "ooo", "**", "OO")
_WIDTH_INCHES: Final = 8.0
_BAR_INCHES: Final = 0.4
_WORDS_INCHES: Final = 2.2
_TICKS: Final = 8
_ROOM_FOR_TOTAL: Final = 1.14  # of the longest bar


def size_inches(drawing: StackDrawing) -> tuple[float, float]:
    """Width and height of the picture."""
    return _WIDTH_INCHES, _WORDS_INCHES + _BAR_INCHES * len(drawing.bars) + Legend.of(drawing.names).extra_inches


def axis_of(drawing: StackDrawing) -> Axis:
    """The axis of sizes."""
    return drawing.axis(_TICKS)


def draw_stack(axes: Axes, drawing: StackDrawing) -> None:
    """A bar below the other, each with its whole at its end."""
    places = list(range(len(drawing.bars)))
    starts = [0.0] * len(places)
    handles = []
    for index in range(len(drawing.names)):
        sizes = [bar.sizes[index] for bar in drawing.bars]
        handles.append(
            axes.barh(
                places,
                sizes,
                left=starts,
                height=0.7,
                color=_COLOURS[index % len(_COLOURS)],
                hatch=_HATCHES[index % len(_HATCHES)],
                edgecolor="#444444",
                linewidth=0.6,
                zorder=3,
            )
        )
        starts = [start + size for start, size in zip(starts, sizes, strict=True)]
    for place, bar, end in zip(places, drawing.bars, starts, strict=True):
        axes.text(end, place, f" {bar.total_text}", va="center", fontsize=8)
    axes.set_yticks(places, [bar.name for bar in drawing.bars])
    axes.set_ylim(len(places) - 0.4, -0.6)
    axes.set_xlim(0, max(starts, default=0.0) * _ROOM_FOR_TOTAL or 1.0)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    Legend.of(drawing.names).write(axes, handles, handlelength=1.5)
