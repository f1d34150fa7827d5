"""The rows of fork-latency: its columns, its tables and charts, and how launches become rows and cost models."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from c10k_probe import fits, native, stats
from c10k_probe.experiment import Cell, Chart, Row, Samples, Scalar, View, column, estimate, spread

from ._creation_design import MIB, State

INTERVALS = ("return", "started", "exec", "cycle", "aftershock")
COUNTS = ("child_faults_count", "parent_faults_count")
BASE_METHOD = "pthread_create"
CLOCK_SHARE_LIMIT = 0.01
NUMERIC_COLUMNS = {
    "rss": "asked_rss_bytes",
    "file_rss": "asked_file_rss_bytes",
    "mappings": "asked_mappings_count",
    "descriptors": "asked_descriptors_count",
    "alive": "asked_alive_count",
    "libraries": "asked_libraries_count",
}
FIT_TERMS = ("rss_mib", "file_rss_mib", "mappings", "descriptors", "alive")


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
    stall: stats.Summary | None = spread("stall", "how late the parent's own ticks are")
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
    private_dirty_bytes: int | None = column("private dirty memory of the creating process")
    launches_count: int | None = column("fresh processes that the samples come from")
    dropped_count: int | None = column("samples without a valid stamp of the child")


def _views() -> tuple[View, ...]:
    """A table each for medians, tails, ratios and what comes after: one table of all would not fit a terminal."""
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
    stall = [
        View("p50", "stall_p50_ns", "stall_p50_lo_ns", "stall_p50_hi_ns", group="the parent's ticks are late by"),
        View("p99", "stall_p99_ns", group="the parent's ticks are late by"),
        View("longest", "stall_max_ns", group="the parent's ticks are late by"),
        View("spawned", "spawned_count", group="the parent's ticks are late by"),
    ]
    return (*medians, View("n", "n_count", priority=3), *tails, *ratios, *after, *stall)


def _axis_chart(name: str, axes: tuple[str, ...], what: str, x: str) -> Chart:
    """fork and the others by one axis of the parent's state."""
    ends, series = ("return_p50_lo_ns", "return_p50_hi_ns"), ("method", "linking")
    title = f"Return of creation by the parent's {what}"
    return Chart(name, title, x, "return_p50_ns", *ends, series, where=(("axis", axes),), log_y=True)


def _method_chart(name: str) -> Chart:
    ends = (f"{name}_p50_lo_ns", f"{name}_p50_hi_ns")
    title = f"Creation by method: {name}"
    return Chart(name, title, "method", f"{name}_p50_ns", *ends, ("linking",), where=(("axis", "base"),), log_y=True)


VIEWS = _views()
CHARTS = (
    *map(_method_chart, ("return", "started", "cycle", "aftershock")),
    _axis_chart("rss", ("base", "rss"), "anonymous memory", "asked_rss_bytes"),
    _axis_chart("file-rss", ("base", "file_rss"), "file mapping", "asked_file_rss_bytes"),
    _axis_chart("mappings", ("base", "mappings"), "mappings", "asked_mappings_count"),
    _axis_chart("descriptors", ("base", "descriptors"), "descriptors", "asked_descriptors_count"),
    _axis_chart("alive", ("base", "alive"), "live children or threads", "asked_alive_count"),
    _axis_chart("libraries", ("base", "libraries"), "libraries", "asked_libraries_count"),
    _axis_chart("huge-pages", ("rss", "huge_pages"), "memory, in huge pages or not", "asked_rss_bytes"),
    _axis_chart("given-alive", ("given",), "live children or threads", "asked_alive_count"),
    _axis_chart("given-rss", ("given",), "anonymous memory", "asked_rss_bytes"),
    _axis_chart("given-mappings", ("given",), "mappings", "asked_mappings_count"),
    _axis_chart("given-descriptors", ("given",), "descriptors", "asked_descriptors_count"),
)


def flag(name: str) -> str:
    """The helper's option of an axis."""
    return "--" + name.replace("_", "-")


def state_columns(state: State) -> dict[str, str | int]:
    """The state as key columns of a row."""
    numeric: dict[str, str | int] = {column: getattr(state, name) for name, column in NUMERIC_COLUMNS.items()}
    texts = {"axis": state.axis, "alive_kind": state.alive_kind, "huge_pages": state.huge_pages}
    return numeric | texts


def samples(cell: Cell, block: int, hello: native.Message, facts: native.Message, taken: native.Message) -> Samples:
    """The samples of one launch, with their facts. Raises ``HelperError`` when none is valid."""
    arrays = {name: taken.get(f"{name}_ns") for name in INTERVALS}
    arrays |= {name: taken.get(name) for name in COUNTS}
    arrays["stall"] = taken.get("tick_late_ns")
    values = {name: array for name, array in arrays.items() if array is not None}
    if not any(len(array) for array in values.values()):
        raise native.HelperError(f"{hello['helper']}: no sample was valid, {facts.get('dropped_count')} were dropped")
    known = {name: value for name, value in facts.items() if name != "type"}
    known |= {"clock_cost_ns": hello["clock_cost_ns"], "spawned_count": taken.get("spawned_count")}
    return Samples(cell.key, block, values, known)


def summarise(cells: Sequence[Cell], taken: Sequence[Samples], seed: int) -> list[Row]:
    """One row per cell that has samples."""
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
    summaries = {name: stats.summarise(_launches(launches, name), seed) for name in (*INTERVALS, "stall")}
    kind = {"alive_kind": "threads"} if cell.key["asked_alive_count"] else {}
    base = by_key.get(tuple({**cell.key, "method": BASE_METHOD, **kind}.values()), ())
    static = by_key.get(tuple({**cell.key, "linking": "static"}.values()), ())
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
        spawned_count=_sum(launches, "spawned_count"),
        page_table_bytes=_typical(launches, "page_table_bytes"),
        private_dirty_bytes=_typical(launches, "private_dirty_bytes"),
        launches_count=len(launches),
        dropped_count=_sum(launches, "dropped_count"),
        grade=grade.level,
        grade_reason=grade.reason,
    )


def _launches(launches: Sequence[Samples], name: str) -> list[Sequence[int]]:
    return [item.values[name] for item in launches if name in item.values]


def _by_block(launches: Sequence[Samples], name: str) -> dict[int, Sequence[int]]:
    return {item.block: item.values[name] for item in launches if name in item.values}


def _ratio(name: str, launches: Sequence[Samples], base: Sequence[Samples], seed: int) -> stats.Interval | None:
    """This cell's interval over another's, from the blocks that hold both."""
    return stats.paired_ratio(_by_block(launches, name), _by_block(base, name), seed)


def _same_ratio(launches: Sequence[Samples], seed: int) -> stats.Interval | None:
    """The cell against itself: launches of odd blocks over the even ones before them."""
    blocks = _by_block(launches, "return")
    even = {block // 2: values for block, values in blocks.items() if block % 2 == 0}
    odd = {block // 2: values for block, values in blocks.items() if block % 2}
    return stats.paired_ratio(odd, even, seed)


def _grade(summaries: Mapping[str, stats.Summary | None], launches: Sequence[Samples]) -> stats.Grade:
    """Shaky when a median's interval is wide or missing, or when the clock is not small beside what it times."""
    grade = stats.Grade()
    judged = {name: summaries[name] for name in ("return", "started", "exec", "cycle") if summaries[name]}
    for name, summary in judged.items():
        part = stats.grade_interval(summary.p50 if summary else None, name)
        grade = grade if part.level == "ok" else grade.worse(part.level, part.reason)
    smallest = min((summary.p50.middle for summary in judged.values() if summary), default=None)
    clock_ns = statistics.median(float(item.facts.get("clock_cost_ns") or 0) for item in launches)
    if smallest is not None and clock_ns > CLOCK_SHARE_LIMIT * smallest:
        grade = grade.worse("shaky", f"the clock costs {clock_ns:.0f} ns, over 1 % of the smallest interval")
    return grade


def _typical(launches: Sequence[Samples], fact: str) -> int | None:
    """The median launch's value of a fact."""
    known = [int(value) for item in launches if (value := item.facts.get(fact)) is not None]
    return statistics.median_low(known) if known else None


def _sum(launches: Sequence[Samples], fact: str) -> int | None:
    known = [int(value) for item in launches if (value := item.facts.get(fact)) is not None]
    return sum(known) if known else None


def _median_count(launches: Sequence[Samples], name: str) -> float | None:
    values = [value for launch in _launches(launches, name) for value in launch]
    return float(statistics.median(values)) if values else None


# --- cost models ----------------------------------------------------------------------------------------------------


def fit(taken: Sequence[Samples], seed: int) -> list[fits.Fit]:
    """Return and cycle of each method and linking as a + b per MiB + ... per live child, from all states measured."""
    groups: dict[tuple[str, str], dict[tuple[Scalar, ...], list[Samples]]] = {}
    for item in taken:
        if item.key["huge_pages"] == "off" and not item.key["asked_libraries_count"]:
            cells = groups.setdefault((str(item.key["method"]), str(item.key["linking"])), {})
            cells.setdefault(tuple(item.key.values()), []).append(item)
    made = [
        fits.fit(f"creation {method} {linking}", f"{response}_ns", FIT_TERMS, _points(cells.values(), response), seed)
        for (method, linking), cells in groups.items()
        for response in ("return", "cycle")
    ]
    return [model for model in made if model is not None]


def _points(cells: Iterable[Sequence[Samples]], response: str) -> list[fits.Point]:
    points = []
    for launches in cells:
        key = launches[0].key
        terms = (
            float(key["asked_rss_bytes"]) / MIB,
            float(key["asked_file_rss_bytes"]) / MIB,
            float(key["asked_mappings_count"]),
            float(key["asked_descriptors_count"]),
            float(key["asked_alive_count"]),
        )
        medians = [statistics.median(values) for values in _launches(launches, response) if len(values)]
        points.append(fits.Point(terms, tuple(medians)))
    return points
