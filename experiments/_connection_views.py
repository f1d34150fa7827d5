"""The tables and charts of connections."""

from __future__ import annotations

from typing import Final

from c10k_probe.experiment import AnyChart, Chart, Stack, View
from c10k_probe.traced import views

from ._connection_rows import CLIENT_PARTS, SERVER_PARTS

_SERVER = "memory of the server's end, for each connection"
_CLIENT = "memory of the client's end, for each connection"
_CLOSING = "the ledger against free memory"
_WORK = "work of the server"
_LIVE = "scheduled echoes on random held connections"
_ECHO = "echoes one after another"
_REST = "held connections doing nothing"
_WALLS = "limits"
_SEARCH = "search"


def _of_part(header: str, column: str, group: str, priority: int = 1) -> View:
    stem = column.removesuffix("_bytes_per_connection")
    low, high = f"{stem}_lo_bytes_per_connection", f"{stem}_hi_bytes_per_connection"
    return View(header, column, low, high, group=group, priority=priority)


VIEWS: Final = (
    # what 80 columns have room for comes first: what is held, whether it answers, what it takes, what will end it
    View("open", "open_count"),
    View("p99", "probe_p99_ns"),
    View("mem/conn", "server_bytes_per_connection"),
    View("new/s", "connect_rate_per_s", priority=3),
    View("user", "server_private_bytes_per_connection", priority=6),
    View("tables", "server_page_table_bytes_per_connection", priority=9),
    View("stack", "server_kernel_stack_bytes_per_connection", priority=8),
    View("slab", "server_slab_bytes_per_connection", priority=7),
    View("pages", "server_socket_page_bytes_per_connection", priority=9),
    View("CPU", "server_cpu_pct", priority=4),
    View("switches", "switches_per_s", priority=5),
    View("client", "client_bytes_per_connection", priority=10),
    View("fits", "fits", priority=2),
    View("predicted", "predicted_wall"),
    _of_part("private", SERVER_PARTS["private"], _SERVER),
    _of_part("shared", SERVER_PARTS["shared"], _SERVER, 4),
    _of_part("tables", SERVER_PARTS["page_table"], _SERVER),
    _of_part("stack", SERVER_PARTS["kernel_stack"], _SERVER),
    _of_part("slab", SERVER_PARTS["slab"], _SERVER),
    _of_part("pages", SERVER_PARTS["socket_page"], _SERVER),
    _of_part("sum", "server_bytes_per_connection", _SERVER),
    _of_part("user", CLIENT_PARTS["user"], _CLIENT),
    _of_part("tables", CLIENT_PARTS["page_table"], _CLIENT, 2),
    _of_part("slab", CLIENT_PARTS["slab"], _CLIENT),
    _of_part("data", CLIENT_PARTS["buffer"], _CLIENT),
    _of_part("sum", "client_bytes_per_connection", _CLIENT),
    _of_part("slab, both ends", "slab_bytes_per_connection", _CLIENT, 3),
    View("sum of parts", "explained_bytes", group=_CLOSING),
    View("free memory fell by", "free_fall_bytes", group=_CLOSING),
    View("unexplained", "unexplained_bytes", group=_CLOSING),
    View("of the fall", "unexplained_pct", group=_CLOSING),
    View("p50", "probe_p50_ns", group=_LIVE),
    View("p99", "probe_p99_ns", group=_LIVE),
    View("p99.9", "probe_p999_ns", group=_LIVE),
    View("longest", "probe_max_ns", group=_LIVE),
    View("sent", "probe_sent_count", group=_LIVE, priority=2),
    View("failed", "probe_failed_count", group=_LIVE),
    View("client late by", "probe_late_ns", group=_LIVE, priority=3),
    View("p50", "echo_p50_ns", group=_ECHO),
    View("p99", "echo_p99_ns", group=_ECHO),
    View("longest", "echo_max_ns", group=_ECHO),
    View("asked", "echo_asked_count", group=_ECHO, priority=2),
    View("failed", "echo_failed_count", group=_ECHO),
    View("ramp", "ramp_s", group=_WORK),
    View("connect p50", "connect_p50_ns", group=_WORK, priority=3),
    View("tasks", "tasks_count", group=_WORK, priority=2),
    View("CPU, all", "cpu_run_s", group=_WORK),
    View("voluntary", "voluntary_switches_count", group=_WORK),
    View("involuntary", "involuntary_switches_count", group=_WORK),
    View("watched", "rest_s", group=_REST),
    View("CPU", "rest_cpu_pct", group=_REST),
    View("switches", "rest_switches_count", group=_REST),
    View("open", "open_count", group=_WALLS),
    View("predicted", "predicted_count", group=_WALLS),
    View("by", "predicted_wall", group=_WALLS),
    View("bound by", "wall", group=_WALLS),
    View("kind", "wall_kind", group=_WALLS, priority=3),
    View("queue overflows", "listen_overflows_count", group=_WALLS, priority=2),
    View("taken", "taken_bytes", group=_SEARCH),
    View("budget", "budget_bytes", group=_SEARCH, priority=2),
    View("fits", "fits", group=_SEARCH),
    *views("connection", calls="done_calls"),
)


def _chart(name: str, title: str, y: str, interval: tuple[str, str] = ("", ""), *, log_y: bool = True) -> Chart:
    """A chart over the connections held, one line for each model."""
    return Chart(name, title, "open_count", y, *interval, series=("model", "state"), log_x=True, log_y=log_y)


_PARTS: Final = {
    "private memory": SERVER_PARTS["private"],
    "shared memory": SERVER_PARTS["shared"],
    "page tables": SERVER_PARTS["page_table"],
    "kernel stacks": SERVER_PARTS["kernel_stack"],
    "slab": SERVER_PARTS["slab"],
    "socket pages": SERVER_PARTS["socket_page"],
}

CHARTS: Final[tuple[AnyChart, ...]] = (
    _chart(
        "memory",
        "What one connection takes at the server",
        "server_bytes_per_connection",
        ("server_lo_bytes_per_connection", "server_hi_bytes_per_connection"),
    ),
    Stack(
        "ledger",
        "Where the memory of one connection goes, server's end",
        ("model", "state"),
        tuple(_PARTS.values()),
        tuple(_PARTS),
        last="target_count",
    ),
    Stack(
        "ledger-shares",
        "Where the memory of one connection goes, shares of each model's own",
        ("model", "state"),
        tuple(_PARTS.values()),
        tuple(_PARTS),
        last="target_count",
        as_shares=True,
    ),
    _chart("latency-p50", "Scheduled echo among held connections, median", "probe_p50_ns"),
    _chart("latency-p99", "Scheduled echo among held connections, 99th percentile", "probe_p99_ns"),
    _chart("echo-p50", "Echo on a held connection, one after another, median", "echo_p50_ns", log_y=False),
    _chart("echo-p99", "Echo on a held connection, one after another, 99th percentile", "echo_p99_ns"),
    _chart("rate", "New connections a second, each with its first echo", "connect_rate_per_s"),
    _chart("tasks", "Threads in the server's processes", "tasks_count"),
)
