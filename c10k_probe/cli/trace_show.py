"""How ``trace`` shows what was counted: a live table or plain lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TextIO

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from c10k_probe.tracing.result import Call, Histogram, Trace
from c10k_probe.units import format_column, format_quantity

_IN_ALL = "in all"
_NAME_WIDTH = 20
_SHORT_FROM = 10**7
_LONG_FROM = 999_950_000
_OTHER_LINES = 15  # of a screen: all but the calls
_CALLS_LEAST = 3


class Show(Protocol):
    """Takes what was counted, interval by interval, and everything at the end.

    is_screen: shown to a reader, for whom the whole is enough when there is but one interval.
    """

    is_screen: bool

    def start(self) -> None:
        """Tracing has begun."""

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
        ("established by port", trace.established_count),
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
        yield "dropped", dropped_text(trace)


def dropped_text(trace: Trace) -> str:
    """Both kinds, or 0 for none."""
    kinds = ((trace.dropped_tasks_count, "tasks"), (trace.dropped_events_count, "events"))
    return " and ".join(f"{count:,} {kind}" for count, kind in kinds if count) or "0"


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

    is_screen = True

    def __init__(self, stream: TextIO, title: str, top: int) -> None:
        self._stream, self._title, self._top = stream, title, top

    def start(self) -> None:
        """Say what is traced."""
        self._print(self._title)

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

    is_screen = True

    def __init__(self, title: str, top: int, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._title, self._top = title, top

    def start(self) -> None:
        """Take the terminal."""
        self._live.start()
        self._console.show_cursor(True)  # a killed run must not leave a terminal without a cursor
        waiting = Text.assemble(self._head(""), "\n", ("waiting for the first interval", "dim"))
        self._live.update(waiting, refresh=True)

    def say(self, line: str) -> None:
        """A line of the traced command, above the table."""
        self._console.print(Text.from_ansi(line))

    def interval(self, part: Trace, whole: Trace) -> None:
        """Draw: rates and latencies of the interval, counts of the whole."""
        top = max(_CALLS_LEAST, min(self._top, self._console.height - _OTHER_LINES))
        self._live.update(self._picture(part, whole, f"last {_span_text(part.elapsed_s)}", top), refresh=True)

    def summary(self, whole: Trace, ending: str) -> None:
        """The table of the whole, which stays."""
        self.close()
        self._console.print(self._picture(whole, whole, _IN_ALL, self._top))
        for note in _notes(whole):
            self._console.print(Text(f"note: {note}", style="yellow"))
        self._console.print(Text(f"{ending}, {whole.backend}, {whole.elapsed_s:.2f} s", style="green"))

    def close(self) -> None:
        """Give the terminal back."""
        self._live.stop()

    def _picture(self, part: Trace, whole: Trace, span: str, top: int) -> RenderableType:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
        table.add_column("", no_wrap=True, max_width=_NAME_WIDTH)
        for title in ("rate", "p50", "p99"):
            table.add_column(f"{title}\n{span}", justify="right", no_wrap=True)
        for title in ("count", "errors"):
            table.add_column(f"{title}\n{_IN_ALL}", justify="right", no_wrap=True)
        for title, *cells in _tree_rows(part, whole):
            table.add_row(Text(title, style="cyan"), *cells)
        for call in part.top(top):
            total = (whole.calls or {}).get(call.name, call)
            rate, _, _, p50, p99 = call_cells(call, part)
            errors = "" if total.errors_count is None else _short(total.errors_count)
            table.add_row(Text(call.name), _rate_cell(rate), p50, p99, _short(total.count), errors)
        head = self._head(f"  {whole.backend}  {whole.elapsed_s:.1f} s")
        return Group(head, table, Text(_tasks_text(whole), style="cyan"))

    def _head(self, rest: str) -> Text:
        """The title, cut so that all fits on a line."""
        room = max(1, self._console.width - cell_len(rest) - 1)
        title = Text(self._title, style="bold", no_wrap=True)
        title.truncate(room, overflow="ellipsis")
        return title.append(rest)


def _tree_rows(part: Trace, whole: Trace) -> Iterator[tuple[str, str, str, str, str, str]]:
    """(what, rate, p50, p99 of the part; count, errors of the whole) for all of the tree that this backend knows."""
    counts = (
        ("all calls", part.calls_count, whole.calls_count),
        ("voluntary switches", part.voluntary_switches_count, whole.voluntary_switches_count),
        ("involuntary switches", part.involuntary_switches_count, whole.involuntary_switches_count),
        ("page faults", part.page_faults_count, whole.page_faults_count),
        ("accepts", part.accepts_count, whole.accepts_count),
        ("established by port", part.established_count, whole.established_count),
    )
    errors = whole.call_errors_count
    for title, now, total in counts:
        if total is not None:
            rate = "" if now is None else _rate_cell(rate_text(part, now))
            failed = _short(errors) if title == "all calls" and errors is not None else ""
            yield title, rate, "", "", _short(total), failed
    if whole.runqueue_wait_s is not None:
        p50, p99 = (_quantile(part.runqueue, share) for share in (0.5, 0.99))
        yield "run-queue wait", "", p50, p99, format_column("x_s", whole.runqueue_wait_s), ""
    if whole.cpu_s is not None:
        share = None if part.cpu_s is None or part.elapsed_s <= 0 else 100 * part.cpu_s / part.elapsed_s
        yield "CPU", "" if share is None else f"{share:.0f} %", "", "", format_column("x_s", whole.cpu_s), ""


def _tasks_text(whole: Trace) -> str:
    """Tasks now, and what became of tasks since the start."""
    ended = ((whole.forks_count, "forks"), (whole.threads_count, "new threads"), (whole.exits_count, "exits"))
    words = [f"{_short(count)} {title}" for count, title in ended if count is not None]
    words += [] if whole.dropped_count is None else [f"{dropped_text(whole)} dropped"]
    tasks = (
        [] if whole.tasks_count is None else [f"{_short(whole.tasks_count)} task{'s' * (whole.tasks_count != 1)} now"]
    )
    return "; ".join([*tasks, *([f"{_IN_ALL} {', '.join(words)}"] if words else [])])


def _span_text(seconds: float) -> str:
    """``0.3 s``, ``1 s``, ``5 min``: short, as it heads a column."""
    if seconds >= 120:
        return f"{seconds / 60:.0f} min"
    return f"{round(seconds, 1):g} s" if seconds < 9.95 else f"{seconds:.0f} s"


def _short(count: int) -> str:
    """A count in a cell that leaves room for others: ``12.3 m`` for millions from ten millions on, ``12.3 g``."""
    if count < _SHORT_FROM:
        return f"{count:,}"
    return f"{count / 1e6:.1f} m" if count < _LONG_FROM else f"{count / 1e9:,.1f} g"


def _rate_cell(rate: str) -> str:
    """``12.3 m/s`` for a rate that is too wide for its column."""
    number = rate.removesuffix("/s").replace(",", "")
    return f"{_short(int(number))}/s" if number.isdigit() and int(number) >= _SHORT_FROM else rate


def _notes(whole: Trace) -> list[str]:
    dropped = whole.dropped_count
    lost = [f"{dropped_text(whole)} were not counted: every count is a lower bound; see --tasks"] if dropped else []
    return [*lost, *whole.notes]
