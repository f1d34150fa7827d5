"""``connections`` on real sockets: what it says is held is what the kernel lists, and nothing stays behind."""

from __future__ import annotations

import os
import signal
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import kernel
import psutil
import pytest
from command import Started, rows_of, run, started, wait_for

from c10k_probe import native
from c10k_probe.load import Holder
from c10k_probe.observe import sockets, tree
from c10k_probe.servers import BASIC_MODELS, ReferenceServer

Rows = list[dict[str, str]]
TASKS: dict[str, Callable[[int], int]] = {
    "epoll": lambda count: 1,
    "thread": lambda count: count + 1,
    "fork": lambda count: count + 1,
}


def of_model(rows: Rows, model: str) -> Rows:
    """The rows of one model, in the order of its ramp."""
    return [row for row in rows if row["model"] == model]


def measured(cwd: Path, *arguments: object) -> Rows:
    """Run with these arguments; the rows of the CSV on stdout."""
    finished = run("connections", "--csv", "-", *arguments, cwd=cwd)
    assert finished.code == 0, finished.stderr
    return rows_of(finished.stdout)


@pytest.fixture(scope="module")
def to_23(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """All models to 23 in the default steps."""
    return measured(tmp_path_factory.mktemp("to23"), "--to", 23)


@pytest.fixture(scope="module")
def to_400(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """All models to 400 in five steps."""
    return measured(tmp_path_factory.mktemp("to400"), "--to", 400, "--steps", 5)


def test_models_are_all_there(to_23: Rows) -> None:
    """Each model once; the models of the product are the ones that are tested here."""
    assert {row["model"] for row in to_23} == set(BASIC_MODELS) == set(TASKS)


@pytest.mark.parametrize("model", TASKS)
def test_steps_are_exact_at_the_end(to_23: Rows, model: str) -> None:
    """The ramp rises, has each step once, and ends at what was asked for."""
    targets = [int(row["target_count"]) for row in of_model(to_23, model)]
    assert targets == sorted(set(targets))
    assert targets[-1] == 23
    assert 5 <= len(targets) <= 10


@pytest.mark.parametrize("model", TASKS)
def test_what_is_said_to_be_open_is_open(to_23: Rows, to_400: Rows, model: str) -> None:
    """At every step target, open, established and the echoes that came back are the same number."""
    for row in (*of_model(to_23, model), *of_model(to_400, model)):
        names = ("target_count", "open_count", "established_count", "echo_asked_count")
        assert len({row[name] for name in names}) == 1, row
        assert row["echo_failed_count"] == "0"
        assert row["status"] == "ok"


@pytest.mark.parametrize("model", TASKS)
def test_tasks_are_those_of_the_model(to_23: Rows, to_400: Rows, model: str) -> None:
    """One loop, or one task for each connection beside the one that accepts."""
    for row in (*of_model(to_23, model), *of_model(to_400, model)):
        assert int(row["tasks_count"]) == TASKS[model](int(row["open_count"]))
        assert int(row["memory_read_count"]) == (int(row["open_count"]) + 1 if model == "fork" else 1)


@pytest.mark.parametrize("model", TASKS)
def test_memory_and_work_are_there(to_400: Rows, model: str) -> None:
    """What 400 connections must take is taken, by the part of the ledger that must pay."""
    last = of_model(to_400, model)[-1]
    positive = ["user_bytes", "page_table_bytes", "slab_bytes", "client_user_bytes", "ramp_s", "connect_rate_per_s"]
    positive += ["connect_p50_ns", "echo_p50_ns", "echo_max_ns", "cpu_run_s", "voluntary_switches_count"]
    positive += ["kernel_stack_bytes"] if model != "epoll" else []
    assert [name for name in positive if not float(last[name]) > 0] == []
    assert last["echo_p99_ns"] == ""  # 400 samples do not support it


def test_a_process_costs_more_memory_than_a_thread(to_400: Rows) -> None:
    """Order alone: user memory and page tables of 400 processes, threads, and one loop."""
    for name in ("user_bytes", "page_table_bytes"):
        fork, thread, epoll = (int(of_model(to_400, model)[-1][name]) for model in ("fork", "thread", "epoll"))
        assert fork > thread > epoll


def test_client_adds_at_most_256_bytes_per_connection(tmp_path: Path) -> None:
    """User memory of the client over the count of connections, up to 2,000, both ends of the ramp and its slope."""
    rows = measured(tmp_path, "--to", 2000, "--model", "epoll", "--steps", 8)
    points = [(int(row["open_count"]), int(row["client_user_bytes"])) for row in rows]
    assert points[-1][0] == 2000
    slope, _ = statistics.linear_regression([count for count, _ in points], [size for _, size in points])
    ends = (points[-1][1] - points[0][1]) / (points[-1][0] - points[0][0])
    assert max(slope, ends) <= 256


# --- the command, held at the end of its ramp -------------------------------------------------------------------------

# Stands for the client's helper: passes everything through, but waits before it lets go of the connections.
HELD_CLIENT = """#!{python}
import pathlib, subprocess, sys, time
command = [{real!r}, *sys.argv[1:]]
if "--hello" in command:
    sys.exit(subprocess.call(command))
client = subprocess.Popen(command, stdin=subprocess.PIPE)
reached = 0
for line in sys.stdin.buffer:
    words = line.split()
    reached = int(words[1]) if words[0] == b"ramp" else reached
    if words[0] == b"close" and reached == 23:
        gate = pathlib.Path({folder!r}) / "held"
        gate.touch()
        while gate.exists():
            time.sleep(0.005)
    client.stdin.write(line)
    client.stdin.flush()
client.stdin.close()
sys.exit(client.wait())
"""


@pytest.fixture
def helpers_with_held_client(tmp_path: Path) -> Path:
    """A folder of helpers in which the client's is held: ``tmp_path / "held"`` exists meanwhile."""
    folder = tmp_path / "helpers"
    folder.mkdir()
    for path in native.folder().iterdir():
        (folder / path.name).symlink_to(path)
    script = folder / "connection_holder"
    script.unlink()
    real = str(native.find("connection_holder"))
    script.write_text(HELD_CLIENT.format(python=sys.executable, real=real, folder=str(tmp_path)), encoding="utf-8")
    script.chmod(0o755)
    return folder


def listener_of(command: Started) -> kernel.Socket:
    """The listening socket of the reference server that a command runs."""
    server = kernel.leader_running("reference_server", command.living())
    assert server is not None
    inodes = kernel.socket_inodes(server)
    (listener,) = [item for item in kernel.tcp_sockets() if item.state == kernel.LISTEN and item.inode in inodes]
    return listener


def test_23_connections_are_23_in_the_kernels_own_list(
    tmp_path: Path, helpers_with_held_client: Path, require_tool: Callable[[str], str]
) -> None:
    """Held at the end of each ramp: 23 by /proc/net/tcp and by ss, on loopback alone; afterwards none is left."""
    ss, gate = require_tool("ss"), tmp_path / "held"
    changes = {native.HELPERS_VARIABLE: str(helpers_with_held_client)}
    ports = []
    with started("connections", "--to", 23, "--csv", "rows.csv", cwd=tmp_path, changes=changes) as command:
        for _ in BASIC_MODELS:
            command.until(gate.exists, "the end of a ramp")
            listener = listener_of(command)
            assert listener.address == "127.0.0.1"
            assert kernel.established_on(listener.port) == 23
            assert 23 in [kernel.established_by_ss(ss, listener.port) for _ in range(3)]
            ports.append(listener.port)
            gate.unlink()
        finished = command.finish()
    assert finished.code == 0, finished.stderr
    rows = rows_of((tmp_path / "rows.csv").read_text(encoding="utf-8"))
    assert {of_model(rows, model)[-1]["open_count"] for model in BASIC_MODELS} == {"23"}
    for port in ports:
        assert kernel.on_port(port) == []  # neither established nor TIME_WAIT


# --- server and client without the command ------------------------------------------------------------------------


@pytest.mark.parametrize("model", TASKS)
def test_the_products_count_is_the_kernels(model: str, require_tool: Callable[[str], str]) -> None:
    """Server, client, the product's netlink count, /proc/net/tcp and ss agree while 23 are held; none are left."""
    ss = require_tool("ss")
    with ReferenceServer(model) as server, Holder(server.port, 23) as holder:
        assert holder.ramp(23).open_count == 23

        def counts() -> dict[str, int | None]:
            return {
                "server": server.status()["open_count"],
                "netlink": sockets.established_count(server.port),
                "/proc/net/tcp": kernel.established_on(server.port),
                "ss": kernel.established_by_ss(ss, server.port),
            }

        # More than one look: no list of the kernel is a snapshot while other programs open and close sockets.
        assert any(set(counts().values()) == {23} for _ in range(5)), counts()
        addresses = {item.address for item in kernel.tcp_sockets() if item.port == server.port}
        assert addresses == {"127.0.0.1"}
        inodes = kernel.socket_inodes(server.session)
        ipv6 = Path("/proc/net/tcp6")
        listed = ipv6.read_text(encoding="ascii").splitlines()[1:] if ipv6.exists() else []
        assert not inodes & {int(line.split()[9]) for line in listed}
    assert kernel.on_port(server.port) == []


def test_sources_rotate_in_127_8() -> None:
    """The client's ends have addresses in 127/8 that are not the server's, more than one above 2,000."""
    with ReferenceServer("epoll") as server, Holder(server.port, 2500) as holder:
        assert holder.ramp(2500).open_count == 2500
        clients = {item.address for item in kernel.tcp_sockets() if item.remote_port == server.port}
    assert len(clients) > 1
    assert all(address.startswith("127.") and address != "127.0.0.1" for address in clients)


@pytest.mark.parametrize("model", TASKS)
def test_user_memory_is_that_of_smaps_rollup_and_psutil(model: str) -> None:
    """PSS of the server's tree within 2 % of an own reading of smaps_rollup and of psutil's."""
    with ReferenceServer(model) as server, Holder(server.port, 60) as holder:
        assert holder.ramp(60).open_count == 60
        pids = kernel.members_of(server.session)
        assert len(pids) == (61 if model == "fork" else 1)
        reading = tree.read_tree(server.session)
        own = kernel.rollup_bytes(pids, "Pss")
        by_psutil = sum(psutil.Process(pid).memory_full_info().pss for pid in pids)
        assert reading.is_complete
        assert reading.pss_bytes == pytest.approx(own, rel=0.02)
        assert reading.pss_bytes == pytest.approx(by_psutil, rel=0.02)
        assert reading.rss_bytes == pytest.approx(kernel.rollup_bytes(pids, "Rss"), rel=0.02)
        threads = sum(psutil.Process(pid).num_threads() for pid in pids)
        assert reading.tasks_count == threads == TASKS[model](60)


def test_a_client_that_was_stopped_and_continued_loses_no_echo() -> None:
    """A debugger, strace or a frozen control group interrupts recv() with a time-out (signal(7)): no failed echo."""
    with ReferenceServer("epoll") as server, native.Helper("connection_holder", ["--port", server.port]) as client:
        assert client.ask("ramp 23", "ramped")["open_count"] == 23
        os.kill(server.session, signal.SIGSTOP)
        client.send("echo 23 1")
        wait_for(lambda: kernel.unread_bytes_on(server.port), "a message that nobody reads")
        os.kill(client.pid, signal.SIGSTOP)
        wait_for(lambda: psutil.Process(client.pid).status() == psutil.STATUS_STOPPED, "the stopped client")
        os.kill(client.pid, signal.SIGCONT)
        os.kill(server.session, signal.SIGCONT)
        echoed = client.expect("echoed")
        assert (echoed["ok_count"], echoed["failed_count"]) == (23, 0)
