"""How much of a window CPUs had nothing to do: known answers, and the machine's own file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from c10k_probe.observe import idle
from c10k_probe.observe.idle import IdleWatch, idle_s

TEXT = """cpu  90 1 30 3000 70 2 5 0 0 0
cpu0 40 0 10 1000 50 1 2 0 0 0
cpu1 50 1 20 2000 20 1 3 0 0 0
intr 12345
"""


def test_idle_time_is_idle_and_iowait_of_the_cpus_that_were_asked_for() -> None:
    assert idle_s(TEXT, [0], 100) == 10.5
    assert idle_s(TEXT, [1], 100) == 20.2
    assert idle_s(TEXT, [0, 1], 100) == pytest.approx(30.7)
    assert idle_s(TEXT, [0, 7], 100) is None, "a CPU that is not there is not idle"
    assert idle_s(TEXT, [], 100) is None


def test_a_watch_reads_after_either_moment_and_tells_the_share_of_all_its_cpus(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock, stat, ticks = [100.0], tmp_path / "stat", os.sysconf("SC_CLK_TCK")
    monkeypatch.setattr(idle.time, "monotonic", lambda: clock[-1])
    monkeypatch.setattr(idle, "_STAT", stat)
    watch = IdleWatch([0, 1], 0.25, 0.75)
    assert watch.until_next_s() == 0.25
    watch.look()
    assert watch.until_next_s() == 0.25, "too early: nothing was read"
    for now_s, idle_ticks in ((100.25, 0), (100.75, 0.2 * ticks)):
        clock.append(now_s)
        stat.write_text(f"cpu0 0 0 0 {round(idle_ticks)} 0\ncpu1 0 0 0 0 0\n", encoding="ascii")
        assert watch.idle_pct() is None
        watch.look()
    assert watch.idle_pct() == pytest.approx(100 * 0.2 / (0.5 * 2))
    assert watch.until_next_s() == float("inf")


def test_the_machine_tells_of_each_cpu_that_may_be_used() -> None:
    text = Path("/proc/stat").read_text(encoding="ascii")
    assert all(idle_s(text, [cpu], os.sysconf("SC_CLK_TCK")) is not None for cpu in os.sched_getaffinity(0))
