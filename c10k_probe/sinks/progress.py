"""Time: how often to draw, and how much is left."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """Elapsed time, an estimate of the rest, and a limit on how often something is drawn."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._start = self._last = now()

    def start(self) -> None:
        """The run starts now."""
        self._start = self._last = self._now()

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
        """``about 12 s left``, from what the done share took; nothing before there is anything to go by."""
        elapsed_s = self.elapsed_s()
        if done_share < 0.02 or elapsed_s < 0.5:
            return ""
        left_s = elapsed_s * (1 - done_share) / done_share
        return f"about {left_s / 60:.0f} min left" if left_s >= 120 else f"about {left_s:.0f} s left"
