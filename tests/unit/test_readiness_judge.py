"""The judge of C37: every verdict by its rule, at the very exponents where it turns, from made findings."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from c10k_probe.experiments import _readiness_judges as judges
from c10k_probe.experiments._readiness_rows import exponent_subject
from c10k_probe.experiments.readiness import EXPERIMENT
from made_readiness import launches

from c10k_probe.experiment import NOT_MEASURED, Finding, Made, Verdict
from c10k_probe.stats import Interval

Ends = tuple[float, float | None, float | None]
GROWS: Ends = (0.95, 0.9, 1.0)
STAYS: Ends = (0.02, -0.01, 0.05)


def exponent(mechanism: str, ends: Ends | None, workload: str = "chain", active: str = "1") -> Finding:
    value = None if ends is None else Interval(*ends)
    return Finding(exponent_subject(workload, active, mechanism), "growth_exponent", value, "")


def made(select: Ends = GROWS, poll: Ends = GROWS, epoll: Ends = STAYS) -> list[Made]:
    return [exponent("select", select), exponent("poll", poll), exponent("epoll", epoll)]


def verdict_of(findings: Sequence[Made]) -> Verdict:
    verdict = judges.judge_c37([], findings)
    assert verdict.claim == "C37"
    return verdict


def test_it_is_the_experiments_judge() -> None:
    assert EXPERIMENT.judges == judges.JUDGES == (judges.judge_c37,)


@pytest.mark.parametrize(
    ("findings", "verdict"),
    [
        (made(), "CONFIRMED"),
        (made(select=(0.8, 0.7, 0.9)), "CONFIRMED"),
        (made(poll=(0.8, 0.7, 0.9)), "CONFIRMED"),
        (made(epoll=(0.05, 0.0, 0.1)), "CONFIRMED"),
        (made(select=(0.8, 0.7, 1.3), poll=(0.7, 0.7, 0.7), epoll=(-0.5, -0.9, 0.1)), "CONFIRMED"),
        (made(poll=(0.8, 0.69, 0.9)), "INCONCLUSIVE"),
        (made(select=(0.7, 0.5, 0.7)), "INCONCLUSIVE"),
        (made(epoll=(0.1, 0.05, 0.11)), "INCONCLUSIVE"),
        (made(epoll=(0.2, 0.1, 0.3)), "INCONCLUSIVE"),
        (made(select=(0.6, 0.5, 0.69)), "REFUTED"),
        (made(poll=(0.1, 0.0, 0.2)), "REFUTED"),
        (made(epoll=(0.2, 0.11, 0.3)), "REFUTED"),
        (made(epoll=(0.9, 0.8, 1.0)), "REFUTED"),
        (made(select=(0.8, 0.69, 0.9), epoll=(0.2, 0.11, 0.3)), "REFUTED"),
    ],
)
def test_c37_at_its_thresholds(findings: list[Made], verdict: str) -> None:
    assert verdict_of(findings).verdict == verdict


@pytest.mark.parametrize("missing", range(3))
def test_each_of_the_three_is_needed(missing: int) -> None:
    findings = made()
    del findings[missing]
    verdict = verdict_of(findings)
    assert verdict.verdict == NOT_MEASURED
    assert "needs select, poll and epoll with 1 active at three counts" in verdict.evidence


@pytest.mark.parametrize("ends", [None, (0.9, None, None)])
@pytest.mark.parametrize("mechanism", ["select", "poll", "epoll"])
def test_without_an_interval_nothing_is_decided(mechanism: str, ends: Ends | None) -> None:
    findings = [item for item in made() if isinstance(item, Finding) and not item.subject.startswith(f"{mechanism},")]
    assert verdict_of([*findings, exponent(mechanism, ends)]).verdict == NOT_MEASURED


def test_only_one_active_in_the_chain_decides() -> None:
    """Other activities, workloads, mechanisms and columns are evidence at most."""
    others = [
        exponent(mechanism, STAYS if mechanism != "epoll" else GROWS, workload, active)
        for mechanism in ("select", "poll", "epoll", "io_uring_poll", "select.poll")
        for workload, active in (("chain", "100%"), ("short", "1"), ("chain", "100"))
    ]
    others.append(exponent("select.select", STAYS))
    others.append(Finding(exponent_subject("chain", "1", "poll"), "watched_count", Interval(*STAYS)))
    assert verdict_of([*made(), *others]).verdict == "CONFIRMED"
    assert verdict_of([*others, *made()]).verdict == "CONFIRMED"
    assert verdict_of(others).verdict == NOT_MEASURED


def test_the_evidence_has_the_exponents_with_their_intervals() -> None:
    more = [exponent("poll", (0.01, -0.02, 0.03), "chain", "100%"), exponent("epoll", (0.3, 0.2, 0.4), "short", "1")]
    evidence = verdict_of([*made(), *more]).evidence
    for words in (
        "1 active: select 0.95 [0.9, 1",
        "epoll 0.02 [-0.01, 0.05]",
        "100% active: poll 0.01 [-0.02, 0.03]",
        "short connections: epoll 0.3 [0.2, 0.4]",
    ):
        assert words in evidence, evidence


def test_the_rule_is_the_same_whatever_was_measured_and_names_what_it_leaves_out() -> None:
    decided, undecided = verdict_of(made()), verdict_of([])
    assert (decided.rule, decided.restatement) == (undecided.rule, undecided.restatement)
    for words in ("0.7", "0.1", "F1", "1 active"):
        assert words in decided.rule


@pytest.mark.parametrize(
    ("scan_ns", "epoll_exponent", "verdict"), [(30, 0.0, "CONFIRMED"), (0, 0.0, "REFUTED"), (30, 0.3, "REFUTED")]
)
def test_from_launches_to_the_verdict(scan_ns: int, epoll_exponent: float, verdict: str) -> None:
    """What the experiment makes of launches is what its judge looks for."""
    counts = (100, 300, 1000, 3000)
    taken = launches(
        {
            "poll": lambda watched, block: 1000 + scan_ns * watched + block,
            "epoll": lambda watched, block: 2000 * watched**epoll_exponent + block,
        },
        counts,
    )
    taken += launches({"select": lambda watched, block: 500 + scan_ns * watched + block}, counts[:3])
    parameters = EXPERIMENT.parameters_type()
    assert verdict_of(EXPERIMENT.fit(parameters, taken, 1)).verdict == verdict
