"""Judges of servers on what is inside them, and on what can only be read."""

from __future__ import annotations

from collections.abc import Sequence

from c10k_probe.experiment import NOT_MEASURED, FlatRow, Made, Verdict

from ._servers_design import APACHE, FILES, HELD, INSIDE, NODE, THREADS
from ._servers_verdicts import combined, in_words, interval_of, is_within, number, select

LARGE_BYTES = 10 << 20
WAVES_RATIO = 1.6
MOST_SPEED_UP = 1.2
SPARE_PCT = 10.0


def _rows(rows: Sequence[FlatRow], server: str, load: str) -> list[FlatRow]:
    return select(rows, server=server, arm=INSIDE, load=load, observed="off")


def judge_c05(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C05: does one more process of PHP take much?"""
    restated = "a process of PHP takes much memory"
    rule = (
        "CONFIRMED when one more process that has answered takes ≥10 MiB of PSS, page table and kernel stack (whole "
        "interval of the slope over 10 to 150 processes), REFUTED when less"
    )
    found = _rows(rows, APACHE, HELD)
    value = interval_of(found[0], "process", "_bytes") if found else None
    if value is None:
        return Verdict("C05", restated, rule, NOT_MEASURED, "needs --inside --server apache-prefork-php")
    others = (
        f"{name} {in_words('x_bytes', other)}"
        for name in ("pss", "private", "rss")
        if (other := number(found[0], f"process_{name}_bytes")) is not None
    )
    evidence = f"{in_words('x_bytes', value)}; by {', by '.join(others)}; cache of scripts {found[0]['script_cache']}"
    return Verdict("C05", restated, rule, combined([is_within(value, LARGE_BYTES, float("inf"))]), evidence)


def judge_c31(_: Sequence[FlatRow], __: Sequence[Made]) -> Verdict:
    """C31 is about who used a server."""
    return Verdict(
        "C31",
        "Cherokee is an open-source web server that Twitter used",
        "CONFIRMED when a dated source of either says that Twitter served with it; there is nothing to measure",
        "NOT-FALSIFIABLE",
        "no such source was found; its own pages describe event loops in several threads, last release 1.2",
        is_measured=False,
    )


def judge_c33(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C33: is Node.js asynchronous throughout?"""
    restated = "Node.js is asynchronous, non-blocking, on V8"
    rule = (
        "F1 it names V8, and all its TCP sockets are non-blocking; F2 opening files does not wait for threads: of six "
        f"that block, all begin at once, and the last ends <{WAVES_RATIO}× as late as the first; CONFIRMED when both "
        "hold, PARTLY when one does, REFUTED when none"
    )
    found = _rows(rows, NODE, FILES)
    sockets, nonblocking, jobs, at_once, ratio = (
        number(found[0], name) if found else None
        for name in ("sockets_count", "nonblocking_sockets_count", "jobs_count", "at_once_count", "wave_ratio")
    )
    if not sockets or nonblocking is None or jobs is None or at_once is None or ratio is None:
        return Verdict("C33", restated, rule, NOT_MEASURED, "needs --inside --server node")
    engine = found[0]["engine_version"]
    parts = [bool(engine) and nonblocking == sockets, at_once == jobs and ratio < WAVES_RATIO]
    evidence = (
        f"V8 {engine}; {nonblocking:.0f} of {sockets:.0f} sockets non-blocking; {at_once:.0f} of {jobs:.0f} blocking "
        f"opens at once, the last ended {ratio:.1f}× as late as the first: files go to a pool of threads"
    )
    return Verdict("C33", restated, rule, combined(parts), evidence)


def judge_c48(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C48: can JavaScript use several threads?"""
    restated = "Node.js has no multithreading"
    rule = (
        f"CONFIRMED when a loop in JavaScript split over as many worker threads as CPUs, four at most, runs "
        f"<{MOST_SPEED_UP}× as fast as on one (whole interval), REFUTED when faster"
    )
    found = _rows(rows, NODE, THREADS)
    value = interval_of(found[0], "threads", "_ratio") if found else None
    if value is None:
        return Verdict("C48", restated, rule, NOT_MEASURED, "needs --inside --server node --repeats 5, two CPUs")
    evidence = (
        f"{in_words('x_ratio', value)} over {found[0]['jobs_count']} threads in {found[0]['server_version']}; "
        "worker_threads came with 10.5 of 2018, after the article"
    )
    return Verdict("C48", restated, rule, combined([is_within(value, 0.0, MOST_SPEED_UP)]), evidence)


def judge_c54(rows: Sequence[FlatRow], _: Sequence[Made]) -> Verdict:
    """C54: does one thread fill an instance?"""
    restated = "one thread suits one cloud instance"
    rule = (
        "CONFIRMED when affinity and quota leave this instance one CPU; of n, REFUTED when an event loop at full load "
        f"leaves ≥(n - 1)/n - {SPARE_PCT:.0f} % of all CPU time (whole interval), else INCONCLUSIVE"
    )
    found = _rows(rows, NODE, "wrk")
    cpus = number(found[0], "cpus_count") if found else None
    value = interval_of(found[0], "left", "_pct") if found else None
    if cpus is None or (cpus > 1 and value is None):
        return Verdict("C54", restated, rule, NOT_MEASURED, "needs --inside --server node --repeats 5")
    if cpus <= 1 or value is None:
        return Verdict("C54", restated, rule, "CONFIRMED", f"{cpus:g} CPU")
    is_left = is_within(value, 100 * (cpus - 1) / cpus - SPARE_PCT, 100.0)
    evidence = (
        f"{cpus:g} CPUs; {NODE} at full load left {in_words('x_pct', value)} of their time, of which wrk took some"
    )
    return Verdict("C54", restated, rule, "REFUTED" if is_left else "INCONCLUSIVE", evidence)
