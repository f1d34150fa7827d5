"""The eBPF counter as a helper process, for an interpreter that can import bcc and a user who may load BPF.

It speaks the helper protocol: ``hello``; ``ready`` once the programs are attached; then one answer to each command
line on stdin, and ``end`` when stdin is closed:

    follow PID...   follow these processes, all their threads and descendants   -> following
    launch PID      follow this process from its next exec on                   -> following
    alive           how many followed tasks have not ended                      -> alive
    snapshot        everything counted since the first task was followed        -> snapshot

``following`` says what ``snapshot`` does: what was counted, and when, while tasks were still being followed.

What cannot be done here is ``unsupported`` and exit 77, with the reason and the command that would help.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

if not __package__:  # run as a file: the system's own modules come first
    sys.path.append(str(Path(__file__).parent.parent.parent))

from c10k_probe.observe import processes
from c10k_probe.observe.procfs import read_int
from c10k_probe.tracing import bcc_kernel
from c10k_probe.tracing.bcc_follow import Follower
from c10k_probe.tracing.bcc_kernel import Unsupported
from c10k_probe.tracing.bcc_programs import Programs

PROTOCOL = 1
EXIT_UNSUPPORTED = 77
_PR_SET_PDEATHSIG = 1
_TASKS_LEAST = 1 << 16


def emit(kind: str, **fields: object) -> None:
    """One message of the protocol."""
    sys.stdout.write(json.dumps({"type": kind, **fields}, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def keep_stdout_clean() -> None:
    """The compiler's library writes to stdout too: what is not the protocol goes nowhere."""
    sys.stdout = os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def main() -> None:
    """Say hello, attach, answer until stdin ends."""
    options = _options()
    sys.path += options.path
    keep_stdout_clean()
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    emit("hello", protocol=PROTOCOL, helper="bcc_helper", python=sys.version.split()[0])
    try:
        serve(attach(options.tasks, latency=not options.counts_only))
    except Unsupported as error:
        give_up(str(error), error.lift)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bcc_helper")
    parser.add_argument("--tasks", type=int, default=0, help="room for so many tasks at once; 0: by the machine")
    parser.add_argument("--path", action="append", default=[], help="a further folder to find bcc in")
    parser.add_argument("--counts-only", action="store_true", help="no latencies, errors, accepts")
    return parser.parse_args()


def give_up(reason: str, lift: str) -> NoReturn:
    """Say why it cannot be done here, and leave at once."""
    emit("unsupported", reason=reason, lift=lift)
    os._exit(EXIT_UNSUPPORTED)


def attach(tasks_count: int, *, latency: bool) -> Programs:
    """Compile and attach, and say ``ready``. Raises ``Unsupported``."""
    started_s = time.monotonic()
    tracefs = bcc_kernel.find_tracefs()
    bcc_kernel.check_tracepoints(tracefs)
    headers = bcc_kernel.find_headers(os.uname().release)
    room = tasks_count or room_for_tasks()
    values = bcc_kernel.definitions(tracefs, room, latency=latency)
    programs = Programs(headers, values)
    emit(
        "ready",
        attach_s=time.monotonic() - started_s,
        headers=headers.origin,
        tasks_max=room,
        latency=latency,
        faults=bool(values["HAVE_FAULTS"]),
        tcp=bool(values["HAVE_TCP"]),
        accepts=latency and values["NR_ACCEPT"] != -1,
    )
    return programs


def room_for_tasks() -> int:
    """Tasks that the maps must hold: twice those of the machine now, and never more than it can have."""
    highest = [read_int(Path(f"/proc/sys/kernel/{name}")) for name in ("pid_max", "threads-max")]
    wanted = max(_TASKS_LEAST, 2 * processes.tasks_in_machine())
    return min(wanted, *(limit for limit in highest if limit))


def serve(programs: Programs) -> None:
    """Answer commands, one a line, until there are no more."""
    follower = Follower(programs)
    for line in sys.stdin:
        word, *rest = line.split() or [""]
        follower.forget_ended()
        if word == "follow":
            follower.follow_trees([int(text) for text in rest])
            emit("following", **snapshot(programs))
        elif word == "launch":
            programs.follow(int(rest[0]), active=False)
            emit("following", **snapshot(programs))
        elif word == "alive":
            emit("alive", tasks_count=programs.living_count(programs.counts.counters()))
        elif word == "snapshot":
            emit("snapshot", **snapshot(programs))
    last = snapshot(programs)
    emit("end", samples=0, dropped_tasks=last["dropped_tasks"], dropped_events=last["dropped_events"])


def snapshot(programs: Programs) -> dict[str, object]:
    """Everything counted so far, as the protocol has it."""
    counts = programs.counts
    counters = counts.counters()
    missed_tasks, missed, missed_minor = programs.missed()
    return {
        "time_ns": time.monotonic_ns(),
        "counters": counters,
        "runqueue": counts.runqueue(),
        "tcp": counts.tcp(),
        "calls": counts.calls(),
        "dropped_tasks": counters["dropped_tasks"] + programs.refused_tasks_count + missed_tasks,
        "dropped_events": counters["dropped_events"] + programs.refused_ports_count + missed,
        "missed_wakeups": missed_minor,
        "tasks_count": programs.living_count(counters),
    }


if __name__ == "__main__":
    main()
