"""The processes of a tree and who listens on a port, read from /proc.

A tree is named by its roots: it holds them, their living descendants, and what these start later. A descendant whose
parents have ended was given another parent by the kernel and is found only by those who knew it before.
Ports are those of a network namespace: a process in a container has others than we.
Without root only one's own processes show their descriptors.
Sources: proc_pid_stat(5), proc_pid_fd(5), proc_pid_net(5).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from c10k_probe.observe.procfs import PROC, raw_field, read_raw, read_text

_STAT_BYTES = 2048
_PARENT, _THREADS = 1, 17  # position after the command name in /proc/PID/stat
_LISTEN = "0A"  # state in /proc/net/tcp (include/net/tcp_states.h)


class Listener(NamedTuple):
    """One listening TCP socket: its port and its inode, which names it below /proc/PID/fd."""

    port: int
    inode: int


def stat_fields(pid: int, proc_root: Path = PROC, tid: int | None = None) -> list[bytes]:
    """Fields of /proc/PID/stat, or of one of its threads', after the name. Raises ``OSError`` when it has gone."""
    folder = f"{proc_root}/{pid}" if tid is None else f"{proc_root}/{pid}/task/{tid}"
    data = read_raw(f"{folder}/stat".encode(), _STAT_BYTES)  # no Path: read by the thousand
    return data[data.rfind(b")") + 2 :].split()


def is_alive(pid: int, proc_root: Path = PROC) -> bool:
    """Whether a process is there and no zombie."""
    try:
        fields = stat_fields(pid, proc_root)
    except OSError:
        return False
    return fields[0] not in (b"Z", b"X") or int(fields[_THREADS]) > 1


def is_running(pid: int, tid: int, proc_root: Path = PROC) -> bool:
    """Whether a thread of a process is there and has not ended; a first thread may have, while its process lives.

    /proc/TID/stat would tell it too, but sums up the whole process each time (fs/proc/array.c: do_task_stat).
    """
    try:
        return stat_fields(pid, proc_root, tid)[0] not in (b"Z", b"X")
    except (OSError, IndexError):
        return False


def all_pids(proc_root: Path = PROC) -> list[int]:
    """Every process that /proc shows."""
    return [int(name) for name in os.listdir(proc_root) if name.isdigit()]  # noqa: PTH208 -- thousands of names


def with_descendants(roots: Iterable[int], without: Collection[int] = (), proc_root: Path = PROC) -> list[int]:
    """The roots that are there and all their descendants, each parent before its children.

    ``without``: processes that do not count, nor do their descendants: the observer and its helpers.
    """
    children: dict[int, list[int]] = {}
    for pid in set(all_pids(proc_root)).difference(without):
        with contextlib.suppress(OSError, IndexError):
            children.setdefault(int(stat_fields(pid, proc_root)[_PARENT]), []).append(pid)
    known = {pid for group in children.values() for pid in group}
    found = dict.fromkeys(pid for pid in roots if pid in known)
    queue = list(found)
    for pid in queue:
        fresh = [child for child in children.get(pid, ()) if child not in found]
        found.update(dict.fromkeys(fresh))
        queue += fresh
    return list(found)


def children_of(parent: int, proc_root: Path = PROC) -> list[int]:
    """Processes whose parent this is, by looking at all."""
    return [pid for pid in all_pids(proc_root) if _parent(pid, proc_root) == parent]


def process_of(tid: int, proc_root: Path = PROC) -> int | None:
    """The process that a thread belongs to, itself for a first thread; None when it has gone."""
    try:
        return raw_field(read_raw(os.fsencode(proc_root / str(tid) / "status")), b"\nTgid:")
    except OSError:
        return None


def threads_of(pid: int, proc_root: Path = PROC) -> list[int]:
    """Thread ids of a process; none when it has gone."""
    try:
        return [int(name) for name in os.listdir(proc_root / str(pid) / "task")]  # noqa: PTH208
    except OSError:
        return []


def command_line(pid: int, proc_root: Path = PROC) -> str:
    """What the process was started as, in one line; its short name when it hides the rest."""
    with contextlib.suppress(OSError):
        words = read_raw(os.fsencode(proc_root / str(pid) / "cmdline")).split(b"\0")
        if text := " ".join(b" ".join(words).decode(errors="replace").split()):  # a script may hold line breaks
            return text
        return read_raw(os.fsencode(proc_root / str(pid) / "comm")).decode(errors="replace").strip()
    return ""


# --- ports ------------------------------------------------------------------------------------------------------------


def listeners(pid: int | str = "self", proc_root: Path = PROC) -> list[Listener]:
    """Listening TCP sockets of the network namespace of a process, both address families."""
    found = []
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), (proc_root / str(pid) / "net" / name).open(encoding="ascii") as lines:
            next(lines, None)  # the names of the columns
            for line in lines:
                words = line.split(None, 10)
                if len(words) <= 9 or words[3] != _LISTEN:  # the kernel tells listeners first, and others by the 10,000
                    break
                found.append(Listener(int(words[1].rpartition(":")[2], 16), int(words[9])))
    return found


def socket_inodes(pid: int, proc_root: Path = PROC) -> set[int]:
    """Inodes of the sockets that a process holds. Raises ``OSError`` when it is not ours to look at, or has gone."""
    found = set()
    with os.scandir(proc_root / str(pid) / "fd") as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                target = os.readlink(entry.path)  # noqa: PTH115 -- thousands of links
                if target.startswith("socket:["):
                    found.add(int(target[8:-1]))
    return found


def network_namespace(pid: int | str = "self", proc_root: Path = PROC) -> int | None:
    """A number that two processes share when they share a network namespace; None when it cannot be told.

    It is the inode of its own list of sockets: the link below ns/ that names the namespace needs privilege for the
    processes of others, this file does not.
    """
    try:
        return os.stat(f"{proc_root}/{pid}/net/tcp").st_ino  # noqa: PTH116 -- read by the thousand
    except OSError:
        return None


class Held(NamedTuple):
    """What processes listen on: network namespace -> (one process in it, the ports); and of how many it is hidden."""

    ports: dict[int | None, tuple[int, set[int]]]
    hidden_count: int


def held_ports(pids: Collection[int], proc_root: Path = PROC) -> Held:
    """Ports on which one of these processes listens, by network namespace."""
    ports: dict[int | None, tuple[int, set[int]]] = {}
    known: dict[int | None, dict[int, int]] = {}
    hidden_count = 0
    for pid in pids:
        try:
            inodes = socket_inodes(pid, proc_root)
        except PermissionError:
            hidden_count += 1
            continue
        except OSError:
            continue  # it has ended
        space = network_namespace(pid, proc_root)
        if space not in known:
            known[space] = {item.inode: item.port for item in listeners(pid, proc_root)}
        held = {known[space][inode] for inode in inodes & known[space].keys()}
        if held:
            ports.setdefault(space, (pid, set()))[1].update(held)
    return Held(ports, hidden_count)


def listening_ports(pids: Collection[int], proc_root: Path = PROC) -> set[int]:
    """Ports on which one of these processes listens, in whatever network namespace."""
    return {port for _, ports in held_ports(pids, proc_root).ports.values() for port in ports}


class Owners(NamedTuple):
    """Who holds the listening sockets of a port, as far as this user sees it.

    sockets_count: listening sockets of the port; hidden_count: those of which no holder can be seen.
    """

    pids: list[int]
    sockets_count: int
    hidden_count: int


def port_owners(port: int, proc_root: Path = PROC) -> Owners:
    """Processes that hold a listening socket of this port of our network namespace."""
    inodes = {item.inode for item in listeners(proc_root=proc_root) if item.port == port}
    held: dict[int, set[int]] = {}
    for pid in all_pids(proc_root) if inodes else ():
        with contextlib.suppress(OSError):
            if own := inodes & socket_inodes(pid, proc_root):
                held[pid] = own
    return Owners(list(held), len(inodes), len(inodes.difference(*held.values())))


def owners_of_port(port: int, proc_root: Path = PROC) -> tuple[list[int], bool]:
    """(processes that hold a listening socket of this port, whether anybody listens there at all)."""
    owners = port_owners(port, proc_root)
    return owners.pids, owners.sockets_count > 0


def topmost(pids: Collection[int], proc_root: Path = PROC) -> list[int]:
    """Those whose parent is not among them: the master of a server that forks.

    systemd holds the sockets of servers that it starts (systemd.socket(5)) and is no part of them; alone, it is one.
    """
    servers = [pid for pid in pids if pid != 1 or read_text(proc_root / "1" / "comm") != "systemd"] or list(pids)
    return [pid for pid in servers if _parent(pid, proc_root) not in servers]


def _parent(pid: int, proc_root: Path) -> int:
    try:
        return int(stat_fields(pid, proc_root)[_PARENT])
    except (OSError, IndexError):
        return 0


def tasks_in_machine(proc_root: Path = PROC) -> int:
    """Threads of the whole machine, from /proc/loadavg; 0 when it does not tell."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int((proc_root / "loadavg").read_text(encoding="ascii").split()[3].partition("/")[2])
    return 0


def walk_threads(pids: Iterable[int], proc_root: Path = PROC) -> Iterator[int]:
    """Every thread of these processes."""
    for pid in pids:
        yield from threads_of(pid, proc_root)
