"""What is said of demonstrations, and of one that did not come about."""

from __future__ import annotations

import dataclasses
from typing import Any
from unittest import mock

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
    capped = found.capped("the machine was not quiet")
    assert capped.verdict == {"PARTLY": "INCONCLUSIVE", "CONFIRMED": "INCONCLUSIVE"}.get(verdict, verdict), (
        "noise can hide a deadlock, and make none"
    )


@pytest.mark.parametrize(
    ("delay_ns", "late_ns", "disturbed_ns", "seen"),
    [
        (200 * MS, None, 0, "yes"),
        (200 * MS, 180 * MS, 120 * MS, "yes"),
        (200 * MS, 180 * MS, 140 * MS, None),
        (200 * MS, 40 * MS, 0, "no"),
        (40 * MS, None, 30 * MS, "no"),
    ],
)
def test_a_delay_is_seen_where_others_cannot_have_made_it(
    delay_ns: int, late_ns: int | None, disturbed_ns: int, seen: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"before_ns": 0, "delay_ns": delay_ns, "late_ns": late_ns, "disturbed_ns": disturbed_ns}
    child = mock.MagicMock()
    child.__enter__.return_value.expect.return_value = said
    monkeypatch.setattr(subject, "_child", lambda *_: child)
    item = subject.DEMONSTRATIONS["node-blocked-while"]
    found = subject._delay(item, subject.DemonstrationsParameters(), mock.Mock())
    assert (found.get("is_seen"), "grade" in found) == (seen, seen is None)


@pytest.mark.parametrize(
    ("is_done", "cpu_ns", "waited_ns", "seen"),
    [(False, 0, 0, "yes"), (False, 51 * MS, 0, "no"), (False, 0, 51 * MS, None), (True, 0, 0, "no")],
)
def test_a_deadlock_sleeps_and_does_not_wait_for_a_cpu(
    is_done: bool, cpu_ns: int, waited_ns: int, seen: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = mock.MagicMock()
    inside = child.__enter__.return_value
    inside.settle.return_value, inside.cpu_ns.return_value = 7 * MS, 7 * MS + cpu_ns
    inside.waited_ns.side_effect = [3 * MS, 3 * MS + waited_ns]
    inside.watch.return_value = is_done
    inside.heard.return_value = [{"type": "waits", "waits": [["a", "lock 2", "b"], ["b", "lock 1", "a"]]}]
    monkeypatch.setattr(subject, "_child", lambda *_: child)
    item = subject.DEMONSTRATIONS["asyncio-deadlock"]
    found = subject._deadlock(item, subject.DemonstrationsParameters(), mock.Mock())
    assert (found.get("is_seen"), "grade" in found) == (seen, seen is None)
    if not is_done:
        assert found["waits"] == "a waits for lock 2, which b has; b waits for lock 1, which a has"


def test_c22_is_no_comparison_whatever_was_seen() -> None:
    lost = row("threads-lost-update", updates_count=100, lost_count=7)
    found = [subject.judge_c22(rows, ()) for rows in ([], [lost, *HUNG], [row("threads-lost-update", "no")])]
    assert {item.verdict for item in found} == {"NOT-FALSIFIABLE"}
    assert "lost 7 of 100 updates" in found[1].evidence
    assert found[0].evidence == found[2].evidence == "nothing was demonstrated"


def test_the_program_is_told_where_it_is_asked_for() -> None:
    rows = [row("asyncio-deadlock"), row("threads-lost-update")]
    parameters = subject.DemonstrationsParameters()
    assert subject.EXPERIMENT.find(parameters, rows, 1) == []
    told = subject.EXPERIMENT.find(dataclasses.replace(parameters, source=True), rows, 1)
    first, deadlock, lost = told
    assert first.subject == "what all of asyncio begin with"
    assert (deadlock.subject, lost.subject) == ("the program of asyncio-deadlock", "the program of threads-lost-update")
    assert (
        first.note.strip() + "\n\n" + deadlock.note.strip() == subject.DEMONSTRATIONS["asyncio-deadlock"].text.strip()
    )
    assert "thread_faults.c" in lost.note
