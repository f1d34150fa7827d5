"""connection_holder's `probe`: the plan is kept however slow the server is, what it counts is what the server saw."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from c10k_probe.load import Holder, Probed
from c10k_probe.servers import ReferenceServer
from native.answering import BAD_ANSWERS, PythonServer, on_third
from native.driving import Message, Server, holding, lower_descriptor_limit, run
from native.kernel_view import descriptors_of, sockets_of

MS = 1_000_000
HELD = 40
FAILURES = {"last byte wrong": "EBADMSG", "another index": "EBADMSG", "silent": "ETIMEDOUT", "half": "ETIMEDOUT"}


def right(_number: int, _round: int, message: bytes, _before: bytes) -> bytes:
    """What an echo server answers."""
    return message


@pytest.fixture
def server() -> Iterator[PythonServer]:
    """A good server that remembers its messages."""
    with PythonServer(right) as running:
        yield running


def counts(probed: Message) -> tuple[int, int, int, int]:
    return probed["intended_count"], probed["sent_count"], probed["ok_count"], probed["failed_count"]


def places(messages: list[bytes]) -> list[int]:
    return [int.from_bytes(message[:8], "little") for message in messages]


def test_the_server_saw_what_is_counted(server: PythonServer) -> None:
    with holding(server.port) as holder:
        holder.ask(f"ramp {HELD}", "ramped")
        before = descriptors_of(holder.pid)
        start = time.monotonic()
        probed = holder.ask("probe 500 400 7", "probed")
        passed_s = time.monotonic() - start

        assert counts(probed) == (200, 200, 200, 0)
        assert (probed["failure"], probed["latency_samples_every"]) == (None, 1)
        assert len(probed["latency_ns"]) == 200
        assert min(probed["latency_ns"]) > 0
        assert probed["longest_late_ns"] >= 0
        assert passed_s >= 199 / 500, "the last message is not due before"
        seen = server.messages[HELD:]
        assert len(seen) == 200
        assert len({message[8:16] for message in seen}) == 200, "a counter is used once"
        assert len(set(places(seen))) > HELD / 2, "drawn from all"
        assert descriptors_of(holder.pid) == before
        assert holder.ask("echo 0 1", "echoed")["ok_count"] == HELD, "nothing is under way"


def test_the_seed_decides_the_connections(server: PythonServer) -> None:
    drawn = []
    with holding(server.port) as holder:
        holder.ask(f"ramp {HELD}", "ramped")
        for seed in (1, 1, 2):
            done = len(server.messages)
            holder.ask(f"probe 100 200 {seed}", "probed")
            drawn.append(sorted(places(server.messages[done:])))
    assert drawn[0] == drawn[1] != drawn[2]


def test_latency_is_from_the_moment_at_which_it_was_due() -> None:
    """Each answer takes 20 ms and they queue: a loop that waited for answers would see 20 ms each."""
    with PythonServer(right, pause_s=0.02) as server, holding(server.port) as holder:
        holder.ask("ramp 10", "ramped")
        probed = holder.ask("probe 100 100 3", "probed")

    assert counts(probed) == (10, 10, 10, 0)
    assert max(probed["latency_ns"]) >= (10 * 20 - 90) * MS
    assert sum(probed["latency_ns"]) >= sum(20 * place - 10 * (place - 1) for place in range(1, 11)) * MS
    assert probed["longest_late_ns"] < max(probed["latency_ns"])


def test_a_sender_that_was_stopped_says_so() -> None:
    with Server("epoll") as server, holding(server.port) as holder:
        holder.ask("ramp 200", "ramped")  # enough for all that become due meanwhile, however long that lasts
        holder.send("probe 100 1000 3")
        time.sleep(0.2)
        os.kill(holder.pid, signal.SIGSTOP)
        time.sleep(0.3)
        os.kill(holder.pid, signal.SIGCONT)
        probed = holder.expect("probed")

    assert counts(probed) == (100, 100, 100, 0)
    assert probed["longest_late_ns"] >= 250 * MS
    assert max(probed["latency_ns"]) >= probed["longest_late_ns"]


@pytest.mark.parametrize("kind", FAILURES)
def test_bad_answers_are_losses_and_the_others_go_on(kind: str) -> None:
    with (
        PythonServer(on_third(BAD_ANSWERS[kind])) as server,
        holding(server.port, "--timeout-ms", 100) as holder,
    ):
        holder.ask("ramp 6", "ramped")
        probed = holder.ask("probe 200 300 1", "probed")

        assert counts(probed) == (60, 60, 58, 2)
        assert len(probed["latency_ns"]) == 58
        failure = probed["failure"]
        assert (failure["call"], failure["name"], failure["at_count"]) == ("recv", FAILURES[kind], 4)
        assert len(sockets_of(holder.pid)) == 4
        assert holder.ask("echo", "echoed")["ok_count"] == 4


def test_what_cannot_be_sent_is_not_counted_as_sent() -> None:
    with PythonServer(lambda _n, turn, message, _b: message if turn == 0 else b"") as server:
        with holding(server.port, "--timeout-ms", 400) as holder:
            holder.ask("ramp 5", "ramped")
            probed = holder.ask("probe 100 200 1", "probed")

        assert counts(probed) == (20, 5, 0, 5)
        assert probed["latency_ns"] == []


def test_a_server_that_dies_ends_it() -> None:
    with Server("epoll") as server, holding(server.port) as holder:
        holder.ask(f"ramp {HELD}", "ramped")
        os.kill(server.pid, signal.SIGKILL)
        start = time.monotonic()
        probed = holder.ask("probe 1000 60000 1", "probed", 50)

    assert time.monotonic() - start < 30
    assert (probed["ok_count"], probed["intended_count"]) == (0, 60_000)
    assert probed["failure"]["name"] in ("EOF", "ECONNRESET", "EPIPE")


def test_samples_are_thinned_out(server: PythonServer) -> None:
    with holding(server.port, "--samples", 10) as holder:
        holder.ask("ramp 5", "ramped")
        probed = holder.ask("probe 200 500 1", "probed")

    assert (probed["ok_count"], probed["latency_samples_every"], len(probed["latency_ns"])) == (100, 10, 10)


def test_nothing_held() -> None:
    with Server("epoll") as server, holding(server.port) as holder:
        probed = holder.ask("probe 100 100 1", "probed")
    assert (counts(probed), probed["longest_late_ns"]) == ((0, 0, 0, 0), None)


def test_over_several_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    lower_descriptor_limit(monkeypatch, 60)
    with PythonServer(right) as server, holding(server.port, "--tables", 6) as holder:
        assert holder.ask("ramp 200", "ramped")["open_count"] == 200
        probed = holder.ask("probe 1000 300 5", "probed")
        seen = places(server.messages[200:])

        assert counts(probed) == (300, 300, 300, 0)
        assert len(seen) == 300
        assert {index >> 32 for index in seen} == {0, 1, 2, 3, 4}, "each table has its share"
        assert holder.ask("echo", "echoed")["ok_count"] == 200


@pytest.mark.parametrize("command", ["probe 100 100", "probe 0 100 1", "probe 1000000 2000 1", "probe 1 1 1 1"])
def test_bad_commands(command: str) -> None:
    outcome = run("connection_holder", "--port", 9, commands=f"ramp 0\n{command}\n")

    assert (outcome.code, len(outcome.stderr.splitlines()), outcome.of_type("end")) == (2, 1, [])


def test_from_python() -> None:
    with ReferenceServer("epoll") as server, Holder(server.port, HELD) as holder:
        holder.ramp(HELD)
        probed = holder.probe(500, 0.2, 1)

        assert isinstance(probed, Probed)
        assert (probed.intended_count, probed.sent_count, probed.ok_count, probed.failed_count) == (100, 100, 100, 0)
        assert (len(probed.latency_ns), probed.latency_samples_every, probed.failure) == (100, 1, None)
        assert probed.longest_late_ns is not None
