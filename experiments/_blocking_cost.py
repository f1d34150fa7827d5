"""The claim on what a request costs, C52: CPU time and memory, on one CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from c10k_probe import stats
from c10k_probe.experiment import NOT_MEASURED, Finding, FlatRow, Made, Verdict
from c10k_probe.units import format_column

from ._blocking_design import ONE_CPU, ONE_CPU_CONCURRENCY, ONE_CPU_MODELS, ONE_CPU_MORE
from ._blocking_findings import MEMORY
from ._blocking_told import number, of, text

EVENT_THAT_WAITS: Final = "epoll-await"


def judge_c52(rows: Sequence[FlatRow], made: Sequence[Made]) -> Verdict:
    """C52: does the event loop answer most for a second of CPU, and take least memory for a request under way?"""
    restated = "an event-driven server is the best on one CPU and takes less memory"
    rule = (
        "R on one CPU the event server answers at least as many requests for a second of CPU time as each alternative "
        "(intervals apart, or within 1 %), M it takes least memory for each further request under way (intervals "
        f"apart; {ONE_CPU_CONCURRENCY} and {ONE_CPU_MORE} that wait, a worker for each; without the kernel's sockets, "
        "which are as many in every model); CONFIRMED when both hold, REFUTED when one fails"
    )
    found = [row for row in of(rows, ONE_CPU) if number(row, "requests_lo_per_cpu_s") is not None]
    found = [row for row in found if row["concurrency_count"] == ONE_CPU_CONCURRENCY]
    loads = sorted({(int(row["delay_ns"] or 0), int(row["cpu_ns"] or 0)) for row in found})
    parts = [part for load in loads if (part := _is_best(found, load)) is not NOT_MEASURED]
    if not parts:
        return Verdict("C52", restated, rule, NOT_MEASURED, "needs --part one-cpu in five launches")
    told = "; ".join(
        f"wait {format_column('x_ns', delay)}, CPU {format_column('x_ns', work)}: {_best_text(found, (delay, work))}"
        for delay, work in loads
    )
    slopes = {
        item.subject: item.value for item in made if isinstance(item, Finding) and item.column == MEMORY and item.value
    }
    parts.append(_is_smallest(slopes))
    verdict = "REFUTED" if False in parts else "INCONCLUSIVE" if None in parts else "CONFIRMED"
    memory = ", ".join(f"{name} {_interval_text(value)}" for name, value in slopes.items()) or "not measured"
    return Verdict("C52", restated, rule, verdict, f"R {told}; M for each request {memory}")


def _is_smallest(slopes: Mapping[str, stats.Interval]) -> bool | None:
    """None: it cannot be told, or a model is missing."""
    event = slopes.get(EVENT_THAT_WAITS)
    others = [value for name, value in slopes.items() if name != EVENT_THAT_WAITS]
    if event is None or event.low is None or event.high is None or not others:
        return None
    if any(other.high is not None and other.high < event.low for other in others):
        return False
    is_whole = len(slopes) == len(ONE_CPU_MODELS) - 1  # epoll without a backend has none
    return True if is_whole and all(other.low is not None and other.low > event.high for other in others) else None


def _interval_text(value: stats.Interval) -> str:
    low, high = (format_column(MEMORY, end) for end in (value.low, value.high))
    return f"{format_column(MEMORY, value.middle)} " + ("(no interval)" if value.low is None else f"[{low}, {high}]")


def _load(rows: Sequence[FlatRow], load: tuple[int, int]) -> tuple[FlatRow | None, list[FlatRow]]:
    """(the event server, all others); where there is a wait, the event server is the one that awaits."""
    name = EVENT_THAT_WAITS if load[0] else "epoll"
    of_load = [row for row in rows if (row["delay_ns"], row["cpu_ns"]) == load]
    event = next((row for row in of_load if row["model"] == name), None)
    return event, [row for row in of_load if row["model"] not in ("epoll", "epoll-await")]


def _is_best(rows: Sequence[FlatRow], load: tuple[int, int]) -> bool | str | None:
    event, others = _load(rows, load)
    if event is None or not others:
        return NOT_MEASURED
    low, high = number(event, "requests_lo_per_cpu_s") or 0, number(event, "requests_hi_per_cpu_s") or 0
    if any((number(other, "requests_lo_per_cpu_s") or 0) > high * 1.01 for other in others):
        return False
    return True if all(low >= 0.99 * (number(other, "requests_hi_per_cpu_s") or 0) for other in others) else None


def _best_text(rows: Sequence[FlatRow], load: tuple[int, int]) -> str:
    event, others = _load(rows, load)
    told = ([event] if event else []) + others
    names = ("requests_lo_per_cpu_s", "requests_hi_per_cpu_s")
    return ", ".join(f"{row['model']} {text('requests_per_cpu_s', row, *names)}" for row in told)
