"""Trees of processes: known answers from real ones, odd kernels made of files, samples of large ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from observing import TICK_S, make_process, output, require_tool, running, wait_until, write

from c10k_probe.observe import tree

psutil: Any = pytest.importorskip("psutil")


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
