"""An echo server that answers as a test wants it to, and the ways to answer badly."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

MESSAGE_BYTES = 64

# (connection's number, message's number on it, message, the message before) -> answer; None: close
Answer = Callable[[int, int, bytes, bytes], bytes | None]


class PythonServer:
    """An echo server in a thread whose answers are the test's choice; remembers the messages in their order.

    With ``pause_s`` an answer comes in two pieces, this long apart; the others wait meanwhile.
    """

    def __init__(self, answer: Answer, pause_s: float = 0.0) -> None:
        self._answer = answer
        self._pause_s = pause_s
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._stop, self._stopped = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._accepted: list[socket.socket] = []
        self._pending: dict[socket.socket, tuple[int, list[bytes]]] = {}
        self._thread = threading.Thread(target=self._serve)
        self.port = int(self._listener.getsockname()[1])
        self.messages: list[bytes] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.close()
        self._thread.join()
        self._selector.close()
        for opened in (self._listener, self._stopped, *self._accepted):
            opened.close()

    def _serve(self) -> None:
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._stopped, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._stopped:
                    return
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    assert isinstance(key.fileobj, socket.socket)
                    self._obey(key.fileobj)

    def _accept(self) -> None:
        connection = self._listener.accept()[0]
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pending[connection] = (len(self._accepted), [])
        self._accepted.append(connection)
        self._selector.register(connection, selectors.EVENT_READ)

    def _obey(self, connection: socket.socket) -> None:
        number, before = self._pending[connection]
        answer: bytes | None = None
        with contextlib.suppress(OSError):
            message = connection.recv(MESSAGE_BYTES, socket.MSG_WAITALL)
            if message:
                self.messages.append(message)
                before.append(message)
                answer = self._answer(number, len(before) - 1, message, before[-2] if len(before) > 1 else b"")
            if answer is not None:
                self._send(connection, answer)
        if answer is None:
            self._selector.unregister(connection)
            connection.close()

    def _send(self, connection: socket.socket, answer: bytes) -> None:
        pieces = [answer[: len(answer) // 3], answer[len(answer) // 3 :]] if self._pause_s else [answer]
        for number, piece in enumerate(pieces):
            time.sleep(self._pause_s if number else 0.0)
            connection.sendall(piece)


def on_third(misbehave: Callable[[bytes, bytes], bytes | None], first_round: int = 1) -> Answer:
    """Right at first; from a connection's message ``first_round`` on, every third connection misbehaves."""

    def answer(number: int, round_number: int, message: bytes, before: bytes) -> bytes | None:
        return misbehave(message, before) if round_number >= first_round and number % 3 == 0 else message

    return answer


BAD_ANSWERS: dict[str, Callable[[bytes, bytes], bytes | None]] = {
    "last byte wrong": lambda message, before: message[:-1] + bytes([message[-1] ^ 1]),
    "another index": lambda message, before: bytes([message[0] ^ 1]) + message[1:],
    "the message before": lambda message, before: before,
    "silent": lambda message, before: b"",
    "closing": lambda message, before: None,
    "half": lambda message, before: message[: MESSAGE_BYTES // 2],
}
