"""``blocking``: its cells, its rows, its findings, and each verdict by its rule, from made samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import pytest
from c10k_probe.experiments import _blocking_design as design
from c10k_probe.experiments import _blocking_judges as judges
from c10k_probe.experiments._blocking_check import check
from c10k_probe.experiments._blocking_findings import MEMORY, findings
from c10k_probe.experiments._blocking_open import steady_per_s, within_per_s
from c10k_probe.experiments._blocking_rows import BlockingRow, rows

from c10k_probe import native
from c10k_probe.exits import UsageError
from c10k_probe.experiment import NOT_MEASURED, FlatRow, Samples, Scalar, columns, flatten
from c10k_probe.parameters import build_parameters

MS = 10**6
SEED = 1
LAUNCHES = 5


def made(
    key: Mapping[str, str | int], facts: Mapping[str, Scalar], values: Mapping[str, Sequence[int]] | None = None
) -> list[Samples]:
    """Five launches that are nearly alike."""
    whole = {"delay_ns": 50 * MS, "cpu_ns": 0, "concurrency_count": 8, **key}
    key = {name: whole[name] for name in ("part", "model", "workers", "delay_ns", "cpu_ns", "concurrency_count")}
    scaled = lambda value, block: value * (1 + block / 1000) if isinstance(value, float) else value  # noqa: E731
    return [
        Samples(key, block, values or {}, {name: scaled(value, block) for name, value in facts.items()})
        for block in range(LAUNCHES)
    ]


def flat(samples: Sequence[Samples]) -> list[FlatRow]:
    """The rows as judges get them."""
    return [flatten(row) for row in rows(samples, SEED)]


def plateau(  # noqa: PLR0913, PLR0917 -- a row in a line
    model: str, workers: int, concurrency: int, ratio: float, cpu_pct: float = 5.0, part: str = "plateau"
) -> list[Samples]:
    line_per_s = min(workers, concurrency) * 20.0
    facts = {
        "requests_per_s": ratio * line_per_s,
        "of_line_ratio": ratio,
        "server_cpu_pct": cpu_pct,
        "line_per_s": line_per_s,
    }
    key = {"part": part, "model": model, "workers": str(workers), "concurrency_count": concurrency}
    return made(key, {**facts, "client_cpu_pct": 3.0, "backend_asked_count": 9, "server_asked_count": 9})


# --- cells ------------------------------------------------------------------------------------------------------------


def parameters(**given: str) -> design.BlockingParameters:
    """As the command line makes them."""
    return build_parameters(design.BlockingParameters, given, quick=False)


def test_every_part_has_cells_and_no_two_are_alike() -> None:
    cells = list(design.cells(parameters(part="all", model="all")))
    assert {cell.key["part"] for cell in cells} == set(design.PARTS)
    assert len({cell.name for cell in cells}) == len(cells)
    by_part = {part: [cell for cell in cells if cell.key["part"] == part] for part in design.PARTS}
    assert len(by_part["surface"]) == 4 * 3
    without_count = len(design.SHOWN) - len(design.WITH_WORKERS)
    assert len(by_part["plateau"]) == len(design.WITH_WORKERS) * 3 + without_count
    assert all(cell.needs.tasks_count >= 1 for cell in by_part["plateau"])
    workers = {cell.key["workers"] for cell in by_part["open-loop"]}
    assert workers == {"64", "136"}
    assert len(by_part["open-loop"]) == len(design.WITH_WORKERS) * len(workers)


def test_a_pool_is_offered_more_than_it_has_and_one_with_enough_workers_the_same() -> None:
    given = parameters(open_workers="8,26,64", workers="2")
    offered = {workers: design.open_concurrencies(given, workers) for workers in (8, 26, 64, 136)}
    assert offered == {8: (12,), 26: (12, 39), 64: (39, 96), 136: (96,)}
    assert [design.enough_workers(count) for count in (1, 12, 39, 96, 6144)] == [5, 26, 64, 136, 6458]
    assert design.open_concurrencies(parameters(open_workers="1"), 1) == (2,)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"fault_after": "5"}, "--fault-after says when --fault begins"),
        ({"delay": "never", "fault": "hang"}, "--delay never: .* --fault does nothing"),
        ({"delay": "never", "delay_kind": "pareto"}, "--delay never: .* --delay-kind does nothing"),
        ({"delay": "never", "part": "calls"}, "--delay is for --part plateau alone; add plateau"),
        ({"part": "open-loop", "workers": "512"}, "--workers is for .*, --open-workers for the workers of --part open"),
        ({"part": "limit", "open_delay": "4s"}, "--open-delay is for --part open-loop alone"),
        ({"part": "open-loop", "model": "epoll"}, "--part open-loop needs a pool"),
    ],
)
def test_what_would_do_nothing_is_refused(given: dict[str, str], complaint: str) -> None:
    check(parameters(delay="never", model="all"))
    check(parameters(fault="hang", fault_after="0"))
    with pytest.raises(UsageError, match=complaint):
        check(parameters(**given))


@pytest.mark.parametrize("option", [{"delay_kind": "pareto"}, {"keep_alive": "on"}, {"fault": "hang"}])
def test_what_only_the_plateau_takes_is_refused_without_it(option: dict[str, str]) -> None:
    check(parameters(part="plateau", model="epoll", **option))
    with pytest.raises(UsageError, match="is for --part plateau alone"):
        check(parameters(part="limit,calls", **option))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("delay", "0"), ("delay", "nevr"), ("workers", "0"), ("concurrency", "10001"), ("part", "all,x")),
        *(("delay_kind", "never"), ("open_delay", "1ms")),
    ],
)
def test_what_is_out_of_range_is_refused_by_its_name(name: str, text: str) -> None:
    with pytest.raises(UsageError, match="--" + name.replace("_", "-")):
        parameters(**{name: text})


def test_places_are_w_of_littles_law() -> None:
    found = {model: design.places(model, 4, 100) for model in design.SHOWN}
    assert found == {
        **dict.fromkeys(("epoll-pool", "prefork", "thread-pool", "asyncio-pool"), 4),
        **dict.fromkeys(("epoll-await", "thread", "fork", "asyncio", "uvloop", "python-threading"), 100),
        **dict.fromkeys(("epoll", "asyncio-blocking"), 1),
    }


def test_a_pool_whose_clients_would_starve_is_refused() -> None:
    check(parameters(keep_alive="on", workers="8", concurrency="8"))
    with pytest.raises(UsageError, match=r"--keep-alive on: with 8 workers, 2 of 10 connections"):
        check(parameters(keep_alive="on", workers="8", concurrency="10"))


# --- rows -------------------------------------------------------------------------------------------------------------


def test_a_row_has_what_was_measured_and_nothing_else() -> None:
    (row,) = flat(plateau("prefork", 8, 64, 1.0))
    assert set(row) == {column.name for column in columns(BlockingRow)}
    assert row["of_line_ratio"] == pytest.approx(1.002)
    assert (row["launches_count"], row["grade"], row["backend_asked_count"]) == (5, "ok", 45)
    assert [row[name] for name in ("added_ns", "memory_bytes", "in_worker_over_full_ratio", "failed_count")] == [
        None
    ] * 4


@pytest.mark.parametrize(
    ("change", "grade", "reason"),
    [
        ({"server_asked_count": 8}, "void", "the backend counted 45 questions, the server 40"),
        ({"failed_count": 2}, "shaky", "10 failed"),
        ({"backend_failed_count": 3}, "shaky", "the backend failed 15 requests"),
        ({"client_cpu_pct": 50.0, "backend_cpu_pct": 40.0}, "shaky", "client and backend used 90 % of their CPU"),
        ({"fault_after_count": 100}, "shaky", "fault had not begun: it comes after 100 questions"),
        ({"listen_drops_count": 2}, "shaky", "the accept queue dropped 10 SYNs"),
        ({"listen_drops_count": 2, "places_count": 64}, "shaky", "the accept queue dropped 10 SYNs"),
        ({"listen_drops_count": 2, "places_count": 8}, "ok", ""),  # more than it has places for, and none was idle
        (
            {"listen_drops_count": 2, "places_count": 8, "of_line_ratio": 0.9},
            "shaky",
            "the accept queue dropped 10 SYNs",
        ),
        (
            {"own_failure": "bind: EADDRINUSE", "served_connections_count": 63},
            "void",
            "could not open a connection: bind",
        ),
        (
            {"own_failure": "bind: EADDRINUSE", "served_connections_count": 64},
            "shaky",
            "could not open a connection: bind",
        ),
    ],
)
def test_what_makes_a_row_worse(change: dict[str, Scalar], grade: str, reason: str) -> None:
    samples = plateau("prefork", 8, 64, 1.0)
    changed = [Samples(item.key, item.block, item.values, {**item.facts, **change}) for item in samples]
    (row,) = flat(changed)
    assert row["grade"] == grade
    assert reason in str(row["grade_reason"])


@pytest.mark.parametrize(
    ("change", "limited_by"),
    [
        ({"places_count": 8}, "places"),
        ({"places_count": 64}, "requests"),
        ({"places_count": 8, "of_line_ratio": 0.9}, ""),
        ({"places_count": 8, "of_line_ratio": 0.9, "server_cpu_pct": 95.0 * len(native.split_cpus()[0])}, "server CPU"),
        ({"places_count": 8, "of_line_ratio": 0.9, "client_cpu_pct": 60.0, "backend_cpu_pct": 25.0}, "client CPU"),
        ({"places_count": 8, "of_line_ratio": None, "line_per_s": None}, ""),
    ],
)
def test_what_limits_a_load(change: dict[str, Scalar], limited_by: str) -> None:
    samples = plateau("prefork", 8, 64, 1.0)
    (row,) = flat([Samples(item.key, item.block, item.values, {**item.facts, **change}) for item in samples])
    assert row["limited_by"] == limited_by


def test_a_load_is_waited_for_until_its_queue_is_full_or_not_at_all() -> None:
    """A full queue takes its last request as long as all before it; thousands at once take the CPU a turn."""
    cycle_ns = 50 * MS
    assert design.closed_times_s("prefork", 8, 8, cycle_ns, 0.3) == pytest.approx((0.125 + 0.002 + 0.0004, 0.3))
    assert design.closed_times_s("prefork", 8, 64, cycle_ns, 0.3) == pytest.approx((0.05 * 9.5, 0.3))
    assert design.closed_times_s("prefork", 8, 4000, cycle_ns, 0.3) == pytest.approx((0.125 + 0.002 + 0.2, 0.3))
    assert design.closed_times_s("epoll-await", 4000, 4000, cycle_ns, 0.3) == pytest.approx((0.125 + 1 + 0.2, 1))
    assert design.closed_times_s("asyncio", 3000, 3000, cycle_ns, 0.3)[1] == pytest.approx(2)


def test_where_the_plateau_begins() -> None:
    """Where the line of a request for each worker meets the most that was answered: 16 requests at 97 % of it."""
    steps = {8: 0.5, 16: 0.97, 32: 1.0, 64: 0.99}
    samples = [
        item
        for count, share in steps.items()
        for item in made(
            {"part": "plateau", "model": "prefork", "workers": "16", "concurrency_count": count},
            {"requests_per_s": share * 16 * 20.0},
        )
    ]
    (found,) = findings(samples, SEED)
    assert (found.subject, found.column) == ("prefork, workers 16", "plateau_from_count")
    assert found.value is not None
    assert found.value.middle == pytest.approx(16 / 0.97)
    (missed,) = findings([item for item in samples if item.key["concurrency_count"] == 8], SEED)
    assert missed.value is None
    key = {"part": "plateau", "model": "prefork", "workers": "16", "delay_ns": "never"}
    assert findings(made(key, {"requests_per_s": 0.0}), SEED) == []  # there is no W/S to come near to


# --- verdicts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("above", "enough", "cpu_pct", "verdict"),
    [
        (1.0, 0.99, 5.0, "CONFIRMED"),
        (0.7, 0.5, 5.0, "REFUTED"),
        (1.0, 0.5, 5.0, "PARTLY"),
        (1.0, 0.99, 80.0, "PARTLY"),
        (0.951, 0.99, 5.0, "CONFIRMED"),
        (0.9495, 0.99, 5.0, "INCONCLUSIVE"),
    ],
)
def test_c25(above: float, enough: float, cpu_pct: float, verdict: str) -> None:
    samples = plateau("prefork", 8, 64, above, cpu_pct) + plateau("prefork", 64, 64, enough)
    assert judges.judge_c25(flat(samples), ()).verdict == verdict
    assert judges.judge_c25(flat(plateau("prefork", 8, 64, 1.0)), ()).verdict == "NOT-MEASURED"


def test_c25_goes_by_the_open_loop_where_there_is_one() -> None:
    samples = plateau("prefork", 8, 64, 0.7) + plateau("prefork", 64, 64, 0.5)
    samples += plateau("prefork", 8, 12, 1.0, part="open-loop") + plateau("prefork", 16, 12, 1.0, part="open-loop")
    found = judges.judge_c25(flat(samples), ())
    assert found.verdict == "CONFIRMED"
    assert "prefork 8 workers, 12 offered: 1.0" in found.evidence
    assert "requests:" not in found.evidence


@pytest.mark.parametrize(
    ("added_ms", "verdict"), [((1.0,), "REFUTED"), ((900.0,), "CONFIRMED"), ((1.0, 900.0), "PARTLY")]
)
def test_c02(added_ms: tuple[float, ...], verdict: str) -> None:
    samples = made({"part": "second-user", "model": "prefork", "workers": "1"}, {}, {"added": [10**9] * 10})
    for workers, added in enumerate(added_ms, 2):
        key = {"part": "second-user", "model": "prefork", "workers": str(workers)}
        samples += made(key, {}, {"added": [round(added * MS)] * 10})
    found = judges.judge_c02(flat(samples), ())
    assert found.verdict == verdict
    assert "prefork, 0 of 1 free:" in found.evidence  # shown, and not judged: no worker is free there


@pytest.mark.parametrize(
    ("ratios", "verdict"), [((1.0, 1.1), "REFUTED"), ((1.3, 1.5), "CONFIRMED"), ((1.0, 1.5), "PARTLY")]
)
def test_c04(ratios: tuple[float, float], verdict: str) -> None:
    base = {"part": "limit", "model": "prefork", "workers": "16", "delay_ns": 20 * MS}
    samples = made({**base, "concurrency_count": 16}, {"in_worker_ns": 20.0 * MS})
    for count, ratio in zip((32, 256), ratios, strict=True):
        samples += made({**base, "concurrency_count": count}, {"in_worker_ns": ratio * 20.0 * MS, "queue_ns": 1.0 * MS})
    assert judges.judge_c04(flat(samples), ()).verdict == verdict
    assert judges.judge_c04([], ()).verdict == "NOT-MEASURED"


@pytest.mark.parametrize(
    ("off_cpu", "asleep", "verdict"), [(95.0, 80.0, "CONFIRMED"), (95.0, 20.0, "REFUTED"), (50.0, 80.0, "REFUTED")]
)
def test_c35(off_cpu: float, asleep: float, verdict: str) -> None:
    samples: list[Samples] = []
    for delay, work in product((0, 10 * MS), (MS, 10 * MS)):
        key = {"part": "surface", "model": "prefork", "workers": "8", "delay_ns": delay, "cpu_ns": work}
        waits = {"off_cpu_pct": off_cpu, "waiting_pct": asleep} if delay else {"off_cpu_pct": 1.0, "waiting_pct": 1.0}
        samples += made(key, waits)
    found = judges.judge_c35(flat(samples), ())
    assert found.verdict == verdict  # cells without a backend do not count
    assert "S/(S+CPU) 0.91" in found.evidence


def one_cpu(model: str, rate: float, memory_bytes: float, count: int = 32) -> list[Samples]:
    workers = str(count) if model in design.POOLS else "per request"
    key = {"part": "one-cpu", "model": model, "workers": workers, "delay_ns": 10 * MS, "concurrency_count": count}
    facts = {"requests_per_s": 300.0, "requests_per_cpu_s": rate, "memory_bytes": memory_bytes}
    return made(key, facts)


@pytest.mark.parametrize(
    ("rate", "request_bytes", "verdict"),
    [
        (900.0, 9_000.0, "CONFIRMED"),
        (1500.0, 9_000.0, "REFUTED"),
        (900.0, 500.0, "REFUTED"),
        (900.0, 0.0, "INCONCLUSIVE"),
    ],
)
def test_c52(rate: float, request_bytes: float, verdict: str) -> None:
    """Both halves: CPU time and memory; without the memory of the others it is open."""
    samples: list[Samples] = []
    for model in ("epoll-await", "thread", "thread-pool", "prefork", "fork"):
        is_event = model == "epoll-await"
        each_bytes = 1_000.0 if is_event else request_bytes
        samples += one_cpu(model, 1000.0 if is_event else rate, 1e6)
        if each_bytes:
            samples += one_cpu(model, 1000.0 if is_event else rate, 1e6 + 96 * each_bytes, 128)
    made_of = findings(samples, SEED)
    assert {item.column for item in made_of} == {MEMORY}
    found = judges.judge_c52(flat(samples), made_of)
    assert found.verdict == verdict
    assert "epoll-await 1002 B [1000 B, 1004 B]" in found.evidence.partition("M for each request")[2]
    assert judges.judge_c52([], ()).verdict == "NOT-MEASURED"


def test_rates_of_batches_and_of_single_moments() -> None:
    """Of batches of 4 every 10 ms a window that holds 3 of them or 4 must say the same."""
    moments = [10 * MS * batch + answer for batch in range(1, 12) for answer in range(4)]
    for ends_ms in (58, 62):
        assert steady_per_s(moments, (25 * MS, ends_ms * MS)) == pytest.approx(400, rel=1e-3)
    assert within_per_s([1, 2, 30 * MS], (0, 20 * MS)) == pytest.approx(100)
    assert steady_per_s([30 * MS], (20 * MS, 40 * MS)) == pytest.approx(50)  # nothing before


@pytest.mark.parametrize(
    ("small_ns", "failed", "verdict"), [(9_000, 0, "PARTLY"), (60 * MS, 0, "CONFIRMED"), (9_000, 1, "REFUTED")]
)
def test_c58(small_ns: int, failed: int, verdict: str) -> None:
    samples: list[Samples] = []
    for name in design.CALL_NAMES:
        values = {"blocked": [small_ns]} if "fits" in name else {"blocked": [51 * MS], "after": [MS]}
        key = {"part": "calls", "model": name, "workers": "1", "concurrency_count": 1}
        samples += made(key, {"failed_count": failed}, values)
    assert judges.judge_c58(flat(samples), ()).verdict == verdict
    assert judges.judge_c58(flat(samples[:LAUNCHES]), ()).verdict == "NOT-MEASURED"


def test_rows_stand_in_the_order_of_their_numbers() -> None:
    """Not of their digits: the last concurrency of a launch stands for it where only one is shown."""
    samples = [item for count in (8, 256, 32, 16) for item in plateau("prefork", 8, count, 1.0)]
    samples += [item for workers in (128, 16) for item in plateau("prefork", workers, 8, 1.0)]
    found = [(row.workers, row.concurrency_count) for row in rows(samples, SEED)]
    assert found == [("8", 8), ("8", 16), ("8", 32), ("8", 256), ("16", 8), ("128", 8)]


def test_evidence_says_where_there_is_no_interval() -> None:
    """One launch has none."""
    samples = [plateau("prefork", 8, 32, 1.0)[0], plateau("prefork", 32, 32, 0.98)[0]]
    found = judges.judge_c25(flat(samples), ())
    assert found.verdict == "INCONCLUSIVE"
    assert "(no interval)" in found.evidence
    assert "[, ]" not in found.evidence


def test_a_backend_that_fails_is_no_verdict_on_the_pool() -> None:
    samples = [*plateau("prefork", 8, 32, 0.2), *plateau("prefork", 32, 32, 0.2)]
    assert judges.judge_c25(flat(samples), ()).verdict == "REFUTED"
    for item in samples:
        item.facts["backend_failed_count"] = 3  # type: ignore[index]
    assert judges.judge_c25(flat(samples), ()).verdict == NOT_MEASURED


def test_a_void_load_is_no_plateau() -> None:
    samples = plateau("prefork", 8, 8, 1.0) + plateau("prefork", 8, 16, 1.0)
    assert findings(samples, SEED)[0].value is not None
    for item in samples:
        item.facts["backend_asked_count"] = 8  # type: ignore[index]
    assert [row.grade for row in rows(samples, SEED)] == ["void", "void"]
    assert findings(samples, SEED) == []


@pytest.mark.parametrize(("part", "value"), [("calls", "blocked"), ("second-user", "added")])
def test_one_launch_alone_is_shaky(part: str, value: str) -> None:
    samples = made({"part": part, "model": "prefork", "workers": "2"}, {}, {value: [MS] * 3})
    assert [row.grade for row in rows(samples, SEED)] == ["ok"]
    assert [row.grade for row in rows(samples[:1], SEED)] == ["shaky"]
