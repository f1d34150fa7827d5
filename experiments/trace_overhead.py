"""What does each way of tracing cost the server that is traced?

Question: a server at full load is traced by each backend in turn. How much throughput and latency does that cost, how
much more CPU does the server need for a request, and what does the tracer take itself?

Timed: one window of ``--duration`` from the load generator's start to its end, its connections set up in it; the
throughput is by the generator's clock. A traced launch counts from before the window until after it; the tracer is read
once a second, as ``trace`` does. Not timed: starting the server, its first answers on as many connections as will come,
so that pools have grown, and the tracer until it is ready (``ready_s``).
Clock: CLOCK_MONOTONIC of client and tool; CPU time from the scheduler's nanoseconds (schedstat), getrusage(2).

Each launch has a fresh server, and its tracer is opened and closed for it: nothing that a tracer leaves in tasks or
kernel can reach the next one, and a server that it breaks is one launch lost. That another layout of memory is fast or
slow then is in the intervals, not in the difference. Ratios are of launches in the same block, in shuffled order.

Known bias: a closed loop, so latency under load is connections over throughput. The price is that of a server which
does little but system calls: the less a server computes, the more it is. Tracepoints are the whole machine's: the load
generator, too, pays for the tracer's first look at every call, and is watched: a row is void when it used more than
80 % of its CPU, unless the server, which is kept to one CPU, had nothing left of that. It is shaky then, since a few
percent may be left between 95 % and all of a CPU; ``cpu_over_off_ratio`` does not depend on that. Where client and
model cost the same, the rows are void. Tracers run on whichever CPU is free.

Sources: bcc's reference_guide.md, perf-stat(1), strace(1), proc(5), nginx's and wrk's documentation; Tene, "How NOT to
measure latency" (closed loops).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from c10k_probe.exits import UsageError
from c10k_probe.experiment import Bench, Cell, Experiment, Made, Row, Samples
from c10k_probe.parameters import Parameters, parameter

from ._trace_load import ANSWERS, AUTO, COMMAND, SERVERS, Ask, model_of, needs, resolve
from ._trace_measure import BACKENDS, OFF, measure
from ._trace_rows import CHARTS, VIEWS, TraceOverheadRow, findings, rows

_NS_PER_S = 1_000_000_000


@dataclass(frozen=True)
class TraceOverheadParameters(Parameters):
    """What may be chosen on the command line."""

    server: tuple[str, ...] = parameter(
        (AUTO,),
        "Systems under test, comma-separated; wrk loads the real ones, the project's own client the models.",
        choices=(AUTO, *SERVERS, COMMAND),
        many=True,
    )
    server_command: str = parameter(
        "",
        "A server of your own, as server \"command\": 'CMD {port}', which stays in the foreground and speaks HTTP.",
        dimension="text",
    )
    backend: tuple[str, ...] = parameter(
        (OFF, *BACKENDS),
        "Who traces, comma-separated; off is measured in any case.",
        choices=(OFF, *BACKENDS),
        many=True,
    )
    connections: int = parameter(64, "Connections that the load generator keeps busy.", minimum=1, maximum=1000)
    duration: int = parameter(
        _NS_PER_S,
        "Length of one window, in whole seconds.",
        dimension="duration",
        minimum=_NS_PER_S,
        maximum=600 * _NS_PER_S,
    )
    answer: str = parameter(
        "file", "What nginx answers with: a file of 4 KiB, or the line of the others.", choices=tuple(ANSWERS)
    )


class TraceOverhead(Experiment[TraceOverheadParameters]):
    """See the module."""

    version = 1
    parameters_type = TraceOverheadParameters
    row_type = TraceOverheadRow
    views = VIEWS
    charts = CHARTS
    repeats = 10
    quick_repeats = 1

    def check(self, parameters: TraceOverheadParameters) -> None:
        """wrk counts whole seconds; a server of the user's own is one command. Raises ``UsageError``."""
        if parameters.duration % _NS_PER_S:
            raise UsageError("--duration: only whole seconds can be measured, such as 2s")
        command, is_chosen = parameters.server_command, COMMAND in resolve(parameters.server, parameters.server_command)
        if is_chosen and not command:
            raise UsageError("--server command: what is it? add --server-command 'CMD {port}'")
        if command and not is_chosen:
            raise UsageError("--server-command: that server is not among --server; add it there as command")
        if command:
            try:
                missing = model_of(COMMAND, command).missing
            except ValueError as error:
                raise UsageError(f"--server-command: {error}") from None
            if missing:
                raise UsageError(f"--server-command: {missing}")

    def cells(self, parameters: TraceOverheadParameters) -> list[Cell]:
        """Each server with each backend, and without."""
        command, names = parameters.server_command, dict.fromkeys((OFF, *parameters.backend))
        return [
            Cell({"server": server, "tracer": name}, needs(model_of(server, command), parameters.connections))
            for server in resolve(parameters.server, command)
            for name in names
        ]

    def measure(self, parameters: TraceOverheadParameters, cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        """A fresh server, a tracer, a window of load."""
        server, tracer = str(cell.key["server"]), str(cell.key["tracer"])
        ask = Ask(
            parameters.connections, parameters.duration // _NS_PER_S, parameters.answer, parameters.server_command
        )
        traced = measure(server, tracer, ask, bench.remaining_s)
        yield Samples(cell.key, bench.block, traced.values(), traced.facts())

    def summarise(self, parameters: TraceOverheadParameters, samples: Sequence[Samples], seed: int) -> list[Row]:
        """One row for each server and backend."""
        return list(rows(samples, seed))

    def fit(self, parameters: TraceOverheadParameters, samples: Sequence[Samples], seed: int) -> Sequence[Made]:
        """What each backend costs."""
        return list(findings(rows(samples, seed)))


EXPERIMENT = TraceOverhead()
