"""Plain lines on stderr: for pipes, logs and terminals without cursor control. One line per row, with units."""

from __future__ import annotations

import sys
from typing import TextIO

from c10k_probe.events import (
    BlockFinished,
    CellProgressed,
    Event,
    RowMeasured,
    RunFinished,
    RunStarted,
    VerdictReached,
    Warned,
)
from c10k_probe.experiment import Scalar
from c10k_probe.sinks.progress import Clock
from c10k_probe.units import format_column


class PlainLines:
    """Says what is measured, how far it is, and each row once it is final."""

    name = "standard error"

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._clock = Clock()
        self._start: RunStarted | None = None

    def handle(self, event: Event) -> None:
        """Print the event, if it has something to say."""
        line = self._line(event)
        if line:
            self._stream.write(line + "\n")
            self._stream.flush()

    def close(self) -> None:
        """Nothing to give back."""

    def _line(self, event: Event) -> str:
        if isinstance(event, RunStarted):
            self._start = event
            self._clock.start()
            return f"{event.experiment}: {event.question} (seed {event.seed}, run {event.run_id})"
        if isinstance(event, (BlockFinished, CellProgressed)):
            return self._progress(event)
        if isinstance(event, RowMeasured) and event.final:
            return self._row(event)
        if isinstance(event, Warned):
            return f"warning: {event}"
        if isinstance(event, VerdictReached):
            verdict = event.verdict
            return f"verdict {verdict.claim}: {verdict.verdict}: {verdict.restatement} ({verdict.evidence})"
        if isinstance(event, RunFinished):
            return f"{event.summary}; {event.rows_count} rows in {event.elapsed_s:.1f} s"
        return ""

    def _progress(self, event: BlockFinished | CellProgressed) -> str:
        """At most one line of progress a second, and none about the end, which says itself."""
        if not self._clock.due(1.0) or event.done_share >= 1:
            return ""
        note = f"{event.cell.name}: {event.note}" if isinstance(event, CellProgressed) else ""
        left = self._clock.left_text(event.done_share)
        return ", ".join(part for part in (f"{event.done_share:4.0%}", note, left) if part)

    def _row(self, event: RowMeasured) -> str:
        assert self._start is not None
        keys = [str(event.values[column.name]) for column in self._start.columns if column.key]
        parts = [f"{view.group or ''} {view.header} {text}".strip() for view in self._start.views if (text := cell(event, view.column, view.low, view.high))]
        state = str(event.values["status"]) if event.values["status"] != "ok" else ""
        why = str(event.values["reason"] or "")
        grade = f"[{event.values['grade']}: {event.values['grade_reason']}]" if event.values["grade"] != "ok" else ""
        return " ".join(keys) + ": " + ", ".join(part for part in (state, why, *parts, grade) if part)


def cell(event: RowMeasured, column: str, low: str = "", high: str = "") -> str:
    """``52.1 µs [51.8 µs, 52.9 µs]``, without the interval where there is none, empty where nothing was measured."""
    return interval_text(column, *(event.values.get(name) for name in (column, low, high)))


def interval_text(column: str, middle: Scalar, low: Scalar = None, high: Scalar = None, *, short: bool = False) -> str:
    """A value with its interval; ``short`` gives the half-width in percent instead of the two ends."""
    text = format_column(column, middle)
    if not text or not isinstance(low, (int, float)) or not isinstance(high, (int, float)):
        return text
    if short and isinstance(middle, (int, float)) and middle:
        return f"{text} ±{(high - low) / 2 / abs(middle) * 100:.1f}%"
    return f"{text} [{format_column(column, low)}, {format_column(column, high)}]"
