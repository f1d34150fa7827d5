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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from c10k_probe.observe.procfs import PROC

# include/net/tcp_states.h
_ESTABLISHED = 1
_LISTEN = 10
_CONNECTED = (_ESTABLISHED, 4, 5, 8, 9, 11)  # FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING
_SYN_SENT = 2
_OF_A_CLIENT = (_SYN_SENT, *_CONNECTED)

_AF_INET = 2
_AF_INET6 = 10
FAMILIES = (_AF_INET, _AF_INET6)  # a server that listens on :: holds IPv4 connections as sockets of the second
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
_INODE_OFFSET_BYTES = 4 + 48 + 16  # after both queues' lengths and the user
_DIAG_MESSAGE_BYTES = 72
_INODE_COLUMN = 9  # of /proc/net/tcp
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr
_COUNT = struct.Struct("=Q")
_INET_DIAG_INFO = 2
_INET_DIAG_SKMEMINFO = 7
_DROPS_WORD = 8  # SK_MEMINFO_DROPS
_COOKIE_OFFSET_BYTES = 4 + 40
_BYTES_RECEIVED_OFFSET_BYTES = 128  # of struct tcp_info (uapi/linux/tcp.h): tcpi_bytes_received
_SEGMENTS_SENT_OFFSET_BYTES = 156  # of the same: tcpi_data_segs_out
_RECEIVE_BYTES = 1 << 18
_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class SocketCount:
    """Sockets counted and where: source is `netlink`, `/proc/net/tcp`, or None with count None."""

    count: int | None
    source: str | None


class Buffers(NamedTuple):
    """Data in sockets: how many sockets, bytes unread and unsent (or not acknowledged), bytes charged for them."""

    sockets_count: int
    unread_bytes: int
    unsent_bytes: int
    charged_bytes: int


class ListenQueue(NamedTuple):
    """Accept queue of a listener: connections that wait in it and its length (None in /proc/net/tcp)."""

    queued_count: int
    backlog_count: int | None
    source: str


def _request(ports: tuple[int, int], states: Iterable[int], family: int, extensions: int = 0) -> bytes:
    """inet_diag_req_v2 for a dump of these states and one family; of the local and the remote port 0 is any."""
    head = _REQUEST.pack(family, _IPPROTO_TCP, extensions, 0, sum(1 << state for state in states))
    body = head + _PORTS.pack(*ports) + bytes(_SOCKET_ID_TAIL_BYTES)
    return _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, 1, 0) + body


def _messages(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(type, start and end of the body) of each netlink message in one datagram."""
    position = 0
    while position + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, position)
        if length < _HEADER.size:
            raise OSError("netlink message without length")
        yield kind, position + _HEADER.size, position + length
        position += (length + 3) & ~3


def _netlink_messages(request: bytes) -> Iterator[memoryview]:
    """The body of every message of a dump. Raises OSError where the kernel has no sock_diag or refuses it."""
    import socket

    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as link:
        link.settimeout(_TIMEOUT_S)
        link.sendto(request, (0, 0))
        while True:
            data = link.recv(_RECEIVE_BYTES)
            for kind, start, end in _messages(data):
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    raise OSError(-struct.unpack_from("=i", data, start)[0], "sock_diag")
                yield memoryview(data)[start:end]


def _netlink_dump(port: int, state: int, address: str | None, family: int) -> Iterator[tuple[int, int]]:
    """(receive queue, send queue) of every socket in `state` on local `port`, and on local `address` when given."""
    for body in _netlink_messages(_request((port, 0), (state,), family)):
        if _MESSAGE_HEAD.unpack_from(body)[1] != state:
            continue
        source = bytes(body[_SOURCE_OFFSET_BYTES : _SOURCE_OFFSET_BYTES + 16])
        if address is None or address == _ipv4_text(source, family):
            yield struct.unpack_from("=II", body, _QUEUES_OFFSET_BYTES)


def read_buffers(port: int, *, remote: bool = False) -> Buffers | None:
    """Data of every established socket whose local (`remote`: peer's) port is `port`; None without netlink.

    Takes some 4 µs a socket. Source: sock_diag(7), INET_DIAG_SKMEMINFO. Raises ValueError for a port that cannot be.
    """
    _check_port(port)
    counts = [0, 0, 0, 0]
    try:
        for family in FAMILIES:
            ports = (0, port) if remote else (port, 0)
            for body in _netlink_messages(_request(ports, (_ESTABLISHED,), family, 1 << (_INET_DIAG_SKMEMINFO - 1))):
                parts = (1, *struct.unpack_from("=II", body, _QUEUES_OFFSET_BYTES), _charged_bytes(body))
                counts = [count + part for count, part in zip(counts, parts, strict=True)]
    except (OSError, struct.error):
        return None
    return Buffers(*counts)


def _charged_bytes(body: memoryview) -> int:
    """rmem_alloc and wmem_queued of one socket."""
    words = _memory_words(body)
    return words[0] + words[5] if words else 0


def _memory_words(body: memoryview) -> tuple[int, ...]:
    """SK_MEMINFO_VARS of one socket (include/uapi/linux/sock_diag.h); empty where they are missing."""
    start = _attribute(body, _INET_DIAG_SKMEMINFO)
    return struct.unpack_from("=9I", body, start) if start else ()


def _attribute(body: memoryview, wanted: int) -> int:
    """Where the value of an attribute of one socket begins; 0 when it has none."""
    position = _DIAG_MESSAGE_BYTES
    while position + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, position)
        if kind == wanted:
            return position + _ATTRIBUTE.size
        position += max(_ATTRIBUTE.size, (length + 3) & ~3)
    return 0


def received_bytes(port: int, families: Iterable[int] = FAMILIES) -> dict[int, int] | None:
    """What each established connection whose local port is `port` has received so far, by the socket's cookie.

    Retransmitted bytes count once (tcpi_bytes_received). Takes some 4 µs a socket, and 2 ms for a walk over the table
    of each family; None without netlink, or before Linux 4.1. Raises ValueError for a port that cannot be.
    """
    _check_port(port)
    found: dict[int, int] = {}
    start = 0  # the same in all of them
    try:
        for family in families:
            for body in _netlink_messages(_request((port, 0), (_ESTABLISHED,), family, 1 << (_INET_DIAG_INFO - 1))):
                if not start or _ATTRIBUTE.unpack_from(body, start - _ATTRIBUTE.size)[1] != _INET_DIAG_INFO:
                    start = _attribute(body, _INET_DIAG_INFO)
                if not start:
                    return None
                (cookie,) = _COUNT.unpack_from(body, _COOKIE_OFFSET_BYTES)
                (found[cookie],) = _COUNT.unpack_from(body, start + _BYTES_RECEIVED_OFFSET_BYTES)
    except (OSError, struct.error):
        return None
    return found


def waiting_clients_count(port: int) -> int | None:
    """Sockets of this network namespace whose peer's port is `port` and that are connecting, or have sent something and
    are not closed; None without netlink, or before Linux 4.6. Raises ValueError for a port that cannot be.
    """
    _check_port(port)
    count = 0
    try:
        for family in FAMILIES:
            for body in _netlink_messages(_request((0, port), _OF_A_CLIENT, family, 1 << (_INET_DIAG_INFO - 1))):
                start = _attribute(body, _INET_DIAG_INFO)
                if not start:
                    return None
                (sent_count,) = struct.unpack_from("=I", body, start + _SEGMENTS_SENT_OFFSET_BYTES)
                count += _MESSAGE_HEAD.unpack_from(body)[1] == _SYN_SENT or bool(sent_count)
    except (OSError, struct.error):
        return None
    return count


def passive_opens_count(proc_root: Path = PROC) -> int | None:
    """Connections that listeners of this network namespace were given since its start (Tcp: PassiveOpens); None when
    that is not told."""
    try:
        lines = (proc_root / "net/snmp").read_text(encoding="ascii").splitlines()
        names, values = (line.split() for line in lines if line.startswith("Tcp:"))
        return int(values[names.index("PassiveOpens")])
    except (OSError, ValueError, IndexError):
        return None


def _ipv4_text(address: bytes, family: int) -> str | None:
    """The IPv4 address of a socket of either family; None for one of IPv6 alone."""
    import socket

    if family == _AF_INET:
        return socket.inet_ntoa(address[:4])
    return socket.inet_ntoa(address[12:]) if address.startswith(_MAPPED) else None


def _proc_dump(port: int, state: int, address: str | None, name: str, proc_root: Path) -> Iterator[tuple[int, int]]:
    """The same from /proc/net/tcp or tcp6. Raises OSError when it cannot be read."""
    local_end, state_word = _proc_end(port, address), f"{state:02X}"
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
            return [queues for family in FAMILIES for queues in _netlink_dump(port, state, address, family)], "netlink"
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


def listen_drops(port: int) -> int | None:
    """New connections that the listeners on `port` had no place for since they began, SYN or ACK each time it came;
    None without netlink or without a listener.

    Source: sk_drops of the listener (tcp_listendrop in net/tcp.h), the last word of INET_DIAG_SKMEMINFO. Raises
    ValueError for a port that cannot be.
    """
    _check_port(port)
    counts: list[int] = []
    with contextlib.suppress(OSError, struct.error):
        for family in FAMILIES:
            request = _request((port, 0), (_LISTEN,), family, 1 << (_INET_DIAG_SKMEMINFO - 1))
            counts += [words[_DROPS_WORD] for body in _netlink_messages(request) if (words := _memory_words(body))]
    return sum(counts) if counts else None


def listening_families(port: int) -> tuple[int, ...]:
    """Address families of the listeners on `port`, whose connections are of the same; both where that is not told."""
    _check_port(port)
    with contextlib.suppress(OSError, struct.error):
        return tuple(family for family in FAMILIES if any(True for _ in _netlink_dump(port, _LISTEN, None, family)))
    return FAMILIES


def accepted_count(
    port: int,
    families: Iterable[int] = FAMILIES,
    *,
    address: str | None = None,
    use_netlink: bool = True,
    proc_root: Path = PROC,
) -> int | None:
    """Connections whose local end is `port` (and `address`) that a process has accepted and not closed; None when
    nobody tells.

    Those are the sockets that have an inode: one in the accept queue has no file yet, one that was closed has none any
    more (sock_i_ino in net/core/sock.c). In a walk over the kernel's table each counts as it is when its turn comes: of
    connections that come and go meanwhile the mean of many walks is right, while one is no snapshot.
    Raises ValueError for a port outside 1..65535.
    """
    _check_port(port)
    try:
        if use_netlink:
            return sum(_netlink_accepted(port, address, family) for family in families)
    except (OSError, struct.error):
        pass
    found = [_proc_accepted(port, address, name, proc_root) for name in ("tcp", "tcp6")]
    return sum(count or 0 for count in found) if found[0] is not None else None


def _netlink_accepted(port: int, address: str | None, family: int) -> int:
    count = 0
    for body in _netlink_messages(_request((port, 0), _CONNECTED, family)):
        source = bytes(body[_SOURCE_OFFSET_BYTES : _SOURCE_OFFSET_BYTES + 16])
        if address is None or address == _ipv4_text(source, family):
            count += bool(struct.unpack_from("=I", body, _INODE_OFFSET_BYTES)[0])
    return count


def _proc_accepted(port: int, address: str | None, name: str, proc_root: Path) -> int | None:
    states, local_end = {f"{state:02X}" for state in _CONNECTED}, _proc_end(port, address)
    try:
        lines = (proc_root / "net" / name).read_text(encoding="ascii").splitlines()[1:]
    except (OSError, ValueError):
        return None
    fields = (line.split() for line in lines)
    known = (words for words in fields if len(words) > _INODE_COLUMN and words[1].endswith(local_end))
    return sum(words[3] in states and words[_INODE_COLUMN] != "0" for words in known)


def _proc_end(port: int, address: str | None) -> str:
    """The end of a local address as /proc/net/tcp has it; the machine stores it so: 127.0.0.1 is 0100007F on a
    little-endian one."""
    if address is None:
        return f":{port:04X}"
    octets = bytes(map(int, address.split(".")))
    return f"{int.from_bytes(octets, sys.byteorder):08X}:{port:04X}"


def _check_port(port: int) -> None:
    if not 0 < port < 65536:
        raise ValueError(f"port {port} is not in 1..65535")
