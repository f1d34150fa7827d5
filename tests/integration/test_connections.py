"""``connections`` on real sockets: what it says is held is what the kernel lists, and nothing stays behind."""

from __future__ import annotations

import json
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
from conftest import cannot_run

from c10k_probe import native
from c10k_probe.load import Holder
from c10k_probe.observe import memory, sockets, tree
from c10k_probe.servers import BASIC_MODELS, ReferenceServer

Rows = list[dict[str, str]]
BRIEFLY = ("--probe-time", "20ms")  # 20 scheduled echoes at each step
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
    return measured(tmp_path_factory.mktemp("to23"), "--to", 23, *BRIEFLY)


@pytest.fixture(scope="module")
def to_400(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """All models to 400 in five steps."""
    return measured(tmp_path_factory.mktemp("to400"), "--to", 400, "--steps", 5, *BRIEFLY)


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


@pytest.mark.parametrize("ramp", ["to_23", pytest.param("to_400", marks=pytest.mark.alone)])
@pytest.mark.parametrize("model", TASKS)
def test_what_is_said_to_be_open_is_open(ramp: str, model: str, request: pytest.FixtureRequest) -> None:
    """At every step target, open, established and the echoes that came back are the same number."""
    for row in of_model(request.getfixturevalue(ramp), model):
        names = ("target_count", "open_count", "established_count", "echo_asked_count")
        assert len({row[name] for name in names}) == 1, row
        assert row["echo_failed_count"] == "0"
        assert row["status"] == "ok"


@pytest.mark.parametrize("ramp", ["to_23", pytest.param("to_400", marks=pytest.mark.alone)])
@pytest.mark.parametrize("model", TASKS)
def test_tasks_are_those_of_the_model(ramp: str, model: str, request: pytest.FixtureRequest) -> None:
    """One loop, or one task for each connection beside the one that accepts."""
    for row in of_model(request.getfixturevalue(ramp), model):
        assert int(row["tasks_count"]) == TASKS[model](int(row["open_count"]))
        assert int(row["memory_read_count"]) == (int(row["open_count"]) + 1 if model == "fork" else 1)


@pytest.mark.alone
@pytest.mark.parametrize("model", TASKS)
def test_memory_and_work_are_there(to_400: Rows, model: str) -> None:
    """What 400 connections must take is taken, by the part of the ledger that must pay."""
    last = of_model(to_400, model)[-1]
    positive = ["user_bytes", "page_table_bytes", "slab_bytes", "client_user_bytes", "ramp_s", "connect_rate_per_s"]
    positive += ["connect_p50_ns", "echo_p50_ns", "echo_max_ns", "cpu_run_s", "voluntary_switches_count"]
    positive += ["kernel_stack_bytes"] if model != "epoll" else []
    assert [name for name in positive if not float(last[name]) > 0] == []
    assert last["echo_p99_ns"] == ""  # 400 samples do not support it


@pytest.mark.alone
def test_a_process_costs_more_memory_than_a_thread(to_400: Rows) -> None:
    """Order alone: user memory and page tables of 400 processes, threads, and one loop."""
    for name in ("user_bytes", "page_table_bytes"):
        fork, thread, epoll = (int(of_model(to_400, model)[-1][name]) for model in ("fork", "thread", "epoll"))
        assert fork > thread > epoll


def test_client_adds_at_most_256_bytes_per_connection(tmp_path: Path) -> None:
    """User memory of the client over the count of connections, up to 2,000, both ends of the ramp and its slope."""
    rows = measured(tmp_path, "--to", 2000, "--model", "epoll", "--steps", 8, *BRIEFLY)
    points = [(int(row["open_count"]), int(row["client_user_bytes"])) for row in rows]
    assert points[-1][0] == 2000
    slope, _ = statistics.linear_regression([count for count, _ in points], [size for _, size in points])
    ends = (points[-1][1] - points[0][1]) / (points[-1][0] - points[0][0])
    assert max(slope, ends) <= 256


# --- parts, states and the search -------------------------------------------------------------------------------------

PARTS = ("private", "shared", "page_table", "kernel_stack", "slab", "socket_page")


@pytest.mark.alone
@pytest.mark.parametrize("model", TASKS)
def test_the_ledger_has_every_part_and_they_add_up(to_400: Rows, model: str) -> None:
    """Of the server's end: user memory, page tables, stacks, slab, pages; the sum is that of the whole."""
    last = of_model(to_400, model)[-1]
    parts = {name: float(last[f"server_{name}_bytes_per_connection"]) for name in PARTS}
    whole = float(last["server_bytes_per_connection"])
    assert sum(parts.values()) == pytest.approx(whole, rel=0.2, abs=1000)  # each is a median of its own
    assert float(last["server_lo_bytes_per_connection"]) <= whole <= float(last["server_hi_bytes_per_connection"])
    if model != "epoll":
        assert parts["kernel_stack"] == pytest.approx(16384, rel=0.5)  # others' tasks come and go
        assert parts["private"] > 4096 and parts["page_table"] > 0
    explained, fall = int(last["explained_bytes"]), int(last["free_fall_bytes"])
    assert int(last["unexplained_bytes"]) == fall - explained


@pytest.mark.alone
@pytest.mark.parametrize("model", TASKS)
def test_caches_by_name_are_the_slab(to_400: Rows, model: str, require_root: None) -> None:
    """Sockets first; a task's own structures where there are tasks; together about what grew."""
    caches = dict(pair.split("=") for pair in of_model(to_400, model)[-1]["slab_caches"].split())
    sizes = list(map(int, caches.values()))
    assert sizes == sorted(sizes, reverse=True)
    assert {"TCP", "sock_inode_cache"} <= caches.keys()
    assert model == "epoll" or "task_struct" in caches  # tasks of other programs come and go beside a loop, too


@pytest.mark.alone
@pytest.mark.parametrize("model", TASKS)
def test_the_end_of_a_ramp_says_what_each_limit_was_used_for(to_400: Rows, model: str) -> None:
    """Before and after, at the last step alone; none bound here, and no connection found the queue full."""
    *before, last = of_model(to_400, model)
    assert {row["walls_used"] for row in before} == {""}
    used = dict(pair.split("=") for pair in last["walls_used"].split())
    first, now = (int(part) for part in used["descriptors"].split("/")[0].split(".."))
    assert now - first == (400 if model != "fork" else 0)  # the parent keeps none of its children's
    assert (last["wall"], last["wall_kind"], last["wall_lift"]) == ("", "", "")
    assert last["listen_overflows_count"] == last["listen_drops_count"] == "0"
    assert int(last["predicted_count"]) > 400 and last["predicted_wall"]


def test_scheduled_echoes_are_as_many_as_asked(tmp_path: Path) -> None:
    """A rate times a time; the quantiles that so many support, in order; and a rest in which nothing happens."""
    arguments = ("--to", 300, "--steps", 1, "--model", "thread", "--probe-rate", 1000, "--probe-time", "600ms")
    (row,) = measured(tmp_path, *arguments, "--rest", "200ms")
    assert (row["probe_rate_per_s"], row["probe_sent_count"], row["probe_failed_count"]) == ("1000", "600", "0")
    p50, p99, longest = (float(row[f"probe_{name}_ns"]) for name in ("p50", "p99", "max"))
    assert 0 < p50 <= p99 <= longest
    assert row["probe_p999_ns"] == ""  # 600 do not support it
    assert float(row["rest_s"]) >= 0.2
    assert row["rest_switches_count"] == "0"  # blocked in a read, every one of them
    assert float(row["rest_cpu_pct"]) < 1


def test_states_leave_what_their_names_say(tmp_path: Path) -> None:
    """Idle ones are used at the very end alone; backlogged ones hold so many bytes each, all at the client."""
    arguments = ("--to", 300, "--steps", 2, "--model", "epoll", "--state", "all", "--unread", "8KiB", *BRIEFLY)
    rows = measured(tmp_path, *arguments)
    ends = {row["state"]: row for row in rows if row["target_count"] == "300"}
    assert set(ends) == {"idle", "used", "backlogged"}
    for row in ends.values():
        assert row["open_count"] == row["established_count"] == row["echo_asked_count"] == "300"
        assert row["echo_failed_count"] == row["probe_failed_count"] == row["server_unread_bytes"] == "0"
    assert {row["echo_asked_count"] for row in rows if row["state"] == "idle" and row not in ends.values()} == {""}
    assert ends["idle"]["client_unread_bytes"] == ends["used"]["client_unread_bytes"] == "0"
    assert int(ends["backlogged"]["client_unread_bytes"]) == 300 * 8192
    assert float(ends["backlogged"]["client_buffer_bytes_per_connection"]) >= 8192


@pytest.mark.alone
def test_the_search_ends_between_what_fits_and_what_does_not(tmp_path: Path) -> None:
    """Every trial says whether it fits; the most that does is a finding of its own."""
    arguments = ("--memory-budget", "40MiB", "--to", 2000, "--model", "thread", "--probe-time", "20ms")
    rows = measured(tmp_path, *arguments, "--latency-bound", "5s")
    fitting = [int(row["target_count"]) for row in rows if row["fits"] == "yes"]
    failing = [int(row["target_count"]) for row in rows if row["fits"] != "yes"]
    assert fitting and failing and max(fitting) < min(failing)
    assert min(failing) - max(fitting) <= 0.02 * min(failing) + 1
    assert all(row["fits"].startswith("memory: ") for row in rows if row["fits"] != "yes")
    assert all((int(row["taken_bytes"]) <= 40 << 20) == (row["fits"] == "yes") for row in rows)
    (run_folder,) = (tmp_path / "results").iterdir()
    facts = json.loads((run_folder / "run.json").read_text(encoding="utf-8"))
    most = next(item for item in facts["findings"] if item["column"] == "most_connections_count")
    assert most["value"]["middle"] == max(fitting)


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
    with started("connections", "--to", 23, *BRIEFLY, "--csv", "rows.csv", cwd=tmp_path, changes=changes) as command:
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


def test_sources_lie_in_127_8() -> None:
    """The client's ends have addresses in 127/8 that are not the server's."""
    with ReferenceServer("epoll") as server, Holder(server.port, 2500) as holder:
        assert holder.ramp(2500).open_count == 2500
        clients = {item.address for item in kernel.tcp_sockets() if item.remote_port == server.port}
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


# What the kernel keeps for a connection of an event loop, both ends: structure -> how many.
STRUCTURES = {
    "TCP": 2,
    "sock_inode_cache": 2,
    "dentry": 2,
    "filp": 2,
    "eventpoll_epi": 1,
    "eventpoll_pwq": 1,
    "tcp_bind_bucket": 1,
    "tcp_bind2_bucket": 1,
}


@pytest.mark.alone
def test_slab_of_a_connection_is_the_sum_of_its_structures(require_root: None) -> None:
    """3,000 idle connections of an event loop: within 5 % of the sizes in /sys/kernel/slab, on a quiet look."""
    folder = Path("/sys/kernel/slab")
    if not all((folder / name).exists() for name in STRUCTURES):
        cannot_run(f"{folder} does not name {', '.join(STRUCTURES)}")
    sizes = {name: int((folder / name / "slab_size").read_text(encoding="ascii")) for name in STRUCTURES}
    expected = sum(count * sizes[name] for name, count in STRUCTURES.items())

    def measured_bytes() -> float:
        with ReferenceServer("epoll") as server, Holder(server.port, 3000) as holder:
            holder.ramp(1)
            holder.drop()
            server.wait_until_idle()
            before = memory.read_kernel_memory()
            assert holder.ramp(3000).open_count == 3000
            grown = memory.slab_growth(before, memory.read_kernel_memory())
        memory.settle(5.0, sessions=(server.session,))
        assert grown.source == "slabinfo"
        return float(grown.bytes or 0) / 3000

    # Others start and end programs meanwhile, whose structures come and go.
    seen: list[float] = []
    while not any(abs(size / expected - 1) <= 0.05 for size in seen):
        assert len(seen) < 10, (expected, seen)
        seen.append(measured_bytes())


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
