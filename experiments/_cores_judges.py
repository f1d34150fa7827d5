"""The claims that cores judges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from c10k_probe import units
from c10k_probe.experiment import NOT_MEASURED, FlatRow, Judge, Made, Verdict

from ._cores_design import FEWEST_CPUS, is_base

EFFICIENT: Final = 0.8
EVEN: Final = 1.25
NO_WORSE: Final = 1.5
IDLE_DOUBT: Final = 0.1
HANDLER_NS: Final = 1_000_000  # of the claim's test
FULL: Final = 0.9  # of one CPU: with less the loop was not at full load


def _number(row: FlatRow, name: str) -> float | None:
    value = row[name]
    return None if value is None else float(value)


def _several(rows: Sequence[FlatRow]) -> list[FlatRow]:
    return [row for row in rows if not is_base(str(row["arm"])) and int(row["workers_count"] or 0) > 1]


def _told(row: FlatRow) -> str:
    """Everything of one row that the rule asks for."""
    texts = [f"{row['arm']} ×{row['workers_count']} {row['load']}:"]
    for label, name in (
        ("efficiency", "efficiency_ratio"),
        ("max/mean", "max_to_mean_ratio"),
        ("p99", "p99_over_single_ratio"),
    ):
        if (value := _number(row, name)) is not None:
            texts.append(f"{label} {units.format_quantity(value, 'ratio')}")
    if (value := _number(row, "wakeups_per_accept_ratio")) is not None:
        texts.append(f"wake-ups {value:.2f}")
    return " ".join(texts)


def _speeds_up(row: FlatRow) -> bool | None:
    low, high = _number(row, "efficiency_lo_ratio"), _number(row, "efficiency_hi_ratio")
    if low is None or high is None:
        return None
    return True if low >= EFFICIENT else False if high < EFFICIENT else None


def _is_even(row: FlatRow) -> bool | None:
    found = [_number(row, f"{name}_{end}_ratio") for name in ("max_to_mean", "p99_over_single") for end in ("lo", "hi")]
    lows, highs, bounds = found[::2], found[1::2], (EVEN, NO_WORSE)
    if any(low is not None and low > bound for low, bound in zip(lows, bounds, strict=True)):
        return False
    return True if all(high is not None and high <= bound for high, bound in zip(highs, bounds, strict=True)) else None


def judge_c51(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C51: do forked processes and load balancing lift the limit of one core?"""
    restated = "forked processes with load balancing solve the limit of one core"
    rule = (
        f"with ≥{FEWEST_CPUS} CPUs: CONFIRMED when one arm, under every load measured, has efficiency ≥{EFFICIENT} "
        f"(low end), max/mean ≤{EVEN} (high end) and p99 ≤{NO_WORSE} times that of one process at equal utilisation "
        f"(high end); PARTLY when one has the efficiency and not the rest (low ends); REFUTED when none reaches "
        f"{EFFICIENT} (high ends) with a handler of ≥1 ms: a shorter one bears more overhead; else INCONCLUSIVE"
    )
    several = _several(rows)
    reasons = {str(row["speed_up_reason"]) for row in several if row["speed_up_grade"] == "void"}
    usable = [row for row in several if row["speed_up_grade"] == "ok"]
    if not usable:
        why = next(iter(sorted(reasons)), "needs one process and an arm with several workers")
        shown = "; ".join(_told(row) for row in several)
        return Verdict(
            "C51", restated, rule, NOT_MEASURED, f"{why}; shares and wake-ups stand: {shown}" if shown else why
        )
    arms: dict[tuple[str, int], list[FlatRow]] = {}
    for row in usable:
        arms.setdefault((str(row["arm"]), int(row["workers_count"] or 0)), []).append(row)
    found = [([_speeds_up(row) for row in of_arm], [_is_even(row) for row in of_arm]) for of_arm in arms.values()]
    fast = [even for speeds, even in found if all(speed is True for speed in speeds)]
    if any(all(part is True for part in even) for even in fast):
        verdict = "CONFIRMED"
    elif any(False in even for even in fast):
        verdict = "PARTLY"
    elif all(False in speeds for speeds, _ in found) and all(int(row["work_ns"] or 0) >= HANDLER_NS for row in usable):
        verdict = "REFUTED"
    else:
        verdict = "INCONCLUSIVE"
    return Verdict("C51", restated, rule, verdict, "; ".join(_told(row) for row in usable))


def judge_c54(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C54: does one event loop fit one instance?"""
    restated = "one thread suits one cloud instance"
    rule = (
        "CONFIRMED when this run may use one CPU; REFUTED when it may use n, and one event loop at full load leaves "
        "(n-1)/n of their time or more to others, less 10 %; INCONCLUSIVE when the loop had under 0.9 of a CPU"
    )
    row = next((row for row in rows if row["arm"] == "epoll" and row["throughput_per_s"] is not None), None)
    if row is None or row["cpu_per_request_ns"] is None:
        return Verdict("C54", restated, rule, NOT_MEASURED, "needs the arm epoll")
    cpus_count = int(row["cpus_count"] or 0)
    if cpus_count <= 1:
        return Verdict("C54", restated, rule, "CONFIRMED", "this run may use one CPU")
    used = float(row["throughput_per_s"] or 0) * float(row["cpu_per_request_ns"] or 0) / 1e9
    if used < FULL:
        return Verdict("C54", restated, rule, "INCONCLUSIVE", f"the event loop had {used:.2f} of a CPU: no full load")
    idle = 1 - used / cpus_count
    is_idle = idle >= (cpus_count - 1) / cpus_count - IDLE_DOUBT
    evidence = f"one event loop at full load used {used:.2f} of {cpus_count} CPUs, and left {100 * idle:.0f} % of them"
    return Verdict("C54", restated, rule, "REFUTED" if is_idle else "INCONCLUSIVE", evidence)


JUDGES: tuple[Judge, ...] = (judge_c51, judge_c54)
