"""reference_server's work of a request: what is asked for is spent, counted and told, in every model."""

from __future__ import annotations

import itertools
import socket

import pytest

from c10k_probe.servers import REFERENCE_MODELS
from native.driving import RECEIVE_TIMEOUT_S, Message, Server, echo, few_workers, run
from native.kernel_view import wait_until

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
REQUESTS_COUNT = 4
CPU_NS, SLEEP_NS = 100_000, 2_000_000
HELD_NS = 200_000_000
CANNOT_TELL_QUEUE = {"io_uring"}  # the kernel receives
ALONE = {"epoll-reuseport": 1, "epoll-exclusive": 1}  # workers: two of them would not block each other
SERVES_SEVERAL = {"thread", "fork", "prefork", "thread-pool", "epoll-await", "epoll-pool"}


def ask(connection: socket.socket, request: bytes = REQUEST) -> bytes:
    """The answer, as it came."""
    connection.settimeout(RECEIVE_TIMEOUT_S)
    connection.sendall(request)
    return connection.recv(65_536)


def work_of(server: Server, answers_count: int) -> Message:
    """When all answers are recorded: the client may have one before the server has written it down."""
    wait_until(lambda: server.status()["work"]["handler_count"] == answers_count, f"{answers_count} answers recorded")
    work: Message = server.status()["work"]
    return work


def check_histogram(work: Message, name: str) -> None:
    """It adds up to the count, in order, and agrees with the sum within the width of its buckets."""
    buckets = work[f"{name}_histogram"]
    lowers = [lower for lower, _ in buckets]
    assert lowers == sorted(set(lowers))
    assert sum(count for _, count in buckets) == work[f"{name}_count"]
    assert sum(lower * count for lower, count in buckets) <= work[f"{name}_ns"]
    assert work[f"{name}_ns"] <= sum((lower * 17 // 16 + 1) * count for lower, count in buckets)
    assert lowers[-1] <= work[f"{name}_longest_ns"] <= lowers[-1] * 17 // 16 + 1


@pytest.mark.parametrize("model", REFERENCE_MODELS)
def test_each_request_works_as_long_as_asked(model: str) -> None:
    asked = ("--protocol", "http", "--work-cpu-ns", CPU_NS, "--work-sleep-ns", SLEEP_NS)
    with Server(model, *few_workers(model), *asked) as server:
        (connection,) = server.connect()
        assert ask(connection, b"BAD / HTTP/1.1\r\nHost: a\r\n\r\n").startswith(b"HTTP/1.1 501")
        (connection,) = server.connect()
        for _ in range(REQUESTS_COUNT):
            assert ask(connection).startswith(b"HTTP/1.1 200")
        work = work_of(server, REQUESTS_COUNT)
        assert work["requests_count"] == REQUESTS_COUNT  # nothing was worked on for what was refused
        assert work["cpu_ns"] >= REQUESTS_COUNT * CPU_NS
        assert work["sleep_ns"] >= REQUESTS_COUNT * SLEEP_NS
        assert work["handler_ns"] >= REQUESTS_COUNT * (CPU_NS + SLEEP_NS)
        check_histogram(work, "handler")
        if model in CANNOT_TELL_QUEUE:
            assert work["queue_count"] == 0
        else:
            assert work["queue_count"] == REQUESTS_COUNT
            check_histogram(work, "queue")


@pytest.mark.parametrize("model", sorted(set(REFERENCE_MODELS) - CANNOT_TELL_QUEUE))
def test_a_second_user_waits_where_the_model_blocks(model: str) -> None:
    """Two requests at once: an event loop serves them one after the other, and the second has been in the queue."""
    workers = ("--workers", ALONE[model]) if model in ALONE else few_workers(model)
    with Server(model, *workers, "--protocol", "http", "--work-sleep-ns", HELD_NS) as server:
        connections = server.connect(2)
        for connection in connections:
            connection.settimeout(RECEIVE_TIMEOUT_S)
            connection.sendall(REQUEST)
        for connection in connections:
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
        work = work_of(server, 2)
        if model in SERVES_SEVERAL:
            assert work["queue_longest_ns"] < HELD_NS
        else:
            assert work["queue_longest_ns"] >= HELD_NS * 9 // 10


def test_the_echo_works_too_and_0_only_times() -> None:
    with Server("epoll", "--work-cpu-ns", 0) as server:
        (connection,) = server.connect()
        for _ in range(REQUESTS_COUNT):
            assert echo(connection, b"x") == b"x"
        work = work_of(server, REQUESTS_COUNT)
        assert (work["requests_count"], work["cpu_ns"], work["sleep_ns"]) == (REQUESTS_COUNT, 0, 0)


def test_without_work_nothing_is_timed() -> None:
    with Server("epoll") as server:
        (connection,) = server.connect()
        assert echo(connection, b"x") == b"x"
        assert "work" not in server.status()


def test_work_out_of_range_is_refused() -> None:
    for option, value in itertools.product(("cpu", "sleep"), ("-1", "60000000001", "1.5")):
        outcome = run("reference_server", "--model", "epoll", f"--work-{option}-ns", value)
        assert (outcome.code, outcome.messages) == (2, [])
        assert f"--work-{option}-ns" in outcome.stderr
