"""One launch of ``blocking``: a backend, a fresh server, a closed loop, and what the server's tasks do meanwhile."""

from __future__ import annotations

import contextlib
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from c10k_probe import native
from c10k_probe.experiment import Cell, Samples, Scalar
from c10k_probe.load import ClosedLoopReport, Sender
from c10k_probe.observe import processes, tree
from c10k_probe.observe.ledger import KERNEL_STACK_BYTES
from c10k_probe.observe.sockets import listen_drops
from c10k_probe.observe.work import Reading, Work, read_work
from c10k_probe.servers import Backend, Server, ServerOptions

from ._blocking_design import NEVER, NEVER_TIMEOUT_NS, SERVED, WITH_WORKERS, S, closed_times_s, places

_SAMPLE_S: Final = 0.02
_SAMPLED_TASKS: Final = 32
_WAITING_STATES: Final = (b"S", b"D")
_PATIENT_DELAYS: Final = 150  # more than the longest delay that a backend draws
_LEAST_TIMEOUT_NS: Final = 2 * S
_MOST_TIMEOUT_NS: Final = 60 * S


@dataclass(frozen=True)
class Ask:
    """One load: ``delay_ns`` 0 stands for no backend; with ``delay_kind`` never it is what a server waits in vain."""

    cell: Cell
    workers_count: int
    delay_ns: int
    delay_kind: str
    cpu_ns: int
    is_kept_alive: bool
    window_s: float
    seed: int
    fault: str = "none"
    fault_after_count: int = 0

    @property
    def model(self) -> str:
        """How requests are served."""
        return str(self.cell.key["model"])


@dataclass
class Watched:
    """What the server's tasks were seen to do: how many of them, in how many samples, waited; memory at the end."""

    seen_count: int = 0
    waiting_count: int = 0
    tasks_count: int | None = None
    memory_bytes: int | None = None

    def look(self, session: int, begins_s: float, ends_s: float, seed: int) -> None:
        """Look 50 times a second at no more than 32 tasks drawn at random, until the end exactly."""
        draws = random.Random(seed)
        sleep_until(begins_s)
        while (left_s := ends_s - time.monotonic()) > 0:
            time.sleep(min(_SAMPLE_S, left_s))
            tasks = _workers_of(session)
            for pid, tid in draws.sample(tasks, min(len(tasks), _SAMPLED_TASKS)):
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    self.waiting_count += processes.stat_fields(pid, tid=tid)[0] in _WAITING_STATES
                    self.seen_count += 1

    def read_memory(self, session: int) -> None:
        """Of all the server's tasks, now."""
        reading = tree.read_tree(session)
        self.tasks_count = reading.tasks_count
        parts = (reading.pss_bytes, reading.page_table_bytes)
        if reading.is_complete and None not in parts:
            self.memory_bytes = sum(part or 0 for part in parts) + KERNEL_STACK_BYTES * reading.tasks_count


def sleep_until(moment_s: float) -> None:
    """Of CLOCK_MONOTONIC."""
    time.sleep(max(0.0, moment_s - time.monotonic()))


def _workers_of(session: int) -> list[tuple[int, int]]:
    """(pid, tid) of all tasks but the first one, which only accepts; of that one where it is alone."""
    pids = tree.session_pids(session)
    tasks = [(pid, tid) for pid in pids for tid in processes.threads_of(pid)]
    return [task for task in tasks if task != (session, session)] or tasks


@dataclass(frozen=True)
class Mark:
    """What server and backend had counted, and the CPU time that they had used, at one moment."""

    at_s: float
    counts: Mapping[str, Any]
    server: Reading
    backend: Reading


@dataclass(frozen=True)
class Bed:
    """Where a load is laid: a server and its backend, if it has one."""

    ask: Ask
    backend: Backend | None
    server: Server

    def counts(self) -> dict[str, Any]:
        """Of the server, and of the backend's questions."""
        counts: dict[str, Any] = dict(self.server.status()["work"])
        return counts | ({"told_count": self.backend.status().asked_count} if self.backend else {})

    def mark(self) -> Mark:
        """All of it now, in this order: what one mark is late by, the next one is, too."""
        counts = self.counts()
        server = read_work(tree.session_pids(self.server.session))
        return Mark(time.monotonic(), counts, server, read_work([self.backend.pid] if self.backend else []))

    def drops_count(self) -> int | None:
        """New connections that the server's accept queue had no place for so far; None where the kernel hides it."""
        return listen_drops(self.server.port)

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """The backend answers nobody meanwhile, and then everybody at once: what has queued is gone soon."""
        if self.backend:
            self.backend.hold()
        try:
            yield
        finally:
            if self.backend:
                self.backend.hurry()


Step = Callable[[Bed, int], Samples]


def steps(ask: Ask, concurrencies: Sequence[int], step: Step) -> Iterator[Samples]:
    """A fresh backend and server; each concurrency in turn."""
    with contextlib.ExitStack() as stack:
        backend = stack.enter_context(_backend(ask)) if ask.delay_ns else None
        options = ServerOptions(
            protocol="http",
            workers_count=ask.workers_count if ask.model in WITH_WORKERS else None,
            work_cpu_ns=ask.cpu_ns,
            backend_port=backend.port if backend else None,
            backend_timeout_ns=_timeout_ns(ask) if backend else None,
        )
        server = stack.enter_context(SERVED[ask.model].start(options))
        for count in concurrencies:
            yield step(Bed(ask, backend, server), count)


def _backend(ask: Ask) -> Backend:
    return Backend(
        ask.delay_ns, ask.delay_kind, seed=ask.seed, fault=ask.fault, fault_after_count=ask.fault_after_count
    )


def _timeout_ns(ask: Ask) -> int:
    """When a server gives its backend up and says so: soon, where that is what the run is about."""
    if ask.delay_kind == NEVER:
        return ask.delay_ns
    if ask.fault == "hang" and ask.delay_kind != "pareto":
        return max(NEVER_TIMEOUT_NS, 2 * ask.delay_ns)
    return min(_MOST_TIMEOUT_NS, max(_LEAST_TIMEOUT_NS, _PATIENT_DELAYS * ask.delay_ns))


def closed_step(bed: Bed, count: int) -> Samples:
    """One closed loop; what was counted in its window, and over all of it where counts of both sides are compared."""
    ask, server = bed.ask, bed.server
    places_count = places(ask.model, ask.workers_count, count)
    warmup_s, window_s = closed_times_s(ask.model, places_count, count, ask.delay_ns + ask.cpu_ns, ask.window_s)
    timeout_s = min(600.0, 10 + _timeout_ns(ask) / S + 3 * (warmup_s + window_s))
    watched = Watched()
    before, drops_count = bed.mark(), bed.drops_count()
    with Sender(server.port, count, keep_alive=ask.is_kept_alive, timeout_s=timeout_s) as sender:
        begins_s = sender.begin_pump(window_s, warmup_s) / S
        sleep_until(begins_s)
        first = bed.mark()
        watched.look(server.session, begins_s, begins_s + window_s, ask.seed)
        with bed.standing_still():
            last = bed.mark()
            watched.read_memory(server.session)
        report = sender.finish_pump(window_s)
    server.wait_until_idle()
    after = bed.mark()
    if bed.backend:
        bed.backend.resume()
    facts = _facts(report) | watched_facts(watched) | counted_facts(first.counts, last.counts)
    facts |= asked_facts(before.counts, after.counts) | {"listen_drops_count": more(drops_count, bed.drops_count())}
    facts |= work_facts(ask, first, last, places_count) | _line_facts(ask, report, count, places_count)
    if ask.delay_ns == 0 or count <= places_count:  # no queue was let go: over the whole load no request is half done
        facts |= {"requests_per_cpu_s": _per_cpu_s(before, after)}
    facts["fault_after_count"] = _not_begun(ask, after.counts)
    facts["queue_by_little_ns"] = _queue_by_little_ns(facts, count)
    if count > report.steady_rate_per_s * warmup_s:  # those of the window came before the queue was as long as it gets
        facts |= {"queue_ns": None, "latency_p50_ns": None}
    key = {**ask.cell.key, "concurrency_count": count}
    return Samples(key, 0, {"latency": list(report.latency_ns)}, facts)


def work_facts(ask: Ask, first: Mark, last: Mark, places_count: int) -> dict[str, Scalar]:
    """CPU time between the marks, and what it went to."""
    wall_s = last.at_s - first.at_s
    server_s, backend_s = cpu_s(first.server, last.server), cpu_s(first.backend, last.backend)
    return {
        "server_cpu_pct": 100 * server_s / wall_s,
        "backend_cpu_pct": 100 * backend_s / wall_s if ask.delay_ns else None,
        "requests_per_cpu_s": _per_cpu_s(first, last),
        "off_cpu_pct": 100 * (1 - server_s / (wall_s * places_count)),
    }


def _per_cpu_s(first: Mark, last: Mark) -> float | None:
    return _ratio(_right_count(first.counts, last.counts), cpu_s(first.server, last.server))


def cpu_s(first: Reading, last: Reading) -> float:
    """CPU time of a tree between two readings of it."""
    work = Work()
    work.add(first)
    work.add(last)
    return work.cpu_s


def _line_facts(ask: Ask, report: ClosedLoopReport, count: int, places_count: int) -> dict[str, Scalar]:
    line_per_s = line_of(ask, min(count, places_count), len(native.split_cpus()[0]))
    of_line_ratio = report.steady_rate_per_s / line_per_s if line_per_s else None
    return {"places_count": places_count, "line_per_s": line_per_s, "of_line_ratio": of_line_ratio}


def _queue_by_little_ns(facts: Mapping[str, Scalar], count: int) -> float | None:
    """Little's law for all that is under way: what of a request's time is not its worker's, in the steady state."""
    rate_per_s, in_worker_ns = facts["requests_per_s"], facts["in_worker_ns"]
    if not rate_per_s or in_worker_ns is None:
        return None
    return max(0.0, count * S / float(rate_per_s) - float(in_worker_ns))


def _facts(report: ClosedLoopReport) -> dict[str, Scalar]:
    return {
        "requests_per_s": report.steady_rate_per_s,
        "failed_count": report.failed_count,
        "own_failure": report.own_failure,
        "served_connections_count": report.served_connections_count,
        "client_cpu_pct": 100 * report.client_busy_ratio,
        "latency_p50_ns": statistics.median(report.latency_ns) if len(report.latency_ns) else None,
    }


def watched_facts(watched: Watched) -> dict[str, Scalar]:
    """What the tasks were seen to do."""
    return {
        "waiting_pct": 100 * watched.waiting_count / watched.seen_count if watched.seen_count else None,
        "tasks_count": watched.tasks_count,
        "memory_bytes": watched.memory_bytes,
    }


def counted_facts(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Scalar]:
    """What server and backend counted meanwhile."""
    facts: dict[str, Scalar] = {
        "queue_ns": _mean(before, after, "queue_ns", "queue_count"),
        "in_worker_ns": _mean(before, after, "handler_ns", "handler_count"),
    }
    if "backend_wait_ns" in after:  # one question for each request, whose handler ends just behind it
        facts["backend_wait_ns"] = _mean(before, after, "backend_wait_ns", "handler_count")
    return facts


def asked_facts(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Scalar]:
    """The questions of a whole load, by both sides: nothing is under way before it, nor after it."""
    if "told_count" not in after:
        return {}
    return {
        "backend_asked_count": _change(before, after, "told_count"),
        "server_asked_count": _change(before, after, "backend_asked_count"),
        "backend_failed_count": _failed(before, after),
    }


def line_of(ask: Ask, places_count: int, cpus_count: int) -> float | None:
    """Little's law, and what the CPUs can do; None where nothing is waited for or worked on, or for ever."""
    if ask.delay_kind == NEVER:
        return None
    lines = [places_count * S / (ask.delay_ns + ask.cpu_ns)] if ask.delay_ns + ask.cpu_ns else []
    lines += [cpus_count * S / ask.cpu_ns] if ask.cpu_ns else []
    return min(lines, default=None)


def more(before: int | None, after: int | None) -> int | None:
    """By how much a count grew; None where it could not be read."""
    return None if before is None or after is None else after - before


def _change(before: Mapping[str, Any], after: Mapping[str, Any], name: str) -> int:
    return int(after[name]) - int(before[name])


def _failed(before: Mapping[str, Any], after: Mapping[str, Any]) -> int:
    """Requests that the server gave up because of its backend: it failed, or was too slow."""
    return sum(_change(before, after, f"backend_{how}_count") for how in ("failed", "timed_out"))


def _right_count(before: Mapping[str, Any], after: Mapping[str, Any]) -> int:
    """Answers that the server gave, but for those that only say what its backend did wrong; both are counted when they
    end, and a moment apart: never fewer than none."""
    failed_count = _failed(before, after) if "backend_failed_count" in after else 0
    return max(0, _change(before, after, "handler_count") - failed_count)


def _not_begun(ask: Ask, after: Mapping[str, Any]) -> int | None:
    """After how many questions the backend's fault would have begun, where it had no more than that."""
    is_begun = ask.fault == "none" or int(after.get("told_count", 0)) > ask.fault_after_count
    return None if is_begun else ask.fault_after_count


def _mean(before: Mapping[str, Any], after: Mapping[str, Any], total: str, count: str) -> float | None:
    return _ratio(_change(before, after, total), _change(before, after, count))


def _ratio(value: float, base: float) -> float | None:
    return value / base if base > 0 else None
