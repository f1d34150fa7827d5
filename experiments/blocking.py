"""What does it cost to wait for a database: in throughput, in memory, and for the next user?

Question: every request waits for a backend. How much does a server of each model then answer, against Little's law:
with W places and a delay of S no more than W/S, however idle the CPU is? Where is the time spent, in the queue or in
the worker? Does a worker get slower when all are busy? How much of a worker's life is waiting? What does a second user
feel while the first one waits? And, per second of CPU, who answers most?

Parts (``--part``). plateau: requests under way against the places of each model, in a closed loop. open-loop: each
pool offered 1.5 times what it can have under way, and a pool with enough workers for that offered the same (see
``_blocking_open``). second-user: one request waits 1 s for its backend, another needs none; ten pairs in each launch.
limit: prefork with 16 workers below, at and above its limit. surface: prefork, its workers all busy, by delay and CPU
time. one-cpu: models against each other on one CPU (the server's half of two), and the memory of each further request
that waits. calls: blocking calls alone.

Models: those of the server in C, and Python's: asyncio and uvloop that await the backend, asyncio that makes the
blocking call itself (the wrong way), asyncio with a pool of threads, a thread for each connection. They all ask the
same backend; what Python's know of the time in the queue has steps of the kernel's timer (``servers_in_python.work``).

Timed: a closed loop by ``load.Sender``, after a warm-up of two delays; throughput by its clock, from the last answer
before the window to the last one in it (a window as such holds one batch of answers more or less). The server times
itself: ``queue_ns`` from the kernel's stamp on the request's arrival to the return of recv, ``in_worker_ns`` from there
to the answer's send (of ``epoll-pool`` the wait for a thread is in the queue). Both are means over the window's
requests. A queue that is not yet as long as it becomes when the window begins (thousands before a few workers take
minutes to fill it) has no ``queue_ns``; ``queue_by_little_ns`` says by Little's law how long it becomes. CPU: of all
the server's tasks, also those that have ended, in the window. ``waiting_pct``: 50 looks a second at no more than 32
tasks. At the window's end the backend holds its answers, so that memory is read while every place waits; then it
answers at once, so that nobody waits for what has queued. Not timed: starting the server and the backend. Clock:
CLOCK_MONOTONIC; CLOCK_REALTIME for the queue, as the kernel stamps with it.

The backend is a real TCP service, one event loop on the client's CPU, that answers each question by itself after its
delay: it is no queue, and what it adds is in ``backend_wait_ns``. Its count of questions, over the whole load, is
compared with the server's, and a row where they differ is void. A server gives a question up after 150 delays, 2 s at
least, and answers 504; of a backend that hangs after two delays, 100 ms at least.

Known bias: a closed loop hides how long clients on a schedule of their own would wait. Client, backend and server share
the machine. Little's line counts the delay that was asked for, so the time that a request takes besides (connecting,
switching) shows as a ratio under 1. Without keep-alive each request opens a connection, which is what a pool of
workers with one connection each needs in order not to starve anybody. off_cpu_pct counts a place that nobody uses as
waiting: it is judged only with as many requests as places. A worker may be off the CPU because it waits for the CPU:
``waiting_pct`` leaves those out. With more new connections at once than the accept queue holds (4,096, or somaxconn)
SYNs are dropped and sent again after 1 s and more: throughput may then fall below the line, whatever the workers do;
listen_drops_count says how often, and the row is shaky unless its places were kept busy all the same.

Sources: J. D. C. Little, "A Proof for the Queuing Formula L = λW", 1961; proc(5), socket(7) (SO_TIMESTAMPNS), read(2),
write(2).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from c10k_probe.experiment import Bench, Cell, Experiment, Made, Row, Samples

from ._blocking_calls import call
from ._blocking_check import check
from ._blocking_design import (
    CALLS,
    FAULT_AFTER_COUNT,
    LIMIT,
    LIMIT_CONCURRENCIES,
    NEVER,
    NEVER_TIMEOUT_NS,
    ONE_CPU,
    OPEN,
    PLATEAU,
    SECOND,
    SURFACE,
    SURFACE_WORKERS,
    BlockingParameters,
    cells,
    one_cpu_concurrencies,
    open_concurrencies,
    open_connections,
    window_s,
)
from ._blocking_findings import findings
from ._blocking_judges import JUDGES
from ._blocking_measure import Ask, Step, closed_step, steps
from ._blocking_open import open_step
from ._blocking_rows import CHARTS, VIEWS, BlockingRow, rows
from ._blocking_second import trials

_FIXED_CONCURRENCIES = {LIMIT: LIMIT_CONCURRENCIES, SURFACE: (SURFACE_WORKERS,)}


class Blocking(Experiment[BlockingParameters]):
    """See the module."""

    version = 2
    parameters_type = BlockingParameters
    row_type = BlockingRow
    views = VIEWS
    charts = CHARTS
    judges = JUDGES
    weights_are_s = True
    repeats = 5
    quick_repeats = 1

    def check(self, parameters: BlockingParameters) -> None:
        """See ``_blocking_check.check``."""
        check(parameters)

    def cells(self, parameters: BlockingParameters) -> list[Cell]:
        """Each server of each part; concurrencies are steps of it."""
        return list(cells(parameters))

    def measure(self, parameters: BlockingParameters, cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        """A fresh server and backend, or ten, or one call."""
        part, workers = str(cell.key["part"]), str(cell.key["workers"])
        workers_count = int(workers) if workers.isdigit() else 0
        if part == CALLS:
            yield call(cell, bench.block)
        elif part == SECOND:
            yield trials(cell, workers_count, bench.block)
        else:
            ask = _ask(parameters, cell, workers_count, bench.seed)
            step = _open_step(parameters) if part == OPEN else closed_step
            for item in steps(ask, _concurrencies(parameters, part, ask), step):
                yield dataclasses.replace(item, block=bench.block)

    def summarise(self, parameters: BlockingParameters, samples: Sequence[Samples], seed: int) -> list[Row]:
        """See ``_blocking_rows.rows``."""
        return list(rows(samples, seed))

    def fit(self, parameters: BlockingParameters, samples: Sequence[Samples], seed: int) -> Sequence[Made]:
        """From how many requests on each pool answers no more; the memory of a request."""
        return findings(samples, seed)


def _open_step(parameters: BlockingParameters) -> Step:
    return lambda bed, count: open_step(bed, count, open_connections(parameters, bed.ask.workers_count, count))


def _concurrencies(parameters: BlockingParameters, part: str, ask: Ask) -> Sequence[int]:
    if part == OPEN:
        return open_concurrencies(parameters, ask.workers_count)
    if part == ONE_CPU:
        return one_cpu_concurrencies(ask.model, ask.workers_count, ask.delay_ns)
    return _FIXED_CONCURRENCIES.get(part, parameters.concurrency)


def _ask(parameters: BlockingParameters, cell: Cell, workers_count: int, seed: int) -> Ask:
    part, is_never = str(cell.key["part"]), cell.key["delay_ns"] == NEVER
    delay_ns = NEVER_TIMEOUT_NS if is_never else int(cell.key["delay_ns"])
    is_plateau = part == PLATEAU
    kind = NEVER if is_never else parameters.delay_kind
    return Ask(
        cell=cell,
        workers_count=workers_count,
        delay_ns=delay_ns,
        delay_kind=kind if is_plateau else "fixed",
        cpu_ns=int(cell.key["cpu_ns"]),
        is_kept_alive=parameters.keep_alive == "on" if is_plateau else part != LIMIT,
        window_s=window_s(delay_ns, parameters.cycles),
        seed=seed,
        fault=parameters.fault if is_plateau else "none",
        fault_after_count=FAULT_AFTER_COUNT if parameters.fault_after is None else parameters.fault_after,
    )


EXPERIMENT = Blocking()
