"""reference_server --protocol http: a correct minimal HTTP/1.1 in every model, and what real load tools make of it."""

from __future__ import annotations

import contextlib
import random
import re
import select
import socket
import subprocess
from collections.abc import Callable, Iterator

import pytest

from c10k_probe.servers import REFERENCE_MODELS
from native.driving import RECEIVE_TIMEOUT_S, Server, few_workers, receive_exactly, reset
from native.kernel_view import state_of, wait_until

BODY = b"hello from c10k-probe\n"
DATE = re.compile(rb"Date: (Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT\r\n")
GET = b"GET /some/path?query HTTP/1.1\r\nHost: localhost\r\n\r\n"
OLD_GET = b"GET / HTTP/1.0\r\n\r\n"
HEADER_LIMIT_BYTES = 8192
CONCURRENCY = 20


def start(model: str) -> Server:
    """A server that speaks HTTP."""
    return Server(model, "--protocol", "http", *few_workers(model))


def url_of(server: Server) -> str:
    """Where load tools find it."""
    return f"http://127.0.0.1:{server.port}/"


@pytest.fixture(params=tuple(REFERENCE_MODELS))
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of each model."""
    with start(str(request.param)) as running:
        yield running


@pytest.fixture(scope="module")
def one() -> Iterator[Server]:
    """One server for what the parser does, which is the same code in each model."""
    with Server("epoll", "--protocol", "http") as running:
        yield running


def answer(status: bytes = b"200 OK", fields: bytes = b"", body: bytes = BODY) -> bytes:
    """The answer without its date."""
    kind = b"Content-Type: text/plain\r\nContent-Length: 22\r\n" if status == b"200 OK" else b"Content-Length: 0\r\n"
    return b"HTTP/1.1 " + status + b"\r\n" + kind + fields + b"\r\n" + (body if status == b"200 OK" else b"")


KEPT = answer()
CLOSE = b"Connection: close\r\n"
DATE_BYTES = len(b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n")


def without_date(data: bytes, answers_count: int) -> bytes:
    """The answers without their dates, of which each must have one."""
    text, dates_count = DATE.subn(b"", data)
    assert dates_count == answers_count, data
    return text


def receive_answers(connection: socket.socket, expected: bytes, answers_count: int = 1) -> None:
    """Exactly these answers come."""
    data = receive_exactly(connection, len(expected) + answers_count * DATE_BYTES)
    assert without_date(data, answers_count) == expected


def receive_to_end(connection: socket.socket) -> bytes:
    """All up to the end of the stream; a reset instead is an error of the server."""
    received = b""
    while piece := connection.recv(65536):
        received += piece
    return received


def ask_to_end(server: Server, request: bytes) -> bytes:
    """What comes for it on a connection of its own that the server must close by itself."""
    connection = server.connect()[0]
    connection.sendall(request)
    return receive_to_end(connection)


# --- every model ------------------------------------------------------------------------------------------------------


def test_keep_alive_pipelining_split_bytes_bodies_and_the_end(server: Server) -> None:
    connection, other = server.connect(2)
    connection.sendall(GET)
    receive_answers(connection, KEPT)

    connection.sendall(GET[:20])  # and the other one is served meanwhile
    other.sendall(GET * 200)
    receive_answers(other, KEPT * 200, 200)
    connection.sendall(GET[20:] + GET[:-1])
    receive_answers(connection, KEPT)
    connection.sendall(GET[-1:])
    receive_answers(connection, KEPT)

    body = random.Random(3).randbytes(50_000)
    post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    connection.sendall(post + body + GET)
    receive_answers(connection, KEPT * 2, 2)
    assert server.status()["open_count"] == 2

    connection.sendall(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + GET)
    assert without_date(receive_to_end(connection), 1) == answer(fields=CLOSE)
    server.wait_for_open(1)
    other.sendall(b"GET / HTTP/1.1\r\nHost:")
    other.close()  # in the middle of a request
    server.wait_for_open(0)


def test_refused_requests_get_their_answer_and_the_end(server: Server) -> None:
    too_long = b"GET / HTTP/1.1\r\nHost: x\r\nCookie: " + b"c" * (3 * HEADER_LIMIT_BYTES)

    assert without_date(ask_to_end(server, b"nonsense\r\n\r\n"), 1) == answer(b"400 Bad Request", CLOSE)
    refused = ask_to_end(server, too_long)
    assert without_date(refused, 1) == answer(b"431 Request Header Fields Too Large", CLOSE)
    assert without_date(ask_to_end(server, GET + b"\0\r\n\r\n" + GET), 2) == KEPT + answer(b"400 Bad Request", CLOSE)
    server.wait_for_open(0)


def send_until_full(connection: socket.socket) -> tuple[int, bytes]:
    """Ask without reading until neither side takes more; how many requests that is, and what of them is not sent."""
    requests_count, unsent = 0, b""
    connection.setblocking(False)
    while select.select([], [connection], [], 0.2)[1]:
        if not unsent:
            requests_count, unsent = requests_count + 1000, GET * 1000
        unsent = unsent[connection.send(unsent) :]
    return requests_count, unsent


def test_a_client_that_does_not_read_gets_each_answer_in_the_end(server: Server) -> None:
    silent, other = server.connect(2)
    requests_count, unsent = send_until_full(silent)
    assert requests_count > 1000, "the buffers were filled"
    wait_until(lambda: state_of(server.pid) == "S", "it sleeps meanwhile")
    other.sendall(GET)
    receive_answers(other, KEPT)

    received = bytearray()
    while len(received) < requests_count * (len(KEPT) + DATE_BYTES):
        readable, writable, _ = select.select([silent], [silent] if unsent else [], [], RECEIVE_TIMEOUT_S)
        assert readable or writable
        if writable:
            unsent = unsent[silent.send(unsent) :]
        if readable:
            received += silent.recv(1 << 20)
    assert without_date(bytes(received), requests_count) == KEPT * requests_count


def test_nothing_of_a_connection_is_left_to_the_next_one(server: Server) -> None:
    """Ended in mid-request, in mid-body, and while its answers wait: its descriptor is another's afterwards."""
    for rest in (b"GET / HT", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\nbody"):
        silent, cut = server.connect(2)
        send_until_full(silent)
        cut.sendall(rest)
        server.wait_for_open(2)
        reset(silent)
        reset(cut)
        server.wait_for_open(0)
        for connection in server.connect(2):
            connection.sendall(GET)
            receive_answers(connection, KEPT)
            reset(connection)


def test_ab_has_no_failed_request(server: Server, require_tool: Callable[[str], str]) -> None:
    for keep, count in ([], 300), (["-k"], 1000):
        command = [require_tool("ab"), "-q", *keep, "-n", str(count), "-c", str(CONCURRENCY), url_of(server)]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        figures = dict(re.findall(r"(?m)^([\w -]+):\s+(\d+)", report))
        assert (figures["Complete requests"], figures["Failed requests"]) == (str(count), "0"), report
        assert int(figures["HTML transferred"]) == count * len(BODY)
        assert figures.get("Keep-Alive requests") == (str(count) if keep else None)
        assert "Non-2xx" not in report


def test_wrk_has_no_failed_request(require_tool: Callable[[str], str]) -> None:
    """All models at once: wrk runs for a second at least."""
    wrk = require_tool("wrk")
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(start(model)) for model in REFERENCE_MODELS]
        clients = [
            stack.enter_context(
                subprocess.Popen(
                    [wrk, "-t1", f"-c{CONCURRENCY}", "-d1", url_of(server)], stdout=subprocess.PIPE, text=True
                )
            )
            for server in servers
        ]
        reports = {
            server.ready["model"]: client.communicate()[0] for server, client in zip(servers, clients, strict=True)
        }
    answered = {model: re.search(r"(\d+) requests in", report) for model, report in reports.items()}
    assert {model for model, found in answered.items() if found and int(found[1]) > CONCURRENCY} == set(
        REFERENCE_MODELS
    )
    assert [report for report in reports.values() if "Socket errors" in report or "Non-2xx" in report] == []


# --- the parser -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(1, len(GET)))
def test_a_request_may_be_split_at_any_byte(one: Server, at: int) -> None:
    with one.connect()[0] as connection:
        connection.sendall(GET[:at])
        assert one.status()["open_count"] >= 1  # it has looked at the first part, or at least been woken
        connection.sendall(GET[at:])
        receive_answers(connection, KEPT)


def test_a_request_may_come_byte_by_byte(one: Server) -> None:
    with one.connect()[0] as connection:
        for byte in b"\r\n" + GET + GET:
            connection.sendall(bytes([byte]))
        receive_answers(connection, KEPT * 2, 2)


def test_random_pieces_of_many_requests(one: Server) -> None:
    dice = random.Random(7)
    post = b"PUT /x HTTP/1.1\r\nHost: x\r\ncontent-length:  700 \r\n\r\n" + bytes(700)
    requests = [dice.choice([GET, post, b"\r\n" + GET]) for _ in range(200)]
    stream = b"".join(requests)
    with one.connect()[0] as connection:
        while stream:
            size = dice.choice([1, 2, 3, 10, 500, 512, 513, 4096])
            connection.sendall(stream[:size])
            stream = stream[size:]
        receive_answers(connection, KEPT * len(requests), len(requests))


OLD_KEPT = answer(fields=b"Connection: keep-alive\r\n")


@pytest.mark.parametrize(
    ("request_text", "kept"),
    [
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", OLD_KEPT),
        (b"GET / HTTP/1.0\r\nHost: x\r\nConnection: foo , keep-alive\r\n\r\n", OLD_KEPT),
        (b"GET / HTTP/1.1\r\nhOST: x\r\nConnection: keep-alive\r\n\r\n", KEPT),
        (b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", answer(body=b"")),
        (b"DELETE * HTTP/1.1\r\nHost:\r\n\r\n", KEPT),
        (b"GET / HTTP/1.7\r\nHost: x\r\nX: a\tb\r\n\r\n", KEPT),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", KEPT),
        (b"GET / HTTP/1.1\r\nHost: x\r\nC: " + b"c" * (HEADER_LIMIT_BYTES - 32) + b"\r\n\r\n", KEPT),
    ],
)
def test_requests_that_keep_the_connection(one: Server, request_text: bytes, kept: bytes) -> None:
    with one.connect()[0] as connection:
        for _ in range(2):
            connection.sendall(request_text)
            receive_answers(connection, kept)


BAD = b"400 Bad Request"


@pytest.mark.parametrize(
    ("request_text", "status", "body"),
    [
        (OLD_GET, b"200 OK", BODY),
        (b"HEAD / HTTP/1.0\r\n\r\n", b"200 OK", b""),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", b"200 OK", BODY),
        (b"GET / HTTP/1.1\r\n\r\n", BAD, b""),  # no Host
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", BAD, b""),
        (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", BAD, b""),
        (b"GET /\r\n\r\n", BAD, b""),
        (b"GET / http/1.1\r\nHost: x\r\n\r\n", BAD, b""),
        (b"G@T / HTTP/1.1\r\nHost: x\r\n\r\n", BAD, b""),
        (b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", BAD, b""),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", BAD, b""),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n folded\r\n\r\n", BAD, b""),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: \x01\r\n\r\n", BAD, b""),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", BAD, b""),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", BAD, b""),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", BAD, b""),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"501 Not Implemented", b""),
        (b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", b"501 Not Implemented", b""),
        (b"get / HTTP/1.1\r\nHost: x\r\n\r\n", b"501 Not Implemented", b""),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", b"505 HTTP Version Not Supported", b""),
        (b"X" * HEADER_LIMIT_BYTES, b"431 Request Header Fields Too Large", b""),
    ],
)
def test_requests_that_end_the_connection(one: Server, request_text: bytes, status: bytes, body: bytes) -> None:
    answered = ask_to_end(one, request_text)

    assert without_date(answered, 1) == answer(status, CLOSE, body)
