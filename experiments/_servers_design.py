"""What servers compares: the arms, which servers each has, with which settings, and under which load."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from c10k_probe.exits import UsageError
from c10k_probe.experiment import Cell
from c10k_probe.limits import Needs
from c10k_probe.load.ab import MAX_CONNECTIONS
from c10k_probe.observe.procfs import read_meminfo
from c10k_probe.parameters import Parameters, parameter
from c10k_probe.servers import (
    CLIENT_END,
    MODELS,
    REAL_SERVERS,
    ServerModel,
    ServerOptions,
    command_model,
    to_hold,
)

NS_PER_S = 1_000_000_000
AUTO = "auto"
THREE = "three"  # of the article
COMMAND = "command"  # the user's own
ARTICLE, FAIR, INSIDE = "article", "fair", "inside"
HELD, THREADS, FILES = "held connections", "worker threads", "files"  # what is looked at inside
APACHE, NODE, TORNADO = "apache-prefork-php", "node", "tornado"
NODE_JITLESS, HTTP_SERVER = "node-jitless", "python-http-server"
NULL = "epoll"  # the server that costs least: what a load generator reaches on it, it can reach
OF_THE_ARTICLE = (APACHE, NODE, TORNADO)
SERVERS: Mapping[str, ServerModel] = {
    **REAL_SERVERS,
    **{name: model for name, model in MODELS.items() if "http" in model.protocols},
}
OF_FAIR = (
    *OF_THE_ARTICLE,
    "nginx",
    "apache-event",
    NODE_JITLESS,
    HTTP_SERVER,
    "asyncio",
    "python-threading",
)
OPEN = "open loop"
OF_KEPT = (*OF_THE_ARTICLE, "nginx", NULL)  # what auto means for kept connections
OF_OPEN = (*OF_THE_ARTICLE, "nginx", "apache-event")  # and for the open loop
NONE = "none"
RATES_PCT = ("30", "70", "90")
OPEN_CHOICES_PCT = (*(str(rate) for rate in range(10, 100, 10)), "95", "99")
TABLE: Mapping[str, Mapping[str, str]] = {
    "C": {"event loop": "epoll", "thread per connection": "thread", "process per connection": "fork"},
    "CPython": {
        "event loop": "asyncio",
        "thread per connection": "python-threading",
        "process per connection": "python-forking",
    },
}
"""The balanced part of runtime by architecture: the same handler, once in each language."""
BESIDE = {NODE: ("Node.js", "event loop"), APACHE: ("PHP", "process per connection")}
PLACES: Mapping[str, tuple[str, str]] = {
    **{server: (runtime, kind) for runtime, row in TABLE.items() for kind, server in row.items()},
    **BESIDE,
}
TABLE_RATE_PCT = 50  # so that the load generator has CPU time left beside the cheapest of them
TABLE_WINDOW_SHARE = 0.5  # of a window of the fair test
CAPACITY_SHARE = 0.5  # of a window: for the capacity, before an open loop
WRK_SHARE = 1.1  # of its window: what it takes
BESIDE_S, POOL_S = 0.8, 0.0026  # start, first answers, rest and end of a server; and for each worker, all on two CPUs
ARTICLE_PER_S = 5000.0  # requests of ab, about
FULL_PCT = 100  # of its capacity: what a closed loop asks of a server
FAIR_BACKLOG_COUNT = 4096
OTHER_BACKLOG_COUNT = 511  # of Apache, nginx and Node.js
BACKLOG_COUNTS = {
    TORNADO: 128,
    "asyncio": 100,
    "uvloop": 100,
    "python-threading": 5,
    "python-forking": 5,
    HTTP_SERVER: 5,
}
"""Lengths of the accept queue that a program asks for when nobody says one."""
WORKER_NEEDS: Mapping[str, Needs] = {
    APACHE: Needs(),  # counted for each connection
    "apache-event": Needs(system_descriptors_count=4, tasks_count=2, memory_bytes=1 << 20),
    "nginx-php-fpm": Needs(system_descriptors_count=4, tasks_count=1, memory_bytes=1 << 20),
}
"""Servers in which a request takes a worker of a pool, and what one takes that the connection does not.

A process of PHP has 0.5 MiB to itself there, measured with 1,000 of PHP 8.2."""
OWN_WORKERS_COUNT = 2  # who asks for counts would else wait behind connections that are kept
_MEMORY_SHARE = 0.5  # of what is available: for such pools
_OWN_NEEDS = Needs(descriptors_count=32, system_descriptors_count=64)


@dataclass(frozen=True)
class ServersParameters(Parameters):
    """What may be chosen on the command line."""

    as_article: bool = parameter(False, "Only the article's own test: settings as installed, ab.", dimension="flag")
    fair: bool = parameter(False, "Only the test with equal settings: wrk, and an open loop.", dimension="flag")
    inside: bool = parameter(
        False, "Only what is inside: memory of a process of PHP, what Node.js does in parallel.", dimension="flag"
    )
    server: tuple[str, ...] = parameter(
        (AUTO,),
        "Systems under test, comma-separated; auto: the article's three, in the fair test with others.",
        choices=(AUTO, THREE, *SERVERS, COMMAND),
        many=True,
        quick=(THREE,),
    )
    server_command: str = parameter(
        "",
        "A server of your own, as server \"command\": 'CMD {port}', which stays in the foreground and speaks HTTP.",
        dimension="text",
    )
    connections: int = parameter(1000, "Connections at once.", minimum=1, maximum=MAX_CONNECTIONS, quick=1000)
    requests: int = parameter(
        100_000, "Requests of one launch of the article's test.", minimum=1, maximum=100_000_000, quick=10_000
    )
    article_launches: int = parameter(
        1,
        "Fresh servers for each of the article's rows, --repeats at most; verdicts need 5.",
        minimum=1,
        maximum=10_000,
    )
    duration: int = parameter(
        NS_PER_S,
        "Length of one window of the fair test, in whole seconds.",
        dimension="duration",
        minimum=NS_PER_S,
        maximum=600 * NS_PER_S,
        quick=NS_PER_S,
    )
    keep_alive: tuple[str, ...] = parameter(
        (AUTO,),
        "Whether wrk uses a connection again; auto: off for all, on for the article's and nginx as well.",
        choices=(AUTO, "off", "on"),
        many=True,
        quick=("off",),
    )
    open_server: tuple[str, ...] = parameter(
        (AUTO,),
        "Which of the servers the open loop is also for; auto: the article's, nginx and apache-event; none: no open "
        "loop, nor the table of runtime and architecture.",
        choices=(AUTO, NONE, *SERVERS, COMMAND),
        many=True,
        quick=(NODE,),
    )
    open_rate: tuple[str, ...] = parameter(
        RATES_PCT,
        "Rates of the open loop, in percent of what the server answers to as many connections in a closed loop.",
        choices=OPEN_CHOICES_PCT,
        many=True,
        quick=("70",),
    )
    open_launches: int = parameter(
        5,
        "Fresh servers for each row of the open loop, --repeats at most; an interval needs 5.",
        minimum=1,
        maximum=10_000,
    )
    observe: tuple[str, ...] = parameter(
        ("on",),
        "Whether sockets and memory are looked at while a server is loaded; on,off by turns shows what that costs.",
        choices=("on", "off"),
        many=True,
    )


def check(parameters: ServersParameters) -> None:
    """Raise ``UsageError`` for what cannot be meant together."""
    if parameters.duration % NS_PER_S:
        raise UsageError("--duration: only whole seconds can be measured, such as 2s")
    if parameters.requests < parameters.connections:
        raise UsageError(
            f"--requests: {parameters.requests:,} are fewer than {parameters.connections:,} connections; ask for more"
        )
    command, is_chosen = parameters.server_command, COMMAND in chosen(parameters, FAIR)
    if is_chosen and not command:
        raise UsageError("--server command: what is it? add --server-command 'CMD {port}'")
    if command and not is_chosen:
        raise UsageError("--server-command: that server is not among --server; add it there as command")
    if command:
        try:
            missing = model_of(COMMAND, command).missing
        except ValueError as error:
            raise UsageError(f"--server-command: {error}") from None
        if missing:
            raise UsageError(f"--server-command: {missing}")


def arms(parameters: ServersParameters) -> tuple[str, ...]:
    """All unless some are asked for."""
    asked = {ARTICLE: parameters.as_article, FAIR: parameters.fair, INSIDE: parameters.inside}
    return tuple(arm for arm, is_asked in asked.items() if is_asked or not any(asked.values()))


def chosen(parameters: ServersParameters, arm: str) -> tuple[str, ...]:
    """The servers of an arm; ``auto`` is the user's own if there is one."""
    if parameters.server_command and {AUTO, THREE} >= {*parameters.server}:
        return (COMMAND,)
    several = {AUTO: OF_FAIR if arm == FAIR else OF_THE_ARTICLE, THREE: OF_THE_ARTICLE}
    return tuple(dict.fromkeys(part for name in parameters.server for part in several.get(name, (name,))))


def model_of(name: str, command: str) -> ServerModel:
    """The server of this name. Raises ``ValueError`` for a command that cannot be meant."""
    return command_model(command) if name == COMMAND else SERVERS[name]


def options_of(name: str, arm: str, connections_count: int) -> tuple[ServerOptions, Needs]:
    """How a server is started in an arm, and what that takes besides what it takes anyhow."""
    if arm == ARTICLE:
        backlog_count = BACKLOG_COUNTS.get(name, OTHER_BACKLOG_COUNT)
        return ServerOptions(protocol="http", backlog_count=backlog_count, is_as_installed=True), Needs()
    held, needs = to_hold(name, connections_count)
    if name in WORKER_NEEDS:
        workers_count = pool_count(name, connections_count)
        held, needs = ServerOptions(workers_count=workers_count), WORKER_NEEDS[name].times(workers_count)
    options = ServerOptions(
        protocol="http",
        backlog_count=FAIR_BACKLOG_COUNT,
        workers_count=held.workers_count,
        capacity_count=None if name in MODELS else connections_count,
    )
    return options, needs


def pool_count(name: str, connections_count: int) -> int:
    """Workers of a pool: one for each connection and for our own questions beside them, if half of the memory that is
    available holds so many.
    """
    each_bytes = max(WORKER_NEEDS[name].memory_bytes, model_of(name, "").per_connection.memory_bytes)
    room_bytes = (read_meminfo().get("MemAvailable") or 0) * _MEMORY_SHARE
    wanted_count = connections_count + OWN_WORKERS_COUNT
    return max(1, min(wanted_count, int(room_bytes / each_bytes) or wanted_count))


def in_open_loop(parameters: ServersParameters) -> tuple[str, ...]:
    """The servers under the open loop: those of the fair test that are asked for."""
    asked = {part for name in parameters.open_server for part in {AUTO: (*OF_OPEN, COMMAND)}.get(name, (name,))}
    found = [name for name in chosen(parameters, FAIR) if name in asked]
    return tuple(dict.fromkeys((*found, NULL))) if found else ()


def in_table(parameters: ServersParameters) -> tuple[str, ...]:
    """The servers of runtime by architecture: all, or those of the balanced part that the user names."""
    if parameters.server_command or parameters.open_server == (NONE,):
        return ()
    if AUTO in parameters.server:
        return tuple(PLACES)
    return tuple(name for name in PLACES if name in parameters.server and name not in BESIDE)


def open_rates_pct(parameters: ServersParameters, keep_alive: str) -> list[int]:
    """Of capacity: those that are asked for on kept connections, and the table's on others."""
    return [int(rate) for rate in parameters.open_rate] if keep_alive == "on" else [TABLE_RATE_PCT]


def cells(parameters: ServersParameters) -> Iterator[Cell]:
    """Each server in each arm, and the null server beside it: what the load generator can do."""
    for arm in arms(parameters):
        if arm == INSIDE:
            yield from _inside_cells(parameters)
            continue
        names = dict.fromkeys((*chosen(parameters, arm), NULL))
        for keep_alive in ("off",) if arm == ARTICLE else ("off", "on"):
            for name in names:
                if arm == FAIR and not _is_asked(parameters, name, keep_alive):
                    continue
                for observed in parameters.observe:
                    yield _closed_cell(parameters, name, arm, keep_alive, observed)
        if arm == FAIR:
            yield from (_open_cell(parameters, name) for name in in_open_loop(parameters))
            yield from (_table_cell(parameters, name) for name in in_table(parameters))


def _is_asked(parameters: ServersParameters, name: str, keep_alive: str) -> bool:
    """Whether connections of this server are to be kept, or not kept."""
    if keep_alive in parameters.keep_alive:
        return True
    is_named = AUTO not in parameters.server  # by the user, who then wants to see all of it
    return AUTO in parameters.keep_alive and (keep_alive == "off" or is_named or name in (*OF_KEPT, COMMAND))


def _closed_cell(parameters: ServersParameters, name: str, arm: str, keep_alive: str, observed: str) -> Cell:
    is_article = arm == ARTICLE
    key = {
        "server": name,
        "arm": arm,
        "load": "ab" if is_article else "wrk",
        "keep_alive": keep_alive,
        "rate_pct": FULL_PCT,
        "observed": observed,
    }
    weight = parameters.requests / ARTICLE_PER_S if is_article else _launch_s(parameters, name, WRK_SHARE)
    return Cell(key, _needs(parameters, name, arm), weight, parameters.article_launches if is_article else None)


def _open_cell(parameters: ServersParameters, name: str) -> Cell:
    """All rates, one after the other, on one server: a row each."""
    key = {"server": name, "arm": FAIR, "load": OPEN, "keep_alive": "on", "observed": "off"}
    weight = _launch_s(parameters, name, CAPACITY_SHARE + len(parameters.open_rate))
    return Cell(key, _needs(parameters, name, FAIR), weight, parameters.open_launches, is_traceable=False)


def _table_cell(parameters: ServersParameters, name: str) -> Cell:
    """One rate, on connections that are not kept: a thread or process for each costs something then."""
    key = {"server": name, "arm": FAIR, "load": OPEN, "keep_alive": "off", "observed": "off"}
    launches = parameters.open_launches if name in BESIDE else None
    weight = _launch_s(parameters, name, TABLE_WINDOW_SHARE * (1 + CAPACITY_SHARE))
    return Cell(key, _needs(parameters, name, FAIR), weight, launches)


def _launch_s(parameters: ServersParameters, name: str, windows_count: float) -> float:
    """About what a launch of the fair test takes: its windows, and what a server needs beside them, a pool most."""
    beside_s = BESIDE_S + (POOL_S * parameters.connections if name in WORKER_NEEDS else 0.0)
    return windows_count * parameters.duration / NS_PER_S + beside_s


def _inside_cells(parameters: ServersParameters) -> Iterator[Cell]:
    """Of the servers that are asked for, those that have something inside to look at."""
    names = chosen(parameters, INSIDE)
    for name, load in ((APACHE, HELD), (NODE, THREADS), (NODE, FILES), (NODE, "wrk")):
        if name in names:
            key: dict[str, str | int] = {"server": name, "arm": INSIDE, "load": load, "keep_alive": "on"}
            key |= {"rate_pct": FULL_PCT, "observed": "off"}
            needs = _needs(parameters, name, ARTICLE) if load == "wrk" else model_of(name, "").fixed
            yield Cell(key, needs, 2.0, is_traceable=False)


def _needs(parameters: ServersParameters, name: str, arm: str) -> Needs:
    model, count = model_of(name, parameters.server_command), parameters.connections
    _, more = options_of(name, arm, count)
    both_ends = model.per_connection.plus(CLIENT_END)
    return model.fixed.plus(both_ends.times(count)).plus(_OWN_NEEDS).plus(more)
