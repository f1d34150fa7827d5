"""The knee: the highest load, after a rush, of which 99 % is answered in time; tried in every launch, and searched.

A launch tries several loads. The knee is the cut between loads that has the fewest trials on its wrong side, so that
one that was disturbed does not decide. Where it lies outside of all that was tried, or its interval is wider than 5 %
on each side, further launches try loads beyond, or between the ends of the interval.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from c10k_probe import stats
from c10k_probe.experiment import Bench, Cell, Samples

from ._goodput_design import KNEE_SEARCH, GoodputParameters, search_weight
from ._goodput_measure import Launch

CARRIED_PCT: Final = 99.0  # of what was due, answered in time: the load is carried
_UPWARDS, _DOWNWARDS = (1.05, 1.12, 1.2, 1.3, 1.4), (0.95, 0.88, 0.8, 0.7, 0.6)  # of the highest, or the lowest load
_BETWEEN_COUNT: Final = 6  # loads of a launch where the knee lies between two
Way = tuple[str, str, str]  # model, work, keep_alive


class Trial(NamedTuple):
    """One load after a rush."""

    launch: int
    load_pct: float
    offered_per_s: float  # that share of the launch's capacity
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


Points = tuple[tuple[float, bool], ...]  # loads in any unit, and whether each was carried


# --- pure -------------------------------------------------------------------------------------------------------------


def trial_of(item: Samples) -> Trial | None:
    """What a step says of the knee; None where it was no trial, or where nothing was due."""
    capacity, good = item.facts.get("capacity_per_s"), item.facts.get("good_pct")
    if item.key["loop"] != KNEE_SEARCH or not isinstance(capacity, (int, float)) or not isinstance(good, (int, float)):
        return None
    load_pct = int(item.key["load_pct"])
    return Trial(item.block, load_pct, capacity * load_pct / 100, good >= CARRIED_PCT)


def cut(points: Iterable[tuple[float, bool]]) -> Cut:
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
def interval(launches: tuple[Points, ...], seed: int) -> stats.Interval | None:
    """The knee with its 95 % interval over launches, which is never narrower than the cut. None without a cut.

    Draws of launches in which all loads or none were carried say nothing of where it is, and are left out.
    """
    whole = cut(itertools.chain(*launches))
    if not whole.is_inside:
        return None
    draws = stats.draws_of(launches, seed)
    cuts = [found for draw in draws if (found := cut(itertools.chain(*draw))).is_inside]
    if not cuts:
        return stats.Interval(whole.middle, None, None)
    lows, highs = sorted(found.below for found in cuts), sorted(found.above for found in cuts)
    tail = int(0.025 * (len(cuts) - 1))
    return stats.Interval(whole.middle, min(lows[tail], whole.below), max(highs[-1 - tail], whole.above))


def of_load(trials: Iterable[Trial]) -> tuple[Points, ...]:
    """By launch, and in it by the load in percent of capacity."""
    return _by_launch((trial.launch, trial.load_pct, trial.is_carried) for trial in trials)


def of_rate(trials: Iterable[Trial]) -> tuple[Points, ...]:
    """By launch, and in it by what was offered."""
    return _by_launch((trial.launch, trial.offered_per_s, trial.is_carried) for trial in trials)


def _by_launch(values: Iterable[tuple[int, float, bool]]) -> tuple[Points, ...]:
    found: dict[int, Points] = {}
    for launch, load, is_carried in values:
        found[launch] = (*found.get(launch, ()), (load, is_carried))
    return tuple(found[launch] for launch in sorted(found))


def next_loads(trials: Sequence[Trial], seed: int) -> list[int]:
    """The loads to be tried next, in percent of capacity; empty where the knee is known within 5 %."""
    if not trials:
        return []
    loads = [trial.load_pct for trial in trials]
    found = cut(itertools.chain(*of_load(trials)))
    if not found.is_inside:
        end, factors = (max(loads), _UPWARDS) if math.isinf(found.above) else (min(loads), _DOWNWARDS)
        return sorted({max(1, round(end * factor)) for factor in factors} - {*map(round, loads)})
    known = interval(of_load(trials), seed)
    half_ratio = known.relative_half_width if known else None
    if half_ratio is not None and half_ratio <= stats.SHAKY_RELATIVE_HALF_WIDTH:
        return []
    low, high = (known.low, known.high) if known and known.low and known.high else found
    parts = range(_BETWEEN_COUNT)
    return sorted({max(1, round(low - 1 + (high - low + 2) * part / (_BETWEEN_COUNT - 1))) for part in parts})


def evidence(trials: Sequence[Trial], found: Cut) -> str:
    """In how many launches the loads on both sides of the cut were carried."""
    words = []
    for load in filter(math.isfinite, found):
        carried = [trial.is_carried for trial in trials if trial.load_pct == load]
        words.append(f"at {load:.0f} % in {sum(carried)} of {len(carried)} trials")
    launches_count = len({trial.launch for trial in trials})
    return f"{CARRIED_PCT:.0f} % in time {', '.join(words)}; {len(trials)} trials in {launches_count} launches"


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
    for done in range(parameters.knee_launches):
        loads = next_loads(trials, bench.seed)
        if not loads:
            return
        words = ", ".join(map(str, loads))
        bench.progress(done, parameters.knee_launches, f"looking for the knee: {words} % of capacity")
        for item in launch.trials(loads, bench.blocks_count + done):
            yield item
            if (trial := trial_of(item)) is not None:
                trials.append(trial)
