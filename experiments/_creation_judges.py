"""The judges of fork-latency: each claim by the rule beside its verdict, from rows and cost models alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from c10k_probe import fits, units
from c10k_probe.experiment import NOT_MEASURED, FlatRow, Judge, Made, Scalar, Verdict

MIB = 1 << 20
SMALL_RSS, LARGE_RSS = 0, 512 * MIB
PRIMITIVES = ("fork", "vfork", "posix_spawn", "clone3", "pthread_create")
TWICE, LARGE, NOT_LARGE = 2.0, 1.5, 1.2
C10_CYCLE_NS = 100_000.0
CROSSOVER_LIMIT = 1000
STACK_BYTES = 8 << 20
_STATE_COLUMNS = (
    "asked_rss_bytes",
    "asked_file_rss_bytes",
    "asked_mappings_count",
    "asked_descriptors_count",
    "asked_alive_count",
    "asked_libraries_count",
)


def select(rows: Iterable[FlatRow], **wanted: Scalar) -> list[FlatRow]:
    """The rows that agree with every named value."""
    return [row for row in rows if all(row.get(name) == value for name, value in wanted.items())]


def _varied(rows: Iterable[FlatRow], column: str, **wanted: Scalar) -> list[FlatRow]:
    """Rows of a parent whose state differs in one column only, that of nothing included."""
    others: dict[str, Scalar] = {name: 0 for name in _STATE_COLUMNS if name != column}
    return select(rows, **{"placement": "one-cpu", "huge_pages": "off", **others, **wanted})


def _plain(rows: Iterable[FlatRow], **wanted: Scalar) -> list[FlatRow]:
    """Rows of a parent without further state, on one CPU; axes name their own zero, so there may be several."""
    none: dict[str, Scalar] = dict.fromkeys(_STATE_COLUMNS, 0)
    return select(rows, **{"placement": "one-cpu", "huge_pages": "off", **none, **wanted})


def _not_measured(claim: str, restated: str, rule: str, reason: str) -> Verdict:
    return Verdict(claim, restated, rule, NOT_MEASURED, reason)


def _number(row: FlatRow, name: str) -> float | None:
    value = row.get(name)
    return float(value) if isinstance(value, (int, float)) else None


def _text(column: str, middle: float | None, low: float | None = None, high: float | None = None) -> str:
    text = units.format_column(column, middle)
    if low is None or high is None:
        return text
    return f"{text} [{units.format_column(column, low)}, {units.format_column(column, high)}]"


def _interval(row: FlatRow, stem: str, suffix: str) -> tuple[float, float, float] | None:
    """Middle, low and high of an estimate; None without an interval."""
    ends = [_number(row, name) for name in (f"{stem}{suffix}", f"{stem}_lo{suffix}", f"{stem}_hi{suffix}")]
    return None if None in ends else (ends[0], ends[1], ends[2])  # type: ignore[return-value]


def judge_c06(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C06, its local half: do the primitives of this kernel differ by a factor of two?"""
    restated = "how fast a process is created depends on the primitive, and not all are good"
    rule = (
        "CONFIRMED when the slowest primitive's return and cycle are at least 2× the fastest's, intervals "
        "apart, in a parent of 0 and of 512 MiB; REFUTED when one of these is surely under 2×"
    )
    spreads = []
    for rss in (SMALL_RSS, LARGE_RSS):
        for name in ("return", "cycle"):
            found = [row for row in _plain(rows, linking="dynamic", asked_rss_bytes=rss) if row["method"] in PRIMITIVES]
            known = [ends for row in found if (ends := _interval(row, f"{name}_p50", "_ns"))]
            if len({row["method"] for row in found}) < len(PRIMITIVES) or len(known) < len(PRIMITIVES):
                return _not_measured("C06", restated, rule, "needs all primitives with --rss 0,512MiB")
            slow, quick = max(known), min(known)
            ends = (slow[0] / quick[0], slow[1] / quick[2], slow[2] / quick[1])
            spreads.append((f"{name} at {rss // MIB} MiB", *ends))
    is_under = any(high < TWICE for _, _, _, high in spreads)
    verdict = (
        "CONFIRMED" if all(low >= TWICE for _, _, low, _ in spreads) else "REFUTED" if is_under else "INCONCLUSIVE"
    )
    evidence = ", ".join(
        f"{what} {_text('x_ratio', middle)}, at least {_text('x_ratio', low)}" for what, middle, low, _ in spreads
    )
    return Verdict("C06", restated, rule, verdict, f"slowest over fastest: {evidence}; other systems were not measured")


def judge_c07(_: Sequence[FlatRow], models: Sequence[Made]) -> Verdict:
    """C07: is fork a copy of page mappings, only that, and are file pages the same?"""
    restated = "fork merely copies page mappings"
    rule = (
        "F1 b>0 per MiB, d>0 per mapping, R²≥0.95; F2 the constant is under half of fork's return in a "
        "realistic server process (64 MiB, 300 mappings); F3 file pages cost at least half of anonymous ones"
    )
    named_so = [item for item in models if isinstance(item, fits.Fit) and item.name == "creation fork dynamic"]
    model = next((item for item in named_so if item.response == "return_ns"), None)
    if model is None or not {"rss_mib", "file_rss_mib", "mappings"} <= set(model.terms):
        return _not_measured("C07", restated, rule, "needs fork from a dynamic program with --fit")
    named = dict(zip(model.terms, model.coefficients[1:], strict=True))
    memory, mapping, file = named["rss_mib"], named["mappings"], named["file_rss_mib"]
    first = (memory.low or 0) > 0 and (mapping.low or 0) > 0 and model.r_squared >= 0.95
    realistic = model.predict({"rss_mib": 64, "mappings": 300}).middle
    second = model.coefficients[0].middle < 0.5 * realistic
    third = (file.low or 0) >= 0.5 * memory.middle
    held = sum((first, second, third))
    verdict = {3: "CONFIRMED", 0: "REFUTED"}.get(held, "PARTLY")
    evidence = (
        f"F1 {_yes(first)}: {_text('x_ns', memory.middle, memory.low, memory.high)} per MiB, "
        f"{_text('x_ns', mapping.middle, mapping.low, mapping.high)} per mapping, R² {model.r_squared:.3f}; "
        f"F2 {_yes(second)}: constant {_text('x_ns', model.coefficients[0].middle)} of {_text('x_ns', realistic)}; "
        f"F3 {_yes(third)}: {_text('x_ns', file.middle, file.low, file.high)} per MiB of file"
    )
    return Verdict("C07", restated, rule, verdict, evidence)


def _yes(held: bool) -> str:
    return "holds" if held else "does not hold"


def judge_c08(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C08: does dynamic linking make too many mappings? Exact counts."""
    restated = "dynamic linking creates too many mappings"
    rule = (
        "CONFIRMED when the dynamic build has ≥2× the mappings and ≥1.5× the dirty pages of the static one, "
        "and each library adds ≥4 mappings"
    )
    dynamic, static = (_plain(rows, method="fork", linking=linking) for linking in ("dynamic", "static"))
    loaded = _varied(rows, "asked_libraries_count", method="fork", linking="dynamic")
    counts = {int(row["asked_libraries_count"] or 0): _number(row, "mappings_count") for row in loaded}
    if not dynamic or not static or len([value for value in counts.values() if value]) < 2:
        return _not_measured("C08", restated, rule, "needs fork from both builds and --libraries 0,32 (or --sweep)")
    mappings = (_number(dynamic[0], "mappings_count") or 0) / (_number(static[0], "mappings_count") or 1)
    dirty = (_number(dynamic[0], "private_dirty_bytes") or 0) / (_number(static[0], "private_dirty_bytes") or 1)
    most, least = max(counts), min(counts)
    each = ((counts[most] or 0) - (counts[least] or 0)) / (most - least)
    held = (mappings >= TWICE, dirty >= LARGE, each >= 4)
    verdict = "CONFIRMED" if all(held) else "REFUTED" if not any(held) else "PARTLY"
    evidence = (
        f"mappings {_text('x_ratio', mappings)}, dirty memory {_text('x_ratio', dirty)}, {each:.1f} mappings "
        f"per library"
    )
    return Verdict("C08", restated, rule, verdict, evidence)


def judge_c09(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C09: does static linking make fork much faster?"""
    restated = "static linking makes fork much faster"
    rule = (
        "CONFIRMED when return of the dynamic build is ≥1.5× that of the static one (low end), REFUTED when "
        "it is <1.2× (high end), else PARTLY; over at least 20 launches"
    )
    found = [
        row for row in _plain(rows, method="fork", linking="dynamic") if (_number(row, "launches_count") or 0) >= 20
    ]
    ends = _interval(found[0], "over_static", "_ratio") if found else None
    if ends is None:
        return _not_measured("C09", restated, rule, "needs fork from both builds in 20 launches")
    verdict = "CONFIRMED" if ends[1] >= LARGE else "REFUTED" if ends[2] < NOT_LARGE else "PARTLY"
    floor = _interval(found[0], "same", "_ratio")
    noise = f"; the same build against itself {_text('x_ratio', *floor)}" if floor else ""
    return Verdict("C09", restated, rule, verdict, f"dynamic over static {_text('x_ratio', *ends)}{noise}")


def judge_c10(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C10: is fork from a minimal static process too slow for a process per connection?"""
    restated = "even from a static program, fork costs too much for every connection to have its own process"
    rule = "CONFIRMED when the 95 % interval of fork's cycle lies at or above 100 µs, that is 10 % of a core at 1,000/s"
    found = _plain(rows, method="fork", linking="static")
    ends = _interval(found[0], "cycle_p50", "_ns") if found else None
    if ends is None:
        return _not_measured("C10", restated, rule, "needs fork of the static build on one CPU, with an interval")
    verdict = "CONFIRMED" if ends[1] >= C10_CYCLE_NS else "REFUTED" if ends[2] < C10_CYCLE_NS else "INCONCLUSIVE"
    return Verdict("C10", restated, rule, verdict, f"fork, exit and reap take {_text('x_ns', *ends)}")


def judge_c19(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C19: is there a count of live workers from which fork beats pthread_create?"""
    restated = "with some 400 or more workers alive, fork is cheaper than pthread_create"
    rule = (
        "CONFIRMED when from some n ≤ 1,000 on every tested n has fork/pthread_create entirely under 1, "
        "REFUTED when it is over 1 at every n, PARTLY when it holds for one interval only"
    )
    varied = _varied(rows, "asked_alive_count", method="fork", linking="dynamic")
    found = [row for row in varied if row["alive_kind"] != "threads"]
    counts = sorted({int(row["asked_alive_count"] or 0) for row in found})
    if not counts or counts[-1] < CROSSOVER_LIMIT:
        return _not_measured("C19", restated, rule, "needs fork and pthread_create with --alive up to 1,000 and more")
    outcomes = {name: _crossover(found, name) for name in ("return", "started", "cycle")}
    if None in outcomes.values():
        return _not_measured("C19", restated, rule, "a ratio has no interval; use more --repeats")
    held = [name for name, (cross, _, _) in outcomes.items() if cross]  # type: ignore[misc]
    over = [name for name, (_, above, _) in outcomes.items() if above]  # type: ignore[misc]
    verdict = (
        "CONFIRMED"
        if len(held) == len(outcomes)
        else "REFUTED"
        if len(over) == len(outcomes)
        else "PARTLY"
        if held
        else "INCONCLUSIVE"
    )
    evidence = "; ".join(f"{name}: {text}" for name, (_, _, text) in outcomes.items())  # type: ignore[misc]
    return Verdict("C19", restated, rule, verdict, f"fork over pthread_create by live workers: {evidence}")


def _crossover(found: Sequence[FlatRow], name: str) -> tuple[bool, bool, str] | None:
    """Whether it holds, whether fork is dearer everywhere, and the ratios at three counts; None without intervals."""
    ends = {int(row["asked_alive_count"] or 0): _interval(row, name, "_ratio") for row in found}
    if any(value is None for value in ends.values()):
        return None
    known = {count: value for count, value in sorted(ends.items()) if value is not None}
    tail = [count for count in known if all(known[later][2] < 1 for later in known if later >= count)]
    shown = list(known)[:: max(1, len(known) // 3)] + list(known)[-1:]
    text = ", ".join(f"n={count:,} {_text('x_ratio', *known[count])}" for count in dict.fromkeys(shown))
    return bool(tail) and tail[0] <= CROSSOVER_LIMIT, all(value[1] > 1 for value in known.values()), text


def judge_c22(_: Sequence[FlatRow], __: Sequence[Made]) -> Verdict:
    """C22 compares worries; there is nothing to measure."""
    return Verdict(
        "C22",
        "threads bring worries about safety, deadlock and leaks",
        "none: a comparison of worries",
        "NOT-FALSIFIABLE",
        "races and deadlocks can be shown to exist in threads, and deadlocks in event loops too; how often is "
        "not a property of the machine",
    )


def judge_c27(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C27: does every thread take a new stack, and is that stack resident?"""
    restated = "creating a thread allocates a whole new stack"
    rule = (
        "F1 each of n live threads adds a stack of its own (a mapping or more each); F2 what is resident of "
        "it is ≥10 % of its 8 MiB"
    )
    varied = _varied(rows, "asked_alive_count", method="pthread_create", linking="dynamic")
    found = [row for row in varied if row["alive_kind"] != "children"]
    points = sorted(((int(row["asked_alive_count"] or 0), row) for row in found), key=lambda point: point[0])
    if len(points) < 2 or points[0][0] == points[-1][0]:
        return _not_measured("C27", restated, rule, "needs pthread_create with --alive 0,1000 (or --sweep)")
    (few, least), (many, most) = points[0], points[-1]
    each = ((_number(most, "mappings_count") or 0) - (_number(least, "mappings_count") or 0)) / (many - few)
    dirty = ((_number(most, "private_dirty_bytes") or 0) - (_number(least, "private_dirty_bytes") or 0)) / (many - few)
    first, second = each >= 1, dirty >= 0.1 * STACK_BYTES
    verdict = "CONFIRMED" if first and second else "PARTLY" if first or second else "REFUTED"
    evidence = (
        f"F1 {_yes(first)}: {each:.2f} mappings per live thread; F2 {_yes(second)}: {_text('x_bytes', dirty)} "
        f"resident per thread, {dirty / STACK_BYTES:.2%} of 8 MiB; the stack of a joined thread is used again"
    )
    return Verdict("C27", restated, rule, verdict, evidence)


JUDGES: tuple[Judge, ...] = (judge_c06, judge_c07, judge_c08, judge_c09, judge_c10, judge_c19, judge_c22, judge_c27)
