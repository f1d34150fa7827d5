"""Finding experiments: the package's own, a user's folder, and every way in which a user's file can be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from c10k_probe.cli.app import COMMON_OPTIONS, COMMON_SWITCHES
from c10k_probe.exits import ExitCode, UsageError, UserError
from c10k_probe.parameters import options_of
from c10k_probe.registry import documentation, find_experiments, load, outline

GOOD = '''"""Does it work?

Sources: none.
"""

from __future__ import annotations

from dataclasses import dataclass

from c10k_probe.experiment import Cell, Experiment, Row, column
from c10k_probe.parameters import Parameters


@dataclass(frozen=True, kw_only=True)
class OwnRow(Row):
    name: str = column("which", key=True)


class Own(Experiment[Parameters]):
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


def test_no_parameter_is_hidden_by_what_every_run_takes() -> None:
    taken = {name for name, *_ in (*COMMON_OPTIONS, *COMMON_SWITCHES)}
    for name, experiment in find_experiments().items():
        own = {option for option, _, _ in options_of(experiment.parameters_type)}
        assert own & taken <= {"trace"}, name  # which an experiment may take in its own way


def test_a_users_folder_is_added(tmp_path: Path) -> None:
    write(tmp_path, "my_own.py", GOOD)
    write(tmp_path, "_shared.py", "raise RuntimeError('files with an underscore are not experiments')")
    write(tmp_path, "notes.txt", "nor are others")
    found = find_experiments(tmp_path)
    assert found.keys() - find_experiments().keys() == {"my-own"}
    own = found["my-own"]
    assert (own.name, own.question) == ("my-own", "Does it work?")
    assert documentation(own) == "Does it work?\n\nSources: none."


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
        ("x = 1\ny = 1 / 0\n", 3, ("ZeroDivisionError",)),
        ("x = 1\n\nimport no_such_module_at_all\n", 4, ("ModuleNotFoundError", "no_such_module_at_all")),
        ("x = 1\n\n\ny = = 2\n", 5, ("SyntaxError",)),
        ("import json\n\n\n\njson.loads('{')\n", 6, ("JSONDecodeError",)),
        ("def f():\n    raise ValueError('first\\nsecond')\n\nf()\n", 3, ("ValueError", "first")),
        (GOOD.partition("\n")[2].replace("row_type = OwnRow", "row_type = Missing"), 22, ("NameError", "Missing")),
    ],
    ids=["zero", "import", "syntax", "inside-a-library", "two-lines", "class"],
)
def test_a_broken_file_is_one_line_with_file_and_line(
    tmp_path: Path, text: str, line: int, words: tuple[str, ...]
) -> None:
    head = '"""Is it broken?\n' if text.lstrip().startswith("Sources") else '"""Is it broken?"""\n'
    path = write(tmp_path, "broken.py", head + text)
    error = refusal(tmp_path)
    assert error.code == ExitCode.ERROR
    assert f"{path}:{line}: " in str(error)
    for word in (*words, "--experiments"):
        assert word in str(error)


def test_a_broken_file_is_seen_without_being_imported(tmp_path: Path) -> None:
    """So that --help and list work, and name it."""
    path = write(tmp_path, "broken.py", '"""Is it broken?"""\n1 / 0\n')
    entry = outline(tmp_path)["broken"]
    assert (entry.question, entry.path, entry.packaged) == ("Is it broken?", path, False)
    with pytest.raises(UserError, match="ZeroDivisionError"):
        load(entry)


@pytest.mark.parametrize("text", ["", "x = 1\n", '""""""\n', '"""\nLate question?"""\n'])
def test_a_file_without_a_question(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, "silent.py", text)
    message = str(refusal(tmp_path))
    assert f"{path}:1: " in message
    assert "docstring" in message


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "photo.py"
    path.write_bytes(b"\xff\xd8\xff\xe0 not Python")
    assert str(path) in str(refusal(tmp_path))


@pytest.mark.parametrize("text", ["", "EXPERIMENT = 5\n", "experiment = None\n"])
def test_a_file_without_an_experiment(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, "empty.py", '"""Is it empty?"""\n' + text)
    message = str(refusal(tmp_path))
    assert str(path) in message
    assert "EXPERIMENT" in message


@pytest.mark.parametrize(("first", "second"), [("my_own.py", "my-own.py"), ("fork_latency.py", "")])
def test_a_name_used_twice_names_a_file(tmp_path: Path, first: str, second: str) -> None:
    """Two files of the user's, or one that has the name of a packaged experiment."""
    for name in filter(None, (first, second)):
        write(tmp_path, name, GOOD)
    message = str(refusal(tmp_path))
    assert first.removesuffix(".py").replace("_", "-") in message
    assert str(tmp_path / first) in message


def test_an_experiment_that_builds_on_another_has_the_name_of_its_own_file(tmp_path: Path) -> None:
    text = '''"""Is it mine?"""

from c10k_probe.experiments.fork_latency import ForkLatency


class Mine(ForkLatency):
    version = 2


EXPERIMENT = Mine()
'''
    write(tmp_path, "mine.py", text)
    mine = find_experiments(tmp_path)["mine"]
    assert (mine.name, mine.question) == ("mine", "Is it mine?")
