"""Traced launches of short-connections: what the server asks of the kernel for one connection that comes and goes."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from c10k_probe import stats
from c10k_probe.experiment import OFF, Cell, Samples, Scalar
from c10k_probe.servers import MODELS, Server
from c10k_probe.traced import slowdown
from c10k_probe.tracing.base import Options
from c10k_probe.tracing.result import Trace

from ._traced_launch import attached, calls_text, done_count, grade_traced, per_one, settle

CALLS: Final = (
    *("accept4", "setsockopt", "close", "recvfrom", "sendto", "epoll_ctl", "epoll_wait", "poll", "futex", "wait4"),
    *("clone", "clone3", "mmap", "mprotect", "munmap", "madvise", "rt_sigprocmask", "set_robust_list", "rseq"),
)
RARE: Final = 0.0005
FIGURES: Final = {
    "calls_count": "calls_per_connection",
    "voluntary_switches_count": "voluntary_switches_per_connection",
    "involuntary_switches_count": "involuntary_switches_per_connection",
    "page_faults_count": "page_faults_per_connection",
    "runqueue_wait_ns": "runqueue_wait_ns",
}


@contextmanager
def counting(cell: Cell, server: Server, connections_count: int) -> Iterator[dict[str, Scalar]]:
    """Count what a sleeping server does in the block until it sleeps again; the facts are there after the block."""
    facts: dict[str, Scalar] = {}
    with attached(cell.traced_by, [server.session], Options(calls=CALLS, interval_s=1.0)) as tracer:
        yield facts
        settle(server.session)
        trace = tracer.stop()
    if trace.backend == "proc" and MODELS[str(cell.key["model"])].per_connection.tasks_count:
        trace = _blind(trace)
    facts.update(per_one(trace.minus(trace), trace, connections_count).facts())
    for name in trace.calls or {}:
        done = done_count(trace, name)
        facts[f"done {name}"] = None if done is None else done / connections_count


def _blind(trace: Trace) -> Trace:
    """What /proc tells of a server whose tasks come and go between two looks is not of the whole server: nothing."""
    return Trace(trace.backend, trace.elapsed_s, notes=trace.notes)


def columns_of_rows(samples: Sequence[Samples], models: Sequence[str], n: int, seed: int) -> Iterator[dict[str, Any]]:
    """The columns of one row per model that has traced launches."""
    for model in models:
        launches = [item for item in samples if item.key["model"] == model and item.traced_by != OFF]
        base = [item for item in samples if item.key["model"] == model and item.traced_by == OFF]
        if launches:
            yield _columns(launches, base, n, seed)


def _columns(launches: Sequence[Samples], base: Sequence[Samples], n: int, seed: int) -> dict[str, Any]:
    figures = {
        column: stats.interval_of_all((_number(item.facts[name]) for item in launches), seed)
        for name, column in FIGURES.items()
    }
    ratio = slowdown(launches, base, "rate", seed)
    lost = [int(count) for item in launches if (count := item.facts["trace_dropped_count"]) is not None]
    grade = grade_traced(launches, {**figures, "traced_over_off_ratio": ratio})
    return {
        **launches[0].key,
        "n_count": n * len(launches),
        "launches_count": len(launches),
        "connect_rate_per_s": stats.median_interval([item.values["rate"][0] for item in launches], seed),
        **figures,
        "calls": _text(launches, "call "),
        "done_calls": _text(launches, "done "),
        "traced_over_off_ratio": ratio,
        "trace_dropped_count": sum(lost) if lost else None,
        "grade": grade.level,
        "grade_reason": grade.reason,
    }


def _text(launches: Sequence[Samples], prefix: str) -> str | None:
    """The median launch's calls by name; None where the backend does not know."""
    names = sorted({name for item in launches for name in item.facts if name.startswith(prefix)})
    if any(item.facts.get(name, 0) is None for item in launches for name in names):
        return None
    found = {
        name.removeprefix(prefix): statistics.median(_number(item.facts.get(name)) or 0 for item in launches)
        for name in names
    }
    return calls_text({name: round(count, 4) for name, count in found.items() if abs(count) >= RARE})


def _number(value: Scalar) -> float | None:
    return None if value is None else float(value)
