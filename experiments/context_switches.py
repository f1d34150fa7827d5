"""How many context switches, system calls and microseconds of waiting does each server model spend on a request?

Question: connections that are all held ask again as soon as they have their answer, 1, 100 or 1,000 of them at a time.
How often does the server switch tasks for one request, voluntarily (it slept) and not (it could have gone on, and a
tick or a woken task had it stop), which system calls does it make, how long do its tasks wait for a CPU though they
could run; and what share of a CPU-bound job's work would be lost to as many switches?

Timed: windows of ``--window`` in which the client counts whole answers; in each launch one window is traced and one is
not, in turn, on the same connections. Per request: what the tracer counted of the server's process tree in its window,
over the requests of that window. ``requests_per_s`` is of untraced windows only, ``traced_over_off_ratio`` is what
tracing did to it. ``switches_per_s`` is switches per request times the untraced rate. ``lost_pct``: a ring of two tasks
on one CPU, that hand a token on at that rate, against the same work without switches (see ``scheduling``). Not timed:
starting the server, opening connections, a warm-up of each window. Clock: CLOCK_MONOTONIC in the C client.

A pool (``prefork``, ``thread-pool``) has a worker for each connection here, or more.

Known bias: a closed loop, so the rate is what client and server reach together; client and server are pinned apart
where there are two CPUs, and a client at its limit is graded. The tracer starts and stops some milliseconds outside of
the window that the client counts, while the server is idle. Traced figures are counts, which tracing does not
change much; how fast they come it does.

Sources: sched(7), proc(5), epoll(7), getrusage(2); kernel/sched/core.c (nvcsw, nivcsw).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from c10k_probe import native, stats
from c10k_probe.experiment import (
    NOT_MEASURED,
    Bench,
    Cell,
    Chart,
    Experiment,
    FlatRow,
    Judge,
    Made,
    Row,
    Samples,
    Scalar,
    Verdict,
    View,
    column,
    estimate,
)
from c10k_probe.limits import Needs
from c10k_probe.load import Holder, Pumped
from c10k_probe.parameters import Parameters, parameter
from c10k_probe.servers import BASIC_MODELS, MODELS, Server, to_hold
from c10k_probe.tracing.choose import OFF
from c10k_probe.tracing.result import Trace
from c10k_probe.units import format_column

from ._traced_launch import attached

BACKENDS = ("auto", "bcc", "perf", "proc")
BUSY_CLIENT_PCT = 80
SWITCH_NS = 2000  # roughly what one switch takes: only the work between two depends on it
LEAST_QUANTUM_NS = 200
ENOUGH_LOSS_PCT = 5.0
RARE_CALLS = 0.01
OWN_TASKS = {"thread": "threads", "fork": "processes"}


@dataclass(frozen=True)
class ContextSwitchesParameters(Parameters):
    """What may be chosen on the command line."""

    model: tuple[str, ...] = parameter(
        BASIC_MODELS, "Ways to serve a connection, comma-separated, or all.", choices=tuple(MODELS), many=True
    )
    concurrency: tuple[int, ...] = parameter(
        (1, 100, 1000), "Requests under way at a time.", minimum=1, maximum=10_000, many=True, quick=(1, 100)
    )
    window: int = parameter(
        300_000_000,
        "How long requests are counted, with and without tracing.",
        dimension="duration",
        minimum=10**7,
        maximum=600 * 10**9,
        quick=100_000_000,
    )
    trace: str = parameter("auto", "What counts: auto is the best that works here.", choices=BACKENDS)


@dataclass(frozen=True, kw_only=True)
class ContextSwitchesRow(Row):
    """One model at one concurrency."""

    model: str = column("how a connection is served", key=True)
    concurrency_count: int = column("requests under way at a time", key=True)
    requests_per_s: stats.Interval | None = estimate("requests_per_s", "answers a second, untraced, median of launches")
    voluntary_switches_per_request: stats.Interval | None = estimate(
        "voluntary_switches_per_request", "context switches of the server's tasks that went to sleep"
    )
    involuntary_switches_per_request: stats.Interval | None = estimate(
        "involuntary_switches_per_request", "context switches of the server's tasks that could have gone on"
    )
    involuntary_pct: stats.Interval | None = estimate("involuntary_pct", "of all switches of the server's tasks")
    calls_per_request: stats.Interval | None = estimate("calls_per_request", "system calls of the server")
    runqueue_wait_ns: stats.Interval | None = estimate(
        "runqueue_wait_ns", "for one request: how long the server's tasks could run and did not"
    )
    switches_per_s: stats.Interval | None = estimate("switches_per_s", "switches of both kinds at the untraced rate")
    lost_pct: stats.Interval | None = estimate("lost_pct", "of a CPU-bound job's work, by so many switches")
    traced_over_off_ratio: stats.Interval | None = estimate(
        "traced_over_off_ratio", "requests a second while traced over untraced, block by block"
    )
    traced_by: str | None = column("the tracing backend that counted")
    calls: str | None = column("system calls for one request, by name")
    latency_p50_ns: float | None = column("send() to the whole answer, untraced, median of launches' medians")
    client_cpu_pct: float | None = column("the client's CPU while it counted, of one CPU")
    dropped_count: int | None = column("tasks and events that the tracer could not count")
    failed_count: int | None = column("requests without a right answer")
    launches_count: int | None = column("fresh servers")


_VIEWS = (
    View(
        "voluntary",
        "voluntary_switches_per_request",
        "voluntary_switches_lo_per_request",
        "voluntary_switches_hi_per_request",
    ),
    View(
        "involuntary",
        "involuntary_switches_per_request",
        "involuntary_switches_lo_per_request",
        "involuntary_switches_hi_per_request",
    ),
    View("of them involuntary", "involuntary_pct", "involuntary_lo_pct", "involuntary_hi_pct", priority=3),
    View("calls", "calls_per_request", "calls_lo_per_request", "calls_hi_per_request", priority=2),
    View("waiting to run", "runqueue_wait_ns", "runqueue_wait_lo_ns", "runqueue_wait_hi_ns", priority=2),
    View("requests/s", "requests_per_s", "requests_lo_per_s", "requests_hi_per_s", priority=3),
    View("switches", "switches_per_s", "switches_lo_per_s", "switches_hi_per_s", group="what so many switches cost"),
    View("work lost", "lost_pct", "lost_lo_pct", "lost_hi_pct", group="what so many switches cost"),
    View(
        "traced over off",
        "traced_over_off_ratio",
        "traced_over_off_lo_ratio",
        "traced_over_off_hi_ratio",
        group="the price of counting",
    ),
    View("counted by", "traced_by", group="the price of counting"),
)


def _chart(name: str, title: str, stem: str, unit: str) -> Chart:
    y, low, high = f"{stem}{unit}", f"{stem}_lo{unit}", f"{stem}_hi{unit}"
    return Chart(name, title, "concurrency_count", y, low, high, ("model",), log_x=True)


_CHARTS = (
    _chart("switches", "Voluntary context switches for one request", "voluntary_switches", "_per_request"),
    _chart("involuntary", "Involuntary context switches for one request", "involuntary_switches", "_per_request"),
    _chart("calls", "System calls for one request", "calls", "_per_request"),
    _chart("waiting", "Time that the server's tasks wait for a CPU, for one request", "runqueue_wait", "_ns"),
)


def judge_c17(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C17: does a server with a task per connection switch so often that 5 % of the CPU's work is lost?"""
    restated = "too many switches burn CPU and cut throughput"
    rule = (
        "CONFIRMED when, at the rate of switches of a server with a thread or process per connection under full load, "
        "a CPU-bound job loses ≥5 % (low end), REFUTED when <5 % (high end), at the highest concurrency"
    )
    found = [row for row in rows if row["model"] in OWN_TASKS and row["lost_lo_pct"] is not None]
    most = max((int(row["concurrency_count"] or 0) for row in found), default=0)
    last = [row for row in found if row["concurrency_count"] == most]
    if not last:
        return Verdict("C17", restated, rule, NOT_MEASURED, "needs the thread or fork model in five launches")
    low = [float(row["lost_lo_pct"] or 0) for row in last]
    high = [float(row["lost_hi_pct"] or 0) for row in last]
    holds, fails = min(low) >= ENOUGH_LOSS_PCT, max(high) < ENOUGH_LOSS_PCT
    some = max(low) >= ENOUGH_LOSS_PCT
    verdict = "CONFIRMED" if holds else "REFUTED" if fails else "PARTLY" if some else "INCONCLUSIVE"
    texts = [
        f"{row['model']} at {most:,}: {format_column('x_per_s', row['switches_per_s'])} cost "
        f"{format_column('x_pct', row['lost_pct'])} [{format_column('x_pct', row['lost_lo_pct'])}, "
        f"{format_column('x_pct', row['lost_hi_pct'])}]"
        for row in last
    ]
    return Verdict("C17", restated, rule, verdict, "; ".join(texts))


def judge_c28(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C28, on servers: which switches they make; that their model is unsuitable is not for a measurement."""
    restated = "a context switch is an expense, and scheduling by the CPU does not suit a web server"
    rule = "the first half is C17's; the second is a judgement of taste"
    found = [row for row in rows if row["switches_per_s"] is not None and row["involuntary_pct"] is not None]
    most = max((int(row["concurrency_count"] or 0) for row in found), default=0)
    texts = [
        f"{row['model']} at {most:,}: {format_column('x_per_s', row['switches_per_s'])}, "
        f"{format_column('x_pct', row['involuntary_pct'])} of them involuntary"
        for row in found
        if row["concurrency_count"] == most
    ]
    return Verdict("C28", restated, rule, "NOT-FALSIFIABLE", "; ".join(texts) or "see C17", is_measured=False)


_JUDGES: tuple[Judge, ...] = (judge_c17, judge_c28)


class ContextSwitches(Experiment[ContextSwitchesParameters]):
    """See the module."""

    version = 1
    parameters_type = ContextSwitchesParameters
    row_type = ContextSwitchesRow
    views = _VIEWS
    charts = _CHARTS
    judges = _JUDGES
    repeats = 6
    quick_repeats = 5

    def cells(self, parameters: ContextSwitchesParameters) -> list[Cell]:
        """Model by concurrency."""
        return [
            _cell(model, count, parameters.window) for model, count in product(parameters.model, parameters.concurrency)
        ]

    def measure(self, parameters: ContextSwitchesParameters, cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        """A fresh server and its connections; a traced and an untraced window, which of them first by turns."""
        model, count = str(cell.key["model"]), int(cell.key["concurrency_count"])
        with (
            MODELS[model].start(to_hold(model, count)[0]) as server,
            Holder(server.port, count, count, bench.remaining_s) as holder,
        ):
            _open(holder, count)
            windows: dict[str, tuple[Pumped, Trace | None]] = {}
            for name in ("off", "traced") if bench.block % 2 else ("traced", "off"):
                choice = parameters.trace if name == "traced" else OFF
                windows[name] = _window(holder, server, count, choice, parameters.window / 1e9)
        yield _samples(cell, bench.block, windows)

    def summarise(self, parameters: ContextSwitchesParameters, samples: Sequence[Samples], seed: int) -> list[Row]:
        """One row for each cell that has launches."""
        by_key: dict[tuple[str | int, ...], list[Samples]] = {}
        for item in samples:
            by_key.setdefault(tuple(item.key.values()), []).append(item)
        return [_row(launches, seed) for _, launches in sorted(by_key.items())]


def _cell(model: str, count: int, window_ns: int) -> Cell:
    needs = MODELS[model].fixed.plus(MODELS[model].per_connection.times(count)).plus(to_hold(model, count)[1])
    return Cell(
        {"model": model, "concurrency_count": count},
        needs.plus(Needs(descriptors_count=32, memory_bytes=250 << 20)),
        2.5 * window_ns / 1e6 + 700 + count / 10,
    )


def _open(holder: Holder, count: int) -> None:
    ramped = holder.ramp(count)
    if ramped.failure is not None:
        raise native.HelperError(f"{ramped.opened_count} of {count} connections opened: {ramped.failure.message}")


def _window(holder: Holder, server: Server, count: int, choice: str, window_s: float) -> tuple[Pumped, Trace | None]:
    """One window of load, with what was counted of the server meanwhile."""
    holder.pump(count, window_s / 5)  # warm before the tracer counts
    if choice == OFF:
        return holder.pump(count, window_s), None
    with attached(choice, [server.session]) as tracer:
        pumped = holder.pump(count, window_s)
        return pumped, tracer.stop()


def _lost_pct(model: str, switches_per_s: float) -> float | None:
    """What a CPU-bound job of two tasks loses when made to switch so often; None where no task is a connection's."""
    if model not in OWN_TASKS or switches_per_s <= 0:
        return None
    quantum_ns = max(LEAST_QUANTUM_NS, round(1e9 / switches_per_s) - SWITCH_NS)
    options = ["--mode", "ring", "--tasks", 2, "--token", "futex", "--kind", OWN_TASKS[model]]
    hops = 2 * max(1, 3_000_000 // (quantum_ns + SWITCH_NS))
    options += ["--quantum-ns", quantum_ns, "--hops", hops, "--budget-ms", 60]
    with native.Helper("scheduling", options) as helper:
        ring = helper.expect("ring")
        helper.finish()
    turn_ns, alone_ns = (statistics.median(ring[name]) for name in ("pass_ns", "harness_pass_ns"))
    return float(100 * (1 - alone_ns / turn_ns))


# --- rows -------------------------------------------------------------------------------------------------------------


def _samples(cell: Cell, block: int, windows: Mapping[str, tuple[Pumped, Trace | None]]) -> Samples:
    """The figures of one launch: what was counted in the traced window, how fast it went in the other."""
    (plain, _), (traced, trace) = windows["off"], windows["traced"]
    assert trace is not None
    rates = {name: pumped.requests_count / ((pumped.duration_ns or 0) / 1e9) for name, (pumped, _) in windows.items()}
    switches = (trace.voluntary_switches_count or 0) + (trace.involuntary_switches_count or 0)
    per_s = switches / traced.answered_count * rates["off"]
    wait_s = trace.runqueue_wait_s
    values = {"latency": list(plain.latency_ns), "rate": [round(rates["off"])], "traced_rate": [round(rates["traced"])]}
    facts: dict[str, Scalar] = {
        "answered_count": traced.answered_count,
        "voluntary_switches_count": trace.voluntary_switches_count,
        "involuntary_switches_count": trace.involuntary_switches_count,
        "calls_count": trace.calls_count,
        "runqueue_wait_ns": None if wait_s is None else wait_s * 1e9,
        "switches_per_s": per_s,
        "lost_pct": _lost_pct(str(cell.key["model"]), per_s),
        "traced_by": trace.backend,
        "calls": _calls_text(trace, traced.answered_count),
        "dropped_count": trace.dropped_count,
        "failed_count": plain.failed_count + traced.failed_count,
        "client_cpu_pct": 100 * (plain.client_cpu_ns or 0) / (plain.duration_ns or 1),
    }
    return Samples(cell.key, block, values, facts)


def _calls_text(trace: Trace, requests: int) -> str | None:
    """``epoll_wait 1, read 1, write 1``: calls for one request, the most frequent first; rare ones left out."""
    calls = [(call.name, call.count / requests) for call in trace.top()]
    return ", ".join(f"{name} {each:.3g}" for name, each in calls if each >= RARE_CALLS) or None


def _row(launches: Sequence[Samples], seed: int) -> ContextSwitchesRow:
    voluntary = stats.interval_of_all(map(_per_request("voluntary_switches_count"), launches), seed)
    latencies = [statistics.median(item.values["latency"]) for item in launches if len(item.values["latency"])]
    grade = stats.grade_interval(voluntary, "voluntary switches")
    client_pct = statistics.median(float(item.facts["client_cpu_pct"] or 0) for item in launches)
    if client_pct > BUSY_CLIENT_PCT:
        grade = grade.worse("shaky", f"the client used {client_pct:.0f} % of its CPU: the server could do more")
    dropped = sum(int(item.facts["dropped_count"] or 0) for item in launches)
    if dropped:
        grade = grade.worse("void", f"{dropped:,} tasks or events could not be counted")
    return ContextSwitchesRow(
        **launches[0].key,  # type: ignore[arg-type]
        requests_per_s=stats.interval_of_all((float(item.values["rate"][0]) for item in launches), seed),
        voluntary_switches_per_request=voluntary,
        involuntary_switches_per_request=stats.interval_of_all(
            map(_per_request("involuntary_switches_count"), launches), seed
        ),
        involuntary_pct=stats.interval_of_all(map(_involuntary_pct, launches), seed),
        calls_per_request=stats.interval_of_all(map(_per_request("calls_count"), launches), seed),
        runqueue_wait_ns=stats.interval_of_all(map(_per_request("runqueue_wait_ns"), launches), seed),
        switches_per_s=stats.interval_of_all(map(_fact("switches_per_s"), launches), seed),
        lost_pct=stats.interval_of_all(map(_fact("lost_pct"), launches), seed),
        traced_over_off_ratio=stats.paired_ratio(
            {item.block: item.values["traced_rate"] for item in launches},
            {item.block: item.values["rate"] for item in launches},
            seed,
        ),
        traced_by=str(launches[0].facts["traced_by"]),
        calls=str(launches[-1].facts["calls"]) if launches[-1].facts["calls"] else None,
        latency_p50_ns=statistics.median(latencies) if latencies else None,
        client_cpu_pct=client_pct,
        dropped_count=dropped if launches[0].facts["dropped_count"] is not None else None,
        failed_count=sum(int(item.facts["failed_count"] or 0) for item in launches),
        launches_count=len(launches),
        grade=grade.level,
        grade_reason=grade.reason,
    )


_Of = Callable[[Samples], float | None]


def _fact(name: str) -> _Of:
    return lambda item: None if item.facts[name] is None else float(item.facts[name] or 0)


def _per_request(name: str) -> _Of:
    return lambda item: (
        None if item.facts[name] is None else float(item.facts[name] or 0) / float(item.facts["answered_count"] or 1)
    )


def _involuntary_pct(item: Samples) -> float | None:
    """Of all switches; None where one kind is not told, or there were none."""
    voluntary, involuntary = (item.facts[f"{kind}_switches_count"] for kind in ("voluntary", "involuntary"))
    if voluntary is None or involuntary is None or not float(voluntary) + float(involuntary):
        return None
    return 100 * float(involuntary) / (float(voluntary) + float(involuntary))


EXPERIMENT = ContextSwitches()
