"""One launch: the command line, the sockets, one level after the other."""

from __future__ import annotations

import argparse
import gc
import resource
import sys
import time
from collections.abc import Sequence
from typing import Final

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
    unsupported,
    whole,
)
from c10k_probe.readiness_in_python.mechanisms import FD_SETSIZE, MECHANISMS, Mechanism
from c10k_probe.readiness_in_python.passes import Level
from c10k_probe.readiness_in_python.workloads import WORKLOADS, Refused, Sockets

HELPER: Final = "readiness_in_python"
COUNT_MAX: Final = 10_000_000
PASSES_MAX: Final = 100_000
LEVELS_MAX: Final = 64


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line; exits with 2 when it is wrong."""
    parser = Parser(HELPER)
    parser.add_argument("--mechanism", choices=tuple(MECHANISMS), required=True)
    parser.add_argument("--watched", type=whole(1, COUNT_MAX), required=True)
    parser.add_argument("--active", required=True)
    parser.add_argument("--workload", choices=tuple(WORKLOADS), default="chain")
    parser.add_argument("--writes", type=whole(1, COUNT_MAX))
    parser.add_argument("--pass-us", type=whole(1, 60_000_000), default=0)
    parser.add_argument("--warmup", type=whole(0, PASSES_MAX), default=1)
    parser.add_argument("--passes", type=whole(1, PASSES_MAX), default=1000)
    parser.add_argument("--budget-ms", type=whole(0, BUDGET_MAX_MS), default=1000)
    parser.add_argument("--seed", type=whole(0, 2**63 - 1), default=1)
    parser.add_argument("--placement", choices=("one-cpu", "any-cpu"), default="one-cpu")
    parser.add_argument("--cpu", type=whole(0, CPUS_MAX - 1))
    parser.add_argument("--pause", action="store_true")
    found = parser.parse_args(arguments)
    if found.pass_us and found.writes:
        parser.error("--pass-us does not go with --writes")
    if found.cpu is not None and found.placement != "one-cpu":
        parser.error("--cpu needs --placement one-cpu")
    words = found.active.split(",")
    if not all(_is_count(word, found.watched) for word in words) or len(words) > LEVELS_MAX:
        counts = f"{LEVELS_MAX} counts at most between 1 and --watched ({found.watched})"
        parser.error(f"--active must be {counts} with commas between them, not {found.active[:80]!r}")
    found.active = [int(word) for word in words]
    return found


def _is_count(word: str, most: int) -> bool:
    return word.isascii() and word.isdigit() and 1 <= int(word) <= most


def refuse_beyond(room: int | None, kind: str, asked: int) -> None:
    """A ``wall`` message and 77 where a mechanism has no room for so many."""
    if room is None or asked <= room:
        return
    emit({"type": "wall", "wall": "FD_SETSIZE", "limit_count": FD_SETSIZE, f"largest_{kind}_count": room})
    takes = f"select.select takes descriptors below FD_SETSIZE ({FD_SETSIZE}) only"
    unsupported(f"{takes}: at most {room} {kind}, not {asked}")


def is_told_to(word: str, arguments: argparse.Namespace) -> bool:
    """With ``--pause``: waits for this line. False at the end of stdin; another line is a usage error."""
    if not arguments.pause:
        return True
    line = sys.stdin.readline()
    if line and line.rstrip("\n") != word:
        Parser(HELPER).error(f"expected the command {word!r}, not {line.rstrip()!r}")
    return bool(line)


def watch_all(name: str, mechanism: Mechanism, sockets: Sockets) -> None:
    """Register all, and say how long it took."""
    before = time.monotonic_ns()
    mechanism.add(sockets.watched)
    if mechanism.is_put_off:
        mechanism.turn()
    setup_ns = time.monotonic_ns() - before
    facts = {"setup_ns": setup_ns, "watched_count": len(sockets.watched), "mechanism": name, "flags": mechanism.flags}
    emit({"type": "watching", **facts})


def run_levels(arguments: argparse.Namespace, mechanism: Mechanism) -> tuple[int, int]:
    """One after the other; what is left of the budget is divided evenly among those that are left. Samples, drops."""
    end = time.monotonic_ns() + arguments.budget_ms * 1_000_000
    samples_count = dropped_count = 0
    for place, active in enumerate(arguments.active):
        if arguments.workload == "short":
            room = mechanism.room()  # of each two descriptors the first is watched
            refuse_beyond(None if room is None else (room + 1) // 2, "active", active)
        now = time.monotonic_ns()
        level = Level(mechanism.work, mechanism, active)
        until = now + max(end - now, 0) // (len(arguments.active) - place)
        level.run(arguments.warmup, arguments.passes, until, arguments.pass_us * 1000)
        emit(level.message())
        samples_count += len(level)
        dropped_count += level.dropped_count
    return samples_count, dropped_count


def run(arguments: argparse.Namespace) -> None:
    """Everything between ``hello`` and the exit. Raises ``OSError``, ``Refused``."""
    if arguments.placement == "one-cpu":
        pin(arguments.cpu)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    kind = MECHANISMS[arguments.mechanism]
    refuse_beyond(kind.room(), "watched", arguments.watched)
    sockets = Sockets(arguments.watched, arguments.seed)
    work = WORKLOADS[arguments.workload](sockets, arguments.writes)
    work.watcher = mechanism = kind(work)
    gc.collect()
    gc.freeze()
    gc.disable()
    emit({"type": "opened"})
    counts = (0, 0)
    if is_told_to("watch", arguments):
        watch_all(arguments.mechanism, mechanism, sockets)
        if is_told_to("run", arguments):
            counts = run_levels(arguments, mechanism)
    mechanism.close()
    sockets.close()
    emit_end(*counts)


def main(arguments: Sequence[str]) -> None:
    """The whole launch."""
    is_hello = list(arguments) == ["--hello"]
    plan = argparse.Namespace(mechanism="") if is_hello else parse(arguments)
    try:
        die_with_parent()
        emit_hello(HELPER)
        if is_hello:
            emit_end(0, 0)
        else:
            run(plan)
    except Refused as error:
        fail(HELPER, *error.args)
    except OSError as error:
        fail(HELPER, plan.mechanism, str(error.filename or ""), error.errno or 0)


if __name__ == "__main__":
    main(sys.argv[1:])
