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
from c10k_probe.units import column_suffix, format_column

_HISTORY_COUNT: Final = 60
_WIDE, _TITLE_WIDTH, _NUMBER_WIDTH = 100, 38, 15  # columns of the terminal; what is left is for the history
_SPARE_LINES: Final = 4  # of the terminal: title, header and its rule, and the line for the cursor
_SHORTEST_AGE_S: Final = 0.2  # memory that is younger is as old as the rest
LEAST: Final = "≥"
_BARS: Final = "▁▂▃▄▅▆▇█"


class Looks(NamedTuple):
    """What figures are made of: the looks with the fewest connections, and with the fewest when memory was read, so
    far; the one before the last; the last."""

    fewest: Look | None
    fewest_memory: Look | None
    previous: Look | None
    last: Look

    def followed_by(self, look: Look) -> Looks:
        """One look later."""
        return Looks(*_fewest(look, self.fewest, self.fewest_memory), self.last, look)


def first(look: Look) -> Looks:
    """What figures are made of after one look."""
    return Looks(*_fewest(look, None, None), None, look)


def _fewest(look: Look, one: Look | None, other: Look | None) -> tuple[Look | None, Look | None]:
    return _fewer(one, look, "connections_count"), _fewer(other, look, "memory_connections_count")


def _fewer(before: Look | None, look: Look, field: str) -> Look | None:
    count = getattr(look, field)
    if count is None:
        return before
    return look if before is None or count <= getattr(before, field) else before


_Value = Callable[[Looks], float | None]


def _is_whole(_: Looks) -> bool:
    """Never the least only."""
    return False


class _Figure(NamedTuple):
    """A line of the table: how it is called, the column that names its unit, and how it comes from the looks.

    ``is_least``: whether the value is only the least that it can be. ``most``: the column that it can be at most.
    """

    title: str
    column: str
    value: _Value
    is_least: Callable[[Looks], bool] = _is_whole
    most: str = ""
    is_shown: Callable[[float], bool] = lambda _: True

    @property
    def least_column(self) -> str:
        """The column of the value when it may be the least only: ``cpu_pct``, ``cpu_least_pct``."""
        suffix = column_suffix(self.column) or ""
        return f"{self.column.removesuffix(suffix)}_least{suffix}"

    def text(self, looks: Looks, value: float | None) -> str:
        """The value now, with its unit and how sure it is; nothing for a missing one."""
        if value is None:
            return ""
        most = getattr(looks.last, self.most) if self.most else None
        of_most = "" if most is None else f" of {format_column(self.most, most)}"
        return f"{LEAST} " * self.is_least(looks) + format_column(self.column, value) + of_most


def _now(field: str) -> _Value:
    return lambda looks: getattr(looks.last, field)


def _grown(looks: Looks, field: str) -> float | None:
    """Since the look before; what falls was begun anew: then it is unknown."""
    old, new = getattr(looks.previous, field, None), getattr(looks.last, field)
    return None if old is None or new is None or new < old else new - old


def _rate(field: str, factor: float = 1.0) -> _Value:
    """Growth a second between the last two looks."""

    def value(looks: Looks) -> float | None:
        growth = _grown(looks, field)
        if looks.previous is None or growth is None:
            return None
        return factor * growth / (looks.last.time_s - looks.previous.time_s)

    return value


def _any_grown(*fields: str) -> Callable[[Looks], bool]:
    """Whether something was lost since the look before; also when that is not known."""
    return lambda looks: any(_grown(looks, field) != 0 for field in fields)


def _user_per_connection(looks: Looks) -> float | None:
    if looks.fewest_memory is None:
        return None
    return per_connection_bytes(looks.fewest_memory, looks.last, "user_bytes", "memory_connections_count")


def _per_connection(field: str) -> _Value:
    """Against the look that had the fewest connections."""
    return lambda looks: None if looks.fewest is None else per_connection_bytes(looks.fewest, looks.last, field)


def _only_without(field: str, value: _Value) -> _Value:
    """What stands in for another figure, where that is not told."""
    return lambda looks: None if getattr(looks.last, field) is not None else value(looks)


_SWITCHES_LOST: Final = _any_grown("ended_tasks_count", "unseen_signs_count")
FIGURES: Final = (
    _Figure("connections", "connections_count", _now("connections_count")),
    _Figure("accept queue", "accept_queue_count", _now("accept_queue_count"), most="backlog_count"),
    _Figure("accept queue overflows (all ports)", "overflows_count", _now("overflows_count")),
    _Figure("processes", "processes_count", _now("processes_count")),
    _Figure("threads", "threads_count", _now("threads_count")),
    _Figure("threads ended, of those seen", "ended_tasks_per_s", _rate("ended_tasks_count")),
    _Figure("CPU, of a core", "cpu_pct", _rate("cpu_s", 100.0), _any_grown("unwaited_count")),
    _Figure(
        "voluntary switches", "voluntary_switches_per_s", _rate("voluntary_switches_count"), is_least=_SWITCHES_LOST
    ),
    _Figure(
        "involuntary switches",
        "involuntary_switches_per_s",
        _rate("involuntary_switches_count"),
        is_least=_SWITCHES_LOST,
    ),
    _Figure("private memory", "private_bytes", _now("private_bytes")),
    _Figure("share of shared memory", "shared_bytes", _now("shared_bytes")),
    _Figure("page tables", "page_tables_bytes", _now("page_tables_bytes")),
    _Figure("user memory per connection", "user_bytes_per_connection", _user_per_connection),
    _Figure(
        "age of these memory figures", "memory_age_s", _now("memory_age_s"), is_shown=lambda age: age > _SHORTEST_AGE_S
    ),
    _Figure("socket slab (machine)", "socket_slab_bytes", _now("socket_slab_bytes")),
    _Figure(
        "socket slab per connection (machine)", "socket_slab_bytes_per_connection", _per_connection("socket_slab_bytes")
    ),
    _Figure("slab (machine)", "slab_bytes", _only_without("socket_slab_bytes", _now("slab_bytes"))),
    _Figure(
        "slab per connection (machine)",
        "slab_bytes_per_connection",
        _only_without("socket_slab_bytes", _per_connection("slab_bytes")),
    ),
    _Figure("kernel stacks (machine)", "kernel_stacks_bytes", _now("kernel_stacks_bytes")),
    _Figure("TCP buffers (machine)", "tcp_buffers_bytes", _now("tcp_buffers_bytes")),
)


def notes_of(looks: Looks, lift: str) -> dict[str, str]:
    """What the figures leave out, kind -> one line. ``lift``: what shows what is hidden."""
    look, notes = looks.last, {}
    if hidden_count := look.hidden_processes_count:
        many = "process" if hidden_count == 1 else "processes"
        notes["hidden"] = f"memory or sockets of {hidden_count} {many} could not be read by this user; {lift}"
    if look.sockets_source is not None and "PID" in look.sockets_source:
        notes["space"] = "sockets of another network namespace: how long the queue may be is not told"
    if any(figure.is_least(looks) and figure.value(looks) is not None for figure in FIGURES):
        notes["least"] = f"{LEAST}: the least; a thread that ended, seen or not, took its last figures with it"
    return notes


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

    def __init__(self, title: str, lift: str = "", notes: Sequence[str] = (), console: Console | None = None) -> None:
        """``notes``: what holds from the start."""
        self._console = console or Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._title, self._lift, self._notes = title, lift, list(notes)
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
        self._live.update(self._picture(looks), refresh=True)

    def end(self, ending: str) -> None:
        """What was drawn last stays."""
        self.close()
        if self._looks is not None:
            self._console.print(self._picture(self._looks))
        self._console.print(Text(ending, style="green"))

    def close(self) -> None:
        """Give the terminal back."""
        self._live.stop()

    def _picture(self, looks: Looks) -> Group:
        """No higher than the terminal: what does not fit is left out, and said."""
        texts = [Text(note, style="yellow") for note in (*self._notes, *notes_of(looks, self._lift).values())]
        notes_count = sum(len(text.wrap(self._console, self._console.width)) for text in texts)
        figures = [figure for figure in FIGURES if self._is_known(figure)]
        room = max(1, self._console.height - _SPARE_LINES - notes_count)
        if len(figures) > room:
            left_out = len(figures) - room + 1
            figures = figures[:-left_out]
            texts.append(Text(f"{left_out} figures more in a higher terminal", style="dim"))
        title = Text(self._title, style="bold", overflow="ellipsis", no_wrap=True)
        return Group(title, self._table(looks, figures), *texts)

    def _is_known(self, figure: _Figure) -> bool:
        return any(value is not None and figure.is_shown(value) for value in self._histories[figure.column])

    def _table(self, looks: Looks, figures: Sequence[_Figure]) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        headers = ("now", "lowest", "highest") if self._console.width >= _WIDE else ("now",)
        room = self._console.width - _TITLE_WIDTH - len(headers) * _NUMBER_WIDTH
        table.add_column("", no_wrap=True)
        for header in headers:
            table.add_column(header, justify="right", no_wrap=True)
        table.add_column("history", no_wrap=True)
        for figure in figures:
            history = list(self._histories[figure.column])
            known = [value for value in history if value is not None]
            ends = [format_column(figure.column, value) for value in (min(known), max(known))]
            texts = [figure.text(looks, history[-1]), *ends][: len(headers)]
            table.add_row(figure.title, *texts, Text(sparkline(history[-max(4, room) :]), style="cyan"))
        return table


class PlainLines:
    """One line for each look."""

    def __init__(self, stream: TextIO, title: str, lift: str = "", notes: Sequence[str] = ()) -> None:
        """``notes``: what holds from the start."""
        self._stream, self._lift = stream, lift
        self._looks: Looks | None = None
        self._started_s: float | None = None
        self._said: set[str] = set()
        for line in (f"watching {title}", *(f"note: {note}" for note in notes)):
            self._print(line)

    def look(self, look: Look) -> None:
        """What is known; what a figure leaves out is said once."""
        self._started_s = look.time_s if self._started_s is None else self._started_s
        self._looks = looks = self._looks.followed_by(look) if self._looks else first(look)
        for kind, note in notes_of(looks, self._lift).items():
            if kind not in self._said:
                self._said.add(kind)
                self._print(f"note: {note}")
        texts = [
            f"{figure.title} {figure.text(looks, value)}"
            for figure in FIGURES
            if (value := figure.value(looks)) is not None and figure.is_shown(value)
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
    """One row for each look: seconds since the first, figures as they are shown, and the counters behind them.

    A figure that is only the least it can be is empty in its own column; the one whose name says least always has it.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._looks: Looks | None = None
        self._started_s: float | None = None
        shown = [name for figure in FIGURES for name in _columns(figure)]
        more = [name for name in as_values(Look(0.0)) if name not in (*shown, "time_s")]
        self._names = ["at_s", *shown, *more]
        target.write(csv_line(self._names))

    def look(self, look: Look) -> None:
        """One row."""
        self._started_s = look.time_s if self._started_s is None else self._started_s
        self._looks = looks = self._looks.followed_by(look) if self._looks else first(look)
        values: dict[str, Value] = {"at_s": round(look.time_s - self._started_s, 3), **as_values(look)}
        for figure in FIGURES:
            value = figure.value(looks)
            values |= dict.fromkeys(_columns(figure)[1:], value)
            if not hasattr(look, figure.column):  # what is one of the look's own figures is there already
                values[figure.column] = None if figure.is_least(looks) else value
        self._target.write(csv_line(values.get(name) for name in self._names))

    def end(self, ending: str) -> None:
        """Nothing more."""

    def close(self) -> None:
        """Close the file."""
        self._target.close()


def _columns(figure: _Figure) -> tuple[str, ...]:
    return (figure.column, figure.least_column) if figure.is_least is not _is_whole else (figure.column,)
