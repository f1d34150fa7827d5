"""HTTP/1.1 with keep-alive, as little of it as is correct: requests in, fixed answers out; no input or output.

Every target is there and every method but CONNECT gets the same answer, HEAD without its body. Bodies of requests are
skipped by Content-Length. No Date is sent, as by a server without a clock, so that all answers are the same bytes.

Sources: RFC 9112 (HTTP/1.1): 2.2, 3 (request line), 5 (fields), 6 (bodies), 9.3 (persistence); RFC 9110: 6.6.1 (Date),
7.2 (Host), 9.3.2 (HEAD), 10.1.1 (Expect), 15 (status codes); RFC 6585: 5 (431).
"""

from __future__ import annotations

import re
from typing import Final

BODY: Final = b"hello from c10k-probe\n"
HEAD_BYTES_MAX: Final = 8192

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_END_OF_HEAD: Final = re.compile(rb"\r?\n\r?\n")
_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE: Final = re.compile(rb"(%b) [!-~\x80-\xff]+ HTTP/(\d)\.(\d)" % _TOKEN)
_FIELD: Final = re.compile(rb"(%b):[ \t]*([^\0\r]*?)[ \t]*" % _TOKEN)

Fields = dict[bytes, list[bytes]]  # by name in lower case


class Refused(Exception):
    """A request that cannot be answered; the text is code and phrase of the last answer on its connection."""


class Requests:
    """The requests of one connection, in pieces of any size; ``is_over`` when it is to be closed."""

    __slots__ = ("_answer", "_body_bytes", "_is_last", "_rest", "is_over")

    def __init__(self) -> None:
        self.is_over = False
        self._rest = b""  # of a head that has not ended
        self._answer = b""  # due when the body has come
        self._body_bytes = 0  # of that body, still to come
        self._is_last = False

    def feed(self, data: bytes) -> bytes:
        """What to send for these bytes, the answers in the order of the requests."""
        answers: list[bytes] = []
        try:
            self._rest = self._serve(self._rest + data, answers)
        except Refused as refused:
            self.is_over = True
            answers.append(_answer(str(refused), f"{refused}\n".encode(), b"close"))
        return b"".join(answers)

    def _serve(self, data: bytes, answers: list[bytes]) -> bytes:
        """Answer the requests that are whole; the rest. Raises ``Refused``."""
        while not self.is_over:
            if not self._answer:
                data = data.lstrip(b"\r\n")  # RFC 9112, 2.2: empty lines before a request line
                end = _END_OF_HEAD.search(data)
                if (end.start() if end else len(data)) > HEAD_BYTES_MAX:
                    raise Refused("431 Request Header Fields Too Large")
                if end is None:
                    return data
                if self._begin(data[: end.start()]) and self._body_bytes > len(data) - end.end():
                    answers.append(_CONTINUE)
                data = data[end.end() :]
            skipped = min(self._body_bytes, len(data))
            data = data[skipped:]
            self._body_bytes -= skipped
            if self._body_bytes:
                return data
            answers.append(self._answer)
            self._answer, self.is_over = b"", self._is_last
        return b""

    def _begin(self, head: bytes) -> bool:
        """Take in a head; whether its sender waits for leave to send the body. Raises ``Refused``."""
        line, *lines = (line.removesuffix(b"\r") for line in head.split(b"\n"))
        method, is_1_0 = _read_request_line(line)
        fields = _read_fields(lines)
        if len(fields.get(b"host", ())) > 1 or not (is_1_0 or b"host" in fields):
            raise Refused("400 Bad Request")
        self._body_bytes = _length_of_body(fields)
        options = _words(fields, b"connection")
        self._is_last = b"close" in options or (is_1_0 and b"keep-alive" not in options)
        connection = b"close" if self._is_last else b"keep-alive" if is_1_0 else b""
        self._answer = _ANSWERS[connection, method == b"HEAD"]
        return not is_1_0 and b"100-continue" in _words(fields, b"expect")


def _read_request_line(line: bytes) -> tuple[bytes, bool]:
    """The method, and whether the version is 1.0. Raises ``Refused``."""
    found = _REQUEST_LINE.fullmatch(line)
    if found is None:
        raise Refused("400 Bad Request")
    method, major, minor = found.groups()
    if major != b"1":
        raise Refused("505 HTTP Version Not Supported")
    if method == b"CONNECT":  # no tunnels here
        raise Refused("501 Not Implemented")
    return method, minor == b"0"


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


def _answer(status: str, body: bytes, connection: bytes, *, is_head: bool = False) -> bytes:
    """One answer; without its body to a HEAD."""
    lines = [b"HTTP/1.1 " + status.encode(), b"Content-Type: text/plain", b"Content-Length: %d" % len(body)]
    if connection:
        lines.append(b"Connection: " + connection)
    return b"\r\n".join((*lines, b"", b"" if is_head else body))


_ANSWERS: Final = {
    (connection, is_head): _answer("200 OK", BODY, connection, is_head=is_head)
    for connection in (b"", b"close", b"keep-alive")
    for is_head in (False, True)
}
