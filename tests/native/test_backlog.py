"""connection_holder's `backlog` and `drain`: what is said to lie unread does so by the kernel's account."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from c10k_probe.load import Backlogged, Holder
from c10k_probe.servers import ReferenceServer
from native.answering import PythonServer
from native.driving import Message, Server, holding, lower_descriptor_limit, run
from native.kernel_view import sockets_of

HELD = 100
KIB = 1024


def unread_by_ss(ss: str, port: int) -> list[int]:
    """Recv-Q of each client end."""
    query = [ss, "-Htn", "state", "established", f"dport = :{port}"]
    text = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in text.splitlines()]


def summary(answer: Message) -> tuple[int, int, int]:
    size = answer.get("backlogged_bytes", answer.get("drained_bytes"))
    assert size is not None
    return answer["connections_count"], int(size), answer["failed_count"]


@pytest.mark.parametrize("edge", ["off", "on"])
@pytest.mark.parametrize("size_bytes", [1, 64 * KIB])
def test_so_many_bytes_lie_unread(size_bytes: int, edge: str, require_tool: Callable[[str], str]) -> None:
    ss = require_tool("ss")
    with Server("epoll", "--edge", edge) as server, holding(server.port) as holder:
        for held in (HELD // 2, HELD):  # a further ramp while answers lie unread
            holder.ask(f"ramp {held}", "ramped")
            backlogged = holder.ask(f"backlog {size_bytes}", "backlogged")
            assert summary(backlogged) == (held, held * size_bytes, 0)
            assert (backlogged["failure"], backlogged["receive_buffer_bytes"]) == (None, None)
            assert unread_by_ss(ss, server.port) == [size_bytes] * held
        assert summary(holder.ask("drain", "drained")) == (HELD, HELD * size_bytes, 0)
        assert unread_by_ss(ss, server.port) == [0] * HELD
        assert holder.ask("echo 0 1", "echoed")["ok_count"] == HELD
        assert summary(holder.ask("drain", "drained")) == (0, 0, 0)


def test_a_receive_buffer_is_made_larger_only_where_it_must_be() -> None:
    with Server("epoll") as server, holding(server.port) as holder:
        holder.ask("ramp 3", "ramped")
        backlogged = holder.ask(f"backlog {256 * KIB}", "backlogged")
        assert summary(backlogged) == (3, 3 * 256 * KIB, 0)
        assert backlogged["receive_buffer_bytes"] >= 256 * KIB
        assert summary(holder.ask("drain", "drained")) == (3, 3 * 256 * KIB, 0)
        assert holder.ask("echo", "echoed")["ok_count"] == 3


def test_over_several_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    lower_descriptor_limit(monkeypatch, 60)
    with Server("epoll", "--capacity", 200) as server, holding(server.port, "--tables", 6) as holder:
        assert holder.ask("ramp 200", "ramped")["open_count"] == 200
        assert summary(holder.ask("backlog 3000", "backlogged")) == (200, 600_000, 0)
        assert summary(holder.ask("drain", "drained")) == (200, 600_000, 0)
        assert holder.ask("echo", "echoed")["ok_count"] == 200


def test_answers_that_do_not_come_are_a_failure_and_what_is_there_stays() -> None:
    """After 5 connections the server swallows what it gets."""

    def answer(number: int, turn: int, message: bytes, _before: bytes) -> bytes:
        return message if turn == 0 or number < 5 else b""

    with PythonServer(answer) as server, holding(server.port, "--timeout-ms", 100) as holder:
        holder.ask("ramp 9", "ramped")
        backlogged = holder.ask("backlog 64", "backlogged")

        assert summary(backlogged) == (5, 5 * 64, 4)
        failure = backlogged["failure"]
        assert (failure["call"], failure["name"], failure["at_count"]) == ("recv", "ETIMEDOUT", 5)
        assert len(sockets_of(holder.pid)) == 5
        assert summary(holder.ask("drain", "drained")) == (5, 5 * 64, 0)
        assert holder.ask("echo", "echoed")["ok_count"] == 5


@pytest.mark.parametrize("command", ["echo", "pump 1 1", "probe 1 1000 1", "backlog 2", "backlog 0", "backlog 1048577"])
def test_what_would_meet_unread_answers_is_refused(command: str) -> None:
    with Server("epoll") as server:
        outcome = run("connection_holder", "--port", server.port, commands=f"ramp 3\nbacklog 1\n{command}\n")

    assert (outcome.code, len(outcome.stderr.splitlines()), outcome.of_type("end")) == (2, 1, [])


def test_closing_with_unread_answers() -> None:
    with Server("epoll") as server, holding(server.port) as holder:
        for _ in range(2):
            holder.ask("ramp 20", "ramped")
            assert summary(holder.ask("backlog 100", "backlogged")) == (20, 2000, 0)
            assert holder.ask("close", "closed")["closed_count"] == 20
            server.wait_for_open(0)


def test_from_python() -> None:
    with ReferenceServer("epoll") as server, Holder(server.port, HELD) as holder:
        holder.ramp(HELD)
        assert holder.backlog(4 * KIB) == Backlogged(HELD, HELD * 4 * KIB, 0, None, None)
        assert holder.drain() == Backlogged(HELD, HELD * 4 * KIB, 0, None, None)
        assert holder.echo(0, 1).ok_count == HELD
