"""fork_latency: as many values as asked for, in an order that must hold, one creation each, nothing left."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import cannot_run

from c10k_probe import native
from native.driving import Foster, Outcome, become_another_user, run
from native.kernel_view import descriptors_of, session_members, state_of, status_of, tasks_created, wait_until

METHODS = ("fork", "vfork", "posix_spawn", "clone3", "pthread_create")
PARENT_WAITS = ("vfork", "clone3")  # the parent sleeps until the child has left
COUNT = 23
OWN_MAPPINGS, OWN_DESCRIPTORS = 2, 1  # the stamp and the samples' arrays: made after the facts were read
ENDLESS = 1_000_000  # samples: longer than any of these tests lasts


def take(method: str, *arguments: object, linking: str = "dynamic", samples: int = COUNT, **options: Any) -> Outcome:
    """A whole run; skips where the machine cannot do the method."""
    outcome = run("fork_latency", "--method", method, "--samples", samples, *arguments, linking=linking, **options)
    if outcome.code == 77:
        cannot_run(outcome.only("unsupported")["reason"])
    return outcome


def first_sign(method: str) -> str:
    """The child's first instruction of ours; in posix_spawn's that is the main of the executed program."""
    return "exec_ns" if method == "posix_spawn" else "started_ns"


def endless(*arguments: object) -> native.Helper:
    """A run that goes on until it is killed."""
    return native.Helper("fork_latency", ["--samples", ENDLESS, *arguments])


def wait_for_creations(pid: int) -> None:
    """Until the helper has waited for a few children: it is past its preparations (or has met a wall already)."""

    def is_creating() -> bool:
        return int(status_of(pid, "voluntary_ctxt_switches")) > 20 or state_of(pid) == "Z"

    wait_until(is_creating, "the helper creates")


# --- the samples ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("linking", native.LINKINGS)
@pytest.mark.parametrize("method", METHODS)
def test_as_many_values_as_samples(method: str, linking: str) -> None:
    outcome = take(method, "--warmup", 3, linking=linking)

    assert outcome.code == 0
    assert [message["type"] for message in outcome.messages] == ["hello", "facts", "samples", "end"]
    assert outcome.only("end") == {"type": "end", "samples_count": COUNT, "dropped_count": 0}
    samples = outcome.only("samples")
    assert samples["method"] == method
    for name in ("return_ns", first_sign(method), "cycle_ns"):
        assert len(samples[name]) == COUNT
        assert all(isinstance(value, int) and value > 0 for value in samples[name])


@pytest.mark.parametrize("placement", ["any-cpu", "one-cpu"])
@pytest.mark.parametrize("linking", native.LINKINGS)
@pytest.mark.parametrize("method", METHODS)
def test_the_order_that_must_hold(method: str, linking: str, placement: str) -> None:
    samples = take(method, "--placement", placement, linking=linking, samples=100).only("samples")

    values = list(zip(samples["return_ns"], samples[first_sign(method)], samples["cycle_ns"], strict=True))
    assert all(cycle >= returned and cycle >= started for returned, started, cycle in values)
    if method in PARENT_WAITS:
        assert all(started <= returned for returned, started, _ in values)


@pytest.mark.parametrize("method", METHODS)
def test_what_does_not_apply_is_null_and_never_an_empty_array(method: str) -> None:
    samples = take(method).only("samples")

    assert samples["started_ns" if first_sign(method) == "exec_ns" else "exec_ns"] is None
    assert samples["aftershock_ns"] is samples["parent_faults_count"] is None  # not asked for
    assert (samples["child_faults_count"] is None) == (method == "pthread_create")


def test_a_child_without_a_stamp_is_a_dropped_sample() -> None:
    outcome = take("posix_spawn", "--spawn-target", "/bin/true")

    assert outcome.only("end") == {"type": "end", "samples_count": 0, "dropped_count": COUNT}
    assert outcome.only("samples")["cycle_ns"] == []


# --- the kernel's own count -------------------------------------------------------------------------------------------


def strace_counts(strace: str, arguments: list[str], report: Path) -> dict[str, int]:
    """System call to the number of calls that succeeded, over a process and all its children (strace -f -c)."""
    if subprocess.run([strace, "-o", "/dev/null", "true"], capture_output=True, check=False).returncode != 0:
        cannot_run("strace may not trace here (ptrace is forbidden)")
    subprocess.run([strace, "-f", "-c", "-o", str(report), *arguments], capture_output=True, check=True, timeout=30)
    counts = {}
    for line in report.read_text().splitlines():
        fields = line.split()  # % time, seconds, usecs/call, calls, [errors], name
        if len(fields) in (5, 6) and fields[3].isdigit() and fields[-1] != "total":
            counts[fields[-1]] = int(fields[3]) - (int(fields[4]) if len(fields) == 6 else 0)
    return counts


@pytest.mark.parametrize("linking", native.LINKINGS)
@pytest.mark.parametrize("method", METHODS)
def test_23_creations_are_23_for_strace(
    method: str, linking: str, require_tool: Callable[[str], str], tmp_path: Path
) -> None:
    take(method, linking=linking, samples=1)  # or the skip
    program = str(native.find("fork_latency", linking))
    arguments = [program, "--method", method, "--samples", str(COUNT), "--warmup", "0"]
    counts = strace_counts(require_tool("strace"), arguments, tmp_path / "counts")

    created = sum(counts.get(name, 0) for name in ("fork", "vfork", "clone", "clone3"))
    assert created == COUNT
    if method != "pthread_create":
        assert counts["wait4"] == COUNT, "each child is waited for"
    assert counts["execve"] == (COUNT + 1 if method == "posix_spawn" else 1)


@pytest.mark.parametrize("method", METHODS)
def test_23_creations_are_in_the_kernels_statistics(method: str) -> None:
    before = tasks_created()
    take(method)

    assert tasks_created() - before >= COUNT + 1  # the helper itself, and whatever else this machine does


@pytest.mark.parametrize("linking", native.LINKINGS)
@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_left(method: str, linking: str) -> None:
    outcome = take(method, linking=linking)

    assert session_members(outcome.pid) == {}


def test_the_helper_dies_with_its_parent() -> None:
    with Foster("fork_latency", "--method", "fork", "--samples", ENDLESS) as foster:
        foster.receive("hello")
        wait_for_creations(foster.pid)
        foster.kill_starter()


# --- facts ------------------------------------------------------------------------------------------------------------


def test_a_static_helper_has_fewer_mappings() -> None:
    dynamic, static, pie = (take("fork", linking=linking).only("facts") for linking in native.LINKINGS)

    assert 0 < static["mappings_count"] <= pie["mappings_count"] < dynamic["mappings_count"]
    for fact in ("rss_bytes", "anonymous_bytes"):
        assert 0 < static[fact] < dynamic[fact]
    assert 0 < static["page_table_bytes"] <= dynamic["page_table_bytes"]


@pytest.mark.parametrize("linking", native.LINKINGS)
def test_facts_do_not_depend_on_the_number_of_samples(linking: str) -> None:
    """Ten thousand fill 98 pages; a page or two differ from launch to launch, as the stack lies elsewhere."""
    few, many = (take("vfork", linking=linking, samples=samples).only("facts") for samples in (1, 10_000))

    for fact in ("main_mappings_count", "mappings_count", "descriptors_count"):
        assert few[fact] == many[fact]
    for fact in ("main_anonymous_bytes", "anonymous_bytes"):
        assert 0 < few[fact] == pytest.approx(many[fact], abs=8 * 4096)


@pytest.mark.parametrize("linking", native.LINKINGS)
def test_at_main_there_is_less_than_later(linking: str) -> None:
    """Later there is at least the page of the line that was printed."""
    facts = take("fork", "--rss", 8 << 20, "--mappings", 5, linking=linking).only("facts")

    assert 0 < facts["main_mappings_count"] <= facts["mappings_count"] - 5
    assert 0 < facts["main_anonymous_bytes"] < facts["anonymous_bytes"] - (8 << 20)
    assert 0 < facts["main_page_table_bytes"] < facts["page_table_bytes"]


def test_a_dynamic_program_has_more_at_main_than_a_static_one() -> None:
    dynamic, static = (take("fork", linking=linking).only("facts") for linking in ("dynamic", "static"))

    assert dynamic["main_mappings_count"] > static["main_mappings_count"]
    assert dynamic["main_anonymous_bytes"] > static["main_anonymous_bytes"]


def mappings_of(pid: int) -> int:
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return sum(not line.endswith("[vsyscall]") for line in lines)


@pytest.mark.parametrize("linking", native.LINKINGS)
def test_facts_agree_with_a_reading_from_outside(linking: str) -> None:
    arguments = ["--method", "vfork", "--warmup", 20_000, "--samples", 1]  # long enough to be read meanwhile
    with native.Helper("fork_latency", arguments, linking) as helper:
        wait_for_creations(helper.pid)
        mappings, descriptors = mappings_of(helper.pid), descriptors_of(helper.pid)
        rss_bytes, table_bytes = (int(status_of(helper.pid, name).split()[0]) * 1024 for name in ("VmRSS", "VmPTE"))
        facts = helper.expect("facts")
        helper.expect("samples")
        helper.finish()

    assert mappings - facts["mappings_count"] == OWN_MAPPINGS
    assert descriptors - facts["descriptors_count"] == OWN_DESCRIPTORS
    assert facts["rss_bytes"] == pytest.approx(rss_bytes, abs=256 * 1024)  # pages touched by reading the facts
    assert facts["page_table_bytes"] == pytest.approx(table_bytes, abs=16 * 1024)


def test_descriptors_are_counted() -> None:
    plain = take("fork").only("facts")["descriptors_count"]
    extra = [os.open("/dev/null", os.O_RDONLY) for _ in range(5)]
    try:
        more = take("fork", pass_fds=extra).only("facts")["descriptors_count"]
    finally:
        for descriptor in extra:
            os.close(descriptor)

    assert plain == 3  # those of stdio
    assert more == plain + len(extra)


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "vfork", "pthread_create"])
def test_what_was_measured_before_eagain_is_kept(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The helper and one child. A joined thread counts until the kernel has released it, so pthread_create may well meet
    # the wall before the third process is there.
    become_another_user(monkeypatch, tasks_limit_count=2)
    with endless("--method", method) as helper:
        wait_for_creations(helper.pid)
        with subprocess.Popen(["sleep", "60"]) as third:
            try:
                facts = helper.expect("facts")
                samples = helper.expect("samples")
                with pytest.raises(native.HelperCallFailed) as failure:
                    helper.receive()
                with pytest.raises(native.HelperError, match="exit code 1"):
                    helper.receive()
            finally:
                third.kill()

    assert facts["alive_count"] == 0
    assert 0 < len(samples["return_ns"]) == len(samples["started_ns"]) == len(samples["cycle_ns"]) < ENDLESS
    assert (failure.value.call, failure.value.errno_name) == (method, "EAGAIN")
    assert failure.value.message["errno"] == errno.EAGAIN


def test_a_missing_spawn_target_is_named() -> None:
    outcome = take("posix_spawn", "--spawn-target", "/nonexistent/target")

    error = outcome.only("error")
    assert (outcome.code, error["call"], error["arguments"]) == (1, "access", "/nonexistent/target")
    assert (error["errno"], error["name"]) == (errno.ENOENT, "ENOENT")
    assert outcome.of_type("end") == []


# --- placement --------------------------------------------------------------------------------------------------------


def test_one_cpu_is_the_last_usable_one() -> None:
    last = max(os.sched_getaffinity(0))
    with endless("--method", "fork", "--placement", "one-cpu") as helper:
        wait_until(lambda: os.sched_getaffinity(helper.pid) == {last}, "the helper is pinned")

    assert take("fork", "--placement", "one-cpu").only("facts")["cpu"] == last


def test_one_cpu_is_the_one_asked_for() -> None:
    first = min(os.sched_getaffinity(0))
    with endless("--method", "fork", "--placement", "one-cpu", "--cpu", first) as helper:
        wait_until(lambda: os.sched_getaffinity(helper.pid) == {first}, "the helper is pinned")

    assert take("fork", "--placement", "one-cpu", "--cpu", first).only("facts")["cpu"] == first


def test_any_cpu_changes_nothing() -> None:
    with endless("--method", "fork", "--placement", "any-cpu") as helper:
        wait_for_creations(helper.pid)
        assert os.sched_getaffinity(helper.pid) == os.sched_getaffinity(0)

    assert take("fork").only("facts")["cpu"] is None


def test_a_cpu_that_is_not_there() -> None:
    outcome = take("fork", "--placement", "one-cpu", "--cpu", 8191)

    error = outcome.only("error")
    assert (outcome.code, error["call"], error["name"]) == (1, "sched_setaffinity", "EINVAL")
