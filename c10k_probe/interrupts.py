"""Ctrl-C, SIGTERM and SIGHUP: once saves and shows what there is, twice leaves at once; never a torn write."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from c10k_probe import native
from c10k_probe.exits import ExitCode

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """The user, or the system, asked for an end. Not an ``Exception``: no experiment may swallow it."""


class Interrupts:
    """Turns signals into ``Interrupted``, but only while it is armed; a signal at another time waits until then."""

    def __init__(self) -> None:
        self.seen: signal.Signals | None = None
        self._armed = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Own the signals inside the block and give them back after it."""
        ours = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # as nohup wants it
        before = {number: signal.signal(number, self._handle) for number in ours}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Inside the block a signal raises ``Interrupted``, also one that came before it."""
        self._armed = True
        try:
            if self.seen is not None:
                raise Interrupted
            yield
        finally:
            self._armed = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.seen is not None:
            native.kill_all()
            os._exit(ExitCode.INTERRUPTED)
        self.seen = signal.Signals(number)
        if self._armed:
            raise Interrupted
