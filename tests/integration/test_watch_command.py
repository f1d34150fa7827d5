"""``watch`` as a user meets it: figures of known connections, what is hidden, ends, bad input, a terminal."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command import complaint_of, on_terminal, rows_of, run, run_inside, started, without_escapes

# listens on one address or on both families, holds what it accepts, and says its port
SERVER = """
import socket, sys
address, port = sys.argv[1], int(sys.argv[2])
if address == "::":
    server = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=16)
else:
    server = socket.create_server((address, port), backlog=16)
print(server.getsockname()[1], flush=True)
held = []
while True:
    held.append(server.accept()[0])
"""
NOBODY = ("--reuid", "65534", "--regid", "65534", "--clear-groups")


@contextmanager
def serving(address: str = "::", port: int = 0, wrapper: tuple[str, ...] = ()) -> Iterator[tuple[int, int]]:
    """A server that accepts and holds: its pid and its port."""
    arguments = [*wrapper, sys.executable, "-ISc", SERVER, address, str(port)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.pid, int(process.stdout.readline())
        finally:
            process.kill()


@pytest.fixture
def server() -> Iterator[tuple[int, int]]:
    """Its pid and its port."""
    with serving() as found:
        yield found


@pytest.fixture
def as_nobody(require_root: None, require_tool: Callable[[str], str], tmp_path: Path) -> tuple[str, ...]:
    """What runs a command as another user, who may write in the test's folder."""
    tmp_path.chmod(0o777)
    return (require_tool("setpriv"), *NOBODY)


def test_watch_counts_connections_of_both_families(server: tuple[int, int], tmp_path: Path) -> None:
    pid, port = server
    with started("watch", "--port", port, "--interval", "300ms", "--csv", "-", cwd=tmp_path) as command:
        command.until(lambda: "connections 0" in command.stderr, "the first look")
        clients = [socket.create_connection((host, port)) for host in ("127.0.0.1", "::1", "127.0.0.1")]
        command.until(lambda: "connections 3" in command.stderr, "a look with the connections")
        command.signal(signal.SIGINT)
        finished = command.finish()
        for client in clients:
            client.close()
    assert finished.code == 130
    assert f"(pid {pid})" in finished.stderr
    rows = rows_of(finished.stdout)
    assert rows[0]["connections_count"] == "0"
    assert rows[-1]["connections_count"] == "3"
    assert {row["backlog_count"] for row in rows} == {"16"}
    assert {row["processes_count"] for row in rows} == {"1"}
    assert rows[0]["cpu_pct"] == ""  # a rate needs two looks
    assert float(rows[-1]["cpu_pct"]) >= 0
    assert int(rows[-1]["private_bytes"]) > 0
    assert {row["user_bytes_per_connection"] for row in rows} == {""}  # three tell nothing


@pytest.mark.parametrize(("duration", "code"), [((), 0), (("--duration", "1h"), 3)])
def test_watch_of_a_process_that_ends_keeps_what_it_saw(
    duration: tuple[str, ...], code: int, server: tuple[int, int], tmp_path: Path
) -> None:
    pid, port = server
    arguments = ("watch", "--pid", pid, "--interval", "200ms", "--csv", "watch.csv", *duration)
    with socket.create_connection(("127.0.0.1", port)), started(*arguments, cwd=tmp_path) as command:
        command.until(lambda: "connections 1" in command.stderr, "a look with the connection")
        os.kill(pid, signal.SIGKILL)
        finished = command.finish()
    assert finished.code == code, finished.stderr
    assert finished.stderr.splitlines()[-1].startswith("the server has ended, after ")
    rows = rows_of((tmp_path / "watch.csv").read_text())
    assert len(rows) >= 1
    assert rows[0]["connections_count"] == "1"  # found by the process, without its port


def test_watch_without_root_sees_the_connections_of_anothers_server(
    server: tuple[int, int], as_nobody: tuple[str, ...], tmp_path: Path
) -> None:
    """And says in one line what it does not see, with a command that shows it."""
    pid, port = server
    arguments = ("watch", "--port", port, "--interval", "200ms", "--csv", "-")
    with (
        socket.create_connection(("127.0.0.1", port)),
        started(*arguments, cwd=tmp_path, wrapper=as_nobody) as command,
    ):
        command.until(lambda: "connections 1" in command.stderr, "a look with the connection")
        os.kill(pid, signal.SIGKILL)
        finished = command.finish()  # nobody listens any more
    assert finished.code == 0, finished.stderr
    assert "the server has ended" in finished.stderr
    (note,) = [line for line in finished.stderr.splitlines() if line.startswith("note: ")]
    assert f"this user cannot see who listens on port {port}" in note
    rows = rows_of(finished.stdout)
    assert rows[0]["connections_count"] == "1"
    assert {row["processes_count"] for row in rows} == {""}
    assert {row["private_bytes"] for row in rows} == {""}
    assert int(rows[0]["slab_bytes"]) > 0  # the machine's, which needs no root
    sudo, *command_line = shlex.split(note.rpartition("all is shown by: ")[2])
    assert sudo == "sudo"
    with serving(port=port) as (again, _):
        shown = subprocess.run([*command_line, "--duration", "200ms"], capture_output=True, text=True, check=True)
    assert f"(pid {again})" in shown.stderr
    assert "note: " not in shown.stderr.replace("note: ≥", "")


def test_watch_says_that_it_follows_a_part_of_a_port(as_nobody: tuple[str, ...], tmp_path: Path) -> None:
    with (
        serving("127.0.0.1") as (hidden, port),
        serving("127.0.0.2", port, wrapper=as_nobody) as (seen, _),
        socket.create_connection(("127.0.0.1", port)),
        socket.create_connection(("127.0.0.2", port)),
    ):
        arguments = ("watch", "--port", port, "--interval", "200ms", "--duration", "200ms", "--csv", "-")
        finished = run(*arguments, cwd=tmp_path, wrapper=as_nobody)
    assert finished.code == 0, finished.stderr
    assert f"(pid {seen})" in finished.stderr
    assert f"(pid {hidden})" not in finished.stderr
    assert f"note: 1 of 2 sockets that listen on port {port}" in finished.stderr
    assert f"--port {port}" in finished.stderr
    assert {row["connections_count"] for row in rows_of(finished.stdout)} == {"2"}


def test_watch_of_anothers_process_names_what_is_hidden(
    server: tuple[int, int], as_nobody: tuple[str, ...], tmp_path: Path
) -> None:
    pid, _ = server
    finished = run("watch", "--pid", pid, "--duration", "200ms", "--csv", "-", cwd=tmp_path, wrapper=as_nobody)
    assert finished.code == 0, finished.stderr
    assert (
        "note: memory or sockets of 1 process could not be read by this user; all is shown by: sudo " in finished.stderr
    )
    (row, *_) = rows_of(finished.stdout)
    assert (row["connections_count"], row["private_bytes"]) == ("", "")
    assert (row["processes_count"], row["threads_count"], row["hidden_processes_count"]) == ("1", "1", "1")


def test_watch_on_a_terminal(server: tuple[int, int], tmp_path: Path) -> None:
    _, port = server
    arguments = ("watch", "--port", port, "--interval", "300ms", "--duration", "1500ms")
    with on_terminal(*arguments, cwd=tmp_path) as terminal:
        code, output = terminal.finish()
    text = without_escapes(output)
    assert code == 0, text
    for word in ("connections", "history", "private memory", "time is up", "▁"):
        assert word in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("--port PORT", "--pid PID")),
        (("--pid", 1, "--port", 80), ("exclude each other",)),
        (("--pid", 4_194_303), ("no process",)),
        (("--port", 1, "--csv", "/no/such/folder/x.csv"), ("--port", "nobody listens", "ss -ltn", "--pid")),
        (("--port", 70_000), ("--port", "at most 65535")),
        (("--pid", os.getpid(), "--csv", "/no/such/folder/x.csv"), ("--csv", "make the folder first")),
        (("--interval", "1ms", "--pid", 1), ("--interval", "at least 200ms")),
    ],
)
def test_bad_input_of_watch(arguments: tuple[object, ...], words: tuple[str, ...], tmp_path: Path) -> None:
    finished = run_inside("watch", *arguments, cwd=tmp_path)
    assert finished.code == 2
    complaint = complaint_of(finished)
    for word in words:
        assert word in complaint


def test_a_thread_is_refused_with_its_process(tmp_path: Path) -> None:
    program = (
        "import threading; e = threading.Event(); t = threading.Thread(target=e.wait, daemon=True); t.start();"
        "print(t.native_id, flush=True); e.wait()"
    )
    with subprocess.Popen([sys.executable, "-ISc", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        tid = int(process.stdout.readline())
        finished = run("watch", "--pid", tid, cwd=tmp_path)
        process.kill()
    assert finished.code == 2
    assert f"{tid} is a thread of process {process.pid}; give --pid {process.pid}" in complaint_of(finished)
