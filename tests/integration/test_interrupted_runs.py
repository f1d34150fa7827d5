"""Ctrl-C and its like: what was measured is kept and shown, exit 130, nothing is left; also after ``kill -9``."""

from __future__ import annotations

import json
import re
import signal
import termios
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from command import (
    CURSOR_OFF,
    CURSOR_ON,
    Finished,
    Started,
    Terminal,
    on_terminal,
    only_run_folder,
    rows_of,
    run_folders,
    started,
    wait_for,
    without_escapes,
)

from c10k_probe import results

# Each would run for a minute or more; the last is in its first launch meanwhile.
BRIEFLY = ("--probe-time", "20ms")
LONG_RAMPS = (
    "connections",
    "--to",
    200,
    "--steps",
    6,
    "--repeats",
    500,
    "--seed",
    1,
    "--model",
    "epoll,thread",
    *BRIEFLY,
)
LONG_LAUNCHES = ("fork-latency", "--n", 1_000_000, "--repeats", 10_000, "--method", "fork,vfork,pthread_create")
ONE_LAUNCH = ("fork-latency", "--n", 1_000_000, "--repeats", 5, "--method", "fork", "--linking", "static")
STATES = {"ok", "failed", "skipped", "interrupted"}
AT_ONCE_S = 2.0


def kept_rows(cwd: Path) -> int:
    """Whole rows in the run folder until now."""
    files = [folder / "rows.csv" for folder in run_folders(cwd)]
    return sum(max(0, path.read_text(encoding="utf-8").count("\n") - 1) for path in files if path.exists())


def in_mid_run(command: Started | Terminal, cwd: Path, rows: int = 3) -> None:
    """Wait until some rows are kept and the command still measures."""
    command.until(lambda: kept_rows(cwd) >= rows, f"{rows} rows")


def interrupted(arguments: Sequence[object], cwd: Path, *numbers: int) -> Finished:
    """Send signals in mid-run; how the command ended. Nothing of it may be left."""
    with started(*arguments, cwd=cwd) as command:
        in_mid_run(command, cwd)
        for number in numbers:
            command.signal(number)
        finished = command.finish(20)
        assert command.living() == []
    assert "Traceback" not in finished.stderr, finished.stderr
    assert finished.code == 130
    return finished


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_once_keeps_and_shows_every_row(tmp_path: Path, number: signal.Signals) -> None:
    """The same rows in the file, in the run folder, as JSON on stdout, and as plain lines; it says how it ended."""
    finished = interrupted([*LONG_RAMPS, "--csv", "rows.csv", "--json", "-"], tmp_path, number)
    rows = rows_of((tmp_path / "rows.csv").read_text(encoding="utf-8"))
    measured = [row for row in rows if row["open_count"]]
    assert len(measured) >= 3
    assert {row["status"] for row in measured} == {"ok"}
    assert {row["model"] for row in rows} == {"epoll", "thread"}
    stored = results.load(only_run_folder(tmp_path))
    assert (stored.state, stored.facts["exit_code"]) == ("interrupted", 130)
    assert len(stored.rows) == len(rows)
    records = [json.loads(line) for line in finished.stdout.splitlines()]
    assert records[-1] == {**records[-1], "type": "end", "code": 130}
    assert sum(record["type"] == "row" for record in records) == len(rows)
    shown = [line for line in finished.stderr.splitlines() if re.match("(epoll|thread|fork)[ :]", line)]
    assert len(shown) == len(rows)
    assert "interrupted" in finished.stderr
    assert str(only_run_folder(tmp_path).relative_to(tmp_path)) in finished.stderr


def test_csv_on_stdout_is_whole(tmp_path: Path) -> None:
    """Rows on stdout are complete lines, also the last."""
    finished = interrupted([*LONG_RAMPS, "--csv", "-"], tmp_path, signal.SIGINT)
    assert finished.stdout.endswith("\n")
    rows = rows_of(finished.stdout)
    assert len(rows) >= 3
    assert all(None not in row.values() and row["status"] in STATES for row in rows)


def test_cells_without_a_row_are_marked(tmp_path: Path) -> None:
    """A model whose turn had not come, and one whose ramp had, have a row that says interrupted, with empty numbers."""
    arguments = ["connections", "--to", 3000, "--steps", 12, "--seed", 1, *BRIEFLY, "--csv", "rows.csv"]
    with started(*arguments, cwd=tmp_path) as command:
        in_mid_run(command, tmp_path, rows=1)
        command.signal(signal.SIGINT)
        assert command.finish(20).code == 130
    rows = rows_of((tmp_path / "rows.csv").read_text(encoding="utf-8"))
    unmeasured = [row for row in rows if row["open_count"] == ""]
    reasons = [row["reason"] for row in unmeasured]
    assert [sum(text in reason for reason in reasons) for text in ("before this was", "while this was")] == [2, 1]
    for row in unmeasured:
        assert (row["status"], row["grade"], row["user_bytes"]) == ("interrupted", "void", "")
        assert "interrupted" in row["reason"]


def test_samples_so_far_become_rows(tmp_path: Path) -> None:
    """Rows stand for exactly the samples that were taken, and say that these are fewer than were asked for."""
    interrupted([*LONG_LAUNCHES, "--csv", "rows.csv"], tmp_path, signal.SIGINT)
    rows = rows_of((tmp_path / "rows.csv").read_text(encoding="utf-8"))
    stored = results.load(only_run_folder(tmp_path))
    taken: Counter[tuple[str, str]] = Counter()
    for record in stored.samples:
        taken[record["key"]["method"], record["key"]["linking"]] += len(record["values"]["cycle"])
    assert {(row["method"], row["linking"]): int(row["n_count"] or 0) for row in rows} == taken
    assert 0 < min(taken.values()) <= max(taken.values()) < 1_000_000
    assert all(float(row["cycle_p50_ns"]) > 0 for row in rows)
    assert {row["status"] for row in rows} == {"interrupted"}
    assert "" not in {row["reason"] for row in rows}


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_twice_is_at_once(tmp_path: Path, second: signal.Signals) -> None:
    """The second signal ends everything within two seconds, whatever the first one was about to save."""
    with started("connections", "--to", 2000, "--model", "fork", "--repeats", 50, *BRIEFLY, cwd=tmp_path) as command:
        in_mid_run(command, tmp_path, rows=9)
        command.signal(signal.SIGINT)
        command.signal(second)
        finished = command.finish(AT_ONCE_S)
        assert finished.code == 130
        assert "Traceback" not in finished.stderr
        wait_for(lambda: not command.living(), "the end of every process", AT_ONCE_S)
    assert results.load(only_run_folder(tmp_path)).state in ("killed", "interrupted")


@pytest.mark.parametrize(("arguments", "rows"), [(LONG_RAMPS, 3), (ONE_LAUNCH, 0)], ids=["connections", "fork-latency"])
def test_kill_leaves_no_process_and_a_readable_folder(tmp_path: Path, arguments: Sequence[object], rows: int) -> None:
    """After kill -9 nothing of the run lives two seconds later; the folder loads and says killed."""
    with started(*arguments, cwd=tmp_path) as command:
        in_mid_run(command, tmp_path, rows)
        command.until(lambda: run_folders(tmp_path) and len(command.living()) > 1, "a helper")
        command.signal(signal.SIGKILL)
        assert command.finish(5).code == -signal.SIGKILL
        wait_for(lambda: not command.living(), "the end of every process", AT_ONCE_S)
    stored = results.load(only_run_folder(tmp_path))
    assert stored.state == "killed"
    assert len(stored.rows) >= rows
    assert all(row["status"] in STATES for row in stored.rows)


def test_kill_of_a_large_tree(tmp_path: Path) -> None:
    """Two thousand processes of the fork model are gone as well."""
    with started("connections", "--to", 2000, "--model", "fork", "--repeats", 50, *BRIEFLY, cwd=tmp_path) as command:
        command.until(lambda: len(command.living()) > 1000, "a thousand processes")
        command.signal(signal.SIGKILL)
        command.finish(5)
        wait_for(lambda: not command.living(), "the end of every process", AT_ONCE_S)


def test_ctrl_c_on_a_terminal(tmp_path: Path) -> None:
    """The key itself, with the live table on: exit 130, rows shown, the cursor back, the terminal's modes as before."""
    with on_terminal(*LONG_RAMPS, "--csv", "rows.csv", cwd=tmp_path) as terminal:
        in_mid_run(terminal, tmp_path)
        terminal.type("\x03")
        code, output = terminal.finish(20)
        modes = terminal.modes()
    assert code == 130, without_escapes(output)
    assert "Traceback" not in output
    assert output.rfind(CURSOR_ON) >= output.rfind(CURSOR_OFF)
    assert modes[3] & (termios.ECHO | termios.ICANON | termios.ISIG) == termios.ECHO | termios.ICANON | termios.ISIG
    assert modes == terminal.modes_before
    assert output.endswith("\n")
    assert "interrupted" in without_escapes(output)
    rows = rows_of((tmp_path / "rows.csv").read_text(encoding="utf-8"))
    assert len(rows) >= 3


def test_a_killed_run_leaves_the_cursor_visible(tmp_path: Path) -> None:
    """Nobody is there to show it again after kill -9, so it was never hidden for long."""
    with on_terminal(*LONG_RAMPS, cwd=tmp_path) as terminal:
        in_mid_run(terminal, tmp_path)
        terminal.process.kill()
        _, output = terminal.finish(5)
    assert output.rfind(CURSOR_ON) >= output.rfind(CURSOR_OFF)


def test_a_hang_up_by_the_terminal_itself(tmp_path: Path) -> None:
    """The window is closed: the run ends, keeps its rows, and leaves nothing."""
    with on_terminal(*LONG_RAMPS, cwd=tmp_path) as terminal:
        in_mid_run(terminal, tmp_path)
        terminal.hang_up()
        wait_for(lambda: terminal.process.poll() is not None, "the end after the hang-up", 20)
        wait_for(lambda: not terminal.living(), "the end of every process", AT_ONCE_S)
    stored = results.load(only_run_folder(tmp_path))
    assert stored.state == "interrupted"
    assert len(stored.rows) >= 3


@pytest.mark.parametrize("arguments", [LONG_RAMPS, LONG_LAUNCHES], ids=["connections", "fork-latency"])
def test_time_out_keeps_what_was_measured(tmp_path: Path, arguments: Sequence[object]) -> None:
    """--timeout ends the run with exit 3; rows are kept, and what was not measured says why."""
    with started(*arguments, "--timeout", "1s", "--csv", "-", cwd=tmp_path) as command:
        finished = command.finish(30)
        assert command.living() == []
    assert finished.code == 3, finished.stderr
    assert "Traceback" not in finished.stderr
    assert len(rows_of(finished.stdout)) >= 2  # each cell has one, measured or not
    assert "timed-out" in finished.stderr
    assert results.load(only_run_folder(tmp_path)).facts["exit_code"] == 3
