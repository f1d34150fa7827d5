"""The ledger: known readings give known slopes, parts add up, and the sum is held against what became scarce."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from made_ledger import (
    CLIENT,
    COUNTS,
    DENTRY,
    ELSEWHERE,
    END,
    PRIVATE,
    SHARED,
    TABLES,
    TCP,
    ledger,
    reading,
)

from c10k_probe import stats
from c10k_probe.observe import memory
from c10k_probe.observe.ledger import KERNEL_STACK_BYTES, TASK_FRAGMENT_BYTES, Ledger


def middles(parts: dict[str, stats.Interval | None]) -> dict[str, float]:
    return {name: part.middle for name, part in parts.items() if part is not None}


def test_every_part_of_the_server_is_its_slope() -> None:
    assert middles(ledger().server_parts()) == {
        "private": PRIVATE,
        "shared": SHARED,
        "page_table": TABLES,
        "kernel_stack": KERNEL_STACK_BYTES,
        "slab": TCP + DENTRY - END.middle,
        "socket_page": TASK_FRAGMENT_BYTES,
    }


@pytest.mark.parametrize("buffers", [{}, {"client": 65_536}, {"client": 65_536, "server": 1_000}])
def test_parts_add_up_and_data_belongs_to_the_end_that_is_charged(buffers: dict[str, int]) -> None:
    """Data that the client has not read is no part of the server's end, whose own data is."""
    held = ledger(**buffers)
    server, client = held.server_slope(), held.client_slope()
    assert server is not None and client is not None and server.low is not None and server.high is not None
    assert sum(middles(held.server_parts()).values()) == pytest.approx(server.middle)
    assert middles(held.server_parts())["socket_page"] == TASK_FRAGMENT_BYTES + buffers.get("server", 0)
    assert middles(held.client_parts()) == {
        "user": CLIENT,
        "page_table": 0,
        "slab": END.middle,
        "buffer": buffers.get("client", 0),
    }
    assert sum(middles(held.client_parts()).values()) == pytest.approx(client.middle)
    assert server.low <= server.middle - 10 and server.high >= server.middle + 10  # the doubt about the price is in it


def test_caches_by_name_add_up_to_the_slab() -> None:
    held = ledger()
    assert held.cache_slopes() == {"TCP": TCP, "dentry": DENTRY}
    assert list(held.cache_slopes()) == ["TCP", "dentry"]
    both = held.slab_slope()
    assert both is not None and both.middle == TCP + DENTRY


def test_below_a_hundred_there_are_no_slopes() -> None:
    held = Ledger(END, [reading(count) for count in (0, 10, 20, 40, 80, 99)])
    assert held.server_slope() is None
    assert held.cache_slopes() == {}
    assert set(held.server_parts().values()) == set(held.client_parts().values()) == {None}


def test_a_missing_part_leaves_the_sum_empty() -> None:
    blind = [
        dataclasses.replace(item, kernel=dataclasses.replace(item.kernel, unnamed_bytes=None))
        for item in ledger().readings
    ]
    held = Ledger(END, blind)
    held.at_rest = blind[0].kernel
    assert held.server_slope() is None and held.server_bytes(blind[-1]) is None
    assert middles(held.server_parts())["private"] == PRIVATE
    assert Ledger(None, ledger().readings).server_slope() is None


@pytest.mark.parametrize("buffers", [{}, {"client": 5_000, "server": 70}])
def test_the_ledger_closes_against_spare_memory(buffers: dict[str, int]) -> None:
    """The parts are not made of what fell: what was taken elsewhere is unexplained, and nothing else."""
    held = ledger(**buffers)
    last = held.readings[-1]
    closing = held.closing(last)
    count = COUNTS[-1]
    assert closing.parts["slab rounding"] == 8 * count
    assert closing.parts["page of each task that sent"] == count * TASK_FRAGMENT_BYTES
    assert closing.parts["data in sockets"] == sum(buffers.values()) * count
    assert closing.unexplained_bytes == ELSEWHERE * count
    assert closing.fall_bytes is not None
    assert closing.unexplained_pct == pytest.approx(100 * ELSEWHERE * count / closing.fall_bytes)


def test_without_each_sockets_data_the_sum_that_tcp_keeps_is_taken() -> None:
    held = ledger(client=5_000)
    for index, size in ((0, 4096), (-1, 4096 + 5_000 * COUNTS[-1])):
        kernel = dataclasses.replace(held.readings[index].kernel, tcp_bytes=size)
        held.readings[index] = dataclasses.replace(held.readings[index], kernel=kernel)
    held.readings[-1] = dataclasses.replace(held.readings[-1], server_buffers=None, client_buffers=None)
    assert held.closing(held.readings[-1]).unexplained_bytes == ELSEWHERE * COUNTS[-1]


def test_data_that_was_not_asked_for_is_unknown_where_it_lies_and_none_elsewhere() -> None:
    """Beyond some count sockets are not asked one by one: unread data would then look like the server's pages."""
    held = ledger(client=65_536)
    held.readings[-1] = dataclasses.replace(held.readings[-1], client_buffers=None)
    held.holds_data = True
    assert held.client_slope() is held.server_slope() is held.server_parts()["socket_page"] is None
    empty = ledger()
    whole = empty.server_slope()
    empty.readings[-1] = dataclasses.replace(empty.readings[-1], client_buffers=None)
    assert empty.server_slope() == whole and empty.client_slope() is not None


def test_tasks_that_never_sent_have_no_page_of_their_own() -> None:
    pool = dataclasses.replace(ledger(), is_pool=True)
    pool.readings[0] = dataclasses.replace(pool.readings[0], server=pool.readings[-1].server)  # all there before
    assert pool.closing(pool.readings[-1]).parts["page of each task that sent"] == COUNTS[-1] * TASK_FRAGMENT_BYTES
    idle = dataclasses.replace(ledger(), sends=False)
    assert idle.closing(idle.readings[-1]).parts["page of each task that sent"] == 0


def test_all_that_a_server_takes_counts_from_before_it_was_started() -> None:
    """What it had before the first connection is in it, what the client's ends take is not."""
    held = ledger()
    last = held.readings[-1]
    assert held.server_bytes(last) is None
    rest = held.readings[0].kernel
    held.at_rest = dataclasses.replace(rest, kernel_stack_bytes=(rest.kernel_stack_bytes or 0) - 16_000)
    each = PRIVATE + SHARED + TABLES + KERNEL_STACK_BYTES + TCP + DENTRY - END.middle + TASK_FRAGMENT_BYTES
    fixed = 100_000 + 8192 + memory.page_directory_bytes() + 16_000
    assert held.server_bytes(last) == round(COUNTS[-1] * each) + fixed
    assert held.server_bytes(held.readings[0]) == fixed


def test_a_sample_of_processes_widens_the_interval() -> None:
    def doubtful(doubt: float) -> Any:
        held = ledger()
        last = held.readings[-1]
        server = dataclasses.replace(last.server, pss_doubt_bytes=doubt)
        held.readings[-1] = dataclasses.replace(last, server=server)
        return held.server_slope()

    sure, unsure = doubtful(0.0), doubtful(200_000.0)
    assert unsure.middle == sure.middle
    assert unsure.high - sure.high == pytest.approx(100)
    assert sure.low - unsure.low == pytest.approx(100)
