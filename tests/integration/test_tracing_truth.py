"""Tracers against programs whose answers are known, and against each other; nothing of them may be left."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import backends
import pytest
from command import COMMAND, environment, started, wait_for
from conftest import cannot_run

from c10k_probe.tracing.base import Options, Target, Tracer, TracerUnavailable
from c10k_probe.tracing.choose import open_tracer
from c10k_probe.tracing.result import Trace

PROGRAM = Path(__file__).with_name("known_calls.py")
SIX = ("getppid", "times", "getpgid", "getsid", "getpriority", "sched_getscheduler")
TIMES = 23
COUNTING = ("bcc", "perf", "strace")
PATIENCE_S = 60.0


@pytest.fixture
def require_backend() -> Callable[[str], None]:
    """Skip, with the backend's own reason, where it does not work."""
    return backends.require


@contextmanager
def waiting_program(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """The known program, which waits for its line."""
    command = [sys.executable, "-IS", str(PROGRAM), *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            wait_for(lambda: is_waiting(process.pid), "the program waits for its line")
            yield process
        finally:
            process.kill()


def is_waiting(pid: int) -> bool:
    """Whether a process sleeps in read(2) on its stdin."""
    return Path(f"/proc/{pid}/syscall").read_text().split()[:2] in (["0", "0x0"], ["63", "0x0"])


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def to_the_end(tracer: Tracer, process: subprocess.Popen[str]) -> Trace:
    """Let the program run to its end under a tracer that is ready."""
    with tracer:
        go(process)
        assert process.wait(PATIENCE_S) == 0
        wait_for(tracer.is_over, "the tracer has seen the end")
        return tracer.stop()


def traced(backend: str, *arguments: object, **options: Any) -> Trace:
    with waiting_program(*arguments) as process:
        return to_the_end(open_tracer(backend, Target(pids=[process.pid]), Options(**options)), process)


def counts(trace: Trace, names: tuple[str, ...] = SIX) -> Mapping[str, int]:
    assert trace.calls is not None
    return {name: trace.calls[name].count for name in names if name in trace.calls}


# --- known answers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", COUNTING)
def test_23_of_each_of_six_calls_in_three_threads_and_two_children(
    backend: str, require_backend: Callable[[str], None]
) -> None:
    require_backend(backend)
    trace = traced(backend, "calls", calls=SIX, interval_s=0.2)
    assert counts(trace) == dict.fromkeys(SIX, TIMES * (3 + 2))
    assert trace.calls_count is not None
    assert trace.calls_count >= 6 * TIMES * 5
    if backend != "strace":
        assert (trace.forks_count, trace.threads_count, trace.exits_count) == (2, 3, 6)


@pytest.mark.parametrize("backend", ["bcc", "perf", "proc"])
def test_23_blocking_switches_are_23(backend: str, require_backend: Callable[[str], None]) -> None:
    """The sleeps, and one more: it waits for its next line."""
    require_backend(backend)
    with (
        waiting_program("switches") as process,
        open_tracer(backend, Target(pids=[process.pid]), Options(interval_s=0.2)) as tracer,
    ):
        go(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        wait_for(lambda: is_waiting(process.pid), "the program waits again")
        trace = tracer.stop()
    assert trace.voluntary_switches_count == TIMES + 1
    if backend == "bcc":
        assert trace.calls is not None
        sleeps = trace.calls["clock_nanosleep"]
        assert sleeps.count == TIMES
        assert sleeps.latency is not None
        assert sleeps.latency.count == TIMES
        assert sleeps.latency.total_ns >= TIMES * 2_000_000
        assert sum(sleeps.latency.slots[:21]) == 0  # none under 2^20 ns


def test_ebpf_leaves_the_events_to_others_too(require_backend: Callable[[str], None]) -> None:
    """A program on a tracepoint that gives back 0 hides the event from perf, whoever runs that."""
    require_backend("bcc")
    require_backend("perf")
    with waiting_program("switches") as process, open_tracer("bcc", Target(pids=[process.pid])):
        trace = traced("perf", "calls", calls=SIX, interval_s=0.2)
    assert (trace.forks_count, trace.threads_count, trace.exits_count) == (2, 3, 6)


def test_strace_sees_the_23_sleeps(require_backend: Callable[[str], None]) -> None:
    require_backend("strace")
    with waiting_program("switches") as process:
        with open_tracer("strace", Target(pids=[process.pid])) as tracer:
            go(process)
            assert process.stdout is not None
            assert process.stdout.readline() == "done\n"
            trace = tracer.stop()
        assert counts(trace, ("clock_nanosleep",)) == {"clock_nanosleep": TIMES}
        time.sleep(0.05)
        assert process.poll() is None, "a tracer that leaves must not end what it traced"


@pytest.mark.parametrize("backend", COUNTING)
def test_children_and_threads_are_counted_from_their_first_call(
    backend: str, require_backend: Callable[[str], None]
) -> None:
    require_backend(backend)
    names = ("getppid", "getsid", "getpgid")
    assert counts(traced(backend, "tree", calls=names, interval_s=0.2), names) == dict.fromkeys(names, TIMES)


@pytest.mark.parametrize("backend", COUNTING)
def test_a_command_is_counted_from_its_start_and_its_program_is_not_ours(
    backend: str, require_backend: Callable[[str], None]
) -> None:
    """All backends agree on every call of a shell and its children, but for its own exec and exits."""
    require_backend(backend)
    command = ("/bin/sh", "-c", "cd /; cd /; cd /; /bin/true; exit 3")
    with open_tracer(backend, Target(command=command), Options(calls=("chdir", "execve"), interval_s=0.2)) as tracer:
        wait_for(tracer.is_over, "the shell's end")
        trace = tracer.stop()
    assert counts(trace, ("chdir",)) == {"chdir": 3}
    assert counts(trace, ("execve",))["execve"] in (1, 2)
    assert tracer.launched is not None
    assert tracer.launched.exit_code == 3


def test_errors_and_accepts(require_backend: Callable[[str], None]) -> None:
    """bcc and strace agree on errors; accepts are counted by both, and the connections' ends by bcc."""
    for backend in ("bcc", "strace"):
        require_backend(backend)
        trace = traced(backend, "accepts", 7)
        assert trace.accepts_count == 7
        assert counts(trace, ("accept4", "connect")) == {"accept4": 7, "connect": 7}
        if backend == "bcc":
            assert trace.tcp("SYN_RECV>ESTABLISHED") == 7
            assert trace.tcp("SYN_SENT>ESTABLISHED") == 7
            assert trace.tcp("CLOSE>LISTEN") == 1
            assert trace.dropped_count == 0


@pytest.mark.alone
def test_12000_threads_that_live_together_are_all_counted(require_backend: Callable[[str], None]) -> None:
    require_backend("bcc")
    with waiting_program("threads", 12_000) as process:
        tracer = open_tracer("bcc", Target(pids=[process.pid]))
        with tracer:
            go(process)
            if process.wait(PATIENCE_S) != 0:
                cannot_run("12,000 threads cannot be made here")
            wait_for(tracer.is_over, "the threads' end")
            trace = tracer.stop()
    assert counts(trace, ("getppid",)) == {"getppid": 36_000}
    assert (trace.threads_count, trace.exits_count) == (12_000, 12_001)
    assert (trace.dropped_count, trace.tasks_count) == (0, 0)


def test_what_does_not_fit_is_reported_as_dropped(require_backend: Callable[[str], None]) -> None:
    """With room for 64 tasks, 200 threads leave 137 untold: each one a failed update."""
    require_backend("bcc")
    trace = traced("bcc", "threads", 200, tasks_count=64)
    assert (trace.dropped_tasks_count, trace.dropped_events_count) == (200 - 63, 0)
    assert counts(trace, ("getppid",)) == {"getppid": 3 * 63}


def test_a_process_that_has_ended_before_is_not_waited_for(require_backend: Callable[[str], None]) -> None:
    """Not even when nobody has reaped it: a zombie has no end to be seen any more."""
    require_backend("bcc")
    with subprocess.Popen(["/bin/true"]) as process:
        wait_for(lambda: Path(f"/proc/{process.pid}/stat").read_text().split()[2] == "Z", "the zombie")
        with open_tracer("bcc", Target(pids=[process.pid])) as tracer:
            assert tracer.is_over()
            assert tracer.stop().tasks_count == 0


def test_a_first_thread_that_has_ended_does_not_hold_up_the_end(require_backend: Callable[[str], None]) -> None:
    require_backend("bcc")
    with waiting_program("leaderless") as process:
        go(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        wait_for(lambda: Path(f"/proc/{process.pid}/stat").read_text().split()[2] == "Z", "the first thread's end")
        with open_tracer("bcc", Target(pids=[process.pid])) as tracer:
            assert not tracer.is_over()
            go(process)
            wait_for(tracer.is_over, "the end of the other thread", 10)


def test_counts_alone_leave_latencies_empty(require_backend: Callable[[str], None]) -> None:
    require_backend("bcc")
    trace = traced("bcc", "calls", latency=False)
    assert counts(trace) == dict.fromkeys(SIX, TIMES * 5)
    assert trace.calls is not None
    assert {call.latency for call in trace.calls.values()} == {None}
    assert {call.errors_count for call in trace.calls.values()} == {None}
    assert (trace.runqueue, trace.runqueue_wait_s, trace.accepts_count, trace.call_errors_count) == (None,) * 4


def test_a_session_that_an_experiment_measures_around(require_backend: Callable[[str], None]) -> None:
    """Readings in between, as differences; what the server did before does not count."""
    require_backend("bcc")
    with waiting_program("switches") as process, open_tracer("auto", Target(pids=[process.pid])) as tracer:
        assert tracer.name == "bcc"
        before = tracer.snapshot()
        go(process)
        assert process.stdout is not None
        process.stdout.readline()
        after = tracer.snapshot()
        assert before is not None
        assert after is not None
        part = after.minus(before)
        assert counts(before, ("clock_nanosleep",)) == {}
        assert counts(part, ("clock_nanosleep",)) == {"clock_nanosleep": TIMES}
        assert 0 < part.elapsed_s < after.elapsed_s


def test_inside_a_pid_namespace_the_same_is_counted(
    require_backend: Callable[[str], None], require_tool: Callable[[str], str], tmp_path: Path
) -> None:
    """There the kernel's numbers of tasks are not those that /proc shows."""
    require_backend("bcc")
    wrapper = (require_tool("unshare"), "--pid", "--fork", "--mount-proc", "--kill-child")
    arguments = ("trace", "--json", "-", "--quiet", "--trace", "bcc", "--", sys.executable, "-IS", PROGRAM, "tree")
    with started(*arguments, cwd=tmp_path, wrapper=wrapper) as command:
        finished = command.finish()
    assert finished.code == 0, finished.stderr
    whole = json.loads(finished.stdout.splitlines()[-1])
    found = {name: whole["calls"][name]["count"] for name in ("getppid", "getsid", "getpgid")}
    assert found == dict.fromkeys(found, TIMES)


# --- nothing is left --------------------------------------------------------------------------------------------------


def loaded(bpftool: str) -> set[tuple[str, int]]:
    """Programs and maps of the whole machine."""
    found = set()
    for kind in ("prog", "map"):
        said = subprocess.run([bpftool, "-j", kind, "list"], capture_output=True, text=True, check=True).stdout
        found |= {(kind, item["id"]) for item in json.loads(said or "[]")}
    return found


@pytest.mark.alone
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_program_no_map_no_mount_no_file_is_left(
    number: int,
    require_backend: Callable[[str], None],
    require_tool: Callable[[str], str],
    require_root: None,
    tmp_path: Path,
) -> None:
    require_backend("bcc")
    bpftool = require_tool("bpftool")
    private = tmp_path / "private"
    private.mkdir()
    changes = {"TMPDIR": str(private), "XDG_CACHE_HOME": str(private), "HOME": str(private)}
    before, mounts = loaded(bpftool), Path("/proc/self/mountinfo").read_text()
    with (
        waiting_program("switches") as process,
        started("trace", "--pid", process.pid, cwd=tmp_path, changes=changes) as command,
    ):
        command.until(lambda: "1.0 s:" in command.stderr, "the first interval")
        assert loaded(bpftool) - before, "it counts, so something is loaded"
        command.signal(number)
        assert command.process.wait(PATIENCE_S) == (130 if number == signal.SIGINT else -signal.SIGKILL)
        wait_for(lambda: not command.living(), "its helper is gone")
        wait_for(lambda: not loaded(bpftool) - before, "programs and maps are gone")
        assert process.poll() is None
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert list(private.rglob("*")) == []


@pytest.mark.parametrize("backend", ["perf", "strace"])
def test_a_killed_trace_lets_go_of_a_running_server(
    backend: str, require_backend: Callable[[str], None], tmp_path: Path
) -> None:
    require_backend(backend)
    with (
        waiting_program("switches") as process,
        started("trace", "--pid", process.pid, "--trace", backend, cwd=tmp_path) as command,
    ):
        command.until(lambda: len(command.living()) > 1, f"{backend} runs")
        time.sleep(0.3)
        command.signal(signal.SIGKILL)
        wait_for(lambda: not command.living(), f"{backend} is gone")
        go(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"


def test_a_helper_that_dies_keeps_what_was_counted(require_backend: Callable[[str], None], tmp_path: Path) -> None:
    require_backend("bcc")
    with (
        waiting_program("switches") as process,
        started("trace", "--pid", process.pid, "--csv", "-", cwd=tmp_path) as command,
    ):
        command.until(lambda: "1.0 s:" in command.stderr, "the first interval")
        for pid in command.living():
            if b"bcc_helper" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
        finished = command.finish()
    assert finished.code == 3
    assert "bcc_helper" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert "the tracer was lost" in finished.stderr
    assert ",whole," in finished.stdout


# --- as another user --------------------------------------------------------------------------------------------------


def test_without_root_the_reason_and_the_command_are_told(
    require_root: None, require_tool: Callable[[str], str], tmp_path: Path
) -> None:
    """And auto goes on with what needs no privilege."""
    tmp_path.chmod(0o777)
    wrapper = (require_tool("setpriv"), "--reuid", "65534", "--regid", "65534", "--clear-groups")
    for backend, code in (("bcc", 77), ("perf", 77), ("auto", 0)):
        done = subprocess.run(
            [*wrapper, *COMMAND, "trace", "--trace", backend, "--", "/bin/sleep", "0.1"],
            cwd=tmp_path,
            env=environment("none"),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert re.search(r"root; sudo /\S+.* trace --trace \w+ -- /bin/sleep 0\.1", done.stderr)  # another PATH
        assert "Traceback" not in done.stderr
        if backend == "auto":
            assert "voluntary switches" in done.stderr
            assert "all its processes ended, proc" in done.stderr


def test_a_process_that_is_not_there_cannot_be_traced() -> None:
    with pytest.raises(TracerUnavailable):
        open_tracer("proc", Target(pids=[2**22 - 1]))
