"""What is inside a server, that no load shows: memory of a process of PHP, and what runs in parallel in Node.js.

held connections: as many processes of Apache as connections that are held at once, so that each has answered once; the
memory of the tree with few and with many gives what one more takes. worker threads: a loop in JavaScript on one thread,
and split over as many as there are CPUs, four at most. files: six opens of named pipes that nobody opens at the other
end for a while, which keep a thread but no CPU; whoever waits is released after that while, and again after as long.
wrk: an event loop that is not kept to one CPU, under full load: how much CPU time it leaves.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from c10k_probe import native
from c10k_probe.load import Wrk
from c10k_probe.observe import processes, tree
from c10k_probe.observe.cgroups import cpu_quota
from c10k_probe.observe.ledger import KERNEL_STACK_BYTES
from c10k_probe.observe.procfs import PROC, read_text
from c10k_probe.servers import NODE_INSIDE, REAL_SERVERS, RealServer, ServerOptions

from ._servers_design import APACHE, FILES, HELD, NODE, THREADS
from ._servers_facts import Facts, cpu_facts, wrk_facts
from ._servers_launch import Ask, telling_of_death

WORKERS_COUNTS = (10, 45, 80, 115, 150)
JOBS_COUNT = 6
_HOLD_S = 0.3
_MOST_THREADS = 4
_HELD_COUNT = 3
_PATIENCE_S = 5.0
_POLL_S = 0.005
_O_NONBLOCK: Final = os.O_NONBLOCK
_HTTP = ServerOptions(protocol="http")
Found = tuple[Facts, dict[str, list[int]]]


def measure_inside(ask: Ask, load: str, remaining_s: Callable[[], float]) -> Found:
    """One launch. Raises ``native.HelperError``."""
    if load == HELD:
        return _php_processes(remaining_s)
    if load == THREADS:
        return _worker_threads()
    return _files() if load == FILES else _left(ask)


# --- Apache -----------------------------------------------------------------------------------------------------------


def _php_processes(remaining_s: Callable[[], float]) -> Found:
    """Memory of trees of so many processes, each of which has answered once."""
    values: dict[str, list[int]] = {"workers_count": []}
    facts: Facts = {}
    for count in WORKERS_COUNTS:
        if remaining_s() <= 0:
            raise native.HelperError("the run's time is over")
        options = ServerOptions(protocol="http", workers_count=count)
        with REAL_SERVERS[APACHE].start(options) as server:
            server.warm_up(count)
            read = _memory_of(server)
            facts = {"server_version": server.version, "script_cache": server.script_cache()}
        values["workers_count"].append(count)
        for name, value in read.items():
            values.setdefault(name, []).append(value)
    return facts | {"connections_count": max(WORKERS_COUNTS)}, values


def _memory_of(server: RealServer) -> dict[str, int]:
    """All of the tree: by each meter, and with page tables and kernel stacks. Raises ``native.HelperError``."""
    found = tree.read_tree(server.session)
    parts = (found.pss_bytes, found.private_bytes, found.rss_bytes, found.page_table_bytes)
    pss, private, rss, page_tables = (part or 0 for part in parts)
    if not found.is_complete or None in parts:
        raise native.HelperError("memory of its processes cannot be read")
    kernel_bytes = page_tables + found.tasks_count * KERNEL_STACK_BYTES
    return {"tree_bytes": pss + kernel_bytes, "pss_bytes": pss, "private_bytes": private, "rss_bytes": rss}


# --- Node.js ----------------------------------------------------------------------------------------------------------


def _worker_threads() -> Found:
    count = min(_MOST_THREADS, len(os.sched_getaffinity(0)))
    with NODE_INSIDE.start(_HTTP) as server:
        _spread(server)
        told = _told(server, f"?threads={count}")
        facts: Facts = {"server_version": _version(server), "jobs_count": count}
    return facts | {"threads_ratio": told["alone_ms"] / told["split_ms"] if count > 1 else None}, {}


def _files() -> Found:
    """Named pipes that keep whoever opens them; and the flags of its sockets."""
    with NODE_INSIDE.start(_HTTP) as server:
        for number in range(JOBS_COUNT):
            path = server.folder / f"fifo-{number}"
            os.mkfifo(path)
            path.chmod(0o666)
        _told(server, f"?open={JOBS_COUNT}")
        waves: list[int] = []
        while sum(waves) < JOBS_COUNT:
            time.sleep(_HOLD_S)  # what is measured: who has not begun by then waits for a thread
            waves.append(_release(server.folder))
            if not waves[-1]:
                raise native.HelperError(f"{sum(waves)} of {JOBS_COUNT} opens of a file ended, and no more")
        ends_ms = sorted(_opened(server).values())
        sockets_count, nonblocking_count = _socket_flags(server)
        facts: Facts = {
            "server_version": _version(server),
            "engine_version": str(_told(server, "?versions").get("v8") or "") or None,
            "jobs_count": JOBS_COUNT,
            "at_once_count": waves[0],
            "wave_ratio": ends_ms[-1] / ends_ms[0],
            "sockets_count": sockets_count,
            "nonblocking_sockets_count": nonblocking_count,
        }
    return facts, {}


def _release(folder: Path) -> int:
    """Open the other end of each pipe at which somebody waits, the last first, and close it; how many those were."""
    count = 0
    for number in reversed(range(JOBS_COUNT)):
        with contextlib.suppress(OSError):  # ENXIO: nobody waits there, not yet or no more
            os.close(os.open(folder / f"fifo-{number}", os.O_WRONLY | os.O_NONBLOCK))
            count += 1
    return count


def _opened(server: RealServer) -> Mapping[str, float]:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        found: Mapping[str, float] = _told(server, "?opened")["ms"]
        if len(found) == JOBS_COUNT:
            return found
        if time.monotonic() > deadline:
            raise native.HelperError(f"{len(found)} of {JOBS_COUNT} opens of a file ended within {_PATIENCE_S:g} s")
        time.sleep(_POLL_S)


def _socket_flags(server: RealServer) -> tuple[int, int]:
    """TCP sockets on its port that its first process has, and how many of them are non-blocking (proc(5), fdinfo)."""
    with server.held(_HELD_COUNT):
        inodes = {words[9] for words in _tcp_lines() if words[1].endswith(f":{server.port:04X}")}
        flags = []
        for path in (PROC / str(server.session) / "fd").iterdir():
            with contextlib.suppress(OSError):
                if path.readlink().name.removeprefix("socket:[").removesuffix("]") in inodes:
                    text = (path.parents[1] / "fdinfo" / path.name).read_text()
                    flags.append(int(text.partition("flags:")[2].split()[0], 8))
        return len(flags), sum(bool(flag & _O_NONBLOCK) for flag in flags)


def _tcp_lines() -> Iterator[list[str]]:
    lines = (read_text(PROC / "net" / "tcp") or "").splitlines()[1:]
    return (words for words in map(str.split, lines) if len(words) > 9 and words[9] != "0")


def _left(ask: Ask) -> Found:
    """CPU time of all CPUs that an event loop at full load does not take."""
    quota = cpu_quota()
    cpus_count = min(float(len(os.sched_getaffinity(0))), quota if isinstance(quota, float) else math.inf)
    with REAL_SERVERS[NODE].start(_HTTP) as server, telling_of_death(server):
        server.warm_up(ask.connections_count)
        _spread(server)
        before = tree.read_tree(server.session, memory=False)
        with Wrk(server.url(), ask.connections_count, ask.duration_s) as load:
            report = load.finish()
        after = tree.read_tree(server.session, memory=False)
        facts = wrk_facts(report) | cpu_facts(before, after, load.elapsed_s, load.cpu_s, report.answered_count)
        pct = facts["server_cpu_pct"]
        left_pct = None if not isinstance(pct, float) else max(0.0, 100 - pct / cpus_count)
        more: Facts = {"server_version": server.version, "cpus_count": cpus_count, "left_pct": left_pct}
    return facts | more | {"connections_count": ask.connections_count}, {}


# --- both -------------------------------------------------------------------------------------------------------------


def _spread(server: RealServer) -> None:
    """Let it have every CPU that we have."""
    for tid in processes.walk_threads(tree.session_pids(server.session)):
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(tid, os.sched_getaffinity(0))


def _told(server: RealServer, query: str) -> dict[str, Any]:
    page = server.ask(query)
    try:
        found: dict[str, Any] = json.loads(page.body)
    except ValueError:
        raise native.HelperError(f"{server.name} told nothing about {query}: {page.body[:40]!r}") from None
    return found


def _version(server: RealServer) -> str:
    return f"Node.js/{_told(server, '?versions')['node']}"
