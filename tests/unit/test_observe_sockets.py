"""Sockets and the machine's counters: by netlink and by text, as ss and nstat say them."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from observing import TICK_S, output, write

from c10k_probe.observe import counters, sockets


@contextlib.contextmanager
def connected(count: int) -> Iterator[int]:
    """`count` established connections on a port of the kernel's choice."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        for _ in range(count):
            stack.enter_context(socket.create_connection(listener.getsockname()))
            stack.enter_context(listener.accept()[0])
        yield listener.getsockname()[1]


@pytest.mark.parametrize(("use_netlink", "source"), [(True, "netlink"), (False, "/proc/net/tcp")])
def test_23_connections_are_23(use_netlink: bool, source: str) -> None:
    with connected(23) as port, connected(5):
        assert sockets.read_established(port, use_netlink=use_netlink) == sockets.SocketCount(23, source)
        assert sockets.established_count(port) == 23
    assert sockets.established_count(port) == 0


def test_established_agrees_with_ss() -> None:
    with connected(23) as port:
        lines = output("ss", "-Htn", "state", "established", f"( sport = :{port} )").splitlines()
        assert sockets.established_count(port) == len(lines) == 23


@pytest.mark.parametrize("use_netlink", [True, False])
def test_accept_queue(use_netlink: bool) -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=8))
        port = listener.getsockname()[1]
        for _ in range(3):
            stack.enter_context(socket.create_connection(listener.getsockname()))
        queue = sockets.listen_queue(port, use_netlink=use_netlink)
        assert queue is not None
        assert (queue.queued_count, queue.backlog_count) == (3, 8 if use_netlink else None)
    assert sockets.listen_queue(port, use_netlink=use_netlink) is None


def test_drops_are_those_of_the_listener_and_of_no_other() -> None:
    """As `ss` has them: the last word of a listener's skmem. What comes again is dropped again, so it only grows."""
    with contextlib.ExitStack() as stack:
        full, idle = (stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1)) for _ in range(2))
        port = full.getsockname()[1]
        assert sockets.listen_drops(port) == 0
        for _ in range(10):  # two have a place: the queue's length is one more than what was asked for
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        first = sockets.listen_drops(port)
        text = output("ss", "-ltmnHO", "sport", "=", f":{port}")
        last = sockets.listen_drops(port)
        assert first is not None and last is not None
        assert 8 <= first <= int(text.rpartition(",d")[2].partition(")")[0]) <= last
        assert sockets.listen_drops(idle.getsockname()[1]) == 0
    assert sockets.listen_drops(port) is None


class Refused:
    """A kernel without sock_diag."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise OSError("no such family")


def test_without_netlink_the_text_list_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with connected(3) as port:
        monkeypatch.setattr(socket, "socket", Refused)
        # the list is no snapshot: while others come and go the kernel may leave a socket out, or name it twice
        assert any(sockets.read_established(port) == sockets.SocketCount(3, "/proc/net/tcp") for _ in range(5))
        assert sockets.read_established(port, proc_root=tmp_path) == sockets.SocketCount(None, None)
        assert sockets.established_count(port, proc_root=tmp_path) is None
        assert sockets.listen_queue(port, proc_root=tmp_path) is None
        monkeypatch.undo()


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_that_cannot_be(port: int) -> None:
    with pytest.raises(ValueError, match="not in"):
        sockets.established_count(port)


def test_counters_see_forks_and_overflows() -> None:
    before = counters.read_counters()
    for _ in range(23):
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1))
        for _ in range(10):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        delta = counters.counters_delta(before, counters.read_counters())
    assert delta.forks_count is not None and delta.forks_count >= 23
    assert delta.context_switches_count is not None and delta.context_switches_count > 0
    assert delta.listen_overflows_count is not None and delta.listen_overflows_count >= 1
    assert delta.listen_drops_count is not None and delta.listen_drops_count >= delta.listen_overflows_count
    assert delta.time_s > 0


def test_counters_agree_with_nstat() -> None:
    """Where nobody else's overflow came between two readings of ours."""
    agreed = ("listen_overflows_count", "syn_cookies_sent_count")
    before, after, shown = None, [counters.read_counters().as_dict()[name] for name in agreed], {}
    while before != after:
        text = output("nstat", "-asz")
        shown = dict(line.split()[:2] for line in text.splitlines() if line.startswith("TcpExt"))
        before, after = after, [counters.read_counters().as_dict()[name] for name in agreed]
    assert after == [int(shown["TcpExtListenOverflows"]), int(shown["TcpExtSyncookiesSent"])]


def test_counters_of_a_made_up_kernel(tmp_path: Path) -> None:
    write(tmp_path / "stat", "cpu  100 10 20 1000 30 4 6 25 50 5\ncpu0 1 2\nctxt 77\nprocesses 5\n")
    write(tmp_path / "net/netstat", "TcpExt: ListenOverflows ListenDrops\nTcpExt: 3 4\nIpExt: A\nIpExt: 1\n")
    reading = counters.read_counters(tmp_path)
    assert reading.cpu_busy_s == pytest.approx(140 * TICK_S)
    assert reading.cpu_total_s == pytest.approx(1195 * TICK_S)
    assert (reading.cpu_steal_s, reading.forks_count) == (25 * TICK_S, 5)
    assert (reading.listen_drops_count, reading.tcp_timeouts_count) == (4, None)
    nothing = counters.read_counters(tmp_path / "none")
    assert set(nothing.as_dict().values()) == {None, nothing.time_s}


def test_data_in_sockets_is_found_at_the_end_that_holds_it() -> None:
    """Three of five clients leave 1,000 bytes unread; the listener is none of the connections."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = listener.getsockname()[1]
        pairs = []
        for _ in range(5):
            client = stack.enter_context(socket.create_connection(listener.getsockname()))
            pairs.append((client, stack.enter_context(listener.accept()[0])))
        before = sockets.read_buffers(port, remote=True)
        for client, server in pairs[:3]:
            server.sendall(bytes(1000))
            assert client.recv(1000, socket.MSG_PEEK | socket.MSG_WAITALL)
        ours, theirs = sockets.read_buffers(port, remote=True), sockets.read_buffers(port)
    assert before == sockets.Buffers(5, 0, 0, 0)
    assert ours is not None and theirs is not None
    assert (ours.sockets_count, ours.unread_bytes, ours.unsent_bytes) == (5, 3000, 0)
    assert (theirs.sockets_count, theirs.unread_bytes) == (5, 0)
    assert ours.charged_bytes >= 3000  # with what the kernel keeps around the data
    with pytest.raises(ValueError, match="not in"):
        sockets.read_buffers(0)


def test_buffers_without_netlink_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    with connected(1) as port:
        monkeypatch.setattr(socket, "socket", Refused)
        assert sockets.read_buffers(port) is None
        monkeypatch.undo()
