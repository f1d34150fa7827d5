"""Limits: which wall is hit first, which one broke, and whether there is memory enough to go on.

The walls themselves are the table in observe/walls.py; here is what is concluded from them, by arithmetic
alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from c10k_probe import units
from c10k_probe.observe.procfs import PROC, SYS
from c10k_probe.observe.walls import WALLS, Wall, WallRow, memory_rooms, read_wall, reserve_bytes, walls

__all__ = [
    "Needs",
    "Prediction",
    "Wall",
    "check",
    "diagnose",
    "memory_guard",
    "predict",
    "read_wall",
    "reserve_bytes",
    "walls",
]

_ROWS = {row.name: row for row in WALLS}


@dataclass(frozen=True)
class Needs:
    """What one unit (connection, worker) or the fixed part of a cell takes. Fractions are allowed per unit.

    descriptors_count, mappings_count, address_space_bytes: in the process that has most of them.
    system_descriptors_count: open files in all processes. select_count: the highest descriptor in a select() set.
    ports_count: for the source address that has most. backlog_count: connections asked for at once.
    flows_count: tracked connections. tcp_bytes: data in sockets of TCP. commit_bytes: memory promised (stacks,
    private writable mappings), which counts only with vm.overcommit_memory=2.
    """

    descriptors_count: float = 0
    system_descriptors_count: float = 0
    select_count: float = 0
    tasks_count: float = 0
    mappings_count: float = 0
    memory_bytes: float = 0
    ports_count: float = 0
    backlog_count: float = 0
    watches_count: float = 0
    flows_count: float = 0
    address_space_bytes: float = 0
    commit_bytes: float = 0
    tcp_bytes: float = 0

    def times(self, count: float) -> Needs:
        """What `count` of these take."""
        return Needs(**{field.name: getattr(self, field.name) * count for field in fields(self)})

    def plus(self, other: Needs) -> Needs:
        """Both together."""
        return Needs(**{field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)})


@dataclass(frozen=True)
class Prediction:
    """Highest count that fits and the wall that binds; both None when nothing bounds."""

    count: int | None
    wall: Wall | None


def needed(needs: Needs, wall: Wall) -> float:
    """What these needs take of a wall, in its unit."""
    row = _ROWS.get(wall.name)
    return 0.0 if row is None else float(getattr(needs, row.need))


def amount(wall: Wall, count: float | None) -> str:
    """A count of what a wall limits, for a reader; only bytes have their unit with them."""
    if count is None:
        return "no limit"
    return units.format_quantity(count, "bytes") if wall.unit == "bytes" else f"{count:,.0f}"


def check(needs: Needs, walls: Iterable[Wall]) -> Wall | None:
    """The wall that these needs exceed; of several, the one with the least room for what is asked."""
    tightest, least_share = None, 1.0
    for wall in walls:
        taken, room = needed(needs, wall), wall.room_count
        if room is not None and taken > room and room / taken < least_share:
            tightest, least_share = wall, room / taken
    return tightest


def refusal(wall: Wall, needs: Needs) -> str:
    """Why this cannot be run, and the command that would let it."""
    lift = f"; {wall.lift} would raise it" if wall.lift else ""
    counts = (wall.room_count, wall.limit_count, needed(needs, wall))
    left, limit, more = (amount(wall, count) for count in counts)
    unit = "" if wall.unit == "bytes" else f" {wall.unit}"
    return f"{wall.name}: {left} of {limit}{unit} are left, this needs {more}{lift}"


def predict(per_unit: Needs, fixed: Needs, walls: Iterable[Wall]) -> Prediction:
    """Highest count n for which fixed + n x per_unit fits, and the wall that binds.

    Count 0 when not even the fixed part fits.
    """
    best = Prediction(None, None)
    for wall in walls:
        if wall.room_count is None:
            continue
        room, each = wall.room_count - needed(fixed, wall), needed(per_unit, wall)
        if each <= 0 and room >= 0:
            continue
        count = max(0, int(room // each)) if each > 0 else 0
        if best.count is None or count < best.count:
            best = Prediction(count, wall)
    return best


def _is_sign(row: WallRow, call: str, errno_name: str) -> bool:
    return f"{call}:{errno_name}" in row.signs or f"*:{errno_name}" in row.signs


def _fullness(wall: Wall) -> float:
    """used / limit; a half for a setting whose use nobody can tell, so that a wall known to be full wins."""
    if not wall.limit_count:
        return 0.0 if wall.limit_count is None else 1.0
    if wall.used_count is None:
        return 0.5 if wall.kind == "administrative" else 0.0
    return wall.used_count / wall.limit_count


def diagnose(call: str, errno_name: str, *, walls: Iterable[Wall]) -> Wall | None:
    """Which wall broke, from the call that failed and the name of its errno; None when no wall explains it.

    Of several that could have, the fullest; so pass walls read while everything was still held.
    """
    suspects = [
        wall
        for wall in walls
        if wall.limit_count is not None and wall.name in _ROWS and _is_sign(_ROWS[wall.name], call, errno_name)
        if _fullness(wall) >= _ROWS[wall.name].least_share
    ]
    return max(suspects, key=_fullness, default=None)


def memory_guard(expected_growth_bytes: float, *, proc_root: Path = PROC, sys_root: Path = SYS) -> str | None:
    """Why growing by this much would endanger the machine or the control group, in one line; else None."""
    for name, room in memory_rooms(proc_root, sys_root).items():
        if max(0.0, expected_growth_bytes) > room:
            return (
                f"memory of the {name}: {_mib(expected_growth_bytes)} more are expected, "
                f"{_mib(room)} can be used without touching the reserve"
            )
    return None


def _mib(size_bytes: float) -> str:
    return f"{max(0.0, size_bytes) / 2**20:,.0f} MiB"


def describe(wall: Wall) -> str:
    """A wall in one phrase: name, number, whether it is a setting, and the command that would raise it."""
    number = "" if wall.limit_count is None else f" of {wall.limit_count:,} {wall.unit}"
    lift = f", to raise it: {wall.lift}" if wall.lift else ""
    return f"{wall.name}: the limit{number} per {wall.scope} ({wall.kind}{lift})"
