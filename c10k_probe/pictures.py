"""The contract of a picture: what an experiment declares, and a run folder keeps, to be drawn later from its rows."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

Scalar = str | int | float | None
Where = tuple[tuple[str, Scalar | tuple[Scalar, ...]], ...]  # (column, value or values) of the rows to take


@dataclass(frozen=True)
class Chart:
    """One picture of a result, drawn later from the run folder alone.

    ``x`` and ``y`` are columns; their suffix is the unit. A text column as ``x`` gives a row of dots for each of its
    values. ``low`` and ``high`` are the columns of the interval's ends, ``series`` the key columns whose values make
    one line each, ``where`` the (column, value or values) pairs of the rows to take. With ``at_end`` the picture is
    also shown after the run. With ``from_samples`` the values are not the rows' but those of the raw samples of every
    launch, such as a figure over time. ``told`` are columns of a condition of the whole picture, such as a bound: the
    value that all its rows have is told in its notes.
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
    from_samples: bool = False
    told: tuple[str, ...] = ()
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


@dataclass(frozen=True)
class Stack:
    """What a whole is made of: a bar for each value of the text columns ``x``, cut into the columns ``parts``.

    ``names`` are the parts' names. Of rows that differ only in the column ``last`` and in repetition, the highest of
    each repetition is taken, and of repetitions the median. ``as_shares`` draws every bar in full length.
    """

    name: str
    title: str
    x: tuple[str, ...]
    parts: tuple[str, ...]
    names: tuple[str, ...]
    last: str = ""
    where: Where = ()
    as_shares: bool = False
    at_end: bool = False
    kind: str = dataclasses.field(default="stack", init=False)


AnyChart = Chart | WinnerMap | Stack
