"""What the runner lends to a measurement: its seed, the time that is left, and a voice.

Nothing may be told during a timed region, with one exception: the readings of an observer which is itself a part of
what is measured, as an experiment's own ``--observe`` switches it and shows its price. They are told at most once a
second, whoever reads them: one event, and so one drawing, of everything that was read since the last one. Telling is
work of this process; an experiment that has readings keeps it off the CPU of what it measures.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from c10k_probe.events import CellProgressed, Event, Reading, ReadingsTaken, Warned
from c10k_probe.experiment import Cell

READINGS_EVERY_S: Final = 1.0


class Readings:
    """Readings of a run that are not told yet, and when they may be."""

    def __init__(self, emit: Callable[[Event], None], now: Callable[[], float] = time.monotonic) -> None:
        self._emit = emit
        self._now = now
        self._due_s = now()
        self._waiting: list[Reading] = []
        self._whose: tuple[Cell, int] | None = None

    def take(self, cell: Cell, block: int, reading: Reading) -> None:
        """One more reading of a launch; all that wait are told when a second has passed since the last telling."""
        self._whose = cell, block
        self._waiting.append(reading)
        if self._now() >= self._due_s:
            self.tell()

    def tell(self) -> None:
        """Tell what waits: the launch is over, or the time has come."""
        if self._whose is not None and self._waiting:
            told, self._waiting = tuple(self._waiting), []  # before they are told: Ctrl-C meanwhile tells none twice
            self._emit(ReadingsTaken(*self._whose, told))
            self._due_s = self._now() + READINGS_EVERY_S


class Host(Protocol):
    """The run, as a measurement may use it."""

    @property
    def readings(self) -> Readings:
        """Where readings go."""

    def emit(self, event: Event) -> None:
        """Send one event to the sinks."""

    def remaining_s(self) -> float:
        """Seconds until the run's time-out."""

    def share_with(self, cell: Cell, share_of_cell: float) -> float:
        """Share of the run's work done when ``share_of_cell`` of a cell is done."""


class LaunchBench:
    """The bench of one launch; see ``experiment.Bench``."""

    def __init__(self, host: Host, cell: Cell, block: int, blocks_count: int, run_seed: int) -> None:
        self._host = host
        self._cell = cell
        self.block = block
        self.blocks_count = blocks_count
        self.seed = random.Random(f"{run_seed}/{cell.name}/{block}").getrandbits(31)

    def remaining_s(self) -> float:
        """See ``Bench``."""
        return self._host.remaining_s()

    def progress(self, done: float, total: float, note: str) -> None:
        """See ``Bench``."""
        share = self._host.share_with(self._cell, done / total if total else 0.0)
        self._host.emit(CellProgressed(self._cell, note, share))

    def reading(self, at_s: float, values: Mapping[str, float]) -> None:
        """See ``Bench``."""
        self._host.readings.take(self._cell, self.block, Reading(at_s, values))

    def warn(self, seen: str, cause: str, advice: str) -> None:
        """See ``Bench``."""
        self._host.emit(Warned(seen, cause, advice))
