"""What a server knows of itself and says, and how it leaves; the same in every model."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
import sys
import threading
from pathlib import Path
from typing import Final, NoReturn

from c10k_probe.helper_in_python import EXIT_USAGE, emit, emit_end, fail
from c10k_probe.servers_in_python.work import Work

HELPER: Final = "servers_in_python"
BUFFER_BYTES: Final = 4096  # as much as is read at once

_STDIN: Final = 0
_COMMAND_BYTES_MAX: Final = 128
_RESET: Final = struct.pack("ii", 1, 0)  # struct linger: on, 0 s
_WALLS: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM, errno.ENOBUFS, errno.ENOSPC}
)  # the last: epoll_ctl and fs.epoll.max_user_watches
_SOMAXCONN: Final = Path("/proc/sys/net/core/somaxconn")


class State:
    """Counts of one server, the walls it has told of, and the commands it gets.

    ``accept_errors_count`` is None where the library hides them.
    """

    def __init__(  # noqa: PLR0913, PLR0917 -- the command line
        self,
        model: str,
        backlog_count: int,
        protocol: str,
        work: Work | None = None,
        asks: str = "await",
        workers_count: int = 1,
    ) -> None:
        """``work``: with a backend that requests wait for. A loop ``asks`` it so, its pool has ``workers_count``."""
        self.work, self.asks, self.workers_count = work, asks, workers_count
        self.model, self.backlog_count, self.is_http = model, backlog_count, protocol == "http"
        self.accepted_count = 0
        self.open_count = 0
        self.dropped_count = 0  # accepted, and closed for want of a task
        self.accept_errors_count: int | None = 0
        self.port = 0
        self._lock = threading.Lock()
        self._told: set[tuple[str, int]] = set()
        self._text = b""  # of a command that has not ended
        self._self_status = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)  # before any wall

    # --- counting -------------------------------------------------------------------------------------------------

    def opened(self) -> None:
        """One connection is served."""
        with self._lock:
            self.open_count += 1

    def closed(self) -> None:
        """One connection is served no more. From any thread."""
        with self._lock:
            self.open_count -= 1

    def threads_count(self) -> int:
        """Threads of this process, from the kernel, through a descriptor that is open already."""
        for line in os.pread(self._self_status, BUFFER_BYTES, 0).splitlines():
            if line.startswith(b"Threads:"):
                return int(line.split()[1])
        raise RuntimeError("/proc/self/status has no line `Threads:`")

    # --- walls ----------------------------------------------------------------------------------------------------

    def failed(self, call: str, number: int, *, is_counted: bool = True) -> None:
        """A call failed: a wall is told the first time, other errors are the connection's own, or end the server."""
        if is_counted and self.accept_errors_count is not None:
            self.accept_errors_count += 1
        if number in _WALLS:
            if (call, number) not in self._told:
                self._told.add((call, number))
                names = {"call": call, "errno": number, "name": errno.errorcode[number]}
                emit({"type": "wall", **names, "message": os.strerror(number), "open_count": self.open_count})
        elif number not in _PASSING:
            fail(HELPER, call, "for a new connection", number)

    # --- the life of a server -------------------------------------------------------------------------------------

    def ready(self, port: int, flags: str) -> None:
        """Say that connections may come. The kernel cuts the backlog at somaxconn without a word (listen(2))."""
        self.port = port
        backlog_count = min(self.backlog_count, int(_SOMAXCONN.read_text(encoding="ascii")))
        emit(
            {
                "type": "ready",
                "port": port,
                "backlog": backlog_count,
                "pid": os.getpid(),
                "model": self.model,
                "flags": flags,
            }
        )

    def commands(self) -> list[str]:
        """One read of stdin: the commands that are whole; its end is a ``quit``."""
        data = os.read(_STDIN, BUFFER_BYTES)
        if not data:
            return ["quit"]
        *lines, self._text = (self._text + data).split(b"\n")
        if len(self._text) >= _COMMAND_BYTES_MAX:
            _refuse(f"a command is at most {_COMMAND_BYTES_MAX - 1} bytes")
        words = [line.decode(errors="replace") for line in lines if line]
        for word in words:
            if word not in ("status", "quit"):
                _refuse(f"unknown command {word!r}; known: status, quit")
        return words

    def say_status(self, tasks_count: int) -> None:
        """The answer to ``status``."""
        names = ("accepted_count", "open_count", "accept_errors_count")
        counts = {name: getattr(self, name) for name in names}
        emit(
            {
                "type": "status",
                **counts,
                "tasks_count": tasks_count,
                **({"work": self.work.sums()} if self.work else {}),
            }
        )

    def leave(self) -> NoReturn:
        """Reset every connection that this process has, say ``end``, and go, whatever threads still wait."""
        os.close(_STDIN)  # its number is free now for reading the folder, also at the wall
        for entry in list(Path("/proc/self/fd").iterdir()):
            reset_at_close(int(entry.name), self.port)
        emit_end(self.accepted_count, self.dropped_count)
        os._exit(0)


_PASSING: Final = frozenset(
    {
        *(errno.EINTR, errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN, errno.ENOPROTOOPT, errno.EHOSTDOWN),
        *(errno.ENONET, errno.EHOSTUNREACH, errno.EOPNOTSUPP, errno.ENETUNREACH),
    }
)  # the new connection's own (accept(2), "Error handling")


def reset_at_close(descriptor: int, port: int) -> None:
    """Have the close of this socket be a reset, if its own port is this one; anything else is left alone."""
    with contextlib.suppress(OSError):
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return
        its_socket = socket.socket(fileno=descriptor)
        try:
            if its_socket.family == socket.AF_INET and its_socket.getsockname()[1] == port:
                its_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        finally:
            its_socket.detach()


def _refuse(text: str) -> NoReturn:
    sys.stderr.write(f"{HELPER}: {text}\n")
    sys.stderr.flush()
    os._exit(EXIT_USAGE)
