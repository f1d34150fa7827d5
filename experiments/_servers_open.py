"""One launch of servers in an open loop: requests at rates that are shares of what this server can do.

The server's capacity is what it answers to the same connections in a closed loop, by the same sender, in the same
launch. Then come the rates, in an order that the seed chooses, each until every request has its outcome. Arrivals are
random (Poisson): even ones would hide that requests wait for each other. Latency is from the moment at which a request
was due to its whole answer, so that a server that stalls is not asked less. One that got no answer has no latency: a
quantile that would fall among those is missing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from c10k_probe import native
from c10k_probe.load.open_loop import OpenLoad, OpenLoop, Sender
from c10k_probe.observe import tree

from ._servers_design import CAPACITY_SHARE
from ._servers_facts import NS_PER_S, Facts, cpu_facts
from ._servers_launch import Ask, beside_the_client, started, telling_of_death, told_count, told_since

TIMEOUT_S = 2.0
_WARM_S = 0.2
_SHARES_PCT = (1, 5, *range(10, 100, 10), 95, 97, 98, 99)


def measure_open(
    ask: Ask, rates_pct: Sequence[int], seed: int, remaining_s: Callable[[], float]
) -> Iterator[tuple[int, Facts, dict[str, list[int]]]]:
    """Share of capacity, facts and latencies by quantile of each rate. Raises ``native.HelperError``."""
    with (
        started(ask) as ready,
        beside_the_client(),
        telling_of_death(ready.server),
        Sender(ready.server.port, ask.connections_count, keep_alive=ask.keeps_alive, timeout_s=TIMEOUT_S) as sender,
    ):
        pumped = sender.pump(ask.window_s * CAPACITY_SHARE, _WARM_S)
        _check_sender(pumped.own_failure)
        capacity_per_s = pumped.rate_per_s
        if not pumped.requests_count:
            raise native.HelperError("it answered nothing in a closed loop, of which rates could be a share")
        order = random.Random(seed)
        for rate_pct in order.sample(rates_pct, len(rates_pct)):
            if remaining_s() <= 0:
                raise native.HelperError("the run's time is over")
            told_before = told_count(ready.server)
            before = tree.read_tree(ready.server.session, memory=False)
            rate_per_s = capacity_per_s * rate_pct / 100
            report = sender.send(OpenLoad(rate_per_s, ask.window_s, order.getrandbits(32), arrivals="poisson"))
            after = tree.read_tree(ready.server.session, memory=False)
            told = told_since(told_before, told_count(ready.server))
            _check_sender(report.own_failure)
            elapsed_s, load_s = report.taken_ns / NS_PER_S, report.client_cpu_ns / NS_PER_S
            facts = open_facts(report) | cpu_facts(before, after, elapsed_s, load_s, report.answered_count)
            asked: Facts = {"capacity_per_s": capacity_per_s, "intended_per_s": rate_per_s, **told}
            asked["capacity_load_cpu_pct"] = 100 * pumped.client_busy_ratio
            yield rate_pct, {**ready.facts, **facts, **asked}, latencies_by_share(report)


def _check_sender(own_failure: str) -> None:
    """What fails on the sender's side says nothing about the server."""
    if own_failure:
        raise native.HelperError(f"the sender could open no more connections: {own_failure}")


def open_facts(report: OpenLoop) -> Facts:
    """Of the sender's report. A failure is any request that was due and got no right answer in time."""
    answered, intended = report.answered_count, report.intended_count
    return {
        "requests_count": intended,
        "answered_count": answered,
        "failed_count": intended - answered,
        "failed_connect_count": report.refused_count,
        "failed_receive_count": report.reset_count,
        "wrong_answers_count": report.wrong_count,
        "timed_out_count": report.timed_out_count,
        "unsent_count": report.unsent_count,
        "throughput_per_s": answered / report.duration_ns * NS_PER_S if report.duration_ns else None,
        "p50_ns": report.quantile_ns(0.5),
        "p90_ns": report.quantile_ns(0.9),
        "p99_ns": report.quantile_ns(0.99),
        "longest_ns": max(report.latency_ns, default=None)
        if report.samples_every == 1 and answered == intended
        else None,
        "sender_late_ns": report.longest_late_ns,
    }


def latencies_by_share(report: OpenLoop) -> dict[str, list[int]]:
    """The distribution: latency that so many percent of the requests do not exceed, as far as that is known."""
    found = {share: report.quantile_ns(share / 100) for share in _SHARES_PCT}
    known = {share: round(value) for share, value in found.items() if value is not None}
    return {"share_pct": [*known], "latency_ns": [*known.values()]}
