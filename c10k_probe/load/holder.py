"""The connection holder: opens TCP connections to a port on 127.0.0.1, holds them, exchanges echoes on them, one after
another or many at once. Over HTTP an echo is a request with its right answer.

One C process holds them all: where the descriptor limit, which bounds a table of descriptors, is lower than their
number, it has threads with tables of their own. So ``/proc/PID/fd`` shows only what the first thread holds. Beyond what
one process takes there are several, each with source addresses of its own in 127/8.
"""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from c10k_probe import native

_SPARE_DESCRIPTORS: Final = 16
_TIMEOUT_MS: Final = 10_000
_MOST_HOLDERS: Final = 200
_MOST_TABLES: Final = 1024
_MOST_OF_ONE: Final = 1_000_000  # connections of one process
_LANES: Final = 2  # threads that open connections at once: one of them alone takes longer than the server does
_SMALLEST_FOR_LANES: Final = 2_000
_LOOK_S: Final = 0.25  # how often it is looked whether a ramp waits in vain
_S_PER_CONNECTION: Final = 0.02  # patience, not expectation: a tenth of it would still be slow


@dataclass(frozen=True)
class Failure:
    """The call on which a ramp stopped, or the first that failed in a pump, and how many connections were open then."""

    call: str
    errno_name: str
    message: str
    at_count: int


@dataclass(frozen=True)
class Ramped:
    """One step of a ramp. ``connect_ns``: the connect() call of one in ``connect_samples_every`` new connections.

    ``lanes_count``: client threads that opened connections at a time, each with the time of at most one CPU; the first
    on the client's CPU, another on the server's.
    """

    open_count: int
    opened_count: int
    ramp_s: float | None
    connect_ns: Sequence[int]
    failure: Failure | None
    connect_samples_every: int = 1
    lanes_count: int = 1


@dataclass(frozen=True)
class Echoes:
    """One echo on each asked connection. ``echo_ns``: send() to the whole answer, of those that came back right."""

    asked_count: int
    ok_count: int
    failed_count: int
    echo_ns: Sequence[int]


@dataclass(frozen=True)
class Pumped:
    """A closed loop over ``concurrency_count`` connections, which may be fewer than were asked for.

    ``duration_ns``, ``client_cpu_ns`` (this client's CPU time), ``requests_count`` and ``latency_ns`` are of the window
    that was counted; both times are None where every connection broke before it began. ``latency_ns``: send() to the
    whole answer, one of every ``latency_samples_every`` requests. ``failed_count``: connections with a wrong, late or
    missing answer at any time; they are closed. ``first_send_ns`` and ``last_answer_ns`` (CLOCK_MONOTONIC) embrace
    warm-up and drain.
    """

    concurrency_count: int
    duration_ns: int | None
    requests_count: int
    warmup_count: int
    drained_count: int
    failed_count: int
    latency_ns: Sequence[int]
    latency_samples_every: int
    client_cpu_ns: int | None
    first_send_ns: int | None
    last_answer_ns: int | None
    failure: Failure | None

    @property
    def answered_count(self) -> int:
        """All right answers, before, in and after the window: what counts from outside are to be divided by."""
        return self.warmup_count + self.requests_count + self.drained_count


@dataclass(frozen=True)
class Probed:
    """An open loop: echoes on random connections, each at a moment that was fixed before.

    ``sent_count`` is less than ``intended_count`` where no connection was free to send on. ``failed_count``: answers
    that were wrong, missing or later than the time-out; their connections are closed. ``latency_ns``: from the moment
    at which a message was due to its whole answer, one of every ``latency_samples_every``. ``longest_late_ns``: the
    longest time from that moment to send(): with a late sender the latencies are also its own.
    """

    intended_count: int
    sent_count: int
    ok_count: int
    failed_count: int
    longest_late_ns: int | None
    latency_ns: Sequence[int]
    latency_samples_every: int
    failure: Failure | None


@dataclass(frozen=True)
class Backlogged:
    """Answers that lie unread at the client's ends, or that were read by ``Holder.drain``.

    ``bytes`` is the kernel's account (SIOCINQ) for what is unread. ``receive_buffer_bytes``: what the largest receive
    buffer had to be made, None where none was touched. ``failed_count``: connections that were closed.
    """

    connections_count: int
    bytes: int
    failed_count: int
    receive_buffer_bytes: int | None
    failure: Failure | None


@dataclass(frozen=True)
class Paired:
    """Connections whose ends are both the client's, and why there are not more."""

    pairs_count: int
    failure: Failure | None


@dataclass(frozen=True)
class Http:
    """What is asked for instead of an echo. body: of the right answer; None for any that is no error."""

    path: str = "/"
    body: str | None = None


class Holder(native.Helpers):
    """Client ends of connections, in one or more processes. Raises ``native.HelperError``."""

    def __init__(
        self,
        port: int,
        most_count: int,
        window_count: int = 256,
        remaining_s: Callable[[], float] | None = None,
        http: Http | None = None,
    ) -> None:
        """Start as many processes as holding ``most_count`` takes; they share the count as they fill up.

        No answer is waited for longer than ``remaining_s()``. ``http``: what is asked for, None for echoes.
        """
        super().__init__()
        self._remaining_s = remaining_s or (lambda: float("inf"))
        room = max(1, _hard_descriptor_limit() - _SPARE_DESCRIPTORS)
        self._room = min(_MOST_OF_ONE, _MOST_TABLES * room)
        processes = min(_MOST_HOLDERS, max(1, -(-most_count // self._room)))
        server_cpus, cpus = native.split_cpus()
        lanes = _LANES if server_cpus != cpus and most_count >= _SMALLEST_FOR_LANES else 1
        tables = min(_MOST_TABLES, -(-min(most_count, self._room) // room) + lanes - 1)
        common = ["--port", port, "--window", window_count, "--timeout-ms", _TIMEOUT_MS]
        common += ["--tables", max(1, tables), "--lanes", lanes]
        if http is not None:
            common += ["--path", http.path, *([] if http.body is None else ["--body", http.body])]
        for base in range(processes):
            self._start("connection_holder", [*common, "--source-base", base], cpus)

    @property
    def sessions(self) -> tuple[int, ...]:
        """The session ids of the processes that hold the client ends."""
        return tuple(helper.pid for helper in self._helpers)

    def ramp(
        self, target_count: int, *, first_echo: bool = True, is_in_vain: Callable[[], object] | None = None
    ) -> Ramped:
        """Open connections until ``target_count`` are held, or the first one fails.

        ``is_in_vain``: asked now and then while it lasts; once it says so, no answer is waited for longer than 1 s.

        One counts as open after its first echo; without ``first_echo`` when the server has accepted it, by the kernel's
        account of the accept queue.
        """
        parts: list[dict[str, Any]] = []
        how = "" if first_echo else " idle"
        for helper, share in zip(self._helpers, self._shares(target_count), strict=True):
            helper.send(f"ramp {share}{how}")
            deadline = time.monotonic() + self._patience_s(share)
            if is_in_vain is not None and _waits_in_vain(helper, is_in_vain, deadline):
                helper.send_signal(signal.SIGUSR1)
            parts.append(helper.expect("ramped", deadline - time.monotonic()))
            if parts[-1]["failure"]:
                break
        return _ramped(parts)

    def echo(self, sample_count: int, seed: int) -> Echoes:
        """One echo on each held connection in shuffled order, or on a random sample of ``sample_count`` (0: all)."""
        held = self._held()
        counts = _proportional(held, sample_count) if sample_count else held
        answers = [
            helper.ask(f"echo {count} {seed}", "echoed", self._patience_s(count))
            for helper, count in zip(self._helpers, counts, strict=True)
            if count
        ]
        return Echoes(
            asked_count=sum(int(answer["asked_count"]) for answer in answers),
            ok_count=sum(int(answer["ok_count"]) for answer in answers),
            failed_count=sum(int(answer["failed_count"]) for answer in answers),
            echo_ns=[value for answer in answers for value in answer["echo_ns"]],
        )

    def pump(self, concurrency: int, duration_s: float, warmup_s: float = 0.0) -> Pumped:
        """A closed loop over the first ``concurrency`` connections (0: all) that the first process holds.

        Each has one message under way, and the next is sent when its answer has come; none is under way afterwards.
        Answers are counted for ``duration_s`` after ``warmup_s``, both in steps of 1 ms, up to an hour.
        """
        duration_ms, warmup_ms = max(1, round(duration_s * 1000)), round(warmup_s * 1000)
        patience_s = min(self._remaining_s() + 0.1, duration_s + warmup_s + self._patience_s(concurrency))
        return _pumped(self._helpers[0].ask(f"pump {concurrency} {duration_ms} {warmup_ms}", "pumped", patience_s))

    def probe(self, rate_per_s: int, duration_s: float, seed: int) -> Probed:
        """Echoes on random held connections at ``rate_per_s`` in all, for ``duration_s`` (steps of 1 ms), open loop.

        Several processes probe at the same time, each at the rate that is due to what it holds.
        """
        rates = _split(rate_per_s, self._held())
        asked = [(helper, rate) for helper, rate in zip(self._helpers, rates, strict=True) if rate]
        for helper, rate in asked:
            helper.send(f"probe {rate} {max(1, round(duration_s * 1000))} {seed}")
        patience_s = min(self._remaining_s() + 0.1, duration_s + self._patience_s(0))
        return _probed([helper.expect("probed", patience_s) for helper, _ in asked])

    def backlog(self, size_bytes: int) -> Backlogged:
        """Leave ``size_bytes`` of answers unread at every held connection; those that have them already keep them.

        Until ``drain`` no echo, pump or probe is possible.
        """
        return self._backlogged(f"backlog {size_bytes}", "backlogged")

    def drain(self) -> Backlogged:
        """Read what ``backlog`` left."""
        return self._backlogged("drain", "drained")

    def _backlogged(self, command: str, answer: str) -> Backlogged:
        parts = [
            helper.ask(command, answer, self._patience_s(held))
            for helper, held in zip(self._helpers, self._held(), strict=True)
        ]
        buffers = [int(part["receive_buffer_bytes"]) for part in parts if part["receive_buffer_bytes"] is not None]
        return Backlogged(
            connections_count=sum(int(part["connections_count"]) for part in parts),
            bytes=sum(int(part[f"{answer}_bytes"]) for part in parts),
            failed_count=sum(int(part["failed_count"]) for part in parts),
            receive_buffer_bytes=max(buffers, default=None),
            failure=_first_failure(parts),
        )

    def _held(self) -> list[int]:
        """How many connections each process holds."""
        return [int(helper.ask("status", "status")["open_count"]) for helper in self._helpers]

    def drop(self) -> None:
        """Reset every held connection; the processes stay."""
        for helper in self._helpers:
            helper.ask("close", "closed", self._patience_s(0))

    def pair(self, count: int) -> Paired:
        """Hold both ends of ``count`` connections in the first process, without a server."""
        answer = self._helpers[0].ask(f"pairs {count}", "paired", self._patience_s(count))
        return Paired(int(answer["pairs_count"]), _failure(answer))

    def unpair(self) -> None:
        """Close what ``pair`` opened."""
        self._helpers[0].ask("unpair", "unpaired")

    def close(self) -> None:
        """Reset every connection, so that no TIME_WAIT is left, and end the processes."""
        try:
            self.drop()
        except native.HelperError:
            self.kill()
        else:
            super().close()

    def cpu_ns(self) -> int | None:
        """CPU time of all threads so far, by the scheduler's account; cheap enough for just before a ramp."""
        try:
            texts = [
                path.read_text(encoding="ascii")
                for helper in self._helpers
                for path in Path(f"/proc/{helper.pid}/task").glob("*/schedstat")
            ]
        except OSError:
            return None
        if not texts:
            return None
        return sum(int(text.split()[0]) for text in texts)

    def _patience_s(self, count: int) -> float:
        """How long an answer about ``count`` connections may take: some time-outs in a row, and some for each."""
        return min(self._remaining_s() + 0.1, 6 * _TIMEOUT_MS / 1000 + count * _S_PER_CONNECTION)

    def _shares(self, target_count: int) -> list[int]:
        """How many each process holds: filled one after the other; the last takes the rest and may fail on it."""
        shares = [min(self._room, max(0, target_count - index * self._room)) for index in range(len(self._helpers))]
        shares[-1] += target_count - sum(shares)
        return shares


def _waits_in_vain(helper: native.Helper, is_in_vain: Callable[[], object], deadline: float) -> bool:
    """False once it has answered, or the time is over; True as soon as it is said to wait in vain."""
    while not helper.has_said(_LOOK_S):
        if time.monotonic() > deadline:
            return False
        if is_in_vain():
            return True
    return False


def _failure(part: dict[str, Any], at_count: int | None = None) -> Failure | None:
    failure = part["failure"]
    if not failure:
        return None
    at_count = int(failure["at_count"]) if at_count is None else at_count
    return Failure(str(failure["call"]), str(failure["name"]), str(failure["message"]), at_count)


def _pumped(part: dict[str, Any]) -> Pumped:
    names = {field.name for field in fields(Pumped)} - {"failure"}
    return Pumped(failure=_failure(part), **{name: part[name] for name in names})


def _first_failure(parts: Sequence[dict[str, Any]]) -> Failure | None:
    return next((failure for part in parts if (failure := _failure(part)) is not None), None)


def _probed(parts: Sequence[dict[str, Any]]) -> Probed:
    """Latencies of processes of which one keeps fewer than another are not mixed: all keep as few as that one."""
    every = max((int(part["latency_samples_every"]) for part in parts), default=1)
    late = [int(part["longest_late_ns"]) for part in parts if part["longest_late_ns"] is not None]
    return Probed(
        intended_count=sum(int(part["intended_count"]) for part in parts),
        sent_count=sum(int(part["sent_count"]) for part in parts),
        ok_count=sum(int(part["ok_count"]) for part in parts),
        failed_count=sum(int(part["failed_count"]) for part in parts),
        longest_late_ns=max(late, default=None),
        latency_ns=[ns for part in parts for ns in part["latency_ns"][:: every // int(part["latency_samples_every"])]],
        latency_samples_every=every,
        failure=_first_failure(parts),
    )


def _ramped(parts: Sequence[dict[str, Any]]) -> Ramped:
    spans = [float(part["ramp_s"]) for part in parts if part["ramp_s"] is not None]
    open_count = sum(int(part["open_count"]) for part in parts)
    return Ramped(
        open_count=open_count,
        opened_count=sum(int(part["opened_count"]) for part in parts),
        ramp_s=sum(spans) if spans else None,
        connect_ns=[value for part in parts for value in part["connect_ns"]],
        failure=_failure(parts[-1], open_count),
        connect_samples_every=max(int(part["connect_samples_every"]) for part in parts),
        lanes_count=max(int(part["lanes_count"]) for part in parts),  # the processes open one after another
    )


def _proportional(held: Sequence[int], sample_count: int) -> list[int]:
    """A sample spread over the processes by what each holds; never more than it holds."""
    total = sum(held) or 1
    return [min(count, -(-sample_count * count // total)) for count in held]


def _split(total: int, weights: Sequence[int]) -> list[int]:
    """Whole parts in proportion to ``weights`` that add up to ``total``; all 0 where the weights are."""
    ends = [total * sum(weights[: place + 1]) // (sum(weights) or 1) for place in range(len(weights))]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def _hard_descriptor_limit() -> int:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 1 << 20 if hard == resource.RLIM_INFINITY else hard
