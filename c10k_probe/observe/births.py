"""Processes and threads that a tree begins: each one, by the events that the kernel sends of every fork.

No counter in /proc says how many children a process has had: what ended between two looks is not seen, and the
``processes`` of /proc/stat are the whole machine's. The proc connector tells of each new task who its parent is. A
thread's parent is told as that of its process, so a thread is known by the process that it is in.

Linux 6.6 at least: it lets any user listen, tells of forks only where that is asked for, and forgets a listener that
was killed. Events are of the machine's first PID namespace, and nobody else gets any. Whoever listens costs each fork
on the machine about a microsecond, so it is done only where forks are the question.
Sources: drivers/connector/cn_proc.c, include/uapi/linux/cn_proc.h, netlink(7).
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import socket
import struct
from collections.abc import Iterable
from typing import Final

_NETLINK_CONNECTOR: Final = 11
_PROC: Final = (1, 1)  # CN_IDX_PROC, CN_VAL_PROC: also the number of the multicast group
_LISTEN: Final = 1  # PROC_CN_MCAST_LISTEN
_FORK: Final = 0x1  # PROC_EVENT_FORK
_NONE: Final = 0x0  # PROC_EVENT_NONE: the answer to LISTEN, with an errno
_DONE: Final = 3  # NLMSG_DONE
_SO_RCVBUFFORCE: Final = 33
_BUFFER_BYTES: Final = 8 << 20
_MESSAGE_BYTES: Final = 4096
_ANSWER_S: Final = 0.2
_HEADER: Final = struct.Struct("=IHHII")  # nlmsghdr
_CONNECTOR: Final = struct.Struct("=IIIIHH")  # cn_msg
_EVENT: Final = struct.Struct("=IIQ")  # what, cpu, timestamp_ns
_PIDS: Final = struct.Struct("=4I")  # parent, its process, child, its process
_AT: Final = _HEADER.size + _CONNECTOR.size
_FIRST_KERNEL: Final = (6, 6)


class Births:
    """Counts what the members of a tree begin from now on, and what those begin. A context manager."""

    def __init__(self, members: Iterable[int]) -> None:
        """Listen. Raises ``OSError`` where that is not possible."""
        self._members = set(members)
        self._count = 0
        self._has_all = True
        self._socket = _listening()

    def __enter__(self) -> Births:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def drain(self) -> None:
        """Take in what has come; often enough that the kernel's buffer does not overflow."""
        while True:
            try:
                message = self._socket.recv(_MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: some were lost
                self._has_all = False
            else:
                self._take(message)

    def count(self) -> int | None:
        """Processes and threads that began in the tree; None when some may have been missed."""
        self.drain()
        return self._count if self._has_all else None

    def _take(self, message: bytes) -> None:
        if len(message) < _AT + _EVENT.size + _PIDS.size or _EVENT.unpack_from(message, _AT)[0] != _FORK:
            return
        _, parent, child, process = _PIDS.unpack_from(message, _AT + _EVENT.size)
        if child != process:
            self._count += process in self._members
        elif parent in self._members:
            self._members.add(child)
            self._count += 1
        else:
            self._members.discard(child)  # the number of one that has ended, given again


def births_of(members: Iterable[int]) -> Births | None:
    """A counter of a tree's births; None where the kernel does not tell of them."""
    try:
        return Births(members)
    except OSError:
        return None


def _listening() -> socket.socket:
    found = re.match(r"(\d+)\.(\d+)", platform.release())
    if found is None or (int(found[1]), int(found[2])) < _FIRST_KERNEL:
        raise OSError("before Linux 6.6 a listener that was killed would be told of forks for ever")
    listener = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, _NETLINK_CONNECTOR)
    try:
        with contextlib.suppress(PermissionError):
            listener.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        listener.bind((0, _PROC[0]))
        listener.settimeout(_ANSWER_S)
        _ask(listener, _LISTEN)
        _await_answer(listener)
        _ask(listener, _LISTEN, _FORK)  # from now on forks only; this has no answer, which would be no fork either
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _ask(listener: socket.socket, *words: int) -> None:
    asked = struct.pack(f"={len(words)}I", *words)
    message = _CONNECTOR.pack(*_PROC, 0, 0, len(asked), 0) + asked
    listener.send(_HEADER.pack(_HEADER.size + len(message), _DONE, 0, 0, os.getpid()) + message)


def _await_answer(listener: socket.socket) -> None:
    """What the kernel makes of our asking; in another PID namespace it says nothing. Raises ``OSError``."""
    while True:
        message = listener.recv(_MESSAGE_BYTES)
        what = _EVENT.unpack_from(message, _AT)[0] if len(message) >= _AT + _EVENT.size + 4 else _FORK
        if what == _NONE:
            (error,) = struct.unpack_from("=I", message, _AT + _EVENT.size)
            if error:
                raise OSError(error, os.strerror(error))
            return
