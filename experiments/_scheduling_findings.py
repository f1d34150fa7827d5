"""What no single row of scheduling shows: where work is lost, and how a switch grows with what is runnable."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Sequence

from c10k_probe import stats
from c10k_probe.experiment import Finding, Samples, Scalar

from ._scheduling_rows import PLURAL, lost_pct, rate_per_s, yield_ns

LOST_PCT = 5.0


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
        rates = [rate for by_quantum in blocks.values() if (rate := _rate_at(by_quantum.values())) is not None]
        if len(rates) == len(blocks):
            yield Finding(subject, "switches_per_s", stats.median_interval(rates, seed))
        else:
            yield Finding(subject, "switches_per_s", None, "not reached, or always, at the rates of this run")


def _rate_at(items: Iterable[Samples]) -> float | None:
    """Switches per second at which ``LOST_PCT`` is lost, interpolated on a logarithmic axis of rates."""
    points = sorted((rate_per_s(item), lost_pct(item)) for item in items)
    for (rate, lost), (next_rate, next_lost) in itertools.pairwise(points):
        if lost < LOST_PCT <= next_lost:
            share = (LOST_PCT - lost) / (next_lost - lost)
            return math.exp(math.log(rate) + share * (math.log(next_rate) - math.log(rate)))
    return None


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
