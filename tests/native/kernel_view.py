"""What the kernel says of processes and sockets: the second witness beside what a helper says of itself."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

STATES = {"01": "ESTABLISHED", "06": "TIME_WAIT", "0A": "LISTEN"}  # include/net/tcp_states.h
POLL_S = 0.005
SERVER = "127.0.0.1"  # where every server of ours listens


def wait_until(is_reached: Callable[[], object], what: str, deadline_s: float = 10.0) -> None:
    """Poll until it is reached; an ``AssertionError`` that says what was not at the deadline."""
    end = time.monotonic() + deadline_s
    while not is_reached():
        assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
        time.sleep(POLL_S)


# --- processes --------------------------------------------------------------------------------------------------------


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on (state, ppid, pgrp, session ...); proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def all_pids() -> list[int]:
    """Every process, zombies included."""
    return [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]


def session_members(session: int) -> dict[int, str]:
    """Pid to state letter (R, S, Z ...) of every process of a session, zombies included."""
    members = {}
    for pid in all_pids():
        with contextlib.suppress(OSError):
            state, _parent, _group, its_session = _stat(pid)[:4]
            if int(its_session) == session:
                members[pid] = state
    return members


def living_members(session: int) -> set[int]:
    """Pids of a session without its zombies: an orphan's zombie is the affair of whoever adopted it.

    A process whose first thread has ended is shown as a zombie while other threads still hold its descriptors.
    """
    living = set()
    for pid, state in session_members(session).items():
        with contextlib.suppress(OSError):
            if state not in "ZX" or int(_stat(pid)[17]) > 1:  # num_threads
                living.add(pid)
    return living


def state_of(pid: int) -> str:
    """The state letter of a process."""
    return _stat(pid)[0]


def status_of(pid: int, name: str) -> str:
    """One value of /proc/PID/status, such as ``Threads`` or ``SigIgn``."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return value.strip()
    raise KeyError(name)


def tasks_created() -> int:
    """Processes and threads created since boot (``processes`` of /proc/stat)."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("processes "):
            return int(line.split()[1])
    raise KeyError("processes")


def descriptors_of(pid: int) -> int:
    """Open descriptors of a process."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


# --- sockets ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class TcpSocket:
    """One line of /proc/net/tcp; addresses as (dotted IPv4, port)."""

    local: tuple[str, int]
    remote: tuple[str, int]
    state: str
    inode: int


def _address(text: str) -> tuple[str, int]:
    host, port = text.split(":")
    return socket.inet_ntoa(struct.pack("=I", int(host, 16))), int(port, 16)


def _tcp_sockets() -> Iterator[TcpSocket]:
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        state = STATES.get(fields[3], fields[3])
        yield TcpSocket(_address(fields[1]), _address(fields[2]), state, int(fields[9]))


def tcp_sockets(is_wanted: Callable[[TcpSocket], bool]) -> list[TcpSocket]:
    """The wanted ones of this network namespace's IPv4 TCP sockets; proc(5).

    The kernel gives the table page by page: while others open and close, a line may come twice or not at all. So it is
    read until two readings agree on those that are wanted.
    """
    previous: set[TcpSocket] | None = None
    while True:
        current = {row for row in _tcp_sockets() if is_wanted(row)}
        if current == previous:
            return sorted(current)
        previous = current


def server_ends(port: int, state: str = "ESTABLISHED") -> list[TcpSocket]:
    """Sockets of a server on this port of 127.0.0.1; of any address, where it listens. A connection in the accept queue
    has one too; the ends of other tests' clients, whose addresses are others of 127/8, may have the same port."""
    return tcp_sockets(
        lambda row: row.local[1] == port and row.state == state and (state == "LISTEN" or row.local[0] == SERVER)
    )


def client_ends(port: int, state: str = "ESTABLISHED") -> list[TcpSocket]:
    """Sockets whose peer is a server on this port of 127.0.0.1."""
    return tcp_sockets(lambda row: row.remote == (SERVER, port) and row.state == state)


def remains_of(port: int) -> list[TcpSocket]:
    """Sockets with this port of 127.0.0.1 at either end, in any state: TIME_WAIT included."""
    return tcp_sockets(lambda row: (SERVER, port) in (row.local, row.remote))


def remains_of_connections(port: int, clients: Collection[tuple[str, int]]) -> list[TcpSocket]:
    """The same of connections with these clients alone: when a server has ended, others may be given its port."""
    return [row for row in remains_of(port) if row.local in clients or row.remote in clients]


def listens_on_ipv6(port: int) -> bool:
    """Whether anything listens on this port in /proc/net/tcp6 (no such file: no)."""
    try:
        lines = Path("/proc/net/tcp6").read_text().splitlines()[1:]
    except FileNotFoundError:
        return False
    return any(int(line.split()[1].split(":")[1], 16) == port and line.split()[3] == "0A" for line in lines)


def sockets_of(pid: int) -> list[TcpSocket]:
    """The IPv4 TCP sockets that a process has descriptors of."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(link.readlink())
            if target.startswith("socket:["):
                inodes.add(int(target[len("socket:[") : -1]))
    return tcp_sockets(lambda row: row.inode in inodes)
