"""Plain lines on stderr: for pipes, logs and terminals without cursor control. One line per row, with units."""

from __future__ import annotations

import sys
from typing import TextIO

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
from c10k_probe.experiment import NOT_MEASURED, Verdict
from c10k_probe.sinks.progress import Clock
from c10k_probe.sinks.text import (
    case_text,
    expected_text,
    finding_text,
    fit_text,
    groups,
    last_of_each,
    readings_text,
    rows_text,
    undecided_text,
    view_text,
)


class PlainLines:
    """Says what is measured, how far it is, and each row once it is final."""

    name = "standard error"

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._clock = Clock()
        self._start: RunStarted | None = None
        self._share = 0.0
        self._rows: list[RowMeasured] = []
        self._closing: list[str] = []  # what is told after the last table
        self._undecided: list[Verdict] = []

    def handle(self, event: Event) -> None:
        """Print the event, if it has something to say."""
        line = self._line(event)
        if line:
            self._stream.write(line + "\n")
            self._stream.flush()

    def close(self) -> None:
        """Nothing to give back."""

    def _line(self, event: Event) -> str:
        match event:
            case RunStarted():
                self._start = event
                self._clock.start(event.expected_s)
                title = f"{event.experiment}: {event.question} (seed {event.seed}, run {event.run_id})"
                return "\n".join(filter(None, (title, expected_text(event))))
            case CellStarted(done_share=share):
                self._share = share
            case BlockFinished() | CellProgressed() | ReadingsTaken():
                return self._progress(event)
            case RowMeasured(final=True):
                return self._row(event)
            case Warned():
                return f"warning: {event}"
            case FitMade(fit):
                self._closing.append(fit_text(fit))
            case FindingMade(finding):
                self._closing.append(finding_text(finding))
            case VerdictReached(verdict) if verdict.verdict == NOT_MEASURED:
                self._undecided.append(verdict)
            case VerdictReached(verdict):
                said = f"{verdict.restatement}: {verdict.evidence}"
                self._closing.append(f"{verdict.claim} {verdict.verdict}: {said}")
            case RunFinished():
                return self._end(event)
        return ""

    def _progress(self, event: BlockFinished | CellProgressed | ReadingsTaken) -> str:
        """At most one line of progress a second, and none about the end, which says itself."""
        self._share = self._share if isinstance(event, ReadingsTaken) else event.done_share
        if not self._clock.due(1.0) or self._share >= 1:
            return ""
        note = ""
        if not isinstance(event, BlockFinished):
            said = event.note if isinstance(event, CellProgressed) else readings_text(event)
            note = f"{event.cell.label}: {said}"
        left = self._clock.left_text(self._share)
        return ", ".join(part for part in (f"{self._share:4.0%}", note, left) if part)

    def _row(self, event: RowMeasured) -> str:
        """The main values of a row, with what is wrong with it."""
        self._rows.append(event)
        values = event.values
        parts = [str(values[name]) for name in ("status", "reason") if values["status"] != "ok" and values[name]]
        grade = [f"[{values['grade']}: {values['grade_reason']}]"] if values["grade"] != "ok" else []
        assert self._start is not None
        return f"{self._keys(event)}: " + ", ".join(parts + self._views(event, self._main_group(event)) + grade)

    def _main_group(self, event: RowMeasured) -> str:
        """The first group of views that has something to say about a row."""
        assert self._start is not None
        names = groups(self._start)
        return next((name for name in names if self._views(event, name)), names[0])

    def _end(self, event: RunFinished) -> str:
        """The other groups of values, of each ramp's last step, and how it went."""
        assert self._start is not None
        lines = [
            f"{group}: {self._keys(row)}: {', '.join(texts)}"
            for group in groups(self._start)[1:]
            for row in last_of_each(self._start, self._rows)
            if group != self._main_group(row) and (texts := self._views(row, group))
        ]
        lines += self._closing
        lines += [text] if (text := undecided_text(self._undecided)) else []
        return "\n".join([*lines, f"{event.summary}; {rows_text(event.rows_count)} in {event.elapsed_s:.1f} s"])

    def _keys(self, event: RowMeasured) -> str:
        assert self._start is not None
        names = [column.name for column in self._start.columns if column.key]
        first, *others = names  # the first is who the row is about, also when that is nobody
        who = event.values[first]
        return f"{'' if who is None else who} {case_text(others, event)}".strip()

    def _views(self, event: RowMeasured, group: str) -> list[str]:
        assert self._start is not None
        views = [view for view in self._start.views if view.group == group]
        return [f"{view.header} {text}" for view in views if (text := view_text(view, event))]
