"""Connections that a process has accepted, counted by the kernel: known answers from sockets of our own."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest
from conftest import cannot_run

from c10k_probe.observe import sockets


@contextlib.contextmanager
def connected(count: int, family: int = socket.AF_INET) -> Iterator[tuple[socket.socket, list[socket.socket]]]:
    """A listener and so many clients of it, none accepted yet."""
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family))
        try:
            listener.bind((host, 0))
        except OSError as error:
            cannot_run(f"there is no {host}: {error}")
        listener.listen(64)
        clients = [stack.enter_context(socket.socket(family)) for _ in range(count)]
        for client in clients:
            client.connect(listener.getsockname()[:2])
        yield listener, clients


@pytest.mark.parametrize(
    ("family", "use_netlink"), [(socket.AF_INET, True), (socket.AF_INET, False), (socket.AF_INET6, True)]
)
def test_accepted_is_from_accept_to_close(family: int, use_netlink: bool) -> None:
    """Neither who waits in the queue nor whose server has closed; also one that only one side has shut."""
    with connected(12, family) as (listener, clients), contextlib.ExitStack() as stack:
        port = listener.getsockname()[1]

        def accepted_count() -> int | None:
            address = "127.0.0.1" if family == socket.AF_INET else None  # another's may have the port elsewhere
            return sockets.accepted_count(port, (family,), address=address, use_netlink=use_netlink)

        assert accepted_count() == 0
        held = [stack.enter_context(listener.accept()[0]) for _ in range(5)]
        assert accepted_count() == 5
        queue = sockets.listen_queue(port)
        assert queue is not None
        assert queue.queued_count == 7
        held[0].close()
        held[1].close()
        assert accepted_count() == 3
        held[2].shutdown(socket.SHUT_WR)
        clients[-1].close()  # who waits and gives up
        assert accepted_count() == 3
        assert sockets.listening_families(port) == (family,)


def test_only_this_port_and_the_families_asked_for() -> None:
    with connected(3) as (one, _), connected(4) as (other, _), contextlib.ExitStack() as stack:
        for listener, count in ((one, 2), (other, 3)):
            for _ in range(count):
                stack.enter_context(listener.accept()[0])
        port = one.getsockname()[1]
        assert sockets.accepted_count(port, address="127.0.0.1") == 2
        assert sockets.accepted_count(port, (socket.AF_INET6,)) == 0
        assert sockets.accepted_count(port, address="127.0.0.99") == 0


@pytest.mark.parametrize("port", [0, 65536])
def test_a_port_that_cannot_be(port: int) -> None:
    with pytest.raises(ValueError, match="is not in"):
        sockets.accepted_count(port)
