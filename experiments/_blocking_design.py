"""What ``blocking`` measures: its parameters, its cells, and how many requests a model can have under way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Final

from c10k_probe.exits import UsageError
from c10k_probe.experiment import Cell
from c10k_probe.limits import Needs
from c10k_probe.parameters import Parameters, parameter
from c10k_probe.servers import POOLS, REFERENCE_MODELS
from c10k_probe.servers.backend import DELAYS, FAULTS

MS: Final = 10**6
S: Final = 10**9

PLATEAU, SECOND, LIMIT, SURFACE, ONE_CPU, CALLS = "plateau", "second-user", "limit", "surface", "one-cpu", "calls"
PARTS: Final = (PLATEAU, SECOND, LIMIT, SURFACE, ONE_CPU, CALLS)
SHOWN: Final = ("epoll", "epoll-await", "epoll-pool", "prefork", "thread-pool", "thread", "fork")
WITH_WORKERS: Final = (*POOLS, "epoll-pool")
"""Models of which --workers are as many requests as they have under way at once."""

WORKER_NEEDS: Final[Mapping[str, Needs]] = {**POOLS, "epoll-pool": POOLS["thread-pool"]}
SERVERS_COUNT: Final = 10  # second-user: trials of a launch, at once, each on a server of its own: they only wait
AS_MANY_AS_COME: Final = ("epoll-await", "thread", "fork")
PER_REQUEST: Final = "per request"
SECOND_MODELS: Final = {
    "prefork": (1, 2, 8),
    "thread-pool": (2,),
    "thread": (0,),
    "fork": (0,),
    "epoll": (0,),
    "epoll-await": (0,),
}
SECOND_HELD_NS: Final = S
LIMIT_WORKERS: Final = 16
LIMIT_CONCURRENCIES: Final = (8, 16, 32, 256)
LIMIT_DELAY_NS: Final = 20 * MS
SURFACE_WORKERS: Final = 8
SURFACE_DELAYS: Final = (0, MS, 10 * MS, 100 * MS)
SURFACE_WORK: Final = (50_000, MS, 10 * MS)
ONE_CPU_CONCURRENCY: Final = 32
ONE_CPU_WORK: Final = ((0, 0), (0, 100_000), (0, MS), (10 * MS, 0))  # backend's delay, CPU
ONE_CPU_MODELS: Final = ("epoll", "epoll-await", "thread", "thread-pool", "prefork", "fork")
CALL_NAMES: Final = ("read: data", "read: end", "read: signal", "write 1 KiB: fits", "write 16 MiB: reader")


@dataclass(frozen=True)
class BlockingParameters(Parameters):
    """What may be chosen on the command line."""

    part: tuple[str, ...] = parameter(
        (PLATEAU, CALLS),
        "What to ask, comma-separated, or all: throughput against Little's law, what a second user waits for, time in "
        "a worker above the limit, how long workers wait, requests for a CPU second, blocking calls alone.",
        choices=PARTS,
        many=True,
    )
    model: tuple[str, ...] = parameter(
        ("epoll", "epoll-await", "prefork", "thread-pool"),
        "Ways to serve for the plateau, comma-separated, or all.",
        choices=SHOWN,
        many=True,
        quick=("epoll", "epoll-await", "thread-pool"),
    )
    delay: int = parameter(
        50 * MS, "The backend's delay, or its mean.", dimension="duration", minimum=MS, maximum=10 * S, quick=20 * MS
    )
    delay_kind: str = parameter(
        "fixed",
        "How it is spread: fixed, jittered (half of it to three halves), pareto (heavy-tailed).",
        choices=tuple(kind for kind in DELAYS if kind != "never"),
    )
    workers: tuple[int, ...] = parameter(
        (8, 128), "Workers of the pools.", minimum=1, maximum=4096, many=True, ranges=True, quick=(4, 64)
    )
    concurrency: tuple[int, ...] = parameter(
        (8, 32, 128), "Requests under way.", minimum=1, maximum=10_000, many=True, ranges=True, quick=(4, 64)
    )
    keep_alive: str = parameter(
        "off",
        "Whether a connection is for many requests. A pool's worker then serves one client only.",
        choices=("off", "on"),
    )
    fault: str = parameter(
        "none",
        "What the backend does wrong in the plateau, from question --fault-after on: it must show. "
        "hang with --fault-after 0 never answers.",
        choices=FAULTS,
    )
    fault_after: int = parameter(100, "How many questions it takes before --fault.", minimum=0, maximum=10**9)
    cycles: int = parameter(
        6, "How long requests are counted, in delays of the backend; 300 ms at least.", minimum=2, maximum=1000, quick=5
    )


def places(model: str, workers_count: int, concurrency_count: int) -> int:
    """Requests that the model can have under way at a time: W of Little's law."""
    if model in WITH_WORKERS:
        return workers_count
    return concurrency_count if model in AS_MANY_AS_COME else 1


def workers_text(model: str, workers_count: int) -> str:
    """As the rows have it: a number, or that there is one for each request."""
    if model in WITH_WORKERS:
        return str(workers_count)
    return PER_REQUEST if model in AS_MANY_AS_COME else "1"


def check(parameters: BlockingParameters) -> None:
    """Raise ``UsageError`` for what cannot be measured together."""
    if PLATEAU not in parameters.part:
        for name, usual in (("delay_kind", "fixed"), ("keep_alive", "off"), ("fault", "none")):
            if getattr(parameters, name) != usual:
                option = "--" + name.replace("_", "-")
                raise UsageError(f"{option} is for the plateau alone; add plateau to --part, or leave {option} out")
    if PLATEAU in parameters.part and parameters.keep_alive == "on" and set(parameters.model) & set(POOLS):
        starved = [(w, c) for w in parameters.workers for c in parameters.concurrency if c > w]
        if starved:
            w, c = starved[0]
            raise UsageError(
                f"--keep-alive on: with {w} workers, {c - w} of {c} connections of a pool would never be served; "
                "leave it off, or name only models and --concurrency that fit"
            )


@dataclass(frozen=True)
class _Load:
    """A cell in the making. most_count: connections at its last step."""

    part: str
    model: str
    workers_count: int
    delay_ns: int
    cpu_ns: int
    most_count: int
    weight: float
    servers_count: int = 1

    def cell(self) -> Cell:
        """A launch; a ramp over concurrencies is one launch."""
        key: dict[str, str | int] = {"part": self.part, "model": self.model}
        key["workers"] = workers_text(self.model, self.workers_count)
        return Cell({**key, "delay_ns": self.delay_ns, "cpu_ns": self.cpu_ns}, self._needs(), self.weight)

    def _needs(self) -> Needs:
        """Both ends of each connection and of the exchange for it; the tasks.

        Descriptors: of the process with most of them, the server. epoll-await shares connections to the backend where
        it can open no more, so its clients' are what it must have.
        """
        count = self.most_count
        # what a connection takes of epoll-await and thread is in per_connection, below
        known = {"epoll-await": 0, "thread": count}
        needs = Needs(
            descriptors_count=64 + known.get(self.model, count + self.workers_count),
            system_descriptors_count=64 + 4 * count,
            memory_bytes=100 << 20,
        )
        if self.model not in REFERENCE_MODELS:
            return needs
        model = REFERENCE_MODELS[self.model]
        if self.model in WITH_WORKERS:
            own = Needs(tasks_count=1).plus(WORKER_NEEDS[self.model].times(self.workers_count))
        else:
            own = model.fixed.plus(model.per_connection.times(count if self.model in AS_MANY_AS_COME else 0))
        return needs.plus(own.times(self.servers_count))


def _plateau(parameters: BlockingParameters) -> Iterator[_Load]:
    most_count = max(parameters.concurrency)
    for model in parameters.model:
        for workers_count in parameters.workers if model in WITH_WORKERS else (0,):
            weight = sum(
                0.2 + 1.4 * window_s(parameters.delay, parameters.cycles) + count * parameters.delay / S / least
                for count in parameters.concurrency
                if (least := places(model, workers_count, count))
            )
            yield _Load(PLATEAU, model, workers_count, parameters.delay, 0, most_count, 0.3 + weight)


def window_s(delay_ns: int, cycles: int) -> float:
    """How long requests are counted, in seconds."""
    return max(0.3, cycles * delay_ns / S)


def _second_user() -> Iterator[_Load]:
    for model, counts in SECOND_MODELS.items():
        for workers_count in counts:
            yield _Load(SECOND, model, workers_count, SECOND_HELD_NS, 0, 2, 2.5, SERVERS_COUNT)


def _one_cpu() -> Iterator[_Load]:
    for model, (delay_ns, cpu_ns) in product(ONE_CPU_MODELS, ONE_CPU_WORK):
        if model != "epoll-await" or delay_ns > 0:
            workers_count = ONE_CPU_CONCURRENCY if model in POOLS else 0
            yield _Load(ONE_CPU, model, workers_count, delay_ns, cpu_ns, ONE_CPU_CONCURRENCY, 0.9)


def cells(parameters: BlockingParameters) -> Iterator[Cell]:
    """Every launch of the parts that were chosen; the concurrencies of one are its steps."""
    loads: dict[str, Iterable[_Load]] = {
        PLATEAU: _plateau(parameters),
        SECOND: _second_user(),
        LIMIT: [_Load(LIMIT, "prefork", LIMIT_WORKERS, LIMIT_DELAY_NS, 0, max(LIMIT_CONCURRENCIES), 3)],
        SURFACE: (
            _Load(SURFACE, "prefork", SURFACE_WORKERS, delay_ns, cpu_ns, SURFACE_WORKERS, 0.9)
            for delay_ns, cpu_ns in product(SURFACE_DELAYS, SURFACE_WORK)
        ),
        ONE_CPU: _one_cpu(),
        CALLS: (_Load(CALLS, name, 0, 50 * MS, 0, 1, 0.1) for name in CALL_NAMES),
    }
    for part in parameters.part:
        yield from (load.cell() for load in loads[part])
