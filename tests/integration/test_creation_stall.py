"""``fork-latency --stall``: the parent's own loop beside one that spawns nothing, from the command to the picture."""

from __future__ import annotations

from pathlib import Path

from command import only_run_folder, run_inside
from test_creation import measured

from c10k_probe import results


def test_the_parents_stall(tmp_path: Path) -> None:
    """A loop alone, and the same loop while it spawns: ticks in both, creations in the second only."""
    arguments = ["--stall", "--rate", 200, "--budget", "100ms", "--repeats", 2, "--warmup", 3, "--rss", "1MiB"]
    rows = measured(tmp_path, *arguments, "--method", "fork,vfork,pthread_create", "--linking", "static")
    assert [row["method"] for row in rows].count("none") == 1
    assert len(rows) == 4
    for row in rows:
        assert float(row["stall_p50_ns"]) <= float(row["stall_p99_ns"]) <= float(row["stall_max_ns"])
        assert row["n_count"] == row["spawned_count"]
        assert row["placement"] == "any-cpu"
        assert (row["cycle_p50_ns"], row["aftershock_p50_ns"]) == ("", "")  # nobody waits in this loop
        if row["method"] == "none":
            assert (row["spawned_count"], row["return_p50_ns"], row["stall_after_p50_ns"]) == ("0", "", "")
        else:
            assert 0 < int(row["spawned_count"]) <= 200 * 2 // 10
            for name in ("return", "started", "stall_after"):
                assert float(row[f"{name}_p50_ns"]) > 0
        assert "stall" in row["grade_reason"]  # two launches have no interval
        assert "budget" not in row["grade_reason"]
    launches = results.load(only_run_folder(tmp_path)).samples
    assert len(launches) == 8
    assert min(len(record["values"]["stall"]) for record in launches) > 0
    warmups = {record["key"]["method"]: record["facts"]["warmups_count"] for record in launches}
    assert warmups == {"none": 0, "fork": 3, "vfork": 3, "pthread_create": 3}
    drawn = run_inside("plot", only_run_folder(tmp_path), cwd=tmp_path)
    assert drawn.stdout.startswith("How late the parent's first tick after a creation is")
