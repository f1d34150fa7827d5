"""Pictures that an experiment wants to be seen when it has ended: on stderr, in colour where there are colours."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from command import on_terminal, only_run_folder, rows_of, run, without_escapes

OWN = '''"""Which of two made-up ways is faster?

Sources: none.
"""

from __future__ import annotations

from dataclasses import dataclass

from c10k_probe import stats
from c10k_probe.experiment import Cell, Chart, Experiment, Row, View, WinnerMap, column, estimate
from c10k_probe.parameters import Parameters


@dataclass(frozen=True, kw_only=True)
class PairRow(Row):
    way: str = column("which way", key=True)
    watched_count: int = column("watched", key=True)
    active_count: int = column("active", key=True)
    event: stats.Interval | None = estimate("event_ns", "one event")


MAP = WinnerMap(
    "map", "The faster way", "watched_count", "active_count", "event_ns", "event_lo_ns", "event_hi_ns", "way",
    log_x=True, log_y=True, at_end=True,
)
NOTHING = Chart("nothing", "What is not there", "watched_count", "event_ns", where=(("way", "none"),), at_end=True)
UNASKED = Chart("unasked", "Not shown unasked", "watched_count", "event_ns", series=("way",))
LINES = Chart("lines", "The ways as lines", "watched_count", "event_ns", series=("way",), log_x=True, at_end=True)


class Pair(Experiment[Parameters]):
    version = 1
    parameters_type = Parameters
    row_type = PairRow
    views = (View("event", "event_ns"),)
    charts = (UNASKED, NOTHING, MAP, LINES)

    def cells(self, parameters):
        return [Cell({"way": way}) for way in ("old", "new")]

    def measure(self, parameters, cell, bench):
        for watched in (10, 100):
            for active in (1, 10):
                cost = 100.0 * watched / active if cell.key["way"] == "old" else 400.0
                interval = stats.Interval(cost * 0.9, cost, cost * 1.1)
                yield PairRow(way=cell.key["way"], watched_count=watched, active_count=active, event=interval)


EXPERIMENT = Pair()
'''
ARGUMENTS = ("pair", "--experiments", "own", "--seed", 1)
GRID = [["10", "O", "4.0", "N", "2.5"], ["1", "N", "2.5", "N", "25"]]


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "pair.py").write_text(OWN)
    return tmp_path


def grid_of(text: str) -> list[list[str]]:
    """The words in the rows of the map."""
    map_text = text[text.index("The faster way") : text.index("watched (count)\n")]
    return [line.replace("│", " ").split() for line in map_text.splitlines() if "│" in line]


def test_a_pipe_gets_the_pictures_after_the_run(cwd: Path) -> None:
    finished = run(*ARGUMENTS, "--csv", "-", cwd=cwd)
    assert finished.code == 0, finished.stderr
    assert len(rows_of(finished.stdout)) == 8  # data stays data
    assert "\x1b" not in finished.stderr
    assert max(map(len, finished.stderr[finished.stderr.index("The faster way") :].splitlines()[:-1])) <= 80
    assert grid_of(finished.stderr) == GRID
    assert finished.stderr.index("The faster way") < finished.stderr.index("The ways as lines")
    assert finished.stderr.splitlines()[-1].startswith("kept in results/")
    assert "What is not there" not in finished.stderr
    assert "Not shown unasked" not in finished.stderr
    assert json.loads((only_run_folder(cwd) / "run.json").read_text())["charts"][2]["kind"] == "winners"
    drawn = run("plot", "last", "--chart", "map", cwd=cwd)
    assert drawn.stdout in finished.stderr


def test_quiet_is_quiet(cwd: Path) -> None:
    finished = run(*ARGUMENTS, "--quiet", cwd=cwd)
    assert (finished.code, finished.stdout, finished.stderr) == (0, "", "")


@pytest.mark.parametrize("arguments", [ARGUMENTS, ("plot", "last", "--chart", "map")], ids=["run", "plot"])
def test_a_terminal_has_colours_unless_it_may_not(cwd: Path, arguments: tuple[object, ...]) -> None:
    run(*ARGUMENTS, "--quiet", cwd=cwd)
    pictures = []
    for changes in ({}, {"NO_COLOR": "1"}, {"TERM": "dumb"}):
        with on_terminal(*arguments, cwd=cwd, width=120, changes=changes) as terminal:
            code, output = terminal.finish()
        assert code == 0, output
        assert bool(re.search(r"\x1b\[[0-9;]+m N ", output)) == (not changes)
        pictures.append(grid_of(without_escapes(output)))
    assert pictures == [GRID] * 3


def test_a_high_terminal_is_not_filled(cwd: Path) -> None:
    """The run's own table stays in sight: no picture is higher than 24 rows, on a terminal of 40."""
    with on_terminal(*ARGUMENTS, cwd=cwd) as terminal:
        code, output = terminal.finish()
    assert code == 0
    lines = without_escapes(output).splitlines()
    start = lines.index("The ways as lines")
    assert lines[start - 1] == ""
    assert len(lines) - start <= 24
