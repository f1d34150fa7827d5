"""What ``fork-latency`` says against independent witnesses: a program of the test's own, strace, and the order that the
kernel's design demands. No absolute time is asserted anywhere."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from command import only_run_folder, rows_of, run
from conftest import cannot_run

from c10k_probe import native, results

GIB = 1 << 30
LAUNCHES, SAMPLES, WARMUP = 15, 1000, 20
AGREEMENT = 1.15
# Knows nothing of the helper: fork, _exit, waitpid between two readings of the clock, printed one a line.
WITNESS = r"""
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(int argc, char **argv) {
    int cpu = atoi(argv[1]), warmup = atoi(argv[2]), count = atoi(argv[3]);
    long long *took = calloc(warmup + count, sizeof *took);
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (argc != 4 || sched_setaffinity(0, sizeof set, &set) != 0)
        return 1;
    for (int i = 0; i < warmup + count; i++) {
        long long start = now();
        pid_t child = fork();
        if (child == 0)
            _exit(0);
        if (child < 0 || waitpid(child, NULL, 0) != child)
            return 1;
        took[i] = now() - start;
    }
    for (int i = warmup; i < warmup + count; i++)
        printf("%lld\n", took[i]);
    return 0;
}
"""


def median_of_witness(program: Path, cpu: int) -> float:
    """One launch of the test's own program."""
    command = [str(program), str(cpu), str(WARMUP), str(SAMPLES)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    assert len(lines) == SAMPLES
    return statistics.median(map(int, lines))


def median_of_helper(linking: str, cpu: int) -> float:
    """One launch of the helper, as the experiment launches it."""
    arguments = ["--method", "fork", "--samples", SAMPLES, "--warmup", WARMUP, "--placement", "one-cpu", "--cpu", cpu]
    with native.Helper("fork_latency", arguments, linking) as helper:
        helper.expect("facts")
        samples = helper.expect("samples")
        helper.finish()
    assert len(samples["cycle_ns"]) == SAMPLES
    return statistics.median(samples["cycle_ns"])


@pytest.mark.parametrize("linking", ["dynamic", "static"])
def test_the_cycle_of_fork_agrees_with_an_independent_program(
    tmp_path: Path, require_tool: Callable[[str], str], linking: str
) -> None:
    """Within 15 %, linked alike, on the same CPU, in launches that alternate; the median of launches' medians."""
    source, program = tmp_path / "witness.c", tmp_path / "witness"
    source.write_text(WITNESS, encoding="ascii")
    options = ["-static"] if linking == "static" else []
    subprocess.run([require_tool("gcc"), "-O2", *options, "-o", str(program), str(source)], check=True)
    cpu = max(os.sched_getaffinity(0))
    witnessed, ours = [], []
    for launch in range(LAUNCHES):
        if launch % 2:  # who comes first alternates too
            witnessed.append(median_of_witness(program, cpu))
        ours.append(median_of_helper(linking, cpu))
        if not launch % 2:
            witnessed.append(median_of_witness(program, cpu))
    ratio = statistics.median(ours) / statistics.median(witnessed)
    assert 1 / AGREEMENT < ratio < AGREEMENT, (sorted(ours), sorted(witnessed))


CREATIONS = ("fork", "vfork", "clone", "clone3")
METHODS = ("fork", "vfork", "posix_spawn", "clone3", "pthread_create", "fork_exec_static", "posix_spawn_dynamic")
TRACED = re.compile(r"(\d+) +(v?fork|clone3?|execve)\((.*)")


def test_the_kernel_counts_what_the_rows_count(tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    """strace over the whole command: each method's launches made just as many system calls that create a task."""
    trace = tmp_path / "trace"
    calls = ["-e", f"trace={','.join(CREATIONS)},execve", "-e", "signal=none"]
    strace = [require_tool("strace"), "-f", "-qq", "-s", "4096", "-o", str(trace), *calls]
    arguments = ["--n", 23, "--repeats", 2, "--warmup", 0, "--linking", "static", "--budget", "20s"]
    chosen = ["--method", ",".join(METHODS)]
    finished = run("fork-latency", *arguments, *chosen, "--csv", "-", cwd=tmp_path, wrapper=strace)
    if "PTRACE" in finished.stderr:
        cannot_run("strace may not trace here (ptrace is forbidden)")
    assert finished.code == 0, finished.stderr
    reported: Counter[str] = Counter()
    for record in results.load(only_run_folder(tmp_path)).samples:
        made = len(record["values"]["return"]) + len(record["values"]["aftershock"])
        reported[record["key"]["method"]] += made + (record["facts"]["probe_creations_count"] or 0)
    assert {row["method"]: int(row["n_count"]) for row in rows_of(finished.stdout)} == dict.fromkeys(METHODS, 23)
    counted, method_of = Counter[str](), {}
    for line in trace.read_text(encoding="utf-8", errors="replace").splitlines():
        if match := TRACED.match(line):
            pid, call, rest = match.groups()
            if call == "execve" and (method := re.search(r'"--method", "(\w+)"', rest)) and "fork_latency" in rest:
                method_of[pid] = method.group(1)
            elif call != "execve" and pid in method_of:
                counted[method_of[pid]] += 1
    assert sorted(method_of.values()) == sorted(METHODS * 2)
    assert counted == reported


@pytest.mark.parametrize("method", ["fork", "vfork", "clone3", "pthread_create"])
def test_strace_counts_the_same(tmp_path: Path, require_tool: Callable[[str], str], method: str) -> None:
    """Its own summary (-c) of one launch of the helper, by name of the call."""
    program, report = str(native.find("fork_latency", "static")), tmp_path / "counts"
    arguments = [program, "--method", method, "--samples", "23", "--warmup", "0", "--aftershock", "5"]
    done = subprocess.run(
        [require_tool("strace"), "-f", "-c", "-o", str(report), *arguments], capture_output=True, check=False
    )
    if done.returncode != 0:
        cannot_run("strace may not trace here (ptrace is forbidden)")
    lines = [line.split() for line in report.read_text(encoding="ascii").splitlines()]
    counts = {words[-1]: int(words[3]) for words in lines if len(words) >= 5 and words[3].isdigit()}
    created = {name: counts[name] for name in CREATIONS if name in counts}
    assert sum(created.values()) == 23 + 5
    if method in ("vfork", "clone3"):
        assert created == {method: 23 + 5}


def available_bytes() -> int:
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    return int(re.search(r"^MemAvailable: +(\d+) kB$", text, re.MULTILINE)[1]) * 1024  # type: ignore[index]


def test_fork_pays_for_a_gibibyte_and_vfork_does_not(tmp_path: Path) -> None:
    """Order alone: fork's return is ten times vfork's or more, and vfork's is not twice that of a small parent."""
    if available_bytes() < 3 * GIB:
        cannot_run("3 GiB of memory are not available")
    arguments = ["--rss", "0,1GiB", "--method", "fork,vfork", "--linking", "static", "--n", 10, "--repeats", 1]
    arguments += ["--warmup", 2]
    finished = run("fork-latency", *arguments, "--csv", "-", cwd=tmp_path)
    assert finished.code == 0, finished.stderr
    rows = {(row["method"], int(row["asked_rss_bytes"])): row for row in rows_of(finished.stdout)}
    returned = {key: float(row["return_p50_ns"]) for key, row in rows.items()}
    assert len(returned) == 4
    assert int(rows["vfork", GIB]["rss_bytes"]) >= GIB
    assert returned["fork", GIB] >= 10 * returned["vfork", GIB]
    assert returned["vfork", GIB] <= 2 * returned["vfork", 0]
    assert returned["fork", GIB] > returned["fork", 0]
