"""CSV and JSON lines, to files and to stdout; targets that cannot be written are refused before anything happens."""

from __future__ import annotations

import csv
import errno
import json
from pathlib import Path
from typing import Any

import pytest
from mock_experiment import MockExperiment, confirmed, go

from c10k_probe.exits import ExitCode, UsageError, UserError
from c10k_probe.native import HelperError
from c10k_probe.results import load
from c10k_probe.sinks.exports import CsvSink, JsonLinesSink, Target
from c10k_probe.sinks.folder import RunFolderSink, check_base

COLUMNS = ["cell", "step", "value_ns", "n_count", "status", "reason", "grade", "grade_reason"]


def failing_b(experiment: MockExperiment) -> MockExperiment:
    plain = experiment.script

    def script(cell: Any, bench: Any) -> Any:
        if cell.key["cell"] == "b":
            raise HelperError('gone, "really"\nyes')
        yield from plain(cell, bench)

    experiment.script = script
    return experiment


def test_csv_to_a_file_has_a_header_and_each_row_once(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    code, _ = go(failing_b(MockExperiment()), CsvSink(Target("--csv", str(path))), repeats=3)
    assert code == ExitCode.INCOMPLETE
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == COLUMNS
    assert sorted(rows) == [
        ["a", "", "101", "3", "ok", "", "ok", ""],
        ["b", "", "", "", "failed", 'gone, "really"\nyes', "void", "not measured"],
        ["c", "", "101", "3", "ok", "", "ok", ""],
    ]


def test_csv_to_stdout_is_nothing_but_csv(capfd: pytest.CaptureFixture[str]) -> None:
    go(MockExperiment(), CsvSink(Target("--csv", "-")), repeats=2)
    out, err = capfd.readouterr()
    lines = out.splitlines()
    assert lines[0].split(",") == COLUMNS
    assert len(lines) == 4
    assert err == ""


def test_stdout_stays_open(capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        target = Target("--csv", "-")
        target.write("x\n")
        target.close()
        target.close()
    assert capfd.readouterr().out == "x\nx\n"


def test_json_lines_to_a_file(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    experiment = failing_b(MockExperiment())
    experiment.judges = (confirmed,)
    go(experiment, JsonLinesSink(Target("--json", str(path))), repeats=2, seed=7)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    kinds = [record["type"] for record in records]
    assert (kinds[0], kinds[-1]) == ("run", "end")
    assert sorted(kinds[1:-1]) == ["row", "row", "row", "verdict", "warning"]
    start, end = records[0], records[-1]
    assert (start["experiment"], start["version"], start["seed"], start["blocks"]) == ("mock", 3, 7, 2)
    assert list(start["columns"]) == COLUMNS
    assert start["parameters"]["n"] == 1000
    assert (end["code"], end["elapsed_s"] >= 0) == (3, True)
    rows = {record["cell"]: record for record in records if record["type"] == "row"}
    assert rows["a"] == {"type": "row", **dict(zip(COLUMNS, ["a", None, 100.5, 2, "ok", "", "ok", ""], strict=True))}
    assert rows["b"]["value_ns"] is None


def test_json_lines_to_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    go(MockExperiment(), JsonLinesSink(Target("--json", "-")))
    assert all(isinstance(json.loads(line), dict) for line in capfd.readouterr().out.splitlines())


def test_text_that_is_not_ascii(tmp_path: Path) -> None:
    for name, sink in (("a", CsvSink), ("b", JsonLinesSink)):
        path = tmp_path / name
        go(MockExperiment(cells=("µs×日本",)), sink(Target("--csv", str(path))))
        assert "µs×日本" in path.read_text(encoding="utf-8")


# --- targets that cannot be written ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda base: base / "no" / "such" / "file.csv", ("No such file or directory", "make the folder first")),
        (lambda base: base, ("Is a directory", "name a file")),
        (lambda base: base / "plain" / "file.csv", ("Not a directory",)),
        (lambda base: base / ("x" * 300), ("File name too long",)),
    ],
    ids=["missing", "folder", "below-a-file", "too-long"],
)
def test_an_unwritable_target_is_a_usage_error(tmp_path: Path, make: Any, words: tuple[str, ...]) -> None:
    (tmp_path / "plain").write_text("")
    path = make(tmp_path)
    with pytest.raises(UsageError) as caught:
        Target("--csv", str(path))
    message = str(caught.value)
    assert caught.value.code == ExitCode.USAGE
    assert message.startswith("--csv: ")
    assert "\n" not in message
    for word in (str(path), *words, "- for stdout"):
        assert word in message


def test_a_full_disk_is_an_error_of_the_operating_system() -> None:
    target = Target("--csv", "/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        target.write("x\n")
    assert caught.value.errno == errno.ENOSPC
    target.close()


def test_a_full_disk_does_not_stop_the_run(tmp_path: Path) -> None:
    good = tmp_path / "good.csv"
    broken = [CsvSink(Target("--csv", "/dev/full")), JsonLinesSink(Target("--json", "/dev/full"))]
    code, recorder = go(MockExperiment(), *broken, CsvSink(Target("--csv", str(good))), repeats=2)
    assert code == ExitCode.ERROR
    assert len(good.read_text().splitlines()) == 4
    assert len([text for text in recorder.warnings if "/dev/full" in text]) == 2


def test_the_folder_of_results_is_made(tmp_path: Path) -> None:
    check_base(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize("below", ["plain", "plain/deeper"])
def test_an_unwritable_folder_of_results_is_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "plain").write_text("")
    with pytest.raises(UserError, match=r"--out: .* cannot be written") as caught:
        check_base(tmp_path / below)
    assert caught.value.code == ExitCode.USAGE


# --- the run folder -------------------------------------------------------------------------------------------------


def test_the_run_folder_holds_the_run(tmp_path: Path) -> None:
    experiment = failing_b(MockExperiment())
    experiment.judges = (confirmed,)
    sink = RunFolderSink(tmp_path, {"display": "none"})
    code, recorder = go(experiment, sink, repeats=2, seed=11)
    assert sink.path is not None
    run = load(sink.path)
    assert {(row["cell"], row["step"]): dict(row) for row in run.rows} == {
        key: dict(values) for key, values in recorder.rows.items()
    }
    assert len(run.samples) == 4
    assert {sample["block"] for sample in run.samples} == {0, 1}
    assert all(sample["values"]["value_ns"] == [100 + sample["block"]] for sample in run.samples)
    facts = run.facts
    assert (run.state, facts["exit_code"], facts["seed"], facts["blocks"]) == ("finished", int(code), 11, 2)
    assert (facts["display"], facts["machine"], facts["experiment_version"]) == ("none", {"fact": 1}, 3)
    assert facts["verdicts"][0]["verdict"] == "CONFIRMED"
    assert "gone" in facts["warnings"][0]["seen"]
    assert "counters" in facts


def test_two_runs_at_once_do_not_meet(tmp_path: Path) -> None:
    for _ in range(3):
        go(MockExperiment(), RunFolderSink(tmp_path, {}))
    assert len(list(tmp_path.iterdir())) == 3
