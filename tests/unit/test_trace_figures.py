"""What ``trace`` shows and exports of readings that are made up: spans, widths, last parts, targets that fill up."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from c10k_probe.cli import follow, trace, trace_show
from c10k_probe.exits import ExitCode, UserError
from c10k_probe.tracing.result import Call, Histogram, Trace

HISTOGRAM = Histogram((0,) * 12 + (1000,) * 20 + (0,) * 8, 10**12)


def huge() -> Trace:
    """A reading of many calls, with every figure as wide as it becomes."""
    names = [f"sched_getaffinity{index}" for index in range(40)]
    return Trace(
        backend="bcc",
        elapsed_s=123_456.0,
        calls={name: Call(name, 98_765_432_100 - at, 98_765_432, HISTOGRAM) for at, name in enumerate(names)},
        calls_count=10**12,
        call_errors_count=10**9,
        voluntary_switches_count=9_999_999,
        involuntary_switches_count=0,
        runqueue=HISTOGRAM,
        runqueue_wait_s=1234.5,
        forks_count=12_000,
        threads_count=9_999_999,
        exits_count=9_999_999,
        page_faults_count=10**9,
        accepts_count=10**7,
        tcp_changes={"SYN_RECV>ESTABLISHED": 9_999_999},
        cpu_s=11_111.1,
        tasks_count=12_000,
        dropped_tasks_count=7,
        dropped_events_count=9_000_000,
    )


def drawn(part: Trace, whole: Trace) -> list[str]:
    """The live picture on a terminal of 80 columns and 24 lines."""
    stream = io.StringIO()
    console = Console(file=stream, width=80, height=24, force_terminal=True, color_system=None)
    table = trace_show.LiveTable("nginx: master process " * 9, 12, console)
    table.interval(part, whole)
    console.print(table._live.renderable)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def test_the_live_table_fits_a_terminal_of_80_by_24() -> None:
    """Also with figures of the widest, and every call has its whole name and every number its digits."""
    for elapsed_s in (0.3, 1.0, 59.0, 3600.0):
        lines = drawn(dataclasses.replace(huge(), elapsed_s=elapsed_s), huge())
        assert len(lines) <= 23
        assert max(map(len, lines)) <= 80
        assert not [line for line in lines[1:] if "…" in line]
        assert len([line for line in lines if "sched_getaffinity" in line]) >= trace_show._CALLS_LEAST
        assert "bcc  123456.0 s" in lines[0]


def test_every_column_says_which_span_it_has() -> None:
    """Rates and latencies are those of the interval, counts and errors those of the whole."""
    whole = Trace("bcc", 10.0, calls={"read": Call("read", 500, 7, HISTOGRAM)}, calls_count=500, call_errors_count=7)
    whole = dataclasses.replace(whole, forks_count=4, runqueue_wait_s=3.0, dropped_tasks_count=0)
    part = Trace("bcc", 2.0, calls={"read": Call("read", 100, 2, HISTOGRAM)}, calls_count=100, call_errors_count=2)
    lines = drawn(dataclasses.replace(part, forks_count=1, runqueue_wait_s=1.0), whole)
    assert lines[1].split() == ["rate", "p50", "p99", "count", "errors"]
    assert lines[2].split() == ["last", "2", "s"] * 3 + ["in", "all"] * 2
    by_name = {line.rpartition("  ")[0].split("  ")[0]: line.split() for line in lines[4:]}
    assert by_name["all calls"][2:] == ["50.0/s", "500", "7"]
    assert by_name["read"][1] == "50.0/s"
    assert by_name["read"][-2:] == ["500", "7"]
    assert by_name["run-queue wait"][-2:] == ["3.00", "s"]
    assert lines[-1] == "in all 4 forks, 0 dropped"


class Recorder:
    """A show that keeps what it is told; ``fails_at``: the interval that it cannot keep."""

    def __init__(self, *, is_screen: bool, fails_at: int | None = None) -> None:
        self.is_screen, self.fails_at = is_screen, fails_at
        self.parts: list[Trace] = []
        self.wholes: list[Trace] = []
        self.is_closed = False

    def start(self) -> None:
        pass

    def interval(self, part: Trace, whole: Trace) -> None:
        if len(self.parts) == self.fails_at:
            raise UserError("the disk is full")
        self.parts.append(part)

    def summary(self, whole: Trace, ending: str) -> None:
        self.wholes.append(whole)

    def close(self) -> None:
        self.is_closed = True


def session(*shows: Recorder, **texts: str) -> trace._Session:
    options = follow.parse_parameters(trace.TraceParameters, {"quiet": True, **texts})
    made = trace._Session(options, [], ["true"])
    made._shows.extend(shows)
    return made


def reading(elapsed_s: float, count: int) -> Trace:
    calls = {"read": Call("read", count), "write": Call("write", 1)}
    return Trace("perf", elapsed_s, calls=calls, calls_count=count + 1)


def test_the_intervals_are_the_whole_and_none_is_empty() -> None:
    """A backend that has read nothing new gives the same again; what came after the last look is an interval too."""
    export = Recorder(is_screen=False)
    made = session(export)
    for look in (reading(1.0, 10), reading(1.0, 10), reading(2.0, 30)):
        made._show_interval(look)
    assert made._finish(reading(2.5, 35), trace.ENDED) == ExitCode.OK
    assert [part.elapsed_s for part in export.parts] == [1.0, 1.0, 0.5]
    assert [part.calls_count for part in export.parts] == [11, 20, 5]
    assert [whole.calls_count for whole in export.wholes] == [36]


def test_a_single_interval_is_exported_and_not_shown_twice() -> None:
    export, screen = Recorder(is_screen=False), Recorder(is_screen=True)
    session(export, screen)._finish(reading(0.5, 3), trace.ENDED)
    assert (len(export.parts), len(screen.parts), len(screen.wholes)) == (1, 0, 1)


def test_a_target_that_fills_up_is_told_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    full, other = Recorder(is_screen=False, fails_at=1), Recorder(is_screen=False)
    made = session(full, other)
    made._show_interval(reading(1.0, 10))
    made._show_interval(reading(2.0, 20))
    assert made._finish(reading(3.0, 30), trace.ENDED) == ExitCode.ERROR
    assert (len(full.parts), full.is_closed, len(other.parts), len(other.wholes)) == (1, True, 3, 1)
    assert capsys.readouterr().err == "c10k-probe: the disk is full\n"


def test_calls_that_are_named_are_shown_alone_and_the_sum_is_of_all() -> None:
    export = Recorder(is_screen=False)
    session(export, calls="write,write")._finish(reading(1.0, 10), trace.ENDED)
    assert [list(whole.calls or {}) for whole in export.wholes] == [["write"]]
    assert [whole.calls_count for whole in export.wholes] == [11]


def test_dropped_tasks_and_events_are_two_figures(tmp_path: Path) -> None:
    from c10k_probe.cli import trace_export
    from c10k_probe.sinks.exports import Target

    whole = dataclasses.replace(reading(1.0, 1), dropped_tasks_count=137, dropped_events_count=0)
    assert trace_show.dropped_text(whole) == "137 tasks"
    both = dataclasses.replace(whole, dropped_events_count=2)
    assert (trace_show.dropped_text(both), both.dropped_count) == ("137 tasks and 2 events", 139)
    assert (trace_show.dropped_text(reading(1.0, 1)), reading(1.0, 1).dropped_count) == ("0", None)
    rows, records = trace_export.CsvRows(Target("--csv", str(tmp_path / "a"))), tmp_path / "b"
    lines = trace_export.JsonRows(Target("--json", str(records)), {})
    for show in (rows, lines):
        show.summary(both, "ended")
        show.close()
    first = next(csv.DictReader(io.StringIO((tmp_path / "a").read_text())))
    assert (first["dropped_tasks_count"], first["dropped_events_count"]) == ("137", "2")
    last = json.loads(records.read_text().splitlines()[-1])
    assert (last["dropped_tasks_count"], last["dropped_events_count"]) == (137, 2)
