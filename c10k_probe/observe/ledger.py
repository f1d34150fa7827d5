"""The ledger of a ramp: what one more connection costs at each end, as slopes over readings that grew with the count.

Both ends of a loopback connection are on this machine and share the slab. The price of one end is calibrated apart
(``end_bytes``); the client's end is taken from the slab, the rest is the server's. Slopes, not differences: slab is
rounded to pages and kept per CPU, and shrinks late.

Some memory is in no counter: the kernel gives each task that sends an order-3 page for socket data (task_frag,
net/core/sock.c), which is 32 KiB for each thread or process that serves a connection. It shows as pages in use that
/proc/meminfo does not name, and belongs to the server: the client is a single task. Data that the client has not read
lies in such pages too, is charged to the client's sockets (sock_diag(7)) and taken from the server's part.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from c10k_probe import stats
from c10k_probe.observe import memory, sockets, tree

LAYOUT_PAGES: Final = 2  # page-table pages by which a process differs between launches, from where ASLR puts it
KERNEL_STACK_BYTES: Final = 16_384  # THREAD_SIZE on x86-64 and arm64
TASK_FRAGMENT_BYTES: Final = 32_768  # SKB_FRAG_PAGE_ORDER (include/net/sock.h), of each task that has sent
SMALLEST_SLOPE_COUNT: Final = 100  # below, the rounding of per-CPU slabs is larger than what is measured
SMALLEST_CACHE_BYTES: Final = 1.0  # a cache that grew by less for each connection is left unnamed


@dataclass(frozen=True)
class Reading:
    """One look at both ends and the kernel, while nothing is sent. Without buffers sock_diag could not be asked."""

    open_count: int
    server: tree.TreeReading
    clients: tuple[tree.TreeReading, ...]
    kernel: memory.KernelMemory
    server_buffers: sockets.Buffers | None = None
    client_buffers: sockets.Buffers | None = None


@dataclass(frozen=True)
class Closing:
    """The sum of what was found against what memory the machine has less, since no connection was held. Bytes.

    ``parts`` come from counters of what is used and from ``TASK_FRAGMENT_BYTES``, ``fall_bytes`` from the counters of
    what is free or holds a file: neither is made of the other. A part that could not be read is None, and so is the
    sum then.
    """

    parts: Mapping[str, float | None]
    fall_bytes: int | None

    @property
    def explained_bytes(self) -> int | None:
        """All parts together."""
        return whole(total(*self.parts.values()))

    @property
    def unexplained_bytes(self) -> int | None:
        """What memory the machine has less and no part explains; negative where the parts are more."""
        return whole(difference(self.fall_bytes, self.explained_bytes))

    @property
    def unexplained_pct(self) -> float | None:
        """That, of the fall; None where memory did not fall."""
        rest = self.unexplained_bytes
        return None if rest is None or not self.fall_bytes or self.fall_bytes < 0 else 100 * rest / self.fall_bytes


@dataclass
class Ledger:
    """The readings of one ramp, from no connection on, and the price of one end.

    ``sends``: whether the server has sent on its connections, as after an echo. ``is_pool``: whether tasks that were
    there before serve one connection each. ``holds_data``: whether answers lie unread, so that a client's data that
    could not be asked for is unknown and not none. ``at_rest``: the kernel's memory before the server was started.
    ``no_price``: why there is no price of one end.
    """

    end_bytes: stats.Interval | None
    readings: list[Reading] = field(default_factory=list)
    sends: bool = True
    is_pool: bool = False
    holds_data: bool = False
    at_rest: memory.KernelMemory | None = None
    no_price: str = ""

    # --- slopes ---------------------------------------------------------------------------------------------------

    def server_slope(self) -> stats.Interval | None:
        """Bytes of the server's end of one more connection, or None while a part cannot be read.

        The interval holds the scatter of the ramp, the doubt about the price of one end and about what a sample of
        processes stands for, and what one launch cannot show: that another launch lays out its processes' page tables
        differently.
        """
        doubt = self._price_doubt() + self._layout_doubt() + self._sample_doubt()
        return _widened(self._slope_of(self._server_bytes), doubt)

    def client_slope(self) -> stats.Interval | None:
        """Bytes of the client's end of one more connection."""
        return _widened(self._slope_of(self._client_bytes), self._price_doubt())

    def server_parts(self) -> dict[str, stats.Interval | None]:
        """Bytes of each part of the server's end of one more connection; they add up to about ``server_slope``."""
        doubts = {"slab": self._price_doubt(), "page_table": self._layout_doubt(), "shared": self._sample_doubt()}
        return {
            name: _widened(self._slope_of(read), doubts.get(name, 0.0)) for name, read in self._server_parts().items()
        }

    def client_parts(self) -> dict[str, stats.Interval | None]:
        """Bytes of each part of the client's end of one more connection; the slab is the calibrated price."""
        return {
            "user": self._slope_of(lambda reading: total(*(client.pss_bytes for client in reading.clients))),
            "page_table": self._slope_of(lambda reading: total(*(item.page_table_bytes for item in reading.clients))),
            "slab": self.end_bytes if self._is_long_enough() else None,
            "buffer": self._slope_of(lambda reading: _charged(reading.client_buffers)),
        }

    def slab_slope(self) -> stats.Interval | None:
        """Bytes in active slab objects for one more connection, both ends."""
        return self._slope_of(lambda reading: self.grown(reading, "slab"))

    def cache_slopes(self) -> dict[str, float]:
        """Slab cache -> bytes of it for one more connection, both ends, largest first; {} without slabinfo."""
        last = self.readings[-1]
        if not self._is_long_enough():
            return {}
        grown = [memory.slab_growth(self.readings[0].kernel, reading.kernel).by_cache for reading in self.readings]
        least = SMALLEST_CACHE_BYTES * last.open_count
        slopes = {
            name: self._slope([float(growth.get(name, 0)) for growth in grown])
            for name, size in grown[-1].items()
            if size >= least
        }
        known = {name: slope.middle for name, slope in slopes.items() if slope is not None}
        return dict(sorted(known.items(), key=lambda item: -item[1]))

    # --- one reading ----------------------------------------------------------------------------------------------

    def page_tables(self, reading: Reading) -> int | None:
        """Page tables of the server's processes, the top level included, which VmPTE leaves out."""
        known = reading.server.page_table_bytes
        return None if known is None else known + reading.server.processes_count * memory.page_directory_bytes()

    def grown(self, reading: Reading, part: str) -> int | None:
        """Growth of a part of the kernel's memory since no connection was held; ``slab`` or a field's name."""
        first = self.readings[0].kernel
        if part == "slab":
            return memory.slab_growth(first, reading.kernel).bytes
        return whole(difference(getattr(reading.kernel, part), getattr(first, part)))

    def stack_surplus(self, reading: Reading) -> float:
        """Kernel stacks that grew beyond those of the server's tasks, as bytes; far from 0 when others came or went."""
        grown = self.grown(reading, "kernel_stack_bytes") or 0
        return grown - self._new_tasks(reading) * KERNEL_STACK_BYTES

    def slab_of_server(self, reading: Reading) -> float:
        """Slab per connection that is not the client's end, over the calibrated price of one end; 1 or more if all
        is well, since the server's end is of the same kind."""
        grown = self.grown(reading, "slab")
        if grown is None or self.end_bytes is None or self.end_bytes.middle <= 0 or reading.open_count == 0:
            return 0.0
        return grown / reading.open_count / self.end_bytes.middle - 1

    def server_bytes(self, reading: Reading) -> int | None:
        """All that the server takes, what it took before the first connection included; bytes.

        That is what a budget of memory is spent on: a pool of workers takes its own before anybody comes. The few pages
        that the kernel keeps for the client's processes are in it.
        """
        if self.at_rest is None or self.end_bytes is None:
            return None
        now, first = reading.kernel, self.at_rest
        kernel = total(
            difference(now.kernel_stack_bytes, first.kernel_stack_bytes),
            memory.slab_growth(first, now).bytes,
            difference(now.unnamed_bytes, first.unnamed_bytes),
        )
        user = reading.server.pss_bytes if reading.server.is_complete else None
        clients = total(self.end_bytes.middle * reading.open_count, self._client_data(reading))
        return whole(difference(total(user, self.page_tables(reading), kernel), clients))

    def closing(self, reading: Reading) -> Closing:
        """Every part that grew, and by how much spare memory fell."""
        first, now = self.readings[0], reading
        objects = self.grown(now, "slab")
        before, after = (_users(one) for one in (first, now))
        data = difference(_data(now), _data(first))
        if data is None:  # too many to ask one by one: the sum that TCP keeps, to some pages for each CPU
            data = self.grown(now, "tcp_bytes")
        parts = {
            "user memory, both": difference(after, before),
            "page tables": self.grown(now, "page_tables_bytes"),
            "kernel stacks": self.grown(now, "kernel_stack_bytes"),
            "slab objects": objects,
            "slab rounding": difference(self.grown(now, "slab_bytes"), objects),
            "per-CPU areas": self.grown(now, "percpu_bytes") or 0,
            "page of each task that sent": self._senders(now) * TASK_FRAGMENT_BYTES if self.sends else 0,
            "data in sockets": data,
        }
        fall = difference(first.kernel.spare_bytes, now.kernel.spare_bytes)
        return Closing(parts, whole(fall))

    # --- how ------------------------------------------------------------------------------------------------------

    def _server_parts(self) -> dict[str, Callable[[Reading], float | None]]:
        return {
            "private": lambda reading: reading.server.private_bytes if reading.server.is_complete else None,
            "shared": lambda reading: reading.server.shared_bytes if reading.server.is_complete else None,
            "page_table": self.page_tables,
            "kernel_stack": lambda reading: self.grown(reading, "kernel_stack_bytes"),
            "slab": self._server_slab,
            "socket_page": self._server_pages,
        }

    def _server_slab(self, reading: Reading) -> float | None:
        if self.end_bytes is None:
            return None
        return total(self.grown(reading, "slab"), -self.end_bytes.middle * reading.open_count)

    def _server_pages(self, reading: Reading) -> float | None:
        """Pages that no counter names, less those whose data is charged to the client's sockets."""
        return difference(self.grown(reading, "unnamed_bytes"), self._client_data(reading))

    def _server_bytes(self, reading: Reading) -> float | None:
        return total(*(read(reading) for read in self._server_parts().values()))

    def _client_bytes(self, reading: Reading) -> float | None:
        users = [total(client.pss_bytes, client.page_table_bytes) for client in reading.clients]
        if self.end_bytes is None:
            return None
        return total(*users, self.end_bytes.middle * reading.open_count, self._client_data(reading))

    def _client_data(self, reading: Reading) -> int | None:
        """What is charged to the client's sockets; where they were not asked, none of those that have read all."""
        charged = _charged(reading.client_buffers)
        return 0 if charged is None and not self.holds_data else charged

    def _new_tasks(self, reading: Reading) -> int:
        return reading.server.tasks_count - self.readings[0].server.tasks_count

    def _senders(self, reading: Reading) -> int:
        """Tasks of the server that had not sent before the ramp, and have now."""
        return reading.open_count if self.is_pool else self._new_tasks(reading)

    def _is_long_enough(self) -> bool:
        return self.readings[-1].open_count >= SMALLEST_SLOPE_COUNT

    def _slope_of(self, read: Callable[[Reading], float | None]) -> stats.Interval | None:
        return self._slope([read(reading) for reading in self.readings])

    def _slope(self, values: Sequence[float | None]) -> stats.Interval | None:
        known = [value for value in values if value is not None]
        if len(known) < len(values) or not self._is_long_enough():
            return None
        return stats.slope([reading.open_count for reading in self.readings], known)

    def _price_doubt(self) -> float:
        """Half the width of the interval of the price of one end."""
        price = self.end_bytes
        return 0.0 if price is None or price.low is None or price.high is None else (price.high - price.low) / 2

    def _layout_doubt(self) -> float:
        first, last = self.readings[0], self.readings[-1]
        processes = last.server.processes_count - first.server.processes_count
        return LAYOUT_PAGES * os.sysconf("SC_PAGESIZE") * processes / self._span()

    def _sample_doubt(self) -> float:
        return self.readings[-1].server.pss_doubt_bytes / self._span()

    def _span(self) -> int:
        return max(1, self.readings[-1].open_count - self.readings[0].open_count)


def _users(reading: Reading) -> float | None:
    """User memory of the server and of its clients."""
    server = reading.server.pss_bytes if reading.server.is_complete else None
    return total(server, *(client.pss_bytes for client in reading.clients))


def _data(reading: Reading) -> float | None:
    """What is charged to the sockets of both ends for data in them."""
    return total(_charged(reading.server_buffers), _charged(reading.client_buffers))


def _charged(buffers: sockets.Buffers | None) -> int | None:
    return None if buffers is None else buffers.charged_bytes


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
