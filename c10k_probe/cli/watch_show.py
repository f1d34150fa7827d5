"""How ``watch`` shows a server: a table with a small history of each figure, plain lines, CSV."""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol, TextIO

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from c10k_probe.observe.serving import Look, as_values, per_connection_bytes
from c10k_probe.results import Value, csv_line
from c10k_probe.sinks.exports import Target
from c10k_probe.units import format_column

_HISTORY_COUNT: Final = 32
_WIDE, _TITLE_WIDTH, _NUMBER_WIDTH = 100, 36, 12  # columns of the terminal; what is left is for the history
_BARS: Final = "▁▂▃▄▅▆▇█"


class Looks(NamedTuple):
    """What figures are made of: the look with the fewest connections so far, the one before the last, the last."""

    fewest: Look | None
    previous: Look | None
    last: Look

    def followed_by(self, look: Look) -> Looks:
        """One look later."""
        return Looks(_fewer(self.fewest, look), self.last, look)


def first(look: Look) -> Looks:
    """What figures are made of after one look."""
    return Looks(_fewer(None, look), None, look)


def _fewer(before: Look | None, look: Look) -> Look | None:
    if look.connections_count is None:
        return before
    return look if before is None or look.connections_count <= (before.connections_count or 0) else before


class _Figure(NamedTuple):
    """A line of the table: how it is called, the column that names its unit, and how it comes from the looks."""

    title: str
    column: str
    value: Callable[[Looks], float | None]


def _now(field: str) -> Callable[[Looks], float | None]:
    return lambda looks: getattr(looks.last, field)


def _rate(field: str, factor: float = 1.0) -> Callable[[Looks], float | None]:
    """Growth a second between the last two looks; a sum over living tasks falls when one ends: then it is unknown."""

    def value(looks: Looks) -> float | None:
        if looks.previous is None:
            return None
        old, new = getattr(looks.previous, field), getattr(looks.last, field)
        elapsed_s = looks.last.time_s - looks.previous.time_s
        return None if old is None or new is None or new < old else factor * (new - old) / elapsed_s

    return value


def _per_connection(field: str) -> Callable[[Looks], float | None]:
    """Against the look that had the fewest connections."""
    return lambda looks: None if looks.fewest is None else per_connection_bytes(looks.fewest, looks.last, field)


FIGURES: Final = (
    _Figure("connections", "connections_count", _now("connections_count")),
    _Figure("waiting in the accept queue", "accept_queue_count", _now("accept_queue_count")),
    _Figure("accept queue holds at most", "backlog_count", _now("backlog_count")),
    _Figure("accept queue overflows (machine)", "overflows_count", _now("overflows_count")),
    _Figure("processes", "processes_count", _now("processes_count")),
    _Figure("threads", "threads_count", _now("threads_count")),
    _Figure("CPU, of a core", "cpu_pct", _rate("cpu_s", 100.0)),
    _Figure("voluntary switches", "voluntary_switches_per_s", _rate("voluntary_switches_count")),
    _Figure("involuntary switches", "involuntary_switches_per_s", _rate("involuntary_switches_count")),
    _Figure("private memory", "private_bytes", _now("private_bytes")),
    _Figure("share of shared memory", "shared_bytes", _now("shared_bytes")),
    _Figure("page tables", "page_tables_bytes", _now("page_tables_bytes")),
    _Figure("socket slab (machine)", "socket_slab_bytes", _now("socket_slab_bytes")),
    _Figure("TCP buffers (machine)", "tcp_buffers_bytes", _now("tcp_buffers_bytes")),
    _Figure("user memory per connection", "user_bytes_per_connection", _per_connection("user_bytes")),
    _Figure("slab per connection (machine)", "slab_bytes_per_connection", _per_connection("socket_slab_bytes")),
)
_PLAIN: Final = tuple(figure for figure in FIGURES if figure.title != "accept queue holds at most")


class Show(Protocol):
    """Takes each look."""

    def look(self, look: Look) -> None:
        """One more look."""

    def end(self, ending: str) -> None:
        """The last look was taken."""

    def close(self) -> None:
        """Give back terminal and files."""


def sparkline(values: Sequence[float | None]) -> str:
    """The course of a figure, from its lowest to its highest; a gap where it is unknown."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    low, span = min(known), max(known) - min(known)
    steps = len(_BARS) - 1
    return "".join(
        " " if value is None else _BARS[round((value - low) / span * steps) if span else 0] for value in values
    )


class LiveTable:
    """A table that is drawn at each look; the last one stays."""

    def __init__(self, title: str, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._title = title
        self._looks: Looks | None = None
        self._histories: dict[str, collections.deque[float | None]] = {
            figure.column: collections.deque(maxlen=_HISTORY_COUNT) for figure in FIGURES
        }
        self._live.start()
        self._console.show_cursor(True)  # a killed run must not leave a terminal without a cursor

    def look(self, look: Look) -> None:
        """Draw."""
        self._looks = looks = self._looks.followed_by(look) if self._looks else first(look)
        for figure in FIGURES:
            self._histories[figure.column].append(figure.value(looks))
        self._live.update(self._picture(), refresh=True)

    def end(self, ending: str) -> None:
        """What was drawn last stays."""
        self.close()
        self._console.print(self._picture())
        self._console.print(Text(ending, style="green"))

    def close(self) -> None:
        """Give the terminal back."""
        self._live.stop()

    def _picture(self) -> Group:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        headers = ("now", "lowest", "highest") if self._console.width >= _WIDE else ("now",)
        room = self._console.width - _TITLE_WIDTH - len(headers) * _NUMBER_WIDTH
        table.add_column("", no_wrap=True)
        for header in headers:
            table.add_column(header, justify="right", no_wrap=True)
        table.add_column("history", no_wrap=True)
        for figure in FIGURES:
            history = list(self._histories[figure.column])
            known = [value for value in history if value is not None]
            if known:
                numbers = (history[-1], min(known), max(known))[: len(headers)]
                texts = [format_column(figure.column, value) for value in numbers]
                table.add_row(figure.title, *texts, Text(sparkline(history[-max(4, room) :]), style="cyan"))
        return Group(Text(self._title, style="bold", overflow="ellipsis", no_wrap=True), table)


class PlainLines:
    """One line for each look."""

    def __init__(self, stream: TextIO, title: str) -> None:
        self._stream = stream
        self._looks: Looks | None = None
        self._started_s: float | None = None
        self._print(f"watching {title}")

    def look(self, look: Look) -> None:
        """What is known."""
        self._started_s = look.time_s if self._started_s is None else self._started_s
        self._looks = looks = self._looks.followed_by(look) if self._looks else first(look)
        texts = [
            f"{figure.title} {format_column(figure.column, value)}"
            for figure in _PLAIN
            if (value := figure.value(looks)) is not None
        ]
        self._print(f"{look.time_s - self._started_s:.1f} s: {', '.join(texts)}")

    def end(self, ending: str) -> None:
        """Say how it ended."""
        self._print(ending)

    def close(self) -> None:
        """Nothing to give back."""

    def _print(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


class CsvRows:
    """One row for each look: seconds since the first, figures as they are shown, and the counters behind them."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._looks: Looks | None = None
        self._started_s: float | None = None
        shown = [figure.column for figure in FIGURES]
        more = [name for name in as_values(Look(0.0)) if name not in (*shown, "time_s")]
        self._names = ["at_s", *shown, *more]
        target.write(csv_line(self._names))

    def look(self, look: Look) -> None:
        """One row."""
        self._started_s = look.time_s if self._started_s is None else self._started_s
        self._looks = looks = self._looks.followed_by(look) if self._looks else first(look)
        values: dict[str, Value] = {"at_s": round(look.time_s - self._started_s, 3), **as_values(look)}
        values |= {figure.column: figure.value(looks) for figure in FIGURES}
        self._target.write(csv_line(values.get(name) for name in self._names))

    def end(self, ending: str) -> None:
        """Nothing more."""

    def close(self) -> None:
        """Close the file."""
        self._target.close()
