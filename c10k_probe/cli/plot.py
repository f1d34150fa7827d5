"""``plot``: one chart of a run, as text on stdout or as an image file."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from c10k_probe.charts.data import charts_of, choose, draw
from c10k_probe.exits import UsageError, UserError
from c10k_probe.experiment import Chart
from c10k_probe.results import StoredRun, load, newest

LAST = "last"
_RESULTS = Path("results")
_PROMPT_ROWS = 1


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
        from c10k_probe.charts.terminal import text_chart

        size = shutil.get_terminal_size()
        _print(text_chart(choose(run, chart), size.columns, size.lines - _PROMPT_ROWS))


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
        _print(f"{chart.name:{width}}  {chart.title}{_refusal(run, chart)}\n")


def _refusal(run: StoredRun, chart: Chart) -> str:
    try:
        draw(run, chart)
    except UserError:
        return " (nothing to draw)"
    return ""


def _print(text: str) -> None:
    """Write to stdout; where it cannot show a character, ``?`` stands for it."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
