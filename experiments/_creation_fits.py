"""What fork-latency finds beyond single rows: cost models of a parent's state, and where linking begins to matter."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence

from c10k_probe import fits, native, stats, units
from c10k_probe.experiment import Finding, Made, Samples, Scalar

from ._creation_design import MIB
from ._creation_rows import NUMERIC_COLUMNS, by_block, values_of

FIT_TERMS = ("rss_mib", "file_rss_mib", "mappings", "descriptors", "alive")
TERM_COLUMNS = {
    "rss_mib": "asked_rss_bytes",
    "file_rss_mib": "asked_file_rss_bytes",
    "mappings": "asked_mappings_count",
    "descriptors": "asked_descriptors_count",
    "alive": "asked_alive_count",
}
LARGE = 1.5  # C09's threshold
LIBRARIES_SUBJECT = "fork of a dynamic program over that of the static one"
Key = tuple[Scalar, ...]


def made(taken: Sequence[Samples], seed: int, *, is_fit: bool) -> list[Made]:
    """Everything that follows from all samples."""
    models = _models(taken, seed) if is_fit else []
    worst = [
        Finding(
            f"{model.name} {model.response.rpartition('_')[0]}",
            "worst_residual_pct",
            stats.Interval(100 * model.worst.share, None, None),
            f"of the cell {model.worst.cell}",
        )
        for model in models
        if model.worst is not None
    ]
    return [*models, *worst, *libraries_needed(taken, seed)]


# --- cost models ------------------------------------------------------------------------------------------------------


def _models(taken: Sequence[Samples], seed: int) -> list[fits.Fit]:
    """Return and cycle of what is created alike, beside what is alive alike, from all states measured."""
    found = [
        fits.fit(f"creation {name}", f"{response}_ns", FIT_TERMS, _points(cells.values(), response), seed)
        for name, cells in _alike(taken)
        for response in ("return", "cycle")
    ]
    return [model for model in found if model is not None]


def _alike(taken: Sequence[Samples]) -> Iterator[tuple[str, dict[Key, list[Samples]]]]:
    """Cells that one model may hold: of a method, a build and a placement, with the same kind of tasks alive.

    A parent with nothing alive belongs to every kind.
    """
    groups: dict[str, dict[Key, list[Samples]]] = {}
    for item in taken:
        key = item.key
        if key["linking"] != native.PYTHON and key["huge_pages"] == "off" and not key["asked_libraries_count"]:
            cells = groups.setdefault(f"{key['method']} {key['linking']} {key['placement']}", {})
            cells.setdefault(tuple(key.values()), []).append(item)
    for name, cells in groups.items():
        kinds = {cell: str(launches[0].key["alive_kind"]) for cell, launches in cells.items()}
        for kind in sorted(set(kinds.values()) - {"none"}) or ["none"]:
            yield f"{name} {kind}", {cell: cells[cell] for cell in cells if kinds[cell] in (kind, "none")}


def _points(cells: Iterable[Sequence[Samples]], response: str) -> list[fits.Point]:
    points = []
    for launches in cells:
        key = launches[0].key
        terms = tuple(float(key[TERM_COLUMNS[term]]) / (MIB if term.endswith("_mib") else 1) for term in FIT_TERMS)
        medians = [statistics.median(values) for values in values_of(launches, response) if len(values)]
        points.append(fits.Point(terms, tuple(medians), cell_text(key)))
    return points


def cell_text(key: Mapping[str, str | int]) -> str:
    """The state of a cell in a few words."""
    parts = []
    for name, column in NUMERIC_COLUMNS.items():
        dimension = "bytes" if column.endswith("_bytes") else "count"
        if key[column]:
            parts.append(f"{name.replace('_', ' ')} {units.format_quantity(int(key[column]), dimension)}")
    return " ".join(parts) or "with nothing further"


# --- where linking begins to matter -----------------------------------------------------------------------------------


def libraries_needed(taken: Sequence[Samples], seed: int) -> Iterator[Finding]:
    """The number of libraries at which fork costs half as much again as in a static program, between those measured.

    Its interval is from blocks drawn with replacement, as that of a ratio.
    """
    dynamic, static = _fork_by_libraries(taken, "dynamic"), _fork_by_libraries(taken, "static").get(0)
    if static is None or len(dynamic) < 2:
        return
    blocks = sorted(set(static).intersection(*dynamic.values()))
    if not blocks:
        return
    found = _crossing(dynamic, static, blocks)
    highest = max(dynamic)
    if found is None:
        note = f"a ratio of {LARGE} is not reached with {highest} libraries"
        yield Finding(LIBRARIES_SUBJECT, "libraries_count", None, note)
        return
    draws = sorted(_or_infinite(_crossing(dynamic, static, drawn)) for drawn in stats.draws_of(blocks, seed))
    low, high = (draws[round(share * (len(draws) - 1))] for share in (0.025, 0.975)) if draws else (None, None)
    note = f"where the ratio reaches {LARGE}"
    if high == float("inf"):
        low, high, note = None, None, f"{note}; not surely within the {highest} that were measured"
    yield Finding(LIBRARIES_SUBJECT, "libraries_count", stats.Interval(found, low, high), note)


def _fork_by_libraries(taken: Sequence[Samples], linking: str) -> dict[int, dict[int, float]]:
    """Number of libraries -> block -> median of fork's return, in a parent with nothing else."""
    rest = set(NUMERIC_COLUMNS.values()) - {"asked_libraries_count"}
    wanted = {"method": "fork", "linking": linking, "placement": "one-cpu", "huge_pages": "off"}
    groups: dict[int, list[Samples]] = {}
    for item in taken:
        if all(item.key[name] == value for name, value in wanted.items()) and not any(item.key[name] for name in rest):
            groups.setdefault(int(item.key["asked_libraries_count"]), []).append(item)
    return {
        count: {block: statistics.median(values) for block, values in by_block(launches, "return").items() if values}
        for count, launches in groups.items()
    }


def _crossing(
    dynamic: Mapping[int, Mapping[int, float]], static: Mapping[int, float], blocks: Sequence[int]
) -> float | None:
    """Between which numbers the ratio of medians passes the threshold, straight lines assumed; None where nowhere."""
    below = statistics.median(static[block] for block in blocks)
    ratios = {
        count: statistics.median(values[block] for block in blocks) / below for count, values in sorted(dynamic.items())
    }
    previous: tuple[int, float] | None = None
    for count, ratio in ratios.items():
        if ratio >= LARGE:
            if previous is None:
                return float(count)
            return previous[0] + (LARGE - previous[1]) / (ratio - previous[1]) * (count - previous[0])
        previous = (count, ratio)
    return None


def _or_infinite(value: float | None) -> float:
    return float("inf") if value is None else value
