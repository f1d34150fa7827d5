"""How much of a window chosen CPUs had nothing to do: whether who runs on them had some left.

Two readings of one file, whoever runs there: work that the kernel does in an interrupt is no idle time either. Clock:
CLOCK_MONOTONIC for the window; the kernel tells idle time in clock ticks of 10 ms. Source: proc_stat(5).
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import Final

_IDLE_PLACES: Final = (4, 5)  # of a CPU's line: idle and iowait, in which it waits as well
_STAT: Final = Path("/proc/stat")


def idle_s(text: str, cpus: Collection[int], ticks_per_s: int) -> float | None:
    """Seconds that these CPUs had nothing to do since the start of the machine, together, by the text of /proc/stat;
    None where it does not tell of each."""
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.startswith("cpu")}
    found = [lines.get(f"cpu{cpu}", []) for cpu in cpus]
    if not found or any(len(line) <= max(_IDLE_PLACES) for line in found):
        return None
    return sum(int(line[place]) for line in found for place in _IDLE_PLACES) / ticks_per_s


class IdleWatch:
    """Reads at the first look after ``from_s`` and at the first after ``to_s``, both in seconds from now on."""

    def __init__(self, cpus: Collection[int], from_s: float, to_s: float) -> None:
        self._cpus = frozenset(cpus)
        now_s = time.monotonic()
        self._due_s = [now_s + from_s, now_s + to_s]
        self._read: list[tuple[float, float]] = []

    def until_next_s(self) -> float:
        """Seconds until a look is due; infinity after the second."""
        return max(0.0, self._due_s[0] - time.monotonic()) if self._due_s else math.inf

    def look(self) -> None:
        """Read, if that is due."""
        if not self._due_s or time.monotonic() < self._due_s[0]:
            return
        del self._due_s[0]
        idle = idle_s(_STAT.read_text(encoding="ascii"), self._cpus, os.sysconf("SC_CLK_TCK"))
        if idle is not None:
            self._read.append((time.monotonic(), idle))

    def idle_pct(self) -> float | None:
        """Of the time between both looks, over all the CPUs; None where there were not two."""
        if len(self._read) < 2:
            return None
        (began_s, before_s), (ended_s, after_s) = self._read
        return min(100.0, 100 * (after_s - before_s) / ((ended_s - began_s) * len(self._cpus)))
