"""Servers of trace-overhead, each with the load that fits it: nginx with wrk, the reference models with the pump."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from c10k_probe import native, stats
from c10k_probe.limits import Needs
from c10k_probe.load import ClosedLoop, Holder, Pumped, Wrk, find_wrk
from c10k_probe.servers import CLIENT_END, MODELS, NginxServer, ReferenceServer, Server, nginx

NGINX = "nginx"
AUTO = "auto"
FALLBACK = "epoll"  # where nginx or wrk is missing
SERVERS = (NGINX, *MODELS)
ANSWERS = {"file": nginx.PATH, "memory": nginx.PATH_MEMORY}
_OWN_DESCRIPTORS = Needs(descriptors_count=32, system_descriptors_count=64)


@dataclass(frozen=True)
class Ask:
    """What load is wanted. answer: a key of ``ANSWERS``."""

    connections_count: int
    duration_s: int
    answer: str


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
    """A server that runs, and how its load is begun."""

    server: Server
    begin: Callable[[], Load]


def resolve(chosen: tuple[str, ...]) -> tuple[str, ...]:
    """``auto`` is nginx, and the reference model too where that, or wrk, is missing: its rows then say what is."""
    if AUTO not in chosen:
        return chosen
    try:
        nginx.find_nginx()
        find_wrk()
    except native.HelperUnsupported:
        return NGINX, FALLBACK
    return (NGINX,)


def needs(server: str, connections_count: int) -> Needs:
    """What a cell takes of each limit."""
    if server == NGINX:
        fixed, each = nginx.NEEDS, Needs(descriptors_count=1, system_descriptors_count=1)
    else:
        fixed, each = MODELS[server].fixed, MODELS[server].per_connection
    return fixed.plus(each.plus(CLIENT_END).times(connections_count)).plus(_OWN_DESCRIPTORS)


@contextlib.contextmanager
def serving(name: str, ask: Ask, remaining_s: Callable[[], float]) -> Iterator[Ready]:
    """A fresh server. Raises ``native.HelperError``; ``HelperUnsupported`` for what is missing here."""
    if name == NGINX:
        find_wrk()
        with NginxServer() as server:
            url = server.url(ANSWERS[ask.answer])
            yield Ready(server, lambda: Wrk(url, ask.connections_count, ask.duration_s))
        return
    with (
        ReferenceServer(name) as model,
        Holder(model.port, ask.connections_count, remaining_s=remaining_s) as holder,
    ):
        ramped = holder.ramp(ask.connections_count)
        if ramped.failure is not None:
            raise native.HelperError(f"{ramped.failure.call} failed: {ramped.failure.message}")
        yield Ready(model, lambda: Pumping(holder, ask.connections_count, ask.duration_s))


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
