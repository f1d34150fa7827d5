"""Is an event-driven server faster and smaller than Apache, and is it for that reason?

Question: Apache with PHP, Node.js and Tornado under 1,000 connections at once, as the article tested them: how many
requests a second, at which latency, with how much CPU and memory, and how many connections were really served at once?
Then with equal settings, on other servers too, and for each second of CPU: is it the event loop, or the language?

Timed: one window, from the load generator's start to its end; throughput and latency are by its clock. CPU, and what a
request costs, are under wrk those of the middle of it, from a quarter to nine tenths, over the requests that reached
the server then, as the kernel counts them: no connections begin and no work is left over there (see
``observe.middle``). Not timed: starting the server; in the fair test also its first answers on as many connections as
will come, so that pools have grown. A launch is a fresh server. Clock: CLOCK_MONOTONIC; CPU from schedstat or the
processes' own clocks and, for children that have ended, from clock ticks that the kernel sums exactly; ab's and the
sender's from getrusage(2).

Arms. article: settings as installed in the article's time (Apache: 150 processes, .htaccess looked for, access log, no
cache of compiled scripts; the accept queue each program asks for), ``ab -n 100000 -c 1000 -r``: HTTP/1.0, a connection
for each request. fair: no .htaccess, no logs, compiled scripts cached, as many workers as connections where a request
takes one and half of the memory allows (processes of Apache and of php-fpm, threads of Apache's event module), accept
queues of 4,096; wrk, with and without keep-alive. In both the server is kept to one CPU and the load generator to
another. Then an open loop at shares of what each server answered to a closed one just before: requests are due at
random (Poisson) moments, and latency runs from those, so that a server that stalls is not asked less. In it runtime and
architecture are compared as well, at half of each server's capacity, where the generator has time left beside the
cheapest. inside: what no load shows, see ``_servers_inside``.

The null server is the cheapest one here, a C program with an event loop; its row calibrates the load generator. A row
is void when the generator used more than 80 % of its CPU while the server had some left, or reached what it reaches on
the null server while that was so. Some left: its CPU was idle for more than 5 % of the middle of wrk's window, by
/proc/stat, also with observation off; under ab it used less than 95 % of one over the whole.

Memory: PSS of all processes, page tables (VmPTE), 16 KiB of kernel stack for each thread; a reading in which a process
ended is none. The sum of RSS stands beside it to show how it misleads. Served at once: sockets that a process of the
server has accepted and not closed, by a walk over the kernel's table, which is right in the mean and no snapshot.
Reading is followed by a pause of 50 times what it took, on the client's CPU; where a reading of the memory takes more
than a 50th of wrk's window, as of 1,000 processes, it is read once, as soon as the load has ended. What was read is
shown at once, in one drawing a second at the most, on that CPU too: nothing else is ever drawn while a load lasts, and
this only because reading and showing are one observer, whose whole price ``--observe on,off`` tells; with ``off``
neither is done. It need not be a loss: on two CPUs Node.js answered 6 % [1.5, 10] more observed than not (40 launches
of each by turns, 1,000 connections, each request on a new one), perhaps as wrk, beside it, came upon it more slowly.

With --trace each closed loop is measured traced too, on fresh servers in the same blocks: system calls by name,
context switches, waits for a CPU and forks of the server's tree, for one request (see ``_servers_traced``). These rows
tell no throughput, latency or memory.

Known bias: a closed loop's latency is connections over throughput, and hides what an overloaded server does to others.
wrk stops in the middle of up to as many requests as connections. Where the kernel does not tell what a request cost in
the middle (others open connections meanwhile, or kept ones were closed), it is reckoned over the whole, by the server's
own count and its CPU time until it has come to rest; where a server has none, or something failed, by wrk's, in which
the work that was left over is not: ``--duration 10s`` makes that small, and ``counted_by`` says who counted. ab is one
thread; an answer of another length than the first has failed. The loopback's soft interrupts run in whoever sends, so a
part of the server's work is in the client's account and the reverse. ListenOverflows and TCP's time-outs are the whole
network namespace's. What begins in Apache's tree is counted by the kernel's event of each fork, from Linux 6.6 on;
before, it is what begins on the whole machine, counted without a load too. The article does not say which settings it
had, nor where ab ran. PHP, JavaScript and Python do not do the same work for a request.

Sources: ab(1) and support/ab.c, wrk's README, httpd's, nginx's, php-fpm's, Node.js's and Tornado's documentation,
proc(5), sock_diag(7), tcp(7); Schroeder, Wierman, Harchol-Balter, "Open Versus Closed", NSDI 2006.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from c10k_probe.experiment import Bench, Cell, Experiment, Made, Row, Samples
from c10k_probe.traced import untraced

from . import _servers_traced as traced
from ._servers_design import (
    INSIDE,
    NS_PER_S,
    OPEN,
    TABLE_WINDOW_SHARE,
    ServersParameters,
    arms,
    cells,
    check,
    open_rates_pct,
)
from ._servers_findings import findings
from ._servers_inside import measure_inside
from ._servers_launch import Ask
from ._servers_measure import measure
from ._servers_open import measure_open
from ._servers_rows import CHARTS, VIEWS, rows
from ._servers_traced_judges import ALL_JUDGES

SHOWN_OF_A_RATE = {
    "throughput_per_s": "throughput_per_s",
    "request_p99_ns": "p99_ns",
    "server_cpu_pct": "server_cpu_pct",
}


class Servers(Experiment[ServersParameters]):
    """See the module."""

    version = 4
    parameters_type = ServersParameters
    row_type = traced.TracedServersRow
    views = (*VIEWS, *traced.VIEWS)
    charts = (*CHARTS, *traced.CHARTS)
    judges = ALL_JUDGES
    judges_traced_rows = True
    repeats = 5
    quick_repeats = 1
    is_incomplete_when_skipped = True
    weights_are_s = True
    traced_weight = 2.0
    traced_values = (traced.RATE,)

    def untraceable(self, parameters: ServersParameters) -> str:
        """Every closed loop can be traced."""
        return "of --inside nothing is traced, add --as-article or --fair" if arms(parameters) == (INSIDE,) else ""

    def check(self, parameters: ServersParameters) -> None:
        """See ``_servers_design.check``."""
        check(parameters)

    def cells(self, parameters: ServersParameters) -> list[Cell]:
        """Each server in each arm, under each load."""
        return list(cells(parameters))

    def measure(self, parameters: ServersParameters, cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        """A fresh server under one load, or asked what is inside it."""
        if cell.launches is not None and bench.block >= cell.launches:
            return
        key = {name: str(value) for name, value in cell.key.items()}
        ask = Ask(
            server=key["server"],
            arm=key["arm"],
            command=parameters.server_command,
            connections_count=parameters.connections,
            requests_count=parameters.requests,
            duration_s=parameters.duration // NS_PER_S,
            keeps_alive=key["keep_alive"] == "on",
            is_observed=key["observed"] == "on",
            window_s=parameters.duration / NS_PER_S * (1.0 if key["keep_alive"] == "on" else TABLE_WINDOW_SHARE),
            traced_by=cell.traced_by,
        )
        if key["load"] == OPEN:
            yield from self._measure_open(parameters, ask, cell, bench)
            return
        if key["arm"] == INSIDE:
            facts, values = measure_inside(ask, key["load"], bench.remaining_s)
            yield Samples(cell.key, bench.block, values, facts)
            return
        launch = measure(ask, bench)
        yield Samples(cell.key, bench.block, launch.values, launch.facts)

    def _measure_open(
        self, parameters: ServersParameters, ask: Ask, cell: Cell, bench: Bench
    ) -> Iterator[Row | Samples]:
        """One rate after another; what each came to is told between them, when nobody is asked anything."""
        rates_pct, began_s = open_rates_pct(parameters, str(cell.key["keep_alive"])), time.monotonic()
        for number, (rate_pct, facts, values) in enumerate(measure_open(ask, rates_pct, bench.seed, bench.remaining_s)):
            shown = {"rate_pct": rate_pct, **{name: facts[fact] for name, fact in SHOWN_OF_A_RATE.items()}}
            known = {name: float(value) for name, value in shown.items() if isinstance(value, (int, float))}
            bench.reading(time.monotonic() - began_s, known)
            bench.progress(number + 1, len(rates_pct), f"at {rate_pct} %")
            yield Samples({**cell.key, "rate_pct": rate_pct}, bench.block, values, facts)

    def summarise(self, parameters: ServersParameters, samples: Sequence[Samples], seed: int) -> list[Row]:
        """One row for each cell, and one for each that was traced."""
        return list(traced.rows_of(samples, rows(untraced(samples), seed), seed))

    def fit(self, parameters: ServersParameters, samples: Sequence[Samples], seed: int) -> Sequence[Made]:
        """How the article's servers compare, and whether it is the event loop or the language."""
        return findings(samples, seed)


EXPERIMENT = Servers()
