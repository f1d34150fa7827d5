"""``blocking``'s open loop: requests come as a Poisson process, however late the answers to others are.

A pool is offered c requests at a time, by Little's law: so many a second that c would be under way if each took the
delay alone. With fewer workers than c it is overloaded: its accept queue fills, and once that is full the rest wait at
the sender, so that no SYN is dropped. What it answers a second is then compared with W/S. A pool that has c workers and
four standard deviations of a Poisson process more, so that hardly anything ever waits, is compared with what came: the
requests due within as long a time, one delay before the window's answers.

Timed: answers by the sender's clock, after a warm-up of two delays; CPU time and looks at tasks in the same window.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Final

from c10k_probe.experiment import Samples, Scalar
from c10k_probe.load import OpenLoad, OpenLoop, Sender

from ._blocking_design import WARMUP_CYCLES, S
from ._blocking_measure import (
    Bed,
    Watched,
    asked_facts,
    counted_facts,
    more,
    sleep_until,
    watched_facts,
    work_facts,
)

_PATIENCE_S: Final = 10.0
_SAMPLES_COUNT: Final = 1_000_000  # all of them


def open_step(bed: Bed, count: int, most_count: int) -> Samples:
    """One open loop of ``count`` requests at a time over as many connections at most; how all counts changed."""
    ask, server = bed.ask, bed.server
    delay_s = ask.delay_ns / S
    warmup_s = WARMUP_CYCLES * delay_s
    sent_s = warmup_s + ask.window_s
    timeout_s = _PATIENCE_S + sent_s + 3 * delay_s
    watched = Watched()
    before, drops_count = bed.counts(), bed.drops_count()
    with Sender(server.port, most_count, keep_alive=False, timeout_s=timeout_s, samples_count=_SAMPLES_COUNT) as sender:
        began_s = time.monotonic()
        sender.begin_send(OpenLoad(count / delay_s, sent_s, ask.seed, arrivals="poisson"))
        sleep_until(began_s + warmup_s)
        first = bed.mark()
        watched.look(server.session, began_s + warmup_s, began_s + sent_s, ask.seed)
        with bed.standing_still():
            last = bed.mark()
            watched.read_memory(server.session)
        report = sender.finish_send(sent_s + 2 * timeout_s)
    server.wait_until_idle()
    after = bed.counts()
    if bed.backend:
        bed.backend.resume()
    facts = counted_facts(first.counts, last.counts) | asked_facts(before, after) | watched_facts(watched)
    facts |= {"listen_drops_count": more(drops_count, bed.drops_count())}
    facts |= work_facts(ask, first, last, ask.workers_count)
    facts |= _rates(report, count, ask.workers_count, ask.delay_ns, round(warmup_s * S))
    if count > ask.workers_count:  # the queue grows for as long as this goes on: how long it is says only that
        facts |= {"queue_ns": None, "latency_p50_ns": None}
    key = {**ask.cell.key, "concurrency_count": count}
    return Samples(key, 0, {"latency": [value for value in report.latency_ns if value >= 0]}, facts)


def _rates(report: OpenLoop, count: int, workers_count: int, delay_ns: int, warmup_ns: int) -> dict[str, Scalar]:
    """Answers a second within the window, what they are compared with, and what became of the rest."""
    ended_ns = sorted(
        due + latency for due, latency in zip(report.due_ns, report.latency_ns, strict=True) if latency >= 0
    )
    window = (warmup_ns, report.duration_ns)
    if count > workers_count:
        rate_per_s, line_per_s = steady_per_s(ended_ns, window), workers_count * S / delay_ns
    else:
        rate_per_s = within_per_s(ended_ns, window)
        line_per_s = within_per_s(report.due_ns, (window[0] - delay_ns, window[1] - delay_ns))
    latencies_ns = [value for value in report.latency_ns if value >= 0]
    return {
        "places_count": workers_count,
        "requests_per_s": rate_per_s,
        "line_per_s": line_per_s,
        "of_line_ratio": rate_per_s / line_per_s if line_per_s else None,
        "failed_count": report.intended_count - report.answered_count,
        "own_failure": report.own_failure,
        "client_cpu_pct": 100 * report.client_busy_ratio,
        "latency_p50_ns": statistics.median(latencies_ns) if latencies_ns else None,
    }


def steady_per_s(moments_ns: Sequence[int], window_ns: tuple[int, int]) -> float:
    """Of moments in order that come in batches: over the time from the last before the window to the last in it."""
    before = [moment for moment in moments_ns if moment <= window_ns[0]]
    inside = [moment for moment in moments_ns if window_ns[0] < moment <= window_ns[1]]
    if not before or not inside:
        return within_per_s(moments_ns, window_ns)
    return len(inside) * S / (inside[-1] - before[-1])


def within_per_s(moments_ns: Sequence[int], window_ns: tuple[int, int]) -> float:
    """Of moments that come each for itself."""
    return sum(window_ns[0] < moment <= window_ns[1] for moment in moments_ns) * S / (window_ns[1] - window_ns[0])
