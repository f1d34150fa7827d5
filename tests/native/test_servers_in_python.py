"""The Python servers: exact echoes and answers, true counts, walls that end nothing, and nothing left behind."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from c10k_probe import native
from c10k_probe.load import Holder
from c10k_probe.servers import MODELS, PYTHON_MODELS, ServerOptions
from c10k_probe.servers_in_python.http import BODY
from native.driving import (
    STARTER,
    Server,
    connect,
    echo,
    is_closed_by_peer,
    receive_exactly,
    reset,
)
from native.driving_python import program, run_command
from native.kernel_view import (
    descriptors_of,
    listens_on_ipv6,
    living_members,
    remains_of,
    server_ends,
    session_members,
    sockets_of,
    wait_until,
)

NAME = "servers_in_python"
WITHOUT_UVLOOP = """
import sys
sys.modules["uvloop"] = None
from c10k_probe.servers_in_python.__main__ import main
main(sys.argv[1:])
"""
# It reads its modules as root, from wherever they lie, and serves as a user without rights who has no other processes.
LIMITED = """
import encodings.ascii, encodings.idna, os, resource, sys
from c10k_probe.servers_in_python import by_tasks
from c10k_probe.servers_in_python.__main__ import main, parse
parse(sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NPROC, (8, 8))
os.setgroups([])
os.setresgid(64_918, 64_918, 64_918)
os.setresuid(64_918, 64_918, 64_918)
main(sys.argv[1:])
"""
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
COUNT = 200
LIMIT_COUNT = 40  # of descriptors, where that is the wall

Start = Callable[..., Server]
every_model = pytest.mark.parametrize("model", PYTHON_MODELS)


def start(model: str, *arguments: object) -> Server:
    """A running one."""
    return Server(model, *arguments, linking=native.PYTHON, program=NAME)


def own_tasks(model: str, held_count: int) -> int:
    """Threads in all processes, by what is declared."""
    declared = MODELS[model]
    return int(declared.fixed.tasks_count + held_count * declared.per_connection.tasks_count)


def tasks_of(session: int) -> int:
    """Threads in all processes, by the kernel."""
    return sum(len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in living_members(session))


# --- echoes and counts ------------------------------------------------------------------------------------------------


@every_model
def test_200_held_connections(model: str) -> None:
    """Held, counted, echoed, dropped; the kernel says the same; the end leaves nothing."""
    with MODELS[model].start(ServerOptions(backlog_count=300)) as server, Holder(server.port, COUNT) as holder:
        before = descriptors_of(server.session)
        assert holder.ramp(COUNT).open_count == COUNT
        assert holder.echo(0, seed=1).ok_count == COUNT

        status = server.status()
        assert (status["accepted_count"], status["open_count"]) == (COUNT, COUNT)
        assert status["accept_errors_count"] == (None if model == "uvloop" else 0)
        assert len(server_ends(server.port)) == COUNT
        assert status["tasks_count"] == tasks_of(server.session) == own_tasks(model, COUNT)
        assert server.walls() == []
        assert [row.local[0] for row in server_ends(server.port, "LISTEN")] == ["127.0.0.1"]
        assert not listens_on_ipv6(server.port)

        holder.ramp(COUNT + 10)
        holder.drop()
        server.wait_until_idle(timeout_s=10)
        status = server.status()
        assert (status["accepted_count"], status["open_count"]) == (COUNT + 10, 0)
        wait_until(lambda: server.status()["tasks_count"] == own_tasks(model, 0), "its tasks have ended")
        assert descriptors_of(server.session) == before
        holder.ramp(5)
    assert session_members(server.session) == {}
    assert remains_of(server.port) == []


@every_model
def test_interleaved_connections_get_back_their_own_bytes_until_each_end_closes(model: str) -> None:
    dice = random.Random(23)
    with start(model) as server:
        sockets = server.connect(6)
        for _ in range(5):
            sent = {connection: dice.randbytes(dice.randint(1, 20_000)) for connection in sockets}
            for connection, data in sent.items():
                connection.sendall(data)
            for connection in dice.sample(sockets, len(sockets)):
                assert receive_exactly(connection, len(sent[connection])) == sent[connection]

        sockets[0].close()
        sockets[1].shutdown(socket.SHUT_WR)
        assert is_closed_by_peer(sockets[1])
        reset(sockets[2])
        server.wait_for_open(3)
        assert all(echo(connection, b"still here") == b"still here" for connection in sockets[3:])

        server.helper.send("quit")
        assert server.helper.finish() == {"type": "end", "samples_count": 6, "dropped_count": 0}
        assert all(is_closed_by_peer(connection) for connection in sockets[3:])
        assert session_members(server.pid) == {}
        wait_until(lambda: server_ends(server.port) == [], "resets reached everyone")


@every_model
def test_the_backlog_is_the_one_in_force(model: str, require_tool: Callable[[str], str]) -> None:
    most = int(Path("/proc/sys/net/core/somaxconn").read_text())
    for asked in (10, 65_535):
        with start(model, "--backlog", asked) as server:
            query = [require_tool("ss"), "-Hltn", f"sport = :{server.port}"]
            answer = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()
            assert server.ready["backlog"] == min(asked, most) == int(answer[2])


def test_a_stack_of_its_own_size() -> None:
    def mappings(pid: int) -> list[int]:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
        return [int(end, 16) - int(begin, 16) for begin, end in (line.split()[0].split("-") for line in lines)]

    size = 1_234 * 4096  # of which there is none by chance
    options = ServerOptions(stack_bytes=size)
    with MODELS["python-threading"].start(options) as server, Holder(server.port, 3) as holder:
        assert mappings(server.session).count(size) == 0
        assert holder.ramp(3).open_count == 3
        assert mappings(server.session).count(size) == 3


# --- HTTP -------------------------------------------------------------------------------------------------------------


@every_model
def test_http(model: str, require_tool: Callable[[str], str]) -> None:
    """By raw sockets, and by ab without a failed request."""
    with start(model, "--protocol", "http") as server:
        split, piped, last, bad = server.connect(4)
        for byte in GET:
            split.sendall(bytes([byte]))
        answer = receive_answer(split)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\n" + BODY)
        piped.sendall(GET * 3 + b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert [receive_answer(piped).endswith(BODY) for _ in range(3)] == [True] * 3
        assert receive_answer(piped, is_head=True).endswith(b"Content-Length: %d\r\n\r\n" % len(BODY))
        last.sendall(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert b"Connection: close\r\n" in receive_answer(last)
        bad.sendall(b"nonsense\r\n\r\n")
        assert receive_answer(bad).startswith(b"HTTP/1.1 400 ")
        assert all(is_closed_by_peer(connection) for connection in (last, bad))
        server.wait_for_open(2)
        assert all(echo_of_get(connection) == BODY for connection in (split, piped)), "and these stay"

        url = f"http://127.0.0.1:{server.port}/"
        for options, count in ((("-k",), 300), ((), 30)):
            text = output_of(require_tool("ab"), *options, "-q", "-n", count, "-c", 5, url)
            facts = dict(line.split(":", 1) for line in text.splitlines() if line.count(":") == 1)
            assert [int(facts[name]) for name in ("Complete requests", "Failed requests")] == [count, 0]
            assert int(facts["Document Length"].split()[0]) == len(BODY)
            assert int(facts.get("Keep-Alive requests", 0)) == (count if options else 0)


def test_wrk_fails_on_no_request(require_tool: Callable[[str], str]) -> None:
    """One for each model, all in the one second that is its shortest."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(start(model, "--protocol", "http")) for model in PYTHON_MODELS]
        command = [require_tool("wrk"), "-t1", "-c5", "-d1"]
        urls = [f"http://127.0.0.1:{server.port}/" for server in servers]
        running = [subprocess.Popen([*command, url], stdout=subprocess.PIPE, text=True) for url in urls]
        texts = [process.communicate()[0] for process in running]

    for text in texts:
        assert "Socket errors" not in text
        assert "Non-2xx" not in text
        assert int(text.split(" requests in ")[0].split()[-1]) > 0


def receive_answer(connection: socket.socket, *, is_head: bool = False) -> bytes:
    """One answer, to the last byte of its body."""
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        piece = connection.recv(1)
        assert piece, answer
        answer += piece
    length = int(answer.split(b"Content-Length: ")[1].split(b"\r\n")[0])
    return answer if is_head else answer + receive_exactly(connection, length)


def echo_of_get(connection: socket.socket) -> bytes:
    """The body of one more answer."""
    connection.sendall(GET)
    return receive_answer(connection).partition(b"\r\n\r\n")[2]


def output_of(*command: object) -> str:
    """Its standard output; it has to end well."""
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=True).stdout


# --- walls ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def few_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every process started from now on may have this many."""
    limits = (LIMIT_COUNT, LIMIT_COUNT)
    limit = functools.partial(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
    monkeypatch.setattr(subprocess, "Popen", functools.partial(subprocess.Popen, preexec_fn=limit))


@pytest.mark.usefixtures("few_descriptors")
@pytest.mark.parametrize("model", ["python-threading", "asyncio"])
def test_emfile_keeps_the_held_ones_and_is_over_when_one_closes(model: str) -> None:
    with start(model) as server:
        room = LIMIT_COUNT - descriptors_of(server.pid)
        held = server.connect_served(room)
        assert server.helper.walls() == [], "it is full, but nobody was turned away"
        waiting = server.connect(2)
        for connection in waiting:
            connection.sendall(b"wait")

        wall = server.helper.expect("wall")
        assert (wall["call"], wall["name"], wall["open_count"]) == ("accept4", "EMFILE", room)
        status = server.status()
        assert status["open_count"] == room
        assert status["accept_errors_count"] >= 1
        assert all(echo(connection, b"held") == b"held" for connection in held)

        for connection in held[:2]:
            reset(connection)
        assert [receive_exactly(connection, 4) for connection in waiting] == [b"wait"] * 2
        assert server.status()["open_count"] == room
        assert server.helper.walls() == [], "a wall is told once"
        reset(held[2])
        server.helper.send("quit")
        assert server.helper.finish()["samples_count"] == room + 2


@pytest.mark.usefixtures("few_descriptors")
def test_emfile_of_uvloop_closes_whoever_comes() -> None:
    with start("uvloop") as server:
        room = LIMIT_COUNT - descriptors_of(server.pid)
        held = server.connect_served(room - 1)
        assert server.helper.walls() == []
        held += server.connect_served()

        wall = server.helper.expect("wall")
        assert (wall["call"], wall["name"], wall["open_count"]) == ("dup", "EMFILE", room)
        assert all(is_closed_by_peer(connection) for connection in server.connect(3))
        status = server.status()
        assert (status["accepted_count"], status["open_count"]) == (room, room)
        assert all(echo(connection, b"held") == b"held" for connection in held)
        server.helper.send("quit")
        assert server.helper.finish()["samples_count"] == room
        assert all(is_closed_by_peer(connection) for connection in held)


@pytest.mark.usefixtures("require_root")
@pytest.mark.parametrize(("model", "call"), [("python-threading", "pthread_create"), ("python-forking", "fork")])
def test_no_more_tasks(model: str, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native.Helper, "_program", lambda *_: [sys.executable, "-c", LIMITED])
    with start(model) as server:
        held = server.connect_served(7)
        assert all(is_closed_by_peer(connection) for connection in server.connect(3))

        wall = server.helper.expect("wall")
        assert (wall["call"], wall["name"], wall["open_count"]) == (call, "EAGAIN", 7)
        status = server.status()
        assert (status["accepted_count"], status["open_count"], status["accept_errors_count"]) == (10, 7, 3)
        assert all(echo(connection, b"held") == b"held" for connection in held)

        reset(held[0])
        wait_until(lambda: server.status()["tasks_count"] == 7, "a task has ended")
        server.connect_served()
        assert server.helper.walls() == []
        server.helper.send("quit")
        assert server.helper.expect("end") == {"type": "end", "samples_count": 11, "dropped_count": 3}


# --- the end ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def fostered(model: str) -> Iterator[tuple[subprocess.Popen[Any], int, int]]:
    """A server whose parent is another process: that process, the server's pid, its port."""
    command = [sys.executable, "-c", STARTER, *program(NAME), "--model", model]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        try:
            starter.stdout.readline()
            yield starter, pid, int(starter.stdout.readline().split('"port":')[1].split(",")[0])
        finally:
            starter.kill()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


@every_model
@pytest.mark.parametrize("who", ["the parent", "the server"])
def test_kill_9_leaves_nothing(model: str, who: str) -> None:
    with fostered(model) as (starter, pid, port), contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(connect(port)) for _ in range(5)]
        assert all(echo(connection, b"served") == b"served" for connection in sockets)
        assert len(living_members(pid)) == (6 if model == "python-forking" else 1)

        os.kill(starter.pid if who == "the parent" else pid, signal.SIGKILL)
        wait_until(lambda: not living_members(pid), "all of it is gone", 2.0)
        assert all(is_closed_by_peer(connection) for connection in sockets)
        wait_until(lambda: not server_ends(port, "LISTEN"), "nobody listens")


def test_a_child_holds_its_connection_and_nothing_else() -> None:
    with start("python-forking") as server:
        server.connect_served(5)
        children = living_members(server.pid) - {server.pid}

        assert [len(sockets_of(child)) for child in children] == [1] * 5
        victim = min(children)
        os.kill(victim, signal.SIGKILL)
        server.wait_for_open(4)
        assert victim not in session_members(server.pid), "and is reaped"


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "gevent"), "invalid choice: 'gevent'"),
        (("--model", "asyncio", "--stack", "65536"), "--stack needs --model python-threading"),
        (("--model", "python-threading", "--stack", "100"), "must lie between 32768 and"),
        (("--model", "asyncio", "--backlog", "0"), "must lie between 1 and 65535"),
    ],
)
def test_bad_arguments(arguments: tuple[str, ...], words: str) -> None:
    outcome = run_command([*program(NAME), *arguments])

    assert (outcome.code, outcome.messages) == (2, [])
    assert words in outcome.stderr
    assert outcome.stderr.count("\n") == 1


@pytest.mark.parametrize("model", ["python-forking", "asyncio"])
def test_unknown_commands(model: str) -> None:
    outcome = run_command([*program(NAME), "--model", model], "status\nopen\n")

    assert outcome.code == 2
    assert [message["type"] for message in outcome.messages] == ["hello", "ready"]
    assert outcome.stderr == "servers_in_python: unknown command 'open'; known: status, quit\n"


def test_without_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    words = "uvloop is not installed: pip install 'c10k-probe[python]'"
    outcome = run_command([sys.executable, "-c", WITHOUT_UVLOOP, "--model", "uvloop"])
    assert outcome.code == 77
    assert outcome.only("unsupported")["reason"] == words

    assert PYTHON_MODELS["uvloop"].missing == PYTHON_MODELS["asyncio"].missing == ""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert PYTHON_MODELS["uvloop"].missing == words
    with pytest.raises(native.HelperUnsupported, match=re.escape(words)):
        PYTHON_MODELS["uvloop"].start(ServerOptions())
    assert PYTHON_MODELS["asyncio"].missing == ""
