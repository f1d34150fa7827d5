"""What ``blocking`` measures: its parameters, its cells, and how many requests a model can have under way."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Final

from c10k_probe.experiment import Cell
from c10k_probe.limits import Needs
from c10k_probe.parameters import Parameters, parameter
from c10k_probe.servers import ASKING_PYTHON_MODELS, POOLS, REFERENCE_MODELS, ServerModel, ServerOptions
from c10k_probe.servers.backend import DELAYS, FAULTS

MS: Final = 10**6
S: Final = 10**9

PLATEAU, OPEN, SECOND, LIMIT = "plateau", "open-loop", "second-user", "limit"
SURFACE, ONE_CPU, CALLS = "surface", "one-cpu", "calls"
PARTS: Final = (PLATEAU, OPEN, SECOND, LIMIT, SURFACE, ONE_CPU, CALLS)
SERVED: Final[Mapping[str, ServerModel]] = {
    **{
        name: REFERENCE_MODELS[name]
        for name in ("epoll", "epoll-await", "epoll-pool", "prefork", "thread-pool", "thread", "fork")
    },
    **ASKING_PYTHON_MODELS,
}
SHOWN: Final = tuple(SERVED)
WITH_WORKERS: Final = (*POOLS, "epoll-pool", "asyncio-pool")
"""Models of which --workers are as many requests as they have under way at once."""

WORKER_NEEDS: Final[Mapping[str, Needs]] = {
    **POOLS,
    **dict.fromkeys(("epoll-pool", "asyncio-pool"), POOLS["thread-pool"]),
}
NEVER: Final = "never"  # instead of a delay
LEAST_WINDOW_S: Final = 0.3
REQUESTS_PER_S, PYTHON_REQUESTS_PER_S = 4000, 1500  # that two CPUs answer at least, each on a new connection
CONNECTIONS_PER_S: Final = 20_000  # that a client opens
FILL_MOST_S: Final = 1.0  # what is waited for a queue to fill; a longer one is told by Little's law alone
STEP_S: Final = 0.15  # what a load takes besides: its client's start, readings, the rest of the queue
LAUNCH_S, WORKER_S = 0.2, 0.0006  # a server and its backend; each of its workers
OVERLOAD: Final = 1.5  # open-loop: requests offered for each worker
FAULT_AFTER_COUNT: Final = 100
NEVER_TIMEOUT_NS: Final = 100 * MS  # after which a server gives up a backend that hangs
WARMUP_CYCLES: Final = 2
SERVERS_COUNT: Final = 10  # second-user: trials of a launch, at once, each on a server of its own: they only wait
AS_MANY_AS_COME: Final = ("epoll-await", "thread", "fork", "asyncio", "uvloop", "python-threading")
PER_REQUEST: Final = "per request"
SECOND_MODELS: Final = {
    "prefork": (1, 2, 8),
    "thread-pool": (2,),
    "thread": (0,),
    "fork": (0,),
    "epoll": (0,),
    "epoll-await": (0,),
    "python-threading": (0,),
    "asyncio-blocking": (0,),
    "asyncio": (0,),
}
SECOND_HELD_NS: Final = S
LIMIT_WORKERS: Final = 16
LIMIT_CONCURRENCIES: Final = (8, 16, 32, 256)
LIMIT_DELAY_NS: Final = 20 * MS
SURFACE_WORKERS: Final = 8
SURFACE_DELAYS: Final = (0, MS, 10 * MS, 100 * MS)
SURFACE_WORK: Final = (50_000, MS, 10 * MS)
ONE_CPU_CONCURRENCY: Final = 32
ONE_CPU_MORE: Final = 128
ONE_CPU_WORK: Final = ((0, 0), (0, 100_000), (0, MS), (10 * MS, 0))  # backend's delay, CPU
ONE_CPU_MODELS: Final = ("epoll", "epoll-await", "thread", "thread-pool", "prefork", "fork")
CALL_NAMES: Final = ("read: data", "read: end", "read: signal", "write 1 KiB: fits", "write 16 MiB: reader")


@dataclass(frozen=True)
class BlockingParameters(Parameters):
    """What may be chosen on the command line."""

    part: tuple[str, ...] = parameter(
        (PLATEAU, OPEN, CALLS),
        "What to ask, comma-separated, or all: throughput against Little's law, in a closed and in an open loop, what "
        "a second user waits for, time in a worker above the limit, how long workers wait, requests for a CPU second "
        "and memory, blocking calls alone.",
        choices=PARTS,
        many=True,
    )
    model: tuple[str, ...] = parameter(
        ("epoll", "epoll-await", "prefork", "thread-pool"),
        "Ways to serve for the plateau (those with workers for the open loop, too), comma-separated, or all.",
        choices=SHOWN,
        many=True,
        quick=("epoll", "epoll-await", "thread-pool"),
    )
    delay: int | str = parameter(
        50 * MS,
        "The backend's delay in the plateau, or its mean; or never: it gives no answer.",
        dimension="duration",
        minimum=MS,
        maximum=10 * S,
        quick=20 * MS,
        words=(NEVER,),
    )
    delay_kind: str = parameter(
        "fixed",
        "How it is spread: fixed, jittered (half of it to three halves), pareto (heavy-tailed).",
        choices=tuple(kind for kind in DELAYS if kind != NEVER),
    )
    workers: tuple[int, ...] = parameter(
        (8, 64, 512),
        "Workers of the pools in the plateau.",
        minimum=1,
        maximum=4096,
        many=True,
        ranges=True,
        quick=(4, 64),
    )
    concurrency: tuple[int, ...] = parameter(
        (8, 512, 4096),
        "Requests under way in the plateau.",
        minimum=1,
        maximum=10_000,
        many=True,
        ranges=True,
        quick=(4, 64, 1024),
    )
    open_workers: tuple[int, ...] = parameter(
        (64,), "Workers of the pools in the open loop.", minimum=1, maximum=4096, many=True, ranges=True
    )
    open_delay: int = parameter(
        100 * MS,
        "The backend's delay in the open loop. The CPU must be able to answer 1.5 W/S: for 512 workers 500ms, for 4096 "
        "4s.",
        dimension="duration",
        minimum=10 * MS,
        maximum=10 * S,
    )
    keep_alive: str = parameter(
        "off",
        "Whether a connection is for many requests. A pool's worker then serves one client only.",
        choices=("off", "on"),
    )
    fault: str = parameter(
        "none",
        "What the backend does wrong in the plateau, from question --fault-after on: it must show.",
        choices=FAULTS,
    )
    fault_after: int | None = parameter(
        None,
        f"How many questions it takes before --fault; {FAULT_AFTER_COUNT} if not given.",
        minimum=0,
        maximum=10**9,
    )
    cycles: int = parameter(
        6, "How long requests are counted, in delays of the backend; 300 ms at least.", minimum=2, maximum=1000
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


@dataclass(frozen=True)
class _Load:
    """A cell in the making. most_count: connections at its last step."""

    part: str
    model: str
    workers_count: int
    delay_ns: int | str
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
        known = {"epoll-await": 0, **dict.fromkeys(("thread", "asyncio", "uvloop", "python-threading"), count)}
        needs = Needs(
            descriptors_count=64 + known.get(self.model, count + self.workers_count),
            system_descriptors_count=64 + 4 * count,
            memory_bytes=100 << 20,
        )
        if self.model not in SERVED:
            return needs
        model = SERVED[self.model]
        if self.model in WITH_WORKERS:
            own = Needs(tasks_count=1).plus(WORKER_NEEDS[self.model].times(self.workers_count))
        else:
            own = model.fixed.plus(model.per_connection.times(count if self.model in AS_MANY_AS_COME else 0))
        return needs.plus(own.times(self.servers_count))


def closed_times_s(model: str, places_count: int, count: int, cycle_ns: int, window_s: float) -> tuple[float, float]:
    """(warm-up, window) of a closed loop, in seconds: until all are connected and the queue is as long as it gets.

    Of thousands that are served at once the CPU has to do for longer than they wait: a turn of all is counted then.
    The window begins and ends half a delay after requests that began together have their answers: none of these
    batches is cut, half of it outside.
    """
    cycle_s = cycle_ns / S
    rate_per_s = PYTHON_REQUESTS_PER_S if model in ASKING_PYTHON_MODELS else REQUESTS_PER_S
    turn_s, fill_s = min(count, places_count) / rate_per_s, cycle_s * (count / places_count + 1)
    warmup_s = max(0.1, WARMUP_CYCLES * cycle_s + turn_s + count / CONNECTIONS_PER_S)
    if count > places_count and fill_s <= FILL_MOST_S:
        warmup_s = max(warmup_s, fill_s)
    return warmup_s + cycle_s / 2, max(window_s, turn_s)


def _plateau(parameters: BlockingParameters) -> Iterator[_Load]:
    most_count = max(parameters.concurrency)
    delay_ns = NEVER_TIMEOUT_NS if isinstance(parameters.delay, str) else parameters.delay
    for model in parameters.model:
        for workers_count in parameters.workers if model in WITH_WORKERS else (0,):
            weight_s = LAUNCH_S + workers_count * WORKER_S
            for count in parameters.concurrency:
                places_count = places(model, workers_count, count)
                window = window_s(delay_ns, parameters.cycles)
                weight_s += STEP_S + sum(closed_times_s(model, places_count, count, delay_ns, window))
                weight_s += count / REQUESTS_PER_S / 2  # the rest of the queue, without a delay
            yield _Load(PLATEAU, model, workers_count, parameters.delay, 0, most_count, weight_s)


def offered_count(workers_count: int) -> int:
    """Requests offered at a time, the arrivals' rate times the delay, to a pool that is to have too few workers."""
    return max(workers_count + 1, round(OVERLOAD * workers_count))


def enough_workers(count: int) -> int:
    """Workers of which all are busy once in some 30,000 moments when ``count`` are on the mean: four standard
    deviations of a Poisson process more (the number in M/G/infinity)."""
    return count + math.ceil(4 * math.sqrt(count))


def open_concurrencies(parameters: BlockingParameters, workers_count: int) -> tuple[int, ...]:
    """Requests offered at a time to a pool of so many workers: more than it has, where it was asked for, and what a
    pool that was asked for is offered and this one has enough workers for; the lower load first."""
    offered = {offered_count(asked): enough_workers(offered_count(asked)) for asked in parameters.open_workers}
    twins = [count for count, enough_count in offered.items() if enough_count == workers_count]
    own = [offered_count(workers_count)] if workers_count in parameters.open_workers else []
    return tuple(sorted({*twins, *own}))


def open_connections(parameters: BlockingParameters, workers_count: int, count: int) -> int:
    """Connections that are open at once, at most: what comes beyond them waits at the sender.

    Above the pool's places the accept queue takes the rest, but for its last quarter: a worker that has answered is not
    back at once.
    """
    if count <= workers_count:
        return count + 64 + 8 * math.isqrt(count)  # eight standard deviations of a Poisson process
    all_count = round(count * (WARMUP_CYCLES + parameters.cycles) * 1.2) + 64
    return min(all_count, workers_count + ServerOptions().backlog_count * 3 // 4)


def _open(parameters: BlockingParameters) -> Iterator[_Load]:
    asked = parameters.open_workers
    counts = sorted({*asked, *(enough_workers(offered_count(workers_count)) for workers_count in asked)})
    for model in parameters.model:
        for workers_count in counts if model in WITH_WORKERS else ():
            offered = open_concurrencies(parameters, workers_count)
            step_s = (
                STEP_S + WARMUP_CYCLES * parameters.open_delay / S + window_s(parameters.open_delay, parameters.cycles)
            )
            most_count = max(open_connections(parameters, workers_count, count) for count in offered)
            weight = LAUNCH_S + workers_count * WORKER_S + len(offered) * step_s
            yield _Load(OPEN, model, workers_count, parameters.open_delay, 0, most_count, weight)


def window_s(delay_ns: int, cycles: int) -> float:
    """How long requests are counted, in seconds."""
    return max(LEAST_WINDOW_S, cycles * delay_ns / S)


def _second_user() -> Iterator[_Load]:
    for model, counts in SECOND_MODELS.items():
        for workers_count in counts:
            yield _Load(SECOND, model, workers_count, SECOND_HELD_NS, 0, 2, 0.6, SERVERS_COUNT)


def one_cpu_concurrencies(model: str, workers_count: int, delay_ns: int) -> tuple[int, ...]:
    """Requests under way; with a wait also four times as many, for the memory that each takes. A pool has a worker for
    each."""
    if model in POOLS:
        return (workers_count,)
    has_more = delay_ns > 0 and model in AS_MANY_AS_COME
    return (ONE_CPU_CONCURRENCY, ONE_CPU_MORE) if has_more else (ONE_CPU_CONCURRENCY,)


def _one_cpu() -> Iterator[_Load]:
    for model, (delay_ns, cpu_ns) in product(ONE_CPU_MODELS, ONE_CPU_WORK):
        if model != "epoll-await" or delay_ns > 0:
            pools = (ONE_CPU_CONCURRENCY, ONE_CPU_MORE) if delay_ns > 0 else (ONE_CPU_CONCURRENCY,)
            for workers_count in pools if model in POOLS else (0,):
                most_count = max(one_cpu_concurrencies(model, workers_count, delay_ns))
                yield _Load(ONE_CPU, model, workers_count, delay_ns, cpu_ns, most_count, 0.45)


def cells(parameters: BlockingParameters) -> Iterator[Cell]:
    """Every launch of the parts that were chosen; the concurrencies of one are its steps."""
    loads: dict[str, Iterable[_Load]] = {
        PLATEAU: _plateau(parameters),
        OPEN: _open(parameters),
        SECOND: _second_user(),
        LIMIT: [_Load(LIMIT, "prefork", LIMIT_WORKERS, LIMIT_DELAY_NS, 0, max(LIMIT_CONCURRENCIES), 2.1)],
        SURFACE: (
            _Load(SURFACE, "prefork", SURFACE_WORKERS, delay_ns, cpu_ns, SURFACE_WORKERS, 0.5)
            for delay_ns, cpu_ns in product(SURFACE_DELAYS, SURFACE_WORK)
        ),
        ONE_CPU: _one_cpu(),
        CALLS: (_Load(CALLS, name, 0, 50 * MS, 0, 1, 0.1) for name in CALL_NAMES),
    }
    for part in parameters.part:
        yield from (load.cell() for load in loads[part])
