"""How the tests start helpers and talk to them."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import pytest
from conftest import cannot_run

from c10k_probe import native
from native.kernel_view import living_members, session_members, wait_until

RECEIVE_TIMEOUT_S = 10.0  # patience, not expectation
DEATH_DEADLINE_S = 2.0
# Belongs to nobody, so that RLIMIT_NPROC counts our processes only: of this worker, where two run beside each other.
ANOTHER_UID = 64_920 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
FEW_WORKERS = {
    "prefork": 40,
    "thread-pool": 40,
    "epoll-pool": 2,
    "epoll-reuseport": 2,
    "epoll-exclusive": 2,
    "epoll-inherited": 2,
    "epoll-passed": 2,
}
Message = dict[str, Any]

# Copies the helper's stdout to its own; the helper's stdin is the one it was given, so that the helper sees no end of
# file when this process dies.
STARTER = """
import subprocess, sys
helper = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, start_new_session=True)
sys.stdout.write(f"{helper.pid}\\n")
sys.stdout.flush()
for line in helper.stdout:
    sys.stdout.buffer.write(line)
    sys.stdout.flush()
"""


# --- one shot ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """How a helper ended that was run to its end."""

    code: int
    messages: list[Message]
    stderr: str
    pid: int

    def of_type(self, kind: str) -> list[Message]:
        """The messages of one type, in order."""
        return [message for message in self.messages if message["type"] == kind]

    def only(self, kind: str) -> Message:
        """The one message of this type."""
        found = self.of_type(kind)
        assert len(found) == 1, (kind, self.messages, self.stderr)
        return found[0]


def run(name: str, *arguments: object, linking: str = "dynamic", commands: str = "", **options: Any) -> Outcome:
    """Run a helper with these commands on stdin until it ends. ``options`` are Popen's."""
    command = [str(native.find(name, linking)), *map(str, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True, **options
    ) as process:
        try:
            output, errors = process.communicate(commands, timeout=30)
        except BaseException:
            process.kill()
            raise
    messages = [json.loads(line) for line in output.splitlines()]
    return Outcome(process.returncode, messages, errors, process.pid)


# --- the server -------------------------------------------------------------------------------------------------------


def few_workers(model: str) -> list[object]:
    """Arguments that make a model with workers small enough for a test; none for the others."""
    return ["--workers", FEW_WORKERS[model]] if model in FEW_WORKERS else []


class Server:
    """A running server and sockets connected to it; all closed and gone at the end of the block."""

    def __init__(
        self, model: str, *arguments: object, linking: str = "dynamic", program: str = "reference_server"
    ) -> None:
        self.helper = native.Helper(program, ["--model", model, *arguments], linking)
        self._sockets = contextlib.ExitStack()
        try:
            self.ready = self.helper.expect("ready")
        except BaseException:
            self.helper.kill()
            raise
        self.pid = self.helper.pid
        self.port = int(self.ready["port"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.helper.kill()
        self._sockets.close()
        wait_until(lambda: not living_members(self.pid), "the server's processes are gone")

    def connect(self, count: int = 1) -> list[socket.socket]:
        """New connections, not yet used."""
        return [self._sockets.enter_context(connect(self.port)) for _ in range(count)]

    def connect_served(self, count: int = 1) -> list[socket.socket]:
        """New connections that have echoed once, so that they are accepted and served."""
        sockets = self.connect(count)
        for index, connection in enumerate(sockets):
            assert echo(connection, b"served %d" % index) == b"served %d" % index
        return sockets

    def status(self) -> Message:
        """The server's own counts."""
        return self.helper.ask("status", "status")

    def wait_for_open(self, count: int) -> None:
        """Until the server says that this many are open."""
        wait_until(lambda: self.status()["open_count"] == count, f"{count} are open")


def connect(port: int) -> socket.socket:
    """A connection to 127.0.0.1."""
    return socket.create_connection(("127.0.0.1", port), timeout=RECEIVE_TIMEOUT_S)


def receive_exactly(connection: socket.socket, count: int) -> bytes:
    """``count`` bytes, or fewer where the stream ends before."""
    received = bytearray()
    while len(received) < count and (piece := connection.recv(count - len(received))):
        received += piece
    return bytes(received)


def echo(connection: socket.socket, data: bytes) -> bytes:
    """What comes back."""
    connection.sendall(data)
    return receive_exactly(connection, len(data))


def reset(connection: socket.socket) -> None:
    """Close with a reset: no TIME_WAIT stays."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def is_closed_by_peer(connection: socket.socket) -> bool:
    """Waits for the end of the stream or a reset; anything else (data, silence) is an error."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


# --- the holder -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def holding(port: int, *arguments: object, linking: str = "dynamic") -> Iterator[native.Helper]:
    """A connection holder for this port."""
    with native.Helper("connection_holder", ["--port", port, *arguments], linking) as helper:
        yield helper


# --- whose parent dies, who is another user ---------------------------------------------------------------------------


class Foster:
    """A helper started by a process of its own, which can be killed. Its stdin stays open when that happens."""

    def __init__(self, name: str, *arguments: object, linking: str = "dynamic") -> None:
        command = [sys.executable, "-c", STARTER, str(native.find(name, linking)), *map(str, arguments)]
        self._starter = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._starter.stdout is not None
        self.pid = int(self._starter.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._starter.kill()
        self._starter.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        assert self._starter.stdin is not None and self._starter.stdout is not None
        self._starter.stdin.close()
        self._starter.stdout.close()

    def send(self, command: str) -> None:
        """One command."""
        assert self._starter.stdin is not None
        self._starter.stdin.write(command.encode() + b"\n")
        self._starter.stdin.flush()

    def receive(self, kind: str) -> Message:
        """The next message of this type."""
        assert self._starter.stdout is not None
        for line in self._starter.stdout:
            message: Message = json.loads(line)
            if message["type"] == kind:
                return message
        raise AssertionError(f"no {kind} came")

    def kill_starter(self) -> None:
        """SIGKILL to the process that started the helper, then wait until all of the helper is gone."""
        self._starter.kill()
        self._starter.wait()
        wait_until(
            lambda: not living_members(self.pid),
            f"the helper died with its parent: {session_members(self.pid)}",
            DEATH_DEADLINE_S,
        )


def become_another_user(monkeypatch: pytest.MonkeyPatch, tasks_limit_count: int) -> None:
    """Have every process started from now on run as a user without rights, who has no other processes, and who may
    have this many tasks (RLIMIT_NPROC; it does not bind root)."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NPROC, (tasks_limit_count, tasks_limit_count))

    if os.geteuid() != 0:
        cannot_run("root is needed to start a process as another user")
    options = {"user": ANOTHER_UID, "group": ANOTHER_UID, "extra_groups": [], "preexec_fn": limit}
    monkeypatch.setattr(subprocess, "Popen", functools.partial(subprocess.Popen, **options))
    try:
        run("spawn_target", "--hello")
    except PermissionError:
        cannot_run("the helpers lie in a folder that other users may not enter")


def lower_descriptor_limit(monkeypatch: pytest.MonkeyPatch, limit_count: int) -> None:
    """Have every process started from now on have a hard limit of this many descriptors in a table."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit_count, limit_count))

    monkeypatch.setattr(subprocess, "Popen", functools.partial(subprocess.Popen, preexec_fn=limit))
