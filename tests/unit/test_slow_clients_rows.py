"""Slow clients from made figures: who was served, since when nobody was, rows and grades, the verdict on C23, refusals
of what cannot be meant."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections import Counter
from unittest import mock

import pytest
from c10k_probe.experiments._slow_design import TOGETHER_COUNT, Key, SlowParameters, is_starving
from c10k_probe.experiments._slow_exhausted import exhausted
from c10k_probe.experiments._slow_figures import (
    GOOD_COUNT,
    Innocent,
    due_within,
    recovery_of,
    served_count,
    starvation_ns,
)
from c10k_probe.experiments._slow_together import TogetherCell
from made_slow import MS, launch, launches

from c10k_probe import limits, native
from c10k_probe.exits import UsageError
from c10k_probe.experiment import NOT_MEASURED, Experiment, Samples, Scalar, Verdict, flatten
from c10k_probe.load.slow import KINDS
from c10k_probe.parameters import options_of
from c10k_probe.registry import find_experiments
from c10k_probe.servers import RealModel
from c10k_probe.stats import MINIMUM_LAUNCHES

SLOW: Experiment = find_experiments()["slow-clients"]  # type: ignore[type-arg]
POOL, LOOP = "apache-prefork-php", "nginx"


def innocents(*latencies: int | None, every: int = 10) -> list[Innocent]:
    """One due every 10."""
    return [Innocent(index * every, latency) for index, latency in enumerate(latencies)]


def rows_of(samples: list[Samples]) -> dict[tuple[Scalar, ...], dict[str, Scalar]]:
    flat = [flatten(row) for row in SLOW.summarise(SLOW.parameters_type(), samples, 1)]
    return {(row["server"], row["kind"], row["clients_count"], row["defence"]): row for row in flat}


def row_of(*samples: Samples) -> dict[str, Scalar]:
    (row,) = rows_of(list(samples)).values()
    return row


def verdict_of(*samples: Samples) -> Verdict:
    rows = [row for row in rows_of(list(samples)).values() if row["grade"] != "void"]
    (judge,) = SLOW.judges
    return judge(rows, [])


# --- figures ----------------------------------------------------------------------------------------------------------


def test_innocents_are_served_within_the_bound_only() -> None:
    found = innocents(5, None, 100, 101)
    assert served_count(found, 100) == 2
    assert due_within(found, 10, 30) == found[1:3]
    assert served_count([], 100) == 0


def test_starvation_begins_where_the_last_was_served() -> None:
    assert starvation_ns(innocents(5, 5, None, 500), 7, 100) == 20 - 7
    assert starvation_ns(innocents(5, None, 5), 0, 100) is None
    assert starvation_ns(innocents(None, None), 30, 100) == 0, "it was there before"
    assert starvation_ns([], 0, 100) is None


def test_recovery_ends_with_the_first_answer_after_which_enough_are_soon() -> None:
    """The resolution is the gap before that one, on their schedule; where the leaving lies in between, from there."""
    soon = [7] * GOOD_COUNT
    assert recovery_of(innocents(None, 2000 * MS, *soon), 4) == (20 + 7 - 4, 10)
    assert recovery_of(innocents(*soon), 0) == (7, 0)
    assert recovery_of(innocents(None, *soon), 6) == (10 + 7 - 6, 4)
    assert recovery_of(innocents(*soon, None), 0) is None, "the last was not"
    assert recovery_of(innocents(None, *soon[1:]), 0) is None, "too few were"
    assert recovery_of([], 0) is None


# --- what ran out -----------------------------------------------------------------------------------------------------


class Complaining:
    """A server at its end, as what is looked at has it."""

    session = os.getpid()
    backlog_count = 10

    def __init__(self, *hits: dict[str, object]) -> None:
        self.hits = hits

    def walls(self) -> list[dict[str, object]]:
        """What it complains of."""
        return list(self.hits)


@pytest.mark.parametrize(
    ("hits", "facts", "found"),
    [
        ([], {}, []),
        (
            [],
            {"inside_count": 4, "queued_count": 10, "descriptors_count": 9},
            ["workers", "accept queue", "descriptors"],
        ),
        ([{"call": "worker", "name": "EAGAIN", "message": ""}], {"inside_count": 4}, ["workers"]),
        (
            [{"call": "accept", "name": "LIMIT", "setting": "MaxRequestWorkers", "message": ""}],
            {},
            ["MaxRequestWorkers"],
        ),
        ([{"call": "accept", "name": "EMFILE", "message": ""}], {}, ["descriptors"]),
        ([{"call": "fork", "name": "ENOMEM", "message": ""}], {}, ["memory"]),
    ],
)
def test_what_ran_out_has_the_name_by_which_it_is_known(
    hits: list[dict[str, object]], facts: dict[str, Scalar], found: list[str]
) -> None:
    usual = {"inside_count": 3, "queued_count": 9, "descriptors_count": 8, "descriptors_limit_count": 10}
    assert exhausted(Complaining(*hits), 4, {**usual, **facts}) == found  # type: ignore[arg-type]


# --- rows -------------------------------------------------------------------------------------------------------------


def test_a_row_adds_up_launches_and_takes_what_was_worst() -> None:
    row = row_of(launch(POOL, 24, 100), launch(POOL, 24, 50, 1, slow_open_count=20, longest_ns=9 * MS))
    assert (row["launches_count"], row["innocents_count"], row["served_count"]) == (2, 200, 150)
    assert (row["served_pct"], row["served_lo_pct"]) == (75, None)
    assert (row["slow_open_count"], row["innocent_longest_ns"]) == (20, 5 * MS), "the fewest; the median"
    assert row["innocent_p50_ns"] == MS
    assert row["innocent_p99_ns"] is None, "it lies among those that were not served"
    assert (row["starvation_ns"], row["recovery_ns"]) == (None, 3 * MS)
    assert (row["exhausted"], row["died_count"]) == ("workers", 0)
    assert row["grade"] == "shaky"


def test_many_launches_that_agree_are_no_worse_than_ok() -> None:
    row = row_of(*(launch(POOL, 24, 100, block) for block in range(MINIMUM_LAUNCHES)))
    assert (row["grade"], row["served_pct"], row["served_lo_pct"]) == ("ok", 100, 100)
    split = row_of(*(launch(POOL, 24, 100 * (block % 2), block) for block in range(MINIMUM_LAUNCHES)))
    assert (split["grade"], "do not agree" in str(split["grade_reason"])) == ("shaky", True)


@pytest.mark.parametrize(
    ("facts", "grade", "words"),
    [
        ({"slow_failure": "socket: EMFILE (Too many open files)"}, "void", "slow clients ran out of something first"),
        ({"sender_failure": "socket: EMFILE (Too many open files)"}, "void", "the sender of innocents ran out"),
        ({"sender_pct": 85.0}, "void", "used 85 % of its CPU"),
        ({"innocents_count": 0, "served_count": 0}, "void", "no innocent was due"),
        ({"late_ns": 30 * MS}, "shaky", "up to 30 ms late"),
        ({"slow_cpu_pct": 90.0}, "shaky", "slow clients' process used 90 %"),
        ({"defence_ns": 5500 * MS}, "shaky", "the defence acts after 5.5 s, when the first innocents have given up"),
    ],
)
def test_grades(facts: dict[str, Scalar], grade: str, words: str) -> None:
    row = row_of(launch(POOL, 24, **facts))  # type: ignore[arg-type]
    assert row["grade"] == grade
    assert words in str(row["grade_reason"])


def test_a_defence_that_acts_while_innocents_wait_is_no_doubt() -> None:
    assert "defence" not in str(row_of(launch(POOL, 24, defence_ns=2000 * MS))["grade_reason"])


# --- the verdict ------------------------------------------------------------------------------------------------------

STARVED, FED = launches(POOL, 24, 0), launches(LOOP, 24, 100)
DEFENDED = (*launches(POOL, 24, 100, defence="on"), *launches(LOOP, 24, 100, defence="on"))
WAITED = launches("node", 1, 100, kind="cpu", work_taken_ns=2001 * MS, longest_ns=1999 * MS)
UNHARMED = launches(POOL, 1, 100, kind="cpu", work_taken_ns=2100 * MS, longest_ns=20 * MS)
WORKED = (*WAITED, *UNHARMED)


def test_all_parts_confirm_and_none_refutes() -> None:
    died = dataclasses.replace(STARVED[0], facts={**STARVED[0].facts, "death": "it ended (SIGSEGV)"})
    assert verdict_of(died, *STARVED[1:], *FED, *DEFENDED, *WORKED).verdict == "CONFIRMED"
    found = verdict_of(*STARVED, *FED, *DEFENDED, *WORKED)
    assert found.verdict == "PARTLY"
    words = ["F1 holds", "0.00 % [0.00 %, 0.00 %]", "F2 does not hold: 0 of 5 launches", "F3 holds", "F4 holds"]
    assert all(word in found.evidence for word in words), found.evidence
    overrun = verdict_of(*STARVED, *FED, *DEFENDED, launch(POOL, 5000, 0, defence="on"))
    assert f"F3 holds: {POOL} 100 % [100 %, 100 %] at 24 (defence on)" in overrun.evidence
    assert f"yet {POOL} 0.00 % (launches 1, for an interval 5) at 5,000 (defence on)" in overrun.evidence
    unharmed = (*launches(POOL, 24, 100), *launches(LOOP, 24, 50))
    harmed = (*launches(POOL, 24, 0, defence="on"), *launches(LOOP, 24, 0, defence="on"))
    assert verdict_of(*unharmed, *harmed).verdict == "REFUTED"


def test_what_the_launches_do_not_decide_is_open() -> None:
    """One launch has no interval; an interval that reaches over the bound is on neither side of it."""
    few = verdict_of(launch(POOL, 24, 0), *FED)
    assert (few.verdict, "for an interval 5" in few.evidence) == ("INCONCLUSIVE", True)
    split = [launch(POOL, 24, 100 * (block % 2), block) for block in range(MINIMUM_LAUNCHES)]
    assert (verdict_of(*split, *FED).verdict, "F1 is open" in verdict_of(*split, *FED).evidence) == (
        "INCONCLUSIVE",
        True,
    )
    assert "F3 is open" in verdict_of(*STARVED, *FED, *DEFENDED[5:], launch(POOL, 24, 100, defence="on")).evidence
    opened = launch(POOL, 24, 100, defence="on"), *DEFENDED[5:]
    died = dataclasses.replace(STARVED[0], facts={**STARVED[0].facts, "death": "it ended (SIGSEGV)"})
    all_but_one = verdict_of(died, *STARVED[1:], *FED, *opened)
    none_but_one = verdict_of(*launches(POOL, 24, 100), *launches(LOOP, 24, 50), *opened)
    assert all_but_one.verdict == none_but_one.verdict == "INCONCLUSIVE", "F3 is open, and decides between two"
    assert verdict_of(*STARVED, *FED, *opened).verdict == "PARTLY", "whatever becomes of F3"
    fed = verdict_of(*split, *launches(LOOP, 24, 50))
    assert "F1 does not hold" in fed.evidence, "one half of it decides"


@pytest.mark.parametrize(
    "samples",
    [
        STARVED,
        FED,
        (launch(POOL, 23, 0), launch(LOOP, 23)),
        (launch(POOL, 24, 0, timeout_ns=1000 * MS), launch(LOOP, 24, timeout_ns=1000 * MS)),
        (launch(POOL, 24, 0, kind="idle"), launch(LOOP, 24, kind="idle")),
        (launch(POOL, 24, 0, slow_failure="socket: EMFILE ()"), *FED),
        (),
    ],
    ids=["no loop", "no pool", "too few", "another time-out", "another kind", "void", "nothing"],
)
def test_without_its_first_part_nothing_is_judged(samples: tuple[Samples, ...]) -> None:
    assert verdict_of(*samples).verdict == NOT_MEASURED


def test_a_shorter_work_is_no_counter_arm() -> None:
    short = launches("node", 1, 100, kind="cpu", work_taken_ns=500 * MS, longest_ns=500 * MS)
    assert "F4 not measured" in verdict_of(*STARVED, *FED, *short, *UNHARMED).evidence
    waited = launches(POOL, 1, 100, kind="cpu", work_taken_ns=2100 * MS, longest_ns=1100 * MS)
    assert "F4 does not hold" in verdict_of(*STARVED, *FED, *WAITED, *waited).evidence


def test_innocents_that_give_up_soon_are_no_counter_arm() -> None:
    """Who waited for longer than the bound has no latency, so that the longest cannot reach that of the work."""
    gave_up = [dataclasses.replace(item, facts={**item.facts, "timeout_ns": 1000 * MS}) for item in WORKED]
    assert "F4 not measured" in verdict_of(*STARVED, *FED, *gave_up).evidence


# --- what may be asked ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"defence_timeout": 1_500_000_000}, "whole seconds"),
        ({"innocents": 10_000}, "may wait within --served-within"),
        ({"innocents": 1, "duration": 100 * MS}, "no innocent would be due"),
        ({"kinds": ("cpu",), "server": ("epoll",)}, "no page that works; those that have: "),
        ({"defence": ("on",), "server": ("nginx", "prefork")}, "--defence on: prefork has none; those that have: "),
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        SLOW.check(dataclasses.replace(SLOW.parameters_type(), **changes))


def test_no_option_names_a_host_a_port_or_a_process() -> None:
    names = {name for name, _, _ in options_of(SLOW.parameters_type)}
    words = set(itertools.chain.from_iterable(name.split("_") for name in names))
    assert not words & {"host", "port", "pid", "address", "url", "target", "ip", "command"}


def batches_of(parameters: SlowParameters) -> dict[int, list[tuple[Key, ...]]]:
    """What stands side by side, by the number of slow clients; nothing is left out."""
    found = {}
    for cell in SLOW.cells(parameters):
        assert isinstance(cell, TogetherCell), cell.label
        found[int(cell.key["clients_count"])] = list(cell.batches)
    return found


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which everything is installed and nothing ends."""
    monkeypatch.setattr(RealModel, "missing", "")
    monkeypatch.setattr(limits, "walls", lambda: ())


@pytest.mark.usefixtures("able")
def test_every_kind_is_measured_with_defence_and_without_at_the_defaults() -> None:
    """Each with as many launches as its kind has, and each number of clients by itself; each server once alone."""
    parameters = SlowParameters()
    found = batches_of(parameters)
    launches = Counter(tuple(key.values()) for batches in found.values() for batch in batches for key in batch)
    servers = parameters.server
    with_time_outs = {"apache-prefork-php", "nginx", "node"}
    for server, kind, count in itertools.product(servers, KINDS, (24, 5000)):
        for defence in ("off", "on") if server in with_time_outs else ("none",):
            if kind != "head" and count == 5000:
                continue
            assert launches.pop((server, kind, count, defence)) == (5 if kind == "head" else 1)
    for server in servers:
        assert launches.pop((server, "none", 0, "off" if server in with_time_outs else "none")) == 5
    given = dataclasses.replace(parameters, clients=(24, 5000))
    assert {key["kind"] for batch in batches_of(given)[5000] for key in batch} == {*KINDS, "cpu"}, (
        "where they are given"
    )
    assert launches == {("node", "cpu", 1, "off"): 5, ("apache-prefork-php", "cpu", 1, "off"): 5}


@pytest.mark.usefixtures("able")
def test_who_may_starve_stands_with_its_like_and_with_who_works_meanwhile() -> None:
    """No batch is larger than what was asked, in launches and in slow clients."""
    parameters = SlowParameters(side_by_side=16)
    for count, batches in batches_of(parameters).items():
        for batch in batches:
            slowed = [key for key in batch if key["kind"] != "cpu"]
            assert len({is_starving(key) for key in slowed}) == 1
            assert len(slowed) <= 16
            assert count * len(slowed) <= TOGETHER_COUNT // (1 if is_starving(slowed[0]) else 2)
            assert len(slowed) == len(batch) or is_starving(slowed[0]), "where nobody waits, the CPU is the innocents'"
    alone = batches_of(dataclasses.replace(parameters, side_by_side=1))
    assert {len(batch) for batches in alone.values() for batch in batches} == {1}


def test_what_cannot_be_measured_here_is_skipped_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing server, and more slow clients than there are descriptors: each a cell, beside what can be measured."""
    few = limits.Wall("descriptors", "administrative", 1000, 0, "descriptors", "process", "setrlimit(2)")
    monkeypatch.setattr(limits, "walls", lambda: (few,))
    monkeypatch.setattr(RealModel, "missing", property(lambda model: f"{model.name} is not installed"))
    parameters = SlowParameters(kinds=("head",), server=("nginx", "epoll"), clients=(24, 5000), defence=("off",))
    cells = SLOW.cells(parameters)
    (together,) = [cell for cell in cells if isinstance(cell, TogetherCell)]
    assert (together.key, together.label) == ({"clients_count": 24}, "24 slow clients")
    others = {tuple(cell.key.values()): cell for cell in cells if cell is not together}
    assert others.keys() == {
        ("nginx", "head", 24, "off"),
        ("nginx", "head", 5000, "off"),
        ("epoll", "head", 5000, "none"),
    }
    assert limits.check(others["epoll", "head", 5000, "none"].needs, (few,)) is few
    with pytest.raises(native.HelperUnsupported, match="nginx is not installed"):
        next(SLOW.measure(parameters, others["nginx", "head", 24, "off"], mock.Mock()))
