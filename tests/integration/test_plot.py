"""``plot``: a run folder as text on stdout or as an image, and bad input refused in one line."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from command import complaint_of, on_terminal, run, run_inside, without_escapes

from c10k_probe.experiment import Chart
from c10k_probe.results import RunFolder, load

COLUMNS = (("method", "str"), ("open_count", "int"), ("cycle_ns", "float"), ("grade", "str"), ("reason", "str"))
NO_PID = 2**22 + 1  # more than any kernel gives out
COUNTS = (10, 100, 1_000, 10_000)
CHARTS = (
    Chart("cycle", "What a cycle takes", "open_count", "cycle_ns", series=("method",), log_x=True, log_y=True),
    Chart("methods", "Methods compared", "method", "cycle_ns", where=(("open_count", 100),)),
    Chart("nothing", "What is not there", "open_count", "cycle_ns", where=(("open_count", 7),)),
)


def make_run(base: Path, run_id: str = "abc123", charts: tuple[Chart, ...] = CHARTS, **facts: Any) -> Path:
    """Cycles of as many microseconds as there are connections for fork, and ten times that for vfork."""
    folder = RunFolder(base, "mock", run_id, COLUMNS)
    folder.describe(
        keys=["method", "open_count"],
        charts=[dataclasses.asdict(chart) for chart in charts],
        experiment_version=3,
        machine={"kernel_release": "6.1.0-test"},
        **{"state": "finished", **facts},
    )
    for method, factor in (("fork", 1e3), ("vfork", 1e4)):
        for count in COUNTS:
            values = {"method": method, "open_count": count, "cycle_ns": count * factor, "grade": "ok", "reason": ""}
            folder.put_row((method, count), values)
    void = {"method": "fork", "open_count": 55, "cycle_ns": 1e12, "grade": "void", "reason": "\x1b[31m"}
    folder.put_row(("fork", 55), void)
    return folder.path


def marks(text: str, marker: str) -> list[tuple[int, int]]:
    """(column, row) of each mark inside the frame, from the left."""
    framed = [(row, line) for row, line in enumerate(text.splitlines()) if line.rstrip().endswith("│")]
    return sorted(
        (column, row)
        for row, line in framed
        for column, letter in enumerate(line)
        if letter == marker and column > min(line.find(edge) for edge in "│┤" if edge in line)
    )


def test_the_text_goes_to_stdout_and_shows_the_numbers_of_the_file(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    finished = run("plot", folder, cwd=tmp_path)
    assert (finished.code, finished.stderr) == (0, "")
    text = finished.stdout
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80
    for part in ("What a cycle takes", "o fork   x vfork", "cycle", "open (count, log)", "10,000", "100 ms", "10 µs"):
        assert part in text
    assert "run abc123, mock v3, kernel 6.1.0-test" in text
    assert "left out: 1 void" in text
    assert "1,000 s" not in text  # the void row would have stretched the axis
    fork, vfork = marks(text, "o"), marks(text, "x")
    assert len(fork) == len(vfork) == len(COUNTS)
    assert [column for column, _ in fork] == [column for column, _ in vfork]
    assert [row for _, row in fork[1:]] == [row for _, row in vfork[:-1]]  # ten times as long: one step higher


def test_a_chart_by_name_takes_its_rows(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    finished = run_inside("plot", folder, "--chart", "methods", cwd=tmp_path)
    assert finished.code == 0
    ((fork_column, fork_row), (vfork_column, vfork_row)) = marks(finished.stdout, "o")
    assert vfork_row > fork_row
    lines = finished.stdout.splitlines()
    assert lines[fork_row].startswith(" fork┤")
    assert lines[vfork_row].startswith("vfork┤")
    zero = next(line for line in lines if "└" in line).index("┬")
    assert vfork_column - zero == pytest.approx(10 * (fork_column - zero), abs=6)
    assert "cycle (ms)" in finished.stdout


def test_the_list_names_the_charts(tmp_path: Path) -> None:
    finished = run_inside("plot", make_run(tmp_path), "--list", cwd=tmp_path)
    assert (finished.code, finished.stderr) == (0, "")
    assert [line.split()[0] for line in finished.stdout.splitlines()] == ["cycle", "methods", "nothing"]
    assert finished.stdout.splitlines()[0].endswith("What a cycle takes")
    assert finished.stdout.splitlines()[2].endswith("(nothing to draw)")


def test_last_is_the_newest_run_in_results(tmp_path: Path) -> None:
    old = make_run(tmp_path / "results", "aaaaaa")
    old.rename(old.with_name("20200101T000000Z-mock-aaaaaa"))
    new = make_run(tmp_path / "results", "bbbbbb")
    (tmp_path / "results" / "reference-mock").mkdir()
    (tmp_path / "results" / "reference-mock" / "run.json").write_text((new / "run.json").read_text())
    finished = run_inside("plot", "last", cwd=tmp_path)
    assert "run bbbbbb" in finished.stdout


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_terminal_is_filled_and_not_more(tmp_path: Path, width: int) -> None:
    folder = make_run(tmp_path)
    with on_terminal("plot", folder, cwd=tmp_path, width=width) as terminal:
        code, output = terminal.finish()
    lines = without_escapes(output).splitlines()
    assert code == 0
    assert "\x1b" not in output
    assert width - 1 <= max(map(len, lines)) <= width
    assert 20 <= len(lines) <= 40


def test_a_png_is_written(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    finished = run_inside("plot", folder, "--save", "out.png", cwd=tmp_path)
    assert (finished.code, finished.stdout, finished.stderr) == (0, "", "saved out.png\n")
    data = (tmp_path / "out.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (1200, 750)
    assert data.endswith(b"IEND\xaeB`\x82")


def test_an_svg_is_written_over_an_old_file(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    (tmp_path / "OUT.SVG").write_text("old")
    assert run_inside("plot", folder, "--save", "OUT.SVG", cwd=tmp_path).code == 0
    tree = ElementTree.fromstring((tmp_path / "OUT.SVG").read_text(encoding="utf-8"))
    texts = {"".join(item.itertext()).strip() for item in tree.iter("{http://www.w3.org/2000/svg}text")}
    assert {"What a cycle takes", "fork", "vfork", "open (count, log)", "10,000", "10 µs", "100 ms"} <= texts
    assert any(text.startswith("run abc123, mock v3, kernel 6.1.0-test") for text in texts)
    assert not any("1,000 s" in text for text in texts)


def test_a_run_that_was_killed_can_be_drawn_and_says_so(tmp_path: Path) -> None:
    folder = make_run(tmp_path, state="running", pid=NO_PID)
    with (folder / "rows.csv").open("a") as file:
        file.write("fork,7")
    assert load(folder).state == "killed"
    assert ", killed" in run_inside("plot", folder, cwd=tmp_path).stdout


def test_a_terminal_that_cannot_show_the_frame_gets_question_marks(tmp_path: Path) -> None:
    finished = run("plot", make_run(tmp_path), cwd=tmp_path, changes={"PYTHONIOENCODING": "ascii"})
    assert finished.code == 0
    assert finished.stdout.isascii()
    assert "o fork   x vfork" in finished.stdout


# what is typed after the run | what the one line must name
REFUSED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("--chart cylce", ("--chart", "'cylce'", "did you mean cycle", "cycle, methods, nothing")),
    ("--save out.pdf", ("--save", "'out.pdf'", ".png or .svg")),
    ("--save out", ("--save", "'out'", ".png or .svg")),
    ("--save missing/out.png", ("--save", "missing", "folder")),
    ("--save folder.png", ("--save", "folder.png", "folder")),
    ("--save /proc/out.png", ("--save", "/proc/out.png", "cannot be written")),
    ("--save=", ("--save", "''")),
    ("--list --save out.png", ("--list", "--save")),
    ("--list --chart cycle", ("--list", "--chart")),
    ("--wings", ("--wings", "plot --help")),
)


@pytest.mark.parametrize(("line", "named"), REFUSED, ids=[line for line, _ in REFUSED])
def test_refused_in_one_line(tmp_path: Path, line: str, named: tuple[str, ...]) -> None:
    folder = make_run(tmp_path)
    (tmp_path / "folder.png").mkdir()
    finished = run_inside("plot", folder, *line.split(), cwd=tmp_path)
    assert finished.code == 2, finished.stderr
    assert [word for word in named if word not in complaint_of(finished)] == []
    assert not list(tmp_path.glob("out*"))


def test_what_is_no_run_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("missing", "empty", "last", ""):
        finished = run_inside("plot", name, cwd=tmp_path)
        assert finished.code == 2, finished.stderr
        assert name.replace("last", "results") in complaint_of(finished)


def test_nothing_to_draw_is_an_error_that_names_the_charts(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    (tmp_path / "out.png").write_text("old")
    finished = run_inside("plot", folder, "--chart", "nothing", "--save", "out.png", cwd=tmp_path)
    assert finished.code == 1
    complaint = complaint_of(finished)
    assert [part for part in ("nothing", "0 rows with open_count 7", "cycle, methods") if part not in complaint] == []
    assert (tmp_path / "out.png").read_text() == "old"
    bare = make_run(tmp_path / "bare", charts=())
    assert "names no charts" in complaint_of(run_inside("plot", bare, cwd=tmp_path))
