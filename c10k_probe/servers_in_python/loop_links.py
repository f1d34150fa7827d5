"""Kept connections to the backend on an event loop; see ``work``."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from c10k_probe.servers_in_python.http import OK, Answer, Requests
from c10k_probe.servers_in_python.work import QUESTION, Work, prepare


class LoopLinks:
    """Questions that are awaited."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self) -> bytes:
        """See ``Links.ask``."""
        began_ns = time.monotonic_ns()
        try:
            async with asyncio.timeout(self._work.timeout_s):
                reader, writer = await self._take()
                self._work.add(backend_asked_count=1)
                try:
                    writer.write(QUESTION)
                    await reader.readexactly(1)
                except BaseException:
                    writer.transport.abort()
                    raise
        except (OSError, asyncio.IncompleteReadError) as error:
            return self._work.told(began_ns, error)
        self._free.append((reader, writer))
        return self._work.told(began_ns, None)

    async def answer(self, requests: Requests, answers: list[Answer]) -> bytes:
        """See ``Links.answer``."""
        made = b""
        for answer in answers:
            status = await self.ask() if answer.is_asking else OK
            made += answer.encode(status)
            if status != OK:
                requests.is_over = True
                break
        return made

    async def _take(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._free:
            return self._free.pop()
        reader, writer = await asyncio.open_connection(*self._work.address)
        link: Any = writer.get_extra_info("socket")
        prepare(link)
        self._work.add(backend_connections_count=1)
        return reader, writer
