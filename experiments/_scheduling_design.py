"""The design of scheduling: what may be chosen, which cells that makes, and what the helper is asked for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from c10k_probe.experiment import Cell
from c10k_probe.limits import Needs
from c10k_probe.parameters import Parameters, parameter

from ._scheduling_rows import PLURAL

MEASURES = ("switch", "loss", "slice", "fairness", "tick", "runnable", "fresh")
TOKENS = ("pipe", "futex", "eventfd")
KINDS = ("thread", "process")
PLACEMENTS = {1: "one-cpu", 2: "two-cpus"}
POLICIES = ("other", "batch")
FAIRNESS_TASKS = 8
SLICE_ROUNDS = 3  # of a slice of some 4 ms for each task, so that many tasks have whole runs too
SLICE_NS = 4_000_000
HOPS_MOST = 1000
SMALL_BYTES = 16 << 20
_Key = dict[str, str | int]
_AT_REST: _Key = {
    "measure": "",
    "method": "none",
    "kind": "process",
    "tasks_count": 0,
    "working_set_bytes": 0,
    "work_ns": 0,
    "cpus_count": 1,
}


@dataclass(frozen=True)
class SchedulingParameters(Parameters):
    """What may be chosen on the command line."""

    measure: tuple[str, ...] = parameter(MEASURES, "What to measure, comma-separated.", choices=MEASURES, many=True)
    token: tuple[str, ...] = parameter(TOKENS, "What a task hands to the next.", choices=TOKENS, many=True)
    kind: tuple[str, ...] = parameter(KINDS, "Threads, processes, or both.", choices=KINDS, many=True)
    cpus: tuple[int, ...] = parameter(
        tuple(PLACEMENTS), "All tasks on one CPU, or by turns on two.", minimum=1, maximum=2, many=True
    )
    tasks: tuple[int, ...] = parameter(
        (2, 16, 256, 4096), "Tasks in the ring.", minimum=2, maximum=4096, many=True, quick=(2, 64)
    )
    working_set: tuple[int, ...] = parameter(
        (0, 32 << 10, 1 << 20, 8 << 20),
        "Memory that each task goes through at its turn.",
        dimension="bytes",
        minimum=0,
        maximum=1 << 30,
        many=True,
        quick=(0, 1 << 20),
    )
    work: tuple[int, ...] = parameter(
        (3_000, 10_000, 30_000, 100_000, 300_000),
        "Work at each turn, for loss.",
        dimension="duration",
        minimum=100,
        maximum=10**9,
        many=True,
        quick=(3_000, 30_000, 300_000),
    )
    contenders: tuple[int, ...] = parameter(
        (2, 4, 16, 256), "CPU-bound tasks on one CPU, for slice.", minimum=2, maximum=4096, many=True, quick=(2, 16)
    )
    runnable: tuple[int, ...] = parameter(
        (2, 8, 32, 128, 512, 2048, 4096),
        "Runnable tasks on one CPU.",
        minimum=2,
        maximum=4096,
        many=True,
        quick=(2, 32, 512),
    )
    policy: tuple[str, ...] = parameter(POLICIES, "Scheduling policies, for slice.", choices=POLICIES, many=True)
    window: int = parameter(
        500_000_000,
        "Length of one launch of slice.",
        dimension="duration",
        minimum=10**7,
        maximum=600 * 10**9,
        quick=100_000_000,
    )
    tick: int = parameter(
        10**9,
        "Length of one launch of tick.",
        dimension="duration",
        minimum=10**7,
        maximum=600 * 10**9,
        quick=100_000_000,
    )
    budget: int = parameter(
        30_000_000,
        "Time for one launch of switch, loss and runnable.",
        dimension="duration",
        minimum=10**6,
        maximum=60 * 10**9,
        quick=8_000_000,
    )
    hog: int = parameter(
        10 * 10**9,
        "How long the old task has been running, for fresh.",
        dimension="duration",
        minimum=10**8,
        maximum=600 * 10**9,
        quick=10**9,
    )
    trials: int = parameter(30, "Fresh tasks beside the old one.", minimum=1, maximum=1000, quick=8)
    share: int = parameter(
        10**9,
        "How long each fresh task runs beside it.",
        dimension="duration",
        minimum=10**8,
        maximum=60 * 10**9,
        quick=200_000_000,
    )
    fairness: int = parameter(
        10 * 10**9,
        "How long eight tasks share a CPU, for fairness.",
        dimension="duration",
        minimum=10**8,
        maximum=600 * 10**9,
        quick=10**9,
    )


# --- the cells --------------------------------------------------------------------------------------------------------


def _cell(key: Mapping[str, str | int], weight: float, launches: int | None = None) -> Cell:
    """A cell of these keys, the others at rest, and what its tasks take."""
    whole = {**_AT_REST, **key}
    tasks, memory = int(whole["tasks_count"]), int(whole["working_set_bytes"])
    are_threads = whole["kind"] == "thread"
    needs = Needs(
        descriptors_count=32 + 2 * tasks,
        system_descriptors_count=32 + 2 * tasks + (8 * tasks if not are_threads else 0),
        tasks_count=tasks + 2,
        mappings_count=64 + (3 * tasks if are_threads else tasks),
        memory_bytes=tasks * (60_000 if are_threads else 200_000) + 2 * tasks * memory + SMALL_BYTES,
        address_space_bytes=tasks * (8 << 20) if are_threads else 0,
    )
    return Cell(whole, needs, weight, launches)


def _switch_cells(parameters: SchedulingParameters) -> Iterator[Cell]:
    """Two tasks in every way; then more tasks, and more memory, each alone."""
    few, least = min(parameters.tasks), min(parameters.working_set)
    weight = 20 + parameters.budget / 10**6
    rest: _Key = {"measure": "switch", "working_set_bytes": least, "tasks_count": few}
    for token, kind, cpus in product(parameters.token, parameters.kind, parameters.cpus):
        yield _cell({**rest, "method": token, "kind": kind, "cpus_count": cpus}, weight)
    for kind in parameters.kind:
        near: _Key = {**rest, "method": parameters.token[0], "kind": kind, "cpus_count": parameters.cpus[0]}
        for tasks in sorted(set(parameters.tasks) - {few}):
            yield _cell({**near, "tasks_count": tasks}, weight + tasks / 8)
        for memory in sorted(set(parameters.working_set) - {least}):
            yield _cell({**near, "working_set_bytes": memory}, 2 * weight)


def _loss_cells(parameters: SchedulingParameters) -> Iterator[Cell]:
    for kind, memory, quantum in product(parameters.kind, parameters.working_set, parameters.work):
        key: _Key = {"measure": "loss", "method": parameters.token[0], "kind": kind, "tasks_count": 2}
        yield _cell(key | {"working_set_bytes": memory, "work_ns": quantum}, 20 + parameters.budget / 10**6)


def _slice_cells(parameters: SchedulingParameters) -> Iterator[Cell]:
    """Every number of tasks under the first policy, the least under the others."""
    for policy, tasks in product(parameters.policy, parameters.contenders):
        if policy == parameters.policy[0] or tasks == min(parameters.contenders):
            key: _Key = {"measure": "slice", "method": policy, "tasks_count": tasks}
            yield _cell(key, _slice_ms(parameters, tasks))


def _fairness_cells(parameters: SchedulingParameters) -> Iterator[Cell]:
    key: _Key = {"measure": "fairness", "method": "other", "tasks_count": FAIRNESS_TASKS}
    yield _cell(key, parameters.fairness / 10**6, launches=1)


def _tick_cells(parameters: SchedulingParameters) -> Iterator[Cell]:
    yield _cell({"measure": "tick", "tasks_count": 1}, parameters.tick / 10**6)


def _runnable_cells(parameters: SchedulingParameters) -> Iterator[Cell]:
    for tasks in parameters.runnable:
        key: _Key = {"measure": "runnable", "method": "yield", "kind": "thread", "tasks_count": tasks}
        yield _cell(key, 20 + parameters.budget / 10**6 + tasks / 10)


def _fresh_cells(parameters: SchedulingParameters) -> Iterator[Cell]:
    key: _Key = {"measure": "fresh", "method": "other", "tasks_count": 2}
    yield _cell(key, (parameters.hog + parameters.trials * parameters.share) / 10**6, launches=1)


CELLS = {
    "switch": _switch_cells,
    "loss": _loss_cells,
    "slice": _slice_cells,
    "fairness": _fairness_cells,
    "tick": _tick_cells,
    "runnable": _runnable_cells,
    "fresh": _fresh_cells,
}


def _slice_ms(parameters: SchedulingParameters, tasks: int) -> int:
    return max(parameters.window, SLICE_ROUNDS * tasks * SLICE_NS) // 10**6


# --- the helper -------------------------------------------------------------------------------------------------------


def arguments(parameters: SchedulingParameters, cell: Cell) -> tuple[dict[str, object], str]:
    """The helper's options, and the message that answers them."""
    key, measure = cell.key, cell.key["measure"]
    budget_ms = max(1, parameters.budget // 10**6)
    tasks = int(key["tasks_count"])
    if measure in ("switch", "loss"):
        ring = {
            "--token": key["method"],
            "--kind": PLURAL[str(key["kind"])],
            "--tasks": tasks,
            "--placement": PLACEMENTS[int(key["cpus_count"])],
        }
        work = {"--working-set": key["working_set_bytes"], "--quantum-ns": key["work_ns"]}
        return {"--mode": "ring", **ring, **work, "--hops": hops(cell), "--budget-ms": budget_ms}, "ring"
    if measure in ("slice", "fairness"):
        is_slice = measure == "slice"
        window_ms = _slice_ms(parameters, tasks) if is_slice else parameters.fairness // 10**6
        return {"--mode": "contend", "--tasks": tasks, "--policy": key["method"], "--duration-ms": window_ms}, "contend"
    if measure == "tick":
        return {"--mode": "tick", "--duration-ms": parameters.tick // 10**6}, "tick"
    if measure == "runnable":
        return {
            "--mode": "yield",
            "--kind": PLURAL[str(key["kind"])],
            "--tasks": tasks,
            "--budget-ms": budget_ms,
        }, "yield"
    times = {"--hog-ms": parameters.hog // 10**6, "--share-ms": parameters.share // 10**6}
    return {"--mode": "hog", **times, "--trials": parameters.trials}, "hog"


def hops(cell: Cell) -> int:
    """Turns in one pass: whole rounds, and not so many that a pass with much memory or work takes seconds."""
    tasks = int(cell.key["tasks_count"])
    turn_ns = 2000 + int(cell.key["work_ns"]) + int(cell.key["working_set_bytes"]) // 8
    wanted = max(1, min(HOPS_MOST, 3_000_000 // turn_ns))
    return tasks * max(1, round(wanted / tasks))
