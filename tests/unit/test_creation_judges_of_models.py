"""C07: each part of it holds, does not hold or is open, by the intervals of a cost model made by hand."""

from __future__ import annotations

from typing import Any

import pytest
from c10k_probe.experiments._creation_judges_of_models import judge_c07
from creation_rows import MIB, c07_model, row, verdict_of

from c10k_probe.experiment import NOT_MEASURED
from c10k_probe.fits import Fit, Residual

# Of a Python process with asyncio, 14 MiB and 207 mappings: 1000 + 1400 + 2070 = 4470, no scatter. Half is 2235.
PARTS = ("F1", "F2", "F3")


def parts_of(model: Fit) -> list[str]:
    """What is said of F1, F2 and F3."""
    evidence = judge_c07([], [model]).evidence
    words = [evidence.split(f"{name} ")[1].split(":")[0] for name in PARTS]
    assert set(words) <= {"holds", "does not hold", "is open"}
    return words


@pytest.mark.parametrize(
    ("changes", "parts", "verdict"),
    [
        ({}, "holds, holds, holds", "CONFIRMED"),
        ({"r_squared": 0.95}, "holds, holds, holds", "CONFIRMED"),
        ({"r_squared": 0.9499}, "does not hold, holds, holds", "PARTLY"),
        (
            {"memory": (100.0, 0.0, 200.0)},
            "is open, holds, is open",
            "INCONCLUSIVE",
        ),  # b>0 excludes 0; c over 2b is not
        ({"memory": (0.0, -9.0, 0.0)}, "does not hold, holds, holds", "PARTLY"),
        ({"mapping": (10.0, -0.1, 20.0)}, "is open, holds, holds", "INCONCLUSIVE"),
        (
            {"mapping": (-10.0, -20.0, 0.0), "constant": (1.0, 1.0, 1.0)},
            "does not hold, does not hold, holds",
            "PARTLY",
        ),
        ({"memory": (100.0, None, None)}, "is open, holds, is open", "INCONCLUSIVE"),  # a missing end is not 0
        ({"mapping": (10.0, None, None)}, "is open, holds, holds", "INCONCLUSIVE"),
        ({"constant": (3400.0, 3300.0, 3434.0)}, "holds, holds, holds", "CONFIRMED"),  # 3434 under half of 6870
        ({"constant": (3400.0, 3300.0, 3436.0)}, "holds, is open, holds", "INCONCLUSIVE"),
        ({"constant": (4000.0, 3735.0, 5000.0)}, "holds, does not hold, holds", "PARTLY"),  # 3735: half of 7470
        ({"constant": (4000.0, 3734.0, 5000.0)}, "holds, is open, holds", "INCONCLUSIVE"),
        ({"constant": (1000.0, None, None)}, "holds, is open, holds", "INCONCLUSIVE"),
        ({"file": (60.0, 55.0, 70.0)}, "holds, holds, holds", "CONFIRMED"),  # 55 is half of b's high end
        ({"file": (60.0, 54.9, 70.0)}, "holds, holds, is open", "INCONCLUSIVE"),
        ({"file": (40.0, 30.0, 45.0)}, "holds, holds, is open", "INCONCLUSIVE"),  # 45 is half of b's low end
        ({"file": (1.0, -0.5, 44.9)}, "holds, holds, does not hold", "PARTLY"),
        ({"file": (80.0, None, None)}, "holds, holds, is open", "INCONCLUSIVE"),
        ({"scatter": 1.0}, "holds, is open, holds", "INCONCLUSIVE"),
        ({"file": (1.0, -0.5, 44.9), "scatter": 1.0}, "holds, is open, does not hold", "PARTLY"),
        (
            {"r_squared": 0.5, "constant": (1e6, 1e6, 1e6), "file": (1.0, 0.5, 1.5)},
            "does not hold, does not hold, does not hold",
            "REFUTED",
        ),
    ],
)
def test_c07(changes: dict[str, Any], parts: str, verdict: str) -> None:
    model = c07_model(**changes)
    assert (", ".join(parts_of(model)), verdict_of(judge_c07, [], [model])) == (parts, verdict)


def test_r_squared_is_a_number_and_the_worst_cell_is_named() -> None:
    model = c07_model(residuals=(Residual("rss 1MiB", 0.05), Residual("rss 4MiB", -0.23)))
    verdict = judge_c07([], [model])
    assert "R² 0.970, worst residual -23% (rss 4MiB)" in verdict.evidence
    assert "R²≥0.95 (a number)" in verdict.rule


def test_the_server_process_is_that_of_the_run_where_it_was_measured() -> None:
    """Beyond what the measured program has itself: 10 MiB and 180 mappings make 1000 + 1000 + 1800."""
    own = row(anonymous_bytes=MIB, mappings_count=20)
    python = row(method="os.fork", linking="python", anonymous_bytes=11 * MIB, mappings_count=200)
    evidence = judge_c07([own, python], [c07_model()]).evidence
    assert "of 3.80 µs [3.80 µs, 3.80 µs] with 10.0 MiB dirty and 180 further mappings" in evidence
    assert "as the Python process of this run has them" in evidence
    assert "as CPython 3.11 has them on x86_64" in judge_c07([own], [c07_model()]).evidence
    unread = row(method="os.fork", linking="python", mappings_count=200)
    assert "as CPython 3.11" in judge_c07([own, unread], [c07_model()]).evidence


@pytest.mark.parametrize(
    "models",
    [
        [],
        [c07_model(name="creation fork static one-cpu children")],
        [c07_model(name="creation vfork dynamic one-cpu children")],
        [c07_model(name="creation fork dynamic any-cpu children")],
        [c07_model(name="creation fork dynamic one-cpu threads")],
        [c07_model(response="cycle_ns")],
        [c07_model(terms=("rss_mib", "mappings", "alive"))],
    ],
)
def test_c07_needs_the_model_of_fork_from_a_dynamic_program_on_one_cpu(models: list[Fit]) -> None:
    assert verdict_of(judge_c07, [], models) == NOT_MEASURED


def test_c07_finds_its_model_among_others() -> None:
    others = [
        c07_model(name="creation fork static one-cpu children", r_squared=0.1),
        c07_model(name="creation fork dynamic one-cpu threads", r_squared=0.1),
        c07_model(response="cycle_ns", r_squared=0.1),
    ]
    assert verdict_of(judge_c07, [], [*others, c07_model()]) == "CONFIRMED"
    assert verdict_of(judge_c07, [], [c07_model(name="creation fork dynamic one-cpu none")]) == "CONFIRMED"
