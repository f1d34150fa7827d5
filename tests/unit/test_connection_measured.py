"""From a step to its row: what is a column, what stays empty, and what the grade is lowered for."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
from c10k_probe.experiments._connection_measured import refused_row, row_of
from c10k_probe.experiments._connection_ramp import Rest, Step
from c10k_probe.experiments._connection_rows import ConnectionsRow
from c10k_probe.experiments._connection_walls import Stop
from made_ledger import COUNTS, END, PRIVATE, TCP, ledger

from c10k_probe.experiment import flatten
from c10k_probe.limits import Prediction, Wall
from c10k_probe.load import Backlogged, Echoes, Probed, Ramped
from c10k_probe.observe.ledger import Reading

MOST = COUNTS[-1]
WALL = Wall("pids", "administrative", 100, 99, "tasks", "machine", "made up", "lift it")


FACTS = {"server_version": "nginx/1.2", "server_settings": "worker_connections=99"}


def probed(count: int = 1_000, **changes: Any) -> Probed:
    """So many scheduled echoes of 1, 2, 3 ... microseconds, sent on time."""
    known: dict[str, Any] = {
        "intended_count": count,
        "sent_count": count,
        "ok_count": count,
        "failed_count": 0,
        "latency_ns": [1000 * (index + 1) for index in range(count)],
        "longest_late_ns": 10,
        "latency_samples_every": 1,
        "failure": None,
    }
    return Probed(**{**known, **changes})


def measured(**changes: Any) -> ConnectionsRow:
    """The row of the last step of a made-up ramp."""
    held = dataclasses.replace(ledger(), end_bytes=changes.pop("end_bytes", END), no_price=changes.pop("no_price", ""))
    step = Step(
        target=MOST,
        ramped=Ramped(MOST, 1_000, 0.5, [5] * 1_000, None),
        echoes=Echoes(MOST, MOST, 0, [7] * MOST),
        probed=probed(),
        probe_rate_per_s=2_000,
        backlogged=None,
        client_cpu_pct=50.0,
        work_s=2.0,
        before=held.readings[-2],
        now=held.readings[-1],
        established=MOST,
        is_last=True,
        stop=None,
        rest=None,
    )
    watch = SimpleNamespace(refused=lambda name: 3 if name == "ListenDrops" else 0, used=lambda: "pids=1..9/99")
    launch: Any = SimpleNamespace(
        model="thread",
        state="used",
        protocol="http",
        facts=FACTS,
        ledger=held,
        watch=watch,
        server=SimpleNamespace(cpus={0, 2}),
    )
    bench: Any = SimpleNamespace(block=4)
    return row_of(launch, dataclasses.replace(step, **changes), Prediction(100, WALL), bench)


def test_a_good_step() -> None:
    row = measured()
    assert (row.status, row.grade, row.grade_reason) == ("ok", "ok", "")
    assert (row.model, row.state, row.target_count, row.block) == ("thread", "used", MOST, 4)
    assert (row.connect_rate_per_s, row.connect_p50_ns, row.echo_p50_ns) == (2_000, 5, 7)
    assert (row.probe_rate_per_s, row.probe_p50_ns) == (2_000, 500_500)
    assert row.probe_p99_ns == pytest.approx(990_000, rel=1e-3)
    assert row.probe_p999_ns is None  # a thousand do not support it
    assert row.server_private_bytes_per_connection is not None
    assert row.server_private_bytes_per_connection.middle == PRIVATE
    assert row.slab_caches is not None and row.slab_caches.startswith(f"TCP={TCP} ")
    assert (row.predicted_count, row.predicted_wall, row.wall) == (100, "pids", None)
    assert (row.listen_drops_count, row.walls_used) == (3, "pids=1..9/99")


# Columns of a search and of a traced ramp.
ELSEWHERE = {"budget_bytes", "latency_bound_ns", "taken_bytes", "fits", "calls", "done_calls", "trace_dropped_count"}
ELSEWHERE |= {
    f"{name}{end}{unit}"
    for name, unit in (
        *((f"{name}", "_per_connection") for name in ("calls", "accepts", "page_faults")),
        *((f"{name}_switches", "_per_connection") for name in ("voluntary", "involuntary")),
        ("runqueue_wait", "_ns"),
    )
    for end in ("", "_lo", "_hi")
}


def worked(cpu_s: float, switches_count: int) -> Reading:
    """The end of the ramp, by a server that has worked so much, with what TCP has charged."""
    last = ledger().readings[-1]
    work = {"cpu_user_s": cpu_s, "cpu_system_s": cpu_s, "cpu_run_s": cpu_s}
    work |= {f"{kind}voluntary_switches_count": switches_count for kind in ("", "in")}
    return dataclasses.replace(last, server=dataclasses.replace(last.server, **work))


def test_every_column_is_of_some_step() -> None:
    """A column that nothing fills is one that a judge asks for in vain."""
    rows = [
        measured(),
        measured(
            echoes=Echoes(5_000, 5_000, 0, [7] * 5_000),
            probed=probed(5_000),
            rest=Rest(10.0, 0.02, 7),
            stop=Stop("pids: it broke", WALL),
            backlogged=Backlogged(MOST, 64 << 10, 0, 128 << 10, None),
            before=worked(0.0, 0),
            now=worked(0.5, 9),
        ),
    ]
    flat = [flatten(row) for row in rows]
    assert {name for name in flat[0] if all(row[name] is None for row in flat)} - ELSEWHERE == set()
    assert (rows[0].server_cpus_count, rows[1].receive_buffer_bytes) == (2, 128 << 10)


def test_quantiles_that_the_count_supports() -> None:
    few, many = measured(probed=probed(400)), measured(probed=probed(5_000))
    assert (few.probe_p99_ns, few.probe_p999_ns, few.probe_max_ns) == (None, None, 400_000)
    assert many.probe_p999_ns == pytest.approx(4_995_000, rel=1e-3)


def test_an_idle_step_has_no_echoes() -> None:
    row = measured(echoes=None, probed=None, is_last=False)
    assert row.echo_asked_count is row.echo_p50_ns is row.probe_rate_per_s is row.probe_p99_ns is None
    assert row.walls_used is None  # to look at all limits costs memory: only at the end


def test_a_client_that_did_not_keep_to_its_schedule_has_no_latencies() -> None:
    row = measured(probed=probed(sent_count=980))
    assert (row.probe_sent_count, row.probe_failed_count, row.probe_late_ns) == (980, 0, 10)
    assert row.probe_p50_ns is row.probe_p99_ns is row.probe_max_ns is None
    assert row.grade == "shaky"
    assert "under 99% of the scheduled echoes" in row.grade_reason


def test_a_client_that_was_late_itself_is_told() -> None:
    row = measured(probed=probed(longest_late_ns=10_000_000))
    assert row.probe_p99_ns is not None
    assert (row.grade, row.grade_reason) == ("shaky", "the client sent scheduled echoes late itself")


def test_rest_is_of_one_cpu() -> None:
    row = measured(rest=Rest(10.0, 0.02, 7))
    assert (row.rest_s, row.rest_cpu_pct, row.rest_switches_count) == (10.0, pytest.approx(0.2), 7)
    assert measured(rest=Rest(10.0, None, None)).rest_cpu_pct is None


def test_a_wall_is_named_in_columns() -> None:
    row = measured(stop=Stop("pids: it broke", WALL))
    assert (row.status, row.reason) == ("failed", "pids: it broke")
    assert (row.wall, row.wall_kind, row.wall_lift) == ("pids", "administrative", "lift it")
    unknown = measured(stop=Stop("it broke"))
    assert (unknown.status, unknown.wall) == ("failed", None)


def test_the_kernels_count_decides() -> None:
    row = measured(established=MOST - 1)
    assert row.grade == "void"
    assert f"the kernel counts {MOST - 1:,} established, not {MOST:,}" in row.grade_reason
    assert measured(established=None).grade == "ok"


def test_without_a_price_it_says_why() -> None:
    """Slab that cannot be read, or a calibration that failed: one is a matter of rights, the other is not."""
    row = measured(end_bytes=None, no_price="the client could not open its own pairs: socket: no at 3")
    assert (row.grade, row.server_bytes_per_connection) == ("shaky", None)
    assert row.grade_reason == "the client could not open its own pairs: socket: no at 3: the ends cannot be told apart"


def test_the_row_of_a_server_that_died_is_void() -> None:
    """Its memory is that of what was left of it."""
    row = measured(stop=Stop("it was killed at 9 connections", is_death=True))
    assert (row.status, row.grade) == ("failed", "void")
    assert row.grade_reason.startswith("the server died")
    assert measured(stop=Stop("it broke")).grade == "ok"


def test_a_busy_client_lowers_the_grade_of_a_rate() -> None:
    row = measured(client_cpu_pct=81.0)
    assert (row.grade, row.client_lanes_count) == ("shaky", 1)
    assert row.grade_reason == "the rate is the client's own: it used over 80 % of its CPU"


def test_two_lanes_may_use_two_cpus() -> None:
    two = Ramped(MOST, 1_000, 0.5, [5] * 1_000, None, lanes_count=2)
    row = measured(ramped=two, client_cpu_pct=159.0)
    assert (row.grade, row.client_lanes_count, row.client_cpu_pct) == ("ok", 2, 159.0)
    busy = measured(ramped=two, client_cpu_pct=161.0)
    assert busy.grade == "shaky"
    assert "over 80 % of the 2 CPUs that it opens on" in busy.grade_reason


def test_a_refused_step_has_no_numbers_but_its_wall() -> None:
    launch: Any = SimpleNamespace(model="thread", state="used", protocol="echo", facts={})
    bench: Any = SimpleNamespace(block=0)
    row = refused_row(launch, 9, Stop("memory guard: no", WALL), Prediction(None, None), bench)
    assert (row.status, row.grade, row.open_count, row.wall) == ("failed", "void", None, "pids")
    assert row.predicted_count is None
