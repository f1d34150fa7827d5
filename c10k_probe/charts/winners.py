"""From the rows of a run folder to a map of who wins where.

The contestant with the lowest value wins a cell when its interval ends below the beginning of every other's. Else the
cell is too close to call, and its candidates are the lowest and all whose interval reaches that one's; a value without
an interval can be beaten by nobody and beat nobody. One contestant alone has won nothing.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from c10k_probe.charts.axes import base_factor
from c10k_probe.charts.rows import (
    REPETITION,
    Point,
    Row,
    Taken,
    check_columns,
    differ,
    interval_name,
    joined,
    notes_on,
    nothing_left,
    number,
    point_of,
    sort_key,
    source_of,
    take,
    value_name,
)
from c10k_probe.exits import UserError
from c10k_probe.experiment import WinnerMap
from c10k_probe.results import StoredRun

CLOSE: Final = "="
MISSING: Final = "."
SCORE_NOTE: Final = "cells won of those it was measured in"
LETTERS: Final = string.ascii_uppercase

Place = tuple[float, float]  # x and y in base units


class Outcome(Enum):
    """What a cell's measurements say."""

    WON = "won"
    CLOSE = "too close to call"
    ALONE = "the only one measured"


@dataclass(frozen=True)
class MapCell:
    """One place. ``names`` holds the winner, the candidates (the lowest value first) or the only contestant.

    ``lead_ratio`` is the second's value over the winner's; None where nobody won, or where the winner's is not above 0.
    """

    outcome: Outcome
    names: tuple[str, ...]
    lead_ratio: float | None
    shaky: bool  # whether a value that decided is


@dataclass(frozen=True)
class Contestant:
    """One of those that compete, with its letter on the map."""

    name: str
    letter: str
    won_count: int
    measured_count: int  # cells in which it has a value

    @property
    def score(self) -> str:
        """``E = epoll: 10 of 12``."""
        return f"{self.letter} = {self.name}: {self.won_count} of {self.measured_count}"


@dataclass(frozen=True)
class MapDrawing:
    """All that a renderer needs. ``xs`` and ``ys`` ascend; a place without a cell was not measured."""

    chart: WinnerMap
    contestants: tuple[Contestant, ...]
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    cells: Mapping[Place, MapCell]
    notes: tuple[str, ...]
    source: str

    @property
    def letters(self) -> Mapping[str, str]:
        """Name -> letter."""
        return {contestant.name: contestant.letter for contestant in self.contestants}

    def count(self, outcome: Outcome) -> int:
        """How many cells ended so."""
        return sum(cell.outcome is outcome for cell in self.cells.values())

    @property
    def missing_count(self) -> int:
        """Places of the grid without any value."""
        return len(self.xs) * len(self.ys) - len(self.cells)

    def symbol(self, cell: MapCell) -> str:
        """The one sign that says how a cell ended."""
        if cell.outcome is Outcome.CLOSE:
            return CLOSE
        letter = self.letters[cell.names[0]]
        return letter if cell.outcome is Outcome.WON else letter.lower()

    def candidates(self, cell: MapCell) -> str:
        """The letters of those between whom it is too close, in alphabetical order."""
        return "".join(sorted(self.letters[name] for name in cell.names))

    def signs(self) -> dict[Outcome | None, str]:
        """The signs that are no contestant's, and in how many cells they stand."""
        signs: tuple[tuple[Outcome | None, str, int], ...] = (
            (Outcome.CLOSE, f"{CLOSE} too close to call", self.count(Outcome.CLOSE)),
            (Outcome.ALONE, "a small letter: the only one measured", self.count(Outcome.ALONE)),
            (None, f"{MISSING} not measured", self.missing_count),
        )
        return {outcome: f"{text}: {count}" for outcome, text, count in signs if count}

    def ties(self) -> list[tuple[str, int]]:
        """Candidates of the cells that are too close to call (``E/P``), and in how many cells; most cells first."""
        close = [cell for cell in self.cells.values() if cell.outcome is Outcome.CLOSE]
        counts = Counter("/".join(self.candidates(cell)) for cell in close)
        return sorted(counts.items(), key=lambda item: (-item[1], len(item[0]), item[0]))

    def remarks(self, *, with_leads: bool) -> list[str]:
        """What stands beside letters; ``with_leads`` when cells have room for more than their sign."""
        cells = self.cells.values()
        ties = ", ".join(f"{letters} in {count}" for letters, count in self.ties())
        has_leads = with_leads and any(cell.lead_ratio is not None for cell in cells)
        remarks = (
            (has_leads, "the number: how many times the winner's value the second's is"),
            (ties, f"too close: {ties}"),
            (any(cell.shaky for cell in cells), "~: a value that decides is shaky"),
        )
        return [text for is_there, text in remarks if is_there]


def draw_map(run: StoredRun, chart: WinnerMap) -> MapDrawing:
    """The map of one chart. Raises ``UserError`` when nothing is left to draw, or one place has rows of two kinds."""
    check_columns(run, chart, (chart.contestant,), (chart.x, chart.y, chart.value, chart.low, chart.high))
    taken = take(run, chart, lambda row: _place(row, chart) is not None and number(row.get(chart.value)) is not None)
    notes = notes_on(taken, log=chart.log_x or chart.log_y)
    if not taken.rows:
        raise nothing_left(run, chart, taken, notes)
    _check_one_kind(run, chart, taken.rows)
    fields = _fields(taken.rows, chart)
    cells = {place: judge(field, chart.same_ratio) for place, field in fields.items()}
    places = [place for row in taken.asked if (place := _place(row, chart)) is not None]
    return MapDrawing(
        chart,
        _contestants(run, chart, taken, fields, cells),
        tuple(sorted({x for x, _ in places})),
        tuple(sorted({y for _, y in places})),
        cells,
        (*_map_notes(chart, taken, fields), *notes),
        source_of(run, taken.rows),
    )


def judge(field: Mapping[str, Point], same_ratio: float = 1.0) -> MapCell:
    """Who wins among the contestants of one cell, at least one; within ``same_ratio`` nobody does."""
    ranked = sorted(field.items(), key=lambda item: (item[1].y, item[0]))
    best_name, best = ranked[0]
    if len(ranked) == 1:
        return MapCell(Outcome.ALONE, (best_name,), None, best.shaky)
    rivals = [(name, point) for name, point in ranked[1:] if not _is_below(best, point, same_ratio)]
    if rivals:
        shaky = any(point.shaky for _, point in (ranked[0], *rivals))
        return MapCell(Outcome.CLOSE, (best_name, *(name for name, _ in rivals)), None, shaky)
    second = ranked[1][1]
    return MapCell(Outcome.WON, (best_name,), second.y / best.y if best.y > 0 else None, best.shaky or second.shaky)


def lead_text(ratio: float | None) -> str:
    """A lead in at most four signs: ``1.04``, ``2.5``, ``120``, ``>999``."""
    if ratio is None:
        return ""
    for digits, end in ((2, 1.095), (1, 9.95), (0, 999.5)):
        if ratio < end:
            return f"{ratio:.{digits}f}"
    return ">999"


def _is_below(best: Point, other: Point, same_ratio: float) -> bool:
    """Whether an interval ends before the other begins, and the values are further apart than what counts as same."""
    is_apart = best.high is not None and other.low is not None and best.high < other.low
    return is_apart and other.y > same_ratio * best.y


# --- from rows --------------------------------------------------------------------------------------------------------


def _place(row: Row, chart: WinnerMap) -> Place | None:
    """Where a row lies, in base units; None where the axes cannot hold it."""
    x, y = number(row.get(chart.x)), number(row.get(chart.y))
    if x is None or y is None or (chart.log_x and x <= 0) or (chart.log_y and y <= 0):
        return None
    return x * base_factor(chart.x), y * base_factor(chart.y)


def _check_one_kind(run: StoredRun, chart: WinnerMap, rows: Sequence[Row]) -> None:
    """No two rows of one contestant and place differ in a key: what is not the same may not compete as if it were."""
    same = [chart.contestant, chart.x, chart.y]
    for name in run.facts.get("keys", ()):
        if name not in {*same, REPETITION} and differ(name, same, rows):
            values = sorted({(row[name],) for row in rows}, key=sort_key)
            said = ", ".join(value_name(name, value) for (value,) in values)
            raise UserError(
                f"{run.path}: chart {chart.name} must take one {name} of several ({said}), and does not say which"
            )


def _fields(rows: Iterable[Row], chart: WinnerMap) -> dict[Place, dict[str, Point]]:
    """Place -> contestant -> its value there; repetitions put together."""
    found: dict[Place, dict[str, list[Point]]] = {}
    for row in rows:
        place = _place(row, chart)
        assert place is not None
        point = point_of(row, chart.x, chart.value, chart.low, chart.high)
        found.setdefault(place, {}).setdefault(_name(row, chart), []).append(point)
    return {place: {name: joined(points) for name, points in field.items()} for place, field in found.items()}


def _name(row: Row, chart: WinnerMap) -> str:
    return value_name(chart.contestant, row[chart.contestant])


def _contestants(
    run: StoredRun,
    chart: WinnerMap,
    taken: Taken,
    fields: Mapping[Place, Mapping[str, Point]],
    cells: Mapping[Place, MapCell],
) -> tuple[Contestant, ...]:
    """All that the rows name, also those without a value: a letter does not depend on what was measured."""
    keys = sorted({(row[chart.contestant],) for row in taken.asked}, key=sort_key)
    names = list(dict.fromkeys(value_name(chart.contestant, value) for (value,) in keys))
    if len(names) > len(LETTERS):
        raise UserError(f"{run.path}: chart {chart.name} has {len(names)} contestants and {len(LETTERS)} letters")
    won = Counter(cell.names[0] for cell in cells.values() if cell.outcome is Outcome.WON)
    measured = Counter(name for field in fields.values() for name in field)
    letters = letters_for(names)
    return tuple(Contestant(name, letters[name], won[name], measured[name]) for name in names)


def letters_for(names: Sequence[str]) -> dict[str, str]:
    """A letter for each name, all different, at most 26; short names choose first.

    ``epoll`` E, ``poll`` P, ``epoll_edge`` D, ``io_uring_poll`` U: initials of words, then letters of them; words that
    few names have come first, then the last ones.
    """
    words = {name: "".join(part if part.isalnum() else " " for part in name).upper().split()[::-1] for name in names}
    names_count = Counter(word for found in words.values() for word in set(found))
    chosen: dict[str, str] = {}
    for name in sorted(names, key=lambda name: (len(name), name)):
        telling = sorted(words[name], key=lambda word: names_count[word])
        wishes = [*(word[0] for word in telling), *"".join(telling), *LETTERS]
        chosen[name] = next(letter for letter in wishes if letter in LETTERS and letter not in chosen.values())
    return chosen


def _margin(same_ratio: float) -> str:
    return f" and the value by more than {100 * (same_ratio - 1):.0f} %" if same_ratio > 1 else ""


def _map_notes(chart: WinnerMap, taken: Taken, fields: Mapping[Place, Mapping[str, Point]]) -> tuple[str, ...]:
    points = [point for field in fields.values() for point in field.values()]
    bare_count = sum(point.low is None for point in points)
    return tuple(
        text
        for count, text in (
            (
                1,
                f"a win: the {interval_name(chart.low, chart.high)} lies below every other's"
                + _margin(chart.same_ratio),
            ),
            (bare_count, f"{bare_count} of {len(points)} values have no interval and decide nothing"),
            (len(points) < len(taken.rows), "repetitions: their median, with an interval that spans them"),
        )
        if count
    )
