"""What are a context switch, a tick and a time slice on this machine?

Question: what does a switch between processes or threads cost, with how much memory to go through and where placed; how
long is the tick; how long does a task run until another takes its turn, and where do these moments lie; does a switch
cost more with many runnable tasks; is an old CPU hog set back; how many switches a second does useful work stand?

Timed, by --measure: ``switch``: passes of a token round a ring of tasks, per turn; the harness is one task that makes
the same calls, goes through the same memory and does the same work, and is subtracted. On one CPU the rest is divided
by the switches that the kernel counted in a turn: one for two tasks (a ping-pong: a round trip is two switches), and
more for more of them, as one that is woken may run before its waker sleeps. ``loss``: the same with work at each turn,
as a share lost against the harness.
``slice`` and ``fairness``: CPU-bound processes on one CPU, each reading the clock in a loop; a gap of over 50 µs means
that it was off the CPU, and where the kernel counted no switch meanwhile the run goes on after it. ``tick``: steps of
the coarse clock, and the timer interrupts of a busy CPU. ``runnable``: tasks that all yield, their CPU time per switch
that the kernel counted. (What spinning tasks get done less than one alone is no measure of a switch: they are switched
once a slice, and a switch is some 0.04 % of that.) ``fresh``: the CPU time of a fresh process beside one that has been
running for long, by the scheduler's own account.

With --trace each cell is measured traced too: sched_switch, counted of all its tasks over a whole launch, confirms the
switches that the kernel charges them.

Not timed: starting the tasks, faulting in their memory, warm-up passes, calibrating the work. Clock: CLOCK_MONOTONIC.

Known bias: on two CPUs a turn is a wake-up of the other CPU, which may have gone idle, and the counted switches say
what happened. What the hypervisor or an interrupt takes is no part of a run, but the other tasks wait longer for it;
steal is recorded with the run. Among many runnable tasks the cost of a switch contains the caches that their stacks
take from each other: there is no control for that. Edges of the tick are read from the coarse clock, which one CPU
advances; with skewed ticks another CPU's edges lie elsewhere. Timers of programs interrupt too: interrupts come at the
tick's rate or faster. The tick is never derived from CLK_TCK, which is 100 on every kernel.

Sources: sched(7), futex(2), eventfd(2), clock_getres(2), proc(5) (schedstat, interrupts), kernel/sched/fair.c; McVoy
and Staelin, "lmbench", USENIX 1996; Li, Ding and Shen, "Quantifying the cost of context switch", ExpCS 2007.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from c10k_probe import native
from c10k_probe.experiment import OFF, TRACED_BY, AnyChart, Bench, Cell, Experiment, Made, Row, Samples
from c10k_probe.traced import untraced

from . import _scheduling_traced as traced
from ._scheduling_charts import VIEWS, charts_of
from ._scheduling_design import CELLS, SchedulingParameters, arguments
from ._scheduling_findings import findings
from ._scheduling_judges import JUDGES
from ._scheduling_launch import kernel_facts, samples_of, trials_of
from ._scheduling_rows import SchedulingRow, summarise


class Scheduling(Experiment[SchedulingParameters]):
    """See the module."""

    version = 2
    parameters_type = SchedulingParameters
    row_type = SchedulingRow
    views = (*VIEWS, *traced.VIEWS)
    charts = charts_of(SchedulingParameters())
    judges = JUDGES
    repeats = 5
    quick_repeats = 5
    traced_weight = 1500.0
    traced_values = (traced.PASS,)

    def untraceable(self, parameters: SchedulingParameters) -> str:
        """Every launch can be traced."""
        return ""

    def charts_of(self, parameters: SchedulingParameters) -> tuple[AnyChart, ...]:
        """The charts of what was asked for."""
        return charts_of(parameters)

    def cells(self, parameters: SchedulingParameters) -> list[Cell]:
        """What was asked to be measured, each axis alone."""
        return [cell for name in parameters.measure for cell in CELLS[name](parameters)]

    def measure(self, parameters: SchedulingParameters, cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        """One fresh process, which makes its tasks itself."""
        if cell.launches is not None and bench.block >= cell.launches:
            return
        options, answer = arguments(parameters, cell)
        flat = [part for pair in options.items() for part in pair]
        patience_s = min(60 + cell.weight / 100, bench.remaining_s() + 0.1)
        if cell.traced_by != OFF:
            trials_count = parameters.trials if answer == "hog" else 0
            yield traced.launch(cell, bench.block, traced.Asked(flat, answer, trials_count, patience_s))
            return
        with native.Helper("scheduling", flat) as helper:
            if answer == "hog":
                yield from trials_of(helper, cell, bench, parameters.trials, patience_s)
                return
            message = helper.expect(answer, patience_s)
            dropped = helper.finish()["dropped_count"]
        yield samples_of(cell, bench.block, message, int(dropped))

    def summarise(self, parameters: SchedulingParameters, samples: Sequence[Samples], seed: int) -> list[Row]:
        """One row for each cell that has samples, traced ones last."""
        ordered = _in_order(parameters, samples)
        return [*summarise(untraced(ordered), seed, kernel_facts()), *traced.rows(ordered, seed)]

    def fit(self, parameters: SchedulingParameters, samples: Sequence[Samples], seed: int) -> Sequence[Made]:
        """The rate at which 5 % of the work is lost; how a switch grows with what is runnable."""
        return findings(_in_order(parameters, samples), seed)


def _in_order(parameters: SchedulingParameters, samples: Sequence[Samples]) -> list[Samples]:
    """The samples in the order in which their cells were asked for; they were taken in a shuffled one."""
    places = {tuple(cell.key.values()): place for place, cell in enumerate(EXPERIMENT.cells(parameters))}
    return sorted(samples, key=lambda item: (places[_untraced_key(item)], item.block))


def _untraced_key(item: Samples) -> tuple[str | int, ...]:
    return tuple(value for name, value in item.key.items() if name != TRACED_BY)


EXPERIMENT = Scheduling()
