"""Speeds that the project promises itself, measured and printed, never asserted: ``python tests/benchmarks/targets.py``

Each line says what was measured, the target, and how it was measured. Where a second program takes part, the two run in
turn and the ratio of the pairs is printed with its smallest and largest value. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import csv
import io
import os
import pty
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from c10k_probe import native
from c10k_probe.cli import run
from c10k_probe.limits import memory_guard
from c10k_probe.load import Holder, Ramped
from c10k_probe.servers import MODELS, Server, ServerOptions

COMMAND = (sys.executable, "-m", "c10k_probe")
PAIRS = 15
RAMPS = 5
PAIR_BYTES = 12_000  # of the kernel, for both ends of a connection
AGAINST_WRK = 10_000


def main() -> None:
    """Print every figure."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        help_ratio()
        fork_latency_wall()
        rows = connections_wall()
        epoll_helper(rows)
        client_memory(rows)
        opening_rates()
        opening_against_wrk()
        display_share()


def say(what: str, value: str, target: str) -> None:
    """One line of the report."""
    print(f"{what:62} {value:>28}   target {target}", flush=True)


def wall_s(command: Sequence[str]) -> float:
    """Seconds of one command with its output thrown away."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def help_ratio() -> None:
    """``--help`` against the bare import of its libraries, in turn."""
    bare = (sys.executable, "-c", "import typer, rich")
    pairs = [(wall_s((*COMMAND, "--help")), wall_s(bare)) for _ in range(PAIRS + 1)][1:]
    ratios = sorted(ours / theirs for ours, theirs in pairs)
    value = f"{statistics.median(ratios):.2f}× ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    say("--help over python -c 'import typer, rich'", value, "at most 2×")


def fork_latency_wall() -> None:
    """All methods, both linkings."""
    say("fork-latency --n 1000", f"{wall_s((*COMMAND, 'fork-latency', '--n', '1000')):.1f} s", "under 30 s")


def connections_wall() -> list[dict[str, str]]:
    """All three models to 10,000."""
    start = time.perf_counter()
    command = (*COMMAND, "connections", "--to", "10000", "--csv", "-")
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    say("connections --to 10000, three models", f"{time.perf_counter() - start:.1f} s", "under 90 s")
    return list(csv.DictReader(io.StringIO(output)))


def epoll_helper(rows: list[dict[str, str]]) -> None:
    """The sum of the steps' ramps: connecting, accepting and a first echo on each of 10,000."""
    ramp_s = sum(float(row["ramp_s"]) for row in rows if row["model"] == "epoll")
    say("epoll: opening and accepting 10,000, first echo included", f"{ramp_s:.2f} s", "under 1 s")


def client_memory(rows: list[dict[str, str]]) -> None:
    """The client's own user memory, from the first step to the last."""
    steps = [(int(row["open_count"]), int(row["client_user_bytes"])) for row in rows if row["model"] == "epoll"]
    (few, small), (many, large) = steps[0], steps[-1]
    say("client: user memory per connection", f"{(large - small) / (many - few):.1f} bytes", "at most 256 bytes")


def opening_rates() -> None:
    """One server and one client process, each connection with its first echo; a million where memory allows."""
    for count, target in ((10_000, "40,000 a second"), (100_000, "50,000 a second"), (1_000_000, "in under 30 s")):
        if (refusal := memory_guard(count * PAIR_BYTES)) is not None:
            print(f"opening {count:,}: left out, {refusal}")
            continue
        with MODELS["epoll"].start(ServerOptions(capacity_count=count)) as server, Holder(server.port, count) as holder:
            holder.ramp(1)
            user_bytes = private_bytes(holder)
            ramps = [opened(server, holder, count) for _ in range(1 if count == 1_000_000 else RAMPS)]
            spans = sorted(ramp.ramp_s or 0.0 for ramp in ramps)
            rates = [f"{count / span:,.0f}" for span in (statistics.median(spans), spans[-1], spans[0])]
            value = f"{rates[0]}/s ({rates[1]} to {rates[2]})" if len(spans) > 1 else f"{spans[0]:.1f} s, {rates[0]}/s"
            say(
                f"opening {count:,} in one process on each end",
                value,
                f"at least {target}" if "sec" in target else target,
            )
            holder.ramp(count)
            share = (private_bytes(holder) - user_bytes) / count
            say(f"  user memory of the client for each of {count:,}", f"{share:.1f} bytes", "at most 64 bytes")


def opened(server: Server, holder: Holder, count: int) -> Ramped:
    """A ramp from nothing."""
    holder.drop()
    server.wait_until_idle(60)
    ramped = holder.ramp(count)
    assert (ramped.open_count, ramped.failure) == (count, None)
    return ramped


def private_bytes(holder: Holder) -> int:
    """Memory of the client's process that it shares with nobody."""
    text = Path(f"/proc/{holder.sessions[0]}/smaps_rollup").read_text(encoding="ascii")
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Private_"))


def opening_against_wrk() -> None:
    """``wrk`` opens as many connections and sends on each; how soon the server has them, in turn with ours."""
    if shutil.which("wrk") is None:
        print("opening against wrk: left out, wrk is missing")
        return
    ratios = sorted(theirs_s() / ours_s() for _ in range(RAMPS))
    value = f"{statistics.median(ratios):.2f}× ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    say(f"opening {AGAINST_WRK:,}: our rate over that of wrk -c", value, "at least 1.5×")


def ours_s() -> float:
    """The time from the first connection to the last echo."""
    options = ServerOptions(capacity_count=AGAINST_WRK)
    with MODELS["epoll"].start(options) as server, Holder(server.port, AGAINST_WRK) as holder:
        return opened(server, holder, AGAINST_WRK).ramp_s or 0.0


def theirs_s() -> float:
    """The time from the first connection that the server has to the last one; what wrk does before is not counted."""
    options = ServerOptions(capacity_count=AGAINST_WRK)
    with MODELS["epoll"].start(options) as server:
        command = ["wrk", "-t", "2", "-c", str(AGAINST_WRK), "-d", "3s", f"http://127.0.0.1:{server.port}/"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                while not server.status()["open_count"]:
                    pass
                start = time.perf_counter()
                while server.status()["open_count"] < AGAINST_WRK:
                    assert process.poll() is None, "wrk ended before it had opened all"
                    time.sleep(0.001)
                return time.perf_counter() - start
            finally:
                process.kill()


class Waiting:
    """CPU time of this process, and wall time, while it waits for a helper that measures."""

    def __init__(self) -> None:
        self.cpu_s = self.wall_s = 0.0
        self.receive = native.Helper.receive

    def __call__(self, helper: native.Helper, timeout_s: float = 30.0) -> native.Message:
        cpu, wall = time.thread_time(), time.perf_counter()
        try:
            return self.receive(helper, timeout_s)
        finally:
            self.cpu_s += time.thread_time() - cpu
            self.wall_s += time.perf_counter() - wall


def _measured(waiting: Waiting) -> Callable[[native.Helper, float], native.Message]:
    """``Helper.receive`` with its CPU and wall time added to ``waiting``."""

    def receive(helper: native.Helper, timeout_s: float = 30.0) -> native.Message:
        return waiting(helper, timeout_s)

    return receive


def display_share() -> None:
    """What the displaying process itself uses while helpers measure, with the live table on a terminal."""
    for arguments in (["fork-latency"], ["connections", "--to", "10000"]):
        waiting = Waiting()
        native.Helper.receive = _measured(waiting)  # type: ignore[method-assign]
        cpu, wall = time.process_time(), time.perf_counter()
        on_a_terminal([*arguments, "--format", "table"])
        native.Helper.receive = waiting.receive  # type: ignore[method-assign]
        share = waiting.cpu_s / waiting.wall_s * 100
        whole = (time.process_time() - cpu) / (time.perf_counter() - wall) * 100
        say(f"{arguments[0]}: CPU of the display while helpers measure", f"{share:.1f} % of a core", "under 3 %")
        say("  the same over the whole run, reading /proc included", f"{whole:.1f} % of a core", "none")


def on_a_terminal(arguments: list[str]) -> None:
    """Run the command in this process with stderr on a terminal whose output is thrown away."""
    leader, follower = pty.openpty()
    reader = threading.Thread(target=_drain, args=(leader,), daemon=True)
    reader.start()
    kept = os.dup(2)
    os.dup2(follower, 2)
    try:
        run(arguments)
    finally:
        os.dup2(kept, 2)
        os.close(follower)
    reader.join(5)


def _drain(descriptor: int) -> None:
    """Read until the terminal's other side is closed."""
    try:
        while os.read(descriptor, 1 << 16):
            pass
    except OSError:
        pass


if __name__ == "__main__":
    print(f"benchmark in {Path(__file__).name}, {os.cpu_count()} CPUs")
    main()
