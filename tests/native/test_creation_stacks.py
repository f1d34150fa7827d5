"""fork_latency --stack-probe: stacks mapped for threads kept alive and for joined ones, as the kernel counts them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import cannot_run

from c10k_probe import native
from native.driving import run
from native.test_fork_latency import take

THREADS = 16


@pytest.mark.parametrize("linking", native.LINKINGS)
def test_threads_that_live_have_a_stack_each_and_joined_ones_share(linking: str) -> None:
    """Of this C library: it keeps the stack of a thread that ended, and gives it to the next."""
    facts = take("pthread_create", "--warmup", 2, "--stack-probe", THREADS, linking=linking).only("facts")

    assert facts["probed_threads_count"] == THREADS < facts["probe_creations_count"]
    assert facts["stack_bytes"] > 0
    assert facts["kept_mapped_bytes"] // facts["stack_bytes"] == THREADS
    assert facts["joined_mapped_bytes"] == 0
    assert 0 < facts["kept_anonymous_bytes"] < facts["kept_mapped_bytes"]


def test_it_counts_the_stacks_that_strace_counts(require_tool: Callable[[str], str], tmp_path: Path) -> None:
    """mmap with MAP_STACK, of the whole launch: the first creation, the fillers but one, and those kept alive."""
    report = tmp_path / "calls"
    arguments = ["--method", "pthread_create", "--samples", "5", "--stack-probe", str(THREADS)]
    command = [require_tool("strace"), "-f", "-e", "trace=mmap,clone,clone3", "-o", str(report)]
    done = subprocess.run(
        [*command, str(native.find("fork_latency")), *arguments], capture_output=True, check=False, timeout=30
    )
    if done.returncode != 0:
        cannot_run("strace may not trace here (ptrace is forbidden)")
    text = report.read_text(encoding="ascii", errors="replace")
    facts = take("pthread_create", "--stack-probe", THREADS, samples=5).only("facts")
    fillers = facts["probe_creations_count"] - 2 * THREADS

    assert len(re.findall(r"clone3?\(", text)) == 5 + facts["probe_creations_count"]
    assert text.count("MAP_STACK") == 1 + (fillers - 1) + facts["kept_mapped_bytes"] // facts["stack_bytes"]


def test_other_methods_have_no_stacks_to_probe() -> None:
    outcome = run("fork_latency", "--method", "fork", "--samples", 1, "--stack-probe", 4)

    assert (outcome.code, outcome.messages) == (2, [])
    assert "--stack-probe" in outcome.stderr
    assert take("pthread_create").only("facts")["probed_threads_count"] is None
