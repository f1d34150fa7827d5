"""Where innocents starve, searched among made servers that starve from a known number of slow clients on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import pytest
from c10k_probe.experiments import _slow_measure, _slow_together
from c10k_probe.experiments._slow_design import Ask
from c10k_probe.experiments._slow_search import (
    CONFIRMING_COUNT,
    FINEST_STEP,
    SearchCell,
    ends_of,
    next_counts,
    search,
    starving,
    sweeps_of,
)
from made_slow import launch

from c10k_probe import native
from c10k_probe.experiment import Experiment, Finding
from c10k_probe.parameters import build_parameters
from c10k_probe.registry import find_experiments

SLOW: Experiment = find_experiments()["slow-clients"]  # type: ignore[type-arg]
POOL, LOOP = "apache-prefork-php", "nginx"


def searched(share_pct: Callable[[int], float], given: tuple[int, ...], guess: int | None) -> dict[int, list[float]]:
    """All launches of a server that serves so many innocents, until nothing more is asked."""
    shares = {count: [share_pct(count)] for count in given}
    for _ in range(12):
        counts = next_counts(shares, guess)
        if not counts:
            return shares
        for count in counts:
            shares.setdefault(count, []).append(share_pct(count))
    raise AssertionError("the search does not end")


@pytest.mark.parametrize("guess", [None, 16, 40])
@pytest.mark.parametrize("first", [1, 2, 9, 16, 23, 24, 48, 777, 5000])
def test_the_first_number_that_starves_is_found_whatever_the_guess(first: int, guess: int | None) -> None:
    shares = searched(lambda count: 0.0 if count >= first else 100.0, (0, 24, 5000), guess)
    ends = ends_of(shares)
    assert ends is not None
    low, high = ends
    assert low < first <= high
    assert high - low == 1 or high <= FINEST_STEP * low
    assert all(len(shares[count]) >= CONFIRMING_COUNT for count in ends if count)
    assert sum(map(len, shares.values())) < 40
    finding = starving("made", shares)
    assert finding is not None
    assert finding.value is not None
    assert (finding.value.middle, finding.value.low, finding.value.high) == (high, low, high)


def test_together_they_are_no_more_than_may_be() -> None:
    assert len(next_counts({0: [100.0], 5000: [0.0]}, None, 5000)) == 1
    assert next_counts({0: [100.0], 5000: [0.0]}, None, 100) == [2500], "one at least"


def test_launches_that_do_not_agree_widen_the_interval() -> None:
    """At 15 one of three launches starves, at 16 one does not: the ends are those on which all agree."""
    shares = {8: [100.0], 14: [95.0], 15: [95.0, 92.0, 10.0], 16: [0.0, 0.0, 93.0], 24: [1.0]}
    finding = starving("made", shares)
    assert finding is not None
    assert finding.value is not None
    assert (finding.value.middle, finding.value.low, finding.value.high) == (16, 14, 24)
    assert "in 2 of 3 launches; not yet at 15, in 1 of 3" in finding.note


def test_in_a_launch_that_is_undecided_the_search_goes_on_from_the_median() -> None:
    flips = itertools.cycle([0.0, 100.0])
    shares = searched(lambda count: next(flips) if count == 15 else 100.0 * (count < 15), (0, 24), 16)
    ends = ends_of(shares)
    assert ends in ((14, 15), (15, 16))


def test_what_nobody_need_search() -> None:
    assert next_counts({0: [100.0], 24: [95.0]}, 16) == []
    assert next_counts({0: [50.0], 24: [0.0]}, 16) == [], "it serves too few without anybody"
    finding = starving("made", {0: [50.0], 24: [0.0]})
    assert finding is not None
    assert "without slow clients" in finding.note
    assert starving("made", {0: [100.0]}) is None


def test_a_cell_holds_the_sweeps_that_are_searched_and_none_that_this_side_spoilt() -> None:
    parameters = build_parameters(SLOW.parameters_type, {"clients": "0..5000"}, quick=False)
    assert parameters.clients == (0, 1, 3, 10, 30, 100, 300, 1000, 3000, 5000)
    sweep = [launch(POOL, count, served) for count, served in ((0, 100), (10, 95), (30, 10), (100, 0))]
    spoilt = [launch("node", 0), launch("node", 24, 0, slow_failure="socket: EMFILE (Too many open files)")]
    samples = [*sweep, *spoilt, launch(LOOP, 0), launch(LOOP, 5000), launch(POOL, 1, kind="cpu")]
    (cell,) = SLOW.refine(parameters, samples, 1)
    assert isinstance(cell, SearchCell)
    assert cell.key == {"kind": "head"}
    assert sweeps_of(samples)["node", "head", "off"] == {0: [100.0]}
    assert cell.needs.descriptors_count > 30
    made = {item.subject: item for item in SLOW.fit(parameters, samples, 1) if isinstance(item, Finding)}
    starved, fed = made[f"{POOL}, head, defence off"], made[f"{LOOP}, head, defence off"]
    assert starved.value is not None
    assert (starved.value.middle, starved.value.low) == (30, 10)
    assert (fed.value, "up to 5,000" in fed.note) == (None, True)


class MadeBench:
    """What a search asks of its bench."""

    seed, block, blocks_count = 1, 0, 1

    def __init__(self, remaining_s: float = 60.0) -> None:
        self.left_s = remaining_s
        self.warnings: list[str] = []

    def remaining_s(self) -> float:
        return self.left_s

    def progress(self, done: float, total: float, note: str) -> None: ...

    def warn(self, seen: str, cause: str, advice: str) -> None:
        self.warnings.append(seen)


FAILURE = native.HelperError("apache-prefork-php has no free worker")


def outcomes_but_one(
    asks: Sequence[Ask], remaining_s: Callable[[], float]
) -> list[_slow_measure.Launch | native.HelperError]:
    """A pool that cannot go on, and a loop that starves from 10 slow clients on."""
    made = [launch(ask.server, ask.clients_count, 100 if ask.clients_count < 10 else 0) for ask in asks]
    return [
        FAILURE if ask.server == POOL else _slow_measure.Launch(item.facts, item.values)
        for ask, item in zip(asks, made, strict=True)
    ]


def test_a_server_that_cannot_go_on_ends_its_own_search_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_slow_together, "outcomes", outcomes_but_one)
    parameters = build_parameters(SLOW.parameters_type, {"clients": "0,24"}, quick=False)
    samples = [launch(name, count, served) for name in (POOL, LOOP) for count, served in ((0, 100), (24, 0))]
    (cell,) = SLOW.refine(parameters, samples, 1)
    bench = MadeBench()
    found = list(search(parameters, cell, bench))  # type: ignore[arg-type]
    failed = [item for item in found if item.key["server"] == POOL]
    assert {item.facts["failure"] for item in failed} == {str(FAILURE)}
    rows = [row for row in SLOW.summarise(parameters, [*samples, *found], 1) if row.status != "ok"]
    assert {(row.status, row.reason, row.grade) for row in rows} == {("failed", str(FAILURE), "void")}
    assert ends_of(sweeps_of([*samples, *found])[LOOP, "head", "off"]) == (9, 10)
    assert len(bench.warnings) == len(rows) > 0, "each once, however many launches of it there were"
    assert all(text.startswith(POOL) and text.endswith(f"failed: {FAILURE}") for text in bench.warnings)
    with pytest.raises(native.HelperError):
        list(search(parameters, cell, MadeBench(remaining_s=0.0)))  # type: ignore[arg-type]


def test_a_launch_that_cannot_go_on_leaves_the_others_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    def stages(ask: str, _: object) -> Iterator[None]:
        yield
        if ask == "fails":
            raise FAILURE
        yield
        return ask  # type: ignore[return-value]

    monkeypatch.setattr(_slow_measure, "_launch", stages)
    asks = ["first", "fails", "last"]
    assert _slow_measure.outcomes(asks, lambda: 60.0) == ["first", FAILURE, "last"]  # type: ignore[arg-type, comparison-overlap]
