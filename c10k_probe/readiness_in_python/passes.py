"""The passes of one level of activity: measured, looked at, and put into one message."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from c10k_probe.readiness_in_python.mechanisms import Mechanism
from c10k_probe.readiness_in_python.workloads import Short, Work, usage

PASSES_LEAST: Final = 1  # whatever the budget
THROWN_AWAY_MOST: Final = 3
ROUNDS_MOST: Final = 1 << 20
GUARD_S: Final = 5.0  # two such periods without an event: it is lost


class Level:
    """The passes with so many active."""

    def __init__(self, work: Work, mechanism: Mechanism, active: int) -> None:
        self._work, self._mechanism, self._active = work, mechanism, active
        work.set_level(active)
        self._pass_ns: list[int] = []
        self._register_ns: list[int] = []
        self._waits_count = 0
        self._calls: Counter[str] = Counter()
        self._is_in_sight = True
        self._used = [0] * 5  # as usage()
        self.dropped_count = 0

    def __len__(self) -> int:
        return len(self._pass_ns)

    def run(self, warmup: int, most: int, deadline: int, pass_ns: int = 0) -> None:
        """Warm up, then one pass, more until the deadline (monotonic ns). Raises ``OSError``, ``Refused``.

        With ``pass_ns`` a pass has as many whole rounds as take about that long; to find that out is the warm-up.
        """
        with _guard(self._work):
            if pass_ns:
                self._fit_rounds(pass_ns)
            for _ in range(0 if pass_ns else warmup):
                self._take()
            while len(self) < most and self.dropped_count < THROWN_AWAY_MOST:
                if len(self) >= PASSES_LEAST and time.monotonic_ns() >= deadline:
                    break
                self._measure()

    def _take(self) -> int:
        """One pass that is not kept; how long it took, in nanoseconds."""
        self._work.prepare()
        self._mechanism.serve()
        return self._work.ended - self._work.began

    def _fit_rounds(self, pass_ns: int) -> None:
        rounds = 1
        self._work.set_rounds(self._active, rounds)
        while (taken_ns := max(self._take(), 1)) * 4 < pass_ns and rounds < ROUNDS_MOST:
            rounds *= 2
            self._work.set_rounds(self._active, rounds)
        self._work.set_rounds(self._active, min(max(rounds * pass_ns // taken_ns, 1), ROUNDS_MOST))

    def _measure(self) -> None:
        work, mechanism = self._work, self._mechanism
        work.prepare()
        mechanism.serve()
        calls, waits, pass_ns = mechanism.calls_count(), mechanism.waits_count, work.ended - work.began
        own_calls, used = work.calls_count(), zip(work.used_before, work.used_after, strict=True)
        mechanism.turn()
        if not work.is_whole():
            self.dropped_count += 1
            return
        self._pass_ns.append(pass_ns)
        self._register_ns.append(work.register_ns)
        self._waits_count += waits or 0
        self._used = [total + end - begin for total, (begin, end) in zip(self._used, used, strict=True)]
        self._is_in_sight = calls is not None
        self._calls.update({**(calls or {}), **own_calls})

    def message(self) -> dict[str, Any]:
        """The ``passes`` message."""
        has_register = isinstance(self._work, Short) and not self._mechanism.is_put_off
        return {
            "type": "passes",
            "active_count": self._active,
            "events_per_pass_count": self._work.events_count,
            "rounds_per_pass_count": self._work.rounds_count,
            "pass_ns": self._pass_ns,
            "register_ns": self._register_ns if has_register else None,
            "waits_count": self._waits_count if self._is_in_sight else None,
            "spurious_count": 0,  # os.read would have raised an error
            "calls_count": {name: count for name, count in self._calls.items() if count} if self._is_in_sight else None,
            **self._usage_fields(),
        }

    def _usage_fields(self) -> dict[str, int]:
        """Which part of the CPU time was user mode the kernel guesses from where ticks fell: in these passes, or, where
        none did, in the thread's life. The sum is exact."""
        cpu, user, system, voluntary, involuntary = self._used
        if user + system == 0:
            _, user, system, _, _ = usage()
        user_ns = round(cpu * user / max(user + system, 1))
        return {
            "cpu_user_ns": user_ns,
            "cpu_system_ns": cpu - user_ns,
            "voluntary_switches_count": voluntary,
            "involuntary_switches_count": involuntary,
        }


@contextlib.contextmanager
def _guard(work: Work) -> Iterator[None]:
    """A timer that raises ``TimeoutError`` where a wait is for an event that does not come."""
    state, silent_count = (0, 0, 0), 0

    def look(*_: object) -> None:
        nonlocal state, silent_count
        now = (work.began, work.left_count, work.flying_count)
        silent_count = silent_count + 1 if now == state else 0
        state = now
        if silent_count >= 2:
            text = f"no event for {2 * GUARD_S:g} s, but {work.flying_count} bytes are on their way"
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT), text)

    earlier = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, GUARD_S, GUARD_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)
