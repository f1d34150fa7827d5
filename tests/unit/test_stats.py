"""Statistics: answers worked out by hand, other people's code, and simulated data whose truth is known."""

from __future__ import annotations

import random
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c10k_probe import stats
from c10k_probe.stats import Grade, Interval

VALUES = st.floats(1, 1e9)
LAUNCHES = st.lists(st.lists(VALUES, min_size=1, max_size=8), min_size=1, max_size=12)


# --- quantiles ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "share", "expected"),
    [
        (range(1, 11), 0.5, 5.5),  # exactly five lie beyond
        (range(1, 10), 0.5, None),  # four and a half
        (range(1, 51), 0.9, 45.1),  # position 0.9 * 49 = 44.1, from 1
        (range(1, 50), 0.9, None),
        (range(1, 501), 0.99, 495.01),
        (range(1, 500), 0.99, None),
        (range(5000), 0.999, 4994.001),
        (range(4999), 0.999, None),
        ((), 0.5, None),
    ],
)
def test_quantile_known_answers(samples: range, share: float, expected: float | None) -> None:
    found = stats.quantile(samples, share)
    assert found == (None if expected is None else pytest.approx(expected, rel=1e-12))


@given(st.lists(VALUES, min_size=50, max_size=200))
def test_quantile_agrees_with_the_standard_library(samples: list[float]) -> None:
    deciles = statistics.quantiles(samples, n=10, method="inclusive")
    assert stats.quantile(samples, 0.9) == pytest.approx(deciles[8], rel=1e-9)


@pytest.mark.parametrize(("samples", "expected"), [((), None), ((3,), 3.0), ((4, 1, 3), 3.0), ((4, 1, 3, 2), 2.5)])
def test_median_known_answers(samples: tuple[int, ...], expected: float | None) -> None:
    assert stats.median(samples) == expected


# --- summaries ------------------------------------------------------------------------------------------------------


def test_summary_by_hand() -> None:
    """The median of the launches' medians 2, 20, 6 is 6; the median of all seven samples would be 3."""
    summary = stats.summarise([[1, 2, 3], [20], [], [2, 6, 7]], seed=1)
    assert summary is not None
    assert summary.p50 == Interval(6.0, None, None)
    assert (summary.minimum, summary.maximum, summary.samples_count) == (1, 20, 7)
    assert (summary.p90, summary.p99) == (None, None)


def test_summary_of_nothing_is_none() -> None:
    assert stats.summarise([], seed=1) is None
    assert stats.summarise([[], []], seed=1) is None


def test_nothing_is_dropped_from_the_tails() -> None:
    launches = [[10.0] * 99 + [1e9] for _ in range(6)]
    summary = stats.summarise(launches, seed=1)
    assert summary is not None
    assert summary.p50 == Interval(10.0, 10.0, 10.0)
    assert summary.maximum == 1e9
    assert summary.samples_count == 600
    assert summary.p99 == pytest.approx(np.quantile(np.concatenate(launches), 0.99))


@given(LAUNCHES, st.integers(0, 2**31 - 1))
@settings(deadline=None, max_examples=60)
def test_same_seed_same_summary(launches: list[list[float]], seed: int) -> None:
    assert stats.summarise(launches, seed) == stats.summarise(launches, seed)


@given(LAUNCHES, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=60)
def test_order_of_launches_and_samples_does_not_matter(launches: list[list[float]], shuffler: random.Random) -> None:
    """All but the interval's ends, which depend on which launch a random index means."""
    moved = [shuffler.sample(launch, len(launch)) for launch in shuffler.sample(launches, len(launches))]
    before, after = stats.summarise(launches, 7), stats.summarise(moved, 7)
    assert before is not None
    assert after is not None
    assert before.p50.middle == after.p50.middle
    assert (before.p90, before.p99, before.minimum, before.maximum, before.samples_count) == (
        after.p90,
        after.p99,
        after.minimum,
        after.maximum,
        after.samples_count,
    )
    assert (before.p50.low is None) == (after.p50.low is None) == (len(launches) < stats.MINIMUM_LAUNCHES)


@given(st.lists(VALUES, min_size=stats.MINIMUM_LAUNCHES, max_size=30), st.integers(0, 100))
@settings(deadline=None, max_examples=60)
def test_interval_holds_the_median_and_stays_within_the_data(medians: list[float], seed: int) -> None:
    interval = stats.median_interval(medians, seed)
    assert interval.low is not None
    assert interval.high is not None
    assert min(medians) <= interval.low <= interval.middle <= interval.high <= max(medians)


@given(st.lists(VALUES, min_size=5, max_size=20), st.sampled_from((2.0, 1024.0, 0.5)))
@settings(deadline=None, max_examples=40)
def test_interval_scales_with_the_data(medians: list[float], factor: float) -> None:
    """Factors are powers of two, so that the floating point is exact."""
    plain, scaled = stats.median_interval(medians, 3), stats.median_interval([value * factor for value in medians], 3)
    assert scaled.middle == plain.middle * factor
    assert (scaled.low, scaled.high) == (pytest.approx(plain.low * factor), pytest.approx(plain.high * factor))


def test_median_interval_against_a_bootstrap_written_differently() -> None:
    """Plain Python, its own random numbers: the ends agree within what resampling noise allows."""
    source = random.Random(5)
    medians = [source.gauss(100, 10) for _ in range(25)]
    resampled = sorted(statistics.median(source.choices(medians, k=25)) for _ in range(8000))
    interval = stats.median_interval(medians, seed=5)
    assert interval.middle == statistics.median(medians)
    assert interval.low == pytest.approx(resampled[200], abs=1.0)
    assert interval.high == pytest.approx(resampled[7800], abs=1.0)


def test_bootstrap_interval_covers_the_truth_about_95_times_in_100() -> None:
    """800 simulated runs of 20 launches around a known median; a fixed seed, so this never flickers."""
    generator = np.random.default_rng(20_250_101)
    covered = 0
    for number, launches in enumerate(generator.lognormal(mean=0.0, sigma=0.3, size=(800, 20))):
        interval = stats.median_interval(launches.tolist(), seed=number)
        assert interval.low is not None
        assert interval.high is not None
        covered += interval.low <= 1.0 <= interval.high
    assert 0.92 <= covered / 800 <= 0.98


# --- ratios of blocks -----------------------------------------------------------------------------------------------


def test_ratio_by_hand_without_interval() -> None:
    arm = {0: [10.0, 20.0, 30.0], 1: [40.0]}
    base = {0: [5.0], 1: [10.0, 20.0]}
    # medians 20, 40 over 5, 15: 30 / 10
    assert stats.paired_ratio(arm, base, 1) == Interval(3.0, None, None)


def test_only_blocks_with_both_arms_count() -> None:
    paired = {block: [float(block + 1)] for block in range(6)}
    arm = {**{block: [2 * values[0]] for block, values in paired.items()}, 10: [1e9], 11: [1e9], 12: []}
    base = {**paired, 12: [1e-9], 20: [1e-9]}
    assert stats.paired_ratio(arm, base, 1) == Interval(2.0, 2.0, 2.0)


def test_no_ratio_without_a_common_block_or_with_a_base_of_zero() -> None:
    assert stats.paired_ratio({}, {}, 1) is None
    assert stats.paired_ratio({0: [1.0]}, {1: [1.0]}, 1) is None
    assert stats.paired_ratio({0: [1.0]}, {0: []}, 1) is None
    assert stats.paired_ratio({0: [1.0]}, {0: [0.0]}, 1) is None


@given(st.lists(st.floats(0.1, 100), min_size=5, max_size=25), st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_drift_between_blocks_cancels(drift: list[float], seed: int) -> None:
    """However the machine drifts, an arm that is always three times the base is exactly that."""
    base = {block: [factor * 10.0] for block, factor in enumerate(drift)}
    arm = {block: [factor * 30.0] for block, factor in enumerate(drift)}
    ratio = stats.paired_ratio(arm, base, seed)
    assert ratio is not None
    assert (ratio.middle, ratio.low, ratio.high) == (pytest.approx(3), pytest.approx(3), pytest.approx(3))


@given(st.integers(0, 99), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=30)
def test_ratio_does_not_depend_on_the_order_in_which_blocks_were_stored(seed: int, shuffler: random.Random) -> None:
    arm = {block: [100.0 + shuffler.random() * 9] for block in range(12)}
    base = {block: [50.0 + shuffler.random() * 9] for block in range(12)}
    order = shuffler.sample(range(12), 12)
    moved = {block: arm[block] for block in order}
    assert stats.paired_ratio(moved, base, seed) == stats.paired_ratio(arm, base, seed)


def test_ratio_interval_covers_the_truth_under_drift() -> None:
    """Blocks drift by a factor of up to 2; the true ratio is 1.5. Drift makes the interval wider, never too narrow."""
    generator = np.random.default_rng(77)
    covered = 0
    for number in range(400):
        drift = generator.uniform(1, 2, 20)
        below = drift * generator.lognormal(0, 0.1, 20)
        above = 1.5 * drift * generator.lognormal(0, 0.1, 20)
        ratio = stats.paired_ratio({i: [v] for i, v in enumerate(above)}, {i: [v] for i, v in enumerate(below)}, number)
        assert ratio is not None
        assert ratio.low is not None
        assert ratio.high is not None
        covered += ratio.low <= 1.5 <= ratio.high
    assert covered / 400 >= 0.92


# --- slopes ---------------------------------------------------------------------------------------------------------


def test_slope_of_an_exact_line() -> None:
    x = [1, 10, 100, 1000, 10_000]
    assert stats.slope(x, [7 + 3 * value for value in x]) == Interval(3.0, 3.0, 3.0)


def test_slope_ignores_outliers() -> None:
    x = list(range(0, 1000, 50))
    y = [5 + 2.0 * value for value in x]
    y[3], y[11], y[17] = 1e6, -1e6, 1e6
    found = stats.slope(x, y)
    assert found is not None
    assert found.middle == pytest.approx(2.0)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= 2.0 <= found.high


def test_slope_by_hand_weighs_pairs_by_distance() -> None:
    """Pairs (slope, weight): (10, 1), (1, 9), (1.9, 10): half of the weight 20 is reached within 1.9; unweighted too.

    Points (0, 0), (1, 1), (3, 0): slopes 1 (weight 1), -0.5 (2), 0 (3): the weighted median is 0.
    """
    assert stats.slope([0, 1, 10], [0, 10, 19]) == Interval(1.9, None, None)
    assert stats.slope([0, 1, 3], [0, 1, 0]) == Interval(0.0, None, None)


def test_slope_of_a_geometric_ramp_with_page_rounding() -> None:
    """100 bytes each, seen in whole pages of 4096: small steps say 0 or far too much; the large ones decide."""
    ramp = [10 * 2**step for step in range(11)]
    pages = [-(-100 * count // 4096) * 4096 for count in ramp]
    found = stats.slope(ramp, pages)
    assert found is not None
    assert found.middle == pytest.approx(100, rel=0.02)


@pytest.mark.parametrize(("x", "y"), [([], []), ([1], [1]), ([5, 5, 5], [1, 2, 3])])
def test_no_slope_under_two_different_x(x: list[float], y: list[float]) -> None:
    assert stats.slope(x, y) is None


def test_no_interval_under_five_points() -> None:
    four, five = stats.slope(range(4), range(4)), stats.slope(range(5), range(5))
    assert four == Interval(1.0, None, None)
    assert five == Interval(1.0, 1.0, 1.0)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(-(10**9), 10**9)), min_size=2, max_size=20), st.data())
@settings(deadline=None)
def test_slope_does_not_depend_on_the_order_of_points(points: list[tuple[int, int]], data: st.DataObject) -> None:
    moved = data.draw(st.permutations(points))
    assert stats.slope(*zip(*moved, strict=True)) == stats.slope(*zip(*points, strict=True))


@pytest.mark.parametrize("x", [[100.0 * step for step in range(1, 13)], [10.0 * 2**step for step in range(10)]])
def test_slope_interval_covers_the_truth(x: list[float]) -> None:
    """Noise of the same size at every point, over an even and over a geometric ramp: 95 %, give or take."""
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(500):
        found = stats.slope(x, 4.0 * np.asarray(x) + generator.normal(0, 50, len(x)))
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 4.0 <= found.high
    assert covered / 500 >= 0.91


# --- grades ---------------------------------------------------------------------------------------------------------


def test_relative_half_width() -> None:
    assert Interval(100, 90, 112).relative_half_width == pytest.approx(0.11)
    assert Interval(-100, -112, -90).relative_half_width == pytest.approx(0.11)
    assert Interval(100, None, None).relative_half_width is None
    assert Interval(0, -1, 1).relative_half_width is None


@pytest.mark.parametrize(
    ("interval", "level", "words"),
    [
        (Interval(100, 96, 104), "ok", ""),
        (Interval(100, 95, 105), "ok", ""),
        (Interval(100, 90, 110), "shaky", "cycle: interval is ±10 %"),
        (Interval(100, None, None), "shaky", "cycle: "),
    ],
)
def test_grade_of_an_interval(interval: Interval, level: str, words: str) -> None:
    grade = stats.grade_interval(interval, "cycle")
    assert grade.level == level
    assert words in grade.reason


def test_grades_add_up() -> None:
    grade = Grade().worse("shaky", "few").worse("ok", "").worse("void", "lost").worse("shaky", "wide")
    assert grade == Grade("void", "few; lost; wide")
    assert Grade().worse("ok", "") == Grade()


@given(st.lists(st.sampled_from(("ok", "shaky", "void")), max_size=6))
def test_a_grade_never_gets_better(levels: list[str]) -> None:
    order = ("ok", "shaky", "void")
    grade = Grade()
    for number, level in enumerate(levels):
        lowered = grade.worse(level, f"r{number}")
        assert order.index(lowered.level) == max(order.index(grade.level), order.index(level))
        assert lowered.reason.endswith(f"r{number}")
        grade = lowered
    assert grade.reason == "; ".join(f"r{number}" for number in range(len(levels)))


def test_draws_are_with_replacement_and_follow_from_the_seed() -> None:
    items = list("abcde")
    drawn = list(stats.draws_of(items, 3))
    assert len(drawn) == stats.RESAMPLES
    assert all(len(draw) == len(items) and set(draw) <= set(items) for draw in drawn)
    assert any(len(set(draw)) < len(items) for draw in drawn)
    assert drawn == list(stats.draws_of(items, 3)) != list(stats.draws_of(items, 4))
    assert list(stats.draws_of(items[:4], 3)) == []  # as few as say nothing


def test_an_interval_needs_every_launch_and_a_median_what_is_known() -> None:
    values = [3.0, 1.0, 2.0, 5.0, 4.0]
    assert stats.interval_of_all(iter(values), 1) == stats.median_interval(values, 1)
    assert stats.interval_of_all([*values, None], 1) is None
    assert stats.interval_of_all([], 1) is None
    assert stats.median_of_known([None, 4.0, 2.0]) == 3.0
    assert stats.median_of_known([None]) is None
