"""Launches and rows of scheduling with known numbers, made up for the tests of its rows and judges."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from c10k_probe.experiments.scheduling import EXPERIMENT

from c10k_probe.experiment import FlatRow, Judge, Made, Samples, Scalar, columns
from c10k_probe.stats import Interval

BLOCKS = 5
HOPS = 100  # of each pass
REST: dict[str, str | int] = {
    "measure": "",
    "method": "",
    "kind": "process",
    "tasks_count": 0,
    "working_set_bytes": 0,
    "work_ns": 0,
    "cpus_count": 1,
}
FACTS: dict[str, Scalar] = {
    "kernel_tick_hz": 250,
    "sched_base_slice_ns": None,
    "tick_always": "yes, no nohz_full",
    "scheduler": "EEVDF",
}
Key = str | int
NAMES = [item.name for item in columns(EXPERIMENT.row_type)]
Ends = tuple[float, float | None, float | None]


def key_of(**keys: Key) -> dict[str, str | int]:
    assert keys.keys() <= REST.keys()
    return REST | keys


def ring(
    hop_ns: float, harness_ns: float, block: int = 0, *, measure: str = "switch", switches: float = 1.0, **keys: Key
) -> Samples:
    """One launch of a token ring: three passes of each, whose median has turns of so long; switches are for a turn."""
    passes = {
        name: [round(each * HOPS) - 5, round(each * HOPS), round(each * HOPS) + 900]
        for name, each in (("pass", hop_ns), ("harness", harness_ns))
    }
    counted = 5 * HOPS  # the turns between the timed ones are counted too
    facts: dict[str, Scalar] = {
        "dropped_count": 0,
        "hops_per_pass_count": HOPS,
        "counted_hops_count": counted,
        "voluntary_switches_count": round(switches * counted) - 3,
        "involuntary_switches_count": 3,
    }
    key = key_of(**{"measure": measure, "method": "pipe", "kind": "thread", "tasks_count": 2, **keys})
    return Samples(key, block, passes, facts)


def loss(rate_per_s: float, lost_pct: float, work_ns: int, block: int = 0, **keys: Key) -> Samples:
    """One launch in which so much of the work is lost at so many switches a second, one at each turn."""
    hop_ns = 1e9 / rate_per_s
    return ring(hop_ns, hop_ns * (1 - lost_pct / 100), block, measure="loss", work_ns=work_ns, **keys)


def contest(
    runs_ns: Sequence[int],
    cpu_ns: Sequence[int] = (100, 100),
    waits_ns: Sequence[int] = (5, 7),
    edges_ns: Sequence[int] | None = (),
    block: int = 0,
    **keys: Key,
) -> Samples:
    """One launch of tasks that contend for a CPU, to see their slices unless ``measure`` says otherwise.

    Runs end at an edge unless ``edges_ns`` says how far from it, or that none was seen (None).
    ``others_pct`` of the CPU were used by others.
    """
    others_pct = float(keys.pop("others_pct", 0))
    values: dict[str, Sequence[int]] = {"run": runs_ns, "cpu": cpu_ns, "longest_wait": waits_ns}
    if edges_ns is not None:
        values["edge_distance"] = edges_ns or [0] * len(runs_ns)
    facts: dict[str, Scalar] = {
        "dropped_count": 0,
        "voluntary_switches_count": 1,
        "involuntary_switches_count": 10,
        "window_ns": sum(cpu_ns) / (1 - others_pct / 100),
        "coarse_resolution_ns": 4_000_000,
    }
    return Samples(
        key_of(**{"measure": "slice", "method": "other", "tasks_count": len(cpu_ns), **keys}), block, values, facts
    )


def yields(switch_ns: float, tasks: int, block: int = 0, *, kind: str = "thread") -> Samples:
    """One launch of tasks that all yield, with half of the time on the CPU gone to others."""
    switches = [1000, 500, 2000]
    cpu = [round(switch_ns * count) for count in switches]
    values = {"pass": [2 * time for time in cpu], "cpu": cpu, "switches": switches}
    key = key_of(measure="runnable", method="yield", kind=kind, tasks_count=tasks)
    return Samples(key, block, values, {"dropped_count": 0})


def tick(steps_ns: Sequence[int], interrupts: int | None, block: int = 0, duration_ns: int = 10**9) -> Samples:
    """One launch that watched the coarse clock and counted interrupts."""
    facts: dict[str, Scalar] = {
        "dropped_count": 0,
        "timer_interrupts_count": interrupts,
        "duration_ns": duration_ns,
        "coarse_resolution_ns": min(steps_ns, default=0),
    }
    return Samples(key_of(measure="tick", tasks_count=1), block, {"coarse_step": steps_ns}, facts)


def fresh(fresh_ns: Sequence[int], hog_ns: Sequence[int], *, trials: int | None = None) -> list[Samples]:
    """The trials of one launch, one for each pair; ``trials`` were asked for if not so many."""
    key = key_of(measure="fresh", method="other", tasks_count=2)
    facts: dict[str, Scalar] = {
        "dropped_count": 0,
        "trials_count": len(fresh_ns) if trials is None else trials,
        "hog_burned_ns": 10**10,
    }
    return [
        Samples(key, 0, {"fresh_cpu": [mine], "hog_cpu": [other], "window": [10**9]}, facts)
        for mine, other in zip(fresh_ns, hog_ns, strict=True)
    ]


# --- rows -------------------------------------------------------------------------------------------------------------


def row(measure: str, **values: Scalar) -> dict[str, Scalar]:
    """One row with these values; everything else is at rest, or was not measured."""
    assert values.keys() <= set(NAMES)
    return dict.fromkeys(NAMES) | REST | {"measure": measure, "status": "ok", "grade": "ok"} | values


def ends_of(stem: str, suffix: str, ends: Ends) -> dict[str, Scalar]:
    return dict(zip((f"{stem}{suffix}", f"{stem}_lo{suffix}", f"{stem}_hi{suffix}"), ends, strict=True))


def exactly(value: float) -> Interval:
    """An estimate without any spread, to be compared with."""
    return Interval(*[pytest.approx(value)] * 3)


def verdict_of(judge: Judge, found: Sequence[FlatRow], made: Sequence[Made] = ()) -> str:
    return judge(found, made).verdict


def tick_row(config: float | None, coarse: float | None, interrupts: float | None, **values: Scalar) -> FlatRow:
    known: dict[str, Scalar] = {"tick_always": "yes, this kernel has no nohz_full", "scheduler": "EEVDF"}
    known |= {"window_ns": 1e9, "launches_count": 5}
    numbers = {"tick_config_ns": config, "tick_coarse_ns": coarse, "tick_interrupt_ns": interrupts}
    return row("tick", tasks_count=1, **(known | numbers | values))
