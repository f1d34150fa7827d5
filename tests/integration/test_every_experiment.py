"""Visits every experiment at its smallest size: one that is added is tested here without a line of its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from command import Finished, only_run_folder, rows_of, run, run_inside
from conftest import cannot_run

from c10k_probe import results, units
from c10k_probe.cli.app import COMMON_OPTIONS, COMMON_SWITCHES
from c10k_probe.exits import UsageError
from c10k_probe.experiment import AnyExperiment, columns
from c10k_probe.parameters import build_parameters, option_name, options_of
from c10k_probe.registry import find_experiments

EXPERIMENTS = find_experiments()
STATUSES = {"ok", "skipped", "failed", "interrupted"}
GRADES = {"ok", "shaky", "void"}
FIRST_COUNT = 3
OWN_EXPERIMENT = '''"""How many sheep were asked for?

Question: see above. Timed: nothing. Not timed: everything. Clock: none. Sources: none.
"""

from __future__ import annotations

from dataclasses import dataclass

from c10k_probe.experiment import Cell, Experiment, Row, View, column
from c10k_probe.parameters import Parameters, parameter


@dataclass(frozen=True)
class OwnParameters(Parameters):
    """What may be chosen."""

    sheep: int = parameter(3, "Sheep to count.", minimum=1, maximum=9)


@dataclass(frozen=True, kw_only=True)
class OwnRow(Row):
    """One herd."""

    herd: str = column("which herd", key=True)
    sheep_count: int | None = column("sheep that were counted")


class CountSheep(Experiment[OwnParameters]):
    """See the module."""

    version = 1
    parameters_type = OwnParameters
    row_type = OwnRow
    views = (View("sheep", "sheep_count"),)

    def cells(self, parameters):
        return [Cell({"herd": "white"}), Cell({"herd": "black, with a comma"})]

    def measure(self, parameters, cell, bench):
        yield OwnRow(herd=cell.key["herd"], sheep_count=parameters.sheep)


EXPERIMENT = CountSheep()
'''


@dataclass(frozen=True)
class Visit:
    """One experiment run at its smallest, with what it left."""

    experiment: AnyExperiment
    finished: Finished
    cwd: Path

    @property
    def rows(self) -> list[dict[str, str]]:
        """The rows of the CSV file."""
        return rows_of((self.cwd / "rows.csv").read_text(encoding="utf-8"))


def smallest(experiment: AnyExperiment) -> list[str]:
    """Every parameter that has a minimum at it, and the first of many things that are measured one after the other, but
    for what the experiment refuses beside the others. All of them are measured in tests of their own."""
    given: dict[str, str | None] = {}
    for name, default, option in options_of(experiment.parameters_type):
        small = units.format_exact(option.minimum, option.dimension) if option.minimum is not None else ""
        if option.choices and isinstance(default, tuple) and len(default) > 2 * FIRST_COUNT - 2:
            small = ",".join(default[:FIRST_COUNT])
        if small:
            more = given | {name: small}
            with contextlib.suppress(UsageError):
                experiment.check(build_parameters(experiment.parameters_type, more, quick=True))
                given = more
    return [word for name, text in given.items() for word in (option_name(name), str(text))]


@pytest.fixture(scope="module", params=EXPERIMENTS)
def visit(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Visit:
    """Each experiment, run once for all tests of this file."""
    experiment = EXPERIMENTS[request.param]
    cwd = tmp_path_factory.mktemp(request.param)
    common = ["--quick", "--repeats", 1, "--seed", 7, "--csv", "rows.csv", "--json", "-"]
    made = Visit(experiment, run(experiment.name, *smallest(experiment), *common, cwd=cwd), cwd)
    if missing := {row["reason"] for row in made.rows if "not installed" in row["reason"]}:
        cannot_run("; ".join(sorted(missing)))
    return made


def test_ends_well(visit: Visit) -> None:
    """Everything was measured."""
    assert visit.finished.code == 0, visit.finished.stderr
    assert {row["status"] for row in visit.rows} == {"ok"}


def test_csv_has_the_declared_columns(visit: Visit) -> None:
    """The header is the row type's columns in order, every row has all of them, and keys are unique."""
    declared = columns(visit.experiment.row_type)
    header, *lines = (visit.cwd / "rows.csv").read_text(encoding="utf-8").splitlines()
    assert header.split(",") == [column.name for column in declared]
    assert len(lines) == len(visit.rows) > 0
    keys = [tuple(row[column.name] for column in declared if column.key) for row in visit.rows]
    assert len(set(keys)) == len(keys)
    assert all("" not in key for key in keys)


def test_csv_cells_hold_their_kind(visit: Visit) -> None:
    """Status and grade are of the known words; every number parses as what it was declared, or is empty."""
    for row in visit.rows:
        assert row["status"] in STATUSES
        assert row["grade"] in GRADES
        assert (row["reason"] == "") == (row["status"] == "ok")
        assert (row["grade_reason"] == "") == (row["grade"] == "ok")
        for column in columns(visit.experiment.row_type):
            value = results.parse_value(row[column.name], column.kind)
            assert value is None or type(value).__name__ == column.kind


def test_run_folder_loads(visit: Visit) -> None:
    """The run folder holds the same rows and says what was asked of whom."""
    stored = results.load(only_run_folder(visit.cwd))
    kinds = {column.name: column.kind for column in columns(visit.experiment.row_type)}
    exported = [{name: results.parse_value(text, kinds[name]) for name, text in row.items()} for row in visit.rows]
    assert sorted(map(repr, stored.rows)) == sorted(map(repr, exported))
    assert stored.state == "finished"
    assert stored.facts["experiment"] == visit.experiment.name
    assert stored.facts["experiment_version"] == visit.experiment.version
    assert (stored.facts["seed"], stored.facts["blocks"], stored.facts["exit_code"]) == (7, 1, 0)
    assert {"machine", "limits", "helpers", "parameters", "counters", "warnings", "command"} <= stored.facts.keys()
    assert not any("hostname" in name for name in stored.facts["machine"])


def test_json_lines(visit: Visit) -> None:
    """One object a line: the run first, the end last, the rows between them; what is missing is null."""
    records = [json.loads(line) for line in visit.finished.stdout.splitlines()]
    assert records[0]["type"] == "run"
    assert records[-1] == {**records[-1], "type": "end", "code": 0}
    rows = [record for record in records if record["type"] == "row"]
    assert len(rows) == len(visit.rows)
    names = [column.name for column in columns(visit.experiment.row_type)]
    for record, row in zip(rows, visit.rows, strict=True):
        assert list(record) == ["type", *names]
        numbers = [column.name for column in columns(visit.experiment.row_type) if column.kind != "str"]
        assert [name for name in numbers if record[name] is None] == [name for name in numbers if row[name] == ""]


def test_show_and_help_name_every_option(visit: Visit) -> None:
    """``show`` explains parameters and columns, ``--help`` every option there is."""
    own = [option_name(name) for name, _, _ in options_of(visit.experiment.parameters_type)]
    shown = run_inside("show", visit.experiment.name, cwd=visit.cwd)
    helped = run_inside(visit.experiment.name, "--help", cwd=visit.cwd)
    assert (shown.code, shown.stderr, helped.code, helped.stderr) == (0, "", 0, "")
    words = shown.stdout.split()
    assert set(own) <= set(words)
    assert {column.name for column in columns(visit.experiment.row_type)} <= set(words)
    common = [option_name(item[0]) for item in (*COMMON_OPTIONS, *COMMON_SWITCHES)]
    assert set(own) | set(common) <= set(helped.stdout.split())
    assert visit.experiment.question in " ".join(helped.stdout.split())


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    """A folder with one experiment of the user's own."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "count_sheep.py").write_text(OWN_EXPERIMENT, encoding="utf-8")
    return folder


@pytest.mark.parametrize("by", ["option", "variable"])
def test_own_experiment_is_one_of_them(own_folder: Path, tmp_path: Path, by: str) -> None:
    """A file in a folder named by option or variable is listed, shown, and run with options, table and CSV."""
    option = ["--experiments", own_folder] if by == "option" else []
    changes = {"C10K_PROBE_EXPERIMENTS": str(own_folder)} if by == "variable" else {}
    ran = run("count-sheep", "--sheep", 5, "--csv", "-", *option, cwd=tmp_path, changes=changes)
    assert ran.code == 0, ran.stderr
    assert [(row["herd"], row["sheep_count"]) for row in sorted(rows_of(ran.stdout), key=lambda row: row["herd"])] == [
        ("black, with a comma", "5"),
        ("white", "5"),
    ]
    refused = run_inside("count-sheep", "--sheep", 10, *option, cwd=tmp_path, changes=changes)
    assert (refused.code, "--sheep" in refused.stderr) == (2, True)
    helped = run_inside("count-sheep", "--help", *option, cwd=tmp_path, changes=changes)
    assert "--sheep" in helped.stdout


@pytest.mark.parametrize("arguments", [("list",), ("show", "count-sheep")])
def test_own_experiment_is_listed_and_shown(own_folder: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """``list`` and ``show`` know it by the variable and by the option alike."""
    by_variable = run(*arguments, cwd=tmp_path, changes={"C10K_PROBE_EXPERIMENTS": str(own_folder)})
    assert by_variable.code == 0, by_variable.stderr
    assert "count-sheep" in by_variable.stdout
    assert {"list": "How many sheep", "show": "--sheep"}[arguments[0]] in by_variable.stdout
    by_option = run(*arguments, "--experiments", own_folder, cwd=tmp_path)
    assert (by_option.code, by_option.stdout) == (0, by_variable.stdout), by_option.stderr


def test_a_broken_file_is_named_with_its_line(own_folder: Path, tmp_path: Path) -> None:
    """A mistake in a user's file is one line with the file, the line and the mistake; the others still run."""
    (own_folder / "wrong.py").write_text('"""What is wrong?"""\nx = 1\ny = x / 0\n', encoding="utf-8")
    changes = {"C10K_PROBE_EXPERIMENTS": str(own_folder)}
    finished = run("wrong", cwd=tmp_path, changes=changes)
    assert finished.code == 1
    (line,) = finished.stderr.splitlines()
    assert "wrong.py:3: ZeroDivisionError" in line
    assert run("count-sheep", cwd=tmp_path, changes=changes).code == 0


def test_a_run_from_a_source_tree_names_its_commit(visit: Visit, require_tool: Callable[[str], str]) -> None:
    """run.json has the commit that the running tree is at; None where there is no tree."""
    git = require_tool("git")
    tree = Path(str(sys.modules["c10k_probe.experiments"].__file__)).parents[1]
    revision = results.load(only_run_folder(visit.cwd)).facts["machine"]["git_revision"]
    if not (tree / ".git").exists():
        assert revision is None
        return
    known = subprocess.run([git, "-C", tree, "log", "-20", "--format=%H"], capture_output=True, text=True, check=True)
    assert revision in known.stdout.split()
