"""``fork-latency`` in full depth: every method, every axis of the parent's state, aftershocks, walls and bad input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from command import complaint_of, limited, only_run_folder, rows_of, run, run_folders, run_inside
from conftest import cannot_run

from c10k_probe import native, results

MIB = 1 << 20
SLACK_BYTES = MIB // 2  # pages touched by reading /proc, counters that the kernel keeps by CPU
WRITTEN_PAGES = 256  # of the aftershock: 1 MiB
FEW_FAULTS = 2
THREADS = ("pthread_create", "pthread_create_64k", "pthread_create_detached")
C_METHODS = (
    "fork",
    "vfork",
    "posix_spawn",
    "clone3",
    *THREADS,
    "fork_exec_static",
    "fork_exec_dynamic",
    "posix_spawn_static",
    "posix_spawn_dynamic",
)
# What does not apply to a method, by the columns' first words; everything else must be there.
NO_AFTERSHOCK = {"aftershock", "parent_faults"}
ABSENT: Mapping[str, set[str]] = {
    "fork": {"exec"},
    "vfork": {"exec"},
    "clone3": {"exec"},
    "posix_spawn": {"started"},
    "posix_spawn_static": {"started"},
    "posix_spawn_dynamic": {"started"},
    "fork_exec_static": set(),
    "fork_exec_dynamic": set(),
    "pthread_create": {"exec", "child_faults"},
    "pthread_create_64k": {"exec", "child_faults"},
    "pthread_create_detached": {"exec", "child_faults", "cycle"},
    "os.fork": {"exec", *NO_AFTERSHOCK},
    "subprocess.Popen": {"started", "child_faults", *NO_AFTERSHOCK},
    "multiprocessing.Process": {"exec", "child_faults", *NO_AFTERSHOCK},
    "threading.Thread": {"exec", "child_faults", *NO_AFTERSHOCK},
    "asyncio.create_task": {"exec", "child_faults", *NO_AFTERSHOCK},
}
WORDS = ("return", "started", "exec", "cycle", "aftershock", "stall")
Rows = list[dict[str, str]]


def measured(cwd: Path, *arguments: object) -> Rows:
    """Run with these arguments; the rows of the CSV on stdout, all of them well."""
    finished = run_inside("fork-latency", "--csv", "-", *arguments, cwd=cwd)
    assert finished.code == 0, finished.stderr
    rows = rows_of(finished.stdout)
    assert {row["status"] for row in rows} == {"ok"}, [row["reason"] for row in rows]
    return rows


def only(rows: Rows, **wanted: object) -> dict[str, str]:
    """The one row with these values."""
    (row,) = [row for row in rows if all(row[name] == str(value) for name, value in wanted.items())]
    return row


def facts_of(cwd: Path) -> list[dict[str, Any]]:
    """Key and facts of every launch, from the raw samples."""
    stored = results.load(only_run_folder(cwd))
    return [{**record["key"], **record["facts"]} for record in stored.samples]


# --- methods ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def methods(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """Every method there is, ten samples each."""
    cwd = tmp_path_factory.mktemp("methods")
    chosen = ["--method", ",".join(ABSENT), "--linking", "dynamic,static"]
    return measured(cwd, "--n", 10, "--repeats", 1, "--budget", "20s", *chosen)


def test_every_method_gives_its_rows(methods: Rows) -> None:
    ours = {(row["method"], row["linking"]) for row in methods}
    python = set(ABSENT) - set(C_METHODS)
    assert ours == set(product(C_METHODS, ("dynamic", "static"))) | {(method, "python") for method in python}
    assert len(methods) == len(ours)
    assert {(row["n_count"], row["dropped_count"], row["launches_count"]) for row in methods} == {("10", "0", "1")}


@pytest.mark.parametrize("method", ABSENT)
def test_columns_that_do_not_apply_are_empty_and_the_others_are_not(methods: Rows, method: str) -> None:
    for row in [row for row in methods if row["method"] == method]:
        there = {word for word in WORDS if row[f"{word}_p50_ns"]}
        there |= {word for word in ("parent_faults", "child_faults") if row[f"{word}_count"]}
        assert there == {*WORDS, "parent_faults", "child_faults"} - {"stall"} - ABSENT[method]
        for word in set(WORDS) - there:
            assert {row[name] for name in row if name.startswith(f"{word}_") and name.endswith("_ns")} == {""}
        for word in there & set(WORDS):
            assert 0 < float(row[f"{word}_min_ns"]) <= float(row[f"{word}_p50_ns"]) <= float(row[f"{word}_max_ns"])


def test_the_interpreter_is_told_apart_from_c(methods: Rows) -> None:
    """Its rows have a linking of their own, and no ratio to a thread that C created."""
    for row in methods:
        is_python = row["linking"] == "python"
        assert is_python == ("." in row["method"])
        assert (row["return_ratio"] == "") == is_python
        assert row["spawned_count"] == ""


def test_fork_leaves_a_debt_and_what_shares_the_memory_leaves_none(methods: Rows) -> None:
    """Each page that the parent writes afterwards is one fault where the child has a copy."""
    for row in methods:
        if row["parent_faults_count"]:
            count = float(row["parent_faults_count"])
            copies = row["method"].startswith("fork")
            assert (count >= WRITTEN_PAGES) if copies else (count <= FEW_FAULTS), row["method"]
    for linking in ("dynamic", "static"):
        forked, shared = (only(methods, method=name, linking=linking) for name in ("fork", "vfork"))
        assert float(forked["child_faults_count"]) > 0
        assert float(shared["child_faults_count"]) <= FEW_FAULTS
    executed = only(methods, method="fork_exec_dynamic", linking="static")
    assert float(executed["child_faults_count"]) > float(
        only(methods, method="fork_exec_static", linking="static")["child_faults_count"]
    )


def test_a_detached_thread_is_not_waited_for_and_yet_gone(methods: Rows) -> None:
    row = only(methods, method="pthread_create_detached", linking="static")
    assert (row["cycle_p50_ns"], row["cycle_ratio"], row["alive_count"]) == ("", "", "0")


# --- the parent's state -----------------------------------------------------------------------------------------------

LEVELS = {"rss": 4 * MIB, "file_rss": 2 * MIB, "mappings": 50, "descriptors": 7, "alive": 3}
COLUMNS = {name: f"asked_{name}_{'bytes' if 'rss' in name else 'count'}" for name in (*LEVELS, "libraries")}


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """All combinations of nothing and a little of each axis; the facts that the kernel told of each."""
    cwd = tmp_path_factory.mktemp("states")
    arguments = [part for name, level in LEVELS.items() for part in ("--" + name.replace("_", "-"), f"0,{level}")]
    rows = measured(cwd, *arguments, "--n", 3, "--repeats", 1, "--method", "fork", "--linking", "static")
    assert len(rows) == 2 ** len(LEVELS)
    return facts_of(cwd)


def pairs(states: list[dict[str, Any]], axis: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """States without and with some of one axis, all else being the same."""

    def others(state: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(state[column] for name, column in COLUMNS.items() if name != axis)

    without = {others(state): state for state in states if state[COLUMNS[axis]] == 0}
    return [(without[others(state)], state) for state in states if state[COLUMNS[axis]]]


@pytest.mark.parametrize(
    ("axis", "fact", "slack"),
    [
        ("rss", "rss_bytes", SLACK_BYTES),
        ("rss", "private_dirty_bytes", SLACK_BYTES),
        ("file_rss", "rss_bytes", SLACK_BYTES),
        ("file_rss", "file_rss_bytes", SLACK_BYTES),
        ("mappings", "mappings_count", 1),
        ("descriptors", "descriptors_count", 0),
        ("alive", "alive_count", 0),
    ],
)
def test_what_was_asked_for_is_there(states: list[dict[str, Any]], axis: str, fact: str, slack: int) -> None:
    """In every combination with the other axes."""
    found = pairs(states, axis)
    assert len(found) == 2 ** (len(LEVELS) - 1)
    for without, with_it in found:
        assert with_it[fact] - without[fact] == pytest.approx(LEVELS[axis], abs=slack)


def test_what_was_not_asked_for_is_not_there(states: list[dict[str, Any]]) -> None:
    for without, with_it in pairs(states, "rss"):
        assert abs(with_it["file_rss_bytes"] - without["file_rss_bytes"]) <= SLACK_BYTES
        assert with_it["anon_huge_bytes"] == 0
        assert with_it["page_table_bytes"] - without["page_table_bytes"] <= 8 * LEVELS["rss"] // 4096 + 8 * 4096
    for without, with_it in pairs(states, "file_rss"):
        assert abs(with_it["private_dirty_bytes"] - without["private_dirty_bytes"]) <= SLACK_BYTES
    for without, with_it in pairs(states, "descriptors"):
        assert without["mappings_count"] == with_it["mappings_count"]


@pytest.mark.parametrize(
    ("method", "kind", "alive"),
    [
        ("fork", "threads", "threads"),
        ("pthread_create", "own", "threads"),
        ("pthread_create", "children", "children"),
    ],
)
def test_who_is_alive_is_what_was_asked_for(tmp_path: Path, method: str, kind: str, alive: str) -> None:
    arguments = ["--alive", "5", "--alive-kind", kind, "--method", method, "--linking", "static"]
    (row,) = measured(tmp_path, *arguments, "--n", 3, "--repeats", 1)
    assert (row["alive_count"], row["alive_kind"], row["asked_alive_count"]) == ("5", alive, "5")
    assert [facts["alive_kind"] for facts in facts_of(tmp_path)] == [alive]


def test_memory_may_lie_in_huge_pages(tmp_path: Path) -> None:
    if "[never]" in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text(encoding="ascii"):
        cannot_run("transparent huge pages are switched off (never)")
    arguments = ["--rss", "16MiB", "--huge-pages", "off,on", "--method", "fork", "--linking", "static"]
    measured(tmp_path, *arguments, "--n", 3, "--repeats", 1)
    huge = {facts["huge_pages"]: facts["anon_huge_bytes"] for facts in facts_of(tmp_path)}
    assert huge == {"off": 0, "on": 16 * MIB}


def test_each_library_adds_four_mappings_or_more(tmp_path: Path) -> None:
    arguments = ["--libraries", "0,8", "--method", "fork", "--linking", "dynamic,static"]
    rows = measured(tmp_path, *arguments, "--n", 3, "--repeats", 1)
    assert len(rows) == 3  # a static program loads none
    none, eight = (only(rows, linking="dynamic", asked_libraries_count=count) for count in (0, 8))
    assert int(eight["mappings_count"]) - int(none["mappings_count"]) >= 4 * 8
    assert int(eight["anonymous_bytes"]) > int(none["anonymous_bytes"])
    static = only(rows, linking="static")
    assert (float(eight["over_static_ratio"]) > 0, static["over_static_ratio"]) == (True, "")
    assert {facts["asked_libraries_count"]: facts["libraries_count"] for facts in facts_of(tmp_path)} == {0: 0, 8: 8}


def test_the_third_linking_lies_between_the_other_two(tmp_path: Path) -> None:
    arguments = ["--linking", ",".join(native.LINKINGS), "--method", "fork,vfork"]
    rows = measured(tmp_path, *arguments, "--n", 3, "--repeats", 1)
    assert {(row["method"], row["linking"]) for row in rows} == set(product(("fork", "vfork"), native.LINKINGS))
    for column in ("mappings_count", "main_mappings_count", "anonymous_bytes", "main_anonymous_bytes"):
        dynamic, static, pie = (int(only(rows, method="fork", linking=name)[column]) for name in native.LINKINGS)
        assert 0 < static < dynamic
        assert pie < dynamic
    ratios = {row["linking"]: row["over_static_ratio"] for row in rows}
    assert ratios["static"] == ""
    assert float(ratios["dynamic"]) > 0 and float(ratios["static-pie"]) > 0


def test_a_sweep_has_every_axis(tmp_path: Path) -> None:
    """Each at more than one level, beside the base; its charts have something to draw."""
    rows = measured(
        tmp_path, "--sweep", "--quick", "--n", 3, "--repeats", 1, "--method", "fork", "--linking", "dynamic"
    )
    by_axis: dict[str, Rows] = {}
    for row in rows:
        by_axis.setdefault(row["axis"], []).append(row)
    assert set(by_axis) == {"base", "huge_pages", *COLUMNS}
    for axis, column in COLUMNS.items():
        assert len({row[column] for row in by_axis[axis]}) == len(by_axis[axis]) >= 2
        for other in set(COLUMNS.values()) - {column}:
            assert {row[other] for row in by_axis[axis]} == {"0"}
    for chart in ("rss", "mappings", "libraries", "huge-pages"):
        drawn = run_inside("plot", only_run_folder(tmp_path), "--chart", chart, cwd=tmp_path)
        assert (drawn.code, drawn.stderr) == (0, "")


# --- bad input and walls ----------------------------------------------------------------------------------------------

REFUSED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("--libraries 8 --linking static", ("--libraries", "dynamic", "--linking")),
    ("--libraries 129", ("--libraries", "at most 128")),
    ("--libraries -1", ("--libraries", "at least 0")),
    ("--huge-pages on", ("--huge-pages", "--rss")),
    ("--huge-pages on --rss 1MiB", ("--huge-pages", "2MiB")),
    ("--huge-pages maybe", ("--huge-pages", "off, on")),
    ("--stall --fit", ("--stall", "--fit")),
    ("--stall --sweep", ("--stall", "--sweep")),
    ("--stall --method os.fork", ("--stall", "os.fork")),
    ("--stall --n 50", ("--n", "--stall")),
    ("--rate 50", ("--rate", "--stall")),
    ("--most-rss 1GiB", ("--most-rss", "--sweep")),
    ("--placement auto,one-cpu", ("--placement", "auto")),
    ("--linking static --linking dynamic", ("--linking", "given twice", "commas")),
    ("--rss=1MiB --n 5 --n 6 --rss 2MiB", ("--rss", "given twice")),
    ("--stall --rate 0", ("--rate", "at least 1")),
    ("--rss -1", ("--rss", "at least 0")),
    ("--rss lots", ("--rss", "'lots'", "64MiB")),
    ("--rss 4MiB,4096KiB", ("--rss", "twice")),
    ("--file-rss 5s", ("--file-rss", "5s")),
    ("--mappings 1.5", ("--mappings", "1.5", "whole")),
    ("--descriptors 1e12", ("--descriptors", "at most 10m")),
    ("--alive 2m", ("--alive", "at most 1m")),
    ("--alive-kind dogs", ("--alive-kind", "'dogs'", "own, children, threads")),
    ("--linking static-py", ("--linking", "'static-py'", "static-pie")),
    ("--budget 0", ("--budget", "at least 1ms")),
    ("--method os.spoon", ("--method", "'os.spoon'", "os.fork", "asyncio.create_task")),
)


@pytest.mark.parametrize(("line", "named"), REFUSED, ids=[line for line, _ in REFUSED])
def test_refused_in_one_line(tmp_path: Path, line: str, named: tuple[str, ...]) -> None:
    finished = run_inside("fork-latency", *line.split(), cwd=tmp_path)
    assert finished.code == 2, finished.stderr
    complaint = complaint_of(finished)
    assert [word for word in named if word not in complaint] == []
    assert run_folders(tmp_path) == []


def test_options_that_leave_nothing_are_refused(tmp_path: Path) -> None:
    """An interpreter has no state of ours."""
    finished = run_inside("fork-latency", "--method", "os.fork", "--rss", "1MiB", cwd=tmp_path)
    assert finished.code == 2
    assert "nothing to measure" in complaint_of(finished)


def test_a_state_that_an_interpreter_is_not_measured_in_is_a_skipped_row(tmp_path: Path) -> None:
    """Said, and not left out in silence."""
    arguments = ["--method", "os.fork,fork", "--linking", "static", "--rss", "0,1MiB", "--n", 3, "--repeats", 1]
    finished = run_inside("fork-latency", *arguments, "--csv", "-", cwd=tmp_path)
    assert finished.code == 0, finished.stderr
    rows = {(row["method"], row["asked_rss_bytes"]): row for row in rows_of(finished.stdout)}
    assert {key: row["status"] for key, row in rows.items()} == {
        ("fork", "0"): "ok",
        ("fork", str(MIB)): "ok",
        ("os.fork", "0"): "ok",
        ("os.fork", str(MIB)): "skipped",
    }
    assert "no state but its own" in rows["os.fork", str(MIB)]["reason"]


def test_a_budget_that_is_far_too_small_is_in_the_grade(tmp_path: Path) -> None:
    """One warm-up and three samples of a parent of 64 MiB; without a copy the same parent has nearly all of its own."""
    arguments = ["--rss", "64MiB", "--linking", "static", "--n", 200, "--repeats", 5, "--budget", "10ms"]
    rows = measured(tmp_path, *arguments, "--method", "fork,vfork")
    forked, shared = only(rows, method="fork"), only(rows, method="vfork")
    assert forked["grade"] == "shaky"
    assert "half of the warm-ups" in forked["grade_reason"] and "quarter of the samples" in forked["grade_reason"]
    assert int(forked["n_count"]) < 50
    assert "budget" not in shared["grade_reason"]
    assert 4 * int(forked["n_count"]) < int(shared["n_count"]) <= 200


def first_wall(named: tuple[str, ...]) -> Callable[[str], bool]:
    return lambda reason: reason.partition(":")[0] in named


@pytest.mark.parametrize(
    ("arguments", "walls"),
    [
        ("--rss 64TiB", ("memory", "cgroup-memory", "address-space", "commit")),
        ("--alive 1m --method fork", ("pids", "threads", "cgroup-pids", "user-tasks", "memory", "cgroup-memory")),
        ("--alive 1m --method pthread_create", ("pids", "threads", "maps", "cgroup-pids", "user-tasks", "memory")),
    ],
)
def test_a_state_beyond_a_wall_is_nothing_measured(tmp_path: Path, arguments: str, walls: tuple[str, ...]) -> None:
    """Of this machine as it is: so much no machine has."""
    common = ["--n", 3, "--repeats", 1, "--linking", "static", "--csv", "-"]
    finished = run_inside("fork-latency", *arguments.split(), *common, cwd=tmp_path)
    rows = rows_of(finished.stdout)
    assert finished.code == 77, finished.stderr
    assert {row["status"] for row in rows} == {"skipped"}
    assert all(first_wall(walls)(row["reason"]) for row in rows), rows[0]["reason"]


def test_a_wall_in_a_list_costs_its_row_alone(tmp_path: Path) -> None:
    """500 descriptors under a limit of 200: that state is skipped, with the wall; the others are measured."""
    arguments = ["--descriptors", "0,100,500", "--method", "fork", "--linking", "static", "--n", 3, "--repeats", 1]
    wrapper = limited("RLIMIT_NOFILE", 200)
    finished = run("fork-latency", *arguments, "--csv", "-", cwd=tmp_path, wrapper=wrapper)
    assert finished.code == 0, finished.stderr
    rows = {row["asked_descriptors_count"]: row for row in rows_of(finished.stdout)}
    assert {count: row["status"] for count, row in rows.items()} == {"0": "ok", "100": "ok", "500": "skipped"}
    assert first_wall(("descriptors",))(rows["500"]["reason"])
    assert "200" in rows["500"]["reason"]
    assert (rows["500"]["grade"], rows["500"]["n_count"]) == ("void", "")
    assert int(rows["100"]["descriptors_count"]) - int(rows["0"]["descriptors_count"]) == 100
    assert "skipped" in finished.stderr
