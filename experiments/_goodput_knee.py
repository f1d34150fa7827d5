"""The knee: the highest load, after a rush, of which 99 % is answered in time; searched by fresh launches.

Each launch is one trial: its capacity, and one load. The knee is the cut between loads that has the fewest trials on
its wrong side, so that one launch that was disturbed does not decide. The search goes on from what the launches of the
curve have found: outwards while all loads were carried or none, then between the two loads on either side of the cut,
and when these are near each other, once more at that of the two which has the fewer launches.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from c10k_probe import stats
from c10k_probe.experiment import Bench, Cell, Samples

from ._goodput_design import KNEE_SEARCH, GoodputParameters, search_weight
from ._goodput_measure import Launch

CARRIED_PCT: Final = 99.0  # of what was due, answered in time: the load is carried
FINEST_POINTS: Final = 3  # of capacity: two loads that are no further apart are next to each other
_OUTWARDS: Final = 1.15  # the next load is so many times as much, or as little
Way = tuple[str, str, str]  # model, work, keep_alive


class Trial(NamedTuple):
    """One launch with one load after a rush."""

    load_pct: float
    offered_per_s: float
    is_carried: bool


class Cut(NamedTuple):
    """The highest load on the lower side, and the lowest on the upper one."""

    below: float
    above: float

    @property
    def middle(self) -> float:
        """What is told as the knee."""
        return (self.below + self.above) / 2

    @property
    def is_inside(self) -> bool:
        """Whether there are loads on both sides."""
        return math.isfinite(self.below) and math.isfinite(self.above)


Points = Sequence[tuple[float, bool]]  # a load in any unit, and whether it was carried


# --- pure -------------------------------------------------------------------------------------------------------------


def trial_of(item: Samples) -> Trial | None:
    """What a launch says of the knee; None where it was no such trial, or where nothing was due."""
    rate, good = item.facts.get("offered_per_s"), item.facts.get("good_pct")
    if item.key["loop"] != KNEE_SEARCH or not isinstance(rate, (int, float)) or not isinstance(good, (int, float)):
        return None
    return Trial(float(item.key["load_pct"]), float(rate), good >= CARRIED_PCT)


def cut(points: Points) -> Cut:
    """Where the fewest are on the wrong side: not carried below it, carried above. Its ends are infinite beyond all.

    Where several places are as good, it reaches from the lowest to the highest of them.
    """
    tally: dict[float, int] = {}  # by load: how many more are wrong when the cut passes above it
    for load, is_carried in points:
        tally[load] = tally.get(load, 0) + (-1 if is_carried else 1)
    loads = sorted(tally)
    wrong_counts = list(itertools.accumulate((tally[load] for load in loads), initial=0))
    fewest = min(wrong_counts)
    lowest = wrong_counts.index(fewest)
    highest = len(loads) - wrong_counts[::-1].index(fewest)
    return Cut([-math.inf, *loads][lowest], [*loads, math.inf][highest])


@lru_cache(maxsize=256)  # of each way, whenever rows are reckoned
def interval(points: tuple[tuple[float, bool], ...], seed: int) -> stats.Interval | None:
    """The knee with its 95 % interval over launches, which is never narrower than the cut. None without a cut.

    Draws of launches in which all or none were carried say nothing of where it is, and are left out.
    """
    whole = cut(points)
    if not whole.is_inside:
        return None
    cuts = [found for draw in stats.draws_of(points, seed) if (found := cut(draw)).is_inside]
    if not cuts:
        return stats.Interval(whole.middle, None, None)
    lows, highs = sorted(found.below for found in cuts), sorted(found.above for found in cuts)
    tail = int(0.025 * (len(cuts) - 1))
    return stats.Interval(whole.middle, min(lows[tail], whole.below), max(highs[-1 - tail], whole.above))


def of_load(trials: Sequence[Trial]) -> tuple[tuple[float, bool], ...]:
    """By the load in percent of capacity."""
    return tuple((trial.load_pct, trial.is_carried) for trial in trials)


def of_rate(trials: Sequence[Trial]) -> tuple[tuple[float, bool], ...]:
    """By what was offered."""
    return tuple((trial.offered_per_s, trial.is_carried) for trial in trials)


def next_load(trials: Sequence[Trial]) -> int | None:
    """The load to be tried next, in percent of capacity; None when there is nothing to go on from."""
    if not trials:
        return None
    points = of_load(trials)
    found = cut(points)
    if math.isinf(found.above):
        return math.ceil(max(points)[0] * _OUTWARDS)
    if math.isinf(found.below):
        return max(1, math.floor(min(points)[0] / _OUTWARDS))
    if found.above - found.below > FINEST_POINTS:
        return round(found.middle)
    return round(min(found, key=lambda load: sum(other == load for other, _ in points)))


def evidence(trials: Sequence[Trial], found: Cut) -> str:
    """In how many launches the loads on both sides of the cut were carried."""
    words = []
    for load in filter(math.isfinite, found):
        carried = [trial.is_carried for trial in trials if trial.load_pct == load]
        words.append(f"at {load:.0f} % in {sum(carried)} of {len(carried)} launches")
    return f"{CARRIED_PCT:.0f} % in time {', '.join(words)}; {len(trials)} launches"


# --- the search -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SearchCell(Cell):
    """One way of serving whose knee is searched, and what is known of it."""

    trials: tuple[Trial, ...] = ()


def way_of(key: Mapping[str, str | int]) -> Way:
    """Of the key of a cell or of samples."""
    return str(key["model"]), str(key["work"]), str(key["keep_alive"])


def search_cells(parameters: GoodputParameters, cells: Sequence[Cell], samples: Sequence[Samples]) -> Iterator[Cell]:
    """One for each way that was tried."""
    for cell in cells:
        trials = [trial for item in samples if way_of(item.key) == way_of(cell.key) and (trial := trial_of(item))]
        if trials and parameters.knee_launches:
            key = {**cell.key, "loop": KNEE_SEARCH}
            yield SearchCell(key, cell.needs, search_weight(parameters), launches=1, trials=tuple(trials))


def search(parameters: GoodputParameters, cell: SearchCell, bench: Bench) -> Iterator[Samples]:
    """The launches of a search, in its first block. Raises ``native.HelperError``."""
    if bench.block:
        return
    trials = list(cell.trials)
    launch = Launch(parameters, cell, bench)
    for done, number in zip(range(parameters.knee_launches), itertools.count(bench.blocks_count), strict=False):
        load_pct = next_load(trials)
        if load_pct is None:
            return
        bench.progress(done, parameters.knee_launches, f"looking for the knee: {load_pct} % of capacity")
        item = launch.trial(load_pct, number)
        yield item
        if (trial := trial_of(item)) is not None:
            trials.append(trial)
