"""The most connections within a budget of memory and a bound of latency, by bisection over fresh launches."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from c10k_probe import limits, units
from c10k_probe.experiment import Bench, Cell
from c10k_probe.servers import POOLS, predict

from ._connection_design import ConnectionsParameters, chosen, server_options
from ._connection_measured import refused_row, row_of
from ._connection_ramp import launched, wall_note
from ._connection_rows import ConnectionsRow

FITS: Final = "yes"
MOST_WORKERS: Final = 10_000  # of a pool, by its own option
FIRST_COUNT: Final = 200
GROWTH: Final = 8  # of the count from one trial to the next while all fits
NEAR: Final = 0.02  # the search ends when what fits and what does not are this close
ATTEMPTS: Final = 3
NEAR_SHARE: Final = 0.99  # of what the memory so far predicts


@dataclass
class Bracket:
    """What fits and what does not, so far; ``each`` is the memory of one connection by the last trial."""

    most: int
    low: int = 0
    high: int | None = None
    each: float = 0.0

    def next(self, budget: int) -> int | None:
        """The count to try; None when the search is over."""
        guess = int(NEAR_SHARE * budget / self.each) if self.each > 0 else 0
        if self.high is None:
            return None if self.low >= self.most else min(self.most, self._higher(guess))
        gap = self.high - self.low
        if gap <= max(1, NEAR * self.high):
            return None
        step = max(1, int(NEAR * self.high / 2))
        if self.low + step <= guess <= self.high - step and gap > 4 * step:
            return guess
        return self.low + gap // 2

    def _higher(self, guess: int) -> int:
        """While all fits: what memory allows; from there a step beyond it; twice as many where it has misled."""
        beyond = int((1 + NEAR) / NEAR_SHARE * guess)
        if self.low == 0:
            return FIRST_COUNT
        if guess > self.low:
            return min(guess, self.low * GROWTH)
        return beyond if beyond > self.low else 2 * self.low

    def put(self, count: int, *, fits: bool) -> None:
        """Take the outcome of a trial."""
        if fits:
            self.low = max(self.low, count)
        else:
            self.high = count if self.high is None else min(self.high, count)


def search(asked: ConnectionsParameters, cell: Cell, bench: Bench) -> Iterator[ConnectionsRow]:
    """A row for each trial, in the order in which they are made."""
    assert asked.memory_budget is not None
    bracket = Bracket(asked.most)
    tried = 0
    while (count := bracket.next(asked.memory_budget)) is not None:
        tried += 1
        bench.progress(tried, tried + 4, f"trying {count:,}, {bracket.low:,} fit")
        row = _solid_trial(asked, cell, bench, count)
        bracket.put(count, fits=row.fits == FITS)
        if row.taken_bytes and row.open_count:
            bracket.each = row.taken_bytes / row.open_count
        yield row


def _solid_trial(asked: ConnectionsParameters, cell: Cell, bench: Bench, count: int) -> ConnectionsRow:
    """A trial; once more where something else on the machine spoilt what was read of memory."""
    for _ in range(ATTEMPTS):
        row = _trial(asked, cell, bench, count)
        if row.grade != "void" or row.open_count is None:
            break
    return row


def _trial(asked: ConnectionsParameters, cell: Cell, bench: Bench, count: int) -> ConnectionsRow:
    """One fresh launch that goes to ``count`` at once; a wall here is an answer and no failure.

    A pool has as many workers as connections, unless their count was given: else it would be the setting that ends it.
    """
    if asked.workers is None and str(cell.key["model"]) in POOLS:
        if count > MOST_WORKERS:
            return _too_many_workers(asked, cell, bench, count)
        asked = dataclasses.replace(asked, workers=count)
    prediction = predict(chosen(str(cell.key["model"]), asked), limits.walls(), server_options(asked, count))
    with launched(cell, count, asked, bench) as launch:
        stop = launch.refusal(count)
        if stop is not None:
            row = refused_row(launch, count, stop, prediction, bench)
        else:
            bench.progress(1, 2, f"to {count:,}{wall_note(prediction)}")
            row = row_of(launch, launch.step(count, is_last=True), prediction, bench)
            row = dataclasses.replace(row, taken_bytes=launch.ledger.server_bytes(launch.ledger.readings[-1]))
    return dataclasses.replace(
        row,
        budget_bytes=asked.memory_budget,
        latency_bound_ns=asked.latency_bound_ns,
        fits=_verdict(asked, row),
        status="ok",
        reason="",
    )


def _too_many_workers(asked: ConnectionsParameters, cell: Cell, bench: Bench, count: int) -> ConnectionsRow:
    """The row of a trial that no pool is large enough for."""
    return ConnectionsRow(
        model=str(cell.key["model"]),
        state=str(cell.key["state"]),
        protocol=asked.spoken,
        target_count=count,
        block=bench.block,
        budget_bytes=asked.memory_budget,
        latency_bound_ns=asked.latency_bound_ns,
        fits=f"workers: a pool has at most {MOST_WORKERS:,}",
        grade="void",
        grade_reason="not measured",
    )


def _verdict(asked: ConnectionsParameters, row: ConnectionsRow) -> str:
    """``yes``, or the resource that ran out and by how much."""
    if row.wall:
        return f"{row.wall}: {row.reason}"
    p99_ns = row.probe_p99_ns if row.probe_p99_ns is not None else row.probe_max_ns
    for fails, text in (
        (row.echo_failed_count or row.probe_failed_count, "liveness: not every echo came back"),
        (row.status != "ok", f"refused: {row.reason}"),
        (row.taken_bytes is None, "memory: cannot be read"),
        (_is_above(row.taken_bytes, asked.memory_budget), f"memory: {_bytes(row.taken_bytes)} were taken"),
        (p99_ns is None, "latency: the client did not keep to its schedule"),
        (_is_above(p99_ns, asked.latency_bound_ns), f"latency: the 99th percentile was {_ns(p99_ns)}"),
    ):
        if fails:
            return text
    return FITS


def _is_above(value: float | None, bound: float | None) -> bool:
    return value is not None and bound is not None and value > bound


def _bytes(value: float | None) -> str:
    return units.format_column("x_bytes", value)


def _ns(value: float | None) -> str:
    return units.format_column("x_ns", value)
