"""What no single row of connections shows: memory over all repetitions, ratios of models, what was reached and why not
more, and how each ledger closes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from c10k_probe import stats
from c10k_probe.experiment import Finding, FlatRow, Scalar
from c10k_probe.servers import MODELS, POOLS, REAL_SERVERS
from c10k_probe.units import format_column

MEMORY: Final = "memory_bytes_per_connection"
RATIO: Final = "memory_times_ratio"
CLOSING: Final = "ledger_difference_pct"
REACHED: Final = "reached_count"
MOST: Final = "most_connections_count"
MOST_RATIO: Final = "most_connections_ratio"
PAIRS: Final = (("fork", "thread"), ("thread", "epoll"))
THE_FOUR: Final = ("nginx", "cherokee", "node", "tornado")  # of the article
_EVERY_MODEL: Final = {**MODELS, **REAL_SERVERS}
WORKER_MODELS: Final = tuple(
    name for name, model in _EVERY_MODEL.items() if model.per_connection.tasks_count or name in POOLS
)
"""Each connection has a process or a thread to itself, for good or from a pool."""
EVENT_MODELS: Final = tuple(name for name in _EVERY_MODEL if name not in WORKER_MODELS)
LIMIT_OF_SEARCH: Final = "--to"

Group = tuple[str, str]  # model, state


@dataclass(frozen=True)
class Reached(Finding):
    """How many connections one model held, the limit that bound, and of which kind that is; empty without one.

    ``missing``: why it was not even started.
    """

    model: str = ""
    state: str = ""
    wall: str = ""
    wall_kind: str = ""
    missing: str = ""


@dataclass(frozen=True)
class Most(Finding):
    """The most connections within the budget, and what ended each repetition's search."""

    model: str = ""
    ended_by: tuple[str, ...] = ()


def findings(rows: Sequence[FlatRow], seed: int) -> list[Finding]:
    """All of them, in the order of the models."""
    searched = [row for row in rows if row.get("budget_bytes") is not None]
    if searched:
        return [*_mosts(searched, seed)]
    return [*_memories(rows, seed), *_ratios(rows, seed), *_closings(rows, seed), *_reached(rows, seed)]


def subject(group: Group) -> str:
    """A model and what its connections are."""
    return f"{group[0]}, {group[1]}"


def groups_of(rows: Sequence[FlatRow]) -> dict[Group, list[FlatRow]]:
    """The rows of each model and state, in the order in which they were found."""
    found: dict[Group, list[FlatRow]] = {}
    for row in rows:
        found.setdefault((str(row["model"]), str(row["state"])), []).append(row)
    return found


def last_rows(rows: Sequence[FlatRow]) -> list[FlatRow]:
    """The last measured step of each repetition, in the order of repetitions."""
    last: dict[int, FlatRow] = {}
    for row in rows:
        block = _int(row["block"])
        if row["open_count"] is not None and (block not in last or _int(row["target_count"]) > _target(last[block])):
            last[block] = row
    return [last[block] for block in sorted(last)]


def interval_of(row: FlatRow, column: str) -> stats.Interval | None:
    """An estimate of a row as it was."""
    stem = column.removesuffix("_bytes_per_connection")
    middle, low, high = (
        number(row.get(name)) for name in (column, f"{stem}_lo_bytes_per_connection", f"{stem}_hi_bytes_per_connection")
    )
    return None if middle is None else stats.Interval(middle, low, high)


def number(value: Scalar) -> float | None:
    """A number of a row; None for text and for what is missing."""
    return float(value) if isinstance(value, (int, float)) else None


def ramp_time(last: FlatRow, steps: Sequence[FlatRow]) -> tuple[float, int]:
    """Seconds that the steps of one ramp took, and how many connections were opened in steps that are not there."""
    parts = [(number(step["ramp_s"]) or 0.0, number(step["connect_rate_per_s"])) for step in steps]
    opened = [took_s * rate for took_s, rate in parts if rate is not None]
    missing_count = _int(last["open_count"]) - round(sum(opened)) if len(opened) == len(parts) else 0
    return sum(took_s for took_s, _ in parts), max(0, missing_count)


# --- memory -----------------------------------------------------------------------------------------------------------


def pooled(intervals: Sequence[stats.Interval], seed: int) -> stats.Interval:
    """One estimate of several launches: a bootstrap over five or more; of fewer the median, and all their intervals."""
    if len(intervals) >= stats.MINIMUM_LAUNCHES:
        return stats.median_interval([one.middle for one in intervals], seed)
    middle = stats.median([one.middle for one in intervals]) or 0.0
    lows, highs = ([getattr(one, end) for one in intervals] for end in ("low", "high"))
    if None in lows or None in highs:
        return stats.Interval(middle, None, None)
    return stats.Interval(middle, min(lows), max(highs))


def slopes(rows: Sequence[FlatRow], column: str = "server_bytes_per_connection") -> dict[int, stats.Interval]:
    """Repetition -> slope at its last step, unless that is void."""
    known = {_int(row["block"]): interval_of(row, column) for row in last_rows(rows) if row["grade"] != "void"}
    return {block: value for block, value in known.items() if value is not None}


def _memories(rows: Sequence[FlatRow], seed: int) -> Iterator[Finding]:
    for group, own in groups_of(rows).items():
        known = slopes(own)
        if known:
            yield Finding(subject(group), MEMORY, pooled(list(known.values()), seed), _how_many(len(known)))


def _how_many(launches_count: int) -> str:
    if launches_count >= stats.MINIMUM_LAUNCHES:
        return f"server's end, {launches_count} launches"
    few = "one launch" if launches_count == 1 else f"{launches_count} launches"
    return f"server's end, {few}: the interval is that of its ramp" if launches_count == 1 else f"server's end, {few}"


def _ratios(rows: Sequence[FlatRow], seed: int) -> Iterator[Finding]:
    found = groups_of(rows)
    for state in dict.fromkeys(state for _, state in found):
        for above, below in PAIRS:
            if (above, state) in found and (below, state) in found:
                ratio = ratio_of(slopes(found[above, state]), slopes(found[below, state]), seed)
                if ratio is not None:
                    yield Finding(ratio_subject(above, below, state), RATIO, ratio)


def ratio_subject(above: str, below: str, state: str) -> str:
    """What a ratio is of."""
    return f"{above} over {below}, {state}"


def ratio_of(
    above: Mapping[int, stats.Interval], below: Mapping[int, stats.Interval], seed: int
) -> stats.Interval | None:
    """From paired repetitions where there are five; else the widest that the intervals of both allow."""
    blocks = above.keys() & below.keys()
    if len(blocks) >= stats.MINIMUM_LAUNCHES:
        over_by_block, under_by_block = ({block: [side[block].middle] for block in blocks} for side in (above, below))
        return stats.paired_ratio(over_by_block, under_by_block, seed)
    if not above or not below:
        return None
    over, under = pooled(list(above.values()), seed), pooled(list(below.values()), seed)
    if under.middle <= 0:
        return None
    ends = (over.low, over.high, under.low, under.high)
    if None in ends or (under.low or 0) <= 0:
        return stats.Interval(over.middle / under.middle, None, None)
    low, high = (over.low or 0) / (under.high or 1), (over.high or 0) / (under.low or 1)
    return stats.Interval(over.middle / under.middle, low, high)


# --- the ledger against free memory -----------------------------------------------------------------------------------


def _closings(rows: Sequence[FlatRow], seed: int) -> Iterator[Finding]:
    for group, own in groups_of(rows).items():
        last = [row for row in last_rows(own) if row["unexplained_pct"] is not None and row["grade"] != "void"]
        if not last:
            continue
        values = [number(row["unexplained_pct"]) or 0.0 for row in last]
        typical = last[values.index(sorted(values)[len(values) // 2])]
        explained, fall_bytes = format_column("explained_bytes", typical["explained_bytes"]), typical["free_fall_bytes"]
        went = "fell" if (number(fall_bytes) or 0) >= 0 else "rose"
        by = format_column("free_fall_bytes", abs(number(fall_bytes) or 0))
        note = f"parts sum to {explained}, free memory {went} by {by}, at {typical['open_count']:,}"
        yield Finding(subject(group), CLOSING, stats.median_interval(values, seed), note)


# --- what broke first -------------------------------------------------------------------------------------------------


def _reached(rows: Sequence[FlatRow], seed: int) -> Iterator[Finding]:
    """Void rows count here: a step that was refused has no numbers, but a reason."""
    for group, own in groups_of(rows).items():
        counts = [max(held) for held in _held_by_block(own).values()]
        stopped = [row for row in own if row["status"] == "failed"]
        row = stopped[0] if stopped else own[-1]
        value = stats.median_interval(counts, seed) if counts else None
        yield Reached(
            subject(group),
            REACHED,
            value,
            str(row["reason"]) if row["status"] == "skipped" else f"{_why(row)}; {_predicted(row)}",
            model=group[0],
            state=group[1],
            wall=str(row["wall"] or ("unknown" if stopped else "")),
            wall_kind=str(row["wall_kind"] or ""),
            missing=str(row["reason"]) if row["status"] == "skipped" else "",
        )


def _held_by_block(rows: Sequence[FlatRow]) -> dict[int, list[float]]:
    """How many were held at each step of each repetition; at the last none may be, as when the server has died."""
    held: dict[int, list[float]] = {}
    for row in rows:
        count = number(row["open_count"])
        if count is not None:
            held.setdefault(_int(row["block"]), []).append(count)
    return held


def _why(row: FlatRow) -> str:
    if row["status"] != "failed":
        return "no limit was hit"
    if not row["wall"]:
        return str(row["reason"])
    lift = f"; to lift it: {row['wall_lift']}" if row["wall_lift"] else ""
    return f"bound by {row['wall']} ({row['wall_kind']}){lift}"


def _predicted(row: FlatRow) -> str:
    count = number(row["predicted_count"])
    return "no limit was predicted" if count is None else f"predicted {count:,.0f} by {row['predicted_wall']}"


# --- equal budgets ----------------------------------------------------------------------------------------------------


def _mosts(rows: Sequence[FlatRow], seed: int) -> Iterator[Finding]:
    found: dict[str, dict[int, tuple[float, str]]] = {}
    for (model, _), own in groups_of(rows).items():
        found[model] = {block: _most(trials) for block, trials in _by_block(own).items()}
        counts = [count for count, _ in found[model].values()]
        ended = tuple(why for _, why in found[model].values())
        note = ", ".join(f"{why} {ended.count(why)} ×" for why in dict.fromkeys(ended))
        value = stats.median_interval(counts, seed)
        yield Most(model, MOST, value, f"ended by {note}; {_within(own)}", model, ended)
    yield from _most_ratios(found, seed)


def _within(rows: Sequence[FlatRow]) -> str:
    return f"within {format_column('budget_bytes', rows[0]['budget_bytes'])}"


def _by_block(rows: Sequence[FlatRow]) -> dict[int, list[FlatRow]]:
    found: dict[int, list[FlatRow]] = {}
    for row in rows:
        found.setdefault(_int(row["block"]), []).append(row)
    return found


def _most(trials: Sequence[FlatRow]) -> tuple[float, str]:
    """The highest count that fitted, and what the lowest that did not ran out of."""
    fitting = [_target(row) for row in trials if row["fits"] == "yes"]
    failing = sorted((row for row in trials if row["fits"] not in (None, "yes")), key=_target)
    why = str(failing[0]["fits"]).partition(":")[0] if failing else LIMIT_OF_SEARCH
    return float(max(fitting, default=0)), why


def _most_ratios(found: Mapping[str, Mapping[int, tuple[float, str]]], seed: int) -> Iterator[Finding]:
    base = found.get("epoll")
    for model in (name for name in WORKER_MODELS if name in found and base is not None):
        assert base is not None
        ours, theirs = ({block: [count] for block, (count, _) in arm.items()} for arm in (base, found[model]))
        yield Finding(f"epoll over {model}", MOST_RATIO, stats.paired_ratio(ours, theirs, seed))


def _target(row: FlatRow) -> int:
    return _int(row["target_count"])


def _int(value: Scalar) -> int:
    return int(value or 0)
