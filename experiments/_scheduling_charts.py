"""The tables and charts of scheduling."""

from __future__ import annotations

from typing import Any

from c10k_probe.experiment import Chart, View
from c10k_probe.units import column_suffix

from ._scheduling_design import SchedulingParameters

_SWITCH, _LOSS, _SLICE, _TICK, _FRESH = (
    "",
    "work lost to switches",
    "time slices",
    "the tick",
    "a fresh task beside an old one",
)
VIEWS = (
    View("switch", "switch_ns", "switch_lo_ns", "switch_hi_ns", group=_SWITCH),
    View("whole turn", "hop_ns", "hop_lo_ns", "hop_hi_ns", group=_SWITCH, priority=2),
    View("harness", "harness_ns", "harness_lo_ns", "harness_hi_ns", group=_SWITCH, priority=2),
    View("of it memory", "refill_ns", "refill_lo_ns", "refill_hi_ns", group=_SWITCH, priority=3),
    View("counted per turn", "switches_per_hop_ratio", group=_SWITCH, priority=3),
    View("switches", "switches_per_s", "switches_lo_per_s", "switches_hi_per_s", group=_LOSS, priority=2),
    View("lost", "lost_pct", "lost_lo_pct", "lost_hi_pct", group=_LOSS),
    View("run", "run_p50_ns", "run_p50_lo_ns", "run_p50_hi_ns", group=_SLICE),
    View("base slice", "base_slice_ns", group=_SLICE, priority=2),
    View("in whole ticks", "whole_slice_ns", group=_SLICE, priority=3),
    View("run p99", "run_p99_ns", group=_SLICE, priority=3),
    View("longest wait", "wait_max_ns", group=_SLICE, priority=2),
    View("fairness", "fairness_index", group=_SLICE, priority=2),
    View("near a tick", "near_edge_pct", "near_edge_lo_pct", "near_edge_hi_pct", group=_SLICE, priority=2),
    View("configured", "tick_config_ns", group=_TICK),
    View("coarse clock", "tick_coarse_ns", "tick_coarse_lo_ns", "tick_coarse_hi_ns", group=_TICK, priority=2),
    View("interrupts", "tick_interrupt_ns", "tick_interrupt_lo_ns", "tick_interrupt_hi_ns", group=_TICK, priority=2),
    View("always ticked", "tick_always", group=_TICK, priority=2),
    View("scheduler", "scheduler", group=_TICK, priority=2),
    View("fresh", "fresh_share_pct", "fresh_share_lo_pct", "fresh_share_hi_pct", group=_FRESH),
)


def _chart(name: str, title: str, x: str, y: str, series: tuple[str, ...], **more: Any) -> Chart:
    """A chart with the ends of its interval, unless it has ``ends=False``."""
    suffix = column_suffix(y) or ""
    stem = y.removesuffix(suffix)
    low, high = (f"{stem}_lo{suffix}", f"{stem}_hi{suffix}") if more.pop("ends", True) else ("", "")
    return Chart(name, title, x, y, low, high, series, **more)


def charts_of(asked: SchedulingParameters) -> tuple[Chart, ...]:
    """The charts of what was asked for; the tick and the fresh task are a number each, which is no picture."""
    found = {"switch": _switch_charts(asked), **_FIXED}
    return tuple(chart for measure in asked.measure for chart in found.get(measure, ()))


def _switch_charts(asked: SchedulingParameters) -> tuple[Chart, ...]:
    """More tasks and more memory were measured with the first token, on the first choice of CPUs."""
    few, least = ("tasks_count", min(asked.tasks)), ("working_set_bytes", min(asked.working_set))
    first = (("measure", "switch"), ("method", asked.token[0]), ("cpus_count", asked.cpus[0]))
    pairs: dict[str, Any] = {"where": (("measure", "switch"), few, least)}
    ring: dict[str, Any] = {"log_x": True, "where": (*first, least)}
    memory: dict[str, Any] = {"log_y": True, "where": (*first, few)}
    ring_title = f"One switch by the number of tasks in the ring, {asked.token[0]}"
    memory_title = f"A task's turn by the memory that it goes through, {asked.token[0]}"
    return (
        _chart("switch", "One context switch", "method", "switch_ns", ("kind", "cpus_count"), **pairs),
        _chart("ring", ring_title, "tasks_count", "switch_ns", ("kind",), **ring),
        _chart("working-set", memory_title, "working_set_bytes", "hop_ns", ("kind",), **memory),
    )


def _by_tasks(name: str, title: str, y: str, measure: str, **more: Any) -> Chart:
    series = ("method",) if measure == "slice" else ("kind",)
    return _chart(name, title, "tasks_count", y, series, log_x=True, where=(("measure", measure),), **more)


_FIXED = {
    "loss": (
        _chart(
            "lost",
            "Work lost by the rate of switches",
            "switches_per_s",
            "lost_pct",
            ("kind", "working_set_bytes"),
            log_x=True,
            where=(("measure", "loss"),),
        ),
    ),
    "slice": (
        _by_tasks("slices", "Time on the CPU without interruption", "run_p50_ns", "slice"),
        _by_tasks("near-tick", "Interruptions within 0.2 ms of the tick", "near_edge_pct", "slice"),
        _by_tasks("waits", "Longest wait for a turn", "wait_max_ns", "slice", ends=False, log_y=True),
        _by_tasks("shares", "CPU share of the task that got least", "share_min_pct", "slice", ends=False),
    ),
    "runnable": (_by_tasks("runnable", "One switch by the number of runnable tasks", "switch_ns", "runnable"),),
}
