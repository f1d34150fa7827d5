"""short-connections: the ticks of a clock under a ratio, in its grades and in the verdict on C21."""

from __future__ import annotations

from typing import Any

import pytest
from c10k_probe.experiments.short_connections import EXPERIMENT, ShortConnectionsParameters, judge_c21

from c10k_probe.experiment import NOT_MEASURED, FlatRow, Samples, flatten

EPOLL_NS, FORK_NS = 20_000, 80_000


def rows_of(epoll_ticks: int = 25, fork_ticks: int = 100, fork_ns: int = FORK_NS) -> dict[str, dict[str, Any]]:
    """Ten launches of each model, all alike."""
    samples = [
        Samples({"model": model}, block, {"cpu": [cpu], "rate": [1000]}, {"cpu_ticks_count": ticks})
        for model, cpu, ticks in (("epoll", EPOLL_NS, epoll_ticks), ("fork", fork_ns, fork_ticks))
        for block in range(10)
    ]
    rows = EXPERIMENT.summarise(ShortConnectionsParameters(), samples, 1)
    return {str(row["model"]): row for row in map(flatten, rows)}


def verdict_on(rows: dict[str, dict[str, Any]]) -> str:
    known: list[FlatRow] = list(rows.values())
    return judge_c21(known, []).verdict


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "CONFIRMED"),
        ({"fork_ns": 2 * EPOLL_NS}, "CONFIRMED"),
        ({"fork_ns": 2 * EPOLL_NS - 1}, "REFUTED"),
        ({"epoll_ticks": 20}, "CONFIRMED"),
        ({"epoll_ticks": 19}, "INCONCLUSIVE"),
        ({"fork_ticks": 19}, "INCONCLUSIVE"),
        ({"epoll_ticks": 19, "fork_ns": EPOLL_NS}, "INCONCLUSIVE"),
    ],
)
def test_c21(changes: dict[str, int], verdict: str) -> None:
    assert verdict_on(rows_of(**changes)) == verdict


def test_too_few_ticks_are_said() -> None:
    evidence = judge_c21(list(rows_of(epoll_ticks=7).values()), []).evidence
    assert "only 7 clock ticks" in evidence and "--n" in evidence
    assert "ticks" not in judge_c21(list(rows_of().values()), []).evidence


def test_a_ratio_is_no_better_than_what_it_is_a_ratio_to() -> None:
    good, coarse = rows_of(), rows_of(epoll_ticks=7)
    assert [good[model]["grade"] for model in ("epoll", "fork")] == ["ok", "ok"]
    assert [coarse[model]["grade"] for model in ("epoll", "fork")] == ["shaky", "shaky"]
    assert "epoll, which it is compared with: a launch used only 7 clock ticks" in coarse["fork"]["grade_reason"]
    assert coarse["epoll"]["cpu_ticks_count"] == 7
    forks = rows_of(fork_ticks=7)
    assert [forks[model]["grade"] for model in ("epoll", "fork")] == ["ok", "shaky"]


def test_c21_needs_both_models() -> None:
    rows = rows_of()
    assert verdict_on({"fork": rows["fork"]}) == NOT_MEASURED
    assert verdict_on({"epoll": rows["epoll"]}) == NOT_MEASURED
