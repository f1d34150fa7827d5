"""What does a connection that comes, asks once and goes cost the server, in each model?

Question: a client connects, sends one message, gets its echo and leaves. How much CPU does the server spend on each
such connection when it serves it in an event loop, in a thread of its own or in a process of its own, and how many can
it serve in a second?

Timed: the server's CPU time (user and system of the whole tree, children that were waited for included) over a launch
of ``--n`` connections, divided by them; and the rate, ``--n`` over the time from the first socket() to the last first
echo of each window of connections, closing not included. Not timed: starting the server, a first window as warm-up.
Clock: CLOCK_MONOTONIC in the C client; CPU time in clock ticks of 10 ms where tasks end with their connections, else
the scheduler's account, read twice for a launch; ``--n`` must be large enough for many ticks: a launch of under 20 is
shaky.

Known bias: a closed loop in windows of 50 connections, so the rate is what client and server reach together on their
CPUs. The loopback's softirq work of the server runs inside the client's calls and is not in the server's CPU time.

With --trace each launch is made traced too, in the same blocks; its rows have the backend in ``traced_by``. Counted is
what the server did in the launch after its warm-up until it slept again, over the connections. ``done_calls`` leaves
out calls that failed.

Sources: epoll(7), pthread_create(3), fork(2), proc(5) (cutime, cstime), kernel/sched/cputime.c.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from c10k_probe import native, stats, units
from c10k_probe.experiment import (
    NOT_MEASURED,
    OFF,
    Bench,
    Cell,
    Chart,
    Experiment,
    FlatRow,
    Made,
    Row,
    Samples,
    Verdict,
    View,
    column,
    estimate,
)
from c10k_probe.limits import Needs
from c10k_probe.load import Holder
from c10k_probe.observe import tree
from c10k_probe.parameters import Parameters, parameter
from c10k_probe.servers import BASIC_MODELS, MODELS, Server, ServerOptions
from c10k_probe.traced import (
    calls_column,
    counted_column,
    done_calls_column,
    dropped_column,
    price_column,
    tracing_column,
    untraced,
    views,
    wait_column,
)

from . import _short_traced as traced

WINDOW = 50
TICK_NS = 10_000_000
FEWEST_TICKS = 20
BASE_MODEL = "epoll"
TOO_EXPENSIVE = 2.0
_EACH = "of the server for one connection from its coming to its going, traced"
SETTLED_SHARE = 0.1  # an overhead of a tenth of the handler's own work is one that nobody would mind


@dataclass(frozen=True)
class ShortConnectionsParameters(Parameters):
    """What may be chosen on the command line."""

    n: int = parameter(15_000, "Connections per launch.", minimum=1, maximum=1_000_000, quick=2000)
    model: tuple[str, ...] = parameter(
        BASIC_MODELS, "Ways to serve a connection, comma-separated, or all.", choices=tuple(MODELS), many=True
    )


@dataclass(frozen=True, kw_only=True)
class ShortConnectionsRow(Row):
    """One model."""

    model: str = column("how a connection is served", key=True)
    n_count: int | None = column("connections, over all launches")
    launches_count: int | None = column("fresh servers that they were made to")
    cpu_per_connection_ns: stats.Interval | None = estimate(
        "cpu_per_connection_ns", "the server's CPU time for one connection, median of launches"
    )
    cpu_ticks_count: int | None = column("clock ticks of CPU that the launch with the fewest used")
    connect_rate_per_s: stats.Interval | None = estimate("connect_rate_per_s", "connections served, median of launches")
    cpu_over_epoll_ratio: stats.Interval | None = estimate(
        "cpu_over_epoll_ratio", f"CPU time for one connection over that of {BASE_MODEL}"
    )
    traced_by: str = tracing_column()
    calls_per_connection: stats.Interval | None = counted_column("calls_per_connection", _EACH)
    calls: str | None = calls_column(_EACH)
    done_calls: str | None = done_calls_column(_EACH)
    voluntary_switches_per_connection: stats.Interval | None = counted_column(
        "voluntary_switches_per_connection", _EACH
    )
    involuntary_switches_per_connection: stats.Interval | None = counted_column(
        "involuntary_switches_per_connection", _EACH
    )
    page_faults_per_connection: stats.Interval | None = counted_column("page_faults_per_connection", _EACH)
    runqueue_wait_ns: stats.Interval | None = wait_column(_EACH)
    traced_over_off_ratio: stats.Interval | None = price_column("connections a second")
    trace_dropped_count: int | None = dropped_column()


def judge_c21(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C21: is a fork for every connection too expensive?"""
    restated = "one fork for every connection is too expensive"
    rule = (
        "CONFIRMED when CPU time per connection of fork over epoll is ≥2 (low end), REFUTED when <2 (high end), else "
        f"INCONCLUSIVE; also when a launch of either used under {FEWEST_TICKS} clock ticks of CPU"
    )
    by_model = {row["model"]: row for row in rows}
    fork, base = by_model.get("fork"), by_model.get(BASE_MODEL)
    names = ("cpu_over_epoll_ratio", "cpu_over_epoll_lo_ratio", "cpu_over_epoll_hi_ratio")
    ends = [fork[name] for name in names] if fork is not None and base is not None else [None]
    if None in ends or fork is None or base is None:
        return Verdict("C21", restated, rule, NOT_MEASURED, "needs fork and epoll in at least five launches")
    middle, low, high = (float(value or 0) for value in ends)
    verdict = "CONFIRMED" if low >= TOO_EXPENSIVE else "REFUTED" if high < TOO_EXPENSIVE else "INCONCLUSIVE"
    ticks = min(int(row["cpu_ticks_count"] or 0) for row in (fork, base))
    if ticks < FEWEST_TICKS:
        verdict = "INCONCLUSIVE"
    extra_ns = float(fork["cpu_per_connection_ns"] or 0) - float(base["cpu_per_connection_ns"] or 0)
    texts = [units.format_quantity(value, "ratio") for value in (middle, low, high)]
    coarse = f"; a launch used only {ticks} clock ticks, use a larger --n" if ticks < FEWEST_TICKS else ""
    evidence = (
        f"fork over epoll {texts[0]} [{texts[1]}, {texts[2]}], {units.format_quantity(extra_ns, 'duration')} more for "
        f"each; under 10 % of a request that takes {units.format_quantity(extra_ns / SETTLED_SHARE, 'duration')} of CPU"
        f"{coarse}"
    )
    return Verdict("C21", restated, rule, verdict, evidence)


_VIEWS = (
    View("server CPU per connection", "cpu_per_connection_ns", "cpu_per_connection_lo_ns", "cpu_per_connection_hi_ns"),
    View("over epoll", "cpu_over_epoll_ratio", "cpu_over_epoll_lo_ratio", "cpu_over_epoll_hi_ratio"),
    View("served/s", "connect_rate_per_s", "connect_rate_lo_per_s", "connect_rate_hi_per_s", priority=2),
    *views("connection", price="rate over untraced", calls="done_calls"),
)
_CHARTS = (
    Chart(
        "cpu",
        "The server's CPU time for one short connection",
        "model",
        "cpu_per_connection_ns",
        "cpu_per_connection_lo_ns",
        "cpu_per_connection_hi_ns",
    ),
)


class ShortConnections(Experiment[ShortConnectionsParameters]):
    """See the module."""

    version = 2
    parameters_type = ShortConnectionsParameters
    row_type = ShortConnectionsRow
    views = _VIEWS
    charts = _CHARTS
    judges = (judge_c21,)
    repeats = 10
    quick_repeats = 5
    traced_weight = 1.0
    traced_values = ("rate",)

    def untraceable(self, parameters: ShortConnectionsParameters) -> str:
        """Every launch can be traced."""
        return ""

    def cells(self, parameters: ShortConnectionsParameters) -> list[Cell]:
        """One cell per model; no more than a window is open at a time."""
        return [
            Cell(
                {"model": model},
                MODELS[model].fixed.plus(MODELS[model].per_connection.times(WINDOW)).plus(_CLIENT_NEEDS),
                _WEIGHTS.get(model, 1.0),
            )
            for model in parameters.model
        ]

    def measure(self, parameters: ShortConnectionsParameters, cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        """A fresh server, a window as warm-up, then n connections in windows."""
        model = str(cell.key["model"])
        with (
            MODELS[model].start(ServerOptions()) as server,
            Holder(server.port, WINDOW, WINDOW, bench.remaining_s) as holder,
        ):
            _window(holder, WINDOW)
            if cell.traced_by != OFF:
                with traced.counting(cell, server, parameters.n) as counted:
                    spans_s = [_window(holder, count) for count in _windows(parameters.n)]
                values = {"rate": [round(parameters.n / sum(spans_s))]}
                yield Samples(cell.key, bench.block, values, counted)
                return
            before = _cpu_ns(server, model)
            spans_s = [_window(holder, count) for count in _windows(parameters.n)]
            server.wait_until_idle()  # a process that still has to end has CPU time still to come
            cpu_ns = _cpu_ns(server, model) - before
        rate_per_s = parameters.n / sum(spans_s)
        values = {"cpu": [round(cpu_ns / parameters.n)], "rate": [round(rate_per_s)]}
        yield Samples(cell.key, bench.block, values, {"cpu_ticks_count": cpu_ns // TICK_NS})

    def summarise(self, parameters: ShortConnectionsParameters, samples: Sequence[Samples], seed: int) -> list[Row]:
        """One row per model that has launches."""
        plain = untraced(samples)
        found = {model: [item for item in plain if item.key["model"] == model] for model in parameters.model}
        base = found.get(BASE_MODEL, [])
        rows = [_row(model, launches, base, parameters.n, seed) for model, launches in found.items() if launches]
        columns = traced.columns_of_rows(samples, parameters.model, parameters.n, seed)
        return [*rows, *(ShortConnectionsRow(**row) for row in columns)]


def _row(model: str, launches: Sequence[Samples], base: Sequence[Samples], n: int, seed: int) -> ShortConnectionsRow:
    cpu = {item.block: item.values["cpu"] for item in launches}
    grade = _grade(launches, seed)
    if model != BASE_MODEL and base and (below := _grade(base, seed)).level != "ok":
        grade = grade.worse(below.level, f"{BASE_MODEL}, which it is compared with: {below.reason}")
    return ShortConnectionsRow(
        model=model,
        n_count=n * len(launches),
        launches_count=len(launches),
        cpu_per_connection_ns=_cpu(launches, seed),
        cpu_ticks_count=_fewest_ticks(launches),
        connect_rate_per_s=stats.median_interval([item.values["rate"][0] for item in launches], seed),
        cpu_over_epoll_ratio=stats.paired_ratio(cpu, {item.block: item.values["cpu"] for item in base}, seed),
        grade=grade.level,
        grade_reason=grade.reason,
    )


def _cpu(launches: Sequence[Samples], seed: int) -> stats.Interval:
    return stats.median_interval([item.values["cpu"][0] for item in launches], seed)


def _fewest_ticks(launches: Sequence[Samples]) -> int:
    return min(int(item.facts["cpu_ticks_count"] or 0) for item in launches)


def _grade(launches: Sequence[Samples], seed: int) -> stats.Grade:
    grade = stats.grade_interval(_cpu(launches, seed), "CPU per connection")
    ticks = _fewest_ticks(launches)
    if ticks < FEWEST_TICKS:
        grade = grade.worse("shaky", f"a launch used only {ticks} clock ticks of CPU; use a larger --n")
    return grade


def _window(holder: Holder, count: int) -> float:
    """Open ``count`` connections, each with its echo, and leave; seconds from the first socket() to the last echo."""
    ramped = holder.ramp(count)
    holder.drop()
    if ramped.failure is not None or ramped.ramp_s is None:
        why = ramped.failure.message if ramped.failure else "no time was measured"
        raise native.HelperError(f"a window of {count} connections broke off after {ramped.opened_count}: {why}")
    return ramped.ramp_s


def _windows(total: int) -> Iterator[int]:
    """``total`` in windows; the last takes the rest."""
    yield from [WINDOW] * (total // WINDOW)
    if total % WINDOW:
        yield total % WINDOW


def _cpu_ns(server: Server, model: str) -> int:
    """CPU time of the server's tree so far, children that were waited for included. Raises ``HelperError``.

    Where no task ends with its connection it is the scheduler's own account: each of a pool's workers would lose up to
    two ticks to rounding.
    """
    reading = tree.read_tree(server.session)
    ticks_s = None if reading.cpu_user_s is None else reading.cpu_user_s + (reading.cpu_system_s or 0.0)
    cpu_s = ticks_s if MODELS[model].per_connection.tasks_count else reading.cpu_run_s
    if cpu_s is None:
        raise native.HelperError("the server's CPU time cannot be read from /proc")
    return round(cpu_s * 1e9)


_CLIENT_NEEDS = Needs(descriptors_count=16, tasks_count=1)
_WEIGHTS = {"thread": 2.0, "fork": 4.0, "prefork": 2.0, "thread-pool": 1.5}

EXPERIMENT = ShortConnections()
