"""One server and its client: what is measured at each step of a ramp, and why the ramp stops."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from c10k_probe.experiment import Bench, Cell
from c10k_probe.limits import Prediction
from c10k_probe.load import Backlogged, Echoes, Holder, Probed, Ramped
from c10k_probe.load.holder import Http
from c10k_probe.observe import memory, sockets, tree
from c10k_probe.observe.ledger import Ledger, Reading, difference, whole
from c10k_probe.servers import CLIENT_END, POOLS, RealModel, RealServer, Server, ServerModel
from c10k_probe.servers.real import BODY, PATH

from ._connection_design import BACKLOGGED, HTTP, IDLE, USED, ConnectionsParameters, chosen, server_options
from ._connection_price import price_of_one_end
from ._connection_walls import Stop, WallWatch, guarded, stop_of, stop_of_loss

ECHO_ALL_UP_TO: Final = 10_000
ECHO_ALL_AT_END_UP_TO: Final = 100_000
BUFFERS_UP_TO: Final = 200_000  # sockets whose data is asked for one by one, where nothing should lie in them
SETTLE_S: Final = 10.0
GUARD_MARGIN: Final = 1.25
WINDOW: Final = 256


@dataclass(frozen=True)
class Rest:
    """The held connections doing nothing."""

    duration_s: float
    cpu_run_s: float | None
    switches_count: int | None


@dataclass(frozen=True)
class Step:
    """What one step of a ramp gave: its answers, what the work took, and the readings before and after."""

    target: int
    ramped: Ramped
    echoes: Echoes | None
    probed: Probed | None
    probe_rate_per_s: int
    backlogged: Backlogged | None
    client_cpu_pct: float | None
    work_s: float
    before: Reading
    now: Reading
    established: int | None
    is_last: bool
    stop: Stop | None
    rest: Rest | None


class Launch:
    """One server with its client, from no connection on."""

    def __init__(self, cell: Cell, server: Server, holder: Holder, asked: ConnectionsParameters, bench: Bench) -> None:
        self.model, self.state = str(cell.key["model"]), str(cell.key["state"])
        self.protocol = asked.spoken
        self.facts = facts_of(server)
        self.server, self._holder = server, holder
        self._asked, self._bench = asked, bench
        holder.ramp(1)  # the first connection pays for what is set up once, and is no part of the ledger
        holder.drop()
        server.wait_until_idle()
        # answers that lie unread hold the pages of the tasks that sent them, and are counted as data
        price = price_of_one_end(holder)
        self.ledger = Ledger(
            price.end_bytes,
            no_price=price.reason,
            sends=self.state == USED,
            is_pool=self.model in POOLS,
            holds_data=self.state == BACKLOGGED,
        )
        selects = chosen(self.model, asked).per_connection.select_count > 0
        self.watch = WallWatch(server.session, selects=selects)
        self.ledger.readings.append(self._read(0))
        self._is_filled = False

    @property
    def sessions(self) -> tuple[int, ...]:
        """The sessions of the server and the client."""
        return (self.server.session, *self._holder.sessions)

    def refusal(self, target: int) -> Stop | None:
        """Why going to ``target`` would endanger the machine."""
        return guarded((target - self.ledger.readings[-1].open_count) * self._bytes_per_connection())

    def step(self, target: int, *, is_last: bool) -> Step:
        """Go to ``target`` connections and measure there; the step says so when a wall came first."""
        before = self.ledger.readings[-1]
        if self._is_filled:
            self._holder.drain()
        started = time.monotonic()
        busy_ns = self._holder.cpu_ns()
        ramped = self._holder.ramp(target, first_echo=self.state != IDLE, is_in_vain=self._cannot_go_on)
        busy_ns = whole(difference(self._holder.cpu_ns(), busy_ns))
        stop = None if ramped.failure is None else stop_of(self.server, self._holder.sessions[-1], ramped.failure)
        is_last = is_last or stop is not None
        echoes, probed = (None, None) if self.state == IDLE else self._ask(ramped.open_count, is_last=is_last)
        work_s = time.monotonic() - started
        backlogged = self._fill()
        lost = sum(part.failed_count for part in (echoes, probed, backlogged) if part is not None)
        reading = self._read(ramped.open_count - lost)
        established = sockets.established_count(self.server.port, address="127.0.0.1")
        self.ledger.readings.append(reading)
        rest = self._rest(self._asked.rest / 1e9) if is_last and self._asked.rest else None
        if self.state == IDLE and is_last:  # what was never used is used now, to show that it lives
            echoes, probed = self._ask(ramped.open_count, is_last=True)
        return Step(
            target=target,
            ramped=ramped,
            echoes=echoes,
            probed=probed,
            probe_rate_per_s=self._asked.probe_rate,
            backlogged=backlogged,
            client_cpu_pct=busy_ns / 1e7 / ramped.ramp_s if busy_ns is not None and ramped.ramp_s else None,
            work_s=work_s,
            before=before,
            now=reading,
            established=established,
            is_last=is_last,
            stop=stop or self._lost(echoes, probed, backlogged),
            rest=rest,
        )

    def _cannot_go_on(self) -> bool:
        """Whether the server has met a limit: whoever waits for it now waits for nothing."""
        return bool(self.server.walls())

    def _ask(self, open_count: int, *, is_last: bool) -> tuple[Echoes, Probed | None]:
        """An echo on each held connection, or on a random sample; then some on a schedule."""
        at_once = ECHO_ALL_AT_END_UP_TO if is_last else ECHO_ALL_UP_TO
        echoes = self._holder.echo(0 if open_count <= at_once else ECHO_ALL_UP_TO, self._bench.seed)
        if not self._asked.probe_rate or not open_count or echoes.failed_count:
            return echoes, None
        return echoes, self._holder.probe(self._asked.probe_rate, self._asked.probe_time / 1e9, self._bench.seed)

    def _lost(self, echoes: Echoes | None, probed: Probed | None, backlogged: Backlogged | None) -> Stop | None:
        """A held connection that does not answer is not held."""
        if echoes is not None and echoes.failed_count:
            lost = f"{echoes.failed_count:,} of {echoes.asked_count:,} held connections gave no echo"
        elif probed is not None and probed.failed_count:
            lost = f"{probed.failed_count:,} of {probed.sent_count:,} scheduled echoes were not answered in time"
        elif backlogged is not None and backlogged.failed_count:
            lost = f"{backlogged.failed_count:,} connections could not be left with answers unread"
        else:
            return None
        return stop_of_loss(self.server, lost, self.ledger.readings[-1].open_count)

    def _fill(self) -> Backlogged | None:
        """Leave answers unread on every connection, where that is the state."""
        if self.state != BACKLOGGED:
            return None
        self._is_filled = True
        return self._holder.backlog(self._asked.unread_bytes)

    def _read(self, open_count: int) -> Reading:
        is_asked = open_count <= BUFFERS_UP_TO or self.state == BACKLOGGED
        return Reading(
            open_count,
            tree.read_tree(self.server.session),
            tuple(tree.read_tree(session) for session in self._holder.sessions),
            memory.read_kernel_memory(),
            sockets.read_buffers(self.server.port) if is_asked else None,
            sockets.read_buffers(self.server.port, remote=True) if is_asked else None,
        )

    def _rest(self, duration_s: float) -> Rest:
        """Watch the server while nothing is sent."""
        pids = tree.session_pids(self.server.session)
        before, started = tree.read_processes(pids, memory=False), time.monotonic()
        time.sleep(max(0.0, min(duration_s, self._bench.remaining_s())))
        after = tree.read_processes(pids, memory=False)
        return Rest(time.monotonic() - started, difference(after.cpu_run_s, before.cpu_run_s), switches(before, after))

    def _bytes_per_connection(self) -> float:
        """Both ends, by the slope so far, else by what is known of the model; for the memory guard."""
        slopes = (self.ledger.server_slope(), self.ledger.client_slope())
        known = [slope.high or slope.middle for slope in slopes if slope is not None]
        data = self._asked.unread_bytes if self.state == BACKLOGGED and not known else 0
        each = sum(known) or chosen(self.model, self._asked).per_connection.plus(CLIENT_END).memory_bytes
        return GUARD_MARGIN * (each + 2 * data)


def switches(before: tree.TreeReading, after: tree.TreeReading) -> int | None:
    """Context switches of both kinds between two readings."""
    voluntary = difference(after.voluntary_switches_count, before.voluntary_switches_count)
    involuntary = difference(after.involuntary_switches_count, before.involuntary_switches_count)
    return None if voluntary is None or involuntary is None else whole(voluntary + involuntary)


@contextmanager
def launched(cell: Cell, most_count: int, asked: ConnectionsParameters, bench: Bench) -> Iterator[Launch]:
    """A fresh server and client; when both have gone, what they held has gone too."""
    memory.settle(SETTLE_S)
    at_rest = memory.read_kernel_memory()
    model = chosen(str(cell.key["model"]), asked)
    with (
        model.start(server_options(asked, most_count, str(cell.key["state"]))) as server,
        Holder(server.port, most_count, window_of(model), bench.remaining_s, http_of(model, asked)) as holder,
    ):
        launch = Launch(cell, server, holder, asked, bench)
        launch.ledger.at_rest = at_rest
        yield launch
    # what this launch frees must not be subtracted from what the next one takes
    memory.settle(SETTLE_S, sessions=launch.sessions)


def http_of(model: ServerModel, asked: ConnectionsParameters) -> Http | None:
    """What is asked for; None where echoes are. Our own models answer as every real server is made to."""
    if asked.spoken != HTTP:
        return None
    return Http(PATH, model.body if isinstance(model, RealModel) else BODY)


def facts_of(server: Server) -> dict[str, Any]:
    """Columns of what is peculiar to a program of others: which it is, and its settings that were raised."""
    if not isinstance(server, RealServer):
        return {}
    told = {"server_version": server.version, "server_settings": server.settings}
    return {name: text for name, text in told.items() if text}


def window_of(model: ServerModel) -> int:
    """How many connections may wait for their first echo at a time."""
    return model.burst_count if isinstance(model, RealModel) else WINDOW


def wall_note(prediction: Prediction) -> str:
    """The predicted wall, for the line above the live table."""
    if prediction.wall is None or prediction.count is None:
        return ""
    return f", {prediction.wall.name} at {prediction.count:,}"
