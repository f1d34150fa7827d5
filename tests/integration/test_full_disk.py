"""Targets that take no more: a full device, a full file system, a reader that has gone. Nothing measured is lost."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from command import COMMAND, PATIENCE_S, environment, living, only_run_folder, rows_of, run

from c10k_probe import results
from c10k_probe.experiment import columns
from c10k_probe.registry import find_experiments

SMALL = ("fork-latency", "--n", 10, "--repeats", 2, "--method", "fork")
NAMES = [column.name for column in columns(find_experiments()["fork-latency"].row_type)]


@pytest.mark.parametrize("option", ["--csv", "--json"])
def test_full_device(tmp_path: Path, option: str) -> None:
    """Everything is measured and kept in the run folder, the target is named, exit 1."""
    finished = run(*SMALL, option, "/dev/full", cwd=tmp_path)
    assert finished.code == 1
    assert "Traceback" not in finished.stderr
    lines = [line for line in finished.stderr.splitlines() if "/dev/full" in line]
    assert any("No space left on device" in line for line in lines)
    assert sum(line.startswith("c10k-probe: ") for line in lines) == 1
    stored = results.load(only_run_folder(tmp_path))
    assert [row["n_count"] for row in stored.rows] == [10, 10]
    assert (stored.state, stored.facts["exit_code"]) == ("finished", 1)


def test_full_device_as_stdout(tmp_path: Path) -> None:
    """The same when stdout itself is full."""
    with Path("/dev/full").open("wb") as full:
        command = [*COMMAND, *map(str, SMALL), "--csv", "-"]
        finished = subprocess.run(
            command, cwd=tmp_path, env=environment("stdout"), stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert finished.returncode == 1
    assert b"Traceback" not in finished.stderr
    assert b"No space left on device" in finished.stderr
    assert len(results.load(only_run_folder(tmp_path)).rows) == 2


@pytest.mark.parametrize("command", [("list",), ("show", "connections"), ("doctor",), ("--help",)])
def test_looking_around_onto_a_full_device(tmp_path: Path, command: tuple[str, ...]) -> None:
    """Also the commands that only print say so in one line and exit 1."""
    with Path("/dev/full").open("wb") as full:
        finished = subprocess.run(
            [*COMMAND, *command], cwd=tmp_path, env=environment("x"), stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert finished.returncode == 1
    assert b"Traceback" not in finished.stderr
    assert b"No space left on device" in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


@pytest.fixture
def small_disk(tmp_path: Path, require_root: None, require_tool: Callable[[str], str]) -> tuple[str, ...]:
    """A wrapper that runs a command with a file system of 96 KiB at ``small``; what is there then is copied away."""
    (tmp_path / "small").mkdir()
    unshare, mount = require_tool("unshare"), require_tool("mount")
    script = f'{mount} -t tmpfs -o size=96k none small || exit 99; "$@"; code=$?; cp -r small copied; exit $code'
    return (unshare, "-m", "sh", "-c", script, "sh")


def test_full_file_system(tmp_path: Path, small_disk: tuple[str, ...]) -> None:
    """The folder for results fills up in mid-run: what was written loads, the rows come on stderr as CSV, exit 1."""
    arguments = ["fork-latency", "--n", 2000, "--repeats", 10, "--method", "fork,vfork", "--out", "small"]
    finished = run(*arguments, cwd=tmp_path, wrapper=small_disk)
    assert finished.code == 1, finished.stderr
    assert "Traceback" not in finished.stderr
    lines = finished.stderr.splitlines()
    assert any(line.startswith("c10k-probe: run folder: No space left on device") for line in lines)
    rows = rows_of("\n".join(lines[lines.index(",".join(NAMES)) :]))
    assert sorted((row["method"], row["linking"], row["n_count"], row["status"]) for row in rows) == [
        (method, linking, "2000", "ok") for method in ("fork", "vfork") for linking in ("dynamic", "static")
    ]
    (folder,) = (path for path in (tmp_path / "copied").iterdir() if path.is_dir())
    stored = results.load(folder)
    assert stored.state == "killed"
    assert 0 < len(stored.samples) < 40
    assert all(set(row) == set(NAMES) for row in stored.rows)


def test_file_that_may_grow_no_more(tmp_path: Path, require_root: None, small_disk: tuple[str, ...]) -> None:
    """A CSV file on a full file system: no torn line in it, all rows in the run folder elsewhere."""
    filled = [*small_disk[:-2], small_disk[-2].replace('"$@"', 'head -c 94K /dev/zero >small/big; "$@"'), "sh"]
    arguments = [
        "connections",
        "--model",
        "epoll",
        "--to",
        100,
        "--steps",
        10,
        "--probe-time",
        "10ms",
        "--csv",
        "small/rows.csv",
    ]
    finished = run(*arguments, cwd=tmp_path, wrapper=filled)
    assert finished.code == 1, finished.stderr
    assert "small/rows.csv" in finished.stderr
    stored = results.load(only_run_folder(tmp_path))
    written = rows_of((tmp_path / "copied" / "rows.csv").read_text(encoding="utf-8"))
    assert len(written) <= len(stored.rows)
    assert all(None not in row.values() for row in written)


@pytest.mark.parametrize("option", ["--csv", "--json"])
def test_a_reader_that_goes(tmp_path: Path, option: str) -> None:
    """``... --csv - | head -n 1``: no traceback, no process, the run is kept whole."""
    reading, writing = os.pipe()
    mark = f"pipe{option}"
    command = [*COMMAND, *map(str, SMALL), "--repeats", "40", option, "-"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(mark), stdout=writing, stderr=subprocess.PIPE, text=True
    ) as process:
        os.close(writing)
        assert os.read(reading, 1)
        os.close(reading)
        _, said = process.communicate(timeout=PATIENCE_S)
    assert "Traceback" not in said
    assert process.returncode == 141
    assert "pipe" not in said.lower().replace(mark, "")
    assert [row["n_count"] for row in results.load(only_run_folder(tmp_path)).rows] == [10, 10]
    assert living(mark) == []


@pytest.mark.parametrize("command", [("list",), ("show", "connections"), ("doctor", "--json"), ("--help",)])
def test_nobody_reads(tmp_path: Path, command: tuple[str, ...]) -> None:
    """Commands that only print end quietly when their reader has gone."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        finished = subprocess.run(
            [*COMMAND, *command],
            cwd=tmp_path,
            env=environment("x"),
            stdout=writing,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(writing)
    assert finished.stderr == b""
    assert finished.returncode == 141
