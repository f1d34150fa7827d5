"""What creating one more process, thread or task costs from Python itself; speaks the helpers' protocol.

    python -m c10k_probe.creation_in_python --method METHOD --samples N [--warmup W] [--budget-ms M]
        [--placement any-cpu|one-cpu] [--cpu K] [--target PATH]

Timed, from a reading of the clock just before: ``return`` until the call or calls came back that a program writes to
create one (for objects that are made and then started, both); ``started`` until the first statement of the child's,
thread's or task's function, which writes its reading to shared memory; ``exec`` until the first statement of main of
the executed ``spawn_target``; ``cycle`` until waited for (wait4, wait, join, await). What does not apply is null.

- ``os.fork``: ``os._exit`` at once in the child.
- ``subprocess.Popen``: runs the target with an empty environment and one inherited descriptor.
- ``multiprocessing.Process``: of the ``fork`` context, made and started.
- ``threading.Thread``: made and started; ``start`` waits until the thread runs, so ``return`` contains ``started``.
- ``asyncio.create_task``: in a running loop; its first statement runs when the creator awaits.

Not timed: warm-ups, storing, the garbage collector (collected before, then off). The parent is one interpreter with all
these modules imported, whatever the method. Clock: ``time.monotonic_ns``, CLOCK_MONOTONIC; unit: ns. The cost of a call
from Python stands in ``hello`` and is in every interval.

Known bias: the collector being off; descriptors and mappings are those of an interpreter, see ``facts``. Sources: os,
subprocess, multiprocessing, threading, asyncio and time of the Python library; proc(5).
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import gc
import mmap
import multiprocessing
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from c10k_probe.helper_in_python import (
    BUDGET_MAX_MS,
    CPUS_MAX,
    Parser,
    die_with_parent,
    emit,
    emit_end,
    emit_hello,
    fail,
    pin,
    whole,
)

HELPER: Final = "creation_in_python"
SAMPLES_LEAST: Final = 3  # whatever the budget
WARM_UP_PART: Final = 3  # of the budget: its third at most
SAMPLES_MAX: Final = 1_000_000
_PROGRAM_AT, _CHILD_AT = 0, 8  # bytes: spawn_target writes the first word, our own children the second
_KB_FACTS: Final = {
    "rss_bytes": "Rss",
    "anonymous_bytes": "Anonymous",
    "private_dirty_bytes": "Private_Dirty",
    "anon_huge_bytes": "AnonHugePages",
}
_NO_FACTS: Final = (  # of a program in C at its main, and of its threads' stacks
    "main_mappings_count",
    "main_anonymous_bytes",
    "main_page_table_bytes",
    "stack_bytes",
    "probed_threads_count",
    "probe_creations_count",
    "kept_mapped_bytes",
    "kept_mappings_count",
    "kept_anonymous_bytes",
    "joined_mapped_bytes",
)

Moments = tuple[int, int, int | None]  # before, returned, minor faults of the child where wait4 told them


class Stamps:
    """Two words of memory shared with children, and with an executed program by its descriptor."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("stamp", 0)
        os.ftruncate(self.descriptor, mmap.PAGESIZE)
        self._memory = mmap.mmap(self.descriptor, mmap.PAGESIZE)

    def clear(self) -> None:
        """Before a creation."""
        struct.pack_into("=qq", self._memory, 0, 0, 0)

    def child(self) -> None:
        """The first statement of a child: the clock is read before anything else."""
        struct.pack_into("=q", self._memory, _CHILD_AT, time.monotonic_ns())

    def read(self, offset: int) -> int:
        """One stamp in ns, 0 when nobody wrote it."""
        return int(struct.unpack_from("=q", self._memory, offset)[0])


# --- the methods: a function and a row --------------------------------------------------------------------------------


def _os_fork(stamps: Stamps, target: str) -> Moments:
    before = time.monotonic_ns()
    child = os.fork()
    if child == 0:
        stamps.child()
        os._exit(0)
    returned = time.monotonic_ns()
    return before, returned, os.wait4(child, 0)[2].ru_minflt


def _popen(stamps: Stamps, target: str) -> Moments:
    command = [target, str(stamps.descriptor)]
    before = time.monotonic_ns()
    process = subprocess.Popen(command, env={}, pass_fds=(stamps.descriptor,))
    returned = time.monotonic_ns()
    process.wait()
    return before, returned, None


def _process(stamps: Stamps, target: str) -> Moments:
    before = time.monotonic_ns()
    process = multiprocessing.get_context("fork").Process(target=stamps.child)
    process.start()
    returned = time.monotonic_ns()
    process.join()
    return before, returned, None


def _thread(stamps: Stamps, target: str) -> Moments:
    before = time.monotonic_ns()
    thread = threading.Thread(target=stamps.child)
    try:
        thread.start()
    except RuntimeError:  # it does not tell the error number; pthread_create(3) has this one for limits
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None
    returned = time.monotonic_ns()
    thread.join()
    return before, returned, None


async def _task(stamps: Stamps) -> Moments:
    async def first() -> None:
        stamps.child()

    before = time.monotonic_ns()
    task = asyncio.create_task(first())
    returned = time.monotonic_ns()
    await task
    return before, returned, None


@dataclass(frozen=True)
class Method:
    """How one is created; ``create`` is None for tasks, which need a running loop."""

    create: Callable[[Stamps, str], Moments] | None
    has_started: bool = True
    has_exec: bool = False
    has_child_faults: bool = False
    copies_memory: bool = False


METHODS: Final = {
    "os.fork": Method(_os_fork, has_child_faults=True, copies_memory=True),
    "subprocess.Popen": Method(_popen, has_started=False, has_exec=True),
    "multiprocessing.Process": Method(_process, copies_memory=True),
    "threading.Thread": Method(_thread),
    "asyncio.create_task": Method(None),
}


# --- the samples ------------------------------------------------------------------------------------------------------


class Series:
    """The samples of one launch, in ns from ``before``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.method = METHODS[name]
        self.columns: dict[str, list[int]] = {key: [] for key in ("return", "started", "exec", "cycle", "faults")}
        self.dropped_count = self.warmups_count = 0
        self.facts: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.columns["return"])

    def add(self, stamps: Stamps, moments: Moments, gone: int) -> None:
        """Keep one sample, or drop it when a stamp is missing or cannot be."""
        before, returned, faults = moments
        started, executed = stamps.read(_CHILD_AT), stamps.read(_PROGRAM_AT)
        method = self.method
        expected = [started] * method.has_started + [executed] * method.has_exec
        if not all(before <= moment <= gone for moment in expected):
            self.dropped_count += 1
            return
        values = (returned - before, started - before, executed - before, gone - before, faults or 0)
        for column, value in zip(self.columns.values(), values, strict=True):
            column.append(value)

    def message(self) -> dict[str, Any]:
        """The ``samples`` message."""
        columns, method = self.columns, self.method
        return {
            "type": "samples",
            "method": self.name,
            "warmups_count": self.warmups_count,
            "return_ns": columns["return"],
            "started_ns": columns["started"] if method.has_started else None,
            "exec_ns": columns["exec"] if method.has_exec else None,
            "cycle_ns": columns["cycle"],
            "child_faults_count": columns["faults"] if method.has_child_faults else None,
            "aftershock_ns": None,
            "parent_faults_count": None,
        }


def turns(count: int, least: int, deadline: int | None) -> Iterator[int]:
    """``count`` turns, fewer when the deadline (monotonic ns) passes, but ``least`` at least."""
    for turn in range(count):
        if deadline is not None and turn >= least and time.monotonic_ns() >= deadline:
            return
        yield turn


def take(series: Series, stamps: Stamps, arguments: argparse.Namespace) -> None:
    """Read the facts, warm up, take the samples. Raises ``OSError``, leaving in ``series`` what was taken."""
    series.facts = read_facts(arguments.cpu)
    create = series.method.create
    if create is None:
        asyncio.run(_take_tasks(series, stamps, arguments))
        return
    warm_up_end, end = deadlines(series.method, arguments.budget_ms)
    for _ in turns(arguments.warmup, 1, warm_up_end):
        create(stamps, arguments.target)
        series.warmups_count += 1
    for _ in turns(arguments.samples, SAMPLES_LEAST, end):
        stamps.clear()
        moments = create(stamps, arguments.target)
        series.add(stamps, moments, time.monotonic_ns())


async def _take_tasks(series: Series, stamps: Stamps, arguments: argparse.Namespace) -> None:
    warm_up_end, end = deadlines(series.method, arguments.budget_ms)
    for _ in turns(arguments.warmup, 1, warm_up_end):
        await _task(stamps)
        series.warmups_count += 1
    for _ in turns(arguments.samples, SAMPLES_LEAST, end):
        stamps.clear()
        moments = await _task(stamps)
        series.add(stamps, moments, time.monotonic_ns())


def deadlines(method: Method, budget_ms: int) -> tuple[int | None, int | None]:
    """When warm-ups and samples should be over (monotonic ns); warm-ups that copy nothing are never cut."""
    if not budget_ms:
        return None, None
    now, budget_ns = time.monotonic_ns(), budget_ms * 1_000_000
    return now + budget_ns // WARM_UP_PART if method.copies_memory else None, now + budget_ns


# --- what is said -----------------------------------------------------------------------------------------------------


def _kilobytes(path: str) -> dict[str, int]:
    """Lines "name: 12 kB" of a file of /proc in bytes; empty when it cannot be read."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return {}
    pairs = [line.split() for line in lines if line.endswith(" kB")]
    return {name.rstrip(":"): int(number) * 1024 for name, number, _unit in pairs}


def read_facts(cpu: int | None) -> dict[str, Any]:
    """The ``facts`` message: the size of this process as /proc has it, null where it does not tell."""
    rollup = _kilobytes("/proc/self/smaps_rollup")
    mappings = [line for line in Path("/proc/self/maps").read_text().splitlines() if not line.endswith("[vsyscall]")]
    has_split = "Rss" in rollup and "Anonymous" in rollup
    return {
        "type": "facts",
        **dict.fromkeys(_NO_FACTS),
        **{fact: rollup.get(name) for fact, name in _KB_FACTS.items()},
        "file_rss_bytes": rollup["Rss"] - rollup["Anonymous"] if has_split else None,
        "page_table_bytes": _kilobytes("/proc/self/status").get("VmPTE"),
        "mappings_count": len(mappings),
        "libraries_count": 0,
        "descriptors_count": len(os.listdir("/proc/self/fd")) - 1,  # noqa: PTH208  a path object a name, for a count
        "alive_count": 0,
        "alive_kind": None,
        "cpu": cpu,
    }


# --- life -------------------------------------------------------------------------------------------------------------


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line; exits with 2 when it is wrong."""
    parser = Parser(HELPER)
    parser.add_argument("--method", choices=tuple(METHODS), required=True)
    parser.add_argument("--samples", type=whole(1, SAMPLES_MAX), required=True)
    parser.add_argument("--warmup", type=whole(0, SAMPLES_MAX), default=0)
    parser.add_argument("--budget-ms", type=whole(0, BUDGET_MAX_MS), default=0)
    parser.add_argument("--placement", choices=("any-cpu", "one-cpu"), default="any-cpu")
    parser.add_argument("--cpu", type=whole(0, CPUS_MAX - 1))
    parser.add_argument("--target", default=str(_own_target()))
    found = parser.parse_args(arguments)
    if found.cpu is not None and found.placement != "one-cpu":
        parser.error("--cpu needs --placement one-cpu")
    return found


def _own_target() -> Path:
    from c10k_probe import native

    return native.folder() / "spawn_target"


def run(arguments: argparse.Namespace) -> None:
    """Everything between ``hello`` and the exit. Raises ``OSError``."""
    if arguments.placement == "one-cpu":
        arguments.cpu = pin(arguments.cpu)
    if METHODS[arguments.method].has_exec:
        os.stat(arguments.target)  # noqa: PTH116  its error names the file
    series, stamps = Series(arguments.method), Stamps()
    gc.collect()
    gc.disable()
    try:
        take(series, stamps, arguments)
    finally:
        emit(series.facts or read_facts(arguments.cpu))
        emit(series.message())
    emit_end(len(series), series.dropped_count)


def main(arguments: Sequence[str]) -> None:
    """The whole launch."""
    is_hello = list(arguments) == ["--hello"]
    plan = argparse.Namespace(method="") if is_hello else parse(arguments)
    try:
        die_with_parent()
        emit_hello(HELPER)
        if is_hello:
            emit_end(0, 0)
        else:
            run(plan)
    except OSError as error:
        fail(HELPER, plan.method, str(error.filename or ""), error.errno or 0)


if __name__ == "__main__":
    main(sys.argv[1:])
