"""What a second user waits for while the first one's request waits for the backend: paired trials."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Sequence
from typing import Final

from c10k_probe import native
from c10k_probe.experiment import Cell, Samples
from c10k_probe.servers import Backend, ServerOptions

from ._blocking_design import SECOND_HELD_NS, SERVED, SERVERS_COUNT, WITH_WORKERS, S

_PATIENCE_S: Final = 30.0
_SLOW, _PLAIN = (f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode() for path in ("/", "/plain"))


def trials(cell: Cell, workers_count: int, block: int) -> Samples:
    """The latency of a request that needs no backend, alone and then beside one that waits for it, on each server."""
    model = str(cell.key["model"])
    with contextlib.ExitStack() as stack:
        backend = stack.enter_context(Backend(SECOND_HELD_NS))
        options = ServerOptions(
            protocol="http",
            workers_count=workers_count if model in WITH_WORKERS else None,
            backend_port=backend.port,
        )
        start = SERVED[model].start
        ports = [stack.enter_context(start(options)).port for _ in range(SERVERS_COUNT)]
        _latencies_ns(ports)  # the first request of a server is slower
        alone_ns = _latencies_ns(ports)
        for port in ports:
            first = stack.enter_context(socket.create_connection(("127.0.0.1", port), _PATIENCE_S))
            first.sendall(_SLOW)
        _wait_until_asked(backend, len(ports))
        beside_ns = _latencies_ns(ports)
    values = {"alone": alone_ns, "beside": beside_ns}
    added = [after - before for before, after in zip(alone_ns, beside_ns, strict=True)]
    return Samples({**cell.key, "concurrency_count": 2}, block, values | {"added": added}, {"failed_count": 0})


def _wait_until_asked(backend: Backend, count: int) -> None:
    """Each first user waits for the backend now. It is not slept for: its own count says so."""
    end_s = time.monotonic() + SECOND_HELD_NS / S / 2
    while backend.status().asked_count < count:
        if time.monotonic() > end_s:
            raise native.HelperError(f"only {backend.status().asked_count} of {count} first users reached the backend")


def _latencies_ns(ports: Sequence[int]) -> list[int]:
    """From just before connect() to the first bytes of the answer, on a new connection to each port at once."""
    with contextlib.ExitStack() as stack:
        began_ns: dict[socket.socket, int] = {}
        for port in ports:
            now_ns = time.monotonic_ns()
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), _PATIENCE_S))
            connection.sendall(_PLAIN)
            began_ns[connection] = now_ns
        taken_ns: dict[socket.socket, int] = {}
        end_s = time.monotonic() + _PATIENCE_S
        while len(taken_ns) < len(began_ns):
            waiting = [connection for connection in began_ns if connection not in taken_ns]
            ready = select.select(waiting, [], [], max(0.0, end_s - time.monotonic()))[0]
            if not ready:
                raise native.HelperError(f"a second user had no answer in {_PATIENCE_S:.0f} s")
            for connection in ready:
                taken_ns[connection] = time.monotonic_ns() - began_ns[connection]
                if not connection.recv(4096).startswith(b"HTTP/1.1 200"):
                    raise native.HelperError("a second user had another answer than 200")
        return [taken_ns[connection] for connection in began_ns]
