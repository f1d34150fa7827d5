"""Where the plateau of each pool begins: from how many requests under way more of them do not bring more answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from c10k_probe import stats
from c10k_probe.experiment import Finding, Samples

from ._blocking_design import PLATEAU
from ._blocking_rows import usable

_REACHED: Final = 0.95  # of the most that the places allow


def findings(samples: Sequence[Samples], seed: int) -> list[Finding]:
    """One for each pool of the plateau: the smallest concurrency that reaches 95 % of W/S, launch by launch."""
    pools: dict[tuple[str, str], dict[int, list[Samples]]] = {}
    for item in usable(samples, seed):
        workers = str(item.key["workers"])
        if item.key["part"] == PLATEAU and workers.isdigit():
            pools.setdefault((str(item.key["model"]), workers), {}).setdefault(item.block, []).append(item)
    return [_finding(name, list(launches.values()), seed) for name, launches in sorted(pools.items())]


def _finding(name: tuple[str, str], launches: Sequence[Sequence[Samples]], seed: int) -> Finding:
    model, workers = name
    reached = [_reached_at(steps, int(workers)) for steps in launches]
    known = [value for value in reached if value is not None]
    subject = f"{model}, workers {workers}"
    if len(known) < len(reached) or not known:
        return Finding(subject, "plateau_from_count", None, "not every launch came within 5 % of W/S")
    return Finding(subject, "plateau_from_count", stats.median_interval(known, seed), "of the requests tried")


def _reached_at(steps: Sequence[Samples], workers_count: int) -> int | None:
    """None: at none of them."""
    for step in sorted(steps, key=lambda item: int(item.key["concurrency_count"])):
        if not isinstance(step.key["delay_ns"], int):  # never
            return None
        rate, work_ns = float(step.facts["requests_per_s"] or 0), step.key["delay_ns"] + int(step.key["cpu_ns"])
        if rate >= _REACHED * workers_count * 1e9 / work_ns:
            return int(step.key["concurrency_count"])
    return None
