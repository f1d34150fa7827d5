"""Walls in mid-ramp: the row says which and at what count, what was measured is kept, the next model runs, exit 3."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from command import Finished, limited, only_run_folder, rows_of, run, run_here, started
from conftest import cannot_run

import c10k_probe
from c10k_probe import limits, results

NOBODY = 65534
DESCRIPTORS, TASKS = 200, 60
Rows = list[dict[str, str]]


def by_model(text: str, model: str) -> Rows:
    """The rows of one model of a CSV text."""
    return [row for row in rows_of(text) if row["model"] == model]


def assert_stopped_at_a_wall(rows: Rows, name: str, limit: int) -> None:
    """All rows but the last are good; the last names the wall, its number and the count that was reached."""
    *before, last = rows
    assert before
    assert {row["status"] for row in before} == {"ok"}
    assert all(row["open_count"] == row["target_count"] for row in before)
    assert last["status"] == "failed"
    assert last["reason"].startswith(f"{name}: ")
    assert re.search(rf"\b{limit}\b", last["reason"])
    reached = int(last["open_count"])
    assert int(before[-1]["open_count"]) < reached < min(limit, int(last["target_count"]))
    assert f"at {reached} connections" in last["reason"]
    if last["established_count"] != last["open_count"]:  # others' sockets come and go while the kernel lists them
        assert last["grade"] == "void"
    assert last["echo_failed_count"] == "0"


def assert_told_apart(row: dict[str, str], name: str) -> None:
    """The columns name the limit, say that it is a setting, and what was predicted is about what was reached."""
    assert (row["wall"], row["wall_kind"], row["predicted_wall"]) == (name, "administrative", name)
    assert int(row["predicted_count"]) == pytest.approx(int(row["open_count"]), abs=8)
    used = dict(part.split("=") for part in row["walls_used"].split())
    before, now = used[name].split("/")[0].split("..")
    assert int(before) < int(now)


def test_descriptors(tmp_path: Path) -> None:
    """With 200 descriptors a process the loop ends below 200; processes share the number and go on to the end."""
    arguments = ["--to", 250, "--steps", 4, "--model", "poll,fork", "--probe-time", "20ms", "--csv", "-"]
    finished = run("connections", *arguments, cwd=tmp_path, wrapper=limited("RLIMIT_NOFILE", DESCRIPTORS))
    assert finished.code == 3, finished.stderr
    assert "Traceback" not in finished.stderr
    assert_stopped_at_a_wall(by_model(finished.stdout, "poll"), "descriptors", DESCRIPTORS)
    assert_told_apart(by_model(finished.stdout, "poll")[-1], "descriptors")
    assert {row["status"] for row in by_model(finished.stdout, "fork")} == {"ok"}
    assert by_model(finished.stdout, "fork")[-1]["open_count"] == "250"
    stored = results.load(only_run_folder(tmp_path))
    assert (stored.state, stored.facts["exit_code"]) == ("finished", 3)
    assert len(stored.rows) == len(rows_of(finished.stdout))


@pytest.fixture
def as_nobody(tmp_path: Path, require_root: None, require_tool: Callable[[str], str]) -> Callable[..., Finished]:
    """Runs the command as an unprivileged user with a limit of tasks, in a folder that this user may write."""
    setpriv = require_tool("setpriv")
    user = ["--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
    wrapper = [*limited("RLIMIT_NPROC", TASKS), setpriv, *user]
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    os.chown(tmp_path, NOBODY, NOBODY)
    with started("list", cwd=tmp_path, wrapper=wrapper) as probe:
        if probe.finish().code != 0:
            cannot_run(
                f"the package in {Path(c10k_probe.__file__).parent} or its Python cannot be read by user {NOBODY}"
            )
    return lambda *arguments: run(*arguments, cwd=tmp_path, wrapper=wrapper)


@pytest.mark.alone
def test_tasks(as_nobody: Callable[..., Finished], tmp_path: Path) -> None:
    """With 60 tasks for the user, processes and threads end below 60, and the loop does not notice."""
    finished = as_nobody(
        "connections", "--model", "fork,thread,epoll", "--to", 100, "--steps", 4, "--probe-rate", 0, "--csv", "-"
    )
    assert finished.code == 3, finished.stderr
    assert "Traceback" not in finished.stderr
    for model in ("fork", "thread"):
        assert_stopped_at_a_wall(by_model(finished.stdout, model), "user-tasks", TASKS)
    assert {row["status"] for row in by_model(finished.stdout, "epoll")} == {"ok"}
    assert results.load(only_run_folder(tmp_path)).facts["exit_code"] == 3


def test_unprivileged_run_is_whole(as_nobody: Callable[..., Finished]) -> None:
    """Without root everything is measured; what cannot be read is said, not guessed."""
    finished = as_nobody("connections", "--model", "epoll", "--to", 30, "--probe-time", "20ms", "--csv", "-")
    assert finished.code == 0, finished.stderr
    rows = rows_of(finished.stdout)
    assert rows[-1]["open_count"] == rows[-1]["established_count"] == "30"
    assert int(rows[-1]["user_bytes"]) > 0


def test_memory_guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Refused at a step, the ramp stops there: a row without a measurement that says so, and all rows before it."""
    asked: list[float] = []

    def refuse_the_third(growth_bytes: float) -> str | None:
        asked.append(growth_bytes)
        return "memory of the machine: too little for this test" if len(asked) == 3 else None

    monkeypatch.setattr(limits, "memory_guard", refuse_the_third)
    monkeypatch.chdir(tmp_path)
    code = run_here("connections", "--to", 40, "--steps", 5, "--model", "epoll", "--probe-rate", 0, "--csv", "-")
    rows = rows_of(capfd.readouterr().out)
    assert code == 3
    assert [row["status"] for row in rows] == ["ok", "ok", "failed"]
    assert rows[-1]["reason"].startswith("memory guard: memory of the machine")
    assert (rows[-1]["grade"], rows[-1]["open_count"], rows[-1]["user_bytes"]) == ("void", "", "")
    assert all(growth > 0 for growth in asked)


def test_a_cell_that_cannot_start_is_skipped(tmp_path: Path) -> None:
    """Too few descriptors for even one connection: nothing is started, the wall is named, exit 77."""
    arguments = ["connections", "--to", 10, "--model", "epoll", "--csv", "-"]
    finished = run(*arguments, cwd=tmp_path, wrapper=limited("RLIMIT_NOFILE", 20))
    assert finished.code == 77, finished.stderr
    (row,) = rows_of(finished.stdout)
    assert (row["model"], row["status"], row["grade"]) == ("epoll", "skipped", "void")
    assert row["reason"].startswith("descriptors: ")
    assert row["open_count"] == ""
