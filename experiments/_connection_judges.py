"""The claims that connections judges, each by the rule printed beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from c10k_probe.experiment import NOT_MEASURED, Finding, FlatRow, Judge, Made, Verdict
from c10k_probe.servers import POOLS

from ._connection_design import BACKLOGGED, IDLE, USED
from ._connection_findings import (
    LIMIT_OF_SEARCH,
    MOST_RATIO,
    RATIO,
    WORKER_MODELS,
    Most,
    interval_of,
    number,
    ratio_subject,
)
from ._connection_judges_of_size import (
    ACTIVE_TIMES,
    C29_P99_NS,
    SLO_RATE_PER_S,
    judge_c20,
    judge_c29,
    judge_c34,
    judge_c39,
)
from ._connection_verdicts import at_end, figure, held_count, of_parts, yes

TIMES: Final = 5.0
BLOCKED_COUNT: Final = 1_000
BLOCKED_S: Final = 10.0
BLOCKED_PCT: Final = 0.1
MOST_IDLE_BYTES: Final = 20 * 1024
LIST_SHARE: Final = 0.25
CLAIMED_TIMES: Final = 2.0
BUDGET_BYTES: Final = 1 << 30
ENDS_OF_SEARCH: Final = ("memory", "cgroup-memory", "latency", "liveness")  # anything else is a setting
MEMORY: Final = "server_bytes_per_connection"
PRIVATE: Final = "server_private_bytes_per_connection"


# --- memory -----------------------------------------------------------------------------------------------------------


def judge_c18(rows: Sequence[FlatRow], made: Sequence[Made]) -> Verdict:
    """C18: is a process dearer than a thread, and a thread than a connection of an event loop?"""
    restated = "every process that is created costs memory"
    rule = (
        f"P a forked child takes ≥{TIMES:g} times the memory of a thread, T a thread ≥{TIMES:g} times that of an epoll "
        "connection (ratios of slopes, their intervals); CONFIRMED when both hold, REFUTED when both fail, PARTLY when "
        "one holds and one fails, else INCONCLUSIVE; at rest, never used where such were held, up to 5,000"
    )
    ratios = {item.subject: item.value for item in made if isinstance(item, Finding) and item.column == RATIO}
    for state in (IDLE, USED):
        names = [ratio_subject(*pair, state) for pair in (("fork", "thread"), ("thread", "epoll"))]
        values = [ratios.get(name) for name in names]
        if all(value is not None and value.low is not None for value in values):
            break
    else:
        return Verdict("C18", restated, rule, NOT_MEASURED, "needs --model epoll,thread,fork --state idle --to 5000")
    held, told = [], []
    for name, value in zip(names, values, strict=True):
        assert value is not None and value.low is not None and value.high is not None
        held.append(True if value.low >= TIMES else False if value.high < TIMES else None)
        told.append(f"{name} {figure('x_ratio', value.middle, value.low, value.high)} {yes(held[-1])}")
    reached = min(held_count(at_end(rows, model, state)) for model in ("fork", "thread", "epoll"))
    verdict = Verdict("C18", restated, rule, of_parts(*held), "; ".join(told))
    short = f"they were up to {reached:,} (rule: 5,000)" if reached < 5_000 else ""
    return verdict.capped(short) if short else verdict


def judge_c38(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C38: does the memory of an event loop stay low with many connections?"""
    restated = "an event loop's memory does not rise sharply with connections; its list of them is a small part"
    rule = (
        "F1 an idle connection of epoll takes ≤20 KiB at the server (its interval), F2 the server's private memory is "
        "<25 % of that, F3 with 64 KiB unread it takes ≤2 times that; PARTLY when some hold and some fail"
    )
    idle, full = at_end(rows, "epoll", IDLE), at_end(rows, "epoll", BACKLOGGED)
    memory = interval_of(idle, MEMORY) if idle else None
    if idle is None or memory is None or memory.low is None or memory.high is None:
        return Verdict("C38", restated, rule, NOT_MEASURED, "needs --model epoll --state idle,backlogged")
    own, held_full = interval_of(idle, PRIVATE), interval_of(full, MEMORY) if full else None
    first = True if memory.high <= MOST_IDLE_BYTES else False if memory.low > MOST_IDLE_BYTES else None
    share = None if own is None or memory.middle <= 0 else own.middle / memory.middle
    second = None if share is None else share < LIST_SHARE
    third, told = None, "is open: needs --state idle,backlogged"
    if held_full is not None and held_full.low is not None and held_full.high is not None and memory.low > 0:
        low, high = held_full.low / memory.high, held_full.high / memory.low
        third = True if high <= ACTIVE_TIMES else False if low > ACTIVE_TIMES else None
        told = f"{yes(third)}: {figure('x_ratio', held_full.middle / memory.middle, low, high)}"
    ends = (memory.middle, memory.low, memory.high)
    evidence = (
        f"F1 {yes(first)}: {figure(MEMORY, *ends)}; F2 {yes(second)}: "
        f"{figure('x_pct', None if share is None else 100 * share) or 'unknown'}; F3 {told}; up to {held_count(idle):,}"
    )
    return Verdict("C38", restated, rule, of_parts(first, second, third), evidence)


def judge_c52(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C52: does the event loop take least memory? How much it serves for its CPU time is another experiment's part."""
    restated = "an event-driven server is the best on one CPU and takes less memory"
    rule = (
        "R on one CPU the event server answers at least as many requests for a second of CPU time as each alternative, "
        "M it takes least memory for a connection (intervals apart); CONFIRMED when both hold, REFUTED when one fails; "
        "this run measures M alone"
    )
    # what a pool takes is not by connections
    others = [model for model in WORKER_MODELS if model not in POOLS and at_end(rows, model) is not None]
    base = _memory_at_end(rows, "epoll")
    if base is None or not others:
        return Verdict("C52", restated, rule, NOT_MEASURED, "needs --model epoll,thread,fork")
    held: list[bool | None] = []
    for model in others:
        other = _memory_at_end(rows, model)
        held.append(None if other is None else True if base[2] < other[1] else False if base[1] > other[2] else None)
    least = None if None in held else all(held)
    told = ", ".join(
        f"{model} {figure(MEMORY, *ends)}" for model in ("epoll", *others) if (ends := _memory_at_end(rows, model))
    )
    verdict = "REFUTED" if False in held else "INCONCLUSIVE"
    return Verdict("C52", restated, rule, verdict, f"M {yes(least)}: {told}; R is not part of this run")


def _memory_at_end(rows: Sequence[FlatRow], model: str) -> tuple[float, float, float] | None:
    row = at_end(rows, model)
    value = interval_of(row, MEMORY) if row else None
    return None if value is None or value.low is None or value.high is None else (value.middle, value.low, value.high)


# --- counts and latencies ---------------------------------------------------------------------------------------------


def judge_c24(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C24: does a blocked process take memory and no CPU?"""
    restated = "a blocked process uses no CPU, but still holds resources"
    rule = (
        "1,000 blocked readers use <0.1 % of a CPU over 10 s and switch not once, and their memory is above 0 (its low "
        "end); CONFIRMED when all hold for processes and threads that were measured, else REFUTED"
    )
    seen = {model: row for model in ("fork", "thread") if (row := at_end(rows, model)) and row["rest_s"] is not None}
    fitting = {
        model: row
        for model, row in seen.items()
        if held_count(row) >= BLOCKED_COUNT and (number(row["rest_s"]) or 0) >= 0.99 * BLOCKED_S
    }
    if not fitting:
        return Verdict("C24", restated, rule, NOT_MEASURED, "needs --model fork,thread --to 1000 --rest 10s")
    held: list[bool | None] = []
    told = []
    for model, row in fitting.items():
        memory, busy, switched = interval_of(row, MEMORY), number(row["rest_cpu_pct"]), row["rest_switches_count"]
        if memory is None or memory.low is None or busy is None or switched is None:
            held.append(None)
            continue
        held.append(busy < BLOCKED_PCT and switched == 0 and memory.low > 0)
        watched = figure("x_s", number(row["rest_s"]))
        told.append(
            f"{held_count(row):,} {model} readers used {figure('x_pct', busy)} of a CPU over {watched}, "
            f"{switched:,} switches, and hold {figure(MEMORY, memory.middle, memory.low, memory.high)} each"
        )
    verdict = "INCONCLUSIVE" if None in held else "CONFIRMED" if all(held) else "REFUTED"
    return Verdict("C24", restated, rule, verdict, "; ".join(told))


def judge_c55(rows: Sequence[FlatRow], made: Sequence[Made]) -> Verdict:
    """C55: with equal memory, does the event loop hold twice as many live connections?"""
    restated = "on an equal machine an event-driven server takes more concurrent requests"
    rule = (
        "the most live connections of epoll within 1 GiB at the server and on one CPU, the 99th percentile at 1,000 "
        "echoes a second ≤100 ms, are ≥2 times those of the best of prefork, fork and thread (interval of the ratio "
        "over 5 repetitions); REFUTED when <2 times; a setting that ends a search leaves it INCONCLUSIVE"
    )
    mosts = {item.model: item for item in made if isinstance(item, Most) and item.value is not None}
    rivals = [mosts[model] for model in ("prefork", "fork", "thread") if model in mosts]
    if "epoll" not in mosts or not rivals:
        need = "needs --memory-budget 1GiB --model epoll,fork,thread,prefork --to 1m --repeats 5"
        return Verdict("C55", restated, rule, NOT_MEASURED, need)
    best = max(rivals, key=lambda item: item.value.middle if item.value else 0.0)
    name = f"epoll over {best.model}"
    ratio = next(
        item.value for item in made if isinstance(item, Finding) and (item.subject, item.column) == (name, MOST_RATIO)
    )
    told = [
        f"{item.model} {figure('x_count', item.value.middle)} ({item.note})" for item in mosts.values() if item.value
    ]
    if ratio is None or ratio.low is None or ratio.high is None:
        told.append("no interval of the ratio: needs --repeats 5")
        return Verdict("C55", restated, rule, "INCONCLUSIVE", "; ".join(told))
    evidence = "; ".join((f"{name} {figure('x_ratio', ratio.middle, ratio.low, ratio.high)}", *told))
    verdict = "CONFIRMED" if ratio.low >= CLAIMED_TIMES else "REFUTED" if ratio.high < CLAIMED_TIMES else "INCONCLUSIVE"
    shortfall = " and ".join(_short_of_c55(rows, (mosts["epoll"], best), verdict))
    found = Verdict("C55", restated, rule, verdict, evidence)
    return found.capped(shortfall) if shortfall else found


def _short_of_c55(rows: Sequence[FlatRow], arms: tuple[Most, Most], verdict: str) -> list[str]:
    """What the rule asks for and this run did not do."""
    row = next(row for row in rows if row["budget_bytes"] is not None)
    ours, best = arms
    settings = {why for why in (*ours.ended_by, *best.ended_by) if why not in (*ENDS_OF_SEARCH, LIMIT_OF_SEARCH)}
    # epoll that went as far as --to holds at least so many: too few to refute, enough to confirm
    is_cut = LIMIT_OF_SEARCH in best.ended_by or (LIMIT_OF_SEARCH in ours.ended_by and verdict == "REFUTED")
    checks = (
        (
            row["budget_bytes"] != BUDGET_BYTES,
            f"the budget was {figure('x_bytes', number(row['budget_bytes']))} (rule: 1 GiB)",
        ),
        (row["server_cpus_count"] != 1, f"the server had {row['server_cpus_count']} CPUs (rule: one)"),
        (
            row["latency_bound_ns"] != C29_P99_NS,
            f"the bound was {figure('x_ns', number(row['latency_bound_ns']))} (rule: 100 ms)",
        ),
        (row["probe_rate_per_s"] != SLO_RATE_PER_S, "the echoes were not 1,000 a second"),
        (bool(settings), f"LIMITED BY {', '.join(sorted(settings))}"),
        (is_cut, "a search ended at --to"),
    )
    return [text for falls_short, text in checks if falls_short]


JUDGES: tuple[Judge, ...] = (
    judge_c18,
    judge_c20,
    judge_c24,
    judge_c29,
    judge_c34,
    judge_c38,
    judge_c39,
    judge_c52,
    judge_c55,
)
