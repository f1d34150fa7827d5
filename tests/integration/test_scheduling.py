"""``scheduling`` in full depth: every measure, the tick in three ways, perf's count, refusals, walls, and Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import kernel
import pytest
from command import Finished, complaint_of, limited, only_run_folder, rows_of, run, run_folders, run_inside, started
from conftest import cannot_run

from c10k_probe import results

CLAIMS = ("C11", "C12", "C13", "C14", "C15", "C16", "C17", "C28", "C57")
CLOCK_MONOTONIC_COARSE = 6  # clock_gettime(2); Python does not name it
VERDICTS = {"CONFIRMED", "REFUTED", "PARTLY", "INCONCLUSIVE", "NOT-MEASURED", "NOT-FALSIFIABLE"}
SMALL = (
    *("--quick", "--tasks", "2,8", "--working-set", "0,64KiB", "--work", "3us,30us", "--contenders", "2,4"),
    *(
        "--runnable",
        "2,8,64",
        "--window",
        "100ms",
        "--tick",
        "100ms",
        "--budget",
        "2ms",
        "--hog",
        "100ms",
        "--trials",
        5,
    ),
    *("--share", "100ms", "--fairness", "200ms", "--repeats", 5),
)
# What each measure has numbers for, by the columns' first words; everything else is empty.
TOLD: Mapping[str, set[str]] = {
    "switch": {"switch", "hop", "harness", "switches_per_hop", "voluntary", "involuntary"},
    "loss": {"lost", "switches_per_s", "voluntary", "involuntary"},
    "slice": {"run", "wait", "share", "fairness", "voluntary", "involuntary", "window"},
    "fairness": {"run", "wait", "share", "fairness", "voluntary", "involuntary", "window"},
    "tick": {"tick_coarse", "tick_interrupt", "window"},
    "runnable": {"switch"},
    "fresh": {"fresh", "burned", "window"},
}
COLUMNS = {
    "switch": "switch_ns",
    "hop": "hop_ns",
    "harness": "harness_ns",
    "switches_per_hop": "switches_per_hop_ratio",
    "lost": "lost_pct",
    "switches_per_s": "switches_per_s",
    "run": "run_p50_ns",
    "wait": "wait_max_ns",
    "share": "share_min_pct",
    "fairness": "fairness_index",
    "tick_coarse": "tick_coarse_ns",
    "tick_interrupt": "tick_interrupt_ns",
    "fresh": "fresh_share_pct",
    "burned": "burned_ns",
    "window": "window_ns",
    "voluntary": "voluntary_switches_count",
    "involuntary": "involuntary_switches_count",
}
TOLERANCE = 0.05
RUNS_MOST = 5
Row = dict[str, str]


def ok_rows(rows: Sequence[Row], measure: str) -> list[Row]:
    """The rows of a measure; of those on two CPUs only what this machine can have."""
    found = [row for row in rows if row["measure"] == measure]
    can_be = [row for row in found if row["cpus_count"] == "1" or len(os.sched_getaffinity(0)) > 1]
    assert can_be
    assert {row["status"] for row in can_be} == {"ok"}, [row["reason"] for row in can_be]
    return can_be


# --- every measure ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Finished, list[Row], Path]:
    """Everything at a small size."""
    cwd = tmp_path_factory.mktemp("small")
    finished = run("scheduling", *SMALL, "--csv", "-", cwd=cwd)
    assert finished.code == 0, finished.stderr
    return finished, rows_of(finished.stdout), cwd


@pytest.mark.alone
def test_every_measure_gives_its_rows(small: tuple[Finished, list[Row], Path]) -> None:
    counts = Counter(row["measure"] for row in small[1])
    assert counts == {
        "switch": 3 * 2 * 2 + 2 * (1 + 1),
        "loss": 2 * 2 * 2,
        "slice": 2 + 1,
        "fairness": 1,
        "tick": 1,
        "runnable": 3,
        "fresh": 1,
    }
    keys = ("measure", "method", "kind", "tasks_count", "working_set_bytes", "work_ns", "cpus_count")
    assert len({tuple(row[name] for name in keys) for row in small[1]}) == len(small[1])


@pytest.mark.alone
@pytest.mark.parametrize("measure", TOLD)
def test_columns_that_apply_are_filled_and_the_others_are_empty(
    small: tuple[Finished, list[Row], Path], measure: str
) -> None:
    for row in ok_rows(small[1], measure):
        assert {word for word, column in COLUMNS.items() if row[column]} == TOLD[measure]
        launches = "1" if measure in ("fairness", "fresh") else "5"
        assert (row["launches_count"], row["dropped_count"]) == (launches, "0")
        assert int(row["n_count"]) > 0


@pytest.mark.alone
def test_numbers_lie_where_they_can(small: tuple[Finished, list[Row], Path]) -> None:
    for row in ok_rows(small[1], "switch"):
        assert float(row["hop_ns"]) > float(row["harness_ns"]) > 0
        assert float(row["switch_ns"]) > 0
        assert bool(row["refill_ns"]) == (row["working_set_bytes"] != "0")
    for measure in ("slice", "fairness"):
        for row in ok_rows(small[1], measure):
            assert 1 / int(row["tasks_count"]) <= float(row["fairness_index"]) <= 1
            assert 0 <= float(row["run_min_ns"]) <= float(row["run_p50_ns"]) <= float(row["run_max_ns"])
            assert float(row["wait_max_ns"]) > 50_000  # less is no gap
            assert 0 <= float(row["share_min_pct"]) <= 100
            assert not row["near_edge_pct"] or 0 <= float(row["near_edge_pct"]) <= 100
    assert all(float(row["lost_pct"]) < 100 for row in ok_rows(small[1], "loss"))
    (fresh,) = ok_rows(small[1], "fresh")
    assert 0 < float(fresh["fresh_share_pct"]) < 100
    assert fresh["n_count"] == "5"


@pytest.mark.alone
def test_on_one_cpu_two_tasks_switch_once_a_turn(small: tuple[Finished, list[Row], Path]) -> None:
    """At least, since each turn takes the CPU from the other; others on this CPU may add a few."""
    pairs = [row for row in ok_rows(small[1], "switch") if (row["tasks_count"], row["cpus_count"]) == ("2", "1")]
    ratios = {(row["method"], row["kind"]): float(row["switches_per_hop_ratio"]) for row in pairs}
    assert len(ratios) == 6
    assert ratios == {key: pytest.approx(1, abs=TOLERANCE) for key in ratios}


@pytest.mark.alone
def test_every_verdict_is_in_the_run_folder(small: tuple[Finished, list[Row], Path]) -> None:
    facts = results.load(only_run_folder(small[2])).facts
    verdicts = {item["claim"]: item["verdict"] for item in facts["verdicts"]}
    assert tuple(sorted(verdicts)) == CLAIMS
    assert set(verdicts.values()) <= VERDICTS
    assert (verdicts["C14"], verdicts["C28"]) == ("REFUTED", "NOT-FALSIFIABLE")
    assert "NOT-MEASURED" not in {verdicts[claim] for claim in ("C11", "C13", "C15", "C16", "C57")}
    told = {item["claim"]: item["evidence"] for item in facts["verdicts"]}
    assert "interrupts" in told["C11"] and "trials" in told["C13"] and "2 to 64 runnable" in told["C15"]


@pytest.mark.alone
def test_charts_have_something_to_draw(small: tuple[Finished, list[Row], Path]) -> None:
    for chart in ("switch", "ring", "lost", "slices", "runnable"):
        drawn = run_inside("plot", only_run_folder(small[2]), "--chart", chart, cwd=small[2])
        assert (drawn.code, drawn.stderr) == (0, ""), chart


# --- the tick ---------------------------------------------------------------------------------------------------------

BUSY = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); print(flush=True)\nwhile True: pass"


@contextmanager
def busy(cpu: int, count: int) -> Iterator[None]:
    """So many processes that use a CPU."""
    command = [sys.executable, "-c", BUSY, str(cpu)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(count)]
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


@pytest.mark.alone
@pytest.mark.parametrize("others", [0, 3])
def test_three_ways_to_read_the_tick_agree(tmp_path: Path, others: int) -> None:
    """Also on a CPU that others use: a task that is kept off it at each tick may see no whole step, but no other one.

    Timers of other programs interrupt too: where the machine was not quiet, interrupts may come more often.
    """
    with busy(max(os.sched_getaffinity(0)), others):
        arguments = ("--measure", "tick", "--tick", "500ms", "--repeats", 3, "--csv", "-")
        finished = run_inside("scheduling", *arguments, cwd=tmp_path)
    assert finished.code == 0, finished.stderr
    (row,) = rows_of(finished.stdout)
    assert row["tick_coarse_ns"] or others
    resolution_ns = 1e9 * time.clock_getres(CLOCK_MONOTONIC_COARSE)
    coarse, interrupts = float(row["tick_coarse_ns"] or resolution_ns), float(row["tick_interrupt_ns"] or 0)
    if row["tick_config_ns"]:
        assert coarse == pytest.approx(float(row["tick_config_ns"]), rel=TOLERANCE)
    assert 0 <= interrupts <= (1 + TOLERANCE) * coarse
    if interrupts and "not quiet" not in finished.stderr:
        assert interrupts == pytest.approx(coarse, rel=TOLERANCE)
    assert row["tick_always"].startswith(("yes, ", "no, "))


# --- an independent count ---------------------------------------------------------------------------------------------


@pytest.mark.alone
def test_perf_counts_the_same_switches(tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    """sched_switch over the whole command; what the run counted in some turns holds for all of its turns.

    Others that want this CPU make turns longer, and the rest of the command more beside fewer of them: so one of a few
    runs must agree. A BPF program on the tracepoint can hide its events from perf; the count that is no tracepoint
    tells.
    """
    perf = (require_tool("perf"), "stat", "-x,", "-e", "sched:sched_switch,context-switches", "-o")
    if subprocess.run([*perf, str(tmp_path / "none"), "--", "true"], capture_output=True, check=False).returncode != 0:
        cannot_run("perf may not count sched:sched_switch here")
    seen: list[tuple[float, int, str]] = []
    while not any(
        expected > 5000 and switches == pytest.approx(expected, rel=TOLERANCE) for expected, switches, _ in seen
    ):
        assert len(seen) < RUNS_MOST, seen
        folder = tmp_path / str(len(seen))
        folder.mkdir()
        seen.append(switches_of_a_run(folder, (*perf, str(folder / "counts"), "--")))
    expected, switches, by_tracepoint = seen[-1]
    if not by_tracepoint.isdigit() or int(by_tracepoint) < switches / 2:
        cannot_run("something hides sched:sched_switch from perf")
    assert int(by_tracepoint) == pytest.approx(expected, rel=TOLERANCE)


def switches_of_a_run(folder: Path, perf: tuple[str, ...]) -> tuple[float, int, str]:
    """Switches by the run's own row, by the kernel's count in perf, and by the tracepoint, as perf says it."""
    arguments = ("--measure", "switch", "--token", "pipe", "--kind", "thread", "--cpus", 1, "--tasks", 2)
    small = ("--working-set", 0, "--budget", "300ms", "--repeats", 1, "--csv", "-")
    finished = run("scheduling", *arguments, *small, cwd=folder, wrapper=perf)
    assert finished.code == 0, finished.stderr
    (row,) = rows_of(finished.stdout)
    (record,) = results.load(only_run_folder(folder)).samples
    lines = [line.split(",") for line in (folder / "counts").read_text(encoding="utf-8").splitlines()]
    found = {line[2].partition(":u")[0]: line[0] for line in lines if len(line) > 2}
    if not found["context-switches"].isdigit():
        cannot_run("perf does not count context switches here")
    expected = float(row["switches_per_hop_ratio"]) * record["facts"]["hops_count"]
    return expected, int(found["context-switches"]), found["sched:sched_switch"]


# --- what is refused --------------------------------------------------------------------------------------------------

REFUSED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("--measure nap", ("--measure", "'nap'", "switch, loss, slice")),
    ("--measure tick,tick", ("--measure", "twice")),
    ("--tasks 1", ("--tasks", "'1'", "at least 2")),
    ("--tasks 5000", ("--tasks", "at most 4096")),
    ("--contenders 1", ("--contenders", "at least 2")),
    ("--runnable 1", ("--runnable", "at least 2")),
    ("--share 0", ("--share", "'0'", "at least 100ms")),
    ("--hog 1ms", ("--hog", "at least 100ms")),
    ("--trials 0", ("--trials", "at least 1")),
    ("--window 1ms", ("--window", "at least 10ms")),
    ("--tick 1ms", ("--tick", "at least 10ms")),
    ("--budget 0", ("--budget", "at least 1ms")),
    ("--cpus 3", ("--cpus", "at most 2")),
    ("--working-set -1", ("--working-set", "at least 0")),
    ("--work 1ns", ("--work", "at least 100ns")),
    ("--token pigeon", ("--token", "'pigeon'", "pipe, futex, eventfd")),
    ("--kind fiber", ("--kind", "'fiber'", "thread, process")),
    ("--policy fifo", ("--policy", "'fifo'", "other, batch")),
)


@pytest.mark.parametrize(("line", "named"), REFUSED, ids=[line for line, _ in REFUSED])
def test_refused_in_one_line(tmp_path: Path, line: str, named: tuple[str, ...]) -> None:
    finished = run_inside("scheduling", *line.split(), cwd=tmp_path)
    assert finished.code == 2, finished.stderr
    complaint = complaint_of(finished).replace(",", "")
    assert [word for word in named if word.replace(",", "") not in complaint] == []
    assert run_folders(tmp_path) == []


# --- walls ------------------------------------------------------------------------------------------------------------


def test_a_ring_beyond_the_limit_of_descriptors_costs_its_row_alone(tmp_path: Path) -> None:
    arguments = ("--measure", "switch", "--token", "pipe", "--kind", "process", "--cpus", 1, "--tasks", "2,1000")
    small = ("--working-set", 0, "--budget", "1ms", "--repeats", 1, "--csv", "-")
    finished = run("scheduling", *arguments, *small, cwd=tmp_path, wrapper=limited("RLIMIT_NOFILE", 300))
    assert finished.code == 0, finished.stderr
    rows = {row["tasks_count"]: row for row in rows_of(finished.stdout)}
    assert {count: row["status"] for count, row in rows.items()} == {"2": "ok", "1000": "skipped"}
    assert rows["1000"]["reason"].startswith("descriptors: ")
    assert "skipped" in finished.stderr


ON_ONE_CPU = (
    "import os, sys; os.sched_setaffinity(0, {max(os.sched_getaffinity(0))}); os.execvp(sys.argv[1], sys.argv[1:])"
)


def test_without_a_second_cpu_its_rows_are_skipped(tmp_path: Path) -> None:
    arguments = ("--measure", "switch", "--token", "futex", "--kind", "thread", "--cpus", "1,2", "--tasks", 2)
    small = ("--working-set", 0, "--budget", "1ms", "--repeats", 1, "--csv", "-")
    finished = run("scheduling", *arguments, *small, cwd=tmp_path, wrapper=(sys.executable, "-c", ON_ONE_CPU))
    assert finished.code == 0, finished.stderr
    rows = {row["cpus_count"]: row for row in rows_of(finished.stdout)}
    assert {count: row["status"] for count, row in rows.items()} == {"1": "ok", "2": "skipped"}
    assert "CPU" in rows["2"]["reason"]


# --- Ctrl-C, the end of the time, a helper's death --------------------------------------------------------------------

TRIALS = ("--hog", "100ms", "--trials", 1000, "--share", "100ms", "--seed", 1, "--repeats", 1, "--csv", "rows.csv")


def fresh_of(cwd: Path) -> Row:
    """The row of the fresh task, which tells of the trials that were finished; their samples are kept too."""
    rows = {row["measure"]: row for row in rows_of((cwd / "rows.csv").read_text(encoding="utf-8"))}
    row = rows["fresh"]
    assert int(row["n_count"]) > 0
    assert f"{row['n_count']} of 1000 trials were measured before the end" in row["reason"]
    assert 0 < float(row["fresh_share_pct"]) < 100
    kept = [record for record in results.load(only_run_folder(cwd)).samples if record["key"]["measure"] == "fresh"]
    assert sum(bool(record["values"]) for record in kept) == int(row["n_count"])
    return row


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_in_mid_trial_keeps_what_was_measured(tmp_path: Path, number: signal.Signals) -> None:
    """With this seed the tick is measured first; then come trials for minutes, each a process beside an old one."""
    with started("scheduling", "--measure", "tick,fresh", "--tick", "20ms", *TRIALS, cwd=tmp_path) as command:
        command.until(lambda: "of 1000" in command.stderr, "a finished trial")
        command.until(lambda: len(command.living()) >= 4, "a fresh process beside the hog")
        command.signal(number)
        finished = command.finish(20)
        assert command.living() == []
    assert finished.code == 130, finished.stderr
    assert "Traceback" not in finished.stderr
    rows = {row["measure"]: row for row in rows_of((tmp_path / "rows.csv").read_text(encoding="utf-8"))}
    assert rows["tick"]["status"] == "ok"
    assert float(rows["tick"]["tick_coarse_ns"]) > 0
    assert fresh_of(tmp_path)["status"] == "interrupted"
    assert results.load(only_run_folder(tmp_path)).state == "interrupted"


def test_trials_that_the_time_suffices_for_are_kept(tmp_path: Path) -> None:
    finished = run("scheduling", "--measure", "fresh", "--timeout", "2s", *TRIALS, cwd=tmp_path)
    assert finished.code == 3, finished.stderr
    assert fresh_of(tmp_path)["status"] == "interrupted"


def test_trials_before_the_helper_died_are_kept_and_the_row_has_failed(tmp_path: Path) -> None:
    with started("scheduling", "--measure", "fresh", *TRIALS, cwd=tmp_path) as command:
        command.until(lambda: "of 1000" in command.stderr, "a finished trial")
        pid = command.until(lambda: kernel.leader_running("scheduling", command.living()), "the helper")
        os.kill(pid, signal.SIGKILL)
        finished = command.finish(20)
        assert command.living() == []
    assert finished.code == 3, finished.stderr
    row = fresh_of(tmp_path)
    assert row["status"] == "failed"
    assert row["reason"].startswith("scheduling was killed by SIGKILL; ")
