"""reference_server's models with their own walls: pools that are full, select's set; and workers that die."""

from __future__ import annotations

import errno
import os
import platform
import re
import resource
import select
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import cannot_run

from c10k_probe import limits, native
from c10k_probe.servers import POOLS, REFERENCE_MODELS, ServerOptions, to_hold
from native.driving import Server, echo, holding, is_closed_by_peer, receive_exactly, reset, run
from native.kernel_view import descriptors_of, living_members, session_members, sockets_of, state_of, wait_until
from native.test_readiness_walls import forbid_io_uring

FD_SETSIZE = 1024  # select(2)
WORKERS = 4
EVENT_LOOPS = ("epoll-reuseport", "epoll-exclusive", "epoll-inherited", "epoll-passed")


@pytest.fixture(params=POOLS)
def pool(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of each model whose workers hold one connection each."""
    with Server(str(request.param), "--workers", WORKERS) as running:
        yield running


@pytest.fixture(params=EVENT_LOOPS)
def loops(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of each model whose workers have an event loop each."""
    with Server(str(request.param), "--workers", WORKERS) as running:
        yield running


def workers_of(server: Server) -> set[int]:
    """The processes that are not the master."""
    return living_members(server.pid) - {server.pid}


def lowest_free_descriptor(pid: int) -> int:
    """The one that it would open next."""
    used = {int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()}
    return min(set(range(len(used) + 1)) - used)


def is_silent(connection: socket.socket) -> bool:
    """Nothing has come."""
    return not select.select([connection], [], [], 0)[0]


# --- pools ------------------------------------------------------------------------------------------------------------


def test_more_connections_than_workers_wait_and_that_is_told(pool: Server) -> None:
    is_queued_by_server = pool.ready["model"] == "thread-pool"
    held = pool.connect_served(WORKERS)
    assert pool.status()["open_count"] == WORKERS
    assert pool.helper.walls() == [], "nobody has waited yet"

    waiting = pool.connect(2)
    for connection in waiting:
        connection.sendall(b"wait")
    wall = pool.helper.expect("wall")
    assert (wall["call"], wall["name"]) == ("worker", "EAGAIN")
    assert wall["message"] == f"each of the {WORKERS} workers serves a connection: the next one waits"
    pool.wait_for_open(WORKERS + (2 if is_queued_by_server else 0))
    assert pool.status()["accepted_count"] == WORKERS + (2 if is_queued_by_server else 0)
    assert all(echo(connection, b"held") == b"held" for connection in held)
    assert all(is_silent(connection) for connection in waiting)

    for connection, next_one in zip(held, waiting, strict=False):
        reset(connection)
        assert receive_exactly(next_one, 4) == b"wait", "the first come is the first served"
    pool.wait_for_open(WORKERS)
    assert pool.status()["accept_errors_count"] == 0
    assert pool.helper.walls() == [], "a wall is told once"


def test_the_end_of_a_full_pool(pool: Server) -> None:
    sockets = [*pool.connect_served(WORKERS), *pool.connect(2)]
    pool.helper.expect("wall")

    pool.helper.send("quit")
    end = pool.helper.finish()
    assert end["samples_count"] in (WORKERS, WORKERS + 2)
    assert session_members(pool.pid) == {}
    assert all(is_closed_by_peer(connection) for connection in sockets)


def test_a_pool_sleeps_while_it_is_full_and_while_it_is_idle(pool: Server) -> None:
    def all_sleep() -> bool:
        return {state_of(pid) for pid in living_members(pool.pid)} == {"S"}

    wait_until(all_sleep, "idle")
    pool.connect_served(WORKERS)
    pool.connect()
    pool.helper.expect("wall")
    wait_until(all_sleep, "full")


@pytest.mark.parametrize("model", REFERENCE_MODELS)
def test_to_hold_asks_a_pool_for_enough_workers(model: str) -> None:
    few, many = to_hold(model, 1), to_hold(model, 1000)

    if model not in POOLS:
        assert few == many == (ServerOptions(), limits.Needs())
        return
    default_count = int(REFERENCE_MODELS[model].fixed.tasks_count) - 1
    assert (few[0].workers_count, few[1]) == (default_count, limits.Needs())
    assert (many[0].workers_count, many[1].tasks_count) == (1000, 1000 - default_count)
    with REFERENCE_MODELS[model].start(few[0]) as server:
        assert server.status()["tasks_count"] == REFERENCE_MODELS[model].fixed.tasks_count


# --- select -----------------------------------------------------------------------------------------------------------


def test_select_ends_at_the_size_of_its_set() -> None:
    with Server("select") as server, holding(server.port) as holder:
        room = FD_SETSIZE - descriptors_of(server.pid)
        ramped = holder.ask(f"ramp {FD_SETSIZE + 100}", "ramped")
        assert (ramped["open_count"], ramped["failure"]["call"]) == (room, "recv")

        wall = server.helper.expect("wall")
        assert (wall["call"], wall["name"], wall["open_count"]) == ("select", "EINVAL", room)
        assert wall["message"].endswith(f"FD_SETSIZE is {FD_SETSIZE}")
        found = limits.diagnose(wall["call"], wall["name"], walls=limits.walls(pid=server.pid))
        assert found is not None and (found.name, found.kind) == ("fd-setsize", "architectural")
        fixed, each = REFERENCE_MODELS["select"].fixed, REFERENCE_MODELS["select"].per_connection
        assert room - 8 <= FD_SETSIZE - fixed.select_count <= room
        assert each.select_count == 1

        assert holder.ask("echo", "echoed")["ok_count"] == room
        status = server.status()
        assert status["open_count"] == room
        assert status["accepted_count"] - room == status["accept_errors_count"] > 0
        assert is_closed_by_peer(server.connect()[0])
        holder.ask("close", "closed")
        server.wait_for_open(0)
        server.connect_served()


# --- processes with event loops ---------------------------------------------------------------------------------------


def test_each_workers_share_is_told(loops: Server) -> None:
    count = 64
    loops.connect_served(count)
    status = loops.status()

    assert sum(status["worker_accepted_count"]) == status["accepted_count"] == count
    assert status["worker_open_count"] == status["worker_accepted_count"]
    counts = sorted(sum(row.state == "ESTABLISHED" for row in sockets_of(pid)) for pid in workers_of(loops))
    assert counts == sorted(status["worker_open_count"])
    if loops.ready["model"] == "epoll-reuseport":
        assert sum(share > 0 for share in status["worker_open_count"]) > 1, "the kernel spreads by a hash"


def test_a_wall_of_all_workers_is_told_once(loops: Server) -> None:
    loops.connect_served()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for pid in workers_of(loops):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest_free_descriptor(pid), hard))
    waiting = loops.connect(32)

    wall = loops.helper.expect("wall")
    is_passed = loops.ready["model"] == "epoll-passed"  # accepted by the master, then there is no room for it
    assert (wall["call"], wall["name"]) == ("recvmsg" if is_passed else "accept4", "EMFILE")
    if is_passed:
        assert all(is_closed_by_peer(connection) for connection in waiting)
        assert loops.status()["accept_errors_count"] == len(waiting)
        return
    if loops.ready["model"] == "epoll-reuseport":  # the others stand at the listener of some other worker
        wait_until(lambda: loops.status()["accept_errors_count"] > 1, "several workers have met it")
    assert loops.status()["open_count"] == 1
    assert all(is_silent(connection) for connection in waiting)
    assert loops.helper.walls() == []


def test_a_connection_that_the_master_still_has_is_closed_once(require_tool: Callable[[str], str]) -> None:
    """It stays in the worker's epoll while any process has it open (epoll(7), Q6), and would be closed again."""
    inject = ("-e", "trace=close", "-e", "inject=close:delay_enter=100000")  # µs
    with Server("epoll-passed", "--workers", 1) as server:
        command = [require_tool("strace"), "-p", str(server.pid), *inject]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
            assert tracer.stderr is not None
            if "attached" not in (said := tracer.stderr.readline()):
                cannot_run(f"strace cannot attach to a process: {said}")
            server.connect_served()[0].close()
            status = server.status()  # the master's answer comes after its close
            tracer.terminate()
            assert "DELAYED" in tracer.stderr.read()
        assert (status["worker_accepted_count"], status["worker_open_count"]) == ([1], [0])


def test_the_default_is_one_worker_for_each_cpu() -> None:
    for model in EVENT_LOOPS:
        with Server(model) as server:
            assert len(workers_of(server)) == len(os.sched_getaffinity(0))


def test_workers_have_the_cpus_that_the_server_was_given() -> None:
    cpus = {max(os.sched_getaffinity(0))}
    before = os.sched_getaffinity(0)
    with native.Helper("reference_server", ["--model", "epoll-exclusive"], cpus=cpus) as helper:
        helper.expect("ready")
        members = living_members(helper.pid)
        assert len(members) == 1 + len(cpus)
        assert [os.sched_getaffinity(pid) for pid in members] == [cpus] * len(members)
    assert os.sched_getaffinity(0) == before


# --- workers that die -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["prefork", *EVENT_LOOPS])
def test_a_worker_that_dies_is_told(model: str) -> None:
    with Server(model, "--workers", WORKERS) as server:
        sockets = server.connect_served(WORKERS - 1)
        victim = max(workers_of(server), key=lambda pid: len(sockets_of(pid)))
        lost_count = sum(row.state == "ESTABLISHED" for row in sockets_of(victim))
        os.kill(victim, signal.SIGKILL)

        wall = server.helper.expect("wall")
        assert (wall["call"], wall["name"]) == ("worker", "ECHILD")
        assert re.fullmatch(rf"worker \d of {WORKERS} was killed by SIGKILL: .* not replaced", wall["message"])
        assert wall["open_count"] == WORKERS - 1 - lost_count
        status = server.status()
        assert (status["open_count"], status["tasks_count"]) == (WORKERS - 1 - lost_count, WORKERS)
        lost = [connection for connection in sockets if not is_silent(connection)]
        assert len(lost) == lost_count and all(is_closed_by_peer(connection) for connection in lost)
        assert all(echo(connection, b"alive") == b"alive" for connection in sockets if connection not in lost)
        server.connect_served()
        if model == "prefork":
            server.connect(2)
            assert server.helper.expect("wall")["message"].startswith(f"each of the {WORKERS - 1} workers serves")

        for pid in workers_of(server):
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(native.HelperCallFailed, match="every worker has ended"):
            while True:
                server.helper.expect("status")


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", REFERENCE_MODELS)
def test_an_option_that_does_nothing_is_refused(model: str) -> None:
    given = {"stack": 65_536, "workers": 3, "edge": "on", "capacity": 10}
    for option, value in given.items():
        outcome = run("reference_server", "--model", model, f"--{option}", value)
        if option in REFERENCE_MODELS[model].takes:
            assert (outcome.code, outcome.only("end")["samples_count"]) == (0, 0)
        else:
            assert (outcome.code, outcome.messages) == (2, [])
            assert outcome.stderr.endswith(f"--{option} does nothing for the model {model}; leave it out\n")


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS])
def test_io_uring_where_it_is_forbidden(error: int) -> None:
    if platform.machine() not in ("x86_64", "aarch64"):
        cannot_run("the filter is written for x86_64 and aarch64")
    outcome = run("reference_server", "--model", "io_uring", preexec_fn=forbid_io_uring(error))

    assert outcome.code == 77
    assert outcome.only("unsupported")["reason"].startswith(f"io_uring_setup: {errno.errorcode[error]} ")
