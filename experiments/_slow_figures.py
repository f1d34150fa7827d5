"""What a series of innocents tells: who was served, since when nobody was, and when all were again. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from c10k_probe.load import OpenLoop

GOOD_NS = 1_000_000_000  # an answer within it is that of a server that has recovered,
GOOD_COUNT = 20  # once so many in succession came within it


class Innocent(NamedTuple):
    """When one was due (CLOCK_MONOTONIC), and how long it took from then; None where it was not served."""

    due_ns: int
    latency_ns: int | None


def innocents_of(report: OpenLoop) -> list[Innocent]:
    """Those that were kept, in the order in which they were due."""
    pairs = zip(report.due_ns, report.latency_ns, strict=True)
    found = [Innocent(report.start_ns + due, latency if latency >= 0 else None) for due, latency in pairs]
    return sorted(found, key=lambda item: item.due_ns)


def due_within(innocents: Iterable[Innocent], start_ns: int, end_ns: int) -> list[Innocent]:
    """Those that were due from the start on and before the end."""
    return [item for item in innocents if start_ns <= item.due_ns < end_ns]


def served_count(innocents: Iterable[Innocent], bound_ns: int) -> int:
    """How many were answered within the bound."""
    return sum(_is_within(item, bound_ns) for item in innocents)


def starvation_ns(innocents: Sequence[Innocent], since_ns: int, bound_ns: int) -> int | None:
    """From then to the moment from which on none was served; None where the last one was, or there is none."""
    starved = _tail(innocents, bound_ns, is_served=False)
    return max(0, starved[0].due_ns - since_ns) if starved else None


class Recovery(NamedTuple):
    """From the slow clients' leaving to the first good answer; how much sooner it could have been is not known by more
    than ``resolution_ns``: from when the last innocent before was due, or they left, to when that one was due."""

    took_ns: int
    resolution_ns: int


def recovery_of(innocents: Sequence[Innocent], since_ns: int) -> Recovery | None:
    """To the first answer from which on ``GOOD_COUNT`` or more, all that follow, came within ``GOOD_NS``; or None."""
    good = _tail(innocents, GOOD_NS, is_served=True)
    if len(good) < GOOD_COUNT:
        return None
    first, first_place = good[0], len(innocents) - len(good)
    before_ns = innocents[first_place - 1].due_ns if first_place else since_ns
    return Recovery(first.due_ns + (first.latency_ns or 0) - since_ns, first.due_ns - max(before_ns, since_ns))


def _is_within(item: Innocent, bound_ns: int) -> bool:
    return item.latency_ns is not None and item.latency_ns <= bound_ns


def _tail(innocents: Sequence[Innocent], bound_ns: int, *, is_served: bool) -> Sequence[Innocent]:
    """The last ones without one that is otherwise."""
    start = len(innocents)
    while start and _is_within(innocents[start - 1], bound_ns) == is_served:
        start -= 1
    return innocents[start:]
