"""What connections measures, and in which order: parameters, states, cells and steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from c10k_probe.exits import UsageError
from c10k_probe.experiment import Cell
from c10k_probe.limits import Needs
from c10k_probe.parameters import Parameters, option_name, parameter
from c10k_probe.servers import (
    BASIC_MODELS,
    MODELS,
    PROTOCOLS,
    REAL_SERVERS,
    ServerModel,
    ServerOptions,
    command_model,
)

IDLE, USED, BACKLOGGED = "idle", "used", "backlogged"
STATES: Final = (IDLE, USED, BACKLOGGED)
AUTO: Final = "auto"
COMMAND: Final = "command"  # the user's own server
ECHO, HTTP = PROTOCOLS
MOST_COUNT: Final = 1_000_000
RAMP_TO: Final = 10_000
UNREAD_BYTES: Final = 64 << 10
LATENCY_BOUND_NS: Final = 100_000_000

_CLIENT_NEEDS = Needs(descriptors_count=16, tasks_count=1)
_WEIGHTS = {"thread": 2.0, "fork": 6.0, "python-forking": 20.0, "python-threading": 4.0, "apache-prefork-php": 100.0}


@dataclass(frozen=True)
class ConnectionsParameters(Parameters):
    """What may be chosen on the command line."""

    to: int | None = parameter(
        None,
        f"Connections to reach ({RAMP_TO:,}; a search goes as far as its budget).",
        minimum=1,
        maximum=MOST_COUNT,
        quick=500,
    )
    model: tuple[str, ...] = parameter(
        (AUTO,),
        f"Ways to serve a connection, comma-separated, or all; auto: {', '.join(BASIC_MODELS)}, with --server none.",
        choices=(AUTO, *MODELS),
        many=True,
    )
    server: tuple[str, ...] | None = parameter(
        None,
        "Real servers, comma-separated, or all; they speak HTTP, and with them everything in the run does.",
        choices=tuple(REAL_SERVERS),
        many=True,
    )
    server_command: str = parameter(
        "",
        "A server of your own, besides: 'CMD {port}', which stays in the foreground and speaks HTTP.",
        dimension="text",
    )
    protocol: str | None = parameter(
        None, "What is exchanged: echo (of bytes; the default of models) or http (GET, kept alive).", choices=PROTOCOLS
    )
    steps: int = parameter(10, "Steps of the ramp, geometric up to --to.", minimum=1, maximum=100, quick=5)
    state: tuple[str, ...] = parameter(
        (USED,),
        "What is held: idle (never used), used (one exchange each), backlogged (answers unread); or all.",
        choices=STATES,
        many=True,
    )
    unread: int | None = parameter(
        None, "Bytes left unread on each backlogged connection (64KiB).", dimension="bytes", minimum=1, maximum=1 << 20
    )
    stack: int | None = parameter(
        None, "Stack of each thread; the system's default.", dimension="bytes", minimum=16 << 10, maximum=1 << 30
    )
    workers: int | None = parameter(
        None, "Workers of models with a pool; the model's own choice.", minimum=1, maximum=10_000
    )
    edge: bool = parameter(False, "Edge-triggered events.", dimension="flag")
    probe_rate: int = parameter(
        1_000,
        "Echoes a second asked of held connections on a schedule at each step; 0: none.",
        maximum=100_000,
        minimum=0,
    )
    probe_time: int = parameter(
        500_000_000,
        "How long that schedule lasts.",
        dimension="duration",
        minimum=1_000_000,
        maximum=600_000_000_000,
        quick=100_000_000,
    )
    rest: int | None = parameter(
        None,
        "Watch the held connections doing nothing for so long, at the last step.",
        dimension="duration",
        minimum=1_000_000,
        maximum=600_000_000_000,
    )
    memory_budget: int | None = parameter(
        None,
        "Search the most connections whose server takes no more memory than this, up to --to.",
        dimension="bytes",
        minimum=1 << 20,
        maximum=1 << 40,
    )
    latency_bound: int | None = parameter(
        None,
        "The 99th percentile that the search allows (100ms).",
        dimension="duration",
        minimum=1_000,
        maximum=60_000_000_000,
    )

    @property
    def most(self) -> int:
        """How far a ramp or a search goes."""
        return self.to or (RAMP_TO if self.memory_budget is None else MOST_COUNT)

    @property
    def real(self) -> tuple[str, ...]:
        """The real servers, the user's own among them."""
        return (*(self.server or ()), *((COMMAND,) if self.server_command else ()))

    @property
    def models(self) -> tuple[str, ...]:
        """Everything that serves: our models, then real servers."""
        named = tuple(model for model in self.model if model != AUTO)
        return (*(named or (() if self.real else BASIC_MODELS)), *self.real)

    @property
    def spoken(self) -> str:
        """What is exchanged: one protocol in a run, so that what stands side by side had the same to do."""
        return self.protocol or (HTTP if self.real else ECHO)

    @property
    def unread_bytes(self) -> int:
        """What is left unread on each backlogged connection."""
        return self.unread or UNREAD_BYTES

    @property
    def latency_bound_ns(self) -> int:
        """The 99th percentile that the search allows."""
        return self.latency_bound or LATENCY_BOUND_NS


# Option -> the word with which a model says that it takes it.
_TAKEN: Final = {"stack": "stack", "workers": "workers", "edge": "edge"}


def check(parameters: ConnectionsParameters) -> None:
    """Raise ``UsageError`` for options that nothing which was chosen would heed."""
    _check_servers(parameters)
    models = [chosen(name, parameters) for name in parameters.models]
    for name, word in _TAKEN.items():
        if getattr(parameters, name) and not any(word in model.takes for model in models):
            known = ", ".join(model.name for model in (*MODELS.values(), *REAL_SERVERS.values()) if word in model.takes)
            raise UsageError(
                f"{option_name(name)} is heeded by no chosen --model or --server; those that heed it: {known or 'none'}"
            )
    if parameters.unread is not None and BACKLOGGED not in parameters.state:
        raise UsageError(f"--unread is of backlogged connections; add --state {BACKLOGGED}")
    if parameters.latency_bound is not None and parameters.memory_budget is None:
        raise UsageError("--latency-bound belongs to the search; add --memory-budget, such as --memory-budget 1GiB")
    if parameters.memory_budget is not None:
        _check_search(parameters)


def _check_servers(parameters: ConnectionsParameters) -> None:
    if parameters.server_command:
        try:
            missing = command_model(parameters.server_command).missing
        except ValueError as error:
            raise UsageError(f"--server-command: {error}") from None
        if missing:
            raise UsageError(f"--server-command: {missing}")
    if parameters.spoken == ECHO and parameters.real:
        raise UsageError(f"--protocol {ECHO}: real servers speak {HTTP} alone; leave out --protocol")
    if parameters.spoken == HTTP and BACKLOGGED in parameters.state:
        raise UsageError(f"--state {BACKLOGGED} is of echoes; over HTTP choose --state {IDLE},{USED}")


def _check_search(parameters: ConnectionsParameters) -> None:
    if parameters.state != (USED,):
        raise UsageError("--memory-budget searches with used connections; leave out --state")
    if not parameters.probe_rate:
        raise UsageError("--memory-budget needs latencies; give a --probe-rate above 0")
    if parameters.rest:
        raise UsageError("--rest watches the end of a ramp, and --memory-budget has none; leave one of them out")


def cells(parameters: ConnectionsParameters) -> list[Cell]:
    """One cell per model and state. A wall in mid-ramp is a result: only what the first connection takes is needed."""
    return [
        Cell(
            {"model": model, "state": state},
            chosen(model, parameters).fixed.plus(_CLIENT_NEEDS),
            _WEIGHTS.get(model, 1.0),
        )
        for model in parameters.models
        for state in parameters.state
    ]


def server_options(
    parameters: ConnectionsParameters, most_count: int | None = None, state: str = USED
) -> ServerOptions:
    """How every server is started to hold so many; a model leaves alone what does not apply to it."""
    return ServerOptions(
        stack_bytes=parameters.stack,
        workers_count=parameters.workers,
        is_edge_triggered=parameters.edge,
        capacity_count=most_count or parameters.most,
        protocol=parameters.spoken,
        takes_silent=state == IDLE,
    )


def data_needs(parameters: ConnectionsParameters, state: str) -> Needs:
    """What lies in one connection in this state."""
    return Needs(tcp_bytes=parameters.unread_bytes if state == BACKLOGGED else 0)


def geometric_steps(to: int, steps: int) -> list[int]:
    """About ``steps`` counts up to ``to``, each about twice the last; exact at the end, each once."""
    ratio = min(2.0, to ** (1 / max(1, steps - 1)))
    return sorted({max(1, round(to / ratio**back)) for back in range(steps)})


def chosen(name: str, parameters: ConnectionsParameters) -> ServerModel:
    """What is known of a model or real server before it runs."""
    if name == COMMAND:
        return command_model(parameters.server_command)
    return MODELS[name] if name in MODELS else REAL_SERVERS[name]
