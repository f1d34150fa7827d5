"""Rows, views, charts and findings of slow-clients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from c10k_probe import stats
from c10k_probe.experiment import Chart, Finding, Row, Samples, View, column, estimate
from c10k_probe.load.slow import KINDS

from ._slow_design import CPU, LEAD_NS, NS_PER_S
from ._slow_search import SERVED_PCT, share_pct, starving, subject_of, sweeps_of
from ._slow_together import FAILURE, REFUSAL

BUSY_PCT = 80  # of the sender, of one CPU
LATE_NS = 20_000_000  # of the sender
Key = tuple[str, str, int, str]  # server, kind, slow clients, defence


@dataclass(frozen=True, kw_only=True)
class SlowRow(Row):
    """One server under one kind and number of slow clients; launches together."""

    server: str = column("system under test", key=True)
    kind: str = column("what slow clients do: head, body, read, idle; none: nobody; cpu: one request works", key=True)
    clients_count: int = column("slow clients, or requests that work", key=True, ramp=True)
    defence: str = column("whether the server gives up slow clients: on, off; none: it has no such setting", key=True)
    defence_settings: str | None = column("the settings that were made for it")
    defence_ns: int | None = column("after how long it gives up a slow client; empty without defence")
    server_version: str | None = column("what the server says it is; empty for the project's own")
    workers_count: int | None = column("workers of a pool, each of which serves one connection at a time")
    launches_count: int | None = column("fresh servers that were measured")
    timeout_ns: int | None = column("within which an innocent must be answered to count as served")
    innocents_count: int | None = column("innocents that are judged, of all launches")
    served_count: int | None = column("of these, answered with 2xx within --served-within of their moment")
    served_pct: stats.Interval | None = estimate("served_pct", "share that was served, median of launches")
    innocent_p50_ns: float | None = column("median latency from the intended moment; empty where that many had none")
    innocent_p99_ns: float | None = column("99th percentile of it; empty where it or the number of samples lacks")
    innocent_longest_ns: stats.Interval | None = estimate(
        "innocent_longest_ns", "longest latency of a served one, median of launches"
    )
    starvation_ns: float | None = column("first slow client to when nobody was served any more, median of launches")
    recovery_ns: stats.Interval | None = estimate(
        "recovery_ns", "slow clients' leaving to the first answer of 20 or more in turn within 1 s, median of launches"
    )
    recovery_resolution_ns: float | None = column("how much sooner it could have been: the innocents' gap, the most")
    watched_ns: float | None = column("for how long that was waited for, the least")
    exhausted: str | None = column("what the server had no more of at the end: workers, accept queue, descriptors ...")
    died_count: int | None = column("launches in which the server's main process ended")
    death: str | None = column("how it ended")
    work_taken_ns: float | None = column("time to the answer of the request that works, median of launches")
    timed_out_count: int | None = column("innocents without an answer in time, judged or not")
    refused_count: int | None = column("innocents whose connection was refused, judged or not")
    reset_count: int | None = column("innocents whose connection broke, judged or not")
    wrong_count: int | None = column("innocents whose answer was wrong, judged or not")
    unsent_count: int | None = column("innocents that this side could not send, judged or not")
    slow_open_count: int | None = column("slow clients' connections that stood at the end, the fewest")
    slow_pending_count: int | None = column(
        "slow clients' connections in the midst of a handshake at the end, the most"
    )
    slow_ended_count: int | None = column("slow clients' connections that the server ended, of all launches")
    slow_refused_count: int | None = column("slow clients' connections that were refused, of all launches")
    slow_sent_bytes: int | None = column("bytes that slow clients sent, of all launches")
    slow_received_bytes: int | None = column("bytes that slow clients received, of all launches")
    slow_bytes: int | None = column("bytes that slow clients sent or read one at a time, of all launches")
    slow_latest_ns: float | None = column("how late such a byte was at most")
    slow_cpu_pct: float | None = column("CPU of the process that plays the slow clients, of one CPU, the most")
    slow_pss_bytes: float | None = column("PSS of that process, the most")
    inside_count: int | None = column("connections that the server had accepted at the end, the most")
    queued_count: int | None = column("connections in its accept queue at the end, the most")
    backlog_count: int | None = column("length of its accept queue")
    descriptors_count: int | None = column("descriptors of its process that has most, the most")
    descriptors_limit_count: int | None = column("that process's limit")
    processes_count: int | None = column("its processes at the end, the most")
    threads_count: int | None = column("its threads at the end, the most")
    pss_bytes: float | None = column("PSS of its processes at the end, the most")
    dropped_count: int | None = column(
        "attempts to connect that its listening socket let go; Apache's: and deferred ends of handshakes"
    )
    late_ns: float | None = column("how late the sender of innocents was at most")
    sender_pct: float | None = column("CPU of the sender of innocents, of one CPU, the most")


SLOW, SERVER = "slow clients", "the server at the end"
VIEWS = (
    View("served", "served_pct", "served_lo_pct", "served_hi_pct"),
    View("p50", "innocent_p50_ns"),
    View("p99", "innocent_p99_ns"),
    View("longest", "innocent_longest_ns", "innocent_longest_lo_ns", "innocent_longest_hi_ns"),
    View("exhausted", "exhausted"),
    View("starved after", "starvation_ns", priority=2),
    View("recovered after", "recovery_ns", "recovery_lo_ns", "recovery_hi_ns"),
    View("died", "died_count", priority=2),
    View("innocents", "innocents_count", priority=3),
    View("open", "slow_open_count", group=SLOW),
    View("pending", "slow_pending_count", group=SLOW),
    View("thrown out", "slow_ended_count", group=SLOW),
    View("slow bytes", "slow_bytes", group=SLOW),
    View("CPU", "slow_cpu_pct", group=SLOW),
    View("PSS", "slow_pss_bytes", group=SLOW),
    View("inside", "inside_count", group=SERVER),
    View("queued", "queued_count", group=SERVER),
    View("of", "backlog_count", group=SERVER),
    View("dropped", "dropped_count", group=SERVER),
    View("descriptors", "descriptors_count", group=SERVER),
    View("threads", "threads_count", group=SERVER),
    View("PSS", "pss_bytes", group=SERVER),
)
_LINES = ("server", "kind", "defence")
CHARTS = (
    *(
        Chart(
            "served" if kind == "head" else f"served-{kind}",
            f"Innocents that were served in time, over slow clients of kind {kind}",
            "clients_count",
            "served_pct",
            "served_lo_pct",
            "served_hi_pct",
            series=("server", "defence"),
            log_x=True,
            where=(("kind", (kind,)),),
            at_end=kind == "head",
        )
        for kind in KINDS
    ),
    Chart(
        "latency",
        "Longest wait of a served innocent, over slow clients",
        "clients_count",
        "innocent_longest_ns",
        series=_LINES,
        log_x=True,
        log_y=True,
        where=(("kind", ("head", "body", "read", "idle")),),
    ),
    Chart("recovery", "Time to recover once the slow clients leave", "clients_count", "recovery_ns", series=_LINES),
)
_SUMS = {
    name: name
    for name in (
        "innocents_count",
        "served_count",
        "timed_out_count",
        "refused_count",
        "reset_count",
        "wrong_count",
        "unsent_count",
        "slow_ended_count",
        "slow_refused_count",
        "slow_sent_bytes",
        "slow_received_bytes",
        "slow_bytes",
    )
}
_MOST_WHOLE = (
    "workers_count",
    "defence_ns",
    "timeout_ns",
    "slow_pending_count",
    "inside_count",
    "queued_count",
    "backlog_count",
    "dropped_count",
    "descriptors_count",
    "descriptors_limit_count",
    "processes_count",
    "threads_count",
)
_MOST = {
    "recovery_resolution_ns": "recovery_resolution_ns",
    "slow_latest_ns": "slow_latest_ns",
    "slow_cpu_pct": "slow_cpu_pct",
    "slow_pss_bytes": "slow_pss_bytes",
    "pss_bytes": "pss_bytes",
    "late_ns": "late_ns",
    "sender_pct": "sender_pct",
}
_MEDIANS = ("starvation_ns", "work_taken_ns")
_ESTIMATES = {"innocent_longest_ns": "longest_ns", "recovery_ns": "recovery_ns"}


def rows(samples: Sequence[Samples], seed: int) -> list[SlowRow]:
    """One row for each cell that has launches."""
    groups: dict[Key, list[Samples]] = {}
    for item in samples:
        groups.setdefault(key_of(item), []).append(item)
    return [_row(key, groups[key], seed) for key in sorted(groups, key=lambda key: (key[1], key[0], key[3], key[2]))]


def key_of(item: Samples) -> Key:
    """Server, kind, slow clients, defence."""
    server, kind, count, defence = item.key.values()
    return str(server), str(kind), int(count), str(defence)


def _row(key: Key, launches: Sequence[Samples], seed: int) -> SlowRow:
    """From the launches that came to something; one that did not, or could not be, makes the row not ok."""
    sound = [item for item in launches if not _end_of(item)]
    row = _measured_row(key, sound, seed) if sound else _empty_row(key)
    ends = [end for item in launches if (end := _end_of(item))]
    if not ends:
        return row
    status, reason = ends[0]
    return replace(row, status=status, reason=reason)


def _end_of(item: Samples) -> tuple[str, str] | None:
    """Status and reason of a launch that came to nothing."""
    for fact, status in ((FAILURE, "failed"), (REFUSAL, "skipped")):
        if reason := item.facts.get(fact):
            return status, str(reason)
    return None


def _empty_row(key: Key) -> SlowRow:
    server, kind, count, defence = key
    reason = "not measured"
    return SlowRow(server=server, kind=kind, clients_count=count, defence=defence, grade="void", grade_reason=reason)


def _measured_row(key: Key, launches: Sequence[Samples], seed: int) -> SlowRow:
    server, kind, count, defence = key
    found: dict[str, Any] = {name: _sum(name, launches) for name in _SUMS}
    for name in _MOST_WHOLE:
        most = max(_known(name, launches), default=None)
        found[name] = None if most is None else int(most)
    found |= {name: max(_known(fact, launches), default=None) for name, fact in _MOST.items()}
    found |= {name: _median_of_all(name, launches) for name in _MEDIANS}
    for name, fact in _ESTIMATES.items():
        values = _known(fact, launches)
        found[name] = stats.interval_of_all(values, seed) if len(values) == len(launches) else None
    found["slow_open_count"] = _least("slow_open_count", launches)
    found["watched_ns"] = min(_known("watched_ns", launches), default=None)
    found["served_pct"] = stats.interval_of_all([share_pct(item) for item in launches], seed)
    latencies = [math.inf if value < 0 else float(value) for item in launches for value in item.values["latency_ns"]]
    found |= {f"innocent_p{share}_ns": _quantile(latencies, share / 100) for share in (50, 99)}
    found |= {name: _words(name, launches) for name in ("exhausted", "death", "defence_settings", "server_version")}
    found["died_count"] = sum(bool(item.facts.get("death")) for item in launches)
    grade = _grade(found, launches, kind)
    return SlowRow(
        server=server,
        kind=kind,
        clients_count=count,
        defence=defence,
        launches_count=len(launches),
        grade=grade.level,
        grade_reason=grade.reason,
        **found,
    )


def _grade(found: Mapping[str, Any], launches: Sequence[Samples], kind: str) -> stats.Grade:
    grade = stats.Grade()
    if len(launches) < stats.MINIMUM_LAUNCHES:
        grade = grade.worse("shaky", f"share served: too few launches for an interval ({len(launches)})")
    elif (interval := found["served_pct"]) and interval.high - interval.low > 2 * SERVED_PCT / 10:
        grade = grade.worse("shaky", "share served: the launches do not agree")
    if not found["innocents_count"]:
        grade = grade.worse("void", "no innocent was due while it mattered")
    for name, who in (("slow_failure", "slow clients"), ("sender_failure", "the sender of innocents")):
        if failure := _words(name, launches):
            grade = grade.worse("void", f"{who} ran out of something first: {failure}")
    if (found["sender_pct"] or 0) > BUSY_PCT:
        grade = grade.worse("void", f"the sender of innocents used {found['sender_pct']:.0f} % of its CPU")
    if (found["late_ns"] or 0) > LATE_NS:
        grade = grade.worse("shaky", f"the sender of innocents was up to {found['late_ns'] / 1e6:.0f} ms late")
    if (found["defence_ns"] or 0) >= (found["timeout_ns"] or 0) + LEAD_NS and found["slow_bytes"]:
        seconds = found["defence_ns"] / NS_PER_S
        grade = grade.worse("shaky", f"the defence acts after {seconds:g} s, when the first innocents have given up")
    if kind != CPU and (found["slow_cpu_pct"] or 0) > BUSY_PCT:
        grade = grade.worse("shaky", f"the slow clients' process used {found['slow_cpu_pct']:.0f} % of its CPU")
    return grade


def _known(name: str, launches: Sequence[Samples]) -> list[float]:
    return [float(value) for item in launches if isinstance(value := item.facts.get(name), (int, float))]


def _sum(name: str, launches: Sequence[Samples]) -> int | None:
    """Over all launches; None unless each has it."""
    values = _known(name, launches)
    return round(sum(values)) if values and len(values) == len(launches) else None


def _least(name: str, launches: Sequence[Samples]) -> int | None:
    least = min(_known(name, launches), default=None)
    return None if least is None else int(least)


def _median_of_all(name: str, launches: Sequence[Samples]) -> float | None:
    """None unless each launch has it: those that lack it never came to it."""
    values = _known(name, launches)
    return stats.median(values) if len(values) == len(launches) else None


def _quantile(latencies: Sequence[float], share: float) -> float | None:
    """None where it lies among those that were not served, or the count does not support it."""
    rank = math.ceil(share * (len(latencies) - 1))
    if not latencies or math.isinf(sorted(latencies)[rank]):
        return None
    served = [value for value in latencies if not math.isinf(value)]
    return stats.quantile([*served, *[max(served)] * (len(latencies) - len(served))], share)


def _words(name: str, launches: Sequence[Samples]) -> str | None:
    """What the launches say, each thing once; None where none says anything."""
    parts = [part for item in launches for part in str(item.facts.get(name) or "").split(", ") if part]
    return ", ".join(dict.fromkeys(parts)) or None


# --- findings ---------------------------------------------------------------------------------------------------------


def findings(samples: Sequence[Samples]) -> list[Finding]:
    """For each sweep the fewest slow clients at which fewer than 90 % were served; launches that are void no part."""
    sound = [item for item in samples if not _is_overloaded(item)]
    made = (starving(subject_of(*sweep), shares) for sweep, shares in sweeps_of(sound).items())
    return [finding for finding in made if finding]


def _is_overloaded(item: Samples) -> bool:
    return any(value > BUSY_PCT for value in _known("sender_pct", [item]))
