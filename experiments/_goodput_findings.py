"""What no single row of goodput shows: the knees, what is left beyond them, models by clients; and the judge of C03."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from c10k_probe import stats
from c10k_probe.experiment import NOT_MEASURED, Finding, FlatRow, Judge, Made, Samples, Verdict
from c10k_probe.units import format_column

from ._goodput_design import CLOSED, FULL_PCT, OPEN, base_of
from ._goodput_knee import Way, interval, of_load, of_rate
from ._goodput_rows import Key, by_block, by_load, grade_of, knee_note, known, trials_of, tried

KEPT_SHARE, LOST_SHARE = 0.9, 0.5  # of the best goodput, at the highest load
FEW_CLIENTS, GOOD_RATIO, BAD_RATIO = 8, 0.9, 0.8
MANY_CLIENTS: Final = 10_000  # with fewer nothing says that it never gets bad
PER_CONNECTION: Final = "fork"  # a process for each connection
KNEE, KNEE_RATE, KEPT, BY_CLIENTS = "knee_pct", "knee_per_s", "goodput_kept_ratio", "goodput_ratio"


def findings(samples: Sequence[Samples], seed: int, bound_ns: int) -> Iterator[Finding]:
    """All of them; a void load has no part in any."""
    groups = {
        key: launches
        for key, launches in by_load(samples).items()
        if grade_of(launches, bound_ns, seed).level != "void"
    }
    loads: dict[Way, list[Samples]] = {}
    for (model, work, keep_alive, loop, *_), launches in groups.items():
        if loop == OPEN:
            loads.setdefault((model, work, keep_alive), []).extend(launches)
    for way, launches in sorted(loads.items()):
        yield from _of_curve(way, launches, seed)
    yield from _of_knees(samples, seed, bound_ns)
    yield from _by_clients(groups, seed)


def way_text(work: str, keep_alive: str) -> str:
    """The arm in words."""
    return f"work {work}, keep-alive {keep_alive}"


def _of_knees(samples: Sequence[Samples], seed: int, bound_ns: int) -> Iterator[Finding]:
    """Of each way that was tried, in both units."""
    for way, launches in sorted(tried(samples, seed, bound_ns).items()):
        trials = trials_of(launches)
        subject, value = f"{way[0]}, {way_text(way[1], way[2])}", interval(of_load(trials), seed)
        yield Finding(subject, KNEE, value, knee_note(trials))
        if (rate := interval(of_rate(trials), seed)) is not None:
            yield Finding(subject, KNEE_RATE, rate, "offered")


def _of_curve(way: Way, launches: Sequence[Samples], seed: int) -> Iterator[Finding]:
    """What is kept of the best goodput at the highest load, an interval over launches."""
    blocks: dict[int, list[Samples]] = {}
    for item in launches:
        blocks.setdefault(item.block, []).append(item)
    kept = [ratio for block in blocks.values() if (ratio := _kept(block)) is not None]
    if kept:
        most = max(int(item.key["load_pct"]) for item in launches)
        value = stats.median_interval(kept, seed)
        subject = f"{way[0]}, {way_text(way[1], way[2])}"
        yield Finding(subject, KEPT, value, f"at {most} % of capacity, of its best: {_beyond(value)}")


def _kept(block: Sequence[Samples]) -> float | None:
    """Goodput at the highest load over the best at any; None below the capacity, where nothing is beyond a knee."""
    goodput = {int(item.key["load_pct"]): values[0] for item in block if (values := known("goodput_per_s", [item]))}
    highest, best = max(goodput, default=0), max(goodput.values(), default=0.0)
    return goodput[highest] / best if highest > FULL_PCT and len(goodput) > 1 and best else None


def _beyond(value: stats.Interval) -> str:
    if value.low is None or value.high is None:
        return "too few launches to say whether it collapses"
    if value.low >= KEPT_SHARE:
        return "it only saturates"
    if value.low >= LOST_SHARE:
        return "it loses a part at most" if value.high >= KEPT_SHARE else "it loses a part"
    return "it collapses" if value.high < LOST_SHARE else "whether it collapses is within the noise"


def _by_clients(groups: Mapping[Key, Sequence[Samples]], seed: int) -> Iterator[Finding]:
    """Each model over the event loop with the same work and the same number of clients."""
    for key, launches in sorted(groups.items()):
        model, work, keep_alive, loop, _, clients_count = key
        base = groups.get((base_of(work), *key[1:]))
        if model == base_of(work) or base is None or loop != CLOSED:
            continue
        value = stats.paired_ratio(by_block("goodput_per_s", launches), by_block("goodput_per_s", base), seed)
        if value is not None:
            yield Finding(ratio_subject(model, work, keep_alive, clients_count), BY_CLIENTS, value)


def ratio_subject(model: str, work: str, keep_alive: str, clients_count: int) -> str:
    """The name under which a comparison is found."""
    clients = "1 client" if clients_count == 1 else f"{clients_count:,} clients"
    return f"{model} over {base_of(work)}, {clients}, {way_text(work, keep_alive)}"


# --- the judge --------------------------------------------------------------------------------------------------------


def judge_c03(rows: Sequence[FlatRow], made: Sequence[Made]) -> Verdict:
    """C03: is a process for each connection good for small loads and terrible for large ones?"""
    restated = "a process for each connection does well with few clients and badly with many"
    rule = (
        f"CONFIRMED when goodput of {PER_CONNECTION} over an event loop with the same work is ≥{GOOD_RATIO} (low end) "
        f"with {FEW_CLIENTS} clients and <{BAD_RATIO} (high end) with some other number, REFUTED when it is "
        f"<{GOOD_RATIO} (high end) with {FEW_CLIENTS} or nowhere <{BAD_RATIO} (low ends) up to {MANY_CLIENTS:,}, "
        "PARTLY when arms differ; closed loops"
    )
    parts, words = [], []
    arms = sorted({(str(row["work"]), str(row["keep_alive"])) for row in rows})
    for work, keep_alive in arms:
        ratios = _ratios(made, rows, work, keep_alive)
        if FEW_CLIENTS in ratios and len(ratios) > 1:
            parts.append(_is_confirmed(ratios))
            shown = ", ".join(f"{count:,}: {_shown(value)}" for count, value in sorted(ratios.items()))
            words.append(f"{way_text(work, keep_alive)}, by clients: {shown}")
    if not parts:
        models = f"{PER_CONNECTION} and epoll (for a sleep epoll-await)"
        why = f"needs {models}, valid, --clients {FEW_CLIENTS} and others, --repeats 5 or more"
        return Verdict("C03", restated, rule, NOT_MEASURED, why)
    verdict = "PARTLY" if {True, False} <= {*parts} else "INCONCLUSIVE" if None in parts else "CONFIRMED"
    if {*parts} == {False}:
        verdict = "REFUTED"
    return Verdict("C03", restated, rule, verdict, "; ".join(words))


def _ratios(made: Sequence[Made], rows: Sequence[FlatRow], work: str, keep_alive: str) -> dict[int, stats.Interval]:
    """By number of clients, where there is an interval."""
    values = {item.subject: item.value for item in made if isinstance(item, Finding) and item.column == BY_CLIENTS}
    found = {}
    for row in rows:
        if (row["model"], row["work"], row["keep_alive"], row["loop"]) != (PER_CONNECTION, work, keep_alive, CLOSED):
            continue
        value = values.get(ratio_subject(PER_CONNECTION, work, keep_alive, int(row["clients_count"] or 0)))
        if value is not None and value.low is not None and value.high is not None:
            found[int(row["clients_count"] or 0)] = value
    return found


def _is_confirmed(ratios: Mapping[int, stats.Interval]) -> bool | None:
    few = ratios[FEW_CLIENTS]
    assert few.low is not None
    assert few.high is not None
    lows = [value.low for value in ratios.values() if value.low is not None]
    highs = [value.high for value in ratios.values() if value.high is not None]
    is_never_bad = max(ratios) >= MANY_CLIENTS and min(lows) >= BAD_RATIO
    if few.high < GOOD_RATIO or is_never_bad:
        return False
    return True if few.low >= GOOD_RATIO and min(highs) < BAD_RATIO else None


def _shown(value: stats.Interval) -> str:
    low, high = (format_column("x_ratio", end) for end in (value.low, value.high))
    return f"{format_column('x_ratio', value.middle)} [{low}, {high}]"


JUDGES: tuple[Judge, ...] = (judge_c03,)
