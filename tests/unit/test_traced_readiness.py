"""Traced launches of readiness from made samples: rows of their own, what is empty, grades."""

from __future__ import annotations

import pytest
from made_readiness import launch

from c10k_probe.experiment import Experiment, Samples, Scalar, flatten
from c10k_probe.parameters import build_parameters
from c10k_probe.registry import find_experiments

READINESS: Experiment = find_experiments()["readiness"]  # type: ignore[type-arg]
PARAMETERS = build_parameters(READINESS.parameters_type, {"fds": "100", "mechanism": "poll"}, quick=True)


def launches(count: int = 5, **changes: Scalar) -> list[Samples]:
    """Pairs; a traced event takes twice as long, and its helper has counted 60 calls in 3 passes of 20 events."""
    made = []
    for block in range(count):
        plain = launch("poll", 100, 500, block)
        facts: dict[str, Scalar] = {
            "active_count": 1,
            "events_per_pass_count": 20,
            "told_calls_count": 180,
            "dropped_count": 0,
            "calls_count": 3.0024,
            "voluntary_switches_count": -0.0001,
            "involuntary_switches_count": 0.01,
            "page_faults_count": 0.0,
            "runqueue_wait_ns": 12.0,
            "call poll": 1.0,
            "call read": 1.0,
            "call write": 1.0,
            "call getrusage": 0.0024,
            "trace_dropped_count": 0,
            "notes": "",
        }
        key = {name: value for name, value in plain.key.items() if name != "active"}
        traced_key = {**key, "traced_by": "bcc", "active": "1"}
        made += [plain, Samples(traced_key, block, {"pass": [20_000] * 3}, facts | changes)]
    return made


def rows_of(samples: list[Samples]) -> list[dict[str, Scalar]]:
    return [flatten(row) for row in READINESS.summarise(PARAMETERS, samples, 1)]


def test_what_the_tracer_counts_stands_beside_what_the_helper_counts() -> None:
    plain, traced = rows_of(launches())
    assert (plain["traced_by"], plain["event_ns"], plain["traced_calls"]) == ("off", 500, None)
    wanted = {
        "traced_by": "bcc",
        "active": "1",
        "calls_per_event": 3,
        "traced_calls_per_event": 3.002,
        "traced_calls": "poll=1 read=1 write=1 getrusage=0.0024",
        "voluntary_switches_per_event": 0,
        "traced_over_off_ratio": 2,
        "trace_dropped_count": 0,
        "events_count": 300,
        "event_ns": None,
        "grade": "ok",
    }
    assert {name: traced[name] for name in wanted} == wanted


def test_what_is_not_known_is_empty() -> None:
    _, row = rows_of(launches(calls_count=None, told_calls_count=None, trace_dropped_count=None))
    names = ("traced_calls_per_event", "calls_per_event", "trace_dropped_count")
    assert {row[name] for name in names} == {None}


@pytest.mark.parametrize("name", ["dropped_count", "trace_dropped_count"])
def test_lost_passes_or_events_make_a_row_void(name: str) -> None:
    assert [row["grade"] for row in rows_of(launches(**{name: 1}))] == ["ok", "void"]


def test_traced_launches_have_no_part_in_untraced_rows() -> None:
    alone = [item for item in launches() if item.traced_by == "off"]
    assert rows_of(launches())[:1] == rows_of(alone)


def test_a_map_cannot_be_traced() -> None:
    asked = build_parameters(READINESS.parameters_type, {"map": "yes"}, quick=True)
    assert "--map" in READINESS.untraceable(asked)
    assert READINESS.untraceable(PARAMETERS) == ""
