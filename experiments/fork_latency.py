"""What does creating one more process or thread cost on this machine?

Question: how long do fork, vfork, posix_spawn, clone3 (a process that shares memory) and pthread_create take, from a
dynamically and from a statically linked program, and how do they compare with pthread_create?

Timed, each from the clock reading just before the call, never mixed: ``return`` until the call came back in the
parent; ``started`` until the first instruction of ours in the child, which writes its clock reading to a shared page;
``cycle`` until the child was created, had exited and was reaped (waitpid, pthread_join). For posix_spawn ``started``
includes exec and loading, because that is its first instruction of ours. vfork and clone3 with CLONE_VFORK suspend
their caller, so their ``return`` contains the child's whole life.

Not timed: the warm-ups of each launch, storing samples, anything in Python: a C helper measures, one fresh process a
launch. Clock: CLOCK_MONOTONIC, nanoseconds; its own cost is measured by every helper and stands in the raw samples.

Known bias: each interval contains one clock reading. glibc keeps the stacks of joined threads, so that all but the
first thread of a launch reuse one. The parent is small (see ``rss_bytes``, ``mappings_count``): fork of a large
process costs more. With ``one-cpu`` the child runs when its parent waits; with ``any-cpu`` it may run at
once on another CPU.

Sources: fork(2), vfork(2), posix_spawn(3), clone(2), pthread_create(3); kernel/fork.c; lmbench's lat_proc;
Baumann et al., "A fork() in the road", HotOS 2019.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from c10k_probe import native, stats, units
from c10k_probe.experiment import (
    Bench,
    Cell,
    Experiment,
    Parameters,
    Row,
    Samples,
    Scalar,
    Verdict,
    View,
    column,
    estimate,
    parameter,
    spread,
)
from c10k_probe.limits import Needs

METHODS = ("fork", "vfork", "posix_spawn", "clone3", "pthread_create")
PLACEMENTS = ("one-cpu", "any-cpu")
INTERVALS = ("return", "started", "cycle")
BASE_METHOD = "pthread_create"
CLOCK_SHARE_LIMIT = 0.01
C10_CYCLE_NS = 100_000.0


@dataclass(frozen=True)
class ForkLatencyParameters(Parameters):
    """What may be chosen on the command line."""

    n: int = parameter(1000, "Samples per cell, over all launches.", minimum=1, maximum=1_000_000, quick=100)
    method: tuple[str, ...] = parameter(METHODS, "Ways of creation, comma-separated.", choices=METHODS, many=True)
    linking: tuple[str, ...] = parameter(
        native.LINKINGS, "How the measuring program is linked, comma-separated.", choices=native.LINKINGS, many=True
    )
    placement: tuple[str, ...] = parameter(
        ("one-cpu",), "Parent and child on one CPU, or wherever the kernel puts them.", choices=PLACEMENTS, many=True
    )
    warmup: int = parameter(5, "Creations of each launch that are thrown away first.", minimum=0, maximum=10_000)


@dataclass(frozen=True, kw_only=True)
class ForkLatencyRow(Row):
    """One method, linked one way, on one placement."""

    method: str = column("how the child is created", key=True)
    linking: str = column("how the creating program is linked", key=True)
    rss_bytes: int | None = column("resident memory of the creating process")
    mappings_count: int | None = column("memory mappings of the creating process")
    descriptors_count: int | None = column("open descriptors of the creating process")
    alive_count: int | None = column("children or threads alive while the next one is created")
    n_count: int | None = column("samples, warm-ups not counted")
    return_: stats.Summary | None = spread("return", "until the call came back in the parent")
    started: stats.Summary | None = spread("started", "until the child's first instruction")
    cycle: stats.Summary | None = spread("cycle", "until created, exited and reaped")
    return_ratio: stats.Interval | None = estimate("return_ratio", f"return over that of {BASE_METHOD}")
    started_ratio: stats.Interval | None = estimate("started_ratio", f"started over that of {BASE_METHOD}")
    cycle_ratio: stats.Interval | None = estimate("cycle_ratio", f"cycle over that of {BASE_METHOD}")
    placement: str = column("where parent and child may run", key=True)
    launches_count: int | None = column("fresh processes that the samples come from")
    dropped_count: int | None = column("samples without a valid stamp of the child")


def _views() -> tuple[View, ...]:
    """A table each for medians, tails and ratios: one table of all would not fit a terminal."""
    medians = [View(name, f"{name}_p50_ns", f"{name}_p50_lo_ns", f"{name}_p50_hi_ns") for name in INTERVALS]
    tails = [
        View(f"{name} {part}", f"{name}_{part}_ns", group="tails", priority=priority)
        for name in INTERVALS
        for part, priority in (("p99", 1), ("max", 2))
    ]
    ratios = [
        View(name, f"{name}_ratio", f"{name}_lo_ratio", f"{name}_hi_ratio", group=f"ratio to {BASE_METHOD}")
        for name in INTERVALS
    ]
    return (*medians, View("n", "n_count", priority=2), *tails, *ratios)


def judge_c10(rows: Sequence[Mapping[str, Scalar]]) -> Verdict:
    """C10 by its rule, from the row of fork in a small static process on one CPU."""
    restated = "even from a static program, fork costs too much for every connection to have its own process"
    rule = "CONFIRMED when the 95 % interval of fork's cycle lies at or above 100 µs, that is 10 % of a core at 1,000/s"
    wanted = {"method": "fork", "linking": "static", "placement": "one-cpu"}
    found = [row for row in rows if wanted.items() <= row.items()]
    middle, low, high = (found[0][f"cycle_p50{end}_ns"] for end in ("", "_lo", "_hi")) if found else (None,) * 3
    if not isinstance(low, float) or not isinstance(high, float):
        reason = "fork of the static build on one CPU, with an interval, is not in this run"
        return Verdict("C10", restated, rule, "NOT-MEASURED", reason)
    verdict = "CONFIRMED" if low >= C10_CYCLE_NS else "REFUTED" if high < C10_CYCLE_NS else "INCONCLUSIVE"
    text = f"fork, exit and reap take {units.format_column('_ns', middle)}"
    evidence = f"{text} [{units.format_column('_ns', low)}, {units.format_column('_ns', high)}]"
    return Verdict("C10", restated, rule, verdict, evidence)


class ForkLatency(Experiment[ForkLatencyParameters]):
    """See the module."""

    version = 1
    parameters_type = ForkLatencyParameters
    row_type = ForkLatencyRow
    views = _views()
    repeats = 20
    quick_repeats = 5
    judges = (judge_c10,)

    def cells(self, parameters: ForkLatencyParameters) -> list[Cell]:
        """Method by linking by placement; each needs a handful of descriptors and two tasks."""
        return [
            Cell(
                {"method": method, "linking": linking, "placement": placement},
                _NEEDS,
                _WEIGHTS[method],
                launches=parameters.n,  # with fewer samples than blocks, some blocks have none to take
            )
            for method, linking, placement in product(parameters.method, parameters.linking, parameters.placement)
        ]

    def measure(self, parameters: ForkLatencyParameters, cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        """One fresh launch of the helper with this block's share of the n samples."""
        count = _share(parameters.n, bench.block, bench.blocks_count)
        if count == 0:
            return
        arguments = {
            "--method": cell.key["method"],
            "--samples": count,
            "--warmup": parameters.warmup,
            "--placement": cell.key["placement"],
        }
        flat = [part for pair in arguments.items() for part in pair]
        with native.Helper("fork_latency", flat, str(cell.key["linking"])) as helper:
            facts = helper.expect("facts")
            taken = helper.expect("samples", timeout_s=30 + count * 0.05)
            try:
                dropped_count = int(helper.finish()["dropped_count"])
            except native.HelperCallFailed:
                yield _samples(cell, bench, helper, facts, taken)  # what was measured before the call failed
                raise
        yield _samples(cell, bench, helper, facts | {"dropped_count": dropped_count}, taken)

    def summarise(self, parameters: ForkLatencyParameters, samples: Sequence[Samples], seed: int) -> list[Row]:
        """One row per cell that has samples."""
        rows: list[Row] = []
        for cell in self.cells(parameters):
            launches = [item for item in samples if item.key == cell.key]
            if launches:
                base = [item for item in samples if item.key == {**cell.key, "method": BASE_METHOD}]
                rows.append(_row(cell, launches, base, seed))
        return rows


def _samples(cell: Cell, bench: Bench, helper: native.Helper, facts: native.Message, taken: native.Message) -> Samples:
    """The samples of one launch, with the facts that hold for all of them."""
    values = {name: taken[f"{name}_ns"] for name in INTERVALS}
    known = {name: value for name, value in facts.items() if name != "type"}
    return Samples(cell.key, bench.block, values, known | {"clock_cost_ns": helper.hello["clock_cost_ns"]})


def _row(cell: Cell, launches: Sequence[Samples], base: Sequence[Samples], seed: int) -> ForkLatencyRow:
    summaries = {name: stats.summarise([item.values[name] for item in launches], seed) for name in INTERVALS}
    ratios = {name: _ratio(name, launches, base, seed) for name in INTERVALS}
    grade = _grade(summaries, launches)
    return ForkLatencyRow(
        method=str(cell.key["method"]),
        linking=str(cell.key["linking"]),
        placement=str(cell.key["placement"]),
        rss_bytes=_typical(launches, "rss_bytes"),
        mappings_count=_typical(launches, "mappings_count"),
        descriptors_count=_typical(launches, "descriptors_count"),
        alive_count=_typical(launches, "alive_count"),
        n_count=sum(len(item.values["cycle"]) for item in launches),
        return_=summaries["return"],
        started=summaries["started"],
        cycle=summaries["cycle"],
        return_ratio=ratios["return"],
        started_ratio=ratios["started"],
        cycle_ratio=ratios["cycle"],
        launches_count=len(launches),
        dropped_count=sum(int(item.facts.get("dropped_count") or 0) for item in launches),
        grade=grade.level,
        grade_reason=grade.reason,
    )


def _ratio(name: str, launches: Sequence[Samples], base: Sequence[Samples], seed: int) -> stats.Interval | None:
    """This cell's interval over the base method's, from the blocks that hold both."""
    arm, reference = ({item.block: item.values[name] for item in items} for items in (launches, base))
    return stats.paired_ratio(arm, reference, seed)


def _grade(summaries: dict[str, stats.Summary | None], launches: Sequence[Samples]) -> stats.Grade:
    """Shaky when an interval is wide or missing, or when the clock is not small beside what it times."""
    grade = stats.Grade()
    for name, summary in summaries.items():
        if summary is None:
            return grade.worse("void", f"{name}: no valid sample")
        part = stats.grade_interval(summary.p50, name)
        grade = grade if part.level == "ok" else grade.worse(part.level, part.reason)
    smallest = min(summary.p50.middle for summary in summaries.values() if summary)
    clock_ns = statistics.median(float(item.facts.get("clock_cost_ns") or 0) for item in launches)
    if clock_ns > CLOCK_SHARE_LIMIT * smallest:
        grade = grade.worse("shaky", f"the clock costs {clock_ns:.0f} ns, over 1 % of the smallest interval")
    return grade


def _typical(launches: Sequence[Samples], fact: str) -> int | None:
    """The median launch's value of a fact."""
    known = [int(value) for item in launches if (value := item.facts.get(fact)) is not None]
    return statistics.median_low(known) if known else None


def _share(total: int, block: int, blocks: int) -> int:
    """How many of ``total`` samples fall to a block; the shares differ by one at most and add up exactly."""
    return total * (block + 1) // blocks - total * block // blocks


_NEEDS = Needs(descriptors_count=16, tasks_count=3)
_WEIGHTS = {"fork": 3.0, "vfork": 2.0, "posix_spawn": 6.0, "clone3": 2.0, "pthread_create": 2.0}

EXPERIMENT = ForkLatency()
