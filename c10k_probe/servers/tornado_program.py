"""A Tornado server: a program by itself (``python -I tornado_program.py``) that nothing imports.

Arguments: port, or path of a socket file; listen backlog; secret path of the counts; body of every other answer;
``UID,GID`` to become or ``""``; ``work`` where ``/spin/NS`` is to take NS ns of CPU time before the same answer, and
``/worker/N`` to tell [connections, requests]. As its manual has it but for the counts: an addition for each connection
and request. Its access log is off, as always when no logging is set up.

Sources: Tornado's documentation of tornado.httpserver, tornado.netutil (bind_sockets, bind_unix_socket), tornado.web.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sys
import time
from typing import Any

import tornado
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets, bind_unix_socket
from tornado.routing import URLSpec
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


class Spin(Answer):
    """The same, after so much CPU time of this process's one thread."""

    def get(self, work_ns: str) -> None:  # type: ignore[override]
        """Spin, then answer."""
        until_ns = time.thread_time_ns() + int(work_ns)
        while time.thread_time_ns() < until_ns:
            pass
        super().get()


class Worker(RequestHandler):
    """What came to this process so far; the question is none of it."""

    def get(self) -> None:
        """Answer in JSON."""
        server: Server = self.settings["server_of"][0]
        self.write(json.dumps([server.accepted_count, Answer.requests_count]))


def listen(where: str, backlog_count: int) -> list[Any]:
    """At a port of 127.0.0.1; or at a file, in a folder that only its user may enter, for everybody who may."""
    if where.startswith("/"):
        return [bind_unix_socket(where, mode=0o666, backlog=backlog_count)]
    return list(bind_sockets(int(where), "127.0.0.1", backlog=backlog_count))


def become(user: str) -> None:
    """``UID,GID``; nothing for an empty word."""
    if user:
        user_id, group_id = map(int, user.split(","))
        os.setgroups([group_id])
        os.setgid(group_id)
        os.setuid(user_id)


async def main() -> None:
    """Listen and serve."""
    where, backlog, token, body, user, *more = sys.argv[1:]
    sockets = listen(where, int(backlog))
    become(user)
    server_of: list[Server] = []
    same = {"body": body}
    with_work = [URLSpec(r"/spin/([0-9]+)", Spin, same), URLSpec(r"/worker/[0-9]+", Worker)]
    rules = [URLSpec(f"/{token}", Counts), *(with_work if more == ["work"] else []), URLSpec(r"/.*", Answer, same)]
    server_of.append(Server(Application(rules, server_of=server_of)))
    server_of[0].add_sockets(sockets)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
