"""Launches of a helper that are counted from its first instruction to its end, and what one more creation adds.

Two launches differ in nothing but their number: what the larger counted more, divided by how much larger it is, is free
of starting, of setting up and of the tracer's own beginning. Counts that only depend on the number come out whole.
"""

from __future__ import annotations

import dataclasses
import os
import resource
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from c10k_probe import native, stats
from c10k_probe.exits import UserError
from c10k_probe.experiment import Samples, Scalar
from c10k_probe.observe import processes
from c10k_probe.tracing.base import Options, Target, Tracer
from c10k_probe.tracing.choose import open_tracer
from c10k_probe.tracing.result import Trace, lost_count

# Says that it is there, waits for a line, and becomes the helper: one process, in which nothing of it has happened yet.
# A pipe that is closed means that nobody wants it any more. What Python ignores, other programs do not.
_GATE: Final = """
import os, select, signal, sys
for number in (signal.SIGPIPE, signal.SIGXFSZ):
    signal.signal(number, signal.SIG_DFL)
print("held", flush=True)
select.select([0], [], [])
if os.read(0, 1):
    os.execv(sys.argv[1], sys.argv[1:])
"""
# The same where this interpreter may not be executed again, by this user: strace then finds it in a read(2).
_GATE_OF_SHELL: Final = 'echo held; read -r _ && exec "$@"'
# strace counts the call in which it finds a task, or not, as it comes; no helper makes these two otherwise
_GATE_CALLS: Final = ("select", "pselect6")
_PATIENCE_S: Final = 30.0
_END_PATIENCE_S: Final = 5.0
_POLL_S: Final = 0.005
_SETTLE_S: Final = 2.0
_SETTLE_POLL_S: Final = 0.002
TRACED_CALLS: Final = ("clone", "clone3", "fork", "vfork", "execve", "mmap", "mprotect", "munmap", "wait4", "futex")
SNAPSHOTS: Final = ("bcc",)  # backends that tell exactly at any moment, also of what has ended; the others at the end
_OPTIONS: Final = Options(calls=TRACED_CALLS, interval_s=1.0)
PLACES: Final = 6  # a slope that is whole but for the rounding of a division is whole
MeasuredT = TypeVar("MeasuredT")
SizeT = TypeVar("SizeT")


class HeldHelper(native.Helper):
    """A helper that does nothing until ``release``; a tracer that is attached before sees all of it."""

    @staticmethod
    def _program(name: str, linking: str) -> Sequence[str]:
        python = [sys.executable, "-IS", "-c", _GATE]
        gate = python if os.access(sys.executable, os.X_OK) else ["/bin/sh", "-c", _GATE_OF_SHELL, "sh"]
        return [*gate, *native.Helper._program(name, linking)]

    def _meet(self, patience_s: float) -> None:
        """Wait until it sleeps at its gate, so that what follows is the same in every launch."""
        self._read_line(patience_s, patience_s)
        deadline = time.monotonic() + patience_s
        while Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "S":
            if time.monotonic() > deadline:
                raise native.HelperError(f"{self.name} was not ready to begin within {patience_s:.0f} s")

    def release(self, patience_s: float = _PATIENCE_S) -> None:
        """Let it begin, and read its ``hello``. Raises ``HelperError``."""
        self.send("")
        self.hello = self._read_hello(patience_s)


@dataclass(frozen=True)
class Counted:
    """What was counted of one more creation (``each``), and what that rests on."""

    backend: str
    each: Mapping[str, float | None]
    calls: Mapping[str, float] | None
    dropped_count: int | None
    notes: Sequence[str]

    def facts(self) -> dict[str, Scalar]:
        """Flat, for the raw samples; a call's own count under ``call NAME``."""
        calls = {f"call {name}": count for name, count in (self.calls or {}).items()}
        return {**self.each, **calls, "trace_dropped_count": self.dropped_count, "notes": "; ".join(self.notes)}


def counted(
    choice: str,
    start: Callable[[SizeT], HeldHelper],
    run: Callable[[HeldHelper, SizeT], MeasuredT],
    sizes: Sequence[SizeT],
    options: Options = _OPTIONS,
) -> tuple[list[MeasuredT], list[Trace]]:
    """Launches of these sizes, each traced whole: what ``run`` gave of each, and what was counted of each.

    start: a helper that is to do so many; run: lets it begin, and returns when it has ended. Raises what these raise,
    and ``HelperUnsupported`` where the backend cannot work here.
    """
    if choice in SNAPSHOTS:
        return _in_one_session(choice, start, run, sizes, options)
    measured, traces = [], []
    for size in sizes:
        with ExitStack() as stack:
            helper = stack.enter_context(start(size))
            usage = resource.getrusage(resource.RUSAGE_CHILDREN)
            tracer = stack.enter_context(attached(choice, [helper.pid], options))
            measured.append(run(helper, size))
            traces.append(whole(tracer, usage))
    return measured, traces


def _in_one_session(
    choice: str,
    start: Callable[[SizeT], HeldHelper],
    run: Callable[[HeldHelper, SizeT], MeasuredT],
    sizes: Sequence[SizeT],
    options: Options,
) -> tuple[list[MeasuredT], list[Trace]]:
    """The same with all helpers held under one tracer, which is asked after each: attaching takes longest."""
    measured, traces = [], []
    with ExitStack() as stack:
        helpers = [stack.enter_context(start(size)) for size in sizes]
        tracer = stack.enter_context(attached(choice, [helper.pid for helper in helpers], options))
        before = tracer.snapshot()
        for helper, size in zip(helpers, sizes, strict=True):
            measured.append(run(helper, size))
            after = tracer.stop() if helper is helpers[-1] else tracer.snapshot()
            assert before is not None
            assert after is not None
            traces.append(after.since(before))
            before = after
    return measured, traces


def attached(choice: str, pids: Sequence[int], options: Options | None = None) -> Tracer:
    """A tracer of these trees that counts already. Raises ``HelperUnsupported``: the runner leaves the cell out."""
    try:
        return open_tracer(choice, Target(pids=pids), options)
    except UserError as error:
        raise native.HelperUnsupported(str(error)) from None


def whole(tracer: Tracer, usage: resource.struct_rusage) -> Trace:
    """Everything up to the end of the last task."""
    deadline = time.monotonic() + _END_PATIENCE_S
    while not tracer.is_over() and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    trace = tracer.stop()
    return _charged(trace, usage) if trace.backend == "proc" else trace


def _charged(trace: Trace, before: resource.struct_rusage) -> Trace:
    """/proc shows no task that ended between two looks; of a helper that has ended the kernel tells the sum of all.

    Its waits for a CPU are told by none. Source: getrusage(2), RUSAGE_CHILDREN.
    """
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    return dataclasses.replace(
        trace,
        voluntary_switches_count=now.ru_nvcsw - before.ru_nvcsw,
        involuntary_switches_count=now.ru_nivcsw - before.ru_nivcsw,
        page_faults_count=now.ru_minflt + now.ru_majflt - before.ru_minflt - before.ru_majflt,
        runqueue_wait_s=None,
    )


def settle(session: int) -> None:
    """Return when every task of the server sleeps, or the time is over: what it began is then counted whole."""
    deadline = time.monotonic() + _SETTLE_S
    while not _is_asleep(session) and time.monotonic() < deadline:
        time.sleep(_SETTLE_POLL_S)


def _is_asleep(session: int) -> bool:
    for tid in processes.walk_threads(processes.with_descendants([session])):
        try:
            if processes.stat_fields(tid)[0] in (b"R", b"D", b"t"):  # running, about to, or held by its tracer
                return False
        except (OSError, IndexError):
            continue
    return True


def per_one(small: Trace, large: Trace, more: int, gate_calls: Collection[str] = _GATE_CALLS) -> Counted:
    """What each of the ``more`` creations added; a figure that the backend does not know is None.

    gate_calls: those of the gate that are no subject of the launch, and left out.
    """
    wait_s = _slope(small.runqueue_wait_s, large.runqueue_wait_s, more)
    each = {
        "calls_count": _slope(_own_calls(small, gate_calls), _own_calls(large, gate_calls), more),
        "voluntary_switches_count": _slope(small.voluntary_switches_count, large.voluntary_switches_count, more),
        "involuntary_switches_count": _slope(small.involuntary_switches_count, large.involuntary_switches_count, more),
        "page_faults_count": _slope(small.page_faults_count, large.page_faults_count, more),
        "runqueue_wait_ns": None if wait_s is None else wait_s * 1e9,
    }
    notes = tuple(dict.fromkeys(note for trace in (small, large) for note in trace.notes))
    calls = _calls(small, large, more, gate_calls)
    return Counted(large.backend, each, calls, lost_count((small, large)), notes)


def _slope(small: float | None, large: float | None, more: int) -> float | None:
    return None if small is None or large is None or more < 1 else round((large - small) / more, PLACES)


def _calls(small: Trace, large: Trace, more: int, without: Collection[str]) -> dict[str, float] | None:
    """By name; None where the backend counts none. perf knows the names that it was told, the others every one."""
    if small.calls is None or large.calls is None or more < 1:
        return None
    names = {*small.calls, *large.calls, *(() if large.backend == "perf" else TRACED_CALLS)} - {*without}
    return {name: round((call_count(large, name) - call_count(small, name)) / more, PLACES) for name in sorted(names)}


def _own_calls(trace: Trace, without: Collection[str]) -> int | None:
    """All calls but these."""
    if trace.calls_count is None:
        return None
    return trace.calls_count - sum(call_count(trace, name) for name in without)


def call_count(trace: Trace, name: str) -> int:
    """How often a call was entered."""
    call = (trace.calls or {}).get(name)
    return 0 if call is None else call.count


def done_count(trace: Trace, name: str) -> int | None:
    """How often it did not fail; None where the backend does not know."""
    call = (trace.calls or {}).get(name)
    if call is None:
        return 0
    return None if call.errors_count is None else call.count - call.errors_count


def calls_text(calls: Mapping[str, float]) -> str | None:
    """``clone=1 wait4=1 write=0.02``: the most frequent first; those that are not made are left out."""
    ordered = sorted(((name, count) for name, count in calls.items() if count), key=lambda item: (-item[1], item[0]))
    return " ".join(f"{name}={count:.6g}" for name, count in ordered) or None


def grade_counts(counts: Mapping[str, stats.Interval | None]) -> stats.Grade:
    """``shaky`` where an interval is wide beside the figure, and beside one: nothing hangs on a twentieth of a call.

    What a backend does not count is not there to be graded.
    """
    grade = stats.Grade()
    for what, interval in counts.items():
        if interval is None or _is_narrow_beside_one(interval):
            continue
        part = stats.grade_interval(interval, what)
        grade = grade if part.level == "ok" else grade.worse(part.level, part.reason)
    return grade


def grade_traced(launches: Sequence[Samples], counts: Mapping[str, stats.Interval | None]) -> stats.Grade:
    """Of what was counted in some launches, by column: traced times are no results."""
    grade = stats.Grade()
    lost = sum(int(count) for item in launches if (count := item.facts["trace_dropped_count"]) is not None)
    if lost:
        grade = grade.worse("void", f"{lost:,} tasks or events could not be counted")
    missed = [str(item.facts["notes"]) for item in launches if item.traced_by == "bcc" and item.facts["notes"]]
    if missed:
        grade = grade.worse("shaky", missed[0])
    if len(launches) < stats.MINIMUM_LAUNCHES:
        return grade.worse("shaky", "traced: too few launches for an interval")
    part = grade_counts({_words(name): value for name, value in counts.items()})
    return grade if part.level == "ok" else grade.worse(part.level, part.reason)


def _words(column: str) -> str:
    """``page_faults_per_connection`` -> ``traced page faults``."""
    stem = column.rpartition("_per_")[0] or column.rpartition("_")[0]
    return "traced " + stem.removeprefix("traced_").replace("_", " ")


def _is_narrow_beside_one(interval: stats.Interval) -> bool:
    if interval.low is None or interval.high is None:
        return False
    return (interval.high - interval.low) / 2 <= stats.SHAKY_RELATIVE_HALF_WIDTH


def names_of_calls(facts: Iterable[Mapping[str, Scalar]]) -> list[str]:
    """The names of all calls in the facts of some launches."""
    found = {name.removeprefix("call ") for item in facts for name in item if name.startswith("call ")}
    return sorted(found)
