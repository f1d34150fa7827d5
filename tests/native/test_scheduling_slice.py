"""scheduling --mode tick and --mode contend: the tick's known answer, runs and gaps that tile the window."""

from __future__ import annotations

import gzip
import itertools
import os
import resource
import time
from pathlib import Path

import pytest
from conftest import cannot_run

from c10k_probe import native
from native.driving import Message
from native.kernel_view import session_members
from native.test_scheduling import ask

QUIET_SHARE = 0.05  # of a CPU that others may use where all of it is expected to be ours


def last_cpu() -> int:
    """Where the helper works unless told otherwise."""
    return max(os.sched_getaffinity(0))


def configured_hertz() -> int:
    """CONFIG_HZ of the running kernel, or the skip that says where it was looked for."""
    places = [Path("/proc/config.gz"), Path(f"/boot/config-{os.uname().release}")]
    for place in places:
        if place.exists():
            data = place.read_bytes()
            text = gzip.decompress(data).decode() if place.suffix == ".gz" else data.decode()
            return next(int(line.removeprefix("CONFIG_HZ=")) for line in text.splitlines() if line[:10] == "CONFIG_HZ=")
    cannot_run(f"neither {places[0]} nor {places[1]} is there")
    raise AssertionError


def busy_share(cpu: int, seconds: float = 0.2) -> float:
    """How much of a CPU is in use now, by its line in /proc/stat (user nice system idle iowait irq softirq steal)."""

    def reading() -> tuple[int, int]:
        lines = Path("/proc/stat").read_text().splitlines()
        values = [int(word) for word in next(line for line in lines if line.startswith(f"cpu{cpu} ")).split()[1:9]]
        return sum(values), values[3] + values[4]

    before = reading()
    time.sleep(seconds)
    after = reading()
    return 1 - (after[1] - before[1]) / max(after[0] - before[0], 1)


def children_cpu_ns() -> float:
    """CPU time of all processes that this one has waited for, and of those that they have."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (usage.ru_utime + usage.ru_stime) * 1e9


# --- the tick ---------------------------------------------------------------------------------------------------------


def tick(duration_ms: int) -> Message:
    """The message of a whole run."""
    outcome = ask(f"tick --duration-ms {duration_ms}")
    assert [message["type"] for message in outcome.messages] == ["hello", "tick", "end"]
    return outcome.only("tick")


def test_the_coarse_clock_moves_by_ticks() -> None:
    found = tick(500)

    assert found["cpu"] == last_cpu()
    assert found["duration_ns"] >= 500 * 10**6
    steps, resolution = found["coarse_steps_ns"], found["coarse_resolution_ns"]
    assert 0 < len(steps) <= found["steps_count"]
    # the clock is slewed by NTP, at most 500 ppm, and a step may be of several ticks
    assert all(abs(step - round(step / resolution) * resolution) <= 0.001 * step for step in steps)
    assert all(step >= 0.999 * resolution for step in steps)
    assert sum(steps) <= found["duration_ns"] + 2 * resolution


def test_the_resolution_is_the_configured_tick() -> None:
    assert tick(10)["coarse_resolution_ns"] == round(1e9 / configured_hertz())


def timer_interrupts(cpu: int) -> int | None:
    """Local timer interrupts of a CPU, as the test reads /proc/interrupts."""
    header, *lines = Path("/proc/interrupts").read_text().splitlines()
    columns = header.split()
    counts = [line.split()[1:] for line in lines if line.split()[0] == "LOC:" or line.endswith("arch_timer")]
    if not counts or f"CPU{cpu}" not in columns:
        return None
    return sum(int(words[columns.index(f"CPU{cpu}")]) for words in counts)


def test_interrupts_are_those_of_proc_interrupts() -> None:
    before = timer_interrupts(last_cpu())
    found = tick(500)
    after = timer_interrupts(last_cpu())

    if before is None or after is None:
        assert found["timer_interrupts_count"] is None
        cannot_run("/proc/interrupts does not name the local timer")
    assert 0 < found["timer_interrupts_count"] <= after - before


def test_steps_are_stored_up_to_a_bound() -> None:
    hertz = configured_hertz()
    found = tick(1200 * 1000 // hertz)

    assert 0 < len(found["coarse_steps_ns"]) <= min(found["steps_count"], 1000)
    assert found["steps_count"] > 1000


# --- the slice --------------------------------------------------------------------------------------------------------


def contend(tasks: int, duration_ms: int, *more: str) -> Message:
    """The message of a whole run."""
    outcome = ask(" ".join([f"contend --tasks {tasks} --duration-ms {duration_ms}", *more]))
    assert [message["type"] for message in outcome.messages] == ["hello", "contend", "end"], outcome
    found = outcome.only("contend")
    end = outcome.only("end")
    assert (end["samples_count"], end["dropped_count"]) == (len(found["run_ns"]), 0)
    assert session_members(outcome.pid) == {}
    return found


def by_task(found: Message, name: str) -> list[list[int]]:
    """A pooled array, parted into what each task wrote."""
    values = iter(found[name])
    return [list(itertools.islice(values, count)) for count in found["runs_count"]]


@pytest.mark.parametrize("policy", ["other", "batch"])
@pytest.mark.parametrize("tasks", [1, 2, 16])
def test_runs_and_gaps_tile_the_window(tasks: int, policy: str) -> None:
    found = contend(tasks, 300, "--policy", policy)

    assert (found["tasks_count"], found["cpu"], found["window_ns"]) == (tasks, last_cpu(), 300 * 10**6)
    assert_tiled(found)
    assert all(gap > found["gap_limit_ns"] == 50_000 for gap in found["gap_ns"])
    assert all(run >= 0 for run in found["run_ns"])
    assert all(foreign == 0 or foreign > found["gap_limit_ns"] for foreign in found["foreign_ns"])


def assert_tiled(found: Message) -> None:
    """What a task did in the window is all of the window."""
    pooled = (by_task(found, name) for name in ("run_ns", "foreign_ns", "gap_ns"))
    for runs, foreign, gaps, first, last in zip(*pooled, found["first_part_ns"], found["last_part_ns"], strict=True):
        assert sum(runs) + sum(foreign) + sum(gaps) + first + last == found["window_ns"]


def test_an_interrupt_does_not_end_a_run() -> None:
    """Over 2 µs is many a timer interrupt: it is no switch, and the run goes on after it."""
    found = contend(2, 500, "--gap-us", "2")

    assert_tiled(found)
    assert found["run_ns"]
    assert min(found["run_switches_count"]) > 0
    assert len(found["run_ns"]) <= sum(found["voluntary_switches_count"]) + sum(found["involuntary_switches_count"])


@pytest.mark.parametrize("tasks", [2, 16])
def test_the_cpu_is_shared_out_and_no_more(tasks: int) -> None:
    quiet = busy_share(last_cpu()) < QUIET_SHARE
    before = children_cpu_ns()
    found = contend(tasks, 500)
    charged = children_cpu_ns() - before
    quiet = quiet and busy_share(last_cpu()) < QUIET_SHARE

    cpu = found["cpu_ns"]
    assert len(cpu) == len(found["longest_wait_ns"]) == tasks
    assert sum(cpu) <= 1.01 * found["window_ns"]
    assert sum(cpu) <= charged + 0.01 * found["window_ns"]  # as the kernel charges the processes themselves
    if quiet:
        assert sum(cpu) >= 0.8 * found["window_ns"]


@pytest.mark.parametrize("tasks", [2, 16])
def test_the_switches_are_those_that_ended_the_runs(tasks: int) -> None:
    found = contend(tasks, 300)

    runs = by_task(found, "run_switches_count")
    for voluntary, involuntary, counts in zip(
        found["voluntary_switches_count"], found["involuntary_switches_count"], runs, strict=True
    ):
        assert sum(counts) <= voluntary + involuntary
        assert sum(count > 0 for count in counts) <= voluntary + involuntary
    assert sum(found["involuntary_switches_count"]) > 0


def test_a_run_is_time_on_the_cpu() -> None:
    """A run is a task's own time but for what it did not notice: switches away that were shorter than a gap."""
    found = contend(2, 300)

    runs, counts = by_task(found, "run_ns"), by_task(found, "run_switches_count")
    for times, switches, cpu in zip(runs, counts, found["cpu_ns"], strict=True):
        unnoticed = sum(max(count - 1, 0) for count in switches) * found["gap_limit_ns"]
        assert sum(times) <= cpu + unnoticed + 0.05 * found["window_ns"]  # interrupts may be charged to nobody


def test_waits_are_at_least_the_gaps() -> None:
    found = contend(4, 300)

    gaps = by_task(found, "gap_ns")
    for longest, mine in zip(found["longest_wait_ns"], gaps, strict=True):
        assert max(mine, default=0) <= longest <= found["window_ns"]


def test_a_task_that_never_had_a_turn_waited_for_all_of_the_window() -> None:
    found = contend(200, 20)

    unlucky = [index for index, cpu in enumerate(found["cpu_ns"]) if found["longest_wait_ns"][index] == 20 * 10**6]
    assert unlucky, "20 ms are not enough for 200 tasks"
    assert all(found["first_part_ns"][index] == 20 * 10**6 for index in unlucky)
    assert all(found["runs_count"][index] == found["last_part_ns"][index] == 0 for index in unlucky)


def test_distances_to_the_tick_are_at_most_half_of_it() -> None:
    found = contend(2, 500)

    tick_ns = found["coarse_resolution_ns"]
    if found["edges_count"] == 0:
        assert found["edge_distance_ns"] is None
        cannot_run("no tick was seen")
    assert len(found["edge_distance_ns"]) == len(found["run_ns"])
    assert all(0 <= distance <= tick_ns / 2 for distance in found["edge_distance_ns"])
    offsets = found["edge_offset_ns"]
    assert len(offsets) == found["edges_count"] <= 2 * 64
    assert offsets == sorted(offsets)
    assert offsets[len(offsets) // 2] == 0  # the grid lies at their median
    assert max(map(abs, offsets)) <= tick_ns


def test_a_longer_gap_finds_no_more_runs() -> None:
    assert contend(2, 300, "--gap-us", "1000000")["run_ns"] == []


@pytest.mark.parametrize("linking", native.LINKINGS)
def test_every_linking(linking: str) -> None:
    if linking == "static-pie" and not (native.folder() / "scheduling-static-pie").exists():
        cannot_run("the helpers were built without static-pie")

    assert ask("contend --tasks 2 --duration-ms 50", linking=linking).code == 0
