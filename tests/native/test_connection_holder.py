"""connection_holder: true counts against a good server and against bad ones, sources in 127/8, no TIME_WAIT."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator

import pytest

from c10k_probe import native
from native.answering import BAD_ANSWERS, PythonServer, on_third
from native.driving import Foster, Message, Server, holding
from native.kernel_view import client_ends, descriptors_of, remains_of, server_ends, sockets_of

COUNT = 23
PORT_FIRST = 32_768
NOBODY_LISTENS = 9  # discard; below 1024, so no test's ephemeral port

FIRST_FAILURES = {
    "last byte wrong": "EBADMSG",
    "another index": "EBADMSG",
    "silent": "ETIMEDOUT",
    "closing": "EOF",
    "half": "ETIMEDOUT",
}


@pytest.fixture
def server() -> Iterator[Server]:
    """A good server."""
    with Server("epoll") as running:
        yield running


def counts(answer: Message) -> tuple[int, int, int]:
    return answer["asked_count"], answer["ok_count"], answer["failed_count"]


# --- counts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("linking", native.LINKINGS)
def test_23_connections_are_23(server: Server, linking: str, require_tool: Callable[[str], str]) -> None:
    with holding(server.port, linking=linking) as holder:
        ramped = holder.ask(f"ramp {COUNT}", "ramped")

        assert (ramped["target_count"], ramped["open_count"], ramped["opened_count"]) == (COUNT, COUNT, COUNT)
        assert ramped["failure"] is None
        assert len(ramped["connect_ns"]) == COUNT
        assert all(value > 0 for value in ramped["connect_ns"])
        assert holder.ask("status", "status")["open_count"] == COUNT
        assert server.status()["open_count"] == COUNT
        assert len(client_ends(server.port)) == len(server_ends(server.port)) == COUNT
        assert len(sockets_of(holder.pid)) == COUNT
        query = [require_tool("ss"), "-Htn", "state", "established", f"dst = 127.0.0.1:{server.port}"]
        assert len(subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()) == COUNT


def test_a_ramp_goes_on_from_what_is_held(server: Server) -> None:
    with holding(server.port, "--window", 4) as holder:
        for target, opened in ((5, 5), (COUNT, COUNT - 5), (COUNT, 0), (3, 0)):
            ramped = holder.ask(f"ramp {target}", "ramped")
            assert (ramped["open_count"], ramped["opened_count"]) == (max(5, target, COUNT * (opened == 0)), opened)
            assert len(ramped["connect_ns"]) == opened
            assert (ramped["ramp_s"] is None) == (opened == 0)


def test_echoes_of_all_and_of_some(server: Server) -> None:
    with holding(server.port) as holder:
        holder.ask(f"ramp {COUNT}", "ramped")
        for command, asked in (("echo", COUNT), ("echo 7 1", 7), ("echo 0 3", COUNT), ("echo 99 3", COUNT)):
            echoed = holder.ask(command, "echoed")
            assert counts(echoed) == (asked, asked, 0)
            assert len(echoed["echo_ns"]) == asked
            assert all(value > 0 for value in echoed["echo_ns"])
        assert holder.finish() == {"type": "end", "samples_count": COUNT + 3 * COUNT + 7, "dropped_count": 0}


@pytest.mark.parametrize("size_bytes", [16, 4096])
def test_message_sizes(server: Server, size_bytes: int) -> None:
    with holding(server.port, "--message-bytes", size_bytes) as holder:
        assert holder.ask("ramp 5", "ramped")["open_count"] == 5
        assert counts(holder.ask("echo", "echoed")) == (5, 5, 0)


def test_the_order_is_shuffled_by_the_seed() -> None:
    def order(seed: int) -> list[int]:
        before = len(server.messages)
        assert counts(holder.ask(f"echo 0 {seed}", "echoed")) == (COUNT, COUNT, 0)
        return [int.from_bytes(message[:8], "little") for message in server.messages[before:]]

    with PythonServer(lambda _number, _round, message, _before: message) as server, holding(server.port) as holder:
        holder.ask(f"ramp {COUNT}", "ramped")
        first, again, other = order(1), order(1), order(2)
        counters = [message[8:16] for message in server.messages]

    assert sorted(first) == sorted(other) == list(range(COUNT)), "each connection once"
    assert first == again
    assert len({tuple(first), tuple(other), tuple(range(COUNT))}) == 3
    assert len(set(counters)) == len(counters), "a counter is used once"


# --- bad servers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BAD_ANSWERS)
def test_bad_echoes_are_counted_and_closed(kind: str) -> None:
    with (
        PythonServer(on_third(BAD_ANSWERS[kind])) as server,
        holding(server.port, "--timeout-ms", 200) as holder,
    ):
        assert holder.ask("ramp 6", "ramped")["open_count"] == 6
        echoed = holder.ask("echo", "echoed")

        assert counts(echoed) == (6, 4, 2)  # fewer than the time-outs after which it gives up
        assert (len(echoed["echo_ns"]), echoed["untried_count"]) == (4, 0)
        assert holder.ask("status", "status")["open_count"] == 4
        assert len(sockets_of(holder.pid)) == 4
        assert counts(holder.ask("echo", "echoed")) == (4, 4, 0), "the others are as good as before"
        assert holder.finish() == {"type": "end", "samples_count": 6 + 4 + 4, "dropped_count": 2}


@pytest.mark.parametrize("kind", FIRST_FAILURES)
def test_a_bad_first_echo_ends_the_ramp_and_keeps_the_good(kind: str) -> None:
    def answer(number: int, _round: int, message: bytes, before: bytes) -> bytes | None:
        return message if number < 5 else BAD_ANSWERS[kind](message, before)

    with PythonServer(answer) as server, holding(server.port, "--timeout-ms", 200) as holder:
        ramped = holder.ask("ramp 12", "ramped")

        assert (ramped["open_count"], ramped["opened_count"], len(ramped["connect_ns"])) == (5, 5, 5)
        failure = ramped["failure"]
        assert (failure["call"], failure["name"], failure["at_count"]) == ("recv", FIRST_FAILURES[kind], 5)
        assert len(sockets_of(holder.pid)) == 5
        assert counts(holder.ask("echo 0 1", "echoed")) == (5, 5, 0)


def test_after_three_time_outs_the_rest_is_not_tried() -> None:
    def answer(_number: int, round_number: int, message: bytes, _before: bytes) -> bytes:
        return message if round_number == 0 else b""

    with PythonServer(answer) as server, holding(server.port, "--timeout-ms", 20) as holder:
        assert holder.ask("ramp 60", "ramped")["open_count"] == 60
        echoed = holder.ask("echo", "echoed")

        assert counts(echoed) == (60, 0, 60)
        assert (echoed["untried_count"], echoed["echo_ns"]) == (57, [])
        assert holder.ask("status", "status")["open_count"] == 57


def test_nobody_listens() -> None:
    with holding(NOBODY_LISTENS) as holder:
        ramped = holder.ask("ramp 5", "ramped")

    failure = ramped["failure"]
    assert (ramped["open_count"], ramped["connect_ns"], ramped["ramp_s"]) == (0, [], None)
    assert (failure["call"], failure["name"], failure["at_count"]) == ("connect", "ECONNREFUSED", 0)


def test_a_server_that_ends_is_noticed(server: Server) -> None:
    with holding(server.port) as holder:
        holder.ask("ramp 5", "ramped")
        server.helper.send("quit")
        server.helper.finish()

        assert counts(holder.ask("echo", "echoed")) == (5, 0, 5)
        assert sockets_of(holder.pid) == []


# --- addresses --------------------------------------------------------------------------------------------------------


def test_sources_lie_in_127_and_differ_by_base(server: Server) -> None:
    with holding(server.port, "--source-base", 0) as first, holding(server.port, "--source-base", 200) as second:
        for holder, source in ((first, "127.16.0.1"), (second, "127.216.0.1")):
            assert holder.ask("ramp 5", "ramped")["open_count"] == 5
            rows = sockets_of(holder.pid)
            assert {row.local[0] for row in rows} == {source}
            assert {row.remote for row in rows} == {("127.0.0.1", server.port)}
        assert server.status()["open_count"] == 10


def test_it_chooses_ports_itself_and_passes_over_those_of_others(server: Server) -> None:
    """From addresses that no other test's client has."""
    own = ("--source-base", 150, "--ports", 10)
    with socket.create_server(("127.166.0.2", PORT_FIRST + 1)), holding(server.port, *own) as holder:
        ramped = holder.ask("ramp 24", "ramped")
        ends = sorted((row.local for row in sockets_of(holder.pid)), key=lambda end: (end[0], end[1]))

    assert (ramped["open_count"], ramped["failure"]) == (24, None)
    first = [("127.166.0.1", PORT_FIRST + place) for place in range(10)]
    second = [("127.166.0.2", PORT_FIRST + place) for place in range(10) if place != 1]
    assert ends == [*first, *second, *(("127.166.0.3", PORT_FIRST + place) for place in range(5))]


def test_two_holders_at_once_leave_each_other_ports(server: Server) -> None:
    """More of one's than the other would try port by port: that one goes on to another address."""
    with holding(server.port) as first, holding(server.port) as second:
        assert first.ask("ramp 1200", "ramped")["open_count"] == 1200
        ramped = second.ask("ramp 5", "ramped")
        assert (ramped["open_count"], ramped["failure"]) == (5, None)
        ramped = first.ask("ramp 1210", "ramped")
        assert (ramped["open_count"], ramped["failure"]) == (1210, None)


# --- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "quit", "end of file", "SIGKILL"])
def test_no_time_wait_is_left(server: Server, how: str) -> None:
    with holding(server.port) as holder:
        holder.ask(f"ramp {COUNT}", "ramped")
        if how == "close":
            assert holder.ask("close", "closed")["closed_count"] == COUNT
            assert holder.ask("status", "status")["open_count"] == 0
        elif how == "quit":
            holder.send("quit")
            holder.expect("end")
        elif how == "end of file":
            assert holder.finish()["samples_count"] == COUNT
        else:
            os.kill(holder.pid, signal.SIGKILL)

        server.wait_for_open(0)
        assert [row.state for row in remains_of(server.port)] == ["LISTEN"]


def test_close_and_ramp_again(server: Server) -> None:
    with holding(server.port) as holder:
        for _ in range(3):
            assert holder.ask(f"ramp {COUNT}", "ramped")["opened_count"] == COUNT
            assert holder.ask("close", "closed")["closed_count"] == COUNT
        server.wait_for_open(0)
        assert server.status()["accepted_count"] == 3 * COUNT


@pytest.mark.parametrize("linking", native.LINKINGS)
def test_it_dies_with_its_parent(server: Server, linking: str) -> None:
    with Foster("connection_holder", "--port", server.port, linking=linking) as foster:
        foster.send("ramp 5")
        assert foster.receive("ramped")["open_count"] == 5
        foster.kill_starter()
        server.wait_for_open(0)


# --- pairs ------------------------------------------------------------------------------------------------------------


def test_pairs_are_both_ends() -> None:
    with holding(NOBODY_LISTENS) as holder:
        before = descriptors_of(holder.pid)
        paired = holder.ask(f"pairs {COUNT}", "paired")

        assert (paired["pairs_count"], paired["failure"]) == (COUNT, None)
        rows = sockets_of(holder.pid)
        listeners = [row.local for row in rows if row.state == "LISTEN"]
        assert [address for address, _port in listeners] == ["127.0.0.1"]
        port = listeners[0][1]
        ends = [row for row in rows if row.state == "ESTABLISHED"]
        assert len(ends) == 2 * COUNT
        assert {(row.local, row.remote) for row in ends} == {(row.remote, row.local) for row in ends}
        assert len(server_ends(port)) == len(client_ends(port)) == COUNT
        assert holder.ask("status", "status") == {"type": "status", "open_count": 0, "pairs_count": COUNT}

        assert holder.ask("unpair", "unpaired")["closed_count"] == COUNT
        assert descriptors_of(holder.pid) == before
        assert remains_of(port) == []


def test_pairs_and_held_connections_are_apart(server: Server) -> None:
    with holding(server.port) as holder:
        holder.ask("ramp 5", "ramped")
        holder.ask("pairs 3", "paired")
        assert holder.ask("pairs 7", "paired")["pairs_count"] == 7
        assert holder.ask("close", "closed")["closed_count"] == 5
        assert holder.ask("status", "status") == {"type": "status", "open_count": 0, "pairs_count": 7}


# --- walls ------------------------------------------------------------------------------------------------------------


def test_a_ramp_beyond_the_descriptors_keeps_what_is_held(server: Server) -> None:
    limit, window = 40, 8
    with holding(server.port, "--window", window) as holder:
        room = limit - descriptors_of(holder.pid)
        resource.prlimit(holder.pid, resource.RLIMIT_NOFILE, (limit, limit))
        ramped = holder.ask("ramp 100", "ramped")
        held = ramped["open_count"]

        failure = ramped["failure"]
        assert (failure["call"], failure["name"], failure["at_count"]) == ("socket", "EMFILE", held)
        assert room // window * window <= held <= room  # of the window that failed, those that have echoed
        assert ramped["opened_count"] == len(ramped["connect_ns"]) == len(sockets_of(holder.pid)) == held
        assert counts(holder.ask("echo", "echoed")) == (held, held, 0)
        server.wait_for_open(held)


@pytest.mark.parametrize(("spare", "call"), [(0, "socket"), (1, "accept4")])
def test_pairs_beyond_the_descriptors(spare: int, call: str) -> None:
    with holding(NOBODY_LISTENS) as holder:
        limit = descriptors_of(holder.pid) + 1 + 2 * COUNT + spare  # a listener, whole pairs
        resource.prlimit(holder.pid, resource.RLIMIT_NOFILE, (limit, limit))
        paired = holder.ask(f"pairs {2 * COUNT}", "paired")

        failure = paired["failure"]
        assert (failure["call"], failure["name"], failure["at_count"]) == (call, "EMFILE", COUNT)
        assert paired["pairs_count"] == COUNT
        assert len(sockets_of(holder.pid)) == 2 * COUNT + 1
        assert holder.ask("unpair", "unpaired")["closed_count"] == COUNT
