"""The judge of fork-latency that reads a cost model, and what judges read of findings."""

from __future__ import annotations

from collections.abc import Sequence

from c10k_probe import fits
from c10k_probe.experiment import Finding, FlatRow, Made, Verdict
from c10k_probe.stats import Interval

from ._creation_fits import LIBRARIES_SUBJECT
from ._creation_verdicts import Part, combined, not_measured, number, part, plain, select, text

MIB = 1 << 20
MODELS = ("creation fork dynamic one-cpu children", "creation fork dynamic one-cpu none")
R_SQUARED, HALF = 0.95, 0.5
SERVER = (14 * MIB, 207)  # CPython 3.11 with asyncio on x86_64: dirty memory and mappings


def judge_c07(rows: Sequence[FlatRow], models: Sequence[Made]) -> Verdict:
    """C07: is fork a copy of page mappings, only that, and are file pages the same?"""
    restated = "fork merely copies page mappings"
    rule = (
        "fork's return = a + b·MiB + d·mappings + c·MiB of file + ...: F1 b>0, d>0 (intervals) and R²≥0.95 (a number); "
        "F2 a is under half of the return of a Python process with asyncio; F3 c is at least half of b; each holds, "
        "does not, or is open by its interval; CONFIRMED when all hold, REFUTED when none does, PARTLY when some do "
        "and some do not, else INCONCLUSIVE"
    )
    known = {item.name: item for item in models if isinstance(item, fits.Fit) and item.response == "return_ns"}
    model = next((known[name] for name in MODELS if name in known), None)
    if model is None or not {"rss_mib", "file_rss_mib", "mappings"} <= set(model.terms):
        return not_measured("C07", restated, rule, "needs fork from a dynamic program on one CPU with --fit")
    parts = (_copies(model), _only_that(model, rows), _file_alike(model))
    evidence = "; ".join(f"F{index} {state}: {words}" for index, (state, words) in enumerate(parts, 1))
    return Verdict("C07", restated, rule, combined([state for state, _ in parts]), evidence)


def _terms(model: fits.Fit) -> dict[str, Interval]:
    return dict(zip(model.terms, model.coefficients[1:], strict=True))


def _copies(model: fits.Fit) -> tuple[Part, str]:
    """F1: memory and mappings cost something, and a straight line describes it."""
    memory, mapping = (_terms(model)[name] for name in ("rss_mib", "mappings"))
    is_straight = model.r_squared >= R_SQUARED
    state = part(
        holds=is_straight and all(item.low is not None and item.low > 0 for item in (memory, mapping)),
        fails=not is_straight or any(item.high is not None and item.high <= 0 for item in (memory, mapping)),
    )
    worst = f", worst residual {model.worst.share:+.0%} ({model.worst.cell})" if model.worst else ""
    return state, (
        f"{text('x_ns', memory.middle, memory.low, memory.high)} per MiB, "
        f"{text('x_ns', mapping.middle, mapping.low, mapping.high)} per mapping, R² {model.r_squared:.3f}{worst}"
    )


def _only_that(model: fits.Fit, rows: Sequence[FlatRow]) -> tuple[Part, str]:
    """F2: in a server process of usual size the constant is the smaller half."""
    dirty, mappings, source = _server(rows)
    constant = model.coefficients[0]
    whole = model.predict({"rss_mib": dirty / MIB, "mappings": mappings})
    state: Part = "is open"
    if None not in (constant.low, constant.high, whole.low, whole.high):
        state = part(
            holds=(constant.high or 0) < HALF * (whole.low or 0),
            fails=(constant.low or 0) >= HALF * (whole.high or 0),
        )
    return state, (
        f"{text('x_ns', constant.middle, constant.low, constant.high)} of "
        f"{text('x_ns', whole.middle, whole.low, whole.high)} with {text('x_bytes', dirty)} dirty and {mappings:.0f} "
        f"further mappings, {source}"
    )


def _server(rows: Sequence[FlatRow]) -> tuple[float, float, str]:
    """Dirty memory and mappings that a Python process with asyncio has beyond those of the program measured."""
    base = plain(rows, method="fork", linking="dynamic")
    own_dirty, own_mappings = (number(base[0], name) or 0 if base else 0 for name in _SIZES)
    for row in select(rows, linking="python"):
        dirty, mappings = (number(row, name) for name in _SIZES)
        if dirty is not None and mappings is not None:
            return dirty - own_dirty, mappings - own_mappings, "as the Python process of this run has them"
    return SERVER[0] - own_dirty, SERVER[1] - own_mappings, "as CPython 3.11 has them on x86_64"


_SIZES = ("anonymous_bytes", "mappings_count")


def _file_alike(model: fits.Fit) -> tuple[Part, str]:
    """F3: pages of a file cost at least half of anonymous ones."""
    memory, file = (_terms(model)[name] for name in ("rss_mib", "file_rss_mib"))
    state: Part = "is open"
    if None not in (memory.low, memory.high, file.low, file.high):
        state = part(
            holds=(file.low or 0) >= HALF * (memory.high or 0), fails=(file.high or 0) < HALF * (memory.low or 0)
        )
    return state, f"{text('x_ns', file.middle, file.low, file.high)} per MiB of file"


def find_libraries(made: Sequence[Made]) -> str:
    """The number of libraries at which dynamic linking becomes dear, as part of a verdict's evidence."""
    found = [item for item in made if isinstance(item, Finding) and item.subject == LIBRARIES_SUBJECT]
    if not found:
        return ""
    value = found[0].value
    if value is None:
        return found[0].note
    return f"{text('x_count', round(value.middle, 1), value.low, value.high)} libraries: {found[0].note}"
