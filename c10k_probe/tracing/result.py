"""What a tracer counted. A figure that its backend cannot know is None, never 0."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import accumulate, zip_longest
from typing import Any, Final, Self

_ESTABLISHED: Final = ("SYN_RECV>ESTABLISHED", "SYN_SENT>ESTABLISHED")
SAMPLES_BEYOND: Final = 5  # what a quantile needs
# States of a TCP connection by the kernel's numbers (include/net/tcp_states.h).
TCP_STATES = {
    1: "ESTABLISHED",
    2: "SYN_SENT",
    3: "SYN_RECV",
    4: "FIN_WAIT1",
    5: "FIN_WAIT2",
    6: "TIME_WAIT",
    7: "CLOSE",
    8: "CLOSE_WAIT",
    9: "LAST_ACK",
    10: "LISTEN",
    11: "CLOSING",
    12: "NEW_SYN_RECV",
}


@dataclass(frozen=True)
class Histogram:
    """Durations by powers of two: ``slots[0]`` counts zeros, ``slots[i]`` those from 2^(i-1) to 2^i - 1 ns.

    total_ns: their sum, exact. The last slot holds everything longer.
    """

    slots: tuple[int, ...]
    total_ns: int

    @property
    def count(self) -> int:
        """How many durations."""
        return sum(self.slots)

    def quantile_ns(self, share: float) -> float | None:
        """A duration that ``share`` of all are not above; None when under five lie beyond it.

        It is the upper end of a slot that is as wide as its lower end: what is looked for is between half of it and it.
        """
        rank = share * self.count
        if self.count * (1 - share) < SAMPLES_BEYOND - 1e-9:
            return None
        for index, (above, count) in enumerate(zip(accumulate(self.slots), self.slots, strict=True)):
            if count and above >= rank:
                return 2.0**index if index else 0.0
        return 2.0 ** (len(self.slots) - 1)

    def minus(self, earlier: Histogram) -> Histogram:
        """What came after ``earlier``."""
        slots = tuple(new - old for new, old in zip_longest(self.slots, earlier.slots, fillvalue=0))
        return Histogram(slots, self.total_ns - earlier.total_ns)


@dataclass(frozen=True)
class Call:
    """One system call of the tree: how often it was entered, how often it failed, how long it took.

    latency includes the time that the call slept. Calls that never return (exit_group) or have not yet are in
    count alone.
    """

    name: str
    count: int
    errors_count: int | None = None
    latency: Histogram | None = None

    def minus(self, earlier: Call) -> Call:
        """What came after ``earlier``."""
        latency = self.latency
        if latency is not None and earlier.latency is not None:
            latency = latency.minus(earlier.latency)
        errors = _minus(self.errors_count, earlier.errors_count)
        return Call(self.name, self.count - earlier.count, errors, latency)


@dataclass(frozen=True)
class Trace:
    """Everything counted in ``elapsed_s`` seconds of a process tree, from the ready tracer to the reading.

    calls: by name; of some backends only the calls that were asked for. calls_count: all of them.
    voluntary_switches_count: a task slept by itself; involuntary_switches_count: it could have gone on.
    runqueue: waits of tasks that were ready to run, each from its wake-up, or its preemption, to its turn.
    runqueue_wait_s: the sum of these waits.
    forks_count: new processes; threads_count: new threads; exits_count: ended tasks of both kinds.
    page_faults_count: faults on user memory. accepts_count: accept(2) and accept4(2) that gave a connection.
    tcp_changes: "SYN_RECV>ESTABLISHED" -> count, of connections whose local port is one that the tree listens on,
    whoever else does (another network namespace, SO_REUSEPORT), and of those that the tree made.
    tasks_count: tasks alive at the reading.
    dropped_tasks_count: tasks that could not be followed, all of whose events are lacking;
    dropped_events_count: single events that could not be counted. Either above 0 makes every count a lower bound.
    notes: what the backend could not see, for the reader.
    """

    backend: str
    elapsed_s: float
    calls: Mapping[str, Call] | None = None
    calls_count: int | None = None
    call_errors_count: int | None = None
    voluntary_switches_count: int | None = None
    involuntary_switches_count: int | None = None
    runqueue: Histogram | None = None
    runqueue_wait_s: float | None = None
    forks_count: int | None = None
    threads_count: int | None = None
    exits_count: int | None = None
    page_faults_count: int | None = None
    accepts_count: int | None = None
    tcp_changes: Mapping[str, int] | None = None
    cpu_s: float | None = None
    tasks_count: int | None = None
    dropped_tasks_count: int | None = None
    dropped_events_count: int | None = None
    notes: Sequence[str] = field(default=())

    @property
    def established_count(self) -> int | None:
        """Connections that came to be: by local port as ``tcp_changes``, or made by the tree; None when unknown."""
        return add_known([self.tcp(change) for change in _ESTABLISHED])

    @property
    def dropped_count(self) -> int | None:
        """Tasks and events that were dropped; above 0 every count is a lower bound. None when nobody counted."""
        return add_known([self.dropped_tasks_count, self.dropped_events_count])

    def minus(self, earlier: Self) -> Self:
        """What came between the two readings; tasks_count and notes are the later one's."""
        changes: dict[str, Any] = {}
        for item in fields(self):
            new, old = getattr(self, item.name), getattr(earlier, item.name)
            if item.name in ("backend", "tasks_count", "notes") or new is None or old is None:
                continue
            if item.name == "calls":
                changes[item.name] = {name: _call_change(call, old.get(name)) for name, call in new.items()}
            elif item.name == "tcp_changes":
                changes[item.name] = {name: count - old.get(name, 0) for name, count in new.items()}
            elif item.name == "runqueue":
                changes[item.name] = new.minus(old)
            else:
                changes[item.name] = new - old
        return dataclasses.replace(self, **changes)

    def since(self, earlier: Self) -> Self:
        """As ``minus``, but a task that was dropped before the first reading is lacking after it, too."""
        return dataclasses.replace(self.minus(earlier), dropped_tasks_count=self.dropped_tasks_count)

    def per_s(self, count: int | None) -> float | None:
        """A count as a rate; None when unknown or nothing elapsed."""
        return None if count is None or self.elapsed_s <= 0 else count / self.elapsed_s

    def top(self, number: int | None = None) -> list[Call]:
        """The calls made most often, most first; all of them for None."""
        calls = [call for call in (self.calls or {}).values() if call.count]
        return sorted(calls, key=lambda call: (-call.count, call.name))[:number]

    def tcp(self, change: str) -> int | None:
        """How often connections made this change (``SYN_RECV>ESTABLISHED``); None when nobody counted."""
        return None if self.tcp_changes is None else self.tcp_changes.get(change, 0)


def _call_change(new: Call, old: Call | None) -> Call:
    return new if old is None else new.minus(old)


def _minus(new: int | None, old: int | None) -> int | None:
    return None if new is None or old is None else new - old


def lost_count(parts: Sequence[Trace]) -> int | None:
    """Tasks and events dropped over the parts that ``Trace.since`` gave, in turn: events add up, tasks stay dropped."""
    tasks = [part.dropped_tasks_count for part in parts if part.dropped_tasks_count is not None]
    return add_known([max(tasks, default=None), *(part.dropped_events_count for part in parts)])


def add_known(values: Sequence[int | None]) -> int | None:
    """Sum of the known ones; None when nothing is known."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
