"""Statistics: quantiles, intervals, ratios of interleaved blocks, slopes and grades. Pure: numbers in, numbers out.

The unit of replication is one fresh process launch. A median is the median of the launches' medians, and its 95 %
interval is a percentile bootstrap over launches (Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, ch. 13);
samples within one launch share a memory layout and are not independent. p90, p99, minimum and maximum pool all samples,
because tails are about single operations. Nothing is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RESAMPLES: Final = 2000
RANK_DRAWS: Final = 4000
MINIMUM_LAUNCHES: Final = 5  # below this a bootstrap over launches says nothing
SAMPLES_BEYOND: Final = 5  # a quantile is given when at least this many samples lie beyond it
SHAKY_RELATIVE_HALF_WIDTH: Final = 0.05

ItemT = TypeVar("ItemT")


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval; ``low`` and ``high`` are None when there are too few launches."""

    middle: float
    low: float | None
    high: float | None

    @property
    def relative_half_width(self) -> float | None:
        """Half the interval's width over its middle; None without an interval."""
        if self.low is None or self.high is None or self.middle == 0:
            return None
        return (self.high - self.low) / 2 / abs(self.middle)


@dataclass(frozen=True)
class Summary:
    """One distribution: median with interval, tails (None when the samples do not support them), extremes, count."""

    p50: Interval
    p90: float | None
    p99: float | None
    minimum: float
    maximum: float
    samples_count: int


@dataclass(frozen=True)
class Grade:
    """How far a number may be trusted: ``ok``, ``shaky`` (shown, with care) or ``void`` (never ranked)."""

    level: str = "ok"
    reason: str = ""

    def worse(self, level: str, reason: str) -> Grade:
        """This grade lowered to ``level`` when that is worse; reasons add up."""
        order = ("ok", "shaky", "void")
        lowest = max(self.level, level, key=order.index)
        return Grade(lowest, "; ".join(part for part in (self.reason, reason) if part))


def quantile(samples: Sequence[float], share: float) -> float | None:
    """The ``share`` quantile (linear interpolation), or None when under five samples lie beyond it."""
    import numpy as np

    if len(samples) * (1 - share) < SAMPLES_BEYOND - 1e-9:
        return None
    return float(np.quantile(np.asarray(samples, dtype=np.float64), share))


def median(samples: Sequence[float]) -> float | None:
    """The median of any number of samples; None of none."""
    import numpy as np

    return float(np.median(np.asarray(samples, dtype=np.float64))) if len(samples) else None


def summarise(launches: Sequence[Sequence[float]], seed: int) -> Summary | None:
    """The distribution of samples that came from separate launches; None when there is no sample at all."""
    import numpy as np

    filled = [launch for launch in launches if len(launch)]
    if not filled:
        return None
    pooled = np.concatenate([np.asarray(launch, dtype=np.float64) for launch in filled])
    return Summary(
        p50=median_interval(_medians(filled), seed),
        p90=quantile(pooled.tolist(), 0.90),
        p99=quantile(pooled.tolist(), 0.99),
        minimum=float(pooled.min()),
        maximum=float(pooled.max()),
        samples_count=int(pooled.size),
    )


def median_interval(launch_medians: Sequence[float], seed: int) -> Interval:
    """The median of per-launch medians with a bootstrap interval over launches."""
    import numpy as np

    values = np.asarray(launch_medians, dtype=np.float64)
    middle = float(np.median(values))
    if values.size < MINIMUM_LAUNCHES:
        return Interval(middle, None, None)
    resampled = np.median(values[_draws(values.size, seed)], axis=1)
    low, high = np.quantile(resampled, (0.025, 0.975))
    return Interval(middle, float(low), float(high))


def interval_of_all(launch_values: Iterable[float | None], seed: int) -> Interval | None:
    """``median_interval`` of one value per launch; None unless every launch has it: a part would pass for the whole."""
    values = list(launch_values)
    known = [value for value in values if value is not None]
    return median_interval(known, seed) if known and len(known) == len(values) else None


def median_of_known(values: Iterable[float | None]) -> float | None:
    """The median of the values that are known; None when none is."""
    return median([value for value in values if value is not None])


def paired_ratio(arm: Mapping[int, Sequence[float]], base: Mapping[int, Sequence[float]], seed: int) -> Interval | None:
    """Ratio of medians ``arm / base`` with an interval from resampling *blocks*.

    Both arms map block number -> samples of the launch in that block. Only blocks that hold both arms count, so that
    drift between blocks cancels. None when no block holds both or the base's median is 0.
    """
    import numpy as np

    blocks = sorted(block for block in arm.keys() & base.keys() if len(arm[block]) and len(base[block]))
    if not blocks:
        return None
    above = np.asarray(_medians([arm[block] for block in blocks]))
    below = np.asarray(_medians([base[block] for block in blocks]))
    if float(np.median(below)) == 0:
        return None
    middle = float(np.median(above) / np.median(below))
    if len(blocks) < MINIMUM_LAUNCHES or (below <= 0).any():
        return Interval(middle, None, None)
    draws = _draws(len(blocks), seed)
    ratios = np.median(above[draws], axis=1) / np.median(below[draws], axis=1)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return Interval(middle, float(low), float(high))


def draws_of(items: Sequence[ItemT], seed: int) -> Iterator[list[ItemT]]:
    """``RESAMPLES`` draws with replacement, as many as there are items each; none of fewer than five items."""
    if len(items) >= MINIMUM_LAUNCHES:
        for indices in _draws(len(items), seed).tolist():
            yield [items[index] for index in indices]


def slope(x: Sequence[float], y: Sequence[float]) -> Interval | None:
    """Theil-Sen slope of ``y`` on ``x``, each pair of points weighted by its distance in x, with its 95 % interval.

    The weights matter because a ramp is geometric: without them the many small steps, where page rounding is all
    there is, would outvote the large ones. None under two different x; no interval under five points.
    Source: Sen 1968 (JASA 63); weights after Jaeckel 1972 (Annals of Mathematical Statistics 43).
    """
    import numpy as np

    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    first, second = np.triu_indices(xs.size, 1)
    distance = xs[second] - xs[first]
    usable = distance != 0
    if not usable.any():
        return None
    slopes = (ys[second] - ys[first])[usable] / distance[usable]
    weights = np.abs(distance[usable])
    middle = _weighted_quantile(slopes, weights, 0.5)
    if xs.size < MINIMUM_LAUNCHES:
        return Interval(middle, None, None)
    half = _half_width(xs)
    return Interval(
        middle,
        _weighted_quantile(slopes, weights, 0.5 - half),
        _weighted_quantile(slopes, weights, 0.5 + half),
    )


def grade_interval(interval: Interval | None, what: str) -> Grade:
    """``shaky`` when the value or its interval is missing, or when the interval is wider than plus or minus 5 %."""
    if interval is None:
        return Grade("shaky", f"{what}: could not be measured")
    half = interval.relative_half_width
    if half is None and interval.low is not None:
        return Grade("shaky", f"{what}: the middle is 0, which no width can be compared with")
    if half is None:
        return Grade("shaky", f"{what}: too few measurements for an interval")
    if half > SHAKY_RELATIVE_HALF_WIDTH:
        return Grade("shaky", f"{what}: interval is ±{half * 100:.0f} %")
    return Grade()


def _half_width(xs: NDArray[np.float64]) -> float:
    """Half-width of the slope's 95 % interval as a share of the pairs' whole weight.

    With weights |xj - xi| the statistic is S = sum of xi (2 Ri - n - 1), R the ranks of the residuals. Its distribution
    when the slope is true is that of random ranks, drawn here; no normal approximation, which would be wrong where one
    x dwarfs the others.
    """
    import numpy as np

    xs = np.sort(xs)  # the same for every order of the points
    ranks = np.argsort(np.random.default_rng(0).random((RANK_DRAWS, xs.size)), axis=1) + 1
    statistic = np.abs((2 * ranks - xs.size - 1) @ xs)
    weight = float(np.abs(xs[:, None] - xs[None, :]).sum() / 2)
    return float(min(0.5, np.quantile(statistic, 0.95, method="higher") / 2 / weight))


def _weighted_quantile(values: NDArray[np.float64], weights: NDArray[np.float64], share: float) -> float:
    """The smallest value at which the cumulated weight reaches ``share`` of the whole."""
    import numpy as np

    order = np.argsort(values, kind="stable")
    cumulated = np.cumsum(weights[order])
    index = int(np.searchsorted(cumulated, share * cumulated[-1]))
    return float(values[order][min(index, values.size - 1)])


def _medians(launches: Sequence[Sequence[float]]) -> list[float]:
    """The median of each launch."""
    import numpy as np

    return [float(np.median(np.asarray(launch, dtype=np.float64))) for launch in launches]


def _draws(size: int, seed: int) -> NDArray[np.int64]:
    """Index matrix of ``RESAMPLES`` draws with replacement, the same for the same seed."""
    import numpy as np

    return np.random.default_rng(seed).integers(0, size, (RESAMPLES, size))
