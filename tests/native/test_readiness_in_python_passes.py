"""The passes of readiness_in_python from within: each event once and where it is due; surplus and lost bytes."""

from __future__ import annotations

import errno
import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c10k_probe.readiness_in_python import passes, workloads
from c10k_probe.readiness_in_python.mechanisms import MECHANISMS, Mechanism, Select
from c10k_probe.readiness_in_python.passes import Level
from c10k_probe.readiness_in_python.workloads import WORKLOADS, Refused, Sockets, Work

PASSES: Final = 3
NEVER: Final = 2**63  # a deadline, in monotonic ns
every_mechanism = pytest.mark.parametrize("name", MECHANISMS)
every_workload = pytest.mark.parametrize("workload", WORKLOADS)

Rounds = list[tuple[list[int], list[int]]]  # descriptors written to, descriptors read


class Witness:
    """Stands between the workloads and os, and notes each write and read in order."""

    close = staticmethod(os.close)

    def __init__(self) -> None:
        self.rounds: Rounds = []
        self._is_reading = True

    def write(self, number: int, data: bytes) -> int:
        """Begins a round after reads."""
        if self._is_reading:
            self.rounds.append(([], []))
        self._is_reading = False
        self.rounds[-1][0].append(number)
        return os.write(number, data)

    def read(self, number: int, most: int) -> bytes:
        """Never more than one byte is there."""
        self._is_reading = True
        self.rounds[-1][1].append(number)
        data = os.read(number, most)
        assert len(data) == 1
        return data


@contextmanager
def watching(
    name: str, workload: str, watched: int, writes: int | None = None, seed: int = 1
) -> Iterator[tuple[Sockets, Work, Mechanism]]:
    """Sockets and a mechanism that watches them, closed at the end."""
    sockets = Sockets(watched, seed)
    work = WORKLOADS[workload](sockets, writes)
    work.watcher = mechanism = MECHANISMS[name](work)
    try:
        mechanism.add(sockets.watched)
        yield sockets, work, mechanism
    finally:
        mechanism.close()
        work.close()
        sockets.close()


# --- each once --------------------------------------------------------------------------------------------------------


@given(
    workload=st.sampled_from(sorted(WORKLOADS)),
    watched=st.integers(1, 12),
    share=st.floats(0, 1),
    writes=st.none() | st.integers(1, 60),
    seed=st.integers(0, 2**63 - 1),
)
@every_mechanism
@settings(max_examples=15, deadline=None)
def test_each_event_is_delivered_exactly_once(  # noqa: PLR0913, PLR0917  what is drawn
    name: str, workload: str, watched: int, share: float, writes: int | None, seed: int
) -> None:
    witness, active = Witness(), max(1, round(share * watched))
    with pytest.MonkeyPatch.context() as patch, watching(name, workload, watched, writes, seed) as made:
        sockets, work, mechanism = made
        numbers = list(sockets.all)
        patch.setattr(workloads, "os", witness)
        level = Level(work, mechanism, active)
        level.run(0, PASSES, NEVER)
        message = level.message()

    assert (len(level), level.dropped_count) == (PASSES, 0)
    assert len(witness.rounds) == PASSES * message["rounds_per_pass_count"]
    for column in zip(*witness.rounds, strict=True):
        assert sum(map(len, column)) == PASSES * message["events_per_pass_count"]
    assert all(len(written) == len(set(written)) <= active for written, _ in witness.rounds)
    if workload == "chain":
        peer_of = {number: numbers[place ^ 1] for place, number in enumerate(numbers)}
        assert all({peer_of[number] for number in written} == set(read) for written, read in witness.rounds)


@given(
    workload=st.sampled_from(sorted(WORKLOADS)),
    watched=st.integers(1, 12),
    share=st.floats(0, 1),
    pass_us=st.integers(1, 400),
)
@every_mechanism
@settings(max_examples=10, deadline=None)
def test_a_pass_of_about_a_time_is_whole_rounds(
    name: str, workload: str, watched: int, share: float, pass_us: int
) -> None:
    """For each event 1/active of a wait, and each round with as many as are active."""
    active = max(1, round(share * watched))
    with watching(name, workload, watched) as (_, work, mechanism):
        level = Level(work, mechanism, active)
        level.run(0, PASSES, NEVER, pass_us * 1000)
        message = level.message()

    assert (len(level), level.dropped_count) == (PASSES, 0)
    assert message["events_per_pass_count"] == active * message["rounds_per_pass_count"]
    if name in {"select.select", "select.poll", "select.epoll", "selectors"}:
        assert message["waits_count"] * active == PASSES * message["events_per_pass_count"]


@pytest.mark.parametrize(
    ("pass_ns", "rounds"), [(1, 1), (4000, 4), (4999, 4), (40_000, 40), (1_000_000, 1000), (10**12, passes.ROUNDS_MOST)]
)
def test_rounds_that_take_a_thousand_ns_each(pass_ns: int, rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as fit; the passes that find it out double their rounds until one takes a quarter of it."""
    tried = []

    def take(_: Level) -> int:
        tried.append(work.rounds_count)
        return 1000 * work.rounds_count

    with watching("select.poll", "chain", 4) as (_, work, mechanism):
        level = Level(work, mechanism, 2)
        monkeypatch.setattr(Level, "_take", take)
        level._fit_rounds(pass_ns)

    assert tried == [2**step for step in range(len(tried))]
    assert (work.rounds_count, work.events_count) == (rounds, 2 * rounds)
    assert tried[-1] * 4000 >= pass_ns or tried[-1] == passes.ROUNDS_MOST


def test_one_token_visits_all_watched_sockets_in_turn() -> None:
    witness = Witness()
    with pytest.MonkeyPatch.context() as patch, watching("select.poll", "chain", 7, 20) as (sockets, work, mechanism):
        patch.setattr(workloads, "os", witness)
        Level(work, mechanism, 1).run(0, PASSES, NEVER)
        watched = list(sockets.watched)

    read = [number for _, numbers in witness.rounds[:21] for number in numbers]
    assert sorted(read[:7]) == sorted(watched)
    assert read == (read[:7] * 3)[:21]
    assert read[:7] != watched


def test_all_active_means_that_all_are_ready_in_each_wait() -> None:
    with watching("select.epoll", "chain", 50, 500) as (_, work, mechanism):
        level = Level(work, mechanism, 50)
        level.run(1, PASSES, NEVER)
    message = level.message()

    assert message["waits_count"] == PASSES * message["rounds_per_pass_count"] == PASSES * 11
    assert message["calls_count"]["read"] == PASSES * 550


def test_the_two_orders_come_from_the_seed() -> None:
    found = {}
    for turn, seed in enumerate((5, 5, 6)):
        sockets = Sockets(40, seed)
        places = {number: place for place, number in enumerate(sockets.all)}
        found[turn] = [[places[number] for number in order] for order in (sockets.watched, sockets.entrances)]
        sockets.close()

    assert found[0] == found[1]
    assert all(one != other for one, other in zip(found[0], found[2], strict=True))
    assert all(sorted(order) == list(range(40)) != order for order in found[0])


# --- bytes too many, bytes too few ------------------------------------------------------------------------------------


@every_workload
@every_mechanism
@pytest.mark.parametrize("moment", ["_start", "_finish"])
def test_a_pass_with_a_byte_too_many_is_dropped(
    name: str, workload: str, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with watching(name, workload, 10, 30) as (sockets, work, mechanism):
        step = getattr(work, moment)

        def step_with_one_more() -> None:
            if work.left_count >= 0:  # not once more when that one arrives
                os.write(sockets.all[0], b"x")
            step()

        monkeypatch.setattr(work, moment, step_with_one_more)
        bad = Level(work, mechanism, 3)
        bad.run(0, PASSES, NEVER)
        monkeypatch.setattr(work, moment, step)
        good = Level(work, mechanism, 3)
        good.run(0, PASSES, NEVER)

    assert (len(bad), bad.dropped_count, bad.message()["pass_ns"]) == (0, PASSES, [])
    assert (len(good), good.dropped_count) == (PASSES, 0)


def test_a_pass_with_a_byte_in_a_wrong_place_is_dropped() -> None:
    with watching("select.poll", "chain", 10, 30) as (sockets, work, mechanism):
        one, other = sockets.watched[0], sockets.watched[5]
        targets = sockets.targets
        targets[one], targets[other] = targets[other], targets[one]
        level = Level(work, mechanism, 3)
        level.run(0, PASSES, NEVER)

    assert (len(level), level.dropped_count) == (0, PASSES)


@every_workload
@every_mechanism
def test_a_byte_that_never_comes_ends_it(name: str, workload: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Loser(Witness):
        def write(self, number: int, data: bytes) -> int:
            return 1 if len(self.rounds) == 2 and not self._is_reading else super().write(number, data)

    monkeypatch.setattr(passes, "GUARD_S", 0.05)
    monkeypatch.setattr(workloads, "os", Loser())
    failure = pytest.raises(TimeoutError, match="no event")
    with watching(name, workload, 10, 30) as (_, work, mechanism), failure as caught:
        Level(work, mechanism, 3).run(0, PASSES, NEVER)

    assert caught.value.errno == errno.ETIMEDOUT
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@every_mechanism
def test_an_error_in_the_middle_of_a_pass_comes_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    open_pair, pairs_count = workloads.open_pair, 0

    def open_five() -> object:
        nonlocal pairs_count
        pairs_count += 1
        if pairs_count > 5:
            raise Refused("socketpair", "", errno.EMFILE)
        return open_pair()

    with watching(name, "short", 4, 30) as (_, work, mechanism), pytest.raises(Refused) as caught:
        monkeypatch.setattr(workloads, "open_pair", open_five)
        Level(work, mechanism, 2).run(0, PASSES, NEVER)

    assert caught.value.args == ("socketpair", "", errno.EMFILE)


# --- the list of select -----------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32), steps=st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_the_list_of_select_is_the_set_that_is_watched(seed: int, steps: int) -> None:
    chance, expected = random.Random(seed), set[int]()
    sockets = Sockets(1, 1)
    select = Select(WORKLOADS["chain"](sockets, None))
    sockets.close()
    for _ in range(steps):
        if expected and chance.random() < 0.5:
            gone = chance.sample(sorted(expected), chance.randint(1, len(expected)))
            select.remove(gone)
            expected -= set(gone)
        else:
            new = [number for number in range(20) if number not in expected and chance.random() < 0.3]
            select.add(new)
            expected |= set(new)
        assert sorted(select._numbers) == sorted(expected)
        assert {select._numbers[place] for place in select._places.values()} == expected
