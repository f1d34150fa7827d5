"""fork_latency's methods: what each has to say, in an order that must hold, and what the kernel counts of it."""

from __future__ import annotations

import mmap
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import cannot_run

from c10k_probe import native
from native.driving import become_another_user
from native.kernel_view import session_members
from native.test_fork_latency import COUNT, strace_counts, take

LINKINGS = ("dynamic", "static", "static-pie")
PROCESSES = ("fork", "vfork", "clone3")
THREADS = ("pthread_create", "pthread_create_64k", "pthread_create_detached")
FORK_EXECS = ("fork_exec_static", "fork_exec_dynamic")
SPAWNS = ("posix_spawn", "posix_spawn_static", "posix_spawn_dynamic")
METHODS = PROCESSES + THREADS + FORK_EXECS + SPAWNS
FORKS = ("fork", *FORK_EXECS)
SHOCK_PAGES = (1 << 20) // mmap.PAGESIZE


def present(method: str) -> set[str]:
    """The columns of a method that are not null, without the second pass."""
    columns = {"return_ns"}
    columns |= {"started_ns"} if method not in SPAWNS else set()
    columns |= {"exec_ns"} if method in SPAWNS + FORK_EXECS else set()
    columns |= {"cycle_ns"} if method != "pthread_create_detached" else set()
    columns |= {"child_faults_count"} if method not in THREADS else set()
    return columns


@pytest.fixture(autouse=True)
def _has_static_pie(request: pytest.FixtureRequest) -> None:
    """The build leaves static-pie out where the compiler cannot do it."""
    if "static-pie" in request.node.name and not (native.folder() / "fork_latency-static-pie").exists():
        cannot_run("the helpers were built without static-pie")


# --- the columns ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("linking", LINKINGS)
@pytest.mark.parametrize("method", METHODS)
def test_a_column_has_all_samples_or_is_null(method: str, linking: str) -> None:
    outcome = take(method, "--warmup", 2, "--aftershock", 7, linking=linking)

    assert outcome.only("hello")["linking"] == linking
    assert outcome.only("end") == {"type": "end", "samples_count": COUNT, "dropped_count": 0}
    samples = outcome.only("samples")
    lengths = {name: len(values) for name, values in samples.items() if isinstance(values, list)}
    assert lengths == dict.fromkeys(present(method), COUNT) | {"aftershock_ns": 7, "parent_faults_count": 7}
    absent = {name for name, value in samples.items() if value is None}
    assert absent == {"started_ns", "exec_ns", "cycle_ns", "child_faults_count"} - present(method)
    assert all(value > 0 for name in lengths if name.endswith("_ns") for value in samples[name])
    assert all(value >= 0 for name in lengths for value in samples[name])


def test_without_a_second_pass_its_columns_are_null() -> None:
    samples = take("fork").only("samples")

    assert samples["aftershock_ns"] is None
    assert samples["parent_faults_count"] is None


@pytest.mark.parametrize("placement", ["any-cpu", "one-cpu"])
@pytest.mark.parametrize("method", METHODS)
def test_the_order_that_must_hold(method: str, placement: str) -> None:
    samples = take(method, "--placement", placement, samples=50).only("samples")

    for first, second in [("return", "cycle"), ("started", "exec"), ("started", "cycle"), ("exec", "cycle")]:
        earlier, later = samples[f"{first}_ns"], samples[f"{second}_ns"]
        if earlier is not None and later is not None:
            assert all(a <= b for a, b in zip(earlier, later, strict=True)), (first, second)


@pytest.mark.parametrize("method", FORK_EXECS + SPAWNS)
def test_a_program_without_a_stamp_is_a_dropped_sample(method: str) -> None:
    outcome = take(method, "--spawn-target", "/bin/true")

    assert outcome.only("end") == {"type": "end", "samples_count": 0, "dropped_count": COUNT}
    assert outcome.only("samples")["exec_ns"] == []


# --- the kernel's own count -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("linking", LINKINGS)
@pytest.mark.parametrize("method", METHODS)
def test_23_creations_are_23_for_strace(
    method: str, linking: str, require_tool: Callable[[str], str], tmp_path: Path
) -> None:
    take(method, linking=linking, samples=1)  # or the skip
    program = str(native.find("fork_latency", linking))
    arguments = [program, "--method", method, "--samples", str(COUNT - 4), "--aftershock", "4"]
    counts = strace_counts(require_tool("strace"), arguments, tmp_path / "counts")

    created = sum(counts.get(name, 0) for name in ("fork", "vfork", "clone", "clone3"))
    assert created == COUNT
    assert counts.get("wait4", 0) == (0 if method in THREADS else COUNT)
    assert counts["execve"] == (COUNT + 1 if method in FORK_EXECS + SPAWNS else 1)


@pytest.mark.parametrize("linking", LINKINGS)
@pytest.mark.parametrize("method", FORK_EXECS + SPAWNS)
def test_the_executed_program_is_linked_as_named(
    method: str, linking: str, require_tool: Callable[[str], str], tmp_path: Path
) -> None:
    strace_counts(require_tool("strace"), ["true"], tmp_path / "counts")  # or the skip
    report = tmp_path / "calls"
    program = [str(native.find("fork_latency", linking)), "--method", method, "--samples", "3"]
    command = [require_tool("strace"), "-f", "-e", "trace=execve", "-o", str(report), *program]
    subprocess.run(command, capture_output=True, check=True, timeout=30)
    executed = [line.split('"')[1] for line in report.read_text().splitlines() if "execve(" in line and '"' in line]

    wanted = linking if method == "posix_spawn" else method.rpartition("_")[2]
    assert executed[1:] == [str(native.find("spawn_target", wanted))] * 3


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_left(method: str) -> None:
    outcome = take(method, "--aftershock", 5)

    assert session_members(outcome.pid) == {}


# --- what a creation leaves behind ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_only_after_fork_the_parent_pays_for_its_pages(method: str) -> None:
    samples = take(method, "--warmup", 3, "--aftershock", 9).only("samples")

    faults = samples["parent_faults_count"]
    if method in FORKS:
        assert min(faults) >= SHOCK_PAGES
    else:
        assert statistics.median(faults) < SHOCK_PAGES / 4


def test_the_faults_of_children_are_counted() -> None:
    def faults(method: str) -> float:
        return statistics.median(take(method, "--warmup", 3).only("samples")["child_faults_count"])

    assert faults("fork") > 0
    assert faults("posix_spawn_dynamic") > faults("posix_spawn_static") > 0
    assert faults("vfork") < faults("fork")


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("fork_exec_static", "fork"),
        ("posix_spawn_dynamic", "posix_spawn"),
        ("pthread_create_detached", "pthread_create"),
    ],
)
def test_no_more_tasks_than_the_limit(method: str, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    become_another_user(monkeypatch, tasks_limit_count=1)
    outcome = take(method)

    error = outcome.only("error")
    assert (outcome.code, error["call"], error["name"]) == (1, call, "EAGAIN")
    assert outcome.only("samples")["return_ns"] == []
    assert outcome.of_type("end") == []


@pytest.mark.parametrize("method", FORK_EXECS + SPAWNS)
def test_a_missing_program_is_named(method: str) -> None:
    error = take(method, "--spawn-target", "/nonexistent/target").only("error")

    assert (error["call"], error["arguments"], error["name"]) == ("access", "/nonexistent/target", "ENOENT")
