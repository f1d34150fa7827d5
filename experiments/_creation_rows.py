"""The rows of fork-latency: its columns, its tables, and how launches become rows."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from c10k_probe import native, stats
from c10k_probe.experiment import Cell, Row, Samples, View, column, estimate, spread
from c10k_probe.traced import (
    calls_column,
    counted_column,
    dropped_column,
    price_column,
    tracing_column,
    views,
    wait_column,
)

from ._creation_design import BASE_METHOD, State

INTERVALS = ("return", "started", "exec", "cycle", "aftershock")
COUNTS = ("child_faults_count", "parent_faults_count")
STALLS = ("stall", "stall_after")
GRADED = ("return", "started", "exec", "cycle")
CLOCK_SHARE_LIMIT = 0.01
NUMERIC_COLUMNS = {
    "rss": "asked_rss_bytes",
    "file_rss": "asked_file_rss_bytes",
    "mappings": "asked_mappings_count",
    "descriptors": "asked_descriptors_count",
    "alive": "asked_alive_count",
    "libraries": "asked_libraries_count",
}
_EACH = "of parent and child for one creation, traced"
FEW_WARMUPS, FEW_SAMPLES = 1 / 2, 1 / 4  # of those asked for: below that a row says what its budget cost


@dataclass(frozen=True, kw_only=True)
class ForkLatencyRow(Row):
    """One method, linked one way, on one placement, in one state of the parent."""

    method: str = column("how the child is created", key=True)
    linking: str = column("how the creating program is linked; python: the creator is a Python program", key=True)
    rss_bytes: int | None = column("resident memory of the creating process")
    mappings_count: int | None = column("memory mappings of the creating process")
    descriptors_count: int | None = column("open descriptors of the creating process")
    alive_count: int | None = column("children or threads alive while the next one is created")
    n_count: int | None = column("samples, warm-ups not counted")
    return_: stats.Summary | None = spread("return", "until the call came back in the parent")
    started: stats.Summary | None = spread("started", "until the child's first instruction")
    cycle: stats.Summary | None = spread("cycle", "until created, exited and reaped")
    exec_: stats.Summary | None = spread("exec", "until the first statement of main of the executed program")
    aftershock: stats.Summary | None = spread("aftershock", "the parent's first write to 1 MiB afterwards")
    parent_faults_count: float | None = column("minor faults of the parent in the call and that write, median")
    child_faults_count: float | None = column("minor faults of the child from creation to its end, median")
    return_ratio: stats.Interval | None = estimate("return_ratio", f"return over that of {BASE_METHOD}")
    started_ratio: stats.Interval | None = estimate("started_ratio", f"started over that of {BASE_METHOD}")
    cycle_ratio: stats.Interval | None = estimate("cycle_ratio", f"cycle over that of {BASE_METHOD}")
    over_static_ratio: stats.Interval | None = estimate("over_static_ratio", "return over that of the static build")
    same_ratio: stats.Interval | None = estimate(
        "same_ratio", "A/A: return of every other launch over that of the rest; the floor under which nothing differs"
    )
    stall: stats.Summary | None = spread("stall", "how late the parent's own ticks are, all of them")
    stall_after: stats.Summary | None = spread("stall_after", "how late the first tick after a creation is")
    spawned_count: int | None = column("creations while the ticks were measured")
    placement: str = column("where parent and child may run", key=True)
    axis: str = column("which axis of the parent's state is varied here", key=True)
    asked_rss_bytes: int = column("anonymous memory asked for", key=True)
    asked_file_rss_bytes: int = column("private file mapping asked for", key=True)
    asked_mappings_count: int = column("further mappings asked for", key=True)
    asked_descriptors_count: int = column("further descriptors asked for", key=True)
    asked_alive_count: int = column("live children or threads asked for", key=True)
    alive_kind: str = column("what is alive: none, children or threads", key=True)
    huge_pages: str = column("whether the anonymous memory lies in huge pages", key=True)
    asked_libraries_count: int = column("shared libraries asked for", key=True)
    page_table_bytes: int | None = column("page tables of the creating process")
    anonymous_bytes: int | None = column("dirty memory of the creating process: anonymous pages, which were written")
    main_mappings_count: int | None = column("memory mappings that its main finds")
    main_anonymous_bytes: int | None = column("dirty memory that its main finds")
    main_page_table_bytes: int | None = column("page tables that its main finds")
    stack_bytes: int | None = column("stack of a thread with default attributes")
    stack_kept_ratio: float | None = column("stacks mapped for each of some threads that live together")
    stack_joined_ratio: float | None = column("stacks mapped for each of some threads, each joined before the next")
    stack_mappings_ratio: float | None = column("mappings that each of the threads that live together adds")
    stack_resident_bytes: int | None = column("resident memory that each of them adds")
    launches_count: int | None = column("fresh processes that the samples come from")
    dropped_count: int | None = column("samples without a valid stamp of the child")
    traced_by: str = tracing_column()
    calls_per_creation: stats.Interval | None = counted_column("calls_per_creation", _EACH)
    clone_per_creation: float | None = column(f"clone(2) {_EACH}")
    clone3_per_creation: float | None = column(f"clone3(2) {_EACH}")
    fork_per_creation: float | None = column(f"fork(2) {_EACH}")
    vfork_per_creation: float | None = column(f"vfork(2) {_EACH}")
    execve_per_creation: float | None = column(f"execve(2) {_EACH}")
    mmap_per_creation: float | None = column(f"mmap(2) {_EACH}")
    mprotect_per_creation: float | None = column(f"mprotect(2) {_EACH}")
    munmap_per_creation: float | None = column(f"munmap(2) {_EACH}")
    wait4_per_creation: float | None = column(f"wait4(2) {_EACH}")
    calls: str | None = calls_column(_EACH)
    voluntary_switches_per_creation: stats.Interval | None = counted_column("voluntary_switches_per_creation", _EACH)
    involuntary_switches_per_creation: stats.Interval | None = counted_column(
        "involuntary_switches_per_creation", _EACH
    )
    page_faults_per_creation: stats.Interval | None = counted_column("page_faults_per_creation", _EACH)
    runqueue_wait_ns: stats.Interval | None = wait_column(_EACH)
    traced_over_off_ratio: stats.Interval | None = price_column("cycle (return where there is no cycle)")
    trace_dropped_count: int | None = dropped_column()


_TICKS, _AFTER_SPAWN = "the parent's ticks are late by", "the first tick after a creation is late by"


def _spread_views(prefix: str, group: str) -> Iterator[View]:
    yield View("p50", f"{prefix}_p50_ns", f"{prefix}_p50_lo_ns", f"{prefix}_p50_hi_ns", group=group)
    yield View("p99", f"{prefix}_p99_ns", group=group)
    yield View("longest", f"{prefix}_max_ns", group=group)


def _views() -> tuple[View, ...]:
    """A table each for medians, tails, ratios, counts and what comes after: one of all would not fit a terminal."""
    medians = [
        View(name, f"{name}_p50_ns", f"{name}_p50_lo_ns", f"{name}_p50_hi_ns", priority=2 if name == "exec" else 1)
        for name in ("return", "started", "exec", "cycle")
    ]
    tails = [
        View(f"{name} {part}", f"{name}_{part}_ns", group="tails", priority=priority)
        for name in ("return", "started", "cycle")
        for part, priority in (("p99", 1), ("max", 2))
    ]
    ratios = [
        View(name, f"{name}_ratio", f"{name}_lo_ratio", f"{name}_hi_ratio", group=f"ratio to {BASE_METHOD}")
        for name in ("return", "started", "cycle")
    ]
    after = [
        View("aftershock", "aftershock_p50_ns", "aftershock_p50_lo_ns", "aftershock_p50_hi_ns", group="afterwards"),
        View("parent's faults", "parent_faults_count", group="afterwards"),
        View("child's faults", "child_faults_count", group="afterwards"),
    ]
    counts = [
        View("mappings", "mappings_count", group="counts"),
        View("mappings at main", "main_mappings_count", group="counts", priority=3),
        View("page tables", "page_table_bytes", group="counts", priority=2),
        View("dirty", "anonymous_bytes", group="counts"),
        View("dirty at main", "main_anonymous_bytes", group="counts", priority=3),
        View("over static", "over_static_ratio", "over_static_lo_ratio", "over_static_hi_ratio", group="counts"),
        View("A/A floor", "same_ratio", "same_lo_ratio", "same_hi_ratio", group="counts"),
    ]
    stacks = [
        View("kept alive", "stack_kept_ratio", group="stacks mapped for each thread"),
        View("joined", "stack_joined_ratio", group="stacks mapped for each thread"),
        View("resident of each", "stack_resident_bytes", group="stacks mapped for each thread"),
    ]
    stall = [*_spread_views("stall", _TICKS), View("spawned", "spawned_count", group=_TICKS)]
    stall += _spread_views("stall_after", _AFTER_SPAWN)
    samples = View("n", "n_count", priority=3)
    return (
        *medians,
        samples,
        *tails,
        *ratios,
        *after,
        *counts,
        *stacks,
        *stall,
        *views("creation", price="traced over off"),
    )


VIEWS = _views()


def flag(name: str) -> str:
    """The helper's option of an axis."""
    return "--" + name.replace("_", "-")


def state_columns(state: State) -> dict[str, str | int]:
    """The state as key columns of a row."""
    numeric: dict[str, str | int] = {column: getattr(state, name) for name, column in NUMERIC_COLUMNS.items()}
    texts = {"axis": state.axis, "alive_kind": state.alive_kind, "huge_pages": state.huge_pages}
    return numeric | texts


@dataclass(frozen=True)
class Launch:
    """What a launch was asked for, and what it said."""

    cell: Cell
    block: int
    samples_count: int  # 0: as many as come
    warmups_count: int
    hello: native.Message
    facts: native.Message
    taken: native.Message


def samples(launch: Launch) -> Samples:
    """The samples of one launch, with their facts. Raises ``HelperError`` when none is valid."""
    taken, facts = launch.taken, launch.facts
    arrays = {name: taken.get(f"{name}_ns") for name in INTERVALS}
    arrays |= {name: taken.get(name) for name in COUNTS}
    arrays |= {"stall": taken.get("tick_late_ns"), "stall_after": taken.get("after_late_ns")}
    values = {name: array for name, array in arrays.items() if array is not None}
    if not any(len(array) for array in values.values()):
        name, dropped = launch.hello["helper"], facts.get("dropped_count")
        raise native.HelperError(f"{name}: no sample was valid, {dropped} were dropped")
    known = {name: value for name, value in facts.items() if name != "type"}
    known |= {name: taken.get(name) for name in ("spawned_count", "warmups_count")}
    known |= {"asked_samples_count": launch.samples_count, "asked_warmups_count": launch.warmups_count}
    return Samples(launch.cell.key, launch.block, values, known | {"clock_cost_ns": launch.hello["clock_cost_ns"]})


def summarise(cells: Sequence[Cell], taken: Sequence[Samples], seed: int) -> list[Row]:
    """One row per untraced cell that has samples."""
    by_key: dict[tuple[str | int, ...], list[Samples]] = {}
    for item in taken:
        by_key.setdefault(tuple(item.key.values()), []).append(item)
    return [
        _row(cell, by_key[tuple(cell.key.values())], by_key, seed)
        for cell in cells
        if tuple(cell.key.values()) in by_key
    ]


def _row(
    cell: Cell, launches: Sequence[Samples], by_key: Mapping[tuple[str | int, ...], Sequence[Samples]], seed: int
) -> ForkLatencyRow:
    summaries = {name: stats.summarise(values_of(launches, name), seed) for name in (*INTERVALS, *STALLS)}
    kind = {"alive_kind": "threads"} if cell.key["asked_alive_count"] else {}
    base = by_key.get(tuple({**cell.key, "method": BASE_METHOD, **kind}.values()), ())
    static = _static_partner(cell, by_key)
    grade = _grade(summaries, launches)
    is_ours = cell.key["linking"] != native.PYTHON
    return ForkLatencyRow(
        **cell.key,  # type: ignore[arg-type]
        rss_bytes=_typical(launches, "rss_bytes"),
        mappings_count=_typical(launches, "mappings_count"),
        descriptors_count=_typical(launches, "descriptors_count"),
        alive_count=_typical(launches, "alive_count"),
        n_count=sum(len(item.values.get("return", ())) for item in launches),
        return_=summaries["return"],
        started=summaries["started"],
        exec_=summaries["exec"],
        cycle=summaries["cycle"],
        aftershock=summaries["aftershock"],
        parent_faults_count=_median_count(launches, "parent_faults_count"),
        child_faults_count=_median_count(launches, "child_faults_count"),
        return_ratio=_ratio("return", launches, base, seed) if is_ours else None,
        started_ratio=_ratio("started", launches, base, seed) if is_ours else None,
        cycle_ratio=_ratio("cycle", launches, base, seed) if is_ours else None,
        over_static_ratio=_ratio("return", launches, static, seed) if cell.key["linking"] != "static" else None,
        same_ratio=_same_ratio(launches, seed),
        stall=summaries["stall"],
        stall_after=summaries["stall_after"],
        spawned_count=_sum(launches, "spawned_count"),
        page_table_bytes=_typical(launches, "page_table_bytes"),
        anonymous_bytes=_typical(launches, "anonymous_bytes"),
        main_mappings_count=_typical(launches, "main_mappings_count"),
        main_anonymous_bytes=_typical(launches, "main_anonymous_bytes"),
        main_page_table_bytes=_typical(launches, "main_page_table_bytes"),
        **_stacks(launches),  # type: ignore[arg-type]
        launches_count=len(launches),
        dropped_count=_sum(launches, "dropped_count"),
        grade=grade.level,
        grade_reason=grade.reason,
    )


def _static_partner(cell: Cell, by_key: Mapping[tuple[str | int, ...], Sequence[Samples]]) -> Sequence[Samples]:
    """The same in the static build. It loads no libraries: what loads some is compared with it as it is."""
    static = {**cell.key, "linking": "static", "asked_libraries_count": 0}
    keys = (static, {**static, "axis": "base"})
    return next((by_key[tuple(key.values())] for key in keys if tuple(key.values()) in by_key), ())


def _stacks(launches: Sequence[Samples]) -> dict[str, float | int | None]:
    """What the probe of threads' stacks found, for each thread."""
    threads, stack_bytes = _typical(launches, "probed_threads_count"), _typical(launches, "stack_bytes")
    if not threads or not stack_bytes:
        return {}
    kept, joined, mappings, resident = (
        None if (value := _typical(launches, name)) is None or value < 0 else value / threads
        for name in ("kept_mapped_bytes", "joined_mapped_bytes", "kept_mappings_count", "kept_anonymous_bytes")
    )
    return {
        "stack_bytes": stack_bytes,
        "stack_kept_ratio": None if kept is None else round(kept / stack_bytes, 2),  # a guard page is no stack
        "stack_joined_ratio": None if joined is None else round(joined / stack_bytes, 2),
        "stack_mappings_ratio": mappings,
        "stack_resident_bytes": None if resident is None else round(resident),
    }


def values_of(launches: Sequence[Samples], name: str) -> list[Sequence[int]]:
    """The values of one name, launch by launch."""
    return [item.values[name] for item in launches if name in item.values]


def by_block(launches: Sequence[Samples], name: str) -> dict[int, Sequence[int]]:
    """The values of one name by the block of their launch."""
    return {item.block: item.values[name] for item in launches if name in item.values}


def _ratio(name: str, launches: Sequence[Samples], base: Sequence[Samples], seed: int) -> stats.Interval | None:
    """This cell's interval over another's, from the blocks that hold both."""
    return stats.paired_ratio(by_block(launches, name), by_block(base, name), seed)


def _same_ratio(launches: Sequence[Samples], seed: int) -> stats.Interval | None:
    """The cell against itself: launches of odd blocks over the even ones before them."""
    blocks = by_block(launches, "return")
    even = {block // 2: values for block, values in blocks.items() if block % 2 == 0}
    odd = {block // 2: values for block, values in blocks.items() if block % 2}
    return stats.paired_ratio(odd, even, seed)


def _grade(summaries: Mapping[str, stats.Summary | None], launches: Sequence[Samples]) -> stats.Grade:
    """Shaky when a median's interval is wide or missing, when the clock is not small beside what it times, or when
    the budget left few of the samples.
    """
    grade = stats.Grade()
    judged = {name: known for name in (*GRADED, *STALLS) if (known := summaries[name]) is not None}
    for name, summary in judged.items():
        part = stats.grade_interval(summary.p50, name.replace("_", " "))
        grade = grade if part.level == "ok" else grade.worse(part.level, part.reason)
    smallest = min((judged[name].p50.middle for name in GRADED if name in judged), default=None)
    clock_ns = statistics.median(float(item.facts.get("clock_cost_ns") or 0) for item in launches)
    if smallest is not None and clock_ns > CLOCK_SHARE_LIMIT * smallest:
        grade = grade.worse("shaky", f"the clock costs {clock_ns:.0f} ns, over 1 % of the smallest interval")
    for reason in _cut(launches):
        grade = grade.worse("shaky", reason)
    return grade


def _cut(launches: Sequence[Samples]) -> Iterator[str]:
    """What the budget took from the typical launch, when it is much."""
    asked, made = _typical(launches, "asked_warmups_count"), _typical(launches, "warmups_count")
    if asked and made is not None and made < FEW_WARMUPS * asked:
        yield "--budget left under half of the warm-ups"
    asked = _typical(launches, "asked_samples_count")
    if asked and statistics.median(len(item.values.get("return", ())) for item in launches) < FEW_SAMPLES * asked:
        yield "--budget left under a quarter of the samples"


def _typical(launches: Sequence[Samples], fact: str) -> int | None:
    """The median launch's value of a fact."""
    known = [int(value) for item in launches if (value := item.facts.get(fact)) is not None]
    return statistics.median_low(known) if known else None


def _sum(launches: Sequence[Samples], fact: str) -> int | None:
    known = [int(value) for item in launches if (value := item.facts.get(fact)) is not None]
    return sum(known) if known else None


def _median_count(launches: Sequence[Samples], name: str) -> float | None:
    values = [value for launch in values_of(launches, name) for value in launch]
    return float(statistics.median(values)) if values else None
