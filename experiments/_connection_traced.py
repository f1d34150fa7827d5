"""Traced ramps: what the server asks of the kernel for each connection that it takes.

Counted from before the first connect() of a step until every new connection has its first echo and the server sleeps
again; as slopes over the steps of the ramp, which leave out what a step takes however many connections it has. The
echoes on held connections come after that and are not in it. Memory is not told: a tracer takes kernel memory itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeVar

from c10k_probe import limits, stats
from c10k_probe.experiment import Bench, Cell
from c10k_probe.load import Echoes, Holder, Ramped
from c10k_probe.servers import CLIENT_END, MODELS, Server, ServerOptions
from c10k_probe.tracing.base import Options, Tracer
from c10k_probe.tracing.result import Trace, lost_count

from ._traced_launch import attached, call_count, calls_text, done_count, grade_counts, settle

SNAPSHOTS: Final = ("bcc", "proc")  # backends that tell exactly at any moment; the others do at their end
CALLS: Final = (
    *("accept4", "setsockopt", "fcntl", "close", "recvfrom", "sendto", "epoll_ctl", "epoll_wait", "poll", "futex"),
    *("clone", "clone3", "mmap", "mprotect", "munmap", "madvise", "wait4", "rt_sigprocmask", "set_robust_list", "rseq"),
)
RARE: Final = 0.0005
GUARD_MARGIN: Final = 1.25
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class TracedRamp:
    """What to ramp up (a traced cell), in which steps, and how its server is started."""

    cell: Cell
    targets: Sequence[int]
    options: ServerOptions
    echo_all_up_to_count: int

    @property
    def model(self) -> str:
        """The way to serve."""
        return str(self.cell.key["model"])

    def rows(self, bench: Bench) -> Iterator[dict[str, Any]]:
        """The columns of a row for each step, ending at the wall that was hit or at the last step."""
        with (
            MODELS[self.model].start(self.options) as server,
            Holder(server.port, self.targets[-1], remaining_s=bench.remaining_s) as holder,
        ):
            holder.ramp(1)  # what is set up once is no part of the slopes
            holder.drop()
            server.wait_until_idle()
            with _Counter(self.cell.traced_by, server) as counter:
                for index, target in enumerate(self.targets):
                    bench.progress(sum(self.targets[:index]), sum(self.targets), f"traced to {target:,}")
                    columns = self._step(target, holder, counter, bench)
                    yield columns
                    if columns["status"] != "ok":
                        break

    def _step(self, target: int, holder: Holder, counter: _Counter, bench: Bench) -> dict[str, Any]:
        key = {**self.cell.key, "target_count": target, "block": bench.block}
        each = MODELS[self.model].per_connection.plus(CLIENT_END).memory_bytes
        refusal = limits.memory_guard((target - counter.opened_count[-1]) * each * GUARD_MARGIN)
        if refusal is not None:
            void = {"grade": "void", "grade_reason": "not measured"}
            return {**key, **void, "status": "failed", "reason": f"memory guard: {refusal}"}
        ramped, trace = counter.counted(lambda: holder.ramp(target))
        counter.add(ramped.opened_count, trace)
        sample = 0 if ramped.open_count <= self.echo_all_up_to_count else self.echo_all_up_to_count
        echoes, _ = counter.counted(lambda: holder.echo(sample, bench.seed))
        return {**key, **_client_columns(ramped, echoes), **counter.columns(), **_state(ramped, echoes, counter)}


@dataclass
class _Counter:
    """The server under its tracer, part by part; a context manager that leaves nothing of the tracer."""

    backend: str
    server: Server
    opened_count: list[int] = field(default_factory=lambda: [0])  # since the start, at the end of each step
    traces: list[Trace] = field(default_factory=list)
    _stack: ExitStack = field(default_factory=ExitStack)
    _tracer: Tracer | None = None

    def __enter__(self) -> Self:
        if self.backend in SNAPSHOTS:
            self._tracer = self._open(self._stack)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _open(self, stack: ExitStack) -> Tracer:
        options = Options(calls=CALLS, interval_s=1.0)
        return stack.enter_context(attached(self.backend, [self.server.session], options))

    def counted(self, work: Callable[[], ResultT]) -> tuple[ResultT, Trace]:
        """Do it, and what the server did meanwhile until it slept again."""
        if self._tracer is not None:
            before = self._tracer.snapshot()
            result = work()
            settle(self.server.session)
            after = self._tracer.snapshot()
            assert before is not None
            assert after is not None
            return result, after.since(before)
        with ExitStack() as stack:
            tracer = self._open(stack)
            result = work()
            settle(self.server.session)
            return result, tracer.stop()

    def add(self, opened_count: int, trace: Trace) -> None:
        """One step more."""
        self.opened_count.append(self.opened_count[-1] + opened_count)
        self.traces.append(trace)

    def columns(self) -> dict[str, Any]:
        """What each connection takes, from the steps so far."""
        wait = self._slope(lambda trace: trace.runqueue_wait_s)
        return {
            "calls_per_connection": self._slope(lambda trace: trace.calls_count),
            "accepts_per_connection": self._slope(lambda trace: trace.accepts_count),
            "voluntary_switches_per_connection": self._slope(lambda trace: trace.voluntary_switches_count),
            "involuntary_switches_per_connection": self._slope(lambda trace: trace.involuntary_switches_count),
            "page_faults_per_connection": self._slope(lambda trace: trace.page_faults_count),
            "runqueue_wait_ns": None if wait is None else _scaled(wait, 1e9),
            "calls": self._text(call_count),
            "done_calls": self._text(done_count),
            "trace_dropped_count": self.dropped_count(),
        }

    def graded(self) -> dict[str, stats.Interval | None]:
        """The figures whose interval decides the grade."""
        return {
            "traced system calls": self._slope(lambda trace: trace.calls_count),
            "traced voluntary switches": self._slope(lambda trace: trace.voluntary_switches_count),
            "traced involuntary switches": self._slope(lambda trace: trace.involuntary_switches_count),
            "traced page faults": self._slope(lambda trace: trace.page_faults_count),
        }

    def dropped_count(self) -> int | None:
        """Tasks and events that could not be counted; None where the backend does not know."""
        return lost_count(self.traces)

    def _slope(self, value: Callable[[Trace], float | None]) -> stats.Interval | None:
        """Of what was counted until the end of each step, over the connections opened until then.

        The ends of the steps alone: the first connections find what those before them left, such as a thread's stack.
        Of a single step all there is.
        """
        sums = [0.0]
        for trace in self.traces:
            part = value(trace)
            if part is None:
                return None
            sums.append(sums[-1] + part)
        first = 1 if len(self.traces) > 1 else 0
        return stats.slope(self.opened_count[first:], sums[first:])

    def _text(self, value: Callable[[Trace, str], int | None]) -> str | None:
        names = sorted({name for trace in self.traces for name in trace.calls or {}})
        slopes = {name: self._slope(lambda trace, name=name: value(trace, name)) for name in names}  # type: ignore[misc]
        known = {name: slope.middle for name, slope in slopes.items() if slope is not None}
        return calls_text({name: round(middle, 4) for name, middle in known.items() if abs(middle) >= RARE})


def _scaled(interval: stats.Interval, factor: float) -> stats.Interval:
    low, high = (None if end is None else end * factor for end in (interval.low, interval.high))
    return stats.Interval(interval.middle * factor, low, high)


def _client_columns(ramped: Ramped, echoes: Echoes) -> dict[str, Any]:
    """What the client saw, slowed down by the tracer."""
    return {
        "open_count": ramped.open_count - echoes.failed_count,
        "ramp_s": ramped.ramp_s,
        "connect_rate_per_s": ramped.opened_count / ramped.ramp_s if ramped.ramp_s else None,
        "connect_p50_ns": stats.median(ramped.connect_ns),
        "connect_p99_ns": stats.quantile(ramped.connect_ns, 0.99),
        "echo_p50_ns": stats.median(echoes.echo_ns),
        "echo_p99_ns": stats.quantile(echoes.echo_ns, 0.99),
        "echo_max_ns": max(echoes.echo_ns, default=None),
        "echo_asked_count": echoes.asked_count,
        "echo_failed_count": echoes.failed_count,
    }


def _state(ramped: Ramped, echoes: Echoes, counter: _Counter) -> Mapping[str, str]:
    """Status and grade: of what was counted, as traced times are no results."""
    state = {"status": "ok", "reason": ""}
    if ramped.failure is not None:
        failure = ramped.failure
        reason = f"while traced: {failure.call}: {failure.message} at {failure.at_count:,} connections"
        state = {"status": "failed", "reason": counter.server.death() or reason}
    elif echoes.failed_count:
        lost = f"{echoes.failed_count:,} of {echoes.asked_count:,} held connections gave no echo while traced"
        state = {"status": "failed", "reason": counter.server.death() or lost}
    grade = stats.Grade()
    missed_count = counter.dropped_count()
    if missed_count:
        grade = grade.worse("void", f"{missed_count:,} tasks or events could not be counted")
    notes = [note for trace in counter.traces[-1:] for note in trace.notes if trace.backend == "bcc"]
    for note in notes:
        grade = grade.worse("shaky", note)
    if len(counter.traces) < stats.MINIMUM_LAUNCHES:
        grade = grade.worse("shaky", "traced: too few steps for an interval")
    else:
        part = grade_counts(counter.graded())
        grade = grade if part.level == "ok" else grade.worse(part.level, part.reason)
    return {**state, "grade": grade.level, "grade_reason": grade.reason}
