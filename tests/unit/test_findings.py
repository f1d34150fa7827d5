"""Findings: numbers that no single row shows, in the table, in plain lines, as JSON lines and in the run folder."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from mock_experiment import MockExperiment, MockParameters, confirmed, fails, go
from rich.console import Console

from c10k_probe import native
from c10k_probe.events import FindingMade, FitMade, VerdictReached
from c10k_probe.experiment import Finding, FlatRow, Made, Samples, Verdict
from c10k_probe.fits import Fit
from c10k_probe.results import load
from c10k_probe.sinks.exports import JsonLinesSink, Target
from c10k_probe.sinks.folder import RunFolderSink
from c10k_probe.sinks.plain import PlainLines
from c10k_probe.sinks.table import LiveTable
from c10k_probe.sinks.text import finding_text
from c10k_probe.stats import Interval

KNOWN = Finding("epoll overtakes poll, 1 active", "watched_count", Interval(61, 48, 80))
UNKNOWN = Finding("5 % lost", "switches_per_s", None, "not reached")
FIT = Fit("model", "return_ns", ("rss_mib",), (Interval(1.0, None, None),) * 2, ((0, 0), (0, 0)), (1.0,), 0.9, 0.1, 3)


class Finder(MockExperiment):
    """Makes these findings at the end."""

    name = "mock"
    question = "Does the runner do what it says?"
    made: tuple[Made, ...] = (KNOWN, UNKNOWN)

    def fit(self, parameters: MockParameters, samples: Sequence[Samples], seed: int) -> Sequence[Made]:
        return self.made


@pytest.mark.parametrize(
    ("finding", "text"),
    [
        (KNOWN, "epoll overtakes poll, 1 active: watched 61 [48, 80]"),
        (UNKNOWN, "5 % lost: not reached"),
        (Finding("who", "watched_count", Interval(61, None, None)), "who: watched 61"),
        (
            Finding("who", "growth_exponent", Interval(0.98, 0.9, 1.05), "1 to 9"),
            "who: growth 0.98 [0.9, 1.05], 1 to 9",
        ),
        (Finding("who", "growth_ns", Interval(12.5, -3.2, 3000.0)), "who: growth 12.5 ns [-3.20 ns, 3.00 µs]"),
    ],
)
def test_a_finding_in_one_line(finding: Finding, text: str) -> None:
    assert finding_text(finding) == text


def test_findings_are_tables_of_their_own_one_for_each_kind_of_number() -> None:
    more = Finding("poll overtakes select, 1 active", "watched_count", Interval(9, None, None), "barely")
    experiment = Finder()
    experiment.made = (KNOWN, UNKNOWN, more)
    stream = io.StringIO()
    go(experiment, LiveTable(Console(file=stream, width=100), live=False))
    lines = [" ".join(line.split()) for line in stream.getvalue().splitlines()]
    watched, switches = lines.index("watched"), lines.index("switches")
    assert f"{KNOWN.subject} 61 [48, 80]" in lines[watched:switches]
    assert f"{more.subject} 9 barely" in lines[watched:switches]
    assert f"{UNKNOWN.subject} {UNKNOWN.note}" in lines[switches:]
    assert "None" not in "\n".join(lines[watched:])


def test_findings_are_plain_lines() -> None:
    stream = io.StringIO()
    go(Finder(), PlainLines(stream))
    lines = stream.getvalue().splitlines()
    assert [line for line in lines if line in (finding_text(KNOWN), finding_text(UNKNOWN))] == [
        finding_text(KNOWN),
        finding_text(UNKNOWN),
    ]


def test_findings_are_json_lines_with_null_for_what_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "records"
    go(Finder(), JsonLinesSink(Target("--json", str(path))))
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [record for record in records if record["type"] == "finding"] == [
        {
            "type": "finding",
            "subject": KNOWN.subject,
            "column": "watched_count",
            "value": {"middle": 61, "low": 48, "high": 80},
            "note": "",
        },
        {
            "type": "finding",
            "subject": UNKNOWN.subject,
            "column": "switches_per_s",
            "value": None,
            "note": "not reached",
        },
    ]


def test_findings_stand_in_the_run_folder_beside_the_fits(tmp_path: Path) -> None:
    experiment = Finder()
    experiment.made = (FIT, KNOWN, UNKNOWN)
    sink = RunFolderSink(tmp_path, {})
    go(experiment, sink)
    assert sink.path is not None
    facts = load(sink.path).facts
    assert [item["subject"] for item in facts["findings"]] == [KNOWN.subject, UNKNOWN.subject]
    assert facts["findings"][0]["value"] == {"middle": 61, "low": 48, "high": 80}
    assert facts["findings"][1]["value"] is None
    assert [item["name"] for item in facts["fits"]] == ["model"]


def test_a_run_without_findings_has_an_empty_list(tmp_path: Path) -> None:
    sink = RunFolderSink(tmp_path, {})
    go(MockExperiment(), sink)
    assert sink.path is not None
    assert load(sink.path).facts["findings"] == []


def test_findings_come_before_the_verdicts_that_rest_on_them() -> None:
    given: list[Sequence[Made]] = []

    def judge(_: Sequence[FlatRow], made: Sequence[Made]) -> Verdict:
        given.append(made)
        return Verdict("M1", "restated", "rule", "CONFIRMED", "evidence")

    experiment = Finder()
    experiment.made = (FIT, KNOWN)
    experiment.judges = (judge,)
    _, recorder = go(experiment)
    assert [type(event) for event in recorder.of(FitMade, FindingMade, VerdictReached)] == [
        FitMade,
        FindingMade,
        VerdictReached,
    ]
    assert given == [(FIT, KNOWN)]


def test_findings_from_rows_see_void_ones_and_come_after_those_from_samples() -> None:
    """A row without numbers has a reason all the same; judges get what both found, and no void rows."""

    class Both(Finder):
        """Finds how many rows there are."""

        judges = (confirmed,)

        def find(self, parameters: MockParameters, rows: Sequence[FlatRow], seed: int) -> Sequence[Finding]:
            return [Finding(str(row["cell"]), "value_ns", None, str(row["grade"])) for row in rows]

    _, recorder = go(Both(fails(native.HelperError("broken"), "b")))
    findings = [event.finding for event in recorder.of(FindingMade) if isinstance(event, FindingMade)]
    assert findings[:2] == [KNOWN, UNKNOWN]
    assert {(finding.subject, finding.note) for finding in findings[2:]} == {("a", "ok"), ("b", "void"), ("c", "ok")}
    (verdict,) = recorder.of(VerdictReached)
    assert isinstance(verdict, VerdictReached)
    assert verdict.verdict.evidence == "2 rows, 5 models"
