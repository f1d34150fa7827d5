"""What no single row of scheduling shows: at which rate 5 % of the work is lost, how a switch grows; known launches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from c10k_probe.experiments import _scheduling_findings as findings
from hypothesis import given
from hypothesis import strategies as st
from made_scheduling import BLOCKS, exactly, loss, yields

from c10k_probe.experiment import Finding, Samples
from c10k_probe.stats import Interval

SEED = 1

# --- the rate at which 5 % are lost -----------------------------------------------------------------------------------


def lost_rates(taken: Sequence[Samples]) -> dict[str, Finding]:
    return {item.subject: item for item in findings.findings(taken, SEED) if item.column == "switches_per_s"}


SUBJECT = "5 % of the work of two threads with 0 KiB each are lost to pipe switches"


def test_the_rate_is_interpolated_on_a_logarithmic_axis() -> None:
    """2 % at 1,000 and 8 % at 100,000 a second: 5 % half-way between, at 10,000."""
    taken = [
        loss(rate, lost, work, block)
        for block in range(BLOCKS)
        for rate, lost, work in ((10**3, 2, 10**6), (10**5, 8, 10**4), (10**6, 60, 10**3))
    ]
    found = lost_rates(taken)
    assert list(found) == [SUBJECT]
    value = found[SUBJECT].value
    assert value is not None
    assert [value.middle, value.low, value.high] == [pytest.approx(10**4, rel=1e-3)] * 3


@given(st.floats(1e3, 1e5), st.floats(2, 50), st.floats(0.1, 4.5), st.floats(6, 80))
def test_the_rate_lies_between_its_neighbours(rate: float, factor: float, below: float, above: float) -> None:
    taken = [loss(rate, below, 9), loss(rate * factor, above, 8)]
    value = lost_rates(taken)[SUBJECT].value
    assert value is not None
    share = (5 - below) / (above - below)
    assert value.middle == pytest.approx(rate * factor**share, rel=0.02)


@pytest.mark.parametrize(
    ("lost", "note"),
    [
        ((1, 2, 4.9), "not reached: 4.90 % at the highest rate, 100,000/s"),
        ((6, 20, 60), "always: 6.00 % already at the lowest rate, 1,000/s"),
    ],
)
def test_where_5_pct_is_not_crossed_no_rate_is_made_up(lost: Sequence[float], note: str) -> None:
    taken = [
        loss(10.0 ** (3 + step), share, 10 ** (6 - step), block)
        for block in range(BLOCKS)
        for step, share in enumerate(lost)
    ]
    found = lost_rates(taken)[SUBJECT]
    assert (found.value, found.note) == (None, note)


def crossing(*highest_pct: float, lowest_pct: Sequence[float] = (1,) * BLOCKS) -> Finding:
    """What is found when each launch loses so much at 1,000 and at 100,000 switches a second."""
    taken = [loss(10**3, share, 9, block) for block, share in enumerate(lowest_pct)]
    taken += [loss(10**5, share, 8, block) for block, share in enumerate(highest_pct)]
    return lost_rates(taken)[SUBJECT]


def test_launches_that_did_not_reach_it_open_the_interval_above() -> None:
    found = crossing(9, 9, 9, 4, 3)
    assert found.value is not None
    assert (found.value.middle, found.value.low) == (pytest.approx(10**4, rel=1e-3), pytest.approx(10**4, rel=1e-3))
    assert found.value.high is None
    beyond = "not reached in 2 of 5 launches: 3.50 % at the highest rate, 100,000/s"
    assert found.note == f"interval open above, from 10,000/s; {beyond}"


def test_launches_that_always_lose_more_open_it_below() -> None:
    found = crossing(9, 9, 9, 9, 9, lowest_pct=(1, 1, 1, 6, 8))
    assert found.value is not None
    assert (found.value.low, found.value.high) == (None, pytest.approx(10**4, rel=1e-3))
    assert found.note.startswith("interval open below, up to 10,000/s; ")
    assert found.note.endswith("always in 2 of 5 launches: 7.00 % already at the lowest rate, 1,000/s")


def test_launches_on_both_sides_leave_a_rate_without_ends() -> None:
    found = crossing(9, 9, 9, 9, 4, lowest_pct=(1, 1, 1, 8, 1))
    assert found.value is not None
    assert (found.value.low, found.value.high) == (None, None)
    assert found.note.startswith("not reached in 1 of 5 launches: ")
    assert "; always in 1 of 5 launches: " in found.note


def test_where_most_launches_did_not_reach_it_there_is_no_rate() -> None:
    found = crossing(9, 9, 4, 4, 3)
    assert found.value is None
    assert found.note == "not reached in 3 of 5 launches: 4.00 % at the highest rate, 100,000/s"


@given(st.lists(st.sampled_from([-math.inf, math.inf, 1.0, 10.0, 1e6]), min_size=1, max_size=9))
def test_an_open_end_is_never_a_number(rates: list[float]) -> None:
    """Whatever some launches found, or did not: the numbers lie among those that were found, in their order."""
    value = findings._open_interval(rates, SEED)
    known = [rate for rate in rates if math.isfinite(rate)]
    if value is None:
        return
    ends = [end for end in (value.low, value.middle, value.high) if end is not None]
    assert ends == sorted(ends)
    assert min(known) <= ends[0] and ends[-1] <= max(known)


def test_each_kind_of_task_and_memory_has_its_rate() -> None:
    taken = [
        loss(rate, lost, work, block, kind=kind, working_set_bytes=memory)
        for block in range(BLOCKS)
        for kind, memory, high in (("thread", 0, 10**5), ("process", 0, 10**4), ("thread", 1 << 20, 10**6))
        for rate, lost, work in ((10**3, 1, 9), (high, 9, 8))
    ]
    found = {subject: item.value.middle for subject, item in lost_rates(taken).items() if item.value}
    assert found == {
        SUBJECT: pytest.approx(10**4, rel=1e-3),
        SUBJECT.replace("threads", "processes"): pytest.approx(math.sqrt(10**7), rel=1e-3),
        SUBJECT.replace("0 KiB", "1,024 KiB"): pytest.approx(math.sqrt(10**9), rel=1e-3),
    }


# --- many runnable tasks ----------------------------------------------------------------------------------------------


def slopes(taken: Sequence[Samples]) -> dict[str, Finding]:
    wanted = findings.runnable_subject("thread")
    return {item.column: item for item in findings.findings(taken, SEED) if item.subject == wanted}


def test_the_slope_is_for_each_doubling_and_the_ratio_from_end_to_end() -> None:
    """1,000 ns for two tasks and 100 more at each doubling, on machines of different speed."""
    taken = [
        yields(1000 + 100 * (math.log2(tasks) - 1) + 50 * block, tasks, block)
        for block in range(BLOCKS)
        for tasks in (2, 16, 128, 1024)
    ]
    found = slopes(taken)
    assert found["growth_ns"].value == Interval(*[pytest.approx(100, abs=0.5)] * 3)
    ratio = found["switch_ratio"].value
    assert ratio is not None
    assert ratio.middle == pytest.approx(2000 / 1100, rel=1e-3)
    assert (ratio.low or 0) < ratio.middle < (ratio.high or 0)
    assert found["growth_ns"].note == "for each doubling, from 2 to 1,024"
    assert found["switch_ratio"].note == "1,024 over 2"


def test_a_switch_that_costs_the_same_has_no_slope() -> None:
    taken = [yields(1000, tasks, block) for block in range(BLOCKS) for tasks in (2, 64, 4096)]
    found = slopes(taken)
    assert found["growth_ns"].value == Interval(*[pytest.approx(0, abs=1e-6)] * 3)
    assert found["switch_ratio"].value == exactly(1)


def test_two_counts_are_no_line() -> None:
    assert slopes([yields(1000, tasks, block) for block in range(BLOCKS) for tasks in (2, 4096)]) == {}


def test_counts_that_not_every_launch_has_are_left_out() -> None:
    taken = [yields(1000, tasks, block) for block in range(BLOCKS) for tasks in (2, 64, 512)]
    taken.append(yields(10**6, 4096, 0))
    assert slopes(taken)["switch_ratio"].note == "512 over 2"


def test_without_samples_there_is_nothing() -> None:
    assert findings.findings([], SEED) == []
