"""slow_clients: what a server receives is what was asked, a byte at a time; what ends is counted and comes again."""

from __future__ import annotations

import contextlib
import re
import resource
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest
from conftest import cannot_run

from c10k_probe import native
from c10k_probe.load.slow import CLIENT_BYTES, MOST_COUNT
from c10k_probe.servers import ReferenceServer, ServerOptions
from native.driving import reset, run
from native.kernel_view import client_ends, descriptors_of, wait_until

REQUEST_BYTES = 256
PIECE_BYTES = 65_536
PATIENCE_S = 30.0  # where the machine is busy, a byte comes when it can


@dataclass
class Recorder:
    """A server that writes down what comes, in which pieces, and does nothing else unless told to."""

    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    pieces: dict[socket.socket, list[bytes]] = field(default_factory=dict)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.listener.getsockname()[1])

    def accept(self, count: int) -> list[socket.socket]:
        """The next connections."""
        found = []
        self.listener.settimeout(PATIENCE_S)
        for _ in range(count):
            connection, _ = self.listener.accept()
            connection.settimeout(PATIENCE_S)
            self.pieces[connection] = []
            found.append(connection)
        return found

    def record(self, connection: socket.socket, until_bytes: int) -> bytes:
        """All that has come on it, once it is so much."""
        pieces = self.pieces[connection]
        while sum(map(len, pieces)) < until_bytes and (piece := connection.recv(PIECE_BYTES)):
            pieces.append(piece)
        return b"".join(pieces)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self.pieces:
            with contextlib.suppress(OSError):
                reset(connection)
        self.listener.close()


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with Recorder() as made:
        yield made


def playing(port: int, kind: str, interval_ms: int = 5, request_bytes: int = REQUEST_BYTES) -> native.Helper:
    """Slow clients of a kind, none of them there yet."""
    arguments = ["--port", port, "--kind", kind, "--interval-ms", interval_ms, "--request-bytes", request_bytes]
    return native.Helper("slow_clients", arguments)


def ask(slow: native.Helper, command: str) -> dict[str, object]:
    """Its answer."""
    return slow.ask(command, "clients")


def test_a_slow_head_comes_byte_by_byte_until_it_is_whole(recorder: Recorder) -> None:
    with playing(recorder.port, "head") as slow:
        ask(slow, "clients 3")
        connections = recorder.accept(3)
        for connection in connections:
            text = recorder.record(connection, REQUEST_BYTES)
            assert len(text) == REQUEST_BYTES
            assert re.fullmatch(rb"GET / HTTP/1\.1\r\nHost: 127\.0\.0\.1\r\nX-Slow: a+\r\n\r\n", text)
        assert len(recorder.pieces[connections[0]]) > 10, "the first was read as it came"
        told = ask(slow, "status")
        assert told["sent_bytes"] == 3 * REQUEST_BYTES
        assert told["slow_bytes"] == 3 * (REQUEST_BYTES - 1), "all but the first"
        assert (told["open_count"], told["pending_count"], told["connected_count"], told["ended_count"]) == (3, 0, 3, 0)
        assert (told["whole_count"], told["failure"]) == (0, None)
        assert {end.local[0] for end in client_ends(recorder.port)} == {"127.15.0.1"}
        assert ask(slow, "clients 0")["open_count"] == 0
        assert slow.finish()["samples_count"] == 3 * (REQUEST_BYTES - 1)


def test_a_slow_body_is_as_long_as_its_header_says(recorder: Recorder) -> None:
    with playing(recorder.port, "body") as slow:
        ask(slow, "clients 1")
        (connection,) = recorder.accept(1)
        head, _, body = recorder.record(connection, REQUEST_BYTES).partition(b"\r\n\r\n")
        told = ask(slow, "status")
        assert head.startswith(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        assert int(re.findall(rb"Content-Length: (\d+)", head)[0]) == len(body) == told["slow_bytes"]
        assert len(head) + 4 + len(body) == told["sent_bytes"]
        assert set(body) == {ord("a")}


def test_a_slow_reader_asks_at_once_and_holds_up_what_it_is_answered(recorder: Recorder) -> None:
    asked_bytes, most_bytes = 4096, 1 << 20
    with playing(recorder.port, "read", request_bytes=asked_bytes) as slow:
        ask(slow, "clients 1")
        (connection,) = recorder.accept(1)
        one = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        assert recorder.record(connection, asked_bytes // len(one) * len(one)) == one * (asked_bytes // len(one))
        connection.setblocking(False)
        given_bytes = 0
        with contextlib.suppress(BlockingIOError):
            while given_bytes < most_bytes:
                given_bytes += connection.send(bytes(PIECE_BYTES))
        assert given_bytes < most_bytes // 2, "the server got rid of its answer"
        wait_until(lambda: ask(slow, "status")["received_bytes"], "it reads")
        told = ask(slow, "status")
        assert told["received_bytes"] == told["slow_bytes"]
        assert (told["open_count"], told["ended_count"]) == (1, 0)


@pytest.mark.parametrize("kind", ["idle", "read"])
def test_who_is_thrown_out_comes_again(kind: str, recorder: Recorder) -> None:
    with playing(recorder.port, kind) as slow:
        ask(slow, "clients 1")
        (connection,) = recorder.accept(1)
        wait_until(lambda: ask(slow, "status")["open_count"], "the client has seen it stand")
        reset(connection)
        del recorder.pieces[connection]
        (connection,) = recorder.accept(1)
        wait_until(lambda: ask(slow, "status")["open_count"], "the client has seen the second stand")
        told = ask(slow, "status")
        assert (told["ended_count"], told["connected_count"], told["clients_count"]) == (1, 2, 1)
        if kind == "idle":
            assert told["sent_bytes"] == 0


def test_an_answered_request_is_whole_and_another_begins(recorder: Recorder) -> None:
    with playing(recorder.port, "head") as slow:
        ask(slow, "clients 1")
        (connection,) = recorder.accept(1)
        recorder.record(connection, REQUEST_BYTES)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        (other,) = recorder.accept(1)
        recorder.record(other, 1)
        told = ask(slow, "status")
        assert (told["whole_count"], told["ended_count"], told["received_bytes"]) == (1, 0, 38)


def test_where_nobody_listens_they_are_refused_and_try_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with playing(port, "head") as slow:
        ask(slow, "clients 2")
        wait_until(lambda: int(str(ask(slow, "status")["refused_count"])) > 4, "they try again")
        told = ask(slow, "status")
        assert (told["open_count"], told["connected_count"], told["failure"]) == (0, 0, None)


def test_a_full_accept_queue_leaves_them_pending(recorder: Recorder) -> None:
    recorder.listener.listen(1)
    with playing(recorder.port, "idle") as slow:
        ask(slow, "clients 20")
        wait_until(lambda: ask(slow, "status")["open_count"] == 2, "the queue is full")
        told = ask(slow, "status")
        assert (told["pending_count"], told["refused_count"], told["failure"]) == (18, 0, None)


def test_the_lack_of_descriptors_on_this_side_is_told(recorder: Recorder) -> None:
    with playing(recorder.port, "idle") as slow:
        ask(slow, "status")  # it has all that it opens for itself
        limit_count = descriptors_of(slow.pid) + 5
        resource.prlimit(slow.pid, resource.RLIMIT_NOFILE, (limit_count, limit_count))
        told = ask(slow, "clients 9")
        assert (told["failure"]["call"], told["failure"]["name"]) == ("socket", "EMFILE")  # type: ignore[index]
        wait_until(lambda: ask(slow, "status")["open_count"] == 5, "five fit")


def test_ten_thousand_take_next_to_no_memory() -> None:
    count = 10_000
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < count + 100:
        cannot_run(f"the hard limit of descriptors is below {count + 100:,}")
    options = ServerOptions(protocol="http", capacity_count=count + 100)
    with ReferenceServer("epoll", options) as server, playing(server.port, "head", 1000) as slow:
        before_bytes = private_bytes(slow.pid)
        ask(slow, f"clients {count}")
        wait_until(lambda: ask(slow, "status")["open_count"] == count, "all are open", 30.0)
        assert server.status()["open_count"] == count
        assert CLIENT_BYTES * count <= private_bytes(slow.pid) - before_bytes + 4096 < 64 * count
        ask(slow, "clients 0")


def private_bytes(pid: int) -> int:
    """What only this process has, of its user memory."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(1024 * int(size) for size in re.findall(r"^Private_\w+: +(\d+) kB", text, re.MULTILINE))


def test_what_python_knows_of_the_helper_is_so() -> None:
    text = (Path(__file__).parents[2] / "c10k_probe/_core/slow_clients.h").read_text()
    assert f"SLOW_CLIENTS_MAX = {MOST_COUNT // 1000} * 1000," in text
    assert struct.calcsize("ii??2x") == CLIENT_BYTES
    assert run("slow_clients", "--port", 9, commands=f"clients {MOST_COUNT + 1}\n").code == 2
