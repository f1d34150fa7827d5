"""The HTTP of the Python servers: known answers, whatever the pieces that the requests come in."""

from __future__ import annotations

import email.utils
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c10k_probe.servers_in_python.http import BODY, HEAD_BYTES_MAX, Requests

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
Answer = tuple[int, dict[str, str], bytes]


def answers_in(data: bytes, *heads: int) -> list[Answer]:
    """Status, fields and body of each answer; ``heads``: which of them are answers to HEAD."""
    found: list[Answer] = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        line, *lines = head.decode().split("\r\n")
        assert line.startswith("HTTP/1.1 ")
        fields = dict(text.split(": ", 1) for text in lines)
        length = 0 if len(found) in heads else int(fields["Content-Length"])
        found.append((int(line.split()[1]), fields, data[:length]))
        data = data[length:]
    return found


def ask(data: bytes, *heads: int) -> tuple[list[Answer], bool]:
    """The answers to these bytes on a connection of their own, and whether it is over then."""
    requests = Requests()
    return answers_in(requests.feed(data), *heads), requests.is_over


def test_the_answer() -> None:
    before_s = int(time.time())
    ((status, fields, body),), is_over = ask(GET)

    assert (status, body, is_over) == (200, BODY, False)
    assert set(fields) == {"Date", "Content-Type", "Content-Length"}
    assert before_s <= email.utils.parsedate_to_datetime(fields["Date"]).timestamp() <= time.time()


STREAM = (
    b"\r\nGET /one HTTP/1.1\r\nHost: a\r\n\r\n"
    b"POST /two HTTP/1.1\r\nHost: a\r\nContent-Length: 34\r\n\r\nGET /body HTTP/1.1\r\nHost: a\r\n\r\n\r\n\r\n"
    b"HEAD /three HTTP/1.1\nhost:a\n\n"
    b"GET /four HTTP/1.0\r\nConnection: foo, Keep-Alive\r\n\r\n"
    b"PUT /five HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\nend"
    b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n"
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=20).map(sorted))
def test_requests_may_be_split_anywhere_and_come_many_at_once(cuts: list[int]) -> None:
    requests, got = Requests(), b""
    for start, end in zip([0, *cuts], [*cuts, len(STREAM)], strict=True):
        if not requests.is_over:
            got += requests.feed(STREAM[start:end])

    answers = answers_in(got, 2)
    assert [status for status, _, _ in answers] == [200] * 5
    assert [body for _, _, body in answers] == [BODY, BODY, b"", BODY, BODY]
    assert {fields["Content-Length"] for _, fields, _ in answers} == {str(len(BODY))}
    assert [fields.get("Connection") for _, fields, _ in answers] == [None, None, None, "keep-alive", "close"]
    assert requests.is_over


@pytest.mark.parametrize(
    ("request_bytes", "is_over"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: CLOSE\r\n\r\n", True),
        (b"GET / HTTP/1.2\r\nHost: a\r\nX-Empty:\r\n\r\n", False),
        (b"GET http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 0\r\n\r\n", False),
    ],
)
def test_who_stays_connected(request_bytes: bytes, is_over: bool) -> None:
    ((status, _, body),), ended = ask(request_bytes)

    assert (status, body, ended) == (200, BODY, is_over)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % 10**18, 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * HEAD_BYTES_MAX, 431),
    ],
)
def test_what_is_refused_ends_the_connection(request_bytes: bytes, status: int) -> None:
    (first, (refusal, fields, body)), is_over = ask(GET + request_bytes + GET)

    assert first[0] == 200, "what came before is answered"
    assert (refusal, body, is_over) == (status, b"", True)
    assert fields["Connection"] == "close"
