"""What an answer costs a server: over which requests its CPU time is told, and who counted them."""

from __future__ import annotations

import dataclasses

import pytest
from c10k_probe.experiments._servers_facts import cost_by_its_own_count, middle_facts
from c10k_probe.experiments._servers_rows import rows
from made_servers import launch

from c10k_probe.experiment import Scalar
from c10k_probe.observe.middle import Middle


def test_what_an_answer_costs_is_by_the_servers_own_count_where_nothing_failed() -> None:
    """1,000 were under way when wrk stopped: 0.6 s for the 3,000 that the server ended, and not for 2,000."""
    came_to: dict[str, Scalar] = {"failed_count": 0}
    assert cost_by_its_own_count(came_to, {"told_requests_count": 3000}, 0.1, 0.7) == {
        "counted_by": "server",
        "requests_per_cpu_s": pytest.approx(5000),
        "cpu_per_request_ns": pytest.approx(200_000),
    }
    assert cost_by_its_own_count(came_to, {"told_requests_count": None}, 0.1, 0.7) == {}
    assert cost_by_its_own_count(came_to, {"told_requests_count": 3000}, None, 0.7) == {}
    assert cost_by_its_own_count({"failed_count": 1}, {"told_requests_count": 3000}, 0.1, 0.7) == {}


WHOLE: dict[str, Scalar] = {
    "counted_by": "load generator",
    "requests_count": 10_000,
    "failed_count": 0,
    "server_cpu_pct": 80.0,
    "server_user_pct": 60.0,
    "server_system_pct": 20.0,
    "load_cpu_pct": 30.0,
}
MIDDLE = Middle(elapsed_s=0.5, idle_pct=0.0, server_cpu_s=0.5, load_cpu_s=0.2, requests_count=5000)


def test_cpu_and_cost_are_those_of_the_middle_of_the_window() -> None:
    """Over the whole, with its start and its end, the same server seems to rest for a fifth of the time."""
    assert middle_facts(WHOLE, MIDDLE, 10_500, 1000) == {
        "server_idle_pct": 0.0,
        "server_cpu_pct": 100.0,
        "server_user_pct": pytest.approx(75.0),
        "server_system_pct": pytest.approx(25.0),
        "load_cpu_pct": 40.0,
        "counted_by": "kernel",
        "requests_per_cpu_s": 10_000,
        "cpu_per_request_ns": 100_000,
    }


@pytest.mark.parametrize(
    ("whole", "middle", "opened_count"),
    [
        (WHOLE, MIDDLE, 11_500),  # more than wrk can have opened: others did, who knows when
        (WHOLE, MIDDLE, 9_000),  # fewer than were answered
        ({**WHOLE, "failed_count": 1}, MIDDLE, 10_500),
        (WHOLE, dataclasses.replace(MIDDLE, requests_count=None), None),
        (WHOLE, dataclasses.replace(MIDDLE, server_cpu_s=None), None),
    ],
)
def test_what_a_request_costs_is_not_told_by_a_count_that_may_be_anothers(
    whole: dict[str, Scalar], middle: Middle, opened_count: int | None
) -> None:
    found = middle_facts(whole, middle, opened_count, 1000)
    assert not {"counted_by", "requests_per_cpu_s", "cpu_per_request_ns"} & found.keys()
    assert found["load_cpu_pct"] == 40.0


def test_without_a_middle_the_whole_stays() -> None:
    assert middle_facts(WHOLE, None, 10_500, 1000) == {"server_idle_pct": None}


def test_a_row_says_who_counted_its_requests() -> None:
    samples = [launch("nginx", block, 1000.0, "fair", counted_by=who) for block, who in enumerate(("kernel", "server"))]
    (row,) = rows(samples, 1)
    assert row.counted_by == "kernel or server"
