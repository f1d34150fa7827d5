"""What do several processes with an event loop each make of several cores?

Question: one event loop uses one core. With W of them behind one port: how much more is answered, how evenly is it
shared, how many sleepers does a connection wake, and what becomes of the longest waits?

Arms. epoll, node: one process. inherited: one listener in the epoll of every worker, level-triggered, which wakes all
that wait. exclusive: the same with EPOLLEXCLUSIVE. reuseport: a listener for each worker, chosen by a hash. passed: a
master accepts and passes descriptors in turn (SCM_RIGHTS). All in C with one handler, which spins ``--work`` of its
thread's CPU time. node, tornado: one process. node-cluster: Node's cluster, in turn. nginx-node, nginx-tornado: nginx
before W such processes, to which it gives requests in turn.

A launch is a fresh server under these loads. Closed loop of ``--concurrency`` requests at once: throughput, and from it
the speed-up over one process. Open loop at ``--utilisation`` percent of that very launch's throughput, Poisson, so that
each arm is as busy as every other, for as many requests as the p99 of one launch needs: latency from the intended
moment, shares. How busy the workers were is measured; where that is more than 10 points from one process's, the machine
had less to give in one of the loops, and no p99 is compared. short: a connection for each request; long:
``--connections`` kept ones. For short ones also a sparse loop, 100 a second, so far apart that every worker
sleeps when a connection comes: wake-ups, the herd. Under load there are fewer, since few sleep; that is shown too.

Timed: the windows of the loops. Not timed: starting, 100 ms of warm-up, what is still answered after a window. Clock:
CLOCK_MONOTONIC in the client; CPU time from schedstat. Wake-ups are voluntary context switches of the workers, of all
their threads, over connections: those of Node.js also wake for their own ends, so they compare with node's. Behind
nginx the one that nginx has is counted with them, in utilisation too.

Known bias: client and server share the machine. The client has a CPU of its own; with fewer than 4 CPUs, or more
workers than CPUs left, a speed-up would only tell that, and is void. Shares and wake-ups stand. max/mean is above 1 by
chance alone: for reuseport what a fair hash gives on average is beside it.

Sources: epoll_ctl(2), socket(7), unix(7), net/core/sock_reuseport.c, fs/eventpoll.c, Node.js documentation of cluster.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from c10k_probe.experiment import Bench, Cell, Experiment, Made, Row, Samples

from ._cores_design import CoresParameters, cells
from ._cores_judges import JUDGES
from ._cores_measure import Ask, measure
from ._cores_rows import CHARTS, VIEWS, CoresRow, findings, rows


class Cores(Experiment[CoresParameters]):
    """See the module."""

    version = 1
    parameters_type = CoresParameters
    row_type = CoresRow
    views = VIEWS
    charts = CHARTS
    judges = JUDGES
    repeats = 5
    quick_repeats = 1

    def cells(self, parameters: CoresParameters) -> list[Cell]:
        """Each arm with each number of workers under each load, and one process beside them."""
        return list(cells(parameters))

    def measure(self, parameters: CoresParameters, cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        """A fresh server under its loads."""
        name, workers_count, load = (cell.key[part] for part in ("arm", "workers_count", "load"))
        launch = measure(Ask(parameters, str(name), int(workers_count), str(load), bench.seed))
        values = {"latency_ns": launch.latency_ns, "worker_requests": launch.worker_requests}
        yield Samples(cell.key, bench.block, values, launch.facts)

    def summarise(self, parameters: CoresParameters, samples: Sequence[Samples], seed: int) -> list[Row]:
        """One row for each cell."""
        return list(rows(parameters, samples, seed))

    def fit(self, parameters: CoresParameters, samples: Sequence[Samples], seed: int) -> Sequence[Made]:
        """Why there is no speed-up, where there is none."""
        return findings(parameters, samples, seed)


EXPERIMENT = Cores()
