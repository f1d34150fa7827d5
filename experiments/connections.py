"""How many connections can this machine hold, in which model, and what does each cost?

Question: an event loop (epoll), a thread per connection and a process per connection hold the same TCP connections with
the same handler: what does one more connection cost in memory, time and CPU, and which limit breaks first?

Timed: ``connect`` is the connect() call of each new connection; ``ramp_s`` runs from the first socket() of a step to
the last first echo, so that accepting and creating the worker are in it; ``echo`` is send() to the last byte of the
answer, on one held connection after another in shuffled order, on every held one (above 10,000: on a random sample,
``echo_asked_count``). Not timed: reading /proc, which happens between steps, while nothing is sent. Clock:
CLOCK_MONOTONIC in the C client.

Memory, as slopes over the counts of the ramp: the server's user memory is the PSS of its process tree, its page tables
are VmPTE of each process, kernel stacks are what grew in /proc/meminfo, slab what grew in /proc/slabinfo (root; else
/proc/meminfo). Both ends of a loopback connection are on this machine: before the ramp the client holds both ends of
some connections itself, and half of that slope is the kernel's price of one end. The client's end is taken from the
slab; the rest is the server's.

Known bias: idle connections that were used once; buffers are lazy, and loaded connections cost more. The price of one
end is the mean of both, though only the client's end owns a port binding. One launch shows one layout of memory: the
interval makes room for what another would add, --repeats shows it. One echo at a time is latency without load.
cpu_user_s and cpu_system_s count whole clock ticks per process, ``cpu_run_s`` does not; both hold the echoes too, which
``ramp_s`` does not. Client and server are pinned to different CPUs when there are two. The loopback's softirq work of
the server runs inside the client's calls.

With --trace each ramp is made traced too, in the same blocks; its rows have the backend in ``traced_by`` and no memory,
since a tracer takes some itself. Counted is what the server does for one more connection and its first echo, until it
sleeps again: slopes over the steps. ``done_calls`` leaves out calls that failed; one that still waits for the next
message is counted by bcc as done, by strace not at all.

Sources: epoll(7), tcp(7), proc(5), kernel Documentation/filesystems/proc.rst (smaps_rollup), slabinfo(5); the C10K
problem (Kegel, 1999).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from c10k_probe import limits, stats
from c10k_probe.experiment import (
    OFF,
    Bench,
    Cell,
    Chart,
    Experiment,
    Row,
    Samples,
    View,
    column,
    estimate,
)
from c10k_probe.limits import Needs
from c10k_probe.load import Echoes, Failure, Holder, Ramped
from c10k_probe.observe import memory, sockets, tree
from c10k_probe.observe.ledger import (
    KERNEL_STACK_BYTES,
    SMALLEST_SLOPE_COUNT,
    Ledger,
    Reading,
    difference,
    total,
    whole,
)
from c10k_probe.parameters import Parameters, parameter
from c10k_probe.servers import BASIC_MODELS, CLIENT_END, MODELS, Server, ServerOptions
from c10k_probe.traced import tracing_column

from ._connection_price import price_of_one_end
from ._connection_traced import TracedRamp, traced_views

ECHO_ALL_UP_TO = 10_000
SETTLE_S = 10.0
BUSY_CLIENT_PCT = 80
SMALLEST_RATE_COUNT = 200
STRANGE_STACK_BYTES = 4 << 20
STRANGE_STACK_SHARE = 0.1
WORTHLESS_PRICE = 0.2
GUARD_MARGIN = 1.25
SMALLEST_END_SHARE = 0.5


@dataclass(frozen=True)
class ConnectionsParameters(Parameters):
    """What may be chosen on the command line."""

    to: int = parameter(10_000, "Connections to reach.", minimum=1, maximum=1_000_000, quick=500)
    model: tuple[str, ...] = parameter(
        BASIC_MODELS, "Ways to serve a connection, comma-separated, or all.", choices=tuple(MODELS), many=True
    )
    steps: int = parameter(10, "Steps of the ramp, geometric up to --to.", minimum=1, maximum=100, quick=5)


_EACH = "of the server for one more connection with its first echo, traced, slope over the ramp"


@dataclass(frozen=True, kw_only=True)
class ConnectionsRow(Row):
    """One step of the ramp of one model."""

    model: str = column("how a connection is served", key=True)
    target_count: int = column("connections this step was to reach", key=True, ramp=True)
    open_count: int | None = column("connections held, each after an echo of its own")
    ramp_s: float | None = column("first socket() to last first echo of this step")
    connect_rate_per_s: float | None = column("new connections over ramp_s")
    connect_p50_ns: float | None = column("connect(), median of this step's new connections")
    connect_p99_ns: float | None = column("connect(), 99th percentile")
    echo_p50_ns: float | None = column("send() to the whole answer, median")
    echo_p99_ns: float | None = column("send() to the whole answer, 99th percentile")
    echo_failed_count: int | None = column("held connections that gave no or a wrong echo")
    tasks_count: int | None = column("threads in all processes of the server")
    user_bytes: int | None = column("PSS of the server's processes")
    page_table_bytes: int | None = column("page tables of the server's processes: VmPTE and their top level")
    kernel_stack_bytes: int | None = column("growth of kernel stacks since no connection was held")
    slab_bytes: int | None = column("growth of slab since no connection was held, both ends")
    server_bytes_per_connection: stats.Interval | None = estimate(
        "server_bytes_per_connection", "user, page tables, stacks, slab and unnamed pages of the server's end, slope"
    )
    client_bytes_per_connection: stats.Interval | None = estimate(
        "client_bytes_per_connection", "user, page tables and slab of the client's end, slope over the ramp"
    )
    cpu_user_s: float | None = column("the server's user time in this step, whole clock ticks per process")
    cpu_system_s: float | None = column("the server's system time in this step, whole clock ticks per process")
    voluntary_switches_count: int | None = column("the server's voluntary context switches in this step")
    involuntary_switches_count: int | None = column("the server's involuntary context switches in this step")
    block: int = column("which repetition of the ramp, from 0", key=True)
    cpu_run_s: float | None = column("the server's CPU time in this step by the scheduler's own account")
    unnamed_bytes: int | None = column("growth of pages that no counter names, such as each sending task's page")
    client_cpu_pct: float | None = column("the client's CPU time over the ramp, of one CPU")
    echo_asked_count: int | None = column("held connections that were asked for an echo")
    echo_max_ns: float | None = column("send() to the whole answer, longest")
    established_count: int | None = column("the kernel's own count of established sockets of the server")
    server_cpus_count: int | None = column("CPUs the server was pinned to; the client has one apart when there are two")
    memory_read_count: int | None = column("processes whose memory is in user_bytes")
    client_user_bytes: int | None = column("PSS of the client's processes")
    socket_end_bytes: float | None = column("slab of one end of a connection, calibrated")
    traced_by: str = tracing_column()
    calls_per_connection: stats.Interval | None = estimate("calls_per_connection", f"system calls {_EACH}")
    accepts_per_connection: stats.Interval | None = estimate(
        "accepts_per_connection", f"connections that accept(2) gave {_EACH}"
    )
    calls: str | None = column(f"system calls by name, name=count {_EACH}, the most frequent first")
    done_calls: str | None = column(f"the same without calls that failed, such as by EAGAIN, {_EACH}")
    voluntary_switches_per_connection: stats.Interval | None = estimate(
        "voluntary_switches_per_connection", f"context switches to sleep {_EACH}"
    )
    involuntary_switches_per_connection: stats.Interval | None = estimate(
        "involuntary_switches_per_connection", f"context switches of tasks that could have gone on {_EACH}"
    )
    page_faults_per_connection: stats.Interval | None = estimate("page_faults_per_connection", f"page faults {_EACH}")
    runqueue_wait_ns: stats.Interval | None = estimate("runqueue_wait_ns", f"waits of runnable tasks {_EACH}")
    trace_dropped_count: int | None = column("events that the tracer could not count")


_MEMORY = "memory of the server"
_WORK = "work of the server"
_VIEWS = (
    View("open", "open_count"),
    View("new/s", "connect_rate_per_s"),
    View("connect p50", "connect_p50_ns", priority=3),
    View("echo p50", "echo_p50_ns"),
    View("echo p99", "echo_p99_ns", priority=2),
    View("tasks", "tasks_count", priority=2),
    View("server/conn", "server_bytes_per_connection"),
    View("client/conn", "client_bytes_per_connection", priority=2),
    View("user", "user_bytes", group=_MEMORY),
    View("page tables", "page_table_bytes", group=_MEMORY),
    View("stacks", "kernel_stack_bytes", group=_MEMORY),
    View("slab, both", "slab_bytes", group=_MEMORY),
    View("unnamed", "unnamed_bytes", group=_MEMORY, priority=2),
    View(
        "per connection",
        "server_bytes_per_connection",
        "server_lo_bytes_per_connection",
        "server_hi_bytes_per_connection",
        group=_MEMORY,
    ),
    View("ramp", "ramp_s", group=_WORK),
    View("CPU, ramp and echoes", "cpu_run_s", group=_WORK),
    View("voluntary", "voluntary_switches_count", group=_WORK),
    View("involuntary", "involuntary_switches_count", group=_WORK),
    View("echo max", "echo_max_ns", group=_WORK, priority=2),
    *traced_views(),
)


def _chart(name: str, title: str, y: str, interval: tuple[str, str] = ("", ""), *, log_y: bool = True) -> Chart:
    """A chart over the connections held, one line for each model."""
    return Chart(name, title, "open_count", y, *interval, series=("model",), log_x=True, log_y=log_y)


_CHARTS = (
    _chart(
        "memory",
        "What one connection takes at the server",
        "server_bytes_per_connection",
        ("server_lo_bytes_per_connection", "server_hi_bytes_per_connection"),
    ),
    _chart("echo-p50", "Echo on a held connection, median", "echo_p50_ns", log_y=False),
    _chart("echo-p99", "Echo on a held connection, 99th percentile", "echo_p99_ns"),
    _chart("rate", "New connections a second, each with its first echo", "connect_rate_per_s"),
    _chart("tasks", "Threads in the server's processes", "tasks_count"),
)


class Connections(Experiment[ConnectionsParameters]):
    """See the module."""

    version = 1
    parameters_type = ConnectionsParameters
    row_type = ConnectionsRow
    views = _VIEWS
    charts = _CHARTS
    traced_weight = 1.0
    traced_columns = ("ramp_s", "echo_p50_ns")

    def untraceable(self, parameters: ConnectionsParameters) -> str:
        """Every ramp can be traced."""
        return ""

    def cells(self, parameters: ConnectionsParameters) -> list[Cell]:
        """One cell per model. A wall in mid-ramp is a result, so only what the first connection takes is asked for."""
        return [
            Cell({"model": model}, MODELS[model].fixed.plus(_CLIENT_NEEDS), _WEIGHTS.get(model, 1.0))
            for model in parameters.model
        ]

    def measure(self, parameters: ConnectionsParameters, cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        """The ramp of one model, a row per step, ending at the wall that was hit or at the last step."""
        model = str(cell.key["model"])
        targets = geometric_steps(parameters.to, parameters.steps)
        if cell.traced_by != OFF:
            traced_ramp = TracedRamp(cell, targets, ServerOptions(), ECHO_ALL_UP_TO)
            yield from (ConnectionsRow(**columns) for columns in traced_ramp.rows(bench))
            return
        bench.progress(0, sum(targets), "calibrating")
        memory.settle(SETTLE_S)
        with (
            MODELS[model].start(ServerOptions()) as server,
            Holder(server.port, targets[-1], remaining_s=bench.remaining_s) as holder,
        ):
            ramp = _Ramp(model, server, holder, bench)
            for index, target in enumerate(targets):
                bench.progress(sum(targets[:index]), sum(targets), f"to {target:,}")
                row = ramp.step(target)
                yield row
                if row.status != "ok":
                    break
        bench.progress(1, 1, "closing")
        # what this model frees must not be subtracted from what the next one takes
        memory.settle(SETTLE_S, sessions=(server.session, *holder.sessions))


@dataclass(frozen=True)
class _Step:
    """What one step of a ramp gave: its answers, the client's share of a CPU, and the readings before and after."""

    target: int
    ramped: Ramped
    echoes: Echoes
    client_cpu_pct: float | None
    before: Reading
    now: Reading


class _Ramp:
    """One ramp of one model: what is measured at each step, and why it stops."""

    def __init__(self, model: str, server: Server, holder: Holder, bench: Bench) -> None:
        self._model, self._server, self._holder, self._bench = model, server, holder, bench
        holder.ramp(1)  # the first connection pays for what is set up once, and is no part of the ledger
        holder.drop()
        server.wait_until_idle()
        self._ledger = Ledger(price_of_one_end(holder))
        self._ledger.readings.append(self._read(0))

    def step(self, target: int) -> ConnectionsRow:
        """Go to ``target`` connections and measure there; the row says so when a wall came first."""
        before = self._ledger.readings[-1]
        refusal = limits.memory_guard((target - before.open_count) * self._bytes_per_connection())
        if refusal is not None:
            return self._refused(target, f"memory guard: {refusal}")
        busy_ns = self._holder.cpu_ns()
        ramped = self._holder.ramp(target)
        busy_ns = whole(difference(self._holder.cpu_ns(), busy_ns))
        sample = 0 if ramped.open_count <= ECHO_ALL_UP_TO else ECHO_ALL_UP_TO
        echoes = self._holder.echo(sample, self._bench.seed)
        reading = self._read(ramped.open_count - echoes.failed_count)
        self._ledger.readings.append(reading)
        client_cpu_pct = busy_ns / 1e7 / ramped.ramp_s if busy_ns is not None and ramped.ramp_s else None
        row = self._measured(_Step(target, ramped, echoes, client_cpu_pct, before, reading))
        if ramped.failure is not None:
            row = dataclasses.replace(row, status="failed", reason=self._wall(ramped.failure))
        elif echoes.failed_count:
            lost = f"{echoes.failed_count:,} of {echoes.asked_count:,} held connections gave no echo"
            reason = "; ".join(part for part in (self._server.death(), lost) if part)
            row = dataclasses.replace(row, status="failed", reason=reason)
        return row

    def _read(self, open_count: int) -> Reading:
        return Reading(
            open_count,
            tree.read_tree(self._server.session),
            tuple(tree.read_tree(session) for session in self._holder.sessions),
            memory.read_kernel_memory(),
        )

    def _bytes_per_connection(self) -> float:
        """Both ends, by the slope so far, else by what is known of the model; for the memory guard."""
        slopes = (self._ledger.server_slope(), self._ledger.client_slope())
        known = [slope.high or slope.middle for slope in slopes if slope is not None]
        return GUARD_MARGIN * (sum(known) or MODELS[self._model].per_connection.plus(CLIENT_END).memory_bytes)

    def _refused(self, target: int, reason: str) -> ConnectionsRow:
        """The row of a step that was not taken."""
        return ConnectionsRow(
            model=self._model,
            target_count=target,
            block=self._bench.block,
            status="failed",
            reason=reason,
            grade="void",
            grade_reason="not measured",
        )

    def _measured(self, step: _Step) -> ConnectionsRow:
        ramped, echoes, before, now = step.ramped, step.echoes, step.before, step.now
        server, client = self._ledger.server_slope(), self._ledger.client_slope()
        established = sockets.established_count(self._server.port, address="127.0.0.1")
        grade = _grade(server, self._ledger, established, now)
        if (step.client_cpu_pct or 0) > BUSY_CLIENT_PCT and ramped.opened_count > SMALLEST_RATE_COUNT:
            grade = grade.worse("shaky", f"the rate is the client's own: it used over {BUSY_CLIENT_PCT} % of its CPU")
        return ConnectionsRow(
            model=self._model,
            target_count=step.target,
            block=self._bench.block,
            open_count=now.open_count,
            ramp_s=ramped.ramp_s,
            connect_rate_per_s=ramped.opened_count / ramped.ramp_s if ramped.ramp_s else None,
            connect_p50_ns=stats.median(ramped.connect_ns),
            connect_p99_ns=stats.quantile(ramped.connect_ns, 0.99),
            echo_p50_ns=stats.median(echoes.echo_ns),
            echo_p99_ns=stats.quantile(echoes.echo_ns, 0.99),
            echo_max_ns=max(echoes.echo_ns, default=None),
            echo_asked_count=echoes.asked_count,
            echo_failed_count=echoes.failed_count,
            tasks_count=now.server.tasks_count,
            user_bytes=now.server.pss_bytes if now.server.is_complete else None,
            page_table_bytes=self._ledger.page_tables(now),
            unnamed_bytes=self._ledger.grown(now, "unnamed_bytes"),
            client_cpu_pct=step.client_cpu_pct,
            kernel_stack_bytes=self._ledger.grown(now, "kernel_stack_bytes"),
            slab_bytes=self._ledger.grown(now, "slab"),
            server_bytes_per_connection=server,
            client_bytes_per_connection=client,
            cpu_user_s=difference(now.server.cpu_user_s, before.server.cpu_user_s),
            cpu_system_s=difference(now.server.cpu_system_s, before.server.cpu_system_s),
            cpu_run_s=difference(now.server.cpu_run_s, before.server.cpu_run_s),
            voluntary_switches_count=whole(
                difference(now.server.voluntary_switches_count, before.server.voluntary_switches_count)
            ),
            involuntary_switches_count=whole(
                difference(now.server.involuntary_switches_count, before.server.involuntary_switches_count)
            ),
            established_count=established,
            server_cpus_count=len(self._server.cpus),
            memory_read_count=now.server.read_count,
            client_user_bytes=whole(total(*(part.pss_bytes for part in now.clients))),
            socket_end_bytes=self._ledger.end_bytes.middle if self._ledger.end_bytes else None,
            grade=grade.level,
            grade_reason=grade.reason,
        )

    def _wall(self, failure: Failure) -> str:
        """Which limit broke: what the server ran into, else what the client did."""
        hits = self._server.walls()
        death = self._server.death()
        if death:
            return f"{death} at {failure.at_count:,} connections"
        if hits:
            call, name, message, pid = hits[0]["call"], hits[0]["name"], hits[0]["message"], self._server.session
        else:
            call, name, message = failure.call, failure.errno_name, failure.message
            pid = self._holder.sessions[-1]
        wall = limits.diagnose(call, name, walls=limits.walls(pid=pid))
        side = "server" if hits else "client"
        seen = f"{side}: {call}: {message} at {failure.at_count:,} connections"
        return f"{limits.describe(wall)}; {seen}" if wall else seen


def geometric_steps(to: int, steps: int) -> list[int]:
    """About ``steps`` counts up to ``to``, each about twice the last; exact at the end, each once."""
    ratio = min(2.0, to ** (1 / max(1, steps - 1)))
    return sorted({max(1, round(to / ratio**back)) for back in range(steps)})


def _grade(server: stats.Interval | None, ledger: Ledger, established: int | None, now: Reading) -> stats.Grade:
    grade = stats.Grade()
    if established is not None and established != now.open_count:
        grade = grade.worse("void", f"the kernel counts {established:,} established, not {now.open_count:,}")
    surplus = ledger.stack_surplus(now)
    if abs(surplus) > max(STRANGE_STACK_BYTES, STRANGE_STACK_SHARE * now.server.tasks_count * KERNEL_STACK_BYTES):
        grade = grade.worse("void", "other tasks came or went meanwhile, with their kernel stacks and slab")
    if not now.server.is_complete:
        grade = grade.worse("shaky", "memory of some processes could not be read")
    if ledger.end_bytes is None:
        return grade.worse("shaky", "slab cannot be read: the ends cannot be told apart")
    price = stats.grade_interval(ledger.end_bytes, "price of one end")
    doubt = ledger.end_bytes.relative_half_width
    grade = grade.worse("void" if doubt is not None and doubt > WORTHLESS_PRICE else price.level, price.reason)
    if now.open_count < SMALLEST_SLOPE_COUNT:
        return grade.worse("shaky", f"under {SMALLEST_SLOPE_COUNT} connections rounding hides what one of them takes")
    if ledger.slab_of_server(now) < SMALLEST_END_SHARE:
        return grade.worse(
            "void", "slab fell while connections were added: something else on this machine freed memory"
        )
    interval = stats.grade_interval(server, "bytes per connection")
    return grade.worse(interval.level, interval.reason)


_CLIENT_NEEDS = Needs(descriptors_count=16, tasks_count=1)
_WEIGHTS = {"epoll": 1.0, "thread": 2.0, "fork": 6.0}

EXPERIMENT = Connections()
