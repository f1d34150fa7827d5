"""A Tornado server: a program by itself (``python -I tornado_program.py``) that nothing imports.

Arguments: port, listen backlog, secret path of the counts, body of every other answer, ``UID,GID`` to become or ``""``.
As its manual has it but for the counts: an addition for each connection and request. Its access log is off, as always
when no logging is set up.

Sources: Tornado's documentation of tornado.httpserver, tornado.netutil.bind_sockets, tornado.web.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sys
from typing import Any

import tornado
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler


class Server(HTTPServer):
    """Counts connections that came and went."""

    accepted_count = 0
    closed_count = 0

    def handle_stream(self, stream: Any, address: Any) -> None:
        """A connection has come."""
        self.accepted_count += 1
        super().handle_stream(stream, address)

    def on_close(self, server_conn: object) -> None:
        """One has gone."""
        self.closed_count += 1
        super().on_close(server_conn)


class Answer(RequestHandler):
    """The same for every request."""

    requests_count = 0

    def initialize(self, body: str) -> None:
        """See ``RequestHandler``."""
        Answer.requests_count += 1
        self.body = body

    def get(self) -> None:
        """Answer."""
        self.set_header("Content-Type", "text/plain")
        self.write(self.body)


class Counts(RequestHandler):
    """What came so far."""

    def get(self) -> None:
        """Answer in JSON."""
        Answer.requests_count += 1
        server: Server = self.settings["server_of"][0]
        python = f"{platform.python_implementation()}/{platform.python_version()}"
        found = {
            "accepted": server.accepted_count,
            "open": server.accepted_count - server.closed_count,
            "requests": Answer.requests_count,
            "version": f"TornadoServer/{tornado.version} {python}",
        }
        self.write(json.dumps(found))


async def main() -> None:
    """Listen and serve."""
    port, backlog, token, body, user = sys.argv[1:]
    sockets = bind_sockets(int(port), "127.0.0.1", backlog=int(backlog))
    if user:
        user_id, group_id = map(int, user.split(","))
        os.setgroups([group_id])
        os.setgid(group_id)
        os.setuid(user_id)
    server_of: list[Server] = []
    application = Application([(f"/{token}", Counts), (r"/.*", Answer, {"body": body})], server_of=server_of)
    server_of.append(Server(application))
    server_of[0].add_sockets(sockets)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
