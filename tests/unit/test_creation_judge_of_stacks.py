"""C27: does a new thread map a new stack, beside live threads and after joined ones, and what of it is resident?"""

from __future__ import annotations

from typing import Any

import pytest
from c10k_probe.experiments import _creation_judges as judges
from creation_rows import MIB, STACK, c27_rows, changed, row, verdict_of

from c10k_probe.experiment import NOT_MEASURED


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"joined": 1.0, "resident": STACK // 10 + 1}, "CONFIRMED"),
        ({"joined": 0.99, "kept": 0.99, "resident": STACK}, "CONFIRMED"),
        ({}, "PARTLY"),  # as glibc has it: new beside live threads, not after joined ones
        ({"resident": STACK}, "PARTLY"),  # not every time
        ({"joined": 1.0}, "PARTLY"),
        ({"kept": 0.5, "resident": STACK}, "PARTLY"),
        ({"kept": 0.5}, "REFUTED"),
    ],
)
def test_c27(changes: dict[str, Any], verdict: str) -> None:
    assert verdict_of(judges.judge_c27, c27_rows(**changes)) == verdict


def test_c27_says_which_part_holds() -> None:
    evidence = judges.judge_c27(c27_rows(), []).evidence
    for words in (
        "F1 holds beside live threads: 1.00 stacks mapped for each, in 2.0 mappings",
        "F1 does not hold after joined ones: 0.00 for each",
        "F2 does not hold: 8.00 KiB resident for each live thread, 0.10% of 8.00 MiB",
    ):
        assert words in evidence


def test_c27_reads_what_is_resident_from_the_slope_where_there_is_one() -> None:
    """1 MiB more for each of 1,000 live threads; children of the parent say nothing about stacks."""
    few = changed(c27_rows(), anonymous_bytes=MIB)
    living = {"axis": "alive", "asked_alive_count": 1000, "method": "pthread_create"}
    many = row(**living, alive_kind="threads", anonymous_bytes=1001 * MIB)
    verdict = judges.judge_c27([*few, many], [])
    assert "F2 holds: 1.00 MiB resident for each of 1,000 live threads" in verdict.evidence
    children = row(**living, alive_kind="children", anonymous_bytes=1001 * MIB)
    assert "8.00 KiB resident for each live thread" in judges.judge_c27([*few, children], []).evidence


def test_c27_needs_a_probe_of_pthread_create() -> None:
    for other in ({"method": "fork"}, {"stack_kept_ratio": None}, {"placement": "any-cpu"}, {"linking": "static"}):
        assert verdict_of(judges.judge_c27, changed(c27_rows(), **other)) == NOT_MEASURED
