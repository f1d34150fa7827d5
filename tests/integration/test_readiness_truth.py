"""``readiness`` against what is known: the order that must come out, a map, and an independent program."""

from __future__ import annotations

import itertools
import json
import os
import resource
import statistics
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from command import only_run_folder, rows_of, run, run_inside
from conftest import cannot_run

from c10k_probe import native, results

OWN_COUNT = 100  # descriptors beside the watched ones, on any machine
AGREEMENT = 0.2
MAP_COUNTS_MOST = 10
Row = dict[str, str]


def only(rows: Sequence[Row], **wanted: object) -> Row:
    """The one row with these values."""
    (row,) = [row for row in rows if all(row[name] == str(value) for name, value in wanted.items())]
    return row


# --- known answers ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ordered(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """One and all active of a thousand and of ten thousand, five launches each, mechanisms in turn."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 10_000 + OWN_COUNT:
        cannot_run("the hard limit of descriptors is below 10,100")
    cwd = tmp_path_factory.mktemp("ordered")
    arguments = ("--fds", "1000,10000", "--active", "1,100%", "--mechanism", "select,poll,epoll", "--workload", "chain")
    finished = run("readiness", *arguments, "--repeats", 5, "--budget", "10ms", "--csv", "-", cwd=cwd)
    assert finished.code == 0, finished.stderr
    return rows_of(finished.stdout)


def event_ns(rows: Sequence[Row], mechanism: str, watched: int, active: str) -> float:
    return float(only(rows, mechanism=mechanism, watched_count=watched, active=active)["event_ns"])


def test_with_one_active_of_10_000_poll_costs_ten_times_epoll(ordered: list[Row]) -> None:
    assert event_ns(ordered, "poll", 10_000, "1") >= 10 * event_ns(ordered, "epoll", 10_000, "1")


def test_with_one_active_of_1_000_select_costs_three_times_epoll(ordered: list[Row]) -> None:
    """select cannot be asked about 10,000: its sets end at FD_SETSIZE, 1,024. So the order is tested below that."""
    assert only(ordered, mechanism="select", watched_count=10_000)["reason"].startswith("fd-setsize: ")
    assert event_ns(ordered, "select", 1000, "1") >= 3 * event_ns(ordered, "epoll", 1000, "1")


@pytest.mark.parametrize("watched", [1000, 10_000])
def test_with_all_active_poll_is_not_dearer_than_epoll(ordered: list[Row], watched: int) -> None:
    """By more than the run's own interval shows."""
    row = only(ordered, mechanism="poll", watched_count=watched, active="100%")
    assert float(row["over_epoll_lo_ratio"]) <= 1, row["over_epoll_ratio"]


# --- maps -------------------------------------------------------------------------------------------------------------


def test_a_map_is_refined_ends_and_measures_no_cell_twice(tmp_path: Path) -> None:
    """With one active, select wins over one-shot epoll where few are watched only, and has no row beyond its wall.

    It ends when no neighbours that are far apart have different clear winners.
    """
    arguments = ("--map", "--fds", "2,1000,3000", "--mechanism", "select,epoll_oneshot", "--active", "1")
    finished = run("readiness", *arguments, "--repeats", 3, "--budget", "2ms", "--csv", "-", cwd=tmp_path)
    assert finished.code == 0, finished.stderr
    rows = rows_of(finished.stdout)
    assert only(rows, mechanism="select", watched_count=3000)["status"] == "skipped"
    measured = [row for row in rows if row["status"] == "ok"]
    assert {row["launches_count"] for row in measured} == {"3"}
    counts = sorted({int(row["watched_count"]) for row in measured})
    assert {2, 1000, 3000} <= set(counts)
    assert len(counts) <= MAP_COUNTS_MOST
    winners = [winner(measured, count) for count in counts]
    if len(counts) < MAP_COUNTS_MOST:
        steps = zip(itertools.pairwise(counts), itertools.pairwise(winners), strict=True)
        assert all(one == other or not (one and other) for (low, high), (one, other) in steps if high / low > 1.5)
    if winners[0] == "select":
        assert winners[counts.index(1000)] == "epoll_oneshot"
        assert len(counts) > 3
    taken = Counter(
        (*record["key"].values(), record["block"]) for record in results.load(only_run_folder(tmp_path)).samples
    )
    assert set(taken.values()) == {1}
    picture = finished.stderr[finished.stderr.index("Who delivers an event the fastest") :]
    for words in ("watched (count)", "active (count)", "1,000", "3,000"):
        assert words in picture
    drawn = run_inside("plot", only_run_folder(tmp_path), "--chart", "map", cwd=tmp_path)
    assert (drawn.code, drawn.stderr) == (0, "")
    assert drawn.stdout in finished.stderr


def winner(rows: Sequence[Row], watched: int) -> str:
    """Who was the fastest of two at a count by more than a tenth; none where one is alone or it is close."""
    there = [(float(row["event_ns"]), row["mechanism"]) for row in rows if row["watched_count"] == str(watched)]
    (best, name), *others = sorted(there)
    return name if others and others[0][0] > 1.10 * best else ""


def test_a_map_tells_where_one_overtakes_the_other(tmp_path: Path) -> None:
    """Where the run's own intervals bear it out at both ends; growth is told in any case."""
    arguments = ("--map", "--fds", "2..1000", "--mechanism", "poll,epoll_oneshot", "--active", "1")
    finished = run("readiness", *arguments, "--repeats", 5, "--budget", "4ms", "--csv", "-", cwd=tmp_path)
    assert finished.code == 0, finished.stderr
    rows = rows_of(finished.stdout)
    findings = json.loads((only_run_folder(tmp_path) / "run.json").read_text(encoding="utf-8"))["findings"]
    growth = {item["subject"]: item["value"]["middle"] for item in findings if item["column"] == "growth_exponent"}
    assert growth["poll, chain, 1 active"] > growth["epoll_oneshot, chain, 1 active"]
    few = [only(rows, mechanism=name, watched_count=2) for name in ("poll", "epoll_oneshot")]
    many = [only(rows, mechanism=name, watched_count=1000) for name in ("epoll_oneshot", "poll")]
    assert float(many[0]["event_hi_ns"]) < float(many[1]["event_lo_ns"])
    if float(few[0]["event_hi_ns"]) < float(few[1]["event_lo_ns"]):
        (found,) = [item for item in findings if item["column"] == "watched_count"]
        assert found["subject"] == "epoll_oneshot overtakes poll, chain, 1 active"
        assert 2 <= found["value"]["low"] <= found["value"]["middle"] <= found["value"]["high"] <= 1000
        assert "epoll_oneshot overtakes poll, chain, 1 active: watched " in finished.stderr


# --- an independent witness -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def witness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small program of the test's own, in the manner of libevent's benchmark."""
    program = tmp_path_factory.mktemp("witness") / "chain"
    source = Path(__file__).with_name("chain.c")
    try:
        subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, source], check=True)
    except FileNotFoundError:
        cannot_run("gcc is not installed")
    return program


@pytest.mark.parametrize(("mechanism", "writes"), [("poll", 20), ("epoll", 300)])
def test_an_independent_program_agrees_within_20_pct(witness: Path, mechanism: str, writes: int) -> None:
    """One byte on its way over 500 watched sockets, five launches of each in turn on one CPU.

    A pass is a millisecond, so that most passes are whole ones also where others use the CPU; medians are compared.
    """
    cpu = max(os.sched_getaffinity(0))
    ours, theirs = [], []
    for seed in range(1, 6):
        ours.append(our_event_ns(mechanism, writes, cpu, seed))
        theirs.append(their_event_ns(witness, mechanism, writes, cpu))
    ratio = statistics.median(ours) / statistics.median(theirs)
    assert 1 - AGREEMENT <= ratio <= 1 + AGREEMENT, (ours, theirs)


def our_event_ns(mechanism: str, writes: int, cpu: int, seed: int) -> float:
    arguments: dict[str, object] = {
        "--mechanism": mechanism,
        "--watched": 500,
        "--active": 1,
        "--writes": writes,
        "--passes": 60,
        "--budget-ms": 20_000,
        "--cpu": cpu,
        "--seed": seed,
    }
    with native.Helper("readiness", [part for pair in arguments.items() for part in pair]) as helper:
        helper.expect("opened")
        helper.expect("watching")
        passes = helper.expect("passes", 30)
        helper.finish()
    return statistics.median(passes["pass_ns"]) / float(passes["events_per_pass_count"])


def their_event_ns(witness: Path, mechanism: str, writes: int, cpu: int) -> float:
    command = [witness, mechanism, "500", str(writes), "60", str(cpu)]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    return statistics.median(map(int, output.split())) / (writes + 1)
