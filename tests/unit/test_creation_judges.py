"""The judges of fork-latency: every verdict by its rule, at the very numbers where it turns, from made rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from c10k_probe.experiments import _creation_judges as judges
from c10k_probe.experiments._creation_fits import LIBRARIES_SUBJECT
from c10k_probe.experiments.fork_latency import EXPERIMENT
from creation_rows import MIB, Ends, c07_model, c27_rows, changed, ends_of, row, verdict_of, without

from c10k_probe.experiment import DECISIVE_VERDICTS, NOT_MEASURED, Finding, FlatRow, Judge, Scalar, Verdict
from c10k_probe.fits import Fit
from c10k_probe.stats import Interval

# --- all of them ------------------------------------------------------------------------------------------------------


def test_every_claim_has_one_judge() -> None:
    claims = [judge([], []).claim for judge in judges.JUDGES]
    assert claims == ["C06", "C07", "C08", "C09", "C10", "C19", "C22", "C27"]
    assert EXPERIMENT.judges == judges.JUDGES


@pytest.mark.parametrize("judge", judges.JUDGES)
def test_without_rows_nothing_is_decided(judge: Judge) -> None:
    verdict = judge([], [])
    assert verdict.verdict == ("NOT-FALSIFIABLE" if verdict.claim == "C22" else NOT_MEASURED)
    assert verdict.rule and verdict.restatement and verdict.evidence
    if verdict.verdict == NOT_MEASURED:
        assert verdict.evidence.startswith("needs ")


def test_a_rule_does_not_depend_on_what_was_measured() -> None:
    """It is fixed before measuring."""
    for judge, rows, models in DECIDED.values():
        decided, undecided = judge(rows(), models()), judge([], [])
        assert (decided.rule, decided.restatement) == (undecided.rule, undecided.restatement)


# --- C06: primitives differ by two ------------------------------------------------------------------------------------


def c06_rows(
    slow: Ends = (100_000, 90_000, 110_000), quick: Ends = (30_000, 25_000, 35_000), small: int = 2 * MIB
) -> list[FlatRow]:
    """fork is the slowest in everything, the others are equally quick."""
    return [
        row(
            method=method,
            asked_rss_bytes=rss,
            axis="given",
            anonymous_bytes=rss + 100 * 1024,
            **ends_of("return_p50", "_ns", slow if method == "fork" else quick),
            **ends_of("cycle_p50", "_ns", slow if method == "fork" else quick),
        )
        for method in judges.PRIMITIVES
        for rss in (small, 512 * MIB)
    ]


@pytest.mark.parametrize(
    ("slow", "quick", "verdict"),
    [
        ((100.0, 80.0, 120.0), (30.0, 20.0, 40.0), "CONFIRMED"),  # 80 over 40
        ((100.0, 100.0, 100.0), (50.0, 50.0, 50.0), "CONFIRMED"),
        ((100.0, 100.0, 100.0), (51.0, 51.0, 51.0), "REFUTED"),
        ((40.0, 39.0, 41.0), (30.0, 29.0, 31.0), "REFUTED"),
        ((100.0, 90.0, 110.0), (50.0, 45.0, 55.0), "INCONCLUSIVE"),
    ],
)
def test_c06(slow: Ends, quick: Ends, verdict: str) -> None:
    assert verdict_of(judges.judge_c06, c06_rows(slow, quick)) == verdict


def test_c06_is_refuted_by_one_of_the_four() -> None:
    """In the large parent all are alike."""
    large = [item for item in c06_rows((40.0, 39.0, 41.0), (30.0, 29.0, 31.0)) if item["asked_rss_bytes"] == 512 * MIB]
    small = [item for item in c06_rows() if item["asked_rss_bytes"] != 512 * MIB]
    assert verdict_of(judges.judge_c06, [*small, *large]) == "REFUTED"


def test_c06_names_who_is_compared_with_whom_in_both_parents() -> None:
    evidence = judges.judge_c06(c06_rows(), []).evidence
    for what in ("return at 2.00 MiB", "cycle at 2.00 MiB", "return at 512 MiB", "cycle at 512 MiB"):
        assert f"{what}: fork over vfork 3.33× [2.57×, 4.40×]" in evidence
    assert "other systems were not measured" in evidence
    assert "posix_spawn" not in evidence  # it was not measured


def test_c06_calls_a_parent_with_nothing_further_what_it_is() -> None:
    evidence = judges.judge_c06(c06_rows(small=0), []).evidence
    assert "return as it starts (100 KiB dirty): fork over vfork" in evidence
    assert " 0 MiB" not in evidence and " 0 B" not in evidence


def test_c06_does_not_compare_what_executes() -> None:
    """posix_spawn's return lasts until exec has succeeded: it is shown beside, and decides nothing."""
    spawn = row(
        method="posix_spawn",
        asked_rss_bytes=2 * MIB,
        **ends_of("return_p50", "_ns", (1e9, 1e9, 1e9)),
        **ends_of("cycle_p50", "_ns", (1e9, 1e9, 1e9)),
    )
    verdict = judges.judge_c06([*c06_rows((40.0, 39.0, 41.0), (30.0, 29.0, 31.0)), spawn], [])
    assert verdict.verdict == "REFUTED"
    assert "posix_spawn, whose return contains an exec, takes 1.00 s" in verdict.evidence
    assert "posix_spawn is not compared" in verdict.rule


@pytest.mark.parametrize("method", judges.PRIMITIVES)
def test_c06_needs_every_primitive_in_both_parents(method: str) -> None:
    for rss in (2 * MIB, 512 * MIB):
        rows = without(c06_rows(), method=method, asked_rss_bytes=rss)
        assert len(rows) == 7
        assert verdict_of(judges.judge_c06, rows) == NOT_MEASURED
    assert verdict_of(judges.judge_c06, changed(c06_rows(), return_p50_lo_ns=None)) == NOT_MEASURED
    assert verdict_of(judges.judge_c06, changed(c06_rows(), placement="any-cpu")) == NOT_MEASURED


# --- C08: mappings of dynamic linking ---------------------------------------------------------------------------------


def c08_rows(mappings: int = 20, dirty: int = 150, each: float = 4.0) -> list[FlatRow]:
    """A static build of 10 mappings and 100 dirty bytes at main; 8 and 128 libraries. Later there is more of all."""
    static = row(linking="static", main_mappings_count=10, main_anonymous_bytes=100, mappings_count=99)
    dynamic = row(main_mappings_count=mappings, main_anonymous_bytes=dirty, mappings_count=50, anonymous_bytes=9999)
    loaded = [
        row(axis="libraries", asked_libraries_count=count, mappings_count=50 + int(each * count)) for count in (8, 128)
    ]
    return [static, dynamic, *loaded]


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "CONFIRMED"),  # exactly 2, exactly 1.5, exactly 4
        ({"mappings": 19}, "PARTLY"),
        ({"dirty": 149}, "PARTLY"),
        ({"each": 3.5}, "PARTLY"),
        ({"mappings": 19, "dirty": 149}, "PARTLY"),
        ({"mappings": 19, "dirty": 149, "each": 3.5}, "REFUTED"),
    ],
)
def test_c08(changes: dict[str, Any], verdict: str) -> None:
    assert verdict_of(judges.judge_c08, c08_rows(**changes)) == verdict


def test_c08_prints_the_counts() -> None:
    evidence = judges.judge_c08(c08_rows(), []).evidence
    for words in ("20 and 10 mappings (2.00×)", "150 B and 100 B dirty (1.50×)", "4.0 mappings per library", "at main"):
        assert words in evidence


@pytest.mark.parametrize(
    "missing", [{"linking": "static"}, {"linking": "dynamic"}, {"asked_libraries_count": 0, "linking": "dynamic"}]
)
def test_c08_needs_both_builds_and_libraries(missing: dict[str, Scalar]) -> None:
    assert verdict_of(judges.judge_c08, without(c08_rows(), **missing)) == NOT_MEASURED
    assert verdict_of(judges.judge_c08, changed(c08_rows(), main_anonymous_bytes=None)) == NOT_MEASURED
    no_libraries = [item for item in c08_rows() if not item["asked_libraries_count"]]
    assert verdict_of(judges.judge_c08, no_libraries) == NOT_MEASURED


# --- C09: static linking ----------------------------------------------------------------------------------------------


def c09_rows(ratio: Ends = (1.6, 1.55, 1.65), launches: int = 20) -> list[FlatRow]:
    same = ends_of("same", "_ratio", (1.0, 0.98, 1.02))
    return [row(launches_count=launches, **ends_of("over_static", "_ratio", ratio), **same)]


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [
        ((1.6, 1.5, 1.7), "CONFIRMED"),
        ((1.6, 1.499, 1.7), "PARTLY"),
        ((1.1, 1.0, 1.199), "REFUTED"),
        ((1.1, 1.0, 1.2), "PARTLY"),
        ((1.35, 1.0, 1.8), "PARTLY"),
        ((0.9, 0.8, 0.95), "REFUTED"),
        ((1.6, None, None), NOT_MEASURED),
    ],
)
def test_c09(ratio: Ends, verdict: str) -> None:
    assert verdict_of(judges.judge_c09, c09_rows(ratio)) == verdict


def test_c09_needs_twenty_launches() -> None:
    assert verdict_of(judges.judge_c09, c09_rows(launches=19)) == NOT_MEASURED
    assert verdict_of(judges.judge_c09, c09_rows(launches=20)) == "CONFIRMED"


def test_c09_names_the_floor_under_which_nothing_differs() -> None:
    assert "the same build against itself 1.00× [0.98×, 1.02×]" in judges.judge_c09(c09_rows(), []).evidence


def test_c09_shows_the_other_arms_where_they_were_measured() -> None:
    plain = judges.judge_c09(c09_rows(), []).evidence
    assert "64 MiB" not in plain and "exec" not in plain and "libraries" not in plain
    large = changed(c09_rows((1.05, 1.02, 1.08)), asked_rss_bytes=64 * MIB, axis="rss")
    executed = [
        row(method=f"fork_exec_{target}", linking="static", **ends_of("exec_p50", "_ns", (ns, ns - 1e3, ns + 1e3)))
        for target, ns in (("dynamic", 500_000.0), ("static", 300_000.0))
    ]
    reached = Finding(LIBRARIES_SUBJECT, "libraries_count", Interval(3.4, 2.0, 3.8), "where the ratio reaches 1.5")
    evidence = judges.judge_c09([*c09_rows(), *large, *executed], [reached]).evidence
    assert "with 64 MiB dirty 1.05× [1.02×, 1.08×]" in evidence
    assert "fork and exec of a dynamic program 500 µs [499 µs, 501 µs], of a static one 300 µs" in evidence
    assert "3.40 [2, 3.80] libraries: where the ratio reaches 1.5" in evidence
    assert "exec" not in judges.judge_c09([*c09_rows(), *executed[:1]], []).evidence


@pytest.mark.parametrize(
    "other",
    [{"method": "vfork"}, {"linking": "static-pie"}, {"placement": "any-cpu"}, {"asked_rss_bytes": MIB}],
)
def test_c09_is_about_fork_of_the_dynamic_build_with_nothing_further(other: dict[str, Scalar]) -> None:
    assert verdict_of(judges.judge_c09, changed(c09_rows(), **other)) == NOT_MEASURED


# --- C10: fork for every connection -----------------------------------------------------------------------------------


def c10_rows(cycle: Ends = (150_000, 140_000, 160_000)) -> list[FlatRow]:
    return [row(linking="static", **ends_of("cycle_p50", "_ns", cycle))]


@pytest.mark.parametrize(
    ("cycle", "verdict"),
    [
        ((110_000, 100_000, 120_000), "CONFIRMED"),
        ((110_000, 99_999, 120_000), "INCONCLUSIVE"),
        ((90_000, 80_000, 100_000), "INCONCLUSIVE"),
        ((90_000, 80_000, 99_999), "REFUTED"),
        ((500_000, None, None), NOT_MEASURED),
    ],
)
def test_c10(cycle: Ends, verdict: str) -> None:
    assert verdict_of(judges.judge_c10, c10_rows(cycle)) == verdict


@pytest.mark.parametrize("other", [{"linking": "dynamic"}, {"method": "vfork"}, {"placement": "any-cpu"}])
def test_c10_is_about_fork_of_the_static_build_on_one_cpu(other: dict[str, Scalar]) -> None:
    assert verdict_of(judges.judge_c10, changed(c10_rows(), **other)) == NOT_MEASURED


# --- C19: the crossover -----------------------------------------------------------------------------------------------

UNDER, OVER, ABOUT = (0.5, 0.4, 0.6), (2.0, 1.8, 2.2), (1.0, 0.9, 1.1)
COUNTS = (0, 400, 1000, 4000)


def c19_rows(ratio: Callable[[str, int], Ends], counts: Sequence[int] = COUNTS) -> list[FlatRow]:
    """fork beside live children; ``ratio`` says what it is over pthread_create."""
    return [
        row(
            axis="alive",
            asked_alive_count=count,
            alive_kind="children" if count else "none",
            **ends_of("return", "_ratio", ratio("return", count)),
            **ends_of("started", "_ratio", ratio("started", count)),
            **ends_of("cycle", "_ratio", ratio("cycle", count)),
        )
        for count in counts
    ]


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [
        (lambda _, n: UNDER if n >= 400 else OVER, "CONFIRMED"),
        (lambda _, n: UNDER if n >= 1000 else OVER, "CONFIRMED"),  # n0 may be 1,000 itself
        (lambda *_: UNDER, "CONFIRMED"),
        (lambda _, n: UNDER if n >= 4000 else OVER, "INCONCLUSIVE"),  # too late, and not over 1 at every n
        (lambda _, n: UNDER if n == 400 else OVER, "INCONCLUSIVE"),  # it does not stay so
        (lambda *_: OVER, "REFUTED"),
        (lambda _, n: ABOUT if n == 400 else OVER, "INCONCLUSIVE"),
        (lambda *_: (1.5, 1.0, 2.0), "INCONCLUSIVE"),  # entirely over 1 means that 1 is outside
        (lambda *_: (0.8, 0.5, 1.0), "INCONCLUSIVE"),
        (lambda name, n: UNDER if name == "cycle" and n >= 400 else OVER, "PARTLY"),
        (lambda name, n: OVER if name == "cycle" else UNDER, "PARTLY"),
        (lambda name, n: ABOUT if name == "cycle" else OVER, "INCONCLUSIVE"),
        (lambda name, n: (2.0, None, None) if n == 400 else OVER, NOT_MEASURED),
    ],
)
def test_c19(ratio: Callable[[str, int], Ends], verdict: str) -> None:
    assert verdict_of(judges.judge_c19, c19_rows(ratio)) == verdict


def test_c19_needs_counts_up_to_a_thousand() -> None:
    assert verdict_of(judges.judge_c19, c19_rows(lambda *_: OVER, (0, 400, 999))) == NOT_MEASURED
    assert verdict_of(judges.judge_c19, c19_rows(lambda *_: OVER, (0, 400, 1000))) == "REFUTED"


def test_c19_leaves_out_counts_at_which_there_is_no_thread_to_compare_with() -> None:
    alone = [
        {**item, **dict.fromkeys(("return_ratio", "started_ratio", "cycle_ratio"))}
        for item in c19_rows(lambda *_: UNDER, (100, 8000))
    ]
    assert verdict_of(judges.judge_c19, [*c19_rows(lambda *_: OVER), *alone]) == "REFUTED"
    verdict = judges.judge_c19([*c19_rows(lambda *_: OVER, (0, 400)), *alone], [])
    assert verdict.verdict == NOT_MEASURED
    assert "at the same --alive counts" in verdict.evidence
    assert "--repeats" in judges.judge_c19(c19_rows(lambda *_: (2.0, None, None)), []).evidence


def test_c19_is_about_fork_beside_children_of_a_dynamic_program_and_nothing_further() -> None:
    rows = c19_rows(lambda *_: OVER)
    for other in ({"linking": "static"}, {"method": "vfork"}, {"asked_rss_bytes": MIB}, {"placement": "any-cpu"}):
        assert verdict_of(judges.judge_c19, changed(rows, **other)) == NOT_MEASURED
    held = changed(c19_rows(lambda *_: UNDER, (1000, 4000)), alive_kind="threads")  # fork from a parent with threads
    assert verdict_of(judges.judge_c19, [*rows, *held]) == "REFUTED"
    assert verdict_of(judges.judge_c19, held) == NOT_MEASURED


def test_c19_prints_the_ratios_that_it_rests_on() -> None:
    evidence = judges.judge_c19(c19_rows(lambda *_: OVER), []).evidence
    for words in ("return: ", "started: ", "cycle: ", "n=0 ", "n=4,000 2.00× [1.80×, 2.20×]"):
        assert words in evidence


# --- the noise gate ---------------------------------------------------------------------------------------------------

DECIDED: dict[str, tuple[Judge, Callable[[], list[FlatRow]], Callable[[], list[Fit]]]] = {
    "C06": (judges.judge_c06, c06_rows, list),
    "C07": (judges.judge_c07, list, lambda: [c07_model()]),
    "C08": (judges.judge_c08, c08_rows, list),
    "C09": (judges.judge_c09, c09_rows, list),
    "C10": (judges.judge_c10, c10_rows, list),
    "C19": (judges.judge_c19, lambda: c19_rows(lambda *_: OVER), list),
    "C27": (judges.judge_c27, c27_rows, list),
}


@pytest.mark.parametrize("claim", DECIDED)
def test_a_noisy_machine_caps_every_finding(claim: str) -> None:
    judge, rows, models = DECIDED[claim]
    verdict = judge(rows(), models())
    assert (verdict.claim, verdict.verdict in DECISIVE_VERDICTS) == (claim, True)
    capped = verdict.capped("others used 40 % of a core")
    assert capped.verdict == "INCONCLUSIVE"
    assert f"would be {verdict.verdict}" in capped.evidence
    assert capped.evidence.startswith(verdict.evidence)
    assert (capped.rule, capped.restatement) == (verdict.rule, verdict.restatement)


@pytest.mark.parametrize("judge", judges.JUDGES)
def test_noise_changes_nothing_where_nothing_was_found(judge: Judge) -> None:
    verdict: Verdict = judge([], [])
    assert verdict.capped("others used 40 % of a core") == verdict
