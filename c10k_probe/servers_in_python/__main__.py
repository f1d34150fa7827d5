"""One launch: the command line, the limits, the model."""

from __future__ import annotations

import argparse
import os
import resource
import sys
from collections.abc import Sequence
from typing import Final

from c10k_probe.helper_in_python import Parser, die_with_parent, emit_hello, fail, whole
from c10k_probe.servers_in_python.state import HELPER, State
from c10k_probe.servers_in_python.work import Work

BY_TASKS: Final = ("python-forking", "python-threading")
BY_LOOP: Final = ("asyncio", "uvloop")
BACKLOG_MAX: Final = 65_535
STACK_BYTES_MIN: Final = 32_768  # threading.stack_size
STACK_BYTES_MAX: Final = 1 << 30
WAYS_TO_ASK: Final = ("await", "block", "pool")
PORT_MAX: Final = 65_535
TIMEOUT_NS: Final = 60_000_000_000
TIMEOUT_NS_MAX: Final = 600_000_000_000
WORKERS_COUNT: Final = min(32, (os.cpu_count() or 1) + 4)  # as ThreadPoolExecutor has it
WORKERS_MAX: Final = 65_535


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line; exits with 2 when it is wrong."""
    parser = Parser(HELPER)
    parser.add_argument("--model", choices=(*BY_TASKS, *BY_LOOP), required=True)
    parser.add_argument("--backlog", type=whole(1, BACKLOG_MAX), default=4096)
    parser.add_argument("--stack", type=whole(STACK_BYTES_MIN, STACK_BYTES_MAX))
    parser.add_argument("--protocol", choices=("echo", "http"), default="echo")
    parser.add_argument("--backend-port", type=whole(1, PORT_MAX))
    parser.add_argument("--backend-timeout-ns", type=whole(1, TIMEOUT_NS_MAX), default=TIMEOUT_NS)
    parser.add_argument("--asks", choices=WAYS_TO_ASK, default="await")
    parser.add_argument("--workers", type=whole(1, WORKERS_MAX), default=WORKERS_COUNT)
    found = parser.parse_args(arguments)
    if found.backend_port is not None and (found.protocol != "http" or found.model == "python-forking"):
        parser.error("--backend-port needs --protocol http, and another model than python-forking")
    if found.asks != "await" and (found.backend_port is None or found.model not in BY_LOOP):
        parser.error(f"--asks needs --backend-port, and --model {' or '.join(BY_LOOP)}")
    if found.workers != WORKERS_COUNT and found.asks != "pool":
        parser.error("--workers needs --asks pool")
    if found.stack is not None and found.model != "python-threading":
        parser.error("--stack needs --model python-threading")
    return found


def main(arguments: Sequence[str]) -> None:
    """The whole launch; see the package."""
    found = parse(arguments)
    call = "prctl"
    try:
        die_with_parent()
        call = "setrlimit"
        hard_count = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard_count, hard_count))
    except OSError as error:
        fail(HELPER, call, "", error.errno or 0)
    emit_hello(HELPER)
    work = Work(found.backend_port, found.backend_timeout_ns) if found.backend_port is not None else None
    state = State(found.model, found.backlog, found.protocol, work, found.asks, found.workers)
    # each imports only what a program of its kind would
    try:
        if found.model in BY_TASKS:
            from c10k_probe.servers_in_python import by_tasks

            by_tasks.serve(state, found.stack)
        from c10k_probe.servers_in_python import by_loop

        by_loop.serve(state)
    except OSError as error:
        fail(HELPER, "listen", "127.0.0.1", error.errno or 0)


if __name__ == "__main__":
    main(sys.argv[1:])
