"""What no single row of ``blocking`` shows: where the plateau of each pool begins, and the memory of a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from c10k_probe import stats
from c10k_probe.experiment import Finding, Samples

from ._blocking_design import ONE_CPU, ONE_CPU_CONCURRENCY, ONE_CPU_MORE, PLATEAU, WITH_WORKERS
from ._blocking_rows import usable

MEMORY: Final = "memory_per_request_bytes"
KNEE: Final = "plateau_from_count"


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
    """One for each server with workers: from how many requests on more of them bring no more, launch by launch."""
    pools: dict[tuple[str, int], dict[int, list[Samples]]] = {}
    for item in usable(samples, seed):
        workers = str(item.key["workers"])
        is_on_line = isinstance(item.key["delay_ns"], int)  # without an answer there is no W/S
        if item.key["part"] == PLATEAU and item.key["model"] in WITH_WORKERS and is_on_line:
            pools.setdefault((str(item.key["model"]), int(workers)), {}).setdefault(item.block, []).append(item)
    return [_finding(name, list(launches.values()), seed) for name, launches in sorted(pools.items())]


def _finding(name: tuple[str, int], launches: Sequence[Sequence[Samples]], seed: int) -> Finding:
    model, workers_count = name
    knees = [_knee(steps, workers_count) for steps in launches]
    known = [value for value in knees if value is not None]
    subject = f"{model}, workers {workers_count}"
    if len(known) < len(knees) or not known:
        needed = f"needs a --concurrency up to {workers_count} and one above it, with answers in every launch"
        return Finding(subject, KNEE, None, needed)
    return Finding(subject, KNEE, stats.median_interval(known, seed), "requests under way")


def _knee(steps: Sequence[Samples], workers_count: int) -> float | None:
    """Where both asymptotes of a closed system meet: most answers a second, times how long a request takes where each
    has a worker (R. Jain, The Art of Computer Systems Performance Analysis, 1991, 33.6). None: one is missing."""
    few = [step for step in steps if int(step.key["concurrency_count"]) <= workers_count]
    above = [step for step in steps if int(step.key["concurrency_count"]) > workers_count]
    most_per_s = max((float(step.facts["requests_per_s"] or 0) for step in above), default=0.0)
    alone = max(few, key=lambda step: int(step.key["concurrency_count"]), default=None)
    if alone is None or not most_per_s or not alone.facts["requests_per_s"]:
        return None
    return most_per_s * int(alone.key["concurrency_count"]) / float(alone.facts["requests_per_s"])
