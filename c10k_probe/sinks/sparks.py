"""Readings as small lines of blocks: one line a series, in the scale from 0 to its highest, newest to the right.

A column of a line stands for a stretch of time, of which it shows the mean; one without a reading stays empty.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

from rich.text import Text

from c10k_probe.events import ReadingsTaken
from c10k_probe.sinks.text import reading_name
from c10k_probe.units import format_column

_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_WITHOUT_BLOCKS: Final = "_.-:=+*#"  # for a terminal that has none
_SHORTEST_S: Final = 0.2  # a column; readings come up to ten times a second
_STEPS: Final = (1, 2, 5)
_LEAST_WIDTH: Final = 8
_MOST_WIDTH: Final = 48
_WIDTHS: Final = (0, 9, 14)  # of name, newest and highest at the least: a line must not jump when a number grows

Points = Sequence[tuple[float, float]]  # (at_s, value)


class Sparks:
    """The readings of one launch: the newest one that had any."""

    def __init__(self) -> None:
        self.launch: tuple[str, int] | None = None
        self._label = ""
        self._series: dict[str, list[tuple[float, float]]] = {}

    def take(self, event: ReadingsTaken) -> None:
        """Add to what is known of this launch; those of another one begin anew."""
        launch = (event.cell.name, event.block)
        if launch != self.launch:
            self.launch, self._label, self._series = launch, event.cell.label, {}
        for reading in event.readings:
            for name, value in reading.values.items():
                self._series.setdefault(name, []).append((reading.at_s, value))

    def lines(self, width: int, most: int, *, is_over: bool, blocks: bool = True) -> list[Text]:
        """At most ``most`` lines that fit the width: whose readings these are and how long it was read, then series.

        is_over: the launch whose readings these are has ended, and they are told in another tone.
        """
        if not self._series or most < 2:
            return []
        shown = list(self._series.items())[: most - 1]
        texts = [(reading_name(name), *_said(name, points)) for name, points in shown]
        widths = [max(least, *(len(text[column]) for text in texts)) for column, least in enumerate(_WIDTHS)]
        room = max(_LEAST_WIDTH, min(_MOST_WIDTH, width - sum(widths) - 6))
        seconds = max(points[-1][0] for _, points in shown)
        column_s = column_of(seconds, room, seconds / max(len(points) for _, points in shown))
        end = "over" if is_over else "so far"
        head = f"read of {self._label}, {format_column('elapsed_s', seconds)} {end}"
        made = [Text(head, style="dim", no_wrap=True, overflow="ellipsis")]
        for (name, now, most_text), (_, points) in zip(texts, shown, strict=True):
            spark = line_of(points, column_s, room, _BLOCKS if blocks else _WITHOUT_BLOCKS)
            told = f"{name:{widths[0]}}  {spark:{room}}  {now:>{widths[1]}}  {most_text:>{widths[2]}}"
            made.append(Text(told.rstrip(), style="dim" if is_over else "", no_wrap=True, overflow="ellipsis"))
        return made


def _said(name: str, points: Points) -> tuple[str, str]:
    """The newest value, and the highest."""
    return format_column(name, points[-1][1]), f"most {format_column(name, max(value for _, value in points))}"


def column_of(seconds: float, width: int, between_s: float = 0.0) -> float:
    """The seconds that one column stands for: 0.2, 0.5, 1, 2, 5, 10 and so on; so that all of it fits, and no less than
    what lies between two readings.
    """
    return next(step for step in _steps() if step >= between_s and math.floor(seconds / step) < width)


def _steps() -> Iterator[float]:
    power = -1
    while True:
        yield from (step for factor in _STEPS if (step := factor * 10.0**power) >= _SHORTEST_S)
        power += 1


def line_of(points: Points, column_s: float, width: int, blocks: str = _BLOCKS) -> str:
    """The means of columns as blocks: the lowest for 0, the highest for the highest mean."""
    columns: list[list[float]] = [[] for _ in range(width)]
    for at_s, value in points:
        columns[min(width - 1, math.floor(at_s / column_s))].append(value)
    means = [math.fsum(values) / len(values) if values else None for values in columns]
    top = max((mean for mean in means if mean is not None), default=0.0)
    steps = len(blocks) - 1
    marks = (" " if mean is None else blocks[round(steps * max(0.0, mean) / top) if top > 0 else 0] for mean in means)
    return "".join(marks).rstrip()
