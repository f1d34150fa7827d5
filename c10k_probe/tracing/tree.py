"""The living processes of a target, for backends that the kernel does not tell about new and ended ones."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from c10k_probe.observe import processes
from c10k_probe.observe.procfs import PROC
from c10k_probe.tracing.launch import Launched

_PAUSE_FACTOR: Final = 50  # between two looks at all processes, in times of what one takes: 2 % of a core


class Tree:
    """Processes and their descendants, known by looking from time to time.

    Of a command that was started here none is lost. Of running processes a descendant is, when its parent ended before
    any look had met it.
    """

    def __init__(self, roots: Iterable[int], launched: Launched | None = None, proc_root: Path = PROC) -> None:
        self._known, self._launched, self._root = set(roots), launched, proc_root
        self._look_at_s = 0.0

    def living(self) -> list[int]:
        """Look: all that live now, each parent before its children."""
        began_s = time.monotonic()
        if self._launched is not None:
            self._known |= set(self._launched.adopted())
        found = processes.with_descendants(self._known, (os.getpid(),), self._root)
        living = [pid for pid in found if processes.is_alive(pid, self._root)]
        self._known = set(living)
        ended_s = time.monotonic()
        self._look_at_s = ended_s + _PAUSE_FACTOR * (ended_s - began_s)
        return living

    def is_over(self) -> bool:
        """Whether none lives any more."""
        if self._launched is not None and (not self._launched.has_ended() or self._launched.adopted()):
            return False
        if time.monotonic() >= self._look_at_s:
            self.living()
        return not any(processes.is_alive(pid, self._root) for pid in self._known)
