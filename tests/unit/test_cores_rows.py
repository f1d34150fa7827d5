"""Rows and verdicts of cores, from made launches of a machine with as many CPUs as one likes."""

from __future__ import annotations

import random
from typing import Any

import pytest
from c10k_probe.experiments import _cores_design as design
from c10k_probe.experiments._cores_judges import judge_c51, judge_c54
from c10k_probe.experiments._cores_rows import (
    CoresRow,
    binomial_max_to_mean,
    expected_highest,
    findings,
    max_to_mean,
    rows,
)

from c10k_probe.experiment import Samples, Scalar, flatten
from c10k_probe.stats import Interval

PARAMETERS = design.CoresParameters(work=1_000_000)
MS = 1_000_000
W = 4


def launch(
    arm: str, workers_count: int, block: int, per_s: float, shares: tuple[int, ...] = (), **facts: Scalar
) -> Samples:
    """A launch on eight CPUs with p99 of 100 ms times ``latency``, short connections, handlers of 1 ms."""
    scale = float(facts.pop("latency", 1.0) or 0)
    usual: dict[str, Scalar] = {
        "throughput_per_s": per_s * (1 + block / 1000),
        "closed_count": 10_000,
        "closed_failed_count": 0,
        "open_failed_count": 0,
        "sparse_failed_count": 0,
        "closed_client_pct": 20.0,
        "cpu_per_request_ns": 1e6,
        "intended_count": 400,
        "p50_ns": 10.0 * MS,
        "p99_ns": 100.0 * MS * scale,
        "utilisation_pct": 50.0,
        "accepted_count": 400,
        "sparse_count": 30,
        "wakeups": float(workers_count),
        "all_wakeups": float(workers_count),
        "busy_wakeups": 1.0,
        "cpus_count": 8,
        "server_cpus_count": 7,
    }
    values = {"worker_requests": shares or (400 // workers_count,) * workers_count}
    return Samples({"arm": arm, "workers_count": workers_count, "load": "short"}, block, values, usual | facts)


def made(per_s: float, shares: tuple[int, ...] = (), arm: str = "passed", **facts: Scalar) -> dict[str, CoresRow]:
    """Five blocks of one process, at 1,000 a second, and of an arm with four."""
    on_all = {name: value for name, value in facts.items() if name.endswith("cpus_count")}
    samples = [launch("epoll", 1, block, 1000.0, **on_all) for block in range(5)]
    samples += [launch(arm, W, block, per_s, shares, **facts) for block in range(5)]
    return {row.arm: row for row in rows(PARAMETERS, samples, 1)}


def verdict(found: dict[str, CoresRow]) -> str:
    return judge_c51([flatten(row) for row in found.values() if row.grade != "void"], ()).verdict


def test_one_row_says_everything() -> None:
    row = made(3600.0, (110, 100, 100, 90))["passed"]
    assert row.speed_up_ratio is not None and row.efficiency_ratio is not None and row.max_to_mean_ratio is not None
    assert row.speed_up_ratio.middle == pytest.approx(3.6)
    assert row.efficiency_ratio.middle == pytest.approx(0.9)
    assert (row.speed_up_grade, row.speed_up_reason, row.grade) == ("ok", None, "ok")
    assert (row.max_to_mean_ratio.middle, row.worker_shares) == (1.1, "110 100 100 90")
    assert (row.intended_count, row.accepted_count, row.failed_count, row.sparse_count) == (2000, 2000, 0, 150)
    assert row.request_p99_ns == Interval(100.0 * MS, 100.0 * MS, 100.0 * MS)
    assert row.p99_over_single_ratio == Interval(1.0, 1.0, 1.0)
    assert (row.utilisation_pct, row.p99_reason, row.work_ns) == (50.0, None, MS)
    assert row.wakeups_per_accept_ratio is not None and row.wakeups_per_accept_ratio.middle == W
    assert row.binomial_ratio is None, "nothing is left to chance"
    single = made(3600.0)["epoll"]
    assert (single.speed_up_ratio, single.max_to_mean_ratio, single.speed_up_grade) == (None, None, None)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"cpus_count": 2, "server_cpus_count": 1}, "2 CPUs, 4 are needed"),
        ({"cpus_count": 4, "server_cpus_count": 3}, "4 workers on 3 CPUs"),
        ({"closed_client_pct": 93.0}, "the client used 93 % of its CPU"),
    ],
)
def test_a_speed_up_that_would_be_the_clients_is_void_and_the_rest_stands(
    facts: dict[str, Scalar], reason: str
) -> None:
    found = made(3600.0, **facts)
    row = found["passed"]
    assert (row.speed_up_ratio, row.efficiency_ratio, row.speed_up_grade) == (None, None, "void")
    assert row.speed_up_reason is not None and row.speed_up_reason.startswith(reason)
    assert None not in (row.throughput_per_s, row.max_to_mean_ratio, row.wakeups_per_accept_ratio)
    told = judge_c51([flatten(row) for row in found.values()], ())
    assert told.verdict == "NOT-MEASURED"
    assert reason in told.evidence and "wake-ups 4.00" in told.evidence


def test_without_one_process_there_is_no_speed_up() -> None:
    (row,) = rows(PARAMETERS, [launch("passed", W, block, 3600.0) for block in range(5)], 1)
    assert (row.speed_up_grade, row.speed_up_reason) == ("void", "one process was not measured")
    assert row.p99_over_single_ratio is None


@pytest.mark.parametrize(
    ("per_s", "shares", "latency", "expected"),
    [
        (3600.0, (), 1.0, "CONFIRMED"),
        (3600.0, (), 1.6, "PARTLY"),
        (3600.0, (160, 80, 80, 80), 1.0, "PARTLY"),
        (2800.0, (), 1.0, "REFUTED"),
        (3200.0 / 1.001, (), 1.0, "INCONCLUSIVE"),
    ],
)
def test_c51_follows_its_rule(per_s: float, shares: tuple[int, ...], latency: float, expected: str) -> None:
    if expected == "INCONCLUSIVE":  # an interval that holds the bound
        samples = [launch("epoll", 1, block, 1000.0) for block in range(5)]
        samples += [launch("passed", W, block, 3100.0 + 50 * block) for block in range(5)]
        found = {row.arm: row for row in rows(PARAMETERS, samples, 1)}
    else:
        found = made(per_s, shares, latency=latency)
    assert verdict(found) == expected


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"utilisation_pct": 61.0}, "utilisation is 61 %, that of one process 50 %"),
        ({"utilisation_pct": None}, "the workers' CPU time could not be read"),
        ({"p99_ns": None}, "one process was not measured, or a p99 is missing"),
    ],
)
def test_p99_is_compared_at_equal_utilisation_or_not_at_all(facts: dict[str, Scalar], reason: str) -> None:
    found = made(3600.0, **facts)
    assert (found["passed"].p99_over_single_ratio, found["passed"].p99_reason) == (None, reason)
    assert verdict(found) == "INCONCLUSIVE", "fast, and nobody knows how late"
    assert made(3600.0, utilisation_pct=59.0)["passed"].p99_reason is None
    robbed = [launch(arm, workers, 0, 1000.0, utilisation_pct=20.0) for arm, workers in (("epoll", 1), ("passed", W))]
    assert rows(PARAMETERS, robbed, 1)[1].p99_reason == "utilisation is 20 % for 50 %: others had the CPU"


def test_p99_has_an_interval_over_launches_and_is_empty_where_one_has_none() -> None:
    samples = [launch("passed", W, block, 3600.0, latency=1 + block / 10) for block in range(5)]
    p99 = rows(PARAMETERS, samples, 1)[0].request_p99_ns
    assert p99 is not None and p99.low is not None and p99.high is not None
    assert (p99.middle, p99.low < p99.middle < p99.high) == (120.0 * MS, True)
    (row,) = rows(PARAMETERS, [*samples, launch("passed", W, 5, 3600.0, p99_ns=None)], 1)
    assert row.request_p99_ns is None, "a part would pass for the whole"


def test_a_handler_shorter_than_that_of_the_claim_refutes_nothing() -> None:
    samples = [launch("epoll", 1, block, 1000.0) for block in range(5)]
    samples += [launch("passed", W, block, 2800.0) for block in range(5)]
    short = rows(design.CoresParameters(work=300_000), samples, 1)
    assert verdict({row.arm: row for row in short}) == "INCONCLUSIVE"


def test_an_arm_must_hold_under_every_load_and_one_arm_is_enough() -> None:
    good = made(3600.0)
    bad = made(2000.0, arm="inherited")
    assert verdict(good | bad) == "CONFIRMED"
    assert verdict({"epoll": good["epoll"]}) == "NOT-MEASURED"


def test_requests_without_an_answer_make_a_row_void() -> None:
    assert made(3600.0, open_failed_count=1)["passed"].grade == "shaky"
    row = made(3600.0, open_failed_count=100)["passed"]
    assert (row.grade, row.failed_count) == ("void", 500)


@pytest.mark.parametrize(
    ("part", "most_count"), [("closed", 100), ("open", 4), ("sparse", 0)], ids=["10,000", "400", "30"]
)
def test_failures_are_a_share_of_the_loop_that_they_are_of(part: str, most_count: int) -> None:
    name = f"{part}_failed_count"
    if most_count:
        assert made(3600.0, **{name: most_count})["passed"].grade == "shaky", "1 % of its own"
    row = made(3600.0, **{name: most_count + 1})["passed"]
    assert (row.grade, f"{part} loop: {5 * (most_count + 1)} requests" in str(row.grade_reason)) == ("void", True)


def test_why_there_is_no_speed_up_is_told_once() -> None:
    def told(**facts: Scalar) -> list[tuple[str, str]]:
        samples = [
            launch("epoll", 1, 0, 1000.0),
            launch("passed", 2, 0, 1800.0),
            launch("reuseport", W, 0, 3600.0, **facts),
        ]
        return [(item.subject, item.note) for item in findings(PARAMETERS, samples, 1)]

    assert told() == []
    ((subject, note),) = told(closed_client_pct=93.0)
    assert subject == "speed-up of reuseport ×4"
    assert note.startswith("void: the client used 93 % of its CPU") and note.endswith("shares and wake-ups stand")
    two = {"cpus_count": 2, "server_cpus_count": 1}
    samples = [launch(arm, W, 0, 3600.0, **two) for arm in ("reuseport", "passed")]
    samples += [launch("passed", 8, 0, 3600.0, utilisation_pct=70.0, **two)]
    found = findings(PARAMETERS, [launch("epoll", 1, 0, 1000.0, **two), *samples], 1)
    told_of_two = {item.subject: (item.column, item.value, item.note) for item in found}
    assert told_of_two.keys() == {"speed-up", "workers", "p99 over single of passed ×8"}
    assert "2 CPUs, 4 are needed" in told_of_two["speed-up"][2]
    assert told_of_two["workers"] == ("workers_count", None, "8 take turns on 1 CPU")


def test_rows_come_in_the_order_of_the_arms_not_of_the_draw() -> None:
    samples = [launch(arm, workers, 0, 1000.0) for arm, workers in (("passed", 4), ("passed", 2), ("epoll", 1))]
    assert [(row.arm, row.workers_count) for row in rows(PARAMETERS, samples, 1)] == [
        ("epoll", 1),
        ("passed", 2),
        ("passed", 4),
    ]


@pytest.mark.parametrize(
    ("cpus_count", "cpu_ns", "expected"),
    [(1, 1e6, "CONFIRMED"), (4, 1e6, "REFUTED"), (4, 3e6, "INCONCLUSIVE"), (4, 5e5, "INCONCLUSIVE")],
)
def test_c54_asks_what_one_loop_leaves(cpus_count: int, cpu_ns: float, expected: str) -> None:
    launches = [
        launch("epoll", 1, block, 1000.0, cpus_count=cpus_count, cpu_per_request_ns=cpu_ns) for block in range(5)
    ]
    flat = [flatten(row) for row in rows(PARAMETERS, launches, 1)]
    assert judge_c54(flat, ()).verdict == expected
    assert judge_c54([], ()).verdict == "NOT-MEASURED"


def test_max_to_mean() -> None:
    assert (max_to_mean([5]), max_to_mean([0, 0]), max_to_mean([3, 1])) == (None, None, 1.5)


def test_what_chance_gives_agrees_with_drawing_it() -> None:
    assert expected_highest(1) == pytest.approx(0.0, abs=1e-6)
    assert expected_highest(2) == pytest.approx(0.5642, abs=1e-3)  # 1 / sqrt(pi)
    assert expected_highest(4) == pytest.approx(1.0294, abs=1e-3)  # tables of order statistics
    assert binomial_max_to_mean(19, W) is None
    draw = random.Random(1)
    drawn: list[float] = []
    for _ in range(400):
        counts = [0] * W
        for _ in range(400):
            counts[draw.randrange(W)] += 1
        drawn.append(float(max_to_mean(counts) or 0))
    assert binomial_max_to_mean(400, W) == pytest.approx(sum(drawn) / len(drawn), abs=0.02)


def test_cells_bring_what_they_are_compared_with() -> None:
    def keys(**chosen: Any) -> list[tuple[Any, ...]]:
        return [tuple(cell.key.values()) for cell in design.cells(design.CoresParameters(load=("short",), **chosen))]

    assert keys(arm=("passed",), workers=(2, 4)) == [
        ("epoll", 1, "short"),
        ("passed", 2, "short"),
        ("passed", 4, "short"),
    ]
    assert [key[1] for key in keys(arm=("nginx-tornado",), workers=(1, 2, 4))] == [1, 1, 2, 4], "Tornado alone, first"
    assert keys(arm=("nginx-node", "epoll"), workers=(3,)) == [
        ("node", 1, "short"),
        ("epoll", 1, "short"),
        ("nginx-node", 3, "short"),
    ]
