"""What no single row of servers shows: ratios by blocks, what observing costs, and language against architecture."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence

from c10k_probe import stats
from c10k_probe.experiment import Finding, Samples

from ._servers_design import (
    APACHE,
    ARTICLE,
    BESIDE,
    FAIR,
    FULL_PCT,
    HTTP_SERVER,
    NODE,
    NODE_JITLESS,
    OF_THE_ARTICLE,
    OPEN,
    PLACES,
    TABLE_RATE_PCT,
    TORNADO,
)
from ._servers_rows import Key, ServersRow, by_block, by_cell, rows

PAIRS = (
    (NODE, APACHE),
    (TORNADO, APACHE),
    ("nginx", APACHE),
    ("apache-event", APACHE),
    (TORNADO, HTTP_SERVER),
    (TORNADO, "python-threading"),
    (NODE_JITLESS, NODE),
    ("asyncio", "python-threading"),
)
RATIOS = {
    "throughput_per_s": "throughput_ratio",
    "peak_bytes": "memory_ratio",
    "peak_rss_bytes": "rss_sum_ratio",
    "available_fall_bytes": "available_fall_ratio",
    "requests_per_cpu_s": "requests_per_cpu_ratio",
}
SHORT_RATIOS = {name: RATIOS[name] for name in ("throughput_per_s", "requests_per_cpu_s")}
CPU_DIFFERENCE = "cpu_difference_pct"
RUNTIME_SHARE, ARCHITECTURE_SHARE, SHARE_DIFFERENCE = "runtime_share_pct", "architecture_share_pct", "difference_pct"
Blocks = Mapping[int, Sequence[float]]


def findings(samples: Sequence[Samples], seed: int) -> list[Finding]:
    """All of them; a void row has none."""
    void = {_key(row) for row in rows(samples, seed) if row.grade == "void"}
    cells = {key: launches for key, launches in by_cell(samples).items() if key not in void}
    return [*_comparisons(cells, seed), *_observing(cells, seed), *_two_way(cells, seed)]


def subject_of(above: str, below: str, arm: str, keep_alive: str) -> str:
    """The name under which a comparison is found."""
    way = "as the article" if arm == ARTICLE else f"fair, keep-alive {keep_alive}"
    return f"{above} over {below}, {way}"


TABLE_SUBJECT = f"runtime and architecture, at {TABLE_RATE_PCT} % of capacity"


def _key(row: ServersRow) -> Key:
    return Key(*(getattr(row, name) for name in Key._fields))


def _ways(cells: Mapping[Key, Sequence[Samples]]) -> list[tuple[str, str, str]]:
    """(arm, load, keep-alive) of the closed loops that were measured while observed."""
    found = {(key.arm, key.load, key.keep_alive) for key in cells if key.observed == "on"}
    return sorted(found, key=lambda way: (way[0] != ARTICLE, way[2]))


def _comparisons(cells: Mapping[Key, Sequence[Samples]], seed: int) -> Iterator[Finding]:
    for way, (above, below) in itertools.product(_ways(cells), PAIRS):
        arm, base = (cells.get(Key(name, *way, FULL_PCT, "on")) for name in (above, below))
        if not arm or not base:
            continue
        subject, is_articles = subject_of(above, below, way[0], way[2]), {above, below} <= {*OF_THE_ARTICLE}
        for fact, column in (RATIOS if is_articles else SHORT_RATIOS).items():
            value = stats.paired_ratio(by_block(fact, arm), by_block(fact, base), seed)
            if value is not None and value.middle > 0:
                yield Finding(subject, column, value)
        if not is_articles:
            continue
        value = _difference(by_block("server_cpu_pct", arm), by_block("server_cpu_pct", base), seed)
        if value is not None:
            yield Finding(subject, CPU_DIFFERENCE, value, "in percent of one CPU")


def _difference(arm: Blocks, base: Blocks, seed: int) -> stats.Interval | None:
    """Median of the differences by blocks."""
    blocks = sorted(arm.keys() & base.keys())
    return stats.median_interval([arm[block][0] - base[block][0] for block in blocks], seed) if blocks else None


def _observing(cells: Mapping[Key, Sequence[Samples]], seed: int) -> Iterator[Finding]:
    for key, launches in cells.items():
        base = cells.get(key._replace(observed="off"))
        if key.observed == "off" or not base:
            continue
        ratio = stats.paired_ratio(by_block("throughput_per_s", launches), by_block("throughput_per_s", base), seed)
        if ratio is not None:
            lost = [None if end is None else (1 - end) * 100 for end in (ratio.high, ratio.low)]
            value = stats.Interval((1 - ratio.middle) * 100, *lost)
            subject = f"observing {key.server}, {key.arm}, keep-alive {key.keep_alive}"
            yield Finding(subject, "throughput_cost_pct", value)


# --- two ways ---------------------------------------------------------------------------------------------------------


def _two_way(cells: Mapping[Key, Sequence[Samples]], seed: int) -> Iterator[Finding]:
    """CPU efficiency by place, in the open loop; shares of variance when the balanced part is whole."""
    table: dict[tuple[str, str], Blocks] = {}
    for server, place in PLACES.items():
        launches = cells.get(Key(server, FAIR, OPEN, "off", TABLE_RATE_PCT, "off"), ())
        found = {block: values for block, values in by_block("requests_per_cpu_s", launches).items() if values[0] > 0}
        if found:
            yield _cell_finding(", ".join(place), found, seed)
            if server not in BESIDE:
                table[place] = found
    if len(table) == len(PLACES) - len(BESIDE):
        yield from _shares(TABLE_SUBJECT, table, seed)


def _cell_finding(name: str, found: Blocks, seed: int) -> Finding:
    value = stats.median_interval([values[0] for values in found.values()], seed)
    note = "for each second of the server's CPU"
    return Finding(f"{name}, at {TABLE_RATE_PCT} % of capacity", "requests_per_cpu_s", value, note)


def _shares(subject: str, table: Mapping[tuple[str, str], Blocks], seed: int) -> Iterator[Finding]:
    """Shares of the variance of log(requests per CPU second) among the six, each with an interval over blocks."""
    blocks = sorted(set.intersection(*(set(found) for found in table.values())))
    if not blocks:
        return
    middle = shares(_logs(table, blocks))
    drawn = [shares(_logs(table, draw)) for draw in stats.draws_of(blocks, seed)]
    note = "of the variance of log(requests per CPU second); the rest is what they do together"
    for name, (first, second) in {RUNTIME_SHARE: (1, 0), ARCHITECTURE_SHARE: (0, 1), SHARE_DIFFERENCE: (1, -1)}.items():
        value, *others = (first * runtime + second * architecture for runtime, architecture in (middle, *drawn))
        yield Finding(subject, name, stats.Interval(value, *_ends(others)), note)


def _logs(table: Mapping[tuple[str, str], Blocks], blocks: Sequence[int]) -> dict[tuple[str, str], float]:
    return {place: math.log(statistics.median(found[block][0] for block in blocks)) for place, found in table.items()}


def shares(logs: Mapping[tuple[str, str], float]) -> tuple[float, float]:
    """Percent of the sum of squares among cells that the first and the second name explain, in a balanced table."""
    mean = statistics.fmean(logs.values())
    whole = sum((value - mean) ** 2 for value in logs.values())
    if not whole:
        return 0.0, 0.0
    parts = []
    for place in (0, 1):
        levels: dict[str, list[float]] = {}
        for names, value in logs.items():
            levels.setdefault(names[place], []).append(value)
        parts.append(sum(len(group) * (statistics.fmean(group) - mean) ** 2 for group in levels.values()))
    return 100 * parts[0] / whole, 100 * parts[1] / whole


def _ends(drawn: Sequence[float]) -> tuple[float | None, float | None]:
    """The middle 95 % of what was drawn."""
    if not drawn:
        return None, None
    ordered = sorted(drawn)
    cut = round(0.025 * (len(ordered) - 1))
    return ordered[cut], ordered[-1 - cut]
