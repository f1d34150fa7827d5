"""scheduling: what it refuses, what it says when a limit binds, and that nothing is left however it ends."""

from __future__ import annotations

import os
import resource
import signal
from typing import Any

import pytest
from conftest import cannot_run

from c10k_probe import native
from native.driving import Foster, Outcome, become_another_user, run
from native.kernel_view import living_members, session_members, status_of, wait_until

LONG_MS = 600_000  # longer than any of these tests lasts
LONG_RUNS = {
    "ring of processes": f"ring --tasks 32 --budget-ms {LONG_MS}",
    "ring of threads": f"ring --kind threads --tasks 32 --token futex --budget-ms {LONG_MS}",
    "tick": f"tick --duration-ms {LONG_MS}",
    "contend": f"contend --tasks 8 --duration-ms {LONG_MS}",
    "yield": f"yield --tasks 8 --budget-ms {LONG_MS}",
    "hog": f"hog --hog-ms 1 --trials 2 --share-ms {LONG_MS}",
}


def ask(line: str, **options: Any) -> Outcome:
    """A whole run of one mode: its name, then its options."""
    return run("scheduling", "--mode", *line.split(), **options)


def of_mode(line: str) -> list[str]:
    """The arguments of a mode for a helper that goes on running."""
    return ["--mode", *line.split()]


def children_of(leader: int) -> set[int]:
    """The living processes of a helper's session but for itself."""
    return living_members(leader) - {leader}


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "--mode needs a value"),
        ("juggle", "--mode must be one of ring, tick, contend, yield, hog"),
        ("ring", "--mode ring needs --tasks"),
        ("ring --tasks 1", "--mode ring needs at least 2 --tasks"),
        ("ring --tasks 4097", "--tasks must lie between 1 and 4096"),
        ("ring --tasks 2 --hops 1", "--hops must lie between"),
        ("ring --tasks 2 --token mutex", "--token must be one of pipe, futex, eventfd"),
        ("ring --tasks 2 --kind fibres", "--kind must be one of processes, threads"),
        ("ring --tasks 2 --placement three-cpus", "--placement must be one of one-cpu, two-cpus"),
        ("ring --tasks 2 --working-set -1", "--working-set must lie between"),
        ("ring --tasks 2 --quantum-ns 1s", "--quantum-ns must be a whole number"),
        ("ring --tasks 2 --duration-ms 5", "--duration-ms does not go with --mode ring"),
        ("tick", "--mode tick needs --duration-ms"),
        ("tick --duration-ms 0", "--duration-ms must lie between"),
        ("tick --duration-ms 5 --tasks 2", "--tasks does not go with --mode tick"),
        ("contend --duration-ms 5", "--mode contend needs --tasks"),
        ("contend --duration-ms 5 --tasks 0", "--tasks must lie between"),
        ("contend --duration-ms 5 --tasks 2 --policy fifo", "--policy must be one of other, batch"),
        ("contend --duration-ms 5 --tasks 2 --gap-us 1", "--gap-us must lie between"),
        ("contend --duration-ms 5 --tasks 2 --kind threads", "--kind does not go with --mode contend"),
        ("yield --kind threads", "--mode yield needs --tasks"),
        ("yield --tasks 2 --token pipe", "--token does not go with --mode yield"),
        ("hog --trials 2 --share-ms 5", "--mode hog needs --hog-ms"),
        ("hog --hog-ms 1 --trials 0 --share-ms 5", "--trials must lie between"),
        ("hog --hog-ms 1 --trials 1 --share-ms 5 --budget-ms 5", "--budget-ms does not go with --mode hog"),
        ("tick --duration-ms 5 --cpu -1", "--cpu must lie between"),
    ],
)
def test_bad_arguments(line: str, says: str) -> None:
    outcome = ask(line)

    assert (outcome.code, outcome.messages) == (2, [])
    assert outcome.stderr.startswith("scheduling: ")
    assert says in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "line",
    [
        "ring --tasks 2",
        "tick --duration-ms 5",
        "contend --tasks 2 --duration-ms 5",
        "yield --tasks 2",
        "hog --hog-ms 1 --trials 1 --share-ms 1",
    ],
)
def test_a_cpu_that_is_not_there(line: str) -> None:
    outcome = ask(f"{line} --cpu 8191")

    error = outcome.only("error")
    assert (outcome.code, error["call"], error["arguments"]) == (1, "sched_setaffinity", "0, CPU 8191")
    assert error["name"] == "EINVAL"
    assert session_members(outcome.pid) == {}


def test_two_cpus_need_two() -> None:
    def keep_one() -> None:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    outcome = ask("ring --tasks 2 --placement two-cpus", preexec_fn=keep_one)

    assert outcome.code == 77
    assert "two CPUs" in outcome.only("unsupported")["reason"]


def test_one_allowed_cpu_is_enough_for_the_rest() -> None:
    def keep_one() -> None:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    for line in ("contend --tasks 2 --duration-ms 50", "yield --tasks 3 --budget-ms 5"):
        outcome = ask(line, preexec_fn=keep_one)

        assert outcome.code == 0, outcome
        assert outcome.messages[1]["cpu"] == min(os.sched_getaffinity(0))


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "call"),
    [
        ("ring --tasks 8", "fork"),
        ("ring --tasks 8 --kind threads", "pthread_create"),
        ("contend --tasks 8 --duration-ms 50", "fork"),
        ("yield --tasks 8", "fork"),
        ("yield --tasks 8 --kind threads", "pthread_create"),
        ("hog --hog-ms 1 --trials 1 --share-ms 5", "fork"),
    ],
)
def test_too_many_tasks(line: str, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    become_another_user(monkeypatch, tasks_limit_count=2)
    outcome = ask(line)

    error = outcome.only("error")
    assert (outcome.code, error["helper"], error["call"], error["name"]) == (1, "scheduling", call, "EAGAIN")
    assert outcome.of_type("end") == []
    wait_until(lambda: session_members(outcome.pid) == {}, "nothing is left")


def test_too_few_descriptors() -> None:
    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))

    outcome = ask("ring --tasks 64 --kind threads", preexec_fn=lower)

    error = outcome.only("error")
    assert (outcome.code, error["call"], error["name"]) == (1, "pipe2", "EMFILE")
    assert ask("ring --tasks 64 --budget-ms 10 --hops 64", preexec_fn=lower).code == 0  # each has few


def test_more_memory_than_there_is() -> None:
    outcome = ask(f"ring --tasks 4096 --working-set {1 << 30}")

    error = outcome.only("error")
    assert (outcome.code, error["call"], error["name"]) == (1, "mmap", "ENOMEM")
    assert error["arguments"] == f"{2 * 4096 << 30} bytes for the working sets"


# --- ends -------------------------------------------------------------------------------------------------------------


def start_working(helper_pid: int, name: str) -> None:
    """Until a long run is past its preparations."""
    wanted = {"ring of processes": 31, "contend": 8, "yield": 8, "hog": 2}.get(name, 0)
    wait_until(lambda: len(children_of(helper_pid)) == wanted, f"{wanted} children")
    if name == "ring of threads":
        wait_until(lambda: status_of(helper_pid, "Threads") == "32", "32 threads")


@pytest.mark.parametrize("linking", native.LINKINGS)
@pytest.mark.parametrize("name", LONG_RUNS)
def test_it_dies_with_its_parent(name: str, linking: str) -> None:
    if not (native.folder() / f"scheduling-{linking}").exists() and linking == "static-pie":
        cannot_run("the helpers were built without static-pie")
    with Foster("scheduling", *of_mode(LONG_RUNS[name]), linking=linking) as foster:
        foster.receive("hello")
        start_working(foster.pid, name)
        foster.kill_starter()


@pytest.mark.parametrize("name", LONG_RUNS)
def test_its_tasks_die_with_it(name: str) -> None:
    with native.Helper("scheduling", of_mode(LONG_RUNS[name])) as helper:
        start_working(helper.pid, name)
        os.kill(helper.pid, signal.SIGKILL)
        wait_until(lambda: living_members(helper.pid) == set(), "the tasks died with it")


@pytest.mark.parametrize("name", ["ring of processes", "contend", "yield"])
def test_a_task_that_is_killed_ends_it(name: str) -> None:
    with native.Helper("scheduling", of_mode(LONG_RUNS[name])) as helper:
        start_working(helper.pid, name)
        os.kill(max(children_of(helper.pid)), signal.SIGKILL)
        with pytest.raises(native.HelperCallFailed, match="a task that was killed"):
            helper.receive()
        wait_until(lambda: living_members(helper.pid) == set(), "all have ended")


@pytest.mark.parametrize("name", ["ring of processes", "contend", "yield", "hog"])
def test_its_tasks_are_pinned_and_in_one_session(name: str) -> None:
    cpu = str(max(os.sched_getaffinity(0)))
    with native.Helper("scheduling", of_mode(LONG_RUNS[name])) as helper:
        start_working(helper.pid, name)
        wait_until(
            lambda: {status_of(pid, "Cpus_allowed_list") for pid in children_of(helper.pid)} == {cpu}, "all are pinned"
        )
