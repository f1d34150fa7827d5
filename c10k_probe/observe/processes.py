"""The processes of a tree and who listens on a port, read from /proc.

A tree is named by its roots: it holds them, their living descendants, and what these start later. A descendant whose
parents have ended was given another parent by the kernel and is found only by those who knew it before.
Without root only one's own processes show their descriptors.
Sources: proc_pid_stat(5), proc_pid_fd(5), proc_pid_net(5).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from c10k_probe.observe.procfs import PROC, read_raw

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
        if text := b" ".join(words).decode(errors="replace").strip():
            return text
        return read_raw(os.fsencode(proc_root / str(pid) / "comm")).decode(errors="replace").strip()
    return ""


# --- ports ------------------------------------------------------------------------------------------------------------


def listeners(pid: int | str = "self", proc_root: Path = PROC) -> list[Listener]:
    """Listening TCP sockets of the network namespace of a process, both address families."""
    found = []
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), (proc_root / str(pid) / "net" / name).open(encoding="ascii") as lines:
            for line in lines:
                words = line.split(None, 10)
                if len(words) > 9 and words[3] == _LISTEN:
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


def listening_ports(pids: Collection[int], proc_root: Path = PROC) -> set[int]:
    """Ports on which one of these processes listens."""
    found = set()
    by_inode: dict[int, int] = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            by_inode = by_inode or {item.inode: item.port for item in listeners(pid, proc_root)}
            found |= {by_inode[inode] for inode in socket_inodes(pid, proc_root) if inode in by_inode}
    return found


def owners_of_port(port: int, proc_root: Path = PROC) -> tuple[list[int], bool]:
    """(processes that hold a listening socket of this port, whether anybody listens there at all)."""
    inodes = {item.inode for item in listeners(proc_root=proc_root) if item.port == port}
    return [pid for pid in all_pids(proc_root) if inodes and _holds(pid, inodes, proc_root)], bool(inodes)


def _holds(pid: int, inodes: set[int], proc_root: Path) -> bool:
    try:
        return not inodes.isdisjoint(socket_inodes(pid, proc_root))
    except OSError:
        return False


def topmost(pids: Collection[int], proc_root: Path = PROC) -> list[int]:
    """Those whose parent is not among them: the master of a server that forks."""
    return [pid for pid in pids if _parent(pid, proc_root) not in pids]


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
