"""The run folder: what is written is what is read, whatever happened in between."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from c10k_probe.exits import UserError
from c10k_probe.results import FORMAT, FORMAT_HISTORY, RunFolder, Value, csv_line, load, new_run_id, parse_value

COLUMNS = (("name", "str"), ("n_count", "int"), ("value_ns", "float"), ("reason", "str"))
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
ROW = st.fixed_dictionaries(
    {
        "name": TEXT,
        "n_count": st.none() | st.integers(-(2**63), 2**63),
        "value_ns": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "reason": st.none() | TEXT,
    }
)


def make(base: Path, columns: Sequence[tuple[str, str]] = COLUMNS) -> RunFolder:
    folder = RunFolder(base, "mock", new_run_id(), columns)
    folder.describe(seed=5)
    return folder


def row(name: str, n: int | None = 1, value: float | None = 1.5, reason: str = "") -> dict[str, Value]:
    return {"name": name, "n_count": n, "value_ns": value, "reason": reason}


def names(path: Path) -> list[Value]:
    return [item["name"] for item in load(path).rows]


def as_stored(values: dict[str, Value]) -> dict[str, Value]:
    """What a reader may expect: floats to 12 significant digits, no text is empty text."""
    stored = dict(values)
    if isinstance(stored["value_ns"], float):
        stored["value_ns"] = float(f"{stored['value_ns']:.12g}")
    stored["reason"] = stored["reason"] or ""
    return stored


# --- lines ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (("a", 1, 2.5, None), "a,1,2.5,\n"),
        (("a,b", 'say "x"', "two\nlines"), '"a,b","say ""x""","two\nlines"\n'),
        ((1 / 3, 52_123.0, 1e15, 1e-9), "0.333333333333,52123,1e+15,1e-09\n"),
        ((2**62, -1, 0), f"{2**62},-1,0\n"),
        (("µs×", "日本"), "µs×,日本\n"),
        ((None,), '""\n'),
    ],
)
def test_csv_lines_known_answers(values: tuple[Value, ...], line: str) -> None:
    assert csv_line(values) == line


@given(st.lists(TEXT, min_size=1, max_size=5))
@example(["a\rb", "c"])
@example(["a\r\nb"])
def test_any_csv_reader_reads_the_line_back(texts: list[str]) -> None:
    assert list(csv.reader(io.StringIO(csv_line(texts), newline=""))) == [texts]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_keep_twelve_digits(value: float) -> None:
    back = parse_value(csv_line([value]).strip(), "float")
    assert isinstance(back, float)
    # a last digit of the smallest (subnormal) floats is more than 1e-12 of them
    assert math.isclose(back, value, rel_tol=1e-11, abs_tol=1e-320)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [("", "int", None), ("", "float", None), ("", "str", ""), ("5", "int", 5), ("5", "float", 5.0), ("5", "str", "5")],
)
def test_missing_is_empty_never_zero(text: str, kind: str, value: Value) -> None:
    assert parse_value(text, kind) == value


# --- round trips ----------------------------------------------------------------------------------------------------


@given(st.lists(ROW, max_size=6))
@example([row("a\rb"), row("c")])
@example([row("a\r\nb", reason="\r")])
@settings(deadline=None, max_examples=60)
def test_rows_are_read_back_as_they_were_written(rows: list[dict[str, Value]]) -> None:
    with tempfile.TemporaryDirectory() as base:
        folder = make(Path(base))
        for number, values in enumerate(rows):
            folder.put_row((number,), values)
        assert list(load(folder.path).rows) == [as_stored(values) for values in rows]


@given(st.lists(st.tuples(st.integers(0, 3), ROW), max_size=12), st.data())
@settings(deadline=None, max_examples=40)
def test_a_row_measured_further_replaces_the_old_one(
    puts: list[tuple[int, dict[str, Any]]], data: st.DataObject
) -> None:
    latest: dict[int, dict[str, Value]] = {}
    with tempfile.TemporaryDirectory() as base:
        folder = make(Path(base))
        for key, values in puts:
            latest[key] = values
            folder.put_row((key,), values)
            if data.draw(st.booleans()):
                folder.refresh()
        folder.refresh()
        assert list(load(folder.path).rows) == [as_stored(values) for values in latest.values()]


def test_until_the_refresh_the_old_row_stands(tmp_path: Path) -> None:
    folder = make(tmp_path)
    folder.put_row(("a",), row("a", 1))
    folder.put_row(("b",), row("b", 2))
    folder.put_row(("a",), row("a", 3))
    assert [item["n_count"] for item in load(folder.path).rows] == [1, 2]
    folder.refresh()
    assert [item["n_count"] for item in load(folder.path).rows] == [3, 2]


def test_samples_are_appended_and_read_back(tmp_path: Path) -> None:
    folder = make(tmp_path)
    assert load(folder.path).samples == ()
    records = [{"key": {"cell": "µ\n,"}, "block": block, "values": {"value_ns": [1, 2**53]}} for block in range(3)]
    for record in records:
        folder.put_samples(record)
    assert list(load(folder.path).samples) == records


def test_an_empty_run_is_readable(tmp_path: Path) -> None:
    folder = make(tmp_path)
    run = load(folder.path)
    assert run.rows == ()
    assert run.facts["seed"] == 5
    assert run.facts["columns"] == [list(item) for item in COLUMNS]


def test_facts_add_up(tmp_path: Path) -> None:
    folder = make(tmp_path)
    folder.describe(state="finished", machine={"cpu": "µ"})
    facts = load(folder.path).facts
    assert (facts["seed"], facts["state"], facts["machine"]) == (5, "finished", {"cpu": "µ"})
    assert facts["format"] == FORMAT == max(FORMAT_HISTORY)


def test_the_name_of_the_folder_sorts_by_time(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "deep" / "er", "fork-latency", "abc123", COLUMNS)
    assert folder.path.parent == tmp_path / "deep" / "er"
    stamp, rest = folder.path.name.split("-", 1)
    assert len(stamp) == len("20250101T000000Z")
    assert rest == "fork-latency-abc123"


def test_run_ids_differ() -> None:
    assert len({new_run_id() for _ in range(50)}) > 45
    assert all(len(new_run_id()) == 6 and int(new_run_id(), 16) >= 0 for _ in range(20))


def test_a_command_line_that_is_not_unicode_is_kept(tmp_path: Path) -> None:
    """Names of files are bytes; Python hands odd ones over as lone surrogates."""
    folder = make(tmp_path)
    folder.describe(command=["c10k-probe", "--out", os.fsdecode(b"caf\xe9")])
    folder.put_row(("a",), row("a", reason=os.fsdecode(b"caf\xe9")))
    assert load(folder.path).facts["command"][:2] == ["c10k-probe", "--out"]
    assert names(folder.path) == ["a"]


# --- whatever happened ----------------------------------------------------------------------------------------------


@given(st.lists(ROW, min_size=1, max_size=3), st.data())
@example([row("a,b", reason='x"y\nz')], None)
@settings(deadline=None, max_examples=60)
def test_an_unfinished_last_row_is_ignored(rows: list[dict[str, Value]], data: st.DataObject | None) -> None:
    """Cut anywhere in the last row, as by a crash of the machine: the rows before it are there, it is not."""
    with tempfile.TemporaryDirectory() as base:
        folder = make(Path(base))
        path = folder.path / "rows.csv"
        for number, values in enumerate(rows[:-1]):
            folder.put_row((number,), values)
        start = path.stat().st_size
        folder.put_row((len(rows),), rows[-1])
        whole = path.read_bytes()
        cuts = range(start, len(whole)) if data is None else [data.draw(st.integers(start, len(whole) - 1))]
        for cut in cuts:
            path.write_bytes(whole[:cut])
            assert list(load(folder.path).rows) == [as_stored(values) for values in rows[:-1]]


def test_an_unfinished_last_sample_is_ignored(tmp_path: Path) -> None:
    folder = make(tmp_path)
    folder.put_samples({"block": 0})
    with (folder.path / "samples.jsonl").open("a") as file:
        file.write('{"block":1,"val')
    assert list(load(folder.path).samples) == [{"block": 0}]


def test_states(tmp_path: Path) -> None:
    folder = make(tmp_path)
    assert load(folder.path).state == "running"
    for state in ("finished", "interrupted"):
        folder.describe(state=state)
        assert load(folder.path).state == state


def test_a_run_whose_process_is_gone_was_killed(tmp_path: Path) -> None:
    """kill -9 in the middle: the folder is readable and says so."""
    code = f"""
import os, signal
from pathlib import Path
from c10k_probe.results import RunFolder
folder = RunFolder(Path({str(tmp_path)!r}), "mock", "abcdef", {COLUMNS!r})
folder.describe(seed=1)
folder.put_row(("a",), {row("a")!r})
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    (path,) = tmp_path.iterdir()
    assert load(path).state == "killed"
    assert names(path) == ["a"]


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    folder = make(tmp_path)
    folder.describe(format=FORMAT + 1)
    with pytest.raises(UserError, match=f"format {FORMAT + 1}.*update") as caught:
        load(folder.path)
    assert str(folder.path) in str(caught.value)


@pytest.mark.parametrize("text", [None, "", "{", "[]", "5", "{}"])
def test_what_is_no_run_folder_is_refused_in_one_line(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
        (tmp_path / "rows.csv").write_text("name\n")
    with pytest.raises(UserError, match="is not a run folder") as caught:
        load(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    if text is None:
        assert "it holds no run.json" in str(caught.value)
        assert "Error" not in str(caught.value)


# --- a full disk ----------------------------------------------------------------------------------------------------

FILL = """
import json, resource, sys
from pathlib import Path
from c10k_probe.results import RunFolder
folder = RunFolder(Path(sys.argv[1]), "mock", "abcdef", {columns!r})
folder.describe(seed=1)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
kept = 0
try:
    for number in range(1000):
        {write}
        kept += 1
except OSError as error:
    print(json.dumps([kept, error.errno]))
"""


def fill(base: Path, limit: int, write: str) -> tuple[Path, int]:
    """Write in a process whose files may not grow beyond ``limit``, until that fails; folder and successes."""
    code = FILL.format(columns=COLUMNS, limit=limit, write=write)
    done = subprocess.run([sys.executable, "-c", code, base], capture_output=True, text=True, check=True)
    kept, number = json.loads(done.stdout)
    assert number in (27, 28)  # EFBIG, or ENOSPC after a partial write
    (path,) = base.iterdir()
    return path, kept


@pytest.mark.parametrize("limit", [2000, 2001, 2007, 2019])
def test_a_disk_that_fills_up_leaves_whole_rows(tmp_path: Path, limit: int) -> None:
    text = row("x", reason="a,b\n" * 4)
    path, kept = fill(tmp_path, limit, f"folder.put_row((number,), {text!r} | {{'n_count': number}})")
    assert kept > 10
    assert (path / "rows.csv").read_bytes().endswith(b"\n")
    assert [item["n_count"] for item in load(path).rows] == list(range(kept))


def test_a_disk_that_fills_up_leaves_whole_samples(tmp_path: Path) -> None:
    path, kept = fill(tmp_path, 3001, "folder.put_samples({'block': number})")
    assert [item["block"] for item in load(path).samples] == list(range(kept))


def test_a_disk_that_fills_up_leaves_the_old_facts(tmp_path: Path) -> None:
    path, kept = fill(tmp_path, 3001, "folder.describe(number=number, **{f'fact{number}': 'x' * 50})")
    assert load(path).facts["number"] == kept - 1
    assert {item.name for item in path.iterdir()} == {"run.json", "rows.csv"}


def test_a_disk_that_fills_up_leaves_the_old_rows_when_they_are_replaced(tmp_path: Path) -> None:
    write = f"folder.put_row((1,), {row('x')!r} | {{'reason': 'y' * 9 * number}}); folder.refresh()"
    path, kept = fill(tmp_path, 3001, write)
    (stored,) = load(path).rows
    assert stored["reason"] == "y" * 9 * (kept - 1)
    assert {item.name for item in path.iterdir()} == {"run.json", "rows.csv"}
