"""The interface of a system under test."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from c10k_probe.limits import Needs

PROTOCOLS = ("echo", "http")


@dataclass(frozen=True)
class ServerOptions:
    """How a server is to be started; a model leaves alone what does not apply to it (see ``ServerModel.takes``).

    ``capacity_count``: connections that it must be able to hold; a model that can then spreads its descriptors over as
    many tables as the limit demands. ``workers_count``: of a pool, None for the model's own choice.
    ``protocol``: what a client may speak to it, one of ``PROTOCOLS``.
    ``work_cpu_ns`` and ``work_sleep_ns``: what the handler does for each request besides answering it; None, not 0, for
    neither working nor timing (0: it only times). ``backend_port``: of a backend that it asks for each request
    (``servers.backend``), waiting ``backend_timeout_ns`` at most; needs the protocol http.
    ``is_as_installed``: with what a default installation does for each request, such as a line in a log.
    """

    backlog_count: int = 4096
    stack_bytes: int | None = None
    workers_count: int | None = None
    is_edge_triggered: bool = False
    capacity_count: int | None = None
    protocol: str = "echo"
    is_as_installed: bool = False
    work_cpu_ns: int | None = None
    work_sleep_ns: int | None = None
    backend_port: int | None = None
    backend_timeout_ns: int | None = None


class Server(Protocol):
    """A running server on loopback; a context manager that leaves no process behind."""

    name: str
    port: int
    backlog_count: int
    session: int  # every process of the server belongs to this session id

    @property
    def cpus(self) -> Collection[int]:
        """It is pinned to these."""

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
    def summary(self) -> str:
        """How it serves a connection, in a few words."""

    @property
    def protocols(self) -> Collection[str]:
        """What a client may speak to it, of ``PROTOCOLS``."""

    @property
    def takes(self) -> Collection[str]:
        """The options that change something: ``stack``, ``workers``, ``edge``, ``capacity``."""

    @property
    def missing(self) -> str:
        """Why it cannot run here and what would help, in one line; empty when it can."""

    def start(self, options: ServerOptions) -> Server:
        """A running server, ready for connections. Raises ``native.HelperError``."""

    def room_count(self, options: ServerOptions) -> int | None:
        """Connections that its design can serve at once with these options; None: as many as come."""

    @property
    def per_connection(self) -> Needs:
        """What one connection takes of each limit, in the server."""

    @property
    def fixed(self) -> Needs:
        """What the server takes before there is a connection."""
