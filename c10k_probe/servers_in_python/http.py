"""HTTP/1.1 with keep-alive, as little of it as is correct: requests in, fixed answers out; no input or output.

The same answers as the C server's: any path, 200 and the same few bytes, to HEAD without them; where there is a backend
it is asked for any path but /plain. Bodies of requests are skipped by Content-Length. Refused, and the connection
closed: a bad request 400, a head of over 8 KiB 431, another method or a transfer coding 501, another major version 505.

Sources: RFC 9112 (HTTP/1.1): 2.2, 3 (request line), 5 (fields), 6 (bodies), 9.3 (persistence); RFC 9110: 6.6.1 (Date),
7.2 (Host), 9.3.2 (HEAD), 15 (status codes); RFC 6585: 5 (431).
"""

from __future__ import annotations

import re
import time
from typing import Final, NamedTuple

BODY: Final = b"hello from c10k-probe\n"
HEAD_BYTES_MAX: Final = 8192
OK: Final = b"200 OK"
BAD_GATEWAY: Final = b"502 Bad Gateway"
GATEWAY_TIMEOUT: Final = b"504 Gateway Timeout"

_METHODS: Final = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"})
_END_OF_HEAD: Final = re.compile(rb"\r?\n\r?\n")
_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE: Final = re.compile(rb"(%b) ([!-~\x80-\xff]+) HTTP/(\d)\.(\d)" % _TOKEN)
_FIELD: Final = re.compile(rb"(%b):[ \t]*([^\0\r]*?)[ \t]*" % _TOKEN)

Fields = dict[bytes, list[bytes]]  # by name in lower case


class Refused(Exception):
    """A request that cannot be answered; the text is code and phrase of the last answer on its connection."""


class Answer(NamedTuple):
    """One answer before it is bytes. ``is_asking``: a backend is to be asked for it, which may spoil it."""

    status: bytes
    connection: bytes
    body: bytes = b""
    is_head: bool = False
    is_asking: bool = False

    def encode(self, status: bytes = OK) -> bytes:
        """As bytes; with another status than 200 the connection is to be closed after it."""
        if status != OK:
            return _encode(status, b"close", b"", is_head=self.is_head)
        return _encode(self.status, self.connection, self.body, is_head=self.is_head)


class Requests:
    """The requests of one connection, in pieces of any size; ``is_over`` when it is to be closed."""

    __slots__ = ("_body_bytes", "_is_last", "_rest", "is_over")

    def __init__(self) -> None:
        self.is_over = False
        self._rest = b""  # of a head that has not ended
        self._body_bytes = 0  # of a request that was answered, still to come
        self._is_last = False

    def feed(self, data: bytes) -> bytes:
        """What to send for these bytes, the answers in the order of the requests."""
        return b"".join([answer.encode() for answer in self.take(data)])

    def take(self, data: bytes) -> list[Answer]:
        """The answers to these bytes, in the order of the requests."""
        answers: list[Answer] = []
        try:
            self._rest = self._serve(self._rest + data, answers)
        except Refused as refused:
            self.is_over = True
            answers.append(Answer(str(refused).encode(), b"close"))
        return answers

    def _serve(self, data: bytes, answers: list[Answer]) -> bytes:
        """Answer the requests whose heads are whole; the rest. Raises ``Refused``."""
        while True:
            skipped = min(self._body_bytes, len(data))
            data = data[skipped:]
            self._body_bytes -= skipped
            if self._body_bytes:
                return data
            if self._is_last:
                self.is_over = True
                return b""
            data = data.lstrip(b"\r\n")  # RFC 9112, 2.2: empty lines before a request line
            end = _END_OF_HEAD.search(data)
            if (end.start() if end else len(data)) > HEAD_BYTES_MAX:
                raise Refused("431 Request Header Fields Too Large")
            if end is None:
                return data
            answers.append(self._begin(data[: end.start()]))
            data = data[end.end() :]

    def _begin(self, head: bytes) -> Answer:
        """Take in a head; its answer. Raises ``Refused``."""
        line, *lines = (line.removesuffix(b"\r") for line in head.split(b"\n"))
        method, path, is_1_0 = _read_request_line(line)
        fields = _read_fields(lines)
        if len(fields.get(b"host", ())) > 1 or not (is_1_0 or b"host" in fields):
            raise Refused("400 Bad Request")
        self._body_bytes = _length_of_body(fields)
        options = _words(fields, b"connection")
        self._is_last = b"close" in options or (is_1_0 and b"keep-alive" not in options)
        connection = b"close" if self._is_last else b"keep-alive" if is_1_0 else b""
        return Answer(OK, connection, BODY, method == b"HEAD", path != b"/plain")


def _read_request_line(line: bytes) -> tuple[bytes, bytes, bool]:
    """The method, the path, and whether the version is 1.0. Raises ``Refused``."""
    found = _REQUEST_LINE.fullmatch(line)
    if found is None:
        raise Refused("400 Bad Request")
    method, path, major, minor = found.groups()
    if major != b"1":
        raise Refused("505 HTTP Version Not Supported")
    if method not in _METHODS:
        raise Refused("501 Not Implemented")
    return method, path, minor == b"0"


def _read_fields(lines: list[bytes]) -> Fields:
    """The header fields. Raises ``Refused``, also for folded ones (RFC 9112, 5.2)."""
    fields: Fields = {}
    for line in lines:
        found = _FIELD.fullmatch(line)
        if found is None:
            raise Refused("400 Bad Request")
        fields.setdefault(found[1].lower(), []).append(found[2])
    return fields


def _words(fields: Fields, name: bytes) -> set[bytes]:
    """The members of a field that is a list, in lower case."""
    return {word.strip(b" \t").lower() for value in fields.get(name, ()) for word in value.split(b",")}


def _length_of_body(fields: Fields) -> int:
    """Bytes of the request's body. Raises ``Refused`` where it is not told plainly (RFC 9112, 6.3)."""
    if b"transfer-encoding" in fields:
        raise Refused("501 Not Implemented")
    lengths = _words(fields, b"content-length") or {b"0"}
    length = lengths.pop()
    if lengths or not length.isdigit() or len(length) > 18:
        raise Refused("400 Bad Request")
    return int(length)


def _encode(status: bytes, connection: bytes, body: bytes, *, is_head: bool) -> bytes:
    """One answer; without its body to a HEAD."""
    lines = [b"HTTP/1.1 " + status, b"Date: " + _date()]
    if body:
        lines.append(b"Content-Type: text/plain")
    lines.append(b"Content-Length: %d" % len(body))
    if connection:
        lines.append(b"Connection: " + connection)
    return b"\r\n".join((*lines, b"", b"" if is_head else body))


_last_date = (-1, b"")


def _date() -> bytes:
    """Now, as HTTP writes it; made once a second."""
    global _last_date  # noqa: PLW0603 -- replaced as a whole, so that threads may share it
    now_s = int(time.time())
    if _last_date[0] != now_s:
        _last_date = (now_s, time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(now_s)).encode("ascii"))
    return _last_date[1]
