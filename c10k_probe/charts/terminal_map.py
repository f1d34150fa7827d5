"""A map of who wins where as text for a terminal: a letter in each cell, with a colour behind it where there are some.

Cells are of one size, a row of text for each value of y. A wide cell also says how far ahead the winner is, or which
contestants are too close to call.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

from c10k_probe.charts.axes import Tick, labelled
from c10k_probe.charts.winners import MISSING, SCORE_NOTE, MapCell, MapDrawing, Outcome, lead_text
from c10k_probe.charts.words import flow, wrap

_WIDE: Final = 7  # a cell with all that it can say, and the blank before it
_NARROW: Final = (3, 2)  # cells of letter and grade, with a blank before it or without
# Backgrounds under black letters, by their number in the palette of 256 colours; neighbours differ in lightness too.
_COLOURS: Final = (117, 214, 78, 228, 176, 203, 69, 255, 44, 180, 107, 139)
_CLOSE_PAINT: Final = "\x1b[97;48;5;240m"
_PLAIN: Final = "\x1b[0m"


def text_map(drawing: MapDrawing, width: int, *, colour: bool = False) -> str:
    """The whole map, at most ``width`` columns wide; as high as its content."""
    up, rows = labelled(drawing.chart.y, drawing.ys)
    across, columns = labelled(drawing.chart.x, drawing.xs)
    margin = max(len(tick.label) for tick in rows) + 1
    cell_width, most = _layout(columns, width - margin - 1)
    grid = _Grid(drawing, rows, margin, cell_width, _paints(drawing) if colour else {})
    panels = [grid.panel(columns[start : start + most]) for start in range(0, len(columns), most)]
    notes = "; ".join([*drawing.remarks(with_leads=grid.cell_width >= _WIDE), *drawing.notes])
    head = [*wrap(drawing.chart.title, width), *_legend(drawing, width, grid.paints), up]
    foot = [" " * (margin + 1) + across, *wrap(notes, width), *wrap(drawing.source, width)]
    return "\n".join([*head, *(line for panel in panels for line in panel), *foot]) + "\n"


# --- the grid ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Grid:
    """What all panels of a map share; ``margin`` is for the labels of y."""

    drawing: MapDrawing
    rows: Sequence[Tick]
    margin: int
    cell_width: int
    paints: Mapping[str, str]

    def panel(self, columns: Sequence[Tick]) -> list[str]:
        """Some columns of the map, from the highest y down, with the labels of x below."""
        frame = " " * self.margin + "└" + "─" * (self.cell_width * len(columns))
        labels = " " * (self.margin + 1) + _column_labels(columns, self.cell_width)
        return [*(self._row(row, columns) for row in reversed(self.rows)), frame, labels]

    def _row(self, row: Tick, columns: Sequence[Tick]) -> str:
        cells = [self.drawing.cells.get((column.value, row.value)) for column in columns]
        painted = [
            _paint(_cell_text(self.drawing, cell, self.cell_width), _paint_of(self.drawing, cell, self.paints))
            for cell in cells
        ]
        return f"{row.label:>{self.margin - 1}} │{''.join(painted)}".rstrip()


def _layout(columns: Sequence[Tick], room: int) -> tuple[int, int]:
    """The widest cells that stand side by side, and how many do: all, or as many as panels one below the other need."""
    labels = max(len(tick.label) for tick in columns) + 1
    widths = (max(labels, _WIDE), _WIDE, *_NARROW)
    sizes = (math.ceil(len(columns) / panels_count) for panels_count in count(1))
    return next((width, size) for size in sizes for width in widths if width * size <= room)


def _cell_text(drawing: MapDrawing, cell: MapCell | None, width: int) -> str:
    """``E 1.3`` won, ``=EP`` too close, ``e`` alone, ``.`` not measured; ``~`` after it for shaky values."""
    if cell is None:
        text = MISSING
    elif cell.outcome is Outcome.WON:
        text = drawing.letters[cell.names[0]] + ("~" if cell.shaky else " ")
        text += lead_text(cell.lead_ratio) if width >= _WIDE else ""
    else:
        shaky = "~" if cell.shaky else ""
        text = drawing.symbol(cell)
        if cell.outcome is Outcome.CLOSE and width >= _WIDE:
            room = width - 2 - len(text + shaky)
            text += _short_list(drawing.candidates(cell), room)
        text += shaky
    return (" " * (width > _NARROW[-1]) + text).ljust(width)


def _short_list(letters: str, room: int) -> str:
    """Letters, or those that have room and a ``+`` for the others."""
    return letters if len(letters) <= room else letters[: room - 1] + "+"


def _column_labels(columns: Sequence[Tick], cell_width: int) -> str:
    """The labels below the first sign of their cells, as many as have room side by side."""
    indent = int(cell_width > _NARROW[-1])
    text = ""
    for index, column in enumerate(columns):
        start = index * cell_width + indent
        if not text or start > len(text):
            text = text.ljust(start) + column.label
    return text


# --- words and colours ------------------------------------------------------------------------------------------------


def _legend(drawing: MapDrawing, width: int, paints: Mapping[str, str]) -> list[str]:
    """Letter, name, cells won of those measured; then the other signs that are there."""
    lines = flow([contestant.score for contestant in drawing.contestants], width)
    for letter, paint in paints.items():
        lines = [re.sub(rf"(?<!\S){letter}(?= = )", _paint(letter, paint), line) for line in lines]
    return [*lines, *flow([f"({SCORE_NOTE})", *drawing.signs().values()], width)]


def _paints(drawing: MapDrawing) -> dict[str, str]:
    """Letter -> what sets its colours; colours return when there are more contestants."""
    return {
        contestant.letter: f"\x1b[38;5;16;48;5;{_COLOURS[index % len(_COLOURS)]}m"
        for index, contestant in enumerate(drawing.contestants)
    }


def _paint_of(drawing: MapDrawing, cell: MapCell | None, paints: Mapping[str, str]) -> str:
    """A win has its contestant's colour, a tie grey; what nobody won has none."""
    if not paints or cell is None or cell.outcome is Outcome.ALONE:
        return ""
    return paints[drawing.symbol(cell)] if cell.outcome is Outcome.WON else _CLOSE_PAINT


def _paint(text: str, paint: str) -> str:
    return f"{paint}{text}{_PLAIN}" if paint else text
