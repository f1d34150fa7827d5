"""How many connections can this machine hold, in which model, and what does each cost?

Question: an event loop (epoll), a thread per connection, a process per connection and others hold the same TCP
connections with the same handler, and real servers (nginx, Node.js, Tornado, Apache) hold them, too: what does one more
connection cost in memory, time and CPU, where does each byte go, which limit breaks first, and does every held
connection still answer in time?

Timed: ``connect`` is the connect() call of each new connection; ``ramp_s`` runs from the first socket() of a step to
the last first echo, so that accepting and creating the worker are in it; ``echo`` is send() to the last byte of the
answer, on one held connection after another in shuffled order, on every held one (above 10,000, and at the last step
above 100,000: on a random sample, ``echo_asked_count``); ``probe`` is an echo on a random held connection at a moment
of a fixed schedule, from that moment, whether or not it was sent late, to the whole answer, several under way at once.
Not timed: reading /proc, which happens between steps, while nothing is sent. Clock: CLOCK_MONOTONIC in the C client.

Memory, as slopes over the counts of the ramp: private and shared user memory are those of the PSS of the server's
process tree, page tables VmPTE of each process, kernel stacks what grew in /proc/meminfo, slab what grew in
/proc/slabinfo (root; else /proc/meminfo), socket pages what is in use and in no counter. Both ends of a loopback
connection are on this machine: before the ramp the client holds both ends of some connections itself, and half of that
slope is the kernel's price of one end. The client's end is taken from the slab; the rest is the server's. The ledger is
closed against the fall of memory that is free or holds files, which none of its parts is read from.

--server ramps real servers, each a private instance whose settings that bound connections are raised and told
(``server_settings``). Then all of the run speaks HTTP: an echo is a GET over a connection that is kept alive, and its
answer is right when status, length and text are and the connection stays. A pool of processes grows at its own pace
(Apache: 32 a second at most), and that is in ``ramp_s``.

States: ``idle`` connections were accepted and never used, and are used at the very end to show that they live; ``used``
had an exchange each; ``backlogged`` hold --unread bytes of answers that the client has not read.

When the server tells of a limit (our own at once, a real one in its log), the client waits 1 s instead of 10 s for an
answer: ``ramp_s`` of the last step holds that wait.

--memory-budget searches instead: each trial is a fresh server that goes to one count at once (a pool with as many
workers); it fits when the server took no more than that in all, its own before the first connection included, every
echo came back and the 99th percentile of the scheduled echoes is within
--latency-bound (where they are too few for one, the longest).

Known bias: the price of one end is the mean of both, though only the client's end owns a port binding. One launch shows
one layout of memory: the interval makes room for what another would add, --repeats shows it. One echo at a time is
latency without load. cpu_user_s and cpu_system_s count whole clock ticks per process, ``cpu_run_s`` does not; all hold
the echoes too, which ``ramp_s`` does not. Client and server are pinned to different CPUs when there are two. The
loopback's softirq work of the server runs inside the client's calls. Of more than 12,000 processes a sample is read
(``memory_read_count``). Of 256 connections the first echo is awaited at a time, with Apache's event module of 16: it
closes idle connections where all threads of a process are busy. Over HTTP every request is the same, so that answers
that were mixed up would not be noticed. A server that tells of no limit is believed to be at that of descriptors when
none is left. Other programs that take or free memory meanwhile are part of what is unexplained.

With --trace each ramp is made traced too, in the same blocks; its rows have the backend in ``traced_by`` and no memory,
since a tracer takes some itself. Counted is what the server does for one more connection and its first echo, until it
sleeps again: slopes over the steps. ``done_calls`` leaves out calls that failed; one that still waits for the next
message is counted by bcc as done, by strace not at all.

Sources: epoll(7), tcp(7), sock_diag(7), proc(5), kernel Documentation/filesystems/proc.rst (smaps_rollup), slabinfo(5);
RFC 9112; the C10K problem (Kegel, 1999).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from c10k_probe import limits
from c10k_probe.experiment import OFF, Bench, Cell, Experiment, Finding, FlatRow, Row, Samples
from c10k_probe.servers import predict

from ._connection_design import (
    ECHO,
    USED,
    ConnectionsParameters,
    cells,
    check,
    chosen,
    data_needs,
    geometric_steps,
    server_options,
)
from ._connection_findings import findings
from ._connection_judges import JUDGES
from ._connection_measured import refused_row, row_of
from ._connection_ramp import ECHO_ALL_UP_TO, launched, wall_note
from ._connection_rows import ConnectionsRow
from ._connection_search import search
from ._connection_traced import TracedRamp
from ._connection_views import CHARTS, VIEWS


class Connections(Experiment[ConnectionsParameters]):
    """See the module."""

    version = 2
    parameters_type = ConnectionsParameters
    row_type = ConnectionsRow
    views = VIEWS
    charts = CHARTS
    judges = JUDGES
    is_incomplete_when_skipped = True
    traced_weight = 1.0
    traced_columns = ("ramp_s", "echo_p50_ns")

    def untraceable(self, parameters: ConnectionsParameters) -> str:
        """Counted is a ramp whose connections each had their first echo."""
        if parameters.memory_budget is not None:
            return "--memory-budget searches, and counts are slopes over a ramp"
        if parameters.spoken != ECHO:
            return "counts are of connections with an echo each; leave out --server and --protocol"
        return "" if parameters.state == (USED,) else f"counts are of connections with an echo each, --state {USED}"

    def check(self, parameters: ConnectionsParameters) -> None:
        """Refuse options that nothing would heed."""
        check(parameters)

    def cells(self, parameters: ConnectionsParameters) -> list[Cell]:
        """One cell per model and state."""
        return cells(parameters)

    def measure(self, parameters: ConnectionsParameters, cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        """The ramp of one model, ending at the wall that was hit or at the last step; or its search."""
        if cell.traced_by != OFF:
            targets = geometric_steps(parameters.most, parameters.steps)
            ramp = TracedRamp(cell, targets, server_options(parameters), ECHO_ALL_UP_TO)
            yield from (ConnectionsRow(**columns) for columns in ramp.rows(bench))
        elif parameters.memory_budget is not None:
            yield from search(parameters, cell, bench)
        else:
            yield from _ramp(parameters, cell, bench)

    def find(self, parameters: ConnectionsParameters, rows: Sequence[FlatRow], seed: int) -> Sequence[Finding]:
        """Memory over all repetitions, how the ledgers close, what was reached and what had been predicted."""
        return findings(rows, seed)


def _ramp(parameters: ConnectionsParameters, cell: Cell, bench: Bench) -> Iterator[ConnectionsRow]:
    """A row per step."""
    targets = geometric_steps(parameters.most, parameters.steps)
    bench.progress(0, sum(targets), "calibrating")
    model, state = chosen(str(cell.key["model"]), parameters), str(cell.key["state"])
    prediction = predict(model, limits.walls(), server_options(parameters), data_needs(parameters, state))
    with launched(cell, targets[-1], parameters, bench) as launch:
        for index, target in enumerate(targets):
            bench.progress(sum(targets[:index]), sum(targets), f"to {target:,}{wall_note(prediction)}")
            stop = launch.refusal(target)
            if stop is not None:
                yield refused_row(launch, target, stop, prediction, bench)
                break
            row = row_of(launch, launch.step(target, is_last=index == len(targets) - 1), prediction, bench)
            yield row
            if row.status != "ok":
                break
        bench.progress(1, 1, "closing")


EXPERIMENT = Connections()
