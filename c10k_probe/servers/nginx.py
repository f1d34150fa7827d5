"""nginx as a system under test: a private instance on loopback with a generated configuration.

One worker, since one thread of a load generator cannot keep more of them busy. Keep-alive without end, no logs. It
answers ``PATH`` with a file of 4 KiB, which is its trade and keeps it busier than one thread of a load generator, and
``PATH_MEMORY`` with a line out of its configuration, four calls a request less, which costs both about the same.

Sources: nginx's documentation of ngx_core_module, ngx_http_core_module, ngx_http_stub_status_module.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import socket
import time
from types import TracebackType
from typing import Any, Final, Self

from c10k_probe import native, parts
from c10k_probe.limits import Needs
from c10k_probe.observe import processes, tree
from c10k_probe.observe.procfs import PROC, read_int, sysctl_path
from c10k_probe.servers.guarded import Guarded

PATH: Final = "/file"
PATH_MEMORY: Final = "/memory"
BODY: Final = "c10k-probe 4 KiB" * 256
NEEDS: Final = Needs(descriptors_count=16, system_descriptors_count=64, tasks_count=3, memory_bytes=20 << 20)
_READY_S: Final = 10.0
_POLL_S: Final = 0.005
_TRIAL_S: Final = 0.5  # somebody else may listen on the port, and not answer
_ANSWER_S: Final = 5.0
_PORT_TRIALS: Final = 3
_IN_USE: Final = "Address already in use"
_CONNECTIONS: Final = 4096
_CONFIGURATION: Final = """\
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log stderr crit;
events { worker_connections CONNECTIONS; }
http {
    access_log off;
    default_type text/plain;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {
        listen 127.0.0.1:PORT backlog=BACKLOG;
        location = /file { root {folder}; }
        location = /memory { return 200 "c10k-probe\\n"; }
        location = /TOKEN { stub_status; }
    }
}
"""
_STATUS: Final = re.compile(
    r"Active connections: (?P<open>\d+)\s+server accepts handled requests\s+"
    r"(?P<accepted>\d+) (?P<handled>\d+) (?P<requests>\d+)"
)


def find_nginx() -> str:
    """The program. Raises ``native.HelperUnsupported``, which names the command that installs it."""
    part = parts.find_part("nginx")
    if part.path is None:
        raise native.HelperUnsupported(f"nginx is not installed; {part.command}")
    return part.path


def configuration(port: int, backlog_count: int, token: str) -> str:
    """The configuration file; ``{folder}`` stands for the folder that it, and everything nginx writes, is in."""
    values = {"PORT": port, "BACKLOG": backlog_count, "CONNECTIONS": _CONNECTIONS, "TOKEN": token}
    text = _CONFIGURATION
    for name, value in values.items():
        text = text.replace(name, str(value))
    return text


class NginxServer:
    """A running nginx. Raises ``native.HelperError`` when it does not come up; see ``base.Server``."""

    name = "nginx"

    def __init__(self, port: int | None = None) -> None:
        """Start it on this port, or on a free one; it answers when this returns."""
        program = find_nginx()
        self.cpus, _ = native.split_cpus()
        self.backlog_count = min(_CONNECTIONS, read_int(sysctl_path("net.core.somaxconn")) or _CONNECTIONS)
        self._token = secrets.token_hex(8)
        self._own_count = 0  # requests of ours
        for trial in range(_PORT_TRIALS):
            self.port = port or _free_port()
            text = configuration(self.port, self.backlog_count, self._token)
            command = [program, "-c", "{folder}/nginx.conf", "-p", "{folder}", "-e", "stderr"]
            self._guarded = Guarded("nginx", command, {"nginx.conf": text, PATH.strip("/"): BODY}, self.cpus)
            try:
                self._wait_until_ready()
                break
            except BaseException as error:
                self._guarded.close()
                last = port is not None or trial == _PORT_TRIALS - 1
                if last or _IN_USE not in str(error):  # else somebody else was quicker: another port
                    raise
        self.session = self._guarded.pid

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _READY_S
        while True:
            with contextlib.suppress(OSError):
                if _STATUS.search(self._get(f"/{self._token}", _TRIAL_S)):
                    return
            if death := self._guarded.death():
                raise native.HelperError(f"nginx did not start on port {self.port}: {death}")
            if time.monotonic() > deadline:
                raise native.HelperError(f"nginx did not answer on port {self.port} within {_READY_S:g} s")
            time.sleep(_POLL_S)

    def url(self, path: str = PATH) -> str:
        """Where a load generator asks."""
        return f"http://127.0.0.1:{self.port}{path}"

    def status(self) -> dict[str, Any]:
        """nginx's own counts without the connections and requests of ours; ``requests_count`` besides."""
        try:
            found = _STATUS.search(self._get(f"/{self._token}"))
        except OSError as error:
            raise native.HelperError(self.death() or f"nginx does not answer: {error}") from None
        if found is None:
            raise native.HelperError("nginx did not tell its status")
        accepted, handled, requests, opened = (int(found[name]) for name in ("accepted", "handled", "requests", "open"))
        return {
            "accepted_count": accepted - self._own_count,
            "open_count": opened - 1,
            "tasks_count": len(list(processes.walk_threads(tree.session_pids(self.session, PROC)))),
            "accept_errors_count": accepted - handled,
            "requests_count": requests - self._own_count,
        }

    def walls(self) -> list[dict[str, Any]]:
        """None: what nginx ran into it tells to its log, and not in a form to rely on."""
        return []

    def wait_until_idle(self, timeout_s: float = 2.0) -> None:
        """Return when nobody but us is connected, or the time is over."""
        deadline = time.monotonic() + timeout_s
        while self.status()["open_count"] and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def death(self) -> str:
        """How the master process ended; empty while it lives."""
        return self._guarded.death()

    def close(self) -> None:
        """End it; nothing of it is left."""
        self._guarded.close()

    def _get(self, path: str, timeout_s: float = _ANSWER_S) -> str:
        """The whole answer to one request on a connection of its own. Raises ``OSError``."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s) as connection:
            self._own_count += 1
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            pieces = []
            while piece := connection.recv(1 << 16):
                pieces.append(piece)
        return b"".join(pieces).decode(errors="replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _free_port() -> int:
    """A port that nobody had a moment ago."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])
