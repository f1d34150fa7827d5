"""The judges of scheduling, but for ticks and shares: every verdict by its rule, where it turns, from made rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from c10k_probe.experiments import _scheduling_findings as findings
from c10k_probe.experiments import _scheduling_judges as judges
from c10k_probe.experiments import _scheduling_rows as rows
from c10k_probe.experiments.scheduling import EXPERIMENT
from made_scheduling import (
    BLOCKS,
    FACTS,
    Ends,
    contest,
    ends_of,
    fresh,
    loss,
    ring,
    row,
    tick,
    tick_row,
    verdict_of,
    yields,
)

from c10k_probe.experiment import NOT_MEASURED, Finding, FlatRow, Judge, Made, Samples, Scalar, flatten
from c10k_probe.stats import Interval

CLAIMS = ["C11", "C12", "C13", "C14", "C15", "C16", "C17", "C28", "C57"]


# --- all of them ------------------------------------------------------------------------------------------------------


def test_every_claim_has_one_judge() -> None:
    assert [judge([], []).claim for judge in judges.JUDGES] == CLAIMS
    assert EXPERIMENT.judges == judges.JUDGES


@pytest.mark.parametrize("judge", judges.JUDGES)
def test_without_rows_nothing_is_decided(judge: Judge) -> None:
    verdict = judge([], [])
    assert verdict.verdict == ("NOT-FALSIFIABLE" if verdict.claim == "C28" else NOT_MEASURED)
    assert verdict.rule and verdict.restatement and verdict.evidence
    if verdict.verdict == NOT_MEASURED:
        assert "--measure" in verdict.evidence


@pytest.mark.parametrize("judge", judges.JUDGES)
def test_rows_that_were_skipped_decide_nothing(judge: Judge) -> None:
    """They have keys and no numbers."""
    empty = [
        row(measure, tasks_count=tasks, method=method, kind=kind)
        for measure in rows._ROWS
        for tasks, method in ((2, "other"), (8, "other"), (2, "pipe"), (2, "yield"))
        for kind in ("thread", "process")
    ]
    assert verdict_of(judge, empty) in (NOT_MEASURED, "NOT-FALSIFIABLE")


# --- C14: a heap ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", ["EEVDF", "CFS", "CFS or older"])
def test_c14_is_read_from_the_source(scheduler: str) -> None:
    verdict = judges.judge_c14([tick_row(None, None, None, scheduler=scheduler)], [])
    assert verdict.verdict == "REFUTED"
    assert scheduler in verdict.evidence and "red-black tree" in verdict.evidence


def test_c14_of_an_unknown_kernel_is_not_measured() -> None:
    assert verdict_of(judges.judge_c14, [tick_row(4e6, 4e6, 4e6, scheduler=None)]) == NOT_MEASURED


# --- C15: runnable tasks ----------------------------------------------------------------------------------------------

RUNNABLE = [row("runnable", kind="thread", method="yield", tasks_count=tasks) for tasks in (2, 64, 4096)]


def growth(slope: Ends | None, ratio: Ends | None, kind: str = "thread") -> list[Made]:
    subject = findings.runnable_subject(kind)
    values = {"growth_ns": slope, "switch_ratio": ratio}
    return [Finding(subject, name, Interval(*ends) if ends else None) for name, ends in values.items()]


@pytest.mark.parametrize(
    ("slope", "ratio", "verdict"),
    [
        ((1, -1, 3), (1.05, 0.95, 1.19), "CONFIRMED"),
        ((1, 0, 3), (1.05, 0.95, 1.19), "CONFIRMED"),
        ((-1, -3, 0), (0.9, 0.8, 1.0), "CONFIRMED"),
        ((1, -1, 3), (1.1, 1.0, 1.2), "INCONCLUSIVE"),
        ((2, 0.1, 3), (1.05, 0.95, 1.19), "PARTLY"),
        ((-2, -3, -0.1), (0.9, 0.8, 1.0), "PARTLY"),
        ((2, 0.1, 3), (1.3, 1.19, 1.4), "INCONCLUSIVE"),
        ((2, 0.1, 3), (1.3, 1.2, 1.4), "REFUTED"),
        ((2, 0, 3), (1.3, 1.2, 1.4), "PARTLY"),
        ((2, None, None), (1.3, 1.2, 1.4), NOT_MEASURED),
        ((2, 1, 3), (1.3, None, None), NOT_MEASURED),
        (None, (1.3, 1.2, 1.4), NOT_MEASURED),
        ((2, 1, 3), None, NOT_MEASURED),
    ],
)
def test_c15(slope: Ends | None, ratio: Ends | None, verdict: str) -> None:
    assert verdict_of(judges.judge_c15, RUNNABLE, growth(slope, ratio)) == verdict
    assert verdict_of(judges.judge_c15, RUNNABLE, growth(slope, ratio, "process")) == NOT_MEASURED


def test_c15_names_the_counts_and_what_it_has_no_control_for() -> None:
    evidence = judges.judge_c15(RUNNABLE, growth((1, -1, 3), (1.05, 0.95, 1.19))).evidence
    assert "from 2 to 4,096 runnable threads" in evidence
    assert "the caches that more stacks take" in evidence


@pytest.mark.parametrize("left", [RUNNABLE[:-1], RUNNABLE[1:], [*RUNNABLE[:-1], {**RUNNABLE[-1], "status": "failed"}]])
def test_c15_needs_two_to_4096(left: Sequence[FlatRow]) -> None:
    verdict = judges.judge_c15(left, growth((2, 0.1, 3), (1.3, 1.2, 1.4)))
    assert verdict.verdict == "INCONCLUSIVE"
    assert "would be REFUTED, but they were" in verdict.evidence
    assert verdict.evidence.endswith("(rule: 2 to 4,096)")


# --- C17 and C28: what switches cost ----------------------------------------------------------------------------------


def lost_at(rate: Ends | None, who: str = "two threads with 0 KiB each") -> Finding:
    subject = f"5 % of the work of {who} are lost to pipe switches"
    return Finding(subject, "switches_per_s", Interval(*rate) if rate else None, "" if rate else "not reached")


def test_c17_finds_the_rate_and_leaves_the_servers_part_open() -> None:
    verdict = judges.judge_c17([], [lost_at((24_000, 23_000, 25_000)), lost_at(None, "two processes with 0 KiB each")])
    assert verdict.verdict == "INCONCLUSIVE"
    assert (
        "two threads with 0 KiB each are lost to pipe switches from 24,000/s [23,000/s, 25,000/s];" in verdict.evidence
    )
    assert "two processes with 0 KiB each are lost to pipe switches: not reached;" in verdict.evidence
    assert "the server's own rate is not part of this run" in verdict.evidence


@pytest.mark.parametrize(
    ("rate", "told"),
    [
        ((24_000, 23_000, None), "24,000/s [23,000/s, open]"),
        ((24_000, None, 25_000), "24,000/s [open, 25,000/s]"),
        ((24_000, None, None), "24,000/s;"),
    ],
)
def test_c17_tells_an_open_end(rate: Ends, told: str) -> None:
    assert told in judges.judge_c17([], [lost_at(rate)]).evidence


@pytest.mark.parametrize("made", [[], growth((1, 0, 2), (1, 1, 1))])
def test_c17_without_work_that_is_lost_is_not_measured(made: Sequence[Made]) -> None:
    assert verdict_of(judges.judge_c17, [], made) == NOT_MEASURED


def test_c28_tells_the_price_and_leaves_taste_alone() -> None:
    keys: dict[str, Scalar] = {"method": "futex", "kind": "thread", "tasks_count": 2, "cpus_count": 1}
    price = ends_of("switch", "_ns", (1500, 1400, 1600))
    others = [
        row("switch", **(keys | price | {name: value}))
        for name, value in (("tasks_count", 64), ("working_set_bytes", 1024), ("cpus_count", 2))
    ]
    verdict = judges.judge_c28([row("switch", **(keys | price)), *others], [])
    assert (verdict.verdict, verdict.evidence) == (
        "NOT-FALSIFIABLE",
        "futex, thread: 1.50 µs [1.40 µs, 1.60 µs] a switch",
    )
    assert judges.judge_c28(others, []).evidence == "see C17"


# --- from launches to verdicts ----------------------------------------------------------------------------------------


def launches_of(measure: str) -> list[Samples]:
    """Five launches of each kind, as a machine with a tick of 10 ms that is all fair would give them."""
    made: dict[str, Callable[[int], list[Samples]]] = {
        "switch": lambda block: [ring(2500, 700, block)],
        "loss": lambda block: [loss(1000, 2, 9, block), loss(100_000, 8, 8, block)],
        "slice": lambda block: [contest([10**7] * 9, edges_ns=[5] * 9, block=block)],
        "fairness": lambda block: [contest([10**7] * 9, [10**10 // 8] * 8, measure="fairness")] if block == 0 else [],
        "tick": lambda block: [tick([10**7] * 9, 100, block)],
        "runnable": lambda block: [yields(1000 + block, tasks, block) for tasks in (2, 64, 4096)],
        "fresh": lambda block: fresh([1] * 30, [1] * 30) if block == 0 else [],
    }
    return [item for block in range(BLOCKS) for item in made[measure](block)]


DECIDED = {
    "C11": ("tick", "CONFIRMED"),
    "C12": ("slice", "CONFIRMED"),
    "C13": ("fresh", "REFUTED"),
    "C14": ("tick", "REFUTED"),
    "C15": ("runnable", "CONFIRMED"),
    "C16": ("slice", "CONFIRMED"),
    "C17": ("loss", "INCONCLUSIVE"),
    "C28": ("switch", "NOT-FALSIFIABLE"),
    "C57": ("fairness", "CONFIRMED"),
}


@pytest.mark.parametrize("measure", rows._ROWS)
def test_each_measure_decides_its_claims_and_no_others(measure: str) -> None:
    """What the rows are called is what the judges look for; and a rule does not depend on what was found."""
    taken = launches_of(measure)
    found = [flatten(item) for item in rows.summarise(taken, 1, FACTS | {"kernel_tick_hz": 100})]
    made = findings.findings(taken, 1)
    for judge in judges.JUDGES:
        verdict, undecided = judge(found, made), judge([], [])
        needed, decided = DECIDED[verdict.claim]
        wanted = decided if needed == measure or verdict.claim == "C28" else NOT_MEASURED
        assert verdict.verdict == wanted, verdict
        assert (verdict.rule, verdict.restatement) == (undecided.rule, undecided.restatement)
