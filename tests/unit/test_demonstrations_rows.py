"""What is said of demonstrations, and of one that did not come about."""

from __future__ import annotations

from typing import Any

import pytest
from c10k_probe.experiments import demonstrations as subject

S = 1_000_000_000
MS = 1_000_000


def row(name: str, seen: str = "yes", **found: Any) -> dict[str, Any]:
    """A row as the CSV has it, of a program by its name."""
    item = subject.DEMONSTRATIONS[name]
    empty = dict.fromkeys(("watched_ns", "cpu_ns", "before_ns", "delay_ns", "updates_count", "lost_count"))
    own = {"shows": item.shows, "runtime": item.runtime, "by": item.by}
    return {"demonstration": name, **own, "is_seen": seen, **empty, **found}


HUNG = [row(f"{runtime}-deadlock", watched_ns=5 * S, cpu_ns=0) for runtime in ("asyncio", "node")]
BLOCKED = [row("node-blocked-while", before_ns=2 * MS, delay_ns=200 * MS)]
NEITHER = [row("asyncio-deadlock", "no"), row("node-deadlock", "no"), row("node-blocked-while", "no")]


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        ([*HUNG, *BLOCKED], "REFUTED"),
        ([*HUNG, row("node-blocked-while", "no", delay_ns=9 * MS)], "PARTLY"),
        (NEITHER, "CONFIRMED"),
        ([HUNG[0], *BLOCKED], "NOT-MEASURED"),
        (HUNG, "NOT-MEASURED"),
        ([*(item | {"watched_ns": S} for item in HUNG), *BLOCKED], "NOT-MEASURED"),
        ([], "NOT-MEASURED"),
    ],
)
def test_c40_follows_its_rule(rows: list[dict[str, Any]], verdict: str) -> None:
    found = subject.judge_c40(rows, ())
    assert (found.claim, found.verdict) == ("C40", verdict)
    assert verdict == "NOT-MEASURED" or "no frequency" in found.evidence


def test_c22_is_no_comparison_whatever_was_seen() -> None:
    lost = row("threads-lost-update", updates_count=100, lost_count=7)
    found = [subject.judge_c22(rows, ()) for rows in ([], [lost, *HUNG], [row("threads-lost-update", "no")])]
    assert {item.verdict for item in found} == {"NOT-FALSIFIABLE"}
    assert "lost 7 of 100 updates" in found[1].evidence
    assert found[0].evidence == found[2].evidence == "nothing was demonstrated"
