"""reference_server: exact echoes, true counts, loopback only, walls that end nothing, and nothing left behind."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import re
import resource
import select
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from c10k_probe import native
from c10k_probe.servers import BASIC_MODELS, REFERENCE_MODELS
from native.driving import (
    FEW_WORKERS,
    Foster,
    Server,
    become_another_user,
    connect,
    echo,
    few_workers,
    is_closed_by_peer,
    receive_exactly,
    reset,
    run,
)
from native.kernel_view import (
    descriptors_of,
    listens_on_ipv6,
    living_members,
    remains_of_connections,
    server_ends,
    session_members,
    sockets_of,
    state_of,
    status_of,
    wait_until,
)

MODELS = tuple(REFERENCE_MODELS)
MANY_PROCESSES = ("fork", "prefork", "epoll-reuseport", "epoll-exclusive", "epoll-inherited", "epoll-passed")
ONE_PROCESS = tuple(model for model in MODELS if model not in MANY_PROCESSES)
COUNT = 23
DESCRIPTORS = 40


BUILDS = [
    (model, linking)
    for model in MODELS
    for linking in native.LINKINGS
    if linking == "dynamic" or model in (*BASIC_MODELS, "prefork")
]
"""Every model, and of each kind of linking what differs most: one thread, threads, processes."""


def start(model: str, *arguments: object, linking: str = "dynamic") -> Server:
    """A server with few workers, where it has any."""
    return Server(model, *few_workers(model), *arguments, linking=linking)


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    """Each model."""
    return str(request.param)


@pytest.fixture
def server(model: str) -> Iterator[Server]:
    """A server of each model."""
    with start(model) as running:
        yield running


def test_the_models_are_those_of_the_helper() -> None:
    complaint = run("reference_server", "--model", "?").stderr

    words = re.search(r"one of (.*), not", complaint)
    assert words is not None
    assert set(words[1].split(", ")) == set(MODELS)


# --- echoes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "linking"), BUILDS)
def test_interleaved_connections_get_back_their_own_bytes(model: str, linking: str) -> None:
    dice = random.Random(23)
    with start(model, linking=linking) as server:
        sockets = server.connect(8)
        for _ in range(10):
            sent = {connection: dice.randbytes(dice.randint(1, 20_000)) for connection in sockets}
            for connection, data in sent.items():
                connection.sendall(data)
            for connection in dice.sample(sockets, len(sockets)):
                assert receive_exactly(connection, len(sent[connection])) == sent[connection]


def send_until_full(connection: socket.socket, dice: random.Random) -> bytes:
    """Send without reading until neither side takes more; what was sent."""
    sent = bytearray()
    connection.setblocking(False)
    while select.select([], [connection], [], 0.2)[1]:
        data = dice.randbytes(65_536)
        with contextlib.suppress(BlockingIOError):
            sent += data[: connection.send(data)]
    connection.settimeout(10)
    return bytes(sent)


def test_a_client_that_does_not_read_disturbs_nobody_and_loses_nothing(server: Server) -> None:
    silent, other = server.connect_served(2)
    sent = send_until_full(silent, random.Random(5))
    assert len(sent) > 100_000, "the buffers were filled"
    wait_until(lambda: state_of(server.pid) == "S", "it sleeps meanwhile")

    assert echo(other, b"not disturbed") == b"not disturbed"
    assert receive_exactly(silent, len(sent)) == sent
    assert echo(silent, b"as before") == b"as before"


def test_quit_while_a_client_does_not_read(server: Server) -> None:
    stuck = server.connect_served()[0]
    send_until_full(stuck, random.Random(5))

    server.helper.send("quit")
    assert server.helper.finish(timeout_s=10)["samples_count"] == 1
    assert session_members(server.pid) == {}


# --- counts -----------------------------------------------------------------------------------------------------------


def test_23_connections_are_23(server: Server, model: str, require_tool: Callable[[str], str]) -> None:
    server.connect_served(COUNT)
    status = server.status()

    assert (status["accepted_count"], status["open_count"], status["accept_errors_count"]) == (COUNT, COUNT, 0)
    assert len(server_ends(server.port)) == COUNT
    query = [require_tool("ss"), "-Htn", "state", "established", f"sport = :{server.port}"]
    assert len(subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()) == COUNT
    tasks = int(status_of(server.pid, "Threads")) + len(session_members(server.pid)) - 1
    own = COUNT * REFERENCE_MODELS[model].per_connection.tasks_count
    assert status["tasks_count"] == tasks == 1 + FEW_WORKERS.get(model, 0) + own


def test_what_clients_close_is_closed(server: Server) -> None:
    sockets = server.connect_served(COUNT)
    for connection in sockets[:5]:
        connection.close()
    for connection in sockets[5:8]:
        connection.shutdown(socket.SHUT_WR)
        assert is_closed_by_peer(connection)
    for connection in sockets[8:10]:
        reset(connection)

    server.wait_for_open(COUNT - 10)
    assert server.status()["accepted_count"] == COUNT
    wait_until(lambda: len(server_ends(server.port)) == COUNT - 10, "the kernel holds the others")
    assert all(echo(connection, b"still here") == b"still here" for connection in sockets[10:])


def test_descriptors_are_given_back(server: Server) -> None:
    def descriptors() -> int:
        return sum(descriptors_of(pid) for pid in living_members(server.pid))

    before = descriptors()
    for connection in server.connect_served(COUNT):
        reset(connection)
    server.wait_for_open(0)

    wait_until(lambda: descriptors() == before, "all descriptors are closed")


def test_it_listens_on_loopback_only(server: Server) -> None:
    listeners = server_ends(server.port, "LISTEN")

    assert {row.local for row in listeners} == {("127.0.0.1", server.port)}
    assert not listens_on_ipv6(server.port)


def test_the_backlog_is_the_one_in_force(model: str, require_tool: Callable[[str], str]) -> None:
    most = int(Path("/proc/sys/net/core/somaxconn").read_text())
    for asked in (10, 65_535):
        with start(model, "--backlog", asked) as server:
            query = [require_tool("ss"), "-Hltn", f"sport = :{server.port}"]
            answer = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()
            assert server.ready["backlog"] == min(asked, most) == int(answer[2])


# --- walls ------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=ONE_PROCESS)
def limited_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """One that starts with few descriptors: a request to accept has the limit of the time when it was made."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))

    monkeypatch.setattr(subprocess, "Popen", functools.partial(subprocess.Popen, preexec_fn=limit))
    with start(str(request.param)) as running:
        yield running


def test_emfile_keeps_the_held_ones_and_is_over_when_one_closes(limited_server: Server) -> None:
    server, room = limited_server, DESCRIPTORS - descriptors_of(limited_server.pid)
    held = server.connect_served(room)
    waiting = server.connect(5)
    for connection in waiting:
        connection.sendall(b"wait")

    wall = server.helper.expect("wall")
    assert (wall["call"], wall["name"], wall["open_count"]) == ("accept4", "EMFILE", room)
    assert server.status()["open_count"] == room
    assert descriptors_of(server.pid) == DESCRIPTORS
    assert all(echo(connection, b"held") == b"held" for connection in held)

    for connection, next_one in zip(held, waiting, strict=False):
        reset(connection)
        assert receive_exactly(next_one, 4) == b"wait"
    assert server.status()["open_count"] == room
    assert server.helper.walls() == [], "a wall is told once"


def test_no_busy_loop_at_the_wall(limited_server: Server) -> None:
    server = limited_server
    server.connect_served(DESCRIPTORS - descriptors_of(server.pid))
    server.connect()
    server.helper.expect("wall")
    wait_until(lambda: state_of(server.pid) == "S", "it sleeps")
    before = wakes_of(server.pid)
    errors = server.status()["accept_errors_count"]

    wait_until(lambda: state_of(server.pid) == "S", "it sleeps again")
    assert server.status()["accept_errors_count"] == errors, "it does not try again by itself"
    wait_until(lambda: state_of(server.pid) == "S", "it sleeps once more")
    assert wakes_of(server.pid) - before <= 4, "two commands woke it, nothing else"


def wakes_of(pid: int) -> int:
    return int(status_of(pid, "voluntary_ctxt_switches"))


@pytest.mark.parametrize(("task_model", "call"), [("thread", "pthread_create"), ("fork", "fork")])
def test_no_more_tasks(task_model: str, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    become_another_user(monkeypatch, tasks_limit_count=8)
    with Server(task_model) as server:
        held = server.connect_served(7)
        refused = server.connect(3)
        assert all(is_closed_by_peer(connection) for connection in refused)

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


@pytest.mark.parametrize(("model", "linking"), BUILDS)
@pytest.mark.parametrize("how", ["quit", "end of file"])
def test_the_end_leaves_nothing(model: str, linking: str, how: str) -> None:
    with start(model, linking=linking) as server:
        sockets = server.connect_served(5)
        clients = [connection.getsockname() for connection in sockets]
        assert len(remains_of_connections(server.port, clients)) == 2 * 5
        listeners = server_ends(server.port, "LISTEN")
        if how == "quit":
            server.helper.send("quit")
        end = server.helper.finish()

        assert end == {"type": "end", "samples_count": 5, "dropped_count": 0}
        assert session_members(server.pid) == {}
        assert all(is_closed_by_peer(connection) for connection in sockets)
        assert remains_of_connections(server.port, clients) == [], "resets leave no FIN_WAIT2 and no TIME_WAIT"
        assert not set(listeners) & set(server_ends(server.port, "LISTEN"))


@pytest.mark.parametrize(("model", "linking"), BUILDS)
def test_it_dies_with_its_parent(model: str, linking: str) -> None:
    with Foster("reference_server", "--model", model, *few_workers(model), linking=linking) as foster:
        port = int(foster.receive("ready")["port"])
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(connect(port)) for _ in range(5)]
            assert all(echo(connection, b"served") == b"served" for connection in sockets)
            workers = 5 if model == "fork" else FEW_WORKERS[model] if model in MANY_PROCESSES else 0
            assert len(living_members(foster.pid)) == 1 + workers

            foster.kill_starter()
            assert all(is_closed_by_peer(connection) for connection in sockets)
        wait_until(lambda: not server_ends(port, "LISTEN"), "nobody listens")


@pytest.mark.parametrize("model", MANY_PROCESSES)
def test_killing_the_server_kills_its_children(server: Server) -> None:
    sockets = server.connect_served(12)
    assert len(living_members(server.pid)) > 1

    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: not living_members(server.pid), "the children are gone", deadline_s=2)
    assert all(is_closed_by_peer(connection) for connection in sockets)


def test_a_child_holds_its_connection_and_nothing_else() -> None:
    with Server("fork") as server:
        server.connect_served(5)
        children = living_members(server.pid) - {server.pid}
        held = [sockets_of(child) for child in children]

        assert all([row.state for row in rows] == ["ESTABLISHED"] for rows in held)
        assert len({row.remote for rows in held for row in rows}) == len(children) == 5
        assert {descriptors_of(child) for child in children} == {2}, "the connection and stderr"


def test_ended_children_are_reaped() -> None:
    with Server("fork") as server:
        for connection in server.connect_served(12)[:9]:
            reset(connection)

        wait_until(
            lambda: len(session_members(server.pid)) == 4, "nine are gone, zombies included"
        )  # status would reap
        assert "Z" not in session_members(server.pid).values()
        assert server.status()["open_count"] == 3


def test_a_killed_child_is_a_closed_connection() -> None:
    with Server("fork") as server:
        first, second = server.connect_served()[0], server.connect_served()[0]
        child = min(living_members(server.pid) - {server.pid})
        os.kill(child, signal.SIGKILL)

        server.wait_for_open(1)
        killed, alive = (first, second) if is_readable(first) else (second, first)
        assert is_closed_by_peer(killed)
        assert echo(alive, b"alive") == b"alive"


def is_readable(connection: socket.socket) -> bool:
    return bool(select.select([connection], [], [], 0)[0])
