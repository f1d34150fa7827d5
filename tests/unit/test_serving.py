"""A look at a server: sockets of another network namespace, who holds a port, memory and its moment."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import cannot_run

from c10k_probe.observe import processes, serving
from c10k_probe.observe.serving import Server

# listens, has 3 connections of which 1 is accepted, and says its port
CONTAINED = """
import socket, subprocess, sys
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
server = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=9)
clients = [socket.create_connection(server.getsockname()) for _ in range(3)]
held = server.accept()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def contained(require_root: None, require_tool: Callable[[str], str]) -> Iterator[tuple[int, int]]:
    """(pid, port) of a server in a network namespace of its own; here another server listens on the same port."""
    for tool in ("unshare", "ip", "nsenter", "ss"):
        require_tool(tool)
    with socket.create_server(("127.0.0.1", 0)) as ours:
        port = ours.getsockname()[1]
        arguments = ["unshare", "--net", sys.executable, "-ISc", CONTAINED, str(port)]
        with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                process.wait()
                cannot_run("a network namespace cannot be made here")
            with socket.create_connection(ours.getsockname()):
                yield process.pid, port
            process.kill()


def test_sockets_are_those_of_the_servers_own_network_namespace(contained: tuple[int, int]) -> None:
    pid, port = contained
    look = Server([pid]).look()
    command = ["nsenter", "-t", str(pid), "-n", "ss", "-Htn", "state", "established", f"( sport = :{port} )"]
    by_ss = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert look.connections_count == len(by_ss) == 3  # and not the 1 of ours
    assert look.accept_queue_count == 2
    assert look.backlog_count is None  # /proc/PID/net does not tell; ours would say 128
    assert look.sockets_source == "/proc/PID/net/tcp"
    assert look.overflows_count == 0
    assert look.memory_connections_count == 3
    assert processes.network_namespace(pid) != processes.network_namespace()
    assert processes.listening_ports([os.getpid(), pid]) == {port}


def test_a_namespace_is_told_apart_as_the_kernel_names_it() -> None:
    ours = processes.network_namespace()
    for pid in processes.all_pids():
        try:
            is_ours = Path(f"/proc/{pid}/ns/net").stat().st_ino == Path("/proc/self/ns/net").stat().st_ino
        except OSError:
            continue
        told = processes.network_namespace(pid)
        if told is not None:
            assert (told == ours) == is_ours
    assert processes.network_namespace(4_194_303) is None


def test_who_holds_a_port_is_known_with_what_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
        with socket.create_server(("127.0.0.2", port)):
            assert processes.port_owners(port) == processes.Owners([os.getpid()], 2, 0)
            seen = processes.socket_inodes
            first = os.fstat(one.fileno()).st_ino
            monkeypatch.setattr(processes, "socket_inodes", lambda *a: seen(*a) & {first})
            assert processes.port_owners(port) == processes.Owners([os.getpid()], 2, 1)
    assert processes.port_owners(port).sockets_count == 0


@pytest.mark.parametrize(
    ("first", "pids", "roots"), [("systemd", [1, 7, 8], [7]), ("nginx", [1, 7, 8], [1]), ("systemd", [1], [1])]
)
def test_systemd_that_holds_a_servers_socket_is_not_the_server(
    first: str, pids: list[int], roots: list[int], tmp_path: Path
) -> None:
    for pid, parent, name in ((1, 0, first), (7, 1, "server"), (8, 7, "server")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(f"{pid} ({name}) S {parent} 0 0\n")
        (tmp_path / str(pid) / "comm").write_text(f"{name}\n")
    assert processes.topmost(pids, tmp_path) == roots


def test_a_command_line_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cmdline").write_bytes(b"sh\0-c\0echo 1\n\techo 2\n\0")
    assert processes.command_line(7, tmp_path) == "sh -c echo 1 echo 2"


def test_a_thread_is_not_its_process() -> None:
    tids: list[int] = []
    thread = threading.Thread(target=lambda: tids.append(threading.get_native_id()) or held.wait())  # type: ignore[func-returns-value]
    held = threading.Event()
    thread.start()
    while not tids:
        pass
    assert processes.process_of(tids[0]) == processes.process_of(os.getpid()) == os.getpid()
    held.set()
    thread.join()


def test_memory_keeps_its_age_and_the_connections_of_its_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_PAUSE_FACTOR", 10**9)  # it is read once
    program = "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)"
    arguments = [sys.executable, "-ISc", f"{program}; sys.stdin.read()"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        server = Server([process.pid])
        first = server.look()
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
        second = server.look()
        for client in clients:
            client.close()
        process.kill()
    assert (first.connections_count, second.connections_count) == (0, 5)
    assert (first.memory_connections_count, second.memory_connections_count) == (0, 0)
    assert first.memory_age_s is not None and second.memory_age_s is not None
    assert 0 <= first.memory_age_s < second.memory_age_s
    assert first.private_bytes == second.private_bytes
