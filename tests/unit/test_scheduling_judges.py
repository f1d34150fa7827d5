"""The judges of scheduling: every verdict by its rule, at the very numbers where it turns, from made rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from c10k_probe.experiments import _scheduling_findings as findings
from c10k_probe.experiments import _scheduling_judges as judges
from c10k_probe.experiments import _scheduling_rows as rows
from c10k_probe.experiments.scheduling import EXPERIMENT
from made_scheduling import BLOCKS, FACTS, REST, contest, fresh, loss, ring, tick, yields

from c10k_probe.experiment import NOT_MEASURED, Finding, FlatRow, Judge, Made, Samples, Scalar, columns, flatten
from c10k_probe.stats import Interval

NAMES = [item.name for item in columns(EXPERIMENT.row_type)]
CLAIMS = ["C11", "C12", "C13", "C14", "C15", "C16", "C17", "C28", "C57"]
Ends = tuple[float, float | None, float | None]


def row(measure: str, **values: Scalar) -> dict[str, Scalar]:
    """One row with these values; everything else is at rest, or was not measured."""
    assert values.keys() <= set(NAMES)
    return dict.fromkeys(NAMES) | REST | {"measure": measure, "status": "ok", "grade": "ok"} | values


def ends_of(stem: str, suffix: str, ends: Ends) -> dict[str, Scalar]:
    return dict(zip((f"{stem}{suffix}", f"{stem}_lo{suffix}", f"{stem}_hi{suffix}"), ends, strict=True))


def verdict_of(judge: Judge, found: Sequence[FlatRow], made: Sequence[Made] = ()) -> str:
    return judge(found, made).verdict


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


# --- C11: every 10 ms -------------------------------------------------------------------------------------------------


def tick_row(config: float | None, coarse: float | None, interrupts: float | None, **values: Scalar) -> FlatRow:
    known: dict[str, Scalar] = {"tick_always": "yes, this kernel has no nohz_full", "scheduler": "EEVDF"}
    numbers = {"tick_config_ns": config, "tick_coarse_ns": coarse, "tick_interrupt_ns": interrupts}
    return row("tick", tasks_count=1, **(known | numbers | values))


ALWAYS, NOT_ALWAYS = "yes, nohz_full names no CPU", "no, not on CPUs 1-3 (nohz_full)"


@pytest.mark.parametrize(
    ("periods", "always", "verdict"),
    [
        ((10e6, 10e6, 10e6), ALWAYS, "CONFIRMED"),
        ((10e6, 9.51e6, 10.49e6), ALWAYS, "CONFIRMED"),
        ((10e6, None, None), ALWAYS, "CONFIRMED"),
        ((10e6, 10e6, 10.51e6), ALWAYS, "PARTLY"),
        ((10e6, 9.49e6, 10e6), ALWAYS, "PARTLY"),
        ((10e6, 10e6, 10e6), NOT_ALWAYS, "PARTLY"),
        ((4e6, 4e6, 4e6), ALWAYS, "PARTLY"),
        ((4e6, 4e6, 4e6), NOT_ALWAYS, "PARTLY"),
        ((None, 4e6, 4e6), ALWAYS, "PARTLY"),
        ((None, 4e6, 4e6), NOT_ALWAYS, "REFUTED"),
        ((None, 10e6, 10e6), NOT_ALWAYS, "PARTLY"),
        ((None, None, 4e6), None, "REFUTED"),
        ((None, None, None), ALWAYS, NOT_MEASURED),
    ],
)
def test_c11(periods: tuple[float | None, float | None, float | None], always: str | None, verdict: str) -> None:
    assert verdict_of(judges.judge_c11, [tick_row(*periods, tick_always=always)]) == verdict


def test_c11_names_every_way_and_each_part() -> None:
    evidence = judges.judge_c11([tick_row(4e6, 4.1e6, 3.9e6)], []).evidence
    for words in (
        "F1 fails",
        "configuration 4.00 ms",
        "coarse clock 4.10 ms",
        "interrupts 3.90 ms",
        "F2 holds",
        "F3 holds",
    ):
        assert words in evidence


# --- C12: at the tick -------------------------------------------------------------------------------------------------


def slice_row(edges: Ends = (99, 98, 100), run: Ends = (4e6, 3.9e6, 4.1e6), **keys: Scalar) -> FlatRow:
    numbers = ends_of("near_edge", "_pct", edges) | ends_of("run_p50", "_ns", run)
    return row("slice", **({"tasks_count": 2, "method": "other"} | numbers | keys))


@pytest.mark.parametrize(
    ("edges", "verdict"),
    [
        ((95, 90, 99), "CONFIRMED"),
        ((95, 89.9, 99), "INCONCLUSIVE"),
        ((85, 80, 90), "INCONCLUSIVE"),
        ((85, 80, 89.9), "REFUTED"),
        ((0, 0, 0), "REFUTED"),
        ((95, None, None), NOT_MEASURED),
    ],
)
def test_c12(edges: Ends, verdict: str) -> None:
    assert verdict_of(judges.judge_c12, [slice_row(edges)]) == verdict


OTHER_SLICES = [{"tasks_count": 16}, {"method": "batch"}, {"measure": "fairness"}]


@pytest.mark.parametrize("keys", OTHER_SLICES)
@pytest.mark.parametrize("judge", [judges.judge_c12, judges.judge_c16])
def test_only_two_tasks_of_the_usual_policy_decide(judge: Judge, keys: dict[str, Scalar]) -> None:
    other = {**slice_row((0, 0, 0), (1, 1, 1)), **keys}
    assert verdict_of(judge, [other]) == NOT_MEASURED
    assert verdict_of(judge, [other, slice_row(run=(10e6, 10e6, 10e6))]) == "CONFIRMED"


# --- C13: a fresh task ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "verdict"),
    [
        ((60, 55.1, 65), "CONFIRMED"),  # of the fresh one: the old one got 44.9 % at most
        ((60, 55, 65), "INCONCLUSIVE"),
        ((50, 48, 52), "REFUTED"),
        ((50, 50, 50), "REFUTED"),
        ((50, 47.9, 52), "INCONCLUSIVE"),
        ((50, 48, 52.1), "INCONCLUSIVE"),
        ((30, 20, 40), "INCONCLUSIVE"),
        ((50, None, None), NOT_MEASURED),
    ],
)
def test_c13(share: Ends, verdict: str) -> None:
    found = row("fresh", tasks_count=2, method="other", n_count=30, **ends_of("fresh_share", "_pct", share))
    assert verdict_of(judges.judge_c13, [found]) == verdict


def test_c13_tells_the_old_tasks_share() -> None:
    found = row("fresh", n_count=30, **ends_of("fresh_share", "_pct", (60, 55, 70)))
    assert "the old task got 40.0 % [30.0 %, 45.0 %]" in judges.judge_c13([found], []).evidence
    assert "30 trials" in judges.judge_c13([found], []).evidence


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
        ((1, -1, 3), (1.1, 1.0, 1.2), "PARTLY"),
        ((2, 0.1, 3), (1.05, 0.95, 1.19), "PARTLY"),
        ((-2, -3, -0.1), (0.9, 0.8, 1.0), "PARTLY"),
        ((2, 0.1, 3), (1.3, 1.19, 1.4), "PARTLY"),
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


def test_c15_names_the_counts() -> None:
    evidence = judges.judge_c15(RUNNABLE, growth((1, -1, 3), (1.05, 0.95, 1.19))).evidence
    assert "from 2 to 4,096 runnable threads" in evidence


# --- C16: 10 ms -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "verdict"),
    [
        ((10e6, 9e6, 11e6), "CONFIRMED"),
        ((10e6, 8.99e6, 11e6), "INCONCLUSIVE"),
        ((10e6, 9e6, 11.01e6), "INCONCLUSIVE"),
        ((8e6, 7e6, 9e6), "INCONCLUSIVE"),
        ((8e6, 7e6, 8.99e6), "REFUTED"),
        ((12e6, 11.01e6, 13e6), "REFUTED"),
        ((4e6, 4e6, 4e6), "REFUTED"),
        ((4e6, None, None), NOT_MEASURED),
    ],
)
def test_c16(run: Ends, verdict: str) -> None:
    assert verdict_of(judges.judge_c16, [slice_row(run=run)]) == verdict


def test_c16_tells_the_others_beside_it() -> None:
    more = [slice_row(run=(3e6, 3e6, 3e6), tasks_count=16), slice_row(run=(5e6, 5e6, 5e6), method="batch")]
    evidence = judges.judge_c16([slice_row(), *more], []).evidence
    for words in ("two tasks run 4.00 ms [3.90 ms, 4.10 ms]", "16 tasks (other) 3.00 ms", "2 tasks (batch) 5.00 ms"):
        assert words in evidence


# --- C17 and C28: what switches cost ----------------------------------------------------------------------------------


def lost_at(rate: Ends | None, who: str = "two threads with 0 KiB each") -> Finding:
    subject = f"5 % of the work of {who} are lost to pipe switches"
    return Finding(subject, "switches_per_s", Interval(*rate) if rate else None, "" if rate else "not reached")


def test_c17_finds_the_rate_and_leaves_the_servers_part_open() -> None:
    verdict = judges.judge_c17([], [lost_at((24_000, 23_000, 25_000)), lost_at(None, "two processes with 0 KiB each")])
    assert verdict.verdict == "INCONCLUSIVE"
    assert "two threads with 0 KiB each are lost to pipe switches from 24,000/s" in verdict.evidence
    assert "processes" not in verdict.evidence
    assert "the server's own rate is not part of this run" in verdict.evidence


@pytest.mark.parametrize("made", [[], [lost_at(None)], growth((1, 0, 2), (1, 1, 1))])
def test_c17_without_a_rate_is_not_measured(made: Sequence[Made]) -> None:
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


# --- C57: fair shares -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("index", "wait", "verdict"),
    [
        (0.99, 4 * 8 * 3e6, "CONFIRMED"),
        (1.0, 0.0, "CONFIRMED"),
        (0.989, 4 * 8 * 3e6, "PARTLY"),
        (0.99, 4 * 8 * 3e6 + 1, "PARTLY"),
        (0.989, 4 * 8 * 3e6 + 1, "REFUTED"),
        (None, 1.0, NOT_MEASURED),
        (0.99, None, NOT_MEASURED),
    ],
)
def test_c57(index: float | None, wait: float | None, verdict: str) -> None:
    found = row("fairness", tasks_count=8, fairness_index=index, wait_max_ns=wait, run_p50_ns=3e6)
    assert verdict_of(judges.judge_c57, [found]) == verdict
    if verdict != NOT_MEASURED:
        evidence = judges.judge_c57([found], []).evidence
        assert ("holds" in evidence) == (verdict != "REFUTED")
        assert ("fails" in evidence) == (verdict != "CONFIRMED")


# --- from launches to verdicts ----------------------------------------------------------------------------------------


def launches_of(measure: str) -> list[Samples]:
    """Five launches of each kind, as a machine with a tick of 10 ms that is all fair would give them."""
    made: dict[str, Callable[[int], list[Samples]]] = {
        "switch": lambda block: [ring(2500, 700, block)],
        "loss": lambda block: [loss(1000, 2, 9, block), loss(100_000, 8, 8, block)],
        "slice": lambda block: [contest([10**7] * 9, edges_ns=[5] * 9, block=block)],
        "fairness": lambda block: [contest([10**7] * 9, [1] * 8, measure="fairness")] if block == 0 else [],
        "tick": lambda block: [tick([10**7] * 9, 100, block)],
        "runnable": lambda block: [yields(1000 + block, tasks, block) for tasks in (2, 64, 4096)],
        "fresh": lambda block: fresh([1] * 5, [1] * 5) if block == 0 else [],
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
