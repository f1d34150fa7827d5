"""A series of readings: a tree that is too dear to be read while the load lasts is read once, when that is over."""

from __future__ import annotations

import socket

import pytest
from observing import running, wait_until

from c10k_probe.observe import tree
from c10k_probe.observe.series import Series

TWO = """
import os, signal, time
child = os.fork()
if not child:
    signal.pause()
signal.signal(signal.SIGTERM, lambda *_: (os.kill(child, signal.SIGKILL), os.waitpid(child, 0)))
print("ready", flush=True)
while True:
    signal.pause()
"""
NEVER_ENOUGH_S = 1e-9
ENOUGH_S = 1e6


@pytest.mark.parametrize(("window_s", "while_it_lasts", "at_the_end"), [(NEVER_ENOUGH_S, 0, 1), (ENOUGH_S, 1, 0)])
def test_memory_is_read_meanwhile_or_at_the_end(window_s: float, while_it_lasts: int, at_the_end: int) -> None:
    with running(TWO) as process, socket.create_server(("127.0.0.1", 0)) as listener:
        series = Series(process.pid, listener.getsockname()[1], window_s=window_s)

        def has_one() -> bool:
            series.take()
            return len(series.sockets) > 0

        wait_until(has_one)
        assert len(series.memory) == while_it_lasts
        assert series.until_next_s() < ENOUGH_S  # the sockets go on

        series.take_last()

        assert len(series.memory) == while_it_lasts + at_the_end
        assert [item.processes_count for item in series.memory] == [2]
        assert all(item.pss_bytes > 0 for item in series.memory)


def test_what_has_shrunk_is_no_memory_of_the_load() -> None:
    with running(TWO) as process, socket.create_server(("127.0.0.1", 0)) as listener:
        series = Series(process.pid, listener.getsockname()[1], window_s=NEVER_ENOUGH_S)
        process.terminate()
        wait_until(lambda: len(list(tree.session_pids(process.pid))) == 1)

        series.take_last()

        assert series.memory == []
