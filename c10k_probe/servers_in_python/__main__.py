"""One launch: the command line, the limits, the model."""

from __future__ import annotations

import argparse
import resource
import sys
from collections.abc import Sequence
from typing import Final

from c10k_probe.helper_in_python import Parser, die_with_parent, emit_hello, fail, whole
from c10k_probe.servers_in_python.state import HELPER, State

BY_TASKS: Final = ("python-forking", "python-threading")
BY_LOOP: Final = ("asyncio", "uvloop")
BACKLOG_MAX: Final = 65_535
STACK_BYTES_MIN: Final = 32_768  # threading.stack_size
STACK_BYTES_MAX: Final = 1 << 30


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line; exits with 2 when it is wrong."""
    parser = Parser(HELPER)
    parser.add_argument("--model", choices=(*BY_TASKS, *BY_LOOP), required=True)
    parser.add_argument("--backlog", type=whole(1, BACKLOG_MAX), default=4096)
    parser.add_argument("--stack", type=whole(STACK_BYTES_MIN, STACK_BYTES_MAX))
    parser.add_argument("--protocol", choices=("echo", "http"), default="echo")
    found = parser.parse_args(arguments)
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
    state = State(found.model, found.backlog, found.protocol)
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
