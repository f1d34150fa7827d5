"""Rows, findings and judges of servers from made samples: sums, grades, ratios by blocks, shares, each verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from made_servers import inside, launch, launches, open_launch

from c10k_probe.experiment import NOT_MEASURED, Experiment, Finding, Samples, Scalar, Verdict, flatten
from c10k_probe.registry import find_experiments

SERVERS: Experiment = find_experiments()["servers"]  # type: ignore[type-arg]
APACHE = "apache-prefork-php"
STEADY = [1000.0, 1010.0, 990.0, 1005.0, 995.0, 1002.0]
TABLE = ("epoll", "thread", "fork", "asyncio", "python-threading", "python-forking")


def rows_of(samples: list[Samples]) -> dict[tuple[Scalar, ...], dict[str, Scalar]]:
    flat = [flatten(row) for row in SERVERS.summarise(SERVERS.parameters_type(), samples, 1)]
    return {(row["server"], row["arm"], row["keep_alive"], row["observed"]): row for row in flat}


def findings_of(samples: list[Samples]) -> dict[tuple[str, str], Finding]:
    made = SERVERS.fit(SERVERS.parameters_type(), samples, 1)
    return {(item.subject, item.column): item for item in made if isinstance(item, Finding)}


def verdicts_of(samples: list[Samples]) -> dict[str, Verdict]:
    rows = [row for row in rows_of(samples).values() if row["grade"] != "void"]
    made = SERVERS.fit(SERVERS.parameters_type(), samples, 1)
    return {verdict.claim: verdict for verdict in (judge(rows, made) for judge in SERVERS.judges)}


def times(factor: float) -> list[float]:
    return [rate * factor for rate in STEADY]


def table(factors: Sequence[float]) -> list[Samples]:
    """Launches in the open loop of the six servers, whose requests per CPU second are these times as many."""
    return [
        open_launch(name, block, 50, keep_alive="off", requests_per_cpu_s=rate)
        for name, factor in zip(TABLE, factors, strict=True)
        for block, rate in enumerate(times(factor))
    ]


# --- rows -------------------------------------------------------------------------------------------------------------


def test_a_row_sums_counts_and_takes_medians_of_the_rest() -> None:
    row = rows_of(launches("node", STEADY, failed_count=2, longest_ns=5e9))["node", "article", "off", "on"]
    assert (row["launches_count"], row["requests_count"], row["told_requests_count"]) == (6, 60_000, 60_000)
    assert (row["failed_count"], row["request_longest_ns"], row["throughput_per_s"]) == (12, 5e9, 1001.0)
    assert row["throughput_lo_per_s"] is not None
    assert (row["grade"], "12 of 60,000 requests failed" in str(row["grade_reason"])) == ("shaky", True)
    assert rows_of(launches("node", STEADY))["node", "article", "off", "on"]["grade"] == "ok"


def test_what_one_launch_does_not_know_is_missing_and_not_0() -> None:
    samples = [*launches("node", STEADY[:5]), launch("node", 5, 1000, told_requests_count=None, peak_bytes=None)]
    row = rows_of(samples)["node", "article", "off", "on"]
    assert (row["told_requests_count"], row["peak_bytes"], row["peak_lo_bytes"]) == (None, None, None)


@pytest.mark.parametrize(
    ("facts", "grade", "words"),
    [
        ({"load_cpu_pct": 85.0, "server_cpu_pct": 60.0}, "void", "it was the limit"),
        ({"load_cpu_pct": 85.0, "server_cpu_pct": 99.0}, "shaky", "nothing left of its own"),
        ({"load_cpu_pct": 85.0, "server_cpu_pct": 90.0, "server_idle_pct": 1.5}, "shaky", "nothing left of its own"),
        ({"load_cpu_pct": 85.0, "server_cpu_pct": 99.0, "server_idle_pct": 5.5}, "void", "it was the limit"),
        ({"server_cpu_pct": 48.0, "server_idle_pct": 0.0}, "shaky", "others had 52 % of the server's CPU"),
        ({"server_cpu_pct": 48.0, "server_idle_pct": 45.0}, "ok", ""),
        ({"load_cpu_pct": None}, "void", "unknown"),
        ({"memory_readings_count": 0}, "shaky", "was never read"),
        ({"memory_readings_count": 0, "observed": "off"}, "ok", ""),
    ],
)
def test_a_doubtful_row_is_graded(facts: dict[str, Scalar], grade: str, words: str) -> None:
    (row,) = rows_of(launches("node", STEADY, **facts)).values()
    assert row["grade"] == grade
    assert words in str(row["grade_reason"])


def test_nothing_answered_is_void() -> None:
    (row,) = rows_of(launches("node", [0.0] * 6, wrong_answers_count=10_000, failed_count=10_000)).values()
    assert (row["grade"], "no request was answered as it should" in str(row["grade_reason"])) == ("void", True)


def test_near_to_what_the_generator_reaches_on_the_null_server_is_void() -> None:
    null = launches("epoll", times(2), load_cpu_pct=95.0, server_cpu_pct=50.0)
    found = rows_of([*null, *launches("node", times(1.9)), *launches("tornado", STEADY)])
    assert {key[0]: row["grade"] for key, row in found.items()} == {"epoll": "void", "node": "void", "tornado": "ok"}
    assert found["tornado", "article", "off", "on"]["of_null_ratio"] == pytest.approx(0.5)
    full = launches("epoll", times(2), load_cpu_pct=95.0)  # then it was the null server that had no more to give
    found = rows_of([*full, *launches("node", times(1.9))])
    assert {key[0]: row["grade"] for key, row in found.items()} == {"epoll": "shaky", "node": "ok"}


def test_an_open_loop_has_a_row_for_each_rate_and_is_void_when_the_sender_was_the_limit() -> None:
    made = [open_launch("node", block, rate) for block in range(5) for rate in (30, 90)]
    made += [open_launch("tornado", block, 90, load_cpu_pct=85.0) for block in range(5)]
    made += [open_launch("nginx", block, 90, sender_late_ns=4e6, failed_count=3) for block in range(5)]
    flat = [flatten(row) for row in SERVERS.summarise(SERVERS.parameters_type(), made, 1)]
    rows = {(row["server"], row["rate_pct"]): row for row in flat}
    assert list(rows) == [("nginx", 90), ("node", 30), ("node", 90), ("tornado", 90)]
    node = rows["node", 30]
    assert (node["load"], node["capacity_per_s"], node["intended_per_s"]) == ("open loop", 10_000, 3_000)
    assert (node["request_p90_ns"], node["request_p99_ns"], node["grade"]) == (2e6, 5e6, "ok")
    assert rows["tornado", 90]["grade"] == "void"
    reason = str(rows["nginx", 90]["grade_reason"])
    assert rows["nginx", 90]["grade"] == "shaky"
    assert ("15 of 50,000 requests failed" in reason, "late itself" in reason) == (True, True)
    assert SERVERS.fit(SERVERS.parameters_type(), made, 1) == []  # a rate is compared with no closed loop


@pytest.mark.parametrize(("load_pct", "grade"), [(81.0, "shaky"), (79.0, "ok")])
def test_a_share_of_what_the_sender_could_do_is_none_of_the_servers(load_pct: float, grade: str) -> None:
    made = [open_launch("nginx", block, 30, capacity_load_cpu_pct=load_pct) for block in range(5)]
    (row,) = rows_of(made).values()
    assert (row["grade"], "of its CPU for the capacity" in str(row["grade_reason"])) == (grade, grade == "shaky")
    assert row["capacity_load_cpu_pct"] == load_pct


def test_without_answers_the_open_loop_has_no_tail() -> None:
    (row,) = rows_of([open_launch("node", 0, 70, p99_ns=None)]).values()
    assert (row["request_p99_ns"], row["grade_reason"]) == (None, "p99 latency: could not be measured")


# --- findings ---------------------------------------------------------------------------------------------------------


def test_ratios_are_by_blocks_and_have_intervals() -> None:
    found = findings_of([*launches("node", times(2)), *launches(APACHE, STEADY, server_cpu_pct=90.0)])
    subject = f"node over {APACHE}, as the article"
    ratio = found[subject, "throughput_ratio"].value
    assert ratio is not None
    assert (ratio.middle, ratio.low, ratio.high) == tuple(map(pytest.approx, (2, 2, 2)))
    difference = found[subject, "cpu_difference_pct"].value
    assert difference is not None
    assert difference.middle == pytest.approx(9)


def test_a_void_row_is_compared_with_nothing() -> None:
    void = launches("node", times(2), load_cpu_pct=90.0, server_cpu_pct=50.0)
    assert findings_of([*void, *launches(APACHE, STEADY)]) == {}


def test_what_observing_costs() -> None:
    found = findings_of([*launches("node", times(0.99)), *launches("node", STEADY, observed="off")])
    value = found["observing node, article, keep-alive off", "throughput_cost_pct"].value
    assert value is not None
    assert value.middle == pytest.approx(1)


@pytest.mark.parametrize(
    ("factors", "runtime", "architecture"),
    [
        ((4, 4, 4, 1, 1, 1), 100, 0),
        ((9, 3, 1, 9, 3, 1), 0, 100),
        ((4, 2, 1, 4, 2, 1), 0, 100),
        ((2 * math.e, 2, 2, math.e, 1, 1), None, None),
    ],
)
def test_shares_of_a_known_table(factors: tuple[float, ...], runtime: float | None, architecture: float | None) -> None:
    """What depends on one factor alone is all its own; without interplay both add up to everything."""
    samples = table(factors)
    found = findings_of(samples)
    subject = "runtime and architecture, at 50 % of capacity"
    shares = [found[subject, name].value for name in ("runtime_share_pct", "architecture_share_pct")]
    assert all(share is not None for share in shares)
    middles = [share.middle for share in shares if share is not None]
    assert sum(middles) == pytest.approx(100)
    if runtime is not None:
        assert middles == [pytest.approx(runtime, abs=1e-6), pytest.approx(architecture, abs=1e-6)]


def test_shares_are_eta_squared() -> None:
    """By hand: logs 3 2 1 over 1 1 1, mean 1.5. Sum of squares 3.5; of rows (2, 1) 1.5; of columns (2, 1.5, 1) 1."""
    found = findings_of(table([math.exp(log) for log in (3, 2, 1, 1, 1, 1)]))
    subject = "runtime and architecture, at 50 % of capacity"
    for column, expected in (
        ("runtime_share_pct", 100 * 1.5 / 3.5),
        ("architecture_share_pct", 100 * 1 / 3.5),
        ("difference_pct", 100 * 0.5 / 3.5),
    ):
        value = found[subject, column].value
        assert value is not None
        assert (value.middle, value.low, value.high) == tuple(pytest.approx(expected) for _ in range(3))


# --- judges -----------------------------------------------------------------------------------------------------------


def test_without_what_they_need_the_judges_do_not_judge() -> None:
    found = {claim: verdict.verdict for claim, verdict in verdicts_of([]).items()}
    assert found.pop("C31") == "NOT-FALSIFIABLE"
    assert set(found.values()) == {NOT_MEASURED}


def test_every_claim_is_judged_once() -> None:
    claims = [*verdicts_of([])]
    assert len(claims) == len(SERVERS.judges)
    wanted = "C01 C05 C30 C31 C32 C33 C34 C36 C37 C41 C42 C43 C44 C45 C46 C47 C48 C54"
    assert sorted(claims) == wanted.split()


@pytest.mark.parametrize(
    ("factor", "cpu_pct", "expected"),
    [
        (2.0, 99.0, {"C43": "CONFIRMED", "C45": "CONFIRMED", "C46": "CONFIRMED"}),
        (4.0, 70.0, {"C43": "REFUTED", "C45": "REFUTED", "C46": "CONFIRMED"}),
        (1.0, 84.0, {"C43": "REFUTED", "C45": "REFUTED", "C46": "REFUTED"}),
    ],
)
def test_the_articles_own_claims(factor: float, cpu_pct: float, expected: dict[str, str]) -> None:
    samples = launches(APACHE, STEADY, server_cpu_pct=80.0, peak_bytes=200e6)
    for name in ("node", "tornado"):
        samples += launches(name, times(factor), server_cpu_pct=cpu_pct)
    found = verdicts_of(samples)
    assert {claim: found[claim].verdict for claim in expected} == expected
    told = {claim: found[claim].evidence for claim in expected}
    assert "asked for is 1.60× to 2.50×" in told["C43"]
    assert told["C43"].count(" holds") == (2 if expected["C43"] == "CONFIRMED" else 0)
    assert "one time Apache's" in told["C43"]
    assert "at least 1.20×" in told["C46"]
    assert found["C44"].verdict == "CONFIRMED"
    assert "by the sum of RSS instead, node over" in found["C44"].evidence
    assert found["C42"].verdict == NOT_MEASURED  # needs the fair test as well


def test_faster_in_one_test_only_is_partly() -> None:
    samples = [*launches(APACHE, STEADY), *launches(APACHE, times(3), "fair")]
    for name in ("node", "tornado"):
        samples += [*launches(name, times(2)), *launches(name, times(2), "fair")]
    assert verdicts_of(samples)["C42"].verdict == "PARTLY"


def test_counts_decide_without_intervals() -> None:
    samples = [
        launch(APACHE, 0, 1000, forks_count=145, served_max_count=150, processes_count=151, threads_count=151),
        launch("node", 0, 1000, threads_count=7),
        launch("tornado", 0, 1000),
        launch("nginx", 0, 1000, waits_in="do_epoll_wait sigsuspend"),
    ]
    found = verdicts_of(samples)
    assert {name: found[name].verdict for name in ("C01", "C30", "C36", "C41")} == {
        "C01": "REFUTED",
        "C30": "CONFIRMED",
        "C36": "PARTLY",
        "C41": "REFUTED",
    }
    forking = verdicts_of(
        [
            launch(APACHE, 0, 1000, began_count=10_100, forks_count=90_000),
            launch("nginx", 0, 1000, new_processes_count=3),
        ]
    )
    assert (forking["C01"].verdict, forking["C30"].verdict) == ("CONFIRMED", "REFUTED")
    assert forking["C01"].evidence.startswith("10,100 began in Apache's tree, 10,000 requests: 1.0100 for each")


def test_others_processes_are_not_apaches() -> None:
    """What the kernel says began in its tree; else, as far as that can tell, what began on the whole machine."""
    own = launch(APACHE, 0, 1000, began_count=100, forks_count=90_000)
    assert verdicts_of([own])["C01"].verdict == "REFUTED", "the others are none of Apache's"
    busy = launch(APACHE, 0, 1000, began_count=None, forks_count=9_600, idle_forks_count=9_500)
    found = verdicts_of([busy])["C01"]
    assert found.verdict == "REFUTED", "it cannot be more than on the whole machine"
    assert found.evidence.startswith("9,600 began on the whole machine, 9,500 without a load, 10,000 requests: 0.0100")
    many = launch(APACHE, 0, 1000, began_count=None, forks_count=9_600, idle_forks_count=0)
    found = verdicts_of([many])["C01"]
    assert (found.verdict, "would be CONFIRMED, but whose they were" in found.evidence) == ("INCONCLUSIVE", True)
    unknown = launch(APACHE, 0, 1000, began_count=None, forks_count=9_600, idle_forks_count=None)
    assert verdicts_of([unknown])["C01"].verdict == NOT_MEASURED


@pytest.mark.parametrize(
    ("tornado", "asyncio", "verdict"), [(2.0, 2.0, "CONFIRMED"), (2.0, 1.2, "PARTLY"), (1.2, 1.2, "REFUTED")]
)
def test_tornado_against_threads_needs_the_same_parser_too(tornado: float, asyncio: float, verdict: str) -> None:
    samples = [*launches("python-http-server", STEADY, "fair"), *launches("python-threading", STEADY, "fair")]
    samples += launches("tornado", times(tornado), "fair")
    assert verdicts_of(samples)["C32"].verdict == NOT_MEASURED
    samples += launches("asyncio", times(asyncio), "fair")
    assert verdicts_of(samples)["C32"].verdict == verdict


@pytest.mark.parametrize(("jitless", "verdict"), [(0.5, "CONFIRMED"), (0.9, "PARTLY"), (None, "INCONCLUSIVE")])
def test_the_runtime_is_judged_by_its_compiler_as_well(jitless: float | None, verdict: str) -> None:
    samples = table((4, 4, 4, 1, 1, 1))
    samples += launches("node", STEADY, "fair")
    if jitless is not None:
        samples += launches("node-jitless", times(jitless), "fair")
    found = verdicts_of(samples)["C47"]
    assert found.verdict == verdict
    assert ("was not measured" in found.evidence) == (jitless is None)


# --- inside -----------------------------------------------------------------------------------------------------------

COUNTS = [10, 45, 80, 115, 150]


def sizes(each_mib: float) -> dict[str, list[int]]:
    """Trees of so many processes, each with so much: by every meter."""
    tree = [round((20 + each_mib * count) * 2**20) for count in COUNTS]
    return {"workers_count": COUNTS, **dict.fromkeys(("tree_bytes", "pss_bytes", "private_bytes", "rss_bytes"), tree)}


@pytest.mark.parametrize(("each_mib", "verdict"), [(0.5, "REFUTED"), (12.0, "CONFIRMED")])
def test_what_a_process_takes_is_a_slope(each_mib: float, verdict: str) -> None:
    samples = inside(APACHE, "held connections", sizes(each_mib), script_cache="on")
    (row,) = rows_of(samples).values()
    assert row["process_bytes"] == pytest.approx(each_mib * 2**20)
    assert row["process_lo_bytes"] == pytest.approx(row["process_hi_bytes"])
    found = verdicts_of(samples)["C05"]
    assert (found.verdict, "by private" in found.evidence) == (verdict, True)


@pytest.mark.parametrize(
    ("at_once", "nonblocking", "ratio", "verdict"),
    [(4, 4, 2.0, "PARTLY"), (6, 4, 1.0, "CONFIRMED"), (4, 3, 2.0, "REFUTED")],
)
def test_whether_node_waits_for_threads(at_once: int, nonblocking: int, ratio: float, verdict: str) -> None:
    facts: dict[str, Scalar] = {"sockets_count": 4, "jobs_count": 6, "engine_version": "11.3"}
    facts |= {"nonblocking_sockets_count": nonblocking, "at_once_count": at_once, "wave_ratio": ratio}
    assert verdicts_of(inside("node", "files", **facts))["C33"].verdict == verdict


@pytest.mark.parametrize(("ratio", "verdict"), [(1.9, "REFUTED"), (1.0, "CONFIRMED")])
def test_whether_threads_help_javascript(ratio: float, verdict: str) -> None:
    found = verdicts_of(inside("node", "worker threads", jobs_count=2, threads_ratio=ratio, server_version="N/20"))
    assert found["C48"].verdict == verdict
    assert (
        verdicts_of(inside("node", "worker threads", jobs_count=1, threads_ratio=None))["C48"].verdict == NOT_MEASURED
    )


@pytest.mark.parametrize(
    ("cpus", "left_pct", "cpu_pct", "verdict"),
    [
        (2.0, 50.0, 99.0, "REFUTED"),
        (4.0, 74.0, 99.0, "REFUTED"),
        (2.0, 30.0, 140.0, "INCONCLUSIVE"),
        (1.0, 0.0, 99.0, "CONFIRMED"),
        (2.0, 60.0, 80.0, NOT_MEASURED),
    ],
)
def test_what_a_loop_leaves_of_an_instance(cpus: float, left_pct: float, cpu_pct: float, verdict: str) -> None:
    samples = inside("node", "wrk", cpus_count=cpus, left_pct=left_pct, server_cpu_pct=cpu_pct)
    assert verdicts_of(samples)["C54"].verdict == verdict
