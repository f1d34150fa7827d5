"""Servers of trace-overhead, each with the load that fits it: real ones with wrk, the models with the pump."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from c10k_probe import native, stats
from c10k_probe.experiment import Scalar
from c10k_probe.limits import Needs
from c10k_probe.load import ClosedLoop, Holder, Pumped, Wrk, find_wrk
from c10k_probe.observe import processes, tree
from c10k_probe.servers import (
    CLIENT_END,
    MODELS,
    REAL_SERVERS,
    RealModel,
    Server,
    ServerModel,
    ServerOptions,
    command_model,
)
from c10k_probe.servers.nginx import NGINX, PATH_FILE
from c10k_probe.servers.real import PATH

AUTO = "auto"
COMMAND = "command"  # the user's own
FALLBACK = "epoll"  # where nginx or wrk is missing
SERVERS: Mapping[str, ServerModel] = {**REAL_SERVERS, **MODELS}
ANSWERS = {"file": PATH_FILE, "memory": PATH}
_OWN_DESCRIPTORS = Needs(descriptors_count=32, system_descriptors_count=64)


@dataclass(frozen=True)
class Ask:
    """What load is wanted. answer: a key of ``ANSWERS``, what nginx answers with; command: of the user's own server."""

    connections_count: int
    duration_s: int
    answer: str
    command: str


class Load(Protocol):
    """A load that has begun; a context manager that leaves nothing behind."""

    def wait(self, timeout_s: float) -> bool:
        """Whether it has ended, after waiting this long at most."""

    def finish(self) -> ClosedLoop:
        """What it came to; waits for its end. Raises ``native.HelperError``."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass(frozen=True)
class Ready:
    """A server that runs, how its load is begun, and what is known of its answers."""

    server: Server
    begin: Callable[[], Load]
    facts: Mapping[str, Scalar]


NOTHING_KNOWN: Mapping[str, Scalar] = {"server_version": None, "header_bytes": None, "body_bytes": None}
"""Of the answers of a model, which echoes."""


def model_of(name: str, command: str) -> ServerModel:
    """The server of this name. Raises ``ValueError`` for a command that cannot be meant."""
    return command_model(command) if name == COMMAND else SERVERS[name]


def resolve(chosen: tuple[str, ...], command: str) -> tuple[str, ...]:
    """Names without ``auto``; of all of them the user's own server is one only if there is one."""
    if set(chosen) == {AUTO, *SERVERS, COMMAND}:
        return (*SERVERS, COMMAND) if command else tuple(SERVERS)
    names = [each for name in chosen for each in (_auto(command) if name == AUTO else (name,))]
    return tuple(dict.fromkeys(names))


def _auto(command: str) -> tuple[str, ...]:
    """The user's own server if there is one; else nginx, and the reference model too where nginx or wrk is missing:
    nginx's rows then say what is.
    """
    if command:
        return (COMMAND,)
    try:
        NGINX.find()
        find_wrk()
    except native.HelperUnsupported:
        return NGINX.name, FALLBACK
    return (NGINX.name,)


def needs(model: ServerModel, connections_count: int) -> Needs:
    """What a cell takes of each limit."""
    both_ends = model.per_connection.plus(CLIENT_END)
    return model.fixed.plus(both_ends.times(connections_count)).plus(_OWN_DESCRIPTORS)


@contextlib.contextmanager
def serving(name: str, ask: Ask, remaining_s: Callable[[], float]) -> Iterator[Ready]:
    """A fresh server. Raises ``native.HelperError``; ``HelperUnsupported`` for what is missing here."""
    model = model_of(name, ask.command)
    of_it = _serving_http(model, ask) if isinstance(model, RealModel) else _serving_echo(model, ask, remaining_s)
    with of_it as ready:
        yield ready


@contextlib.contextmanager
def _serving_http(model: RealModel, ask: Ask) -> Iterator[Ready]:
    find_wrk()
    path = ANSWERS[ask.answer] if model is NGINX else PATH
    with model.start(ServerOptions(protocol="http", capacity_count=ask.connections_count)) as server:
        _keep_to_one_cpu(server)
        server.warm_up(ask.connections_count)
        page = server.look(path)
        facts: Mapping[str, Scalar] = {
            "server_version": server.version,
            "header_bytes": page.header_bytes,
            "body_bytes": page.body_bytes,
        }
        yield Ready(server, lambda: Wrk(server.url(path), ask.connections_count, ask.duration_s), facts)


@contextlib.contextmanager
def _serving_echo(model: ServerModel, ask: Ask, remaining_s: Callable[[], float]) -> Iterator[Ready]:
    with (
        model.start(ServerOptions(capacity_count=ask.connections_count)) as server,
        Holder(server.port, ask.connections_count, remaining_s=remaining_s) as holder,
    ):
        _keep_to_one_cpu(server)
        ramped = holder.ramp(ask.connections_count)
        if ramped.failure is not None:
            raise native.HelperError(f"{ramped.failure.call} failed: {ramped.failure.message}")
        yield Ready(server, lambda: Pumping(holder, ask.connections_count, ask.duration_s), NOTHING_KNOWN)


def _keep_to_one_cpu(server: Server) -> None:
    """So that one CPU's worth is full load for every server on every machine; its further workers inherit it."""
    for tid in processes.walk_threads(tree.session_pids(server.session)):
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(tid, [min(server.cpus)])


class Pumping:
    """The pump in a thread, so that a tracer can be read meanwhile."""

    def __init__(self, holder: Holder, connections_count: int, duration_s: float) -> None:
        self._holder = holder
        self._answer: Pumped | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._pump, args=(connections_count, duration_s), daemon=True)
        self._thread.start()

    def _pump(self, connections_count: int, duration_s: float) -> None:
        try:
            self._answer = self._holder.pump(connections_count, duration_s)
        except BaseException as error:  # told by finish
            self._error = error

    def wait(self, timeout_s: float) -> bool:
        """See ``Load``."""
        self._thread.join(max(0.0, timeout_s))
        return not self._thread.is_alive()

    def finish(self) -> ClosedLoop:
        """See ``Load``."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._answer is not None
        return _closed_loop(self._answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread.is_alive():
            self._holder.kill()  # the thread hears of its end
        self._thread.join()


def _closed_loop(pumped: Pumped) -> ClosedLoop:
    if not pumped.duration_ns:
        why = pumped.failure.message if pumped.failure else "nothing was counted"
        raise native.HelperError(f"every connection broke: {why}")
    duration_s = pumped.duration_ns / 1e9
    return ClosedLoop(
        requests_count=pumped.requests_count,
        failed_count=pumped.failed_count,
        requests_per_s=pumped.requests_count / duration_s,
        latency_p50_ns=stats.quantile(pumped.latency_ns, 0.50),
        latency_p90_ns=stats.quantile(pumped.latency_ns, 0.90),
        latency_p99_ns=stats.quantile(pumped.latency_ns, 0.99),
        cpu_s=(pumped.client_cpu_ns or 0) / 1e9,
        elapsed_s=duration_s,
    )
