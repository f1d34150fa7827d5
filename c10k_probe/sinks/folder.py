"""The run folder as a sink: everything a later reader needs, written as it happens."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from c10k_probe.events import (
    BlockFinished,
    Event,
    FindingMade,
    FitMade,
    RowMeasured,
    RunFinished,
    RunStarted,
    SamplesTaken,
    VerdictReached,
    Warned,
)
from c10k_probe.exits import ExitCode, UserError
from c10k_probe.results import RunFolder


class RunFolderSink:
    """Writes ``results/<UTC>-<experiment>-<id>/``; its path is known after the first event."""

    name = "run folder"

    def __init__(self, base: Path, facts: Mapping[str, Any]) -> None:
        """``facts`` go into ``run.json`` beside those of the run itself."""
        self._base = base
        self._facts = facts
        self._folder: RunFolder | None = None
        self._warnings: list[dict[str, str]] = []
        self._verdicts: list[dict[str, str]] = []
        self._fits: list[dict[str, Any]] = []
        self._findings: list[dict[str, Any]] = []

    @property
    def path(self) -> Path | None:
        """Where the run is kept."""
        return self._folder.path if self._folder else None

    def handle(self, event: Event) -> None:
        """Keep the event, if it is of those that are kept."""
        if isinstance(event, RunStarted):
            self._start(event)
        elif self._folder is None:
            return
        elif isinstance(event, RowMeasured):
            self._folder.put_row(event.key, event.values)
        elif isinstance(event, SamplesTaken):
            self._folder.put_samples(vars(event.samples))
        elif isinstance(event, BlockFinished):
            self._folder.refresh()
        elif isinstance(event, Warned):
            self._warnings.append(dataclasses.asdict(event))
        elif isinstance(event, FitMade):
            self._fits.append(event.fit.as_record())
        elif isinstance(event, FindingMade):
            self._findings.append(dataclasses.asdict(event.finding))
        elif isinstance(event, VerdictReached):
            self._verdicts.append(dataclasses.asdict(event.verdict))
        elif isinstance(event, RunFinished):
            self._finish(event)

    def close(self) -> None:
        """Nothing stays open between writes."""

    def _start(self, event: RunStarted) -> None:
        columns = [(column.name, column.kind) for column in event.columns]
        self._folder = RunFolder(self._base, event.experiment, event.run_id, columns)
        self._folder.describe(
            question=event.question,
            experiment_version=event.experiment_version,
            parameters=dict(event.parameters),
            seed=event.seed,
            keys=[column.name for column in event.columns if column.key],
            charts=[dataclasses.asdict(chart) for chart in event.charts],
            blocks=event.blocks_count,
            command=list(event.command),
            machine=dict(event.facts),
            **self._facts,
        )

    def _finish(self, event: RunFinished) -> None:
        assert self._folder is not None
        self._folder.refresh()
        self._folder.describe(
            state="interrupted" if event.was_left or event.code == ExitCode.INTERRUPTED else "finished",
            exit_code=int(event.code),
            summary=event.summary,
            elapsed_s=round(event.elapsed_s, 3),
            warnings=self._warnings,
            verdicts=self._verdicts,
            fits=self._fits,
            findings=self._findings,
            **event.facts,
        )


def check_base(base: Path) -> None:
    """Make the folder for results. Raises ``UserError`` when that, or writing into it, is not possible."""
    probe = base / ".writable"
    try:
        base.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        message = f"--out: {base} cannot be written: {error.strerror}; name another folder with --out DIR"
        raise UserError(message, ExitCode.USAGE) from None
