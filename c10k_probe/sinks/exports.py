"""CSV and JSON lines, to a file or to stdout. A target is opened, and refused, before anything is measured."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, Final

from c10k_probe.events import (
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
from c10k_probe.exits import UsageError
from c10k_probe.results import csv_line

STDOUT: Final = "-"
_STDERR: Final = 2


class Target:
    """A file or stdout; every ``write`` is complete when it returns, or raises ``OSError``."""

    def __init__(self, option: str, name: str) -> None:
        """Open it. Raises ``UsageError`` when that is not possible."""
        self.name = "standard output" if name == STDOUT else name
        self._descriptor = _open_target(option, name)
        self._is_fresh = name != STDOUT

    def write(self, text: str) -> None:
        """Write all of ``text``; a partial write that cannot go on is an error.

        A file loses its old content with the first write, not before: another option may still be refused.
        """
        if self._is_fresh and stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            os.ftruncate(self._descriptor, 0)
        self._is_fresh = False
        data = memoryview(text.encode())
        while data:
            data = data[os.write(self._descriptor, data) :]

    def close(self) -> None:
        """Close a file; stdout stays open. May be called twice."""
        if self._descriptor > _STDERR:
            os.close(self._descriptor)
        self._descriptor = -1


def _open_target(option: str, name: str) -> int:
    if name == STDOUT:
        return 1
    path = Path(name)
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        hint = "make the folder first" if error.errno == errno.ENOENT else "name a file that can be written"
        raise UsageError(f"{option}: {name} cannot be written: {error.strerror}; {hint}, or - for stdout") from None


class CsvSink:
    """One header line, then each row as soon as it is final."""

    def __init__(self, target: Target) -> None:
        self.name = f"CSV to {target.name}"
        self._target = target
        self._names: list[str] = []

    def handle(self, event: Event) -> None:
        """Header at the start, one line per final row."""
        if isinstance(event, RunStarted):
            self._names = [column.name for column in event.columns]
            self._target.write(csv_line(self._names))
        elif isinstance(event, RowMeasured) and event.final:
            self._target.write(csv_line(event.values.get(name) for name in self._names))

    def close(self) -> None:
        """Close the target."""
        self._target.close()


class JsonLinesSink:
    """One JSON object per line: ``run``, ``readings``, ``row``, ``warning``, ``verdict``, ``end``. Missing is null."""

    def __init__(self, target: Target) -> None:
        self.name = f"JSON lines to {target.name}"
        self._target = target

    def handle(self, event: Event) -> None:
        """Write the events that a later reader wants; progress is not among them."""
        record = _json_record(event)
        if record is not None:
            self._target.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")

    def close(self) -> None:
        """Close the target."""
        self._target.close()


def _json_record(event: Event) -> dict[str, Any] | None:  # noqa: PLR0911 - one record for each kind of event
    if isinstance(event, RunStarted):
        return {
            "type": "run",
            "run_id": event.run_id,
            "experiment": event.experiment,
            "version": event.experiment_version,
            "parameters": event.parameters,
            "seed": event.seed,
            "blocks": event.blocks_count,
            "columns": {column.name: column.help for column in event.columns},
            "machine": event.facts,
        }
    if isinstance(event, RowMeasured) and event.final:
        return {"type": "row", **event.values}
    if isinstance(event, ReadingsTaken):
        readings = [{"at_s": round(item.at_s, 3), **item.values} for item in event.readings]
        return {"type": "readings", "cell": dict(event.cell.key), "block": event.block, "readings": readings}
    if isinstance(event, Warned):
        return {"type": "warning", **dataclasses.asdict(event)}
    if isinstance(event, FitMade):
        return {"type": "fit", **event.fit.as_record()}
    if isinstance(event, FindingMade):
        return {"type": "finding", **dataclasses.asdict(event.finding)}
    if isinstance(event, VerdictReached):
        return {"type": "verdict", **dataclasses.asdict(event.verdict)}
    if isinstance(event, RunFinished):
        return {"type": "end", "code": int(event.code), "summary": event.summary, "elapsed_s": event.elapsed_s}
    return None
