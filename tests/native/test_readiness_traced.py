"""readiness against strace, which sees every system call: the counts, and where each byte was written to and read."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import cannot_run

from c10k_probe import native
from native.driving import Message
from native.kernel_view import state_of, wait_until
from native.test_readiness import MECHANISMS, URINGS, WORKLOADS, arguments_of, has_io_uring, mechanism

__all__ = ["has_io_uring", "mechanism"]  # fixtures

# the kernel's call -> the C library's, where they differ
LIBRARY_NAMES = {"pselect6": "select", "ppoll": "poll", "epoll_pwait": "epoll_wait"}
# around the passes: CPU time and switches, the guard, and how many numbers are left for select
NOT_TIMED = {"getrusage", "clock_gettime", "setitimer", "rt_sigaction", "fcntl"}
WATCHED, ACTIVE, WRITES = 9, [3, 1, 9], 20
CALL = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+)")
REASONS = {"EPERM": "forbidden", "ENOSYS": "this kernel has no io_uring"}


@dataclass(frozen=True)
class Call:
    """One line of strace."""

    name: str
    arguments: str
    result: int

    @property
    def fd(self) -> int:
        """The first argument."""
        return int(self.arguments.partition(",")[0])

    def fds(self) -> list[int]:
        """What select or poll was given, or socketpair made."""
        if self.name == "poll":
            return [int(fd) for fd in re.findall(r"\{fd=(\d+), events", self.arguments)]
        listed = re.search(r"\[([\d, ]*)\]", self.arguments)
        assert listed is not None, self
        return [int(fd) for fd in listed[1].replace(",", " ").split()]


@dataclass(frozen=True)
class Trace:
    """A launch under strace."""

    code: int
    messages: list[Message]
    calls: list[Call]

    def levels(self) -> Iterator[tuple[Message, list[Call]]]:
        """What the helper says of a level, and the calls that strace saw in it."""
        marks = [index for index, call in enumerate(self.calls) if _is_message(call, "watching", "passes")]
        said = [message for message in self.messages if message["type"] == "passes"]
        for message, (start, end) in zip(said, pairwise(marks), strict=True):
            yield message, [call for call in self.calls[start + 1 : end] if call.name not in NOT_TIMED]

    def peers(self) -> dict[int, int]:
        """The two ends of each pair of sockets that stays."""
        pairs = [call.fds() for call in self.calls if call.name == "socketpair"][: (WATCHED + 1) // 2]
        return {end: other for pair in pairs for end, other in (pair, reversed(pair))}


def _is_message(call: Call, *kinds: str) -> bool:
    return call.name == "write" and any(call.arguments.startswith(f'1, "{{\\"type\\":\\"{kind}') for kind in kinds)


@dataclass(frozen=True)
class Tracer:
    """Runs the helper under strace."""

    program: str
    log: Path

    def command(self, arguments: list[object], *options: str, linking: str = "dynamic") -> list[str]:
        """What is run."""
        strace = [self.program, "-v", "-qq", "-s", "40", "-e", "signal=none", *options, "-o", str(self.log)]
        return [*strace, str(native.find("readiness", linking)), *map(str, arguments)]

    def __call__(self, arguments: list[object], *options: str, linking: str = "dynamic") -> Trace:
        """One launch."""
        command = self.command(arguments, *options, linking=linking)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        messages = [json.loads(line) for line in done.stdout.splitlines()]
        calls = []
        for line in self.log.read_text().splitlines():
            if found := CALL.match(line):
                name = LIBRARY_NAMES.get(found["name"], found["name"])
                calls.append(Call(name, found["arguments"], int(found["result"])))
        return Trace(done.returncode, messages, calls)


@pytest.fixture
def trace(require_tool: Callable[[str], str], tmp_path: Path) -> Tracer:
    """strace, or the skip."""
    tracer = Tracer(require_tool("strace"), tmp_path / "trace")
    if subprocess.run([tracer.program, "-o", "/dev/null", "true"], capture_output=True, check=False).returncode != 0:
        cannot_run("strace may not trace here (ptrace is forbidden)")
    return tracer


def load_of(mechanism: str, workload: str, watched: int = WATCHED) -> list[object]:
    """A launch with known counts."""
    return [*arguments_of(mechanism, watched, ACTIVE, workload), "--writes", WRITES]


# --- the counts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workload", WORKLOADS)
def test_the_counts_are_those_of_strace_and_nothing_else_is_called(
    mechanism: str, workload: str, trace: Tracer
) -> None:
    traced = trace(load_of(mechanism, workload))

    assert traced.code == 0
    for message, calls in traced.levels():
        assert Counter(call.name for call in calls) == message["calls_count"]


@pytest.mark.parametrize("mechanism", [name for name in MECHANISMS if name not in URINGS])
def test_each_wait_brings_all_that_are_active(mechanism: str, trace: Tracer) -> None:
    for message, calls in trace(load_of(mechanism, "chain")).levels():
        active = message["active_count"]
        brought = [call.result for call in calls if call.name in ("select", "poll", "epoll_wait")]
        last = WRITES % active or active
        assert brought == 2 * ([active] * (message["rounds_per_pass_count"] - 1) + [last])


# --- the way of the bytes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", MECHANISMS[:-1], indirect=True)  # the last one does not call read
def test_each_byte_is_read_where_it_was_written_to(mechanism: str, trace: Tracer) -> None:
    traced = trace(load_of(mechanism, "chain"))
    peers = traced.peers()
    for _message, calls in traced.levels():
        waiting: Counter[int] = Counter()
        for call in calls:
            if call.name == "write":
                waiting[peers[call.fd]] += call.result
                assert waiting[peers[call.fd]] == 1, "tokens do not meet"
            elif call.name == "read":
                waiting[call.fd] -= call.result
                assert waiting[call.fd] == 0
        assert set(waiting.values()) == {0}


def test_a_token_visits_every_watched_socket_in_turn(mechanism: str, trace: Tracer) -> None:
    load = [*arguments_of(mechanism, WATCHED, [1]), "--writes", 3 * WATCHED - 1]
    traced = trace(load)
    ((_message, calls),) = traced.levels()
    peers = traced.peers()
    visited = [peers[call.fd] for call in calls if call.name == "write"]
    laps = [visited[start : start + WATCHED] for start in range(0, 3 * WATCHED, WATCHED)]

    assert len(set(laps[0])) == WATCHED
    assert laps[1] == laps[2] == laps[0]
    assert sorted(laps[0]) != laps[0], "in shuffled order"
    if mechanism != "io_uring_recv":
        assert [call.fd for call in calls if call.name == "read"] == visited


# --- what is watched --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", ["select", "poll"])
def test_after_the_short_ones_the_array_holds_those_that_stay(mechanism: str, trace: Tracer) -> None:
    traced = trace(load_of(mechanism, "short"))
    staying = set(list(traced.peers())[:WATCHED])
    for message, calls in traced.levels():
        made: list[int] = []
        for call in calls:
            if call.name == "socketpair":
                made.append(call.fds()[0])
            elif call.name == mechanism:
                assert sorted(call.fds()) == sorted([*staying, *made])
                assert call.result == len(made) == message["active_count"]
                made = []


@pytest.mark.parametrize("workload", WORKLOADS)
def test_epoll_watches_each_once_in_shuffled_order(workload: str, trace: Tracer) -> None:
    traced = trace(load_of("epoll", workload, watched=50))
    first = [call for call in traced.calls if call.name == "epoll_ctl"][:50]
    added = [int(call.arguments.split(", ")[2]) for call in first]

    assert all("EPOLL_CTL_ADD" in call.arguments for call in first)
    assert len(set(added)) == 50
    assert sorted(added) != added


# --- a mechanism that is wrong ----------------------------------------------------------------------------------------


def test_a_byte_that_is_reported_twice_costs_its_pass(trace: Tracer) -> None:
    """The fifth read says two bytes and takes none: one is in the socket still."""
    load = [*arguments_of("epoll", WATCHED, [1]), "--writes", WRITES, "--passes", 3]
    traced = trace(load, "-e", "inject=read:retval=2:when=5", linking="static")

    assert traced.code == 0
    assert traced.messages[-1] == {"type": "end", "samples_count": 3, "dropped_count": 1}
    ((message, calls),) = traced.levels()
    assert message["calls_count"]["write"] == 3 * (1 + WRITES), "those of the dropped pass are not in it"
    assert Counter(call.name for call in calls)["write"] == 4 * (1 + WRITES)


def test_a_byte_that_never_comes_ends_it(mechanism: str, trace: Tracer) -> None:
    """The seventh write says that it was done and was not. The guard's signal is sent here, it would take its time."""
    command = trace.command(load_of(mechanism, "chain"), "-e", "inject=write:retval=1:when=7", linking="static")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        messages = [json.loads(process.stdout.readline()) for _ in range(3)]
        pid = messages[0]["pid"]

        def remind() -> bool:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGALRM)
            return process.poll() is not None

        wait_until(lambda: state_of(pid) == "S", "it waits for what does not come")
        wait_until(remind, "it gives up")
        error = json.loads(process.stdout.readline())

    assert process.returncode == 1
    assert (error["type"], error["call"], error["name"]) == ("error", mechanism, "ETIMEDOUT")
    assert "1 tokens are on their way" in error["arguments"]


# --- io_uring, refused by the kernel ----------------------------------------------------------------------------------


@pytest.mark.parametrize("error", REASONS)
@pytest.mark.parametrize("mechanism", URINGS)
def test_io_uring_that_is_forbidden_is_unsupported(mechanism: str, error: str, trace: Tracer) -> None:
    traced = trace(load_of(mechanism, "chain"), "-e", f"inject=io_uring_setup:error={error}")

    assert traced.code == 77
    assert [message["type"] for message in traced.messages] == ["hello", "unsupported"]
    assert traced.messages[-1]["reason"].startswith(f"io_uring_setup: {error} ")
    assert REASONS[error] in traced.messages[-1]["reason"]


@pytest.mark.parametrize(("refused", "flags"), [("1", "CQSIZE|CLAMP|COOP_TASKRUN"), ("1..2", "CQSIZE|CLAMP")])
@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize("mechanism", URINGS, indirect=True)
def test_without_the_newest_flags_the_bytes_arrive_too(
    mechanism: str, workload: str, refused: str, flags: str, trace: Tracer
) -> None:
    traced = trace(load_of(mechanism, workload), "-e", f"inject=io_uring_setup:error=EINVAL:when={refused}")

    assert traced.code == 0
    assert next(message for message in traced.messages if message["type"] == "watching")["flags"] == flags
    assert traced.messages[-1] == {"type": "end", "samples_count": 2 * len(ACTIVE), "dropped_count": 0}
    for message, calls in traced.levels():
        assert Counter(call.name for call in calls) == message["calls_count"]


def test_a_kernel_without_rings_of_buffers_is_unsupported(trace: Tracer, has_io_uring: bool) -> None:
    if not has_io_uring:
        cannot_run("the kernel does not allow io_uring")
    traced = trace(load_of("io_uring_recv", "chain"), "-e", "inject=io_uring_register:error=EINVAL")

    assert traced.code == 77
    assert "needs Linux 6.0" in traced.messages[-1]["reason"]
