"""What slow-clients compares: servers, kinds of slow clients, how many of them, and defences."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from c10k_probe.exits import UsageError
from c10k_probe.limits import Needs
from c10k_probe.load.slow import KINDS, MOST_COUNT
from c10k_probe.parameters import Parameters, parameter
from c10k_probe.servers import CLIENT_END, MODELS, POOLS, REAL_SERVERS, RealModel, ServerModel, ServerOptions

Key = Mapping[str, str | int]  # the key columns of a row
NS_PER_S = 1_000_000_000
CPU = "cpu"  # the kind without slow clients
NOBODY = "none"  # the kind of those that do not come: zero slow clients
ON, OFF, NONE = "on", "off", "none"
SERVERS: Mapping[str, ServerModel] = {
    **REAL_SERVERS,
    **{name: model for name, model in MODELS.items() if "http" in model.protocols},
}
POOLS_OF_PHP = ("apache-prefork-php", "apache-event", "nginx-php-fpm")
LEAD_NS = NS_PER_S // 2  # at least, for the slow clients to get their connections, before innocents are judged
_OPENING_NS = 40_000  # of one of them, where many come at once
SPARE_COUNT = 64  # connections of innocents beyond those that may be waiting for an answer
_CLIENTS, _SURVEY_CLIENTS = (0, 24, 5000), (0, 24)
TOGETHER_COUNT = (
    50_000  # slow clients of launches side by side, half as many of servers that serve on, unless one has more
)
_READ_BYTES = 400_000  # of the kernel, for requests and answers that nobody reads: as measured, twice
_OWN_COUNT = 16  # descriptors of a client's process that are no connections
_OWN_NEEDS = Needs(system_descriptors_count=256, tasks_count=4)


@dataclass(frozen=True)
class SlowParameters(Parameters):
    """What may be chosen on the command line."""

    kinds: tuple[str, ...] = parameter(
        (*KINDS, CPU),
        "What slow clients do: send a head or a body slowly, read slowly, be idle; cpu: one request that works.",
        choices=(*KINDS, CPU),
        many=True,
        quick=("head",),
    )
    clients: tuple[int, ...] = parameter(
        _CLIENTS,
        "Slow clients; 0 is what innocents meet without them. At the default, body, read and idle have 24 only.",
        minimum=0,
        maximum=MOST_COUNT,
        many=True,
        ranges=True,
        quick=(0, 12),
    )
    server: tuple[str, ...] = parameter(
        ("apache-prefork-php", "nginx", "node", "prefork", "epoll"),
        "Systems under test, comma-separated.",
        choices=tuple(SERVERS),
        many=True,
        quick=("prefork", "epoll"),
    )
    defence: tuple[str, ...] = parameter(
        (OFF, ON), "Whether servers give up slow clients; off only, on only or both.", choices=(OFF, ON), many=True
    )
    defence_timeout: int = parameter(
        2 * NS_PER_S,
        "After how long they do, in whole seconds.",
        dimension="duration",
        minimum=NS_PER_S,
        maximum=3600 * NS_PER_S,
    )
    workers: int = parameter(16, "Workers of a server that is a pool.", minimum=1, maximum=1000, quick=4)
    launches: int = parameter(
        5,
        "Fresh servers, each with its own clients, of a row of kind head, cpu or none.",
        minimum=1,
        maximum=50,
        quick=2,
    )
    survey_launches: int = parameter(
        1, "The same of a row of kind body, read or idle, which no claim is judged by.", minimum=1, maximum=50
    )
    side_by_side: int = parameter(
        24,
        "How many of all launches are measured at the same time; half as many of event loops; 1: one after another.",
        minimum=1,
        maximum=50,
    )
    innocents: int = parameter(100, "Requests of innocents a second.", minimum=1, maximum=10_000)
    served_within: int = parameter(
        5 * NS_PER_S,
        "How soon an innocent must be answered to count as served.",
        dimension="duration",
        minimum=NS_PER_S // 10,
        maximum=600 * NS_PER_S,
        quick=NS_PER_S,
    )
    duration: int = parameter(
        NS_PER_S * 6 // 5,
        "For how long innocents are judged.",
        dimension="duration",
        minimum=NS_PER_S // 10,
        maximum=600 * NS_PER_S,
        quick=NS_PER_S // 2,
    )
    interval: int = parameter(
        NS_PER_S,
        "Time between two bytes of a slow client.",
        dimension="duration",
        minimum=NS_PER_S // 100,
        maximum=3600 * NS_PER_S,
    )
    work: int = parameter(
        2 * NS_PER_S,
        "CPU time of the one request of kind cpu.",
        dimension="duration",
        minimum=NS_PER_S // 1000,
        maximum=30 * NS_PER_S,
    )


@dataclass(frozen=True)
class Ask:
    """What one launch is to measure."""

    server: str
    kind: str
    clients_count: int
    options: ServerOptions
    defence_text: str
    room_count: int | None
    rate_per_s: int
    timeout_ns: int
    duration_ns: int
    interval_ns: int
    work_ns: int
    seed: int
    lead_ns: int = LEAD_NS


def check(parameters: SlowParameters) -> None:
    """Raise ``UsageError`` for what cannot be meant together."""
    if parameters.defence_timeout % NS_PER_S:
        raise UsageError("--defence-timeout: servers take whole seconds, such as 2s")
    waiting_count = parameters.innocents * parameters.served_within // NS_PER_S
    if waiting_count > MOST_COUNT:
        raise UsageError(
            f"--innocents: {waiting_count:,} of them may wait within --served-within, more than {MOST_COUNT:,}; "
            "ask for fewer"
        )
    if parameters.innocents * parameters.duration < NS_PER_S:
        raise UsageError("--duration: no innocent would be due; ask for more --innocents or a longer --duration")
    for name in parameters.server:
        if CPU in parameters.kinds and len(parameters.kinds) == 1 and not work_path(name):
            able = ", ".join(other for other in SERVERS if work_path(other))
            raise UsageError(f"--kinds cpu: {name} has no page that works; those that have: {able}")
        if ON in parameters.defence and len(parameters.defence) == 1 and not defence_of(name):
            able = ", ".join(other for other in SERVERS if defence_of(other))
            raise UsageError(f"--defence on: {name} has none; those that have: {able}")


def defence_of(name: str) -> str:
    """The settings by which a server defends itself, with {s}; empty where it cannot."""
    model = SERVERS[name]
    return model.defence if isinstance(model, RealModel) else ""


def work_path(name: str) -> str:
    """The path under which a server works for its client; empty where there is none."""
    model = SERVERS[name]
    return model.work_path if isinstance(model, RealModel) else ""


def is_pool(name: str) -> bool:
    """Whether a fixed number of workers serve, each one client at a time."""
    return name in POOLS or name in POOLS_OF_PHP


def clients_of(parameters: SlowParameters, kind: str) -> tuple[int, ...]:
    """How many slow clients of this kind, 0 among them where they are asked for."""
    is_survey = parameters.clients == _CLIENTS and kind != "head"
    return _SURVEY_CLIENTS if is_survey else parameters.clients


def keys_of(parameters: SlowParameters) -> Iterator[Key]:
    """Each server, kind, number and defence; what a server cannot do is left out, and a defence against nobody."""
    for name in parameters.server:
        defences = parameters.defence if defence_of(name) else (NONE,)
        if any(0 in clients_of(parameters, kind) for kind in parameters.kinds if kind != CPU):
            yield _key(name, NOBODY, 0, OFF if OFF in defences else defences[0])
        for kind in parameters.kinds:
            if kind != CPU:
                for count, defence in itertools.product(filter(None, clients_of(parameters, kind)), defences):
                    yield _key(name, kind, count, defence)
            elif work_path(name):
                yield _key(name, CPU, 1, OFF if defence_of(name) else NONE)


def _key(name: str, kind: str, count: int, defence: str) -> Key:
    return {"server": name, "kind": kind, "clients_count": count, "defence": defence}


def launches_count(parameters: SlowParameters, kind: str) -> int:
    """How many fresh servers a block has for a row of this kind."""
    return parameters.launches if kind in ("head", CPU, NOBODY) else parameters.survey_launches


def is_starving(key: Key) -> bool:
    """Whether innocents may be waited for until they give up: a pool with slow clients."""
    return is_pool(str(key["server"])) and key["kind"] != CPU and int(key["clients_count"]) > 0


def needs_of(parameters: SlowParameters, keys: Sequence[Key]) -> Needs:
    """What the launches of these keys need, side by side; descriptors are those of a single process."""
    each = [_needs(parameters, str(key["server"]), str(key["kind"]), int(key["clients_count"])) for key in keys]
    most_count = max(needs.descriptors_count for needs in each)
    return dataclasses.replace(functools.reduce(Needs.plus, each), descriptors_count=most_count)


def _needs(parameters: SlowParameters, name: str, kind: str, count: int) -> Needs:
    model = SERVERS[name]
    waiting_count = parameters.innocents * parameters.served_within // NS_PER_S + SPARE_COUNT
    inside_count = parameters.workers if is_pool(name) else count + waiting_count
    server = model.fixed.plus(model.per_connection.times(inside_count))
    unread = Needs(memory_bytes=_READ_BYTES).times(count if kind == "read" else 0)
    needs = _OWN_NEEDS.plus(CLIENT_END.times(count + waiting_count)).plus(unread).plus(server)
    most_count = max(server.descriptors_count, count + _OWN_COUNT, waiting_count + _OWN_COUNT)  # each in its process
    return dataclasses.replace(needs, descriptors_count=most_count)


def asks_of(parameters: SlowParameters, keys: Sequence[Key], seed: int) -> list[Ask]:
    """What launches with these keys, side by side, are to measure."""
    lead_ns = max(LEAD_NS, _OPENING_NS * sum(int(key["clients_count"]) for key in keys))
    asks = [ask_of(parameters, key, seed + place) for place, key in enumerate(keys)]
    return [dataclasses.replace(ask, lead_ns=lead_ns) for ask in asks]


def ask_of(parameters: SlowParameters, key: Key, seed: int) -> Ask:
    """What a launch with this key is to measure."""
    name, kind, count = str(key["server"]), str(key["kind"]), int(key["clients_count"])
    seconds = parameters.defence_timeout // NS_PER_S if key["defence"] == ON else None
    waiting_count = parameters.innocents * parameters.served_within // NS_PER_S + SPARE_COUNT
    options = ServerOptions(
        protocol="http",
        workers_count=parameters.workers if is_pool(name) else None,
        capacity_count=None if is_pool(name) and name in POOLS else count + waiting_count,
        defence_s=seconds,
    )
    return Ask(
        server=name,
        kind=kind,
        clients_count=count,
        options=options,
        defence_text="" if seconds is None else defence_of(name).replace("{s}", str(seconds)),
        room_count=parameters.workers if is_pool(name) else None,
        rate_per_s=parameters.innocents,
        timeout_ns=parameters.served_within,
        duration_ns=parameters.duration,
        interval_ns=parameters.interval,
        work_ns=parameters.work,
        seed=seed,
    )
