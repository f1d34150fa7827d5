"""Time: how often to draw, and how much is left."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

_TELLING_SHARE: Final = 0.02
_TELLING_S: Final = 0.5
_IN_MINUTES_S: Final = 120.0


class Clock:
    """Elapsed time, an estimate of the rest, and a limit on how often something is drawn."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._start = self._last = now()
        self._expected_s: float | None = None

    def start(self, expected_s: float | None = None) -> None:
        """The run starts now; expected_s: about what it takes, where that is known."""
        self._start = self._last = self._now()
        self._expected_s = expected_s

    def due(self, every_s: float) -> bool:
        """Whether ``every_s`` have passed since this last said yes."""
        now = self._now()
        if now - self._last < every_s:
            return False
        self._last = now
        return True

    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return self._now() - self._start

    def left_text(self, done_share: float) -> str:
        """``about 12 s left``, from what the done share took; before there is that to go by, from what was expected."""
        elapsed_s = self.elapsed_s()
        if done_share >= _TELLING_SHARE and elapsed_s >= _TELLING_S:
            return f"about {duration_text(elapsed_s * (1 - done_share) / done_share)} left"
        return f"about {duration_text(self._expected_s)} in all" if self._expected_s else ""


def duration_text(duration_s: float) -> str:
    """Whole minutes from two on, else whole seconds: ``6 min``, ``90 s``."""
    return f"{duration_s / 60:.0f} min" if duration_s >= _IN_MINUTES_S else f"{duration_s:.0f} s"
