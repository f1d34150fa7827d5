"""The kernel's own list of TCP sockets of both address families: how many are established on a port, how many wait.

First choice is netlink (sock_diag(7), net/ipv4/inet_diag.c): the kernel filters by state and local port, so
100,000 sockets take some tens of milliseconds. Fallback is /proc/net/tcp (proc_net(5)), which prints every
socket of the network namespace. Neither is a snapshot: sockets that come or go during the walk may be
missed.
"""

from __future__ import annotations

import contextlib
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from c10k_probe.observe.procfs import PROC

# include/net/tcp_states.h
_ESTABLISHED = 1
_LISTEN = 10

_AF_INET = 2
_AF_INET6 = 10
_FAMILIES = (_AF_INET, _AF_INET6)  # a server that listens on :: holds IPv4 connections as sockets of the second
_MAPPED = bytes(10) + b"\xff\xff"  # start of an IPv4 address in an IPv6 socket (RFC 4291)
_IPPROTO_TCP = 6

# uapi/linux/netlink.h, sock_diag.h, inet_diag.h
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLM_F_REQUEST_DUMP = 0x301
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBBI")  # family, protocol, extensions, padding, mask of states
_PORTS = struct.Struct("!HH")
_SOCKET_ID_TAIL_BYTES = 44  # addresses, interface and cookie: zero is any
_SOURCE_OFFSET_BYTES = 8  # of inet_diag_msg: family, state, timer, retrans, then both ports
_MESSAGE_HEAD = struct.Struct("=BBBB")  # family, state, timer, retransmissions
_QUEUES_OFFSET_BYTES = 4 + 48 + 4
_RECEIVE_BYTES = 1 << 18
_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class SocketCount:
    """Sockets counted and where: source is `netlink`, `/proc/net/tcp`, or None with count None."""

    count: int | None
    source: str | None


class ListenQueue(NamedTuple):
    """Accept queue of a listener: connections that wait in it and its length (None in /proc/net/tcp)."""

    queued_count: int
    backlog_count: int | None
    source: str


def _request(port: int, state: int, family: int) -> bytes:
    """inet_diag_req_v2 for a dump of one state, one local port and one family."""
    body = _REQUEST.pack(family, _IPPROTO_TCP, 0, 0, 1 << state) + _PORTS.pack(port, 0) + bytes(_SOCKET_ID_TAIL_BYTES)
    return _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, 1, 0) + body


def _messages(data: bytes) -> Iterator[tuple[int, int]]:
    """(type, offset of the body) of each netlink message in one datagram."""
    position = 0
    while position + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, position)
        if length < _HEADER.size:
            raise OSError("netlink message without length")
        yield kind, position + _HEADER.size
        position += (length + 3) & ~3


def _netlink_dump(port: int, state: int, address: str | None, family: int) -> Iterator[tuple[int, int]]:
    """(receive queue, send queue) of every socket in `state` on local `port`, and on local `address` when given.

    Raises OSError where the kernel has no sock_diag or refuses it.
    """
    import socket

    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as link:
        link.settimeout(_TIMEOUT_S)
        link.sendto(_request(port, state, family), (0, 0))
        while True:
            data = link.recv(_RECEIVE_BYTES)
            for kind, offset in _messages(data):
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    raise OSError(-struct.unpack_from("=i", data, offset)[0], "sock_diag")
                if _MESSAGE_HEAD.unpack_from(data, offset)[1] != state:
                    continue
                start = offset + _SOURCE_OFFSET_BYTES
                if address is None or address == _ipv4_text(data[start : start + 16], family):
                    yield struct.unpack_from("=II", data, offset + _QUEUES_OFFSET_BYTES)


def _ipv4_text(address: bytes, family: int) -> str | None:
    """The IPv4 address of a socket of either family; None for one of IPv6 alone."""
    import socket

    if family == _AF_INET:
        return socket.inet_ntoa(address[:4])
    return socket.inet_ntoa(address[12:]) if address.startswith(_MAPPED) else None


def _proc_dump(port: int, state: int, address: str | None, name: str, proc_root: Path) -> Iterator[tuple[int, int]]:
    """The same from /proc/net/tcp or tcp6. Raises OSError when it cannot be read."""
    local_end, state_word = f":{port:04X}", f"{state:02X}"
    if address is not None:  # as the machine stores it: 127.0.0.1 is 0100007F on a little-endian one
        octets = bytes(map(int, address.split(".")))
        local_end = f"{int.from_bytes(octets, sys.byteorder):08X}{local_end}"
    with (proc_root / "net" / name).open(encoding="ascii") as lines:
        next(lines, None)
        for line in lines:
            words = line.split(None, 5)
            if len(words) > 4 and words[3] == state_word and words[1].endswith(local_end):
                send, _, receive = words[4].partition(":")
                yield int(receive, 16), int(send, 16)


def _dump(
    port: int, state: int, use_netlink: bool, proc_root: Path, address: str | None = None
) -> tuple[list[tuple[int, int]], str] | None:
    try:
        if use_netlink:
            return [queues for family in _FAMILIES for queues in _netlink_dump(port, state, address, family)], "netlink"
    except (OSError, struct.error):
        pass  # no such family in this kernel or container: the text list says the same, more slowly
    try:
        found = list(_proc_dump(port, state, address, "tcp", proc_root))
    except (OSError, ValueError):
        return None
    with contextlib.suppress(OSError, ValueError):  # a kernel without IPv6 has no such file
        found += _proc_dump(port, state, address, "tcp6", proc_root)
    return found, "/proc/net/tcp"


def read_established(
    port: int, *, address: str | None = None, use_netlink: bool = True, proc_root: Path = PROC
) -> SocketCount:
    """Established TCP sockets whose local end is `port` (and `address`) in this network namespace, and the source.

    Raises ValueError for a port outside 1..65535.
    """
    _check_port(port)
    found = _dump(port, _ESTABLISHED, use_netlink, proc_root, address)
    return SocketCount(None, None) if found is None else SocketCount(len(found[0]), found[1])


def established_count(
    port: int, *, address: str | None = None, use_netlink: bool = True, proc_root: Path = PROC
) -> int | None:
    """Number alone of read_established(); None when the kernel's list cannot be read."""
    return read_established(port, address=address, use_netlink=use_netlink, proc_root=proc_root).count


def listen_queue(port: int, *, use_netlink: bool = True, proc_root: Path = PROC) -> ListenQueue | None:
    """Accept queue (Recv-Q of the listener) on `port`, summed over listeners that share it; None without one.

    Raises ValueError for a port outside 1..65535.
    """
    _check_port(port)
    found = _dump(port, _LISTEN, use_netlink, proc_root)
    if found is None or not found[0]:
        return None
    queues, source = found
    backlog_count = sum(send for _, send in queues) if source == "netlink" else None
    return ListenQueue(sum(receive for receive, _ in queues), backlog_count, source)


def _check_port(port: int) -> None:
    if not 0 < port < 65536:
        raise ValueError(f"port {port} is not in 1..65535")
