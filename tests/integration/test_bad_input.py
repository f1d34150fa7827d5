"""Bad input: one line that names what is wrong, exit 2, nothing measured, nothing written, nothing started."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import complaint_of, run, run_folders, run_inside

# what is typed | what the one line must name
REFUSED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("fork-latency --n 0", ("--n", "0", "at least 1")),
    ("fork-latency --n -5", ("--n", "-5", "at least 1")),
    ("fork-latency --n ten", ("--n", "'ten'", "1000 or 10k")),
    ("fork-latency --n 1e12", ("--n", "1e12", "at most 1m")),
    ("fork-latency --n 1.5", ("--n", "1.5", "whole")),
    ("fork-latency --n nan", ("--n", "nan")),
    ("fork-latency --n inf", ("--n", "inf")),
    ("fork-latency --n 10kB", ("--n", "10kB")),
    ("fork-latency --n", ("--n", "argument")),
    ("fork-latency --warmup -1", ("--warmup", "at least 0")),
    ("connections --to 1e12", ("--to", "1e12", "at most 1m")),
    ("connections --to 0", ("--to", "0", "at least 1")),
    ("connections --steps 0", ("--steps", "at least 1")),
    ("fork-latency --method spoon", ("--method", "'spoon'", "fork, vfork, posix_spawn, clone3, pthread_create")),
    ("fork-latency --method fork,", ("--method", "''")),
    ("fork-latency --method fork,vfork,fork", ("--method", "twice")),
    ("fork-latency --linking loose", ("--linking", "'loose'", "dynamic, static")),
    ("fork-latency --placement two-cpu", ("--placement", "'two-cpu'", "one-cpu, any-cpu")),
    ("connections --model spoon", ("--model", "'spoon'", "epoll", "fork", "asyncio")),
    ("connections --model epoll,epoll", ("--model", "twice")),
    ("fork-latency --csv missing/rows.csv", ("--csv", "missing/rows.csv", "No such file or directory", "folder")),
    ("fork-latency --csv a-folder", ("--csv", "a-folder", "Is a directory")),
    ("fork-latency --json missing/rows.jsonl", ("--json", "missing/rows.jsonl", "No such file or directory")),
    ("fork-latency --json a-folder", ("--json", "a-folder", "Is a directory")),
    ("fork-latency --csv same --json same", ("--csv", "--json", "same")),
    ("fork-latency --out a-file", ("--out", "a-file")),
    ("fork-latency --out a-file/below", ("--out", "a-file/below", "Not a directory")),
    ("fork-latency --format x", ("--format", "'x'", "auto, table, plain, csv, jsonl")),
    ("fork-latency --csv - --json -", ("--csv", "--json", "stdout")),
    ("fork-latency --format csv --json -", ("--csv", "--json", "stdout")),
    ("fork-latency --format jsonl --csv -", ("--csv", "--json", "stdout")),
    ("fork-latency --repeats 0", ("--repeats", "at least 1")),
    ("fork-latency --repeats 1e9", ("--repeats", "at most")),
    ("fork-latency --seed -1", ("--seed", "at least 0")),
    ("fork-latency --seed x", ("--seed", "'x'")),
    ("fork-latency --timeout 0", ("--timeout", "at least 1s")),
    ("fork-latency --timeout soon", ("--timeout", "'soon'", "2s")),
    ("fork-latency --timeout 10MiB", ("--timeout", "10MiB")),
    ("fork-latency --wings 2", ("--wings", "fork-latency --help")),
    ("fork-latency extra", ("extra", "fork-latency --help")),
    ("fork-latency --experiments missing", ("--experiments", "missing")),
    ("list --experiments missing", ("--experiments", "missing")),
    ("frok-latency", ("frok-latency", "fork-latency")),
    ("zzz", ("zzz", "c10k-probe --help")),
    ("--wings", ("--wings", "c10k-probe --help")),
    ("show", ("name", "show --help")),
    ("show frok-latency", ("frok-latency", "did you mean fork-latency", "c10k-probe list")),
    ("show zzz", ("zzz", "c10k-probe list")),
    ("doctor --wings", ("--wings", "doctor --help")),
)


@pytest.mark.parametrize(("line", "named"), REFUSED, ids=[line for line, _ in REFUSED])
def test_refused_in_one_line(tmp_path: Path, line: str, named: tuple[str, ...]) -> None:
    """Each is refused before anything happens, and what is wrong is named."""
    (tmp_path / "a-folder").mkdir()
    (tmp_path / "a-file").write_text("mine", encoding="utf-8")
    finished = run_inside(*line.split(), cwd=tmp_path)
    assert finished.code == 2, finished.stderr
    complaint = complaint_of(finished)
    assert complaint.startswith("c10k-probe: ")
    assert [word for word in named if word not in complaint] == []
    assert run_folders(tmp_path) == []
    assert (tmp_path / "a-file").read_text(encoding="utf-8") == "mine"
    assert list((tmp_path / "a-folder").iterdir()) == []


@pytest.mark.parametrize("line", ["fork-latency --n 0", "frok-latency", "show zzz"])
def test_a_program_of_its_own_says_the_same(tmp_path: Path, line: str) -> None:
    """What is tried in this process for the sake of time is what a user sees."""
    assert run(*line.split(), cwd=tmp_path) == run_inside(*line.split(), cwd=tmp_path)


@pytest.mark.parametrize("option", ["--csv", "--json", "--out", "--n", "--method", "--format", "--seed"])
def test_an_empty_value_is_refused(tmp_path: Path, option: str) -> None:
    """``--csv "$FILE"`` with a variable that is not set must not quietly keep nothing."""
    arguments = [] if option == "--n" else ["--n", 1]
    finished = run_inside("fork-latency", "--quick", "--repeats", 1, *arguments, option, "", cwd=tmp_path)
    assert finished.code == 2, finished.stderr
    assert option in complaint_of(finished)
    assert run_folders(tmp_path) == []


def test_an_unwritable_place_is_refused(tmp_path: Path) -> None:
    """A read-only file system (/proc is one for everybody, root included) is named as such."""
    for option in ("--csv", "--json"):
        finished = run_inside("fork-latency", "--n", 1, option, "/proc/rows", cwd=tmp_path)
        assert (finished.code, option in complaint_of(finished)) == (2, True)
    finished = run_inside("fork-latency", "--n", 1, "--out", "/proc/runs", cwd=tmp_path)
    assert (finished.code, "--out" in complaint_of(finished)) == (2, True)


def test_a_bad_variable_is_refused(tmp_path: Path) -> None:
    """The variable for experiments of one's own is checked like the option."""
    finished = run_inside("list", cwd=tmp_path, changes={"C10K_PROBE_EXPERIMENTS": "missing"})
    assert finished.code == 2
    assert "missing" in complaint_of(finished)


def test_no_arguments_give_the_help(tmp_path: Path) -> None:
    """Without a command the whole help is shown, with its lines as they are, and nothing is measured."""
    finished = run(cwd=tmp_path)
    assert finished.code in (0, 2)
    lines = [line.strip() for line in (finished.stdout + finished.stderr).splitlines()]
    assert "Commands:" in lines, finished.stderr
    assert any(line.startswith("fork-latency") for line in lines)
    assert run_folders(tmp_path) == []


def test_a_bad_target_leaves_the_other_as_it_was(tmp_path: Path) -> None:
    """When one target is refused, a file that another option names is not emptied."""
    (tmp_path / "old.csv").write_text("old rows\n", encoding="utf-8")
    finished = run_inside("fork-latency", "--n", 1, "--csv", "old.csv", "--json", "missing/x", cwd=tmp_path)
    assert finished.code == 2
    assert (tmp_path / "old.csv").read_text(encoding="utf-8") == "old rows\n"
