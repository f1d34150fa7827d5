"""Each judge of connections by the rule beside it: holds, fails, and what this run did not measure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from c10k_probe.experiments._connection_findings import findings
from c10k_probe.experiments._connection_judges import JUDGES
from made_connections import around, row, stopped, trials

from c10k_probe.experiment import FlatRow, Verdict


def judged(rows: Sequence[FlatRow], claim: str) -> Verdict:
    """As the runner does: findings from all rows, judges without the void ones."""
    made = findings(rows, 1) if rows else []
    solid = [item for item in rows if item["grade"] != "void"]
    return next(verdict for judge in JUDGES if (verdict := judge(solid, made)).claim == claim)


CLAIMS = ("C18", "C20", "C24", "C29", "C34", "C38", "C39", "C52", "C55")


def test_every_claim_of_this_experiment_has_a_judge() -> None:
    assert tuple(judge([], []).claim for judge in JUDGES) == CLAIMS


@pytest.mark.parametrize("claim", CLAIMS)
def test_nothing_measured_says_what_to_type(claim: str) -> None:
    for rows in ([], [row("select", 500)]):
        verdict = judged(rows, claim)
        assert verdict.verdict == "NOT-MEASURED"
        assert verdict.evidence.startswith("needs --")


# --- C18 --------------------------------------------------------------------------------------------------------------


def three(fork: float, thread: float, epoll: float, **more: Any) -> list[FlatRow]:
    each = {"fork": fork, "thread": thread, "epoll": epoll}
    return [row(model, each=size, **{"state": "idle", **more}) for model, size in each.items()]


@pytest.mark.parametrize(
    ("sizes", "verdict"),
    [
        ((600.0, 100.0, 10.0), "CONFIRMED"),
        ((200.0, 100.0, 10.0), "PARTLY"),
        ((200.0, 100.0, 90.0), "REFUTED"),
        ((500.0, 100.0, 10.0), "INCONCLUSIVE"),  # the interval holds 5
    ],
)
def test_c18_by_two_ratios(sizes: tuple[float, float, float], verdict: str) -> None:
    assert judged(three(*sizes), "C18").verdict == verdict


def test_c18_of_too_few_connections_is_capped() -> None:
    verdict = judged(three(600.0, 100.0, 10.0, open_count=4_000), "C18")
    assert verdict.verdict == "INCONCLUSIVE"
    assert "would be CONFIRMED" in verdict.evidence and "4,000" in verdict.evidence


# --- C20, C29, C34, C39 -----------------------------------------------------------------------------------------------


def test_c20_needs_all_100_000_in_one_process_in_time() -> None:
    assert judged([row(open_count=100_000)], "C20").verdict == "PARTLY"  # whose work it was cannot be measured
    for broken in ({"echo_failed_count": 1}, {"processes_count": 2}, {"ramp_s": 61.0}):
        assert judged([row(open_count=100_000, **broken)], "C20").verdict == "REFUTED"
    assert judged([row(open_count=99_999)], "C20").verdict == "NOT-MEASURED"


def test_c20_adds_up_the_ramps_of_one_repetition() -> None:
    rows = [row(open_count=50_000, ramp_s=40.0), row(open_count=100_000, ramp_s=40.0)]
    assert judged(rows, "C20").verdict == "REFUTED"
    assert judged([row(open_count=50_000, ramp_s=40.0, block=1), rows[1]], "C20").verdict == "PARTLY"


def test_c20_does_not_take_a_part_of_the_ramp_for_all_of_it() -> None:
    """A void step is not there for the judge, and neither is the time that it took."""
    steps = [
        row(open_count=50_000, ramp_s=30.0, connect_rate_per_s=50_000 / 30),
        row(open_count=100_000, ramp_s=20.0, connect_rate_per_s=2_500.0),
    ]
    assert judged(steps, "C20").verdict == "PARTLY"
    verdict = judged([{**steps[0], "grade": "void"}, steps[1]], "C20")
    assert verdict.verdict == "INCONCLUSIVE"
    assert "opened 50,000 of them are void" in verdict.evidence
    assert judged([{**steps[0], "grade": "void"}, {**steps[1], "ramp_s": 61.0}], "C20").verdict == "REFUTED"


def test_a_setting_refutes_nothing_and_memory_does() -> None:
    by_setting = judged([stopped("epoll", 19_000, "descriptors")], "C20")
    assert by_setting.verdict == "INCONCLUSIVE"
    assert "LIMITED BY descriptors" in by_setting.evidence
    assert judged([stopped("epoll", 19_000, "memory", "architectural")], "C20").verdict == "REFUTED"


@pytest.mark.parametrize(
    ("fork", "verdict"),
    [
        (row("fork"), "REFUTED"),
        (row("fork", probe_p99_ns=2e8), "CONFIRMED"),
        (row("fork", probe_failed_count=1), "CONFIRMED"),
        (row("fork", 9_999), "NOT-MEASURED"),
        (row("fork", probe_rate_per_s=500), "NOT-MEASURED"),
        (row("fork", probe_p99_ns=None), "NOT-MEASURED"),
        (stopped("fork", 4_000, "cgroup-pids"), "INCONCLUSIVE"),
        (stopped("fork", 4_000, "memory", "architectural"), "CONFIRMED"),
    ],
)
def test_c29(fork: FlatRow, verdict: str) -> None:
    assert judged([fork, row("thread")], "C29").verdict == verdict


def test_c34_says_what_it_measured_and_what_not() -> None:
    verdict = judged([row("fork"), row("thread", probe_p99_ns=2e9), row("epoll")], "C34")
    assert verdict.verdict == "INCONCLUSIVE"
    assert "F1 is open; F2 fails: fork meet it, too" in verdict.evidence
    assert "nginx: not measured" in verdict.evidence
    assert "F2 holds" in judged([row("fork", probe_p99_ns=2e9)], "C34").evidence


MISSING = row("cherokee", status="skipped", reason="cherokee is not installed", grade="void", open_count=None)


@pytest.mark.parametrize(
    ("changes", "workers", "verdict"),
    [
        ({}, (row("thread"), row("fork")), "PARTLY"),
        ({}, (row("fork", probe_p99_ns=2e9),), "CONFIRMED"),
        ({}, (stopped("apache-prefork-php", 4_000, "memory", "architectural"),), "CONFIRMED"),
        ({}, (stopped("fork", 4_000, "pids"),), "INCONCLUSIVE"),  # a setting proves nothing
        ({"probe_p99_ns": 1e9}, (row("fork"),), "REFUTED"),
        ({"echo_failed_count": 1}, (row("fork"),), "REFUTED"),
        ({"echo_asked_count": 9_999}, (row("fork"),), "INCONCLUSIVE"),  # not each answered at the end
        ({"probe_failed_count": 1}, (row("fork", probe_p99_ns=2e9),), "PARTLY"),
    ],
)
def test_c34_of_the_four_and_of_others(changes: dict[str, Any], workers: tuple[FlatRow, ...], verdict: str) -> None:
    """What is not installed is none of the installed ones, and is said."""
    four = [row("nginx"), row("node"), row("tornado", **changes)]
    found = judged([*four, *workers, MISSING], "C34")
    assert found.verdict == verdict
    assert "cherokee: cherokee is not installed" in found.evidence
    assert judged([*four, MISSING], "C34").verdict in ("INCONCLUSIVE", "NOT-MEASURED")  # F2 is open


def test_c34_needs_all_that_are_installed() -> None:
    assert "F1 is open" in judged([row("nginx"), row("tornado"), row("fork"), MISSING], "C34").evidence
    assert "cherokee: not measured" in judged([row("nginx"), row("fork")], "C34").evidence


@pytest.mark.parametrize(
    ("p99", "failed", "verdict"), [(2e6, 0, "CONFIRMED"), (2.1e6, 0, "REFUTED"), (1e6, 1, "REFUTED")]
)
def test_c39_compares_many_with_a_hundred(p99: float, failed: int, verdict: str) -> None:
    rows = [
        row(open_count=98),
        row(open_count=5_000),
        row(open_count=100_000, probe_p99_ns=p99, echo_failed_count=failed),
    ]
    assert judged(rows, "C39").verdict == verdict


def test_c39_with_the_most_that_limits_allow() -> None:
    rows = [row(open_count=98), stopped("epoll", 19_000, "descriptors")]
    verdict = judged(rows, "C39")
    assert verdict.verdict == "CONFIRMED"
    assert "the most that descriptors allows" in verdict.evidence
    assert judged([row(open_count=98), row(open_count=19_000)], "C39").verdict == "NOT-MEASURED"


# --- C24, C38, C52 ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "CONFIRMED"),
        ({"rest_cpu_pct": 0.1}, "REFUTED"),
        ({"rest_switches_count": 1}, "REFUTED"),
        ({"server_bytes_per_connection": None}, "INCONCLUSIVE"),
        ({"rest_s": 9.0}, "NOT-MEASURED"),
        ({"open_count": 999}, "NOT-MEASURED"),
    ],
)
def test_c24(changes: dict[str, Any], verdict: str) -> None:
    rest = {"rest_s": 10.0, "rest_cpu_pct": 0.0, "rest_switches_count": 0, "open_count": 1_000}
    assert judged([row("fork", **{**rest, **changes})], "C24").verdict == verdict


@pytest.mark.parametrize(
    ("idle", "private", "full", "verdict"),
    [
        (4_000.0, 400.0, 6_000.0, "CONFIRMED"),
        (4_000.0, 2_000.0, 6_000.0, "PARTLY"),
        (4_000.0, 400.0, 9_000.0, "PARTLY"),
        (30_000.0, 20_000.0, 90_000.0, "REFUTED"),
        (4_000.0, 400.0, 8_000.0, "INCONCLUSIVE"),  # about twice
        (4_000.0, 400.0, None, "INCONCLUSIVE"),
    ],
)
def test_c38(idle: float, private: float, full: float | None, verdict: str) -> None:
    rows = [row(each=idle, state="idle", server_private_bytes_per_connection=around(private))]
    rows += [row(each=full, state="backlogged")] if full else []
    assert judged(rows, "C38").verdict == verdict


def test_c52_measures_memory_alone() -> None:
    least = judged([row("epoll", each=10.0), row("fork", each=100.0), row("thread", each=20.0)], "C52")
    assert least.verdict == "INCONCLUSIVE" and "M holds" in least.evidence
    assert judged([row("epoll", each=10.0), row("thread", each=5.0)], "C52").verdict == "REFUTED"
    pool = row("prefork", each=5.0)  # what it takes is not by connections
    assert judged([row("epoll", each=10.0), row("thread", each=20.0), pool], "C52").verdict == "INCONCLUSIVE"
    assert judged([row("epoll", each=10.0), row("thread", each=10.0)], "C52").verdict == "INCONCLUSIVE"


# --- C55 --------------------------------------------------------------------------------------------------------------


def with_facts(rows: list[FlatRow], **facts: Any) -> list[FlatRow]:
    return [{**item, **facts} for item in rows]


def test_c55_takes_the_best_of_the_others() -> None:
    rows = [*trials("epoll", 200_000), *trials("fork", 6_000), *trials("thread", 13_000)]
    verdict = judged(rows, "C55")
    assert verdict.verdict == "CONFIRMED"
    assert verdict.evidence.startswith("epoll over thread 15.4×")
    assert judged([*rows, *trials("prefork", 150_000)], "C55").verdict == "REFUTED"
    assert judged([*trials("epoll", 200_000), *trials("fork", 100_000)], "C55").verdict == "INCONCLUSIVE"  # just twice


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"budget_bytes": 1 << 20}, "the budget was 1.00 MiB"),
        ({"server_cpus_count": 3}, "the server had 3 CPUs"),
        ({"latency_bound_ns": 10**9}, "the bound was 1.00 s"),
        ({"probe_rate_per_s": 10}, "not 1,000 a second"),
    ],
)
def test_c55_is_capped_where_its_rule_was_not_kept(facts: dict[str, Any], told: str) -> None:
    verdict = judged(with_facts([*trials("epoll", 200_000), *trials("fork", 6_000)], **facts), "C55")
    assert verdict.verdict == "INCONCLUSIVE"
    assert told in verdict.evidence and "would be CONFIRMED" in verdict.evidence


def test_c55_by_a_setting_or_the_end_of_the_search() -> None:
    limited = judged([*trials("epoll", 200_000), *trials("fork", 6_000, "cgroup-pids: the limit")], "C55")
    assert limited.verdict == "INCONCLUSIVE" and "LIMITED BY cgroup-pids" in limited.evidence
    ends = {"fits": "yes", "budget_bytes": 1 << 30, "latency_bound_ns": 10**8}
    all_the_way = [row("epoll", 100_000, block=block, **ends) for block in range(5)]
    assert judged([*all_the_way, *trials("fork", 6_000)], "C55").verdict == "CONFIRMED"  # at least so many
    assert judged([*all_the_way, *trials("fork", 60_000)], "C55").verdict == "INCONCLUSIVE"


def test_c55_of_few_repetitions_has_no_interval() -> None:
    rows = [*trials("epoll", 200_000, blocks=range(2)), *trials("fork", 6_000, blocks=range(2))]
    verdict = judged(rows, "C55")
    assert verdict.verdict == "INCONCLUSIVE"
    assert "needs --repeats 5" in verdict.evidence
