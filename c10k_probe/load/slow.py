"""Slow clients: many connections to a server of this run that send, or read, a byte at a time, or say nothing.

They take up what a server has for its clients, so they are let loose on none but our own: ``SlowClients`` takes a
server that is running and no port, and looks, each time before it opens connections, that every listening socket of its
port is held by a process of its session, and that this session descends from this process. The C helper knows no
address but 127.0.0.1. Sources: proc_pid_stat(5), proc_pid_net(5), proc_pid_fd(5).
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Protocol, Self

from c10k_probe import native
from c10k_probe.observe import processes, tree

KINDS: Final = ("head", "body", "read", "idle")
MOST_COUNT: Final = 20_000  # SLOW_CLIENTS_MAX in slow_clients.h
CLIENT_BYTES: Final = 12  # of user memory: struct slow_client
_REQUEST_BYTES: Final = {"head": 4096, "body": 65_536, "read": 24_576, "idle": 4096}
_POLL_S: Final = 0.01
_PARENT: Final = 1  # of what stat_fields gives
_ANSWER_BYTES: Final = 4096


class Target(Protocol):
    """What is needed of a server."""

    name: str
    port: int
    session: int


@dataclass(frozen=True)
class Crowd:
    """The slow clients at one moment; counts and bytes since the start.

    ``open_count``: connections that stand; ``pending_count``: whose handshake is not over, as the accept queue is full.
    ``ended_count``: that the server ended, ``refused_count``: that it did not take. ``whole_count``: requests that came
    to their end. ``slow_bytes``: that went one at a time. ``latest_turn_ns``: how late a byte was at most.
    ``failure``: what kept this side from opening a connection; empty where nothing did.
    """

    clients_count: int
    open_count: int
    pending_count: int
    connected_count: int
    ended_count: int
    refused_count: int
    whole_count: int
    sent_bytes: int
    slow_bytes: int
    received_bytes: int
    latest_turn_ns: int
    cpu_ns: int
    failure: str = ""


def check_own(target: Target) -> None:
    """Raise ``native.HelperError`` unless this process started the server that listens on the target's port."""
    refusal = f"slow clients are for servers of this run only, and port {target.port} "
    if not _is_ours(target.session):
        raise native.HelperError(refusal + f"is that of process {target.session}, which this run did not start")
    inodes = {item.inode for item in processes.listeners() if item.port == target.port}
    if not inodes:
        raise native.HelperError(refusal + "has no listener")
    for pid in tree.session_pids(target.session):
        with contextlib.suppress(OSError):  # it has ended
            inodes -= processes.socket_inodes(pid)
        if not inodes:
            return
    raise native.HelperError(refusal + f"is not listened on by {target.name} alone")


def _is_ours(pid: int) -> bool:
    """Whether a process is alive and one of its ancestors is this one."""
    if not processes.is_alive(pid):
        return False
    with contextlib.suppress(OSError, IndexError):
        while pid > 1:
            pid = int(processes.stat_fields(pid)[_PARENT])
            if pid == os.getpid():
                return True
    return False


class SlowClients(native.Helpers):
    """Slow clients of one kind in one process; a context manager. Raises ``native.HelperError``."""

    def __init__(self, target: Target, kind: str, interval_s: float, request_bytes: int | None = None) -> None:
        """Start the process, which opens nothing yet. A byte is due every ``interval_s`` (steps of 1 ms)."""
        check_own(target)
        super().__init__()
        self._target = target
        arguments = ["--port", target.port, "--kind", kind, "--interval-ms", max(1, round(interval_s * 1000))]
        arguments += ["--request-bytes", request_bytes or _REQUEST_BYTES[kind]]
        self._start("slow_clients", arguments, native.split_cpus()[1])
        self._helper = self._helpers[0]

    @property
    def pid(self) -> int:
        """Of the process that holds them."""
        return self._helper.pid

    def set_count(self, clients_count: int) -> Crowd:
        """So many from now on; those that are too many leave, with a reset."""
        if clients_count:
            check_own(self._target)
        return _crowd(self._helper.ask(f"clients {clients_count}", "clients"))

    def status(self) -> Crowd:
        """How they stand."""
        return _crowd(self._helper.ask("status", "clients"))

    def settle(self, timeout_s: float) -> Crowd:
        """How they stand when no connection is pending any more, or the time is over."""
        deadline = time.monotonic() + timeout_s
        while (crowd := self.status()).pending_count and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return crowd


class Work:
    """One request for work, on a connection of its own; a context manager. Raises ``native.HelperError``."""

    def __init__(self, target: Target, path: str, timeout_s: float) -> None:
        """Ask for ``path``. started_ns: when that was (CLOCK_MONOTONIC)."""
        check_own(target)
        try:
            self._connection = socket.create_connection(("127.0.0.1", target.port), timeout_s)
        except OSError as error:
            raise native.HelperError(f"{target.name} takes no connection: {error}") from None
        try:
            self.started_ns = time.monotonic_ns()
            request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
            self._connection.sendall(request.encode())
        except BaseException:
            self._connection.close()
            raise

    def wait(self) -> int | None:
        """Wait for the answer: nanoseconds since the request, None where none came, or no good one."""
        with contextlib.suppress(OSError):
            answer = self._connection.recv(_ANSWER_BYTES)
            if answer.startswith(b"HTTP/1.1 200 "):
                return time.monotonic_ns() - self.started_ns
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()


def _crowd(message: dict[str, Any]) -> Crowd:
    failure = message["failure"]
    text = f"{failure['call']}: {failure['name']} ({failure['message']})" if failure else ""
    counts = {name: int(message[name]) for name in Crowd.__dataclass_fields__ if name != "failure"}
    return Crowd(**counts, failure=text)
