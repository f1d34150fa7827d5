"""The design of readiness: the mechanisms, how many descriptors each may watch here, and where a map is refined."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from functools import cache

from c10k_probe import limits
from c10k_probe.experiment import Cell, Samples
from c10k_probe.limits import Needs
from c10k_probe.parameters import amount_of, decades

C_MECHANISMS = (
    "select",
    "poll",
    "epoll",
    "epoll_edge",
    "epoll_oneshot",
    "io_uring_poll",
    "io_uring_poll_multishot",
    "io_uring_recv",
)
PYTHON_MECHANISMS = ("select.select", "select.poll", "select.epoll", "selectors", "asyncio", "uvloop")
SCANNING = ("select", "poll", "select.select", "select.poll")  # each wait looks at all that is watched
LOOPS = ("selectors", "asyncio", "uvloop")  # by epoll on Linux
WORKLOADS = ("chain", "short")
OWN_DESCRIPTORS_COUNT = 64
SELECT_ROOM_COUNT = 1024 - 3  # FD_SETSIZE less the standard descriptors
SELECT_SPARE_COUNT = 13  # further descriptors that are open before the first watched one
SELECT_MOST_COUNT = SELECT_ROOM_COUNT - SELECT_SPARE_COUNT
SHORT_MOST_COUNT = 1000  # connections that come at once
FINEST_STEP = 1.5  # a map is refined until neighbouring counts differ by less than this factor
MAP_LEVELS_MOST_COUNT = 10
SAME = 1.10  # within this factor two costs are called the same
ALL = "100%"
MAP_ACTIVE = tuple(map(str, decades(1, 10_000)))
KEYS = ("workload", "mechanism", "watched_count")


@cache
def fitting_count() -> int:
    """How many descriptors one process may watch here, in hundreds; the wall is that of descriptors."""
    walls = [wall for wall in limits.walls() if wall.name in ("descriptors", "descriptors-system")]
    fixed = Needs(descriptors_count=OWN_DESCRIPTORS_COUNT, system_descriptors_count=OWN_DESCRIPTORS_COUNT)
    fits = limits.predict(Needs(descriptors_count=1, system_descriptors_count=1), fixed, walls).count
    return 10**7 if fits is None else max(fits // 100 * 100, 1)


def levels(asked: Sequence[int], mechanism: str, workload: str, active: Sequence[str]) -> list[int]:
    """The counts to watch: those that fit, the most that fits, and the first beyond, which becomes the wall's row."""
    within = sorted(count for count in asked if fits(count, mechanism, workload, active))
    beyond = sorted(set(asked) - set(within))
    most = _most(beyond[0], mechanism, workload, active) if beyond and not _is_select(mechanism) else None
    return [*dict.fromkeys([*within, *([most] if most else [])]), *beyond[:1]]


def fits(count: int, mechanism: str, workload: str, active: Sequence[str]) -> bool:
    """Whether so many can be watched here, with what the workload opens besides."""
    needs = make_cell(workload, mechanism, count, active).needs
    room = fitting_count() + OWN_DESCRIPTORS_COUNT
    return needs.descriptors_count <= room and needs.select_count <= SELECT_ROOM_COUNT


def _most(beyond: int, mechanism: str, workload: str, active: Sequence[str]) -> int | None:
    """The most that fits below a count that does not, in hundreds; None below a hundred."""
    start = min(beyond - 1, fitting_count()) // 100 * 100
    return next((count for count in range(start, 0, -100) if fits(count, mechanism, workload, active)), None)


def active_levels(asked: Sequence[str], watched: int, workload: str, mechanism: str) -> dict[int, str]:
    """Active count -> how it was asked for, ascending; what cannot be, or is the same as another, is left out.

    All of them are called that, 100%, also where a count asks for as many.
    """
    most = watched
    if workload == "short":
        room = (SELECT_MOST_COUNT - watched) // 2 if _is_select(mechanism) else SHORT_MOST_COUNT
        most = max(1, min(SHORT_MOST_COUNT, room))
    found: dict[int, str] = {}
    for text in asked:
        count = amount_of(text, watched)
        if count <= min(most, watched) and (text == ALL or count not in found):
            found[count] = text
    return dict(sorted(found.items()))


def make_cell(workload: str, mechanism: str, watched: int, active: Sequence[str]) -> Cell:
    """One mechanism that watches so many; all active counts are measured on the same set."""
    counts = active_levels(active, watched, workload, mechanism)
    extra = 2 * max(counts, default=0) if workload == "short" else 0
    needed = watched + watched % 2 + extra + OWN_DESCRIPTORS_COUNT
    needs = Needs(
        descriptors_count=needed,
        system_descriptors_count=needed,
        select_count=watched + watched % 2 + SELECT_SPARE_COUNT if _is_select(mechanism) else 0,
        watches_count=watched if "epoll" in mechanism or mechanism in LOOPS else 0,
        memory_bytes=(16 << 20) + 4096 * watched,
    )
    weight = 10 + watched / 200 + 25 * len(counts)
    return Cell({"workload": workload, "mechanism": mechanism, "watched_count": watched}, needs, weight)


def finer_levels(samples: Sequence[Samples], workload: str) -> list[int]:
    """Further counts to watch: between two neighbours at which different mechanisms are clearly the cheapest."""
    costs = pooled_costs(samples, workload)
    watched = sorted({count for _, count, _ in costs})
    room = MAP_LEVELS_MOST_COUNT - len(watched)
    gaps = [
        (low, high)
        for low, high in itertools.pairwise(watched)
        if high / low > FINEST_STEP and _changes_hands(costs, low, high)
    ]
    widest = sorted(gaps, key=lambda gap: gap[0] / gap[1])
    found = (_between(*gap) for gap in widest[: max(0, room)])
    return sorted(count for count in found if count not in watched)


def pooled_costs(samples: Sequence[Samples], workload: str) -> dict[tuple[str, int, str], float]:
    """(mechanism, watched, active as asked) -> nanoseconds per event, the median of launches."""
    launches: dict[tuple[str, int, str], list[float]] = {}
    for item in samples:
        if item.key["workload"] == workload:
            key = (str(item.key["mechanism"]), int(item.key["watched_count"]), str(item.key["active"]))
            launches.setdefault(key, []).append(cost_ns(item))
    return {key: statistics.median(values) for key, values in launches.items()}


def cost_ns(item: Samples) -> float:
    """Nanoseconds per delivered event of one launch: the median of its passes."""
    return statistics.median(item.values["pass"]) / float(item.facts["events_per_pass_count"] or 1)


def map_levels(asked: Sequence[int], usual: Sequence[Sequence[int]]) -> list[int]:
    """Where a map begins: what was named, else decades from the least to the most."""
    if tuple(asked) not in map(tuple, usual):
        return sorted(asked)
    low, high = min(asked), max(asked)
    return [count for count in decades(low, high) if count in (low, high) or str(count).startswith("1")]


def _changes_hands(costs: Mapping[tuple[str, int, str], float], low: int, high: int) -> bool:
    actives = {active for _, watched, active in costs if watched == low}
    return any(
        len({winner for count in (low, high) if (winner := _winner(costs, count, active, in_python))}) > 1
        for active in actives
        for in_python in (False, True)
    )


def _winner(costs: Mapping[tuple[str, int, str], float], watched: int, active: str, in_python: bool) -> str | None:
    found = {
        name: cost
        for (name, count, level), cost in costs.items()
        if (count, level) == (watched, active) and (name in PYTHON_MECHANISMS) == in_python
    }
    ordered = sorted(found, key=lambda name: found[name])
    is_clear = len(ordered) > 1 and found[ordered[1]] > SAME * found[ordered[0]]
    return ordered[0] if is_clear else None


def _between(low: int, high: int) -> int:
    """The geometric middle, to two digits."""
    middle = math.sqrt(low * high)
    step = 10 ** max(0, int(math.log10(middle)) - 1)
    return int(round(middle / step) * step)


def _is_select(mechanism: str) -> bool:
    return mechanism in ("select", "select.select")
