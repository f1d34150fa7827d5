"""What the project promises of its readings of memory, measured and printed: ``python tests/benchmarks/memory.py``

The ledger of 100,000 connections against the fall of spare memory, and how long one reading of 10,000 processes or
threads takes. As root, on an otherwise idle machine.
"""

from __future__ import annotations

import csv
import io
import subprocess
import sys
import tempfile
import time

from c10k_probe.load import Holder
from c10k_probe.observe import memory, tree
from c10k_probe.servers import MODELS, ServerOptions

COMMAND = (sys.executable, "-m", "c10k_probe", "connections", "--csv", "-")
MANY, WORKERS = 100_000, 10_000


def say(what: str, value: str, target: str) -> None:
    """One line of the report."""
    print(f"{what:62} {value:>28}   target {target}", flush=True)


def ledger_closes() -> None:
    """One server and one client process with 100,000 connections: all parts against the fall of spare memory."""
    with tempfile.TemporaryDirectory() as folder:
        command = (*COMMAND, "--model", "epoll", "--to", str(MANY), "--steps", "12")
        output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder).stdout
    last = list(csv.DictReader(io.StringIO(output)))[-1]
    value = f"{float(last['unexplained_pct']):+.2f} % of {int(last['free_fall_bytes']) / 2**20:,.0f} MiB"
    say(f"ledger of {MANY:,} epoll connections, unexplained", value, "within 10 %")


def reading_takes(model: str) -> None:
    """One whole reading of a server with 10,000 tasks."""
    with MODELS[model].start(ServerOptions()) as server, Holder(server.port, WORKERS) as holder:
        ramped = holder.ramp(WORKERS)
        started = time.perf_counter()
        reading = tree.read_tree(server.session)
        memory.read_kernel_memory()
        took_s = time.perf_counter() - started
    what = f"reading the memory of {ramped.open_count:,} tasks of {model}"
    say(what, f"{took_s:.2f} s, {reading.read_count:,} of {reading.processes_count:,} read", "under 1.5 s")
    memory.settle(10.0, sessions=(server.session,))


def main() -> None:
    """Print every figure."""
    for model in ("thread", "fork"):
        reading_takes(model)
    ledger_closes()


if __name__ == "__main__":
    main()
