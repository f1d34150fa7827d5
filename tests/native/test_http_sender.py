"""http_sender and ``Sender``: the plan is kept whatever the server does, each request ends one way, nothing stays."""

from __future__ import annotations

import os
import signal
import socket
import time

import pytest

from c10k_probe import native
from c10k_probe.load import OpenLoad, OpenLoop, Sender, Stage
from c10k_probe.load.open_loop import OUTCOMES
from c10k_probe.servers import REFERENCE_MODELS, Backend, ServerOptions
from c10k_probe.servers.reference import ReferenceServer
from native.driving import Foster, lower_descriptor_limit, run
from native.http_answering import OK, HttpServer, Way
from native.kernel_view import client_ends, remains_of, wait_until

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
HTTP = ServerOptions(protocol="http")
PATIENCE_S = 10.0  # never reached where all goes well


def ends_of(loop: OpenLoop) -> dict[str, int]:
    """How many requests ended in each way, where any did; in all as many as were intended."""
    ends = {name: int(getattr(loop, f"{name}_count")) for name in OUTCOMES}
    assert sum(ends.values()) == loop.intended_count
    if loop.samples_every == 1:
        assert {name: loop.outcomes.count(name) for name in OUTCOMES} == ends
    assert [latency >= 0 for latency in loop.latency_ns] == [outcome == "answered" for outcome in loop.outcomes]
    return {name: count for name, count in ends.items() if count}


# --- the plan ---------------------------------------------------------------------------------------------------------


def test_an_even_plan_is_exact_and_no_latency_is_shorter_than_the_delay() -> None:
    with HttpServer(Way(delay_s=0.02)) as server:
        with Sender(server.port, 8, keep_alive=True, timeout_s=PATIENCE_S, path="/a?b") as sender:
            loop = sender.send(OpenLoad(200, 0.2, 1))
            assert len(client_ends(server.port)) == 8  # kept for the next load
        assert ends_of(loop) == {"answered": 40}
        assert len(server.requests) == loop.sent_count == 40
        assert set(server.requests) == {f"GET /a?b HTTP/1.1\r\nHost: 127.0.0.1:{server.port}".encode()}
    assert (sorted(loop.due_ns), loop.duration_ns) == ([5 * NS_PER_MS * place for place in range(40)], NS_PER_S // 5)
    assert min(loop.latency_ns) >= 20 * NS_PER_MS
    assert (loop.opened_connections_count, loop.own_failure, loop.samples_every) == (8, "", 1)
    assert loop.within(10 * NS_PER_MS) == (0, 40)
    assert loop.within(PATIENCE_S * NS_PER_S) == (40, 40)
    assert loop.quantile_ns(0.5) is not None
    assert loop.quantile_ns(0.99) is None  # too few samples beyond it
    assert 0 < loop.client_cpu_ns < loop.taken_ns
    assert remains_of(server.port) == []


def test_a_request_that_waits_for_a_connection_has_its_clock_running() -> None:
    """One connection, 20 ms each, one due every 10 ms: the n-th is answered 20 (n + 1) ms after the start at least."""
    with HttpServer(Way(delay_s=0.02)) as server, Sender(server.port, 1, keep_alive=True, timeout_s=5) as sender:
        loop = sender.send(OpenLoad(100, 0.2, 1))
    assert ends_of(loop) == {"answered": 20}
    for place, (due_ns, latency_ns) in enumerate(zip(loop.due_ns, loop.latency_ns, strict=True)):
        assert due_ns == 10 * NS_PER_MS * place
        assert latency_ns >= 20 * NS_PER_MS * (place + 1) - due_ns


def test_a_stopped_server_is_charged_with_all_that_was_due_meanwhile() -> None:
    """Coordinated omission: what was due while it was stopped cannot have been answered before it went on."""
    with ReferenceServer("epoll", HTTP) as server, Sender(server.port, 4, keep_alive=True, timeout_s=10) as sender:
        sender.pump(0.01)
        os.kill(server.session, signal.SIGSTOP)
        try:
            begun_ns = time.monotonic_ns()
            sender.begin_send(OpenLoad(1000, 0.4, 1))
            wait_until(lambda: time.monotonic_ns() - begun_ns > 200 * NS_PER_MS, "a stall of 200 ms")
            continued_ns = time.monotonic_ns()
        finally:
            os.kill(server.session, signal.SIGCONT)
        loop = sender.finish_send(20)
    assert ends_of(loop) == {"answered": 400}
    stalled = [due_ns for due_ns in loop.due_ns if loop.start_ns + due_ns < continued_ns]
    assert len(stalled) > 100
    for due_ns, latency_ns in zip(loop.due_ns, loop.latency_ns, strict=True):
        assert latency_ns >= continued_ns - loop.start_ns - due_ns
    quantile = loop.quantile_ns(0.9)
    assert quantile is not None
    assert quantile > 100 * NS_PER_MS  # 4 connections alone would have hidden all but 4 of them


def test_a_poisson_plan_is_its_seeds() -> None:
    with ReferenceServer("epoll", HTTP) as server, Sender(server.port, 16, keep_alive=True, timeout_s=5) as sender:
        first, again, other = (sender.send(OpenLoad(4000, 0.25, seed, arrivals="poisson")) for seed in (1, 1, 2))
    assert sorted(first.due_ns) == sorted(again.due_ns) != sorted(other.due_ns)
    for loop in (first, other):
        assert ends_of(loop) == {"answered": loop.intended_count}
        assert abs(loop.intended_count - 1000) < 5 * 1000**0.5
        gaps = [after - before for before, after in zip(sorted(loop.due_ns), sorted(loop.due_ns)[1:], strict=False)]
        mean = sum(gaps) / len(gaps)
        assert 0.7 < (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5 / mean < 1.3  # 1 of an exponential


def test_a_burst_is_due_at_the_first_moment_and_leaves_the_schedule_as_it_was() -> None:
    with ReferenceServer("epoll", HTTP) as server, Sender(server.port, 64, keep_alive=False, timeout_s=5) as sender:
        plain = sender.send(OpenLoad(1000, 0.05, 1, arrivals="poisson"))
        burst = sender.send(OpenLoad(1000, 0.05, 1, arrivals="poisson", burst_count=300))
        assert server.status()["accepted_count"] == plain.intended_count + burst.intended_count
    assert ends_of(burst) == {"answered": plain.intended_count + 300}
    assert sorted(burst.due_ns) == [0] * 300 + sorted(plain.due_ns)


def test_stages_follow_each_other_without_a_pause_each_at_its_rate() -> None:
    """500 requests a second for 100 ms, 2,000 for 50 ms, none for 20, 100 for 50; they add up to the whole."""
    load = OpenLoad(500, 0.1, 1, burst_count=7, further=(Stage(2000, 0.05), Stage(0, 0.02), Stage(100, 0.05)))
    with ReferenceServer("epoll", HTTP) as server, Sender(server.port, 300, keep_alive=False, timeout_s=5) as sender:
        loop, again = sender.send(load), sender.send(OpenLoad(500, 0.1, 1))
    assert (load.whole_s, loop.duration_ns) == (pytest.approx(0.22), 220 * NS_PER_MS)
    due_ns = sorted(loop.due_ns)
    steps = [2 * NS_PER_MS * place for place in range(50)]
    steps += [100 * NS_PER_MS + NS_PER_MS // 2 * place for place in range(100)]
    assert due_ns == [0] * 7 + steps + [170 * NS_PER_MS + 10 * NS_PER_MS * place for place in range(5)]
    assert ends_of(loop) == {"answered": 162}
    assert len(loop.stages) == 4
    assert 0 < sum(stage.client_cpu_ns for stage in loop.stages) <= loop.client_cpu_ns
    assert max(stage.longest_late_ns for stage in loop.stages) == loop.longest_late_ns
    assert (again.intended_count, len(again.stages)) == (50, 1)  # the stages of a load are not those of the next


def test_what_has_no_answer_at_the_end_of_the_load_is_given_up_there() -> None:
    """A server that says nothing: two have a connection, the others none; the time-out alone would take a minute."""
    with HttpServer(Way(())) as server, Sender(server.port, 2, keep_alive=False, timeout_s=60) as sender:
        loop = sender.send(OpenLoad(1000, 0.01, 1, burst_count=5, wait_s=0.02))
    assert ends_of(loop) == {"timed_out": 2, "unsent": 13}
    assert (loop.sent_count, loop.intended_count) == (2, 15)
    assert loop.taken_ns >= 30 * NS_PER_MS


def test_one_request_in_so_many_is_kept() -> None:
    with ReferenceServer("epoll", HTTP) as server:
        sender = Sender(server.port, 8, keep_alive=True, timeout_s=5, samples_count=100)
        with sender:
            loop = sender.send(OpenLoad(10_000, 0.1, 1))
            closed = sender.pump(0.2)
    assert (loop.answered_count, loop.samples_every) == (1000, 10)
    assert len(loop.latency_ns) == len(loop.due_ns) == len(loop.outcomes) == 100
    assert sorted(due_ns // NS_PER_MS for due_ns in loop.due_ns) == list(range(100))
    assert 50 <= len(closed.latency_ns) <= 100
    assert len(closed.latency_ns) * closed.samples_every <= closed.requests_count + closed.samples_every


# --- answers ----------------------------------------------------------------------------------------------------------

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\n"
)
TO_THE_END = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nhello"
CLOSING = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"
ANSWERS = {
    "length": (Way(), "answered", False),
    "byte by byte": (Way([bytes([byte]) for byte in OK], pause_s=0.0002), "answered", False),
    "chunked": (Way((CHUNKED,)), "answered", False),
    "chunked byte by byte": (Way([bytes([byte]) for byte in CHUNKED], pause_s=0.0002), "answered", False),
    "no body": (Way((b"HTTP/1.1 204 No Content\r\n\r\n",)), "answered", False),
    "100 before it": (Way((b"HTTP/1.1 100 Continue\r\n\r\n" + OK,)), "answered", False),
    "up to the end": (Way((TO_THE_END,), closes=True), "answered", True),
    "closing, and says so": (Way((CLOSING,), closes=True), "answered", True),
    "closing, and does not say so": (Way((OK,), closes=True), "answered", True),
    "HTTP/1.0": (Way((b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",), closes=True), "answered", True),
    "500": (Way((b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",)), "wrong", False),
    "no HTTP": (Way((b"220 mail.example ESMTP\r\n",)), "wrong", True),
    "more than an answer": (Way((OK + b"more",)), "wrong", True),
    "a length that is none": (Way((b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",)), "wrong", True),
    "closing before it": (Way((), closes=True), "reset", True),
    "closing within": (Way((OK[:-1],), closes=True), "reset", True),
    "closing within a chunk": (Way((CHUNKED[:60],), closes=True), "reset", True),
    "resetting": (Way((OK[:-1],), resets=True), "reset", True),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_every_answer_is_read_for_what_it_is(name: str) -> None:
    """One at a time on one connection, which is opened again for each request where the last one ended it."""
    way, outcome, is_last = ANSWERS[name]
    with HttpServer(way) as server, Sender(server.port, 1, keep_alive=True, timeout_s=PATIENCE_S) as sender:
        loop = sender.send(OpenLoad(50, 0.1, 1))
        assert len(server.requests) == loop.sent_count == 5
    assert ends_of(loop) == {outcome: 5}
    # the first connection is opened before the window
    assert loop.opened_connections_count in ((5, 6) if is_last else (1,))
    assert loop.own_failure == ""


def test_silence_times_out_and_costs_the_connection() -> None:
    """Two connections, nothing ever comes: nothing is answered, and none waits longer than it was to be waited for."""
    with HttpServer(Way(())) as server, Sender(server.port, 2, keep_alive=True, timeout_s=0.05) as sender:
        loop = sender.send(OpenLoad(200, 0.1, 1))
        assert loop.taken_ns >= 100 * NS_PER_MS + 45 * NS_PER_MS
    ends = ends_of(loop)
    assert ends.keys() <= {"timed_out", "unsent"}
    assert ends["timed_out"] >= 4
    assert loop.sent_count == ends["timed_out"] <= loop.opened_connections_count + 2
    assert loop.quantile_ns(0.5) is None  # it was never answered


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    for keep_alive in (True, False):
        with Sender(port, 4, keep_alive=keep_alive, timeout_s=1) as sender:
            assert ends_of(sender.send(OpenLoad(100, 0.1, 1))) == {"refused": 10}
            closed = sender.pump(0.05)
            assert (closed.requests_count, closed.failed_count > 0, closed.own_failure) == (0, True, "")


# --- connections ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["epoll", "thread", "fork"])
def test_a_new_connection_for_each_request_agrees_with_the_servers_count(model: str) -> None:
    """All that were opened were accepted, one for each request, and none is left in any state."""
    with ReferenceServer(model, HTTP) as server:
        with Sender(server.port, 50, keep_alive=False, timeout_s=PATIENCE_S) as sender:
            loop = sender.send(OpenLoad(1000, 0.1, 1))
            closed = sender.pump(0.1, 0.05)
        assert ends_of(loop) == {"answered": 100}
        assert loop.opened_connections_count == 100
        assert closed.failed_count == 0
        done = closed.warmup_count + closed.requests_count + closed.drained_count
        assert closed.opened_connections_count == done > 50
        assert server.status()["accepted_count"] == 100 + done
        server.wait_until_idle()
        assert [row.state for row in remains_of(server.port)] == ["LISTEN"]


def test_a_closed_loop_agrees_with_the_servers_count() -> None:
    """20 connections, 10 ms each: as many answers as the server saw requests, on all of them, none faster than that."""
    with HttpServer(Way(delay_s=0.01)) as server:
        with Sender(server.port, 20, keep_alive=True, timeout_s=PATIENCE_S) as sender:
            report = sender.pump(0.2, 0.05)
        done = report.warmup_count + report.requests_count + report.drained_count
        assert (done, report.failed_count) == (len(server.requests), 0)
    assert report.duration_ns == 200 * NS_PER_MS
    assert report.connections_count == report.served_connections_count == report.opened_connections_count == 20
    assert min(report.latency_ns) >= 10 * NS_PER_MS
    assert 20 <= report.requests_count <= 20 * 20  # Little's law: 20 / 10 ms at most
    assert report.rate_per_s == report.requests_count / 0.2
    assert 0 < report.client_busy_ratio < 1


def test_answers_that_come_in_batches_are_counted_over_the_time_that_they_took() -> None:
    """One every 100 ms: three of them fit into 230 ms, yet no server that waits so long answers more than 10 a second.

    Where the server then hangs, the silence is in the rate.
    """
    slow = HttpServer(Way(delay_s=0.1))
    with slow, Sender(slow.port, 1, keep_alive=True, timeout_s=PATIENCE_S) as sender:
        report = sender.pump(0.23, 0.19)
    assert report.requests_count >= 1
    assert report.steady_rate_per_s <= 10
    with Backend(20 * NS_PER_MS, fault="hang", fault_after_count=5) as backend:
        options = ServerOptions(protocol="http", backend_port=backend.port)
        with (
            REFERENCE_MODELS["thread"].start(options) as hanging,
            Sender(hanging.port, 1, keep_alive=True, timeout_s=0.2) as sender,
        ):
            report = sender.pump(0.5)
    assert (report.requests_count, report.failed_count > 0) == (5, True)
    assert report.spanned_ns == report.duration_ns


def test_its_own_limit_of_descriptors_is_its_own_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is not to blame: what could not be sent is unsent, and the call is named."""
    with ReferenceServer("epoll", HTTP) as server:
        lower_descriptor_limit(monkeypatch, 20)
        with Sender(server.port, 100, keep_alive=True, timeout_s=0.2) as sender:
            loop = sender.send(OpenLoad(1000, 0.1, 1))
    ends = ends_of(loop)
    assert ends.keys() == {"answered", "unsent"}
    assert loop.own_failure.startswith("socket: EMFILE")
    assert loop.opened_connections_count < 20


@pytest.mark.parametrize("linking", native.LINKINGS)
def test_it_dies_with_its_parent(linking: str) -> None:
    with ReferenceServer("epoll", HTTP) as server:
        arguments = ("--port", server.port, "--connections", 10)
        with Foster("http_sender", *arguments, linking=linking) as foster:
            foster.send("pump 60000 0")
            assert foster.receive("began")["connected_count"] == 10
            foster.kill_starter()
            server.wait_until_idle()
            assert [row.state for row in remains_of(server.port)] == ["LISTEN"]


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("send 0 10 1 0 0 0", "above 0"),
        ("send 10 0 1 0 0 0", "above 0"),
        ("send 10 10 1 2 0 0", "not a number in 0..1"),
        ("send 10 10 1 0 0", "not a number"),
        ("stage 10 0", "above 0"),
        ("\n".join(["stage 10 10"] * 1024), "at most 1024 stages"),
        ("send 10 10 1 0 0 0 0", "takes 6 arguments"),
        ("send 999999999999 3600000 1 0 0 0", "not a number"),
        ("send 9000000000 3600000 1 0 0 0", "at most 20000000 requests"),
        ("send 1000 10 1 0 20000000 0", "at most 20000000 requests"),
        ("send 1000 10 1 0 20000001 0", "not a number"),
        ("pump 0 0", "above 0"),
        ("nonsense", "unknown command"),
    ],
)
def test_a_bad_command_is_refused(command: str, why: str) -> None:
    outcome = run("http_sender", "--port", 9, commands=f"{command}\n")
    assert outcome.code == 2
    assert why in outcome.stderr
    assert outcome.stderr.count("\n") == 1
