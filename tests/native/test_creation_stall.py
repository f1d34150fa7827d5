"""fork_latency --stall: every tick is there, as many creations as the kernel counts, nothing left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import cannot_run

from c10k_probe import native
from native.driving import Foster, Outcome, become_another_user, run
from native.kernel_view import session_members, status_of, wait_until
from native.test_creation_methods import METHODS, SPAWNS, present
from native.test_fork_latency import strace_counts

TICK_US = 1000
PAGES = 16 * 64 * 1024  # bytes: 16 pages of any size


def stall(method: str, rate: int, *arguments: object, duration_ms: int = 200, **options: object) -> Outcome:
    """A whole run; skips where the machine cannot do the method."""
    timing = ["--stall", rate, "--duration-ms", duration_ms, "--tick-us", TICK_US]
    outcome = run("fork_latency", "--method", method, *timing, *arguments, **options)
    if outcome.code == 77:
        cannot_run(outcome.only("unsupported")["reason"])
    return outcome


@pytest.mark.parametrize("linking", native.LINKINGS)
@pytest.mark.parametrize("method", METHODS)
def test_every_tick_and_every_creation(method: str, linking: str) -> None:
    outcome = stall(method, 100, "--rss", 4 << 20, linking=linking, duration_ms=100)

    assert [message["type"] for message in outcome.messages] == ["hello", "facts", "stall", "end"]
    found = outcome.only("stall")
    assert (found["method"], found["rate_per_s"]) == (method, 100)
    assert len(found["tick_late_ns"]) == 100
    assert all(late >= 0 for late in found["tick_late_ns"])
    spawned = found["spawned_count"]
    assert 0 < spawned <= 10  # fewer where the machine did not keep up
    for name in ("return_ns", "started_ns", "exec_ns"):
        assert (found[name] is not None) == (name in present(method)), name
        assert found[name] is None or (len(found[name]) == spawned and min(found[name]) > 0)
    assert outcome.only("end") == {"type": "end", "samples_count": spawned, "dropped_count": 0}
    assert session_members(outcome.pid) == {}


@pytest.mark.alone
def test_ticks_after_a_creation_are_told_apart() -> None:
    """At most one a creation; fork of much memory makes these late, and most of all ticks not."""
    found = stall("fork", 100, "--rss", 32 << 20, "--placement", "any-cpu").only("stall")

    after, every = found["after_late_ns"], found["tick_late_ns"]
    assert 0 < len(after) <= found["spawned_count"]
    assert set(after) <= set(every)
    assert sorted(after)[len(after) // 2] > sorted(every)[len(every) // 2]
    assert stall("fork", 0).only("stall")["after_late_ns"] == []


def test_warm_ups_come_before_the_loop(require_tool: Callable[[str], str], tmp_path: Path) -> None:
    """They are creations for the kernel, and no samples."""
    timing = ["--stall", "50", "--duration-ms", "1000", "--tick-us", "10000", "--warmup", "7"]
    program = [str(native.find("fork_latency")), "--method", "vfork", *timing]
    counts = strace_counts(require_tool("strace"), program, tmp_path / "counts")

    assert counts["vfork"] == 50 + 7
    found = stall("vfork", 50, "--warmup", 7).only("stall")
    assert (found["warmups_count"], len(found["return_ns"])) == (7, found["spawned_count"])


def test_the_baseline_creates_nothing() -> None:
    outcome = stall("fork", 0)

    found = outcome.only("stall")
    assert found["spawned_count"] == 0
    assert (len(found["tick_late_ns"]), found["return_ns"], found["started_ns"]) == (200, [], [])
    assert stall("posix_spawn", 0).only("stall")["started_ns"] is None


def test_there_are_pages_to_write_to() -> None:
    without, much = (stall("fork", 0, *state).only("facts") for state in ((), ("--rss", 16 << 20)))

    assert without["private_dirty_bytes"] < 4 << 20
    assert much["private_dirty_bytes"] >= 16 << 20


@pytest.mark.parametrize("method", METHODS)
def test_the_creations_are_those_that_the_kernel_counts(
    method: str, require_tool: Callable[[str], str], tmp_path: Path
) -> None:
    stall(method, 100, duration_ms=20)  # or the skip
    program = str(native.find("fork_latency"))
    timing = ["--stall", "22", "--duration-ms", "500", "--tick-us", "10000"]
    counts = strace_counts(require_tool("strace"), [program, "--method", method, *timing], tmp_path / "counts")

    created = sum(counts.get(name, 0) for name in ("fork", "vfork", "clone", "clone3"))
    assert created == 11


def test_with_living_tasks_and_on_one_cpu() -> None:
    outcome = stall("fork", 100, "--alive", 20, "--placement", "one-cpu")

    assert outcome.only("facts")["alive_count"] == 20
    assert outcome.only("stall")["spawned_count"] > 0
    assert session_members(outcome.pid) == {}


def test_a_program_without_a_stamp_is_dropped() -> None:
    outcome = stall("fork_exec_dynamic", 50, "--spawn-target", "/bin/true")

    assert outcome.only("stall")["exec_ns"] == []
    end = outcome.only("end")
    assert (end["samples_count"], end["dropped_count"]) == (0, outcome.only("stall")["spawned_count"])


def test_a_creation_that_fails_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    become_another_user(monkeypatch, tasks_limit_count=1)
    outcome = stall("fork", 100)

    error = outcome.only("error")
    assert (outcome.code, error["call"], error["name"]) == (1, "fork", "EAGAIN")
    found = outcome.only("stall")
    assert (found["spawned_count"], found["return_ns"]) == (0, [])
    assert len(found["tick_late_ns"]) < 200


def test_it_dies_with_its_parent() -> None:
    arguments = ["--method", "posix_spawn", "--stall", 200, "--duration-ms", 60_000, "--tick-us", TICK_US]
    with Foster("fork_latency", *arguments) as foster:
        foster.receive("hello")
        wait_until(lambda: int(status_of(foster.pid, "voluntary_ctxt_switches")) > 20, "the helper creates")
        foster.kill_starter()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--stall 10 --samples 5", "--stall does not go with"),
        ("--stall 10 --aftershock 5", "--stall does not go with"),
        ("--stall -1", "--stall must lie between"),
        ("--stall 10 --tick-us 9", "--tick-us must lie between"),
        ("--stall 10 --duration-ms 0", "--duration-ms must lie between"),
        ("--stall 10 --duration-ms 600000 --tick-us 10", "1000000 ticks at most"),
        ("--stall 100000 --duration-ms 600000 --tick-us 1000", "1000000 creations at most"),
    ],
)
def test_bad_arguments(arguments: str, says: str) -> None:
    outcome = run("fork_latency", "--method", "fork", *arguments.split())

    assert (outcome.code, outcome.messages) == (2, [])
    assert says in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1


def test_the_methods_without_a_start_are_those_that_execute_at_once() -> None:
    assert {method for method in METHODS if "started_ns" not in present(method)} == set(SPAWNS)
