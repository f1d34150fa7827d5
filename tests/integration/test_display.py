"""What is shown where: a live table on a terminal, plain lines in a pipe, data on stdout only when asked for."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from command import CURSOR_OFF, CURSOR_ON, on_terminal, only_run_folder, rows_of, run, without_escapes
from rich.cells import cell_len

FORK = ("fork-latency", "--n", 100, "--repeats", 5)
CONNECTIONS = ("connections", "--to", 120, "--steps", 2, "--model", "epoll", "--probe-time", "20ms")
ESCAPE, ELLIPSIS = "\x1b", "…"
COLOUR = re.compile(r"\x1b\[[0-9;]*[1-9][0-9;]*m")
ERASE_LINE = "\x1b[2K"
runs = pytest.mark.parametrize("arguments", [FORK, CONNECTIONS], ids=["fork-latency", "connections"])

WIDE = '''"""How wide can an interval be?"""

from __future__ import annotations

from dataclasses import dataclass

from c10k_probe.experiment import Cell, Experiment, Row, View, column, estimate
from c10k_probe.parameters import Parameters
from c10k_probe.stats import Interval

NAMES = ("returned", "started", "cycled")


@dataclass(frozen=True, kw_only=True)
class WideRow(Row):
    method: str = column("how", key=True)
    linking: str = column("of what", key=True)
    returned: Interval | None = estimate("returned_ns", "a number of a noisy machine")
    started: Interval | None = estimate("started_ns", "another one")
    cycled: Interval | None = estimate("cycled_ns", "a third one")


class Wide(Experiment[Parameters]):
    version = 1
    parameters_type = Parameters
    row_type = WideRow
    views = tuple(View(name, f"{name}_ns", f"{name}_lo_ns", f"{name}_hi_ns") for name in NAMES)

    def cells(self, parameters):
        return [Cell({"method": "pthread_create", "linking": linking}) for linking in ("dynamic", "static")]

    def measure(self, parameters, cell, bench):
        noisy = Interval(123_400.0, 20_000.0, 30_000_000.0)
        yield WideRow(**cell.key, returned=noisy, started=noisy, cycled=noisy, grade="shaky", grade_reason="noise")


EXPERIMENT = Wide()
'''


def shown_on_terminal(cwd: Path, *arguments: object, width: int = 80, **changes: str | None) -> str:
    """Run well on a terminal; everything that was written to it."""
    with on_terminal(*arguments, cwd=cwd, width=width, changes=changes) as terminal:
        code, output = terminal.finish()
    assert code == 0, without_escapes(output)
    return output


def final_screen(output: str) -> list[str]:
    """The lines after the last time that the live picture was erased."""
    return without_escapes(output[output.rfind(ERASE_LINE) + len(ERASE_LINE) :]).splitlines()


@runs
@pytest.mark.parametrize("width", [80, 140])
def test_table_on_a_terminal(tmp_path: Path, arguments: tuple[object, ...], width: int) -> None:
    """It lives while the run does; the last one has every row, nothing cut off, and fits the width."""
    output = shown_on_terminal(tmp_path, *arguments, "--csv", "rows.csv", width=width)
    assert ERASE_LINE in output  # a live picture was drawn and taken back
    assert output.count("%") > 2
    assert output.rfind(CURSOR_ON) >= output.rfind(CURSOR_OFF)
    assert ELLIPSIS not in output
    screen = final_screen(output)
    tables = [line for line in screen if "─" in line or re.match(r"(fork|vfork|epoll|thread|clone3|posix)\w* ", line)]
    assert max(map(cell_len, tables)) <= width
    rows = rows_of((tmp_path / "rows.csv").read_text(encoding="utf-8"))
    first = next(iter(rows[0]))
    for row in rows:
        assert any(line.strip().startswith(row[first]) for line in screen)
    assert any(line.startswith("complete; ") for line in screen)
    assert any(only_run_folder(tmp_path).name in line for line in screen)


def test_no_interval_is_too_wide_for_80_columns(tmp_path: Path) -> None:
    """A noisy machine's intervals are many times their middle: keys and middles must still be readable."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "wide.py").write_text(WIDE, encoding="utf-8")
    output = shown_on_terminal(tmp_path, "wide", "--experiments", "own")
    assert ELLIPSIS not in output
    screen = final_screen(output)
    assert sum(line.count("123 µs") for line in screen if "pthread_create" in line) == 6
    assert max(map(cell_len, screen)) <= 80


def test_wide_terminal_shows_more(tmp_path: Path) -> None:
    """At 80 columns the least important ones go, at 140 they are there, with whole intervals."""
    narrow, wide = (
        "\n".join(final_screen(shown_on_terminal(tmp_path, *FORK, width=width, NO_COLOR="1"))) for width in (80, 140)
    )
    assert "±" in narrow
    assert re.search(r"\[\d[\d.,]* \S+, \d", wide)
    for header in ("return", "started", "cycle", "tails", "ratio to pthread_create"):
        assert header in narrow
        assert header in wide


@runs
def test_plain_lines_in_a_pipe(tmp_path: Path, arguments: tuple[object, ...]) -> None:
    """No escape codes, one line for every row, nothing on stdout."""
    finished = run(*arguments, "--csv", "rows.csv", cwd=tmp_path)
    assert finished.code == 0
    assert finished.stdout == ""
    assert ESCAPE not in finished.stderr
    assert "\r" not in finished.stderr
    rows = rows_of((tmp_path / "rows.csv").read_text(encoding="utf-8"))
    keys = [f"{row['method']} {row['linking']} {row['placement']} base: " for row in rows if "method" in row]
    keys += [f"{row['model']} {row['state']} target {row['target_count']}: " for row in rows if "model" in row]
    assert len(keys) == len(rows) > 0
    lines = finished.stderr.splitlines()
    assert all(sum(line.startswith(key) for line in lines) == 1 for key in keys)
    assert lines[0].startswith(f"{arguments[0]}: ")
    assert lines[-2].startswith("complete; ")
    assert lines[-1] == f"kept in {only_run_folder(tmp_path).relative_to(tmp_path)}"


def test_no_color(tmp_path: Path) -> None:
    """NO_COLOR takes the colours away and leaves the live table; shaky rows are still marked."""
    coloured = shown_on_terminal(tmp_path, *CONNECTIONS)
    plain = shown_on_terminal(tmp_path, *CONNECTIONS, NO_COLOR="1")
    colours = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|38|9[0-7])[;m]")
    assert colours.search(coloured)
    assert not colours.search(plain)
    assert ERASE_LINE in plain
    assert " ~" in without_escapes(plain)


@pytest.mark.parametrize("term", ["dumb", None])
def test_dumb_terminal(tmp_path: Path, term: str | None) -> None:
    """A terminal without cursor control gets plain lines."""
    output = shown_on_terminal(tmp_path, *CONNECTIONS, TERM=term)
    assert ESCAPE not in output
    assert re.search(r"^epoll used target 120: open 120", output.replace("\r", ""), re.MULTILINE)


def test_quiet(tmp_path: Path) -> None:
    """Nothing is shown, in a pipe or on a terminal; the run is kept, and data that is asked for still comes."""
    finished = run(*FORK, "--quiet", "--csv", "-", cwd=tmp_path)
    assert (finished.code, finished.stderr) == (0, "")
    assert len(rows_of(finished.stdout)) == 10
    assert only_run_folder(tmp_path).exists()
    assert shown_on_terminal(tmp_path, *FORK, "--quiet") == ""


def test_quiet_still_tells_of_errors(tmp_path: Path) -> None:
    """An unusable target and a usage error are said also then."""
    finished = run(*FORK, "--quiet", "--csv", "/dev/full", cwd=tmp_path)
    assert finished.code == 1
    assert finished.stderr.startswith("c10k-probe: CSV to /dev/full")
    assert len(finished.stderr.splitlines()) == 1


def test_format_csv(tmp_path: Path) -> None:
    """Rows as CSV on stdout, everything else on stderr."""
    finished = run(*FORK, "--format", "csv", cwd=tmp_path)
    assert finished.code == 0
    assert {row["n_count"] for row in rows_of(finished.stdout)} == {"100"}
    assert "complete; " in finished.stderr
    assert "complete; " not in finished.stdout


def test_format_jsonl(tmp_path: Path) -> None:
    """JSON lines on stdout; with CSV beside it in a file."""
    finished = run(*FORK, "--format", "jsonl", "--csv", "rows.csv", cwd=tmp_path)
    assert finished.code == 0
    records = [json.loads(line) for line in finished.stdout.splitlines()]
    kinds = [record["type"] for record in records]
    assert kinds[0] == "run"
    assert kinds[-1] == "end"
    assert kinds.count("row") == len(rows_of((tmp_path / "rows.csv").read_text(encoding="utf-8"))) == 10
    claims = [record["claim"] for record in records if record["type"] == "verdict"]
    assert claims == sorted(set(claims))
    assert {"C09", "C10", "C19"} <= set(claims)
    assert all(record["rule"] and record["evidence"] for record in records if record["type"] == "verdict")


def test_format_table_in_a_pipe(tmp_path: Path) -> None:
    """The table without life and without colours, on stderr."""
    finished = run(*FORK, "--format", "table", cwd=tmp_path, changes={"COLUMNS": "100"})
    assert (finished.code, finished.stdout) == (0, "")
    assert "─" in finished.stderr
    assert ESCAPE not in finished.stderr
    assert ELLIPSIS not in finished.stderr


def test_format_plain_on_a_terminal(tmp_path: Path) -> None:
    """Plain lines although there is a terminal."""
    output = shown_on_terminal(tmp_path, *FORK, "--format", "plain")
    assert ESCAPE not in output
    assert "fork static one-cpu base: return" in output


def test_csv_file_alone_leaves_stdout_empty(tmp_path: Path) -> None:
    """Both exports to files: nothing on stdout."""
    finished = run(*FORK, "--csv", "rows.csv", "--json", "rows.jsonl", cwd=tmp_path)
    assert finished.stdout == ""
    assert len(rows_of((tmp_path / "rows.csv").read_text(encoding="utf-8"))) == 10
    assert (tmp_path / "rows.jsonl").read_text(encoding="utf-8").endswith("\n")


def test_time_left_is_told(tmp_path: Path) -> None:
    """A run of more than a few seconds says how far it is and about how long it will take."""
    finished = run(*CONNECTIONS, "--repeats", 4, cwd=tmp_path)
    assert finished.code == 0, finished.stderr
    progress = [line for line in finished.stderr.splitlines() if re.match(r" *\d+%", line)]
    assert any(re.search(r"about \d+ (s|min) left", line) for line in progress), finished.stderr
    shares = [int(line.split("%")[0]) for line in progress]
    assert shares == sorted(shares)
    assert all(0 <= share <= 100 for share in shares)
