"""What ``trace`` writes for a program: CSV and JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from c10k_probe.exits import UserError
from c10k_probe.results import Value, csv_line
from c10k_probe.sinks.exports import Target
from c10k_probe.tracing.result import Call, Histogram, Trace

CSV_COLUMNS = (
    *("backend", "span", "at_s", "interval_s", "call", "count", "per_s", "errors_count", "p50_ns", "p99_ns"),
    *("voluntary_switches_count", "involuntary_switches_count"),
    *("runqueue_p50_ns", "runqueue_p99_ns", "runqueue_wait_s"),
    *("forks_count", "threads_count", "exits_count", "page_faults_count", "accepts_count", "tcp_established_count"),
    *("cpu_s", "tasks_count", "dropped_tasks_count", "dropped_events_count"),
)
_OF_TRACE = {item.name for item in fields(Trace)} & {*CSV_COLUMNS}  # columns that are a trace's own, by its names


def write(target: Target, text: str) -> None:
    """Write all of it. Raises ``UserError`` with the target's name; ``BrokenPipeError`` when its reader has gone."""
    try:
        target.write(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"{target.name} cannot be written: {why}; free space or name another target") from None


def csv_rows(part: Trace, span: str, at_s: float) -> Iterator[list[Value]]:
    """One row of the whole tree, where ``call`` is empty, and one of each call. Unknown is empty."""
    base: dict[str, Value] = {
        "backend": part.backend,
        "span": span,
        "at_s": round(at_s, 6),
        "interval_s": round(part.elapsed_s, 6),
    }
    tree: dict[str, Value] = {
        **{name: getattr(part, name) for name in _OF_TRACE},
        "count": part.calls_count,
        "per_s": part.per_s(part.calls_count),
        "errors_count": part.call_errors_count,
        "runqueue_p50_ns": None if part.runqueue is None else part.runqueue.quantile_ns(0.5),
        "runqueue_p99_ns": None if part.runqueue is None else part.runqueue.quantile_ns(0.99),
        "tcp_established_count": part.established_count,
    }
    yield _row({**base, **tree})
    for call in part.top():
        latency = call.latency
        own: dict[str, Value] = {"call": call.name, "count": call.count, "per_s": part.per_s(call.count)}
        own |= {"errors_count": call.errors_count}
        own |= {f"p{p}_ns": None if latency is None else latency.quantile_ns(p / 100) for p in (50, 99)}
        yield _row({**base, **own})


def _row(values: Mapping[str, Value]) -> list[Value]:
    return [values.get(name) for name in CSV_COLUMNS]


class CsvRows:
    """``span`` is ``interval`` for a part and ``whole`` for the last rows, which sum everything up."""

    is_screen = False

    def __init__(self, target: Target) -> None:
        self._target = target
        write(target, csv_line(CSV_COLUMNS))

    def start(self) -> None:
        """The header is there already."""

    def interval(self, part: Trace, whole: Trace) -> None:
        """The rows of one interval."""
        self._write(part, "interval", whole.elapsed_s)

    def summary(self, whole: Trace, ending: str) -> None:
        """The rows of the whole."""
        self._write(whole, "whole", whole.elapsed_s)

    def close(self) -> None:
        """Close the file."""
        self._target.close()

    def _write(self, part: Trace, span: str, at_s: float) -> None:
        write(self._target, "".join(csv_line(row) for row in csv_rows(part, span, at_s)))


class JsonRows:
    """One object a line: ``trace`` first, ``interval`` each time, ``whole`` at the end. Unknown is null."""

    is_screen = False

    def __init__(self, target: Target, facts: Mapping[str, Any]) -> None:
        self._target = target
        self._write({"type": "trace", **facts})

    def start(self) -> None:
        """The first record is there already."""

    def interval(self, part: Trace, whole: Trace) -> None:
        """One interval."""
        self._write({"type": "interval", "at_s": whole.elapsed_s, **as_record(part)})

    def summary(self, whole: Trace, ending: str) -> None:
        """Everything, and why it ended."""
        self._write({"type": "whole", "ending": ending, **as_record(whole)})

    def close(self) -> None:
        """Close the file."""
        self._target.close()

    def _write(self, record: Mapping[str, Any]) -> None:
        write(self._target, json.dumps(record, ensure_ascii=False) + "\n")


def as_record(trace: Trace) -> dict[str, Any]:
    """A trace for JSON; latencies as their histogram by powers of two and two quantiles."""
    record = {item.name: getattr(trace, item.name) for item in fields(trace)}
    record["runqueue"] = _histogram_record(trace.runqueue)
    if trace.calls is not None:
        record["calls"] = {call.name: _call_record(call) for call in trace.top()}
    return record


def _call_record(call: Call) -> dict[str, Any]:
    return {"count": call.count, "errors_count": call.errors_count, "latency": _histogram_record(call.latency)}


def _histogram_record(histogram: Histogram | None) -> dict[str, Any] | None:
    if histogram is None:
        return None
    quantiles = {f"p{p}_ns": histogram.quantile_ns(p / 100) for p in (50, 99)}
    return {"count": histogram.count, "total_ns": histogram.total_ns, **quantiles, "log2_slots": histogram.slots}
