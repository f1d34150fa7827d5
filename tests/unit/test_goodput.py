"""Goodput from made samples: what is counted of a load, grades, knees, what is kept beyond them, the verdict on C03."""

from __future__ import annotations

import dataclasses
import random

import pytest
from c10k_probe.experiments._goodput_design import (
    SETTLING_NS,
    closed_times_ns,
    plan_of,
    rush_of,
    server_options,
    stages_of,
)
from c10k_probe.experiments._goodput_knee import Trial, cut, interval, next_loads, of_load
from c10k_probe.experiments._goodput_measure import closed_facts, open_facts

from c10k_probe import stats
from c10k_probe.exits import UsageError
from c10k_probe.experiment import NOT_MEASURED, Experiment, Finding, Samples, Scalar, Verdict, flatten
from c10k_probe.load import ClosedLoopReport, OpenLoop, Stage
from c10k_probe.load.open_loop import StageUse
from c10k_probe.parameters import build_parameters
from c10k_probe.registry import find_experiments
from c10k_probe.servers import REAL_SERVERS

GOODPUT: Experiment = find_experiments()["goodput"]  # type: ignore[type-arg]
NS_PER_MS = 1_000_000
BOUND_NS = 100 * NS_PER_MS
PARAMETERS = GOODPUT.parameters_type(bound=BOUND_NS)
CAPACITY_PER_S = 1000.0
NOISE = [1.0, 1.01, 0.99, 1.005, 0.995, 1.002]
Loads = dict[int, float]  # offered load in percent -> share that is answered in time


def launch(model: str, block: int, loop: str, amount: int, goodput_per_s: float, **facts: Scalar) -> Samples:
    """A step of a launch in which nothing was in doubt, unless named."""
    load_pct, clients_count = (amount, 2000) if loop == "open" else (100, amount)
    step = {"work": "200us", "keep_alive": "off", "loop": loop, "load_pct": load_pct, "clients_count": clients_count}
    offered_per_s = CAPACITY_PER_S * load_pct / 100
    usual: dict[str, Scalar] = {
        "capacity_per_s": CAPACITY_PER_S,
        "capacity_client_pct": 30.0,
        "due_count": 250,
        "good_count": 200,
        "late_count": 50,
        "goodput_per_s": goodput_per_s * NOISE[block],
        "good_pct": 100 * goodput_per_s / offered_per_s if loop == "open" else 100.0,
        "offered_per_s": offered_per_s if loop == "open" else None,
        "p50_ns": 1e6,
        "p99_ns": 2e6,
        "client_cpu_pct": 30.0,
        "longest_late_ns": 1_000_000 if loop == "open" else None,
        "own_failure": "",
        "walls_count": 0,
        "first_wall": "",
    }
    return Samples({"model": model, **step}, block, {}, usual | facts)


def curve(model: str, shares: Loads, **facts: Scalar) -> list[Samples]:
    """Six launches, each with these loads."""
    return [
        launch(model, block, "open", load, CAPACITY_PER_S * load / 100 * share, **facts)
        for block in range(len(NOISE))
        for load, share in shares.items()
    ]


def clients(model: str, goodput_per_s: dict[int, float]) -> list[Samples]:
    """Six launches, each with these numbers of clients."""
    return [
        launch(model, block, "closed", count, rate)
        for block in range(len(NOISE))
        for count, rate in goodput_per_s.items()
    ]


def rows_of(samples: list[Samples]) -> list[dict[str, Scalar]]:
    return [flatten(row) for row in GOODPUT.summarise(PARAMETERS, samples, 1)]


def findings_of(samples: list[Samples]) -> dict[tuple[str, str], Finding]:
    made = GOODPUT.fit(PARAMETERS, samples, 1)
    return {(item.subject, item.column): item for item in made if isinstance(item, Finding)}


def verdict_on(samples: list[Samples]) -> Verdict:
    rows = [row for row in rows_of(samples) if row["grade"] != "void"]
    (judge,) = GOODPUT.judges
    return judge(rows, GOODPUT.fit(PARAMETERS, samples, 1))


# --- what is counted --------------------------------------------------------------------------------------------------


def open_loop() -> OpenLoop:
    """Ten requests, one each 10 ms; those from 50 ms on in a stage of which the first is not counted."""
    outcomes = ["answered"] * 5 + ["answered", "answered", "timed_out", "unsent", "reset"]
    return OpenLoop(
        intended_count=10,
        sent_count=9,
        answered_count=7,
        wrong_count=0,
        refused_count=0,
        reset_count=1,
        timed_out_count=1,
        unsent_count=1,
        due_ns=[10 * NS_PER_MS * place for place in range(10)],
        latency_ns=[1, 1, 1, 1, 1, BOUND_NS, BOUND_NS + 1, -1, -1, -1],
        outcomes=outcomes,
        samples_every=1,
        longest_late_ns=7,
        start_ns=0,
        duration_ns=100 * NS_PER_MS,
        taken_ns=200 * NS_PER_MS,
        client_cpu_ns=20 * NS_PER_MS,
        opened_connections_count=9,
    )


BEGIN_NS, END_NS = 50 * NS_PER_MS - SETTLING_NS, 100 * NS_PER_MS
USE = StageUse(client_cpu_ns=(END_NS - BEGIN_NS) // 10, longest_late_ns=5)


def test_only_what_was_due_in_the_stage_after_it_settled_is_counted_and_each_once() -> None:
    facts = open_facts(open_loop(), BEGIN_NS, END_NS, USE, BOUND_NS)
    kinds = ("good", "late", "timed_out", "unsent", "reset", "refused", "wrong")
    assert [facts[f"{kind}_count"] for kind in kinds] == [1, 1, 1, 1, 1, 0, 0]
    assert (facts["due_count"], facts["good_pct"], facts["client_cpu_pct"]) == (5, 20.0, 10.0)
    assert (facts["offered_per_s"], facts["goodput_per_s"], facts["longest_late_ns"]) == (100.0, 20.0, 5)
    assert (facts["p50_ns"], facts["p99_ns"]) == (None, None)  # the median was never answered
    earlier = open_facts(open_loop(), BEGIN_NS - 20 * NS_PER_MS, END_NS - 20 * NS_PER_MS, USE, BOUND_NS)
    assert (earlier["due_count"], earlier["good_count"]) == (5, 3)


def test_a_load_of_which_one_in_ten_was_kept_is_ten_times_as_much() -> None:
    loop = dataclasses.replace(open_loop(), samples_every=10)
    facts = open_facts(loop, BEGIN_NS, END_NS, USE, BOUND_NS)
    assert (facts["offered_per_s"], facts["goodput_per_s"], facts["good_pct"]) == (1000.0, 200.0, 20.0)


def test_late_answers_of_a_closed_loop_are_no_goodput() -> None:
    report = ClosedLoopReport(
        duration_ns=500 * NS_PER_MS,
        spanned_ns=490 * NS_PER_MS,
        requests_count=100,
        failed_count=25,
        wrong_count=5,
        warmup_count=9,
        drained_count=9,
        latency_ns=[BOUND_NS] * 60 + [BOUND_NS + 1] * 40,
        samples_every=1,
        client_cpu_ns=50 * NS_PER_MS,
        connections_count=8,
        served_connections_count=7,
        opened_connections_count=8,
    )
    facts = closed_facts(report, BOUND_NS)
    assert [facts[f"{kind}_count"] for kind in ("due", "good", "late", "failed", "served")] == [125, 60, 40, 25, 7]
    assert (facts["goodput_per_s"], facts["good_pct"], facts["client_cpu_pct"]) == (120.0, 48.0, 10.0)


@pytest.mark.parametrize("bound_ms", [1, 2, 100, 1000, 60_000])
def test_after_a_rush_a_server_in_order_answers_in_time_just_where_it_is_not_slower_than_requests_come(
    bound_ms: int,
) -> None:
    """What has come a time t after the rush began is what the rate would have brought in t and a bound."""
    bound_s, rate_per_s = bound_ms / 1000, 900.0
    rush = rush_of(rate_per_s, bound_ms * NS_PER_MS)
    assert rush.duration_s * 1000 == pytest.approx(max(1, round(bound_ms / 4)))  # whole milliseconds
    assert rush.rate_per_s * rush.duration_s == pytest.approx(rate_per_s * (rush.duration_s + bound_s))


def test_loads_go_upwards_with_a_rush_before_those_above_capacity_and_few_launches_of_the_low_ones() -> None:
    low, high = [("open", 10), ("open", 90), ("open", 100)], [("fill", 100), ("open", 110), ("open", 300)]
    tried = [("rush", 110), ("knee", 110)]
    for load in (105, 100, 95, 90):
        tried += [("pause", load), ("knee", load)]
    assert plan_of((300, 10, 100, 90, 110, 10), 0) == [*low, *tried, *high]
    assert plan_of((300, 10, 100, 90, 110), 2)[:2] == [("open", 100), ("rush", 108)]  # each launch a point lower
    blocks = [plan_of((), block) for block in range(5)]
    assert sorted(step.load_pct for plan in blocks for step in plan if step.loop == "knee") == [*range(86, 111)]


@pytest.mark.parametrize("bound_ms", [10, 1000])
def test_each_load_that_is_tried_has_come_as_if_for_a_bound_before_the_rush_and_then_the_queue_is_filled(
    bound_ms: int,
) -> None:
    capacity_per_s, bound_s = 2000.0, bound_ms / 1000
    plan = plan_of((110,), 0)
    since_s = come_count = 0.0
    for step, stage in zip(plan, stages_of(plan, capacity_per_s, bound_ms * NS_PER_MS, 50 * NS_PER_MS), strict=True):
        assert (1000 * stage.duration_s) % 1 == pytest.approx(0)
        since_s, come_count = since_s + stage.duration_s, come_count + stage.rate_per_s * stage.duration_s
        if step.loop == "knee":
            rate_per_s = capacity_per_s * step.load_pct / 100
            assert stage == Stage(rate_per_s, pytest.approx(0.05 + SETTLING_NS / 1e9))
            assert come_count == pytest.approx(rate_per_s * (since_s + bound_s), abs=0.0006 * rate_per_s)  # half a ms
        if step.loop == "fill":  # with a short bound the queue was empty before, whatever had come
            assert capacity_per_s < stage.rate_per_s < 10 * capacity_per_s
            waiting_count = come_count - capacity_per_s * since_s
            assert waiting_count <= 1.2501 * bound_s * capacity_per_s
            assert bound_ms < 1000 or waiting_count >= 1.2499 * bound_s * capacity_per_s
    assert plan[-1] == ("open", 110)


def test_servers_have_their_own_page_beside_the_models_and_a_pool_needs_no_more_than_its_workers() -> None:
    parameters = dataclasses.replace(PARAMETERS, server=("nginx", "apache-prefork-php", "python-threading"))
    cells = {str(cell.key["model"]): cell for cell in GOODPUT.cells(parameters)}
    assert parameters.server is not None
    assert list(cells) == [*PARAMETERS.model, *parameters.server]
    assert [str(cells[name].key["work"]) for name in ("epoll", *parameters.server)] == ["200us", *["own-page"] * 3]
    prefork = server_options("apache-prefork-php", "own-page", 16_000)
    assert (prefork.workers_count, prefork.capacity_count) == (256, None)
    assert server_options("nginx", "own-page", 16_000).capacity_count == 16_000
    each = REAL_SERVERS["apache-prefork-php"].per_connection
    assert cells["apache-prefork-php"].needs.tasks_count < each.times(300).tasks_count + 64


@pytest.mark.parametrize(
    ("clients_count", "rate_per_s", "times_ms"),
    [(8, 1000.0, (50, 200)), (1000, 2000.0, (500, 1000)), (10_000, 1.0, (5000, 10_000))],
)
def test_a_closed_loop_lasts_for_rounds_of_all_its_clients(
    clients_count: int, rate_per_s: float, times_ms: tuple[int, int]
) -> None:
    assert closed_times_ns(clients_count, rate_per_s) == tuple(value * NS_PER_MS for value in times_ms)


@pytest.mark.parametrize(
    ("model", "work", "clients", "at_least_s"),
    [("thread", "200us", (64,), 1.0), ("thread", "200us", (10_000,), 10.0), ("epoll", "5ms-sleep", (256,), 3.5)],
)
def test_the_time_left_counts_the_rounds_of_many_clients(
    model: str, work: str, clients: tuple[int, ...], at_least_s: float
) -> None:
    parameters = dataclasses.replace(PARAMETERS, model=(model,), work=(work,), clients=clients, load=())
    (cell,) = GOODPUT.cells(parameters)
    assert at_least_s <= cell.weight < 1.5 * at_least_s


def test_parts_of_a_millisecond_are_refused() -> None:
    with pytest.raises(UsageError, match="--bound: only whole milliseconds"):
        GOODPUT.check(build_parameters(GOODPUT.parameters_type, {"bound": "1500us"}, quick=False))
    with pytest.raises(UsageError, match="--load: at most 1,000 loads"):
        GOODPUT.check(dataclasses.replace(PARAMETERS, load=tuple(range(1, 1003))))


# --- rows -------------------------------------------------------------------------------------------------------------


def test_rows_sum_counts_and_stand_by_loop_model_and_load() -> None:
    samples = [*clients("epoll", {8: 900.0}), *curve("fork", {150: 0.4, 50: 1.0}), *curve("epoll", {50: 1.0})]
    random.Random(1).shuffle(samples)
    rows = rows_of(samples)
    keys = [(row["loop"], row["model"], row["load_pct"], row["clients_count"]) for row in rows]
    opened = [("open", "epoll", 50, 2000), ("open", "fork", 50, 2000), ("open", "fork", 150, 2000)]
    assert keys == [*opened, ("closed", "epoll", 100, 8)]
    row = rows[2]
    assert (row["launches_count"], row["due_count"], row["good_count"], row["late_count"]) == (6, 1500, 1200, 300)
    assert (row["good_pct"], row["offered_per_s"], row["bound_ns"], row["grade"]) == (40.0, 1500.0, BOUND_NS, "ok")
    assert (rows[3]["offered_per_s"], rows[3]["timed_out_count"]) == (None, None)  # not 0: nothing was offered


def test_more_in_time_than_the_server_can_do_for_long_is_void_and_no_best() -> None:
    """A short window may leave the others for later; the rest of the curve says what is kept."""
    samples = curve("prefork", {90: 1.0, 110: 0.8, 150: 0.5, 300: 0.6})
    rows = {row["load_pct"]: row for row in rows_of(samples) if row["loop"] == "open"}
    assert {load: row["grade"] for load, row in rows.items()} == {90: "ok", 110: "ok", 150: "ok", 300: "void"}
    assert "longer --window" in str(rows[300]["grade_reason"])
    assert rows[90]["of_best_ratio"] == pytest.approx(1.0)
    kept = next(found for (subject, column), found in findings_of(samples).items() if column == "goodput_kept_ratio")
    assert kept.note.startswith("at 150 % of capacity")
    assert kept.value.middle == pytest.approx(0.75 / 0.9)


@pytest.mark.parametrize(
    ("facts", "grade", "words"),
    [
        ({"client_cpu_pct": 95.0}, "void", "the sender used 95 % of its CPU"),
        ({"capacity_client_pct": 95.0}, "void", "for the capacity, used 95 %"),
        ({"own_failure": "socket: EMFILE"}, "void", "could not open connections: socket: EMFILE"),
        ({"longest_late_ns": 101 * NS_PER_MS}, "void", "late by 101.0 ms itself"),
        ({"longest_late_ns": 30 * NS_PER_MS}, "shaky", "late by 30.0 ms itself"),
        ({"walls_count": 3, "first_wall": "fork: EAGAIN"}, "shaky", "ran into a limit (fork: EAGAIN)"),
        ({"due_count": 0, "good_pct": None}, "void", "no request was due"),
        ({"unsent_count": 5}, "shaky", "2 % found no connection free: --connections is the limit"),
        ({"unsent_count": 2}, "ok", ""),
    ],
)
def test_a_doubtful_row_is_graded_and_void_ones_have_no_findings(
    facts: dict[str, Scalar], grade: str, words: str
) -> None:
    samples = curve("epoll", {50: 1.0, 200: 0.1}, **facts)
    rows = rows_of(samples)
    assert {row["grade"] for row in rows} == {grade}
    assert words in str(rows[0]["grade_reason"])
    assert bool(findings_of(samples)) == (grade != "void")


@pytest.mark.parametrize(
    ("shares", "grade", "words"),
    [
        ([0.0] * 6, "ok", ""),  # of 1,500 due none was in time: that is no doubt
        ([0.0, 0.0, 0.0, 0.0, 0.02, 0.05], "ok", ""),
        ([0.0, 0.0, 0.0, 0.0, 0.6, 0.9], "shaky", "in time: interval is ±"),
    ],
)
def test_a_goodput_of_zero_is_graded_by_the_share_in_time(shares: list[float], grade: str, words: str) -> None:
    samples = [
        launch("epoll", block, "open", 300, CAPACITY_PER_S * 3 * share, good_count=round(250 * share))
        for block, share in enumerate(shares)
    ]
    (row,) = rows_of(samples)
    assert (row["goodput_per_s"], row["grade"]) == (0.0, grade)
    assert words in str(row["grade_reason"])


def test_a_goodput_of_zero_in_one_launch_is_as_shaky_as_any() -> None:
    (row,) = rows_of([launch("epoll", 0, "open", 300, 0.0)])
    assert (row["grade"], row["goodput_lo_per_s"]) == ("shaky", None)


def test_a_quantile_that_some_launch_never_answered_is_missing() -> None:
    samples = curve("epoll", {50: 1.0})
    (row,) = rows_of([*samples[:5], dataclasses.replace(samples[5], facts={**samples[5].facts, "p99_ns": None})])
    assert (row["request_p50_ns"], row["request_p99_ns"]) == (1e6, None)


# --- knees and what is beyond -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("carried", "not_carried", "ends"),
    [
        ([90, 95], [100, 105], (95, 100)),
        ([90, 95, 102], [97, 105], (95, 105)),  # as good: below 97, and above 102
        ([90, 95, 120], [100, 105], (95, 100)),  # one launch that was disturbed does not decide
        ([90, 95], [], (95, float("inf"))),
        ([], [90, 95], (float("-inf"), 90)),
    ],
)
def test_the_knee_is_where_the_fewest_trials_are_on_the_wrong_side(
    carried: list[int], not_carried: list[int], ends: tuple[float, float]
) -> None:
    points = [*((load, True) for load in carried), *((load, False) for load in not_carried)]
    random.Random(1).shuffle(points)
    assert cut(points) == ends


def tried(launch: int, *loads: int, carried_to: int = 0) -> list[Trial]:
    return [Trial(launch, load, 10.0 * load, load <= carried_to) for load in loads]


@pytest.mark.parametrize(
    ("trials", "loads"),
    [
        (tried(0, 100, 95, carried_to=100), [105, 112, 120, 130, 140]),
        (tried(0, 100, 90), [54, 63, 72, 79, 86]),
        (tried(0, 1), []),  # there is no lower load
        (tried(0, 90, 100, carried_to=90), [89, 91, 94, 96, 99, 101]),  # one launch has no interval
        ([trial for launch in range(5) for trial in tried(launch, 94, 96, carried_to=95)], []),  # known within 5 %
        ([], []),
    ],
)
def test_the_search_goes_outwards_then_between_until_the_knee_is_known(trials: list[Trial], loads: list[int]) -> None:
    assert next_loads(trials, 1) == loads


@pytest.mark.parametrize("truth", [70, 93, 101, 131, 200])
def test_the_search_finds_a_knee_from_the_launches_of_the_curve(truth: int) -> None:
    trials = [trial for launch in range(5) for trial in tried(launch, *range(90 - launch, 111, 5), carried_to=truth)]
    for launch in range(5, 12):
        trials += tried(launch, *next_loads(trials, 1), carried_to=truth)
    found = interval(of_load(trials), 1)
    assert found is not None and found.low is not None and found.high is not None
    assert found.low <= truth < found.high <= 1.11 * found.low


def test_the_interval_of_a_knee_is_never_narrower_than_the_cut_and_needs_launches() -> None:
    pair = ((90.0, True), (100.0, False))
    assert interval((pair,) * 4, 1) == stats.Interval(95.0, None, None)
    assert interval((((90.0, True),),) * 9, 1) is None
    assert interval((pair,) * 5, 1) == stats.Interval(95.0, 90.0, 100.0)
    spread = tuple(((load - 2.0, True), (load + 2.0, False)) for load in (90.0, 93.0, 95.0, 96.0, 99.0))
    found = interval(spread, 1)
    assert found is not None and found.low is not None and found.high is not None
    assert found.low < 93 < found.middle < 97 < found.high
    assert found == interval(spread, 1)  # a seed, one interval


@pytest.mark.parametrize(
    ("beyond", "ratio", "words"),
    [
        (1 / 3, 1.0, "it only saturates"),
        (0.7 / 3, 0.7, "it loses a part"),
        (0.1 / 3, 0.1, "it collapses"),
    ],
)
def test_who_collapses_and_who_saturates(beyond: float, ratio: float, words: str) -> None:
    samples = curve("fork", {50: 1.0, 100: 1.0, 300: beyond})
    kept = findings_of(samples)["fork, work 200us, keep-alive off", "goodput_kept_ratio"]
    assert kept.value is not None
    assert kept.value.middle == pytest.approx(ratio, rel=0.03)
    assert kept.note.endswith(words)
    assert "300 %" in kept.note
    assert rows_of(samples)[-1]["of_best_ratio"] == pytest.approx(kept.value.middle)


def after_rushes(shares: Loads, **facts: Scalar) -> list[Samples]:
    """Five launches, each with these loads after a rush."""
    return [
        dataclasses.replace(
            launch("fork", block, "open", load, CAPACITY_PER_S * load / 100 * share, **facts),
            key={**launch("fork", 0, "open", load, 1.0).key, "loop": "knee"},
        )
        for block in range(5)
        for load, share in shares.items()
    ]


def test_a_knee_is_a_row_and_two_findings() -> None:
    samples = after_rushes({90: 1.0, 95: 0.995, 100: 0.985, 105: 0.0, 110: 0.0})
    found = findings_of(samples)
    subject = "fork, work 200us, keep-alive off"
    bend, rate = found[subject, "knee_pct"].value, found[subject, "knee_per_s"].value
    assert bend is not None and rate is not None and bend.low is not None and bend.high is not None
    assert (bend.middle, rate.middle) == (97.5, pytest.approx(975.0))
    assert bend.low <= 95 and bend.high >= 100
    assert found[subject, "knee_pct"].note == (
        "99 % in time at 95 % in 5 of 5 trials, at 100 % in 0 of 5 trials; 25 trials in 5 launches"
    )
    (row,) = rows_of(samples)
    assert (row["loop"], row["launches_count"], row["knee_pct"], row["due_count"]) == ("knee", 5, 97.5, 6250)
    assert (row["goodput_per_s"], row["of_best_ratio"]) == (None, None)


def test_without_a_knee_there_is_no_number_and_the_reason_and_void_trials_have_no_part() -> None:
    carried = after_rushes({90: 1.0, 100: 1.0})
    (finding,) = findings_of(carried).values()
    assert finding.value is None
    assert finding.note.startswith("all loads that were tried are carried; 99 % in time at 100 % in 5 of 5")
    assert rows_of(carried)[0]["grade"] == "shaky"
    assert not findings_of(after_rushes({90: 1.0, 110: 0.0}, client_cpu_pct=95.0))


@pytest.mark.parametrize(("shares", "grade"), [((1.0, 0.995), "ok"), ((1.0, 0.97), "shaky"), ((1.0,), "shaky")])
def test_a_low_load_of_few_launches_is_as_good_as_their_shares_are_alike(shares: tuple[float], grade: str) -> None:
    samples = [launch("epoll", block, "open", 50, 500 * share) for block, share in enumerate(shares)]
    (row,) = rows_of(samples)
    assert (row["grade"], row["good_lo_pct"]) == (grade, None)


# --- C03 --------------------------------------------------------------------------------------------------------------

BASE = {8: 1000.0, 64: 1000.0, 1000: 1000.0, 10_000: 1000.0}


@pytest.mark.parametrize(
    ("fork", "verdict"),
    [
        ({8: 980.0, 64: 900.0, 1000: 300.0}, "CONFIRMED"),
        ({8: 500.0, 64: 400.0, 1000: 300.0}, "REFUTED"),  # bad with few already
        ({8: 980.0, 64: 970.0, 10_000: 960.0}, "REFUTED"),  # good with many too
        ({8: 980.0, 64: 970.0, 1000: 960.0}, "INCONCLUSIVE"),  # it may be bad with more
        ({8: 900.0, 64: 400.0, 1000: 300.0}, "INCONCLUSIVE"),  # the bound lies in the interval
    ],
)
def test_c03_by_its_rule(fork: dict[int, float], verdict: str) -> None:
    spread = clients("fork", fork)
    if fork[8] == 900.0:
        spread = [
            dataclasses.replace(item, facts={**item.facts, "goodput_per_s": rate * (1.1 if item.block % 2 else 0.9)})
            for item in spread
            if isinstance(rate := item.facts["goodput_per_s"], float)
        ]
    found = verdict_on([*clients("epoll", BASE), *spread])
    assert (found.claim, found.verdict) == ("C03", verdict)
    assert "keep-alive off, by clients: 8: " in found.evidence


def test_c03_compares_a_handler_that_sleeps_with_a_loop_that_awaits_and_arms_that_differ_are_partly() -> None:
    def sleeping(samples: list[Samples]) -> list[Samples]:
        return [dataclasses.replace(item, key={**item.key, "work": "5ms-sleep"}) for item in samples]

    good, bad = {8: 980.0, 64: 300.0}, {8: 500.0, 64: 300.0}
    asleep = sleeping([*clients("epoll-await", BASE), *clients("epoll", {8: 10.0, 64: 10.0}), *clients("fork", good)])
    assert verdict_on(asleep).verdict == "CONFIRMED"
    assert ("fork over epoll-await, 8 clients, work 5ms-sleep, keep-alive off", "goodput_ratio") in findings_of(asleep)
    assert verdict_on([*asleep, *clients("epoll", BASE), *clients("fork", bad)]).verdict == "PARTLY"


def test_c03_needs_both_models_and_several_numbers_of_clients() -> None:
    for samples in (clients("fork", BASE), [*clients("epoll", {8: 1.0}), *clients("fork", {8: 1.0})]):
        assert verdict_on(samples).verdict == NOT_MEASURED
    few = [item for item in [*clients("epoll", BASE), *clients("fork", BASE)] if item.block < 3]
    assert verdict_on(few).verdict == NOT_MEASURED  # no interval
