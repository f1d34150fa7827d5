"""From the readings of a step to its row, and how far that row may be trusted."""

from __future__ import annotations

from typing import Any, Final

from c10k_probe import stats
from c10k_probe.experiment import Bench
from c10k_probe.limits import Prediction
from c10k_probe.load import Echoes, Probed
from c10k_probe.observe.ledger import (
    KERNEL_STACK_BYTES,
    SMALLEST_SLOPE_COUNT,
    Ledger,
    Reading,
    difference,
    total,
    whole,
)

from ._connection_ramp import Launch, Step, switches
from ._connection_rows import CLIENT_PARTS, SERVER_PARTS, ConnectionsRow
from ._connection_walls import Stop

BUSY_CLIENT_PCT: Final = 80
SMALLEST_RATE_COUNT: Final = 200
STRANGE_STACK_BYTES: Final = 4 << 20
STRANGE_STACK_SHARE: Final = 0.1
WORTHLESS_PRICE: Final = 0.2
SMALLEST_END_SHARE: Final = 0.5
SENT_SHARE: Final = 0.99
LATE_NS: Final = 5e6  # once so late moves no 99th percentile of milliseconds


def refused_row(launch: Launch, target: int, stop: Stop, prediction: Prediction, bench: Bench) -> ConnectionsRow:
    """The row of a step that was not taken."""
    return ConnectionsRow(
        model=launch.model,
        state=launch.state,
        protocol=launch.protocol,
        target_count=target,
        block=bench.block,
        status="failed",
        reason=stop.reason,
        grade="void",
        grade_reason="not measured",
        **_prediction(prediction),
        **_stop(stop),
        **launch.facts,
    )


def row_of(launch: Launch, step: Step, prediction: Prediction, bench: Bench) -> ConnectionsRow:
    """The row of a step; it says so when a wall came before the target."""
    grade = _grade(launch.ledger, step)
    columns: dict[str, Any] = {
        **_ramp(step),
        **_echoes(step.echoes),
        **_probe(step.probed, step.probe_rate_per_s),
        "server_cpus_count": len(launch.server.cpus),
        **_server(launch.ledger, step.now),
        **_work(step),
        **_slopes(launch.ledger),
        **_data(launch.ledger, step.now),
        "receive_buffer_bytes": step.backlogged.receive_buffer_bytes if step.backlogged else None,
        **_closing(launch.ledger, step.now),
        **_rest(step),
        **_prediction(prediction),
        **_refusals(launch, step),
        **_stop(step.stop),
        **launch.facts,
    }
    return ConnectionsRow(
        model=launch.model,
        state=launch.state,
        protocol=launch.protocol,
        target_count=step.target,
        block=bench.block,
        status="failed" if step.stop else "ok",
        reason=step.stop.reason if step.stop else "",
        grade=grade.level,
        grade_reason=grade.reason,
        **columns,
    )


# --- groups of columns ------------------------------------------------------------------------------------------------


def _ramp(step: Step) -> dict[str, Any]:
    ramped = step.ramped
    return {
        "open_count": step.now.open_count,
        "established_count": step.established,
        "ramp_s": ramped.ramp_s,
        "connect_rate_per_s": ramped.opened_count / ramped.ramp_s if ramped.ramp_s else None,
        "connect_p50_ns": stats.median(ramped.connect_ns),
        "connect_p99_ns": stats.quantile(ramped.connect_ns, 0.99),
        "client_cpu_pct": step.client_cpu_pct,
        "client_lanes_count": ramped.lanes_count,
    }


def _echoes(echoes: Echoes | None) -> dict[str, Any]:
    if echoes is None:
        return {}
    return {
        "echo_p50_ns": stats.median(echoes.echo_ns),
        "echo_p99_ns": stats.quantile(echoes.echo_ns, 0.99),
        "echo_max_ns": max(echoes.echo_ns, default=None),
        "echo_asked_count": echoes.asked_count,
        "echo_failed_count": echoes.failed_count,
    }


def _probe(probed: Probed | None, rate_per_s: int) -> dict[str, Any]:
    """Latencies only where the client kept to its schedule: else they say little of the server."""
    if probed is None:
        return {}
    asked = {"probe_rate_per_s": rate_per_s, "probe_late_ns": probed.longest_late_ns}
    asked |= {"probe_sent_count": probed.sent_count, "probe_failed_count": probed.failed_count}
    if not _kept_schedule(probed):
        return asked
    return {
        **asked,
        "probe_p50_ns": stats.median(probed.latency_ns),
        "probe_p99_ns": stats.quantile(probed.latency_ns, 0.99),
        "probe_p999_ns": stats.quantile(probed.latency_ns, 0.999),
        "probe_max_ns": max(probed.latency_ns, default=None),
    }


def _kept_schedule(probed: Probed) -> bool:
    return probed.sent_count >= SENT_SHARE * probed.intended_count


def _server(ledger: Ledger, now: Reading) -> dict[str, Any]:
    return {
        "processes_count": now.server.processes_count,
        "tasks_count": now.server.tasks_count,
        "memory_read_count": now.server.read_count,
        "user_bytes": now.server.pss_bytes if now.server.is_complete else None,
        "page_table_bytes": ledger.page_tables(now),
        "kernel_stack_bytes": ledger.grown(now, "kernel_stack_bytes"),
        "slab_bytes": ledger.grown(now, "slab"),
        "unnamed_bytes": ledger.grown(now, "unnamed_bytes"),
        "client_user_bytes": whole(total(*(part.pss_bytes for part in now.clients))),
        "socket_end_bytes": ledger.end_bytes.middle if ledger.end_bytes else None,
    }


def _work(step: Step) -> dict[str, Any]:
    before, now = step.before.server, step.now.server
    run_s, switched = difference(now.cpu_run_s, before.cpu_run_s), switches(before, now)
    return {
        "cpu_user_s": difference(now.cpu_user_s, before.cpu_user_s),
        "cpu_system_s": difference(now.cpu_system_s, before.cpu_system_s),
        "cpu_run_s": run_s,
        "voluntary_switches_count": whole(difference(now.voluntary_switches_count, before.voluntary_switches_count)),
        "involuntary_switches_count": whole(
            difference(now.involuntary_switches_count, before.involuntary_switches_count)
        ),
        "work_s": step.work_s,
        "server_cpu_pct": None if run_s is None else 100 * run_s / step.work_s,
        "switches_per_s": None if switched is None else switched / step.work_s,
    }


def _slopes(ledger: Ledger) -> dict[str, Any]:
    server, client = ledger.server_parts(), ledger.client_parts()
    caches = ledger.cache_slopes()
    return {
        "server_bytes_per_connection": ledger.server_slope(),
        "client_bytes_per_connection": ledger.client_slope(),
        **{column: server[part] for part, column in SERVER_PARTS.items()},
        **{column: client[part] for part, column in CLIENT_PARTS.items()},
        "slab_bytes_per_connection": ledger.slab_slope(),
        "slab_caches": " ".join(f"{name}={size:.0f}" for name, size in caches.items()) or None,
    }


def _data(ledger: Ledger, now: Reading) -> dict[str, Any]:
    server, client = now.server_buffers, now.client_buffers
    return {
        "server_unread_bytes": server.unread_bytes if server else None,
        "server_unsent_bytes": server.unsent_bytes if server else None,
        "client_unread_bytes": client.unread_bytes if client else None,
        "tcp_bytes": ledger.grown(now, "tcp_bytes"),
    }


def _closing(ledger: Ledger, now: Reading) -> dict[str, Any]:
    closing = ledger.closing(now)
    return {
        "explained_bytes": closing.explained_bytes,
        "free_fall_bytes": closing.fall_bytes,
        "unexplained_bytes": closing.unexplained_bytes,
        "unexplained_pct": closing.unexplained_pct,
    }


def _rest(step: Step) -> dict[str, Any]:
    rest = step.rest
    if rest is None:
        return {}
    busy = None if rest.cpu_run_s is None else 100 * rest.cpu_run_s / rest.duration_s
    return {"rest_s": rest.duration_s, "rest_cpu_pct": busy, "rest_switches_count": rest.switches_count}


def _prediction(prediction: Prediction) -> dict[str, Any]:
    return {
        "predicted_count": prediction.count,
        "predicted_wall": prediction.wall.name if prediction.wall else None,
    }


def _refusals(launch: Launch, step: Step) -> dict[str, Any]:
    """The kernel's counters; the use of every limit only at the end, for looking at it fills the kernel's caches."""
    watch = launch.watch
    return {
        "listen_overflows_count": watch.refused("ListenOverflows"),
        "listen_drops_count": watch.refused("ListenDrops"),
        "tcp_memory_pressures_count": watch.refused("TCPMemoryPressures"),
        "walls_used": watch.used() if step.is_last else None,
    }


def _stop(stop: Stop | None) -> dict[str, Any]:
    wall = stop.wall if stop else None
    if wall is None:
        return {}
    return {"wall": wall.name, "wall_kind": wall.kind, "wall_lift": wall.lift}


# --- grade ------------------------------------------------------------------------------------------------------------


def _grade(ledger: Ledger, step: Step) -> stats.Grade:
    grade, now = stats.Grade(), step.now
    if step.stop is not None and step.stop.is_death:
        grade = grade.worse("void", "the server died: what was read then is of nothing")
    if step.established is not None and step.established != now.open_count:
        grade = grade.worse("void", f"the kernel counts {step.established:,} established, not {now.open_count:,}")
    surplus = ledger.stack_surplus(now)
    if abs(surplus) > max(STRANGE_STACK_BYTES, STRANGE_STACK_SHARE * now.server.tasks_count * KERNEL_STACK_BYTES):
        grade = grade.worse("void", "other tasks came or went meanwhile, with their kernel stacks and slab")
    if not now.server.is_complete:
        grade = grade.worse("shaky", "memory of some processes could not be read")
    grade = _grade_of_memory(grade, ledger, now)
    return _grade_of_probe(_grade_of_rate(grade, step), step.probed)


def _grade_of_rate(grade: stats.Grade, step: Step) -> stats.Grade:
    """By the CPUs that the client's lanes may use, one each: where it fills all of them, it decides the rate."""
    lanes_count = step.ramped.lanes_count
    is_busy = (step.client_cpu_pct or 0) > BUSY_CLIENT_PCT * lanes_count
    if not is_busy or step.ramped.opened_count <= SMALLEST_RATE_COUNT:
        return grade
    whose = "its CPU" if lanes_count == 1 else f"the {lanes_count} CPUs that it opens on, the server's among them"
    return grade.worse("shaky", f"the rate is the client's own: it used over {BUSY_CLIENT_PCT} % of {whose}")


def _grade_of_memory(grade: stats.Grade, ledger: Ledger, now: Reading) -> stats.Grade:
    if ledger.end_bytes is None:
        return grade.worse("shaky", f"{ledger.no_price or 'no price of one end'}: the ends cannot be told apart")
    price = stats.grade_interval(ledger.end_bytes, "price of one end")
    doubt = ledger.end_bytes.relative_half_width
    grade = grade.worse("void" if doubt is not None and doubt > WORTHLESS_PRICE else price.level, price.reason)
    if now.open_count < SMALLEST_SLOPE_COUNT:
        return grade.worse("shaky", f"under {SMALLEST_SLOPE_COUNT} connections rounding hides what one of them takes")
    if ledger.slab_of_server(now) < SMALLEST_END_SHARE:
        return grade.worse(
            "void", "slab fell while connections were added: something else on this machine freed memory"
        )
    interval = stats.grade_interval(ledger.server_slope(), "bytes per connection")
    return grade.worse(interval.level, interval.reason)


def _grade_of_probe(grade: stats.Grade, probed: Probed | None) -> stats.Grade:
    if probed is None:
        return grade
    if not _kept_schedule(probed):
        return grade.worse("shaky", f"the client sent under {SENT_SHARE:.0%} of the scheduled echoes: no latencies")
    p99 = stats.quantile(probed.latency_ns, 0.99)
    if p99 is not None and (probed.longest_late_ns or 0) > max(p99, LATE_NS):
        return grade.worse("shaky", "the client sent scheduled echoes late itself")
    return grade
