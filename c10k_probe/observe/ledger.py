"""The ledger of a ramp: what one more connection costs at each end, as slopes over readings that grew with the count.

Both ends of a loopback connection are on this machine and share the slab. The price of one end is calibrated apart
(``end_bytes``); the client's end is taken from the slab, the rest is the server's. Slopes, not differences: slab is
rounded to pages and kept per CPU, and shrinks late.

Some memory is in no counter: the kernel gives each task that sends an order-3 page for socket data (task_frag,
net/core/sock.c), which is 32 KiB for each thread or process that serves a connection. It shows as pages in use that
/proc/meminfo does not name, and belongs to the server: the client is a single task.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from c10k_probe import stats
from c10k_probe.observe import memory, tree

LAYOUT_PAGES: Final = 2  # page-table pages by which a process differs between launches, from where ASLR puts it
KERNEL_STACK_BYTES: Final = 16_384  # THREAD_SIZE on x86-64 and arm64
SMALLEST_SLOPE_COUNT: Final = 100  # below, the rounding of per-CPU slabs is larger than what is measured


@dataclass(frozen=True)
class Reading:
    """One look at both ends and the kernel, while nothing is sent."""

    open_count: int
    server: tree.TreeReading
    clients: tuple[tree.TreeReading, ...]
    kernel: memory.KernelMemory


@dataclass
class Ledger:
    """The readings of one ramp, from no connection on, and the price of one end."""

    end_bytes: stats.Interval | None
    readings: list[Reading] = field(default_factory=list)

    def server_slope(self) -> stats.Interval | None:
        """Bytes of the server's end of one more connection, or None while a part cannot be read.

        The interval holds the scatter of the ramp, the doubt about the price of one end, and what one launch cannot
        show: that another launch lays out its processes' page tables differently.
        """
        slope = self._slope([self._server_bytes(reading) for reading in self.readings])
        first, last = self.readings[0], self.readings[-1]
        processes = last.server.processes_count - first.server.processes_count
        layout = LAYOUT_PAGES * os.sysconf("SC_PAGESIZE") * processes / max(1, last.open_count - first.open_count)
        return _widened(slope, self._price_doubt() + layout)

    def client_slope(self) -> stats.Interval | None:
        """Bytes of the client's end of one more connection."""
        return _widened(self._slope([self._client_bytes(reading) for reading in self.readings]), self._price_doubt())

    def page_tables(self, reading: Reading) -> int | None:
        """Page tables of the server's processes, the top level included, which VmPTE leaves out."""
        known = reading.server.page_table_bytes
        return None if known is None else known + reading.server.processes_count * memory.page_directory_bytes()

    def stack_surplus(self, reading: Reading) -> float:
        """Kernel stacks that grew beyond those of the server's tasks, as bytes; far from 0 when others came or went."""
        grown = self.grown(reading, "kernel_stack_bytes") or 0
        tasks = reading.server.tasks_count - self.readings[0].server.tasks_count
        return grown - tasks * KERNEL_STACK_BYTES

    def _price_doubt(self) -> float:
        """Half the width of the interval of the price of one end."""
        price = self.end_bytes
        return 0.0 if price is None or price.low is None or price.high is None else (price.high - price.low) / 2

    def grown(self, reading: Reading, part: str) -> int | None:
        """Growth of a part of the kernel's memory since no connection was held; ``slab`` or a field's name."""
        first = self.readings[0].kernel
        if part == "slab":
            return memory.slab_growth(first, reading.kernel).bytes
        return whole(difference(getattr(reading.kernel, part), getattr(first, part)))

    def slab_of_server(self, reading: Reading) -> float:
        """Slab per connection that is not the client's end, over the calibrated price of one end; 1 or more if all
        is well, since the server's end is of the same kind."""
        grown = self.grown(reading, "slab")
        if grown is None or self.end_bytes is None or self.end_bytes.middle <= 0 or reading.open_count == 0:
            return 0.0
        return grown / reading.open_count / self.end_bytes.middle - 1

    def _slope(self, values: Sequence[float | None]) -> stats.Interval | None:
        known = [value for value in values if value is not None]
        if len(known) < len(values) or self.readings[-1].open_count < SMALLEST_SLOPE_COUNT:
            return None
        return stats.slope([reading.open_count for reading in self.readings], known)

    def _server_bytes(self, reading: Reading) -> float | None:
        parts = (
            reading.server.pss_bytes,
            self.page_tables(reading),
            self.grown(reading, "kernel_stack_bytes"),
            self.grown(reading, "slab"),
            self.grown(reading, "unnamed_bytes"),
        )
        if self.end_bytes is None or not reading.server.is_complete:
            return None
        return total(*parts, -self.end_bytes.middle * reading.open_count)

    def _client_bytes(self, reading: Reading) -> float | None:
        users = [total(client.pss_bytes, client.page_table_bytes) for client in reading.clients]
        if self.end_bytes is None:
            return None
        return total(*users, self.end_bytes.middle * reading.open_count)


def _widened(interval: stats.Interval | None, by: float) -> stats.Interval | None:
    """The interval with both ends moved outwards; one without ends stays without."""
    if interval is None or interval.low is None or interval.high is None:
        return interval
    return stats.Interval(interval.middle, interval.low - by, interval.high + by)


def difference(after: float | None, before: float | None) -> float | None:
    """``after - before``, or None when either is unknown."""
    return None if after is None or before is None else after - before


def total(*parts: float | None) -> float | None:
    """The sum, or None when a part is unknown: a partial sum is not the whole."""
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def whole(value: float | None) -> int | None:
    """The nearest whole number; None stays None."""
    return None if value is None else round(value)
