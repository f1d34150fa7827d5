"""``plot``: one chart of a run, as text on stdout or as an image file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TextIO

from c10k_probe.charts.choice import AnyDrawing, choose, draw, shown_at_end
from c10k_probe.charts.declared import charts_of
from c10k_probe.exits import UsageError, UserError
from c10k_probe.experiment import AnyChart
from c10k_probe.results import StoredRun, load, newest

LAST = "last"
_RESULTS = Path("results")
_PROMPT_ROWS = 1
_USUAL_SIZE = (80, 24)


def plot_run(name: str, chart: str | None, save: str | None, *, list_charts: bool) -> None:
    """Draw, save or list the charts of a run. Raises ``UsageError`` for what cannot be, before anything is written."""
    if list_charts and (chart is not None or save is not None):
        raise UsageError("--list draws nothing; leave out --chart and --save, or leave out --list")
    run = _load(name)
    if list_charts:
        _print_charts(run)
    elif save is not None:
        from c10k_probe.charts.image import check_target, save_chart

        path = check_target(save)
        save_chart(choose(run, chart), path)
        print(f"saved {path}", file=sys.stderr)
    else:
        _show(choose(run, chart), sys.stdout)


def show_at_end(path: Path) -> None:
    """Draw, on stderr, what the run's experiment wants to be seen when it has ended; no higher than need be."""
    for drawing in shown_at_end(load(path)):
        _print("\n", sys.stderr)
        _show(drawing, sys.stderr, most_rows=_USUAL_SIZE[1])


def _show(drawing: AnyDrawing, stream: TextIO, most_rows: int | None = None) -> None:
    """Write a chart that fits the terminal behind the stream."""
    from c10k_probe.charts.terminal import text_chart

    columns, rows = _size(stream)
    rows = min(rows, most_rows or rows)
    _print(text_chart(drawing, columns, rows - _PROMPT_ROWS, colour=_has_colours(stream)), stream)


def _size(stream: TextIO) -> tuple[int, int]:
    """Columns and rows: those that ``COLUMNS`` and ``LINES`` ask for, else the terminal's, else 80 by 24."""
    try:
        seen = tuple(os.get_terminal_size(stream.fileno()))
    except OSError:
        seen = (0, 0)
    asked = (os.environ.get(name, "") for name in ("COLUMNS", "LINES"))
    columns, rows = (int(text) if text.isdecimal() else size for text, size in zip(asked, seen, strict=True))
    return columns or _USUAL_SIZE[0], rows or _USUAL_SIZE[1]


def _has_colours(stream: TextIO) -> bool:
    is_terminal = stream.isatty() and (os.environ.get("TERM") or "dumb") != "dumb"
    return is_terminal and not os.environ.get("NO_COLOR")


def _load(name: str) -> StoredRun:
    """The run that was meant. A name that is none is bad input, whatever is wrong with it."""
    try:
        return load(newest(_RESULTS) if name == LAST else Path(name))
    except UserError as error:
        raise UsageError(str(error)) from None


def _print_charts(run: StoredRun) -> None:
    """Name and title of each chart, and whether this run has nothing for it."""
    charts = charts_of(run)
    width = max(len(chart.name) for chart in charts)
    for chart in charts:
        _print(f"{chart.name:{width}}  {chart.title}{_refusal(run, chart)}\n", sys.stdout)


def _refusal(run: StoredRun, chart: AnyChart) -> str:
    try:
        draw(run, chart)
    except UserError:
        return " (nothing to draw)"
    return ""


def _print(text: str, stream: TextIO) -> None:
    """Write; where the stream cannot show a character, ``?`` stands for it."""
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "replace").decode(encoding))
