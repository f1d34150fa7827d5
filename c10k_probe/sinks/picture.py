"""What is drawn while a run lasts: the bar, the readings, and as many of the newest rows as fit the screen's height.

The bar comes first and always has its line; below it nothing wraps, and what has no room is counted in words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.segment import Segment, Segments
from rich.table import Table
from rich.text import Text

from c10k_probe.events import RowMeasured, RunStarted
from c10k_probe.experiment import Scalar
from c10k_probe.sinks.sparks import Sparks
from c10k_probe.sinks.text import groups, has_values, is_told

_BAR: Final = 24
_NOTES: Final = 3
_SPARK_SHARE: Final = 3  # of the height at the most, one in so many
_MOST_SPARKS: Final = 7  # whose they are, and six series
_LEAST_TABLE: Final = 5  # its edges, header, rule and one row
_SPARE: Final = 1  # the line the cursor is on

TableOf = Callable[[str, Sequence[RowMeasured], str], Table]  # group, rows, title


@dataclass(frozen=True)
class Bar:
    """How far it is: share of the work, what is measured now, how much time is left."""

    share: float
    now: str
    left: str


class Picture:
    """Rows by how lately they changed, and the drawing of them. Tables are kept until a row or the room changes."""

    def __init__(self, console: Console, table_of: TableOf) -> None:
        self._console = console
        self._table_of = table_of
        self._rows: dict[tuple[Scalar, ...], RowMeasured] = {}
        self._changed: dict[tuple[Scalar, ...], int] = {}
        self._version = 0
        self._kept: tuple[tuple[int, int, int], list[RenderableType]] | None = None
        self.sparks = Sparks()

    def put(self, row: RowMeasured) -> None:
        """A row is new or was measured further."""
        self._version += 1
        self._rows[row.key] = row
        self._changed[row.key] = self._version

    def draw(self, start: RunStarted, bar: Bar, notes: Sequence[Text], *, is_over: bool) -> Group:
        """All of it. is_over: the launch whose readings are known has ended."""
        width, height = self._console.size
        last = [_one_line(note) for note in notes[-_NOTES:]]
        blocks = self._console.encoding.startswith("utf")
        most = min(_MOST_SPARKS, height // _SPARK_SHARE)
        lines = self.sparks.lines(width, most, is_over=is_over, blocks=blocks)
        room = height - 1 - len(lines) - len(last) - _SPARE
        return Group(self._bar(bar), *lines, *self._tables(start, (self._version, width, room)), *last)

    def _bar(self, bar: Bar) -> Table:
        """One line. When it is too long, what is measured now is cut."""
        width = self._console.width
        texts = [Text(f"{bar.share:4.0%}"), Text(bar.now), Text(bar.left)]
        widths = [min(_BAR, width // 4), *(text.cell_len for text in texts)]
        widths[2] = max(0, min(widths[2], width - widths[0] - widths[1] - widths[3] - len(widths) + 1))
        texts[1].truncate(widths[2], overflow="ellipsis")
        line = Table.grid(padding=(0, 1), pad_edge=False)
        for size in widths:
            line.add_column(width=size, no_wrap=True)
        line.add_row(ProgressBar(100, bar.share * 100, width=widths[0]), *texts)
        return line

    def _tables(self, start: RunStarted, state: tuple[int, int, int]) -> list[RenderableType]:
        """The tables that fit, drawn once for each state: (version, width, room)."""
        if self._kept is None or self._kept[0] != state:
            self._kept = state, self._fitting(start, state[2])
        return self._kept[1]

    def _fitting(self, start: RunStarted, room: int) -> list[RenderableType]:
        by_group = self._by_group(start)
        made: list[RenderableType] = []
        shown: list[RowMeasured] = []
        room -= 1  # for what is said below the tables
        for index, (group, rows) in enumerate(by_group.items()):
            title = group if len(by_group) > 1 else ""
            lines, told = self._fitted(group, rows, title, room // (len(by_group) - index))
            if not lines and not made:  # better one table than none
                lines, told = self._fitted(group, rows, title, room)
            room -= len(lines)
            shown += told
            made += [Segments([segment for line in lines for segment in (*line, Segment.line())])] if lines else []
        below = _below(shown, sum(map(len, by_group.values())) - len(shown))
        return [*made, *([below] if below is not None else [])]

    def _fitted(
        self, group: str, rows: Sequence[RowMeasured], title: str, room: int
    ) -> tuple[list[list[Segment]], list[RowMeasured]]:
        """The lines of a table of those rows that changed last, as many as have room; and these rows."""
        count = min(len(rows), room - _LEAST_TABLE + 1)
        while count > 0:
            newest = sorted(rows, key=lambda row: self._changed[row.key])[-count:]
            chosen = [row for row in rows if row in newest]
            lines = self._console.render_lines(self._table_of(group, chosen, title), pad=False)
            if len(lines) <= room:
                return lines, chosen
            count = min(count - 1, max(1, count * room // len(lines)))  # a row may take several lines
        return [], []

    def _by_group(self, start: RunStarted) -> Mapping[str, list[RowMeasured]]:
        """Each row in the first group of views that has something to tell of it."""
        views = {group: [view for view in start.views if view.group == group] for group in groups(start)}
        first = next(iter(views))
        found: dict[str, list[RowMeasured]] = {}
        for row in self._rows.values():
            tells = (name for name, own in views.items() if has_values(own, [row]))
            group = first if is_told(views[first], row) else next(tells, first)
            found.setdefault(group, []).append(row)
        return {name: found[name] for name in views if name in found}


def launches_mark(row: RowMeasured) -> str:
    """`` 2/5`` after a row of two of five launches; nothing after one that has all, or is not made of launches."""
    if row.final or row.launches is None or row.launches[0] >= row.launches[1]:
        return ""
    return f" {row.launches[0]}/{row.launches[1]}"


def _below(shown: Sequence[RowMeasured], hidden_count: int) -> Text | None:
    """What the marks mean, and how many rows had no room."""
    mark = next((mark for row in shown if (mark := launches_mark(row))), "")
    said = [f"{mark.strip()}: launches so far" if mark else "", f"{hidden_count} more" if hidden_count else ""]
    text = "; ".join(part for part in said if part)
    return _one_line(Text(text, style="dim")) if text else None


def _one_line(text: Text) -> Text:
    cut = text.copy()
    cut.no_wrap, cut.overflow = True, "ellipsis"
    return cut
