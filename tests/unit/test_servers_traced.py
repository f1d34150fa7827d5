"""Traced launches of servers from made traces: counts for a request, what is empty, grades, judges of counts."""

from __future__ import annotations

import dataclasses

import pytest
from c10k_probe.experiments._servers_traced import GROUPS, OTHER, TracedServersRow, facts_of, ran_count
from made_servers import launch

from c10k_probe.experiment import NOT_MEASURED, Experiment, Samples, Scalar, Verdict, flatten
from c10k_probe.registry import find_experiments
from c10k_probe.tracing.result import Call, Trace

SERVERS: Experiment = find_experiments()["servers"]  # type: ignore[type-arg]
APACHE = "apache-prefork-php"
REQUESTS = 10_000  # of a made launch


def a_trace(backend: str = "bcc", **changes: object) -> Trace:
    """Of a launch with four calls for each request; every second accept fails."""
    calls = {
        "accept4": Call("accept4", 2 * REQUESTS, REQUESTS),
        "epoll_wait": Call("epoll_wait", REQUESTS // 2, 0),
        "writev": Call("writev", REQUESTS, 0),
        "getpid": Call("getpid", REQUESTS // 2, 0),
    }
    trace = Trace(
        backend,
        1.0,
        calls=calls,
        calls_count=4 * REQUESTS,
        voluntary_switches_count=REQUESTS // 4,
        involuntary_switches_count=0,
        runqueue_wait_s=0.02,
        forks_count=0,
        threads_count=0,
        page_faults_count=0,
        accepts_count=REQUESTS,
        dropped_tasks_count=0,
        dropped_events_count=0,
    )
    return dataclasses.replace(trace, **changes)  # type: ignore[arg-type]


def launches(server: str, count: int = 1, rate: float = 1000, **changes: object) -> list[Samples]:
    """Untraced and traced, in the same blocks; traced at half the rate."""
    made = []
    for block in range(count):
        plain = launch(server, block, rate, threads_ran_count=1)
        counts = facts_of(a_trace(**changes))  # type: ignore[arg-type]
        traced = launch(server, block, rate / 2, **counts, threads_ran_count=1)
        key = {**traced.key, "traced_by": str(changes.get("backend", "bcc"))}
        made += [
            dataclasses.replace(plain, values={"rate": [round(rate)]}),
            dataclasses.replace(traced, key=key, values={"rate": [round(rate / 2)]}),
        ]
    return made


def rows_of(samples: list[Samples]) -> list[dict[str, Scalar]]:
    return [flatten(row) for row in SERVERS.summarise(SERVERS.parameters_type(), samples, 1)]


def traced_row(samples: list[Samples]) -> dict[str, Scalar]:
    (row,) = [row for row in rows_of(samples) if row["traced_by"] != "off"]
    return row


def verdicts_of(samples: list[Samples]) -> dict[str, Verdict]:
    rows = [row for row in rows_of(samples) if row["grade"] != "void"]
    return {verdict.claim: verdict for verdict in (judge(rows, []) for judge in SERVERS.judges)}


# --- rows -------------------------------------------------------------------------------------------------------------


def test_counts_are_for_a_request_and_times_are_not_told() -> None:
    plain, traced = rows_of(launches("nginx", 6))
    assert (plain["traced_by"], plain["calls_per_request"], plain["throughput_per_s"]) == ("off", None, 1000)
    wanted = {
        "calls_per_request": 4,
        "voluntary_switches_per_request": 0.25,
        "involuntary_switches_per_request": 0,
        "runqueue_wait_ns": 2000,
        "forks_per_request": 0,
        "accept_calls_per_request": 2,
        "wait_calls_per_request": 0.5,
        "other_calls_per_request": 0.5,
        "traced_over_off_ratio": 0.5,
        "tree_accepts_count": 6 * REQUESTS,
        "epoll_waits_count": 3 * REQUESTS,
        "polls_count": 0,
        "requests_count": 6 * REQUESTS,
        "trace_dropped_count": 0,
    }
    assert {name: traced[name] for name in wanted} == wanted
    assert traced["calls"] == "accept4=2 writev=1 epoll_wait=0.5 getpid=0.5"
    assert traced["done_calls"] == "accept4=1 writev=1 epoll_wait=0.5 getpid=0.5"
    times = ("throughput_per_s", "request_p50_ns", "request_p99_ns", "cpu_per_request_ns", "peak_bytes", "load_cpu_pct")
    assert {traced[name] for name in times} == {None}
    assert (traced["grade"], traced["calls_lo_per_request"]) == ("ok", 4)


def test_the_parts_are_all_of_the_calls() -> None:
    row = traced_row(launches("nginx", 6))
    parts = [row[f"{name}_calls_per_request"] for name in (*GROUPS, OTHER)]
    assert sum(float(part or 0) for part in parts) == row["calls_per_request"]
    assert len({call for _, calls in GROUPS.values() for call in calls}) == sum(len(c) for _, c in GROUPS.values())


@pytest.mark.parametrize(
    ("backend", "changes", "empty", "full"),
    [
        (
            "proc",
            {"calls": None, "calls_count": None, "forks_count": None, "threads_count": None, "accepts_count": None},
            ("calls", "done_calls", "calls_per_request", "wait_calls_per_request", "forks_per_request", "polls_count"),
            ("voluntary_switches_per_request", "runqueue_wait_ns"),
        ),
        (
            "perf",
            {"calls": {"accept4": Call("accept4", REQUESTS)}, "runqueue_wait_s": None},
            ("done_calls", "runqueue_wait_ns"),
            ("calls", "calls_per_request", "other_calls_per_request", "forks_per_request"),
        ),
    ],
)
def test_what_a_backend_does_not_know_is_empty(
    backend: str, changes: dict[str, object], empty: tuple[str, ...], full: tuple[str, ...]
) -> None:
    row = traced_row(launches("nginx", 6, backend=backend, **changes))
    assert {row[name] for name in empty} == {None}
    assert None not in {row[name] for name in full}


def test_a_doubtful_count_is_graded() -> None:
    assert "too few launches" in str(traced_row(launches("nginx", 2))["grade_reason"])
    row = traced_row(launches("nginx", 6, dropped_events_count=3))
    assert (row["grade"], row["trace_dropped_count"]) == ("void", 18)
    row = traced_row(launches("nginx", 6, notes=("7 wake-ups were missed",)))
    assert (row["grade"], row["grade_reason"]) == ("shaky", "7 wake-ups were missed")


@pytest.mark.parametrize(
    ("before", "after", "count"),
    [
        ({1: 0, 2: 0, 3: 0}, {1: 990, 2: 10, 3: 0}, 2),
        ({1: 5000, 2: 0}, {1: 5000, 2: 100}, 1),
        ({1: 0}, {1: 100, 9: 100}, 2),
        ({1: 7}, {1: 7}, None),
    ],
)
def test_threads_with_a_part_in_the_work(before: dict[int, int], after: dict[int, int], count: int | None) -> None:
    assert ran_count(before, after) == count


def test_every_column_of_a_chart_and_a_view_is_there() -> None:
    names = {name for row in rows_of(launches("nginx")) for name in row}
    assert SERVERS.row_type is TracedServersRow
    assert {item.column for item in SERVERS.views} <= names


# --- judges -----------------------------------------------------------------------------------------------------------


def test_the_trace_decides_where_there_is_one() -> None:
    found = verdicts_of([*launches("nginx"), *launches(APACHE, forks_count=145, threads_count=1)])
    assert {name: found[name].verdict for name in ("C01", "C30", "C37")} == {
        "C01": "REFUTED",
        "C30": "CONFIRMED",
        "C37": "REFUTED",
    }
    assert "146 began in Apache's tree, 10,000 requests: 0.0146 for each, by bcc" in found["C01"].evidence
    assert "epoll_wait was called 5,000 times" in found["C30"].evidence


@pytest.mark.parametrize(
    ("changes", "claim", "verdict"),
    [
        ({"forks_count": 9_500}, "C01", "CONFIRMED"),
        ({"forks_count": 2_000}, "C01", "PARTLY"),
        ({"threads_count": 1}, "C30", "REFUTED"),
        ({"calls": {"poll": Call("poll", 100, 0)}}, "C30", "REFUTED"),
        ({"calls": {"poll": Call("poll", 100, 0)}}, "C37", "CONFIRMED"),
        ({"calls": {"poll": Call("poll", 50, 0), "epoll_wait": Call("epoll_wait", 50, 0)}}, "C37", "REFUTED"),
    ],
)
def test_each_rule_has_its_other_side(changes: dict[str, object], claim: str, verdict: str) -> None:
    server = APACHE if claim == "C01" else "nginx"
    assert verdicts_of(launches(server, **changes))[claim].verdict == verdict


def test_without_a_trace_the_kernels_own_counts_decide() -> None:
    samples = [item for item in launches("nginx") if item.traced_by == "off"]
    found = verdicts_of(samples)
    assert (found["C30"].verdict, found["C37"].verdict) == ("CONFIRMED", NOT_MEASURED)
    assert "slept in ep_poll" in found["C30"].evidence


def test_why_there_are_more_threads_than_one() -> None:
    found = verdicts_of([launch("node", 0, 1000, threads_count=7, threads_ran_count=5)])["C36"]
    assert found.verdict == "REFUTED"
    assert "of node's 7, 5 had 1 % or more of its CPU time (V8's workers" in found.evidence
