"""The helper ``readiness`` against the shortest loop for each mechanism: ``python tests/benchmarks/cheapest_loops.py``

Compiles cheapest_loops.c, a program of its own for the same workload without anything to be general by, and runs the
two in turn, in shuffled order within each block, as fresh processes on the same CPU. Printed for each mechanism and
each pair of watched and active counts: the ratio of the medians, helper over cheapest, with its 95 % interval over
blocks. Target: within 5 %. Nothing is asserted; run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from c10k_probe import native, stats

SOURCE = Path(__file__).with_suffix(".c")
FLAGS = ("-std=gnu17", "-O2", "-Wall", "-Wextra", "-Wshadow", "-Wstrict-prototypes")
MECHANISMS = (
    "select",
    "poll",
    "epoll",
    "epoll_edge",
    "epoll_oneshot",
    "io_uring_poll",
    "io_uring_poll_multishot",
    "io_uring_recv",
)
POINTS = ((100, 1), (100, 100), (1000, 100))  # watched, active
WRITES = 1000
PASSES = 10
TARGET = 1.05


@dataclass(frozen=True)
class Load:
    """What both programs do."""

    mechanism: str
    watched: int
    active: int

    def with_helper(self, seed: int) -> list[float]:
        """The helper's passes, ns."""
        command = [str(native.find("readiness")), "--mechanism", self.mechanism, "--watched", str(self.watched)]
        command += ["--active", str(self.active), "--writes", str(WRITES), "--passes", str(PASSES)]
        messages = [json.loads(line) for line in lines([*command, "--seed", str(seed), "--budget-ms", "60000"])]
        return [float(sample) for message in messages if message["type"] == "passes" for sample in message["pass_ns"]]

    def with_cheapest(self, program: Path, seed: int) -> list[float]:
        """The cheapest loop's passes, ns."""
        numbers = map(str, (self.watched, self.active, WRITES, PASSES, seed))
        return [float(line) for line in lines([str(program), self.mechanism, *numbers])]


def main() -> None:
    """Print every ratio."""
    arguments = read_arguments()
    with tempfile.TemporaryDirectory() as folder:
        cheapest = Path(folder) / "cheapest_loops"
        subprocess.run(["gcc", *FLAGS, "-o", str(cheapest), str(SOURCE)], check=True)
        for mechanism in arguments.mechanism or MECHANISMS:
            for point in POINTS:
                print(compare(cheapest, Load(mechanism, *point), arguments.blocks), flush=True)


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mechanism", nargs="*", choices=MECHANISMS, help="only these")
    parser.add_argument("--blocks", type=int, default=21, help="pairs of launches for each ratio")
    return parser.parse_args()


def compare(cheapest: Path, load: Load, blocks: int) -> str:
    """The ratio of the two programs under one load, as a line."""
    helper_ns: dict[int, list[float]] = {}
    cheapest_ns: dict[int, list[float]] = {}
    for block in range(blocks):
        for is_helper in random.Random(block).sample([True, False], 2):
            if is_helper:
                helper_ns[block] = load.with_helper(block)
            else:
                cheapest_ns[block] = load.with_cheapest(cheapest, block)
    ratio = stats.paired_ratio(helper_ns, cheapest_ns, seed=1)
    interval = f"({ratio.low:.3f} to {ratio.high:.3f})" if ratio and ratio.low and ratio.high else "(no interval)"
    event_ns = statistics.median(map(statistics.median, cheapest_ns.values())) / (load.active + WRITES)
    return (
        f"{load.mechanism:24}{load.watched:6} watched {load.active:5} active  cheapest {event_ns:7.0f} ns/event  "
        f"helper {ratio.middle if ratio else 0:.3f}x {interval}   target at most {TARGET}x"
    )


def lines(command: list[str]) -> list[str]:
    """What it prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


if __name__ == "__main__":
    main()
