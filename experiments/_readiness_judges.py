"""The claim that readiness judges: C37, as far as the cost of waiting goes."""

from __future__ import annotations

from collections.abc import Sequence

from c10k_probe.experiment import NOT_MEASURED, Finding, FlatRow, Judge, Made, Verdict
from c10k_probe.units import format_quantity

from ._readiness_rows import exponent_subject

GROWS = 0.7
STAYS = 0.1
SCANS = ("select", "poll")


def judge_c37(_: Sequence[FlatRow], made: Sequence[Made]) -> Verdict:
    """C37, F2: does an event cost more with each idle descriptor under select and poll, and not under epoll?"""
    restated = "what waits with poll or select pays for every idle connection at each event"
    rule = (
        "F2 CONFIRMED when the growth exponent of an event's CPU time with 1 active is ≥0.7 (low end) for select and "
        "poll and ≤0.1 (high end) for epoll, REFUTED when an interval lies on the other side; F1, which calls servers "
        "make, needs servers under a tracer"
    )
    found = {item.subject: item for item in made if isinstance(item, Finding) and item.column == "growth_exponent"}
    asked = {name: found.get(exponent_subject("chain", "1", name)) for name in (*SCANS, "epoll")}
    ends = {name: item.value for name, item in asked.items() if item is not None and item.value is not None}
    if len(ends) < len(asked) or any(value.low is None or value.high is None for value in ends.values()):
        needs = "needs select, poll and epoll with 1 active at three counts or more, in five launches"
        return Verdict("C37", restated, rule, NOT_MEASURED, needs)
    low = {name: value.low or 0.0 for name, value in ends.items()}
    high = {name: value.high or 0.0 for name, value in ends.items()}
    holds = all(low[name] >= GROWS for name in SCANS) and high["epoll"] <= STAYS
    fails = any(high[name] < GROWS for name in SCANS) or low["epoll"] > STAYS
    verdict = "CONFIRMED" if holds else "REFUTED" if fails else "INCONCLUSIVE"
    return Verdict("C37", restated, rule, verdict, f"F2, cost of an event as watched^x: {_evidence(found)}")


def _evidence(found: dict[str, Finding]) -> str:
    """The exponents that matter, each with its interval, for one, a hundred and all active, and short connections."""
    parts = []
    for workload, active in (("chain", "1"), ("chain", "100"), ("chain", "100%"), ("short", "1")):
        texts = []
        for name in (*SCANS, "epoll"):
            item = found.get(exponent_subject(workload, active, name))
            if item is not None and item.value is not None:
                texts.append(f"{name} {_text(item)}")
        if texts:
            parts.append(f"{'short connections' if workload == 'short' else f'{active} active'}: {', '.join(texts)}")
    return "; ".join(parts)


def _text(item: Finding) -> str:
    value = item.value
    assert value is not None
    if value.low is None or value.high is None:
        return format_quantity(value.middle, "number")
    low, high = format_quantity(value.low, "number"), format_quantity(value.high, "number")
    return f"{format_quantity(value.middle, 'number')} [{low}, {high}]"


JUDGES: tuple[Judge, ...] = (judge_c37,)
