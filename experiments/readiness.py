"""From how many watched descriptors, and at which share of active ones, does which readiness mechanism win?

Question: an event loop watches many connections, of which some have something to read. What does it pay for one event
with select, poll, epoll (level, edge, one-shot) and io_uring (poll, multishot poll, multishot receive), how does that
grow with the number watched, and what does watching one more cost in time and kernel memory?

Timed: passes of a workload, from before the first write until the last event was handled, divided by the events
delivered: waiting, finding the ready ones, reading, and writing on. ``chain``: a given number of tokens travel over all
watched sockets in shuffled order; each event reads one byte and writes one to the next. ``short``: connections come
among idle ones, are registered, deliver one byte, are unregistered and closed, in groups of the active count (at most
1,000); creating and closing them is included, ``register_ns`` is the part that is registration. ``setup_ns`` is the
first registration of all, for each descriptor. Not timed: making the sockets, a first pass as warm-up.

The watched descriptors are both ends of AF_UNIX stream pairs, all distinct, registered in shuffled order; one thread on
one CPU does everything. C rows are one helper process per launch; rows named after Python modules run the same workload
in the interpreter. Clock: CLOCK_MONOTONIC. CPU time: getrusage(2).

With --trace each cell is measured traced too: two launches that differ in their number of passes, of which the
difference counts, beside what the helper counts of its calls itself (calls_per_event).

Known bias: a wait asks for as many events as are active, the best case; nothing is ever waited for long, so a wake-up
is not in it. io_uring's receive has its data with the event, the others call read(2). Kernel memory is growth of slab
(root: by cache); the rings of io_uring are not slab. What io_uring leaves to task work is paid in its own wait.

Sources: select(2), poll(2), epoll(7), io_uring_enter(2); Banga, Mogul and Druschel, "A scalable and explicit event
delivery mechanism for UNIX", USENIX 1999; libevent's benchmark.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from c10k_probe import native
from c10k_probe.exits import UsageError
from c10k_probe.experiment import OFF, AnyChart, Bench, Cell, Experiment, Made, Row, Samples, Scalar
from c10k_probe.observe import memory
from c10k_probe.parameters import Parameters, decades, parameter
from c10k_probe.traced import untraced

from . import _readiness_judges as judges
from . import _readiness_rows as rows
from . import _readiness_traced as traced
from ._readiness_design import (
    C_MECHANISMS,
    KEYS,
    MAP_ACTIVE,
    PYTHON_MECHANISMS,
    WORKLOADS,
    active_levels,
    finer_levels,
    fits,
    levels,
    make_cell,
    map_levels,
)

DEFAULT_FDS, QUICK_FDS = tuple(decades(100, 100_000)), (100, 300, 1000, 10_000)
QUICK_ACTIVE = ("1", "100", "100%")
DEFAULT_ACTIVE = ("1", "10", "100", "1%", "50%", "100%")
SMALLEST_MEMORY_COUNT = 5000  # below, the rounding of slab to pages is larger than what is measured
PASS_US = 3000  # of every mechanism alike, so that noise falls on all of them alike


@dataclass(frozen=True)
class ReadinessParameters(Parameters):
    """What may be chosen on the command line."""

    fds: tuple[int, ...] = parameter(
        DEFAULT_FDS,
        "Descriptors to watch: numbers and ranges, comma-separated.",
        minimum=1,
        maximum=10_000_000,
        many=True,
        ranges=True,
        quick=QUICK_FDS,
    )
    active: tuple[str, ...] = parameter(
        DEFAULT_ACTIVE,
        "How many of them have an event at a time: counts or percentages.",
        dimension="amount",
        many=True,
        quick=QUICK_ACTIVE,
    )
    mechanism: tuple[str, ...] = parameter(
        C_MECHANISMS,
        "Ways to wait, comma-separated.",
        choices=(*C_MECHANISMS, *PYTHON_MECHANISMS),
        many=True,
    )
    workload: tuple[str, ...] = parameter(
        WORKLOADS, "chain, short, or both.", choices=WORKLOADS, many=True, quick=("chain",)
    )
    budget: int = parameter(
        12_000_000,
        "Time for all activities of one launch together; each has one pass at least.",
        dimension="duration",
        minimum=10**6,
        maximum=60 * 10**9,
        quick=5_000_000,
    )
    map: bool = parameter(False, "Search for who wins where, and draw it.", dimension="flag")


class Readiness(Experiment[ReadinessParameters]):
    """See the module."""

    version = 1
    parameters_type = ReadinessParameters
    row_type = rows.ReadinessRow
    views = (*rows.VIEWS, *traced.VIEWS)
    charts = (*rows.CHARTS, *rows.MAPS)
    judges = judges.JUDGES
    repeats = 6
    quick_repeats = 5
    traced_weight = 1500.0

    def untraceable(self, parameters: ReadinessParameters) -> str:
        """A map is refined where times cross."""
        return "--map searches by times, which a tracer changes" if parameters.map else ""

    def check(self, parameters: ReadinessParameters) -> None:
        """Refuse activities that no count of watched descriptors can have, and shares where a map needs counts."""
        if parameters.map and any(text.endswith("%") for text in _active(parameters)):
            raise UsageError("--map: its axes are counts; name --active without percentages, or leave it out")
        most = max(parameters.fds)
        if not any(active_levels(_active(parameters), most, workload, "") for workload in parameters.workload):
            raise UsageError(
                f"--active: more than can be: at most the {most:,} of --fds, and of short connections 1,000"
            )

    def charts_of(self, parameters: ReadinessParameters) -> tuple[AnyChart, ...]:
        """The maps are shown at once when a map was asked for."""
        kind = C_MECHANISMS if set(C_MECHANISMS) & set(parameters.mechanism) else PYTHON_MECHANISMS
        maps = tuple(
            dataclasses.replace(item, at_end=parameters.map, where=(*item.where, ("mechanism", kind)))
            for item in rows.MAPS
        )
        return (*maps, *rows.CHARTS) if parameters.map else (*rows.CHARTS, *maps)

    def cells(self, parameters: ReadinessParameters) -> list[Cell]:
        """Workload by mechanism by count; the activities are measured on one set each."""
        asked = map_levels(parameters.fds, (DEFAULT_FDS, QUICK_FDS)) if parameters.map else parameters.fds
        return [
            make_cell(workload, mechanism, count, _active(parameters))
            for workload, mechanism in product(_workloads(parameters), parameters.mechanism)
            for count in levels(asked, mechanism, workload, _active(parameters))
            if active_levels(_active(parameters), count, workload, mechanism)
        ]

    def refine(self, parameters: ReadinessParameters, samples: Sequence[Samples], seed: int) -> list[Cell]:
        """With --map: counts between two neighbours at which different mechanisms win."""
        if not parameters.map:
            return []
        return [
            make_cell(workload, mechanism, count, _active(parameters))
            for workload in _workloads(parameters)
            for count in finer_levels(samples, workload)
            for mechanism in parameters.mechanism
            if fits(count, mechanism, workload, _active(parameters))
        ]

    def measure(self, parameters: ReadinessParameters, cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        """One fresh process: sockets, registration, then each activity on the same set."""
        workload, mechanism, watched = (cell.key[name] for name in KEYS)
        actives = active_levels(_active(parameters), int(watched), str(workload), str(mechanism))
        if cell.traced_by != OFF:
            patience_s = min(traced.BUDGET_MS / 1000, bench.remaining_s() + 0.1)
            yield from traced.launches(cell, bench.block, bench.seed, actives, patience_s)
            return
        is_python = mechanism in PYTHON_MECHANISMS
        program = "readiness_in_python" if is_python else "readiness"
        arguments = _arguments(parameters, cell, actives, bench.seed)
        patience_s = min(60 + len(actives) * 20 * parameters.budget / 1e9, bench.remaining_s() + 0.1)
        with native.Helper(program, arguments, native.PYTHON if is_python else "dynamic") as helper:
            launch = _Launch(helper, cell, bench.block, patience_s)
            launch.set_up()
            for count, text in actives.items():
                launch.take(count, text)
            dropped = int(helper.finish()["dropped_count"])
        yield from launch.samples(dropped)

    def summarise(self, parameters: ReadinessParameters, samples: Sequence[Samples], seed: int) -> list[Row]:
        """One row for each mechanism, count and activity, traced ones last."""
        return [*rows.summarise(untraced(samples), seed), *traced.rows(samples, seed)]

    def fit(self, parameters: ReadinessParameters, samples: Sequence[Samples], seed: int) -> Sequence[Made]:
        """Growth exponents, and where one mechanism overtakes another."""
        return rows.findings(samples, seed, all_pairs=parameters.map)


@dataclass
class _Launch:
    """One helper process from its start to its samples."""

    helper: native.Helper
    cell: Cell
    block: int
    patience_s: float
    facts: dict[str, Scalar] = field(default_factory=dict)
    taken: list[tuple[str, native.Message]] = field(default_factory=list)

    def set_up(self) -> None:
        """Sockets, then registration, with the kernel's memory read before and after where that can be told."""
        reads_memory = (
            self.cell.key["workload"] == "chain" and int(self.cell.key["watched_count"]) >= SMALLEST_MEMORY_COUNT
        )
        self.helper.expect("opened", self.patience_s)
        before = memory.read_kernel_memory() if reads_memory else None
        watching = self.helper.ask("watch", "watching", self.patience_s)
        after = memory.read_kernel_memory() if reads_memory else None
        grown = memory.slab_growth(before, after).bytes if before and after else None
        is_chain = self.cell.key["workload"] == "chain"  # the same in both workloads: told once
        self.facts = {"setup_ns": watching["setup_ns"] if is_chain else None, "kernel_bytes": grown}
        self.helper.send("run")

    def take(self, active: int, text: str) -> None:
        """The passes with so many active."""
        passes = self.helper.expect("passes", self.patience_s)
        if int(passes["active_count"]) != active:
            raise native.HelperError(f"{self.helper.name} measured {passes['active_count']} active instead of {active}")
        self.taken.append((text, passes))

    def samples(self, dropped: int) -> Iterator[Samples]:
        """What was taken; passes that went wrong cannot be told apart by activity and count against each."""
        for text, passes in self.taken:
            if not passes["pass_ns"]:
                raise native.HelperError(f"{self.helper.name}: no pass was valid, {dropped} were dropped")
            values = {"pass": passes["pass_ns"]}
            if passes.get("register_ns"):
                values["register"] = passes["register_ns"]
            yield Samples({**self.cell.key, "active": text}, self.block, values, self._facts(passes, dropped))

    def _facts(self, passes: native.Message, dropped: int) -> Mapping[str, Scalar]:
        calls: Mapping[str, int] | None = passes["calls_count"]
        events = int(passes["events_per_pass_count"]) * len(passes["pass_ns"])
        return {
            **self.facts,
            **{name: passes[name] for name in _PASS_FACTS},
            "calls_count": None if calls is None else sum(calls.values()),
            "calls": None if calls is None else _calls_text(calls, events),
            "dropped_count": dropped,
        }


_PASS_FACTS = (
    "active_count",
    "events_per_pass_count",
    "cpu_user_ns",
    "cpu_system_ns",
    "voluntary_switches_count",
    "involuntary_switches_count",
)


def _calls_text(calls: Mapping[str, int], events: int) -> str:
    """``read 1, write 1, epoll_wait 0.01``: the most frequent first."""
    counts = sorted(calls.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {count / events:.3g}" for name, count in counts if count)


def _active(parameters: ReadinessParameters) -> Sequence[str]:
    """The activities; a map looks at more of them unless they were named."""
    is_named = parameters.active not in (DEFAULT_ACTIVE, QUICK_ACTIVE)
    return MAP_ACTIVE if parameters.map and not is_named else parameters.active


def _workloads(parameters: ReadinessParameters) -> Sequence[str]:
    """The workloads; a map is of the first unless they were named."""
    return WORKLOADS[:1] if parameters.map and parameters.workload == WORKLOADS else parameters.workload


def _arguments(
    parameters: ReadinessParameters, cell: Cell, actives: Mapping[int, str], seed: int
) -> tuple[object, ...]:
    watched, mechanism = int(cell.key["watched_count"]), cell.key["mechanism"]
    pairs = {
        "--mechanism": mechanism,
        "--watched": watched,
        "--active": ",".join(map(str, actives)),
        "--workload": cell.key["workload"],
        "--pass-us": PASS_US,
        "--budget-ms": max(1, parameters.budget // 10**6),
        "--seed": seed,
    }
    return *(part for pair in pairs.items() for part in pair), "--pause"


EXPERIMENT = Readiness()
