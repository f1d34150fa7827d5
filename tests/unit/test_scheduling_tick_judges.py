"""The judges of ticks, slices and shares: every verdict by its rule, at the very numbers where it turns."""

from __future__ import annotations

import pytest
from c10k_probe.experiments import _scheduling_judges as judges
from made_scheduling import Ends, ends_of, row, tick_row, verdict_of

from c10k_probe.experiment import NOT_MEASURED, FlatRow, Judge, Scalar

# --- C11: every 10 ms -------------------------------------------------------------------------------------------------


ALWAYS, NOT_ALWAYS = "yes, nohz_full names no CPU", "no, not on CPUs 1-3 (nohz_full)"


@pytest.mark.parametrize(
    ("periods", "always", "verdict"),
    [
        ((10e6, 10e6, 10e6), ALWAYS, "CONFIRMED"),
        ((10e6, 9.51e6, 10.49e6), ALWAYS, "CONFIRMED"),
        ((10e6, 10e6, 2e6), ALWAYS, "CONFIRMED"),  # other timers interrupt too
        ((10e6, None, None), ALWAYS, "CONFIRMED"),
        ((10e6, 10e6, 10.51e6), ALWAYS, "PARTLY"),
        ((10e6, 9.49e6, 10e6), ALWAYS, "PARTLY"),
        ((10e6, 10e6, 10e6), NOT_ALWAYS, "PARTLY"),
        ((10e6, 10e6, 10e6), None, "INCONCLUSIVE"),
        ((4e6, 4e6, 4e6), ALWAYS, "PARTLY"),
        ((4e6, 4e6, 4e6), NOT_ALWAYS, "PARTLY"),
        ((None, 4e6, 4e6), ALWAYS, "PARTLY"),
        ((None, 4e6, 4e6), NOT_ALWAYS, "INCONCLUSIVE"),  # a configuration that cannot be read does not fail
        ((None, 10e6, 10e6), ALWAYS, "INCONCLUSIVE"),
        ((None, 10e6, 10e6), NOT_ALWAYS, "PARTLY"),
        ((None, None, 4e6), ALWAYS, "INCONCLUSIVE"),
        ((None, None, 4e6), None, "INCONCLUSIVE"),
        ((None, None, 10.51e6), ALWAYS, "PARTLY"),
        ((None, None, None), ALWAYS, NOT_MEASURED),
    ],
)
def test_c11(periods: tuple[float | None, float | None, float | None], always: str | None, verdict: str) -> None:
    assert verdict_of(judges.judge_c11, [tick_row(*periods, tick_always=always)]) == verdict


def test_c11_says_what_could_not_be_read() -> None:
    evidence = judges.judge_c11([tick_row(None, None, 4e6, tick_always=None)], []).evidence
    assert evidence.startswith("F1 is open: interrupts 4.00 ms; F2 is open: the kernel's configuration cannot be read;")


@pytest.mark.parametrize(("window", "launches", "verdict"), [(1e9, 5, "CONFIRMED"), (1e9, 4, "INCONCLUSIVE")])
def test_c11_needs_five_seconds(window: float, launches: int, verdict: str) -> None:
    found = tick_row(10e6, 10e6, 10e6, window_ns=window, launches_count=launches)
    assert verdict_of(judges.judge_c11, [found]) == verdict
    if verdict == "INCONCLUSIVE":
        evidence = judges.judge_c11([found], []).evidence
        assert evidence.endswith("would be CONFIRMED, but it was watched for 4.00 s (rule: 5.00 s)")


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


@pytest.mark.parametrize("keys", [{"method": "batch"}, {"measure": "fairness"}])
@pytest.mark.parametrize("judge", [judges.judge_c12, judges.judge_c16])
def test_only_tasks_of_the_usual_policy_decide(judge: Judge, keys: dict[str, Scalar]) -> None:
    other = {**slice_row((0, 0, 0), (1, 1, 1)), **keys}
    assert verdict_of(judge, [other]) == NOT_MEASURED
    assert verdict_of(judge, [other, slice_row(run=(10e6, 10e6, 10e6))]) == "CONFIRMED"


@pytest.mark.parametrize("judge", [judges.judge_c12, judges.judge_c16])
def test_more_than_two_tasks_show_only_what_would_be(judge: Judge) -> None:
    more = [slice_row((0, 0, 0), (1, 1, 1), tasks_count=tasks) for tasks in (16, 4)]
    verdict = judge(more, [])
    assert verdict.verdict == "INCONCLUSIVE"
    assert verdict.evidence.endswith("would be REFUTED, but these were 4 tasks (rule: two)")
    assert verdict_of(judge, [*more, slice_row(run=(10e6, 10e6, 10e6))]) == "CONFIRMED"


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
    assert verdict_of(judges.judge_c13, [fresh_row(share)]) == verdict


def fresh_row(share: Ends, **values: Scalar) -> FlatRow:
    done: dict[str, Scalar] = {"n_count": 30, "burned_ns": 9.9e9, "window_ns": 1e9}
    return row("fresh", **(done | ends_of("fresh_share", "_pct", share) | values))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"burned_ns": 9.5e9, "window_ns": 1e9, "n_count": 30}, ""),
        ({"burned_ns": 9.4e9}, "the old task had used 9.40 s (rule: 10.0 s)"),
        ({"burned_ns": None}, "the old task had used unknown (rule: 10.0 s)"),
        ({"window_ns": 2e8}, "a trial lasted 200 ms (rule: 1.00 s)"),
        ({"n_count": 29}, "the trials were 29 (rule: 30)"),
        (
            {"burned_ns": 1e9, "n_count": 8},
            "the old task had used 1.00 s (rule: 10.0 s) and the trials were 8 (rule: 30)",
        ),
    ],
)
def test_c13_needs_an_old_task_and_long_trials(values: dict[str, Scalar], told: str) -> None:
    verdict = judges.judge_c13([fresh_row((50, 48, 52), **values)], [])
    assert verdict.verdict == ("INCONCLUSIVE" if told else "REFUTED")
    if told:
        assert verdict.evidence.endswith(f"; would be REFUTED, but {told}")


def test_c13_tells_the_old_tasks_share() -> None:
    found = fresh_row((60, 55, 70))
    assert "the old task got 40.0 % [30.0 %, 45.0 %]" in judges.judge_c13([found], []).evidence
    assert "30 trials" in judges.judge_c13([found], []).evidence


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


@pytest.mark.parametrize(
    ("base", "whole", "told"),
    [
        (None, None, "base slice unknown: needs debugfs"),
        (2.8e6, 4e6, "base slice 2.80 ms, 4.00 ms in whole ticks"),
        (2.8e6, None, "base slice 2.80 ms"),
    ],
)
def test_c16_tells_the_kernels_slice(base: float | None, whole: float | None, told: str) -> None:
    found = slice_row(base_slice_ns=base, whole_slice_ns=whole)
    assert judges.judge_c16([found], []).evidence.endswith(f"; {told}")


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
    found = fairness_row(fairness_index=index, wait_max_ns=wait)
    assert verdict_of(judges.judge_c57, [found]) == verdict
    if verdict != NOT_MEASURED:
        evidence = judges.judge_c57([found], []).evidence
        assert ("holds" in evidence) == (verdict != "REFUTED")
        assert ("fails" in evidence) == (verdict != "CONFIRMED")


def fairness_row(**values: Scalar) -> FlatRow:
    known: dict[str, Scalar] = {"tasks_count": 8, "fairness_index": 1.0, "run_p50_ns": 3e6, "window_ns": 10e9}
    return row("fairness", **(known | values))


def test_c57_goes_by_the_kernels_slice_where_it_is_known() -> None:
    """And the median run, of which a disturbed machine makes crumbs, says nothing then."""
    known = fairness_row(wait_max_ns=4 * 8 * 4e6, base_slice_ns=2.8e6, whole_slice_ns=4e6, run_p50_ns=20.0)
    assert verdict_of(judges.judge_c57, [known]) == "CONFIRMED"
    assert (
        "128 ms allowed, by a slice of 4.00 ms (the base slice in whole ticks)"
        in judges.judge_c57([known], []).evidence
    )
    unknown = fairness_row(wait_max_ns=1.0)
    assert "3.00 ms (the median run, as the base slice could not be read)" in judges.judge_c57([unknown], []).evidence


def test_c57_needs_ten_seconds() -> None:
    verdict = judges.judge_c57([fairness_row(wait_max_ns=1.0, window_ns=9.99e9)], [])
    assert verdict.verdict == "INCONCLUSIVE"
    assert verdict.evidence.endswith("would be CONFIRMED, but they were watched for 9.99 s (rule: 10.0 s)")
