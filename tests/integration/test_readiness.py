"""``readiness`` in full depth: every mechanism under both workloads, refusals, walls, and Ctrl-C."""

from __future__ import annotations

import ctypes
import errno
import importlib.util
import os
import platform
import signal
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from command import Finished, complaint_of, limited, only_run_folder, rows_of, run, run_folders, run_inside, started
from conftest import cannot_run

from c10k_probe import results

PYTHON = ("select.select", "select.poll", "select.epoll", "selectors", "asyncio", "uvloop")
URINGS = ("io_uring_poll", "io_uring_poll_multishot", "io_uring_recv")
PLAIN = ("select", "poll", "epoll", "epoll_edge", "epoll_oneshot")
EVERYTHING = (*PLAIN, *URINGS, *PYTHON)
SMALL = ("--budget", "1ms", "--repeats", 1, "--csv", "-")
IO_URING_SETUP = 425  # on every architecture
Row = dict[str, str]


def readiness(cwd: Path, *arguments: object, **how: Any) -> tuple[Finished, list[Row]]:
    """Run it with these arguments; how it ended and the rows of the CSV on stdout."""
    finished = run("readiness", *arguments, *SMALL, cwd=cwd, **how)
    return finished, rows_of(finished.stdout)


def only(rows: Sequence[Row], **wanted: object) -> Row:
    """The one row with these values."""
    (row,) = [row for row in rows if all(row[name] == str(value) for name, value in wanted.items())]
    return row


def states(rows: Sequence[Row], *names: str) -> dict[tuple[str, ...], str]:
    return {tuple(row[name] for name in names): row["status"] for row in rows}


def is_missing(mechanism: str) -> str | None:
    """What this machine lacks for it, found out without the program under test."""
    if mechanism == "uvloop" and importlib.util.find_spec("uvloop") is None:
        return "uvloop is not installed"
    if mechanism in URINGS:
        library = ctypes.CDLL(None, use_errno=True)
        descriptor = library.syscall(IO_URING_SETUP, 1, ctypes.create_string_buffer(120))
        if descriptor < 0:
            return f"io_uring_setup: {os.strerror(ctypes.get_errno())}"
        os.close(descriptor)
    return None


# --- every mechanism --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> tuple[Finished, list[Row]]:
    """Every mechanism under both workloads."""
    arguments = ("--mechanism", ",".join(EVERYTHING), "--workload", "chain,short", "--fds", 60, "--active", "1,7,100%")
    return readiness(tmp_path_factory.mktemp("everything"), *arguments)


@pytest.mark.parametrize("workload", ["chain", "short"])
@pytest.mark.parametrize("mechanism", EVERYTHING)
def test_every_event_is_delivered_once(everything: tuple[Finished, list[Row]], mechanism: str, workload: str) -> None:
    finished, rows = everything
    assert finished.code == 0, finished.stderr
    mine = [row for row in rows if (row["mechanism"], row["workload"]) == (mechanism, workload)]
    if missing := is_missing(mechanism):
        assert {row["status"] for row in mine} == {"skipped"}
        cannot_run(missing)
    assert [(row["active"], row["active_count"]) for row in mine] == [("1", "1"), ("7", "7"), ("100%", "60")]
    for row in mine:
        assert (row["status"], row["dropped_count"], row["launches_count"]) == ("ok", "0", "1"), row["reason"]
        assert int(row["events_count"]) >= int(row["passes_count"]) * int(row["active_count"]) > 0
        assert float(row["event_ns"]) > 0
        assert bool(row["register_ns"]) <= (workload == "short")


def test_calls_are_what_each_mechanism_makes(everything: tuple[Finished, list[Row]]) -> None:
    """With one active, an event of the chain is a wait, a read and a write; one-shot asks again, receive reads not."""
    calls = {
        row["mechanism"]: float(row["calls_per_event"])
        for row in everything[1]
        if (row["workload"], row["active"]) == ("chain", "1") and row["calls_per_event"]
    }
    expected = dict.fromkeys(EVERYTHING, 3) | {"epoll_oneshot": 4, "io_uring_recv": 2}
    assert set(PLAIN) <= set(calls)
    assert calls == {name: pytest.approx(expected[name], abs=0.2) for name in calls}


def test_a_range_is_measured_at_each_step(tmp_path: Path) -> None:
    finished, rows = readiness(tmp_path, "--fds", "100..1000", "--active", "1,10%", "--mechanism", "epoll")
    assert finished.code == 0, finished.stderr
    chain = [(row["watched_count"], row["active_count"]) for row in rows if row["workload"] == "chain"]
    assert chain == [("100", "1"), ("100", "10"), ("300", "1"), ("300", "30"), ("1000", "1"), ("1000", "100")]


# --- what is refused --------------------------------------------------------------------------------------------------

REFUSED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("--fds 1000..100", ("--fds", "'1000..100'", "backwards")),
    ("--fds 100..", ("--fds", "'100..'", "end missing")),
    ("--fds ..100", ("--fds", "'..100'", "end missing")),
    ("--fds 0", ("--fds", "at least 1")),
    ("--fds 0..100", ("--fds", "at least 1")),
    ("--fds 100..1e9", ("--fds", "at most 10m")),
    ("--fds many", ("--fds", "'many'")),
    ("--fds 100,100", ("--fds", "twice")),
    ("--active 101%", ("--active", "'101%'", "at or below 100")),
    ("--active 0%", ("--active", "'0%'", "above 0")),
    ("--active nan%", ("--active", "'nan%'", "out of range")),
    ("--active 0", ("--active", "least is 1")),
    ("--active half", ("--active", "'half'", "5%")),
    ("--active 200 --fds 100", ("--active", "100", "--fds")),
    ("--mechanism kqueue", ("--mechanism", "'kqueue'", "epoll")),
    ("--workload long", ("--workload", "'long'", "chain")),
    ("--budget 0", ("--budget", "at least 1ms")),
)


@pytest.mark.parametrize(("line", "named"), REFUSED, ids=[line for line, _ in REFUSED])
def test_refused_in_one_line(tmp_path: Path, line: str, named: tuple[str, ...]) -> None:
    finished = run_inside("readiness", *line.split(), cwd=tmp_path)
    assert finished.code == 2, finished.stderr
    complaint = complaint_of(finished)
    assert [word for word in named if word not in complaint] == []
    assert run_folders(tmp_path) == []


# --- walls ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", ["poll", "epoll", "select.poll"])
def test_the_hard_limit_is_a_row_and_the_most_that_fits_is_measured(tmp_path: Path, mechanism: str) -> None:
    """Of a hard limit of 700 descriptors, 600 can be watched in the chain."""
    arguments = ("--fds", "100,100000", "--active", "1,100%", "--mechanism", mechanism, "--workload", "chain")
    finished, rows = readiness(tmp_path, *arguments, wrapper=limited("RLIMIT_NOFILE", 700))
    assert finished.code == 0, finished.stderr
    assert states(rows, "watched_count", "active_count") == {
        ("100", "1"): "ok",
        ("100", "100"): "ok",
        ("600", "1"): "ok",
        ("600", "600"): "ok",
        ("100000", ""): "skipped",
    }
    assert only(rows, watched_count=100_000)["reason"].startswith("descriptors: ")
    assert "of 700 descriptors" in only(rows, watched_count=100_000)["reason"]
    assert "skipped: descriptors: " in finished.stderr


@pytest.mark.parametrize("limit", [700, 3000])
def test_short_connections_stop_at_the_hard_limit_too(tmp_path: Path, limit: int) -> None:
    """What fits with its short connections is measured; what does not is a row that names the wall."""
    arguments = ("--fds", "100,300,100000", "--active", "1,100", "--mechanism", "epoll", "--workload", "short")
    finished, rows = readiness(tmp_path, *arguments, wrapper=limited("RLIMIT_NOFILE", limit))
    assert finished.code == 0, finished.stderr
    by_count = states(rows, "watched_count")
    assert (by_count["100",], by_count["300",], by_count["100000",]) == ("ok", "ok", "skipped")
    assert only(rows, status="skipped")["reason"].startswith("descriptors: ")


def test_selects_wall_is_a_row_that_names_it(tmp_path: Path) -> None:
    arguments = ("--fds", "1000,3000", "--active", "1", "--mechanism", "select,select.select", "--workload", "chain")
    finished, rows = readiness(tmp_path, *arguments)
    assert finished.code == 0, finished.stderr
    for mechanism in ("select", "select.select"):
        assert only(rows, mechanism=mechanism, watched_count=1000)["status"] == "ok"
        row = only(rows, mechanism=mechanism, watched_count=3000)
        assert (row["status"], row["grade"], row["event_ns"]) == ("skipped", "void", "")
        assert row["reason"].startswith("fd-setsize: ")
        assert "1,024 descriptors" in row["reason"]


def test_select_alone_beyond_its_wall_is_nothing_measured(tmp_path: Path) -> None:
    finished, rows = readiness(tmp_path, "--fds", "3000", "--active", "1", "--mechanism", "select")
    assert finished.code == 77, finished.stderr
    assert {row["status"] for row in rows} == {"skipped"}
    assert all(row["reason"].startswith("fd-setsize: ") for row in rows)


def test_short_connections_under_select_that_have_no_room_cost_no_others(tmp_path: Path) -> None:
    """Beside 1,000 idle ones there is room below FD_SETSIZE for one at a time."""
    arguments = ("--fds", "1000", "--active", "1,100", "--mechanism", "select,select.select", "--workload", "short")
    finished, rows = readiness(tmp_path, *arguments)
    assert finished.code == 0, finished.stderr
    assert states(rows, "mechanism", "active") == {("select", "1"): "ok", ("select.select", "1"): "ok"}


FORBIDDING = """
import ctypes, os, sys
library = ctypes.CDLL(None, use_errno=True)
code = ctypes.create_string_buffer(bytes.fromhex(sys.argv[1]))
program = ctypes.create_string_buffer(
    (4).to_bytes(8, sys.byteorder) + ctypes.addressof(code).to_bytes(8, sys.byteorder)
)
if library.prctl(38, 1, 0, 0, 0) or library.prctl(22, 2, ctypes.c_ulong(ctypes.addressof(program)), 0, 0):
    sys.exit("prctl: " + os.strerror(ctypes.get_errno()))
os.execvp(sys.argv[2], sys.argv[2:])
"""


def forbidding_io_uring(error: int) -> tuple[str, ...]:
    """A wrapper under whose seccomp(2) filter io_uring_setup fails with this error; all else goes through."""
    if platform.machine() not in ("x86_64", "aarch64") or ctypes.sizeof(ctypes.c_void_p) != 8:
        cannot_run("the filter is written for x86_64 and aarch64")
    instructions = (
        (0x20, 0, 0, 0),  # load the number of the call
        (0x15, 0, 1, IO_URING_SETUP),  # equal: the next one, else the one after
        (0x06, 0, 0, 0x0005_0000 | error),  # SECCOMP_RET_ERRNO
        (0x06, 0, 0, 0x7FFF_0000),  # SECCOMP_RET_ALLOW
    )
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in instructions)
    return (sys.executable, "-c", FORBIDDING, code.hex())


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS], ids=errno.errorcode.get)
def test_a_forbidden_io_uring_is_a_skipped_row_and_the_others_are_measured(tmp_path: Path, error: int) -> None:
    arguments = ("--fds", 10, "--active", "1", "--workload", "chain", "--mechanism", ",".join(("epoll", *URINGS)))
    finished, rows = readiness(tmp_path, *arguments, wrapper=forbidding_io_uring(error))
    assert finished.code == 0, finished.stderr
    assert states(rows, "mechanism") == {("epoll",): "ok"} | {(name,): "skipped" for name in URINGS}
    for name in URINGS:
        reason = only(rows, mechanism=name)["reason"]
        assert "io_uring_setup" in reason and errno.errorcode[error] in reason


def test_only_a_forbidden_io_uring_is_nothing_measured(tmp_path: Path) -> None:
    arguments = ("--fds", 10, "--active", "1", "--mechanism", ",".join(URINGS))
    finished, rows = readiness(tmp_path, *arguments, wrapper=forbidding_io_uring(errno.EPERM))
    assert finished.code == 77, finished.stderr
    assert {row["status"] for row in rows} == {"skipped"}


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------


def test_ctrl_c_keeps_rows_and_leaves_nothing(tmp_path: Path) -> None:
    """In mid-run the command holds a helper's pipes and its own files only, however many launches there were."""
    arguments = ["--fds", 100, "--active", "1", "--mechanism", "poll,epoll,select.epoll", "--budget", "2ms"]
    with started("readiness", *arguments, "--repeats", 5000, "--csv", "rows.csv", cwd=tmp_path) as command:
        command.until(lambda: samples_count(tmp_path) >= 24, "some launches")
        held = len(list(Path(f"/proc/{command.process.pid}/fd").iterdir()))
        command.signal(signal.SIGINT)
        finished = command.finish(20)
        assert command.living() == []
    assert finished.code == 130, finished.stderr
    assert "Traceback" not in finished.stderr
    assert held < 24
    rows = rows_of((tmp_path / "rows.csv").read_text(encoding="utf-8"))
    assert {(row["workload"], row["mechanism"]) for row in rows} == {
        (workload, name) for workload in ("chain", "short") for name in ("poll", "epoll", "select.epoll")
    }
    assert {row["status"] for row in rows} == {"interrupted"}
    assert all(float(row["event_ns"]) > 0 and "launches were measured" in row["reason"] for row in rows)
    assert results.load(only_run_folder(tmp_path)).state == "interrupted"


def samples_count(cwd: Path) -> int:
    return sum(path.read_text(encoding="utf-8").count("\n") for path in cwd.glob("results/*/samples.jsonl"))
