"""Made samples of servers."""

from __future__ import annotations

from c10k_probe.experiment import Samples, Scalar


def launch(server: str, block: int, per_s: float, arm: str = "article", **facts: Scalar) -> Samples:
    """A launch with this throughput of a server that used all of its CPU; the rest is usual unless named."""
    key: dict[str, str | int] = {
        "server": server,
        "arm": arm,
        "load": "ab" if arm == "article" else str(facts.pop("load", "wrk")),
        "keep_alive": str(facts.pop("keep_alive", "off")),
        "rate_pct": int(facts.pop("rate_pct", 100) or 0),
        "observed": str(facts.pop("observed", "on")),
    }
    cpu_pct = float(facts.get("server_cpu_pct") or 99.0)
    usual: dict[str, Scalar] = {
        "server_version": f"{server}/1.2",
        "waits_in": "ep_poll",
        "connections_count": 1000,
        "header_bytes": 200,
        "body_bytes": 11,
        "requests_count": 10_000,
        "told_requests_count": 10_000,
        "answered_count": 10_000,
        "failed_count": 0,
        "failed_connect_count": 0,
        "failed_receive_count": 0,
        "failed_length_count": 0,
        "failed_exceptions_count": 0,
        "wrong_answers_count": 0,
        "throughput_per_s": per_s,
        "p50_ns": 1e12 / per_s if per_s else None,
        "p99_ns": 2e12 / per_s if per_s else None,
        "longest_ns": 3e9,
        "server_cpu_pct": cpu_pct,
        "server_user_pct": cpu_pct / 2,
        "server_system_pct": cpu_pct / 2,
        "load_cpu_pct": 50.0,
        "requests_per_cpu_s": per_s * 100 / cpu_pct,
        "cpu_per_request_ns": 1e7 * cpu_pct / per_s if per_s else None,
        "rest_bytes": 10e6,
        "rest_pss_bytes": 9e6,
        "peak_bytes": 100e6,
        "peak_pss_bytes": 90e6,
        "mean_pss_bytes": 80e6,
        "peak_rss_bytes": 1e9,
        "available_fall_bytes": 50e6,
        "memory_readings_count": 10,
        "sockets_readings_count": 10,
        "processes_count": 1,
        "threads_count": 1,
        "served_max_count": 1000,
        "served_mean_count": 900.0,
        "queued_max_count": 5,
        "overflows_count": 0,
        "timeouts_count": 0,
        "forks_count": 0,
        "began_count": 0 if server.startswith("apache") else None,
        "idle_forks_count": None,
        "new_processes_count": 0,
    }
    return Samples(key, block, {}, usual | facts)


def launches(server: str, rates: list[float], arm: str = "article", **facts: Scalar) -> list[Samples]:
    """One launch in each block."""
    return [launch(server, block, rate, arm, **facts) for block, rate in enumerate(rates)]


def open_launch(server: str, block: int, rate_pct: int, **facts: Scalar) -> Samples:
    """A launch of the open loop at this share of a capacity of 10,000 a second, in which all went well."""
    per_s = 100.0 * rate_pct
    usual: dict[str, Scalar] = {
        "load": "open loop",
        "observed": "off",
        "keep_alive": "on",
        "rate_pct": rate_pct,
        "capacity_per_s": 10_000.0,
        "intended_per_s": per_s,
        "p50_ns": 1e6,
        "p90_ns": 2e6,
        "p99_ns": 5e6,
        "sender_late_ns": 1e5,
        "server_cpu_pct": float(rate_pct),
        "timed_out_count": 0,
        "unsent_count": 0,
    }
    return launch(server, block, per_s, "fair", **(usual | facts))


def inside(server: str, load: str, values: dict[str, list[int]] | None = None, **facts: Scalar) -> list[Samples]:
    """Five launches of what is inside a server."""
    key = {"server": server, "arm": "inside", "load": load, "keep_alive": "on"}
    return [Samples({**key, "rate_pct": 100, "observed": "off"}, block, values or {}, facts) for block in range(5)]
