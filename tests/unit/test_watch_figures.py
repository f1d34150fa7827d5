"""Figures of ``watch``: rates, growth for each connection, histories; when to look."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from c10k_probe.cli import trace_show, watch_show
from c10k_probe.cli.follow import Schedule
from c10k_probe.observe.serving import Look, per_connection_bytes
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
    few = look(0.0, connections_count=10, private_bytes=10_000, page_tables_bytes=0)
    many = look(1.0, connections_count=210, private_bytes=410_000, page_tables_bytes=2_000)
    assert per_connection_bytes(few, many, "user_bytes") == 2010.0
    assert (
        per_connection_bytes(few, look(1.0, connections_count=50, private_bytes=1, page_tables_bytes=0), "user_bytes")
        is None
    )
    assert value_of("user memory per connection", many, few, many) == 2010.0
    assert value_of("user memory per connection", few) is None
    assert value_of("user memory per connection", few, look(1.0, connections_count=500)) is None


@pytest.mark.parametrize(
    ("values", "line"),
    [([], ""), ([None], ""), ([5.0, 5.0], "▁▁"), ([0.0, 7.0], "▁█"), ([0.0, None, 3.5, 7.0], "▁ ▅█")],
)
def test_sparklines(values: list[float | None], line: str) -> None:
    assert watch_show.sparkline(values) == line


def test_a_plain_line_leaves_out_what_is_not_known() -> None:
    stream = io.StringIO()
    lines = watch_show.PlainLines(stream, "a server")
    lines.look(look(5.0, connections_count=3))
    lines.look(look(6.0, connections_count=4, threads_count=2))
    lines.end("time is up")
    assert stream.getvalue().splitlines() == [
        "watching a server",
        "0.0 s: connections 3",
        "1.0 s: connections 4, threads 2",
        "time is up",
    ]


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
    table = watch_show.LiveTable("a server with a very long command line " * 5, console)
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
        dropped_events_count=7,
        notes=("a note",),
    )
    table = trace_show.LiveTable("a command [with] marks " * 9, 5, console)
    table.interval(whole, whole)
    table.summary(whole, "time is up")
    text = stream.getvalue()
    assert all(len(line) <= width for line in text.splitlines())
    assert re.search(r"call_number_8 +8,333,333/s .* 100.0 m +3", text)
    assert "call_number_3" not in text  # the five made most
    assert "7 events were not counted" in text
    assert "note: a note" in text
    assert "[with]" in text
    assert "time is up, bcc, 12.00 s" in text
