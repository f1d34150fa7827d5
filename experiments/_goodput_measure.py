"""One launch of goodput: a fresh server, its capacity, and then each load and each number of clients once."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from c10k_probe import native, stats
from c10k_probe.experiment import Bench, Cell, Samples, Scalar
from c10k_probe.load import ClosedLoopReport, OpenLoad, OpenLoop, Sender
from c10k_probe.load.open_loop import ANSWERED, OUTCOMES
from c10k_probe.observe.counters import read_netstat
from c10k_probe.servers import RealServer, Server

from ._goodput_design import (
    CAPACITY_CLIENTS,
    CLOSED,
    CLOSED_NS,
    FULL_PCT,
    NS_PER_S,
    OPEN,
    PATIENCE_BOUNDS,
    WARMUP_NS,
    GoodputParameters,
    burst_count,
    closed_times_ns,
    connections_of,
    model_of,
    most_connections,
    server_options,
    settling_ns,
)

_CLOSED_PATIENCE_S: Final = 5.0  # a closed loop measures what the server can do, also where the bound is short
_SPARE_S: Final = 30.0  # patience, not expectation: connecting, and telling of the samples
_SAMPLES_MOST: Final = 1_000_000  # of the sender: every request of a load
Facts = dict[str, Scalar]
_Pumped = tuple[ClosedLoopReport, Facts]
LoadT = TypeVar("LoadT")


class Launch:
    """The steps of one launch. Each has a fresh server: what a flooded one still works off would burden the next."""

    def __init__(self, parameters: GoodputParameters, cell: Cell, bench: Bench) -> None:
        self._parameters, self._cell, self._bench = parameters, cell, bench
        self._model, self._work, keep_alive = (str(cell.key[name]) for name in ("model", "work", "keep_alive"))
        self._keeps_alive = keep_alive == "on"
        self._connections_count = connections_of(parameters, keep_alive)
        self._options = server_options(self._model, self._work, most_connections(parameters, keep_alive))

    def steps(self) -> Iterator[Samples]:
        """The capacity first, as every load is a share of it; the rest shuffled. Raises ``native.HelperError``."""
        capacity, walls = self._pump(CAPACITY_CLIENTS)
        if not capacity.requests_count:
            raise native.HelperError(f"the server answered none of {capacity.failed_count:,} requests at full load")
        known: Facts = {"capacity_per_s": capacity.rate_per_s, "capacity_client_pct": 100 * capacity.client_busy_ratio}
        asked = [(OPEN, load) for load in self._parameters.load]
        asked += [(CLOSED, count) for count in self._parameters.clients if count != CAPACITY_CLIENTS]
        if CAPACITY_CLIENTS in self._parameters.clients:
            yield self._samples(
                CLOSED, CAPACITY_CLIENTS, known | closed_facts(capacity, self._parameters.bound) | walls
            )
        order = random.Random(self._bench.seed).sample(asked, len(asked))
        for place, (loop, amount) in enumerate(order):
            self._bench.progress(place, len(order), f"{amount} %" if loop == OPEN else f"{amount:,} clients")
            facts = (self._open if loop == OPEN else self._closed)(amount, capacity.rate_per_s)
            yield self._samples(loop, amount, known | facts)

    def _samples(self, loop: str, amount: int, facts: Facts) -> Samples:
        load_pct, clients_count = (amount, self._connections_count) if loop == OPEN else (FULL_PCT, amount)
        step: dict[str, str | int] = {"loop": loop, "load_pct": load_pct, "clients_count": clients_count}
        return Samples({**self._cell.key, **step}, self._bench.block, {}, facts)

    def _loaded(
        self, connections_count: int, patience_s: float, load: Callable[[Sender], LoadT]
    ) -> tuple[LoadT, Facts]:
        """What a load came to on a fresh server, and the limits that this ran into. Raises when the server died."""
        with (
            model_of(self._model).start(self._options) as server,
            Sender(
                server.port,
                connections_count,
                keep_alive=self._keeps_alive,
                timeout_s=patience_s,
                samples_count=_SAMPLES_MOST,
            ) as sender,
        ):
            if isinstance(server, RealServer):
                server.warm_up(CAPACITY_CLIENTS)  # a pool grows, code is compiled
            report = load(sender)
            _check_lives(server)
            walls = server.walls()
            first = f"{walls[0].get('call')}: {walls[0].get('name')}" if walls else ""
            return report, {"walls_count": len(walls), "first_wall": first}

    def _pump(self, clients_count: int, warmup_ns: int = WARMUP_NS, window_ns: int = CLOSED_NS) -> _Pumped:
        return self._loaded(
            clients_count, _CLOSED_PATIENCE_S, lambda sender: sender.pump(window_ns / NS_PER_S, warmup_ns / NS_PER_S)
        )

    def _closed(self, clients_count: int, capacity_per_s: float) -> Facts:
        report, walls = self._pump(clients_count, *closed_times_ns(clients_count, capacity_per_s))
        return closed_facts(report, self._parameters.bound) | walls

    def _open(self, load_pct: int, capacity_per_s: float) -> Facts:
        bound_ns = self._parameters.bound
        settling = settling_ns(load_pct, bound_ns)
        duration_s, bound_s = (settling + self._parameters.window) / NS_PER_S, bound_ns / NS_PER_S
        burst = burst_count(load_pct, capacity_per_s, bound_ns)

        def load(sender: Sender) -> OpenLoop:
            rate_per_s = capacity_per_s * load_pct / 100
            sender.begin_send(OpenLoad(rate_per_s, duration_s, self._bench.seed, "poisson", burst, wait_s=bound_s))
            return sender.finish_send(min(self._bench.remaining_s() + 0.1, duration_s + bound_s + _SPARE_S))

        overflows_before = _overflows_count()
        report, walls = self._loaded(self._connections_count, PATIENCE_BOUNDS * bound_s, load)
        overflows_after = _overflows_count()
        known: Facts = {"burst_count": burst}
        if overflows_before is not None and overflows_after is not None:
            known["overflows_count"] = overflows_after - overflows_before
        return open_facts(report, settling, bound_ns) | known | walls


def _check_lives(server: Server) -> None:
    """Raise how it died. A real one that is flooded does not answer us either, and is not asked."""
    if not isinstance(server, RealServer):
        server.status()
    elif death := server.death():
        raise native.HelperError(f"{server.name} died under the load: {death}")


def _overflows_count() -> int | None:
    """Handshakes that found an accept queue full, in this network namespace since it began."""
    return read_netstat().get("ListenOverflows")


def open_facts(loop: OpenLoop, settling_ns: int, bound_ns: int) -> Facts:
    """What became of the requests that were due after the queue had settled; each is in exactly one of the counts."""
    kept = [place for place, due_ns in enumerate(loop.due_ns) if due_ns >= settling_ns]
    outcomes = Counter(loop.outcomes[place] for place in kept)
    latencies = [loop.latency_ns[place] for place in kept if loop.outcomes[place] == ANSWERED]
    good_count = sum(value <= bound_ns for value in latencies)
    window_s = (loop.duration_ns - settling_ns) / NS_PER_S
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
        "longest_late_ns": loop.longest_late_ns,
        "client_cpu_pct": 100 * loop.client_busy_ratio,
        "opened_count": loop.opened_connections_count,
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
        "opened_count": report.opened_connections_count,
        "served_count": report.served_connections_count,
        "own_failure": report.own_failure,
    }


def _quantile(latencies: Sequence[int], due_count: int, share: float) -> float | None:
    """Of all that were due: what was not answered took longer than any answer. None where that is the quantile."""
    if not latencies or share * (due_count - 1) > len(latencies) - 1:
        return None
    return stats.quantile([*latencies, *[max(latencies)] * (due_count - len(latencies))], share)
