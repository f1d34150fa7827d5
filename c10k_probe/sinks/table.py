"""The live table: Rich on stderr, drawn between cells and at most four times a second.

During a timed region it is drawn for readings only, which come once a second at most and from an observer that is part
of what is measured; see ``bench``. A run without an observer is never drawn then.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from c10k_probe.events import (
    BlockFinished,
    CellProgressed,
    CellStarted,
    Event,
    FindingMade,
    FitMade,
    ReadingsTaken,
    RowMeasured,
    RunFinished,
    RunStarted,
    VerdictReached,
    Warned,
)
from c10k_probe.experiment import NOT_MEASURED, Finding, Scalar, Verdict, View
from c10k_probe.sinks.picture import Bar, Picture, launches_mark
from c10k_probe.sinks.progress import Clock
from c10k_probe.sinks.text import (
    IntervalStyle,
    case_text,
    expected_text,
    finding_name,
    finding_value,
    fit_text,
    groups,
    has_values,
    is_told,
    last_of_each,
    rows_text,
    telling_keys,
    undecided_text,
    view_text,
)
from c10k_probe.units import column_suffix, format_column

_REDRAW_S = 0.25
MANY_KEYS = 4
_WIDTHS = re.compile(r"interval is ±[0-9]+ %")
_GRADE_STYLES = {"ok": "", "shaky": "yellow", "void": "red"}
_VERDICT_STYLES = {"CONFIRMED": "green", "REFUTED": "red", "PARTLY": "yellow"}


class LiveTable:
    """Draws the rows as they come and, at the end, every table in full with notes below it."""

    name = "terminal"

    def __init__(self, console: Console | None = None, *, live: bool = True) -> None:
        self._console = console or Console(stderr=True)
        self._clock = Clock()
        self._live = Live(console=self._console, auto_refresh=False, transient=True) if live else None
        self._cell_drawn_s = -math.inf
        self._picture = Picture(self._console, self._table)
        self._launch: tuple[str, int] | None = None
        self._rows: dict[tuple[Scalar, ...], RowMeasured] = {}
        self._notes: list[Text] = []
        self._findings: list[Finding] = []
        self._undecided: list[Verdict] = []
        self._start: RunStarted | None = None
        self._share = 0.0
        self._now = ""

    def handle(self, event: Event) -> None:
        """Take the event into the picture; draw when a drawing is due."""
        if isinstance(event, RunStarted):
            self._begin(event)
        elif isinstance(event, RowMeasured):
            self._rows[event.key] = event
            self._picture.put(event)
        elif isinstance(event, ReadingsTaken):
            self._picture.sparks.take(event)
        elif isinstance(event, (CellStarted, CellProgressed)):
            note = event.note if isinstance(event, CellProgressed) else ""
            self._launch = (event.cell.name, event.block) if isinstance(event, CellStarted) else self._launch
            self._now, self._share = f"{event.cell.label} {note}".strip(), event.done_share
        elif isinstance(event, BlockFinished):
            self._share = event.done_share
        elif isinstance(event, Warned):
            self._notes.append(Text.assemble(("warning ", "yellow"), str(event)))
        elif isinstance(event, FitMade):
            self._notes.append(Text(fit_text(event.fit)))
        elif isinstance(event, FindingMade):
            self._findings.append(event.finding)
        elif isinstance(event, VerdictReached) and event.verdict.verdict == NOT_MEASURED:
            self._undecided.append(event.verdict)
        elif isinstance(event, VerdictReached):
            self._notes.append(_verdict_text(event))
        elif isinstance(event, RunFinished):
            self._end(event)
            return
        if self._live and self._live.is_started and self._is_due(event):
            self._live.update(self._drawing(), refresh=True)

    def close(self) -> None:
        """Give the terminal back."""
        if self._live:
            self._live.stop()

    def _begin(self, event: RunStarted) -> None:
        self._start = event
        self._clock.start(event.expected_s)
        title = Text.assemble((event.experiment, "bold"), "  ", event.question)
        self._console.print(title)
        if text := expected_text(event):
            self._console.print(Text(text, style="dim"))
        if self._live:
            self._live.start()
            self._console.show_cursor(True)  # a killed run must not leave a terminal without a cursor

    def _end(self, event: RunFinished) -> None:
        self.close()
        assert self._start is not None
        first, *others = groups(self._start)
        rows = list(self._rows.values())
        main = [view for view in self._start.views if view.group == first]
        told = [row for row in rows if is_told(main, row)]
        if told or not others:
            self._console.print(self._table(first, told, title=first))
        for group in others:
            views = [view for view in self._start.views if view.group == group]
            if not has_values(views, rows):
                continue
            shown = [row for row in last_of_each(self._start, rows) if has_values(views, [row])]
            self._console.print(self._table(group, shown, title=group))
        for name in dict.fromkeys(map(finding_name, self._findings)):
            self._console.print(_finding_table(name, [item for item in self._findings if finding_name(item) == name]))
        for note in (*self._grade_notes(), *self._notes):
            self._console.print(note)
        if self._undecided:
            self._console.print(Text(undecided_text(self._undecided), style="dim"))
        what = f"{event.summary}; {rows_text(event.rows_count)} in {event.elapsed_s:.1f} s, seed {self._start.seed}"
        self._console.print(Text(what, style="green" if event.code == 0 else "yellow"))

    # --- pictures -------------------------------------------------------------------------------------------------

    def _is_due(self, event: Event) -> bool:
        """Four times a second; before a launch also when something else was drawn just before it, which may be long."""
        is_due, now_s = self._clock.due(_REDRAW_S), self._clock.elapsed_s()
        if isinstance(event, CellStarted) and now_s - self._cell_drawn_s >= _REDRAW_S:
            self._cell_drawn_s, is_due = now_s, True
        return is_due or isinstance(event, RunStarted)

    def _drawing(self) -> RenderableType:
        assert self._start is not None
        bar = Bar(self._share, self._now, self._clock.left_text(self._share))
        is_over = self._picture.sparks.launch != self._launch
        return self._picture.draw(self._start, bar, self._notes, is_over=is_over)

    def _table(self, group: str, rows: Sequence[RowMeasured], title: str = "") -> Table:
        """The table of one group, without the least important columns when the terminal is narrow."""
        assert self._start is not None
        keys = telling_keys(self._start, rows)
        views = [view for view in self._start.views if view.group == group and (not rows or has_values([view], rows))]
        for way in _ever_narrower(views, len(keys)):
            table = _build_table(keys, way, rows, title)
            if self._width(table) <= self._console.width:
                break
        return table

    def _width(self, table: Table) -> int:
        """How wide a table would like to be; ``measure`` alone would cut it to the terminal's width."""
        return self._console.measure(table, options=self._console.options.update(width=10_000)).maximum

    def _grade_notes(self) -> list[Text]:
        """Each reason for a status or grade once, with the rows that it holds for."""
        reasons: dict[tuple[str, str], int] = {}
        for row in self._rows.values():
            for level, reason in (
                (row.values["status"], row.values["reason"]),
                (row.values["grade"], row.values["grade_reason"]),
            ):
                for part in str(reason).split("; ") if level != "ok" else ():
                    told = _WIDTHS.sub("interval is wide", part)  # how wide stands in the table
                    reasons[str(level), told] = reasons.get((str(level), told), 0) + 1
        return [
            Text.assemble((f"{level} ", _GRADE_STYLES.get(level, "red")), f"{count} × " if count > 1 else "", reason)
            for (level, reason), count in reasons.items()
            if reason and reason != "not measured"
        ]


_Way = tuple[IntervalStyle, Sequence[View], bool]  # how intervals are shown, which views, whether keys are folded


def _ever_narrower(views: Sequence[View], keys_count: int) -> Iterator[_Way]:
    """Ways to show a table: intervals by their ends, then in percent, then fewer columns, then no intervals.

    Many keys are folded into one column before anything is left out, few only when nothing else helps.
    """
    priorities = sorted({view.priority for view in views}, reverse=True)
    fold_early = keys_count > MANY_KEYS
    yield "ends", views, False
    yield "percent", views, False
    if fold_early:
        yield "percent", views, True
    for priority in priorities[:-1]:
        views = [view for view in views if view.priority < priority]
        yield "percent", views, fold_early
    yield "none", views, fold_early
    yield "none", views, True


def _build_table(keys: Sequence[str], way: _Way, rows: Sequence[RowMeasured], title: str) -> Table:
    style, views, are_folded = way
    table = Table(
        box=box.SIMPLE_HEAD,
        title=title or None,
        title_justify="left",
        title_style="bold",
        pad_edge=False,
        collapse_padding=True,
    )
    if are_folded:
        table.add_column("", overflow="fold")
    else:
        for name in keys:
            is_text = _is_text(name, rows)
            table.add_column(_key_header(name), justify="left" if is_text else "right", no_wrap=True, overflow="fold")
    for view in views:
        is_text = _is_text(view.column, rows)
        table.add_column(view.header, justify="left" if is_text else "right", no_wrap=not is_text, overflow="fold")
    for row in rows:
        told = [case_text(keys, row)] if are_folded else [_key_text(name, row) for name in keys]
        texts = [view_text(view, row, style) for view in views]
        launches = launches_mark(row)
        texts[-1:] = [f"{text}{_mark(row)}{launches}" for text in texts[-1:]]
        look = f"{_GRADE_STYLES[str(row.values['grade'])]} {'dim' if launches else ''}".strip()
        table.add_row(*map(Text, (*told, *texts)), style=look)  # never as markup
    return table


def _finding_table(name: str, findings: Sequence[Finding]) -> Table:
    """What no single row shows, one kind of number a table."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for finding in findings:
        table.add_row(Text(finding.subject), Text(finding_value(finding)), Text(finding.note))
    return table


def _mark(row: RowMeasured) -> str:
    """Readable without colour: ``~`` after a shaky row, ``!`` after a void one or one that is not ok."""
    if row.values["status"] != "ok" or row.values["grade"] == "void":
        return " !"
    return " ~" if row.values["grade"] == "shaky" else ""


def _key_header(name: str) -> str:
    """One word a line: keys are many, and their values short."""
    return name.removeprefix("asked_").removesuffix(column_suffix(name) or "").replace("_", "\n")


def _key_text(name: str, row: RowMeasured) -> str:
    return format_column(name, row.values[name])


def _is_text(name: str, rows: Sequence[RowMeasured]) -> bool:
    return any(isinstance(row.values.get(name), str) for row in rows)


def _verdict_text(event: VerdictReached) -> Text:
    verdict = event.verdict
    style = _VERDICT_STYLES.get(verdict.verdict, "yellow")
    return Text.assemble(
        (f"{verdict.claim} ", "bold"), (verdict.verdict, style), f"  {verdict.restatement}: {verdict.evidence}"
    )
