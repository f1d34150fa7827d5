"""What readiness finds in known launches: how the cost of an event grows, and where one overtakes another."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from c10k_probe.experiments import _readiness_rows as rows
from hypothesis import given
from hypothesis import strategies as st
from made_readiness import BLOCKS, EVENTS, Cost, launch, launches

from c10k_probe.experiment import Finding, Samples
from c10k_probe.stats import Interval

SEED = 1
COUNTS = (100, 1000, 10_000)


def middle(interval: Interval | None) -> float:
    assert interval is not None
    return interval.middle


def power(exponent: float, scale: float = 1000.0) -> Cost:
    """Costs as watched^exponent, each launch on a machine of another speed."""
    return lambda watched, block: scale * (watched / 100) ** exponent * (1 + block / 10)


def findings(taken: Sequence[Samples], column: str, *, all_pairs: bool = False) -> dict[str, Finding]:
    made = rows.findings(taken, SEED, all_pairs=all_pairs)
    found = {item.subject: item for item in made if item.column == column}
    assert len({(item.subject, item.column) for item in made}) == len(made)
    return found


@pytest.mark.parametrize("exponent", [1.0, 0.0, 0.5, -0.2])
def test_a_known_exponent_is_recovered_whatever_the_launches_speed(exponent: float) -> None:
    found = findings(launches({"poll": power(exponent, 1e6)}, COUNTS), "growth_exponent")
    value = found[rows.exponent_subject("chain", "1", "poll")].value
    assert value is not None
    assert (value.middle, value.low, value.high) == tuple([pytest.approx(exponent, abs=1e-3)] * 3)
    assert found["poll, chain, 1 active"].note == "from 100 to 10,000 watched"


def test_an_exponents_interval_is_over_launches() -> None:
    taken = launches({"poll": lambda watched, block: 1000.0 * watched ** (0.8 + block / 10)}, COUNTS)
    value = findings(taken, "growth_exponent")["poll, chain, 1 active"].value
    assert value is not None
    assert value.middle == pytest.approx(1.0, abs=0.01)
    assert 0.79 < (value.low or 0) < 0.95
    assert 1.05 < (value.high or 0) < 1.21


def test_an_exponent_is_of_cpu_time() -> None:
    """Others add to the elapsed time, the more the longer a pass is: here they would make a line of it."""
    taken = [
        launch("poll", count, 10.0 * count, block=block, cpu_user_ns=100 * EVENTS, cpu_system_ns=200 * EVENTS)
        for count in COUNTS
        for block in range(BLOCKS)
    ]
    assert middle(findings(taken, "growth_exponent")["poll, chain, 1 active"].value) == pytest.approx(0, abs=1e-3)


def test_an_exponent_is_of_elapsed_time_where_cpu_time_is_unknown() -> None:
    taken = [
        launch("poll", count, 10.0 * count, block=block, cpu_user_ns=None)
        for count in COUNTS
        for block in range(BLOCKS)
    ]
    assert middle(findings(taken, "growth_exponent")["poll, chain, 1 active"].value) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("watched", "active", "blocks", "is_there"),
    [
        (COUNTS, "1", 5, True),
        (COUNTS, "100%", 5, True),
        (COUNTS, "50%", 5, False),  # neither the same number stays active, nor all
        (COUNTS[:2], "1", 5, False),  # a line through two points always fits
        (COUNTS, "1", 1, True),
    ],
)
def test_when_there_is_an_exponent(watched: tuple[int, ...], active: str, blocks: int, is_there: bool) -> None:
    taken = launches({"poll": power(1)}, watched, active=active, blocks=blocks)
    found = findings(taken, "growth_exponent")
    assert bool(found) == is_there
    assert all((item.value.low is None) == (blocks < 5) for item in found.values() if item.value)


def test_an_exponent_is_of_launches_that_have_every_count() -> None:
    taken = launches({"poll": power(1)}, COUNTS)
    torn = [item for item in taken if (item.block, item.key["watched_count"]) != (4, 1000)]
    value = findings(torn, "growth_exponent")["poll, chain, 1 active"].value
    assert value is not None
    assert (value.middle, value.low) == (pytest.approx(1, abs=1e-3), None)
    none = [item for item in taken if (item.block % 2 == 0) == (item.key["watched_count"] == 1000)]
    assert findings(none, "growth_exponent") == {}


def test_what_lost_events_is_in_no_finding() -> None:
    """A void row is never ranked and decides nothing."""
    taken = launches({"epoll": power(0, 4000)}, COUNTS)
    taken += [
        launch("poll", count, 40 * count, block=block, dropped_count=1) for count in COUNTS for block in range(BLOCKS)
    ]
    made = rows.findings(taken, SEED, all_pairs=True)
    assert [item.subject for item in made] == ["epoll, chain, 1 active"]


# --- where one overtakes another --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratios", "found"),
    [
        ([1.0, 1.0], None),
        ([-1.0, -2.0], None),
        ([-1.0, 1.0], (10.0, True)),
        ([1.0, -1.0], (10.0, False)),
        ([-1.0, 3.0], (100**0.25, True)),
        ([3.0, -1.0], (100**0.75, False)),
        ([0.0, 1.0], (1.0, True)),
        ([1.0], None),
    ],
)
def test_a_crossing_between_1_and_100(ratios: list[float], found: tuple[float, bool] | None) -> None:
    """Where a straight line on a logarithmic axis meets 0, and on which side it goes on."""
    crossed = rows.crossing([1, 100][: len(ratios)], ratios)
    assert crossed == (None if found is None else (pytest.approx(found[0]), found[1]))


@pytest.mark.parametrize(
    ("ratios", "found"),
    [
        ([-1.0, -1.0, 1.0], (math.sqrt(10_000 * 100), True)),
        ([-1.0, 1.0, 1.0], (math.sqrt(100), True)),
        ([-1.0, 1.0, -1.0], (math.sqrt(10_000 * 100), False)),
        ([1.0, -1.0, 1.0], (math.sqrt(10_000 * 100), True)),
    ],
)
def test_the_last_change_for_good_counts(ratios: list[float], found: tuple[float, bool]) -> None:
    assert rows.crossing([1, 100, 10_000], ratios) == (pytest.approx(found[0]), found[1])


@given(st.floats(0.2, 3), st.floats(110, 9000), st.booleans())
def test_the_crossing_of_known_lines_is_found(exponent: float, at: float, rises: bool) -> None:
    sign = 1 if rises else -1
    ratios = [sign * exponent * (math.log(count) - math.log(at)) for count in COUNTS]
    assert rows.crossing(COUNTS, ratios) == (pytest.approx(at), rises)


def test_epoll_overtakes_poll_where_the_costs_are_equal() -> None:
    """10 ns for each watched against 20 us at all: at 2,000, in every launch, on whatever machine."""
    costs: dict[str, Cost] = {
        "poll": lambda watched, block: 10 * watched * (1 + block),
        "epoll": lambda _, block: 20_000 * (1 + block),
    }
    found = findings(launches(costs, COUNTS), "watched_count")
    assert list(found) == ["epoll overtakes poll, chain, 1 active"]
    value = found["epoll overtakes poll, chain, 1 active"].value
    assert value is not None
    assert (value.middle, value.low, value.high) == tuple([pytest.approx(2000, rel=1e-3)] * 3)


def test_the_one_that_becomes_cheaper_overtakes() -> None:
    costs: dict[str, Cost] = {"poll": power(-1, 1000), "epoll": power(0, 100)}
    assert list(findings(launches(costs, COUNTS), "watched_count")) == ["poll overtakes epoll, chain, 1 active"]


def test_lines_that_do_not_cross_have_no_finding() -> None:
    assert findings(launches({"poll": power(1, 2000), "epoll": power(0, 100)}, COUNTS), "watched_count") == {}
    assert findings(launches({"poll": power(1), "epoll": power(0, 2000)}, (100,)), "watched_count") == {}


def test_the_interval_of_a_crossing_is_over_launches() -> None:
    """In each launch the lines meet elsewhere: at 600, 800, 1,000, 1,200 and 1,400."""
    costs: dict[str, Cost] = {
        "poll": lambda watched, _: 100 * watched,
        "epoll": lambda _, block: 100 * (600 + 200 * block),
    }
    value = findings(launches(costs, COUNTS), "watched_count")["epoll overtakes poll, chain, 1 active"].value
    assert value is not None
    assert value.middle == pytest.approx(1000, rel=0.01)
    assert 599 < (value.low or 0) < 900
    assert 1100 < (value.high or 0) < 1401


@pytest.mark.parametrize("blocks", [1, 4])
def test_few_launches_decide_no_crossing(blocks: int) -> None:
    taken = launches({"poll": power(1, 500), "epoll": power(0, 1000)}, COUNTS, blocks=blocks)
    assert findings(taken, "watched_count") == {}


@pytest.mark.parametrize(("end", "factor"), [(0, 0.1), (-1, 10)])
def test_an_order_that_launches_do_not_agree_on_is_no_crossing(end: int, factor: float) -> None:
    """The lines cross at 1,000, but at one end it is the other way round in two of five launches."""

    def unsure(watched: int, block: int) -> float:
        return 1000 * (factor if watched == COUNTS[end] and block % 2 else 1)

    line = power(0.5, 1000 * math.sqrt(0.1))
    ends = (COUNTS[0], COUNTS[-1])
    assert findings(launches({"poll": line, "epoll": unsure}, ends), "watched_count") == {}
    assert len(findings(launches({"poll": line, "epoll": power(0, 1000)}, ends), "watched_count")) == 1


def ramp(low: float, high: float) -> Cost:
    """1 us times ``low`` at 100 watched, times ``high`` at 10,000, straight between on two logarithmic axes."""
    return lambda watched, _: 1000 * low * (high / low) ** (math.log(watched / 100) / math.log(100))


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (0.8, 1.25, "epoll overtakes poll"),
        (0.89, 1.12, "epoll overtakes poll"),
        (1.12, 0.89, "poll overtakes epoll"),
        (0.93, 1.25, ""),  # within 1.10 before
        (0.8, 1.08, ""),  # within 1.10 after
        (0.93, 1.08, ""),
        (1.08, 0.5, ""),
        (0.8, 0.95, ""),  # it comes closer and stays the cheaper
    ],
)
def test_a_crossing_leaves_what_counts_as_the_same_on_both_sides(low: float, high: float, found: str) -> None:
    """However sure the launches are: here all of them agree."""
    made = findings(launches({"poll": ramp(low, high), "epoll": ramp(1, 1)}, COUNTS), "watched_count")
    assert list(made) == ([f"{found}, chain, 1 active"] if found else [])


@pytest.mark.parametrize(
    ("sides", "low", "high"),
    [
        ((0.5, 2.0), 1000, 1000),
        ((0.5, 0.9), 1000, 5500),  # always the cheaper: at 10,000, and draws of six launches often have it thrice
        ((1.2, 2.0), 550, 1000),  # always the dearer: at 100
        ((1.2, 0.5), 1000, 5500),  # it crosses the other way, at 261: none, and it is the cheaper in the end
    ],
)
@pytest.mark.parametrize("rises", [True, False])
def test_a_launch_without_the_crossing_lies_at_the_end_of_its_sign(
    sides: tuple[float, float], low: float, high: float, rises: bool
) -> None:
    """One of six; the others cross at 1,000."""

    def line(watched: int, block: int) -> float:
        return ramp(*(sides if block == 5 else (0.5, 2.0)))(watched, block)

    one, other = ("poll", "epoll") if rises else ("epoll", "poll")
    found = findings(launches({one: line, other: ramp(1, 1)}, COUNTS, blocks=6), "watched_count")
    assert list(found) == [f"{other} overtakes {one}, chain, 1 active"]
    value = found[f"{other} overtakes {one}, chain, 1 active"].value
    assert value is not None
    assert (value.low, value.middle, value.high) == tuple(pytest.approx(each, rel=0.01) for each in (low, 1000, high))


def test_findings_stand_as_rows_do() -> None:
    """Workload, C before Python, active (counts, then shares), then mechanisms as declared; growth before crossings."""
    named = ("uvloop", "select.epoll", "poll", "select.poll", "epoll", "select")
    costs = {name: power(1, 500) if name in {"poll", "select", "select.poll"} else power(0, 1000) for name in named}
    taken = [
        item
        for active in ("100%", "10", "2", "1")
        for workload in ("short", "chain")
        for item in launches(costs, COUNTS, active=active, workload=workload)
    ]
    made = rows.findings(taken, SEED, all_pairs=False)
    kinds = (("select", "poll", "epoll"), ("select.poll", "select.epoll", "uvloop"))
    assert [item.subject for item in made if item.column == "growth_exponent"] == [
        f"{name}, {workload}, {active} active"
        for workload in ("chain", "short")
        for kind in kinds
        for active in ("1", "100%")
        for name in kind
    ]
    pairs = (("epoll overtakes select", "epoll overtakes poll"), ("select.epoll overtakes select.poll",))
    assert [item.subject for item in made if item.column == "watched_count"] == [
        f"{pair}, {workload}, {active} active"
        for workload in ("chain", "short")
        for kind_pairs in pairs
        for active in ("1", "2", "10", "100%")
        for pair in kind_pairs
    ]
    assert [item.column for item in made] == sorted(item.column for item in made)


@pytest.mark.parametrize("all_pairs", [True, False])
def test_python_and_c_do_not_overtake_each_other(all_pairs: bool) -> None:
    taken = launches({"epoll": power(1, 500), "select.epoll": power(0, 1000), "asyncio": power(-1, 9000)}, COUNTS)
    assert {
        item.subject for item in rows.findings(taken, SEED, all_pairs=all_pairs) if "overtakes" in item.subject
    } == {"asyncio overtakes select.epoll, chain, 1 active"}


def test_pairs_are_with_epoll_unless_all_are_wanted() -> None:
    costs: dict[str, Cost] = {"select": power(1, 500), "poll": power(0.8, 600), "epoll": power(0, 1000)}
    taken = launches(costs, COUNTS)
    assert set(findings(taken, "watched_count")) == {
        "epoll overtakes select, chain, 1 active",
        "epoll overtakes poll, chain, 1 active",
    }
    assert set(findings(taken, "watched_count", all_pairs=True)) == {
        "epoll overtakes select, chain, 1 active",
        "epoll overtakes poll, chain, 1 active",
        "poll overtakes select, chain, 1 active",
    }


def test_workloads_and_activities_are_compared_apart() -> None:
    costs: dict[str, Cost] = {"poll": power(1, 500), "epoll": power(0, 1000)}
    taken = launches(costs, COUNTS) + launches(costs, COUNTS, workload="short", active="10")
    assert set(findings(taken, "watched_count")) == {
        "epoll overtakes poll, chain, 1 active",
        "epoll overtakes poll, short, 10 active",
    }


def test_counts_that_only_one_has_are_left_out() -> None:
    """select ends below 1,024; what it has in common with epoll decides."""
    taken = launches({"select": power(1, 500), "epoll": power(0, 1000)}, (100, 1000))
    taken += launches({"epoll": power(0, 1000)}, (10_000,))
    value = findings(taken, "watched_count")["epoll overtakes select, chain, 1 active"].value
    assert middle(value) == pytest.approx(200, rel=0.01)


def test_without_samples_there_is_nothing() -> None:
    assert rows.findings([], SEED, all_pairs=True) == []
