"""``fork-latency`` on real processes: counts are exact, statistics are recomputed another way, order holds."""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import pytest
from c10k_probe.experiments._creation_rows import ForkLatencyRow
from command import only_run_folder, rows_of, run, run_inside

from c10k_probe import results
from c10k_probe.experiment import columns

METHODS = ("fork", "vfork", "posix_spawn", "clone3", "pthread_create")
LINKINGS = ("dynamic", "static")
INTERVALS = ("return", "started", "cycle")
SIGNS = ("started", "exec")  # of life: in the child's first instruction, or in main of the executed program
CellKey = tuple[str, str]


def measured(cwd: Path, *arguments: object) -> dict[CellKey, dict[str, str]]:
    """Run with these arguments; the rows of the CSV on stdout by method and linking."""
    finished = run_inside("fork-latency", "--csv", "-", *arguments, cwd=cwd)
    assert finished.code == 0, finished.stderr
    rows = rows_of(finished.stdout)
    by_cell = {(row["method"], row["linking"]): row for row in rows}
    assert len(by_cell) == len(rows)
    return by_cell


def raw_samples(cwd: Path) -> dict[CellKey, list[dict[str, list[int]]]]:
    """The launches of each cell, in the order of their blocks, from the run folder's raw samples."""
    launches = defaultdict(list)
    stored = results.load(only_run_folder(cwd))
    for record in sorted(stored.samples, key=lambda record: record["block"]):
        launches[record["key"]["method"], record["key"]["linking"]].append(record["values"])
    return dict(launches)


@pytest.mark.parametrize(("n", "repeats"), [(23, 5), (3, 7), (1, 1), (20, 20)])
def test_n_samples_exactly(tmp_path: Path, n: int, repeats: int) -> None:
    """n is neither rounded up to nor down to a multiple of the launches, in any cell."""
    rows = measured(tmp_path, "--n", n, "--repeats", repeats, "--budget", "20s")
    assert set(rows) == set(product(METHODS, LINKINGS))
    assert {row["n_count"] for row in rows.values()} == {str(n)}
    assert {row["launches_count"] for row in rows.values()} == {str(min(n, repeats))}
    assert {row["dropped_count"] for row in rows.values()} == {"0"}
    for launches in raw_samples(tmp_path).values():
        signs = {name for launch in launches for name in SIGNS if name in launch}
        assert {sum(len(launch[name]) for launch in launches) for name in ("return", "cycle", *signs)} == {n}
        assert len(signs) == 1


def test_only_the_chosen_cells(tmp_path: Path) -> None:
    """Comma lists choose methods and linkings, and nothing else is started."""
    rows = measured(tmp_path, "--n", 5, "--repeats", 1, "--method", "vfork,clone3", "--linking", "static")
    assert set(rows) == {("vfork", "static"), ("clone3", "static")}
    assert set(raw_samples(tmp_path)) == set(rows)


def test_placements_are_cells_of_their_own(tmp_path: Path) -> None:
    """Two placements give two rows with the same method and linking."""
    arguments = ["--n", 5, "--repeats", 1, "--method", "fork", "--linking", "static"]
    finished = run_inside("fork-latency", "--csv", "-", "--placement", "one-cpu,any-cpu", *arguments, cwd=tmp_path)
    assert sorted(row["placement"] for row in rows_of(finished.stdout)) == ["any-cpu", "one-cpu"]


def test_what_samples_cannot_tell_is_empty(tmp_path: Path) -> None:
    """No p99 from 100 samples, no interval from one launch, no ratio without the base; the rest is there."""
    row = measured(tmp_path, "--n", 100, "--repeats", 1, "--method", "fork", "--linking", "static")["fork", "static"]
    for name in INTERVALS:
        empty = {f"{name}_p50_lo_ns", f"{name}_p50_hi_ns", f"{name}_p99_ns"}
        empty |= {f"{name}{part}_ratio" for part in ("", "_lo", "_hi")}
        full = {f"{name}_{part}_ns" for part in ("p50", "p90", "min", "max")}
        assert {column for column in empty | full if row[column] == ""} == empty
    assert row["grade"] == "shaky"


NAMES = [column.name for column in columns(ForkLatencyRow)]
TRACED = set(NAMES[NAMES.index("traced_by") + 1 : NAMES.index("status")])  # of traced launches only


def test_many_samples_fill_every_column(tmp_path: Path) -> None:
    """With launches and samples enough all that applies is there, and each interval holds its median."""
    arguments = ["--n", 1000, "--repeats", 10, "--method", "vfork,pthread_create", "--linking", "static,dynamic"]
    for (method, linking), row in measured(tmp_path, *arguments).items():
        empty = {name for name, text in row.items() if text == "" and not name.endswith("reason")}
        prefixes = {"exec_", "stall_", "spawned_"}  # nothing is executed, and no loop ticks
        prefixes |= TRACED
        prefixes |= {"child_faults_"} if method == "pthread_create" else {"stack_"}
        prefixes |= {"over_static_"} if linking == "static" else set()
        assert {name for name in empty if not name.startswith(tuple(prefixes))} == {"aftershock_p99_ns"} & empty
        assert all(any(name.startswith(prefix) for name in empty) for prefix in prefixes)
        for name in INTERVALS:
            low, middle, high = (float(row[f"{name}_p50{end}_ns"]) for end in ("_lo", "", "_hi"))
            assert low <= middle <= high
            low, middle, high = (float(row[f"{name}{end}_ratio"]) for end in ("_lo", "", "_hi"))
            assert low <= middle <= high


def quantile_of(samples: Sequence[int], share: float) -> float:
    """Linear interpolation between the sorted samples, written out."""
    ordered = sorted(samples)
    position = (len(ordered) - 1) * share
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def test_rows_follow_from_the_raw_samples(tmp_path: Path) -> None:
    """Medians, quantiles, extremes and ratios, computed again from samples.jsonl by other means."""
    rows = measured(tmp_path, "--n", 103, "--repeats", 6)
    launches = raw_samples(tmp_path)
    for (method, linking), row in rows.items():
        for name in [name for name in (*INTERVALS, "exec") if name in launches[method, linking][0]]:
            arm = [launch[name] for launch in launches[method, linking]]
            base = [launch[name] for launch in launches["pthread_create", linking]] if name != "exec" else arm
            pooled = [value for launch in arm for value in launch]
            middle, base_middle = (statistics.median(map(statistics.median, item)) for item in (arm, base))
            expected = {
                f"{name}_p50_ns": middle,
                f"{name}_p90_ns": quantile_of(pooled, 0.9),
                f"{name}_min_ns": min(pooled),
                f"{name}_max_ns": max(pooled),
            }
            expected |= {f"{name}_ratio": middle / base_middle} if name != "exec" else {}
            assert {column: float(row[column]) for column in expected} == pytest.approx(expected, rel=1e-9)


def test_samples_obey_the_definition_of_the_intervals(tmp_path: Path) -> None:
    """In every single sample the cycle holds the other two; who suspends the caller returns after the child began."""
    measured(tmp_path, "--n", 50, "--repeats", 2)
    for (method, _), launches in raw_samples(tmp_path).items():
        for launch in launches:
            began_by = next(name for name in SIGNS if name in launch)
            for returned, began, cycle in zip(*(launch[name] for name in ("return", began_by, "cycle")), strict=True):
                assert 0 < returned <= cycle
                assert 0 < began <= cycle
                if method in ("vfork", "clone3"):
                    assert began <= returned


def test_ratio_to_itself_is_one(tmp_path: Path) -> None:
    """pthread_create over pthread_create, with its interval, is 1."""
    rows = measured(tmp_path, "--n", 60, "--repeats", 6, "--method", "pthread_create")
    for row in rows.values():
        for name, end in product(INTERVALS, ("", "_lo", "_hi")):
            assert float(row[f"{name}{end}_ratio"]) == 1


@pytest.mark.alone
def test_vfork_returns_before_fork(tmp_path: Path) -> None:
    """What copies no page tables comes back sooner; order alone is asserted.

    In a parent of some size: beside a busy neighbour the switch to the child and back may cost more than a small copy.
    """
    rows = measured(tmp_path, "--n", 200, "--method", "fork,vfork", "--repeats", 5, "--rss", "64MiB")
    for linking in LINKINGS:
        assert float(rows["vfork", linking]["return_p50_ns"]) < float(rows["fork", linking]["return_p50_ns"])


def test_facts_of_the_creating_process(tmp_path: Path) -> None:
    """A static program has fewer mappings and less memory than a dynamic one; nobody else is alive meanwhile."""
    rows = measured(tmp_path, "--n", 2, "--repeats", 1, "--method", "fork")
    dynamic, static = (rows["fork", linking] for linking in LINKINGS)
    for column in ("rss_bytes", "mappings_count"):
        assert 0 < int(static[column]) < int(dynamic[column])
    assert dynamic["alive_count"] == static["alive_count"] == "0"
    assert int(static["descriptors_count"]) >= 3


def test_23_forks_are_23_in_the_kernels_own_count(tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    """strace sees exactly n system calls that create a process in the helper, and the aftershock's beside them."""
    trace = tmp_path / "trace"
    strace = [require_tool("strace"), "-f", "-qq", "-s", "4096", "-o", str(trace)]
    calls = ["-e", "trace=fork,vfork,clone,clone3,execve", "-e", "signal=none"]
    arguments = ["--n", 23, "--repeats", 1, "--warmup", 0, "--method", "fork", "--linking", "static"]
    arguments += ["--budget", "20s"]  # under strace on a busy machine a launch takes its time
    finished = run("fork-latency", *arguments, cwd=tmp_path, wrapper=[*strace, *calls])
    assert finished.code == 0, finished.stderr
    lines = trace.read_text(encoding="utf-8", errors="replace").splitlines()
    creations = [line.split()[0] for line in lines if re.match(r"\d+ +(v?fork|clone3?)\(", line)]
    helpers = {line.split()[0] for line in lines if "execve(" in line and 'fork_latency-static", "--method"' in line}
    (helper,) = helpers
    aftershocks = max(3, 23 // 5)
    assert len(raw_samples(tmp_path)["fork", "static"][0]["aftershock"]) == aftershocks
    assert creations.count(helper) == 23 + aftershocks


def test_same_seed_same_order(tmp_path: Path) -> None:
    """The seed decides the order of the cells in every block; each block holds each cell once."""
    orders = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        measured(tmp_path / name, "--n", 6, "--repeats", 3, "--seed", 11, "--method", "fork,vfork,clone3")
        stored = results.load(only_run_folder(tmp_path / name))
        orders.append([(record["block"], *record["key"].values()) for record in stored.samples])
    assert orders[0] == orders[1]
    assert len(set(orders[0])) == len(orders[0]) == 3 * 3 * 2
    assert [order[0] for order in orders[0]] == [block for block in range(3) for _ in range(6)]
