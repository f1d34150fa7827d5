"""Figures of ``watch``: rates, growth for each connection, histories; when to look."""

from __future__ import annotations

import csv
import io
import re
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from c10k_probe.cli import trace_show, watch_show
from c10k_probe.cli.follow import Schedule
from c10k_probe.observe.serving import Look, as_values, per_connection_bytes
from c10k_probe.sinks.exports import Target
from c10k_probe.tracing.result import Call, Histogram, Trace


def look(time_s: float, **values: int | float | None) -> Look:
    return Look(time_s=time_s, **values)  # type: ignore[arg-type]


def value_of(title: str, *looks: Look) -> float | None:
    figure = next(figure for figure in watch_show.FIGURES if figure.title == title)
    seen = watch_show.first(looks[0])
    for item in looks[1:]:
        seen = seen.followed_by(item)
    return figure.value(seen)


def test_a_rate_needs_two_looks_and_growth() -> None:
    before, after = look(10.0, voluntary_switches_count=100), look(12.0, voluntary_switches_count=140)
    assert value_of("voluntary switches", before) is None
    assert value_of("voluntary switches", before, after) == 20.0
    assert value_of("voluntary switches", after, look(14.0, voluntary_switches_count=3)) is None  # a task has ended
    assert value_of("voluntary switches", before, look(12.0)) is None
    assert value_of("CPU, of a core", look(0.0, cpu_s=1.0), look(2.0, cpu_s=2.0)) == 50.0


def test_per_connection_is_growth_against_the_fewest_and_needs_a_hundred_more() -> None:
    few = look(0.0, memory_connections_count=10, private_bytes=10_000, page_tables_bytes=0)
    many = look(1.0, memory_connections_count=210, private_bytes=410_000, page_tables_bytes=2_000)
    more = look(1.0, memory_connections_count=50, private_bytes=1, page_tables_bytes=0)
    assert per_connection_bytes(few, many, "user_bytes", "memory_connections_count") == 2010.0
    assert per_connection_bytes(few, more, "user_bytes", "memory_connections_count") is None
    assert value_of("user memory per connection", many, few, many) == 2010.0
    assert value_of("user memory per connection", few) is None
    assert value_of("user memory per connection", few, look(1.0, connections_count=500)) is None


def test_memory_is_divided_by_the_connections_of_its_own_moment() -> None:
    """And not by those of a later look, which carries the old reading."""
    few = look(0.0, connections_count=0, memory_connections_count=0, private_bytes=0, page_tables_bytes=0)
    old = look(
        9.0,
        connections_count=1000,
        memory_connections_count=200,
        memory_age_s=4.0,
        private_bytes=400_000,
        page_tables_bytes=0,
    )
    assert value_of("user memory per connection", few, old) == 2000.0
    stream = io.StringIO()
    lines = watch_show.PlainLines(stream, "a server")
    lines.look(few)
    lines.look(old)
    assert "age of these memory figures 4.00 s" in stream.getvalue()


def test_what_lacks_ended_tasks_is_shown_as_the_least_and_not_kept_as_the_whole(tmp_path: Path) -> None:
    counts = {"ended_tasks_count": 0, "unseen_signs_count": 0, "unwaited_count": 0}
    one = look(0.0, **counts, voluntary_switches_count=0, involuntary_switches_count=0, cpu_s=0.0)
    two = look(1.0, **counts, voluntary_switches_count=70, involuntary_switches_count=0, cpu_s=0.5)
    ended = {**counts, "ended_tasks_count": 3}
    three = look(2.0, **ended, voluntary_switches_count=100, involuntary_switches_count=0, cpu_s=1.0)
    stream = io.StringIO()
    lines = watch_show.PlainLines(stream, "a server")
    rows = watch_show.CsvRows(Target("--csv", str(tmp_path / "watch.csv")))
    for item in (one, two, three):
        lines.look(item)
        rows.look(item)
    rows.close()
    said = stream.getvalue()
    assert "voluntary switches 70.0/s" in said
    assert "voluntary switches ≥ 30.0/s" in said
    assert "CPU, of a core ≥" not in said  # a parent waited for what ended
    assert said.count("note: ≥: the least") == 1
    with (tmp_path / "watch.csv").open(encoding="utf-8") as file:
        kept = list(csv.DictReader(file))
    assert [row["voluntary_switches_per_s"] for row in kept] == ["", "70", ""]
    assert [row["voluntary_switches_least_per_s"] for row in kept] == ["", "70", "30"]
    assert [row["cpu_pct"] for row in kept] == ["", "50", "50"]
    assert [row["ended_tasks_count"] for row in kept] == ["0", "0", "3"]


@pytest.mark.parametrize("height", [24, 14])
def test_everything_fits_a_terminal_of_80_columns(height: int) -> None:
    """Notes and all, without a colour; what a lower terminal has no room for is said."""
    stream = io.StringIO()
    console = Console(file=stream, width=80, height=height, color_system=None)
    note = "this user cannot see who listens; all is shown by: sudo /a/long/path/to/c10k-probe watch --port 12345"
    table = watch_show.LiveTable("a server " * 20, notes=[note] if height < 24 else [], console=console)
    full: dict[str, Any] = {name: 123_456_789 for name in as_values(look(0.0)) if name != "time_s"}
    full |= {"hidden_processes_count": 0, "sockets_source": "/proc/PID/net/tcp"}
    table.look(look(1.0, **{**full, "connections_count": 1, "memory_connections_count": 1}))
    table.look(look(2.0, **{**full, "ended_tasks_count": 123_456_999}))
    table.end("time is up")
    text = stream.getvalue()
    *picture, ending = text[text.rindex("a server a server a server a server a") :].splitlines()
    assert ending == "time is up"
    assert len(picture) < height
    assert max(map(len, picture)) <= 80
    assert sum("▁" in line for line in picture) == (18 if height == 24 else 5)
    assert ("13 figures more in a higher terminal" in "".join(picture)) == (height < 24)
    assert "≥: the least" in text and "sockets of another network namespace" in text
    if height < 24:
        assert note in " ".join(line.strip() for line in picture)


def test_looks_that_were_missed_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    schedule = Schedule(1.0, 5.0)
    schedule.start()
    assert not schedule.is_due()
    now = 103.5
    assert schedule.is_due()
    assert not schedule.is_due()
    assert not schedule.is_over
    assert 0 < schedule.pause_s() <= 0.5
    now = 105.0
    assert schedule.is_over
    assert schedule.pause_s() == 0.0


# --- screens ----------------------------------------------------------------------------------------------------------


def screen(width: int) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, width=width, height=40, color_system=None), stream


@pytest.mark.parametrize("width", [80, 140])
def test_the_table_of_watch_fits_and_shows_the_newest(width: int) -> None:
    console, stream = screen(width)
    table = watch_show.LiveTable("a server with a very long command line " * 5, console=console)
    for index in range(50):
        big = 10**9 if index == 49 else 123_456_789
        table.look(look(float(index), connections_count=100_000 + index, private_bytes=big, socket_slab_bytes=big))
    table.end("time is up")
    text = stream.getvalue()
    lines = text[text.rindex("history") :].splitlines()
    assert all(len(line) <= width for line in text.splitlines())
    assert ("lowest" in text) == (width >= 100)
    assert next(line for line in lines if "private memory" in line).rstrip().endswith("▁█")
    assert "…" not in "".join(lines)


@pytest.mark.parametrize("width", [80, 140])
def test_the_table_of_trace_fits(width: int) -> None:
    console, stream = screen(width)
    calls = {
        f"call_number_{index}": Call(f"call_number_{index}", 10**index, 3, Histogram((10,) * 40, 1))
        for index in range(9)
    }
    whole = Trace(
        "bcc",
        12.0,
        calls=calls,
        calls_count=10**9,
        voluntary_switches_count=123_456_789,
        involuntary_switches_count=0,
        runqueue=Histogram((10,) * 40, 10**12),
        runqueue_wait_s=1234.5,
        dropped_count=7,
        notes=("a note",),
    )
    table = trace_show.LiveTable("a command [with] marks " * 9, 5, console)
    table.interval(whole, whole)
    table.summary(whole, "time is up")
    text = stream.getvalue()
    assert all(len(line) <= width for line in text.splitlines())
    assert re.search(r"call_number_8 +8,333,333/s +100,000,000 +3 ", text)
    assert "call_number_3" not in text  # the five made most
    assert "7 events were not counted" in text
    assert "note: a note" in text
    assert "[with]" in text
    assert "time is up, bcc, 12.00 s" in text
