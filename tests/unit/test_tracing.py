"""Tracing without a tracer: tables, parsers, histograms, differences, choice; kernels and headers made of files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import pytest
from conftest import cannot_run

from c10k_probe.exits import ExitCode, UsageError
from c10k_probe.observe import processes
from c10k_probe.tracing import bcc_kernel, choose, syscalls
from c10k_probe.tracing.base import Options, Target, Tracer, TracerUnavailable
from c10k_probe.tracing.launch import find_program
from c10k_probe.tracing.perf import read_report
from c10k_probe.tracing.result import Call, Histogram, Trace, lost_count
from c10k_probe.tracing.strace import accepted, parse_summary

UNISTD = ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h")


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# --- system calls -----------------------------------------------------------------------------------------------------


def test_numbers_and_names_are_those_of_the_kernels_header() -> None:
    header = next((Path(name) for name in UNISTD if Path(name).exists()), None)
    if header is None:
        cannot_run("asm/unistd_64.h (package linux-libc-dev) is not there")
        return
    known = {int(number): name for name, number in re.findall(r"#define __NR_(\w+)\s+(\d+)", header.read_text())}
    assert len(known) > 300
    ours = syscalls.names("x86_64")
    assert {number: ours.get(number) for number in known} == known


@pytest.mark.parametrize(
    ("machine", "number", "name"),
    [
        ("x86_64", 0, "read"),
        ("x86_64", 288, "accept4"),
        ("aarch64", 63, "read"),
        ("aarch64", 242, "accept4"),
        ("aarch64", 79, "newfstatat"),
        ("aarch64", 435, "clone3"),
        ("riscv64", 435, "clone3"),
        ("riscv64", 1, "syscall_1"),
        ("x86_64", 9999, "syscall_9999"),
    ],
)
def test_names_by_architecture(machine: str, number: int, name: str) -> None:
    assert syscalls.name_of(number, machine) == name
    if not name.startswith("syscall_"):
        assert syscalls.number_of(name, machine) == number


# --- histograms and differences ---------------------------------------------------------------------------------------


def slots(**counts: int) -> tuple[int, ...]:
    """``slots(s10=3)``: three durations from 512 to 1023 ns."""
    return tuple(counts.get(f"s{index}", 0) for index in range(40))


def test_a_quantile_is_the_end_of_its_slot_and_needs_samples_beyond_it() -> None:
    histogram = Histogram(slots(s10=90, s20=10), 1)
    assert histogram.count == 100
    assert histogram.quantile_ns(0.5) == 1024
    assert histogram.quantile_ns(0.95) == 2**20
    assert histogram.quantile_ns(0.99) is None  # one sample lies beyond
    assert Histogram(slots(s10=500), 1).quantile_ns(0.99) is not None
    assert Histogram(slots(), 0).quantile_ns(0.5) is None
    assert Histogram(slots(s0=100), 0).quantile_ns(0.5) == 0


def test_quantiles_rise_with_their_share() -> None:
    histogram = Histogram(slots(s1=100, s5=200, s9=300, s33=400), 1)
    values = [histogram.quantile_ns(share / 100) or 0 for share in range(1, 100)]
    assert values == sorted(values)


def trace(**values: object) -> Trace:
    return Trace(backend="test", elapsed_s=values.pop("elapsed_s", 1.0), **values)  # type: ignore[arg-type]


def test_a_difference_takes_everything_apart_and_leaves_the_unknown_unknown() -> None:
    before = trace(
        elapsed_s=1.0,
        calls={"read": Call("read", 5, 1, Histogram((1, 4), 10))},
        calls_count=5,
        tcp_changes={"SYN_RECV>ESTABLISHED": 2},
        runqueue=Histogram((0, 1), 3),
        tasks_count=9,
    )
    after = trace(
        elapsed_s=3.0,
        calls={"read": Call("read", 8, 1, Histogram((2, 6), 16)), "write": Call("write", 1, 0, None)},
        calls_count=9,
        tcp_changes={"SYN_RECV>ESTABLISHED": 5, "ESTABLISHED>CLOSE": 1},
        runqueue=Histogram((1, 1), 4),
        tasks_count=4,
        notes=("seen",),
    )
    part = after.minus(before)
    assert part.elapsed_s == 2.0
    assert part.calls == {"read": Call("read", 3, 0, Histogram((1, 2), 6)), "write": Call("write", 1, 0, None)}
    assert (part.calls_count, part.tasks_count, part.notes) == (4, 4, ("seen",))
    assert part.tcp_changes == {"SYN_RECV>ESTABLISHED": 3, "ESTABLISHED>CLOSE": 1}
    assert part.runqueue == Histogram((1, 0), 1)
    assert part.voluntary_switches_count is None
    assert part.per_s(part.calls_count) == 2.0
    assert part.per_s(None) is None


def test_a_task_that_was_never_followed_stays_lacking() -> None:
    """What was dropped before the first reading is missing in every part; what was dropped later counts once."""
    before, middle, after = (
        trace(calls_count=calls, dropped_tasks_count=tasks, dropped_events_count=events)
        for calls, tasks, events in ((5, 3, 10), (7, 3, 10), (9, 4, 12))
    )
    assert (middle.minus(before).dropped_count, middle.since(before).dropped_count) == (0, 3)
    parts = [middle.since(before), after.since(middle)]
    assert [part.calls_count for part in parts] == [2, 2]
    assert lost_count(parts) == 4 + 2
    assert lost_count([trace(), trace()]) is None


def test_what_nobody_knows_is_none_and_never_0() -> None:
    unknown = [item.name for item in fields(Trace) if item.name not in ("backend", "elapsed_s", "notes")]
    assert {getattr(trace(), name) for name in unknown} == {None}
    assert trace().tcp("SYN_RECV>ESTABLISHED") is None
    assert trace(tcp_changes={}).tcp("SYN_RECV>ESTABLISHED") == 0


# --- what the tools say -----------------------------------------------------------------------------------------------

STRACE = """% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 97.60    0.026000          27       960           getppid
  2.40    0.000640          16        40        13 accept4
  0.00    0.000000           0         1         1 ioctl
------ ----------- ----------- --------- --------- ----------------
100.00    0.026640          26      1001        14 total
"""


def test_straces_summary() -> None:
    calls = parse_summary(STRACE)
    assert calls == {
        "getppid": Call("getppid", 960, 0),
        "accept4": Call("accept4", 40, 13),
        "ioctl": Call("ioctl", 1, 1),
    }
    assert accepted(calls) == 27
    assert parse_summary("") == {}
    assert accepted({}) == 0


def test_perfs_report_sums_complete_intervals_and_leaves_out_what_was_not_counted() -> None:
    text = (
        "     0.200261053,340,,raw_syscalls:sys_enter,2622281,100.00,,\n"
        "     0.200261053,<not supported>,,page-faults,0,100.00,,\n"
        "     0.308495816,6,,raw_syscalls:sys_enter,108171,100.00,,\n"
        "     0.308495816,7,,page-faults,108171,100.00,,\n"
        "     0.400000000,9,,raw_syscalls:sys_enter,1,100.00,,\n"
    )
    assert read_report(text, 2) == (0.308495816, [346, None])
    summary = "   summary,355,,raw_syscalls:sys_enter,1,100.00,,\n   summary,<not counted>,,page-faults,0,100.00,,\n"
    assert read_report(text + summary, 2) == (0.308495816, [355, 0])
    assert read_report(summary, 2) == (0.0, [355, 0])
    assert read_report("", 2) == (0.0, [None, None])


# --- kernels and headers ----------------------------------------------------------------------------------------------


def make_tree(root: Path, name: str, *, whole: bool) -> Path:
    """A headers tree below /usr/src; a Debian half has no sources of its own."""
    folder = root / "usr/src" / name
    write(folder / "include/generated/autoconf.h")
    if whole:
        write(folder / "include/linux/kconfig.h")
    return folder


def test_headers_of_the_running_kernel_come_first(tmp_path: Path) -> None:
    make_tree(tmp_path, "linux-headers-9.9.9-generic", whole=True)
    (tmp_path / "lib/modules/6.1.0/build/include").mkdir(parents=True)
    found = bcc_kernel.find_headers("6.1.0", tmp_path)
    assert (found.folder, found.flags) == (None, ())


def test_headers_of_any_kernel_do_and_the_newest_are_taken(tmp_path: Path) -> None:
    make_tree(tmp_path, "linux-headers-6.8.0-9-generic", whole=True)
    newest = make_tree(tmp_path, "linux-headers-6.8.0-31-generic", whole=True)
    found = bcc_kernel.find_headers("6.18.44", tmp_path)
    assert (found.folder, found.flags) == (newest, ())


def test_a_tree_in_two_halves_is_joined_by_flags(tmp_path: Path) -> None:
    half = make_tree(tmp_path, "linux-headers-6.1.0-56-cloud-amd64", whole=False)
    common = tmp_path / "usr/src/linux-headers-6.1.0-56-common"
    write(common / "include/linux/kconfig.h")
    make_tree(tmp_path, "linux-headers-6.2.0-1-amd64", whole=False)  # newer, but its other half is missing
    found = bcc_kernel.find_headers("6.18.44", tmp_path)
    assert found.folder == half
    assert f"-I{common / 'include'}" in found.flags
    assert found.flags[-1] == f"-I{common}"


def test_without_headers_the_package_is_named(tmp_path: Path) -> None:
    with pytest.raises(bcc_kernel.Unsupported, match="headers") as refused:
        bcc_kernel.find_headers("6.18.44", tmp_path)
    assert refused.value.lift == "c10k-probe doctor --install"


@pytest.mark.parametrize(
    ("states", "expected"),
    [("0x00000000 | 0x00000001 | 0x00000002 | 0x00000040", 0x88), ("0x00000000 | 0x0000007f", 0x100), ("", 0x100)],
)
def test_the_state_of_a_preempted_task_is_one_above_all(tmp_path: Path, states: str, expected: int) -> None:
    text = f"print fmt: prev_state & ((({states}) + 1) << 1) ? x" if states else "print fmt: something else"
    write(tmp_path / "events/sched/sched_switch/format", text)
    assert bcc_kernel.preempted_state(tmp_path) == expected


def test_a_missing_tracepoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(bcc_kernel.Unsupported, match="raw_syscalls:sys_enter"):
        bcc_kernel.check_tracepoints(tmp_path)


# --- choosing ---------------------------------------------------------------------------------------------------------


class _Refusing(Tracer):
    """A backend that never works; what the abstract methods do does not matter."""

    name = "bcc"

    def start(self) -> None:
        raise TracerUnavailable(self.name, "this is a test", "do something")

    def snapshot(self) -> Trace | None:
        raise NotImplementedError

    def is_over(self) -> bool:
        raise NotImplementedError

    def stop(self) -> Trace:
        raise NotImplementedError

    def close(self) -> None:
        pass


class _Working(_Refusing):
    name = "proc"

    def start(self) -> None:
        pass


def choose_from(monkeypatch: pytest.MonkeyPatch, working: Sequence[str]) -> None:
    kinds: dict[str, type[Tracer]] = {}
    for name in ("bcc", "perf", "strace", "proc"):
        kind = _Working if name in working else _Refusing
        kinds[name] = type(name, (kind,), {"name": name})
    monkeypatch.setattr(choose, "BACKENDS", kinds)


@pytest.mark.parametrize(
    ("working", "chosen", "refused"),
    [
        (("bcc", "perf", "strace", "proc"), "bcc", []),
        (("perf", "strace", "proc"), "perf", ["bcc"]),
        (("strace", "proc"), "proc", ["bcc", "perf"]),
    ],
)
def test_auto_takes_the_best_that_works_but_never_strace(
    monkeypatch: pytest.MonkeyPatch, working: Sequence[str], chosen: str, refused: list[str]
) -> None:
    choose_from(monkeypatch, working)
    tracer = choose.open_tracer("auto", Target(pids=[1]), Options())
    assert (tracer.name, [error.backend for error in tracer.refused]) == (chosen, refused)


def test_a_named_backend_that_cannot_work_is_77_with_the_command_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    choose_from(monkeypatch, ())
    with pytest.raises(TracerUnavailable, match="bcc cannot trace here: this is a test; do something") as refused:
        choose.open_tracer("bcc", Target(pids=[1]))
    assert refused.value.code == ExitCode.NOTHING_MEASURED
    with pytest.raises(UsageError, match="choose from auto, bcc, perf, strace, proc, off"):
        choose.open_tracer("ebpf", Target(pids=[1]))


def test_no_backend_is_left_out_of_what_doctor_tries() -> None:
    assert choose.BACKENDS.keys() == choose.SEES.keys()
    assert choose.CHOICES == ("auto", "bcc", "perf", "strace", "proc", "off")


@pytest.mark.parametrize("name", ["no-such-program", "/no/such/program", "/etc/passwd", "/"])
def test_a_command_that_cannot_start_is_refused_before(name: str) -> None:
    with pytest.raises(UsageError, match="cannot start"):
        find_program(name)


# --- trees ------------------------------------------------------------------------------------------------------------


def make_process(root: Path, pid: int, parent: int, state: str = "S") -> None:
    numbers = " ".join(["0"] * 15 + ["1"] + ["0"] * 30)
    write(root / str(pid) / "stat", f"{pid} (a (b) c) {state} {parent} {numbers}\n")


def test_a_tree_holds_all_descendants_parents_first_and_not_its_observer(tmp_path: Path) -> None:
    for pid, parent in ((1, 0), (10, 1), (12, 10), (11, 12), (20, 1), (30, 12), (31, 30)):
        make_process(tmp_path, pid, parent)
    found = processes.with_descendants([10, 99], without=[30], proc_root=tmp_path)
    assert found == [10, 12, 11]
    assert processes.topmost([10, 12, 11, 20], tmp_path) == [10, 20]


def test_a_zombie_is_not_alive(tmp_path: Path) -> None:
    make_process(tmp_path, 10, 1, "Z")
    make_process(tmp_path, 11, 1)
    assert not processes.is_alive(10, tmp_path)
    assert processes.is_alive(11, tmp_path)
    assert not processes.is_alive(12, tmp_path)
