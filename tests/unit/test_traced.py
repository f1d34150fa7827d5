"""Traced cells beside untraced ones: measured in turn, never judged, fitted, drawn or shown as untraced."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
from charting import CHART, COLUMNS, KEYS, row, stored
from mock_experiment import MockExperiment, MockParameters, MockRow, Recorder, confirmed, samples_of

from c10k_probe import machine, native, traced
from c10k_probe.charts.choice import draw
from c10k_probe.charts.lines import Drawing
from c10k_probe.cli.traced import choose_backend
from c10k_probe.events import CellStarted, FindingMade, RowMeasured, Sink, Tee, VerdictReached
from c10k_probe.exits import ExitCode, UsageError
from c10k_probe.experiment import (
    Bench,
    Cell,
    Chart,
    Finding,
    Made,
    Row,
    Samples,
    View,
    column,
)
from c10k_probe.results import StoredRun
from c10k_probe.runner import Plan, Run
from c10k_probe.sinks.folder import RunFolderSink
from c10k_probe.sinks.plain import PlainLines
from c10k_probe.traced import is_traced, tracing_column
from c10k_probe.tracing.base import TracerUnavailable
from c10k_probe.tracing.choose import CHOICES

SLOWER = 3


@dataclass(frozen=True, kw_only=True)
class TracedRow(MockRow):
    """A row of either kind."""

    traced_by: str = tracing_column()
    calls_count: int | None = column("calls of a traced launch")
    trace_dropped_count: int | None = column("lost events")


class TracedExperiment(MockExperiment):
    """Traced launches are three times as slow."""

    name = "mock"
    question = "Is what is traced kept apart?"
    version = 1
    row_type = TracedRow
    views = (View("value", "value_ns"), View("calls", "calls_count", group="traced", traced=True))
    judges = (confirmed,)
    traced_values = ("value_ns",)
    traced_weight = 5.0
    fitted: Sequence[Samples] = ()

    def untraceable(self, parameters: MockParameters) -> str:
        return "often is too often" if parameters.often else ""

    def summarise(self, parameters: MockParameters, samples: Sequence[Samples], seed: int) -> list[Row]:
        groups = traced.by_key(samples)
        return [
            TracedRow(**dict(key), step=None, value_ns=launches[0].values["value_ns"][0], n_count=len(launches))  # type: ignore[arg-type]
            for key, launches in groups.items()
        ]

    def fit(self, parameters: MockParameters, samples: Sequence[Samples], seed: int) -> Sequence[Made]:
        self.fitted = list(samples)
        return []


def by_arm(cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
    factor = SLOWER if cell.traced_by != "off" else 1
    yield samples_of(cell, bench, factor * (100 + bench.block))


def go(experiment: MockExperiment, *sinks: Sink, repeats: int = 5, trace: str = "bcc") -> tuple[ExitCode, Recorder]:
    recorder = Recorder()
    tee = Tee([*sinks, recorder])
    with mock.patch.object(machine, "noise_reason", lambda *_: None):
        code = Run(experiment, MockParameters(), Plan(repeats, 1, trace=trace), tee).go({})
    tee.close()
    return code, recorder


# --- the loop -------------------------------------------------------------------------------------------------------


def test_each_block_has_each_cell_traced_and_not() -> None:
    code, recorder = go(TracedExperiment(by_arm))
    assert code == ExitCode.OK
    for block in range(5):
        started = [item.cell for item in recorder.of(CellStarted) if item.block == block]  # type: ignore[attr-defined]
        assert sorted((cell.key["cell"], cell.traced_by) for cell in started) == [
            (name, arm) for name in "abc" for arm in ("bcc", "off")
        ]
    orders = {tuple(arm for arm in arms) for arms in [[c.traced_by for c in _cells(recorder, b)] for b in range(5)]}
    assert len(orders) > 1, "in shuffled order"


def _cells(recorder: Recorder, block: int) -> list[Cell]:
    return [item.cell for item in recorder.of(CellStarted) if item.block == block]  # type: ignore[attr-defined]


def test_without_tracing_nothing_is_added() -> None:
    _, recorder = go(TracedExperiment(by_arm), trace="off")
    assert {row["traced_by"] for row in recorder.rows.values()} == {"off"}
    assert recorder.of(FindingMade) == []
    assert len(recorder.starts) == 15


def test_rows_are_apart_and_samples_are_never_pooled() -> None:
    _, recorder = go(TracedExperiment(by_arm))
    assert {(key[0], row["traced_by"], row["value_ns"]) for key, row in recorder.rows.items()} == {
        (name, arm, factor * 100) for name in "abc" for arm, factor in (("off", 1), ("bcc", SLOWER))
    }
    assert {row["n_count"] for row in recorder.rows.values()} == {5}


def test_traced_launches_are_neither_fitted_nor_judged() -> None:
    experiment = TracedExperiment(by_arm)
    _, recorder = go(experiment)
    assert {item.traced_by for item in experiment.fitted} == {"off"}
    (reached,) = recorder.of(VerdictReached)
    assert reached.verdict.evidence.startswith("3 rows")  # type: ignore[attr-defined]


def test_the_slowdown_is_found_in_blocks_with_its_interval() -> None:
    _, recorder = go(TracedExperiment(by_arm))
    findings = [item.finding for item in recorder.of(FindingMade)]  # type: ignore[attr-defined]
    assert [(item.subject, item.column) for item in findings] == [
        (f"value_ns of {name}", "traced_over_off_ratio") for name in "abc"
    ]
    for item in findings:
        assert (item.value.middle, item.value.low, item.value.high) == pytest.approx((SLOWER, SLOWER, SLOWER))
        assert "bcc" in item.note


def test_under_five_blocks_the_slowdown_has_no_interval() -> None:
    _, recorder = go(TracedExperiment(by_arm), repeats=4)
    (first, *_) = [item.finding.value for item in recorder.of(FindingMade)]  # type: ignore[attr-defined]
    assert (first.middle, first.low, first.high) == (SLOWER, None, None)


def test_a_traced_cell_that_fails_takes_no_untraced_one_with_it() -> None:
    def script(cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        if cell.traced_by != "off":
            raise native.HelperUnsupported("no tracer any more")
        yield from by_arm(cell, bench)

    _, recorder = go(TracedExperiment(script))
    found = {(row["traced_by"], row["status"], row["grade"]) for row in recorder.rows.values()}
    assert found == {("off", "ok", "ok"), ("bcc", "skipped", "void")}
    assert len(recorder.rows) == 6


def test_an_interruption_in_a_traced_launch_keeps_what_was_measured() -> None:
    def script(cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        if cell.traced_by != "off" and bench.block == 1:
            os.kill(os.getpid(), signal.SIGINT)
        yield from by_arm(cell, bench)

    code, recorder = go(TracedExperiment(script))
    assert code == ExitCode.INTERRUPTED
    assert {row["value_ns"] for row in recorder.rows.values()} <= {100, 300}
    assert {row["traced_by"] for row in recorder.rows.values()} == {"off", "bcc"}
    assert len(recorder.rows) == 6
    assert recorder.of(FindingMade) == []


def test_the_whole_of_the_lost_events_stands_in_the_run(tmp_path: Path) -> None:
    def script(cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        lost = 2 if cell.traced_by != "off" else None
        arm = cell.traced_by
        yield TracedRow(cell=str(cell.key["cell"]), step=1, value_ns=1, traced_by=arm, trace_dropped_count=lost)
        yield TracedRow(cell=str(cell.key["cell"]), step=2, value_ns=1, traced_by=arm, trace_dropped_count=lost)

    sink = RunFolderSink(tmp_path, {"tracing": {"backend": "bcc"}})
    go(TracedExperiment(script), sink, repeats=1)
    assert sink.path is not None
    facts = json.loads((sink.path / "run.json").read_text())
    assert facts["tracing_dropped_count"] == 6, "of each ramp its last step"
    assert facts["tracing"] == {"backend": "bcc"}
    assert "traced_by" in facts["keys"]


# --- what is shown --------------------------------------------------------------------------------------------------


def test_a_view_shows_rows_of_its_own_kind_only() -> None:
    stream = io.StringIO()
    go(TracedExperiment(lambda cell, bench: iter([_both(cell)])), PlainLines(stream), repeats=1)
    lines = [
        line for line in stream.getvalue().splitlines() if line[:1] in "abc" and ": " in line and "warn" not in line
    ]
    for line in lines:
        assert ("value 1" in line) != ("calls 7" in line)
        assert ("bcc" in line) == ("calls 7" in line)
    assert len([line for line in lines if "calls 7" in line]) == 3


def _both(cell: Cell) -> TracedRow:
    return TracedRow(cell=str(cell.key["cell"]), step=None, value_ns=1, calls_count=7, traced_by=cell.traced_by)


def stored_with(backends: Sequence[str], *keys: str) -> StoredRun:
    rows = [row(y=10.0 * n, traced_by=name, open_count=x) for n, name in enumerate(backends, 1) for x in (10, 20)]
    return stored(rows, columns=[*map(list, COLUMNS), ["traced_by", "str"]], keys=[*KEYS, *keys])


def heights(run: StoredRun, chart: Chart) -> list[float]:
    drawing = draw(run, chart)
    assert isinstance(drawing, Drawing)
    return [point.y for line in drawing.lines for point in line.points]


def test_a_chart_takes_untraced_rows_only_unless_it_says_which() -> None:
    run = stored_with(("off", "bcc"), "traced_by")
    assert heights(run, CHART) == [10.0, 10.0]
    assert heights(run, dataclasses.replace(CHART, where=(("traced_by", "bcc"),))) == [20.0, 20.0]


def test_a_column_that_only_names_the_tracer_takes_no_row_from_a_chart() -> None:
    assert heights(stored_with(("bcc",)), CHART) == [10.0, 10.0]


# --- slowdowns ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class RampRow(Row):
    """A step of a ramp in a block."""

    model: str = column("who", key=True)
    target_count: int = column("step", key=True, ramp=True)
    block: int = column("block", key=True)
    echo_p50_ns: float | None = column("value")
    traced_by: str = tracing_column()


def ramp(block: int, step: int, value: float | None, arm: str = "off") -> RampRow:
    return RampRow(model="epoll", target_count=step, block=block, echo_p50_ns=value, traced_by=arm)


def of_rows(rows: Sequence[Row]) -> list[Finding]:
    return list(traced.slowdowns_of_rows(rows, ("echo_p50_ns",), 1))


def test_rows_of_a_ramp_are_compared_step_by_step() -> None:
    """A step that one arm lacks, or whose value is missing, counts in neither."""
    rows = [ramp(b, s, 10.0 * s, "off") for b in range(5) for s in (1, 2, 3, 4)]
    rows += [ramp(b, s, 20.0 * s if s != 2 else None, "perf") for b in range(5) for s in (1, 2, 3)]
    (finding,) = of_rows(rows)
    assert finding.subject == "echo p50 of epoll"
    assert finding.value is not None
    assert (finding.value.middle, finding.value.low, finding.value.high) == (2, 2, 2)


def test_rows_of_one_arm_have_no_slowdown() -> None:
    assert of_rows([ramp(0, 1, 1.0)]) == []
    assert of_rows([]) == []


def test_a_traced_cell_is_heavier_and_named_apart() -> None:
    cell = traced.traced_cell(Cell({"cell": "a"}, weight=3), "bcc", 5)
    assert (cell.weight, cell.traced_by, cell.name, cell.label) == (11, "bcc", "a bcc", "a bcc")
    assert Cell({"cell": "a"}).traced_by == "off"


def test_an_empty_row_is_not_traced() -> None:
    assert not is_traced(TracedRow(cell="a", step=None))
    assert not is_traced(MockRow(cell="a", step=None))


# --- the choice -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", [None, "off"])
def test_off_is_no_choice(choice: str | None) -> None:
    assert choose_backend(MockExperiment(), MockParameters(), choice) is None


def test_refusals_are_one_line_and_name_the_way_out() -> None:
    with pytest.raises(UsageError, match=r"--trace: 'ebpf' is not known; choose from auto, bcc.*off$"):
        choose_backend(TracedExperiment(), MockParameters(), "ebpf")
    with pytest.raises(UsageError, match=r"--trace: mock cannot be traced.*; leave --trace out$"):
        choose_backend(MockExperiment(), MockParameters(), "bcc")
    with pytest.raises(UsageError, match="often is too often"):
        choose_backend(TracedExperiment(), MockParameters(often=True), "proc")


def test_proc_always_works_and_says_what_it_sees() -> None:
    chosen = choose_backend(TracedExperiment(), MockParameters(), "proc")
    assert chosen is not None
    assert chosen.backend == "proc"
    assert {"asked": "proc", "backend": "proc", "version": None, "passed_over": []}.items() <= chosen.facts.items()


def test_a_backend_that_is_not_there_is_refused_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TracerUnavailable, match=r"strace is not installed; .*apt-get install strace") as refused:
        choose_backend(TracedExperiment(), MockParameters(), "strace")
    assert refused.value.code == ExitCode.NOTHING_MEASURED


def test_every_choice_is_offered() -> None:
    from c10k_probe.cli.app import COMMON_OPTIONS

    (metavar,) = [metavar for name, metavar, _, _ in COMMON_OPTIONS if name == "trace"]
    assert metavar.split("|") == list(CHOICES)


def test_row_events_tell_their_kind() -> None:
    _, recorder = go(TracedExperiment(by_arm), repeats=1)
    kinds = {(item.values["traced_by"], item.is_traced) for item in recorder.of(RowMeasured)}  # type: ignore[attr-defined]
    assert kinds == {("off", False), ("bcc", True)}
