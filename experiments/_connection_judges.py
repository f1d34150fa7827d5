"""The claims that connections judges, each by the rule printed beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from c10k_probe.experiment import NOT_MEASURED, Finding, FlatRow, Judge, Made, Verdict
from c10k_probe.servers import POOLS
from c10k_probe.units import format_column

from ._connection_design import BACKLOGGED, IDLE, USED
from ._connection_findings import (
    EVENT_MODELS,
    LIMIT_OF_SEARCH,
    MOST_RATIO,
    RATIO,
    THE_FOUR,
    WORKER_MODELS,
    Most,
    Reached,
    interval_of,
    last_rows,
    number,
    ramp_time,
    ratio_subject,
)

TIMES: Final = 5.0
C10K: Final = 10_000
IBM: Final = 100_000
IBM_S: Final = 60.0
SLO_RATE_PER_S: Final = 1_000
C29_P99_NS: Final = 100e6
C34_P99_NS: Final = 1e9
BLOCKED_COUNT: Final = 1_000
BLOCKED_S: Final = 10.0
BLOCKED_PCT: Final = 0.1
MOST_IDLE_BYTES: Final = 20 * 1024
LIST_SHARE: Final = 0.25
ACTIVE_TIMES: Final = 2.0
FEW: Final = 100
NEAR_FEW: Final = (50, 200)
CLAIMED_TIMES: Final = 2.0
BUDGET_BYTES: Final = 1 << 30
ENDS_OF_SEARCH: Final = ("memory", "cgroup-memory", "latency", "liveness")  # anything else is a setting
NOT_MEASURED_HERE: Final = "not measured"
MEMORY: Final = "server_bytes_per_connection"
PRIVATE: Final = "server_private_bytes_per_connection"


def _of(rows: Sequence[FlatRow], model: str, *states: str) -> list[FlatRow]:
    """The steps of a model's ramps, in one of these states; of several the first that was measured."""
    own = [row for row in rows if row["model"] == model and row["open_count"] is not None and row["fits"] is None]
    for state in states or (USED, IDLE, BACKLOGGED):
        if found := [row for row in own if row["state"] == state]:
            return found
    return []


def _at_end(rows: Sequence[FlatRow], model: str, *states: str) -> FlatRow | None:
    """The end of the ramp that went farthest."""
    return max(last_rows(_of(rows, model, *states)), key=lambda row: int(row["open_count"] or 0), default=None)


def _yes(holds: bool | None) -> str:
    return "is open" if holds is None else "holds" if holds else "fails"


def _of_parts(*held: bool | None) -> str:
    if True in held and False in held:
        return "PARTLY"
    return "INCONCLUSIVE" if None in held else "CONFIRMED" if all(held) else "REFUTED"


def _text(column: str, middle: float | None, low: float | None = None, high: float | None = None) -> str:
    told = format_column(column, middle)
    return (
        told if low is None or high is None else f"{told} [{format_column(column, low)}, {format_column(column, high)}]"
    )


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
        told.append(f"{name} {_text('x_ratio', value.middle, value.low, value.high)} {_yes(held[-1])}")
    reached = min(_open(_at_end(rows, model, state)) for model in ("fork", "thread", "epoll"))
    verdict = Verdict("C18", restated, rule, _of_parts(*held), "; ".join(told))
    short = f"they were up to {reached:,} (rule: 5,000)" if reached < 5_000 else ""
    return verdict.capped(short) if short else verdict


def _open(row: FlatRow | None) -> int:
    return 0 if row is None else int(row["open_count"] or 0)


def judge_c38(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C38: does the memory of an event loop stay low with many connections?"""
    restated = "an event loop's memory does not rise sharply with connections; its list of them is a small part"
    rule = (
        "F1 an idle connection of epoll takes ≤20 KiB at the server (its interval), F2 the server's private memory is "
        "<25 % of that, F3 with 64 KiB unread it takes ≤2 times that; PARTLY when some hold and some fail"
    )
    idle, full = _at_end(rows, "epoll", IDLE), _at_end(rows, "epoll", BACKLOGGED)
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
        told = f"{_yes(third)}: {_text('x_ratio', held_full.middle / memory.middle, low, high)}"
    ends = (memory.middle, memory.low, memory.high)
    evidence = (
        f"F1 {_yes(first)}: {_text(MEMORY, *ends)}; F2 {_yes(second)}: "
        f"{_text('x_pct', None if share is None else 100 * share) or 'unknown'}; F3 {told}; up to {_open(idle):,}"
    )
    return Verdict("C38", restated, rule, _of_parts(first, second, third), evidence)


def judge_c52(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C52: does the event loop take least memory? How much it serves for its CPU time is another experiment's part."""
    restated = "an event-driven server is the best on one CPU and takes less memory"
    rule = (
        "R on one CPU the event server answers at least as many requests for a second of CPU time as each alternative, "
        "M it takes least memory for a connection (intervals apart); CONFIRMED when both hold, REFUTED when one fails; "
        "this run measures M alone"
    )
    # what a pool takes is not by connections
    others = [model for model in WORKER_MODELS if model not in POOLS and _at_end(rows, model) is not None]
    base = _memory_at_end(rows, "epoll")
    if base is None or not others:
        return Verdict("C52", restated, rule, NOT_MEASURED, "needs --model epoll,thread,fork")
    held: list[bool | None] = []
    for model in others:
        other = _memory_at_end(rows, model)
        held.append(None if other is None else True if base[2] < other[1] else False if base[1] > other[2] else None)
    least = None if None in held else all(held)
    told = ", ".join(
        f"{model} {_text(MEMORY, *ends)}" for model in ("epoll", *others) if (ends := _memory_at_end(rows, model))
    )
    verdict = "REFUTED" if False in held else "INCONCLUSIVE"
    return Verdict("C52", restated, rule, verdict, f"M {_yes(least)}: {told}; R is not part of this run")


def _memory_at_end(rows: Sequence[FlatRow], model: str) -> tuple[float, float, float] | None:
    row = _at_end(rows, model)
    value = interval_of(row, MEMORY) if row else None
    return None if value is None or value.low is None or value.high is None else (value.middle, value.low, value.high)


# --- counts and latencies ---------------------------------------------------------------------------------------------


def judge_c20(rows: Sequence[FlatRow], made: Sequence[Made]) -> Verdict:
    """C20: does one process hold 100,000 connections? Whose work that is due to is history."""
    restated = "after IBM's optimisation one process can handle 100,000 connections"
    rule = (
        "F1 one process holds 100,000 connections and answers an echo on each within 60 s without a failure, F2 that "
        "is due to IBM, which no measurement tells; PARTLY when F1 holds, REFUTED when it fails for no setting's sake"
    )
    row = _at_end(rows, "epoll", USED)
    wall = _wall_of(made, "epoll")
    if row is None or (_open(row) < IBM and not wall[0]):
        return Verdict("C20", restated, rule, NOT_MEASURED, "needs --model epoll --to 100k")
    took_s, untimed_count = ramp_time(row, [step for step in _of(rows, "epoll", USED) if step["block"] == row["block"]])
    told = f"{row['processes_count']} process held {_open(row):,}, each with an echo, in {_text('x_s', took_s)}"
    if _open(row) < IBM:
        return Verdict("C20", restated, rule, *_limited(wall, f"F1 fails: {told}"))
    is_live = row["echo_failed_count"] == 0 and row["processes_count"] == 1 and took_s <= IBM_S
    told += f"; {row['echo_asked_count']:,} asked again at the end, {row['echo_failed_count']} failed"
    if is_live and untimed_count:
        told += f"; the steps that opened {untimed_count:,} of them are void, and so their time is not in it"
        return Verdict("C20", restated, rule, "INCONCLUSIVE", f"F1 is open: {told}; F2 is open")
    return Verdict("C20", restated, rule, "PARTLY" if is_live else "REFUTED", f"F1 {_yes(is_live)}: {told}; F2 is open")


def _wall_of(made: Sequence[Made], model: str) -> tuple[str, str]:
    """The limit that bound a model and its kind; empty texts when none did."""
    found = [item for item in made if isinstance(item, Reached) and item.model == model and item.wall]
    return (found[0].wall, found[0].wall_kind) if found else ("", "")


def _limited(wall: tuple[str, str], told: str) -> tuple[str, str]:
    """Verdict and evidence of what did not get there: a setting refutes nothing."""
    name, kind = wall
    if kind == "architectural":
        return "REFUTED", f"{told}; bound by {name}, which no setting lifts"
    return "INCONCLUSIVE", f"{told}; LIMITED BY {name}"


def _meets(row: FlatRow | None, p99_ns: float) -> tuple[bool | None, str]:
    """Whether 10,000 are held and answer 1,000 echoes a second spread over them in time; None: not measured so."""
    if row is None:
        return None, NOT_MEASURED_HERE
    open_count, p99 = _open(row), number(row["probe_p99_ns"])
    failed = (number(row["echo_failed_count"]) or 0) + (number(row["probe_failed_count"]) or 0)
    rate = number(row["probe_rate_per_s"]) or 0.0
    told = (
        f"{open_count:,} held, {rate:,.0f} echoes a second, p99 {_text('x_ns', p99) or 'unknown'}, {failed:,.0f} failed"
    )
    if failed:
        return False, told
    asked_count = number(row["echo_asked_count"]) or 0
    if min(open_count, asked_count) < C10K or rate < SLO_RATE_PER_S or p99 is None:
        return None, told
    return p99 < p99_ns, told


def judge_c29(rows: Sequence[FlatRow], made: Sequence[Made]) -> Verdict:
    """C29: can a process for each connection not hold ten thousand?"""
    restated = "solving C10K with one process for each connection is very hard"
    rule = (
        "REFUTED when the fork server holds 10,000 live connections and answers 1,000 echoes a second spread over them "
        "with a 99th percentile <100 ms and no failure; CONFIRMED when it fails for memory or CPU; a setting that "
        "stops it leaves it INCONCLUSIVE, LIMITED BY that setting"
    )
    row, wall = _at_end(rows, "fork", USED), _wall_of(made, "fork")
    meets, told = _meets(row, C29_P99_NS)
    others = [f"{model}: {_meets(_at_end(rows, model, USED), C29_P99_NS)[1]}" for model in ("thread", "epoll")]
    evidence = "; ".join((f"fork: {told}", *others))
    if row is None or (meets is None and not wall[0]):
        return Verdict("C29", restated, rule, NOT_MEASURED, "needs --model fork,thread,epoll --to 10k --probe-rate 1k")
    if meets is None:
        verdict, evidence = _limited(wall, evidence)
        return Verdict("C29", restated, rule, "CONFIRMED" if verdict == "REFUTED" else verdict, evidence)
    return Verdict("C29", restated, rule, "REFUTED" if meets else "CONFIRMED", evidence)


def judge_c34(rows: Sequence[FlatRow], made: Sequence[Made]) -> Verdict:
    """C34: does an event loop solve C10K, and does nothing else?"""
    restated = "the servers that solve C10K have in common that they are event-driven and non-blocking"
    rule = (
        "F1 each installed one of nginx, Cherokee, Node.js and Tornado holds 10,000 live connections that each answer "
        "at the end, p99 <1 s at 1,000 requests a second, no failure, F2 no server that is not event-driven does; "
        "PARTLY when one holds and one fails"
    )
    measured = {model: _meets(_at_end(rows, model, USED), C34_P99_NS) for model in (*WORKER_MODELS, *EVENT_MODELS)}
    missing = {item.model: item.missing for item in made if isinstance(item, Reached) and item.missing}
    workers = [_held_or_broke(made, model, measured[model][0]) for model in WORKER_MODELS]
    needed = [model for model in THE_FOUR if model not in missing]
    firsts = [measured[model][0] for model in needed]
    first = None if not needed or None in firsts else all(firsts)
    second = False if True in workers else None if not any(found is False for found in workers) else True
    told = [f"{model}: {text}" for model, (_, text) in measured.items() if text != NOT_MEASURED_HERE]
    if not told or (first is None and second is None):
        need = "needs --server nginx,cherokee,node,tornado --model thread,fork --to 10k --probe-rate 1k"
        return Verdict("C34", restated, rule, NOT_MEASURED, need)
    meeting = [model for model, found in zip(WORKER_MODELS, workers, strict=True) if found]
    words = [f"F1 {_yes(first)}", f"F2 {_yes(second)}{f': {and_of(meeting)} meet it, too' if meeting else ''}"]
    absent = [f"{model}: {missing.get(model, NOT_MEASURED_HERE)}" for model in THE_FOUR if measured[model][0] is None]
    over = "" if first is None else "; over HTTP with keep-alive, settings raised for all"
    evidence = "; ".join((*words, *told, *absent)) + over
    return Verdict("C34", restated, rule, _of_parts(first, second), evidence)


def _held_or_broke(made: Sequence[Made], model: str, meets: bool | None) -> bool | None:
    """Whether a model meets the demand; one that ran into what no setting lifts does not."""
    return False if meets is None and _wall_of(made, model)[1] == "architectural" else meets


def and_of(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else "".join(names)


def judge_c39(rows: Sequence[FlatRow], made: Sequence[Made]) -> Verdict:
    """C39: is one loop as quick with very many connections as with few?"""
    restated = "event-driven servers scale to a very large number of connections"
    rule = (
        "one process with an event loop (this tool's; Node and Nginx are not part of this run) holds 100,000, or the "
        "most that limits allow, without a failure, and the 99th percentile at the same rate is ≤2 times that with "
        f"about {FEW}"
    )
    steps = _of(rows, "epoll", USED)
    row = _at_end(rows, "epoll", USED)
    own = [step for step in steps if row is not None and step["block"] == row["block"]]
    few = min(
        (step for step in own if NEAR_FEW[0] <= _open(step) <= NEAR_FEW[1] and number(step["probe_p99_ns"])),
        key=lambda step: abs(_open(step) - FEW),
        default=None,
    )
    last, wall = (number(row["probe_p99_ns"]) if row else None), _wall_of(made, "epoll")
    if row is None or few is None or last is None or (_open(row) < IBM and not wall[0]):
        need = "needs --model epoll --to 100k --steps 12 and a --probe-rate"
        return Verdict("C39", restated, rule, NOT_MEASURED, need)
    first = number(few["probe_p99_ns"]) or 1.0
    is_live = not row["echo_failed_count"] and not row["probe_failed_count"]
    evidence = (
        f"p99 {_text('x_ns', last)} with {_open(row):,}, {_text('x_ns', first)} with {_open(few):,} at "
        f"{_text('x_per_s', number(row['probe_rate_per_s']))}; {'no echo' if is_live else 'echoes'} failed"
        f"{f'; the most that {wall[0]} allows' if wall[0] else ''}"
    )
    holds = is_live and last <= ACTIVE_TIMES * first
    return Verdict("C39", restated, rule, "CONFIRMED" if holds else "REFUTED", evidence)


def judge_c24(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C24: does a blocked process take memory and no CPU?"""
    restated = "a blocked process uses no CPU, but still holds resources"
    rule = (
        "1,000 blocked readers use <0.1 % of a CPU over 10 s and switch not once, and their memory is above 0 (its low "
        "end); CONFIRMED when all hold for processes and threads that were measured, else REFUTED"
    )
    seen = {model: row for model in ("fork", "thread") if (row := _at_end(rows, model)) and row["rest_s"] is not None}
    fitting = {
        model: row
        for model, row in seen.items()
        if _open(row) >= BLOCKED_COUNT and (number(row["rest_s"]) or 0) >= 0.99 * BLOCKED_S
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
        watched = _text("x_s", number(row["rest_s"]))
        told.append(
            f"{_open(row):,} {model} readers used {_text('x_pct', busy)} of a CPU over {watched}, "
            f"{switched:,} switches, and hold {_text(MEMORY, memory.middle, memory.low, memory.high)} each"
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
        f"{item.model} {_text('x_count', item.value.middle)} ({item.note})" for item in mosts.values() if item.value
    ]
    if ratio is None or ratio.low is None or ratio.high is None:
        told.append("no interval of the ratio: needs --repeats 5")
        return Verdict("C55", restated, rule, "INCONCLUSIVE", "; ".join(told))
    evidence = "; ".join((f"{name} {_text('x_ratio', ratio.middle, ratio.low, ratio.high)}", *told))
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
            f"the budget was {_text('x_bytes', number(row['budget_bytes']))} (rule: 1 GiB)",
        ),
        (row["server_cpus_count"] != 1, f"the server had {row['server_cpus_count']} CPUs (rule: one)"),
        (
            row["latency_bound_ns"] != C29_P99_NS,
            f"the bound was {_text('x_ns', number(row['latency_bound_ns']))} (rule: 100 ms)",
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
