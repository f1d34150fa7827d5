"""The interface of a system under test."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Protocol, Self

from c10k_probe.limits import Needs


class Server(Protocol):
    """A running server on loopback; a context manager that leaves no process behind."""

    name: str
    port: int
    backlog_count: int
    session: int  # every process of the server belongs to this session id

    def status(self) -> dict[str, Any]:
        """The server's own counts: ``accepted_count, open_count, tasks_count, accept_errors_count``."""

    def walls(self) -> list[dict[str, Any]]:
        """The calls that failed for a limit since the start: ``call, errno, name, message, open_count``."""

    def wait_until_idle(self, timeout_s: float = 2.0) -> None:
        """Return when the server holds no connection any more, or the time is over."""

    def death(self) -> str:
        """How the server's main process ended; empty while it lives."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class ServerModel(Protocol):
    """What is known of a kind of server before it runs."""

    @property
    def name(self) -> str:
        """As on the command line."""

    @property
    def per_connection(self) -> Needs:
        """What one connection takes of each limit, in the server."""

    @property
    def fixed(self) -> Needs:
        """What the server takes before there is a connection."""
