"""What the judges of connections share: the rows that they look at, and the words for what they find."""

from __future__ import annotations

from collections.abc import Sequence

from c10k_probe.experiment import FlatRow
from c10k_probe.units import format_column

from ._connection_design import BACKLOGGED, IDLE, USED
from ._connection_findings import last_rows


def steps_of(rows: Sequence[FlatRow], model: str, *states: str) -> list[FlatRow]:
    """The steps of a model's ramps, in one of these states; of several the first that was measured."""
    own = [row for row in rows if row["model"] == model and row["open_count"] is not None and row["fits"] is None]
    for state in states or (USED, IDLE, BACKLOGGED):
        if found := [row for row in own if row["state"] == state]:
            return found
    return []


def at_end(rows: Sequence[FlatRow], model: str, *states: str) -> FlatRow | None:
    """The end of the ramp that went farthest."""
    return max(last_rows(steps_of(rows, model, *states)), key=lambda row: int(row["open_count"] or 0), default=None)


def yes(holds: bool | None) -> str:
    """What is known of a part of a claim, after its name."""
    return "is open" if holds is None else "holds" if holds else "fails"


def of_parts(*held: bool | None) -> str:
    """The verdict on a claim of several parts."""
    if True in held and False in held:
        return "PARTLY"
    return "INCONCLUSIVE" if None in held else "CONFIRMED" if all(held) else "REFUTED"


def figure(column: str, middle: float | None, low: float | None = None, high: float | None = None) -> str:
    """A number in its unit, with its interval where it has one."""
    told = format_column(column, middle)
    return (
        told if low is None or high is None else f"{told} [{format_column(column, low)}, {format_column(column, high)}]"
    )


def held_count(row: FlatRow | None) -> int:
    """Connections that were held; 0 without a row."""
    return 0 if row is None else int(row["open_count"] or 0)
