"""A program whose system calls and switches are known: run by the truth checks of tracing, never imported.

known_calls.py calls     waits for a line; 23 of each of six calls in each of two children and three threads
known_calls.py switches  waits for a line; 23 sleeps; waits for the end of its stdin
known_calls.py threads N waits for a line; N threads that live together and make 3 calls each
known_calls.py tree      a child, its child, its thread: each makes 23 calls as the very first thing it does
known_calls.py accepts N waits for a line; accepts N connections, of which it also makes the other ends
"""

from __future__ import annotations

import _thread
import ctypes
import os
import socket
import sys
import threading
import time

TIMES = 23
SIX_CALLS = (
    os.getppid,
    os.times,
    lambda: os.getpgid(0),
    lambda: os.getsid(0),
    lambda: os.getpriority(os.PRIO_PROCESS, 0),
    lambda: os.sched_getscheduler(0),
)


def six_calls() -> None:
    for _ in range(TIMES):
        for call in SIX_CALLS:
            call()


def in_child(work: object) -> None:
    pid = os.fork()
    if pid == 0:
        work()  # type: ignore[operator]
        os._exit(0)
    os.waitpid(pid, 0)


def calls() -> None:
    for _ in range(2):
        in_child(six_calls)
    threads = [threading.Thread(target=six_calls) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def switches() -> None:
    for _ in range(TIMES):
        time.sleep(0.002)
    print("done", flush=True)
    sys.stdin.readline()


def threads(count: int) -> None:
    """One after the other: thousands that wait for the interpreter's lock would keep it from moving."""
    gate, made = _thread.allocate_lock(), _thread.allocate_lock()
    gate.acquire()
    made.acquire()

    def work() -> None:
        for _ in range(3):
            os.getppid()
        made.release()
        gate.acquire()

    threading.stack_size(64 << 10)
    for _ in range(count):
        _thread.start_new_thread(work, ())
        made.acquire()
    os._exit(0)


def leaderless() -> None:
    """The first thread ends, another waits for a line."""

    def work() -> None:
        os.read(0, 1)
        os._exit(0)

    _thread.start_new_thread(work, ())
    print("done", flush=True)
    ctypes.CDLL(None).syscall(60 if os.uname().machine == "x86_64" else 93, 0)  # exit(2), of this thread alone


def tree() -> None:
    def grandchild() -> None:
        repeat(os.getsid, 0)
        thread = threading.Thread(target=repeat, args=(os.getpgid, 0))
        thread.start()
        thread.join()

    def child() -> None:
        repeat(os.getppid)
        in_child(grandchild)

    in_child(child)


def repeat(call: object, *arguments: object) -> None:
    for _ in range(TIMES):
        call(*arguments)  # type: ignore[operator]


def accepts(count: int) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=8) as listener:
        for _ in range(count):
            with socket.create_connection(listener.getsockname()), listener.accept()[0]:
                pass


if __name__ == "__main__":
    sys.stdin.readline()
    globals()[sys.argv[1]](*map(int, sys.argv[2:]))
