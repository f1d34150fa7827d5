"""What the helpers that are Python programs share: the lines, the command line, the life; as ``helper.h`` in C.

One JSON object a line, flushed after each. First ``hello``, last ``end``; no ``end`` means that the measurement failed.
Exit status: 0 ok, 1 a call failed (an ``error`` line says which), 2 bad arguments (one line on stderr), 77 not
supported here (an ``unsupported`` line says why). Clock: ``time.monotonic_ns``, which is CLOCK_MONOTONIC.

Sources: prctl(2) (PR_SET_PDEATHSIG), clock_gettime(2), errno(3).
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import json
import os
import platform
import signal
import statistics
import sys
import time
from collections.abc import Callable
from functools import cache
from typing import Any, Final, NoReturn

PROTOCOL: Final = 1
EXIT_FAILED, EXIT_USAGE, EXIT_UNSUPPORTED = 1, 2, 77
CPUS_MAX: Final = 8192
BUDGET_MAX_MS: Final = 3_600_000
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


# --- what is said -----------------------------------------------------------------------------------------------------


def emit(message: dict[str, Any]) -> None:
    """One line of JSON, at once."""
    sys.stdout.write(json.dumps(message, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def emit_hello(helper: str) -> None:
    """The first message."""
    emit(
        {
            "type": "hello",
            "protocol": PROTOCOL,
            "helper": helper,
            "linking": "python",
            "compiler": f"{platform.python_implementation()} {platform.python_version()}",
            "flags": "",
            "clock": "CLOCK_MONOTONIC",
            "clock_cost_ns": _clock_cost_ns(),
            "pid": os.getpid(),
        }
    )


def emit_end(samples_count: int, dropped_count: int) -> None:
    """The last message: how many samples were delivered, how many were thrown away."""
    emit({"type": "end", "samples_count": samples_count, "dropped_count": dropped_count})


def fail(helper: str, call: str, arguments: str, number: int) -> NoReturn:
    """An ``error`` line with the number of errno, its name and its message; leaves with 1."""
    names = {"call": call, "arguments": arguments, "errno": number, "name": errno.errorcode.get(number, "unknown")}
    emit({"type": "error", "helper": helper, **names, "message": os.strerror(number)})
    raise SystemExit(EXIT_FAILED)


def unsupported(reason: str) -> NoReturn:
    """An ``unsupported`` line; leaves with 77."""
    emit({"type": "unsupported", "reason": reason})
    raise SystemExit(EXIT_UNSUPPORTED)


def _clock_cost_ns() -> float:
    """Of one call of the clock from Python: the median of 101 batches of 100."""
    batches = []
    for _ in range(101):
        start = time.monotonic_ns()
        for _ in range(99):
            time.monotonic_ns()
        batches.append(time.monotonic_ns() - start)
    return round(statistics.median(batches) / 100, 1)


# --- the command line -------------------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """``--name value`` only; one line on stderr and status 2 when it is wrong, as every helper."""

    def __init__(self, helper: str) -> None:
        super().__init__(prog=helper, add_help=False, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: {message}\n")
        raise SystemExit(EXIT_USAGE)


def whole(least: int, most: int) -> Callable[[str], int]:
    """A type for arguments: a whole number in this range."""

    def number(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must lie between {least} and {most}, not {text!r}")
        return value

    return number


# --- life -------------------------------------------------------------------------------------------------------------


def die_with_parent(parent: int | None = None) -> None:
    """SIGKILL when the parent ends; leaves at once when it has ended already (prctl(2)). Raises ``OSError``.

    ``parent``: its pid, for a child that knows it from before the fork, when it cannot have ended yet.
    """
    parent = os.getppid() if parent is None else parent
    library = _c_library()
    if library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os._exit(EXIT_FAILED)


@cache
def _c_library() -> ctypes.CDLL:
    """The one that the interpreter is linked with; found once, so that a child of a fork does not search again."""
    return ctypes.CDLL(None, use_errno=True)


def pin(cpu: int | None) -> int:
    """Run on one CPU from now on, the last one allowed when none is named; its number. Raises ``OSError``."""
    cpu = max(os.sched_getaffinity(0)) if cpu is None else cpu
    os.sched_setaffinity(0, {cpu})
    return cpu
