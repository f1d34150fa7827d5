"""The judges of fork-latency: each claim by the rule beside its verdict, from rows, cost models and findings alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from c10k_probe.experiment import FlatRow, Judge, Made, Verdict

from ._creation_judges_of_models import find_libraries, judge_c07
from ._creation_verdicts import Ends, combined, interval, not_measured, number, part, plain, text, varied

MIB = 1 << 20
SMALL_RSS, LARGE_RSS = (2 * MIB, 0), 512 * MIB  # of the first, that which was measured
PRIMITIVES = ("fork", "vfork", "clone3", "pthread_create")
TWICE, LARGE, NOT_LARGE = 2.0, 1.5, 1.2
C10_CYCLE_NS = 100_000.0
CROSSOVER_LIMIT = 1000
NEW_STACK = 0.99  # of a stack for each thread
RESIDENT_SHARE = 0.1


# --- C06 --------------------------------------------------------------------------------------------------------------


def judge_c06(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C06, its local half: do the primitives of this kernel differ by a factor of two?"""
    restated = "how fast a process is created depends on the primitive, and not all are good"
    rule = (
        "CONFIRMED when return and cycle of the slowest of fork, vfork, clone3 and pthread_create are at least 2× "
        "those of the fastest (low end), in a parent of 2 MiB (or, without it, as it starts) and of 512 MiB; REFUTED "
        "when one of these four is under 2× (high end); posix_spawn is not compared, as its intervals contain an exec"
    )
    small = next((rss for rss in SMALL_RSS if _is_whole(rows, rss)), None)
    if small is None or not _is_whole(rows, LARGE_RSS):
        return not_measured("C06", restated, rule, f"needs {', '.join(PRIMITIVES)} with --rss 2MiB,512MiB")
    spreads = [
        (f"{name} {_size(rows, rss)}", *_spread(rows, rss, name)) for rss in (small, LARGE_RSS) for name in _BOTH
    ]
    parts = [part(holds=ends[1] >= TWICE, fails=ends[2] < TWICE) for _, ends, _ in spreads]
    verdict = "REFUTED" if "does not hold" in parts else combined(parts)
    evidence = "; ".join(f"{what}: {who} {text('x_ratio', *ends)}" for what, ends, who in spreads)
    spawn = _spawn_text(rows, small)
    return Verdict("C06", restated, rule, verdict, f"{evidence}{spawn}; other systems were not measured")


_BOTH = ("return", "cycle")


def _is_whole(rows: Sequence[FlatRow], rss: int) -> bool:
    """Whether every primitive has both intervals in a parent of this size."""
    found = plain(rows, linking="dynamic", asked_rss_bytes=rss)
    known = {row["method"] for row in found if all(interval(row, f"{name}_p50", "_ns") for name in _BOTH)}
    return set(PRIMITIVES) <= known


def _spread(rows: Sequence[FlatRow], rss: int, name: str) -> tuple[Ends, str]:
    """Slowest over fastest, ends that lie farthest and nearest; and which two they are."""
    found = [row for row in plain(rows, linking="dynamic", asked_rss_bytes=rss) if row["method"] in PRIMITIVES]
    known = {str(row["method"]): ends for row in found if (ends := interval(row, f"{name}_p50", "_ns"))}
    slow, quick = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
    above, below = known[slow], known[quick]
    return (above[0] / below[0], above[1] / below[2], above[2] / below[1]), f"{slow} over {quick}"


def _size(rows: Sequence[FlatRow], rss: int) -> str:
    """What a parent is called: by what was asked for, or by what it has when that is nothing."""
    if rss:
        return f"at {text('x_bytes', rss)}"
    dirty = number(plain(rows, linking="dynamic", method="fork")[0], "anonymous_bytes")
    return "as it starts" + (f" ({text('x_bytes', dirty)} dirty)" if dirty else "")


def _spawn_text(rows: Sequence[FlatRow], rss: int) -> str:
    """posix_spawn beside the others, where measured."""
    found = plain(rows, linking="dynamic", method="posix_spawn", asked_rss_bytes=rss)
    ends = interval(found[0], "return_p50", "_ns") if found else None
    return f"; posix_spawn, whose return contains an exec, takes {text('x_ns', *ends)}" if ends else ""


# --- C08, C09, C10: linking -------------------------------------------------------------------------------------------


def judge_c08(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C08: does dynamic linking make too many mappings? Exact counts."""
    restated = "dynamic linking creates too many mappings"
    rule = (
        "CONFIRMED when the dynamic build has ≥2× the mappings and ≥1.5× the dirty pages of the static one at its "
        "main, and each library adds ≥4 mappings; REFUTED when none of these, else PARTLY"
    )
    dynamic, static = (plain(rows, method="fork", linking=linking) for linking in ("dynamic", "static"))
    each = _mappings_of_a_library(rows)
    if not dynamic or not static or each is None:
        return not_measured("C08", restated, rule, "needs fork from both builds and --libraries 0,32 (or --sweep)")
    names = ("main_mappings_count", "main_anonymous_bytes")
    (mappings, dirty), (few, less) = ([number(row, name) or 0 for name in names] for row in (dynamic[0], static[0]))
    if not few or not less:
        return not_measured("C08", restated, rule, "needs /proc/self/maps and smaps_rollup")
    held = (mappings / few >= TWICE, dirty / less >= LARGE, each >= 4)
    verdict = "CONFIRMED" if all(held) else "REFUTED" if not any(held) else "PARTLY"
    evidence = (
        f"at main, dynamic and static: {mappings:.0f} and {few:.0f} mappings ({text('x_ratio', mappings / few)}), "
        f"{text('x_bytes', dirty)} and {text('x_bytes', less)} dirty ({text('x_ratio', dirty / less)}); "
        f"{each:.1f} mappings per library"
    )
    return Verdict("C08", restated, rule, verdict, evidence)


def _mappings_of_a_library(rows: Sequence[FlatRow]) -> float | None:
    """What one library more adds, from the fewest and the most."""
    loaded = varied(rows, "asked_libraries_count", method="fork", linking="dynamic")
    counts = {
        int(row["asked_libraries_count"] or 0): count for row in loaded if (count := number(row, "mappings_count"))
    }
    if len(counts) < 2:
        return None
    most, least = max(counts), min(counts)
    return (counts[most] - counts[least]) / (most - least)


def judge_c09(rows: Sequence[FlatRow], models: Sequence[Made]) -> Verdict:
    """C09: does static linking make fork much faster?"""
    restated = "static linking makes fork much faster"
    rule = (
        "CONFIRMED when return of the dynamic build is ≥1.5× that of the static one (low end), REFUTED when "
        "it is <1.2× (high end), else PARTLY; over at least 20 launches"
    )
    found = [row for row in plain(rows, method="fork", linking="dynamic") if (number(row, "launches_count") or 0) >= 20]
    ends = interval(found[0], "over_static", "_ratio") if found else None
    if ends is None:
        return not_measured("C09", restated, rule, "needs fork from both builds in 20 launches")
    verdict = "CONFIRMED" if ends[1] >= LARGE else "REFUTED" if ends[2] < NOT_LARGE else "PARTLY"
    floor = interval(found[0], "same", "_ratio")
    noise = f"; the same build against itself {text('x_ratio', *floor)}" if floor else ""
    more = "".join(f"; {part}" for part in (_large_arm(rows), find_libraries(models), _exec_arm(rows)) if part)
    return Verdict("C09", restated, rule, verdict, f"dynamic over static {text('x_ratio', *ends)}{noise}{more}")


def _large_arm(rows: Sequence[FlatRow]) -> str:
    """The same with 64 MiB of dirty memory, where measured."""
    found = plain(rows, method="fork", linking="dynamic", asked_rss_bytes=64 * MIB)
    ends = interval(found[0], "over_static", "_ratio") if found else None
    return f"with 64 MiB dirty {text('x_ratio', *ends)}" if ends else ""


def _exec_arm(rows: Sequence[FlatRow]) -> str:
    """fork and exec, where the loader's work is paid: of a dynamic and of a static program, from the static build."""
    known = {}
    for target in ("dynamic", "static"):
        found = plain(rows, method=f"fork_exec_{target}", linking="static")
        known[target] = interval(found[0], "exec_p50", "_ns") if found else None
    dynamic, static = known["dynamic"], known["static"]
    if dynamic is None or static is None:
        return ""
    return f"fork and exec of a dynamic program {text('x_ns', *dynamic)}, of a static one {text('x_ns', *static)}"


def judge_c10(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C10: is fork from a minimal static process too slow for a process per connection?"""
    restated = "even from a static program, fork costs too much for every connection to have its own process"
    rule = "CONFIRMED when the 95 % interval of fork's cycle lies at or above 100 µs, that is 10 % of a core at 1,000/s"
    found = plain(rows, method="fork", linking="static")
    ends = interval(found[0], "cycle_p50", "_ns") if found else None
    if ends is None:
        return not_measured("C10", restated, rule, "needs fork of the static build on one CPU, with an interval")
    verdict = combined([part(holds=ends[1] >= C10_CYCLE_NS, fails=ends[2] < C10_CYCLE_NS)])
    return Verdict("C10", restated, rule, verdict, f"fork, exit and reap take {text('x_ns', *ends)}")


# --- C19: the crossover -----------------------------------------------------------------------------------------------


def judge_c19(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C19: is there a count of live workers from which fork beats pthread_create?"""
    restated = "with some 400 or more workers alive, fork is cheaper than pthread_create"
    rule = (
        "CONFIRMED when from some n ≤ 1,000 on every tested n has fork/pthread_create entirely under 1, "
        "REFUTED when it is over 1 at every n, PARTLY when it holds for one interval only"
    )
    asked = varied(rows, "asked_alive_count", method="fork", linking="dynamic")
    found = [row for row in asked if row["alive_kind"] != "threads" and number(row, "return_ratio") is not None]
    counts = sorted({int(row["asked_alive_count"] or 0) for row in found})
    if not counts or counts[-1] < CROSSOVER_LIMIT:
        needs = "needs fork and pthread_create at the same --alive counts, up to 1,000 or more (or --sweep)"
        return not_measured("C19", restated, rule, needs)
    outcomes = {name: _crossover(found, name) for name in ("return", "started", "cycle")}
    known = {name: outcome for name, outcome in outcomes.items() if outcome is not None}
    if len(known) < len(outcomes):
        return not_measured("C19", restated, rule, "needs an interval of every ratio; use more --repeats")
    held = [cross for cross, _, _ in known.values()]
    if all(held):
        verdict = "CONFIRMED"
    elif all(over for _, over, _ in known.values()):
        verdict = "REFUTED"
    else:
        verdict = "PARTLY" if any(held) else "INCONCLUSIVE"
    evidence = "; ".join(f"{name}: {outcome[2]}" for name, outcome in known.items())
    return Verdict("C19", restated, rule, verdict, f"fork over pthread_create by live workers: {evidence}")


def _crossover(found: Sequence[FlatRow], name: str) -> tuple[bool, bool, str] | None:
    """Whether it holds, whether fork is dearer everywhere, and the ratios at some counts; None without intervals."""
    ends = {int(row["asked_alive_count"] or 0): interval(row, name, "_ratio") for row in found}
    known: Mapping[int, Ends] = {count: value for count, value in sorted(ends.items()) if value is not None}
    if len(known) < len(ends):
        return None
    tail = [count for count in known if all(known[later][2] < 1 for later in known if later >= count)]
    shown = list(known)[:: max(1, len(known) // 3)] + list(known)[-1:]
    words = ", ".join(f"n={count:,} {text('x_ratio', *known[count])}" for count in dict.fromkeys(shown))
    return bool(tail) and tail[0] <= CROSSOVER_LIMIT, all(value[1] > 1 for value in known.values()), words


# --- C22, C27: threads ------------------------------------------------------------------------------------------------


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
        "F1 pthread_create maps a new stack every time: beside live threads, and also when earlier ones were joined; "
        "F2 what is resident of a stack is ≥10 % of its size; CONFIRMED when all hold, REFUTED when none, else PARTLY"
    )
    found = plain(rows, method="pthread_create", linking="dynamic")
    probed = [row for row in found if number(row, "stack_kept_ratio") is not None and number(row, "stack_bytes")]
    if not probed:
        return not_measured("C27", restated, rule, "needs pthread_create of the dynamic build on one CPU")
    kept, joined = (number(probed[0], f"stack_{name}_ratio") or 0.0 for name in ("kept", "joined"))
    stack = number(probed[0], "stack_bytes") or 0.0
    resident, where = _resident(rows, probed[0])
    parts = [part(holds=held, fails=not held) for held in (kept >= NEW_STACK, joined >= NEW_STACK)]
    second = resident >= RESIDENT_SHARE * stack
    parts.append(part(holds=second, fails=not second))
    evidence = (
        f"F1 {parts[0]} beside live threads: {kept:.2f} stacks mapped for each, in "
        f"{number(probed[0], 'stack_mappings_ratio') or 0:.1f} mappings; F1 {parts[1]} after joined ones: {joined:.2f} "
        f"for each; F2 {parts[2]}: {text('x_bytes', resident)} resident {where}, {resident / stack:.2%} of "
        f"{text('x_bytes', stack)}"
    )
    return Verdict("C27", restated, rule, combined(parts), evidence)


def _resident(rows: Sequence[FlatRow], probed: FlatRow) -> tuple[float, str]:
    """What a live thread keeps resident: the slope over --alive where there are two counts, else by the probe."""
    living = varied(rows, "asked_alive_count", method="pthread_create", linking="dynamic")
    dirty = {
        int(row["asked_alive_count"] or 0): size
        for row in living
        if row["alive_kind"] != "children" and (size := number(row, "anonymous_bytes")) is not None
    }
    few, many = min(dirty, default=0), max(dirty, default=0)
    if few < many:
        return (dirty[many] - dirty[few]) / (many - few), f"for each of {many:,} live threads"
    return number(probed, "stack_resident_bytes") or 0.0, "for each live thread"


JUDGES: tuple[Judge, ...] = (judge_c06, judge_c07, judge_c08, judge_c09, judge_c10, judge_c19, judge_c22, judge_c27)
