"""Linear cost models: fitted to medians of launches, stored with a run, asked later by ``predict``. Pure.

A model says: value = sum of coefficient times term, the first term being 1. Points are weighted by 1 / value squared,
so that a relative error counts the same at 40 µs and at 40 ms. Intervals come from resampling launches within each cell
(2.5th to 97.5th percentile); a prediction's interval adds the scatter that the model leaves unexplained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from c10k_probe.stats import Interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RESAMPLES: Final = 400


@dataclass(frozen=True)
class Point:
    """One cell: the terms' values (without the constant), and one median per launch."""

    terms: tuple[float, ...]
    medians: tuple[float, ...]


@dataclass(frozen=True)
class Fit:
    """A fitted model. ``coefficients[0]`` is the constant; ``highest`` the largest measured value of each term.

    ``r_squared`` is of the unweighted values; ``scatter`` the root mean square of the relative residuals.
    """

    name: str
    response: str
    terms: tuple[str, ...]
    coefficients: tuple[Interval, ...]
    covariance: tuple[tuple[float, ...], ...]
    highest: tuple[float, ...]
    r_squared: float
    scatter: float
    points_count: int

    def predict(self, values: Mapping[str, float]) -> Interval:
        """The value at these terms with its 95 % interval; a term that is not named is 0."""
        x = [1.0, *(values.get(term, 0.0) for term in self.terms)]
        middle = sum(factor.middle * value for factor, value in zip(self.coefficients, x, strict=True))
        variance = sum(
            x[row] * self.covariance[row][column] * x[column] for row in range(len(x)) for column in range(len(x))
        )
        half = 1.96 * (max(variance, 0.0) + (self.scatter * middle) ** 2) ** 0.5
        return Interval(middle, middle - half, middle + half)

    def beyond(self, values: Mapping[str, float]) -> dict[str, float]:
        """The terms that lie beyond what was measured, with how many times beyond (infinite when never varied)."""
        ranges = dict(zip(self.terms, self.highest, strict=True))
        return {
            term: value / ranges[term] if ranges.get(term) else float("inf")
            for term, value in values.items()
            if value > ranges.get(term, 0.0)
        }

    def as_record(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            **{name: getattr(self, name) for name in ("name", "response", "terms", "covariance", "highest")},
            **{name: getattr(self, name) for name in ("r_squared", "scatter", "points_count")},
            "coefficients": [(item.middle, item.low, item.high) for item in self.coefficients],
        }


def from_record(record: Mapping[str, Any]) -> Fit:
    """The fit that ``as_record`` described. Raises ``KeyError`` or ``TypeError`` for anything else."""
    return Fit(
        name=str(record["name"]),
        response=str(record["response"]),
        terms=tuple(record["terms"]),
        coefficients=tuple(Interval(*ends) for ends in record["coefficients"]),
        covariance=tuple(tuple(row) for row in record["covariance"]),
        highest=tuple(record["highest"]),
        r_squared=float(record["r_squared"]),
        scatter=float(record["scatter"]),
        points_count=int(record["points_count"]),
    )


def fit(name: str, response: str, terms: Sequence[str], points: Sequence[Point], seed: int) -> Fit | None:
    """The model through these points; a term that never varied is left out. None with too few points for its terms."""
    import numpy as np

    points = [point for point in points if point.medians]
    varied = [index for index in range(len(terms)) if len({point.terms[index] for point in points}) > 1]
    if len(points) <= len(varied) + 1:
        return None
    x = np.array([[1.0, *(point.terms[index] for index in varied)] for point in points])
    y = np.array([float(np.median(point.medians)) for point in points])
    coefficients = _solve(x, y)
    draws = _resampled(x, points, seed)
    low, high = np.quantile(draws, (0.025, 0.975), axis=0)
    predicted = x @ coefficients
    residual, spread = y - predicted, y - y.mean()
    return Fit(
        name=name,
        response=response,
        terms=tuple(terms[index] for index in varied),
        coefficients=tuple(Interval(*map(float, ends)) for ends in zip(coefficients, low, high, strict=True)),
        covariance=tuple(tuple(map(float, row)) for row in np.atleast_2d(np.cov(draws, rowvar=False))),
        highest=tuple(float(x[:, column + 1].max()) for column in range(len(varied))),
        r_squared=float(1 - (residual @ residual) / (spread @ spread)) if spread.any() else 0.0,
        scatter=float(np.sqrt(np.mean((residual / y) ** 2))),
        points_count=len(points),
    )


def _solve(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least squares of relative errors."""
    import numpy as np

    return np.asarray(np.linalg.lstsq(x / y[:, None], np.ones_like(y), rcond=None)[0], dtype=np.float64)


def _resampled(x: NDArray[np.float64], points: Sequence[Point], seed: int) -> NDArray[np.float64]:
    """Coefficients of ``RESAMPLES`` fits, each to medians of launches drawn with replacement within each cell."""
    import numpy as np

    generator = np.random.default_rng(seed)
    medians = [np.array(point.medians) for point in points]
    return np.array(
        [
            _solve(x, np.array([np.median(generator.choice(values, values.size)) for values in medians]))
            for _ in range(RESAMPLES)
        ]
    )
