"""Made samples of slow-clients."""

from __future__ import annotations

from c10k_probe.experiment import Samples, Scalar
from c10k_probe.stats import MINIMUM_LAUNCHES

MS = 1_000_000


def launch(server: str, clients: int, served: int = 100, block: int = 0, **facts: Scalar) -> Samples:
    """A launch with 100 innocents, of which so many were served after 1 ms each; the rest is usual unless named."""
    key: dict[str, str | int] = {"server": server, "kind": str(facts.pop("kind", "head")), "clients_count": clients}
    key["defence"] = str(facts.pop("defence", "off"))
    usual: dict[str, Scalar] = {
        "server_version": "made/1",
        "defence_settings": None,
        "workers_count": 16 if "prefork" in server else None,
        "timeout_ns": 5000 * MS,
        "death": "",
        "timeouts_count": 0,
        "innocents_count": 100,
        "served_count": served,
        "longest_ns": MS if served else None,
        "refused_count": 0,
        "reset_count": 0,
        "timed_out_count": 100 - served,
        "wrong_count": 0,
        "unsent_count": 0,
        "late_ns": MS,
        "sender_pct": 2.0,
        "sender_failure": "",
        "slow_open_count": clients,
        "slow_pending_count": 0,
        "slow_ended_count": 0,
        "slow_refused_count": 0,
        "slow_sent_bytes": 2 * clients,
        "slow_received_bytes": 0,
        "slow_bytes": clients,
        "slow_latest_ns": MS,
        "slow_cpu_pct": 1.0,
        "slow_pss_bytes": 5e5,
        "slow_failure": "",
        "inside_count": clients,
        "queued_count": 0,
        "backlog_count": 4096,
        "descriptors_count": 20,
        "descriptors_limit_count": 1024,
        "processes_count": 1,
        "threads_count": 1,
        "pss_bytes": 1e6,
        "exhausted": "" if served == 100 else "workers",
        "starvation_ns": None if served else 20 * MS,
        "recovery_ns": 3 * MS,
        "recovery_resolution_ns": 7 * MS,
        "watched_ns": 500 * MS,
    }
    values = {"due_ns": [MS * index for index in range(100)], "latency_ns": [MS] * served + [-1] * (100 - served)}
    return Samples(key, block, values, usual | facts)


def launches(server: str, clients: int, served: int = 100, **facts: Scalar) -> list[Samples]:
    """As many of these as an interval needs."""
    return [launch(server, clients, served, block, **facts) for block in range(MINIMUM_LAUNCHES)]
