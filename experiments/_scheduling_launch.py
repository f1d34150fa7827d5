"""One launch of scheduling: the helper's messages as samples, and what the kernel says of itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from c10k_probe import machine, native
from c10k_probe.experiment import Bench, Cell, Samples, Scalar

_ARRAYS = {
    "ring": {"pass": "pass_ns", "harness": "harness_pass_ns", "single_set": "harness_single_set_pass_ns"},
    "contend": {
        "run": "run_ns",
        "foreign": "foreign_ns",
        "edge_distance": "edge_distance_ns",
        "cpu": "cpu_ns",
        "longest_wait": "longest_wait_ns",
    },
    "tick": {"coarse_step": "coarse_steps_ns"},
    "yield": {"pass": "pass_ns", "cpu": "counted_cpu_ns", "switches": "counted_switches_count"},
}
_OF_A_TRIAL = ("fresh_cpu", "hog_cpu", "window")
_OF_EACH_TASK = ("voluntary_switches_count", "involuntary_switches_count")


def samples_of(cell: Cell, block: int, message: native.Message, dropped: int) -> Samples:
    """The arrays of a message as values, its numbers as facts; counts of each task are added up."""
    arrays = {name: message[key] for name, key in _ARRAYS[message["type"]].items() if message.get(key) is not None}
    facts: dict[str, Scalar] = {"dropped_count": dropped}
    for name, value in message.items():
        if isinstance(value, list) and name in _OF_EACH_TASK and message["type"] == "contend":
            facts[name] = sum(value)
        elif not isinstance(value, (list, dict)) and name != "type":
            facts[name] = value
    return Samples(cell.key, block, arrays, facts)


def trials_of(helper: native.Helper, cell: Cell, bench: Bench, count: int, patience_s: float) -> Iterator[Samples]:
    """Each trial as soon as it is finished: whatever ends the rest, it is kept. A failure is told in one more."""
    done = 0
    try:
        while done < count:
            message = helper.expect("progress", patience_s)
            facts = {"dropped_count": 0, "trials_count": count, "hog_burned_ns": message["hog_burned_ns"]}
            yield Samples(cell.key, bench.block, {name: [message[f"{name}_ns"]] for name in _OF_A_TRIAL}, facts)
            done = message["done"]
            bench.progress(done, count, f"{done} of {count}")
        helper.expect("hog", patience_s)
        helper.finish()
    except native.HelperError as error:
        if done and bench.remaining_s() > 0:  # with no time left nothing has failed
            yield Samples(cell.key, bench.block, {}, {"dropped_count": 0, "failure": str(error)})
        raise


# --- what the kernel says of itself -----------------------------------------------------------------------------------


@cache
def kernel_facts() -> dict[str, Scalar]:
    """The configured tick and slice, whether a running task is always ticked, and which scheduler this is."""
    known = machine.facts()
    numbers = {name: known[name] for name in ("kernel_tick_hz", "sched_base_slice_ns")}
    return {
        **{name: value if isinstance(value, int) else None for name, value in numbers.items()},
        "tick_always": _tick_always(),
        "scheduler": scheduler_of(os.uname().release),
    }


def _tick_always() -> str | None:
    """Whether CPUs may go without the tick while they run a task (nohz_full)."""
    full = Path("/sys/devices/system/cpu/nohz_full")
    try:
        listed = full.read_text(encoding="ascii").strip().strip("()")
    except OSError:
        return "yes, this kernel has no nohz_full"
    return f"no, not on CPUs {listed} (nohz_full)" if listed not in ("", "null") else "yes, nohz_full names no CPU"


def scheduler_of(release: str) -> str | None:
    """The fair scheduler by the kernel's release (kernel/sched/fair.c and its history)."""
    parts = release.partition("-")[0].split(".")
    if len(parts) < 2 or not all(part.isdigit() for part in parts[:2]):
        return None
    version = (int(parts[0]), int(parts[1]))
    return "EEVDF" if version >= (6, 6) else "CFS" if version >= (3, 0) else "CFS or older"
