"""The models with an event loop: ``asyncio.start_server`` on asyncio's own loop or on uvloop's."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import resource
import select
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, NoReturn

from c10k_probe.helper_in_python import unsupported
from c10k_probe.servers_in_python.http import Answer, Requests
from c10k_probe.servers_in_python.loop_links import LoopLinks
from c10k_probe.servers_in_python.state import BUFFER_BYTES, State
from c10k_probe.servers_in_python.work import Links, Receipt, Work, receive

_STDIN: Final = 0

_Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class _Server:
    """One server on the running loop."""

    def __init__(self, state: State, flags: str) -> None:
        self._state, self._flags = state, flags
        self._is_quitting = asyncio.Event()

    async def serve(self) -> None:
        """Until ``quit``."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._on_exception)
        answer: _Handler = self._answer_requests if self._state.is_http else self._echo
        if self._state.work is not None:
            answer = self._asking(self._state.work, self._state.asks)

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._state.accepted_count += 1
            self._state.opened()
            self._on_accepted()
            with contextlib.suppress(OSError):  # the connection is over
                await answer(reader, writer)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            self._state.closed()

        server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=self._state.backlog_count)
        loop.add_reader(_STDIN, self._obey)
        self._prepare()
        self._state.ready(server.sockets[0].getsockname()[1], self._flags)
        await self._is_quitting.wait()
        self._state.leave()

    @staticmethod
    async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(BUFFER_BYTES):
            writer.write(data)
            await writer.drain()

    @staticmethod
    async def _answer_requests(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests = Requests()
        while not requests.is_over and (data := await reader.read(BUFFER_BYTES)):
            writer.write(requests.feed(data))
            await writer.drain()

    def _asking(self, work: Work, asks: str) -> _Handler:
        """Answers requests with a backend: awaited, waited for by the loop itself, or by a pool of threads."""
        loop_links, links = LoopLinks(work), Links(work, self._obey_while_blocked if asks == "block" else None)
        threads = None
        if asks == "pool":
            from concurrent.futures import ThreadPoolExecutor

            threads = ThreadPoolExecutor(self._state.workers_count)

        def answer_in_thread(receipt: Receipt, requests: Requests, answers: list[Answer]) -> bytes:
            receipt.begin_again()
            return links.answer(requests, answers)

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            requests, loop = Requests(), asyncio.get_running_loop()
            connection = writer.get_extra_info("socket")
            while not requests.is_over and (data := await reader.read(BUFFER_BYTES)):
                receipt = receive(connection)
                answers = requests.take(data)
                if asks == "await":
                    made = await loop_links.answer(requests, answers)
                elif threads is not None and any(answer.is_asking for answer in answers):
                    made = await loop.run_in_executor(threads, answer_in_thread, receipt, requests, answers)
                else:
                    made = links.answer(requests, answers)
                writer.write(made)
                await writer.drain()
                work.finish(receipt, answers)

        return answer

    def _prepare(self) -> None:
        """Once, when it listens."""

    def _on_accepted(self) -> None:
        """After each accept."""

    def _on_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Errors that no caller gets: those of accept among them."""
        error, listener = context.get("exception"), context.get("socket")
        if not isinstance(error, OSError) or error.errno is None or listener is None:
            loop.default_exception_handler(context)
        elif _is_client_waiting(listener):
            self._state.failed("accept4", error.errno)

    def _obey(self) -> None:
        for command in self._state.commands():
            if command == "quit":
                self._is_quitting.set()
                asyncio.get_running_loop().remove_reader(_STDIN)
                return
            self._state.say_status(self._state.threads_count())

    def _obey_while_blocked(self) -> None:
        """Called by a handler in which the loop stands still: who is to go, goes at once."""
        self._obey()
        if self._is_quitting.is_set():
            self._state.leave()


class _Uvloop(_Server):
    """libuv answers a lack of descriptors by itself; so whether there is another one is looked at here."""

    def _prepare(self) -> None:
        self._state.accept_errors_count = None
        limit_count = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._room_count = limit_count - len(list(Path("/proc/self/fd").iterdir())) + 1  # but for the listing's own

    def _on_accepted(self) -> None:
        if self._state.open_count >= self._room_count:
            try:
                os.close(os.dup(_STDIN))
            except OSError as error:
                self._state.failed("dup", error.errno or 0)


def _is_client_waiting(listener: socket.socket) -> bool:
    """accept4 takes a descriptor before it looks at the queue, so it says EMFILE also when nobody waits."""
    poll = select.poll()
    poll.register(listener.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _find_uvloop() -> tuple[Callable[[], asyncio.AbstractEventLoop], str]:
    """The maker of its loops, and which version it is."""
    try:
        module = importlib.import_module("uvloop")
    except ImportError:
        unsupported("uvloop is not installed: pip install 'c10k-probe[python]'")
    return module.new_event_loop, f"uvloop {module.__version__}"


def serve(state: State) -> NoReturn:
    """Run ``asyncio`` or ``uvloop`` until ``quit``."""
    kind, maker, flags = _Server, asyncio.new_event_loop, "asyncio"
    if state.model == "uvloop":
        kind, (maker, flags) = _Uvloop, _find_uvloop()

    async def run() -> None:
        await kind(state, flags).serve()

    with asyncio.Runner(loop_factory=maker) as runner:
        runner.run(run())
    raise AssertionError("the server leaves the process itself")
