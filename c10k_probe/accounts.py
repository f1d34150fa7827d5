"""What a run itself took, and what the kernel counted while it lasted."""

from __future__ import annotations

import dataclasses
import resource

from c10k_probe import machine


def own_cpu_s() -> float:
    """CPU seconds of this process and of the helpers it has waited for."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def facts_after(delta: machine.Counters, taken_cpu_s: float) -> dict[str, object]:
    """What the kernel counted during the run, and how noisy the machine was."""
    return {
        "counters": dataclasses.asdict(delta),
        "own_cpu_s": round(taken_cpu_s, 3),
        "steal_pct": machine.steal_pct(delta),
        "foreign_cpu_pct": machine.foreign_cpu_pct(delta, taken_cpu_s),
    }
