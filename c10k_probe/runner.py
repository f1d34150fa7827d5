"""The only loop: plan, check limits, interleave, measure, and say what happened as events.

Cells are measured in blocks: each block holds every cell once, in an order shuffled with the run's seed, so that drift
of the machine falls on all cells alike. A cell that fails is reported and left out of later blocks; the others go on.
Every way out (done, failure, time-out, signal) ends with the rows that were measured and one ``RunFinished``.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from c10k_probe import accounts, limits, machine, native, traced
from c10k_probe.bench import LaunchBench, Readings
from c10k_probe.events import (
    BlockFinished,
    CellStarted,
    Event,
    FindingMade,
    FitMade,
    RowMeasured,
    RunFinished,
    RunStarted,
    SamplesTaken,
    Tee,
    VerdictReached,
    Warned,
)
from c10k_probe.exits import ExitCode, UsageError
from c10k_probe.experiment import (
    OFF,
    AnyExperiment,
    Cell,
    Finding,
    Row,
    Samples,
    columns,
    flatten,
    key_of,
)
from c10k_probe.interrupts import Interrupted, Interrupts
from c10k_probe.parameters import Parameters
from c10k_probe.results import new_run_id


@dataclass(frozen=True)
class Plan:
    """What a run is asked to do, beside the experiment's own parameters."""

    repeats: int
    seed: int
    timeout_s: float | None = None
    command: tuple[str, ...] = ()
    trace: str = OFF  # the backend under which each cell is measured too


SUMMARY_EVERY_S: Final = 2.0  # bootstraps cost this process CPU time that is better left to what is measured
FIRST_EVERY_S: Final = 0.25  # in the first block, whose rows are new: one launch each, of which little is reckoned
SUMMARY_SHARE: Final = 0.02  # of the run's time at most


class TimedOut(Exception):
    """The run's time-out passed between two cells or steps."""


class Unread(Exception):
    """Who read the output has gone: nobody waits for the rest."""


class Run:
    """One run of one experiment. ``go`` may be called once."""

    def __init__(self, experiment: AnyExperiment, parameters: Parameters, plan: Plan, tee: Tee) -> None:
        self.experiment = experiment
        self.parameters = parameters
        self.plan = plan
        self.rows: dict[tuple[Any, ...], Row] = {}
        self._tee = tee
        self._interrupts = Interrupts()
        self.readings = Readings(self.emit)
        self._started = self._summary_ended = time.monotonic()
        self._summary_took_s = 0.0
        self._samples: list[Samples] = []
        self._launches: dict[str, set[int]] = {}  # cell's name -> blocks in which it gave samples
        self._dropped: dict[str, str] = {}
        self._done_weight = 0.0
        self._end = "done"
        self._current: Cell | None = None
        self._cells = traced.with_traced(experiment.cells(parameters), plan.trace, experiment.traced_weight)
        if not self._cells:
            raise UsageError(f"{experiment.name}: these options leave nothing to measure; choose more")
        self._total_weight = sum(map(self._whole_weight, self._cells)) or 1.0

    def go(self, facts: Mapping[str, object]) -> ExitCode:
        """Measure everything and return the exit code; never raises for what a run can meet."""
        with self._interrupts.installed():
            before, own_cpu_s = machine.read_counters(), accounts.own_cpu_s()
            self.emit(self._start_event(facts))
            end = self._guarded_blocks()
            self._end = end
            self._summarise(final=True)
            self._mark_unfinished(end)
            native.kill_all()
            code = self._code(end)
            elapsed_s = time.monotonic() - self._started
            delta = machine.counters_delta(before, machine.read_counters())
            own_cpu_s = accounts.own_cpu_s() - own_cpu_s
            facts_after = accounts.facts_after(delta, own_cpu_s)
            if self.plan.trace != OFF:
                facts_after["tracing_dropped_count"] = traced.dropped_count(list(self.rows.values()))
            noise = machine.noise_reason(delta, own_cpu_s)
            if noise is not None:
                self.emit(Warned(f"the machine was not quiet: {noise}", "", "stop what else runs, and measure again"))
            if end == "timed-out":
                self._judge("the run was cut short by --timeout")
            elif end == "done":
                self._judge(noise)
            was_left = end in ("interrupted", "unread")
            self.emit(RunFinished(code, self._summary(end), elapsed_s, len(self.rows), facts_after, was_left))
        return self._code(end)  # once more: a sink may have failed on the last event

    def emit(self, event: Event) -> None:
        """Send one event to the sinks."""
        self._tee.emit(event)

    def remaining_s(self) -> float:
        """Seconds until the run's time-out; a day when there is none."""
        if self.plan.timeout_s is None:
            return 86_400.0
        return self._started + self.plan.timeout_s - time.monotonic()

    def share_with(self, cell: Cell, share_of_cell: float) -> float:
        """Share of the run's work done when ``share_of_cell`` of a cell is done."""
        return min(1.0, (self._done_weight + cell.weight * share_of_cell) / self._total_weight)

    # --- the loop -------------------------------------------------------------------------------------------------

    def _guarded_blocks(self) -> str:
        """All blocks; how it ended: done, interrupted, timed-out or unread."""
        try:
            self._blocks()
        except Interrupted:
            return "interrupted"
        except TimedOut:
            return "timed-out"
        except Unread:
            return "unread"
        return "done"

    def _blocks(self) -> None:
        shuffler = random.Random(self.plan.seed)
        self._measure_blocks(self._cells, shuffler)
        while more := self._new_cells():
            self._cells += more
            self._total_weight += sum(map(self._whole_weight, more))
            self._measure_blocks(more, shuffler)

    def _new_cells(self) -> list[Cell]:
        """What the experiment wants to know further; a cell is measured once, whatever came of it."""
        known = {cell.name for cell in self._cells}
        found = self.experiment.refine(self.parameters, traced.untraced(self._samples), self.plan.seed)
        asked = traced.with_traced(found, self.plan.trace, self.experiment.traced_weight)
        return list({cell.name: cell for cell in asked if cell.name not in known}.values())

    def _measure_blocks(self, cells: Sequence[Cell], shuffler: random.Random) -> None:
        self._check_needs(cells)
        for block in range(self.plan.repeats):
            order = shuffler.sample(cells, len(cells))
            for cell in order:
                if cell.name not in self._dropped:
                    self._measure_cell(cell, block)
                self._done_weight += self._whole_weight(cell) / self.plan.repeats
                self._summarise_if_due(FIRST_EVERY_S if block == 0 else SUMMARY_EVERY_S)
            if block == 0:
                self._summarise(final=False)
            self.emit(BlockFinished(block, self.share_with(order[-1], 0.0)))

    def _check_needs(self, cells: Sequence[Cell]) -> None:
        """Skip, before anything is started, each cell that no limit of this machine lets run."""
        walls = limits.walls()
        refused: dict[str, list[Cell]] = {}
        for cell in cells:
            wall = limits.check(cell.needs, walls)
            if wall is not None:
                self._leave_out(cell, "skipped", limits.refusal(wall, cell.needs))
                refused.setdefault(wall.name, []).append(cell)
        for skipped in refused.values():
            others = f" and {len(skipped) - 1} more" if len(skipped) > 1 else ""
            self.emit(Warned(f"{skipped[0].label}{others} skipped: {self._dropped[skipped[0].name]}", "", ""))

    def _measure_cell(self, cell: Cell, block: int) -> None:
        self._check_end()
        self.emit(CellStarted(cell, block, self.share_with(cell, 0.0)))
        self._current = cell
        measurement = self.experiment.measure(self.parameters, cell, self._bench(cell, block))
        try:
            while True:
                with self._interrupts.armed():
                    item = next(measurement, None)
                if item is None:
                    self._current = None
                    return
                self._take(item, cell, block)
                self._check_end()
        except native.HelperUnsupported as error:
            self._drop(cell, "skipped", str(error))
        except native.HelperError as error:
            if self.remaining_s() <= 0:
                raise TimedOut from None
            self._drop(cell, "failed", str(error))
        except (TimedOut, Unread):
            raise
        except Exception as error:  # an experiment may be anybody's; whatever it does, the other cells go on
            self._drop(cell, "failed", f"{type(error).__name__}: {' '.join(str(error).split())}")
        finally:
            measurement.close()  # type: ignore[attr-defined]
            self.readings.tell()

    def _bench(self, cell: Cell, block: int) -> LaunchBench:
        return LaunchBench(self, cell, block, self.plan.repeats, self.plan.seed)

    def _check_end(self) -> None:
        """Between launches and after each of their items: whether time is left, and somebody who reads."""
        if self.remaining_s() <= 0:
            raise TimedOut
        if self._tee.unread:
            raise Unread

    def _take(self, item: Row | Samples, cell: Cell, block: int) -> None:
        if isinstance(item, Samples):
            self._samples.append(item)
            self._launches.setdefault(cell.name, set()).add(block)
            self.emit(SamplesTaken(item))
        else:
            self._put(item, final=True)

    def _put(self, row: Row, *, final: bool, launches: tuple[int, int] | None = None) -> None:
        key = key_of(row)
        if final or self.rows.get(key) != row:
            self.rows[key] = row
            self.emit(RowMeasured(key, flatten(row), final, traced.is_traced(row), launches))

    # --- what remains ---------------------------------------------------------------------------------------------

    def _summarise_if_due(self, every_s: float) -> None:
        """Rows after a launch, as often as they may be reckoned."""
        if time.monotonic() >= self._summary_ended + max(every_s, self._summary_took_s / SUMMARY_SHARE):
            self._summarise(final=False)

    def _summarise(self, *, final: bool) -> None:
        """Rows from the samples so far; a cell that was dropped later says so in its row."""
        started = time.monotonic()
        for row in self.experiment.summarise(self.parameters, self._samples, self.plan.seed):
            cell = next((cell for cell in self._cells if _covers(cell, row)), None)
            self._put(self._with_state(row, cell), final=final, launches=self._launches_of(cell))
        is_first = self._summary_ended == self._started  # that one also imports, which says nothing about the next
        self._summary_ended = time.monotonic()
        self._summary_took_s = 0.0 if is_first else self._summary_ended - started

    def _with_state(self, row: Row, cell: Cell | None) -> Row:
        """A row from fewer launches than were planned says so."""
        if cell is None or row.status != "ok":
            return row
        if cell.name in self._dropped:
            return dataclasses.replace(row, status="failed", reason=self._dropped[cell.name])
        launches = len(self._launches.get(cell.name, ()))
        if self._end != "done" and launches < self._planned_launches(cell):
            reason = f"{launches} of {self.plan.repeats} launches were measured before the end"
            return dataclasses.replace(row, status="interrupted", reason=reason)
        return row

    def _launches_of(self, cell: Cell | None) -> tuple[int, int] | None:
        return None if cell is None else (len(self._launches.get(cell.name, ())), self._planned_launches(cell))

    def _whole_weight(self, cell: Cell) -> float:
        """A cell's work in all blocks; with few launches it has work in some of them only."""
        return cell.weight * self._planned_launches(cell)

    def _planned_launches(self, cell: Cell) -> int:
        return min(self.plan.repeats, cell.launches or self.plan.repeats)

    def _drop(self, cell: Cell, status: str, reason: str) -> None:
        """Leave a cell out from now on, and warn of it."""
        self._leave_out(cell, status, reason)
        self.emit(Warned(f"{cell.label} {status}: {reason}", "", ""))

    def _leave_out(self, cell: Cell, status: str, reason: str) -> None:
        """Measure a cell no more; without samples it gets an empty row that says why."""
        self._dropped[cell.name] = reason
        self._current = None
        if not self._has_samples(cell):  # else its row comes from its samples, and says so
            self._put(self._empty_row(cell, status, reason), final=True)

    def _mark_unfinished(self, end: str) -> None:
        """After an early end every cell that never got a row says why."""
        if end == "done":
            return
        passed = f"--timeout of {self.plan.timeout_s} s passed"
        what = {"timed-out": passed, "unread": "who read the output went"}.get(end, "the run was interrupted")
        for cell in self._cells:
            when = "while this was measured" if cell is self._current else "before this was measured"
            if not self._has_rows(cell) or (cell is self._current and not self._has_samples(cell)):
                self._put(self._empty_row(cell, "interrupted", f"{what} {when}"), final=True)

    def _empty_row(self, cell: Cell, status: str, reason: str) -> Row:
        keys = dict.fromkeys(traced.unset_keys(self.experiment.row_type))
        grade_reason = "not measured"
        state = {"status": status, "reason": reason, "grade": "void", "grade_reason": grade_reason}
        return self.experiment.row_type(**(keys | dict(cell.key) | state))  # type: ignore[arg-type]

    def _has_rows(self, cell: Cell) -> bool:
        return any(_covers(cell, row) for row in self.rows.values())

    def _has_samples(self, cell: Cell) -> bool:
        return cell.name in self._launches

    def _judge(self, doubt: str | None) -> None:
        """Judge the claims from rows that are not void, traced ones where asked for; in doubt nothing is decided."""
        every = [flatten(row) for row in self.rows.values() if not traced.is_traced(row)]
        judged = map(flatten, self.rows.values()) if self.experiment.judges_traced_rows else every
        rows = [row for row in judged if row["grade"] != "void"]
        made = (
            *self.experiment.fit(self.parameters, traced.untraced(self._samples), self.plan.seed),
            *self.experiment.find(self.parameters, every, self.plan.seed),
        )
        for item in (*made, *self._slowdowns()):
            self.emit(FindingMade(item) if isinstance(item, Finding) else FitMade(item))
        for judge in self.experiment.judges:
            verdict = judge(rows, made)
            self.emit(VerdictReached(verdict if doubt is None else verdict.capped(doubt)))

    def _slowdowns(self) -> list[Finding]:
        """What tracing did to the times of what was traced."""
        of_rows = traced.slowdowns_of_rows(list(self.rows.values()), self.experiment.traced_columns, self.plan.seed)
        return [*traced.slowdowns(self._samples, self.experiment.traced_values, self.plan.seed), *of_rows]

    # --- start and end --------------------------------------------------------------------------------------------

    def _start_event(self, facts: Mapping[str, object]) -> RunStarted:
        return RunStarted(
            run_id=new_run_id(),
            experiment=self.experiment.name,
            question=self.experiment.question,
            experiment_version=self.experiment.version,
            parameters=dataclasses.asdict(self.parameters),
            columns=columns(self.experiment.row_type),
            views=self.experiment.views,
            cells_count=len(self._cells),
            blocks_count=self.plan.repeats,
            seed=self.plan.seed,
            facts=facts,
            command=self.plan.command,
            charts=self.experiment.charts_of(self.parameters),
            expected_s=self._total_weight if self.experiment.weights_are_s else None,
        )

    def _code(self, end: str) -> ExitCode:
        statuses = [row.status for row in self.rows.values()]
        if end == "interrupted":
            return ExitCode.INTERRUPTED
        if self._tee.failed or self._tee.unread:
            return ExitCode.ERROR if self._tee.failed else ExitCode.UNREAD
        if end == "timed-out":
            return ExitCode.INCOMPLETE
        if statuses and all(status == "skipped" for status in statuses):
            return ExitCode.NOTHING_MEASURED
        unwanted = {"failed", "skipped"} if self.experiment.is_incomplete_when_skipped else {"failed"}
        if not unwanted.isdisjoint(statuses):
            return ExitCode.INCOMPLETE if _any_measured(self.rows.values()) else ExitCode.ERROR
        return ExitCode.OK

    def _summary(self, end: str) -> str:
        """One phrase: how it ended, and what did not work."""
        if end != "done":
            return f"{end}; what was measured until then is kept"
        unwell = [row for row in self.rows.values() if row.status != "ok"]
        return "complete" if not unwell else f"{len(unwell)} of {len(self.rows)} rows are not ok: {unwell[0].reason}"


def _covers(cell: Cell, row: Row) -> bool:
    """Whether a row belongs to a cell: it agrees with each of the cell's key columns."""
    is_same = traced.is_traced(row) == (cell.traced_by != OFF)
    return is_same and all(getattr(row, name) == value for name, value in cell.key.items())


def _any_measured(rows: Iterable[Row]) -> bool:
    return any(row.status == "ok" or row.grade != "void" for row in rows)
