"""The protocol that every helper speaks, in both linkings, and what it does before its work begins."""

from __future__ import annotations

import os
import re
import resource
import signal
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from c10k_probe import native
from native.driving import holding, run
from native.kernel_view import status_of

PT_INTERP = 3  # elf(5)
ET_DYN = 3  # loaded at an address of the kernel's choice

LIBRARIES, LIBRARIES_COUNT = "libraries", 128  # of `fork_latency --libraries`

HELPERS_BOTH_WAYS = [
    pytest.param(name, linking, id=f"{name}-{linking}") for name in native.HELPERS for linking in native.LINKINGS
]

BAD_ARGUMENTS = {
    "fork_latency": [
        "",
        "--nonsense 1",
        "--hello --hello",
        "--method fork",
        "--samples 5",
        "--method bogus --samples 5",
        "--method fork --samples",
        "--method fork --samples 0",
        "--method fork --samples -1",
        "--method fork --samples 1000001",
        "--method fork --samples 99999999999999999999",
        "--method fork --samples 5x",
        "--method fork --samples 5 --cpu 0",
        "--method fork --samples 5 --placement here",
    ],
    "spawn_target": ["", "x", "-1", "3 4", "99999999999999999999"],
    "reference_server": [
        "",
        "--model",
        "--model bogus",
        "--model epoll --backlog 0",
        "--model epoll --backlog 65536",
        "--model thread --stack 1",
        "epoll",
    ],
    "connection_holder": [
        "",
        "--port 0",
        "--port 65536",
        "--port 80 --message-bytes 15",
        "--port 80 --message-bytes 4097",
        "--port 80 --window 0",
        "--port 80 --source-base 201",
        "--port 80 --timeout-ms 0",
    ],
    "http_sender": [
        "",
        "--port 0",
        "--port 80 --connections 0",
        "--port 80 --keep-alive 2",
        "--port 80 --timeout-ms 0",
        "--port 80 --samples 1",
        "--port 80 --path here",
    ],
    "readiness": [
        "",
        "--mechanism poll",
        "--mechanism bogus --watched 2 --active 1",
        "--mechanism poll --watched 0 --active 1",
        "--mechanism poll --watched 2 --active 3",
        "--mechanism poll --watched 2 --active 0",
        "--mechanism poll --watched 2 --active 1,x",
        "--mechanism poll --watched 2 --active 1, --workload chain",
        "--mechanism poll --watched 2 --active 1 --workload long",
    ],
    "scheduling": [
        "",
        "--mode bogus",
        "--mode ring --tasks 1",
        "--mode ring --tasks 4097",
        "--mode ring --token flag",
        "--mode contend --tasks 2 --policy fifo",
        "--mode tick --duration-ms 0",
    ],
    "backend": [
        "",
        "--delay-ns -1",
        "--delay-ns 1 --delay bogus",
        "--delay-ns 1 --fault bogus",
    ],
    "thread_faults": [
        "",
        "--fault bogus",
        "--fault deadlock --care perhaps",
        "--fault deadlock --updates 0",
        "--fault deadlock --rounds 0",
    ],
    "slow_clients": [
        "",
        "--port 0",
        "--port 80 --kind bogus",
        "--port 80 --interval-ms 4",
        "--port 80 --request-bytes 255",
        "--port 80 --address 10.0.0.1",
        "--port 80 --host localhost",
    ],
}

BAD_COMMANDS = [
    ("reference_server", "--model epoll", "nonsense"),
    ("reference_server", "--model thread", "status now"),
    ("reference_server", "--model fork", "x" * 200),
    ("connection_holder", "--port 9", "nonsense"),
    ("connection_holder", "--port 9", "ramp"),
    ("connection_holder", "--port 9", "ramp 1x"),
    ("connection_holder", "--port 9", "ramp -1"),
    ("connection_holder", "--port 9", "ramp 1000001"),
    ("connection_holder", "--port 9", "echo 1 2 3"),
    ("connection_holder", "--port 9", "status 1"),
    ("connection_holder", "--port 9", "x" * 200),
    ("http_sender", "--port 9", "nonsense"),
    ("http_sender", "--port 9", "send 0 1 1 0 0 0"),
    ("http_sender", "--port 9", "send 1000 1 1"),
    ("http_sender", "--port 9", "send 1000 1 1 2 0 0"),
    ("http_sender", "--port 9", "send 1000 1 1 0 0"),
    ("http_sender", "--port 9", "pump 0 1"),
    ("http_sender", "--port 9", "pump 1x 1"),
    ("slow_clients", "--port 9", "nonsense"),
    ("slow_clients", "--port 9", "clients"),
    ("slow_clients", "--port 9", "clients 20001"),
    ("slow_clients", "--port 9", "clients 1 2"),
    ("slow_clients", "--port 9", "status 1"),
    ("slow_clients", "--port 9", "x" * 200),
]


@pytest.mark.parametrize(("name", "linking"), HELPERS_BOTH_WAYS)
def test_hello_and_end(name: str, linking: str) -> None:
    outcome = run(name, "--hello", linking=linking)

    assert outcome.code == 0
    assert outcome.stderr == ""
    hello, end = outcome.messages
    assert end == {"type": "end", "samples_count": 0, "dropped_count": 0}
    assert (hello["type"], hello["protocol"], hello["helper"]) == ("hello", native.PROTOCOL, name)
    assert hello["linking"] == linking
    assert hello["pid"] == outcome.pid
    assert hello["clock"] == "CLOCK_MONOTONIC"
    assert hello["clock_cost_ns"] > 0


@pytest.mark.parametrize(("name", "linking"), HELPERS_BOTH_WAYS)
def test_hello_says_how_it_was_built(name: str, linking: str) -> None:
    hello = run(name, "--hello", linking=linking).only("hello")

    assert re.fullmatch(r"(gcc|clang) \d+\.\d+\.\d+", hello["compiler"])
    flags = hello["flags"].split()
    assert "-O2" in flags
    assert [flag for flag in flags if flag.startswith("-static")] == ([] if linking == "dynamic" else [f"-{linking}"])


def elf_bytes(path: Path) -> bytes:
    """A 64-bit ELF file of this machine's byte order."""
    data = path.read_bytes()
    assert data[:5] == b"\x7fELF\x02", "not a 64-bit ELF file"
    return data


def program_header_types(path: Path) -> Iterator[int]:
    """p_type of every program header; elf(5)."""
    data = elf_bytes(path)
    (offset,) = struct.unpack_from("=Q", data, 32)
    size, count = struct.unpack_from("=HH", data, 54)
    for index in range(count):
        yield struct.unpack_from("=I", data, offset + index * size)[0]


@pytest.mark.parametrize(("name", "linking"), HELPERS_BOTH_WAYS)
def test_linking_is_what_it_says(name: str, linking: str) -> None:
    has_interpreter = PT_INTERP in program_header_types(native.find(name, linking))

    assert has_interpreter == (linking == "dynamic")


@pytest.mark.parametrize(("name", "linking"), HELPERS_BOTH_WAYS)
def test_only_the_plain_static_program_has_a_fixed_address(name: str, linking: str) -> None:
    (file_type,) = struct.unpack_from("=H", elf_bytes(native.find(name, linking)), 16)

    if linking != "dynamic":  # a dynamic one may be built either way
        assert (file_type == ET_DYN) == (linking == "static-pie")


@pytest.mark.parametrize("linking", native.LINKINGS)
@pytest.mark.parametrize("name", native.HELPERS)
def test_bad_arguments(name: str, linking: str) -> None:
    for line in BAD_ARGUMENTS[name]:
        outcome = run(name, *line.split(), linking=linking)

        assert (outcome.code, outcome.messages) == (2, []), line
        assert len(outcome.stderr.splitlines()) == 1, line
        assert outcome.stderr.startswith(name), line


@pytest.mark.parametrize(("name", "arguments", "command"), BAD_COMMANDS)
def test_bad_commands(name: str, arguments: str, command: str) -> None:
    outcome = run(name, *arguments.split(), commands=f"{command}\n")

    assert outcome.code == 2
    assert len(outcome.stderr.splitlines()) == 1
    assert outcome.of_type("end") == []


def test_the_last_command_needs_no_newline() -> None:
    outcome = run("connection_holder", "--port", 9, commands="status\n\nstatus")

    assert (outcome.code, len(outcome.of_type("status"))) == (0, 2)


def test_the_soft_descriptor_limit_is_raised_to_the_hard_one() -> None:
    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    answer = run("connection_holder", "--port", 9, commands="pairs 40\n", preexec_fn=lower).only("paired")

    assert (answer["pairs_count"], answer["failure"]) == (40, None)


def test_signals_are_set_whatever_was_inherited() -> None:
    def ignore_children() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # waitpid would find no child

    outcome = run("fork_latency", "--method", "fork", "--samples", 5, preexec_fn=ignore_children)
    assert (outcome.code, outcome.only("end")["samples_count"]) == (0, 5)

    with holding(9) as holder:
        ignored = int(status_of(holder.pid, "SigIgn"), 16)
    assert ignored >> (signal.SIGPIPE - 1) & 1


@pytest.mark.parametrize("linking", native.LINKINGS)
def test_a_reader_that_went_away_is_an_error_and_no_signal(linking: str) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [str(native.find("fork_latency", linking)), "--hello"]
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, write_end, 1)])
    os.close(write_end)
    status = os.waitpid(pid, 0)[1]

    assert os.waitstatus_to_exitcode(status) == 1


def test_every_helper_is_tested_here() -> None:
    built = {path.name.removesuffix("-pie").removesuffix("-static") for path in native.folder().iterdir()}

    assert built - {LIBRARIES} == set(native.HELPERS) == set(BAD_ARGUMENTS)


def test_the_libraries_are_there_and_each_is_a_file_of_its_own() -> None:
    paths = sorted((native.folder() / LIBRARIES).iterdir())

    assert [path.name for path in paths] == [f"libc10k_{number:03}.so" for number in range(LIBRARIES_COUNT)]
    assert len({path.stat().st_ino for path in paths}) == LIBRARIES_COUNT
    assert all(struct.unpack_from("=H", elf_bytes(path), 16) == (ET_DYN,) for path in paths)
