"""What no single row of ``blocking`` shows: where the plateau of each pool begins, and the memory of a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from c10k_probe import stats
from c10k_probe.experiment import Finding, Samples

from ._blocking_design import ONE_CPU, ONE_CPU_CONCURRENCY, ONE_CPU_MORE, PLATEAU
from ._blocking_rows import usable

_REACHED: Final = 0.95  # of the most that the places allow


MEMORY: Final = "memory_per_request_bytes"


def findings(samples: Sequence[Samples], seed: int) -> list[Finding]:
    """Both, of loads that are not void."""
    return [*_plateaus(samples, seed), *_memories(samples, seed)]


def _memories(samples: Sequence[Samples], seed: int) -> list[Finding]:
    """What each further request under way takes, by two loads of each launch that differ in their number alone."""
    sizes: dict[str, dict[int, dict[int, float]]] = {}
    for item in usable(samples, seed):
        memory_bytes = item.facts.get("memory_bytes")
        if item.key["part"] == ONE_CPU and item.key["delay_ns"] and memory_bytes is not None:
            launches = sizes.setdefault(str(item.key["model"]), {})
            launches.setdefault(item.block, {})[int(item.key["concurrency_count"])] = float(memory_bytes)
    found = []
    few, more = ONE_CPU_CONCURRENCY, ONE_CPU_MORE
    for model, launches in sorted(sizes.items()):
        slopes = [(size[more] - size[few]) / (more - few) for size in launches.values() if {few, more} <= size.keys()]
        if slopes:
            value = stats.median_interval(slopes, seed)
            found.append(Finding(model, MEMORY, value, f"between {few} and {more} requests under way"))
    return found


def _plateaus(samples: Sequence[Samples], seed: int) -> list[Finding]:
    """One for each pool of the plateau: the smallest concurrency that reaches 95 % of W/S, launch by launch."""
    pools: dict[tuple[str, str], dict[int, list[Samples]]] = {}
    for item in usable(samples, seed):
        workers = str(item.key["workers"])
        is_on_line = isinstance(item.key["delay_ns"], int)  # without an answer there is no W/S
        if item.key["part"] == PLATEAU and workers.isdigit() and is_on_line:
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
        rate = float(step.facts["requests_per_s"] or 0)
        work_ns = int(step.key["delay_ns"]) + int(step.key["cpu_ns"])
        if rate >= _REACHED * workers_count * 1e9 / work_ns:
            return int(step.key["concurrency_count"])
    return None
