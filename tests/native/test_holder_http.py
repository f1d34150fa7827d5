"""connection_holder over HTTP: which answers are right, in pieces too, and what is said of those that are not."""

from __future__ import annotations

import pytest

from c10k_probe.load import Holder
from c10k_probe.load.holder import Http
from c10k_probe.servers import ReferenceServer, ServerOptions
from c10k_probe.servers.real import BODY
from native.answering import MESSAGE_BYTES, PythonServer
from native.driving import holding, run

TEXT = b"hello"
HEAD = b"HTTP/1.1 200 OK\r\nServer: made up\r\n"
PLAIN = HEAD + b"Content-Length: 5\r\n\r\n" + TEXT
GOOD = {
    "with a length": PLAIN,
    "names in small letters": HEAD + b"content-length:5\r\nconnection:  Keep-Alive\r\n\r\n" + TEXT,
    "in chunks": HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;a=b\r\nllo\r\n0\r\nTrailer: x\r\n\r\n",
    "without carriage returns": b"HTTP/1.1 201 Created\nContent-Length: 5\n\nhello",
    "of version 1.0 and kept": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\n" + TEXT,
    "with a long line": HEAD + b"X: " + b"y" * 500 + b"\r\nContent-Length: 5\r\n\r\n" + TEXT,
}
BAD = {
    "another status": (b"HTTP/1.1 503 No\r\nContent-Length: 5\r\n\r\nhello", "HTTP", "Answered with status 503"),
    "another text": (PLAIN[:-1] + b"x", "EBADMSG", ""),
    "a text that is too short": (HEAD + b"Content-Length: 4\r\n\r\nhell", "EBADMSG", ""),
    "a text that is too long": (HEAD + b"Content-Length: 6\r\n\r\nhello!", "EBADMSG", ""),
    "more than one answer": (PLAIN + b"H", "EBADMSG", ""),
    "no HTTP": (b"220 mail.example ESMTP ready\r\n", "EBADMSG", ""),
    "an absurd length": (HEAD + b"Content-Length: -1\r\n\r\n", "EBADMSG", ""),
    "an absurd chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", "EBADMSG", ""),
    "a connection that will close": (PLAIN.replace(b"Server: made up", b"Connection: close"), "CLOSES", "closes"),
    "version 1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", "CLOSES", "closes"),
    "an end that only closing shows": (HEAD + b"\r\nhello", "CLOSES", "closes"),
    "a half": (PLAIN[:-2], "ETIMEDOUT", "timed out"),
    "nothing but closing": (None, "EOF", "closed by the server"),
}


def path_for(port: int) -> str:
    """With it a request is as long as the messages that the server of the tests reads."""
    request = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"
    return "/" + "x" * (MESSAGE_BYTES - len(request))


@pytest.mark.parametrize("pause_s", [0.0, 0.001], ids=["at once", "in two pieces"])
@pytest.mark.parametrize("kind", GOOD)
def test_right_answers_of_every_shape(kind: str, pause_s: float) -> None:
    """In every command, and as many as the server was asked for."""
    with PythonServer(lambda *_: GOOD[kind], pause_s) as server:
        path = path_for(server.port)
        with holding(server.port, "--path", path, "--body", TEXT.decode(), "--timeout-ms", 2000) as holder:
            assert holder.ask("ramp 4", "ramped")["open_count"] == 4
            echoed = holder.ask("echo 4 1", "echoed")
            assert (echoed["ok_count"], echoed["failed_count"]) == (4, 0)
            probed = holder.ask("probe 200 50 1", "probed")
            sent_count = probed["sent_count"]  # fewer than 10 where it came late to the end of its time
            assert (probed["ok_count"], probed["failure"]) == (sent_count, None)
            assert 1 <= sent_count <= 10
            pumped = holder.ask("pump 2 20", "pumped")
            assert pumped["failed_count"] == 0
            answered = pumped["requests_count"] + pumped["drained_count"]
            assert answered >= 2
            assert len(server.messages) == 4 + 4 + sent_count + answered
        expected = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode()
        assert set(server.messages) == {expected}


@pytest.mark.parametrize("kind", BAD)
def test_wrong_answers_do_not_count_as_open(kind: str) -> None:
    answer, name, told = BAD[kind]
    with PythonServer(lambda *_: answer) as server:
        how = ("--path", path_for(server.port), "--body", TEXT.decode(), "--timeout-ms", 200)
        with holding(server.port, *how) as holder:
            ramped = holder.ask("ramp 2", "ramped")
            assert (ramped["open_count"], ramped["failure"]["name"]) == (0, name)
            assert told in ramped["failure"]["message"]


def test_without_a_text_any_good_answer_is_right() -> None:
    with (
        PythonServer(lambda *_: PLAIN[:-1] + b"x") as server,
        holding(server.port, "--path", path_for(server.port)) as it,
    ):
        assert it.ask("ramp 2", "ramped")["open_count"] == 2


@pytest.mark.parametrize(
    ("arguments", "commands", "told"),
    [
        (("--path", "no-slash"), "", "--path"),
        (("--path", "/a b"), "", "--path"),
        (("--path", "/" + "x" * 5000), "", "--path"),
        (("--body", "text"), "", "add --path"),
        (("--path", "/"), "backlog 10\n", "backlog is of echoes"),
    ],
)
def test_what_cannot_be_meant(arguments: tuple[str, ...], commands: str, told: str) -> None:
    outcome = run("connection_holder", "--port", 9, *arguments, commands=commands)
    assert outcome.code == 2
    assert told in outcome.stderr


def test_from_python_with_a_wall_that_shortens_the_wait() -> None:
    """Two workers hold two connections; the third waits, but not for the client's whole 10 s."""
    with (
        ReferenceServer("prefork", ServerOptions(workers_count=2, protocol="http")) as server,
        Holder(server.port, 3, http=Http("/", BODY)) as holder,
    ):
        looks: list[int] = []

        def is_in_vain() -> bool:
            looks.append(len(server.walls()))
            return bool(looks[-1])

        ramped = holder.ramp(3, is_in_vain=is_in_vain)
        assert (ramped.open_count, ramped.failure.errno_name if ramped.failure else "") == (2, "ETIMEDOUT")
        assert looks[-1] == 1 and not any(looks[:-1]), "asked until it said so, and no more"
        assert len(looks) < 20, "10 s are some 40 looks"
        assert holder.echo(0, 1).ok_count == 2, "those that are held live"
