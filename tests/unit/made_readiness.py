"""Launches of readiness with known costs, made up for the tests of its design, rows and judge."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from c10k_probe.experiment import Samples, Scalar
from c10k_probe.parameters import amount_of

BLOCKS = 5
EVENTS = 100  # of each pass
Cost = Callable[[int, int], float]  # (watched, block) -> nanoseconds per event


def launch(mechanism: str, watched: int, event_ns: float, block: int = 0, **given: Any) -> Samples:
    """One launch of three passes whose median event takes so long, all of it CPU time; what is not given is at rest.

    ``workload`` and ``active`` are keys, ``register_ns`` the samples of it, all else facts.
    """
    middle = round(event_ns * EVENTS)
    workload, active = given.pop("workload", "chain"), given.pop("active", "1")
    values = {"pass": [middle - 7, middle, middle + 1000]}
    if "register_ns" in given:
        values["register"] = given.pop("register_ns")
    known: dict[str, Scalar] = {
        "setup_ns": 50 * watched,
        "kernel_bytes": None,
        "active_count": amount_of(active, watched),
        "events_per_pass_count": EVENTS,
        "cpu_user_ns": middle,
        "cpu_system_ns": 2 * middle,
        "voluntary_switches_count": 0,
        "involuntary_switches_count": 1,
        "calls_count": 3 * 3 * EVENTS,
        "calls": "read 1, write 1, poll 1",
        "dropped_count": 0,
    }
    assert given.keys() <= known.keys()
    key = {"workload": workload, "mechanism": mechanism, "watched_count": watched, "active": active}
    return Samples(key, block, values, known | given)


def launches(costs: Mapping[str, Cost], watched: Iterable[int], *, blocks: int = BLOCKS, **how: str) -> list[Samples]:
    """Every mechanism at every count, in every block; ``how``: the workload, and how many are active."""
    return [
        launch(name, count, cost(count, block), block, **how)
        for count in watched
        for block in range(blocks)
        for name, cost in costs.items()
    ]


def flat(cost_ns: float) -> Cost:
    """The same whatever is watched."""
    return lambda *_: cost_ns


def linear(cost_ns: float) -> Cost:
    """So much for each that is watched."""
    return lambda watched, _: cost_ns * watched
