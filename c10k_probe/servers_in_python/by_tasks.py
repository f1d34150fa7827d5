"""The models of ``socketserver``: a process or a thread for each connection, blocking calls."""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import signal
import socket
import socketserver
import sys
import threading
from typing import Any, Final, NoReturn

from c10k_probe.helper_in_python import die_with_parent
from c10k_probe.servers_in_python.http import Requests
from c10k_probe.servers_in_python.state import BUFFER_BYTES, State, reset_at_close
from c10k_probe.servers_in_python.work import Links, Work, receive

_POLL_S: Final = 0.5  # the library's poll_interval
_STOP_CHILD: Final = signal.SIGUSR1
_WITHOUT_LIMIT: Final = sys.maxsize


class Echo(socketserver.BaseRequestHandler):
    """Sends back what comes until the client closes."""

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # the connection is over
            while data := self.request.recv(BUFFER_BYTES):
                self.request.sendall(data)


class Http(socketserver.BaseRequestHandler):
    """Answers requests until the client, or one of its requests, closes."""

    def handle(self) -> None:
        requests = Requests()
        with contextlib.suppress(OSError):
            while not requests.is_over and (data := self.request.recv(BUFFER_BYTES)):
                self.request.sendall(requests.feed(data))


class AskingHttp(socketserver.BaseRequestHandler):
    """The same with a backend, for which this thread waits."""

    server: _Server

    def handle(self) -> None:
        requests, work, links = Requests(), self.server.work, self.server.links
        with contextlib.suppress(OSError):
            while not requests.is_over and (data := self.request.recv(BUFFER_BYTES)):
                receipt = receive(self.request)
                answers = requests.take(data)
                self.request.sendall(links.answer(requests, answers))
                work.finish(receipt, answers)


class _Server(socketserver.TCPServer):
    """What both have in common: the loop with stdin in it, counts, walls."""

    call: str  # that makes a task
    work: Work  # these two with a backend only
    links: Links

    def __init__(self, state: State) -> None:
        self.state = state
        self.request_queue_size = state.backlog_count
        handler: type[socketserver.BaseRequestHandler] = Http if state.is_http else Echo
        if state.work is not None:
            self.work, self.links, handler = state.work, Links(state.work), AskingHttp
        super().__init__(("127.0.0.1", 0), handler)

    def serve(self) -> NoReturn:
        """As ``serve_forever``, step by step, until ``quit``."""
        self.state.ready(self.server_address[1], "socketserver")
        with selectors.PollSelector() as selector:
            selector.register(self, selectors.EVENT_READ)
            selector.register(sys.stdin, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select(_POLL_S):
                    if key.fileobj is self:
                        self._handle_request_noblock()  # type: ignore[attr-defined]  # the library's own step
                    else:
                        self._obey()
                self.service_actions()

    def get_request(self) -> tuple[socket.socket, Any]:
        """One connection from the queue. Raises ``OSError``, which the library's loop takes for "not now"."""
        try:
            connection, address = super().get_request()
        except OSError as error:
            self.state.failed("accept4", error.errno or 0)
            raise
        self.state.accepted_count += 1
        with contextlib.suppress(OSError):  # it is reset already
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """No task for a connection, which the library closes next; any other error is the program's own."""
        error = sys.exception()
        number = error.errno if isinstance(error, OSError) else 0
        if isinstance(error, RuntimeError) and str(error).startswith("can't start new thread"):
            number = errno.EAGAIN  # the only error of pthread_create with these arguments; the library drops it
        if not number:
            super().handle_error(request, client_address)
            os._exit(1)
        self.state.dropped_count += 1
        self.state.failed(self.call, number)

    def tasks_count(self) -> int:
        """Threads in all processes."""
        return self.state.threads_count()

    def stop(self) -> None:
        """What is to be done before this process leaves."""

    def _obey(self) -> None:
        for command in self.state.commands():
            if command == "quit":
                self.socket.close()
                self.stop()
                self.state.leave()
            tasks_count = self.tasks_count()  # first: it may find connections that ended
            self.state.say_status(tasks_count)


class Threading(socketserver.ThreadingMixIn, _Server):
    """A thread for each connection."""

    call = "pthread_create"
    daemon_threads = True

    def process_request(self, request: Any, client_address: Any) -> None:
        super().process_request(request, client_address)
        self.state.opened()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.state.closed()


class Forking(socketserver.ForkingMixIn, _Server):
    """A process for each connection."""

    call = "fork"
    max_children = _WITHOUT_LIMIT

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self._parent = os.getpid()
        # held back until a child can obey it
        signal.pthread_sigmask(signal.SIG_BLOCK, {_STOP_CHILD})

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the child."""
        die_with_parent(self._parent)

        def leave(_number: int, _frame: object) -> NoReturn:
            reset_at_close(request.fileno(), self.state.port)
            os._exit(0)

        signal.signal(_STOP_CHILD, leave)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {_STOP_CHILD})
        self.socket.close()
        for descriptor in (0, 1):  # the parent's stdin and stdout
            os.close(descriptor)
        super().finish_request(request, client_address)

    def collect_children(self, *, blocking: bool = False) -> None:
        super().collect_children(blocking=blocking)
        self.state.open_count = len(self.active_children or ())

    def process_request(self, request: Any, client_address: Any) -> None:
        super().process_request(request, client_address)
        self.state.open_count = len(self.active_children or ())

    def tasks_count(self) -> int:
        self.collect_children()
        return self.state.threads_count() + self.state.open_count

    def stop(self) -> None:
        for child in self.active_children or ():
            os.kill(child, _STOP_CHILD)  # not yet reaped, so the pid is still this child's
        self.collect_children(blocking=True)


def serve(state: State, stack_bytes: int | None) -> NoReturn:
    """Run ``python-threading`` or ``python-forking`` until ``quit``."""
    if state.model == "python-threading":
        if stack_bytes is not None:
            threading.stack_size(stack_bytes)
        Threading(state).serve()
    Forking(state).serve()
