"""fork_latency's state of the parent: what is asked for is there, says an independent reading of /proc."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import cannot_run

from c10k_probe import native
from native.driving import Foster, Message, become_another_user, run
from native.kernel_view import descriptors_of, living_members, session_members, state_of, status_of, wait_until
from native.test_fork_latency import ENDLESS, OWN_DESCRIPTORS, OWN_MAPPINGS, mappings_of, take

MIB = 1 << 20
SLACK = 512 * 1024  # pages touched by reading, counters kept by CPU


# --- a second witness -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def stopped(*arguments: object, alive: int = 0) -> Iterator[int]:
    """The pid of a launch that is past its preparations and stopped."""
    command = ["--method", "vfork", "--warmup", ENDLESS, "--samples", 1, *arguments]
    with native.Helper("fork_latency", command) as helper:
        wanted = 500 + 4 * alive  # waiting for the tasks to be kept alive switches too
        wait_until(lambda: int(status_of(helper.pid, "voluntary_ctxt_switches")) > wanted, "the helper creates")
        os.kill(helper.pid, signal.SIGSTOP)
        wait_until(lambda: state_of(helper.pid) == "T", "the helper is stopped")
        yield helper.pid
    wait_until(lambda: not living_members(helper.pid), "what it kept alive is gone")


def facts_of(*arguments: object) -> Message:
    """What a launch with this state says of itself."""
    return take("vfork", *arguments).only("facts")


def rollup_of(pid: int, name: str) -> int:
    """One sum of /proc/PID/smaps_rollup in bytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def test_touched_memory() -> None:
    facts = facts_of("--rss", 32 * MIB)
    with stopped("--rss", 32 * MIB) as pid:
        anonymous, dirty, tables = rollup_of(pid, "Anonymous"), rollup_of(pid, "Private_Dirty"), status_of(pid, "VmPTE")

    assert 32 * MIB <= anonymous <= 33 * MIB
    assert facts["private_dirty_bytes"] == pytest.approx(dirty, abs=SLACK)
    assert 32 * MIB <= facts["private_dirty_bytes"] <= facts["rss_bytes"]
    assert facts["page_table_bytes"] == pytest.approx(int(tables.split()[0]) * 1024, abs=16 * 1024)
    assert facts["anon_huge_bytes"] == 0


def test_read_pages_of_a_file_that_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    facts = facts_of("--file-rss", 32 * MIB)
    with stopped("--file-rss", 32 * MIB) as pid:
        file_bytes = sum(int(status_of(pid, name).split()[0]) * 1024 for name in ("RssFile", "RssShmem"))
        lines = [line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if str(tmp_path) in line]
        assert list(tmp_path.iterdir()) == []

    assert len(lines) == 1 and lines[0].endswith("(deleted)")
    assert 32 * MIB <= facts["file_rss_bytes"] <= 36 * MIB
    assert facts["file_rss_bytes"] == pytest.approx(file_bytes, abs=SLACK)
    assert facts["private_dirty_bytes"] < MIB


def test_mappings_are_exact() -> None:
    plain = facts_of()
    for count in (1, 2, 999):
        facts = facts_of("--mappings", count)
        with stopped("--mappings", count) as pid:
            found = mappings_of(pid)
        assert found - OWN_MAPPINGS == facts["mappings_count"] == plain["mappings_count"] + count


def test_descriptors_are_exact_and_inherited() -> None:
    plain = facts_of()
    facts = facts_of("--descriptors", 300)
    with stopped("--descriptors", 300) as pid:
        found = descriptors_of(pid)
        flags = [
            int(path.read_text().split("flags:")[1].split()[0], 8) for path in Path(f"/proc/{pid}/fdinfo").iterdir()
        ]

    assert found - OWN_DESCRIPTORS == facts["descriptors_count"] == plain["descriptors_count"] + 300
    assert not any(flag & os.O_CLOEXEC for flag in flags)


def test_children_are_alive_and_blocked() -> None:
    facts = facts_of("--alive", 50)
    with stopped("--alive", 50, alive=50) as pid:
        members = session_members(pid).items()
        children = {child: state for child, state in members if child != pid and state != "Z"}  # Z: just measured
        parents = {int(status_of(child, "PPid")) for child in children}
        opened = [{str(fd.readlink()) for fd in Path(f"/proc/{child}/fd").iterdir()} for child in children]

    assert (len(children), set(children.values()), parents) == (50, {"S"}, {pid})
    assert all(any(name.startswith("pipe:") for name in names) for names in opened)
    assert (facts["alive_count"], facts["alive_kind"]) == (50, "children")


@pytest.mark.parametrize("stack_bytes", [0, 64 * 1024 * 4])
def test_threads_are_alive_and_blocked(stack_bytes: int) -> None:
    size = stack_bytes or resource.getrlimit(resource.RLIMIT_STACK)[0]
    stack = ["--alive-stack", stack_bytes] if stack_bytes else []
    facts = facts_of("--alive", 50, "--alive-kind", "threads", *stack)
    with stopped("--alive", 50, "--alive-kind", "threads", *stack, alive=50) as pid:
        threads = [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]
        spans = [line.split()[0].split("-") for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]

    assert len(threads) == 51
    assert (facts["alive_count"], facts["alive_kind"]) == (50, "threads")
    if size != resource.RLIM_INFINITY:
        sizes = [int(end, 16) - int(start, 16) for start, end in spans]
        assert sum(0 <= size - found <= 64 * 1024 for found in sizes) >= 49  # two may have been merged


def test_alive_children_do_not_share_the_memory() -> None:
    with stopped("--alive", 3, "--rss", 16 * MIB, alive=3) as pid:
        children = living_members(pid) - {pid}
        assert all(rollup_of(child, "Rss") < 8 * MIB for child in children)


@pytest.mark.parametrize("count", [1, 8, 128])
def test_libraries_are_loaded(count: int) -> None:
    facts = facts_of("--libraries", count)
    with stopped("--libraries", count) as pid:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()

    names = {line.split()[-1] for line in lines if "/libc10k_" in line}
    assert len(names) == facts["libraries_count"] == count
    assert facts["mappings_count"] >= facts_of()["mappings_count"] + 4 * count


def test_all_of_it_together() -> None:
    state = {
        "--rss": 8 * MIB,
        "--file-rss": 8 * MIB,
        "--mappings": 200,
        "--descriptors": 100,
        "--alive": 20,
        "--libraries": 4,
    }
    plain = facts_of()
    outcome = take("fork", *(word for pair in state.items() for word in pair), "--aftershock", 3)

    assert outcome.code == 0
    facts = outcome.only("facts")
    assert facts["descriptors_count"] == plain["descriptors_count"] + 100 + 2  # two ends of the pipe of the living
    assert facts["alive_count"] == 20
    assert facts["libraries_count"] == 4
    assert session_members(outcome.pid) == {}


# --- what the state changes -------------------------------------------------------------------------------------------


def test_linkings_in_their_order() -> None:
    if not (native.folder() / "fork_latency-static-pie").exists():
        cannot_run("the helpers were built without static-pie")
    counts = [
        take("fork", linking=linking).only("facts")["mappings_count"] for linking in ("static", "static-pie", "dynamic")
    ]

    assert counts[0] <= counts[1] < counts[2]


@pytest.mark.alone
def test_forks_price_grows_with_memory_and_vforks_does_not() -> None:
    memory = ("--rss", 256 * MIB, "--warmup", 1)
    fork, vfork = (
        statistics.median(take(method, *memory, samples=7).only("samples")["return_ns"]) for method in ("fork", "vfork")
    )

    assert fork > 10 * vfork


@pytest.mark.alone
def test_fork_copies_less_of_huge_pages() -> None:
    """Not in VmPTE: the kernel keeps a table in reserve for each huge page (pgtable_trans_huge_deposit)."""
    facts, return_ns = {}, {}
    for switch in ("off", "on"):
        outcome = take("fork", "--rss", 128 * MIB, "--huge-pages", switch, "--warmup", 1, samples=7)
        facts[switch] = outcome.only("facts")
        return_ns[switch] = statistics.median(outcome.only("samples")["return_ns"])

    assert (facts["off"]["anon_huge_bytes"], facts["on"]["anon_huge_bytes"]) == (0, 128 * MIB)
    assert facts["on"]["private_dirty_bytes"] >= 128 * MIB
    assert return_ns["on"] < return_ns["off"]


def test_a_budget_ends_the_samples_but_leaves_three() -> None:
    outcome = take("fork", "--budget-ms", 1, "--warmup", 5, "--aftershock", 100, samples=ENDLESS)

    assert outcome.only("end")["samples_count"] == len(outcome.only("samples")["return_ns"])
    assert 3 <= outcome.only("end")["samples_count"] < ENDLESS
    assert len(outcome.only("samples")["aftershock_ns"]) == 3


LEAST_SAMPLES = 3  # whatever the budget


@pytest.mark.alone
def test_making_the_state_takes_nothing_from_the_budget() -> None:
    """512 MiB take longer to write than 50 ms; of those nothing would be left for more than the least of samples."""
    outcome = take("vfork", "--rss", 512 * MIB, "--budget-ms", 50, "--warmup", 5, samples=40)

    assert outcome.only("samples")["warmups_count"] == 5
    assert outcome.only("end")["samples_count"] > LEAST_SAMPLES


@pytest.mark.parametrize("method", ["vfork", "posix_spawn", "pthread_create"])
def test_where_nothing_is_copied_all_warm_ups_are_made(method: str) -> None:
    outcome = take(method, "--budget-ms", 1, "--warmup", 200)

    assert outcome.only("samples")["warmups_count"] == 200


@pytest.mark.alone
def test_warm_ups_that_copy_have_a_part_of_the_budget() -> None:
    """And it is said how many there were."""
    outcome = take("fork", "--rss", 64 * MIB, "--budget-ms", 300, "--warmup", 1000, samples=ENDLESS)

    assert 1 <= outcome.only("samples")["warmups_count"] < 100
    assert outcome.only("end")["samples_count"] > 3


# --- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["children", "threads"])
def test_the_living_die_with_the_parent_of_the_helper(kind: str) -> None:
    arguments = ["--method", "fork", "--samples", ENDLESS, "--alive", 30, "--alive-kind", kind]
    with Foster("fork_latency", *arguments) as foster:
        foster.receive("hello")
        wait_until(lambda: int(status_of(foster.pid, "voluntary_ctxt_switches")) > 700, "the helper creates")
        foster.kill_starter()


def test_children_die_when_the_helper_is_killed() -> None:
    with native.Helper("fork_latency", ["--method", "vfork", "--samples", ENDLESS, "--alive", 30]) as helper:
        wait_until(lambda: int(status_of(helper.pid, "voluntary_ctxt_switches")) > 700, "the helper creates")
        os.kill(helper.pid, signal.SIGKILL)
        wait_until(lambda: not living_members(helper.pid), "the children are gone", 2.0)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("linking", "arguments", "says"),
    [
        ("static", "--libraries 1", "--libraries needs the dynamic build"),
        ("dynamic", "--libraries 129", "--libraries must lie between 0 and 128"),
        ("dynamic", "--huge-pages on", "--huge-pages on needs --rss"),
        ("dynamic", "--huge-pages maybe", "--huge-pages must be one of"),
        ("dynamic", "--rss -1", "--rss must lie between"),
        ("dynamic", "--alive-stack 1048576", "--alive-stack needs --alive-kind threads"),
        ("dynamic", "--alive 1 --alive-kind threads --alive-stack 1", "--alive-stack must be at least"),
        ("dynamic", "--alive-kind cats", "--alive-kind must be one of"),
    ],
)
def test_bad_arguments(linking: str, arguments: str, says: str) -> None:
    outcome = run("fork_latency", "--method", "fork", "--samples", 5, *arguments.split(), linking=linking)

    assert (outcome.code, outcome.messages) == (2, [])
    assert says in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1


def assert_refused(arguments: str, call: str, name: str, **options: object) -> None:
    """Refused before anything was measured, by this call's error, and nothing is left."""
    outcome = take("vfork", *arguments.split(), **options)
    error = outcome.only("error")
    assert (outcome.code, error["call"], error["name"]) == (1, call, name)
    assert [message["type"] for message in outcome.messages] == ["hello", "error"]
    assert session_members(outcome.pid) == {}


def test_more_descriptors_than_the_limit() -> None:
    assert_refused(
        "--alive 20 --descriptors 200",
        "open",
        "EMFILE",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100)),
    )


def test_more_mappings_than_the_limit() -> None:
    limit = int(Path("/proc/sys/vm/max_map_count").read_text())
    if limit > 1_000_000:
        cannot_run("vm.max_map_count is over a million here")
    assert_refused(f"--alive 20 --mappings {limit + 1}", "mprotect", "ENOMEM")


@pytest.mark.parametrize("option", ["--rss", "--file-rss"])
def test_more_memory_than_there_is(option: str) -> None:
    assert_refused(f"--alive 20 {option} {1 << 45}", "mmap", "ENOMEM")


@pytest.mark.parametrize(("kind", "call"), [("children", "fork"), ("threads", "pthread_create")])
def test_more_tasks_than_the_limit(kind: str, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    become_another_user(monkeypatch, tasks_limit_count=50)
    assert_refused(f"--alive 200 --alive-kind {kind}", call, "EAGAIN")


def test_a_folder_for_the_file_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/nonexistent")
    assert_refused("--file-rss 4096", "open", "ENOENT")


def test_a_library_that_is_not_there(tmp_path: Path) -> None:
    program = tmp_path / "fork_latency"
    program.write_bytes(native.find("fork_latency").read_bytes())
    program.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(native.HELPERS_VARIABLE, str(tmp_path))
        assert_refused("--libraries 1", "dlopen", "ENOENT")
