"""One launch of goodput: the capacity, and then each load and each number of clients once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from c10k_probe import native, stats
from c10k_probe.experiment import Bench, Cell, Samples, Scalar
from c10k_probe.load import ClosedLoopReport, OpenLoad, OpenLoop, Sender
from c10k_probe.load.open_loop import ANSWERED, OUTCOMES, StageUse
from c10k_probe.observe.counters import read_netstat
from c10k_probe.servers import POOL_IS_FULL, RealServer, Server

from ._goodput_design import (
    CAPACITY_CLIENTS,
    CLOSED,
    CLOSED_NS,
    FILL,
    FULL_PCT,
    NS_PER_S,
    PATIENCE_BOUNDS,
    PAUSE,
    RUSH,
    SETTLING_NS,
    WARMUP_NS,
    GoodputParameters,
    Step,
    after_rush,
    closed_times_ns,
    connections_of,
    model_of,
    most_connections,
    plan_of,
    server_options,
    stages_of,
)

_CLOSED_PATIENCE_S: Final = 5.0  # a closed loop measures what the server can do, also where the bound is short
_SPARE_S: Final = 30.0  # patience, not expectation: connecting, and telling of the samples
_SAMPLES_MOST: Final = 1_000_000  # of the sender: every request of a load
Facts = dict[str, Scalar]


class Launch:
    """The steps of one launch. One server has the closed loops, a fresh one all loads of the open loop.

    Each goes upwards: what a flooded server still works off would burden a step that asks for less.
    """

    def __init__(self, parameters: GoodputParameters, cell: Cell, bench: Bench) -> None:
        self._parameters, self._cell, self._bench = parameters, cell, bench
        self._model, self._work, keep_alive = (str(cell.key[name]) for name in ("model", "work", "keep_alive"))
        self._keeps_alive = keep_alive == "on"
        self._connections_count = connections_of(parameters, keep_alive)
        self._options = server_options(self._model, self._work, most_connections(parameters, keep_alive))

    def steps(self) -> Iterator[Samples]:
        """The capacity first, as every load is a share of it. Raises ``native.HelperError``."""
        self._bench.progress(0, 2, "closed loops")
        known: Facts = {}
        with self._serving() as server:
            report, facts = self._pump(server, CAPACITY_CLIENTS, WARMUP_NS, CLOSED_NS)
            known = _known(report)
            if CAPACITY_CLIENTS in self._parameters.clients:
                yield self._samples(CLOSED, CAPACITY_CLIENTS, known | facts)
            for count in sorted(set(self._parameters.clients) - {CAPACITY_CLIENTS}):
                _, facts = self._pump(server, count, *closed_times_ns(count, report.rate_per_s))
                yield self._samples(CLOSED, count, known | facts)
        self._bench.progress(1, 2, "loads")
        for loop, amount, facts in self._loads(plan_of(self._parameters.load, self._bench.block), report.rate_per_s):
            yield self._samples(loop, amount, known | facts)

    def trials(self, loads: Sequence[int], number: int) -> Iterator[Samples]:
        """The capacity, and these loads after a rush. Raises ``native.HelperError``."""
        with self._serving() as server:
            report, _ = self._pump(server, CAPACITY_CLIENTS, WARMUP_NS, CLOSED_NS)
        known = _known(report)
        for loop, amount, facts in self._loads(after_rush(loads), report.rate_per_s):
            yield self._samples(loop, amount, known | facts, number)

    def _samples(self, loop: str, amount: int, facts: Facts, number: int | None = None) -> Samples:
        load_pct, clients_count = (FULL_PCT, amount) if loop == CLOSED else (amount, self._connections_count)
        step: dict[str, str | int] = {"loop": loop, "load_pct": load_pct, "clients_count": clients_count}
        return Samples({**self._cell.key, **step}, self._bench.block if number is None else number, {}, facts)

    @contextmanager
    def _serving(self) -> Iterator[Server]:
        """A fresh server. Raises ``native.HelperError`` when it died meanwhile."""
        with model_of(self._model).start(self._options) as server:
            if isinstance(server, RealServer):
                server.warm_up(CAPACITY_CLIENTS)  # a pool grows, code is compiled
            yield server
            _check_lives(server)

    def _sender(self, server: Server, connections_count: int, patience_s: float) -> Sender:
        keeps_alive, count = self._keeps_alive, connections_count
        return Sender(server.port, count, keep_alive=keeps_alive, timeout_s=patience_s, samples_count=_SAMPLES_MOST)

    def _pump(
        self, server: Server, clients_count: int, warmup_ns: int, window_ns: int
    ) -> tuple[ClosedLoopReport, Facts]:
        walls_before = len(server.walls())
        with self._sender(server, clients_count, _CLOSED_PATIENCE_S) as sender:
            report = sender.pump(window_ns / NS_PER_S, warmup_ns / NS_PER_S)
        return report, closed_facts(report, self._parameters.bound) | _walls_of(server, walls_before)

    def _loads(self, plan: Sequence[Step], capacity_per_s: float) -> Iterator[tuple[str, int, Facts]]:
        """One load after the other. Raises ``native.HelperError``."""
        bound_ns, bound_s = self._parameters.bound, self._parameters.bound / NS_PER_S
        stages = stages_of(plan, capacity_per_s, bound_ns, self._parameters.window)
        first, further = stages[0], stages[1:]
        load = OpenLoad(
            first.rate_per_s, first.duration_s, self._bench.seed, "poisson", wait_s=bound_s, further=further
        )
        overflows_before = _overflows_count()
        with (
            self._serving() as server,
            self._sender(server, self._connections_count, PATIENCE_BOUNDS * bound_s) as sender,
        ):
            sender.begin_send(load)
            report = sender.finish_send(min(self._bench.remaining_s() + 0.1, load.whole_s + bound_s + _SPARE_S))
            shared = _walls_of(server, 0)
        overflows_after, begin_ns = _overflows_count(), 0
        if overflows_before is not None and overflows_after is not None:
            shared["overflows_count"] = overflows_after - overflows_before
        shared["rush_count"] = 0
        for step, stage, use in zip(plan, stages, report.stages, strict=True):
            end_ns = begin_ns + round(stage.duration_s * NS_PER_S)
            if step.loop in (RUSH, FILL):
                shared["rush_count"] = round(stage.rate_per_s * stage.duration_s)
            elif step.loop != PAUSE:
                yield step.loop, step.load_pct, open_facts(report, begin_ns, end_ns, use, bound_ns) | shared
            begin_ns = end_ns


def _walls_of(server: Server, known_count: int) -> Facts:
    """Calls that failed for a limit, beyond those that were known; that all workers are taken is what a load is for."""
    walls = [wall for wall in server.walls()[known_count:] if (wall.get("call"), wall.get("name")) != POOL_IS_FULL]
    return {
        "walls_count": len(walls),
        "first_wall": f"{walls[0].get('call')}: {walls[0].get('name')}" if walls else "",
    }


def _known(capacity: ClosedLoopReport) -> Facts:
    """What each step of a launch says of it. Raises ``native.HelperError`` where there is none."""
    if not capacity.requests_count:
        raise native.HelperError(f"the server answered none of {capacity.failed_count:,} requests at full load")
    return {"capacity_per_s": capacity.rate_per_s, "capacity_client_pct": 100 * capacity.client_busy_ratio}


def _check_lives(server: Server) -> None:
    """Raise how it died. A real one that is flooded does not answer us either, and is not asked."""
    if not isinstance(server, RealServer):
        server.status()
    elif death := server.death():
        raise native.HelperError(f"{server.name} died under the load: {death}")


def _overflows_count() -> int | None:
    """Handshakes that found an accept queue full, in this network namespace since it began."""
    return read_netstat().get("ListenOverflows")


def open_facts(loop: OpenLoop, begin_ns: int, end_ns: int, use: StageUse, bound_ns: int) -> Facts:
    """What became of the requests that were due in a stage after it settled; each is in exactly one of the counts."""
    counted_ns = begin_ns + SETTLING_NS
    kept = [place for place, due_ns in enumerate(loop.due_ns) if counted_ns <= due_ns < end_ns]
    outcomes = Counter(loop.outcomes[place] for place in kept)
    latencies = [loop.latency_ns[place] for place in kept if loop.outcomes[place] == ANSWERED]
    good_count = sum(value <= bound_ns for value in latencies)
    window_s = (end_ns - counted_ns) / NS_PER_S
    due_count = len(kept)
    facts: Facts = {f"{name}_count": outcomes[name] for name in OUTCOMES if name != ANSWERED}
    return facts | {
        "due_count": due_count,
        "good_count": good_count,
        "late_count": len(latencies) - good_count,
        "offered_per_s": due_count * loop.samples_every / window_s,
        "goodput_per_s": good_count * loop.samples_every / window_s,
        "good_pct": 100 * good_count / due_count if due_count else None,
        "p50_ns": _quantile(latencies, due_count, 0.5),
        "p99_ns": _quantile(latencies, due_count, 0.99),
        "longest_late_ns": use.longest_late_ns,
        "client_cpu_pct": 100 * use.client_cpu_ns / (end_ns - begin_ns),
        "own_failure": loop.own_failure,
    }


def closed_facts(report: ClosedLoopReport, bound_ns: int) -> Facts:
    """The same of a closed loop, where nothing is offered: each client asks again when it has its answer."""
    kept_count = len(report.latency_ns)
    good_ratio = sum(value <= bound_ns for value in report.latency_ns) / kept_count if kept_count else 0.0
    good_count, due_count = round(good_ratio * report.requests_count), report.requests_count + report.failed_count
    return {
        "due_count": due_count,
        "good_count": good_count,
        "late_count": report.requests_count - good_count,
        "failed_count": report.failed_count,
        "wrong_count": report.wrong_count,
        "goodput_per_s": good_ratio * report.rate_per_s,
        "good_pct": 100 * good_count / due_count if due_count else None,
        "p50_ns": _quantile(report.latency_ns, kept_count, 0.5),
        "p99_ns": _quantile(report.latency_ns, kept_count, 0.99),
        "client_cpu_pct": 100 * report.client_busy_ratio,
        "served_count": report.served_connections_count,
        "own_failure": report.own_failure,
    }


def _quantile(latencies: Sequence[int], due_count: int, share: float) -> float | None:
    """Of all that were due: what was not answered took longer than any answer. None where that is the quantile."""
    if not latencies or share * (due_count - 1) > len(latencies) - 1:
        return None
    return stats.quantile([*latencies, *[max(latencies)] * (due_count - len(latencies))], share)
