"""How far a row of servers may be trusted: who was the limit, what failed, how often it was looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from c10k_probe import stats
from c10k_probe.units import format_column

from ._servers_design import FILES, HELD, OPEN, THREADS

BUSY_PCT = 80  # of a load generator, of one CPU
SATURATED_PCT = 95  # of a server, of one CPU: starting and ending the load is in the window too
OTHERS_PCT = 15  # of the server's CPU: what is neither idle nor its own; its client's packets alone take up to 8
FEW_READINGS = 3
LATE_SHARE = 0.5  # of the 99th percentile: what of it may be the sender's own lateness


def grade_inside(found: Mapping[str, Any], load: str) -> stats.Grade:
    """By the figure that this load is for."""
    name = {HELD: "process_bytes", THREADS: "threads_ratio", FILES: "wave_ratio"}.get(load, "left_pct")
    if load == THREADS and found["jobs_count"] == 1:
        return stats.Grade("void", "one CPU, over which nothing can be split")
    grade = stats.grade_interval(found[name], name.rpartition("_")[0].replace("_", " "))
    if name == "left_pct" and (found["server_cpu_pct"] is None or found["server_cpu_pct"].middle < SATURATED_PCT):
        grade = grade.worse("void", "the event loop had CPU time of its own left: this was not its full load")
    return grade


def is_full_load(found: Mapping[str, Any]) -> bool:
    """Whether the server had nothing left: by the idle time of its CPU where that is known, else by what it took."""
    server, idle_pct = found["server_cpu_pct"], found.get("server_idle_pct")
    if idle_pct is not None:
        return bool(idle_pct <= 100 - SATURATED_PCT)
    return server is not None and bool(server.middle >= SATURATED_PCT)


def grade_load(found: Mapping[str, Any], load: str, observed: str) -> stats.Grade:
    """By who was the limit, by what failed, and by how well it was seen."""
    name, what = ("request_p99_ns", "p99 latency") if load == OPEN else ("throughput_per_s", "throughput")
    grade = stats.grade_interval(found[name], what)
    if not found["requests_count"] or not found["throughput_per_s"] or not found["throughput_per_s"].middle:
        grade = grade.worse("void", "no request was answered as it should")
    load_pct, server = found["load_cpu_pct"], found["server_cpu_pct"]
    idle_pct, is_full = found.get("server_idle_pct"), is_full_load(found)
    if load_pct is None:
        grade = grade.worse("void", "the load generator's CPU time is unknown: it may have been the limit")
    elif load_pct > BUSY_PCT and not is_full:
        grade = grade.worse("void", f"the load generator used {load_pct:.0f} % of its CPU: it was the limit")
    elif load_pct > BUSY_PCT:
        text = f"the load generator used {load_pct:.0f} % of its CPU, though the server had nothing left of its own"
        grade = grade.worse("shaky", text)
    if server is not None and idle_pct is not None and 100 - idle_pct - server.middle > OTHERS_PCT:
        text = f"others had {100 - idle_pct - server.middle:.0f} % of the server's CPU"
        grade = grade.worse("shaky", text)
    if failed := found["failed_count"]:
        requests = found["requests_count"] or 0
        is_share = failed <= requests  # wrk counts what breaks beside the requests, ab connections that were refused
        told = f"{failed:,} of {requests:,} requests failed"
        text = told if is_share else f"{failed:,} failures in {requests:,} requests, as the load generator counts them"
        grade = grade.worse("shaky", text)
    if load == OPEN:
        grade = _grade_open(grade, found)
    if observed == "on" and (found["memory_readings_count"] or 0) < FEW_READINGS:
        count = found["memory_readings_count"] or 0
        times = {0: "never read", 1: "read only once"}.get(count, f"read {count} times only")
        grade = grade.worse("shaky", f"memory of the whole tree was {times}")
    return grade


def _grade_open(grade: stats.Grade, found: Mapping[str, Any]) -> stats.Grade:
    """An open loop is one only as far as the sender was in time."""
    closed_pct = found["capacity_load_cpu_pct"]
    if closed_pct is not None and closed_pct > BUSY_PCT:
        text = f"the sender used {closed_pct:.0f} % of its CPU for the capacity, which the server's may exceed"
        grade = grade.worse("shaky", text)
    late, p99 = found["sender_late_ns"], found["request_p99_ns"]
    if late is not None and p99 is not None and late > LATE_SHARE * p99.middle:
        text = format_column("sender_late_ns", late)
        grade = grade.worse("shaky", f"the sender was up to {text} late itself, which is in the latencies")
    return grade
