"""The backend that servers wait for: its delays, its counts, what it does wrong; and servers that wait for it."""

from __future__ import annotations

import os
import select
import signal
import socket
import statistics
import time
from collections.abc import Iterator

import pytest

from c10k_probe import native
from c10k_probe.load import Sender
from c10k_probe.servers import REFERENCE_MODELS, Backend, ServerOptions
from native.driving import RECEIVE_TIMEOUT_S, lower_descriptor_limit, run
from native.kernel_view import session_members, wait_until

MS = 10**6
DELAY_NS = 20 * MS
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(params=REFERENCE_MODELS)
def model(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each way to serve."""
    yield str(request.param)


def options(backend: Backend, timeout_ns: int = 5 * 10**9) -> ServerOptions:
    """Few workers, so that there is a queue."""
    return ServerOptions(protocol="http", workers_count=4, backend_port=backend.port, backend_timeout_ns=timeout_ns)


def connect(port: int) -> socket.socket:
    """A connection that does not wait for ever."""
    connection = socket.create_connection(("127.0.0.1", port), RECEIVE_TIMEOUT_S)
    connection.settimeout(RECEIVE_TIMEOUT_S)
    return connection


def waits_ns(backend: Backend, count: int) -> list[int]:
    """How long each of so many questions, all at once, each on a connection of its own, takes at least."""
    connections = [connect(backend.port) for _ in range(count)]
    asked_ns = []
    for connection in connections:
        asked_ns.append(time.monotonic_ns())
        connection.sendall(b"?")
    waits = []
    waiting = dict(zip(connections, asked_ns, strict=True))
    while waiting:
        for connection in select.select(list(waiting), [], [], RECEIVE_TIMEOUT_S)[0]:
            assert connection.recv(2) == b"!"
            waits.append(time.monotonic_ns() - waiting.pop(connection))
            connection.close()
    return waits


# --- delays -----------------------------------------------------------------------------------------------------------


def test_no_answer_is_early_and_waits_do_not_queue() -> None:
    with Backend(DELAY_NS) as backend:
        began_ns = time.monotonic_ns()
        assert min(waits_ns(backend, 100)) >= DELAY_NS
        assert time.monotonic_ns() - began_ns < 100 * DELAY_NS / 2  # one after the other they would take 100 delays
        status = backend.status()
    assert (status.asked_count, status.answered_count, status.waiting_count, status.lost_count) == (100, 100, 0, 0)
    assert 0 <= status.late_ns / 100 <= status.longest_late_ns


def test_spread_delays_lie_where_they_must() -> None:
    with Backend(DELAY_NS, "jittered", seed=1) as jittered:
        assert min(waits_ns(jittered, 50)) >= DELAY_NS // 2
    with Backend(MS, "pareto", seed=1) as pareto:
        waits = waits_ns(pareto, 200)
    assert min(waits) >= MS / 3  # the least of a Pareto distribution with this mean and shape 1.5
    assert max(waits) > 3 * statistics.median(waits)  # its tail


def test_overlapping_questions_of_one_connection_are_all_answered() -> None:
    with Backend(DELAY_NS, "jittered", seed=1) as backend, connect(backend.port) as connection:
        connection.sendall(b"?" * 600)
        got = 0
        while got < 600:
            got += len(connection.recv(1000))
        assert (got, backend.status().answered_count) == (600, 600)


def test_never_means_never_and_what_is_given_up_is_counted_as_lost() -> None:
    with Backend(0, "never") as backend:
        with connect(backend.port) as connection:
            connection.sendall(b"???")
            wait_until(lambda: backend.status().waiting_count == 3, "three questions counted")
        wait_until(lambda: backend.status().open_count == 0, "the connection gone")
        status = backend.status()
    assert (status.asked_count, status.answered_count, status.waiting_count, status.lost_count) == (3, 0, 0, 3)


# --- pace -------------------------------------------------------------------------------------------------------------


def test_held_questions_wait_and_hurried_ones_do_not() -> None:
    """However long the delay is: nobody is answered while it is held, and everybody at once when it is to hurry."""
    with Backend(3600 * 10**9 // 60) as backend, connect(backend.port) as connection:  # a minute
        connection.sendall(b"??")
        wait_until(lambda: backend.status().waiting_count == 2, "two questions counted")
        assert backend.hurry().answered_count == 2
        connection.sendall(b"?")
        assert connection.recv(2) == b"!!"
        assert connection.recv(1) == b"!"
        assert backend.status().late_ns == 0  # as if nobody had been answered: it was no delay that was asked for
    with Backend(MS) as backend, connect(backend.port) as connection:
        backend.hold()
        connection.sendall(b"?")
        wait_until(lambda: backend.status().waiting_count == 1, "a question counted")
        assert not select.select([connection], [], [], 20 * MS / 1e9)[0]  # twenty delays
        assert backend.resume().waiting_count in (0, 1)
        assert connection.recv(1) == b"!"


@pytest.mark.parametrize("kind", ["never", "hang"])
def test_who_would_get_no_answer_is_reset_when_it_is_to_hurry(kind: str) -> None:
    given = {"fault": "hang"} if kind == "hang" else {}
    with Backend(MS, "fixed" if given else "never", **given) as backend:
        waiting, later = connect(backend.port), connect(backend.port)
        with waiting, later:
            waiting.sendall(b"?")
            wait_until(lambda: backend.status().waiting_count == 1, "a question counted")
            backend.hurry()
            with pytest.raises(ConnectionResetError):
                waiting.recv(1)
            later.sendall(b"?")
            with pytest.raises(ConnectionResetError):
                later.recv(1)
        status = backend.status()
    assert (status.asked_count, status.answered_count, status.lost_count) == (2, 0, 2)


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["hang", "reset", "die"])
def test_faults_begin_where_they_are_asked_to(fault: str) -> None:
    with Backend(MS, fault=fault, fault_after_count=2) as backend, connect(backend.port) as connection:
        for _ in range(2):
            connection.sendall(b"?")
            assert connection.recv(1) == b"!"
        connection.sendall(b"?")
        if fault == "hang":
            wait_until(lambda: backend.status().asked_count == 3, "the third question counted")
            assert backend.status().waiting_count == 1
        else:
            with pytest.raises(ConnectionResetError) if fault == "reset" else pytest.raises((OSError, AssertionError)):
                assert connection.recv(1) != b""
        if fault == "die":
            wait_until(backend.death, "the backend dead")
            assert "SIGKILL" in backend.death()


def test_bad_arguments_are_refused() -> None:
    for arguments in (["--delay-ns", -1], ["--delay-ns", 1, "--delay", "slow"], ["--delay-ns", 1, "--fault", "x"], []):
        outcome = run("backend", *arguments)
        assert (outcome.code, outcome.messages) == (2, [])
    refused = run("reference_server", "--model", "epoll", "--backend-port", 80)
    assert (refused.code, refused.messages) == (2, [])
    assert "--protocol http" in refused.stderr


# --- servers that wait for it -----------------------------------------------------------------------------------------


def test_backend_and_server_count_the_same_and_obey_little(model: str) -> None:
    """No more than places over delay, whoever is fast."""
    one_place = ("epoll", "select", "poll", "io_uring")
    places = 8 if model in ("epoll-await", "thread", "fork") else 1 if model in one_place else 4  # of four workers
    delay_ns = 50 * MS
    with Backend(delay_ns) as backend, REFERENCE_MODELS[model].start(options(backend)) as server:
        with Sender(server.port, 8, keep_alive=model not in ("prefork", "thread-pool"), timeout_s=20) as sender:
            report = sender.pump(0.3, 0.05)
        wait_until(lambda: server.status()["work"]["handler_count"] == backend.status().answered_count, "all recorded")
        work, told = server.status()["work"], backend.status()
    assert report.failed_count == 0
    assert work["requests_count"] == work["backend_asked_count"] == told.asked_count == told.answered_count
    assert work["requests_count"] >= report.requests_count
    assert work["backend_wait_ns"] >= work["backend_asked_count"] * delay_ns
    assert work["handler_ns"] >= work["backend_wait_ns"] * 0.99
    line_per_s = places * 1e9 / delay_ns
    assert report.rate_per_s <= line_per_s * 1.3  # one batch of answers more or less at the window's ends
    assert told.answered_count <= line_per_s * 0.4 + 4 * 8


def test_a_blocking_pool_reaches_the_line_within_5_pct() -> None:
    """12 requests at once, 4 workers: three delays, so wide that this is no question of speed."""
    delay_ns, count, workers_count = 400 * MS, 12, 4
    with Backend(delay_ns) as backend, REFERENCE_MODELS["thread-pool"].start(options(backend)) as server:
        connections = [connect(server.port) for _ in range(count)]
        began_ns = time.monotonic_ns()
        for connection in connections:
            connection.sendall(REQUEST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        for connection in connections:
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
            connection.close()
        taken_ns = time.monotonic_ns() - began_ns
    assert count * 1e9 / taken_ns == pytest.approx(workers_count * 1e9 / delay_ns, rel=0.05)


def test_a_request_for_plain_needs_no_backend(model: str) -> None:
    with Backend(0, "never") as backend, REFERENCE_MODELS[model].start(options(backend)) as server:
        with connect(server.port) as connection:
            connection.sendall(b"GET /plain HTTP/1.1\r\nHost: a\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        assert backend.status().asked_count == 0


@pytest.mark.parametrize(("fault", "answer"), [("reset", 502), ("hang", 504), ("die", 502), ("none", 502)])
def test_a_broken_backend_becomes_an_answer_in_every_model(fault: str, answer: int) -> None:
    """`none`: nobody listens at its port any more. After it the server still answers what needs no backend."""
    for name in REFERENCE_MODELS:
        with Backend(MS, fault=fault) as backend:
            server = REFERENCE_MODELS[name].start(options(backend, 50 * MS))
            if fault == "none":
                os.kill(backend.pid, signal.SIGKILL)
                wait_until(backend.death, "the backend dead")
            with server:
                with connect(server.port) as connection:
                    connection.sendall(REQUEST)
                    assert connection.recv(4096).startswith(b"HTTP/1.1 %d" % answer), name
                with connect(server.port) as connection:
                    connection.sendall(b"GET /plain HTTP/1.1\r\nHost: a\r\n\r\n")
                    assert connection.recv(4096).startswith(b"HTTP/1.1 200"), name
                work = server.status()["work"]
                assert work["backend_failed_count"] + work["backend_timed_out_count"] == 1, name
                assert work["backend_timed_out_count"] == (fault == "hang"), name


def test_a_loop_gives_each_question_up_at_its_own_time_out() -> None:
    """The soonest of ten is on time on a busy machine, too; none is given up with one that was asked before it."""
    timeout_ns = 20 * MS
    with Backend(0, "never") as backend, REFERENCE_MODELS["epoll-await"].start(options(backend, timeout_ns)) as server:
        asked_ns = {}
        for _ in range(10):
            connection = connect(server.port)
            asked_ns[connection] = time.monotonic_ns()
            connection.sendall(REQUEST)
            wait_until(lambda: backend.status().asked_count == len(asked_ns), "the question asked")
        waits = []
        for connection, began_ns in asked_ns.items():
            assert connection.recv(4096).startswith(b"HTTP/1.1 504")
            connection.close()
            waits.append(time.monotonic_ns() - began_ns)
        work = server.status()["work"]
        assert timeout_ns <= min(waits) < 3 * timeout_ns
        assert work["backend_wait_ns"] >= len(waits) * timeout_ns
        assert work["backend_timed_out_count"] == len(waits)


def test_the_end_does_not_wait_for_the_backend(model: str) -> None:
    """Every worker waits for an answer that never comes; nothing stays."""
    with Backend(0, "never") as backend:
        server = REFERENCE_MODELS[model].start(options(backend, 60 * 10**9))
        with server:
            connections = [connect(server.port) for _ in range(4)]
            for connection in connections:
                connection.sendall(REQUEST)
            wait_until(lambda: backend.status().asked_count > 0, "a question asked")
        wait_until(lambda: not session_members(server.session), "every process of the server gone")
        for connection in connections:
            connection.close()
    assert native.running_pids().isdisjoint({server.session})


def test_a_client_that_goes_does_not_take_the_answer_of_another() -> None:
    """In the models that wait in their loop the exchange outlives its client; its answer is let go."""
    for name in ("epoll-await", "epoll-pool"):
        with Backend(DELAY_NS) as backend, REFERENCE_MODELS[name].start(options(backend)) as server:
            for _ in range(3):
                gone = connect(server.port)
                asked_count = backend.status().asked_count
                gone.sendall(REQUEST)
                wait_until(lambda before=asked_count: backend.status().asked_count > before, "a question")  # type: ignore[misc]
                gone.close()
                with connect(server.port) as connection:
                    connection.sendall(REQUEST * 2)
                    answers = b""
                    while answers.count(b"hello") < 2:
                        answers += connection.recv(4096)
                    assert answers.count(b"HTTP/1.1 200") == 2
            wait_until(lambda: backend.status().waiting_count == 0, "no question left")
            assert backend.status().asked_count == 9
            server.wait_until_idle()
            assert server.status()["open_count"] == 0


def test_who_waits_for_a_link_is_answered_when_every_link_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """30 requests and descriptors for a few links: the backend resets each, and nobody is left behind."""
    count = 30
    with Backend(DELAY_NS, fault="reset", fault_after_count=0) as backend:
        lower_descriptor_limit(monkeypatch, 48)
        with REFERENCE_MODELS["epoll-await"].start(options(backend)) as server:
            connections = [connect(server.port) for _ in range(count)]
            wait_until(lambda: server.status()["open_count"] == count, "all accepted")
            for connection in connections:
                connection.sendall(REQUEST)
            for connection in connections:
                assert connection.recv(4096).startswith(b"HTTP/1.1 502")
                connection.close()
            assert server.status()["work"]["backend_failed_count"] == count
