"""Launches of slow-clients that stand side by side: which do, and how they are measured.

What takes long in a launch is to wait until innocents give up, up to ``--served-within``, in which nothing is computed.
So launches of all servers, kinds and defences with the same number of slow clients stand together, as many at a time as
``--side-by-side`` and the machine's limits let: those that may starve, and, in batches of their own, those that never
wait. The one request of kind cpu is made while others wait.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from c10k_probe import limits, native
from c10k_probe.experiment import Bench, Cell, Samples
from c10k_probe.limits import Needs

from ._slow_design import (
    CPU,
    NS_PER_S,
    SERVERS,
    TOGETHER_COUNT,
    Key,
    SlowParameters,
    asks_of,
    is_starving,
    keys_of,
    launches_count,
    needs_of,
)
from ._slow_measure import outcomes

FAILURE, REFUSAL = "failure", "refusal"  # facts of a launch that did not come to anything, and why
_READING = 100  # slow heads whose work for a server is no less than that of one slow reader's hundreds of requests
_START_S, _SCHEDULES_S = 0.25, 2.0
Batch = tuple[Key, ...]


@dataclass(frozen=True)
class TogetherCell(Cell):
    """All launches with the same number of slow clients, in batches."""

    batches: tuple[Batch, ...] = ()

    @property
    def label(self) -> str:
        """How many slow clients each has."""
        return f"{self.key['clients_count']:,} slow clients"


def cells(parameters: SlowParameters) -> list[Cell]:
    """What stands together; what cannot be measured here is a cell of its own, which is skipped."""
    able: list[Key] = []
    unable: list[Cell] = []
    walls = limits.walls()
    for key in keys_of(parameters):
        needs = needs_of(parameters, [key])
        if SERVERS[str(key["server"])].missing or limits.check(needs, walls):
            unable.append(Cell(key, needs, 0.1))
        else:
            able.append(key)
    together = _levels(parameters, able, walls)
    made = [
        TogetherCell(
            {"clients_count": count},
            max((needs_of(parameters, batch) for batch in found), key=lambda needs: needs.memory_bytes),
            sum(_weight(parameters, batch) for batch in found),
            batches=tuple(found),
        )
        for count, found in together.items()
    ]
    return [*unable, *made]


def _levels(parameters: SlowParameters, keys: Sequence[Key], walls: Sequence[limits.Wall]) -> dict[int, list[Batch]]:
    """Batches by the number of slow clients; the requests that work go with those that wait, where there are any."""
    slowed = [key for key in keys if key["kind"] != CPU]
    found: dict[int, list[Batch]] = {}
    for count in sorted({int(key["clients_count"]) for key in slowed}):
        launches = _launches(parameters, [key for key in slowed if key["clients_count"] == count])
        for is_waiting in (True, False):
            group = [key for key in launches if is_starving(key) == is_waiting]
            found.setdefault(count, []).extend(pack(parameters, group, walls))
    working = _launches(parameters, [key for key in keys if key["kind"] == CPU])
    waiting = [(count, place) for count, batches in found.items() for place in range(len(batches))]
    waiting = [(count, place) for count, place in waiting if is_starving(found[count][place][0])]
    if not waiting or parameters.side_by_side == 1:
        return found | ({1: [*found.get(1, ()), *((key,) for key in working)]} if working else {})
    dealt = [working[start :: len(waiting)] for start in range(len(waiting))]
    for (count, place), some in zip(waiting, dealt, strict=True):
        found[count][place] = (*some, *found[count][place])
    return found


def _launches(parameters: SlowParameters, keys: Sequence[Key]) -> list[Key]:
    """Each key as often as it is launched, all once before any twice."""
    most_count = max((launches_count(parameters, str(key["kind"])) for key in keys), default=0)
    rounds = range(most_count)
    return [key for number in rounds for key in keys if number < launches_count(parameters, str(key["kind"]))]


def pack(parameters: SlowParameters, keys: Sequence[Key], walls: Sequence[limits.Wall]) -> Iterator[Batch]:
    """As many at a time, in their order, as may stand side by side; of those that serve innocents, half as many."""
    batch: list[Key] = []
    for key in keys:
        more = [*batch, key]
        is_over = _is_crowd(parameters, more) or limits.check(needs_of(parameters, more), walls)
        if batch and is_over:
            yield tuple(batch)
            more = [key]
        batch = more
    if batch:
        yield tuple(batch)


def _is_crowd(parameters: SlowParameters, batch: Sequence[Key]) -> bool:
    """Whether they would be in each other's way, beyond what is taken into account."""
    share = 1 if all(map(is_starving, batch)) else 2
    clients_count = sum(int(key["clients_count"]) * (_READING if _is_answering(key) else 1) for key in batch)
    return len(batch) > max(1, parameters.side_by_side // share) or clients_count > TOGETHER_COUNT // share


def _is_answering(key: Key) -> bool:
    """Whether a server has to answer all that slow readers ask for, at once."""
    return key["kind"] == "read" and not is_starving(key)


def _weight(parameters: SlowParameters, batch: Batch) -> float:
    """Seconds, roughly."""
    work_s = sum(key["kind"] == CPU for key in batch) * parameters.work / NS_PER_S
    waiting_s = parameters.served_within / NS_PER_S * any(map(is_starving, batch))
    return len(batch) * _START_S + _SCHEDULES_S + parameters.duration / NS_PER_S + max(work_s, waiting_s)


def together(parameters: SlowParameters, cell: TogetherCell, bench: Bench) -> Iterator[Samples]:
    """All batches; what fails in one has no part in those after it."""
    failed: set[tuple[str | int, ...]] = set()
    numbers: dict[tuple[str | int, ...], Iterator[int]] = {}
    for place, batch in enumerate(cell.batches):
        keys = [key for key in batch if tuple(key.values()) not in failed]
        bench.progress(
            place, len(cell.batches), f"{len(keys)} launches side by side" if len(keys) > 1 else "one launch"
        )
        for key, item in measured(parameters, keys, bench, place * parameters.side_by_side):
            name = tuple(key.values())
            first = bench.block * launches_count(parameters, str(key["kind"]))
            number = next(numbers.setdefault(name, itertools.count(first)))
            if FAILURE in item.facts:
                failed.add(name)
            yield Samples(key, number, item.values, item.facts)


def measured(
    parameters: SlowParameters, keys: Sequence[Key], bench: Bench, seed_offset: int = 0
) -> Iterator[tuple[Key, Samples]]:
    """One launch for each key, side by side; one that cannot go on says why in its facts, and is warned of.

    Raises ``native.HelperError`` where it is the run's time that is over.
    """
    asks = asks_of(parameters, keys, bench.seed + seed_offset)
    warned = set()
    for key, outcome in zip(keys, outcomes(asks, bench.remaining_s), strict=True):
        if not isinstance(outcome, native.HelperError):
            yield key, Samples(key, 0, outcome.values, outcome.facts)
            continue
        if bench.remaining_s() <= 0:
            raise outcome
        if (label := Cell(key).label) not in warned:
            warned.add(label)
            bench.warn(f"{label} failed: {outcome}", "", "")
        yield key, Samples(key, 0, {"due_ns": [], "latency_ns": []}, {FAILURE: str(outcome)})


def refused(key: Key, needs: Needs, wall: limits.Wall, number: int) -> Samples:
    """In place of a launch that a limit of this machine does not let be."""
    return Samples(key, number, {"due_ns": [], "latency_ns": []}, {REFUSAL: limits.refusal(wall, needs)})
