"""What a launch of servers came to, as facts: of the load generator, of the server's CPU, sockets and memory."""

from __future__ import annotations

import statistics

from c10k_probe.experiment import Scalar
from c10k_probe.load import AbReport, ClosedLoop
from c10k_probe.observe import counters, tree
from c10k_probe.observe.ledger import KERNEL_STACK_BYTES
from c10k_probe.observe.middle import Middle
from c10k_probe.observe.series import Memory, Series

NS_PER_S = 1e9
GENERATOR, OWN, KERNEL = "load generator", "server", "kernel"  # who counted the requests over which CPU time is told
OPENED_BEYOND_SHARE = 0.01  # of a load's connections: what others may have opened meanwhile
Facts = dict[str, Scalar]


def ab_facts(report: AbReport) -> Facts:
    """Of ab's report: a failure is told by its kind."""
    return {
        "requests_count": report.complete_count,
        "answered_count": report.answered_count,
        "failed_count": report.lost_count,
        "failed_connect_count": report.failed_connect_count,
        "failed_receive_count": report.failed_receive_count,
        "failed_length_count": report.failed_length_count,
        "failed_exceptions_count": report.failed_exceptions_count,
        "wrong_answers_count": report.wrong_answers_count,
        "throughput_per_s": report.answered_count / report.taken_s if report.taken_s else None,
        "p50_ns": report.latency_p50_ns,
        "p99_ns": report.latency_p99_ns,
        "longest_ns": report.latency_longest_ns,
    }


def wrk_facts(report: ClosedLoop) -> Facts:
    """Of wrk's report, which tells kinds of failure only together; its rate counts wrong answers as well."""
    lost = dict.fromkeys(("failed_connect_count", "failed_receive_count", "failed_length_count"))
    return {
        "requests_count": report.requests_count,
        "answered_count": report.answered_count,
        "failed_count": report.failed_count,
        **lost,
        "failed_exceptions_count": None,
        "wrong_answers_count": report.wrong_answers_count,
        "throughput_per_s": report.answers_per_s,
        "p50_ns": report.latency_p50_ns,
        "p99_ns": report.latency_p99_ns,
        "longest_ns": None,
    }


def cpu_facts(
    before: tree.TreeReading, after: tree.TreeReading, elapsed_s: float, load_cpu_s: float, answered_count: int
) -> Facts:
    """CPU of the tree with its ended children: the sum by the scheduler's account, its parts by ticks."""
    run_s = since(before.cpu_run_s, after.cpu_run_s)
    user_s, system_s = (since(getattr(before, name), getattr(after, name)) for name in ("cpu_user_s", "cpu_system_s"))
    ticks_s = None if user_s is None or system_s is None else user_s + system_s
    share = user_s / ticks_s if user_s is not None and ticks_s else None
    pct = None if run_s is None or not elapsed_s else 100 * run_s / elapsed_s
    return {
        "server_cpu_s": run_s,
        "server_cpu_pct": pct,
        "server_user_pct": None if pct is None or share is None else pct * share,
        "server_system_pct": None if pct is None or share is None else pct * (1 - share),
        "load_cpu_pct": 100 * load_cpu_s / elapsed_s if elapsed_s else None,
        "counted_by": GENERATOR,
        "requests_per_cpu_s": answered_count / run_s if run_s else None,
        "cpu_per_request_ns": run_s * NS_PER_S / answered_count if run_s is not None and answered_count else None,
    }


def cost_by_its_own_count(came_to: Facts, told: Facts, before_s: float | None, after_s: float | None) -> Facts:
    """What an answer costs, by the server's own count of answers and its CPU time until it had come to rest.

    wrk stops in the middle of as many requests as it has connections: their work is in the CPU time, and they are not
    in its count. Nothing where the server does not tell, or something failed: it does not tell which were right.
    """
    count, run_s = told["told_requests_count"], since(before_s, after_s)
    if came_to["failed_count"] != 0 or not isinstance(count, int) or not count or not run_s:
        return {}
    return {"counted_by": OWN, "requests_per_cpu_s": count / run_s, "cpu_per_request_ns": run_s * NS_PER_S / count}


def middle_facts(came_to: Facts, middle: Middle | None, opened_count: float | None, connections_count: int) -> Facts:
    """CPU in the middle of wrk's window, and what a request costs there, by the kernel's count of requests.

    opened_count: connections that were established in the whole window, where each request had its own; more than wrk
    can have opened are somebody else's, and then the count is no count of requests. Where something failed, requests
    are no right answers, and the cost is left as it is.
    """
    if middle is None:
        return {"server_idle_pct": None}
    facts: Facts = {"server_idle_pct": middle.idle_pct}
    whole_pct, pct = came_to["server_cpu_pct"], middle.server_cpu_pct
    if pct is not None:
        facts["server_cpu_pct"] = pct
        for name in ("server_user_pct", "server_system_pct"):
            part = came_to[name]
            is_known = isinstance(part, float) and isinstance(whole_pct, float) and whole_pct
            facts[name] = part / whole_pct * pct if is_known else None  # type: ignore[operator]
    if middle.load_cpu_pct is not None:
        facts["load_cpu_pct"] = middle.load_cpu_pct
    count, run_s, requests_count = middle.requests_count, middle.server_cpu_s, came_to["requests_count"]
    assert isinstance(requests_count, int)
    most_count = (requests_count + connections_count) * (1 + OPENED_BEYOND_SHARE)
    is_ours = opened_count is None or requests_count <= opened_count <= most_count
    if came_to["failed_count"] == 0 and is_ours and count and run_s:
        cost = {"requests_per_cpu_s": count / run_s, "cpu_per_request_ns": run_s * NS_PER_S / count}
        facts |= {"counted_by": KERNEL, **cost}
    return facts


def since(before: float | None, after: float | None) -> float | None:
    """What was added; None unless both are known."""
    return None if before is None or after is None else after - before


def kernel_facts(delta: counters.Counters) -> Facts:
    """What the kernel counted meanwhile: in the whole network namespace, and of the whole machine."""
    return {
        "overflows_count": delta.listen_overflows_count,
        "timeouts_count": delta.tcp_timeouts_count,
        "forks_count": delta.forks_count,
    }


def series_facts(series: Series, rest: Memory | None) -> Facts:
    """Most and middle of what was seen while the load lasted; None for what was not."""
    served = [item.accepted_count for item in series.sockets]
    queued = [item.queued_count for item in series.sockets]
    memory = series.memory
    top = max(memory, key=_whole_bytes, default=None)
    available = [item.available_bytes for item in memory if item.available_bytes is not None]
    fall = rest.available_bytes - min(available) if rest and rest.available_bytes and available else None
    return {
        "served_max_count": max(served, default=None),
        "served_mean_count": statistics.fmean(served) if served else None,
        "queued_max_count": max(queued, default=None),
        "sockets_readings_count": len(served),
        "rest_bytes": _whole_bytes(rest) if rest else None,
        "rest_pss_bytes": rest.pss_bytes if rest else None,
        "peak_bytes": _whole_bytes(top) if top else None,
        "peak_pss_bytes": max((item.pss_bytes for item in memory), default=None),
        "mean_pss_bytes": statistics.fmean(item.pss_bytes for item in memory) if memory else None,
        "peak_rss_bytes": max((item.rss_bytes for item in memory), default=None),
        "available_fall_bytes": fall,
        "memory_readings_count": len(memory),
        "processes_count": max((item.processes_count for item in memory), default=None),
        "threads_count": max((item.tasks_count for item in memory), default=None),
    }


def _whole_bytes(item: Memory) -> int:
    """What ending the server would give back: its share of user memory, page tables, kernel stacks."""
    return item.pss_bytes + item.page_table_bytes + item.tasks_count * KERNEL_STACK_BYTES
