"""A launch of servers: a fresh server, kept to one CPU, warm where that is fair, and told of when it dies."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

from c10k_probe import native
from c10k_probe.experiment import OFF
from c10k_probe.observe import processes, tree
from c10k_probe.observe.procfs import PROC, read_text
from c10k_probe.observe.series import Memory, read_memory
from c10k_probe.servers import RealServer, Server

from ._servers_design import FAIR, WORKER_NEEDS, model_of, options_of
from ._servers_facts import Facts

_ANSWER_S = 5.0
_READ_BYTES = 65_536
_GROWN_S = 10.0
_POLL_S = 0.02
_ASLEEP_S = 0.5
_REST_S = 5.0
_REST_POLL_S = 0.05
_REST_SHARE = 0.1  # of one CPU
_SAME_TIMES = 3  # readings of a tree in which nothing grows any more


@dataclass(frozen=True)
class Ask:
    """What one launch is to measure. window_s: of each rate of the open loop."""

    server: str
    arm: str
    command: str
    connections_count: int
    requests_count: int
    duration_s: int
    keeps_alive: bool
    is_observed: bool = True
    window_s: float = 1.0
    traced_by: str = OFF


@dataclass(frozen=True)
class Started:
    """A server that is ready for its load.

    rest: its memory, pool and all, before anybody asked it anything of weight.
    """

    server: Server
    facts: Facts
    rest: Memory | None


@contextlib.contextmanager
def started(ask: Ask) -> Iterator[Started]:
    """A fresh server on one CPU. Raises ``native.HelperError``."""
    options, _ = options_of(ask.server, ask.arm, ask.connections_count)
    is_pool = ask.arm == FAIR and ask.server in WORKER_NEEDS
    with model_of(ask.server, ask.command).start(options) as server:
        if is_pool:
            _wait_until_grown(server.session)
        _keep_to_one_cpu(server)
        rest, waits_in = read_memory(server.session), _waits_in(server.session)
        facts: Facts = {"waits_in": waits_in, "workers_count": options.workers_count, "script_cache": None}
        if isinstance(server, RealServer):
            facts["script_cache"] = server.script_cache()
            if ask.arm == FAIR:
                server.warm_up(ask.connections_count)
                _wait_until_grown(server.session)
                _keep_to_one_cpu(server)  # what grew meanwhile
        yield Started(server, {**_answer_facts(server), **facts, "connections_count": ask.connections_count}, rest)


def _wait_until_grown(session: int) -> None:
    """Until the tree has as many tasks as a moment ago, several times: a pool still grows when all have an answer."""
    deadline, last, same = time.monotonic() + _GROWN_S, -1, 0
    while same < _SAME_TIMES and time.monotonic() < deadline:
        count = sum(1 for _ in processes.walk_threads(tree.session_pids(session)))
        same, last = (same + 1, last) if count == last else (0, count)
        time.sleep(_POLL_S)


@contextlib.contextmanager
def telling_of_death(server: Server) -> Iterator[None]:
    """A load that fails because the server has died says so."""
    try:
        yield
    except native.HelperError:
        if death := death_of(server):
            raise native.HelperError(f"{death}; it was under load") from None
        raise
    if death := death_of(server):
        raise native.HelperError(f"{death}; it was under load")


def death_of(server: Server) -> str:
    """How the server ended, without waiting for it while it lives."""
    return "" if processes.is_alive(server.session) else server.death()


@contextlib.contextmanager
def beside_the_client() -> Iterator[None]:
    """This process keeps off the server's CPU meanwhile."""
    usable = os.sched_getaffinity(0)
    _, clients = native.split_cpus()
    os.sched_setaffinity(0, clients)
    try:
        yield
    finally:
        os.sched_setaffinity(0, usable)


def _keep_to_one_cpu(server: Server) -> None:
    """So that one CPU's worth is full load for every server on every machine; what it starts later inherits it."""
    for tid in processes.walk_threads(tree.session_pids(server.session)):
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(tid, [min(server.cpus)])


def _answer_facts(server: Server) -> Facts:
    """Version, and sizes of an answer."""
    if isinstance(server, RealServer):
        page = server.look()
        return {"server_version": server.version, "header_bytes": page.header_bytes, "body_bytes": page.body_bytes}
    head, _, body = _answer(server.port).partition(b"\r\n\r\n")
    return {"server_version": None, "header_bytes": len(head) + 4, "body_bytes": len(body)}


def _answer(port: int) -> bytes:
    """One whole answer, after which the server closes. Raises ``native.HelperError``."""
    try:
        with socket.create_connection(("127.0.0.1", port), _ANSWER_S) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            pieces = iter(lambda: connection.recv(_READ_BYTES), b"")
            return b"".join(pieces)
    except OSError as error:
        raise native.HelperError(f"the server does not answer: {error}") from None


def cpu_s(server: Server) -> float | None:
    """CPU time of the server's tree since its start."""
    return tree.read_tree(server.session, memory=False).cpu_run_s


def wait_until_at_rest(server: Server) -> None:
    """Until the server has ended what was under way when its load went away: it takes hardly any CPU time."""
    deadline = time.monotonic() + _REST_S
    last_s, last_cpu_s = time.monotonic(), cpu_s(server)
    while time.monotonic() < deadline:
        time.sleep(_REST_POLL_S)
        now_s, now_cpu_s = time.monotonic(), cpu_s(server)
        if last_cpu_s is None or now_cpu_s is None or now_cpu_s - last_cpu_s < _REST_SHARE * (now_s - last_s):
            return
        last_s, last_cpu_s = now_s, now_cpu_s


def told_count(server: Server) -> int | None:
    """Requests that the server says it has answered; None where it does not."""
    if isinstance(server, RealServer):
        return server.told_requests_count()
    count = server.status().get("requests_count")
    return None if count is None else int(count)


def told_since(before: int | None, after: int | None) -> Facts:
    """Requests that the server says it has answered meanwhile."""
    return {"told_requests_count": None if before is None or after is None else after - before}


def _waits_in(session: int) -> str | None:
    """The kernel's functions in which the tree's first threads sleep (wchan); None where that is not told.

    It is told of who sleeps: a server that has just started is looked at until all of it does.
    """
    deadline = time.monotonic() + _ASLEEP_S
    while True:
        texts = [read_text(PROC / str(pid) / "wchan") or "" for pid in tree.session_pids(session)]
        if not {"", "0"} & set(texts) or time.monotonic() > deadline:
            return " ".join(sorted(set(texts) - {"", "0"})) or None
        time.sleep(_POLL_S)
