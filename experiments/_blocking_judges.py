"""The claims on blocking: C02, C04, C25, C35, C52 and C58, each by the rule printed beside its verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from c10k_probe.experiment import NOT_MEASURED, FlatRow, Judge, Made, Verdict
from c10k_probe.units import format_column

from ._blocking_cost import judge_c52
from ._blocking_design import CALLS, LIMIT, LIMIT_WORKERS, OPEN, PLATEAU, SECOND, SURFACE
from ._blocking_told import number, of, text

_SECOND_ADDED_NS: Final = 0.5e9
_LIMIT_RATIO: Final = 1.2
_LINE_TOLERANCE: Final = 0.05
_IDLE_CPU_PCT: Final = 50.0
_GONE_RATIO: Final = 1 / 1.10  # the low end of what counts as the same, as everywhere
_OFF_CPU_PCT, _WAITING_PCT = 90.0, 50.0
_BY_CONNECTION: Final = ("prefork", "thread-pool", "thread", "fork", "python-threading")


def _of_all(parts: Iterable[bool | None]) -> str:
    """CONFIRMED when all hold, REFUTED when none does, PARTLY when some do; a part in doubt leaves it open."""
    known = list(parts)
    if None in known or not known:
        return "INCONCLUSIVE"
    return "CONFIRMED" if all(known) else "PARTLY" if any(known) else "REFUTED"


def _above(row: FlatRow, low: str, high: str, bound: float) -> bool | None:
    """Whether the whole interval is at or above the bound; None: it is on both sides, or there is none."""
    least, most = number(row, low), number(row, high)
    if least is None or most is None:
        return None
    return True if least >= bound else False if most < bound else None


def _free_text(row: FlatRow) -> str:
    """What the second user meets while the first one waits: a worker free, or none."""
    workers = str(row["workers"])
    return f"{int(workers) - 1} of {workers} free" if workers.isdigit() else workers


def judge_c02(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C02: does a second user wait for the first one's database, though a worker is free?"""
    restated = "while one process waits for the database, a second user's request is blocked"
    rule = (
        "CONFIRMED when, with a free worker, a request that waits 1 s for its backend delays another by ≥0.5 s (low "
        "end), REFUTED when by <0.5 s (high end), in every model with a process or thread for a connection; PARTLY "
        "when in some of them"
    )
    found = of(rows, SECOND)
    free = [row for row in found if row["model"] in _BY_CONNECTION and row["workers"] != "1"]
    if not free:
        return Verdict("C02", restated, rule, NOT_MEASURED, "needs --part second-user")
    told = "; ".join(
        f"{row['model']}, {_free_text(row)}: {text('added_ns', row, 'added_lo_ns', 'added_hi_ns')}" for row in found
    )
    held = [_above(row, "added_lo_ns", "added_hi_ns", _SECOND_ADDED_NS) for row in free]
    return Verdict("C02", restated, rule, _of_all(held), told)


def judge_c04(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C04: does a worker take longer for a request when all are busy, or do requests only wait?"""
    restated = "at the limit of processes all processes become slow"
    rule = (
        f"prefork with {LIMIT_WORKERS} workers: CONFIRMED when the time inside a worker is ≥1.2 times that with "
        f"{LIMIT_WORKERS} requests (low end) at every higher concurrency, REFUTED when it is less (high end), PARTLY "
        "when at some"
    )
    found = {int(row["concurrency_count"] or 0): row for row in of(rows, LIMIT)}
    above = [row for count, row in sorted(found.items()) if count > LIMIT_WORKERS]
    if not above or LIMIT_WORKERS not in found:  # all are over that one
        return Verdict("C04", restated, rule, NOT_MEASURED, "needs --part limit")
    names = ("in_worker_over_full_lo_ratio", "in_worker_over_full_hi_ratio")
    told = "; ".join(
        f"{row['concurrency_count']} requests: in worker {format_column('x_ns', row['in_worker_ns'])}, "
        f"{text('in_worker_over_full_ratio', row, *names)}, in queue {format_column('x_ns', row['queue_ns'])}"
        for row in above
    )
    return Verdict("C04", restated, rule, _of_all(_above(row, *names, _LIMIT_RATIO) for row in above), told)


def judge_c25(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C25: is blocking the bottleneck, while the CPU is idle?"""
    restated = "under many concurrent requests blocking I/O becomes the bottleneck"
    rule = (
        "P with more requests than workers a pool's throughput is W/S ±5 % (interval inside) at <50 % of a CPU, "
        "N with as many workers as requests it is ≥1/1.10 of c/S (low end), c the requests offered; CONFIRMED "
        "when both hold in every pool of processes and of threads, PARTLY when some do; in an open loop, or in a "
        "closed one where the run has no other"
    )
    pools = _pools(rows, OPEN) or _pools(rows, PLATEAU)
    full = [row for row in pools if int(row["concurrency_count"] or 0) > int(str(row["workers"]))]
    enough = [row for row in pools if any(_is_twin(row, other) for other in full)]
    if not full or not enough:
        needed = "needs --part open-loop with prefork or thread-pool; or --part plateau with --workers both below and "
        needed += "at or above one --concurrency, no --fault"
        return Verdict("C25", restated, rule, NOT_MEASURED, needed)
    held = [_is_on_plateau(row) for row in full]
    gone = [_above(row, "of_line_lo_ratio", "of_line_hi_ratio", _GONE_RATIO) for row in enough]
    told = "; ".join(_plateau_text(row) for row in (*full, *enough))
    return Verdict("C25", restated, rule, _of_all([*held, *gone]), told)


def _pools(rows: Sequence[FlatRow], part: str) -> list[FlatRow]:
    """Rows of pools whose backend did nothing wrong: that would not be the pool's."""
    pools = [row for row in of(rows, part) if str(row["workers"]).isdigit() and row["model"] in _BY_CONNECTION]
    return [row for row in pools if not row["backend_failed_count"] and row["line_per_s"] is not None]


def _is_twin(row: FlatRow, full: FlatRow) -> bool:
    """The same requests, and a worker for each."""
    same = row["model"] == full["model"] and row["concurrency_count"] == full["concurrency_count"]
    return same and int(str(row["workers"])) >= int(row["concurrency_count"] or 0)


def _is_on_plateau(row: FlatRow) -> bool | None:
    low, high = number(row, "of_line_lo_ratio"), number(row, "of_line_hi_ratio")
    cpu = number(row, "server_cpu_hi_pct")
    if low is None or high is None or cpu is None:
        return None
    if high < 1 - _LINE_TOLERANCE or low > 1 + _LINE_TOLERANCE or cpu >= _IDLE_CPU_PCT:
        return False
    return True if low >= 1 - _LINE_TOLERANCE and high <= 1 + _LINE_TOLERANCE else None


def _plateau_text(row: FlatRow) -> str:
    ratio = text("of_line_ratio", row, "of_line_lo_ratio", "of_line_hi_ratio")
    loop = "offered" if row["part"] == OPEN else "requests"
    what = f"{row['model']} {row['workers']} workers, {row['concurrency_count']} {loop}"
    line = "W/S" if int(row["concurrency_count"] or 0) > int(str(row["workers"])) else "c/S"
    return f"{what}: {ratio} of {line}, CPU {format_column('x_pct', row['server_cpu_pct'])}"


def judge_c35(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C35: do most workers only wait? It depends on delay and CPU time: the surface says where."""
    restated = "most child processes hold their memory while they only wait"
    rule = (
        "a cell holds when, with as many requests as workers, ≥90 % of the workers' time is off the CPU and ≥50 % of "
        "them are asleep at a random look (low ends); CONFIRMED when every cell with a backend holds, REFUTED when "
        "none does, PARTLY when some do"
    )
    cells = of(rows, SURFACE)
    if not cells:
        return Verdict("C35", restated, rule, NOT_MEASURED, "needs --part surface")
    held = {id(row): _waits(row) for row in cells}
    told = "; ".join(
        f"S {format_column('x_ns', row['delay_ns'])}, CPU {format_column('x_ns', row['cpu_ns'])}: off CPU "
        f"{format_column('x_pct', row['off_cpu_pct'])}, asleep {format_column('x_pct', row['waiting_pct'])}, "
        f"S/(S+CPU) {_share(row):.2f}"
        for row in cells
    )
    verdict = _of_all(held[id(row)] for row in cells if number(row, "delay_ns"))
    return Verdict("C35", restated, rule, verdict, f"{told}; one worker alone breaks even at S = 9 CPU")


def _share(row: FlatRow) -> float:
    delay, work = number(row, "delay_ns") or 0.0, number(row, "cpu_ns") or 0.0
    return delay / (delay + work)


def _waits(row: FlatRow) -> bool | None:
    parts = (
        _above(row, "off_cpu_lo_pct", "off_cpu_hi_pct", _OFF_CPU_PCT),
        _above(row, "waiting_lo_pct", "waiting_hi_pct", _WAITING_PCT),
    )
    return False if False in parts else None if None in parts else True


def judge_c58(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C58: does a read return only for data, an end or a signal, and a write only when somebody reads?"""
    restated = "a synchronous call blocks until the data have been transferred or it fails"
    rule = (
        "a read returns only after data, the end or a signal, and a write of 16 MiB only after the other end began to "
        "read; a write of 1 KiB returns before: CONFIRMED when the first four hold and the last does not, PARTLY when "
        "a write returns before its data were read"
    )
    found = of(rows, CALLS)
    if len(found) < 5:
        return Verdict("C58", restated, rule, NOT_MEASURED, "needs --part calls")
    told = "; ".join(
        f"{row['model']}: blocked {format_column('x_ns', row['blocked_ns'])}"
        + ("" if row["after_ns"] is None else f", back {format_column('x_ns', row['after_ns'])} after")
        for row in found
    )
    if any(row["failed_count"] for row in found):
        return Verdict("C58", restated, rule, "REFUTED", told)
    is_early = any(
        row["after_ns"] is None and (number(row, "blocked_ns") or 0) < int(row["delay_ns"] or 0) for row in found
    )
    return Verdict("C58", restated, rule, "PARTLY" if is_early else "CONFIRMED", told)


JUDGES: Final[tuple[Judge, ...]] = (judge_c02, judge_c04, judge_c25, judge_c35, judge_c52, judge_c58)
