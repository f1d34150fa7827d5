"""What servers compares: the arms, which servers each has, with which settings, and under which load."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from c10k_probe.exits import UsageError
from c10k_probe.experiment import Cell
from c10k_probe.limits import Needs
from c10k_probe.load.ab import MAX_CONNECTIONS
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
ARTICLE, FAIR = "article", "fair"
APACHE, NODE, TORNADO = "apache-prefork-php", "node", "tornado"
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
    *(name for name in ("epoll", "thread-pool", "prefork", "thread", "fork") if name in SERVERS),
    *(name for name in ("asyncio", "python-threading", "python-forking") if name in SERVERS),
)
FAIR_BACKLOG_COUNT = 4096
OTHER_BACKLOG_COUNT = 511  # of Apache, nginx and Node.js
BACKLOG_COUNTS = {TORNADO: 128, "asyncio": 100, "uvloop": 100, "python-threading": 5, "python-forking": 5}
"""Lengths of the accept queue that a program asks for when nobody says one."""
_OWN_NEEDS = Needs(descriptors_count=32, system_descriptors_count=64)


@dataclass(frozen=True)
class ServersParameters(Parameters):
    """What may be chosen on the command line."""

    as_article: bool = parameter(False, "Only the article's own test: settings as installed, ab.", dimension="flag")
    fair: bool = parameter(False, "Only the test with equal settings, wrk, keep-alive on and off.", dimension="flag")
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
        2 * NS_PER_S,
        "Length of one window of the fair test, in whole seconds.",
        dimension="duration",
        minimum=NS_PER_S,
        maximum=600 * NS_PER_S,
        quick=NS_PER_S,
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
    """Both unless one is asked for."""
    if parameters.as_article == parameters.fair:
        return ARTICLE, FAIR
    return (ARTICLE,) if parameters.as_article else (FAIR,)


def chosen(parameters: ServersParameters, arm: str) -> tuple[str, ...]:
    """The servers of an arm; ``auto`` is the user's own if there is one."""
    if parameters.server_command and {AUTO, THREE} >= {*parameters.server}:
        return (COMMAND,)
    several = {AUTO: OF_THE_ARTICLE if arm == ARTICLE else OF_FAIR, THREE: OF_THE_ARTICLE}
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
    options = ServerOptions(
        protocol="http",
        backlog_count=FAIR_BACKLOG_COUNT,
        workers_count=held.workers_count,
        capacity_count=None if name in MODELS else connections_count,
    )
    return options, needs


def cells(parameters: ServersParameters) -> Iterator[Cell]:
    """Each server in each arm, and the null server beside it: what the load generator can do."""
    for arm in arms(parameters):
        names = dict.fromkeys((*chosen(parameters, arm), NULL))
        for keep_alive in ("off",) if arm == ARTICLE else ("off", "on"):
            for name in names:
                for observed in parameters.observe:
                    yield _cell(parameters, name, arm, keep_alive, observed)


def _cell(parameters: ServersParameters, name: str, arm: str, keep_alive: str, observed: str) -> Cell:
    model, count = model_of(name, parameters.server_command), parameters.connections
    _, more = options_of(name, arm, count)
    both_ends = model.per_connection.plus(CLIENT_END)
    needs = model.fixed.plus(both_ends.times(count)).plus(_OWN_NEEDS).plus(more)
    key = {
        "server": name,
        "arm": arm,
        "load": "ab" if arm == ARTICLE else "wrk",
        "keep_alive": keep_alive,
        "observed": observed,
    }
    is_article = arm == ARTICLE
    weight = parameters.requests / 5000 if is_article else parameters.duration / NS_PER_S + 1
    return Cell(key, needs, weight, parameters.article_launches if is_article else None)
