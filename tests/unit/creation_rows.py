"""Made rows and models of fork-latency, for its judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from c10k_probe.experiments.fork_latency import EXPERIMENT

from c10k_probe.experiment import FlatRow, Judge, Made, Scalar, columns
from c10k_probe.fits import Fit
from c10k_probe.stats import Interval

MIB = 1 << 20
STACK = 8 << 20
KEYS: dict[str, Scalar] = {
    "method": "fork",
    "linking": "dynamic",
    "placement": "one-cpu",
    "axis": "base",
    "asked_rss_bytes": 0,
    "asked_file_rss_bytes": 0,
    "asked_mappings_count": 0,
    "asked_descriptors_count": 0,
    "asked_alive_count": 0,
    "alive_kind": "none",
    "huge_pages": "off",
    "asked_libraries_count": 0,
}
NAMES = [item.name for item in columns(EXPERIMENT.row_type)]
Ends = tuple[float, float | None, float | None]


def row(**values: Scalar) -> dict[str, Scalar]:
    """One row with these values; everything else is at rest, or was not measured."""
    assert set(values) <= set(NAMES)
    return dict.fromkeys(NAMES) | KEYS | {"status": "ok", "grade": "ok"} | values


def ends_of(stem: str, suffix: str, ends: Ends) -> dict[str, Scalar]:
    """The columns of an interval."""
    return dict(zip((f"{stem}{suffix}", f"{stem}_lo{suffix}", f"{stem}_hi{suffix}"), ends, strict=True))


def without(rows: Sequence[FlatRow], **wanted: Scalar) -> list[FlatRow]:
    """The rows that differ from these values."""
    return [item for item in rows if any(item[name] != value for name, value in wanted.items())]


def changed(rows: Sequence[Mapping[str, Scalar]], **values: Scalar) -> list[FlatRow]:
    """The rows with other values."""
    return [{**item, **values} for item in rows]


def verdict_of(judge: Judge, rows: Sequence[FlatRow], models: Sequence[Made] = ()) -> str:
    """One word."""
    return judge(rows, models).verdict


def c07_model(
    constant: Ends = (1000.0, 900.0, 1100.0),
    memory: Ends = (100.0, 90.0, 110.0),
    mapping: Ends = (10.0, 9.0, 11.0),
    file: Ends = (80.0, 70.0, 90.0),
    r_squared: float = 0.97,
    **other: Any,
) -> Fit:
    """A model of which a prediction's interval is its middle."""
    return Fit(
        **{  # type: ignore[arg-type]
            "name": "creation fork dynamic one-cpu children",
            "response": "return_ns",
            "terms": ("rss_mib", "mappings", "file_rss_mib"),
            "coefficients": tuple(Interval(*item) for item in (constant, memory, mapping, file)),
            "covariance": ((0.0,) * 4,) * 4,
            "highest": (128.0, 10_000.0, 64.0),
            "r_squared": r_squared,
            "scatter": 0.0,
            "points_count": 30,
            **other,
        }
    )


def c27_rows(kept: float = 1.0, joined: float = 0.0, resident: int = 8192, **values: Scalar) -> list[FlatRow]:
    """What the probe found of threads that live together and of threads that were joined one by one."""
    probed = {"stack_kept_ratio": kept, "stack_joined_ratio": joined, "stack_resident_bytes": resident}
    return [row(method="pthread_create", stack_bytes=STACK, stack_mappings_ratio=2.0, **{**probed, **values})]
