"""What connections finds in its rows: pooled memory, ratios, walls reached and predicted, searches."""

from __future__ import annotations

import pytest
from c10k_probe.experiments._connection_findings import (
    CLOSING,
    EVENT_MODELS,
    MEMORY,
    MOST,
    MOST_RATIO,
    RATIO,
    REACHED,
    THE_FOUR,
    WORKER_MODELS,
    Most,
    Reached,
    findings,
    pooled,
)
from made_connections import around, row, stopped, trials

from c10k_probe.experiment import Finding, FlatRow
from c10k_probe.servers import MODELS, REAL_SERVERS
from c10k_probe.stats import Interval


def found(rows: list[FlatRow], column: str) -> dict[str, Finding]:
    return {item.subject: item for item in findings(rows, 1) if item.column == column}


def test_one_launch_has_the_interval_of_its_ramp_and_five_that_of_launches() -> None:
    one = found([row(each=4000.0)], MEMORY)["epoll, used"]
    assert one.value == around(4000.0)
    assert "one launch" in one.note
    five = found([row(each=4000.0 + 10 * block, block=block) for block in range(5)], MEMORY)["epoll, used"]
    assert five.value is not None and five.value.middle == 4020.0
    assert five.value.low is not None and five.value.low >= 4000.0
    assert "5 launches" in five.note


def test_two_launches_keep_both_intervals() -> None:
    assert pooled([Interval(10.0, 9.0, 12.0), Interval(20.0, 18.0, 21.0)], 1) == Interval(15.0, 9.0, 21.0)
    assert pooled([Interval(10.0, 9.0, 12.0), Interval(20.0, None, None)], 1) == Interval(15.0, None, None)


def test_an_end_that_is_void_is_not_replaced_by_an_earlier_step() -> None:
    """A ramp whose last step is worth nothing has no slope: the step before it was not what was asked for."""
    rows = [row(open_count=5_000, each=3_000.0), row(open_count=10_000, each=9_999.0, grade="void")]
    assert found(rows, MEMORY) == {}
    assert "epoll, used" in found(rows, REACHED)


def test_ratios_of_one_launch_are_as_wide_as_both_intervals_allow() -> None:
    rows = [row("fork", each=100.0), row("thread", each=20.0), row("epoll", each=2.0)]
    ratios = found(rows, RATIO)
    assert set(ratios) == {"fork over thread, used", "thread over epoll, used"}
    value = ratios["fork over thread, used"].value
    assert value is not None and value.low is not None and value.high is not None
    assert (value.middle, value.low, value.high) == (
        5.0,
        pytest.approx(5 * 0.99 / 1.01),
        pytest.approx(5 * 1.01 / 0.99),
    )


def test_ratios_of_five_launches_come_from_paired_ones() -> None:
    """Drift that both arms share cancels."""
    arms = (("fork", 100.0), ("thread", 20.0))
    rows = [row(model, each=each * (1 + block), block=block) for block in range(5) for model, each in arms]
    value = found(rows, RATIO)["fork over thread, used"].value
    assert value is not None and (value.middle, value.low, value.high) == (5.0, 5.0, 5.0)


def test_how_the_ledger_closes() -> None:
    last = row(explained_bytes=95 << 20, free_fall_bytes=100 << 20, unexplained_pct=5.0)
    finding = found([row(open_count=5_000, unexplained_pct=50.0), last], CLOSING)["epoll, used"]
    assert finding.value is not None and finding.value.middle == 5.0
    assert finding.note == "parts sum to 95.0 MiB, free memory fell by 100 MiB, at 10,000"
    risen = found([row(explained_bytes=1 << 20, free_fall_bytes=-(2 << 20), unexplained_pct=300.0)], CLOSING)
    assert risen["epoll, used"].note == "parts sum to 1.00 MiB, free memory rose by 2.00 MiB, at 10,000"


def test_what_was_reached_names_the_wall_and_the_prediction() -> None:
    reached = found([row("thread"), row("epoll", 5_000), stopped("epoll", 7_000, "descriptors")], REACHED)
    free, bound = reached["thread, used"], reached["epoll, used"]
    assert isinstance(free, Reached) and isinstance(bound, Reached)
    assert (free.wall, free.wall_kind) == ("", "")
    assert free.note == "no limit was hit; predicted 20,000 by descriptors"
    assert bound.value is not None and bound.value.middle == 7_000
    assert (bound.wall, bound.wall_kind) == ("descriptors", "administrative")
    assert bound.note.startswith(
        "bound by descriptors (administrative); to lift it: lift descriptors; predicted 20,000"
    )


def test_a_step_that_was_refused_counts_with_what_was_held_before() -> None:
    told = {"wall": "memory", "wall_kind": "architectural", "reason": "memory guard: too little"}
    refused = {**row("fork", 20_000, None, status="failed", grade="void", **told), "open_count": None}
    bound = found([row("fork", 9_000), refused], REACHED)["fork, used"]
    assert isinstance(bound, Reached) and bound.value is not None
    assert (bound.value.middle, bound.wall, bound.wall_kind) == (9_000, "memory", "architectural")
    assert "to lift it" not in bound.note


def test_searches_give_the_most_that_fits_and_what_ended_them() -> None:
    mosts = found([*trials("epoll", 200_000), *trials("fork", 6_000, "latency: the 99th percentile was 2 s")], MOST)
    epoll, fork = mosts["epoll"], mosts["fork"]
    assert isinstance(epoll, Most) and isinstance(fork, Most)
    assert epoll.value is not None and epoll.value.middle == 200_002
    assert (set(epoll.ended_by), set(fork.ended_by)) == ({"memory"}, {"latency"})
    assert fork.note == "ended by latency 5 ×; within 1.00 GiB"
    ratio = found([*trials("epoll", 200_000), *trials("fork", 6_000)], MOST_RATIO)["epoll over fork"].value
    assert ratio is not None and ratio.low is not None
    assert ratio.middle == pytest.approx(200_002 / 6_002)


def test_a_search_that_went_all_the_way_says_so() -> None:
    rows = [row(count_model, 500, fits="yes", budget_bytes=1 << 30) for count_model in ("epoll",)]
    most = found(rows, MOST)["epoll"]
    assert isinstance(most, Most)
    assert most.ended_by == ("--to",)


def test_what_was_held_before_the_server_died_was_reached() -> None:
    """At the last step nothing is held any more; the repetition that went on counts by its own end."""
    dead = row("epoll", 0, target_count=20_000, status="failed", reason="it was killed at 15,275 connections")
    rows = [row("epoll", 5_000), row("epoll", 10_000), dead]
    reached = found(rows, REACHED)["epoll, used"]
    assert reached.value is not None and reached.value.middle == 10_000
    assert "it was killed at 15,275 connections" in reached.note
    other = found([*rows, row("epoll", 20_000, block=1)], REACHED)["epoll, used"]
    assert other.value is not None and other.value.middle == 15_000


def test_every_model_either_gives_each_connection_a_worker_or_is_driven_by_events() -> None:
    assert sorted((*WORKER_MODELS, *EVENT_MODELS)) == sorted((*MODELS, *REAL_SERVERS))
    assert {"fork", "prefork", "thread", "thread-pool", "python-forking", "apache-prefork-php"} <= set(WORKER_MODELS)
    assert {"epoll", "epoll-inherited", "epoll-passed", "epoll-await", "epoll-pool", "uvloop"} <= set(EVENT_MODELS)
    assert set(THE_FOUR) <= set(EVENT_MODELS)
