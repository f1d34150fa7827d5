"""The rows of scheduling: known launches become known switches, losses, shares, slopes and rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from c10k_probe.experiments import _scheduling_charts as charts
from c10k_probe.experiments import _scheduling_rows as rows
from c10k_probe.experiments._scheduling_design import MEASURES
from hypothesis import given
from hypothesis import strategies as st
from made_scheduling import BLOCKS, FACTS, contest, exactly, fresh, loss, ring, tick, yields

from c10k_probe.experiment import Samples, columns
from c10k_probe.stats import Interval

SEED = 1


def row_of(taken: Sequence[Samples], **facts: Any) -> rows.SchedulingRow:
    """The one row that these launches make."""
    (row,) = rows.summarise(taken, SEED, FACTS | facts)
    return row


# --- switches ---------------------------------------------------------------------------------------------------------


def test_a_switch_is_a_turn_without_what_the_harness_takes() -> None:
    row = row_of([ring(2500, 700, block) for block in range(BLOCKS)])
    assert (row.switch_ns, row.hop_ns, row.harness_ns) == (exactly(1800), exactly(2500), exactly(700))
    assert (row.launches_count, row.n_count, row.grade) == (BLOCKS, 3 * BLOCKS, "ok")
    assert row.refill_ns is None


def test_the_harness_is_subtracted_launch_by_launch() -> None:
    """Each launch has its own speed: the medians of turns and harnesses may come from different launches."""
    taken = [ring(hop, harness, block) for block, (hop, harness) in enumerate([(9, 8), (20, 2), (30, 13), (40, 24)])]
    assert row_of(taken).switch_ns == Interval(pytest.approx(16.5), None, None)


def test_switches_of_a_turn_are_those_of_the_turns_that_they_were_counted_in() -> None:
    """The kernel's counts also hold the turns between the timed passes."""
    row = row_of([ring(2500, 700, block, switches=1.25) for block in range(BLOCKS)])
    assert row.switches_per_hop_ratio == pytest.approx(1.25)
    assert row.switch_ns == exactly(1800 / 1.25)
    assert row.involuntary_switches_count == 3 * BLOCKS


def test_on_two_cpus_a_turn_is_one_wake_up() -> None:
    """However often a CPU went idle meanwhile."""
    row = row_of([ring(2500, 700, block, switches=1.8, cpus_count=2) for block in range(BLOCKS)])
    assert row.switch_ns == exactly(1800)


@pytest.mark.parametrize("switches", [0, None])
def test_a_switch_that_was_not_counted_has_no_cost(switches: int | None) -> None:
    facts = {"voluntary_switches_count": switches, "involuntary_switches_count": switches}
    one = ring(2500, 700)
    assert row_of([Samples(one.key, 0, one.values, one.facts | facts)]).switch_ns is None


def test_refilling_is_what_all_tasks_memory_costs_over_one_tasks_own() -> None:
    taken = []
    for block in range(BLOCKS):
        one = ring(9000, 5000, block, working_set_bytes=1 << 20)
        taken.append(Samples(one.key, block, {**one.values, "single_set": [300_000, 310_000, 900_000]}, one.facts))
    row = row_of(taken)
    assert row.refill_ns == exactly(5000 - 3100)
    assert row.switch_ns == exactly(4000)


def test_lost_work_is_the_share_of_the_harness_that_is_missing() -> None:
    row = row_of([ring(1000, 950, block, measure="loss", work_ns=900) for block in range(BLOCKS)])
    assert row.lost_pct == exactly(5)
    assert row.switches_per_s == exactly(10**6)
    assert row.switch_ns is None


@pytest.mark.parametrize(("lost", "grade"), [((5.0, 5.1, 5.2, 5.3, 5.4), "ok"), ((1.0, 3.0, 5.0, 7.0, 9.0), "shaky")])
def test_a_small_loss_is_graded_by_percentage_points(lost: Sequence[float], grade: str) -> None:
    row = row_of([loss(10_000, share, 3000, block) for block, share in enumerate(lost)])
    assert row.grade == grade
    assert ("percentage points" in row.grade_reason) == (grade == "shaky")


# --- slices and fairness ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cpu", "index"),
    [
        ([7, 7, 7, 7], 1.0),
        ([5], 1.0),
        ([1, 0, 0, 0], 0.25),
        ([1, 1, 0, 0], 0.5),
        ([1, 2, 3], 36 / 42),
        ([10**10] * 4096, 1.0),
        ([0, 0], 0.0),
    ],
)
def test_jains_index_of_known_shares(cpu: list[int], index: float) -> None:
    assert rows.fairness(cpu) == pytest.approx(index)


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=64).filter(any))
def test_jains_index_lies_between_one_task_and_all(cpu: list[int]) -> None:
    index = rows.fairness(cpu)
    assert 1 / len(cpu) - 1e-9 <= index <= 1 + 1e-9
    assert rows.fairness([9 * value for value in cpu]) == pytest.approx(index)


def test_runs_waits_and_shares_of_contending_tasks() -> None:
    """The worst launch stands for fairness, the least share and the longest wait."""
    taken = [
        contest([3 * 10**6, 4 * 10**6, 4 * 10**6], [50, 50], [8 * 10**6, 4 * 10**6], block=0),
        contest([4 * 10**6, 4 * 10**6, 9 * 10**6], [30, 10], [10**6, 5 * 10**6], block=1),
    ]
    row = row_of(taken)
    assert row.run is not None
    assert (row.run.p50.middle, row.run.minimum, row.run.maximum) == (4e6, 3e6, 9e6)
    assert row.wait_max_ns == 8e6
    assert row.fairness_index == pytest.approx(1600 / (2 * 1000))
    assert row.share_min_pct == pytest.approx(50)
    assert (row.involuntary_switches_count, row.voluntary_switches_count, row.n_count) == (20, 2, 6)


@pytest.mark.parametrize(
    ("base", "whole"),
    [(None, None), (2_800_000, 4e6), (4_000_000, 4e6), (4_000_001, 8e6), (100_000, 4e6)],
)
@pytest.mark.parametrize("measure", ["slice", "fairness"])
def test_a_slice_ends_at_a_tick(measure: str, base: int | None, whole: float | None) -> None:
    row = row_of([contest([4], measure=measure)], sched_base_slice_ns=base)
    assert (row.base_slice_ns, row.whole_slice_ns) == (base, whole)


@pytest.mark.parametrize(
    ("distances", "share"),
    [([0, 0], 100), ([200_000], 100), ([200_001], 0), ([0, 200_000, 200_001, 10**6], 50), ([10**6] * 3, 0)],
)
def test_near_an_edge_is_within_200_us(distances: list[int], share: float) -> None:
    row = row_of([contest([4] * len(distances), edges_ns=distances, block=block) for block in range(BLOCKS)])
    assert row.near_edge_pct == exactly(share)


@pytest.mark.parametrize(("others", "grade"), [(0, "ok"), (2, "ok"), (4, "shaky"), (50, "shaky")])
@pytest.mark.parametrize("measure", ["slice", "fairness"])
def test_shares_of_a_cpu_that_others_used_too_are_shaky(measure: str, others: int, grade: str) -> None:
    taken = [
        contest([4] * 9, measure=measure, block=block, others_pct=others * (block == 1)) for block in range(BLOCKS)
    ]
    row = row_of(taken)
    assert row.grade == grade
    assert ("used" in row.grade_reason) == (grade == "shaky")


def test_one_launch_of_fairness_is_what_its_rule_asks_for() -> None:
    assert row_of([contest([4] * 9, measure="fairness")]).grade == "ok"
    assert row_of([contest([4] * 9, measure="slice")]).grade == "shaky"


def test_without_any_edge_nothing_is_said_of_edges() -> None:
    assert row_of([contest([4], edges_ns=None, block=block) for block in range(BLOCKS)]).near_edge_pct is None


def test_a_launch_without_a_whole_run_is_empty_not_zero() -> None:
    row = row_of([contest([], waits_ns=[], edges_ns=None)])
    assert (row.run, row.wait_max_ns, row.near_edge_pct) == (None, None, None)
    assert row.grade == "shaky"


# --- many runnable tasks ----------------------------------------------------------------------------------------------


def test_a_switch_among_runnable_tasks_is_their_cpu_time_by_counted_switches() -> None:
    row = row_of([yields(1500, 64, block) for block in range(BLOCKS)])
    assert row.switch_ns == exactly(1500)
    assert (row.lost_pct, row.switches_per_s) == (None, None)


def test_passes_without_a_switch_have_no_cost() -> None:
    one = yields(1500, 64)
    some = Samples(one.key, 0, {"pass": [1, 1], "cpu": [10**6, 3000], "switches": [0, 2]}, one.facts)
    none = Samples(one.key, 0, {"pass": [1], "cpu": [10**6], "switches": [0]}, one.facts)
    assert row_of([some]).switch_ns == Interval(1500, None, None)
    assert row_of([none]).switch_ns is None


# --- the tick, and a fresh task ---------------------------------------------------------------------------------------


def test_the_tick_in_three_ways() -> None:
    row = row_of([tick([4_000_000] * 9, 250, block) for block in range(BLOCKS)])
    assert (row.tick_config_ns, row.tick_coarse_ns, row.tick_interrupt_ns) == (4e6, exactly(4e6), exactly(4e6))
    assert (row.tick_always, row.scheduler, row.grade) == ("yes, no nohz_full", "EEVDF", "ok")


def test_a_way_that_cannot_be_read_is_empty() -> None:
    taken = [tick([4_000_000], 250 if block else None, block) for block in range(BLOCKS)]
    row = row_of(taken, kernel_tick_hz=None, tick_always=None, scheduler=None)
    assert (row.tick_config_ns, row.tick_interrupt_ns, row.tick_always, row.scheduler) == (None,) * 4
    assert row_of([tick([4_000_000], 0)]).tick_interrupt_ns is None


def test_steps_that_were_missed_do_not_make_the_tick_longer() -> None:
    """A task that others keep off the CPU sees the coarse clock two or three ticks further each time."""
    steps = [12_000_000, 4_000_000, 12_000_000, 8_000_000, 12_000_000]
    assert row_of([tick(steps, 250, block) for block in range(BLOCKS)]).tick_coarse_ns == exactly(4e6)


def test_a_launch_that_saw_no_step_does_not_end_the_run() -> None:
    row = row_of([tick([], 2)])
    assert row.tick_coarse_ns is None or row.tick_coarse_ns.middle > 0


def test_the_share_of_a_fresh_task_is_of_what_both_got() -> None:
    row = row_of(fresh([50, 60, 50, 40, 50], [50, 40, 50, 60, 50]))
    assert row.fresh_share_pct is not None
    assert row.fresh_share_pct.middle == 50
    assert (row.fresh_share_pct.low or 0) >= 40
    assert (row.n_count, row.launches_count, row.status) == (5, 1, "ok")


def test_what_the_rules_ask_for_stands_in_the_rows() -> None:
    """How long was watched, and how old the old task was: the least, as each launch has to do."""
    assert row_of([tick([4_000_000], 1, duration_ns=duration) for duration in (9, 7, 8)]).window_ns == 7
    assert row_of([contest([4], cpu, block=block) for block, cpu in enumerate([(9, 1), (4, 4)])]).window_ns == 8
    found = row_of(fresh([1, 1], [1, 1]))
    assert (found.burned_ns, found.window_ns) == (10**10, 10**9)


def test_a_trial_in_which_nobody_ran_does_not_count() -> None:
    row = row_of(fresh([50, 0], [150, 0]))
    assert (row.n_count, row.fresh_share_pct) == (1, Interval(25, None, None))


def test_trials_before_an_interruption_are_a_row_that_says_how_many() -> None:
    row = row_of(fresh([50, 50], [50, 50], trials=30))
    assert (row.n_count, row.status) == (2, "interrupted")
    assert row.reason == "2 of 30 trials were measured before the end"


def test_trials_before_a_failure_are_a_row_that_says_which() -> None:
    taken = fresh([50, 50], [50, 50], trials=30)
    taken.append(Samples(taken[0].key, 0, {}, {"dropped_count": 0, "failure": "scheduling was killed by SIGKILL"}))
    row = row_of(taken)
    assert (row.n_count, row.launches_count, row.status) == (2, 1, "failed")
    assert row.reason == "scheduling was killed by SIGKILL; 2 of 30 trials were measured before the end"


# --- all of them ------------------------------------------------------------------------------------------------------


def test_each_measure_has_its_rows() -> None:
    taken = [ring(9, 1), loss(1000, 5, 9), contest([4]), contest([4], measure="fairness"), tick([4], 1)]
    taken += [yields(1000, 2), *fresh([1], [1])]
    assert [row.measure for row in rows.summarise(taken, SEED, FACTS)] == list(MEASURES)
    assert set(rows._ROWS) == set(MEASURES)


def test_samples_that_were_dropped_are_told() -> None:
    one = ring(9, 1)
    assert row_of([Samples(one.key, 0, one.values, {**one.facts, "dropped_count": 7})]).dropped_count == 7


def test_without_samples_there_is_nothing() -> None:
    assert rows.summarise([], SEED, FACTS) == []


def test_views_name_columns_that_there_are() -> None:
    names = {item.name for item in columns(rows.SchedulingRow)}
    for view in charts.VIEWS:
        assert {view.column, view.low, view.high} - {""} <= names
