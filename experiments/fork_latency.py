"""What does creating one more process, thread or task cost on this machine, and why?

Question: how long do the ways of creation take, from programs linked in different ways; what does the parent's state
(memory, mappings, descriptors, live children or threads, libraries) change about it; what is left to pay afterwards?

Timed, each from the clock reading just before the call, never mixed: ``return`` until the call came back in the parent;
``started`` until the first instruction of ours in the child, which writes its clock reading to a shared page; ``exec``
until the first statement of main of an executed program; ``cycle`` until created, exited and reaped (waitpid,
pthread_join). ``aftershock`` is the parent's first write to each page of 1 MiB after the call returned, while the
child is alive. vfork and clone3 with CLONE_VFORK suspend their caller, so their ``return`` contains the child's whole
life. With --stall the subject is the parent: how late the ticks of its loop are while it spawns at a steady rate, all
of them and, apart, the first after each creation; the row of the method ``none`` is the loop alone.

Not timed: the warm-ups of each launch, making the parent's state, writing its memory again between creations, storing
samples. A C helper measures, one fresh process a launch; only the rows named after Python modules are measured by
Python. Clock: CLOCK_MONOTONIC, nanoseconds; its own cost is measured by every helper and stands in the raw samples.

Counts of mappings, page tables and dirty pages are of the parent with its state, before anything is mapped for the
samples, and of a program at its main. Dirty are anonymous pages: the kernel counts pages of a freshly written file as
dirty memory too, so that a program that was just installed would seem to have more.

Known bias: each interval contains one clock reading. glibc keeps the stacks of joined threads, so that all but the
first thread of a launch reuse one. With ``one-cpu`` the child runs when its parent waits; with ``any-cpu`` it may run
at once on another CPU. Children of vfork, clone3 and posix_spawn are over, or have executed, before an aftershock could
meet them. A launch ends early when its --budget is spent, which begins when the state is made;
``n_count`` says how many samples there are, and the grade when they are few of those asked for. With ``one-cpu`` the
stall would contain the turns that the loop and its children take, so ``any-cpu`` is usual there.

With --trace each cell is measured traced too, in the same blocks; rows of traced launches have the backend in
``traced_by``, and no other row contains anything of theirs. Counted is what one more creation adds: two launches that
differ in their number only, each traced from its first instruction to its end, their counts subtracted and divided.
Writing an --rss region again before each creation is in them, and the helper's longer report (write); aftershocks are
not made. strace does not see calls that never return (exit), and tells no switches, faults or waits; /proc tells
switches and faults of ended helpers by getrusage(2), whose voluntary switches include the last one of each process.

Sources: fork(2), vfork(2), posix_spawn(3), clone(2), pthread_create(3), madvise(2); kernel/fork.c, mm/memory.c
(copy_page_range); lmbench's lat_proc; Baumann et al., "A fork() in the road", HotOS 2019.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from c10k_probe import native
from c10k_probe.exits import UsageError
from c10k_probe.experiment import OFF, Bench, Cell, Experiment, Made, Row, Samples
from c10k_probe.parameters import Parameters, option_name, options_of, parameter

from . import _creation_charts as charts
from . import _creation_fits as findings
from . import _creation_judges as judges
from . import _creation_rows as rows
from . import _creation_traced as traced
from ._creation_design import (
    C_METHODS,
    HUGE_PAGE_BYTES,
    MIB,
    MOST_RSS,
    NUMERIC,
    PROCESS_METHODS,
    PYTHON_METHODS,
    THREAD_METHODS,
    State,
    given_states,
    is_at_rest,
    joint_states,
    needs,
    swept_states,
    weight,
    with_kind,
)
from ._traced_launch import HeldHelper, counted

AUTO = "auto"
PLACEMENTS = ("one-cpu", "any-cpu")
DEFAULT_METHODS = (*PROCESS_METHODS, "pthread_create")
SHOCK_SHARE = 5  # one sample of the aftershock for so many others
STACK_PROBE = 16  # threads
BASELINE = "none"


def _levels(help: str, dimension: str = "count", maximum: int = 10**7) -> tuple[int, ...]:
    """A comma-separated axis of the parent's state."""
    levels: tuple[int, ...] = parameter((0,), help, dimension=dimension, maximum=maximum, minimum=0, many=True)
    return levels


@dataclass(frozen=True)
class ForkLatencyParameters(Parameters):
    """What may be chosen on the command line."""

    n: int = parameter(1000, "Samples per cell, over all launches.", minimum=1, maximum=1_000_000, quick=100)
    method: tuple[str, ...] = parameter(
        DEFAULT_METHODS, "Ways of creation, comma-separated.", choices=(*C_METHODS, *PYTHON_METHODS), many=True
    )
    linking: tuple[str, ...] = parameter(
        ("dynamic", "static"),
        "How the measuring program is linked, comma-separated.",
        choices=native.LINKINGS,
        many=True,
    )
    placement: tuple[str, ...] = parameter(
        (AUTO,),
        "Parent and child on one CPU, or wherever the kernel puts them; auto: one-cpu, any-cpu with --stall.",
        choices=(AUTO, *PLACEMENTS),
        many=True,
    )
    rss: tuple[int, ...] = _levels("Anonymous memory of the parent, every page written.", "bytes", 1 << 46)
    file_rss: tuple[int, ...] = _levels("Private file mapping of the parent, every page read.", "bytes", 1 << 46)
    mappings: tuple[int, ...] = _levels("Mappings of the parent, beside those it has.")
    descriptors: tuple[int, ...] = _levels("Open descriptors of the parent, beside those it has.")
    alive: tuple[int, ...] = _levels("Children or threads that are alive already.", maximum=1_000_000)
    alive_kind: tuple[str, ...] = parameter(
        ("own",),
        "What is alive: children of a process, threads of a thread (own), or the other way round.",
        choices=("own", "children", "threads"),
        many=True,
    )
    huge_pages: tuple[str, ...] = parameter(
        ("off",), "Whether --rss lies in huge pages.", choices=("off", "on"), many=True
    )
    libraries: tuple[int, ...] = _levels("Shared libraries loaded by the parent (dynamic only).", maximum=128)
    warmup: int = parameter(
        5,
        "Creations of each launch that are thrown away first; when they copy memory, a third of --budget cuts them.",
        minimum=0,
        maximum=10_000,
    )
    budget: int = parameter(
        250_000_000,
        "End of a launch that takes longer, its state being made; with --stall, how long the loop of each ticks.",
        dimension="duration",
        minimum=10**6,
        maximum=10**12,
        quick=60_000_000,
    )
    sweep: bool = parameter(False, "Vary each axis of the parent's state alone.", dimension="flag")
    fit: bool = parameter(False, "Vary the axes alone and together, and fit a cost model.", dimension="flag")
    most_rss: int = parameter(
        MOST_RSS,
        "Memory of the largest parent of --sweep and --fit.",
        dimension="bytes",
        minimum=MIB,
        maximum=1 << 40,
        quick=MOST_RSS // 4,
    )
    stall: bool = parameter(False, "Measure how late the parent's own loop is while it spawns.", dimension="flag")
    rate: int = parameter(100, "Creations per second with --stall.", minimum=1, maximum=100_000)


class ForkLatency(Experiment[ForkLatencyParameters]):
    """See the module."""

    version = 3
    parameters_type = ForkLatencyParameters
    row_type = rows.ForkLatencyRow
    views = rows.VIEWS
    charts = charts.CHARTS
    judges = judges.JUDGES
    repeats = 20
    quick_repeats = 5
    traced_weight = 2500.0
    traced_values = ("return", "cycle")

    def untraceable(self, parameters: ForkLatencyParameters) -> str:
        """The loop of --stall creates as many as it has time for, and time is what tracing takes."""
        return "with --stall launches differ in their number of creations" if parameters.stall else ""

    def check(self, parameters: ForkLatencyParameters) -> None:
        """Refuse what cannot be combined, and what would be left unused."""
        if any(parameters.libraries) and "dynamic" not in parameters.linking:
            raise UsageError("--libraries: a static program loads none; add dynamic to --linking, or leave it out")
        if AUTO in parameters.placement and len(parameters.placement) > 1:
            raise UsageError("--placement: auto chooses one by itself; name the others alone")
        _check_huge_pages(parameters)
        _check_python(parameters)
        _check_modes(parameters)

    def cells(self, parameters: ForkLatencyParameters) -> list[Cell]:
        """Method by linking by placement by state; what means the same twice is measured once."""
        found: dict[tuple[str | int, ...], Cell] = {}
        for method, linking, placement in product(_methods(parameters), parameters.linking, _placements(parameters)):
            for state, kind in product(self._states(parameters, method, linking), parameters.alive_kind):
                cell = _cell(method, linking, placement, with_kind(state, method, kind), parameters)
                if cell is not None:
                    found.setdefault(tuple(cell.key.values()), cell)
        return list(found.values())

    def measure(self, parameters: ForkLatencyParameters, cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        """One fresh launch of the helper with this block's share of the n samples."""
        if cell.key["linking"] == native.PYTHON and _has_state(cell):
            raise native.HelperUnsupported(f"{cell.key['method']}: an interpreter is measured in no state but its own")
        count = 0 if parameters.stall else _share(parameters.n, bench.block, bench.blocks_count)
        if count and cell.traced_by != OFF:
            yield self._traced_launch(parameters, cell, bench, count)
        elif count or parameters.stall:
            yield from self._launch(parameters, cell, bench, count)

    def summarise(self, parameters: ForkLatencyParameters, samples: Sequence[Samples], seed: int) -> list[Row]:
        """One row per cell that has samples, traced ones last."""
        cells = self.cells(parameters)
        return [*rows.summarise(cells, samples, seed), *traced.summarise(cells, samples, seed)]

    def fit(self, parameters: ForkLatencyParameters, samples: Sequence[Samples], seed: int) -> list[Made]:
        """Where linking begins to matter; with --fit what each method costs, per part of the parent's state."""
        return findings.made(samples, seed, is_fit=parameters.fit)

    def _states(self, parameters: ForkLatencyParameters, method: str, linking: str) -> list[State]:
        levels: dict[str, Sequence[int]] = {name: getattr(parameters, name) for name in NUMERIC}
        states = list(given_states(levels, parameters.huge_pages))
        if parameters.sweep or parameters.fit:
            states += swept_states(method, linking, parameters.most_rss)
        if parameters.fit:
            states += joint_states(0, parameters.most_rss)
        return states

    def _launch(self, parameters: ForkLatencyParameters, cell: Cell, bench: Bench, count: int) -> Iterator[Samples]:
        """A launch of ``count`` samples; with --stall, of the loop."""
        arguments = _arguments(parameters, cell, count) if count else _stall_arguments(parameters, cell)
        patience_s = min(_patience_s(parameters, cell), bench.remaining_s() + 0.1)
        with native.Helper(_program(cell), _words(arguments), str(cell.key["linking"])) as helper:
            facts = helper.expect("facts", patience_s)
            taken = helper.expect("samples" if count else "stall", patience_s)
            warmups_count = int(str(arguments.get("--warmup", 0)))
            launch = rows.Launch(cell, bench.block, count, warmups_count, helper.hello, facts, taken)
            try:
                facts |= {"dropped_count": helper.finish()["dropped_count"]}
            except native.HelperCallFailed:
                yield rows.samples(launch)  # measured before the call failed
                raise
        yield rows.samples(launch)

    def _traced_launch(self, parameters: ForkLatencyParameters, cell: Cell, bench: Bench, count: int) -> Samples:
        """Two traced launches, of ``count`` and of fewer creations; the samples are those of the first."""
        patience_s = min(traced.SLOWER * _patience_s(parameters, cell), bench.remaining_s() + 0.1)

        def start(size: int) -> HeldHelper:
            arguments = _arguments(parameters, cell, size)
            arguments["--budget-ms"] = traced.SLOWER * int(str(arguments["--budget-ms"]))
            for name in ("--aftershock", "--stack-probe"):  # they wait for each other, more or less often
                arguments.pop(name, None)
            return HeldHelper(_program(cell), _words(arguments), str(cell.key["linking"]))

        def run(helper: HeldHelper, size: int) -> rows.Launch:
            helper.release(patience_s)
            facts, taken = helper.expect("facts", patience_s), helper.expect("samples", patience_s)
            facts |= {"dropped_count": helper.finish()["dropped_count"]}
            return rows.Launch(cell, bench.block, size, parameters.warmup, helper.hello, facts, taken)

        return traced.samples(*counted(cell.traced_by, start, run, traced.sizes(count)))


# --- what goes together -----------------------------------------------------------------------------------------------


def _check_huge_pages(parameters: ForkLatencyParameters) -> None:
    if "on" not in parameters.huge_pages:
        return
    if not any(parameters.rss):
        raise UsageError("--huge-pages on: there is no memory to put into them; add --rss 64MiB")
    if any(0 < rss < HUGE_PAGE_BYTES for rss in parameters.rss):
        raise UsageError("--huge-pages on: a huge page has 2MiB; use --rss of at least 2MiB")


def _check_python(parameters: ForkLatencyParameters) -> None:
    ours = [method for method in parameters.method if method in PYTHON_METHODS]
    if ours and parameters.stall:
        raise UsageError(f"--stall: the loop is written in C and creates no {ours[0]}; leave that method out")
    states = [name for name in NUMERIC if 0 not in getattr(parameters, name)]
    if len(ours) == len(parameters.method) and states:
        flags = ", ".join(option_name(name) for name in states)
        raise UsageError(f"{flags}: an interpreter is measured in no state but its own; nothing to measure without 0")


def _check_modes(parameters: ForkLatencyParameters) -> None:
    """What counts only in one way of measuring is refused in the others rather than left unused."""
    if parameters.stall and (parameters.sweep or parameters.fit):
        raise UsageError("--stall goes with neither --sweep nor --fit; run them one after the other")
    if parameters.stall and _is_chosen(parameters, "n"):
        raise UsageError("--n: with --stall there are as many creations as --rate and --budget give; use those")
    if not parameters.stall and _is_chosen(parameters, "rate"):
        raise UsageError("--rate counts only with --stall; add that, or leave it out")
    if not (parameters.sweep or parameters.fit) and _is_chosen(parameters, "most_rss"):
        raise UsageError("--most-rss counts only with --sweep or --fit; a size alone is typed with --rss")


def _is_chosen(parameters: ForkLatencyParameters, name: str) -> bool:
    """Whether a parameter is neither at its default nor at its quick value."""
    usual = {found: (default, option.quick) for found, default, option in options_of(ForkLatencyParameters)}
    return getattr(parameters, name) not in usual[name]


# --- cells ------------------------------------------------------------------------------------------------------------


def _methods(parameters: ForkLatencyParameters) -> tuple[str, ...]:
    """The methods asked for; with --stall also none, whose lateness is that of the loop alone."""
    return (BASELINE, *parameters.method) if parameters.stall else parameters.method


def _placements(parameters: ForkLatencyParameters) -> tuple[str, ...]:
    usual = "any-cpu" if parameters.stall else "one-cpu"
    return tuple(usual if placement == AUTO else placement for placement in parameters.placement)


def _cell(method: str, linking: str, placement: str, state: State, parameters: ForkLatencyParameters) -> Cell | None:
    """The cell, or None where it would mean nothing: libraries in a static program, states of an interpreter."""
    if state.libraries and linking != "dynamic":
        return None
    if method in PYTHON_METHODS:
        if not is_at_rest(state) and state.axis != "given":  # what was typed gets a row that says why there is nothing
            return None
        linking = native.PYTHON
    key: dict[str, str | int] = {"method": method, "linking": linking, "placement": placement}
    key |= rows.state_columns(state)
    launches = None if parameters.stall else parameters.n
    return Cell(key, needs(state, method), weight(state), launches=launches)


def _program(cell: Cell) -> str:
    return "creation_in_python" if cell.key["linking"] == native.PYTHON else "fork_latency"


def _words(arguments: Mapping[str, object]) -> list[object]:
    return [part for pair in arguments.items() for part in pair]


def _has_state(cell: Cell) -> bool:
    return any(cell.key[column] for column in rows.NUMERIC_COLUMNS.values())


def _patience_s(parameters: ForkLatencyParameters, cell: Cell) -> float:
    """How long a launch may be silent: its state is made, and written again for at least seven creations."""
    gibibytes = (int(cell.key["asked_rss_bytes"]) + int(cell.key["asked_file_rss_bytes"])) / (1 << 30)
    return 60 + 2 * parameters.budget / 1e9 + int(cell.key["asked_alive_count"]) * 0.01 + 20 * gibibytes


def _state_arguments(cell: Cell) -> dict[str, object]:
    """The parent's state for the helper; what is at rest is not mentioned."""
    key = cell.key
    asked: dict[str, object] = {rows.flag(name): key[column] for name, column in rows.NUMERIC_COLUMNS.items()}
    arguments = {flag: value for flag, value in asked.items() if value}
    if key["asked_alive_count"]:
        arguments["--alive-kind"] = key["alive_kind"]
    if key["huge_pages"] == "on":
        arguments["--huge-pages"] = "on"
    return arguments | {"--placement": key["placement"]}


def _arguments(parameters: ForkLatencyParameters, cell: Cell, count: int) -> dict[str, object]:
    arguments: dict[str, object] = {
        "--method": cell.key["method"],
        "--samples": count,
        "--warmup": parameters.warmup,
        "--budget-ms": max(1, parameters.budget // 10**6),
    }
    if cell.key["linking"] != native.PYTHON:
        arguments["--aftershock"] = max(3, count // SHOCK_SHARE)
        if cell.key["method"] in THREAD_METHODS and not _has_state(cell):
            arguments["--stack-probe"] = STACK_PROBE
    else:
        arguments |= {"--target": native.find("spawn_target")}
        return arguments | {"--placement": cell.key["placement"]}
    return arguments | _state_arguments(cell)


def _stall_arguments(parameters: ForkLatencyParameters, cell: Cell) -> dict[str, object]:
    is_baseline = cell.key["method"] == BASELINE
    return {
        "--method": "fork" if is_baseline else cell.key["method"],
        "--stall": 0 if is_baseline else parameters.rate,
        "--warmup": 0 if is_baseline else parameters.warmup,
        "--duration-ms": max(10, parameters.budget // 10**6),
        **_state_arguments(cell),
    }


def _share(total: int, block: int, blocks: int) -> int:
    """How many of ``total`` samples fall to a block; the shares differ by one at most and add up exactly."""
    return total * (block + 1) // blocks - total * block // blocks


EXPERIMENT = ForkLatency()
