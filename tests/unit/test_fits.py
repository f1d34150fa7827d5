"""Cost models: known planes are found again, intervals cover, and a prediction says what it does not know."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c10k_probe import fits
from c10k_probe.fits import Fit, Point, Residual, fit, from_record, student_quantile
from c10k_probe.stats import Interval

TERMS = ("rss_mib", "mappings")
TRUE = (40_000.0, 5_000.0, 30.0)  # constant, per MiB, per mapping; ns
DESIGN = tuple(product((0.0, 1.0, 16.0, 128.0), (0.0, 100.0, 1000.0)))


def plane(terms: Sequence[float], coefficients: Sequence[float] = TRUE) -> float:
    return coefficients[0] + sum(factor * value for factor, value in zip(coefficients[1:], terms, strict=True))


def points_of(
    noise: float = 0.0, launches: int = 20, seed: int = 0, coefficients: Sequence[float] = TRUE
) -> list[Point]:
    """Launches whose medians lie about the plane, relatively by ``noise`` (standard deviation of the logarithm)."""
    generator = np.random.default_rng(seed)
    return [
        Point(terms, tuple(plane(terms, coefficients) * np.exp(generator.normal(0, noise, launches))))
        for terms in DESIGN
    ]


def fitted(points: Sequence[Point], terms: Sequence[str] = TERMS, seed: int = 1) -> Fit:
    model = fit("creation fork dynamic", "return_ns", terms, points, seed)
    assert model is not None
    return model


def middles(model: Fit) -> list[float]:
    return [item.middle for item in model.coefficients]


# --- what is found --------------------------------------------------------------------------------------------------


def test_a_plane_without_noise_is_found_exactly() -> None:
    model = fitted(points_of())
    assert middles(model) == pytest.approx(TRUE, rel=1e-9)
    for item, true in zip(model.coefficients, TRUE, strict=True):
        assert (item.low, item.high) == pytest.approx((true, true), rel=1e-9)
    assert model.r_squared == pytest.approx(1)
    assert model.scatter == pytest.approx(0, abs=1e-9)
    assert (model.name, model.response, model.terms) == ("creation fork dynamic", "return_ns", TERMS)
    assert (model.points_count, model.highest) == (len(DESIGN), (128, 1000))


@settings(deadline=None, max_examples=15)
@given(
    st.floats(1e3, 1e6),
    st.floats(0, 1e5),
    st.floats(0, 1e3),
)
def test_any_plane_without_noise_is_found(constant: float, per_mib: float, per_mapping: float) -> None:
    true = (constant, per_mib, per_mapping)
    assert middles(fitted(points_of(launches=1, coefficients=true))) == pytest.approx(true, rel=1e-6, abs=1e-5)


def test_a_plane_with_noise_is_found_nearly() -> None:
    model = fitted(points_of(noise=0.03))
    assert middles(model) == pytest.approx(TRUE, rel=0.05)
    for item in model.coefficients:
        assert item.low is not None and item.high is not None
        assert item.low < item.middle < item.high
    assert model.r_squared > 0.99
    assert 0.001 < model.scatter < 0.03
    assert len(model.residuals) == len(DESIGN)


def test_a_relative_error_counts_the_same_at_every_size() -> None:
    """The answer is that of the normal equations with weights 1 / value squared, written out here another way."""
    points = points_of(noise=0.2, launches=3)
    y = np.array([np.median(point.medians) for point in points])
    x = np.array([[1.0, *point.terms] for point in points])
    weights = np.diag(1 / y**2)
    expected = np.linalg.solve(x.T @ weights @ x, x.T @ weights @ y)
    assert middles(fitted(points)) == pytest.approx(list(expected), rel=1e-8)


def test_what_is_wrong_with_the_largest_hardly_moves_the_constant() -> None:
    """20 % more on the point of 710 µs are 142 µs; unweighted, they would bury a constant of 40 µs."""
    points = points_of(launches=1)
    points[-1] = Point(points[-1].terms, tuple(value * 1.2 for value in points[-1].medians))
    assert middles(fitted(points))[0] == pytest.approx(TRUE[0], rel=0.05)


def test_r_squared_and_scatter_follow_from_the_residuals() -> None:
    points = points_of(noise=0.1, launches=5)
    model = fitted(points)
    values = [float(np.median(point.medians)) for point in points]
    predicted = [plane(point.terms, middles(model)) for point in points]
    mean = sum(values) / len(values)
    left = sum((value - guess) ** 2 for value, guess in zip(values, predicted, strict=True))
    assert model.r_squared == pytest.approx(1 - left / sum((value - mean) ** 2 for value in values))
    relative = [(value - guess) / value for value, guess in zip(values, predicted, strict=True)]
    assert [item.share for item in model.residuals] == pytest.approx(relative)
    freedom = len(DESIGN) - len(TRUE)  # three coefficients were fitted to them
    assert model.scatter == pytest.approx(math.sqrt(sum(item**2 for item in relative) / freedom))


def test_the_cell_that_lies_farthest_off_is_named() -> None:
    points = [Point(terms, (plane(terms),), f"cell {index}") for index, terms in enumerate(DESIGN)]
    points[5] = Point(points[5].terms, (1.5 * points[5].medians[0],), "the odd one")
    model = fitted(points)
    assert model.worst is not None
    assert model.worst.cell == "the odd one"
    assert model.worst.share > 0.2  # measured more than modelled
    assert [item.cell for item in model.residuals] == [point.cell for point in points]
    assert BY_HAND.worst is None


# --- terms and points -----------------------------------------------------------------------------------------------


def test_a_term_that_never_varied_is_left_out() -> None:
    """Also one that was always the same and not 0: nothing tells it from the constant."""
    points = [Point((terms[0], 7.0, terms[1], 0.0), (plane(terms),)) for terms in DESIGN]
    model = fitted(points, ("rss_mib", "alive", "mappings", "descriptors"))
    assert model.terms == TERMS
    assert middles(model) == pytest.approx(TRUE)
    assert model.highest == (128, 1000)
    assert len(model.covariance) == len(model.coefficients) == 3


def test_without_any_term_the_model_is_a_constant() -> None:
    model = fitted([Point((0.0,), (5.0, 6.0, 7.0)), Point((0.0,), (6.0,))], ("rss_mib",))
    assert (model.terms, middles(model)) == ((), [pytest.approx(6)])
    assert len(model.covariance) == 1
    assert model.r_squared == 0
    assert model.predict({"rss_mib": 5}).middle == pytest.approx(6)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_no_model_without_more_points_than_coefficients(count: int) -> None:
    """A line through two points has no residual, and would say that it is certain."""
    points = [Point((float(number),), (100.0 + number,)) for number in range(count)]
    assert fit("a b c", "return_ns", ("mappings",), points, 1) is None
    more = [Point((float(number),), (100.0 + number,)) for number in range(3)]
    assert fit("a b c", "return_ns", ("mappings",), more, 1) is not None


def test_cells_without_launches_are_no_points() -> None:
    points = points_of()
    empty = [Point((256.0, 9000.0), ()), Point((512.0, 0.0), ())]
    model = fitted([*empty, *points])
    assert model == fitted(points)
    assert fit("a b c", "return_ns", TERMS, empty * 5, 1) is None


def test_the_same_seed_gives_the_same_model() -> None:
    points = points_of(noise=0.05)
    assert fitted(points, seed=3) == fitted(points, seed=3)
    other = fitted(points, seed=4)
    assert middles(other) == middles(fitted(points, seed=3))
    assert other.coefficients != fitted(points, seed=3).coefficients


# --- intervals ------------------------------------------------------------------------------------------------------


def off_the_plane(points: Sequence[Point], share: float, seed: int) -> list[Point]:
    """Each cell's launches together off the plane, as where the true cost is no plane."""
    factors = np.exp(np.random.default_rng(seed).normal(0, share, len(points)))
    return [
        Point(point.terms, tuple(value * factor for value in point.medians))
        for point, factor in zip(points, factors, strict=True)
    ]


def covered_share(monkeypatch: pytest.MonkeyPatch, launches: int, noise: float, off: float) -> float:
    """How often intervals of all coefficients hold the truth. Fixed seeds."""
    monkeypatch.setattr(fits, "RESAMPLES", 200)
    covered = []
    for seed in range(60):
        points = off_the_plane(points_of(noise, launches, seed), off, 1000 + seed)
        covered += [
            (item.low or 0) <= true <= (item.high or 0)
            for item, true in zip(fitted(points, seed=seed).coefficients, TRUE, strict=True)
        ]
    return sum(covered) / len(covered)


def test_intervals_cover_the_truth_where_launches_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """95 % asked for; as the noise of launches stands in the residuals too, it is rather more."""
    assert covered_share(monkeypatch, 20, 0.05, 0.0) >= 0.95


@pytest.mark.parametrize("launches", [1, 20])
def test_intervals_cover_the_truth_where_the_cells_lie_off_the_model(
    monkeypatch: pytest.MonkeyPatch, launches: int
) -> None:
    """Launches of a cell agree, and the model does not hold: an interval of launches alone would be of no width."""
    assert covered_share(monkeypatch, launches, 0.001, 0.1) >= 0.88


def test_a_curved_cost_gives_wide_coefficients() -> None:
    """18 µs a MiB at first and 26 at last, as page tables leave the caches; launches agree."""
    sizes = (0.0, 1.0, 4.0, 16.0, 64.0, 128.0)

    def model(curve: float) -> Fit:
        points = [Point((size,), (40_000 + size * (18_000 + curve * size),) * 20) for size in sizes]
        return fitted(points, ("rss_mib",))

    straight, curved = model(0).coefficients[1], model(60).coefficients[1]
    assert (straight.low, straight.high) == pytest.approx((18_000, 18_000))
    assert curved.low is not None and curved.high is not None
    assert curved.high - curved.low > 2000
    assert model(60).scatter > 0.03


@pytest.mark.parametrize(("freedom", "true"), [(3, 3.182), (5, 2.571), (10, 2.228), (30, 2.042), (10**6, 1.960)])
def test_students_quantile(freedom: int, true: float) -> None:
    assert student_quantile(freedom) == pytest.approx(true, rel=0.01)


def test_more_launches_give_narrower_intervals() -> None:
    def widths(launches: int) -> list[float]:
        model = fitted(points_of(noise=0.05, launches=launches))
        return [(item.high or 0) - (item.low or 0) for item in model.coefficients]

    assert all(many < 0.6 * few for many, few in zip(widths(90), widths(10), strict=True))


# --- predictions ----------------------------------------------------------------------------------------------------

BY_HAND = Fit(
    name="creation fork dynamic",
    response="return_ns",
    terms=("rss_mib", "mappings"),
    coefficients=(Interval(100.0, 90.0, 110.0), Interval(10.0, 9.0, 11.0), Interval(1.0, 0.5, 1.5)),
    covariance=((4.0, 1.0, 0.0), (1.0, 2.0, 0.0), (0.0, 0.0, 1.0)),
    highest=(128.0, 1000.0),
    r_squared=0.99,
    scatter=0.1,
    points_count=12,
)


def test_a_prediction_by_hand() -> None:
    """x = (1, 3, 5): 100 + 30 + 5 = 135; variance 4 + 2*3*1 + 9*2 + 25*1 = 53, scatter (0.1 * 135)² = 182.25.

    Student's t of 12 cells less three coefficients.
    """
    known = BY_HAND.predict({"rss_mib": 3, "mappings": 5})
    half = 2.262 * math.sqrt(53 + 182.25)
    assert (known.middle, known.low, known.high) == pytest.approx((135, 135 - half, 135 + half), rel=1e-3)


def test_a_term_that_is_not_named_is_none() -> None:
    assert BY_HAND.predict({}) == BY_HAND.predict({"rss_mib": 0, "mappings": 0})
    assert BY_HAND.predict({}).middle == 100
    assert BY_HAND.predict({"mappings": 5}).middle == 105


def test_a_term_that_the_model_has_not_does_not_count() -> None:
    """``beyond`` says so."""
    assert BY_HAND.predict({"alive": 10**9}) == BY_HAND.predict({})


def test_predictions_of_a_fitted_model_cover_a_new_cell() -> None:
    model = fitted(points_of(noise=0.03))
    for terms in ((64.0, 500.0), (2.0, 10.0), (100.0, 0.0)):
        known = model.predict(dict(zip(TERMS, terms, strict=True)))
        assert known.low is not None and known.high is not None
        assert known.low < plane(terms) < known.high


def test_a_model_that_explains_little_predicts_a_wide_interval() -> None:
    def width(noise: float) -> float:
        known = fitted(points_of(noise=noise, launches=3)).predict({"rss_mib": 64})
        return ((known.high or 0) - (known.low or 0)) / known.middle

    assert width(0.3) > 3 * width(0.03)


@pytest.mark.parametrize(
    ("values", "beyond"),
    [
        ({}, {}),
        ({"rss_mib": 128, "mappings": 1000}, {}),
        ({"rss_mib": 256}, {"rss_mib": 2.0}),
        ({"rss_mib": 128.5, "mappings": 999}, {"rss_mib": 128.5 / 128}),
        ({"alive": 1}, {"alive": math.inf}),
        ({"alive": 0, "descriptors": 0}, {}),
        ({"rss_mib": 1280, "mappings": 3000, "alive": 5}, {"rss_mib": 10.0, "mappings": 3.0, "alive": math.inf}),
    ],
)
def test_what_lies_beyond_what_was_measured(values: dict[str, float], beyond: dict[str, float]) -> None:
    assert BY_HAND.beyond(values) == pytest.approx(beyond)


# --- records --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [BY_HAND, fitted(points_of(noise=0.05))], ids=["by hand", "fitted"])
def test_a_record_comes_back_the_same(model: Fit) -> None:
    again = from_record(json.loads(json.dumps(model.as_record())))
    assert again == model
    assert all(isinstance(item, Residual) for item in again.residuals)
    assert again.predict({"rss_mib": 8192, "mappings": 3}) == model.predict({"rss_mib": 8192, "mappings": 3})


@pytest.mark.parametrize("missing", sorted(BY_HAND.as_record()))
def test_a_record_without_a_part_is_refused(missing: str) -> None:
    with pytest.raises(KeyError):
        from_record({name: value for name, value in BY_HAND.as_record().items() if name != missing})


@pytest.mark.parametrize("spoilt", [{"coefficients": 5}, {"coefficients": [(1, 2, 3, 4)]}, {"covariance": [1]}])
def test_a_record_of_another_shape_is_refused(spoilt: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        from_record(BY_HAND.as_record() | spoilt)
