"""Linear cost models: fitted to medians of launches, stored with a run, asked later by ``predict``. Pure.

A model says: value = sum of coefficient times term, the first term being 1. Points are weighted by 1 / value squared,
so that a relative error counts the same at 40 µs and at 40 ms.

An interval must know of both: that launches of a cell differ, and that a cell lies off the model, since the true cost
is no straight line. So each draw adds to every cell the median of launches drawn with replacement, and the cell's own
residual times a standard normal number (wild bootstrap: Wu 1986, Annals of Statistics 14; residuals divided by
1 - leverage). The noise of launches is in the residual too: the interval errs on the wide side. With few cells
it is widened as Student's t is over the normal. A prediction's interval adds the scatter of single cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from c10k_probe.stats import Interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RESAMPLES: Final = 1000
NORMAL_QUANTILE: Final = 1.959964  # 97.5 %


@dataclass(frozen=True)
class Point:
    """One cell: the terms' values (without the constant), one median per launch, and what it is called."""

    terms: tuple[float, ...]
    medians: tuple[float, ...]
    cell: str = ""


class Residual(NamedTuple):
    """How far a cell lies off its model: measured less modelled, as a share of measured."""

    cell: str
    share: float


@dataclass(frozen=True)
class Fit:
    """A fitted model. ``coefficients[0]`` is the constant; ``highest`` the largest measured value of each term.

    ``r_squared`` is of the unweighted values, a number without an interval; ``scatter`` the root of the relative
    residuals' squares over the degrees of freedom: what a single cell is off by.
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
    residuals: tuple[Residual, ...] = ()

    @property
    def worst(self) -> Residual | None:
        """The cell that lies farthest off."""
        return max(self.residuals, key=lambda residual: abs(residual.share), default=None)

    def predict(self, values: Mapping[str, float]) -> Interval:
        """The value at these terms with its 95 % interval; a term that is not named is 0."""
        x = [1.0, *(values.get(term, 0.0) for term in self.terms)]
        middle = sum(factor.middle * value for factor, value in zip(self.coefficients, x, strict=True))
        variance = sum(
            x[row] * self.covariance[row][column] * x[column] for row in range(len(x)) for column in range(len(x))
        )
        freedom = self.points_count - len(self.coefficients)
        half = student_quantile(freedom) * (max(variance, 0.0) + (self.scatter * middle) ** 2) ** 0.5
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
            "residuals": [tuple(item) for item in self.residuals],
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
        residuals=tuple(Residual(str(cell), float(share)) for cell, share in record["residuals"]),
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
    weighted = x / y[:, None]
    inverse = np.linalg.pinv(weighted)
    coefficients = inverse @ np.ones_like(y)
    shares = 1 - weighted @ coefficients
    draws = coefficients + _disturbed(weighted, inverse, shares, points, seed) @ inverse.T
    freedom = len(points) - len(varied) - 1
    wider = student_quantile(freedom) / NORMAL_QUANTILE
    low, high = (coefficients + wider * (end - coefficients) for end in np.quantile(draws, (0.025, 0.975), axis=0))
    residual, spread = y * shares, y - y.mean()
    return Fit(
        name=name,
        response=response,
        terms=tuple(terms[index] for index in varied),
        coefficients=tuple(Interval(*map(float, ends)) for ends in zip(coefficients, low, high, strict=True)),
        covariance=tuple(tuple(map(float, row)) for row in np.atleast_2d(np.cov(draws, rowvar=False))),
        highest=tuple(float(x[:, column + 1].max()) for column in range(len(varied))),
        r_squared=float(1 - (residual @ residual) / (spread @ spread)) if spread.any() else 0.0,
        scatter=float(np.sqrt(shares @ shares / freedom)),
        points_count=len(points),
        residuals=tuple(Residual(point.cell, float(share)) for point, share in zip(points, shares, strict=True)),
    )


def student_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t (expansion in 1 / freedom: Abramowitz & Stegun 26.7.5); wide under 3."""
    z, part = NORMAL_QUANTILE, 1 / max(freedom, 1)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first * part + second * part**2 + third * part**3


def _disturbed(
    weighted: NDArray[np.float64],
    inverse: NDArray[np.float64],
    shares: NDArray[np.float64],
    points: Sequence[Point],
    seed: int,
) -> NDArray[np.float64]:
    """A row for each draw: what is added to each cell, as a share of its value."""
    import numpy as np

    generator = np.random.default_rng(seed)
    leverage = np.einsum("ij,ji->i", weighted, inverse)
    off_model = shares / np.maximum(1 - leverage, 1e-6)
    drawn: NDArray[np.float64] = generator.standard_normal((RESAMPLES, len(points))) * off_model
    for column, point in enumerate(points):
        medians = np.array(point.medians)
        again = np.median(generator.choice(medians, (RESAMPLES, medians.size)), axis=1)
        drawn[:, column] += again / np.median(medians) - 1
    return drawn
