"""Traced launches of scheduling from made traces: sums, agreement with the kernel's account, what is empty."""

from __future__ import annotations

import dataclasses

import pytest
from c10k_probe.experiments._scheduling_traced import facts_of

from c10k_probe.experiment import Cell, Experiment, Samples, Scalar, flatten
from c10k_probe.parameters import build_parameters
from c10k_probe.registry import find_experiments
from c10k_probe.tracing.result import Trace

SCHEDULING: Experiment = find_experiments()["scheduling"]  # type: ignore[type-arg]
PARAMETERS = build_parameters(
    SCHEDULING.parameters_type,
    {"measure": "switch", "token": "futex", "kind": "process", "cpus": "1", "tasks": "2", "working_set": "0"},
    quick=True,
)
TRACE = Trace(
    "bcc",
    1.0,
    calls_count=400,
    voluntary_switches_count=90,
    involuntary_switches_count=8,
    runqueue_wait_s=98e-6,
    dropped_tasks_count=0,
    dropped_events_count=0,
)


def launches(count: int = 5, **changes: object) -> list[Samples]:
    """Pairs of launches of the one cell; a traced pass takes three times as long."""
    (cell,) = SCHEDULING.cells(PARAMETERS)
    trace = dataclasses.replace(TRACE, **changes)  # type: ignore[arg-type]
    return [item for block in range(count) for item in (untraced(cell, block), traced(cell, block, trace))]


def untraced(cell: Cell, block: int) -> Samples:
    counts = {"voluntary_switches_count": 80, "involuntary_switches_count": 8, "counted_hops_count": 88}
    facts: dict[str, Scalar] = {**counts, "hops_per_pass_count": 10, "dropped_count": 0}
    return Samples(cell.key, block, {"pass": [1000], "harness": [100]}, facts)


def traced(cell: Cell, block: int, trace: Trace) -> Samples:
    facts: dict[str, Scalar] = {"voluntary_switches_count": 80, "involuntary_switches_count": 8, "dropped_count": 0}
    facts |= facts_of(trace, 100)
    return Samples({**cell.key, "traced_by": trace.backend}, block, {"pass": [3000]}, facts)


def rows_of(samples: list[Samples]) -> list[dict[str, Scalar]]:
    return [flatten(row) for row in SCHEDULING.summarise(PARAMETERS, samples, 1)]


def test_switches_are_summed_beside_the_kernels_account() -> None:
    plain, row = rows_of(launches())
    assert (plain["traced_by"], plain["traced_switches_count"], plain["switch_ns"]) == ("off", None, 90)
    wanted = {
        "traced_by": "bcc",
        "traced_switches_count": 490,
        "charged_switches_count": 500,
        "traced_over_charged_ratio": 0.98,
        "voluntary_switches_count": 400,
        "runqueue_wait_ns": 1000,
        "calls_count": 2000,
        "traced_over_off_ratio": 3,
        "trace_dropped_count": 0,
        "switch_ns": None,
        "hop_ns": None,
        "launches_count": 5,
        "grade": "ok",
    }
    assert {name: row[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("backend", "changes", "empty"),
    [
        ("perf", {"runqueue_wait_s": None}, ("runqueue_wait_ns",)),
        (
            "strace",
            {"voluntary_switches_count": None, "involuntary_switches_count": None, "runqueue_wait_s": None},
            ("traced_switches_count", "traced_over_charged_ratio", "runqueue_wait_ns"),
        ),
    ],
)
def test_what_a_backend_does_not_know_is_empty(
    backend: str, changes: dict[str, object], empty: tuple[str, ...]
) -> None:
    _, row = rows_of(launches(backend=backend, **changes))
    assert {row[name] for name in empty} == {None}
    assert row["charged_switches_count"] == 500


def test_lost_events_make_a_row_void_and_few_launches_shaky() -> None:
    assert rows_of(launches(dropped_events_count=2))[1]["grade"] == "void"
    assert "too few launches" in str(rows_of(launches(2))[1]["grade_reason"])


def test_traced_launches_have_no_part_in_untraced_rows() -> None:
    both, alone = launches(), [item for item in launches() if item.traced_by == "off"]
    assert rows_of(both)[:1] == rows_of(alone)
