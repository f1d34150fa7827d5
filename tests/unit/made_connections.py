"""Rows of connections with known values, as its findings and judges get them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from c10k_probe.experiments._connection_rows import ConnectionsRow

from c10k_probe.experiment import FlatRow, flatten
from c10k_probe.stats import Interval


def around(middle: float, half: float = 0.01) -> Interval:
    """An estimate with an interval of that share on either side."""
    return Interval(middle, middle * (1 - half), middle * (1 + half))


def row(model: str = "epoll", open_count: int = 10_000, each: float | None = 4_000.0, **more: Any) -> FlatRow:
    """The end of a ramp that met every demand, unless ``more`` says otherwise."""
    known: dict[str, Any] = {
        "model": model,
        "state": "used",
        "target_count": open_count,
        "block": 0,
        "open_count": open_count,
        "established_count": open_count,
        "server_bytes_per_connection": None if each is None else around(each),
        "server_private_bytes_per_connection": None if each is None else around(each / 10),
        "processes_count": 1,
        "server_cpus_count": 1,
        "ramp_s": 1.0,
        "echo_asked_count": open_count,
        "echo_failed_count": 0,
        "probe_rate_per_s": 1000,
        "probe_failed_count": 0,
        "probe_p99_ns": 1e6,
        "predicted_count": 20_000,
        "predicted_wall": "descriptors",
    }
    return flatten(ConnectionsRow(**{**known, **more}))


def stopped(model: str, open_count: int, wall: str, kind: str = "administrative", **more: Any) -> FlatRow:
    """The last row of a ramp that a limit ended."""
    return row(
        model,
        open_count,
        target_count=10 * open_count,
        status="failed",
        reason=f"{wall}: the limit",
        wall=wall,
        wall_kind=kind,
        wall_lift=f"lift {wall}" if kind == "administrative" else None,
        **more,
    )


def trials(
    model: str, most: int, why: str = "memory: 2 GiB were taken", blocks: Sequence[int] = range(5)
) -> list[FlatRow]:
    """A search of each block: twice that did not fit, some did."""
    found = []
    for block in blocks:
        for count, fits in ((most // 2, "yes"), (most * 2, why), (most + block, "yes"), (most + most // 20, why)):
            found.append(row(model, count, block=block, fits=fits, budget_bytes=1 << 30, latency_bound_ns=100_000_000))
    return found
