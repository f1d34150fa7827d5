"""More connections in one process than a table of descriptors takes: true counts on both ends, walls, nothing left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from c10k_probe.load import Holder
from c10k_probe.servers import MODELS, ServerOptions
from native.driving import Message, Server, holding, lower_descriptor_limit, run
from native.kernel_view import (
    client_ends,
    living_members,
    remains_of,
    server_ends,
    status_of,
    wait_until,
)

LIMIT = 200
MANY = 1_000
TABLES = ("--tables", 8, "--lanes", 2)


@pytest.fixture(autouse=True)
def few_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table takes ``LIMIT``."""
    lower_descriptor_limit(monkeypatch, LIMIT)


@pytest.fixture(params=["off", "on"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server for ``MANY``, level-triggered and edge-triggered."""
    with Server("epoll", "--capacity", MANY, "--edge", request.param) as running:
        yield running


def sockets_by_table(pid: int) -> list[int]:
    """How many sockets each thread of a process has descriptors of."""
    folders = Path(f"/proc/{pid}/task").glob("*/fd")
    return [sum(str(link.readlink()).startswith("socket:") for link in folder.iterdir()) for folder in folders]


def listen_counters() -> tuple[int, int]:
    """ListenOverflows and ListenDrops."""
    names, values = (line.split() for line in Path("/proc/net/netstat").read_text().splitlines()[:2])
    counters = dict(zip(names, values, strict=True))
    return int(counters["ListenOverflows"]), int(counters["ListenDrops"])


def unused_ends(port: int) -> int:
    """Client ends on which nothing came back, by ss."""
    text = subprocess.run(
        ["ss", "-Htin", "state", "established", f"dport = :{port}"], capture_output=True, text=True, check=True
    ).stdout
    return text.count("segs_out:") - text.count("bytes_received:")


def outcome(answer: Message) -> tuple[int, int]:
    return answer["ok_count"], answer["failed_count"]


@pytest.mark.alone
def test_one_process_on_each_end_holds_more_than_a_table_takes(server: Server) -> None:
    before = listen_counters()
    with holding(server.port, *TABLES) as holder:
        for _ in range(2):
            ramped = holder.ask(f"ramp {MANY}", "ramped")
            assert (ramped["open_count"], ramped["opened_count"], ramped["failure"]) == (MANY, MANY, None)
            assert len(ramped["connect_ns"]) == MANY
            assert ramped["connect_samples_every"] == 1
            assert server.status()["open_count"] == MANY
            assert len(client_ends(server.port)) == len(server_ends(server.port)) == MANY
            for pid, listeners in ((holder.pid, 0), (server.pid, 1)):
                tables = sockets_by_table(pid)
                assert sum(tables) == MANY + listeners * len(tables)
                assert max(tables) < LIMIT
                assert len(tables) >= MANY / LIMIT
            assert server.status()["tasks_count"] == len(sockets_by_table(server.pid))
            assert outcome(holder.ask("echo 0 1", "echoed")) == (MANY, 0)
            sample = holder.ask("echo 333 2", "echoed")
            assert outcome(sample) == (333, 0)
            assert len(sample["echo_ns"]) == 333
            assert holder.ask("close", "closed")["closed_count"] == MANY
            server.wait_for_open(0)
        assert sum(sockets_by_table(holder.pid)) == 0
        assert holder.finish()["dropped_count"] == 0
    assert listen_counters() == before
    assert server.helper.walls() == []
    assert [row.state for row in remains_of(server.port)] == ["LISTEN"]
    server.helper.send("quit")
    assert server.helper.finish()["samples_count"] == 2 * MANY


def test_two_lanes_share_what_is_to_be_opened(server: Server) -> None:
    many = 2_400  # more than one lane opens alone, and more than the server has room for
    with holding(server.port, "--tables", 20, "--lanes", 2, "--timeout-ms", 300, "--samples", 100) as holder:
        ramped = holder.ask(f"ramp {many}", "ramped")
        held = server.status()["open_count"]

        assert MANY <= ramped["open_count"] == held < many
        assert ramped["lanes_count"] == 2
        assert ramped["failure"]["at_count"] == held
        assert 25 <= len(ramped["connect_ns"]) <= 100, "a lane that opened nearly all halved its 50 last"
        assert len(ramped["connect_ns"]) == pytest.approx(held / ramped["connect_samples_every"], abs=3)
        assert outcome(holder.ask("echo 0 1", "echoed")) == (held, 0)
        assert [wall["name"] for wall in server.helper.walls()] == ["EMFILE"], "the server says what stopped it"
        holder.ask("close", "closed")
        server.wait_for_open(0)
        ramped = holder.ask(f"ramp {MANY}", "ramped")
        assert ramped["open_count"] == MANY, "it accepts again when there is room"
        assert ramped["lanes_count"] == 1, "so few take one"


def test_the_tables_of_the_holder_are_a_wall(server: Server) -> None:
    with holding(server.port, "--tables", 2) as holder:
        ramped = holder.ask(f"ramp {MANY}", "ramped")
        failure = ramped["failure"]
        held = ramped["open_count"]

        assert (failure["call"], failure["name"], failure["at_count"]) == ("socket", "EMFILE", held)
        assert LIMIT < held < 2 * LIMIT
        server.wait_for_open(held)
        assert outcome(holder.ask("echo", "echoed")) == (held, 0)


def test_a_connection_that_ends_makes_room_in_any_table() -> None:
    with (
        Server("epoll", "--capacity", 2 * LIMIT) as server,
        holding(server.port, *TABLES, "--timeout-ms", 200) as holder,
    ):
        held = int(holder.ask("ramp 600", "ramped")["open_count"])  # fewer are accepted
        assert LIMIT < held < 600
        server.wait_for_open(held)  # one that is accepted when the client has just given it up is closed again
        assert holder.ask("close", "closed")["closed_count"] == held
        wait_until(lambda: server.status()["accepted_count"] == 600, "those that were given up are accepted, too")
        server.wait_for_open(0)
        for count in (held - 1, held // 2, held - 1):  # the first table has room for one fewer than others
            assert holder.ask(f"ramp {count}", "ramped")["open_count"] == count
            holder.ask("close", "closed")
        server.wait_for_open(0)


@pytest.mark.parametrize("victim", ["server", "holder"])
def test_whoever_is_killed_leaves_nothing(server: Server, victim: str) -> None:
    with holding(server.port, *TABLES) as holder:
        assert holder.ask(f"ramp {MANY}", "ramped")["open_count"] == MANY
        if victim == "holder":
            os.kill(holder.pid, signal.SIGKILL)
            server.wait_for_open(0)
            assert [row.state for row in remains_of(server.port)] == ["LISTEN"]
            return
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: not living_members(server.pid), "the server is gone")
        echoed = holder.ask("echo", "echoed")
        assert outcome(echoed) == (0, MANY)
        assert sum(sockets_by_table(holder.pid)) == 0
        failure = holder.ask("ramp 5", "ramped")["failure"]
        assert (failure["call"], failure["name"]) == ("connect", "ECONNREFUSED")


def test_a_server_that_is_killed_in_mid_ramp_is_noticed(server: Server) -> None:
    with holding(server.port, "--tables", 2000 // LIMIT, "--timeout-ms", 2000) as holder:
        holder.send("ramp 1500")
        wait_until(lambda: server_ends(server.port), "it has begun")
        os.kill(server.pid, signal.SIGKILL)
        ramped = holder.expect("ramped")

        assert ramped["failure"]["call"] in ("send", "recv", "connect")
        assert ramped["failure"]["name"] in ("ECONNRESET", "EPIPE", "EOF", "ECONNREFUSED")
        assert outcome(holder.ask("echo", "echoed")) == (0, ramped["open_count"])


# --- never used -------------------------------------------------------------------------------------------------------


def test_idle_connections_are_accepted_and_never_used(server: Server, require_tool: Callable[[str], str]) -> None:
    require_tool("ss")
    with holding(server.port, *TABLES) as holder:
        ramped = holder.ask(f"ramp {MANY} idle", "ramped")
        assert (ramped["open_count"], ramped["failure"], len(ramped["connect_ns"])) == (MANY, None, MANY)
        server.wait_for_open(MANY)
        assert unused_ends(server.port) == MANY
        assert outcome(holder.ask("echo", "echoed")) == (MANY, 0), "they are as good as others"


@pytest.mark.alone
def test_idle_connections_that_nobody_accepts_are_not_held() -> None:
    with (
        socket.create_server(("127.0.0.1", 0), backlog=64) as listener,
        holding(listener.getsockname()[1], "--timeout-ms", 100) as holder,
    ):
        before = listen_counters()
        ramped = holder.ask("ramp 100 idle", "ramped")
        failure = ramped["failure"]
        assert (failure["call"], failure["name"], failure["at_count"]) == ("accept", "ETIMEDOUT", 0)
        assert (ramped["window_count"], ramped["open_count"]) == (64, 0)
        assert listen_counters() == before


@pytest.mark.alone
def test_a_small_accept_queue_does_not_overflow() -> None:
    before = listen_counters()
    with Server("epoll", "--backlog", 3) as server, holding(server.port, "--window", 100) as holder:
        for how in ("", " idle"):
            ramped = holder.ask(f"ramp 150{how}", "ramped")
            assert (ramped["open_count"], ramped["window_count"]) == (150, 3)
            holder.ask("close", "closed")
            server.wait_for_open(0)
    assert listen_counters() == before


@pytest.mark.parametrize("command", ["ramp 5 busy", "ramp 5 idle idle", "ramp idle", "ramp 5 1"])
def test_bad_ramps(command: str) -> None:
    assert run("connection_holder", "--port", 9, commands=f"{command}\n").code == 2


# --- from Python ------------------------------------------------------------------------------------------------------


def test_from_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("c10k_probe.load.holder._hard_descriptor_limit", lambda: LIMIT)
    options = ServerOptions(capacity_count=MANY, is_edge_triggered=True)
    with MODELS["epoll"].start(options) as server, Holder(server.port, MANY) as holder:
        assert len(holder.sessions) == 1
        assert holder.ramp(MANY // 2, first_echo=False).open_count == MANY // 2
        ramped = holder.ramp(MANY)
        assert (ramped.open_count, ramped.opened_count, ramped.failure) == (MANY, MANY // 2, None)
        assert server.status()["open_count"] == MANY
        assert holder.echo(0, 1).ok_count == MANY
        busy_ns = holder.cpu_ns()
        assert busy_ns is not None
        assert busy_ns > int(Path(f"/proc/{holder.sessions[0]}/schedstat").read_text().split()[0]) / 2
        assert int(status_of(holder.sessions[0], "Threads")) >= MANY / LIMIT
