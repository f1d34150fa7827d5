"""The run folder: written row by row, readable at any moment, also after ``kill -9``.

``results/<UTC>-<experiment>-<id>/`` holds

- ``run.json``: arguments, seed, versions, machine facts, columns, and at the end counters, warnings and verdicts. It is
  replaced as a whole (write, fsync, rename), so it is never half there.
- ``rows.csv``: appended row by row; replaced as a whole when a row was measured further.
- ``samples.jsonl``: raw samples, one launch a line, appended.

A reader ignores an unfinished last line: whatever was interrupted there had not been measured to its end.
"""

from __future__ import annotations

import csv
import datetime
import io
import json
import os
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from c10k_probe.exits import UserError

FORMAT: Final = 1
FORMAT_HISTORY: Final = {1: "rows.csv, samples.jsonl and run.json; state is running, finished or interrupted"}

Value = str | int | float | None
ColumnSpec = tuple[str, str]  # name and kind (str, int, float)


def new_run_id() -> str:
    """Six hexadecimal digits: enough to keep runs of the same second apart."""
    return secrets.token_hex(3)


def newest(base: Path) -> Path:
    """The run folder below ``base`` that was started last. Raises ``UserError`` when there is none."""
    found = [path.parent for path in base.glob("*/run.json") if re.match(r"\d{8}T\d{6}Z-", path.parent.name)]
    if not found:
        raise UserError(f"{base} holds no run; make one first, or name a run folder")
    # runs of the same second have names in no order; the one that was written last was started last, or nearly so
    return max(found, key=lambda path: (path.name.partition("-")[0], (path / "run.json").stat().st_mtime_ns))


def csv_line(values: Iterable[Value]) -> str:
    """One CSV line (RFC 4180, newline ``\\n``); None is empty, floats keep up to 12 significant digits."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow([_cell(value) for value in values])  # so that \r is quoted too
    return text.getvalue().removesuffix("\r\n") + "\n"


def parse_value(text: str, kind: str) -> Value:
    """The value of a CSV cell; an empty one is None, except in a text column, where it is empty text."""
    if kind == "str":
        return text
    if text == "":
        return None
    return int(text) if kind == "int" else float(text)


def _cell(value: Value) -> str:
    if value is None:
        return ""
    return f"{value:.12g}" if isinstance(value, float) else str(value)


class RunFolder:
    """The writing side. Raises ``OSError`` when the disk refuses; what was written before stays valid."""

    def __init__(self, base: Path, experiment: str, run_id: str, columns: Sequence[ColumnSpec]) -> None:
        started = datetime.datetime.now(datetime.UTC)
        self.path = base / f"{started:%Y%m%dT%H%M%SZ}-{experiment}-{run_id}"
        self._names = [name for name, _ in columns]
        self._rows: dict[tuple[Value, ...], Mapping[str, Value]] = {}
        self._stale = False
        self._facts: dict[str, Any] = {
            "format": FORMAT,
            "experiment": experiment,
            "run_id": run_id,
            "started": started.isoformat(timespec="seconds"),
            "state": "running",
            "pid": os.getpid(),
            "columns": [list(column) for column in columns],
        }
        self.path.mkdir(parents=True)
        self._replace("rows.csv", csv_line(self._names))

    def describe(self, **facts: Any) -> None:
        """Add facts to ``run.json`` and write it."""
        self._facts.update(facts)
        self._replace("run.json", json.dumps(self._facts, indent=1, ensure_ascii=False, default=str) + "\n")

    def put_row(self, key: tuple[Value, ...], values: Mapping[str, Value]) -> None:
        """Append a new row at once; a row that was measured further is written by the next ``refresh``."""
        known = key in self._rows
        self._rows[key] = values
        if known:
            self._stale = True
        else:
            self._append("rows.csv", self._line(values))

    def refresh(self) -> None:
        """Replace ``rows.csv`` by the rows as they are now, if any was measured further."""
        if self._stale:
            self._replace("rows.csv", csv_line(self._names) + "".join(map(self._line, self._rows.values())))
            self._stale = False

    def put_samples(self, record: Mapping[str, Any]) -> None:
        """Append the raw samples of one launch."""
        self._append("samples.jsonl", json.dumps(record, separators=(",", ":"), default=list) + "\n")

    def _line(self, values: Mapping[str, Value]) -> str:
        return csv_line(values.get(name) for name in self._names)

    def _append(self, name: str, text: str) -> None:
        """One write(2): a reader sees the whole line or, when the disk is full, a part that it ignores."""
        descriptor = os.open(self.path / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            data = text.encode(errors="backslashreplace")
            written = os.write(descriptor, data)
            if written < len(data):
                os.ftruncate(descriptor, os.fstat(descriptor).st_size - written)
                raise OSError(28, os.strerror(28), str(self.path / name))
        finally:
            os.close(descriptor)

    def _replace(self, name: str, text: str) -> None:
        """Write beside, then rename: a crash leaves the old file or the new one."""
        temporary = self.path / f".{name}.new"
        try:
            with temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path / name)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


@dataclass(frozen=True)
class StoredRun:
    """The reading side: what a run folder holds."""

    path: Path
    facts: Mapping[str, Any]
    rows: tuple[Mapping[str, Value], ...]
    samples: tuple[Mapping[str, Any], ...]

    @property
    def state(self) -> str:
        """finished, interrupted, running, or ``killed`` when its process is gone without having said so."""
        state = str(self.facts.get("state", "killed"))
        alive = Path(f"/proc/{self.facts.get('pid')}").exists()
        return "killed" if state == "running" and not alive else state


def load(path: Path) -> StoredRun:
    """Read a run folder. Raises ``UserError`` when it is none, or of a newer format."""
    try:
        facts = json.loads((path / "run.json").read_text(encoding="utf-8"))
        text = (path / "rows.csv").read_bytes().decode(errors="replace")
        kinds = dict(facts["columns"])
    except FileNotFoundError as error:
        missing = Path(error.filename or "").name
        raise UserError(f"{path} is not a run folder: it holds no {missing}; name one below results/") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a run folder ({error!r}); name one below results/") from None
    if facts.get("format", 0) > FORMAT:
        raise UserError(f"{path} has format {facts['format']}, this version reads up to {FORMAT}; update c10k-probe")
    rows = tuple(
        {name: parse_value(cell, kinds.get(name, "str")) for name, cell in row.items()}
        for row in csv.DictReader(io.StringIO(_whole_lines(text), newline=""))
    )
    return StoredRun(path, facts, rows, tuple(_whole_records(path / "samples.jsonl")))


def _whole_lines(text: str) -> str:
    """The text up to its last complete CSV record: a newline inside open quotes ends none."""
    end = text.rfind("\n") + 1
    while text.count('"', 0, end) % 2:
        end = text.rfind("\n", 0, end - 1) + 1
    return text[:end]


def _whole_records(path: Path) -> Iterable[Mapping[str, Any]]:
    """The complete lines of a JSON-lines file; a missing file holds none."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)
