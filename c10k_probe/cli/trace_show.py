"""How ``trace`` shows and exports what was counted: a live table, plain lines, CSV, JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, Protocol, TextIO

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from c10k_probe.results import Value, csv_line
from c10k_probe.sinks.exports import Target
from c10k_probe.tracing.result import Call, Histogram, Trace
from c10k_probe.units import format_column, format_quantity

CSV_COLUMNS = (
    *("backend", "span", "at_s", "interval_s", "call", "count", "per_s", "errors_count", "p50_ns", "p99_ns"),
    *("voluntary_switches_count", "involuntary_switches_count"),
    *("runqueue_p50_ns", "runqueue_p99_ns", "runqueue_wait_s"),
    *("forks_count", "threads_count", "exits_count", "page_faults_count", "accepts_count", "tcp_established_count"),
    *("cpu_s", "tasks_count", "dropped_count"),
)
_ESTABLISHED = ("SYN_RECV>ESTABLISHED", "SYN_SENT>ESTABLISHED")
_TREE_COUNTS = CSV_COLUMNS[10:12] + CSV_COLUMNS[15:20] + CSV_COLUMNS[21:]


class Show(Protocol):
    """Takes what was counted, interval by interval, and everything at the end."""

    def interval(self, part: Trace, whole: Trace) -> None:
        """What was counted since the last one, and since the start."""

    def summary(self, whole: Trace, ending: str) -> None:
        """Everything, and why it ended."""

    def close(self) -> None:
        """Give back terminal and files."""


# --- for a reader -----------------------------------------------------------------------------------------------------


def tree_figures(trace: Trace) -> Iterator[tuple[str, str]]:
    """(what, how much) for all of the tree that this backend knows; as a rate what comes steadily."""
    for title, count in (
        ("calls", trace.calls_count),
        ("errors", trace.call_errors_count),
        ("voluntary switches", trace.voluntary_switches_count),
        ("involuntary switches", trace.involuntary_switches_count),
        ("page faults", trace.page_faults_count),
        ("accepts", trace.accepts_count),
        ("established", established(trace)),
    ):
        if count is not None:
            yield title, f"{count:,} ({rate_text(trace, count)})" if count else "0"
    if trace.runqueue_wait_s is not None:
        yield "run-queue wait", ", ".join([format_column("x_s", trace.runqueue_wait_s), *_quantiles(trace.runqueue)])
    for title, count in (("forks", trace.forks_count), ("threads", trace.threads_count), ("exits", trace.exits_count)):
        if count is not None:
            yield title, f"{count:,}"
    if trace.cpu_s is not None:
        yield (
            "CPU",
            f"{format_column('x_s', trace.cpu_s)} ({100 * (trace.per_s(1) or 0) * trace.cpu_s:.0f} % of a core)",
        )
    if trace.tasks_count is not None:
        yield "tasks", f"{trace.tasks_count:,}"
    if trace.dropped_count is not None:
        yield "dropped", f"{trace.dropped_count:,}"


def established(trace: Trace) -> int | None:
    """Connections that came to be, from either side."""
    parts = [trace.tcp(change) for change in _ESTABLISHED]
    return None if trace.tcp_changes is None else sum(part or 0 for part in parts)


def rate_text(trace: Trace, count: int) -> str:
    """``12.3/s``."""
    rate = trace.per_s(count)
    return "" if rate is None else format_quantity(rate, "rate")


def call_cells(call: Call, part: Trace) -> list[str]:
    """Rate, errors and latencies of a call within a part; a figure that nobody knows is empty."""
    errors = "" if call.errors_count is None else f"{call.errors_count:,}"
    return [rate_text(part, call.count), f"{call.count:,}", errors, *(_quantile(call.latency, q) for q in (0.5, 0.99))]


def _quantiles(histogram: Histogram | None) -> list[str]:
    texts = {name: _quantile(histogram, share) for name, share in (("p50", 0.5), ("p99", 0.99))}
    return [f"{name} {text}" for name, text in texts.items() if text]


def _quantile(histogram: Histogram | None, share: float) -> str:
    value = None if histogram is None else histogram.quantile_ns(share)
    return "" if value is None else f"≤{format_quantity(value, 'duration')}"


class PlainLines:
    """One line for each interval; at the end a line for each call."""

    def __init__(self, stream: TextIO, title: str, top: int) -> None:
        self._stream, self._top = stream, top
        self._print(title)

    def interval(self, part: Trace, whole: Trace) -> None:
        """The tree's figures, and the calls made most."""
        calls = [f"{call.name} {rate_text(part, call.count)}" for call in part.top(min(3, self._top))]
        figures = [f"{title} {text}" for title, text in tree_figures(part)]
        self._print(f"{whole.elapsed_s:.1f} s: {', '.join([*calls, *figures])}")

    def summary(self, whole: Trace, ending: str) -> None:
        """All of it."""
        for call in whole.top(self._top):
            titles = ("", "count", "errors", "p50", "p99")
            cells = zip(titles, call_cells(call, whole), strict=True)
            self._print(f"{call.name}: " + ", ".join(f"{title} {text}".strip() for title, text in cells if text))
        self._print("whole tree: " + ", ".join(f"{title} {text}" for title, text in tree_figures(whole)))
        for note in _notes(whole):
            self._print(f"note: {note}")
        self._print(f"{ending}, {whole.backend}, {whole.elapsed_s:.2f} s")

    def close(self) -> None:
        """Nothing to give back."""

    def _print(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


class LiveTable:
    """A table that is drawn at each interval; the last one stays, with the whole."""

    def __init__(self, title: str, top: int, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._title, self._top = title, top
        self._live.start()
        self._console.show_cursor(True)  # a killed run must not leave a terminal without a cursor
        self._live.update(Text(f"{title}\nwaiting for the first interval", style="dim"), refresh=True)

    def say(self, line: str) -> None:
        """A line of the traced command, above the table."""
        self._console.print(Text.from_ansi(line))

    def interval(self, part: Trace, whole: Trace) -> None:
        """Draw: rates and latencies of the interval, counts of the whole."""
        self._live.update(self._picture(part, whole), refresh=True)

    def summary(self, whole: Trace, ending: str) -> None:
        """The table of the whole, which stays."""
        self.close()
        self._console.print(self._picture(whole, whole))
        for note in _notes(whole):
            self._console.print(Text(f"note: {note}", style="yellow"))
        self._console.print(Text(f"{ending}, {whole.backend}, {whole.elapsed_s:.2f} s", style="green"))

    def close(self) -> None:
        """Give the terminal back."""
        self._live.stop()

    def _picture(self, part: Trace, whole: Trace) -> RenderableType:
        head = Text(f"{self._title}  {whole.backend}  {whole.elapsed_s:.1f} s", style="bold", overflow="ellipsis")
        figures = list(tree_figures(part))
        height = max(3, self._console.height - len(figures) // 2 - 8)
        return Group(head, _figures_table(figures), *_calls_table(part, whole, min(self._top, height)))


def _figures_table(figures: Sequence[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for index in range(0, len(figures), 2):
        pair = figures[index : index + 2]
        table.add_row(*(cell for title, text in pair for cell in (Text(title, style="cyan"), Text(text))))
    return table


def _calls_table(part: Trace, whole: Trace, top: int) -> list[Table]:
    if whole.calls is None:
        return []
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("call", no_wrap=True)
    for header in ("rate", "count", "errors", "p50", "p99"):
        table.add_column(header, justify="right", no_wrap=True)
    for call in part.top(top):
        total = whole.calls.get(call.name, call)
        rate, _, _, p50, p99 = call_cells(call, part)
        _, count, errors, _, _ = call_cells(total, whole)
        table.add_row(call.name, rate, count, errors, p50, p99)
    return [table]


def _notes(whole: Trace) -> list[str]:
    dropped = whole.dropped_count
    lost = [f"{dropped:,} events were not counted: every count is a lower bound; see --tasks"] if dropped else []
    return [*lost, *whole.notes]


# --- for a program ----------------------------------------------------------------------------------------------------


def csv_rows(part: Trace, span: str, at_s: float) -> Iterator[list[Value]]:
    """One row of the whole tree, where ``call`` is empty, and one of each call. Unknown is empty."""
    base: dict[str, Value] = {
        "backend": part.backend,
        "span": span,
        "at_s": round(at_s, 6),
        "interval_s": round(part.elapsed_s, 6),
    }
    tree: dict[str, Value] = {
        **{name: getattr(part, name) for name in _TREE_COUNTS if hasattr(part, name)},
        "count": part.calls_count,
        "per_s": part.per_s(part.calls_count),
        "errors_count": part.call_errors_count,
        "runqueue_p50_ns": None if part.runqueue is None else part.runqueue.quantile_ns(0.5),
        "runqueue_p99_ns": None if part.runqueue is None else part.runqueue.quantile_ns(0.99),
        "runqueue_wait_s": part.runqueue_wait_s,
        "tcp_established_count": established(part),
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

    def __init__(self, target: Target) -> None:
        self._target = target
        target.write(csv_line(CSV_COLUMNS))

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
        self._target.write("".join(csv_line(row) for row in csv_rows(part, span, at_s)))


class JsonRows:
    """One object a line: ``trace`` first, ``interval`` each time, ``whole`` at the end. Unknown is null."""

    def __init__(self, target: Target, facts: Mapping[str, Any]) -> None:
        self._target = target
        self._write({"type": "trace", **facts})

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
        self._target.write(json.dumps(record, ensure_ascii=False) + "\n")


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
