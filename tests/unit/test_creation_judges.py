"""The judges of fork-latency: every verdict by its rule, at the very numbers where it turns, from made rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from c10k_probe.experiments import _creation_judges as judges
from c10k_probe.experiments.fork_latency import EXPERIMENT

from c10k_probe.experiment import DECISIVE_VERDICTS, NOT_MEASURED, FlatRow, Judge, Scalar, Verdict, columns
from c10k_probe.fits import Fit
from c10k_probe.stats import Interval

MIB = 1 << 20
KEYS: dict[str, Scalar] = {
    "method": "fork",
    "linking": "dynamic",
    "placement": "one-cpu",
    "axis": "base",
    "asked_rss_bytes": 0,
    "asked_file_rss_bytes": 0,
    "asked_mappings_count": 0,
    "asked_descriptors_count": 0,
    "asked_alive_count": 0,
    "alive_kind": "none",
    "huge_pages": "off",
    "asked_libraries_count": 0,
}
NAMES = [item.name for item in columns(EXPERIMENT.row_type)]
Ends = tuple[float, float | None, float | None]


def row(**values: Scalar) -> dict[str, Scalar]:
    """One row with these values; everything else is at rest, or was not measured."""
    assert set(values) <= set(NAMES)
    return dict.fromkeys(NAMES) | KEYS | {"status": "ok", "grade": "ok"} | values


def ends_of(stem: str, suffix: str, ends: Ends) -> dict[str, Scalar]:
    return dict(zip((f"{stem}{suffix}", f"{stem}_lo{suffix}", f"{stem}_hi{suffix}"), ends, strict=True))


def without(rows: Sequence[FlatRow], **wanted: Scalar) -> list[FlatRow]:
    return [item for item in rows if any(item[name] != value for name, value in wanted.items())]


def changed(rows: Sequence[Mapping[str, Scalar]], **values: Scalar) -> list[FlatRow]:
    return [{**item, **values} for item in rows]


def verdict_of(judge: Judge, rows: Sequence[FlatRow], models: Sequence[Fit] = ()) -> str:
    return judge(rows, models).verdict


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


def c06_rows(slow: Ends = (100_000, 90_000, 110_000), quick: Ends = (30_000, 25_000, 35_000)) -> list[FlatRow]:
    """fork is the slowest in everything, the others are equally quick."""
    return [
        row(
            method=method,
            asked_rss_bytes=rss,
            axis="given",
            **ends_of("return_p50", "_ns", slow if method == "fork" else quick),
            **ends_of("cycle_p50", "_ns", slow if method == "fork" else quick),
        )
        for method in judges.PRIMITIVES
        for rss in (0, 512 * MIB)
    ]


@pytest.mark.parametrize(
    ("slow", "quick", "verdict"),
    [
        ((100.0, 80.0, 120.0), (30.0, 20.0, 40.0), "CONFIRMED"),  # 80 over 40
        ((100.0, 100.0, 100.0), (50.0, 50.0, 50.0), "CONFIRMED"),
        ((100.0, 100.0, 100.0), (51.0, 51.0, 51.0), "REFUTED"),
        ((40.0, 39.0, 41.0), (30.0, 29.0, 31.0), "REFUTED"),
    ],
)
def test_c06(slow: Ends, quick: Ends, verdict: str) -> None:
    assert verdict_of(judges.judge_c06, c06_rows(slow, quick)) == verdict


def test_c06_names_the_spread_of_both_intervals_in_both_parents() -> None:
    evidence = judges.judge_c06(c06_rows(), []).evidence
    for words in ("return at 0 MiB", "cycle at 0 MiB", "return at 512 MiB", "cycle at 512 MiB", "3.33×"):
        assert words in evidence
    assert "other systems were not measured" in evidence


@pytest.mark.parametrize("method", judges.PRIMITIVES)
def test_c06_needs_every_primitive_in_both_parents(method: str) -> None:
    for rss in (0, 512 * MIB):
        rows = without(c06_rows(), method=method, asked_rss_bytes=rss)
        assert len(rows) == 9
        assert verdict_of(judges.judge_c06, rows) == NOT_MEASURED
    assert verdict_of(judges.judge_c06, changed(c06_rows(), return_p50_lo_ns=None)) == NOT_MEASURED
    assert verdict_of(judges.judge_c06, changed(c06_rows(), placement="any-cpu")) == NOT_MEASURED


# --- C07: fork copies mappings ----------------------------------------------------------------------------------------


def c07_model(
    constant: float = 1000.0,
    memory: Ends = (100.0, 90.0, 110.0),
    mapping: Ends = (10.0, 9.0, 11.0),
    file: Ends = (80.0, 70.0, 90.0),
    r_squared: float = 0.97,
    **other: Any,
) -> Fit:
    """In a parent of 64 MiB and 300 mappings: constant + 6400 + 3000."""
    ends = ((constant, constant, constant), memory, mapping, file)
    return Fit(
        **{  # type: ignore[arg-type]
            "name": "creation fork dynamic",
            "response": "return_ns",
            "terms": ("rss_mib", "mappings", "file_rss_mib"),
            "coefficients": tuple(Interval(*item) for item in ends),
            "covariance": ((0.0,) * 4,) * 4,
            "highest": (128.0, 10_000.0, 64.0),
            "r_squared": r_squared,
            "scatter": 0.1,
            "points_count": 30,
            **other,
        }
    )


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "CONFIRMED"),
        ({"r_squared": 0.95}, "CONFIRMED"),
        ({"r_squared": 0.9499}, "PARTLY"),
        ({"memory": (1.0, 0.0, 2.0), "constant": 10.0}, "PARTLY"),  # b>0 means that the interval excludes 0
        ({"mapping": (10.0, -0.1, 20.0)}, "PARTLY"),
        ({"constant": 9399.0}, "CONFIRMED"),  # just under the half of 18,799
        ({"constant": 9400.0}, "PARTLY"),  # exactly half
        ({"file": (55.0, 50.0, 60.0)}, "CONFIRMED"),  # c >= 0.5 b, low end
        ({"file": (55.0, 49.9, 60.0)}, "PARTLY"),
        ({"r_squared": 0.5, "constant": 1e6, "file": (1.0, 0.5, 1.5)}, "REFUTED"),
        ({"r_squared": 0.5, "constant": 1e6}, "PARTLY"),
    ],
)
def test_c07(changes: dict[str, Any], verdict: str) -> None:
    assert verdict_of(judges.judge_c07, [], [c07_model(**changes)]) == verdict


def test_c07_says_which_part_holds() -> None:
    evidence = judges.judge_c07([], [c07_model(r_squared=0.5)]).evidence
    assert "F1 does not hold" in evidence
    assert "F2 holds" in evidence
    assert "F3 holds" in evidence
    assert "0.500" in evidence


@pytest.mark.parametrize(
    "models",
    [
        [],
        [c07_model(name="creation fork static")],
        [c07_model(name="creation vfork dynamic")],
        [c07_model(response="cycle_ns")],
        [c07_model(terms=("rss_mib", "mappings", "alive"))],
    ],
)
def test_c07_needs_the_model_of_fork_from_a_dynamic_program(models: list[Fit]) -> None:
    assert verdict_of(judges.judge_c07, [], models) == NOT_MEASURED


def test_c07_finds_its_model_among_others() -> None:
    others = [c07_model(name="creation fork static", r_squared=0.1), c07_model(response="cycle_ns", r_squared=0.1)]
    assert verdict_of(judges.judge_c07, [], [*others, c07_model()]) == "CONFIRMED"


# --- C08: mappings of dynamic linking ---------------------------------------------------------------------------------


def c08_rows(mappings: int = 20, dirty: int = 150, each: float = 4.0) -> list[FlatRow]:
    """A static build of 10 mappings and 100 dirty bytes; 8 and 128 libraries."""
    static = row(linking="static", mappings_count=10, private_dirty_bytes=100)
    dynamic = row(mappings_count=mappings, private_dirty_bytes=dirty)
    loaded = [
        row(axis="libraries", asked_libraries_count=count, mappings_count=mappings + int(each * count))
        for count in (8, 128)
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


@pytest.mark.parametrize(
    "missing", [{"linking": "static"}, {"linking": "dynamic"}, {"asked_libraries_count": 0, "linking": "dynamic"}]
)
def test_c08_needs_both_builds_and_libraries(missing: dict[str, Scalar]) -> None:
    assert verdict_of(judges.judge_c08, without(c08_rows(), **missing)) == NOT_MEASURED
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


# --- C22 and C27 ------------------------------------------------------------------------------------------------------


def c27_rows(mappings: int = 1000, dirty: float = 0.1 * (8 << 20), kind: str = "threads") -> list[FlatRow]:
    """A parent of 20 mappings and 1 MiB, without and with 1,000 threads that add so much each (rounded up)."""
    few = row(method="pthread_create", mappings_count=20, private_dirty_bytes=MIB)
    many = row(
        method="pthread_create",
        axis="alive",
        asked_alive_count=1000,
        alive_kind=kind,
        mappings_count=20 + mappings,
        private_dirty_bytes=MIB + -int(-dirty * 1000 // 1),
    )
    return [few, many]


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "CONFIRMED"),  # exactly one mapping and a tenth of 8 MiB
        ({"mappings": 2000, "dirty": 1e6}, "CONFIRMED"),
        ({"dirty": 0.0999 * (8 << 20)}, "PARTLY"),
        ({"mappings": 999}, "PARTLY"),
        ({"mappings": 999, "dirty": 20_000}, "REFUTED"),
    ],
)
def test_c27(changes: dict[str, Any], verdict: str) -> None:
    assert verdict_of(judges.judge_c27, c27_rows(**changes)) == verdict


def test_c27_needs_two_counts_of_live_threads() -> None:
    assert verdict_of(judges.judge_c27, c27_rows()[:1]) == NOT_MEASURED
    assert verdict_of(judges.judge_c27, c27_rows()[1:]) == NOT_MEASURED
    assert verdict_of(judges.judge_c27, changed(c27_rows(), method="fork")) == NOT_MEASURED


def test_c27_is_not_judged_by_live_children() -> None:
    """``--alive-kind children``: no thread is alive in the parent, so nothing is said about stacks."""
    assert verdict_of(judges.judge_c27, c27_rows(mappings=0, dirty=100, kind="children")) == NOT_MEASURED
    both = [*c27_rows(), *c27_rows(mappings=0, dirty=100, kind="children")[1:]]
    assert verdict_of(judges.judge_c27, both) == "CONFIRMED"


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
