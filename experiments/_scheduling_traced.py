"""Traced launches of scheduling: what the tracepoint sched_switch counts of all tasks, beside the kernel's own account.

A launch is traced whole, from the helper's first instruction to its end, with starting its tasks and warming up in it;
its account is what the kernel charges the helper and all descendants when they have ended (getrusage(2)), less what the
process had been charged before the tracer counted. The account has one switch more of each process: its last, by which
it is dead, and which a tracer that follows living tasks does not see. Under strace it has the stops of every call, too.
Times under a tracer are not told.
"""

from __future__ import annotations

import dataclasses
import resource
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from c10k_probe import stats
from c10k_probe.experiment import OFF, Cell, Samples, Scalar, View
from c10k_probe.observe import tree
from c10k_probe.traced import by_key, interval_view, slowdown, untraced
from c10k_probe.tracing.base import Options
from c10k_probe.tracing.result import Trace

from ._scheduling_rows import SchedulingRow
from ._traced_launch import HeldHelper, attached, grade_traced, whole

PASS: Final = "pass"  # of the samples' values: what is timed alike in both kinds of launches
_KINDS: Final = ("voluntary_switches_count", "involuntary_switches_count")
_GROUP: Final = "traced, whole launches"


VIEWS: Final = (
    View("counted", "traced_switches_count", group=_GROUP, traced=True),
    View("charged", "charged_switches_count", group=_GROUP, traced=True),
    interval_view("over charged", "traced_over_charged_ratio", _GROUP, 2),
    interval_view("waiting to run", "runqueue_wait_ns", _GROUP, 3),
    View("system calls", "calls_count", group=_GROUP, priority=4, traced=True),
    interval_view("time over untraced", "traced_over_off_ratio", _GROUP, 3),
)


@dataclass(frozen=True)
class Asked:
    """What the helper is asked: its options, the message that answers, and how many trials it tells of before."""

    options: Sequence[object]
    answer: str
    trials_count: int
    patience_s: float


def launch(cell: Cell, block: int, asked: Asked) -> Samples:
    """One launch, traced whole. Raises ``HelperError``; ``HelperUnsupported`` where the backend cannot work here."""
    with HeldHelper("scheduling", asked.options) as helper:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with attached(cell.traced_by, [helper.pid], Options(interval_s=1.0)) as tracer:
            gate = tree.read_tree(helper.pid, memory=False)
            helper.release(asked.patience_s)
            for _ in range(asked.trials_count):
                helper.expect("progress", asked.patience_s)
            message = helper.expect(asked.answer, asked.patience_s)
            dropped_count = helper.finish()["dropped_count"]
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            trace = whole(tracer, before)
    known = (gate.voluntary_switches_count or 0, gate.involuntary_switches_count or 0)
    charged = (after.ru_nvcsw - before.ru_nvcsw - known[0], after.ru_nivcsw - before.ru_nivcsw - known[1])
    if trace.backend == "proc":  # of what has ended it knows that account and no more
        trace = dataclasses.replace(trace, voluntary_switches_count=None, involuntary_switches_count=None)
    values = {PASS: message["pass_ns"]} if "pass_ns" in message else {}
    told = {name: message[name] for name in (*_KINDS, "counted_hops_count") if isinstance(message.get(name), int)}
    facts = {**told, "dropped_count": int(dropped_count), **facts_of(trace, sum(charged))}
    return Samples(cell.key, block, values, facts)


def facts_of(trace: Trace, charged_count: int) -> dict[str, Scalar]:
    """Flat, for the raw samples."""
    switches = (trace.voluntary_switches_count, trace.involuntary_switches_count)
    wait_s = trace.runqueue_wait_s
    return {
        "traced_voluntary_switches_count": switches[0],
        "traced_involuntary_switches_count": switches[1],
        "charged_switches_count": charged_count,
        "runqueue_wait_total_ns": None if wait_s is None else wait_s * 1e9,
        "calls_count": trace.calls_count,
        "trace_dropped_count": trace.dropped_count,
        "notes": "; ".join(trace.notes),
    }


def rows(samples: Sequence[Samples], seed: int) -> Iterator[SchedulingRow]:
    """One row for each cell with traced launches, in their order."""
    plain = by_key(untraced(samples))
    for key, launches in by_key(item for item in samples if item.traced_by != OFF).items():
        yield _row(launches, plain.get(key[:-1], ()), seed)


def _row(launches: Sequence[Samples], base: Sequence[Samples], seed: int) -> SchedulingRow:
    agreement = stats.interval_of_all(map(_over_charged, launches), seed)
    has_times = all(PASS in item.values for item in (*launches, *base))
    ratio = slowdown(launches, base, PASS, seed) if has_times else None
    grade = grade_traced(launches, {"traced_over_charged_ratio": agreement, "traced_over_off_ratio": ratio})
    sums: Mapping[str, Any] = {
        **{name: _sum(launches, name) for name in (*_KINDS, "calls_count", "trace_dropped_count", "dropped_count")},
        "traced_switches_count": _sum_of_parts(launches),
        "charged_switches_count": _sum(launches, "charged_switches_count"),
    }
    return SchedulingRow(
        **launches[0].key,  # type: ignore[arg-type]
        **sums,
        traced_over_charged_ratio=agreement,
        runqueue_wait_ns=stats.interval_of_all(map(_wait_ns, launches), seed),
        traced_over_off_ratio=ratio,
        launches_count=len(launches),
        grade=grade.level,
        grade_reason=grade.reason,
    )


def _traced_count(item: Samples) -> int | None:
    parts = [item.facts[f"traced_{name}"] for name in _KINDS]
    return None if None in parts else sum(int(part or 0) for part in parts)


def _over_charged(item: Samples) -> float | None:
    count, charged = _traced_count(item), item.facts["charged_switches_count"]
    return None if count is None or not charged else count / float(charged)


def _wait_ns(item: Samples) -> float | None:
    """How long a task that could run waited for its turn, for each switch."""
    wait_ns, count = item.facts["runqueue_wait_total_ns"], _traced_count(item)
    return None if wait_ns is None or not count else float(wait_ns) / count


def _sum(launches: Sequence[Samples], name: str) -> int | None:
    """None unless each launch has it."""
    known = [item.facts.get(name) for item in launches]
    return None if None in known else sum(int(value or 0) for value in known)


def _sum_of_parts(launches: Sequence[Samples]) -> int | None:
    counts = [_traced_count(item) for item in launches]
    return None if None in counts else sum(count or 0 for count in counts)
