"""An http.server as its manual has it: a program by itself (``python -I http_server_program.py``) that nothing imports.

Arguments: port, listen backlog, secret path of the counts, body of every other answer, ``UID,GID`` to become or ``""``.
HTTP/1.1, so that connections are kept, and told to be, without which a client of HTTP/1.0, such as ab, waits. An answer
is one write, since two would wait for each other (tcp(7), TCP_NODELAY). No log. What it counts takes a lock, for some
100 ns.

Sources: http.server and socketserver of the Python library.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

_VERSION: Final = f"http.server {platform.python_implementation()}/{platform.python_version()}"


class Counts:
    """What came so far, of all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(("accepted", "closed", "requests"), 0)

    def add(self, name: str) -> None:
        """One more."""
        with self._lock:
            self._counts[name] += 1

    def text(self) -> str:
        """All of them in JSON."""
        accepted, closed, requests = self._counts.values()
        found = {"accepted": accepted, "open": accepted - closed, "requests": requests, "version": _VERSION}
        return json.dumps(found)


class Answer(BaseHTTPRequestHandler):
    """The same for every request, but for the counts."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    counts = Counts()
    counts_path = ""
    body = ""

    def do_GET(self) -> None:
        """Answer."""
        self.counts.add("requests")
        body = (self.counts.text() if self.path == self.counts_path else self.body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close" if self.close_connection else "keep-alive")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """No log."""


class Server(ThreadingHTTPServer):
    """Counts connections that came and went."""

    def process_request(self, request: Any, client_address: Any) -> None:
        """A connection has come."""
        Answer.counts.add("accepted")
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """One has gone."""
        Answer.counts.add("closed")
        super().shutdown_request(request)

    def handle_error(self, *_: Any) -> None:
        """A connection that broke is no news."""


def main() -> None:
    """Listen and serve."""
    port, backlog, token, body, user = sys.argv[1:]
    Answer.counts_path, Answer.body = f"/{token}", body
    Server.request_queue_size = int(backlog)
    server = Server(("127.0.0.1", int(port)), Answer)
    if user:
        user_id, group_id = map(int, user.split(","))
        os.setgroups([group_id])
        os.setgid(group_id)
        os.setuid(user_id)
    server.serve_forever()


if __name__ == "__main__":
    main()
