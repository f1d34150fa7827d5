"""Finding experiments: the package's own, a user's folder, and every way in which a user's file can be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from c10k_probe.exits import ExitCode, UsageError, UserError
from c10k_probe.registry import documentation, find_experiments

GOOD = '''"""A question of my own.

Sources: none.
"""

from __future__ import annotations

from dataclasses import dataclass

from c10k_probe.experiment import Cell, Experiment, Parameters, Row, column


@dataclass(frozen=True, kw_only=True)
class OwnRow(Row):
    name: str = column("which", key=True)


class Own(Experiment[Parameters]):
    name = "NAME"
    question = "Does it work?"
    version = 1
    parameters_type = Parameters
    row_type = OwnRow
    views = ()

    def cells(self, parameters):
        return [Cell({"name": "one"})]

    def measure(self, parameters, cell, bench):
        yield OwnRow(name="one")


EXPERIMENT = Own()
'''


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def refusal(folder: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        find_experiments(folder)
    assert "\n" not in str(caught.value)
    return caught.value


def test_packaged_experiments_are_sorted_by_name() -> None:
    found = find_experiments()
    assert list(found) == sorted(found)
    assert all(experiment.name == name for name, experiment in found.items())


def test_a_users_folder_is_added(tmp_path: Path) -> None:
    write(tmp_path, "own.py", GOOD.replace("NAME", "own"))
    write(tmp_path, "_shared.py", "raise RuntimeError('files with an underscore are not experiments')")
    write(tmp_path, "notes.txt", "nor are others")
    found = find_experiments(tmp_path)
    assert found.keys() - find_experiments().keys() == {"own"}
    assert documentation(found["own"]) == "A question of my own.\n\nSources: none."


def test_an_empty_folder_adds_nothing(tmp_path: Path) -> None:
    assert find_experiments(tmp_path).keys() == find_experiments().keys()


@pytest.mark.parametrize("make", ["missing", "file"])
def test_a_folder_that_is_none_is_a_usage_error(tmp_path: Path, make: str) -> None:
    path = tmp_path / "own"
    if make == "file":
        path.write_text("")
    with pytest.raises(UsageError, match="--experiments") as caught:
        find_experiments(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("x = 1\ny = 1 / 0\n", 2, ("ZeroDivisionError",)),
        ("x = 1\n\nimport no_such_module_at_all\n", 3, ("ModuleNotFoundError", "no_such_module_at_all")),
        ("x = 1\n\n\ny = = 2\n", 4, ("SyntaxError",)),
        ("import json\n\n\n\njson.loads('{')\n", 5, ("JSONDecodeError",)),
        ("def f():\n    raise ValueError('first\\nsecond')\n\nf()\n", 2, ("ValueError", "first")),
    ],
    ids=["zero", "import", "syntax", "inside-a-library", "two-lines"],
)
def test_a_broken_file_is_one_line_with_file_and_line(
    tmp_path: Path, text: str, line: int, words: tuple[str, ...]
) -> None:
    path = write(tmp_path, "broken.py", text)
    error = refusal(tmp_path)
    assert error.code == ExitCode.ERROR
    assert f"{path}:{line}: " in str(error)
    for word in (*words, "--experiments"):
        assert word in str(error)


@pytest.mark.parametrize("text", ["", "EXPERIMENT = 5\n", "experiment = None\n"])
def test_a_file_without_an_experiment(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, "empty.py", text)
    message = str(refusal(tmp_path))
    assert str(path) in message
    assert "EXPERIMENT" in message


def test_an_experiment_without_a_name_is_the_users_error(tmp_path: Path) -> None:
    path = write(tmp_path, "nameless.py", GOOD.replace('    name = "NAME"\n', ""))
    assert str(path) in str(refusal(tmp_path))


def test_a_name_used_twice_names_the_file(tmp_path: Path) -> None:
    write(tmp_path, "a.py", GOOD.replace("NAME", "own"))
    second = write(tmp_path, "b.py", GOOD.replace("NAME", "own"))
    message = str(refusal(tmp_path))
    assert "own" in message
    assert str(second) in message


def test_a_packaged_name_cannot_be_taken(tmp_path: Path) -> None:
    path = write(tmp_path, "mine.py", GOOD.replace("NAME", "fork-latency"))
    message = str(refusal(tmp_path))
    assert "fork-latency" in message
    assert str(path) in message
