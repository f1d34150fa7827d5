"""What a request waits for besides its answer: a backend, asked as a Python program asks one. And how long that takes.

A question is one byte, its answer one byte (``servers.backend``). Connections to the backend are kept and shared: who
asks takes a free one, or opens another. ``Links`` asks with blocking calls, from any thread; ``loop_links`` awaits.

Timed, CLOCK_MONOTONIC: in the handler, from the return of the read to that of the write; in the queue, from the
kernel's reception of the request to the handler's first step, which on a loop that is blocked includes all that was
before it. With a pool of threads its wait for a thread is in the queue, too. Known bias: the reception is told by
``tcpi_last_data_recv``, in steps of the kernel's timer (1 to 10 ms; the mean over many requests is right), and for the
last of the bytes that have come. Units: ns and counts.

Sources: tcp(7) (TCP_INFO), include/uapi/linux/tcp.h (struct tcp_info), net/ipv4/tcp.c (tcp_get_info).
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from c10k_probe.servers_in_python.http import BAD_GATEWAY, GATEWAY_TIMEOUT, OK, Answer, Requests

_LAST_DATA_RECV: Final = slice(52, 56)  # of struct tcp_info: 8 bytes, and eleven u32 before it
_RESET: Final = struct.pack("ii", 1, 0)  # struct linger: on, 0 s; no TIME_WAIT stays
QUESTION: Final = b"?"
_NS_PER_MS: Final = 1_000_000
_STDIN: Final = 0


class _Options(Protocol):
    """What both kinds of socket have: asyncio hides its own."""

    def getsockopt(self, level: int, option: int, bytes_count: int, /) -> bytes: ...

    def setsockopt(self, level: int, option: int, value: int | bytes, /) -> None: ...


class Receipt:
    """What was read at once: when its handler began, and how long it had waited then."""

    __slots__ = ("began_ns", "queue_ns")

    def __init__(self, began_ns: int, queue_ns: int) -> None:
        self.began_ns, self.queue_ns = began_ns, queue_ns

    def begin_again(self) -> None:
        """Only now somebody works on it."""
        now_ns = time.monotonic_ns()
        self.queue_ns += now_ns - self.began_ns
        self.began_ns = now_ns


def receive(connection: _Options) -> Receipt:
    """For what was just read from this connection."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA_RECV.stop)
    waited_ms = int.from_bytes(info[_LAST_DATA_RECV], "little" if _IS_LITTLE else "big")
    return Receipt(time.monotonic_ns(), waited_ms * _NS_PER_MS)


_IS_LITTLE: Final = struct.pack("=H", 1) == b"\1\0"


class Work:
    """The sums of one server, whose threads may all add to them, and where its backend is."""

    def __init__(self, port: int, timeout_ns: int) -> None:
        self.address = ("127.0.0.1", port)
        self.timeout_s = timeout_ns / 1e9
        self._lock = threading.Lock()
        self._sums = dict.fromkeys(
            (
                *("requests_count", "handler_count", "handler_ns", "queue_count", "queue_ns"),
                *("backend_asked_count", "backend_failed_count", "backend_timed_out_count"),
                *("backend_connections_count", "backend_wait_ns"),
            ),
            0,
        )

    def add(self, **values: int) -> None:
        """To these sums, at once."""
        with self._lock:
            for name, value in values.items():
                self._sums[name] += value

    def sums(self) -> dict[str, int]:
        """All of them now, under the names of the C server's ``status``."""
        with self._lock:
            return dict(self._sums)

    def finish(self, receipt: Receipt, answers: list[Answer]) -> None:
        """The answers to what was read at once have gone out."""
        asked_count = sum(answer.is_asking for answer in answers)
        if asked_count:
            taken_ns = time.monotonic_ns() - receipt.began_ns
            self.add(requests_count=asked_count, handler_count=1, handler_ns=taken_ns)
            self.add(queue_count=1, queue_ns=receipt.queue_ns)

    def told(self, began_ns: int, error: Exception | None) -> bytes:
        """Count a question's end; the status of the answer to who made it necessary."""
        self.add(backend_wait_ns=time.monotonic_ns() - began_ns)
        if error is None:
            return OK
        is_late = isinstance(error, TimeoutError)
        self.add(**{"backend_timed_out_count" if is_late else "backend_failed_count": 1})
        return GATEWAY_TIMEOUT if is_late else BAD_GATEWAY


class Links:
    """Kept connections to the backend, and questions with blocking calls.

    ``obey``: what to do when there is something to read on stdin while the only thread waits; None: another one reads.
    """

    def __init__(self, work: Work, obey: Callable[[], None] | None = None) -> None:
        self._work, self._obey = work, obey
        self._free: list[socket.socket] = []  # append and pop are whole in any thread

    def ask(self) -> bytes:
        """The status that the backend's answer makes: 200, 502 where it failed, 504 where it was too slow."""
        began_ns = time.monotonic_ns()
        try:
            link = self._take()
            self._work.add(backend_asked_count=1)
            try:
                link.sendall(QUESTION)
                self._hear_until_readable(link)
                if not link.recv(1):
                    raise ConnectionResetError
            except OSError:
                link.close()  # an answer that comes too late must not be taken for the next one
                raise
        except OSError as error:
            return self._work.told(began_ns, error)
        self._free.append(link)
        return self._work.told(began_ns, None)

    def answer(self, requests: Requests, answers: list[Answer]) -> bytes:
        """All of them as bytes, up to the first for which the backend did not do: its connection is over."""
        made = b""
        for answer in answers:
            status = self.ask() if answer.is_asking else OK
            made += answer.encode(status)
            if status != OK:
                requests.is_over = True
                break
        return made

    def _hear_until_readable(self, link: socket.socket) -> None:
        """Or until it is too late, which the read that comes next would say only after as long again."""
        if self._obey is None:
            return
        poll = select.poll()
        poll.register(link, select.POLLIN)
        poll.register(_STDIN, select.POLLIN)
        end_s = time.monotonic() + self._work.timeout_s
        while (left_s := end_s - time.monotonic()) > 0:
            ready = [descriptor for descriptor, _ in poll.poll(left_s * 1000 + 1)]
            if link.fileno() in ready:
                return
            if ready:
                self._obey()
        raise TimeoutError

    def _take(self) -> socket.socket:
        with contextlib.suppress(IndexError):
            return self._free.pop()
        link = socket.create_connection(self._work.address, self._work.timeout_s)
        prepare(link)
        self._work.add(backend_connections_count=1)
        return link


def prepare(link: _Options) -> None:
    """A new connection to the backend: no waiting for more to send, no TIME_WAIT."""
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
