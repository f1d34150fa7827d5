"""``--fit`` and ``predict``: a stored cost model answers for states that were not measured, and says what it cannot."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from command import complaint_of, only_run_folder, rows_of, run, run_folders, run_inside

from c10k_probe import results

TERMS = ("rss_mib", "file_rss_mib", "mappings", "descriptors", "alive")
STATE = ("rss_bytes", "file_rss_bytes", "mappings_count", "descriptors_count", "alive_count")
MIB = 1 << 20
METHODS = ("fork", "vfork")
NANOSECONDS = {"ns": 1, "µs": 1e3, "ms": 1e6, "s": 1e9}
LINE = re.compile(r"^  (\S+) +(\S+) +(\S+) +([\d.,]+) (\S+)  \[([\d.,]+) (\S+), ([\d.,]+) (\S+)\]$")
Models = Mapping[tuple[str, str], Mapping[str, Any]]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose results hold one quick run with cost models of two methods."""
    cwd = tmp_path_factory.mktemp("fitted")
    arguments = ["--fit", "--quick", "--n", 6, "--repeats", 2, "--method", ",".join(METHODS), "--linking", "static"]
    finished = run("fork-latency", *arguments, "--csv", "rows.csv", cwd=cwd)
    assert finished.code == 0, finished.stderr
    for method in METHODS:
        for response in ("return", "cycle"):
            assert f"creation {method} static one-cpu children {response} = " in finished.stderr
            assert f"creation {method} static one-cpu children {response}: worst residual " in finished.stderr
    return cwd


def models_of(cwd: Path) -> Models:
    """The models in run.json by method and interval."""
    models = results.load(only_run_folder(cwd)).facts["fits"]
    return {(model["name"].split()[1], model["response"].removesuffix("_ns")): model for model in models}


def predicted(cwd: Path, *arguments: object) -> tuple[dict[tuple[str, str], tuple[float, ...]], list[str]]:
    """What ``predict creation`` says: middle, low and high in ns by method and interval; and every other line."""
    finished = run_inside("predict", "creation", *arguments, cwd=cwd)
    assert (finished.code, finished.stderr) == (0, "")
    known, others = {}, []
    for line in finished.stdout.splitlines():
        if match := LINE.match(line):
            method, linking, interval, *numbers = match.groups()
            assert linking == "static"
            texts = zip(numbers[::2], numbers[1::2], strict=True)
            known[method, interval] = tuple(float(text.replace(",", "")) * NANOSECONDS[unit] for text, unit in texts)
        else:
            others.append(line)
    assert [line.partition(":")[0] for line in others[1:3]] == ["measured", "farthest off its model"]
    warnings = ("warning: the machine was not quiet", "warning: the run was a --quick one")  # the first by chance
    return known, [line for line in others if not line.startswith(("measured: ", "farthest off", *warnings))]


def test_the_run_holds_a_model_of_each_method_and_interval(fitted: Path) -> None:
    models = models_of(fitted)
    assert set(models) == {(method, interval) for method in METHODS for interval in ("return", "cycle")}
    rows = rows_of((fitted / "rows.csv").read_text(encoding="utf-8"))
    for (method, _), model in models.items():
        assert model["name"] == f"creation {method} static one-cpu children"
        assert tuple(model["terms"]) == TERMS
        assert len(model["coefficients"]) == len(model["covariance"]) == 1 + len(TERMS)
        assert all(low <= high for _, low, high in model["coefficients"])
        points = [row for row in rows if (row["method"], row["huge_pages"], row["status"]) == (method, "off", "ok")]
        assert model["points_count"] == len(points) == len(model["residuals"]) > 10
        assert len({cell for cell, _ in model["residuals"]}) == len(points)
        highest = {name: max(int(row[f"asked_{name}"]) for row in points) for name in STATE}
        assert model["highest"] == [highest[name] / (MIB if "bytes" in name else 1) for name in STATE]


def test_fork_is_dearer_in_a_larger_parent_and_vfork_is_not_by_far(fitted: Path) -> None:
    """Order alone: what a MiB more costs fork's return is more than what it costs vfork's."""
    models = models_of(fitted)
    forked, shared = (dict(zip(TERMS, models[name, "return"]["coefficients"][1:], strict=True)) for name in METHODS)
    assert forked["rss_mib"][0] > 0
    assert forked["mappings"][0] > 0
    assert forked["rss_mib"][0] > abs(shared["rss_mib"][0])


def test_predictions_are_the_sum_of_their_parts(fitted: Path) -> None:
    """Computed again from run.json."""
    state = {"rss_mib": 30, "file_rss_mib": 16, "mappings": 2000, "descriptors": 1000, "alive": 500}
    arguments = ["--rss", "30MiB", "--file-rss", "16MiB", "--mappings", 2000, "--descriptors", "1k", "--alive", 500]
    known, others = predicted(fitted, *arguments)
    assert others == [
        f"from {only_run_folder(fitted).name}, in a parent with 30MiB rss, 16MiB file rss, 2,000 mappings, "
        "1,000 descriptors, 500 alive:"
    ]
    for name, model in models_of(fitted).items():
        first, *rest = (middle for middle, _, _ in model["coefficients"])
        expected = first + sum(factor * state[term] for term, factor in zip(model["terms"], rest, strict=True))
        middle, low, high = known[name]
        assert middle == pytest.approx(max(expected, 0), rel=0.01)
        assert low <= middle <= high
    assert known["fork", "return"][0] > known["vfork", "return"][0]


def test_a_parent_with_nothing_costs_about_what_was_measured(fitted: Path) -> None:
    known, others = predicted(fitted)
    assert others == [f"from {only_run_folder(fitted).name}, in a parent with nothing special:"]
    rows = rows_of((fitted / "rows.csv").read_text(encoding="utf-8"))
    for (method, interval), (middle, low, high) in known.items():
        (base,) = [float(row[f"{interval}_p50_ns"]) for row in rows if (row["method"], row["axis"]) == (method, "base")]
        assert low <= middle <= high
        assert base / 4 < middle < base * 4 or low <= base <= high


def test_what_lies_beyond_what_was_measured_is_said(fitted: Path) -> None:
    highest = dict(zip(TERMS, models_of(fitted)["fork", "return"]["highest"], strict=True))
    most, descriptors = highest["rss_mib"], highest["descriptors"]
    arguments = ["--rss", "8GiB", "--mappings", 2000, "--descriptors", 20_000, "--method", "fork"]
    known, (head, *warned) = predicted(fitted, *arguments)
    assert set(known) == {("fork", "return"), ("fork", "cycle")}
    assert "8GiB rss" in head
    assert warned == [
        f"extrapolated: rss_mib was measured up to {most:,.0f}, 8,192 is asked: {8192 / most:,.1f} times beyond",
        f"extrapolated: descriptors was measured up to {descriptors:,.0f}, 20,000 is asked: "
        f"{20_000 / descriptors:,.1f} times beyond",
        "the intervals hold only if the growth stays linear that far, which nothing here has measured",
    ]


def test_at_the_edge_of_what_was_measured_nothing_is_said(fitted: Path) -> None:
    _, (_, *warned) = predicted(fitted, "--rss", "32MiB", "--alive", 1000, "--method", "fork")
    assert warned == []


def test_where_an_answer_comes_from_is_said(fitted: Path) -> None:
    said = run("predict", "creation", cwd=fitted).stdout
    cells = sorted({model["points_count"] for model in models_of(fitted).values()})
    (measured,) = [line for line in said.splitlines() if line.startswith("measured: ")]
    for part in (f"{cells[-1]} cells", "2 launches each", "n = 6 a cell", "one-cpu", "steal ", "others' CPU "):
        assert part in measured
    assert "warning: the run was a --quick one" in said


def test_a_run_may_be_named(fitted: Path, tmp_path: Path) -> None:
    folder = only_run_folder(fitted)
    assert predicted(tmp_path, "--run", folder) == predicted(fitted)


def test_the_newest_run_that_holds_a_model_answers(fitted: Path, tmp_path: Path) -> None:
    """A later run without one does not hide it."""
    (tmp_path / "results").mkdir()
    folder = only_run_folder(fitted)
    (tmp_path / "results" / folder.name).symlink_to(folder)
    assert run("fork-latency", "--n", 1, "--repeats", 1, "--method", "vfork", cwd=tmp_path).code == 0
    assert len(run_folders(tmp_path)) == 2
    assert predicted(tmp_path) == predicted(fitted)


def test_the_newest_run_that_has_the_method_is_preferred(fitted: Path, tmp_path: Path) -> None:
    """A later run with models of other methods does not hide it."""
    (tmp_path / "results").mkdir()
    folder = only_run_folder(fitted)
    later = tmp_path / "results" / f"29990101T000000Z-fork-latency-{'0' * 6}"
    later.mkdir()
    facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    facts["fits"] = [fit for fit in facts["fits"] if " vfork " in fit["name"]]
    facts["warnings"] = [{"seen": "the machine was not quiet: steal of 9 %", "cause": "", "advice": ""}]
    (later / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    (later / "rows.csv").write_bytes((folder / "rows.csv").read_bytes())
    (tmp_path / "results" / folder.name).symlink_to(folder)
    assert predicted(tmp_path, "--method", "fork") == predicted(fitted, "--method", "fork")
    assert f"from {later.name}" in run_inside("predict", "creation", "--method", "vfork", cwd=tmp_path).stdout
    noisy = run_inside("predict", "creation", cwd=tmp_path).stdout
    assert f"from {later.name}" in noisy
    assert "warning: the machine was not quiet: steal of 9 %" in noisy


REFUSED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("predict bread", ("'bread'", "creation")),
    ("predict", ("subject", "predict --help")),
    ("predict creation --method spoon", ("spoon", "fork, vfork")),
    ("predict creation --method posix_spawn", ("posix_spawn", "fork, vfork")),
    ("predict creation --run missing", ("missing", "no run.json", "results/")),
    ("predict creation --placement any-cpu", ("any-cpu", "fork, vfork on one-cpu")),
    ("predict creation --alive-kind threads", ("threads", "fork, vfork on one-cpu")),
    ("predict creation --placement where", ("--placement", "'where'", "one-cpu, any-cpu")),
    ("predict creation --alive-kind dogs", ("--alive-kind", "'dogs'", "own, children, threads")),
    ("predict creation --rss ten", ("--rss", "'ten'", "64MiB")),
    ("predict creation --rss -5", ("--rss", "at least 0")),
    ("predict creation --alive 1.5", ("--alive", "whole")),
    ("predict creation --wings 2", ("--wings", "predict --help")),
)


@pytest.mark.parametrize(("line", "named"), REFUSED, ids=[line for line, _ in REFUSED])
def test_refused_in_one_line(fitted: Path, line: str, named: tuple[str, ...]) -> None:
    finished = run_inside(*line.split(), cwd=fitted)
    assert finished.code in (1, 2)
    complaint = complaint_of(finished)
    assert [word for word in named if word not in complaint] == []


def test_without_any_model_it_says_how_to_make_one(tmp_path: Path) -> None:
    finished = run_inside("predict", "creation", cwd=tmp_path)
    assert finished.code == 1
    assert "fork-latency --fit" in complaint_of(finished)


def test_a_run_without_a_model_says_how_to_make_one(tmp_path: Path) -> None:
    assert run("fork-latency", "--n", 1, "--repeats", 1, "--method", "vfork", cwd=tmp_path).code == 0
    finished = run_inside("predict", "creation", "--run", only_run_folder(tmp_path), cwd=tmp_path)
    assert finished.code in (1, 2)
    assert "--fit" in complaint_of(finished)
