"""Python's servers with a backend: the same questions by three counts, one of them the kernel's; faults; bad input."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from conftest import cannot_run

from c10k_probe.load import Sender
from c10k_probe.servers import ASKING_PYTHON_MODELS, Backend, ServerOptions
from c10k_probe.servers_in_python.http import BODY
from native.driving import connect
from native.driving_python import program, run_command
from native.kernel_view import remains_of, session_members, wait_until

MS = 10**6
DELAY_NS = 20 * MS
GET = b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def options(backend: Backend, timeout_ns: int = 10**10) -> ServerOptions:
    return ServerOptions(protocol="http", workers_count=2, backend_port=backend.port, backend_timeout_ns=timeout_ns)


def answer_of(port: int, path: bytes = b"/") -> bytes:
    """All of it, until the server closes."""
    with connect(port) as connection:
        connection.sendall(GET % path)
        return b"".join(iter(lambda: connection.recv(4096), b""))


def received_bytes(port: int) -> int:
    """What the backend's sockets that are open have received, by the kernel's count."""
    command = ["ss", "-tinHO", "state", "established", "sport", "=", f":{port}"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    words = (word for line in lines for word in line.split())
    return sum(int(word.partition(":")[2]) for word in words if word.startswith("bytes_received:"))


@pytest.mark.parametrize("model", ASKING_PYTHON_MODELS)
def test_who_waits_and_who_counts(model: str, require_tool: Callable[[str], str]) -> None:
    """Little's law bounds the answers; server, backend and kernel count the same questions; nothing is left."""
    require_tool("ss")
    if ASKING_PYTHON_MODELS[model].missing:
        cannot_run(ASKING_PYTHON_MODELS[model].missing)
    places = {"asyncio-blocking": 1, "asyncio-pool": 2}.get(model, 4)
    with Backend(DELAY_NS) as backend, ASKING_PYTHON_MODELS[model].start(options(backend)) as server:
        assert server.name == model
        assert answer_of(server.port, b"/plain").endswith(b"\r\n\r\n" + BODY)
        assert backend.status().asked_count == 0
        with Sender(server.port, 4, keep_alive=False, timeout_s=20) as sender:
            report = sender.pump(0.2, 0.05)
        wait_until(lambda: server.status()["work"]["handler_count"] == backend.status().asked_count, "all are recorded")
        work, told = server.status()["work"], backend.status()
        assert received_bytes(backend.port) == told.asked_count  # connections to it are kept, a question is a byte
    assert report.failed_count == 0
    assert told.asked_count == told.answered_count == work["requests_count"] == work["backend_asked_count"]
    assert told.accepted_count == work["backend_connections_count"] == places
    assert work["handler_ns"] >= work["backend_wait_ns"] >= told.asked_count * DELAY_NS
    assert told.asked_count <= places * (250 * MS / DELAY_NS + 1) + 4
    if places < 4:
        assert work["queue_ns"] / work["queue_count"] > DELAY_NS / 2
    assert session_members(server.session) == {}
    assert [row for row in remains_of(server.port) if row.state != "TIME_WAIT"] == []  # it closes first, as asked


def test_a_loop_that_stands_still_is_heard_of_and_ends_at_once() -> None:
    """Its one thread waits for the backend, which holds every answer: it says what it counted, and obeys ``quit``."""
    with Backend(MS) as backend, ASKING_PYTHON_MODELS["asyncio-blocking"].start(options(backend)) as server:
        backend.hold()
        with connect(server.port) as connection:
            connection.sendall(GET % b"/")
            wait_until(lambda: backend.status().waiting_count == 1, "the question counted")
            work = server.status()["work"]
            assert (work["backend_asked_count"], work["handler_count"]) == (1, 0)
    assert session_members(server.session) == {}


@pytest.mark.parametrize(("fault", "status"), [("hang", b"504 Gateway Timeout"), ("reset", b"502 Bad Gateway")])
def test_a_broken_backend_becomes_an_answer(fault: str, status: bytes) -> None:
    """And the connection is over. The link that broke is not used again."""
    for model in (ASKING_PYTHON_MODELS[name] for name in ("asyncio", "asyncio-pool", "python-threading")):
        with Backend(MS, fault=fault, fault_after_count=1) as backend, model.start(options(backend, 50 * MS)) as server:
            assert answer_of(server.port).startswith(b"HTTP/1.1 200 OK")
            for _ in range(2):
                assert answer_of(server.port).startswith(b"HTTP/1.1 " + status)
            work = server.status()["work"]
        failed = {"hang": "backend_timed_out_count", "reset": "backend_failed_count"}[fault]
        assert (work[failed], work["backend_asked_count"], work["backend_connections_count"]) == (2, 3, 2)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("--model asyncio --backend-port 80", "--backend-port needs --protocol http"),
        ("--model python-forking --protocol http --backend-port 80", "--backend-port needs --protocol http"),
        ("--model asyncio --asks block", "--asks needs --backend-port"),
        ("--model python-threading --protocol http --backend-port 80 --asks pool", "--asks needs --backend-port"),
        ("--model asyncio --protocol http --backend-port 80 --workers 99", "--workers needs --asks pool"),
    ],
)
def test_bad_arguments(arguments: str, complaint: str) -> None:
    outcome = run_command([*program("servers_in_python"), *arguments.split()])
    assert (outcome.code, outcome.messages) == (2, [])
    assert complaint in outcome.stderr
