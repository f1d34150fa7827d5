"""Results of several kinds in one run: each row is shown in the table of its group only, and none is lost."""

from __future__ import annotations

import io
from collections.abc import Iterator

from mock_experiment import MockExperiment, MockRow, go
from rich.console import Console

from c10k_probe.experiment import Bench, Cell, Row, Samples, View
from c10k_probe.sinks.plain import PlainLines
from c10k_probe.sinks.table import LiveTable

TIMES = View("value", "value_ns")
COUNTS = View("number", "n_count", group="counts")
MADE = {
    "timed": {"value_ns": 5.5},
    "counted": {"n_count": 77},
    "both": {"value_ns": 6.5, "n_count": 88},
    "broken": {"status": "failed", "reason": "gone", "grade": "void", "grade_reason": "not measured"},
}


def of_two_kinds(*names: str) -> MockExperiment:
    """Rows of which some have times, some counts, and one neither."""

    def script(cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        name = str(cell.key["cell"])
        yield MockRow(cell=name, step=None, **MADE[name])  # type: ignore[arg-type]

    experiment = MockExperiment(script, names or tuple(MADE))
    experiment.views = (TIMES, COUNTS)
    return experiment


def tables(experiment: MockExperiment) -> dict[str, list[str]]:
    """Group -> the lines of its table, as printed at the end; the first has no title."""
    stream = io.StringIO()
    go(experiment, LiveTable(Console(file=stream, width=100), live=False))
    found: dict[str, list[str]] = {"": []}
    title = ""
    for line in stream.getvalue().splitlines():
        title = "counts" if line.strip() == "counts" else title
        found.setdefault(title, []).append(line.rstrip())
    return found


def names_in(lines: list[str]) -> set[str]:
    return {line.split()[0] for line in lines if line.split()} & set(MADE)


def test_a_row_stands_in_the_tables_that_have_a_value_of_it() -> None:
    """What was not measured as it should be stands in the first, so that it stands somewhere."""
    found = tables(of_two_kinds())
    assert names_in(found[""]) == {"timed", "both", "broken"}
    assert names_in(found["counts"]) == {"counted", "both"}


def test_without_rows_for_the_main_table_the_other_stands_alone() -> None:
    found = tables(of_two_kinds("counted"))
    assert names_in(found[""]) == set()
    assert not any("value" in line for line in found[""])
    assert names_in(found["counts"]) == {"counted"}


def test_a_plain_line_has_the_first_group_that_has_a_value() -> None:
    """No value is told twice, and none is left out."""
    stream = io.StringIO()
    go(of_two_kinds(), PlainLines(stream))
    lines = stream.getvalue().splitlines()
    for name, text in {"timed": "value 5.50 ns", "counted": "number 77", "both": "value 6.50 ns"}.items():
        assert f"{name}: {text}" in lines
    assert "counts: both: number 88" in lines
    assert sum("number 77" in line for line in lines) == 1  # a seed may hold those digits too
    (broken,) = [line for line in lines if line.startswith("broken: ")]
    assert "failed, gone" in broken
