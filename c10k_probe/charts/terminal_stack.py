"""Bars cut into parts as text for a terminal: a letter for each part, so that no colour is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from c10k_probe.charts.stacks import Bar, StackDrawing
from c10k_probe.charts.words import flow, wrap

GLYPHS: Final = "#=+o.%*x~@&$"
_MOST_NAME_SHARE: Final = 3  # of the width, for names


def text_stack(drawing: StackDrawing, width: int) -> str:
    """The whole chart, at most ``width`` columns wide; a row for each bar."""
    glyphs = [GLYPHS[index % len(GLYPHS)] for index in range(len(drawing.names))]
    legend = flow([f"{glyph} {name}" for glyph, name in zip(glyphs, drawing.names, strict=True)], width)
    most = width // _MOST_NAME_SHARE
    names = [bar.name if len(bar.name) <= most else f"{bar.name[: most - 1]}…" for bar in drawing.bars]
    margin, right = max(map(len, names)), max(len(bar.total_text) for bar in drawing.bars)
    room = max(10, width - margin - right - 3)
    longest = max((sum(bar.sizes) for bar in drawing.bars), default=0.0) or 1.0
    rows = [
        f"{name:>{margin}} │{_cells(bar, room / longest, glyphs)} {bar.total_text}"
        for name, bar in zip(names, drawing.bars, strict=True)
    ]
    foot = [*wrap("; ".join(drawing.notes), width), *wrap(drawing.source, width)]
    return "\n".join([*wrap(drawing.chart.title, width), *legend, "", *rows, "", *foot]) + "\n"


def _cells(bar: Bar, cells_a_unit: float, glyphs: Sequence[str]) -> str:
    """Each part from where the one before it ends, so that rounding does not add up."""
    text, reached = "", 0.0
    for size, glyph in zip(bar.sizes, glyphs, strict=True):
        reached += size * cells_a_unit
        text += glyph * (round(reached) - len(text))
    return text
