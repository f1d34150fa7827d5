"""How launches of fork-latency become rows, grades, cost models and findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from c10k_probe.experiments import _creation_fits as findings
from c10k_probe.experiments import _creation_rows as rows
from creation_rows import KEYS, MIB

from c10k_probe.experiment import Cell, Finding, Samples, flatten
from c10k_probe.fits import Fit

BLOCKS = range(10)
FACTS = {"clock_cost_ns": 20, "asked_samples_count": 40, "warmups_count": 5, "asked_warmups_count": 5}


def launches(
    values: Mapping[str, Sequence[int]] | None = None, facts: Mapping[str, Any] | None = None, **key: Any
) -> list[Samples]:
    """The same launch in each block."""
    known = values if values is not None else {"return": [50_000] * 40, "cycle": [90_000] * 40}
    return [Samples({**KEYS, **key}, block, known, FACTS | dict(facts or {})) for block in BLOCKS]  # type: ignore[dict-item]


def row_of(*taken: list[Samples]) -> dict[str, Any]:
    """The row of the first of these cells."""
    cells = [Cell(items[0].key) for items in taken]
    return flatten(rows.summarise(cells, [item for items in taken for item in items], 1)[0])


# --- grades -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "count", "reason"),
    [
        ({}, 40, ""),
        ({}, 10, ""),
        ({}, 9, "under a quarter of the samples"),
        ({}, 3, "under a quarter of the samples"),
        ({"warmups_count": 3}, 40, ""),
        ({"warmups_count": 2}, 40, "under half of the warm-ups"),
        ({"warmups_count": 1}, 3, "under half of the warm-ups; --budget left under a quarter of the samples"),
        ({"warmups_count": 0, "asked_warmups_count": 0}, 40, ""),
        ({"asked_samples_count": 3}, 3, ""),
    ],
)
def test_a_row_that_its_budget_cut_says_so(facts: dict[str, int], count: int, reason: str) -> None:
    row = row_of(launches({"return": [50_000] * count, "cycle": [90_000] * count}, facts))
    assert (row["grade"], reason in row["grade_reason"]) == ("shaky" if reason else "ok", True)


@pytest.mark.parametrize("name", ["stall", "stall_after"])
def test_a_stall_is_graded_by_its_interval(name: str) -> None:
    """One launch in two is three times as late."""
    values = {"stall": [200] * 50, "stall_after": [9000] * 5, "return": [50_000] * 5}
    calm = launches(values, {"asked_samples_count": 0})
    assert row_of(calm)["grade"] == "ok"
    restless = [
        Samples(item.key, item.block, {**values, name: [300 + 600 * (item.block % 2)] * 5}, item.facts) for item in calm
    ]
    row = row_of(restless)
    assert row["grade"] == "shaky"
    assert f"{name.replace('_', ' ')}: interval is" in row["grade_reason"]


def test_ticks_after_a_creation_are_columns_of_their_own() -> None:
    row = row_of(launches({"stall": [100] * 1000, "stall_after": [30_000] * 10, "return": [40_000] * 10}))
    assert (row["stall_p50_ns"], row["stall_after_p50_ns"]) == (100, 30_000)


# --- what a row is compared with --------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", ["base", "given", "libraries"])
def test_what_loads_libraries_is_compared_with_the_static_program_as_it_is(axis: str) -> None:
    """In a sweep that stands at the base; typed, it stands beside."""
    loaded = launches({"return": [100_000] * 40}, axis=axis, asked_libraries_count=32)
    static = launches({"return": [40_000] * 40}, axis="given" if axis == "given" else "base", linking="static")
    assert row_of(loaded, static)["over_static_ratio"] == 2.5
    assert row_of(static, loaded)["over_static_ratio"] is None
    assert row_of(loaded)["over_static_ratio"] is None


def test_another_state_of_the_static_program_is_nothing_to_compare_with() -> None:
    large = launches(axis="rss", asked_rss_bytes=MIB)
    assert row_of(large, launches(axis="given", linking="static"))["over_static_ratio"] is None
    assert row_of(large, launches(axis="rss", asked_rss_bytes=MIB, linking="static"))["over_static_ratio"] == 1


def test_stacks_are_told_for_each_thread() -> None:
    probe = {
        "stack_bytes": 8 << 20,
        "probed_threads_count": 16,
        "kept_mapped_bytes": 16 * ((8 << 20) + 4096),
        "kept_mappings_count": 32,
        "kept_anonymous_bytes": 16 * 8192,
        "joined_mapped_bytes": 0,
    }
    row = row_of(launches(facts=probe, method="pthread_create"))
    assert [row[f"stack_{name}"] for name in ("kept_ratio", "joined_ratio", "mappings_ratio")] == [1.0, 0.0, 2.0]
    assert row["stack_resident_bytes"] == 8192
    unread = row_of(launches(facts={**probe, "kept_mapped_bytes": -1}, method="pthread_create"))
    assert unread["stack_kept_ratio"] is None
    assert row_of(launches())["stack_bytes"] is None


# --- cost models ------------------------------------------------------------------------------------------------------

SIZES = (0, 1, 4, 16, 64)


def states(per_mib: int, **key: Any) -> list[Samples]:
    """Cells of some sizes, and of some live tasks."""
    taken = []
    for size in SIZES:
        cost = [40_000 + per_mib * size]
        taken += launches({"return": cost, "cycle": cost}, axis="rss", asked_rss_bytes=size * MIB, **key)
    return taken


def alive(kind: str, per_task: int, **key: Any) -> list[Samples]:
    taken = []
    for count in (100, 400, 1000):
        cost = [40_000 + per_task * count]
        taken += launches(
            {"return": cost, "cycle": cost}, axis="alive", asked_alive_count=count, alive_kind=kind, **key
        )
    return taken


def models_of(taken: Sequence[Samples]) -> dict[str, Fit]:
    made = findings.made(taken, 1, is_fit=True)
    return {model.name: model for model in made if isinstance(model, Fit) and model.response == "return_ns"}


def test_one_model_holds_one_placement_and_one_kind_of_living() -> None:
    one, other = states(18_000) + alive("children", 10), states(25_000, placement="any-cpu")
    models = models_of([*one, *alive("threads", 300), *other])
    assert set(models) == {
        "creation fork dynamic one-cpu children",
        "creation fork dynamic one-cpu threads",
        "creation fork dynamic any-cpu none",
    }
    costs = {name: [round(item.middle) for item in model.coefficients] for name, model in models.items()}
    assert costs == {
        "creation fork dynamic one-cpu children": [40_000, 18_000, 10],
        "creation fork dynamic one-cpu threads": [40_000, 18_000, 300],
        "creation fork dynamic any-cpu none": [40_000, 25_000],
    }


def test_huge_pages_libraries_and_interpreters_are_in_no_model() -> None:
    others = [
        *launches({"return": [1]}, huge_pages="on", asked_rss_bytes=64 * MIB, axis="huge_pages"),
        *launches({"return": [1]}, asked_libraries_count=8, axis="libraries"),
        *launches({"return": [1]}, linking="python", method="os.fork"),
    ]
    assert models_of([*states(18_000), *others]) == models_of(states(18_000))


def test_the_worst_cell_of_each_model_is_a_finding() -> None:
    taken = [item for item in states(18_000) if item.key["asked_rss_bytes"] != 4 * MIB]
    taken += launches({"return": [200_000], "cycle": [112_000]}, axis="rss", asked_rss_bytes=4 * MIB)
    found = {item.subject: item for item in findings.made(taken, 1, is_fit=True) if isinstance(item, Finding)}
    worst = found["creation fork dynamic one-cpu none return"]
    assert (worst.column, worst.note) == ("worst_residual_pct", "of the cell rss 4.00 MiB")
    assert worst.value is not None and worst.value.middle > 10
    assert set(found) == {f"creation fork dynamic one-cpu none {response}" for response in ("return", "cycle")}
    assert findings.made(taken, 1, is_fit=False) == []


def test_every_cell_has_a_residual_with_its_name() -> None:
    (model,) = models_of(states(18_000)).values()
    names = [residual.cell for residual in model.residuals]
    assert names == ["with nothing further", *(f"rss {size} MiB" for size in ("1.00", "4.00", "16.0", "64.0"))]


# --- libraries --------------------------------------------------------------------------------------------------------


def libraries(costs: Mapping[int, int], static: int = 40_000, wobble: int = 0) -> list[Samples]:
    """fork of a dynamic program with so many libraries, and of the static one; every other block ``wobble`` more."""
    taken = launches({"return": [static]}, linking="static")
    for count, cost in costs.items():
        for item in launches({"return": [cost]}, asked_libraries_count=count, axis="libraries" if count else "base"):
            values = {"return": [cost + wobble * (item.block % 2)]}
            taken.append(Samples(item.key, item.block, values, item.facts))
    return taken


@pytest.mark.parametrize(
    ("costs", "count"),
    [
        ({0: 50_000, 8: 70_000}, 4.0),  # 60 µs lie in the middle
        ({0: 50_000, 8: 55_000, 32: 65_000, 128: 300_000}, 20.0),
        ({0: 60_000, 8: 80_000}, 0.0),
        ({0: 50_000, 8: 60_000}, 8.0),
        ({0: 50_000, 8: 55_000}, None),
    ],
)
def test_the_number_of_libraries_at_which_linking_costs_half_as_much_again(
    costs: dict[int, int], count: float | None
) -> None:
    (found,) = findings.libraries_needed(libraries(costs), 1)
    if count is None:
        assert found.value is None
        assert "not reached with 8 libraries" in found.note
    else:
        assert found.value is not None
        assert (found.value.middle, found.value.low, found.value.high) == pytest.approx((count, count, count))
    assert (found.subject, found.column) == (findings.LIBRARIES_SUBJECT, "libraries_count")


def test_its_interval_comes_from_the_blocks() -> None:
    (found,) = findings.libraries_needed(libraries({0: 50_000, 8: 65_000}, wobble=4000), 1)
    assert found.value is not None and found.value.low is not None and found.value.high is not None
    assert found.value.low < found.value.middle < found.value.high
    (open_ended,) = findings.libraries_needed(libraries({0: 50_000, 8: 58_500}, wobble=4000), 1)
    assert open_ended.value is not None and open_ended.value.high is None
    assert "not surely within the 8" in open_ended.note


def test_without_libraries_or_the_static_build_there_is_no_such_number() -> None:
    assert list(findings.libraries_needed(libraries({0: 50_000}), 1)) == []
    taken = [item for item in libraries({0: 50_000, 8: 70_000}) if item.key["linking"] == "dynamic"]
    assert list(findings.libraries_needed(taken, 1)) == []
    assert list(findings.libraries_needed([], 1)) == []
