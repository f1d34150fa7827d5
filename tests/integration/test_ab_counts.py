"""What ab makes of a server whose failures are known: every request that failed is told once, and no other."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from conftest import cannot_run

from c10k_probe.load import Ab
from c10k_probe.parts import find_part

REQUESTS = 40
EVERY = 5  # the last of so many fails
BODY = b"hello world"
RIGHT = b"HTTP/1.0 200 OK\r\nContent-Length: 11\r\n\r\n" + BODY
ANSWERS = {
    "reset": b"",
    "empty": b"",
    "short": RIGHT[:-3],
    "wrong": b"HTTP/1.0 500 No\r\nContent-Length: 3\r\n\r\nbad",
    "wrong of the same length": RIGHT.replace(b"200 OK", b"500 No"),
}


class Failing:
    """A server that fails in one way, at requests of known numbers."""

    def __init__(self, how: str) -> None:
        self.how = how
        self.failed_count = 0
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Failing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self.listener.close()

    def _serve(self) -> None:
        count = 0
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                with connection:
                    if not connection.recv(4096):
                        continue  # it came to nothing, as a connection that ab opens when it has all answers
                    count += 1
                    self._answer(connection, is_failing=count % EVERY == 0)

    def _answer(self, connection: socket.socket, *, is_failing: bool) -> None:
        self.failed_count += is_failing
        connection.sendall(ANSWERS[self.how] if is_failing else RIGHT)
        if is_failing and self.how == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.fixture(params=ANSWERS)
def failing(request: pytest.FixtureRequest) -> Iterator[Failing]:
    if not find_part("ab").found:
        cannot_run("ab is not installed")
    with Failing(request.param) as server:
        yield server


@pytest.mark.parametrize("connections_count", [1, 4])
def test_failed_requests_are_counted_once(failing: Failing, connections_count: int) -> None:
    url = f"http://127.0.0.1:{failing.listener.getsockname()[1]}/"
    with Ab(url, REQUESTS, connections_count, body_bytes=len(BODY)) as load:
        report = load.finish(20)
    assert failing.failed_count == REQUESTS / EVERY
    assert (report.complete_count, report.lost_count) == (REQUESTS, failing.failed_count)
    if failing.how == "reset":
        assert report.told_failed_count > 2 * failing.failed_count, "else there is nothing here to be wrong about"
