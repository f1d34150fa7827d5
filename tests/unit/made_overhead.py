"""Made samples of trace-overhead."""

from __future__ import annotations

from c10k_probe.experiment import Samples


def launch(tracer: str, block: int, per_s: int, *, server: str = "nginx", **facts: float | str | None) -> Samples:
    """A launch with this throughput; the rest follows from it, or is usual unless named."""
    values = {name: [round(10**9 * 64 / per_s)] for name in ("p50_ns", "p90_ns", "p99_ns")}
    values |= {"throughput_per_s": [per_s], "cpu_per_request_ns": [10**9 // per_s]}
    traced = tracer not in ("off", "proc")
    usual = {
        "server_version": f"{server}/1.2",
        "header_bytes": 200,
        "body_bytes": 11,
        "requests_count": per_s,
        "failed_count": 0,
        "load_cpu_pct": 60.0,
        "server_cpu_pct": 99.0,
        "calls_per_request_count": 6.0 if traced else None,
        "switches_per_request_count": None,
        "dropped_count": 0 if tracer.startswith("bcc") else None,
        "tracer_cpu_pct": None if tracer == "off" else 0.5,
        "tracer_peak_rss_bytes": 1 << 20 if traced else None,
        "ready_s": None if tracer == "off" else 0.4,
    }
    return Samples({"server": server, "tracer": tracer}, block, values, usual | facts)


def run(rates: dict[str, list[int]], **facts: float | str | None) -> list[Samples]:
    """Blocks in which each backend had these throughputs."""
    return [launch(name, block, rate, **facts) for name, several in rates.items() for block, rate in enumerate(several)]
