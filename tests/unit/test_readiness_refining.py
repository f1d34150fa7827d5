"""Where a map of readiness is refined: between neighbours at which different mechanisms are clearly the cheapest."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import pytest
from c10k_probe.experiments import _readiness_design as design
from hypothesis import given
from hypothesis import strategies as st
from made_readiness import Cost, flat, launches, linear


def test_it_is_refined_between_neighbours_with_different_winners() -> None:
    taken = launches({"poll": linear(10), "epoll": flat(2000)}, (10, 100, 1000, 10_000))
    assert design.finer_levels(taken, "chain") == [320]
    assert design.finer_levels(taken, "short") == []


def test_without_a_change_of_hands_there_is_nothing_to_refine() -> None:
    assert design.finer_levels(launches({"poll": linear(10), "epoll": flat(1)}, (10, 100, 1000)), "chain") == []
    assert design.finer_levels(launches({"poll": linear(10)}, (10, 100, 1000)), "chain") == []
    assert design.finer_levels([], "chain") == []
    assert design.finer_levels(launches({"poll": linear(10), "epoll": flat(2000)}, (100,)), "chain") == []


def test_every_activity_counts_by_itself() -> None:
    """With one active the order changes between 100 and 1,000, with ten between 10 and 100."""
    one = launches({"poll": linear(10), "epoll": flat(2000)}, (10, 100, 1000))
    ten = launches({"poll": linear(10), "epoll": flat(500)}, (10, 100, 1000), active="10")
    assert design.finer_levels(one + ten, "chain") == [32, 320]


def test_winners_are_found_among_those_that_were_measured() -> None:
    """select is missing above its wall: that hands the first place on, too, but not to the only one that is left."""
    low = launches({"select": flat(1), "epoll": flat(2), "poll": flat(3)}, (100,))
    assert design.finer_levels(low + launches({"epoll": flat(2), "poll": flat(3)}, (1000,)), "chain") == [320]
    assert design.finer_levels(low + launches({"epoll": flat(2)}, (1000,)), "chain") == []


@pytest.mark.parametrize(("lead", "found"), [(1.09, []), (1.12, [32])])
@pytest.mark.parametrize("is_first", [True, False])
def test_only_clear_winners_hand_the_first_place_on(lead: float, found: list[int], is_first: bool) -> None:
    """By more than 1.10, at both of two neighbours."""
    near, far = (100 * lead, 1000.0) if is_first else (1000.0, 100 * lead)
    low = launches({"poll": flat(100), "epoll": flat(near)}, (10,))
    high = launches({"poll": flat(far), "epoll": flat(100)}, (100,))
    assert design.finer_levels(low + high, "chain") == found


def test_python_and_c_do_not_compete() -> None:
    """Each kind has a winner of its own: Python's poll wins at no count, whatever C's epoll costs."""
    costs: dict[str, Cost] = {"epoll": flat(2000), "poll": flat(3000), "select.poll": linear(10)}
    assert design.finer_levels(launches(costs, (10, 100, 1000)), "chain") == []
    costs["select.epoll"] = flat(300)
    assert design.finer_levels(launches(costs, (10, 100, 1000)), "chain") == [32]


def test_the_median_of_launches_decides_not_one_of_them() -> None:
    def once_slow(_: int, block: int) -> float:
        return 10**6 if block == 0 else 5

    assert design.finer_levels(launches({"poll": once_slow, "epoll": flat(10)}, (10, 100, 1000)), "chain") == []


def test_the_cost_of_an_event_is_the_median_pass_by_its_events() -> None:
    (taken,) = launches({"poll": flat(123)}, (10,), blocks=1)
    assert design.cost_ns(taken) == 123
    assert design.pooled_costs([taken], "chain") == {("poll", 10, "1"): 123}
    assert design.pooled_costs([taken], "short") == {}


def refined(costs: Mapping[str, Cost], watched: tuple[int, ...]) -> list[int]:
    """All counts of a map, refined as the runner does until no new one is asked for."""
    known = list(watched)
    for _ in range(50):
        new = [count for count in design.finer_levels(launches(costs, known, blocks=1), "chain") if count not in known]
        if not new:
            return sorted(known)
        known += new
    raise AssertionError(f"no end: {sorted(known)}")


@pytest.mark.parametrize("turns_at", [30, 150, 999, 4000, 50_000])
def test_refining_ends_close_to_where_the_order_changes(turns_at: int) -> None:
    counts = refined({"poll": linear(1), "epoll": flat(turns_at)}, (10, 100, 1000, 10_000, 100_000))
    low, high = next((a, b) for a, b in itertools.pairwise(counts) if a <= turns_at < b)
    is_close = [max(count / turns_at, turns_at / count) <= design.SAME for count in (low, high)]
    assert high / low <= design.FINEST_STEP or any(is_close)
    assert len(counts) <= design.MAP_LEVELS_MOST_COUNT == 10


@given(st.lists(st.floats(1, 1e6), min_size=2, max_size=8), st.integers(0, 3))
def test_refining_always_ends_with_no_more_counts_than_are_allowed(prices: list[float], decade: int) -> None:
    costs = {f"flat{index}": flat(price) for index, price in enumerate(prices)}
    costs |= {f"linear{index}": linear(price / 100) for index, price in enumerate(prices)}
    watched = (10 ** (decade + 1), 10 ** (decade + 2), 10 ** (decade + 3))
    counts = refined(costs, watched)
    assert set(watched) <= set(counts)
    assert len(counts) <= design.MAP_LEVELS_MOST_COUNT
    assert (min(counts), max(counts)) == (watched[0], watched[-1])


@pytest.mark.parametrize(("low", "high"), [(10, 20), (10, 10**7), (2, 4), (1, 10), (3, 9), (99_000, 1_000_000)])
def test_a_new_count_lies_between_its_neighbours(low: int, high: int) -> None:
    (middle,) = design.finer_levels(
        launches({"poll": linear(1), "epoll": flat(math.sqrt(low * high))}, (low, high)), "chain"
    )
    assert low < middle < high


@pytest.mark.parametrize(("low", "high"), [(100, 150), (1, 2)])
def test_neighbours_that_are_close_enough_have_none_between(low: int, high: int) -> None:
    assert (
        design.finer_levels(launches({"poll": linear(1), "epoll": flat(math.sqrt(low * high))}, (low, high)), "chain")
        == []
    )


def test_a_map_that_is_full_is_not_refined() -> None:
    counts = tuple(10 * 2**step for step in range(design.MAP_LEVELS_MOST_COUNT))
    taken = launches({"poll": linear(1), "epoll": flat(450)}, counts)
    assert design.finer_levels(taken, "chain") == []
    assert len(design.finer_levels([item for item in taken if item.key["watched_count"] != counts[0]], "chain")) == 1
