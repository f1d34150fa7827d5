"""scheduling --mode ring: a switch a hop by the tasks' own counts, by /proc and by the tracepoint; the work is done."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import statistics
import struct
import subprocess
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import cannot_run

from c10k_probe import native
from native.driving import Message
from native.kernel_view import descriptors_of, living_members, session_members, state_of, wait_until
from native.test_scheduling import ask

TOKENS = ("pipe", "futex", "eventfd")
KINDS = ("processes", "threads")
HOPS = 200
SMALL_PIPE_BYTES = 4096
PASSES_MAX = 1000  # of scheduling_ring.c


def ring(line: str, **options: Any) -> Message:
    """The message of a whole run."""
    outcome = ask(f"ring {line}", **options)
    if outcome.code == 77:
        cannot_run(outcome.only("unsupported")["reason"])
    assert [message["type"] for message in outcome.messages] == ["hello", "ring", "end"], outcome
    found = outcome.only("ring")
    assert outcome.only("end") == {"type": "end", "samples_count": len(found["pass_ns"]), "dropped_count": 0}
    assert session_members(outcome.pid) == {}
    return found


def waits_elsewhere(found: Message) -> float:
    """How often a task may have blocked other than for the token: on a pipe's mutex, when it was switched away from
    in the middle of a call and the next came to the same pipe. Rare, and at most once a preemption."""
    return float(found["tasks_count"] + 0.01 * found["counted_hops_count"])


def check_switches(found: Message, cpus_count: int = 1) -> None:
    """A task blocks at most once a hop. On one CPU the task that gave must be switched away from before the next one
    can have the token: at least one switch a hop, exactly. Preemptions by others, and by the task just woken, come on
    top, each of which makes at most one more switch to come back."""
    hops = found["counted_hops_count"]
    voluntary, involuntary = found["voluntary_switches_count"], found["involuntary_switches_count"]
    assert voluntary <= hops + waits_elsewhere(found)
    if cpus_count == 1:
        assert hops <= voluntary + involuntary


# --- shapes and counts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("token", TOKENS)
def test_a_ping_pong(token: str, kind: str) -> None:
    found = ring(f"--token {token} --kind {kind} --tasks 2 --hops {HOPS} --budget-ms 20")

    assert found["hops_per_pass_count"] == HOPS
    assert found["tasks_count"] == 2
    assert found["cpus"] == [max(os.sched_getaffinity(0))]
    passes = len(found["pass_ns"])
    assert 3 <= passes == len(found["harness_pass_ns"])
    assert min(found["pass_ns"] + found["harness_pass_ns"]) > 0
    assert found["harness_single_set_pass_ns"] is None
    assert found["counted_hops_count"] == passes * (HOPS + 2) + 1
    # besides: a lap and a pass before, and the two laps for counting
    assert found["hops_count"] == passes * (HOPS + 2) + HOPS + 2 + 4
    check_switches(found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("tasks", "hops"), [(3, 201), (64, 256), (500, 500)])
def test_more_tasks(tasks: int, hops: int, kind: str) -> None:
    found = ring(f"--kind {kind} --tasks {tasks} --hops {hops - 1} --budget-ms 1")

    assert found["hops_per_pass_count"] == hops  # rounded up to whole laps
    assert len(found["pass_ns"]) >= 3
    check_switches(found)


@pytest.mark.parametrize("linking", native.LINKINGS)
def test_every_linking(linking: str) -> None:
    if linking == "static-pie" and not (native.folder() / "scheduling-static-pie").exists():
        cannot_run("the helpers were built without static-pie")
    check_switches(ring(f"--token futex --tasks 3 --hops {HOPS} --budget-ms 1", linking=linking))


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("tasks", [2, 5])
def test_on_two_cpus(tasks: int, token: str) -> None:
    found = ring(f"--token {token} --tasks {tasks} --placement two-cpus --hops {HOPS} --budget-ms 1")

    assert found["cpus"] == sorted(os.sched_getaffinity(0))[:-3:-1]
    check_switches(found, cpus_count=2)


def test_a_chosen_cpu() -> None:
    first = min(os.sched_getaffinity(0))

    assert ring(f"--tasks 2 --hops {HOPS} --budget-ms 1 --cpu {first}")["cpus"] == [first]


def test_the_budget_is_kept_and_so_are_three_passes() -> None:
    few, many = (ring(f"--tasks 2 --hops 2 --budget-ms {budget}") for budget in (0, 60_000))

    assert len(few["pass_ns"]) == 3
    assert len(many["pass_ns"]) == PASSES_MAX


# --- the work ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_each_hop_does_its_quantum(kind: str) -> None:
    found = ring(f"--kind {kind} --tasks 3 --quantum-ns 20000 --hops 30 --budget-ms 1")

    iterations = found["quantum_iterations_count"]
    assert found["work_iterations_per_hop_count"] == iterations
    expected = 20_000 * found["calibration_iterations_count"] / found["calibration_ns"]
    assert abs(iterations - expected) <= 1


def test_without_a_quantum_there_is_no_work() -> None:
    found = ring(f"--tasks 2 --hops {HOPS} --budget-ms 1")

    assert (found["quantum_iterations_count"], found["work_iterations_per_hop_count"]) == (0, 0)


def test_the_quantum_is_in_the_ring_and_in_the_harness() -> None:
    """An order, no speed: 1 ms of work is more than any switch."""
    least, most = (ring(f"--tasks 2 --quantum-ns {quantum} --hops 4 --budget-ms 1") for quantum in (0, 1_000_000))

    for name in ("pass_ns", "harness_pass_ns"):
        assert statistics.median(most[name]) > statistics.median(least[name])


@pytest.mark.parametrize("kind", KINDS)
def test_a_working_set_has_two_harnesses(kind: str) -> None:
    found = ring(f"--kind {kind} --tasks 4 --working-set {64 << 10} --hops 40 --budget-ms 1")

    assert len(found["harness_single_set_pass_ns"]) == len(found["pass_ns"])
    assert min(found["harness_single_set_pass_ns"]) > 0
    check_switches(found)


# --- other witnesses --------------------------------------------------------------------------------------------------


@contextmanager
def held_at_its_report(line: str) -> Iterator[subprocess.Popen[bytes]]:
    """A ring that has measured and cannot print all of it, as the report does not fit into the pipe: its tasks are
    still there. Its ``hello`` has been read."""
    command = [str(native.find("scheduling")), "--mode", "ring", *line.split()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0, start_new_session=True) as process:
        assert process.stdout is not None
        fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, SMALL_PIPE_BYTES)
        try:
            assert json.loads(process.stdout.readline())["type"] == "hello"
            wait_until(lambda: unread_bytes(process.stdout) == SMALL_PIPE_BYTES, "the pipe is full", 30)
            wait_until(lambda: state_of(process.pid) == "S", "it waits for its reader")
            yield process
        finally:
            process.kill()
            wait_until(lambda: living_members(process.pid) == set(), "its tasks have died with it")


def unread_bytes(stream: Any) -> int:
    """What lies in a pipe; FIONREAD."""
    answer: bytes = fcntl.ioctl(stream, termios.FIONREAD, b"\0" * 4)
    return int(struct.unpack("=i", answer)[0])


def switches_by_proc(leader: int) -> tuple[int, int]:
    """Voluntary and involuntary, of all threads of all processes of a session, since each began."""
    sums = [0, 0]
    for pid in living_members(leader):
        for status in Path(f"/proc/{pid}/task").glob("*/status"):
            facts = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
            sums[0] += int(facts["voluntary_ctxt_switches"])
            sums[1] += int(facts["nonvoluntary_ctxt_switches"])
    return sums[0], sums[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tasks", [2, 7])
def test_proc_sees_the_same_switches(tasks: int, kind: str) -> None:
    """What /proc has more was in the hops before and after those that count, and in starting: each task waits a few
    times for memory, for the others to be ready and for its first token."""
    line = f"--tasks {tasks} --kind {kind} --hops {tasks} --budget-ms 60000"
    with held_at_its_report(line) as process:
        voluntary, involuntary = switches_by_proc(process.pid)
        messages = [json.loads(text) for text in process.communicate()[0].splitlines()]
    found = next(message for message in messages if message["type"] == "ring")

    others = found["hops_count"] - found["counted_hops_count"]
    more = voluntary - found["voluntary_switches_count"]
    assert 0 <= more <= others + 10 * tasks + 50 + waits_elsewhere(found)
    assert involuntary >= found["involuntary_switches_count"]
    assert voluntary + involuntary >= found["hops_count"]


def test_processes_inherit_few_descriptors() -> None:
    with held_at_its_report("--tasks 40 --hops 40 --budget-ms 60000") as process:
        followers = living_members(process.pid) - {process.pid}
        assert len(followers) == 39
        # standard input, output, error; the first task's two; its own two; the last one's
        assert max(map(descriptors_of, followers)) <= descriptors_of(os.getpid()) + 8


def switches_of_children() -> int:
    """Of all processes that this one has waited for, and of those that they have."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_nvcsw + usage.ru_nivcsw


def measured(command: list[str]) -> tuple[Message, int]:
    """What a ring reports, and the switches that the kernel charges it and whatever runs it."""
    line = ["--mode", "ring", "--tasks", "4", "--hops", "2000", "--budget-ms", "300"]
    before = switches_of_children()
    done = subprocess.run([*command, *line], capture_output=True, text=True, check=False)
    charged = switches_of_children() - before
    if done.returncode != 0:
        cannot_run(f"{Path(command[0]).name} cannot count switches here: {done.stderr.strip()[:100]}")
    return next(message for message in map(json.loads, done.stdout.splitlines()) if message["type"] == "ring"), charged


def check_count(found: Message, counted: int, charged: int) -> None:
    """At least what the tasks report, and at most what the kernel charges all of it; a task's last switch, away from
    what is dead by then, is charged to nobody."""
    reported = found["voluntary_switches_count"] + found["involuntary_switches_count"]
    assert found["counted_hops_count"] <= reported <= counted <= charged + found["tasks_count"]


@pytest.mark.parametrize("kind", KINDS)
def test_perf_sees_the_same_switches(kind: str, require_tool: Callable[[str], str], tmp_path: Path) -> None:
    counts = tmp_path / "counts"
    perf = [require_tool("perf"), "stat", "-x,", "-e", "context-switches", "-o", str(counts), "--"]
    found, charged = measured([*perf, str(native.find("scheduling")), "--kind", kind])

    number = next(line for line in counts.read_text().splitlines() if "context-switches" in line).split(",")[0]
    check_count(found, int(number), charged)


@contextmanager
def switches_of_program(name: str) -> Iterator[Callable[[], int]]:
    """Events sched_switch away from tasks of a program, counted in a ring buffer of our own of tracefs, which no BPF
    program on the tracepoint hides them from (as it may from perf); what is overwritten is counted too."""
    instance = Path(f"/sys/kernel/tracing/instances/{name}")
    try:
        instance.mkdir()
    except OSError as error:
        cannot_run(f"tracefs cannot be used: {error.strerror}")
    try:
        event = instance / "events/sched/sched_switch"
        (event / "filter").write_text(f'prev_comm == "{name}"')
        (event / "enable").write_text("1")

        def count() -> int:
            (event / "enable").write_text("0")
            stats = [text for path in instance.glob("per_cpu/*/stats") for text in path.read_text().splitlines()]
            return sum(int(text.split()[1]) for text in stats if text.startswith(("entries:", "overrun:")))

        yield count
    finally:
        instance.rmdir()


@pytest.mark.parametrize("kind", KINDS)
def test_the_tracepoint_sees_the_same_switches(kind: str, require_root: None, tmp_path: Path) -> None:
    program = tmp_path / f"ring{os.getpid()}"  # so that the tasks have a name of their own
    program.symlink_to(native.find("scheduling"))
    with switches_of_program(program.name) as count:
        found, charged = measured([str(program), "--kind", kind])
        check_count(found, count(), charged)
