"""An answer over HTTP as it came on a connection: its sizes as a load generator meets them, and its text."""

from __future__ import annotations

import http.client
import io
import socket
from dataclasses import dataclass


@dataclass(frozen=True)
class Page:
    """An answer. version: its ``Server`` header. header_bytes: with the status line and the empty line at its end."""

    status: int
    version: str
    header_bytes: int
    body_bytes: int
    body: str


class _CountingReader(io.BufferedReader):
    """Counts what is read by lines: the head of an answer, and nothing of its body."""

    lines_bytes = 0

    def readline(self, size: int | None = -1, /) -> bytes:
        """See ``io.BufferedReader``."""
        line = super().readline(size)
        self.lines_bytes += len(line)
        return line


def read_page(connection: socket.socket) -> Page:
    """The answer that comes on this connection. Raises ``OSError``, ``http.client.HTTPException``."""
    answer = http.client.HTTPResponse(connection)
    answer.fp.close()
    answer.fp = reader = _CountingReader(connection.makefile("rb", buffering=0))
    with answer:
        answer.begin()
        header_bytes = reader.lines_bytes
        body = answer.read()
        version = answer.getheader("Server") or ""
        return Page(answer.status, version, header_bytes, len(body), body.decode(errors="replace"))
