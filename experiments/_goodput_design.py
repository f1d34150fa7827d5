"""What goodput varies: models, work, connections, loads and numbers of clients; and how long each step takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from c10k_probe.exits import UsageError
from c10k_probe.experiment import Cell
from c10k_probe.limits import Needs
from c10k_probe.load import Stage
from c10k_probe.parameters import Parameters, parameter
from c10k_probe.servers import CLIENT_END, MODELS, POOLS, PYTHON_MODELS, REAL_SERVERS, ServerModel, ServerOptions
from c10k_probe.servers.reference import REFERENCE_MODELS

NS_PER_S: Final = 1_000_000_000
NS_PER_MS: Final = 1_000_000
OPEN, CLOSED, KNEE_SEARCH = "open", "closed", "knee"
RUSH, PAUSE, FILL = "rush", "pause", "fill"
FULL_PCT: Final = 100  # a closed loop offers as much as is taken
CAPACITY_CLIENTS: Final = 64  # in a closed loop: enough to keep one CPU busy, few enough to be served at once
KEPT_MOST: Final = 256  # kept connections: as many as a pool of its own choice serves at once
WARMUP_NS: Final = 50 * NS_PER_MS
CLOSED_NS: Final = 200 * NS_PER_MS  # of a closed loop: on a busy machine a shorter one may see no answer
ROUND_MOST_NS: Final = 5 * NS_PER_S  # of all clients of a closed loop: as long as each has patience
PATIENCE_BOUNDS: Final = 2  # after so many bounds a client gives up
SETTLING_NS: Final = 25 * NS_PER_MS  # of each load, before it is counted: some dozens of requests of less than 1 ms
LOADS_MOST: Final = 1000  # the sender has room for as many stages, and some
RUSH_PART: Final = 4  # a rush lasts for the bound over this
FEW_LOAD_PCT, FEW_LAUNCHES = 90, 2  # up to this load all is answered: the first launches tell as much as all
FILL_PART, FILLED_BOUNDS = 6, 1.25  # before the loads above capacity: in a sixth of the bound, to a quarter above it
TRIED_PCT: Final = (110, 105, 100, 95, 90)  # after a rush: the search for a knee begins with them
TRIED_STEP: Final = 5  # between them
DEFAULT_MODELS: Final = ("epoll", "thread", "thread-pool", "fork", "prefork")
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
        (10, 30, 50, 70, 90, 100, 110, 150, 300),
        "Offered loads, in percent of the capacity of each launch.",
        minimum=1,
        maximum=10_000,
        many=True,
        quick=(50, 100, 150),
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
        100 * NS_PER_MS,
        "How long each load is counted, in whole milliseconds.",
        dimension="duration",
        minimum=10 * NS_PER_MS,
        maximum=600 * NS_PER_S,
    )
    knee_launches: int = parameter(
        1,
        "Further launches of each model that look for its knee, at most; none where it is known within 5 %.",
        minimum=0,
        maximum=100,
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
    if len(set(parameters.load)) > LOADS_MOST:
        raise UsageError(f"--load: at most {LOADS_MOST:,} loads can follow each other; name fewer")


def rush_of(rate_per_s: float, bound_ns: int) -> Stage:
    """What comes at first where a server is to be found with a queue: afterwards a whole bound is missing.

    It is as much as if the load had come for a bound already, with nothing served: for ``bound / 4`` (whole
    milliseconds) requests come at five times the rate. A server that serves in order what comes, at a steady rate, has
    then an answer in time for what follows exactly where it is not slower than the requests come.
    """
    duration_ms = max(1, round(bound_ns / RUSH_PART / NS_PER_MS))
    return Stage(rate_per_s * (1 + bound_ns / (duration_ms * NS_PER_MS)), duration_ms / 1000)


class Step(NamedTuple):
    """A part of an open loop: what it is for, and its load."""

    loop: str  # OPEN and KNEE_SEARCH have rows; RUSH, PAUSE and FILL prepare the next
    load_pct: int


def after_rush(loads: Iterable[int]) -> list[Step]:
    """Loads that are tried on a server with a queue, downwards."""
    first, *others = sorted(set(loads), reverse=True)
    steps = [Step(RUSH, first), Step(KNEE_SEARCH, first)]
    for load_pct in others:
        steps += [Step(PAUSE, load_pct), Step(KNEE_SEARCH, load_pct)]
    return steps


def plan_of(load: tuple[int, ...], block: int) -> list[Step]:
    """One launch: the loads up to capacity, upwards; those that are tried; the loads above capacity, upwards.

    Each launch tries loads that are a point lower, so that in five all between the highest and the lowest are tried.
    """
    known = sorted(set(load))
    low = [pct for pct in known if pct <= FULL_PCT and (pct > FEW_LOAD_PCT or block < FEW_LAUNCHES)]
    tried = after_rush(pct - block % TRIED_STEP for pct in TRIED_PCT)
    high = [Step(OPEN, pct) for pct in known if pct > FULL_PCT]
    return [*(Step(OPEN, pct) for pct in low), *tried, *([Step(FILL, FULL_PCT), *high] if high else [])]


def stages_of(plan: Sequence[Step], capacity_per_s: float, bound_ns: int, window_ns: int) -> list[Stage]:
    """How each step of a plan is asked of the sender.

    A pause is as long as it takes until so much has come as if its load had come for a bound before the rush, too.
    What is filled up is the queue, to more than a bound, as far as the capacity tells how long it is.
    """
    bound_s, counted_s = bound_ns / NS_PER_S, (SETTLING_NS + window_ns) / NS_PER_S
    found: list[Stage] = []
    since_s = come_count = queue_count = 0.0  # since the rush
    for step in plan:
        rate_per_s = capacity_per_s * step.load_pct / 100
        if step.loop == RUSH:
            since_s = come_count = queue_count = 0.0
            stage = rush_of(rate_per_s, bound_ns)
        elif step.loop == PAUSE:
            stage = Stage(0.0, _whole_ms(come_count / rate_per_s - bound_s - since_s))
        elif step.loop == FILL:
            duration_s = _whole_ms(bound_s / FILL_PART)
            missing_count = max(0.0, FILLED_BOUNDS * bound_s * capacity_per_s - queue_count)
            stage = Stage(capacity_per_s + missing_count / duration_s, duration_s)
        else:
            stage = Stage(rate_per_s, counted_s)
        found.append(stage)
        since_s += stage.duration_s
        come_count += stage.rate_per_s * stage.duration_s
        queue_count = max(0.0, queue_count + (stage.rate_per_s - capacity_per_s) * stage.duration_s)
    return found


def _whole_ms(duration_s: float) -> float:
    """One at least: the sender has no shorter stage."""
    return max(1, round(1000 * duration_s)) / 1000


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
    open_ns = len(set(parameters.load)) * (SETTLING_NS + parameters.window) + _tried_ns(parameters)
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


def _tried_ns(parameters: GoodputParameters) -> int:
    """A rush, the loads after it, and the wait for what is late."""
    plan = after_rush(TRIED_PCT)
    tried_s = sum(stage.duration_s for stage in stages_of(plan, 1.0, parameters.bound, parameters.window))
    return parameters.bound + round(tried_s * NS_PER_S)


def search_weight(parameters: GoodputParameters) -> float:
    """About how long the search for a knee takes at most, in seconds."""
    return parameters.knee_launches * (CLOSED_NS + WARMUP_NS + _tried_ns(parameters)) / NS_PER_S


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
