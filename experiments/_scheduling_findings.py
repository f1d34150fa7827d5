"""What no single row of scheduling shows: where work is lost, and how a switch grows with what is runnable."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Sequence

from c10k_probe import stats
from c10k_probe.experiment import Finding, Samples, Scalar
from c10k_probe.units import format_column

from ._scheduling_rows import PLURAL, lost_pct, rate_per_s, yield_ns

LOST_PCT = 5.0
FAR = 1e6


def findings(taken: Sequence[Samples], seed: int) -> list[Finding]:
    """The rate of switches at which 5 % of the work is lost, and how a switch grows with what is runnable."""
    return [*_lost_rates(taken, seed), *_runnable_slopes(taken, seed)]


def _lost_rates(taken: Sequence[Samples], seed: int) -> Iterable[Finding]:
    lines: dict[tuple[Scalar, ...], dict[int, dict[int, Samples]]] = {}
    for item in taken:
        if item.key["measure"] == "loss":
            name = tuple(item.key[part] for part in ("kind", "method", "working_set_bytes"))
            lines.setdefault(name, {}).setdefault(item.block, {})[int(item.key["work_ns"])] = item
    for (kind, method, memory), blocks in lines.items():
        who = f"two {PLURAL[str(kind)]} with {_kib(memory)} each"
        subject = f"{LOST_PCT:g} % of the work of {who} are lost to {method} switches"
        yield _lost_rate(subject, [list(by_quantum.values()) for by_quantum in blocks.values()], seed)


def _lost_rate(subject: str, launches: Sequence[Sequence[Samples]], seed: int) -> Finding:
    """The rate from all launches; where some lose less at all of their rates, or more, its interval has an open end."""
    lines = [sorted((rate_per_s(item), lost_pct(item)) for item in items) for items in launches]
    rates = [_rate_at(points) for points in lines]
    notes = []
    if math.inf in rates:
        rate, lost = _typical([points[-1] for points, found in zip(lines, rates, strict=True) if found == math.inf])
        notes.append(f"not reached{_how_many(rates, math.inf)}: {lost} at the highest rate, {rate}")
    if -math.inf in rates:
        rate, lost = _typical([points[0] for points, found in zip(lines, rates, strict=True) if found == -math.inf])
        notes.append(f"always{_how_many(rates, -math.inf)}: {lost} already at the lowest rate, {rate}")
    value = _open_interval(rates, seed)
    return Finding(subject, "switches_per_s", value, "; ".join((*_open_end(value), *notes)))


def _open_end(value: stats.Interval | None) -> list[str]:
    """Which end of an interval is open, and where the other lies: a table shows only whole ones."""
    if value is None or (value.low is None) == (value.high is None):
        return []
    known = format_column("x_per_s", value.high if value.low is None else value.low)
    return [f"interval open below, up to {known}" if value.low is None else f"interval open above, from {known}"]


def _rate_at(points: Sequence[tuple[float, float]]) -> float:
    """Switches per second at which ``LOST_PCT`` is lost, interpolated on a logarithmic axis of rates.

    Infinite where less is lost at the highest rate, minus infinite where more is lost at every rate.
    """
    for (rate, lost), (next_rate, next_lost) in itertools.pairwise(points):
        if lost < LOST_PCT <= next_lost:
            share = (LOST_PCT - lost) / (next_lost - lost)
            return math.exp(math.log(rate) + share * (math.log(next_rate) - math.log(rate)))
    return math.inf if points[-1][1] < LOST_PCT else -math.inf


def _open_interval(rates: Sequence[float], seed: int) -> stats.Interval | None:
    """The median rate; an end that lies among launches without one is open. None where the median itself does."""
    known = [rate for rate in rates if math.isfinite(rate)]
    if not known:
        return None
    far = FAR * max(known)  # any mean of it and a known rate lies outside of what is known
    value = stats.median_interval([min(max(rate, -far), far) for rate in rates], seed)
    middle, low, high = (
        end if end is not None and min(known) <= end <= max(known) else None
        for end in (value.middle, value.low, value.high)
    )
    return None if middle is None else stats.Interval(middle, low, high)


def _typical(points: Sequence[tuple[float, float]]) -> tuple[str, str]:
    rate, lost = (statistics.median(values) for values in zip(*points, strict=True))
    return format_column("x_per_s", rate), format_column("x_pct", lost)


def _how_many(rates: Sequence[float], wanted: float) -> str:
    count = sum(rate == wanted for rate in rates)
    return "" if count == len(rates) else f" in {count} of {len(rates)} launches"


def _kib(memory: Scalar) -> str:
    return f"{int(memory or 0) // 1024:,} KiB"


def _runnable_slopes(taken: Sequence[Samples], seed: int) -> Iterable[Finding]:
    """Nanoseconds that a switch grows by with each doubling of runnable tasks; then most over fewest."""
    lines: dict[str, dict[int, dict[int, float]]] = {}
    for item in taken:
        value = yield_ns(item) if item.key["measure"] == "runnable" else None
        if value is not None:
            lines.setdefault(str(item.key["kind"]), {}).setdefault(item.block, {})[int(item.key["tasks_count"])] = value
    for kind, blocks in lines.items():
        counts = sorted(set.intersection(*(set(values) for values in blocks.values())))
        if len(counts) < 3:
            continue
        slopes = [
            statistics.linear_regression(
                [math.log2(count) for count in counts], [values[count] for count in counts]
            ).slope
            for values in blocks.values()
        ]
        ratios = [values[counts[-1]] / values[counts[0]] for values in blocks.values()]
        note = f"for each doubling, from {counts[0]:,} to {counts[-1]:,}"
        yield Finding(runnable_subject(kind), "growth_ns", stats.median_interval(slopes, seed), note)
        note = f"{counts[-1]:,} over {counts[0]:,}"
        yield Finding(runnable_subject(kind), "switch_ratio", stats.median_interval(ratios, seed), note)


def runnable_subject(kind: str) -> str:
    """The name under which the growth of a switch is found."""
    return f"a switch among runnable {PLURAL[kind]}"
