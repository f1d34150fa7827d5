"""Readers of /proc and netlink: known answers from real processes and sockets, odd kernels made of files."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import cannot_run

from c10k_probe.observe import counters, memory, sockets, tree

psutil: Any = pytest.importorskip("psutil")
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def require_tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        cannot_run(f"{name} is not installed")
    return str(path)


def output(*command: str) -> str:
    require_tool(command[0])
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def wait_until(is_true: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.01)


@contextlib.contextmanager
def running(program: str) -> Iterator[subprocess.Popen[str]]:
    """A Python program in a session of its own that has said it is ready; all of it is killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", program], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


CHILDREN = """
import os, signal
for _ in range(23):
    if not os.fork(): signal.pause()
print("ready", flush=True); signal.pause()
"""
THREADS = """
import signal, threading
for _ in range(5): threading.Thread(target=threading.Event().wait, daemon=True).start()
print("ready", flush=True); signal.pause()
"""
ZOMBIES = """
import os, signal
for _ in range(3):
    if not os.fork(): os._exit(0)
print("ready", flush=True); signal.pause()
"""
BURNED = """
import os, signal, time
def burn(until):
    while time.process_time() < until: pass
if not os.fork(): burn(0.3); os._exit(0)
os.wait(); burn(0.2)
print("ready", flush=True); signal.pause()
"""


def test_23_children_are_23() -> None:
    with running(CHILDREN) as process:
        reading = tree.read_tree(process.pid)
        assert (reading.processes_count, reading.tasks_count, reading.read_count) == (24, 24, 24)
        assert reading.is_complete and reading.zombies_count == 0
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        assert tree.session_pids(process.pid) == sorted(member.pid for member in family)
        assert not tree.session_is_empty(process.pid)
    wait_until(lambda: tree.read_tree(process.pid).processes_count == 0)


def test_members_agree_with_ps() -> None:
    require_tool("ps")
    with running(CHILDREN) as process:
        listed = output("ps", "-o", "pid=", "-s", str(process.pid)).split()
        assert tree.session_pids(process.pid) == sorted(map(int, listed))


def test_memory_agrees_with_psutil() -> None:
    with running(CHILDREN) as process:
        # The children may still be on their way to pause(): wait until all of them sleep.
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children()]
        wait_until(lambda: all(member.status() == psutil.STATUS_SLEEPING for member in family))
        reading = tree.read_tree(process.pid)
        infos = [member.memory_full_info() for member in family]
        # psutil adds up smaps by mapping, which rounds each PSS to a whole KiB.
        assert reading.pss_bytes == pytest.approx(sum(info.pss for info in infos), rel=0.05)
        assert reading.private_bytes == pytest.approx(sum(info.uss for info in infos), rel=0.05)
        assert reading.pss_bytes and reading.private_bytes and reading.rss_bytes
        assert reading.private_bytes <= reading.pss_bytes <= reading.rss_bytes
        tables = [Path(f"/proc/{member.pid}/status").read_text() for member in family]
        kilobytes = sum(int(text.partition("VmPTE:")[2].split()[0]) for text in tables)
        assert reading.page_table_bytes == kilobytes * 1024


def test_switches_of_all_threads_are_counted() -> None:
    with running(THREADS) as process:
        threads = [psutil.Process(process.pid), *map(psutil.Process, _thread_ids(process.pid))]
        wait_until(lambda: all(member.status() == psutil.STATUS_SLEEPING for member in threads))
        reading = tree.read_tree(process.pid)
        assert (reading.processes_count, reading.tasks_count) == (1, 6)
        counts = [psutil.Process(thread).num_ctx_switches() for thread in _thread_ids(process.pid)]
        assert reading.voluntary_switches_count == sum(count.voluntary for count in counts)
        assert reading.involuntary_switches_count == sum(count.involuntary for count in counts)


def _thread_ids(pid: int) -> list[int]:
    return [thread.id for thread in psutil.Process(pid).threads()]


def test_zombies_are_counted_apart() -> None:
    with running(ZOMBIES) as process:
        wait_until(lambda: tree.read_tree(process.pid).zombies_count == 3)
        reading = tree.read_tree(process.pid)
        assert (reading.processes_count, reading.tasks_count) == (1, 1) and reading.is_complete
        assert tree.session_pids(process.pid) == [process.pid]


def test_cpu_holds_children_that_were_waited_for() -> None:
    with running(BURNED) as process:
        reading = tree.read_tree(process.pid)
        times = psutil.Process(process.pid).cpu_times()
        assert reading.cpu_user_s is not None and reading.cpu_system_s is not None and reading.cpu_run_s is not None
        total_s = times.user + times.system + times.children_user + times.children_system
        assert reading.cpu_user_s + reading.cpu_system_s == pytest.approx(total_s, abs=2 * TICK_S)
        # 0.3 s + 0.2 s and the start of the interpreter; each of four times may lack up to a tick.
        assert reading.cpu_user_s + reading.cpu_system_s > 0.5 - 4 * TICK_S
        assert reading.cpu_run_s >= reading.cpu_user_s + reading.cpu_system_s - 1e-9


def test_nothing_read_is_unknown() -> None:
    reading = tree.read_tree(2**22 + 7)
    assert (reading.processes_count, reading.tasks_count, reading.read_count) == (0, 0, 0)
    assert reading.pss_bytes is None and reading.cpu_user_s is None and not reading.is_complete
    assert tree.session_is_empty(2**22 + 7)


def make_process(proc: Path, pid: int, session: int, *, state: str = "(x) S", threads: int = 1) -> Path:
    """A process made of files; `state` is its name in brackets and its state."""
    numbers = f"1 1 {session} 0 -1 0 0 0 0 0 100 50 30 20 20 0 {threads} 0 5 0 0"
    write(proc / str(pid) / "stat", f"{pid} {state} {numbers}\n")
    return proc / str(pid)


STATUS = "Name:\tx\nVmPTE:\t      40 kB\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t2\n"
ROLLUP = "0-1 ---p 0 0:0 0 [rollup]\nRss:  100 kB\nPss:  50 kB\nPrivate_Clean:  4 kB\nPrivate_Dirty:  6 kB\n"


def test_names_with_brackets_and_processes_that_vanish(tmp_path: Path) -> None:
    whole = make_process(tmp_path, 10, 10, state="(a) S (b 1 2) S")
    write(whole / "status", STATUS)
    write(whole / "smaps_rollup", ROLLUP)
    write(whole / "schedstat", "2500000000 0 3\n")
    make_process(tmp_path, 11, 10)  # gone before its status was read
    write(make_process(tmp_path, 12, 10) / "status", STATUS)  # gone before its memory was read
    write(make_process(tmp_path, 13, 99) / "status", STATUS)  # of another session
    write(tmp_path / "14/stat", "14 (half")
    reading = tree.read_tree(10, tmp_path)
    assert (reading.processes_count, reading.read_count, reading.is_complete) == (2, 1, False)
    assert (reading.pss_bytes, reading.private_bytes, reading.rss_bytes) == (51200, 10240, 102400)
    assert (reading.voluntary_switches_count, reading.involuntary_switches_count) == (14, 4)
    assert reading.page_table_bytes == 2 * 40 * 1024
    assert reading.cpu_user_s == pytest.approx(2 * 130 * TICK_S)
    # 2.5 s of the scheduler for the one, 150 ticks for the other, and the children of both
    assert reading.cpu_run_s == pytest.approx(2.5 + 150 * TICK_S + 2 * 50 * TICK_S)


def test_a_leader_that_ended_before_its_threads_is_alive(tmp_path: Path) -> None:
    process = make_process(tmp_path, 10, 10, state="(x) Z", threads=2)
    write(process / "status", "Name:\tx\n")
    write(process / "task/11/status", STATUS)
    make_process(tmp_path, 12, 10, state="(x) Z")
    reading = tree.read_tree(10, tmp_path)
    assert (reading.processes_count, reading.tasks_count, reading.zombies_count) == (1, 2, 1)
    assert reading.voluntary_switches_count == 7


SLABINFO = """slabinfo - version: 2.1
# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables
TCP               {tcp}  20  2432  13  8 : tunables 0 0 0 : slabdata 0 0 0
dentry            1000  2000  192  21  1 : tunables 0 0 0 : slabdata 0 0 0
"""
MEMINFO = "Slab: {slab} kB\nSReclaimable: 60 kB\nSUnreclaim: 40 kB\nPageTables: 7 kB\nKernelStack: 5 kB\n"


def make_memory(proc: Path, *, slab: int, tcp: int | None) -> memory.KernelMemory:
    write(proc / "meminfo", MEMINFO.format(slab=slab))
    if tcp is not None:
        write(proc / "slabinfo", SLABINFO.format(tcp=tcp))
    return memory.read_kernel_memory(proc)


def test_slab_growth_by_cache(tmp_path: Path) -> None:
    before, after = make_memory(tmp_path, slab=100, tcp=10), make_memory(tmp_path, slab=200, tcp=13)
    assert before.slab_active_bytes == 10 * 2432 + 1000 * 192
    assert memory.slab_growth(before, after) == memory.SlabGrowth(3 * 2432, {"TCP": 3 * 2432}, "slabinfo")
    assert (after.page_tables_bytes, after.kernel_stack_bytes, after.percpu_bytes) == (7168, 5120, None)


def test_slab_growth_without_slabinfo_is_that_of_pages(tmp_path: Path) -> None:
    before, after = (
        make_memory(tmp_path / "a", slab=100, tcp=None),
        make_memory(tmp_path / "b", slab=90, tcp=5),
    )
    assert before.slab_caches is None and before.slab_active_bytes == 100 * 1024
    assert memory.slab_growth(before, after) == memory.SlabGrowth(-10 * 1024, {}, "meminfo")
    nothing = memory.read_kernel_memory(tmp_path / "none")
    assert nothing.slab_active_bytes is None
    assert memory.slab_growth(nothing, after) == memory.SlabGrowth(None, {}, None)


def fake_slab(monkeypatch: pytest.MonkeyPatch, *sizes: int | None) -> None:
    """Readings of slab in turn, the last one for ever, and a clock that only sleep() moves."""
    readings, now_s = list(sizes), [0.0]

    def read(_: Path) -> memory.KernelMemory:
        size = readings.pop(0) if len(readings) > 1 else readings[0]
        return memory.KernelMemory(size, *[None] * 7)

    class Clock:
        monotonic = staticmethod(lambda: now_s[0])

        @staticmethod
        def sleep(duration_s: float) -> None:
            now_s[0] += duration_s

    monkeypatch.setattr(memory, "read_kernel_memory", read)
    monkeypatch.setattr(memory, "time", Clock)


def test_settle_waits_while_slab_falls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_slab(monkeypatch, 10_000_000, 8_000_000, 7_000_000, 6_999_000)
    settled = memory.settle(proc_root=tmp_path)
    assert (settled.is_settled, settled.slab_active_bytes) == (True, 6_999_000)
    assert settled.waited_s == pytest.approx(0.4)


def test_settle_goes_by_what_falls_and_not_by_how_much_slab_there_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A gigabyte of others' files hides no fall of half a megabyte; one calm reading amid a fall is chance."""
    whole = 10**9
    fake_slab(monkeypatch, whole, *(whole - 500_000 * step for step in (1, 2, 2, 3, 4, 4, 3)))
    settled = memory.settle(proc_root=tmp_path)
    assert (settled.is_settled, settled.slab_active_bytes) == (True, whole - 1_500_000)
    assert settled.waited_s == pytest.approx(0.7)


def test_settle_gives_up_at_the_deadline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_slab(monkeypatch, *(10_000_000 - 100_000 * step for step in range(50)))
    settled = memory.settle(1.0, proc_root=tmp_path)
    assert not settled.is_settled
    assert settled.waited_s == pytest.approx(1.0, abs=0.11)


def test_settle_waits_for_orphans_that_nobody_has_reaped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    make_process(tmp_path, 10, 10, state="(x) Z")
    fake_slab(monkeypatch, 10_000_000)
    assert not memory.settle(sessions=[10], proc_root=tmp_path).is_settled
    assert memory.settle(sessions=[11], proc_root=tmp_path).is_settled


def test_settle_without_a_reading_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_slab(monkeypatch, None)
    assert memory.settle(proc_root=tmp_path) == memory.Settled(False, 0.0, None)


def test_kernel_memory_agrees_with_psutil_and_slabtop() -> None:
    reading = memory.read_kernel_memory()
    assert reading.slab_bytes and reading.memory_free_bytes and reading.memory_available_bytes
    assert reading.slab_bytes == pytest.approx(psutil.virtual_memory().slab, rel=0.1)
    assert reading.memory_available_bytes == pytest.approx(psutil.virtual_memory().available, rel=0.1)
    if reading.slab_caches is None:
        cannot_run("/proc/slabinfo cannot be read")
    assert 0.3 < sum(reading.slab_caches.values()) / reading.slab_bytes < 1.5
    assert any(abs(ours / theirs - 1) < 0.3 for ours, theirs in map(task_struct_bytes, range(20)))


def task_struct_bytes(_: int) -> tuple[int, float]:
    """What we and slabtop say of one cache, one after the other: tasks may come and go between the two readings."""
    ours = (memory.read_kernel_memory().slab_caches or {})["task_struct"]
    (words,) = [line.split() for line in output("slabtop", "-o", "-s", "n").splitlines() if " task_struct" in line]
    return ours, int(words[1]) * float(words[3][:-1]) * 1024


def test_a_thousand_sockets_are_seen_in_slab() -> None:
    before = memory.read_kernel_memory()
    if before.slab_caches is None:
        cannot_run("/proc/slabinfo cannot be read")
    with contextlib.ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(socket.socket())
        growth = memory.slab_growth(before, memory.read_kernel_memory())
    assert growth.source == "slabinfo"
    assert growth.by_cache["TCP"] > 800 * 1500


@contextlib.contextmanager
def connected(count: int) -> Iterator[int]:
    """`count` established connections on a port of the kernel's choice."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        for _ in range(count):
            stack.enter_context(socket.create_connection(listener.getsockname()))
            stack.enter_context(listener.accept()[0])
        yield listener.getsockname()[1]


@pytest.mark.parametrize(("use_netlink", "source"), [(True, "netlink"), (False, "/proc/net/tcp")])
def test_23_connections_are_23(use_netlink: bool, source: str) -> None:
    with connected(23) as port, connected(5):
        assert sockets.read_established(port, use_netlink=use_netlink) == sockets.SocketCount(23, source)
        assert sockets.established_count(port) == 23
    assert sockets.established_count(port) == 0


def test_established_agrees_with_ss() -> None:
    with connected(23) as port:
        lines = output("ss", "-Htn", "state", "established", f"( sport = :{port} )").splitlines()
        assert sockets.established_count(port) == len(lines) == 23


@pytest.mark.parametrize("use_netlink", [True, False])
def test_accept_queue(use_netlink: bool) -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=8))
        port = listener.getsockname()[1]
        for _ in range(3):
            stack.enter_context(socket.create_connection(listener.getsockname()))
        queue = sockets.listen_queue(port, use_netlink=use_netlink)
        assert queue is not None
        assert (queue.queued_count, queue.backlog_count) == (3, 8 if use_netlink else None)
    assert sockets.listen_queue(port, use_netlink=use_netlink) is None


class Refused:
    """A kernel without sock_diag."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise OSError("no such family")


def test_without_netlink_the_text_list_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with connected(3) as port:
        monkeypatch.setattr(socket, "socket", Refused)
        assert sockets.read_established(port) == sockets.SocketCount(3, "/proc/net/tcp")
        assert sockets.read_established(port, proc_root=tmp_path) == sockets.SocketCount(None, None)
        assert sockets.established_count(port, proc_root=tmp_path) is None
        assert sockets.listen_queue(port, proc_root=tmp_path) is None
        monkeypatch.undo()


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_that_cannot_be(port: int) -> None:
    with pytest.raises(ValueError, match="not in"):
        sockets.established_count(port)


def test_counters_see_forks_and_overflows() -> None:
    before = counters.read_counters()
    for _ in range(23):
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1))
        for _ in range(10):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        delta = counters.counters_delta(before, counters.read_counters())
    assert delta.forks_count is not None and delta.forks_count >= 23
    assert delta.context_switches_count is not None and delta.context_switches_count > 0
    assert delta.listen_overflows_count is not None and delta.listen_overflows_count >= 1
    assert delta.listen_drops_count is not None and delta.listen_drops_count >= delta.listen_overflows_count
    assert delta.time_s > 0


def test_counters_agree_with_nstat() -> None:
    """Where nobody else's overflow came between two readings of ours."""
    agreed = ("listen_overflows_count", "syn_cookies_sent_count")
    before, after, shown = None, [counters.read_counters().as_dict()[name] for name in agreed], {}
    while before != after:
        text = output("nstat", "-asz")
        shown = dict(line.split()[:2] for line in text.splitlines() if line.startswith("TcpExt"))
        before, after = after, [counters.read_counters().as_dict()[name] for name in agreed]
    assert after == [int(shown["TcpExtListenOverflows"]), int(shown["TcpExtSyncookiesSent"])]


def test_counters_of_a_made_up_kernel(tmp_path: Path) -> None:
    write(tmp_path / "stat", "cpu  100 10 20 1000 30 4 6 25 50 5\ncpu0 1 2\nctxt 77\nprocesses 5\n")
    write(tmp_path / "net/netstat", "TcpExt: ListenOverflows ListenDrops\nTcpExt: 3 4\nIpExt: A\nIpExt: 1\n")
    reading = counters.read_counters(tmp_path)
    assert reading.cpu_busy_s == pytest.approx(140 * TICK_S)
    assert reading.cpu_total_s == pytest.approx(1195 * TICK_S)
    assert (reading.cpu_steal_s, reading.forks_count) == (25 * TICK_S, 5)
    assert (reading.listen_drops_count, reading.tcp_timeouts_count) == (4, None)
    nothing = counters.read_counters(tmp_path / "none")
    assert set(nothing.as_dict().values()) == {None, nothing.time_s}


def test_a_large_tree_is_read_by_a_sample_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The leader and 12 of 23 children: like children, so that the scaled sums are those of all."""
    with running(CHILDREN) as process:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children()]
        wait_until(lambda: all(member.status() == psutil.STATUS_SLEEPING for member in family))
        whole = tree.read_tree(process.pid)
        monkeypatch.setattr(tree, "SAMPLED_ABOVE", 10)
        monkeypatch.setattr(tree, "SAMPLE_COUNT", 12)
        part = tree.read_tree(process.pid)
    assert (whole.read_count, whole.chosen_count, whole.pss_doubt_bytes) == (24, 24, 0)
    assert (part.processes_count, part.tasks_count, part.read_count, part.chosen_count) == (24, 24, 13, 13)
    assert part.is_complete and part.page_table_bytes == whole.page_table_bytes
    for name in ("pss_bytes", "private_bytes", "rss_bytes"):
        assert getattr(part, name) == pytest.approx(getattr(whole, name), rel=0.02)
    assert whole.shared_bytes == (whole.pss_bytes or 0) - (whole.private_bytes or 0)


def test_the_doubt_about_a_sample_is_that_of_its_scatter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Leader of 1 KiB, four others of 10, 20, 10, 20 KiB of which two are read: 30 for 60, plus or minus 27.7."""
    for index, size in enumerate((1, 10, 20, 10, 20)):
        process = make_process(tmp_path, 10 + index, 10)
        write(process / "status", STATUS)
        write(process / "smaps_rollup", ROLLUP.replace("Pss:  50", f"Pss:  {size}"))
    monkeypatch.setattr(tree, "SAMPLED_ABOVE", 3)
    monkeypatch.setattr(tree, "SAMPLE_COUNT", 2)
    monkeypatch.setattr(tree, "_process_paths", lambda root: (os.fsencode(root / str(pid)) for pid in range(10, 15)))
    reading = tree.read_tree(10, tmp_path)
    assert reading.pss_bytes == (1 + 2 * 20) * 1024  # the first and third of the others: 10 and 10
    assert reading.pss_doubt_bytes == 0
    write(tmp_path / "13/smaps_rollup", ROLLUP.replace("Pss:  50", "Pss:  20"))
    reading = tree.read_tree(10, tmp_path)
    assert reading.pss_bytes == (1 + 2 * 30) * 1024
    # 1.96 x 4 processes x a standard deviation of 7.07 x the root of half of a half
    assert reading.pss_doubt_bytes == pytest.approx(1.96 * 4 * 50**0.5 * 0.5 * 1024, abs=1024)


def test_data_in_sockets_is_found_at_the_end_that_holds_it() -> None:
    """Three of five clients leave 1,000 bytes unread; the listener is none of the connections."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = listener.getsockname()[1]
        pairs = []
        for _ in range(5):
            client = stack.enter_context(socket.create_connection(listener.getsockname()))
            pairs.append((client, stack.enter_context(listener.accept()[0])))
        before = sockets.read_buffers(port, remote=True)
        for client, server in pairs[:3]:
            server.sendall(bytes(1000))
            assert client.recv(1000, socket.MSG_PEEK | socket.MSG_WAITALL)
        ours, theirs = sockets.read_buffers(port, remote=True), sockets.read_buffers(port)
    assert before == sockets.Buffers(5, 0, 0, 0)
    assert ours is not None and theirs is not None
    assert (ours.sockets_count, ours.unread_bytes, ours.unsent_bytes) == (5, 3000, 0)
    assert (theirs.sockets_count, theirs.unread_bytes) == (5, 0)
    assert ours.charged_bytes >= 3000  # with what the kernel keeps around the data
    with pytest.raises(ValueError, match="not in"):
        sockets.read_buffers(0)


def test_buffers_without_netlink_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    with connected(1) as port:
        monkeypatch.setattr(socket, "socket", Refused)
        assert sockets.read_buffers(port) is None
        monkeypatch.undo()


def test_spare_memory_and_data_of_tcp(tmp_path: Path) -> None:
    """Free, on per-CPU lists, or holding files; sockstat counts pages."""
    page = os.sysconf("SC_PAGESIZE")
    write(tmp_path / "meminfo", "MemTotal: 900 kB\nMemFree: 100 kB\nBuffers: 20 kB\nCached: 30 kB\n")
    write(tmp_path / "zoneinfo", "Node 0\n  pagesets\n    cpu: 0\n              count: 3\n              high: 9\n")
    write(
        tmp_path / "net/sockstat", "sockets: used 17\nTCP: inuse 1 orphan 0 tw 0 alloc 1 mem 271\nUDP: inuse 0 mem 5\n"
    )
    reading = memory.read_kernel_memory(tmp_path)
    assert reading.spare_bytes == 150 * 1024 + 3 * page
    assert reading.tcp_bytes == 271 * page
    assert memory.read_kernel_memory(tmp_path / "none").spare_bytes is None
    assert memory.read_kernel_memory(tmp_path / "none").tcp_bytes is None
    real = memory.read_kernel_memory()
    assert real.spare_bytes is not None and real.memory_free_bytes is not None
    assert real.spare_bytes >= 0.9 * real.memory_free_bytes
