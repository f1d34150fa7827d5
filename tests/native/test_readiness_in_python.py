"""readiness_in_python as a program: what it says, what the kernel saw of it, what it refuses, what it leaves."""

from __future__ import annotations

import json
import os
import re
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import cannot_run

from c10k_probe import native
from native.driving import STARTER, Outcome
from native.driving_python import program, run_command
from native.kernel_view import living_members, session_members, wait_until
from native.test_fork_latency import strace_counts

DIRECT = ("select.select", "select.poll", "select.epoll", "selectors")
LOOPS = ("asyncio", "uvloop")
MECHANISMS = (*DIRECT, *LOOPS)
WORKLOADS = ("chain", "short")
PROGRAM = program("readiness_in_python")
WITHOUT_UVLOOP = """
import sys
sys.modules["uvloop"] = None
from c10k_probe.readiness_in_python.__main__ import main
main(sys.argv[1:])
"""
PASSES = 3
EXTRA_COUNT = 10  # passes by which two launches under strace differ

every_mechanism = pytest.mark.parametrize("mechanism", MECHANISMS)
every_workload = pytest.mark.parametrize("workload", WORKLOADS)


def arguments_of(mechanism: str, watched: int, active: object, *more: object) -> list[str]:
    pairs = {"--mechanism": mechanism, "--watched": watched, "--active": active}
    return [str(part) for pair in pairs.items() for part in pair] + [str(part) for part in more]


def run(mechanism: str, watched: int, active: object, *more: object, commands: str = "", **options: Any) -> Outcome:
    """One launch of three passes a level unless told otherwise."""
    arguments = arguments_of(mechanism, watched, active, "--budget-ms", 60_000, "--passes", PASSES, *more)
    return run_command([*PROGRAM, *arguments], commands, **options)


# --- what it says -----------------------------------------------------------------------------------------------------


@every_workload
@every_mechanism
def test_it_speaks_the_protocol(mechanism: str, workload: str) -> None:
    outcome = run(mechanism, 40, "3,40,1", "--workload", workload)

    kinds = [message["type"] for message in outcome.messages]
    assert (outcome.code, outcome.stderr) == (0, "")
    assert kinds == ["hello", "opened", "watching", "passes", "passes", "passes", "end"]
    hello, watching = outcome.only("hello"), outcome.only("watching")
    assert (hello["helper"], hello["linking"]) == ("readiness_in_python", "python")
    assert (watching["mechanism"], watching["watched_count"]) == (mechanism, 40)
    assert watching["setup_ns"] > 0
    assert outcome.only("end") == {"type": "end", "samples_count": 9, "dropped_count": 0}
    for active, passes in zip((3, 40, 1), outcome.of_type("passes"), strict=True):
        rounds = -(-1000 // active)
        events = active + 1000 if workload == "chain" else rounds * active
        expected = (active, events, rounds + (workload == "chain"))
        names = ("active_count", "events_per_pass_count", "rounds_per_pass_count")
        assert tuple(passes[name] for name in names) == expected
        assert len(passes["pass_ns"]) == 3
        assert all(moment > 0 for moment in passes["pass_ns"])
        assert passes["cpu_user_ns"] + passes["cpu_system_ns"] > 0
        has_register = workload == "short" and mechanism != "uvloop"
        assert (passes["register_ns"] is not None) == has_register
        if has_register:
            pairs = zip(passes["register_ns"], passes["pass_ns"], strict=True)
            assert all(0 < part < whole for part, whole in pairs)
    assert session_members(outcome.pid) == {}


@every_workload
def test_its_messages_have_the_fields_of_the_helper_in_c(workload: str) -> None:
    ours = run("select.epoll", 40, 3, "--workload", workload)
    arguments = arguments_of("epoll", 40, 3, "--budget-ms", 0, "--workload", workload)
    with native.Helper("readiness", arguments) as helper:
        theirs = {kind: helper.expect(kind) for kind in ("opened", "watching", "passes")}
        theirs |= {"hello": helper.hello, "end": helper.finish()}

    for kind, message in theirs.items():
        assert set(ours.only(kind)) == set(message), kind
    for name in ("active_count", "events_per_pass_count", "rounds_per_pass_count"):
        assert ours.only("passes")[name] == theirs["passes"][name]
    names = set(ours.only("passes")["calls_count"]) - {"getsockname"}  # of Python's socket objects
    assert names == set(theirs["passes"]["calls_count"])


def test_the_wall_of_select_has_the_fields_of_the_helper_in_c() -> None:
    ours = run("select.select", 5000, 1)
    with native.Helper("readiness", arguments_of("select", 5000, 1)) as helper:
        theirs = helper.expect("wall")

    assert set(ours.only("wall")) == set(theirs)


def test_hello_alone() -> None:
    outcome = run_command([*PROGRAM, "--hello"])
    assert [message["type"] for message in outcome.messages] == ["hello", "end"]


def test_passes_of_about_a_time_are_whole_rounds() -> None:
    """Of as many as take about that long: more where a pass is longer. Each round is one wait for all."""
    outcome = run("select.epoll", 60, "1,7,60", "--pass-us", 200, "--warmup", 3)
    (longer,) = run("select.epoll", 60, 1, "--pass-us", 20_000).of_type("passes")

    assert outcome.only("end") == {"type": "end", "samples_count": 3 * PASSES, "dropped_count": 0}
    for active, passes in zip((1, 7, 60), outcome.of_type("passes"), strict=True):
        assert passes["events_per_pass_count"] == passes["rounds_per_pass_count"] * active
        assert passes["waits_count"] == PASSES * passes["rounds_per_pass_count"]
    assert longer["rounds_per_pass_count"] > outcome.of_type("passes")[0]["rounds_per_pass_count"]


def test_a_budget_is_shared_by_the_levels() -> None:
    outcome = run_command([*PROGRAM, *arguments_of("select.epoll", 10, "1,10", "--budget-ms", 400, "--writes", 50)])

    passes = outcome.of_type("passes")
    assert all(len(message["pass_ns"]) > 1 for message in passes)
    assert sum(sum(message["pass_ns"]) for message in passes) < 400_000_000 * 1.5
    assert len(run("select.epoll", 10, 1, "--passes", 7).only("passes")["pass_ns"]) == 7
    assert len(run("select.epoll", 10, 1, "--budget-ms", 0).only("passes")["pass_ns"]) == 1


# --- what the kernel saw ----------------------------------------------------------------------------------------------


def strace_difference(require: Callable[[str], str], folder: Path, *arguments: object) -> dict[str, int]:
    """System calls of ten passes: those of a launch with thirteen less those of one with three."""

    def counts(passes: int) -> dict[str, int]:
        command = [*PROGRAM, *map(str, arguments), "--passes", str(passes), "--warmup", "0", "--budget-ms", "60000"]
        return strace_counts(require("strace"), command, folder / f"counts-{passes}")

    with ThreadPoolExecutor(2) as pool:
        few, many = pool.map(counts, (3, 3 + EXTRA_COUNT))
    return {name: many[name] - few.get(name, 0) for name in many}


@every_workload
@every_mechanism
def test_system_calls_are_those_that_strace_counts(
    mechanism: str, workload: str, require_tool: Callable[[str], str], tmp_path: Path
) -> None:
    more = ("--workload", workload, "--writes", 12)
    seen = strace_difference(require_tool, tmp_path, *arguments_of(mechanism, 20, 5, *more))
    passes = run(mechanism, 20, 5, *more, "--passes", EXTRA_COUNT).only("passes")

    # each pass ends with one more wait, which looks whether anything is left
    waits = {"select": ("select", "_newselect", "pselect6"), "poll": ("poll", "ppoll")}
    if mechanism in LOOPS:
        assert (passes["calls_count"], passes["waits_count"]) == (None, None)
        events = EXTRA_COUNT * passes["events_per_pass_count"]
        assert (seen["read"], seen["write"]) == (events, events)
    else:
        calls = dict(passes["calls_count"])
        wait = next(iter(calls))
        assert passes["waits_count"] == calls.pop(wait) == EXTRA_COUNT * passes["rounds_per_pass_count"]
        assert sum(seen.get(name, 0) for name in waits.get(wait, ("epoll_wait", "epoll_pwait"))) == (
            passes["waits_count"] + EXTRA_COUNT
        )
        assert {name: seen.get(name, 0) for name in calls} == calls


@every_workload
@every_mechanism
def test_each_byte_is_read_once_by_its_peer(
    mechanism: str, workload: str, require_tool: Callable[[str], str], tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    strace = require_tool("strace")
    if subprocess.run([strace, "-o", "/dev/null", "true"], capture_output=True, check=False).returncode != 0:
        cannot_run("strace may not trace here (ptrace is forbidden)")
    command = [strace, "-o", str(trace), "-e", "trace=socketpair,read,write", *PROGRAM]
    more = ("--workload", workload, "--budget-ms", 60_000, "--passes", PASSES, "--writes", 50)
    outcome = run_command(command + arguments_of(mechanism, 9, 4, *more))
    passes = outcome.only("passes")

    peer_of: dict[str, str] = {}
    waiting: set[str] = set()  # descriptors with one byte to be read
    reads_count = 0
    for line in trace.read_text().splitlines():
        if pair := re.match(r"socketpair\(AF_UNIX, .*\[(\d+), (\d+)\]\) += 0", line):
            first, second = pair.groups()
            peer_of |= {first: second, second: first}
        elif (written := re.match(r'write\((\d+), "e", 1\) += 1$', line)) and written[1] in peer_of:
            assert peer_of[written[1]] not in waiting
            waiting.add(peer_of[written[1]])
        elif (was_read := re.match(r'read\((\d+), "e", 64\) += 1$', line)) and was_read[1] in peer_of:
            waiting.remove(was_read[1])
            reads_count += 1
    assert waiting == set()
    assert reads_count == (PASSES + 1) * passes["events_per_pass_count"]  # with the warm-up


def watched_in_kernel(pid: int) -> int:
    """Descriptors in the epoll sets of a process (proc_pid_fdinfo(5))."""
    texts = [path.read_text() for path in Path(f"/proc/{pid}/fdinfo").iterdir()]
    return sum(text.count("tfd:") for text in texts)


@pytest.mark.parametrize("mechanism", ["select.epoll", "selectors", "asyncio", "uvloop"])
def test_it_waits_before_watching_and_before_running(mechanism: str) -> None:
    arguments = arguments_of(mechanism, 100, "1,2", "--budget-ms", 0, "--pause")
    with native.Helper("readiness_in_python", arguments, native.PYTHON) as helper:
        helper.expect("opened")
        before = watched_in_kernel(helper.pid)
        sockets = [item.readlink() for item in Path(f"/proc/{helper.pid}/fd").iterdir()]
        assert sum(str(target).startswith("socket:") for target in sockets) >= 100
        helper.ask("watch", "watching")
        assert watched_in_kernel(helper.pid) - before >= 100
        assert os.sched_getaffinity(helper.pid) == {max(os.sched_getaffinity(0))}
        helper.send("run")
        assert [helper.expect("passes")["active_count"] for _ in range(2)] == [1, 2]
        assert helper.finish()["dropped_count"] == 0


@pytest.mark.parametrize(
    ("commands", "code", "kinds"),
    [
        ("", 0, ["opened", "end"]),
        ("watch\n", 0, ["opened", "watching", "end"]),
        ("run\n", 2, ["opened"]),
        ("watch\nwatch\n", 2, ["opened", "watching"]),
        ("watch\nrun\n", 0, ["opened", "watching", "passes", "end"]),
    ],
)
def test_other_commands_and_the_end_of_them(commands: str, code: int, kinds: list[str]) -> None:
    outcome = run("select.poll", 4, 1, "--pause", commands=commands)

    assert (outcome.code, [message["type"] for message in outcome.messages]) == (code, ["hello", *kinds])
    assert len(outcome.stderr.splitlines()) == (1 if code else 0)


# --- what it refuses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    ["", "--mechanism poll --watched 2 --active 1", "--mechanism select.poll --watched 0 --active 1",
     "--mechanism select.poll --watched 2 --active 3", "--mechanism select.poll --watched 2 --active 0",
     "--mechanism select.poll --watched 2 --active 1,", "--mechanism select.poll --watched 2 --active 1,x",
     "--mechanism select.poll --watched 2 --active -1", "--mechanism select.poll --watched 2",
     "--mechanism select.poll --watched 2 --active 1 --workload long", "--hello --hello",
     "--mechanism select.poll --watched 2 --active 1 --writes 0",
     "--mechanism select.poll --watched 2 --active 1 --pass-us 0",
     "--mechanism select.poll --watched 2 --active 1 --pass-us 60000001",
     "--mechanism select.poll --watched 2 --active 1 --cpu 0 --placement any-cpu"],
)  # fmt: skip
def test_bad_arguments(arguments: str) -> None:
    outcome = run_command([*PROGRAM, *arguments.split()])

    assert (outcome.code, outcome.messages, len(outcome.stderr.splitlines())) == (2, [], 1)


def test_the_length_of_a_pass_is_told_in_one_way() -> None:
    outcome = run("select.poll", 2, 1, "--pass-us", 100, "--writes", 5)

    assert (outcome.code, outcome.messages) == (2, [])
    assert "--pass-us does not go with --writes" in outcome.stderr


def test_a_cpu_that_is_not_there_is_named() -> None:
    error = run("select.poll", 2, 1, "--cpu", 8191).only("error")
    assert error["name"] == "EINVAL"


def test_the_wall_of_select_is_where_it_is_said_to_be() -> None:
    beyond = run("select.select", 5000, 1)

    wall = beyond.only("wall")
    assert (beyond.code, wall["wall"], wall["limit_count"]) == (77, "FD_SETSIZE", 1024)
    assert "FD_SETSIZE" in beyond.only("unsupported")["reason"]
    largest = wall["largest_watched_count"]
    assert 1000 < largest < 1024
    assert run("select.select", largest, 1, "--writes", 5).code == 0
    assert run("select.select", largest + 1, 1, "--writes", 5).only("wall") == wall


def test_the_wall_of_select_for_short_lived_connections() -> None:
    outcome = run("select.select", 900, "10,500,1", "--workload", "short", "--writes", 20)

    largest = outcome.only("wall")["largest_active_count"]
    assert (outcome.code, len(outcome.of_type("passes"))) == (77, 1)
    assert 50 < largest < 63
    assert run("select.select", 900, largest, "--workload", "short", "--writes", 20).code == 0
    assert run("select.select", 900, largest + 1, "--workload", "short", "--writes", 20).code == 77


def test_fd_setsize_is_python_s() -> None:
    with pytest.raises(ValueError, match="out of range"):
        select.select([1024], [], [], 0)
    reader, writer = os.pipe()
    try:
        os.dup2(reader, 1023)
        assert select.select([1023], [], [], 0) == ([], [], [])
    finally:
        for number in (reader, writer, 1023):
            os.close(number)


@every_mechanism
def test_more_than_the_descriptors_is_an_error(mechanism: str) -> None:
    limit = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (64, 64))
    outcome = run(mechanism, 500, 1, preexec_fn=limit)

    error = outcome.only("error")
    assert (outcome.code, error["call"], error["name"]) == (1, "socketpair", "EMFILE")
    assert outcome.messages[-1] == error
    short = run(mechanism, 30, 30, "--workload", "short", preexec_fn=limit)
    assert (short.code, short.only("error")["name"]) == (1, "EMFILE")


def test_without_uvloop_the_extra_is_named() -> None:
    command = [sys.executable, "-c", WITHOUT_UVLOOP, *arguments_of("uvloop", 2, 1)]
    outcome = run_command(command)

    assert (outcome.code, [message["type"] for message in outcome.messages]) == (77, ["hello", "unsupported"])
    assert "c10k-probe[python]" in outcome.only("unsupported")["reason"]
    assert run_command([sys.executable, "-c", WITHOUT_UVLOOP, *arguments_of("asyncio", 2, 1)]).code == 0


# --- what it leaves ---------------------------------------------------------------------------------------------------


@every_mechanism
def test_killed_it_leaves_nothing(mechanism: str) -> None:
    arguments = arguments_of(mechanism, 100, 10, "--budget-ms", 60_000)
    with native.Helper("readiness_in_python", arguments, native.PYTHON) as helper:
        for kind in ("opened", "watching"):
            helper.expect(kind)
        os.kill(helper.pid, signal.SIGKILL)
        wait_until(lambda: not living_members(helper.pid), "it is gone", 2.0)
        assert "SIGKILL" in helper.death()


def test_it_dies_with_its_parent() -> None:
    arguments = arguments_of("select.epoll", 10, 1, "--budget-ms", 60_000)
    command = [sys.executable, "-c", STARTER, *PROGRAM, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert json.loads(starter.stdout.readline())["type"] == "hello"
        starter.kill()
        starter.wait()
        wait_until(lambda: not living_members(pid), "it died with its parent", 2.0)
