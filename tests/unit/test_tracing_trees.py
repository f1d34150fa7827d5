"""Whom tracing follows, and what it says when it cannot: trees and threads of files, owners of ports, complaints."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from c10k_probe.cli import follow
from c10k_probe.exits import UsageError, UserError
from c10k_probe.native import HelperError
from c10k_probe.observe import processes
from c10k_probe.tracing import lift, perf, proc, strace
from c10k_probe.tracing.base import Options, Target, TracerUnavailable
from c10k_probe.tracing.bcc_backend import BccTracer
from c10k_probe.tracing.bcc_follow import Follower
from c10k_probe.tracing.launch import Launched, check_exec
from c10k_probe.tracing.strace import parse_summary
from c10k_probe.tracing.syscalls import COMPAT
from c10k_probe.tracing.tool import read_complaint
from c10k_probe.tracing.tree import Tree


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def make_process(
    root: Path, pid: int, parent: int = 1, name: str = "x", threads: Mapping[int, str] | None = None
) -> None:
    """A process of files; threads: id -> state. Its threads are below its own folder only."""
    states = threads or {pid: "S"}
    numbers = " ".join(["0"] * 15 + [str(len(states))] + ["0"] * 30)
    write(root / str(pid) / "stat", f"{pid} ({name}) {states.get(pid, 'S')} {parent} {numbers}\n")
    write(root / str(pid) / "comm", f"{name}\n")
    for tid, state in states.items():
        write(root / str(pid) / "task" / str(tid) / "stat", f"{tid} ({name}) {state} {parent} {numbers}\n")


class Programs:
    """Takes what is followed in place of the BPF maps."""

    def __init__(self) -> None:
        self.followed: list[int] = []
        self.forgotten: list[int] = []

    def follow(self, tid: int, *, active: bool) -> None:
        assert active
        self.followed.append(tid)

    def forget(self, tid: int) -> None:
        self.forgotten.append(tid)

    def add_ports(self, numbers: Iterable[int]) -> None:
        assert not set(numbers)


# --- following --------------------------------------------------------------------------------------------------------


def test_threads_are_looked_at_below_their_process_and_the_ended_are_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/proc/TID/stat sums up the whole process, and following a thousand threads would cost a million looks."""
    make_process(tmp_path, 10, threads={10: "S", 11: "R", 12: "Z"})
    make_process(tmp_path, 20, parent=10)
    looks: list[str] = []
    read_raw = processes.read_raw
    monkeypatch.setattr(processes, "read_raw", lambda path, *rest: looks.append(path.decode()) or read_raw(path, *rest))
    programs = Programs()
    follower = Follower(programs, tmp_path)
    follower.follow_trees([10])
    assert sorted(programs.followed) == [10, 11, 20]
    assert not [look for look in looks if look.endswith(("/11/stat", "/12/stat")) and "/10/task/" not in look]
    make_process(tmp_path, 10, threads={10: "S", 11: "Z", 12: "Z"})
    follower.forget_ended()
    assert programs.forgotten == []  # not yet: its end may still be seen
    monkeypatch.setattr(follower, "_check_at_s", 0.0)
    follower.forget_ended()
    assert programs.forgotten == [11]


def said(time_s: float, count: int, dropped_tasks: int) -> Mapping[str, Any]:
    """A message of the helper: ``count`` of everything."""
    names = ("voluntary_switches", "involuntary_switches", "forks", "threads", "exits", "page_faults", "accepts")
    return {
        "time_ns": int(time_s * 1e9),
        "counters": {**dict.fromkeys(names, count), "runqueue_ns": count},
        "runqueue": [count] * 40,
        "tcp": {"3>1": count},
        "calls": {"0": [count, 0, count, [count] * 40], "510": [count, 0, 0, [0] * 40]},
        "dropped_tasks": dropped_tasks,
        "dropped_events": 0,
        "missed_wakeups": 0,
        "tasks_count": 3,
    }


def test_what_was_counted_while_tasks_were_being_followed_is_in_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counters and clock begin together, when the last task is followed; what was dropped before is lacking still."""
    answers = {"following": said(100.0, 1000, 2), "snapshot": said(102.0, 1010, 2)}
    tracer = BccTracer(Target(pids=[1]), Options())
    tracer._ready = {"latency": True, "faults": True, "tcp": True, "accepts": True}
    monkeypatch.setattr(tracer, "_attach", SimpleNamespace)
    monkeypatch.setattr(tracer, "_ask", lambda command, answer: answers[answer])
    tracer.start()
    trace = tracer.snapshot()
    assert trace is not None
    assert trace.elapsed_s == 2.0
    assert (trace.calls_count, trace.forks_count, trace.tcp("SYN_RECV>ESTABLISHED")) == (20, 10, 10)
    assert trace.calls is not None
    assert {name: call.count for name, call in trace.calls.items()} == {"read": 10, COMPAT: 10}
    assert trace.runqueue is not None
    assert trace.runqueue.count == 400
    assert (trace.dropped_tasks_count, trace.dropped_events_count, trace.dropped_count) == (2, 0, 2)
    assert any(COMPAT in note for note in trace.notes)


def test_a_helper_that_cannot_follow_is_a_backend_that_cannot_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(command: str, answer: str) -> Mapping[str, Any]:
        raise HelperError("bcc_helper said nothing for 15 s and was killed")

    tracer = BccTracer(Target(pids=[1]), Options())
    monkeypatch.setattr(tracer, "_attach", SimpleNamespace)
    monkeypatch.setattr(tracer, "_ask", fail)
    with pytest.raises(TracerUnavailable, match="said nothing for 15 s"):
        tracer.start()


# --- trees ------------------------------------------------------------------------------------------------------------


def test_a_tree_is_over_when_what_a_look_has_met_has_ended(tmp_path: Path) -> None:
    make_process(tmp_path, 10)
    make_process(tmp_path, 20, parent=10)
    tree = Tree([10], proc_root=tmp_path)
    assert tree.living() == [10, 20]
    make_process(tmp_path, 10, threads={10: "Z"})
    make_process(tmp_path, 20, parent=1)  # its parent has ended, so that it has another
    make_process(tmp_path, 30, parent=20)
    assert not tree.is_over()
    assert tree.living() == [20, 30]
    for pid in (20, 30):
        make_process(tmp_path, pid, threads={pid: "Z"})
    assert tree.is_over()


def test_a_command_has_not_ended_while_its_orphans_live() -> None:
    """They are ours then, are ended with the command, and no zombie is left."""
    launched = Launched.suspended(["/bin/sh", "-c", "sleep 600 & exit 3"])
    try:
        tree = Tree([launched.pid], launched)
        launched.release()
        launched.wait(10)
        assert launched.exit_code == 3
        (orphan,) = launched.adopted()
        while (line := processes.command_line(orphan)) != "sleep 600":
            assert line.split()[:1] in (["/bin/sh"], ["sh"], ["sleep"]), line  # not yet executed, or just being so
        assert not tree.is_over()
        assert tree.living() == [orphan]
    finally:
        launched.end()
        launched.adopt(wanted=False)
    assert tree.is_over()
    assert not Path(f"/proc/{orphan}").exists()
    assert len(launched.usage) == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [("no program at all\n", errno.ENOEXEC), ("#!/no/such/interpreter\n", errno.ENOENT), ("\x7fELF", errno.ENOEXEC)],
)
def test_a_command_that_the_kernel_refuses_is_told_by_its_reason(tmp_path: Path, content: str, reason: int) -> None:
    path = write(tmp_path / "command", content)
    path.chmod(0o755)
    launched = Launched.suspended([str(path)])
    with pytest.raises(UsageError, match=f"{path}: {os.strerror(reason)}; "):
        launched.release()
    launched.end()
    launched.adopt(wanted=False)
    with pytest.raises(UsageError, match=f"{path}: {os.strerror(reason)}; "):
        check_exec([str(path)])


def test_a_command_is_checked_without_one_instruction_of_it(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    assert check_exec(["/bin/sh", "-c", f"echo > {mark}"]) in ("", os.strerror(errno.EPERM))
    assert not mark.exists()


def test_waits_that_the_kernel_does_not_keep_are_unknown(tmp_path: Path) -> None:
    """Zeros in all three places are a kernel without CONFIG_SCHED_INFO."""
    for text, expected in (("0 0 0\n", None), ("5 0 1\n", 0), ("5 7 1\n", 7), ("", None)):
        write(tmp_path / "schedstat", text)
        assert proc._wait_ns(os.fsencode(tmp_path)) == expected


def test_cpu_time_of_a_process_is_finer_than_a_tick() -> None:
    ticks_ns = proc._TICK_NS
    readings = [proc._cpu_ns(os.getpid(), 0, Path("/proc")) for _ in range(20)]
    assert readings == sorted(readings)
    assert any(reading % ticks_ns for reading in readings)
    assert proc._cpu_ns(os.getpid(), 3, Path("/elsewhere")) == 3 * ticks_ns


def test_a_thread_that_ended_before_a_second_look_has_unknown_figures(tmp_path: Path) -> None:
    make_process(tmp_path, 10)
    folder = tmp_path / "10/task/10"
    write(folder / "status", "x:\nvoluntary_ctxt_switches:\t4\nnonvoluntary_ctxt_switches:\t5\n")
    write(folder / "schedstat", "9 9 9")
    tracer = proc.ProcTracer(Target(pids=[10]), Options(), tmp_path)
    tracer.start()
    make_process(tmp_path, 10, threads={10: "Z"})
    trace = tracer.stop()
    assert (trace.voluntary_switches_count, trace.runqueue_wait_s, trace.page_faults_count, trace.cpu_s) == (None,) * 4


# --- whom an option names ---------------------------------------------------------------------------------------------


def test_who_serves_a_port_is_not_who_holds_it_for_others(tmp_path: Path) -> None:
    make_process(tmp_path, 1, parent=0, name="systemd")
    make_process(tmp_path, 50, parent=1, name="server")
    make_process(tmp_path, 51, parent=50, name="server")
    assert follow.choose_servers([1, 50, 51], tmp_path) == [50]
    assert follow.choose_servers([1], tmp_path) == []
    make_process(tmp_path, 1, parent=0, name="nginx")  # in a container a server may be the first process
    assert follow.choose_servers([1, 50], tmp_path) == [1]


def test_a_port_that_only_a_manager_holds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "owners_of_port", lambda number: ([1], True))
    monkeypatch.setattr(follow, "choose_servers", lambda owners: [])
    with pytest.raises(UserError, match=r"port 80 is held by .*\(pid 1\) .*connect once.*--pid"):
        follow.find_roots("", "80")


def test_a_thread_is_no_process() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        with pytest.raises(UsageError, match=f"{thread.native_id} is a thread of process {os.getpid()}; give --pid"):
            follow.find_roots(str(thread.native_id), "")
        assert follow.find_roots(str(os.getpid()), "") == [os.getpid()]
    finally:
        done.set()
        thread.join()


def test_a_title_is_one_line() -> None:
    assert follow.one_line("sh -c a\nb\tc\x1b[2J é") == r"sh -c a\nb\tc\x1b[2J é"


# --- what tools say ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("perf", "Error:\nAccess to performance monitoring is limited.\nConsider adjusting\n", "Access to performance"),
        ("perf", "Error:\nToo many events are opened.\nProbably\n", "Too many events are opened."),
        (
            "perf",
            "event syntax error: 'raw_syscalls:x'\n   \\___ can't\n\nError:\tNo permissions to read /x\nHint:\ty",
            "No permissions to read /x",
        ),
        ("perf", "Problems finding threads of monitor\n\n Usage: perf stat [<options>]\n", "Problems finding threads"),
        ("strace", "strace: attach: ptrace(PTRACE_SEIZE, 1): Operation not permitted\n", "attach: ptrace("),
        ("strace", "", ""),
    ],
)
def test_a_tools_own_reason_is_found(name: str, text: str, expected: str) -> None:
    found = read_complaint(text, name)
    assert found.startswith(expected)
    assert bool(found) == bool(expected)


def test_straces_second_table_is_that_of_32_bit_programs() -> None:
    table = "  0.00    0.000000           0        {count}         {errors} {name}\n"
    text = (
        table.format(count=7, errors=1, name="read")
        + "System call usage summary for 32 bit mode:\n"
        + table.format(count=3, errors=2, name="read")
        + table.format(count=4, errors="", name="write")
    )
    calls = parse_summary(text)
    assert {name: (call.count, call.errors_count) for name, call in calls.items()} == {"read": (7, 1), COMPAT: (7, 2)}


def test_perf_refuses_a_call_that_it_cannot_name_and_leaves_out_only_its_own_choice(tmp_path: Path) -> None:
    for event in ("raw_syscalls/sys_enter", "syscalls/sys_enter_read", "syscalls/sys_enter_newfstat"):
        write(tmp_path / "events" / event / "id", "1")
    named = [
        counter.field for counter in perf.counters(tmp_path, ("read", "fstat", "read")) if "call " in counter.field
    ]
    assert named == ["call read", "call fstat"]
    chosen = [counter.field for counter in perf.counters(tmp_path, ()) if "call " in counter.field]
    assert chosen == ["call read"]
    with pytest.raises(UsageError, match="perf cannot count write by name"):
        perf.counters(tmp_path, ("read", "write"))


@pytest.mark.parametrize(
    ("scope", "owner", "helps"),
    [("1\n", 1000, True), ("1\n", 0, False), ("2\n", 1000, False), (None, 1000, False)],
)
def test_strace_names_the_setting_only_where_that_is_what_forbids(
    scope: str | None, owner: int, helps: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only for an own process, and only where the kernel has the setting and it is on."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(strace, "PTRACE_SCOPE", tmp_path / "ptrace_scope")
    monkeypatch.setattr(strace, "_owner_of", lambda pid: owner)
    if scope is not None:
        write(tmp_path / "ptrace_scope", scope)
    tracer = strace.StraceTracer(Target(pids=[os.getpid()]), Options())
    assert tracer.lift().startswith("sudo ")
    assert ("ptrace_scope=0" in tracer.lift()) is helps
    tracer.close()
    assert "ptrace_scope" not in strace.StraceTracer(Target(command=("true",)), Options()).lift()


def test_the_command_that_helps_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a b" / "c10k-probe", "#!/bin/sh\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(path), "trace", "--", "ls", "a b"])
    assert TracerUnavailable("bcc", "no", lift.BY_ROOT).lift == f"sudo '{path}' trace -- ls 'a b'"
    monkeypatch.setattr(sys, "argv", ["-m", "doctor"])
    assert lift.exact(lift.BY_ROOT) == f"sudo {sys.executable} -m c10k_probe doctor"
    assert lift.exact("apt-get install strace") == "apt-get install strace"
