"""The judges of counts and latencies: how many are held, and whether they answer in time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from c10k_probe.experiment import NOT_MEASURED, FlatRow, Made, Verdict

from ._connection_design import USED
from ._connection_findings import EVENT_MODELS, THE_FOUR, WORKER_MODELS, Reached, number, ramp_time
from ._connection_verdicts import at_end, figure, held_count, of_parts, steps_of, yes

C10K: Final = 10_000
IBM: Final = 100_000
IBM_S: Final = 60.0
SLO_RATE_PER_S: Final = 1_000
C29_P99_NS: Final = 100e6
C34_P99_NS: Final = 1e9
ACTIVE_TIMES: Final = 2.0
FEW: Final = 100
NEAR_FEW: Final = (50, 200)
NOT_MEASURED_HERE: Final = "not measured"


def judge_c20(rows: Sequence[FlatRow], made: Sequence[Made]) -> Verdict:
    """C20: does one process hold 100,000 connections? Whose work that is due to is history."""
    restated = "after IBM's optimisation one process can handle 100,000 connections"
    rule = (
        "F1 one process holds 100,000 connections and answers an echo on each within 60 s without a failure, F2 that "
        "is due to IBM, which no measurement tells; PARTLY when F1 holds, REFUTED when it fails for no setting's sake"
    )
    row = at_end(rows, "epoll", USED)
    wall = _wall_of(made, "epoll")
    if row is None or (held_count(row) < IBM and not wall[0]):
        return Verdict("C20", restated, rule, NOT_MEASURED, "needs --model epoll --to 100k")
    took_s, untimed_count = ramp_time(
        row, [step for step in steps_of(rows, "epoll", USED) if step["block"] == row["block"]]
    )
    told = f"{row['processes_count']} process held {held_count(row):,}, each with an echo, in {figure('x_s', took_s)}"
    if held_count(row) < IBM:
        return Verdict("C20", restated, rule, *_limited(wall, f"F1 fails: {told}"))
    is_live = row["echo_failed_count"] == 0 and row["processes_count"] == 1 and took_s <= IBM_S
    told += f"; {row['echo_asked_count']:,} asked again at the end, {row['echo_failed_count']} failed"
    if is_live and untimed_count:
        told += f"; the steps that opened {untimed_count:,} of them are void, and so their time is not in it"
        return Verdict("C20", restated, rule, "INCONCLUSIVE", f"F1 is open: {told}; F2 is open")
    return Verdict("C20", restated, rule, "PARTLY" if is_live else "REFUTED", f"F1 {yes(is_live)}: {told}; F2 is open")


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
    open_count, p99 = held_count(row), number(row["probe_p99_ns"])
    failed = (number(row["echo_failed_count"]) or 0) + (number(row["probe_failed_count"]) or 0)
    rate = number(row["probe_rate_per_s"]) or 0.0
    latency = figure("x_ns", p99) or "unknown"
    told = f"{open_count:,} held, {rate:,.0f} echoes a second, p99 {latency}, {failed:,.0f} failed"
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
    row, wall = at_end(rows, "fork", USED), _wall_of(made, "fork")
    meets, told = _meets(row, C29_P99_NS)
    others = [f"{model}: {_meets(at_end(rows, model, USED), C29_P99_NS)[1]}" for model in ("thread", "epoll")]
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
    measured = {model: _meets(at_end(rows, model, USED), C34_P99_NS) for model in (*WORKER_MODELS, *EVENT_MODELS)}
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
    words = [f"F1 {yes(first)}", f"F2 {yes(second)}{f': {and_of(meeting)} meet it, too' if meeting else ''}"]
    absent = [f"{model}: {missing.get(model, NOT_MEASURED_HERE)}" for model in THE_FOUR if measured[model][0] is None]
    over = "" if first is None else "; over HTTP with keep-alive, settings raised for all"
    evidence = "; ".join((*words, *told, *absent)) + over
    return Verdict("C34", restated, rule, of_parts(first, second), evidence)


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
    steps = steps_of(rows, "epoll", USED)
    row = at_end(rows, "epoll", USED)
    own = [step for step in steps if row is not None and step["block"] == row["block"]]
    few = min(
        (step for step in own if NEAR_FEW[0] <= held_count(step) <= NEAR_FEW[1] and number(step["probe_p99_ns"])),
        key=lambda step: abs(held_count(step) - FEW),
        default=None,
    )
    last, wall = (number(row["probe_p99_ns"]) if row else None), _wall_of(made, "epoll")
    if row is None or few is None or last is None or (held_count(row) < IBM and not wall[0]):
        need = "needs --model epoll --to 100k --steps 12 and a --probe-rate"
        return Verdict("C39", restated, rule, NOT_MEASURED, need)
    first = number(few["probe_p99_ns"]) or 1.0
    is_live = not row["echo_failed_count"] and not row["probe_failed_count"]
    evidence = (
        f"p99 {figure('x_ns', last)} with {held_count(row):,}, {figure('x_ns', first)} with {held_count(few):,} at "
        f"{figure('x_per_s', number(row['probe_rate_per_s']))}; {'no echo' if is_live else 'echoes'} failed"
        f"{f'; the most that {wall[0]} allows' if wall[0] else ''}"
    )
    holds = is_live and last <= ACTIVE_TIMES * first
    return Verdict("C39", restated, rule, "CONFIRMED" if holds else "REFUTED", evidence)
