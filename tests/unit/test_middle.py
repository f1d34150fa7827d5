"""The steady middle of a load: known answers from made looks, and the machine's own files and processes."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path

import pytest

from c10k_probe.observe import middle, sockets, tree
from c10k_probe.observe.middle import Look, MiddleWatch, Watched, idle_s

TEXT = """cpu  90 1 30 3000 70 2 5 0 0 0
cpu0 40 0 10 1000 50 1 2 0 0 0
cpu1 50 1 20 2000 20 1 3 0 0 0
intr 12345
"""
NEW = Watched(1, 2, cpus=[0, 1])  # each request on a connection of its own
KEPT = Watched(1, 2, cpus=[0], request_bytes=40)


def look(at_s: float, idle: float | None = 0.0, received: dict[int, int] | None = None, opened: int | None = 0) -> Look:
    return Look(
        at_s, idle, server_cpu_s=at_s * 0.8, load_cpu_s=at_s * 0.3, received_bytes=received, opened_count=opened
    )


def test_idle_time_is_idle_and_iowait_of_the_cpus_that_were_asked_for() -> None:
    assert idle_s(TEXT, [0], 100) == 10.5
    assert idle_s(TEXT, [1], 100) == 20.2
    assert idle_s(TEXT, [0, 1], 100) == pytest.approx(30.7)
    assert idle_s(TEXT, [0, 7], 100) is None, "a CPU that is not there is not idle"
    assert idle_s(TEXT, [], 100) is None


def test_shares_are_of_the_time_between_the_looks_and_requests_those_that_came_then() -> None:
    found = NEW.between(look(10.0, 1.0, opened=500), look(10.5, 1.2, opened=800))
    assert (found.elapsed_s, found.requests_count) == (0.5, 300)
    assert found.idle_pct == pytest.approx(100 * 0.2 / (0.5 * 2)), "of two CPUs"
    assert (found.server_cpu_pct, found.load_cpu_pct) == (pytest.approx(80), pytest.approx(30))


@pytest.mark.parametrize(
    ("before", "after", "count"),
    [
        ({1: 40, 2: 80}, {1: 400, 2: 480}, 19),
        ({1: 40, 2: 80}, {1: 400, 3: 480}, None),  # one went and another came
        ({1: 40}, {1: 401}, None),  # something else was sent on it
        ({}, {}, None),
        (None, {1: 400}, None),
    ],
)
def test_requests_on_kept_connections_are_the_bytes_they_received(
    before: dict[int, int] | None, after: dict[int, int] | None, count: int | None
) -> None:
    assert KEPT.between(look(1, received=before), look(2, received=after)).requests_count == count


def test_what_one_of_the_looks_did_not_tell_is_not_known() -> None:
    found = NEW.between(look(1, None, opened=None), look(2, 1.0, opened=7))
    assert (found.idle_pct, found.requests_count) == (None, None)


def test_a_watch_looks_at_either_moment_and_never_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(middle.time, "monotonic", lambda: clock[-1])
    monkeypatch.setattr(Watched, "look", lambda _: look(clock[-1], idle=clock[-1] / 2, opened=round(10 * clock[-1])))
    watch = MiddleWatch(NEW, 0.25, 0.75)
    assert watch.until_next_s() == 0.25
    watch.look()
    assert watch.until_next_s() == 0.25, "too early: nothing was looked at"
    for now_s in (100.3, 100.8):
        clock.append(now_s)
        assert watch.result() is None
        watch.look()
    assert watch.until_next_s() == float("inf")
    clock.append(105.0)
    watch.look()
    found = watch.result()
    assert found is not None
    assert (found.elapsed_s, found.requests_count, found.idle_pct) == (pytest.approx(0.5), 5, pytest.approx(25))


def test_the_machine_tells_all_of_it_of_this_process() -> None:
    """A look at ourselves, at a port on which nobody is: CPU time that we spend, and no connections."""
    watched = Watched(os.getsid(0), 1, load_pid=os.getpid(), cpus=sorted(os.sched_getaffinity(0)), request_bytes=40)
    before, began_s = watched.look(), time.process_time()
    while time.process_time() - began_s < 0.02:
        pass
    after = watched.look()
    assert after.load_cpu_s is not None
    assert before.load_cpu_s is not None
    assert 0.02 <= after.load_cpu_s - before.load_cpu_s < 1
    assert after.server_cpu_s is not None
    assert after.server_cpu_s >= after.load_cpu_s, "the session has this process in it"
    assert after.received_bytes == {}
    assert (sockets.passive_opens_count() or 0) > 0
    text = Path("/proc/stat").read_text(encoding="ascii")
    assert all(idle_s(text, [cpu], os.sysconf("SC_CLK_TCK")) is not None for cpu in os.sched_getaffinity(0))


def test_bytes_that_a_connection_received_are_told_by_its_cookie() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        opened_count = sockets.passive_opens_count()
        assert sockets.received_bytes(port) == {}
        with contextlib.ExitStack() as stack:
            for count in (3, 0, 5):
                client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
                stack.enter_context(listener.accept()[0])
                client.sendall(b"x" * 40 * count)
            found = sockets.received_bytes(port, sockets.listening_families(port))
            assert found is not None
            assert sorted(found.values()) == [0, 120, 200]
            assert sockets.waiting_clients_count(port) == 2, "the third has asked nothing"
            assert opened_count is not None
            assert (sockets.passive_opens_count() or 0) >= opened_count + 3


def test_a_process_that_has_ended_has_no_clock_and_adds_nothing() -> None:
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    assert tree.session_cpu_s(os.getsid(0), [child]) == 0
    assert tree.session_cpu_s(os.getsid(0), [child, os.getpid()]) >= time.process_time() / 2 > 0
    with pytest.raises(OSError, match=r"Invalid argument|No such process"):
        tree.process_cpu_s(child)
