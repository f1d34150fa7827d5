"""The bracket of the search, and what a trial says of itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from c10k_probe.experiments._connection_design import ConnectionsParameters
from c10k_probe.experiments._connection_rows import ConnectionsRow
from c10k_probe.experiments._connection_search import FITS, NEAR, Bracket, _verdict

BUDGET = 1 << 30


def searched(most: int, fits: Callable[[int], bool], each: Callable[[int], float]) -> tuple[Bracket, list[int]]:
    """The bracket after a whole search over a made-up server, and the counts that were tried."""
    bracket, tried = Bracket(most), []
    while (count := bracket.next(BUDGET)) is not None:
        assert count not in tried and 1 <= count <= most
        tried.append(count)
        bracket.put(count, fits=fits(count))
        bracket.each = each(count)
        assert len(tried) < 60
    return bracket, tried


@pytest.mark.parametrize("each", [4_000.0, 75_000.0, 170_000.0, 5e6])
def test_memory_alone_is_found_in_few_trials(each: float) -> None:
    bracket, tried = searched(1_000_000, lambda count: count * each <= BUDGET, lambda _: each)
    true = int(BUDGET / each)
    assert bracket.low <= true
    assert bracket.low >= (1 - 2 * NEAR) * true - 1
    assert len(tried) <= 14


@pytest.mark.parametrize("wall", [0, 1, 7, 150, 199, 200, 3_333, 77_777, 999_999])
def test_a_wall_that_memory_does_not_foresee_is_found(wall: int) -> None:
    """Latency or a limit ends it far below what memory would allow."""
    bracket, tried = searched(1_000_000, lambda count: count <= wall, lambda _: 100.0)
    assert bracket.low <= wall < (bracket.high or 0)
    assert (bracket.high or 0) - bracket.low <= max(1, NEAR * (bracket.high or 0))
    assert len(tried) <= 20


def test_what_fits_as_a_whole_ends_the_search() -> None:
    bracket, tried = searched(5_000, lambda _: True, lambda _: 100.0)
    assert (bracket.low, bracket.high, tried[-1]) == (5_000, None, 5_000)
    assert searched(50, lambda _: True, lambda _: 100.0)[1] == [50]


def test_memory_that_misleads_costs_time_and_no_truth() -> None:
    """One connection is said to take a thousandth, or a thousand times, of what it does."""
    for lie in (0.001, 1000.0):
        bracket, _ = searched(1_000_000, lambda count: count * 4_000 <= BUDGET, lambda _, lie=lie: lie * 4_000)  # type: ignore[misc]
        assert bracket.low == pytest.approx(BUDGET / 4_000, rel=2 * NEAR)


def trial(**changes: object) -> ConnectionsRow:
    known = {
        "model": "epoll",
        "state": "used",
        "target_count": 10,
        "block": 0,
        "open_count": 10,
        "taken_bytes": 1000,
        "probe_p99_ns": 1e6,
        "echo_failed_count": 0,
        "probe_failed_count": 0,
    }
    return ConnectionsRow(**{**known, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, FITS),
        ({"taken_bytes": BUDGET}, FITS),
        ({"taken_bytes": 2 * BUDGET}, "memory: 2.00 GiB were taken"),
        ({"taken_bytes": None}, "memory: cannot be read"),
        ({"probe_p99_ns": 2e8}, "latency: the 99th percentile was 200 ms"),
        ({"probe_p99_ns": None, "probe_max_ns": 5e6}, FITS),
        ({"probe_p99_ns": None}, "latency: the client did not keep to its schedule"),
        ({"probe_failed_count": 1}, "liveness: not every echo came back"),
        ({"status": "failed", "wall": "pids", "reason": "it broke"}, "pids: it broke"),
        ({"status": "failed", "reason": "it broke"}, "refused: it broke"),
    ],
)
def test_a_trial_names_what_ran_out(changes: dict[str, object], verdict: str) -> None:
    assert _verdict(ConnectionsParameters(memory_budget=BUDGET), trial(**changes)) == verdict
