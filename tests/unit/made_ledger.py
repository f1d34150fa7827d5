"""Readings of a made-up server and client: what one more connection adds is known, part by part."""

from __future__ import annotations

import dataclasses
import os

from c10k_probe import stats
from c10k_probe.observe import memory, sockets, tree
from c10k_probe.observe.ledger import KERNEL_STACK_BYTES, TASK_FRAGMENT_BYTES, Ledger, Reading

PAGE = os.sysconf("SC_PAGESIZE")
COUNTS = (0, 125, 250, 500, 1000, 2000)
END = stats.Interval(4_000.0, 3_990.0, 4_010.0)
NOTHING = tree.read_tree(2**22 + 7)
# What one more connection of a made-up server adds, both ends: a task with a private page, two caches and its page.
PRIVATE, SHARED, TABLES, TCP, DENTRY, CLIENT = 4096, 100, 50, 6_000, 3_000, 10
ELSEWHERE = 700


def reading(count: int, **buffers: int) -> Reading:
    """Both ends with so many connections."""
    pss = 100_000 + count * (PRIVATE + SHARED)
    server = dataclasses.replace(
        NOTHING,
        processes_count=1,
        tasks_count=1 + count,
        read_count=1,
        chosen_count=1,
        pss_bytes=pss,
        private_bytes=50_000 + count * PRIVATE,
        page_table_bytes=8192 + count * TABLES,
    )
    client = dataclasses.replace(
        NOTHING,
        processes_count=1,
        read_count=1,
        chosen_count=1,
        pss_bytes=9_000 + count * CLIENT,
        private_bytes=9_000,
        page_table_bytes=PAGE,
    )
    objects = {"TCP": 10**6 + count * TCP, "dentry": 10**7 + count * DENTRY}
    data = sum(buffers.values()) * count
    used = count * (PRIVATE + SHARED + CLIENT + TABLES + TCP + DENTRY + KERNEL_STACK_BYTES + TASK_FRAGMENT_BYTES)
    kernel = dataclasses.replace(
        memory.KernelMemory(*[None] * 8),
        slab_bytes=2 * 10**7 + count * (TCP + DENTRY) + 8 * count,
        kernel_stack_bytes=16_000 + count * KERNEL_STACK_BYTES,
        page_tables_bytes=10**6 + count * TABLES,
        percpu_bytes=5_000,
        tcp_bytes=data,
        unnamed_bytes=70_000 + count * TASK_FRAGMENT_BYTES + data,
        spare_bytes=10**9 - used - data - count * (8 + ELSEWHERE),
        slab_caches=objects,
        slab_object_bytes={"TCP": 2_000, "dentry": 192},
    )
    return Reading(
        count,
        server,
        (client,),
        kernel,
        sockets.Buffers(count, 0, 0, buffers.get("server", 0) * count),
        sockets.Buffers(count, 0, 0, buffers.get("client", 0) * count),
    )


def ledger(**buffers: int) -> Ledger:
    return Ledger(END, [reading(count, **buffers) for count in COUNTS])
