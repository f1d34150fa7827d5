"""The rows of connections: one step of the ramp of one model, or one trial of the search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from c10k_probe import stats
from c10k_probe.experiment import Row, column, estimate
from c10k_probe.traced import (
    calls_column,
    counted_column,
    done_calls_column,
    dropped_column,
    tracing_column,
    wait_column,
)

_SLOPE = "slope over the ramp"
_EACH = "of the server for one more connection with its first echo, traced, slope over the ramp"

# Part of the ledger -> the column of its slope, server's end.
SERVER_PARTS: Final = {
    "private": "server_private_bytes_per_connection",
    "shared": "server_shared_bytes_per_connection",
    "page_table": "server_page_table_bytes_per_connection",
    "kernel_stack": "server_kernel_stack_bytes_per_connection",
    "slab": "server_slab_bytes_per_connection",
    "socket_page": "server_socket_page_bytes_per_connection",
}
CLIENT_PARTS: Final = {
    "user": "client_user_bytes_per_connection",
    "page_table": "client_page_table_bytes_per_connection",
    "slab": "client_slab_bytes_per_connection",
    "buffer": "client_buffer_bytes_per_connection",
}


def _part(name: str, help: str) -> stats.Interval | None:
    return estimate(name, f"{help}, {_SLOPE}")  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class ConnectionsRow(Row):
    """One step of the ramp of one model, or one trial of its search."""

    model: str = column("how a connection is served", key=True)
    state: str = column("what is held: idle (never used), used (one exchange each), backlogged (unread)", key=True)
    target_count: int = column("connections this step was to reach", key=True, ramp=True)
    open_count: int | None = column("connections held; unless idle, each after an echo of its own")
    ramp_s: float | None = column("first socket() to last first echo of this step")
    connect_rate_per_s: float | None = column("new connections over ramp_s")
    connect_p50_ns: float | None = column("connect(), median of this step's new connections")
    connect_p99_ns: float | None = column("connect(), 99th percentile")
    echo_p50_ns: float | None = column("send() to the whole answer, one after another, median")
    echo_p99_ns: float | None = column("send() to the whole answer, one after another, 99th percentile")
    echo_failed_count: int | None = column("held connections that gave no or a wrong echo")
    tasks_count: int | None = column("threads in all processes of the server")
    user_bytes: int | None = column("PSS of the server's processes")
    page_table_bytes: int | None = column("page tables of the server's processes: VmPTE and their top level")
    kernel_stack_bytes: int | None = column("growth of kernel stacks since no connection was held")
    slab_bytes: int | None = column("growth of slab since no connection was held, both ends")
    server_bytes_per_connection: stats.Interval | None = estimate(
        "server_bytes_per_connection", "user, page tables, stacks, slab and unnamed pages of the server's end, slope"
    )
    client_bytes_per_connection: stats.Interval | None = estimate(
        "client_bytes_per_connection", "user, page tables, slab and data of the client's end, slope over the ramp"
    )
    cpu_user_s: float | None = column("the server's user time in this step, whole clock ticks per process")
    cpu_system_s: float | None = column("the server's system time in this step, whole clock ticks per process")
    voluntary_switches_count: int | None = column("the server's voluntary context switches in this step")
    involuntary_switches_count: int | None = column("the server's involuntary context switches in this step")
    block: int = column("which repetition of the ramp, from 0", key=True)
    cpu_run_s: float | None = column("the server's CPU time in this step by the scheduler's own account")
    unnamed_bytes: int | None = column("growth of pages that no counter names, such as each sending task's page")
    client_cpu_pct: float | None = column("the client's CPU time over ramp_s, of one CPU: up to 100 for each lane")
    echo_asked_count: int | None = column("held connections that were asked for an echo")
    echo_max_ns: float | None = column("send() to the whole answer, longest")
    established_count: int | None = column("the kernel's own count of established sockets of the server")
    server_cpus_count: int | None = column("CPUs the server was pinned to; the client has one apart when there are two")
    memory_read_count: int | None = column("processes whose memory was read for user_bytes; fewer are a scaled sample")
    client_user_bytes: int | None = column("PSS of the client's processes")
    socket_end_bytes: float | None = column("slab of one end of a connection, calibrated")

    # --- since version 2 ---
    processes_count: int | None = column("processes of the server")
    work_s: float | None = column("ramp, echoes and scheduled echoes: what CPU time and switches of this step are of")
    server_cpu_pct: float | None = column("cpu_run_s over work_s, of one CPU")
    switches_per_s: float | None = column("the server's context switches of both kinds over work_s")
    client_lanes_count: int | None = column("client threads that opened at a time: a second is on the server's CPU")

    server_private_bytes_per_connection: stats.Interval | None = _part(SERVER_PARTS["private"], "private user memory")
    server_shared_bytes_per_connection: stats.Interval | None = _part(
        SERVER_PARTS["shared"], "the server's part of user pages that others map too (PSS less private)"
    )
    server_page_table_bytes_per_connection: stats.Interval | None = _part(
        SERVER_PARTS["page_table"], "page tables of the server"
    )
    server_kernel_stack_bytes_per_connection: stats.Interval | None = _part(
        SERVER_PARTS["kernel_stack"], "kernel stacks"
    )
    server_slab_bytes_per_connection: stats.Interval | None = _part(
        SERVER_PARTS["slab"], "active slab objects less the client's end"
    )
    server_socket_page_bytes_per_connection: stats.Interval | None = _part(
        SERVER_PARTS["socket_page"], "pages that no counter names, such as each sending task's, less the client's data"
    )
    client_user_bytes_per_connection: stats.Interval | None = _part(CLIENT_PARTS["user"], "user memory of the client")
    client_page_table_bytes_per_connection: stats.Interval | None = _part(
        CLIENT_PARTS["page_table"], "page tables of the client"
    )
    client_slab_bytes_per_connection: stats.Interval | None = estimate(
        CLIENT_PARTS["slab"], "slab of one end, as calibrated"
    )
    client_buffer_bytes_per_connection: stats.Interval | None = _part(
        CLIENT_PARTS["buffer"], "data charged to the client's sockets"
    )
    slab_bytes_per_connection: stats.Interval | None = _part(
        "slab_bytes_per_connection", "active slab objects, both ends"
    )
    slab_caches: str | None = column("slab cache=bytes for each connection, both ends, largest first")
    server_unread_bytes: int | None = column("bytes that the server has not read, all connections")
    server_unsent_bytes: int | None = column("bytes that the server sent and the client has not acknowledged")
    client_unread_bytes: int | None = column("bytes that the client has not read, all connections")
    receive_buffer_bytes: int | None = column("what the largest receive buffer had to be made to leave so much unread")
    tcp_bytes: int | None = column("growth of what TCP has charged to sockets for data, of the machine (sockstat)")

    explained_bytes: int | None = column("sum of all parts at both ends, growth since no connection was held")
    free_fall_bytes: int | None = column("fall of memory that is free or holds files, since no connection was held")
    unexplained_bytes: int | None = column("free_fall_bytes less explained_bytes")
    unexplained_pct: float | None = column("that, of free_fall_bytes")

    probe_rate_per_s: float | None = column("scheduled echoes asked for a second, on random held connections")
    probe_sent_count: int | None = column("scheduled echoes sent")
    probe_failed_count: int | None = column("scheduled echoes without a right answer in time")
    probe_p50_ns: float | None = column("scheduled echo, intended sending to whole answer, median")
    probe_p99_ns: float | None = column("scheduled echo, intended sending to whole answer, 99th percentile")
    probe_p999_ns: float | None = column("scheduled echo, intended sending to whole answer, 99.9th percentile")
    probe_max_ns: float | None = column("scheduled echo, intended sending to whole answer, longest")
    probe_late_ns: float | None = column("how late the client sent at worst")

    rest_s: float | None = column("how long the held connections were watched doing nothing")
    rest_cpu_pct: float | None = column("the server's CPU time meanwhile, of one CPU")
    rest_switches_count: int | None = column("the server's context switches meanwhile")

    predicted_count: int | None = column("most connections that the limits allow, as doctor predicts before the run")
    predicted_wall: str | None = column("the limit that binds in that prediction")
    wall: str | None = column("the limit that bound")
    wall_kind: str | None = column("whether that is administrative (a setting) or architectural")
    wall_lift: str | None = column("the command that would lift it")
    walls_used: str | None = column("limit=use before the ramp..use now/limit, of each that has a use")
    listen_overflows_count: int | None = column("connections that found the accept queue full, since the ramp began")
    listen_drops_count: int | None = column("connection requests dropped at listeners, since the ramp began")
    tcp_memory_pressures_count: int | None = column("times that TCP came under memory pressure, since the ramp began")

    budget_bytes: int | None = column("memory that the server may take in the search")
    latency_bound_ns: int | None = column("99th percentile of the scheduled echoes that the search allows")
    taken_bytes: int | None = column("all memory that the server takes in the search, also before the first connection")
    fits: str | None = column("yes, or what ended the search in this direction")

    protocol: str | None = column("what an echo is: echo (of bytes) or http (GET with the right answer, kept alive)")
    server_version: str | None = column("what a real server says it is")
    server_settings: str | None = column("settings of its private configuration that bound connections, as they were")

    traced_by: str = tracing_column()
    calls_per_connection: stats.Interval | None = counted_column("calls_per_connection", _EACH)
    accepts_per_connection: stats.Interval | None = counted_column("accepts_per_connection", _EACH)
    calls: str | None = calls_column(_EACH)
    done_calls: str | None = done_calls_column(_EACH)
    voluntary_switches_per_connection: stats.Interval | None = counted_column(
        "voluntary_switches_per_connection", _EACH
    )
    involuntary_switches_per_connection: stats.Interval | None = counted_column(
        "involuntary_switches_per_connection", _EACH
    )
    page_faults_per_connection: stats.Interval | None = counted_column("page_faults_per_connection", _EACH)
    runqueue_wait_ns: stats.Interval | None = wait_column(_EACH)
    trace_dropped_count: int | None = dropped_column()
