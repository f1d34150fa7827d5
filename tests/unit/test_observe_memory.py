"""Memory of the kernel: slab that grows and settles, as psutil and slabtop say it, and what is spare."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from conftest import cannot_run
from observing import make_process, output, write

from c10k_probe.observe import memory

psutil: Any = pytest.importorskip("psutil")


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
