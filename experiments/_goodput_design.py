"""What goodput varies: models, work, connections, loads and numbers of clients; and how long each step takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from c10k_probe.exits import UsageError
from c10k_probe.experiment import Cell
from c10k_probe.limits import Needs
from c10k_probe.parameters import Parameters, parameter
from c10k_probe.servers import CLIENT_END, MODELS, POOLS, PYTHON_MODELS, REAL_SERVERS, ServerModel, ServerOptions
from c10k_probe.servers.reference import REFERENCE_MODELS

NS_PER_S: Final = 1_000_000_000
NS_PER_MS: Final = 1_000_000
OPEN, CLOSED = "open", "closed"
FULL_PCT: Final = 100  # a closed loop offers as much as is taken
CAPACITY_CLIENTS: Final = 64  # in a closed loop: enough to keep one CPU busy, few enough to be served at once
KEPT_MOST: Final = 256  # kept connections: as many as a pool of its own choice serves at once
WARMUP_NS: Final = 100 * NS_PER_MS
CLOSED_NS: Final = 250 * NS_PER_MS  # of a closed loop: on a busy machine a shorter one may see no answer
ROUND_MOST_NS: Final = 5 * NS_PER_S  # of all clients of a closed loop: as long as each has patience
PATIENCE_BOUNDS: Final = 2  # after so many bounds a client gives up
SHORT_NS: Final = 250 * NS_PER_MS  # up to capacity: a queue of some dozens of requests, each of less than 1 ms
OVERLOADED_BOUNDS: Final = 0.5  # above it the burst is the queue; what is left to settle is how the server takes it
DEFAULT_MODELS: Final = ("epoll", "thread", "fork")
HTTP_MODELS: Final = tuple(name for name, model in REFERENCE_MODELS.items() if "http" in model.protocols)
SMALL_PAGE: Final = "200us"
WORKS: Final[Mapping[str, tuple[int | None, int | None]]] = {
    "0": (None, None),
    "50us": (50_000, None),
    SMALL_PAGE: (200_000, None),
    "5ms-sleep": (None, 5 * NS_PER_MS),
}
"""Work of a request by its name: CPU time and sleep, in nanoseconds."""
OWN_PAGE: Final = "own-page"  # the work of what is not ours to give work to: its own small page
SERVERS: Final[Mapping[str, ServerModel]] = {**PYTHON_MODELS, **REAL_SERVERS}
"""What answers with a page of its own, by name."""
EVENT_LOOP, AWAITING_LOOP = "epoll", "epoll-await"
_GO_ON: Final = (AWAITING_LOOP, "epoll-pool", "thread", "fork", *POOLS)  # while a handler sleeps; others stand still
_GUESSED_NS: Final = 150_000  # of CPU for a request besides its work, for the estimate of the time left alone
_OWN_NEEDS = Needs(descriptors_count=32, system_descriptors_count=64)


@dataclass(frozen=True)
class GoodputParameters(Parameters):
    """What may be chosen on the command line."""

    model: tuple[str, ...] = parameter(
        DEFAULT_MODELS,
        "Ways to serve a connection, comma-separated, or all.",
        choices=HTTP_MODELS,
        many=True,
        quick=("epoll", "fork"),
    )
    server: tuple[str, ...] | None = parameter(
        None,
        "Real servers and servers in Python, comma-separated, or all; they answer with a page of their own.",
        choices=tuple(SERVERS),
        many=True,
    )
    keep_alive: tuple[str, ...] = parameter(
        ("off",),
        "A new connection for each request (off), kept ones (on), or off,on.",
        choices=("off", "on"),
        many=True,
    )
    work: tuple[str, ...] = parameter(
        (SMALL_PAGE,),
        "What the handler does for each request: CPU time, or a sleep, which blocks an event loop as a whole.",
        choices=tuple(WORKS),
        many=True,
    )
    load: tuple[int, ...] = parameter(
        (10, 90, 120, 300),
        "Offered loads, in percent of the capacity of each launch.",
        minimum=1,
        maximum=10_000,
        many=True,
        quick=(50, 150),
    )
    clients: tuple[int, ...] = parameter(
        (8, 64, 256),
        "Numbers of clients in a closed loop, each with one request under way.",
        minimum=1,
        maximum=20_000,
        many=True,
        quick=(8, 64),
    )
    bound: int = parameter(
        NS_PER_S,
        "An answer later than this is of no use, in whole milliseconds.",
        dimension="duration",
        minimum=NS_PER_MS,
        maximum=60 * NS_PER_S,
    )
    window: int = parameter(
        500 * NS_PER_MS,
        "How long a load is counted after its queue has settled, in whole milliseconds.",
        dimension="duration",
        minimum=10 * NS_PER_MS,
        maximum=600 * NS_PER_S,
    )
    connections: int = parameter(
        16_000,
        "Connections of a load open at a time, at most; with --keep-alive on 256.",
        minimum=1,
        maximum=50_000,
    )


def base_of(work: str) -> str:
    """The event loop that others are compared with: one that does not stand still while a handler sleeps."""
    return AWAITING_LOOP if work in WORKS and WORKS[work][1] else EVENT_LOOP


def check(parameters: GoodputParameters) -> None:
    """Raise ``UsageError`` for what cannot be measured."""
    for name in ("bound", "window"):
        if getattr(parameters, name) % NS_PER_MS:
            raise UsageError(f"--{name}: only whole milliseconds can be measured, such as 100ms")


def settling_ns(load_pct: int, bound_ns: int) -> int:
    """How long a load runs before it is counted, in whole milliseconds."""
    settling = min(bound_ns, SHORT_NS) if load_pct <= FULL_PCT else OVERLOADED_BOUNDS * bound_ns
    return max(1, round(settling / NS_PER_MS)) * NS_PER_MS


def burst_count(load_pct: int, capacity_per_s: float, bound_ns: int) -> int:
    """Requests that are due at the first moment: of an overloaded server, what it can answer within the bound.

    A queue that is served in order is then as long at once as it would be after bound / (load - 1).
    """
    return round(capacity_per_s * bound_ns / NS_PER_S) if load_pct > FULL_PCT else 0


def closed_times_ns(clients_count: int, rate_per_s: float) -> tuple[int, int]:
    """Warm-up and window of a closed loop at about this rate: one round of all clients, and two, in whole milliseconds.

    A window that is shorter than a round would see only those who are served first.
    """
    round_ms = min(round(1000 * clients_count / rate_per_s), ROUND_MOST_NS // NS_PER_MS)
    return max(WARMUP_NS, round_ms * NS_PER_MS), max(CLOSED_NS, 2 * round_ms * NS_PER_MS)


def connections_of(parameters: GoodputParameters, keep_alive: str) -> int:
    """How many an open loop may have at a time."""
    return parameters.connections if keep_alive == "off" else min(parameters.connections, KEPT_MOST)


def cells(parameters: GoodputParameters) -> Iterator[Cell]:
    """Each model with each work and kind of connection; the most that is open at once must fit."""
    open_ns = sum(
        settling_ns(load, parameters.bound) + parameters.window + (parameters.bound if load > FULL_PCT else 0)
        for load in parameters.load
    )
    for keep_alive in parameters.keep_alive:
        count = most_connections(parameters, keep_alive)
        asked = [(name, work) for work in parameters.work for name in parameters.model]
        for name, work in [*asked, *((name, OWN_PAGE) for name in parameters.server or ())]:
            model = model_of(name)
            # a pool has as many workers as it is started with, whatever comes
            served_count = min(count, room) if (room := model.room_count(server_options(name, work, count))) else count
            needs = model.fixed.plus(model.per_connection.times(served_count)).plus(CLIENT_END.times(count))
            key = {"model": name, "work": work, "keep_alive": keep_alive}
            yield Cell(key, needs.plus(_OWN_NEEDS), (open_ns + _closed_ns(parameters, name, work)) / NS_PER_S)


def _closed_ns(parameters: GoodputParameters, name: str, work: str) -> int:
    """About how long the closed loops of a launch take, the capacity among them, at the rate that is to be expected."""
    cpu_ns, sleep_ns = WORKS.get(work, (None, None))
    each_ns = _GUESSED_NS + (cpu_ns or 0) + (0 if name in _GO_ON else sleep_ns or 0)
    counts = [count for count in parameters.clients if count != CAPACITY_CLIENTS]
    return CLOSED_NS + WARMUP_NS + sum(sum(closed_times_ns(count, NS_PER_S / each_ns)) for count in counts)


def model_of(name: str) -> ServerModel:
    """Of a name on the command line."""
    return MODELS[name] if name in MODELS else SERVERS[name]


def most_connections(parameters: GoodputParameters, keep_alive: str) -> int:
    """The most that any step has open at a time."""
    return max(connections_of(parameters, keep_alive), *parameters.clients, CAPACITY_CLIENTS)


def server_options(name: str, work: str, connections_count: int) -> ServerOptions:
    """How a server is started. A real one may hold so many connections, and a pool has as many workers as ours."""
    if work == OWN_PAGE:
        real = REAL_SERVERS.get(name)
        workers_count = KEPT_MOST if real is not None and real.is_pool else None
        capacity_count = connections_count if real is not None and not real.is_pool else None
        return ServerOptions(protocol="http", workers_count=workers_count, capacity_count=capacity_count)
    cpu_ns, sleep_ns = WORKS[work]
    return ServerOptions(protocol="http", work_cpu_ns=cpu_ns, work_sleep_ns=sleep_ns)
