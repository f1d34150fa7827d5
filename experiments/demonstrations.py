"""Can an event loop deadlock, be blocked, lose an update or starve, as threads can?

Question: is there a program of a few lines that does it? Each of these is one, run as a child under a time limit. One
demonstration refutes "never" and says nothing on how often it happens: no number here is a frequency.

deadlock: two tasks take two locks in opposite order. Watched for ``--patience``; CPU time of the process meanwhile;
who waits for what, which whom has, by the program's own account.
lost-update: two tasks add to one counter, reading and writing it in two steps. blocked-loop: how late a timer of the
loop is while one function runs; Node.js: the longest of ``perf_hooks.monitorEventLoopDelay``, which includes its
interval of 1 ms. starved-pool: four opens of a FIFO hold a pool of four threads for ``--hold``; how long a look-up of
``localhost`` takes beside them. Every deadlock and lost update is made once with care too (one order, a lock): it has
to get through, or the demonstration shows nothing.

Timed: ``--patience`` after a program has settled; a timer from its due moment, a look-up from its call to its answer.
Not timed: starting the program, and its CPU time before it has settled. Clock: the program's own monotonic one; CPU
time from the scheduler's account (schedstat). Known bias: a delay is at least its cause, and longer on a busy machine.
So what others took, at most, is read beside it (threads of the program that were ready without a CPU; for a delay also
steal, of all CPUs): seen is only what is there without it, and such a "seen" no noise can bring about.
``--source`` prints each program.

Sources: asyncio's documentation; Node.js documentation of perf_hooks, fs, dns; pthread_mutex_lock(3p), fifo(7).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from c10k_probe import native, units
from c10k_probe.experiment import (
    NOT_MEASURED,
    Bench,
    Cell,
    Experiment,
    Finding,
    FlatRow,
    Made,
    Row,
    Samples,
    Verdict,
    View,
    column,
)
from c10k_probe.limits import Needs
from c10k_probe.parameters import Parameters, parameter
from c10k_probe.servers.real import find_parts

from . import _demonstration_programs as programs
from ._demonstration_child import Child

MS: Final = 1_000_000
S: Final = 1000 * MS
DEADLOCK, LOST, BLOCKED, STARVED = "deadlock", "lost-update", "blocked-loop", "starved-pool"
ASYNCIO, NODE, THREADS = "asyncio", "node", "threads"
HANGS_NS: Final = 5 * S  # of C40's rule
BLOCKS_NS: Final = 50 * MS  # of C40's rule
IDLE_RATIO: Final = 0.01  # of one CPU: what counts as none
_LONG_S: Final = 60.0  # for a program that computes, on a busy machine


@dataclass(frozen=True)
class Demonstration:
    """One program: what it shows, in what, by which function; text: empty for the C helper."""

    shows: str
    runtime: str
    by: str
    text: str = ""


DEMONSTRATIONS: Final[Mapping[str, Demonstration]] = {
    "asyncio-deadlock": Demonstration(DEADLOCK, ASYNCIO, "two locks in opposite order", programs.PYTHON_DEADLOCK),
    "node-deadlock": Demonstration(DEADLOCK, NODE, "two promise mutexes in opposite order", programs.NODE_DEADLOCK),
    "threads-deadlock": Demonstration(DEADLOCK, THREADS, "two mutexes in opposite order"),
    "asyncio-lost-update": Demonstration(LOST, ASYNCIO, "an await within an addition", programs.PYTHON_LOST_UPDATE),
    "threads-lost-update": Demonstration(LOST, THREADS, "an addition without a mutex"),
    "asyncio-blocked": Demonstration(BLOCKED, ASYNCIO, "time.sleep", programs.PYTHON_BLOCKED_LOOP),
    **{
        f"node-blocked-{name}": Demonstration(BLOCKED, NODE, by, programs.NODE_BLOCKED[by])
        for name, by in zip(("read", "pbkdf2", "json", "regex", "while"), programs.NODE_BLOCKED, strict=True)
    },
    "asyncio-starved": Demonstration(STARVED, ASYNCIO, "four open of a FIFO", programs.PYTHON_STARVED_POOL),
    "node-starved": Demonstration(STARVED, NODE, "four fs.open of a FIFO", programs.NODE_STARVED_POOL),
}


@dataclass(frozen=True)
class DemonstrationsParameters(Parameters):
    """What may be chosen on the command line."""

    demonstration: tuple[str, ...] = parameter(
        tuple(DEMONSTRATIONS), "Which, comma-separated, or all.", choices=tuple(DEMONSTRATIONS), many=True
    )
    patience: int = parameter(
        HANGS_NS,
        "How long a deadlock is watched; a verdict needs 5s.",
        dimension="duration",
        minimum=100 * MS,
        maximum=600 * S,
        quick=S,
    )
    hold: int = parameter(
        200 * MS,
        "How long a loop or a pool is held, where that can be chosen.",
        dimension="duration",
        minimum=2 * BLOCKS_NS,  # with less, that nothing was blocked for longer would be this option's doing
        maximum=60 * S,
    )
    source: bool = parameter(False, "Print each program, too, as it is run but for its folder.", dimension="flag")


@dataclass(frozen=True, kw_only=True)
class DemonstrationsRow(Row):
    """One demonstration, once."""

    demonstration: str = column("which program", key=True)
    shows: str | None = column("deadlock, lost-update, blocked-loop or starved-pool")
    runtime: str | None = column("asyncio, node or threads (C)")
    by: str | None = column("what does it")
    is_seen: str | None = column("whether it happened: yes or no; empty where others' load may have done it")
    careful: str | None = column("the same with care: got through; empty where there is no such program")
    waits: str | None = column("a deadlock: who waits for what, and who has that")
    watched_ns: int | None = column("a deadlock: how long nothing came of it")
    cpu_ns: int | None = column("a deadlock: CPU time of the process meanwhile")
    disturbed_ns: int | None = column("what others took of that time, at most; a lost update needs none")
    before_ns: int | None = column("delay of the loop, or time of a look-up, before")
    delay_ns: int | None = column("delay of the loop, or time of a look-up, with it; the longest")
    timer_late_ns: int | None = column("Node.js: how late a timer of 1 ms was, beside its own histogram")
    updates_count: int | None = column("additions that were made")
    lost_count: int | None = column("of these: not in the counter")


def _child(item: Demonstration, hold_ns: int, care: str) -> Child:
    name = f"demonstration-{item.runtime}"
    if item.runtime == THREADS:
        fault = "lock-order" if item.shows == DEADLOCK else LOST
        command: tuple[str, ...] = (str(native.find("thread_faults")), "--fault", fault, "--care", care)
        return Child(name, command, "", is_own_user=True)
    if item.runtime == NODE:
        command = (find_parts("node")()["node"], "{folder}/program", str(hold_ns), care)
        return Child(name, command, item.text, is_own_user=False)
    return Child(name, (sys.executable, "-I", "{folder}/program", str(hold_ns), care), item.text, is_own_user=True)


def _deadlock(item: Demonstration, parameters: DemonstrationsParameters, bench: Bench) -> dict[str, Any]:
    with _child(item, parameters.hold, "on") as careful:
        careful.expect("done", _LONG_S, bench.remaining_s)
    with _child(item, parameters.hold, "off") as child:
        child.expect("waits" if item.runtime == THREADS else "began", _LONG_S, bench.remaining_s)
        before_ns, waited_ns = child.settle(), child.waited_ns()
        if child.watch(parameters.patience / S, bench.remaining_s):
            return {"careful": "got through", "is_seen": "no"}
        cpu_ns, disturbed_ns = child.cpu_ns() - before_ns, child.waited_ns() - waited_ns
        waits: list[list[str]] = next((message["waits"] for message in child.heard() if message["type"] == "waits"), [])
    none_ns = IDLE_RATIO * parameters.patience
    return {
        "careful": "got through",
        "watched_ns": parameters.patience,
        "cpu_ns": cpu_ns,
        "waits": "; ".join(f"{who} waits for {what}, which {holder} has" for who, what, holder in waits),
        **_seen(is_it=cpu_ns <= none_ns, is_sure=disturbed_ns <= none_ns, disturbed_ns=disturbed_ns),
    }


def _lost_update(item: Demonstration, parameters: DemonstrationsParameters, bench: Bench) -> dict[str, Any]:
    with _child(item, parameters.hold, "on") as careful:
        kept = careful.expect("updates", _LONG_S, bench.remaining_s)
    if kept["lost_count"]:
        raise native.HelperError(f"{kept['lost_count']} updates were lost with care: the program is wrong")
    with _child(item, parameters.hold, "off") as child:
        found = child.expect("updates", _LONG_S, bench.remaining_s)
    counts = {name: int(found[name]) for name in ("updates_count", "lost_count")}
    return {"careful": "got through", **counts, "is_seen": _yes(counts["lost_count"] > 0)}


def _delay(item: Demonstration, parameters: DemonstrationsParameters, bench: Bench) -> dict[str, Any]:
    with _child(item, parameters.hold, "off") as child:
        found = child.expect("delay", _LONG_S, bench.remaining_s)
    delay_ns, late_ns = round(found["delay_ns"]), found.get("late_ns")
    disturbed_ns = found["disturbed_ns"]
    least_ns = delay_ns if late_ns is None else min(delay_ns, late_ns)
    is_sure = least_ns - disturbed_ns > BLOCKS_NS
    return {
        "before_ns": round(found["before_ns"]),
        "delay_ns": delay_ns,
        "timer_late_ns": late_ns,
        **_seen(is_it=least_ns > BLOCKS_NS, is_sure=is_sure, disturbed_ns=disturbed_ns),
    }


def _yes(is_it: bool) -> str:
    return "yes" if is_it else "no"


def _seen(*, is_it: bool, is_sure: bool, disturbed_ns: int | None) -> dict[str, Any]:
    """Whether it happened; where the load of others may have done it, neither yes nor no."""
    if is_it and not is_sure:
        took = units.format_quantity(float(disturbed_ns or 0), "duration")
        why = f"others took {took} meanwhile, which may have done it"
        return {"disturbed_ns": disturbed_ns, "grade": "shaky", "grade_reason": why}
    return {"disturbed_ns": disturbed_ns, "is_seen": _yes(is_it)}


_HOW: Final = {DEADLOCK: _deadlock, LOST: _lost_update, BLOCKED: _delay, STARVED: _delay}


# --- verdicts ---------------------------------------------------------------------------------------------------------


def _told(row: FlatRow) -> str:
    """One row in words."""

    def duration(name: str) -> str:
        return units.format_quantity(float(row[name] or 0), "duration")

    if row["shows"] == DEADLOCK:
        seen = f"hung {duration('watched_ns')} with {duration('cpu_ns')} of CPU" if row["watched_ns"] else "got through"
        return f"{row['runtime']} with {row['by']} {seen}"
    if row["shows"] == LOST:
        return f"{row['runtime']} with {row['by']} lost {row['lost_count']} of {row['updates_count']} updates"
    return f"{row['by']} ({row['runtime']}) {duration('delay_ns')}, before {duration('before_ns')}"


def _of(rows: Sequence[FlatRow], shows: str, runtimes: Sequence[str]) -> list[FlatRow]:
    return [row for row in rows if row["shows"] == shows and row["runtime"] in runtimes and row["is_seen"]]


def judge_c40(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C40: does an event loop never deadlock, and Node.js never block?"""
    restated = "no deadlock, and no function of Node.js blocks"
    rule = (
        "no deadlock REFUTED when two coroutines, and two in Node.js, each hang ≥5 s with no CPU (≤1 % of one), and "
        "without waiting for one; no blocking REFUTED when a public function of Node.js delays the loop >50 ms, less "
        "what others took; CONFIRMED when neither could be made, PARTLY when they differ"
    )
    deadlocks = _of(rows, DEADLOCK, (ASYNCIO, NODE))
    blocked = _of(rows, BLOCKED, (NODE,))
    long_enough = [row for row in deadlocks if int(row["watched_ns"] or HANGS_NS) >= HANGS_NS]
    if {row["runtime"] for row in long_enough} != {ASYNCIO, NODE} or not blocked:
        why = "needs asyncio and node, their deadlocks watched for 5 s, and a blocked loop of Node.js"
        return Verdict("C40", restated, rule, NOT_MEASURED, why)
    refuted = [
        all(row["is_seen"] == "yes" for row in long_enough),
        any(row["is_seen"] == "yes" for row in blocked),
    ]
    verdict = "REFUTED" if all(refuted) else "PARTLY" if any(refuted) else "CONFIRMED"
    told = "; ".join(_told(row) for row in (*long_enough, *blocked, *_of(rows, STARVED, (NODE,))))
    evidence = f"{told}; one demonstration each, no frequency; memory: see C18, C44"
    # what was seen is not of noise's making; what was not seen may have been hidden by it
    return Verdict("C40", restated, rule, verdict, evidence, is_measured=verdict != "REFUTED")


def judge_c22(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C22: do threads bring worries of their own?"""
    restated = "threads bring worries about thread safety, deadlocks and leaks"
    rule = "none: how much one worries is no measure; demonstrations only, of threads and of event loops"
    seen = [*_of(rows, LOST, (THREADS, ASYNCIO)), *_of(rows, DEADLOCK, (THREADS, ASYNCIO, NODE))]
    told = "; ".join(_told(row) for row in seen if row["is_seen"] == "yes")
    evidence = f"{told}; one demonstration each, no frequency" if told else "nothing was demonstrated"
    return Verdict("C22", restated, rule, "NOT-FALSIFIABLE", evidence, is_measured=False)


_VIEWS = (
    View("by", "by", priority=2),
    View("seen", "is_seen"),
    View("hung", "watched_ns"),
    View("CPU", "cpu_ns"),
    View("before", "before_ns", priority=3),
    View("delay", "delay_ns"),
    View("lost", "lost_count"),
    View("of", "updates_count", priority=3),
    View("by others", "disturbed_ns", priority=3),
    View("waits", "waits", group="who waits for whom"),
)


class Demonstrations(Experiment[DemonstrationsParameters]):
    """See the module."""

    version = 1
    parameters_type = DemonstrationsParameters
    row_type = DemonstrationsRow
    views = _VIEWS
    judges = (judge_c40, judge_c22)

    def cells(self, parameters: DemonstrationsParameters) -> list[Cell]:
        """One for each program."""
        return [
            Cell({"demonstration": name}, _NEEDS, 6.0 if DEMONSTRATIONS[name].shows == DEADLOCK else 1.0)
            for name in parameters.demonstration
        ]

    def measure(self, parameters: DemonstrationsParameters, cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        """One program, once, and its careful sister."""
        name = str(cell.key["demonstration"])
        item = DEMONSTRATIONS[name]
        found = _HOW[item.shows](item, parameters, bench)
        yield DemonstrationsRow(demonstration=name, shows=item.shows, runtime=item.runtime, by=item.by, **found)

    def find(self, parameters: DemonstrationsParameters, rows: Sequence[FlatRow], seed: int) -> Sequence[Finding]:
        """The programs, where they are asked for."""
        items = {str(row["demonstration"]): DEMONSTRATIONS[str(row["demonstration"])] for row in rows}
        if not parameters.source:
            return []
        heads = {item.runtime: programs.HEADS[item.runtime] for item in items.values() if item.text}
        texts = {f"what all of {runtime} begin with": text for runtime, text in heads.items()}
        for name, item in items.items():
            head = heads.get(item.runtime, "")
            texts[f"the program of {name}"] = item.text.removeprefix(head) or _OF_C
        return [Finding(name, "lines_count", None, f"\n{text.strip()}\n") for name, text in texts.items()]


_OF_C: Final = "the helper thread_faults, whose source is c10k_probe/_core/thread_faults.c"
_NEEDS = Needs(descriptors_count=32, system_descriptors_count=64, tasks_count=16, memory_bytes=400 << 20)

EXPERIMENT = Demonstrations()
