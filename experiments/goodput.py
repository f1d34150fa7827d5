"""What do users get of a server that is asked for more than it can do: does it collapse, or only saturate?

Question: requests arrive on a schedule, at 10 % to 300 % of what each server can do. How many are answered within a
bound of the moment at which they were due, up to which load are 99 % (the knee), and what is left of the best goodput
beyond it? Also in a closed loop, with more and more clients: is a process for each connection good for few clients and
bad for many?

Timed: the latency of each request, from its intended moment to its whole answer (coordinated omission is in it), by the
sender. A launch has two fresh servers. The first has the closed loops: 64 clients, whose rate is the capacity, and then
the other numbers of clients, upwards. A closed loop is warm after one round of all its clients (at the capacity; 50 ms
at least) and is counted for two (200 ms at least): a shorter window would see only those who are served first. The
second has all loads of the open loop, without a break. Of each, what was due in ``--window`` is counted, after 25 ms in
which its queue settles. First come the loads up to capacity, upwards; those up to 90 % in the first two launches only.
Then loads are tried for the knee, downwards, then come those above capacity, upwards. One bound after the last request
was due the load ends: what has no answer by then is too late in any case, and is counted as timed out, or as unsent
without a connection.
Before the loads that are tried there is a rush: in a quarter of the bound so much comes as if the load had come for a
whole bound already, with nothing served; and before each lower load there is a pause, until the same holds of it. A
server that works off its queue in order and at a steady rate answers in time what follows exactly where it is not
slower than the requests come, however well the capacity was measured. Before the loads above capacity the queue is
filled up to a quarter more than a bound: as long as they would make it in time.

The knee: the load with the fewest trials on its wrong side, that is with fewer than 99 % in time below it, or 99 %
above it; in the middle between the two loads next to it. Each launch tries 110, 105, 100, 95 and 90 % of its capacity,
the next one a point less each. Where the knee is outside, or its interval wider than 5 % on each side,
``--knee-launches`` further launches at most try loads beyond, or between its ends. The interval is of a bootstrap over
launches, and never narrower than the two loads next to the knee.
Collapses: at the highest load less than half of a launch's best goodput is left (high end of the interval); only
saturates: 90 % or more is (low end).
Not timed: starting the server, the warm-up, what comes before the counted window. Clock: CLOCK_MONOTONIC.

Arms: the models of the reference server over HTTP, with the same work for each request. With ``--keep-alive off`` each
request comes on a new connection, so that what a model makes for a connection (thread, process) is made for each
request; with ``on`` over connections that stay. A client gives up after twice the bound, and resets its connection (in
a closed loop, which only measures what the server can do, after 5 s). At most ``--connections`` are open at a time;
requests beyond wait at the client, their clock running.

``--server`` adds real servers and servers in Python, with a small page of their own and no other work, so that they are
compared with each other and not with the models (the row says ``own-page``). The real ones are warm before each step:
64 connections have had an answer, as their pools grow and their code is compiled at first; those in Python have neither
and begin cold. Apache's prefork has as many workers as our own pools, 256. One that is quicker than the sender is void:
a small page costs it less than it costs to ask for.

Void: where the sender used more than 90 % of its CPU, could open no connection, or was late by a bound: what it found
is then its own limit. Shaky where it was late by a quarter of the bound, or where more than 1 % found no connection
free: ``--connections`` then decided what the server was asked (kept connections are few by intent, and are let pass).

Known bias: the steps of one server share its past; a load above capacity finds the queue that those before it left. A
window is short: where a server does not serve in order, or lets many go, more of it may be in time than the server can
do for long. A load with 1.25 times the capacity in time, or more, is therefore void: ``--window 3s`` shows what stays.
The clients' giving up begins two bounds after the rush, when most is over. A server that takes turns (thread, fork)
gets the rush almost whole, where a queue that grew holds requests in part done. Where a bound's worth is more than the
accept queue holds (4,096), handshakes of the rush are lost and come again after 1 s (``overflows_count``): the knee of
a pool is then where the rush finds room. Where the capacity was measured too low, a load just above it is none, but the
queue stays for long: the knee is then above that load. What a queue does depends on the order in which it is served and
on who gives up when; the accept queue holds 4,096, and each model serves as it was written. The server has the CPUs
that the client has not; the loopback's soft interrupts run in whoever sends. The default work stands for a small page:
without any work the sender is the limit long before 300 %. C03 is judged by the closed loops alone: at shares of its
own capacity each model is offered something else. It is compared with epoll, and with epoll-await where the handler
sleeps; there 64 clients do not reach what a model can do, and its knee lies higher.

Sources: Schroeder, Wierman, Harchol-Balter, "Open Versus Closed: A Cautionary Tale", NSDI 2006; Welsh, Culler, Brewer,
"SEDA", SOSP 2001 (load conditioning); Mogul, Ramakrishnan, "Eliminating receive livelock", TOCS 1997 (the shape of
throughput beyond saturation).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from c10k_probe.experiment import Bench, Cell, Experiment, Made, Row, Samples

from ._goodput_design import GoodputParameters, cells, check
from ._goodput_findings import JUDGES, findings
from ._goodput_knee import SearchCell, search, search_cells
from ._goodput_measure import Launch
from ._goodput_rows import CHARTS, VIEWS, GoodputRow, rows


class Goodput(Experiment[GoodputParameters]):
    """See the module."""

    version = 3
    parameters_type = GoodputParameters
    row_type = GoodputRow
    views = VIEWS
    charts = CHARTS
    judges = JUDGES
    repeats = 5
    quick_repeats = 1

    def check(self, parameters: GoodputParameters) -> None:
        """See ``_goodput_design.check``."""
        check(parameters)

    def cells(self, parameters: GoodputParameters) -> list[Cell]:
        """Each model with each work and each kind of connection; all loads are steps of one launch."""
        return list(cells(parameters))

    def measure(self, parameters: GoodputParameters, cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        """The capacity, then every load; or what the search for a knee asks for."""
        if isinstance(cell, SearchCell):
            yield from search(parameters, cell, bench)
        else:
            yield from Launch(parameters, cell, bench).steps()

    def summarise(self, parameters: GoodputParameters, samples: Sequence[Samples], seed: int) -> list[Row]:
        """One row for each load of each cell."""
        return list(rows(samples, seed, parameters.bound))

    def refine(self, parameters: GoodputParameters, samples: Sequence[Samples], seed: int) -> list[Cell]:
        """Each knee is looked for near where the launches of the curve have it."""
        return list(search_cells(parameters, self.cells(parameters), samples))

    def fit(self, parameters: GoodputParameters, samples: Sequence[Samples], seed: int) -> Sequence[Made]:
        """The knees, what is left beyond them, and how the models compare by the number of clients."""
        return list(findings(samples, seed, parameters.bound))


EXPERIMENT = Goodput()
