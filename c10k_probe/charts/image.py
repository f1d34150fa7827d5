"""A chart as an image file, PNG or SVG by the file's ending, made to be read in grey: lines differ in marker, stroke
and lightness. Text stays text in an SVG, and the same run gives the same bytes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import textwrap
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from c10k_probe.charts import image_stack
from c10k_probe.charts.axes import LINEAR_DECADES, Axis, stem
from c10k_probe.charts.choice import AnyDrawing
from c10k_probe.charts.image_legend import Legend
from c10k_probe.charts.image_map import draw_map, size_inches
from c10k_probe.charts.lines import Drawing, Line
from c10k_probe.charts.rows import Point
from c10k_probe.charts.stacks import StackDrawing
from c10k_probe.charts.winners import SCORE_NOTE, MapDrawing
from c10k_probe.exits import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENDINGS: Final = ("png", "svg")
_SIZE_INCHES: Final = (8.0, 5.0)
_DOTS_AN_INCH: Final = 150
_ROW_INCHES: Final = 0.24  # of a chart with names on its axis
_BAND_FROM: Final = 25  # points of a line; error bars of more would hide each other
_BEFORE_ZERO: Final = 0.1  # of the linear part of a logarithmic axis
_TITLE_COLUMNS: Final = 70
_TEXT_COLUMNS: Final = 125  # of the small print
_STYLE: Final[dict[str, Any]] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 10,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "svg.fonttype": "none",
    "svg.hashsalt": "c10k-probe",
    "text.parse_math": False,  # a dollar sign in a name is no formula
}


class _Look(NamedTuple):
    """How a line is told from the others: lightness on paper without colour, mark and stroke."""

    colour: str
    marker: str
    stroke: Any


_COLOURS: Final = ("#111111", "#1f78b4", "#d9901a", "#8c2d19", "#4d9a57", "#7b5ea7", "#777777")
_MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h")
_STROKES: Final = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))


def check_target(name: str) -> Path:
    """The file to write. Raises ``UsageError`` for an ending that is no image's, and for a folder that is not there."""
    path = Path(name)
    if path.suffix.lower().removeprefix(".") not in ENDINGS:
        raise UsageError(f"--save: {name!r} does not end in .png or .svg; the ending chooses the format")
    if not path.parent.is_dir():
        raise UsageError(f"--save: {path.parent} is not a folder; make it first")
    if path.is_dir():
        raise UsageError(f"--save: {path} is a folder; name a file")
    return path


def save_chart(drawing: AnyDrawing, path: Path) -> None:
    """Write the image beside, then rename: an old file stays until the new one is whole. Raises ``UsageError``."""
    picture = image_bytes(drawing, path.suffix.lower().removeprefix("."))
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.write_bytes(picture)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise UsageError(f"--save: {path} cannot be written: {error.strerror}; name another file") from None


def image_bytes(drawing: AnyDrawing, ending: str) -> bytes:
    """The picture as the bytes of a PNG or SVG file."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells about caches and fonts
    import matplotlib.style
    from matplotlib.figure import Figure

    with warnings.catch_warnings(), matplotlib.style.context(["default", _STYLE]):
        warnings.filterwarnings("ignore", "Glyph .* missing")  # it is drawn as a box, and known as one
        figure = Figure(figsize=_size(drawing), dpi=_DOTS_AN_INCH)  # no pyplot: no windows, no global state
        axes = figure.add_subplot()
        if isinstance(drawing, MapDrawing):
            draw_map(axes, drawing)
        elif isinstance(drawing, StackDrawing):
            _set_axis(axes, "x", image_stack.axis_of(drawing))
            image_stack.draw_stack(axes, drawing)
        else:
            _draw_lines(axes, drawing)
        _write_words(figure, drawing)
        buffer = io.BytesIO()
        figure.savefig(buffer, format=ending, metadata={"Date": None} if ending == "svg" else {"Software": None})
    return buffer.getvalue()


def _draw_lines(axes: Axes, drawing: Drawing) -> None:
    looks = [_look(index) for index in range(len(drawing.lines))]
    if drawing.categories:
        _draw_dots(axes, drawing, looks)
    else:
        _draw_curves(axes, drawing, looks)
    _write_legend(axes, drawing, looks)


def _look(index: int) -> _Look:
    """The lists have lengths without common factor: a look returns late."""
    return _Look(_COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)], _STROKES[index % len(_STROKES)])


def _size(drawing: AnyDrawing) -> tuple[float, float]:
    if isinstance(drawing, MapDrawing):
        return size_inches(drawing)
    if isinstance(drawing, StackDrawing):
        return image_stack.size_inches(drawing)
    width, height = _SIZE_INCHES
    rows = len(drawing.categories) * (len(drawing.lines) + 1)
    extra = Legend.of(drawing.names).extra_inches if drawing.names else 0.0
    return width, (max(height, 2 + rows * _ROW_INCHES) if drawing.categories else height) + extra


# --- numeric x: values upward -----------------------------------------------------------------------------------------


def _draw_curves(axes: Axes, drawing: Drawing, looks: list[_Look]) -> None:
    x_axis, y_axis = drawing.x_axis(8), drawing.y_axis(9)
    _set_axis(axes, "x", x_axis)
    _set_axis(axes, "y", y_axis)
    for line, look in zip(drawing.lines, looks, strict=True):
        places = [float(point.x) for point in line.points]
        heights = [point.y for point in line.points]
        axes.plot(places, heights, color=look.colour, linestyle=look.stroke, linewidth=1.3, zorder=3)
        _draw_intervals(axes, line, look, y_axis)
        _draw_marks(axes, places, heights, line.points, look)


def _draw_intervals(axes: Axes, line: Line, look: _Look, axis: Axis) -> None:
    """Error bars, or a band where there are many points."""
    if len(line.points) < _BAND_FROM:
        _draw_bars(axes, [(float(point.x), point) for point in line.points], look, axis, across=False)
        return
    spans = [(float(point.x), *ends) for point in line.points if (ends := _ends(point, axis)) is not None]
    if spans:
        places, lows, highs = (list(part) for part in zip(*spans, strict=True))
        axes.fill_between(places, lows, highs, color=look.colour, alpha=0.18, linewidth=0, zorder=2)


# --- names: values to the right ---------------------------------------------------------------------------------------


def _draw_dots(axes: Axes, drawing: Drawing, looks: list[_Look]) -> None:
    """One row for each name, the lines' marks one below the other in it."""
    axis = drawing.y_axis(9)
    _set_axis(axes, "x", axis)
    step = 1 / (len(drawing.lines) + 1)
    for index, (line, look) in enumerate(zip(drawing.lines, looks, strict=True)):
        rows = [drawing.categories.index(str(point.x)) + step * (index + 1) - 0.5 for point in line.points]
        _draw_bars(axes, list(zip(rows, line.points, strict=True)), look, axis, across=True)
        _draw_marks(axes, [point.y for point in line.points], rows, line.points, look)
    axes.set_yticks(range(len(drawing.categories)), drawing.categories)
    axes.set_ylim(len(drawing.categories) - 0.5, -0.5)
    axes.set_ylabel(stem(drawing.chart.x))
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    for border in range(1, len(drawing.categories)):
        axes.axhline(border - 0.5, color="#bbbbbb", linewidth=0.6, zorder=1)


# --- parts ------------------------------------------------------------------------------------------------------------


def _draw_marks(axes: Axes, xs: list[float], ys: list[float], points: tuple[Point, ...], look: _Look) -> None:
    """A filled mark for each value, a hollow one for a shaky value."""
    for shaky in (False, True):
        chosen = [(x, y) for x, y, point in zip(xs, ys, points, strict=True) if point.shaky == shaky]
        if chosen:
            face = "white" if shaky else look.colour
            axes.plot(
                *(list(part) for part in zip(*chosen, strict=True)),
                linestyle="none",
                marker=look.marker,
                markersize=6,
                markerfacecolor=face,
                markeredgecolor=look.colour,
                zorder=4,
            )


def _ends(point: Point, axis: Axis) -> tuple[float, float] | None:
    """The interval's ends; one that a logarithmic axis cannot hold reaches the axis' end."""
    if point.low is None or point.high is None:
        return None
    return max(point.low, axis.low), min(point.high, axis.high)


def _draw_bars(axes: Axes, placed: list[tuple[float, Point]], look: _Look, axis: Axis, *, across: bool) -> None:
    """The interval of each point that has one; an estimate outside its interval has no bar on that side."""
    spans = [
        (place, point.y, max(0.0, point.y - ends[0]), max(0.0, ends[1] - point.y))
        for place, point in placed
        if (ends := _ends(point, axis)) is not None
    ]
    if not spans:
        return
    where, middles, below, above = (list(part) for part in zip(*spans, strict=True))
    style: dict[str, Any] = {"fmt": "none", "ecolor": look.colour, "elinewidth": 1.2, "capsize": 3, "zorder": 3}
    if across:
        axes.errorbar(middles, where, xerr=[below, above], **style)
    else:
        axes.errorbar(where, middles, yerr=[below, above], **style)


def _set_axis(axes: Axes, which: str, axis: Axis) -> None:
    places, labels = [tick.value for tick in axis.ticks], [tick.label for tick in axis.ticks]
    scale, parts = ("log", {}) if axis.log else ("linear", {})
    if axis.linear_to:
        scale, parts = "symlog", {"linthresh": axis.linear_to, "linscale": LINEAR_DECADES}
    if which == "x":
        axes.set_xscale(scale, **parts)
        axes.set_xlim(axis.low - _BEFORE_ZERO * axis.linear_to, axis.high)  # a mark at 0 is seen whole
        axes.set_xticks(places, labels)
        axes.set_xlabel(axis.title)
    else:
        axes.set_yscale(scale, **parts)
        axes.set_ylim(axis.low, axis.high)
        axes.set_yticks(places, labels)
        axes.set_ylabel(axis.title)
    axes.tick_params(axis="both", which="minor", length=0, labelleft=False, labelbottom=False)


def _write_legend(axes: Axes, drawing: Drawing, looks: list[_Look]) -> None:
    """The lines' names above the picture, where they hide nothing."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=look.colour, marker=look.marker, linestyle="none" if drawing.categories else look.stroke)
        for look, line in zip(looks, drawing.lines, strict=True)
        if line.name
    ]
    names = drawing.names
    if names:
        Legend.of(names).write(axes, handles, handlelength=1.5 if drawing.categories else 3.5)


def _write_words(figure: Figure, drawing: AnyDrawing) -> None:
    """The title and, at the bottom, notes and the source of the numbers."""
    figure.suptitle("\n".join(textwrap.wrap(drawing.chart.title, _TITLE_COLUMNS)), fontsize=12)
    small = [
        part for text in ("; ".join(_notes(drawing)), drawing.source) for part in textwrap.wrap(text, _TEXT_COLUMNS)
    ]
    figure.supxlabel("\n".join(small), fontsize=7, color="#444444")


def _notes(drawing: AnyDrawing) -> list[str]:
    """What a reader of an image must know."""
    if isinstance(drawing, MapDrawing):
        return [f"N of M: {SCORE_NOTE}", *drawing.remarks(with_leads=True), *drawing.notes]
    if isinstance(drawing, StackDrawing):
        return list(drawing.notes)
    return [f"{note} (hollow)" if note.endswith("shaky") else note for note in drawing.notes]
