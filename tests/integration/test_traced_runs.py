"""``--trace`` on experiments, for real: known answers, both arms in one run, and nothing left of any tracer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from command import (
    Finished,
    complaint_of,
    on_terminal,
    only_run_folder,
    rows_of,
    run,
    run_folders,
    run_inside,
    started,
    wait_for,
    without_escapes,
)
from conftest import cannot_run

from c10k_probe import native, results
from c10k_probe.tracing.choose import try_backend
from c10k_probe.tracing.strace import parse_summary

NOBODY = 65534
SMALL, LARGE = 5, 25
FORKS = ("fork-latency", "--method", "fork,vfork,posix_spawn", "--linking", "dynamic")
ONE_FORK = ("fork-latency", "--method", "fork", "--linking", "static", "--n", 40)
# What the reference server does for a connection and its first echo, and what only happens when tasks wait in turn.
SERVED = {
    "epoll": {"accept4": 1, "epoll_ctl": 1, "recvfrom": 1, "sendto": 1},
    "thread": {"accept4": 1, "sendto": 1, "clone3": 1, "mmap": 1, "mprotect": 1},
    "fork": {"accept4": 1, "sendto": 1, "clone": 1, "getppid": 1, "prctl": 1},
}
BY_CHANCE = {"epoll_wait", "poll", "futex", "restart_syscall", "brk", "sched_yield", "recvfrom"}


@cache
def why_not(backend: str) -> str:
    trial = try_backend(backend)
    return "" if trial.works else f"{backend} does not work here: {trial.reason}; {trial.lift}"


def require(backend: str) -> None:
    """Skip, with the backend's own reason, where it does not work."""
    if why_not(backend):
        cannot_run(why_not(backend))


def numbers(text: str) -> dict[str, float]:
    """``clone=1 wait4=1`` by name."""
    return {name: float(count) for name, _, count in (part.partition("=") for part in text.split())}


def arms(rows: list[dict[str, str]], backend: str) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Untraced and traced rows; there are no others."""
    assert {row["traced_by"] for row in rows} == {"off", backend}
    return [row for row in rows if row["traced_by"] == "off"], [row for row in rows if row["traced_by"] != "off"]


# --- fork-latency: known answers ------------------------------------------------------------------------------------


def strace_of(strace: str, method: str, count: int, report: Path) -> dict[str, int]:
    """What strace alone counts of the helper."""
    helper = [str(native.find("fork_latency")), "--method", method, "--samples", str(count), "--warmup", "5"]
    command = [strace, "-f", "-c", "-o", str(report), *helper]
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    return {name: call.count for name, call in parse_summary(report.read_text()).items()}


@pytest.mark.parametrize("backend", ["bcc", "strace"])
def test_calls_of_each_creation_are_those_of_strace_alone(
    backend: str, require_tool: Callable[[str], str], tmp_path: Path
) -> None:
    """Of each method the differences of two launches of the helper, counted by strace without this project."""
    strace = require_tool("strace")
    require(backend)
    done = run(*FORKS, "--n", 40, "--repeats", 1, "--trace", backend, "--csv", "-", cwd=tmp_path)
    assert done.code == 0, done.stderr
    plain, traced = arms(rows_of(done.stdout), backend)
    assert [row["method"] for row in plain] == [row["method"] for row in traced]
    for row in traced:
        small, large = (strace_of(strace, row["method"], count, tmp_path / "report") for count in (SMALL, LARGE))
        known = {name: (large[name] - small.get(name, 0)) / (LARGE - SMALL) for name in large}
        found = numbers(row["calls"])
        ours = {name: count for name, count in found.items() if name not in BY_CHANCE | {"exit", "exit_group"}}
        assert ours == {name: count for name, count in known.items() if count and name not in BY_CHANCE}, row["method"]
        for name in ("clone", "clone3", "vfork", "execve", "mmap", "mprotect", "munmap", "wait4"):
            assert float(row[f"{name}_per_creation"]) == found.get(name, 0)
        assert sum(found.get(name, 0) for name in ("clone", "clone3", "vfork")) == 1
        assert float(row["traced_over_off_ratio"]) > 0
    assert all(row["calls"] == row["calls_per_creation"] == row["traced_over_off_ratio"] == "" for row in plain)
    assert {row["n_count"] for row in plain} == {"40"}
    check_run(tmp_path, backend, done)


def check_run(cwd: Path, backend: str, done: Finished) -> None:
    """What ``run.json`` says of the tracing, and that the slowdown is told."""
    facts = results.load(only_run_folder(cwd)).facts
    assert (facts["tracing"]["asked"], facts["tracing"]["backend"]) == (backend, backend)
    assert any(letter.isdigit() for letter in facts["tracing"]["version"])
    assert facts["tracing_dropped_count"] == (0 if backend == "bcc" else None)
    ratios = [item for item in facts["findings"] if item["column"] == "traced_over_off_ratio"]
    assert len(ratios) == 6, "return and cycle of three methods"
    assert all(item["value"]["middle"] > 0 and backend in item["note"] for item in ratios)
    assert f"traced by {backend} over untraced" in done.stderr


def test_switches_and_faults_are_counted_by_bcc_and_the_kernel_alike(tmp_path: Path) -> None:
    """The kernel's own account (proc) has one switch more of each process: its last, from which it never returns."""
    require("bcc")
    found = {}
    for backend in ("bcc", "proc"):
        folder = tmp_path / backend
        folder.mkdir()
        done = run(*ONE_FORK, "--n", 200, "--repeats", 1, "--trace", backend, "--csv", "-", cwd=folder)
        assert done.code == 0, done.stderr
        _, (found[backend],) = arms(rows_of(done.stdout), backend)
    faults = [float(row["page_faults_per_creation"]) for row in found.values()]
    assert faults[0] == pytest.approx(faults[1], rel=0.2)
    bcc, proc = (float(row["voluntary_switches_per_creation"]) for row in found.values())
    assert proc - bcc == pytest.approx(1, abs=0.3)
    blind = ("calls", "calls_per_creation", "clone_per_creation", "runqueue_wait_ns", "trace_dropped_count")
    assert {found["proc"][name] for name in blind} == {""}, "what it cannot see is empty"


# --- connections: known answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("backend", "models"), [("bcc", tuple(SERVED)), ("strace", ("fork",))])
def test_each_connection_takes_whole_numbers_of_calls(backend: str, models: tuple[str, ...], tmp_path: Path) -> None:
    require(backend)
    sizes = ("--to", 96, "--steps", 3, "--repeats", 1)
    done = run("connections", "--model", ",".join(models), *sizes, "--trace", backend, "--csv", "-", cwd=tmp_path)
    assert done.code == 0, done.stderr
    plain, traced = arms(rows_of(done.stdout), backend)
    assert len(plain) == len(traced) == 3 * len(models)
    for model in models:
        known = SERVED[model]
        (last,) = [row for row in traced if row["model"] == model and row["target_count"] == "96"]
        found = numbers(last["done_calls"])
        assert {name: found.get(name) for name in known} == known
        rest = {name: count for name, count in found.items() if name not in BY_CHANCE}
        assert all(count == int(count) for count in rest.values()), rest
        assert float(last["accepts_per_connection"]) == 1
        assert float(last["calls_per_connection"]) >= sum(known.values())
        if backend == "bcc":
            assert (last["trace_dropped_count"], float(last["voluntary_switches_per_connection"]) > 0) == ("0", True)
    assert {row["server_bytes_per_connection"] for row in traced} == {""}, "a tracer takes memory itself"
    assert {row["calls"] for row in plain} == {""}


@pytest.mark.parametrize("backend", ["bcc", "strace", "proc"])
def test_a_connection_that_comes_and_goes(backend: str, tmp_path: Path) -> None:
    require(backend)
    sizes = ("--model", "epoll,fork", "--n", 120, "--repeats", 1)
    done = run("short-connections", *sizes, "--trace", backend, "--csv", "-", cwd=tmp_path)
    assert done.code == 0, done.stderr
    _, traced = arms(rows_of(done.stdout), backend)
    epoll, fork = sorted(traced, key=lambda row: row["model"])
    if backend == "proc":
        assert float(epoll["voluntary_switches_per_connection"]) > 0
        assert fork["voluntary_switches_per_connection"] == epoll["done_calls"] == "", "ended processes are not seen"
        return
    known = {**SERVED["epoll"], "close": 1}
    assert {name: count for name, count in numbers(epoll["done_calls"]).items() if name not in BY_CHANCE} == {
        name: count for name, count in known.items() if name not in BY_CHANCE
    }
    assert {name: numbers(fork["done_calls"])[name] for name in SERVED["fork"]} == SERVED["fork"]
    assert {row["cpu_per_connection_ns"] for row in traced} == {""}


# --- scheduling: the tracepoint and the kernel's account ------------------------------------------------------------


@pytest.mark.alone  # others on its CPU change how often it is switched before and after what is counted
@pytest.mark.parametrize(
    ("backend", "measure", "kinds"), [("bcc", "switch", "thread,process"), ("perf", "slice", "process")]
)
def test_sched_switch_confirms_the_switches_that_the_kernel_charges(
    backend: str, measure: str, kinds: str, tmp_path: Path
) -> None:
    """Of whole launches, with all that they start. The account has the last switch of each process, too."""
    require(backend)
    few = ("--measure", measure, "--kind", kinds, "--token", "futex", "--cpus", 1, "--tasks", 16, "--working-set", 0)
    sizes = (*few, "--contenders", 3, "--policy", "other", "--window", "50ms", "--budget", "3ms", "--repeats", 1)
    done = run("scheduling", *sizes, "--trace", backend, "--csv", "-", cwd=tmp_path)
    assert done.code == 0, done.stderr
    plain, traced = arms(rows_of(done.stdout), backend)
    assert len(plain) == len(traced) == len(kinds.split(","))
    for row in traced:
        counted, charged = int(row["traced_switches_count"]), int(row["charged_switches_count"])
        processes = 1 if row["kind"] == "thread" else int(row["tasks_count"]) + (row["measure"] == "slice")
        assert charged - processes - 2 <= counted <= charged + 2, row
        told = int(row["voluntary_switches_count"] or 0) + int(row["involuntary_switches_count"] or 0)
        assert told <= counted, "what the tasks say of themselves is of a part of the launch"
        assert row["switch_ns"] == row["run_p50_ns"] == "", "traced times are not told"
    assert {row["traced_switches_count"] for row in plain} == {""}


# --- readiness: what the helper counts of itself ----------------------------------------------------------------------


@pytest.mark.parametrize(("backend", "mechanisms"), [("bcc", "select,select.poll"), ("strace", "epoll")])
def test_calls_of_an_event_are_those_that_the_helper_counts(backend: str, mechanisms: str, tmp_path: Path) -> None:
    """Beside them only what is done once for each pass, before and after it."""
    require(backend)
    sizes = ("--fds", 64, "--active", "1,16", "--workload", "chain", "--repeats", 1, "--budget", "2ms")
    done = run("readiness", *sizes, "--mechanism", mechanisms, "--trace", backend, "--csv", "-", cwd=tmp_path)
    assert done.code == 0, done.stderr
    plain, traced = arms(rows_of(done.stdout), backend)
    assert len(plain) == len(traced) == 2 * len(mechanisms.split(","))
    waits = {"select": "pselect6", "select.poll": "poll", "epoll": "epoll_wait"}
    for row in traced:
        own, counted = float(row["calls_per_event"]), float(row["traced_calls_per_event"])
        assert own <= counted <= own + 0.02, row
        found = numbers(row["traced_calls"])
        assert (found["read"], found["write"]) == (1, 1)
        assert found[waits[row["mechanism"]]] == pytest.approx(1 if row["active"] == "1" else 1 / 16, abs=0.005)
        assert row["event_ns"] == row["over_epoll_ratio"] == row["calls"] == "", "traced times are not told"
        assert float(row["traced_over_off_ratio"]) > 0
    assert {row["traced_calls_per_event"] for row in plain} == {""}


# --- refused before anything is measured ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (
            ("readiness", "--map", "--trace", "bcc"),
            2,
            "--trace: readiness cannot be traced so: --map searches by times",
        ),
        (("fork-latency", "--stall", "--trace", "proc"), 2, "with --stall"),
        (("fork-latency", "--trace", "dtrace"), 2, "choose from auto, bcc, perf, strace, proc, off"),
        (("fork-latency", "--trace="), 2, "--trace: its value is empty"),
    ],
)
def test_what_cannot_be_is_one_line(arguments: tuple[str, ...], code: int, said: str, tmp_path: Path) -> None:
    done = run_inside(*arguments, cwd=tmp_path)
    assert (done.code, run_folders(tmp_path)) == (code, [])
    assert said in complaint_of(done)


def test_a_backend_that_is_not_installed_measures_nothing(tmp_path: Path) -> None:
    done = run("fork-latency", "--trace", "strace", cwd=tmp_path, changes={"PATH": str(tmp_path)})
    assert (done.code, run_folders(tmp_path)) == (77, [])
    assert "apt-get install strace" in complaint_of(done)


def test_without_root_proc_fills_what_it_can_and_bcc_is_refused(
    require_root: None, require_tool: Callable[[str], str], tmp_path: Path
) -> None:
    wrapper = (require_tool("setpriv"), "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups")
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    os.chown(tmp_path, NOBODY, NOBODY)
    if run("list", cwd=tmp_path, wrapper=wrapper).code != 0:
        cannot_run(f"the package or its Python cannot be read by user {NOBODY}")
    refused = run(*ONE_FORK, "--trace", "bcc", cwd=tmp_path, wrapper=wrapper)
    assert (refused.code, run_folders(tmp_path)) == (77, [])
    assert "sudo" in complaint_of(refused)
    done = run(*ONE_FORK, "--repeats", 1, "--trace", "auto", "--csv", "-", cwd=tmp_path, wrapper=wrapper)
    assert done.code == 0, done.stderr
    _, (traced,) = arms(rows_of(done.stdout), "proc")
    assert (float(traced["voluntary_switches_per_creation"]) > 0, traced["calls"]) == (True, "")
    assert len(results.load(only_run_folder(tmp_path)).facts["tracing"]["passed_over"]) == 2, "bcc and perf, with why"


# --- what is seen, and what is left ---------------------------------------------------------------------------------


def test_on_a_terminal_traced_rows_have_tables_of_their_own(tmp_path: Path) -> None:
    require("strace")
    with on_terminal(*ONE_FORK, "--repeats", 2, "--trace", "strace", cwd=tmp_path, width=140) as terminal:
        code, output = terminal.finish()
    assert code == 0, output
    screen = without_escapes(output)
    end = screen[screen.rindex("tails") :]
    assert "traced, for each creation" in end
    assert "system calls for each creation" in end
    assert "clone=1" in end
    assert "traced by strace over untraced, by blocks" in end
    main = screen[: screen.rindex("tails")].splitlines()
    assert not any("strace" in line for line in main if "µs" in line), "traced times are not among the others"


def loaded(bpftool: str) -> set[int]:
    """Ids of the BPF programs of the whole machine."""
    said = subprocess.run([bpftool, "-j", "prog", "list"], capture_output=True, text=True, check=True).stdout
    return {item["id"] for item in json.loads(said or "[]")}


@pytest.mark.alone
@pytest.mark.parametrize(
    ("backend", "number"),
    [("bcc", signal.SIGINT), ("strace", signal.SIGINT), ("perf", signal.SIGINT), ("bcc", signal.SIGKILL)],
)
def test_an_end_in_a_traced_launch_keeps_rows_and_leaves_nothing(
    backend: str, number: int, require_root: None, require_tool: Callable[[str], str], tmp_path: Path
) -> None:
    require(backend)
    bpftool = require_tool("bpftool")
    before = loaded(bpftool)
    cell = ("--method", "fork", "--linking", "static", "--n", 100_000, "--repeats", 1000, "--seed", 1)
    program = {"bcc": "bcc_helper"}.get(backend, backend)
    with started("fork-latency", *cell, "--trace", backend, cwd=tmp_path) as command:
        command.until(lambda: rows_with(tmp_path, backend), "a traced row")
        command.until(lambda: any(program in line for line in map(command_line, command.living())), "the tracer runs")
        command.signal(number)
        code = command.process.wait(20)
        wait_for(lambda: not command.living(), "everything that it started has ended")
        assert "Traceback" not in command.stderr
    stored = results.load(only_run_folder(tmp_path))
    expected = (130, "interrupted") if number == signal.SIGINT else (-signal.SIGKILL, "killed")
    assert (code, stored.state) == expected
    assert {row["traced_by"] for row in stored.rows} == {"off", backend}
    wait_for(lambda: not loaded(bpftool) - before, "no program of ours is loaded")


def rows_with(cwd: Path, backend: str) -> bool:
    files = [folder / "rows.csv" for folder in run_folders(cwd)]
    return any(f",{backend}," in path.read_text(encoding="utf-8") for path in files if path.exists())


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
