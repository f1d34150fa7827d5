"""readiness where something forbids it: walls, refusals, filters, and an event that never comes."""

from __future__ import annotations

import ctypes
import errno
import platform
import resource
import struct
import subprocess
from collections.abc import Callable

import pytest
from conftest import cannot_run

from c10k_probe import native
from native.driving import run
from native.test_readiness import MECHANISMS, URINGS, WORKLOADS, arguments_of, take

FD_SETSIZE = 1024  # sys/select.h of every C library for Linux
ROOM = FD_SETSIZE - 3  # standard input, output and error
IO_URING_SETUP = 425  # on every architecture
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
MEMCHECK = "-q --leak-check=full --errors-for-leak-kinds=definite,indirect --error-exitcode=99"


# --- select -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("watched", [ROOM - 1, ROOM])
def test_select_watches_up_to_fd_setsize(watched: int) -> None:
    outcome = take("select", watched, [1, watched])

    assert outcome.code == 0
    assert outcome.only("end")["dropped_count"] == 0


@pytest.mark.parametrize("watched", [ROOM + 1, ROOM + 2, 5000])
def test_select_beyond_fd_setsize_is_a_wall(watched: int) -> None:
    outcome = take("select", watched, [1])

    assert outcome.code == 77
    assert [message["type"] for message in outcome.messages] == ["hello", "wall", "unsupported"]
    wall = {"type": "wall", "wall": "FD_SETSIZE", "limit_count": FD_SETSIZE, "largest_watched_count": ROOM}
    assert outcome.only("wall") == wall
    assert "FD_SETSIZE (1024)" in outcome.only("unsupported")["reason"]


def test_short_lived_connections_meet_the_wall_too() -> None:
    """Of each pair one end is watched, with an odd number of descriptors left below the wall."""
    watched = ROOM - 21
    outcome = take("select", watched, [11, 12, 1], "short")

    assert outcome.code == 77
    assert [level["active_count"] for level in outcome.of_type("passes")] == [11]
    assert outcome.only("wall")["largest_active_count"] == 11


def test_what_else_is_open_counts() -> None:
    with subprocess.Popen(["true"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        outcome = run("readiness", *arguments_of("select", ROOM, [1]), pass_fds=(process.stdout.fileno(),))

    assert outcome.only("wall")["largest_watched_count"] == ROOM - 1


# --- descriptors ------------------------------------------------------------------------------------------------------


def limited_to(count: int) -> Callable[[], None]:
    """For ``preexec_fn``: the hard limit of open descriptors."""
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))


@pytest.mark.parametrize("mechanism", [name for name in MECHANISMS if name not in URINGS])
def test_more_than_the_limit_of_descriptors(mechanism: str) -> None:
    outcome = run("readiness", *arguments_of(mechanism, 100, [1]), preexec_fn=limited_to(50))

    assert outcome.code == 1
    assert [message["type"] for message in outcome.messages] == ["hello", "error"]
    error = outcome.only("error")
    assert (error["call"], error["name"]) == ("socketpair", "EMFILE")
    assert error["arguments"] == "46 of 100 descriptors are open"


def test_as_many_as_the_limit_has() -> None:
    assert run("readiness", *arguments_of("poll", 46, [1]), preexec_fn=limited_to(49)).code == 0


def test_no_descriptor_is_left_for_the_short_ones() -> None:
    outcome = run("readiness", *arguments_of("poll", 46, [1, 2], "short"), preexec_fn=limited_to(51))

    assert outcome.code == 1
    assert [level["active_count"] for level in outcome.of_type("passes")] == [1]
    assert outcome.only("error")["name"] == "EMFILE"


# --- io_uring ---------------------------------------------------------------------------------------------------------


def forbid_io_uring(error: int) -> Callable[[], None]:
    """For ``preexec_fn``: a seccomp filter that answers io_uring_setup with this error; seccomp(2)."""
    instructions = [
        (0x20, 0, 0, 0),  # load the number of the call
        (0x15, 0, 1, IO_URING_SETUP),  # equal: the next one, else the one after
        (0x06, 0, 0, 0x0005_0000 | error),  # SECCOMP_RET_ERRNO
        (0x06, 0, 0, 0x7FFF_0000),  # SECCOMP_RET_ALLOW
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in instructions))
    program = ctypes.create_string_buffer(struct.pack("HP", len(instructions), ctypes.addressof(code)))
    library = ctypes.CDLL(None, use_errno=True)

    def install() -> None:
        if library.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or library.prctl(
            PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.c_ulong(ctypes.addressof(program)), 0, 0
        ):
            raise OSError(ctypes.get_errno(), "prctl")
        assert code

    return install


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS])
@pytest.mark.parametrize("mechanism", URINGS)
def test_a_filter_forbids_io_uring(mechanism: str, error: int) -> None:
    if platform.machine() not in ("x86_64", "aarch64"):
        cannot_run("the filter is written for x86_64 and aarch64")
    outcome = run("readiness", *arguments_of(mechanism, 4, [1]), preexec_fn=forbid_io_uring(error))

    assert outcome.code == 77
    assert outcome.only("unsupported")["reason"].startswith(f"io_uring_setup: {errno.errorcode[error]} ")


def test_the_filter_is_nothing_to_the_others() -> None:
    assert run("readiness", *arguments_of("epoll", 4, [1]), preexec_fn=forbid_io_uring(errno.EPERM)).code == 0


# --- refusals ---------------------------------------------------------------------------------------------------------

GOOD = {"--mechanism": "epoll", "--watched": "10", "--active": "1"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("--mechanism", "kqueue"),
        ("--watched", "0"),
        ("--watched", "-5"),
        ("--watched", "ten"),
        ("--watched", "99999999999999999999"),
        ("--active", ""),
        ("--active", "0"),
        ("--active", "11"),
        ("--active", "1,"),
        ("--active", ",1"),
        ("--active", "1,,2"),
        ("--active", "1 2"),
        ("--active", "+1"),
        ("--active", "50%"),
        ("--active", "4294967297"),
        ("--active", "99999999999999999999"),
        ("--active", ",".join(["1"] * 65)),
        ("--workload", "long"),
        ("--writes", "0"),
        ("--warmup", "-1"),
        ("--passes", "0"),
        ("--budget-ms", "-1"),
        ("--seed", "-1"),
        ("--cpu", "8192"),
        ("--placement", "two-cpus"),
        ("--colour", "red"),
    ],
)
def test_bad_values_are_refused_in_one_line(name: str, value: str) -> None:
    outcome = run("readiness", *(part for pair in {**GOOD, name: value}.items() for part in pair))

    assert outcome.code == 2
    assert outcome.messages == []
    assert outcome.stderr.startswith("readiness: ") and outcome.stderr.count("\n") == 1
    assert name in outcome.stderr


@pytest.mark.parametrize("missing", GOOD)
def test_what_is_needed_must_be_given(missing: str) -> None:
    outcome = run("readiness", *(part for pair in GOOD.items() if pair[0] != missing for part in pair))

    assert (outcome.code, outcome.stderr) == (2, f"readiness: {missing} is missing\n")


def test_a_cpu_is_refused_where_any_will_do() -> None:
    assert take("epoll", 2, [1], "chain", "--placement", "any-cpu", "--cpu", 0).code == 2


def test_a_cpu_that_is_not_there() -> None:
    error = take("epoll", 2, [1], "chain", "--cpu", 8191).only("error")

    assert (error["call"], error["name"]) == ("sched_setaffinity", "EINVAL")


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize("mechanism", [name for name in MECHANISMS if name not in URINGS])
def test_memcheck(mechanism: str, workload: str, require_tool: Callable[[str], str]) -> None:
    program = require_tool("valgrind")
    if subprocess.run([program, "-q", "true"], capture_output=True, check=False).returncode != 0:
        cannot_run("valgrind does not work here")
    load = [*arguments_of(mechanism, 7, [3, 1, 7], workload), "--writes", 20]
    command = [program, *MEMCHECK.split(), str(native.find("readiness")), *map(str, load)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert '"dropped_count":0' in done.stdout.splitlines()[-1]
