"""Births of a tree, by the kernel's events: each process and thread of it once, and nobody else's."""

from __future__ import annotations

import platform
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from conftest import cannot_run

from c10k_probe.observe import births
from c10k_probe.observe.births import Births, births_of

# Begins two processes, of which one begins another, and three threads, then waits for what stdin says, or forks on.
PROGRAM = """
import os, sys, threading
print("ready", flush=True)
for line in sys.stdin:
    for number in range(2):
        if os.fork() == 0:
            if number and os.fork() == 0:
                os._exit(0)
            while number:
                os.wait()
                break
            os._exit(0)
    for number in range(2):
        os.wait()
    threads = [threading.Thread(target=int) for _ in range(3)]
    for thread in threads:
        thread.start()
        thread.join()
    print("done", flush=True)
"""


def test_each_birth_in_a_tree_is_counted_and_no_other() -> None:
    """Those that ended at once too; of two programs that do the same only the one's."""
    with subprocess_of_births() as own, subprocess_of_births() as other:
        counter = births_of([own.pid])
        if counter is None:
            cannot_run(f"the kernel tells of no forks here (proc connector, Linux 6.6; this is {platform.release()})")
        with counter:
            assert counter.count() == 0
            for times, process in ((1, own), (1, other), (2, own)):
                assert process.stdin is not None and process.stdout is not None
                process.stdin.write("go\n" * times)
                process.stdin.flush()
                assert [process.stdout.readline() for _ in range(times)] == ["done\n"] * times
            assert counter.count() == 3 * 6


def subprocess_of_births() -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def told(what: int, *pids: int) -> bytes:
    """A message as the kernel sends it: nlmsghdr, cn_msg, proc_event."""
    event = births._EVENT.pack(what, 0, 0) + births._PIDS.pack(*pids)
    return (
        births._HEADER.pack(16 + 20 + len(event), 3, 0, 0, 0)
        + births._CONNECTOR.pack(1, 1, 0, 0, len(event), 0)
        + event
    )


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Births]:
    left, right = socket.socketpair()
    right.setblocking(False)
    monkeypatch.setattr(births, "_listening", lambda: right)
    with left, Births([10]) as made:
        yield made


def test_who_belongs_to_a_tree(counter: Births) -> None:
    messages = [
        (0x1, 10, 10, 11, 11),  # its child
        (0x1, 11, 11, 12, 12),  # and that one's
        (0x1, 9, 9, 13, 10),  # a thread of it: told as a child of its parent
        (0x1, 9, 9, 14, 9),  # a thread of its parent
        (0x1, 9, 9, 15, 15),  # another child of its parent
        (0x1, 9, 9, 12, 12),  # a number given again, to somebody else
        (0x1, 12, 12, 16, 16),  # whose child this is
        (0x2, 10, 10, 0, 0),  # no birth
    ]
    for what, *pids in messages:
        counter._take(told(what, *pids))
    counter._take(b"short")
    assert counter._count == 3


def test_what_may_have_been_missed_is_no_count(counter: Births, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([OSError(105, "No buffer space available"), BlockingIOError()])

    class Overflowing:
        def recv(self, _: int) -> bytes:
            raise next(answers)

    counter._take(told(0x1, 10, 10, 11, 11))
    with monkeypatch.context() as patch:
        patch.setattr(counter, "_socket", Overflowing())
        assert counter.count() is None


def test_an_older_kernel_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(births.platform, "release", lambda: "6.1.0-18-amd64")
    assert births_of([1]) is None
