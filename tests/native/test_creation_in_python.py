"""creation_in_python: speaks the helpers' protocol, creates as often as the kernel counts, dies with its parent."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from c10k_probe import native
from native.driving import STARTER, Outcome
from native.driving_python import program, run_command
from native.kernel_view import living_members, session_members, wait_until
from native.test_fork_latency import COUNT, strace_counts

METHODS = ("os.fork", "subprocess.Popen", "multiprocessing.Process", "threading.Thread", "asyncio.create_task")
PROGRAM = program("creation_in_python")


def run(*arguments: object) -> Outcome:
    """One launch to its end."""
    return run_command([*PROGRAM, *map(str, arguments)])


@pytest.mark.parametrize("method", METHODS)
def test_it_speaks_the_protocol(method: str) -> None:
    outcome = run("--method", method, "--samples", COUNT, "--warmup", 2)

    assert [message["type"] for message in outcome.messages] == ["hello", "facts", "samples", "end"]
    hello, samples = outcome.only("hello"), outcome.only("samples")
    assert (hello["protocol"], hello["helper"], hello["linking"]) == (native.PROTOCOL, "creation_in_python", "python")
    assert platform.python_version() in hello["compiler"]
    assert hello["clock_cost_ns"] > 0
    expected = {"return_ns", "cycle_ns", "exec_ns" if method == "subprocess.Popen" else "started_ns"}
    expected |= {"child_faults_count"} if method == "os.fork" else set()
    assert {name for name, value in samples.items() if isinstance(value, list)} == expected
    assert all(len(samples[name]) == COUNT and min(samples[name]) > 0 for name in expected)
    assert all(a <= b for a, b in zip(samples["return_ns"], samples["cycle_ns"], strict=True))
    assert outcome.only("end") == {"type": "end", "samples_count": COUNT, "dropped_count": 0}
    assert session_members(outcome.pid) == {}


def test_its_messages_have_the_fields_of_the_helpers() -> None:
    ours = run("--method", "os.fork", "--samples", 3, "--placement", "one-cpu")
    with native.Helper("fork_latency", ["--method", "fork", "--samples", 3]) as helper:
        hello, facts, samples = helper.hello, helper.expect("facts"), helper.expect("samples")
        helper.finish()

    for kind, theirs in {"hello": hello, "facts": facts, "samples": samples}.items():
        assert set(ours.only(kind)) == set(theirs), kind
    assert ours.only("facts")["cpu"] is not None
    assert ours.only("facts")["private_dirty_bytes"] > facts["private_dirty_bytes"]


@pytest.mark.parametrize("method", METHODS)
def test_23_creations_are_23_for_strace(method: str, require_tool: Callable[[str], str], tmp_path: Path) -> None:
    def created(samples: int) -> int:
        arguments = [*PROGRAM, "--method", method, "--samples", str(samples)]
        counts = strace_counts(require_tool("strace"), arguments, tmp_path / "counts")
        return sum(counts.get(name, 0) for name in ("fork", "vfork", "clone", "clone3"))

    assert created(COUNT + 1) - created(1) == (0 if method == "asyncio.create_task" else COUNT)


def test_a_budget_ends_the_samples_but_leaves_three() -> None:
    outcome = run("--method", "os.fork", "--samples", 1_000_000, "--warmup", 5, "--budget-ms", 1)

    assert outcome.only("end")["samples_count"] == 3


def test_hello_alone() -> None:
    assert [message["type"] for message in run("--hello").messages] == ["hello", "end"]


@pytest.mark.parametrize(
    "arguments",
    ["", "--method os.fork", "--method x --samples 1", "--method os.fork --samples 0", "--hello --hello",
     "--method os.fork --samples 1 --cpu 0", "--method os.fork --samples x"],
)  # fmt: skip
def test_bad_arguments(arguments: str) -> None:
    outcome = run(*arguments.split())

    assert (outcome.code, outcome.messages, len(outcome.stderr.splitlines())) == (2, [], 1)


def test_a_missing_target_is_named() -> None:
    outcome = run("--method", "subprocess.Popen", "--samples", 3, "--target", "/nonexistent")

    error = outcome.only("error")
    assert (outcome.code, error["arguments"], error["name"]) == (1, "/nonexistent", "ENOENT")


def test_a_program_without_a_stamp_is_dropped() -> None:
    end = run("--method", "subprocess.Popen", "--samples", 3, "--target", "/bin/true").only("end")

    assert (end["samples_count"], end["dropped_count"]) == (0, 3)


def test_it_dies_with_its_parent() -> None:
    command = [sys.executable, "-c", STARTER, *PROGRAM, "--method", "os.fork", "--samples", "1000000"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert json.loads(starter.stdout.readline())["type"] == "hello"
        starter.kill()
        starter.wait()
        wait_until(lambda: not living_members(pid), "it died with its parent", 2.0)
