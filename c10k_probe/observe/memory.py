"""Memory of the kernel itself: slab, page tables, kernel stacks, per-CPU areas. It is in no process's RSS.

Sources: proc_meminfo(5), proc_slabinfo(5), proc_net(5) (sockstat). slabinfo needs root; without it the
by-cache part is unknown and the growth is that of whole slab pages. Known bias: caches keep freed objects in
per-CPU lists and empty slabs for a while, so one subtraction is off by some hundred objects; take a slope over
several counts, and settle() before.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from c10k_probe.observe.procfs import PROC, SYS, read_meminfo, read_text, to_int
from c10k_probe.observe.tree import session_is_empty

_NAMED_COUNTERS = ("Buffers", "Cached", "AnonPages", "Slab", "KernelStack", "PageTables")
_NAMED_WHERE_THERE = ("SwapCached", "SecPageTables", "Percpu", "Hugetlb")
_SPARE_COUNTERS = ("MemFree", "Buffers", "Cached")
_PROC_INODES = "proc_inode_cache"
_PROC_COMPANIONS = ("dentry", "lsm_inode_cache")
# Falling by no more than this between two readings, so many times in a row, counts as having stopped. No share of all
# slab: where other programs' files fill a gigabyte of it, a thousandth is more than a step of a ramp adds.
SETTLED_BYTES = 64 << 10
SETTLED_TIMES = 2


@dataclass(frozen=True)
class KernelMemory:
    """One reading, bytes; None is unknown.

    unnamed_bytes: in use but in no counter of /proc/meminfo, such as pages that hold socket data.
    spare_bytes: free, on a per-CPU free list, or holding a file: what a ledger of memory in use must close against.
    tcp_bytes: what TCP has charged to its sockets for data (sockstat); it lies in slab and in unnamed pages.
    slab_caches: cache -> bytes in active objects, None without slabinfo. slab_object_bytes: cache -> bytes of one.
    """

    slab_bytes: int | None
    slab_reclaimable_bytes: int | None
    slab_unreclaimable_bytes: int | None
    page_tables_bytes: int | None
    kernel_stack_bytes: int | None
    percpu_bytes: int | None
    memory_free_bytes: int | None
    memory_available_bytes: int | None
    unnamed_bytes: int | None = None
    spare_bytes: int | None = None
    tcp_bytes: int | None = None
    slab_caches: Mapping[str, int] | None = None
    slab_object_bytes: Mapping[str, int] | None = None

    @property
    def slab_active_bytes(self) -> int | None:
        """Bytes in active objects; where slabinfo cannot be read, bytes in slab pages."""
        return self.slab_bytes if self.slab_caches is None else sum(self.slab_caches.values())


class SlabGrowth(NamedTuple):
    """Change of slab memory, bytes, negative when it shrank.

    by_cache: the caches that changed, largest change first.
    source: `slabinfo` (active objects), `meminfo` (slab pages, by_cache empty), or None with bytes None.
    """

    bytes: int | None
    by_cache: Mapping[str, int]
    source: str | None


class Settled(NamedTuple):
    """How settle() ended: whether slab stopped falling in time, how long it waited, the last reading."""

    is_settled: bool
    waited_s: float
    slab_active_bytes: int | None


def read_slab_caches(proc_root: Path = PROC) -> dict[str, tuple[int, int]] | None:
    """Cache -> (active objects, bytes of one object); None when /proc/slabinfo is not ours to read."""
    text = read_text(proc_root / "slabinfo")
    if text is None or not text.startswith("slabinfo"):
        return None
    caches = {}
    for line in text.splitlines()[1:]:
        words = line.split(None, 4)
        if len(words) >= 4 and words[1].isdigit() and words[3].isdigit():
            caches[words[0]] = (int(words[1]), int(words[3]))
    return caches


def read_kernel_memory(proc_root: Path = PROC) -> KernelMemory:
    """One reading of the kernel's memory; about a millisecond with slabinfo."""
    meminfo, listed = read_meminfo(proc_root), _listed_bytes(read_text(proc_root / "zoneinfo"))
    caches = read_slab_caches(proc_root)
    return KernelMemory(
        slab_bytes=meminfo.get("Slab"),
        slab_reclaimable_bytes=meminfo.get("SReclaimable"),
        slab_unreclaimable_bytes=meminfo.get("SUnreclaim"),
        page_tables_bytes=meminfo.get("PageTables"),
        kernel_stack_bytes=meminfo.get("KernelStack"),
        percpu_bytes=meminfo.get("Percpu"),
        memory_free_bytes=meminfo.get("MemFree"),
        memory_available_bytes=meminfo.get("MemAvailable"),
        unnamed_bytes=_unnamed_bytes(meminfo, listed),
        spare_bytes=_spare_bytes(meminfo, listed),
        tcp_bytes=_tcp_bytes(read_text(proc_root / "net/sockstat")),
        slab_caches=None if caches is None else {name: count * size for name, (count, size) in caches.items()},
        slab_object_bytes=None if caches is None else {name: size for name, (_, size) in caches.items()},
    )


def _listed_bytes(zoneinfo: str | None) -> int | None:
    """Pages on the per-CPU free lists, which MemFree leaves out (mm/page_alloc.c) and zoneinfo counts."""
    if zoneinfo is None:
        return None
    free_pages = sum(int(line.split()[1]) for line in zoneinfo.splitlines() if line.lstrip().startswith("count:"))
    return free_pages * os.sysconf("SC_PAGESIZE")


def _unnamed_bytes(meminfo: Mapping[str, int], listed: int | None) -> int | None:
    """What is in use less all that meminfo names; None when a counter or the per-CPU free lists cannot be read."""
    if listed is None or not {"MemTotal", "MemFree", *_NAMED_COUNTERS} <= meminfo.keys():
        return None
    named = sum(meminfo[name] for name in (*_NAMED_COUNTERS, *_NAMED_WHERE_THERE) if name in meminfo)
    return meminfo["MemTotal"] - meminfo["MemFree"] - listed - named


def _spare_bytes(meminfo: Mapping[str, int], listed: int | None) -> int | None:
    if listed is None or not set(_SPARE_COUNTERS) <= meminfo.keys():
        return None
    return sum(meminfo[name] for name in _SPARE_COUNTERS) + listed


def _tcp_bytes(sockstat: str | None) -> int | None:
    """``TCP: inuse 5 orphan 0 tw 0 alloc 9 mem 3``, the last in pages."""
    for line in (sockstat or "").splitlines():
        if line.startswith("TCP:"):
            pages = to_int(line.rpartition(" mem ")[2])
            return None if pages is None else pages * os.sysconf("SC_PAGESIZE")
    return None


def page_directory_bytes(sys_root: Path = SYS) -> int:
    """The top level of a process's page tables, which VmPTE leaves out: a page, two with page-table isolation."""
    meltdown = read_text(sys_root / "devices/system/cpu/vulnerabilities/meltdown") or ""
    return os.sysconf("SC_PAGESIZE") * (2 if "PTI" in meltdown else 1)


def slab_growth(before: KernelMemory, after: KernelMemory) -> SlabGrowth:
    """How much slab grew from one reading to the other, by the better source that both readings have.

    Reading /proc/PID leaves an inode and a dentry for each file read, a cost of observing and not of what is
    observed; slabinfo tells them apart and they are left out, meminfo cannot.
    """
    if before.slab_caches is not None and after.slab_caches is not None:
        changes = _changes(before.slab_caches, after.slab_caches)
        changes = _without_proc_inodes(changes, after.slab_object_bytes or {})
        return SlabGrowth(sum(changes.values()), changes, "slabinfo")
    if before.slab_bytes is not None and after.slab_bytes is not None:
        return SlabGrowth(after.slab_bytes - before.slab_bytes, {}, "meminfo")
    return SlabGrowth(None, {}, None)


def _without_proc_inodes(changes: Mapping[str, int], object_bytes: Mapping[str, int]) -> dict[str, int]:
    """The changes less proc's inodes, and less the dentry and security label that comes with each of them."""
    left = dict(changes)
    inodes_count = left.pop(_PROC_INODES, 0) // max(1, object_bytes.get(_PROC_INODES, 1))
    for companion in _PROC_COMPANIONS:
        if companion in left:
            left[companion] -= inodes_count * object_bytes.get(companion, 0)
    return left


def _changes(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    changes = {name: after.get(name, 0) - before.get(name, 0) for name in before.keys() | after.keys()}
    ordered = sorted(changes.items(), key=lambda item: (-abs(item[1]), item[0]))
    return {name: change for name, change in ordered if change}


def settle(
    deadline_s: float = 2.0,
    interval_s: float = 0.1,
    *,
    sessions: Collection[int] = (),
    proc_root: Path = PROC,
) -> Settled:
    """Wait until slab has stopped falling: thrice `interval_s` apart, each time within 64 KiB of the last, or above.

    What the last cell freed must not be subtracted from the next one: sockets and tasks go back only after an
    RCU grace period and deferred work. Name the `sessions` of the last cell: orphans that nobody has reaped
    yet keep their kernel memory, and slab stands still until they are. Gives up after deadline_s.
    """
    start_s, last, calm_count = time.monotonic(), None, 0
    while True:
        now = read_kernel_memory(proc_root).slab_active_bytes
        if now is None:
            return Settled(False, time.monotonic() - start_s, None)
        is_calm = last is not None and last - now <= SETTLED_BYTES and not _any_left(sessions, proc_root)
        calm_count = calm_count + 1 if is_calm else 0
        if calm_count >= SETTLED_TIMES:
            return Settled(True, time.monotonic() - start_s, now)
        if time.monotonic() - start_s >= deadline_s:
            return Settled(False, time.monotonic() - start_s, now)
        last = now
        time.sleep(interval_s)


def _any_left(sessions: Collection[int], proc_root: Path) -> bool:
    return any(not session_is_empty(session, proc_root) for session in sessions)
