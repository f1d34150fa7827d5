"""Blocking calls alone: when read and write return, with another task that writes or reads after a delay.

Timed: from just before the call to just after it, CLOCK_MONOTONIC, in a thread of this process; the other task is a
thread, too. Sources: read(2), write(2), unix(7), signal(7), pthread_kill(3).
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from c10k_probe.experiment import Cell, Samples

_SMALL_BYTES: Final = 1 << 10
_LARGE_BYTES: Final = 16 << 20


class _Interrupted(Exception):
    """Raised by the handler, so that Python does not go on waiting (PEP 475)."""


def call(cell: Cell, block: int) -> Samples:
    """One call: how long it blocked, how long after the other end's act it returned, and whether as it should."""
    name, delay_s = str(cell.key["model"]), int(cell.key["delay_ns"]) / 1e9
    ours, theirs = socket.socketpair()
    with ours, theirs:
        taken_ns, after_ns, is_as_said = _CALLS[name](ours, theirs, delay_s)
    values = {"blocked": [taken_ns]} | ({} if after_ns is None else {"after": [after_ns]})
    return Samples({**cell.key, "concurrency_count": 1}, block, values, {"failed_count": 0 if is_as_said else 1})


Outcome = tuple[int, int | None, bool]


def _timed(act: Callable[[], object], other: Callable[[], object], delay_s: float) -> tuple[int, int, object]:
    """(how long the call took, how long after the other's act it returned, what it gave)."""
    acted_ns: list[int] = []

    def do_late() -> None:
        time.sleep(delay_s)
        acted_ns.append(time.monotonic_ns())
        other()

    thread = threading.Thread(target=do_late)
    began_ns = time.monotonic_ns()
    thread.start()
    try:
        result = act()
    finally:
        ended_ns = time.monotonic_ns()
        thread.join()
    return ended_ns - began_ns, ended_ns - acted_ns[0], result


def _read_data(ours: socket.socket, theirs: socket.socket, delay_s: float) -> Outcome:
    taken, after, data = _timed(lambda: ours.recv(1), lambda: theirs.send(b"x"), delay_s)
    return taken, after, data == b"x" and after >= 0


def _read_end(ours: socket.socket, theirs: socket.socket, delay_s: float) -> Outcome:
    taken, after, data = _timed(lambda: ours.recv(1), lambda: theirs.shutdown(socket.SHUT_WR), delay_s)
    return taken, after, data == b"" and after >= 0


def _read_signal(ours: socket.socket, theirs: socket.socket, delay_s: float) -> Outcome:
    """The handler runs in the main thread, so this call must be made there; elsewhere it cannot be tried."""

    def interrupt(number: int, frame: object) -> None:
        raise _Interrupted

    def receive() -> bool:
        try:
            ours.recv(1)
        except _Interrupted:
            return True
        return False

    before = signal.signal(signal.SIGUSR2, interrupt)
    try:
        caller = threading.get_ident()
        taken, after, is_interrupted = _timed(receive, lambda: signal.pthread_kill(caller, signal.SIGUSR2), delay_s)
    finally:
        signal.signal(signal.SIGUSR2, before)
    return taken, after, bool(is_interrupted) and after >= 0


def _write_small(ours: socket.socket, theirs: socket.socket, delay_s: float) -> Outcome:
    """Nobody reads: it must be back before anybody could have."""
    began_ns = time.monotonic_ns()
    sent = os.write(ours.fileno(), bytes(_SMALL_BYTES))
    return time.monotonic_ns() - began_ns, None, sent == _SMALL_BYTES


def _write_large(ours: socket.socket, theirs: socket.socket, delay_s: float) -> Outcome:
    def read_all() -> None:
        left = _LARGE_BYTES
        while left > 0:
            left -= len(theirs.recv(1 << 20))

    taken, after, sent = _timed(lambda: os.write(ours.fileno(), bytes(_LARGE_BYTES)), read_all, delay_s)
    return taken, after, sent == _LARGE_BYTES and after >= 0


_CALLS: Final[dict[str, Callable[[socket.socket, socket.socket, float], Outcome]]] = {
    "read: data": _read_data,
    "read: end": _read_end,
    "read: signal": _read_signal,
    "write 1 KiB: fits": _write_small,
    "write 16 MiB: reader": _write_large,
}
