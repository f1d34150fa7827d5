"""Counters of the whole machine, read before and after a measurement, and the noise gate made of them.

Sources: proc_stat(5), proc_net(5) (netstat: net/ipv4/proc.c), proc_meminfo(5). Unit of CPU time: seconds, in
steps of one clock tick (USER_HZ, 10 ms). Bias: with tick accounting a load that runs in step with the timer
is under-counted, and work in soft interrupts is billed to whoever is interrupted.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, fields
from pathlib import Path

from c10k_probe.observe.procfs import PROC, read_meminfo, read_text, to_int

CPU_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
STEAL_LIMIT_PCT = 1.0
FOREIGN_CPU_LIMIT_PCT = 5.0

# Columns of the first line of /proc/stat that are work; guest time is inside user and nice already.
_BUSY_COLUMNS = (0, 1, 2, 5, 6)
_TIME_COLUMNS_COUNT = 8
_INTERRUPT_COLUMNS = (5, 6)  # irq, softirq
_STEAL_COLUMN = 7

# field of Counters -> name in the TcpExt lines of /proc/net/netstat
_TCP_COUNTERS = {
    "listen_overflows_count": "ListenOverflows",
    "listen_drops_count": "ListenDrops",
    "tcp_timeouts_count": "TCPTimeouts",
    "syn_queue_full_drops_count": "TCPReqQFullDrop",
    "syn_cookies_sent_count": "SyncookiesSent",
    "tcp_memory_pressures_count": "TCPMemoryPressures",
    "tcp_aborts_on_memory_count": "TCPAbortOnMemory",
}

Number = int | float


@dataclass(frozen=True)
class Counters:
    """One reading. Times in seconds, all CPUs together; counts since boot; None is unknown.

    time_s is CLOCK_MONOTONIC. cpu_total_s includes idle and stolen time, cpu_busy_s neither. cpu_interrupt_s is
    a part of cpu_busy_s that is charged to no process. cpu_kernel_threads_s is the time of the kernel's own threads,
    which finish what processes left to them, such as freeing their sockets.
    """

    time_s: float
    cpu_total_s: float | None = None
    cpu_busy_s: float | None = None
    cpu_steal_s: float | None = None
    cpu_interrupt_s: float | None = None
    cpu_kernel_threads_s: float | None = None
    forks_count: int | None = None
    context_switches_count: int | None = None
    listen_overflows_count: int | None = None
    listen_drops_count: int | None = None
    tcp_timeouts_count: int | None = None
    syn_queue_full_drops_count: int | None = None
    syn_cookies_sent_count: int | None = None
    tcp_memory_pressures_count: int | None = None
    tcp_aborts_on_memory_count: int | None = None
    memory_free_bytes: int | None = None
    memory_available_bytes: int | None = None

    def as_dict(self) -> dict[str, Number | None]:
        """Field -> value, for the record of a run."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def _stat_values(proc_root: Path) -> dict[str, Number | None]:
    lines = (read_text(proc_root / "stat") or "").splitlines()
    rows = {words[0]: words[1:] for words in (line.split() for line in lines) if words}
    ticks = [int(word) for word in rows.get("cpu", []) if word.isdigit()]
    values: dict[str, Number | None] = {
        "forks_count": to_int(next(iter(rows.get("processes", [])), None)),
        "context_switches_count": to_int(next(iter(rows.get("ctxt", [])), None)),
    }
    if len(ticks) >= _TIME_COLUMNS_COUNT:
        values["cpu_total_s"] = sum(ticks[:_TIME_COLUMNS_COUNT]) * CPU_TICK_S
        values["cpu_busy_s"] = sum(ticks[column] for column in _BUSY_COLUMNS) * CPU_TICK_S
        values["cpu_interrupt_s"] = sum(ticks[column] for column in _INTERRUPT_COLUMNS) * CPU_TICK_S
        values["cpu_steal_s"] = ticks[_STEAL_COLUMN] * CPU_TICK_S
    return values


def _kernel_threads_s(proc_root: Path) -> float | None:
    """CPU time of the children of kthreadd, pid 2; None where the kernel does not list them, as in a container."""
    listed = read_text(proc_root / "2/task/2/children")
    if not listed:
        return None
    stats = (read_text(proc_root / pid / "stat") for pid in listed.split())
    fields = (text.rpartition(")")[2].split() for text in stats if text)
    return sum(int(field[11]) + int(field[12]) for field in fields if len(field) > 12) * CPU_TICK_S


def read_netstat(proc_root: Path = PROC) -> dict[str, int]:
    """TcpExt counters of the network namespace of this process; {} when they cannot be read."""
    lines = (read_text(proc_root / "net/netstat") or "").splitlines()
    rows = [line.split()[1:] for line in lines if line.startswith("TcpExt:")]
    if len(rows) != 2:
        return {}
    return {name: int(value) for name, value in zip(*rows, strict=False) if value.lstrip("-").isdigit()}


def read_counters(proc_root: Path = PROC) -> Counters:
    """One reading of all counters; costs some milliseconds, for the kernel's threads."""
    values = _stat_values(proc_root)
    values["cpu_kernel_threads_s"] = _kernel_threads_s(proc_root)
    netstat, meminfo = read_netstat(proc_root), read_meminfo(proc_root)
    values |= {field: netstat.get(name) for field, name in _TCP_COUNTERS.items()}
    values["memory_free_bytes"] = meminfo.get("MemFree")
    values["memory_available_bytes"] = meminfo.get("MemAvailable")
    return Counters(time_s=time.monotonic(), **values)  # type: ignore[arg-type]


def counters_delta(before: Counters, after: Counters) -> Counters:
    """Every field after less before (memory may be negative); None where either is unknown."""
    changes: dict[str, Number | None] = {}
    for name, old in before.as_dict().items():
        new = getattr(after, name)
        changes[name] = None if old is None or new is None else new - old
    return Counters(**changes)  # type: ignore[arg-type]


def steal_pct(delta: Counters) -> float | None:
    """Time the hypervisor gave to others, per cent of all CPU time of the interval."""
    if delta.cpu_steal_s is None or not delta.cpu_total_s:
        return None
    return 100 * delta.cpu_steal_s / delta.cpu_total_s


def foreign_cpu_pct(delta: Counters, own_cpu_s: float) -> float | None:
    """CPU time of everything that is not ours, per cent of one core.

    own_cpu_s: seconds used by the measured trees and by this process. Two ticks are forgiven, the
    uncertainty of the two readings, so that a short interval is not called noisy for its rounding.
    """
    if delta.cpu_busy_s is None or delta.time_s <= 0:
        return None
    # Interrupts are charged to no process, and what the kernel's threads do was left to them by processes; on a machine
    # that is quiet both are the measured traffic's own, and on one that is not the others' processes show.
    kernel_s = (delta.cpu_interrupt_s or 0.0) + max(0.0, delta.cpu_kernel_threads_s or 0.0)
    foreign_s = delta.cpu_busy_s - kernel_s - own_cpu_s - 2 * CPU_TICK_S
    return 100 * max(0.0, foreign_s) / delta.time_s


def noise_reason(delta: Counters, own_cpu_s: float) -> str | None:
    """Why the interval was too noisy to trust, in one line; None when it was quiet or nothing is known."""
    reasons = []
    stolen_pct, foreign_pct = steal_pct(delta), foreign_cpu_pct(delta, own_cpu_s)
    if stolen_pct is not None and stolen_pct > STEAL_LIMIT_PCT:
        reasons.append(f"the hypervisor took {stolen_pct:.1f} % of the CPU time (limit {STEAL_LIMIT_PCT:g} %)")
    if foreign_pct is not None and foreign_pct > FOREIGN_CPU_LIMIT_PCT:
        reasons.append(f"other processes used {foreign_pct:.1f} % of a core (limit {FOREIGN_CPU_LIMIT_PCT:g} %)")
    return "; ".join(reasons) or None
