"""scheduling --mode yield and --mode hog: counts that the kernel agrees with, shares that make up the window."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from c10k_probe import native
from native.driving import Message
from native.kernel_view import living_members, session_members
from native.test_scheduling import ask, of_mode
from native.test_scheduling_slice import QUIET_SHARE, busy_share, children_cpu_ns, last_cpu

PASSES = 5  # of scheduling_yield.c
TICK_MOST_NS = 10_000_000  # HZ=100

# --- many that yield --------------------------------------------------------------------------------------------------


def yields(tasks: int, kind: str, budget_ms: int = 20) -> Message:
    """The message of a whole run."""
    outcome = ask(f"yield --tasks {tasks} --kind {kind} --budget-ms {budget_ms}")
    assert [message["type"] for message in outcome.messages] == ["hello", "yield", "end"], outcome
    assert outcome.only("end")["samples_count"] == PASSES
    assert session_members(outcome.pid) == {}
    return outcome.only("yield")


def switches_of_children() -> int:
    """Of all processes that this one has waited for, and of those that they have."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_nvcsw + usage.ru_nivcsw


@pytest.mark.parametrize("kind", ["processes", "threads"])
@pytest.mark.parametrize("tasks", [1, 2, 64, 1000])
def test_passes(tasks: int, kind: str) -> None:
    found = yields(tasks, kind)

    assert (found["tasks_count"], found["cpu"]) == (tasks, last_cpu())
    names = ("pass", "yields", "switches", "counted_yields", "counted_switches", "counted_cpu")
    arrays = [found.get(f"{name}_count", found.get(f"{name}_ns")) for name in names]
    assert [len(values) for values in arrays] == [PASSES] * len(names)
    assert all(in_pass <= counted for in_pass, counted in zip(arrays[1], arrays[3], strict=True))
    assert all(in_pass <= counted for in_pass, counted in zip(arrays[2], arrays[4], strict=True))


@pytest.mark.parametrize("kind", ["processes", "threads"])
def test_the_switches_are_the_kernels(kind: str) -> None:
    before = switches_of_children()
    found = yields(8, kind, budget_ms=100)
    charged = switches_of_children() - before

    assert 0 < sum(found["counted_switches_count"]) <= charged
    assert sum(found["switches_count"]) > 0


def test_a_task_that_is_alone_yields_to_nobody() -> None:
    """But for others on that CPU: an order, as they may be many."""
    alone, two = yields(1, "threads"), yields(2, "threads")

    assert sum(alone["yields_count"]) > 0
    ratios = [sum(found["counted_switches_count"]) / sum(found["counted_yields_count"]) for found in (alone, two)]
    assert ratios[0] < ratios[1]


# --- an old task and a fresh one --------------------------------------------------------------------------------------


def test_the_shares_make_up_the_window() -> None:
    quiet = busy_share(last_cpu()) < QUIET_SHARE
    before = children_cpu_ns()
    outcome = ask("hog --hog-ms 200 --trials 4 --share-ms 200")
    charged = children_cpu_ns() - before
    quiet = quiet and busy_share(last_cpu()) < QUIET_SHARE

    assert [message["type"] for message in outcome.messages] == ["hello", *["progress"] * 4, "hog", "end"]
    assert [message["done"] for message in outcome.of_type("progress")] == [1, 2, 3, 4]
    assert {message["total"] for message in outcome.of_type("progress")} == {4}
    found = outcome.only("hog")
    assert found["cpu"] == last_cpu()
    assert found["hog_burned_ns"] > 0
    assert {message["hog_burned_ns"] for message in outcome.of_type("progress")} == {found["hog_burned_ns"]}
    numbers = ("fresh_cpu_ns", "hog_cpu_ns", "window_ns")
    each = [tuple(message[name] for name in numbers) for message in outcome.of_type("progress")]
    assert len(each) == outcome.only("end")["samples_count"] == 4
    for fresh, hog, window in each:
        assert window >= 200 * 10**6
        assert fresh > 0
        assert hog > 0
        assert fresh + hog <= 1.01 * window + 10**6
        if quiet:
            assert fresh + hog >= 0.9 * window
    spent = found["hog_burned_ns"] + sum(fresh + hog for fresh, hog, _ in each)
    assert spent <= charged + TICK_MOST_NS  # as the kernel charges the processes themselves
    assert session_members(outcome.pid) == {}


def schedstat_ns(pid: int) -> int:
    """CPU time of a process' first thread as of its last tick or switch; proc(5). 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
    except OSError:
        return 0


def test_schedstat_agrees() -> None:
    """Between two trials' ends the hog has had what it had in the second one's window, and what it had alone."""
    with native.Helper("scheduling", of_mode("hog --hog-ms 100 --trials 3 --share-ms 200")) as helper:
        readings, trials = [], []
        for _ in range(2):
            trials.append(helper.expect("progress"))
            readings.append(max(map(schedstat_ns, living_members(helper.pid) - {helper.pid})))  # the older one's
        trials.append(helper.expect("progress"))
        found = helper.expect("hog")
        helper.finish()

    assert readings[0] >= found["hog_burned_ns"] - TICK_MOST_NS
    # the first reading may come late into the second window, by as long as this process waited for its turn
    assert readings[1] - readings[0] <= trials[1]["hog_cpu_ns"] + trials[2]["window_ns"] + TICK_MOST_NS
    had = sum(trial["hog_cpu_ns"] for trial in trials[:2])
    assert readings[1] >= found["hog_burned_ns"] + had - TICK_MOST_NS


def test_both_are_pinned_to_the_chosen_cpu() -> None:
    first = min(os.sched_getaffinity(0))
    outcome = ask(f"hog --hog-ms 1 --trials 1 --share-ms 20 --cpu {first}")

    assert outcome.only("hog")["cpu"] == first
