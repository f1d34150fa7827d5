"""The kernel's own lists of sockets and memory, read in another way than the product reads them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ESTABLISHED, LISTEN = 1, 10  # include/net/tcp_states.h
SERVER = "127.0.0.1"  # where every server of ours listens


@dataclass(frozen=True)
class Socket:
    """One line of /proc/net/tcp."""

    address: str
    port: int
    remote_address: str
    remote_port: int
    state: int
    inode: int
    unread_bytes: int = field(compare=False)


def tcp_sockets(readings: int = 1) -> list[Socket]:
    """Every IPv4 TCP socket of this network namespace, each once.

    The list is no snapshot: while others come and go the kernel may name a socket twice, or leave one out. What stays
    the same meanwhile is in one of several readings.
    """
    texts = [Path("/proc/net/tcp").read_text(encoding="ascii") for _ in range(readings)]
    return list(dict.fromkeys(_socket(line.split()) for text in texts for line in text.splitlines()[1:]))


def _socket(words: list[str]) -> Socket:
    unread = int(words[4].partition(":")[2], 16)
    return Socket(*_end(words[1]), *_end(words[2]), int(words[3], 16), int(words[9]), unread)


def _end(text: str) -> tuple[str, int]:
    """``0100007F:1F90`` -> 127.0.0.1 and 8080."""
    address, _, port = text.partition(":")
    return socket.inet_ntoa(int(address, 16).to_bytes(4, sys.byteorder)), int(port, 16)


def on_port(port: int) -> list[Socket]:
    """Sockets, in any state, with either end on a port of 127.0.0.1; clients have other addresses of 127/8."""
    ends = ((item, (item.address, item.port), (item.remote_address, item.remote_port)) for item in tcp_sockets())
    return [item for item, *both in ends if (SERVER, port) in both]


def established_on(port: int) -> int:
    """Established sockets whose local end is this port of 127.0.0.1."""
    found = [item for item in tcp_sockets(readings=3) if item.state == ESTABLISHED]
    return sum((item.address, item.port) == (SERVER, port) for item in found)


def established_by_ss(ss: str, port: int) -> int:
    """The same by iproute2's program."""
    command = [ss, "-4tnH", "state", "established", "src", f"{SERVER}:{port}"]
    return len(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines())


def socket_inodes(pid: int) -> set[int]:
    """Inodes of the sockets that a process has open."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(int(target[8:-1]))
    return inodes


def unread_bytes_on(port: int) -> int:
    """Bytes that have come in on established sockets of this local port and were not read yet."""
    return sum(item.unread_bytes for item in tcp_sockets() if item.port == port and item.state == ESTABLISHED)


def leader_running(program: str, pids: Iterable[int]) -> int | None:
    """Of some processes the one that runs a program and leads its session, as a helper does and its children do not."""
    for pid in pids:
        with suppress(OSError):
            if Path(f"/proc/{pid}/exe").readlink().name == program and os.getsid(pid) == pid:
                return pid
    return None


def members_of(session: int) -> list[int]:
    """Pids of a session."""
    pids = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                pids += [int(folder.name)] if os.getsid(int(folder.name)) == session else []
    return pids


def rollup_bytes(pids: Iterable[int], name: str) -> int:
    """Sum of one field of smaps_rollup over processes."""
    lines = [line for pid in pids for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
