"""How an experiment wants to be seen: the columns of its tables, and its charts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

Scalar = str | int | float | None

# --- views ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class View:
    """One column of a table on a screen: which value, and the ends of its interval when it has one.

    ``group`` names the table it belongs to, when a result is too wide for one. A narrow terminal drops the views of the
    highest ``priority`` number first. A ``traced`` view is of rows of traced launches, any other of untraced ones only.
    """

    header: str
    column: str
    low: str = ""
    high: str = ""
    group: str = ""
    priority: int = 1
    traced: bool = False


# --- charts ---------------------------------------------------------------------------------------------------------

Where = tuple[tuple[str, Scalar | tuple[Scalar, ...]], ...]  # (column, value or values) of the rows to take


@dataclass(frozen=True)
class Chart:
    """One picture of a result, drawn later from the run folder alone.

    ``x`` and ``y`` are columns; their suffix is the unit. A text column as ``x`` gives a row of dots for each of its
    values. ``low`` and ``high`` are the columns of the interval's ends, ``series`` the key columns whose values make
    one line each, ``where`` the (column, value or values) pairs of the rows to take. With ``at_end`` the picture is
    also shown after the run.
    """

    name: str
    title: str
    x: str
    y: str
    low: str = ""
    high: str = ""
    series: tuple[str, ...] = ()
    log_x: bool = False
    log_y: bool = False
    where: Where = ()
    at_end: bool = False
    kind: str = dataclasses.field(default="lines", init=False)


@dataclass(frozen=True)
class WinnerMap:
    """Who wins where: a grid of two numeric columns, in each cell the contestant whose ``value`` is lowest.

    ``contestant`` is the key column whose values compete. A win needs an interval (``low``, ``high``) that lies below
    that of every other contestant, whose value must be more than ``same_ratio`` times as high; else the cell is too
    close to call. ``log_x`` and ``log_y`` space the cells of an image; ``where`` takes rows and ``at_end`` shows the
    map after the run, as in ``Chart``.
    """

    name: str
    title: str
    x: str
    y: str
    value: str
    low: str
    high: str
    contestant: str
    where: Where = ()
    log_x: bool = False
    log_y: bool = False
    at_end: bool = False
    same_ratio: float = 1.0
    kind: str = dataclasses.field(default="winners", init=False)


AnyChart = Chart | WinnerMap
