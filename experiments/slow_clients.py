"""Whom do slow clients keep a server from serving, and does a time-out help?

Question: while k clients send their requests a byte at a time, read a byte at a time or say nothing, how many of the
other clients, the innocents, are still served, and how soon? From which k on are fewer than 90 % served, what ran out,
did the server die, and how long does it take to recover once the slow ones leave? Each where the server has a defence
with it and without.

Timed: an innocent's request, from the moment at which it was due to its whole answer; it is served when that came
within ``--served-within``. Innocents are sent on a schedule (an open loop) by a process of their own, each on a new
connection. Judged are those of ``--duration``, which begins once all slow clients have what connections they get;
others come from the first slow client on, and tell when starvation begins. Not timed: starting the server, opening the
slow clients' connections. Then the slow ones leave, all at once, and innocents go on without a gap: the time to recover
runs from the leaving to the first answer of 20 or more in turn, all to the end, that came within 1 s; the gap in the
innocents' schedule before that one is its resolution, in a column. Between the two parts no innocent is due until all
that were have an answer or have given up: what a server recovers from is the slow ones, not a queue. The time to
starvation runs from the first slow client to the moment from which on no innocent was served. Clock: CLOCK_MONOTONIC.

Launches. A launch is a fresh server with a sender of innocents and a process of slow clients of its own. Rows of kind
head, cpu and none have ``--launches`` of them, those of body, read and idle, which no claim is judged by,
``--survey-launches``. Launches of all servers and kinds with the same number of slow clients stand side by side, so
that the waits of up to ``--served-within``, in which nothing works, are waited for once: ``--side-by-side`` of pools,
half as many of servers that serve on, and fewer where their slow clients were more than 50,000 together, or half as
many, or a limit of the machine does not let them. Then it is searched from how many slow clients on fewer than 90 % of
the innocents are served: between the counts that were given, by fresh launches, until the two ends are next to each
other or within 10 %, and each was launched three times, or as often as rows of its kind are. The interval runs from the
most under which every launch served 90 % to the fewest under which none did.

Kinds. head: the header of a request; body: the body of one; read: the answers, of 664 requests at once, with the
smallest receive buffer; idle: nothing is said. A byte each ``--interval``; whom the server throws out comes again at
its next turn. none: no slow client, once for all kinds. cpu: no slow client at all, but one request that takes
``--work`` of CPU time, where a server has a page that does: the counter-arm. Innocents that were due while it worked
are judged. These requests come one after another, while launches of pools wait for innocents that starve.

Workers: --workers for each server that is a pool, Apache's processes and PHP's among them; all others have room for
every client. Defences (``defence``: on, off, or none where a server has none) are settings of whole seconds: Apache's
RequestReadTimeout (mod_reqtimeout) and Timeout, nginx's client_header_timeout, client_body_timeout and send_timeout,
Node.js's headersTimeout, requestTimeout and timeout; the row tells them. Off is without mod_reqtimeout, with nginx's
own 60 s, which no launch lasts, and with Node.js's time-outs at 0; so it is not how they are installed.

Slow clients are let loose on servers of this run only: there is no option for an address or a port, the helper knows
127.0.0.1 alone, and before it opens connections it is checked that processes started here hold the port.

Known bias: client and server share the machine, and innocents and slow clients a CPU, with those of the launches that
are side by side. Who is served within seconds is not changed by that; latencies are those of a machine on which up to
``--side-by-side`` servers are at work, and are to be compared within a run, or taken with ``--side-by-side 1``. They
are of one moment: how the machine drifts over the run is not in their interval. A slow reader costs the server the work
for all its requests when it comes, besides what it holds. The accept queue adds to the apparent room of a pool. A body
is answered before it is whole by nginx, Node.js and the project's own servers. On Linux Apache has the kernel hold
connections that have said nothing (TCP_DEFER_ACCEPT). Slow clients leave with a reset. Memory is told as exhausted
where the kernel killed a process for it, anywhere, and the server died.

Sources: httpd's documentation of mod_reqtimeout, core and mpm_common; nginx's of ngx_http_core_module; Node.js's of
http; tcp(7), sock_diag(7), include/net/tcp.h (tcp_listendrop), proc_net(5).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from c10k_probe import native
from c10k_probe.experiment import Bench, Cell, Experiment, Made, Row, Samples

from ._slow_design import SERVERS, SlowParameters, check
from ._slow_judges import JUDGES
from ._slow_rows import CHARTS, VIEWS, SlowRow, findings, rows
from ._slow_search import SearchCell, search, search_cells
from ._slow_together import TogetherCell, cells, together


class SlowClients(Experiment[SlowParameters]):
    """See the module."""

    version = 3
    parameters_type = SlowParameters
    row_type = SlowRow
    views = VIEWS
    charts = CHARTS
    judges = JUDGES
    repeats = 1
    quick_repeats = 1
    is_incomplete_when_skipped = True

    def check(self, parameters: SlowParameters) -> None:
        """See ``_slow_design.check``."""
        check(parameters)

    def cells(self, parameters: SlowParameters) -> list[Cell]:
        """All launches with the same number of slow clients are one; what cannot be measured here is one of its own."""
        return cells(parameters)

    def measure(self, parameters: SlowParameters, cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        """Fresh servers, side by side, each with its innocents and its slow clients."""
        if isinstance(cell, TogetherCell):
            yield from together(parameters, cell, bench)
        elif isinstance(cell, SearchCell):
            yield from search(parameters, cell, bench)
        else:
            raise native.HelperUnsupported(SERVERS[str(cell.key["server"])].missing)

    def summarise(self, parameters: SlowParameters, samples: Sequence[Samples], seed: int) -> list[Row]:
        """One row for each cell."""
        return list(rows(samples, seed))

    def refine(self, parameters: SlowParameters, samples: Sequence[Samples], seed: int) -> list[Cell]:
        """From how many slow clients on innocents starve is searched where it is known to lie."""
        return list(search_cells(parameters, samples))

    def fit(self, parameters: SlowParameters, samples: Sequence[Samples], seed: int) -> Sequence[Made]:
        """From how many slow clients on fewer than 90 % are served."""
        return findings(samples)


EXPERIMENT = SlowClients()
