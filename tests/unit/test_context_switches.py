"""The rows and the verdict of context-switches, from made-up launches."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from c10k_probe.experiments import context_switches as experiment

from c10k_probe.experiment import NOT_MEASURED, Samples, Scalar, flatten
from c10k_probe.parameters import build_parameters

PARAMETERS = build_parameters(experiment.ContextSwitchesParameters, {}, quick=False)


def launch(block: int, model: str = "thread", count: int = 100, **facts: Scalar) -> Samples:
    """One launch: 1,000 answers while traced, each with a switch."""
    known: dict[str, Scalar] = {
        "answered_count": 1000,
        "voluntary_switches_count": 1000,
        "involuntary_switches_count": 20,
        "calls_count": 2000,
        "runqueue_wait_ns": 5_000_000.0,
        "switches_per_s": 10_200.0,
        "lost_pct": 2.0,
        "traced_by": "bcc",
        "calls": "read 1, write 1",
        "dropped_count": 0,
        "failed_count": 0,
        "client_cpu_pct": 40.0,
    }
    values = {"latency": [100_000, 120_000], "rate": [10_000], "traced_rate": [9_000]}
    return Samples({"model": model, "concurrency_count": count}, block, values, known | facts)


def rows_of(launches: Sequence[Samples]) -> list[dict[str, Scalar]]:
    return [flatten(row) for row in experiment.EXPERIMENT.summarise(PARAMETERS, launches, 1)]


def test_figures_are_per_answer_and_the_rate_is_untraced() -> None:
    (row,) = rows_of([launch(block) for block in range(5)])
    assert (row["voluntary_switches_per_request"], row["involuntary_switches_per_request"]) == (1.0, 0.02)
    assert row["involuntary_pct"] == pytest.approx(100 * 20 / 1020)
    assert (row["calls_per_request"], row["runqueue_wait_ns"]) == (2.0, 5000.0)
    assert (row["requests_per_s"], row["traced_over_off_ratio"]) == (10_000, 0.9)
    assert (row["latency_p50_ns"], row["traced_by"], row["launches_count"]) == (110_000, "bcc", 5)
    assert (row["grade"], row["status"]) == ("ok", "ok")


def test_what_a_backend_cannot_see_stays_empty() -> None:
    facts: dict[str, Scalar] = {"calls_count": None, "runqueue_wait_ns": None, "dropped_count": None, "calls": None}
    (row,) = rows_of([launch(block, traced_by="perf", **facts) for block in range(5)])
    assert [row[name] for name in ("calls_per_request", "runqueue_wait_ns", "dropped_count", "calls")] == [None] * 4
    assert row["voluntary_switches_per_request"] == 1.0
    (row,) = rows_of([launch(block, voluntary_switches_count=0, involuntary_switches_count=0) for block in range(5)])
    assert row["involuntary_pct"] is None, "no share of nothing"


@pytest.mark.parametrize(
    ("facts", "grade", "words"),
    [
        ({"dropped_count": 3}, "void", "15 tasks or events could not be counted"),
        ({"client_cpu_pct": 95.0}, "shaky", "the client used 95 % of its CPU"),
    ],
)
def test_grades(facts: dict[str, Scalar], grade: str, words: str) -> None:
    (row,) = rows_of([launch(block, **facts) for block in range(5)])
    assert row["grade"] == grade
    assert words in str(row["grade_reason"])


@pytest.mark.parametrize(
    ("thread", "fork", "verdict"),
    [
        ((5.1, 5.2, 5.3), (6.0, 6.1, 6.2), "CONFIRMED"),
        ((4.0, 4.1, 4.2), (3.0, 3.1, 3.2), "REFUTED"),
        ((5.1, 5.2, 5.3), (3.0, 3.1, 3.2), "PARTLY"),
        ((4.0, 5.0, 6.0), (4.0, 5.0, 6.0), "INCONCLUSIVE"),
    ],
)
def test_the_verdict_on_switches(thread: tuple[float, ...], fork: tuple[float, ...], verdict: str) -> None:
    lost = {"thread": thread, "fork": fork}
    launches = [
        launch(block, model, 1000, lost_pct=values[block % 3]) for model, values in lost.items() for block in range(6)
    ]
    judged = experiment.judge_c17(rows_of(launches), [])
    assert (judged.claim, judged.verdict) == ("C17", verdict)
    assert "at 1,000" in judged.evidence


def test_only_the_highest_concurrency_decides() -> None:
    launches = [launch(block, count=1, lost_pct=9.0) for block in range(5)]
    launches += [launch(block, count=1000, lost_pct=1.0) for block in range(5)]
    assert experiment.judge_c17(rows_of(launches), []).verdict == "REFUTED"
    assert experiment.judge_c17([], []).verdict == NOT_MEASURED


def test_what_servers_switch_is_told_and_not_judged() -> None:
    judged = experiment.judge_c28(rows_of([launch(block) for block in range(5)]), [])
    assert (judged.claim, judged.verdict) == ("C28", "NOT-FALSIFIABLE")
    assert "thread at 100: 10,200/s, 1.96 % of them involuntary" in judged.evidence
    assert experiment.judge_c28([], []).evidence == "see C17"
