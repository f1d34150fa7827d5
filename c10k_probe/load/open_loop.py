"""The HTTP sender: requests to a port on 127.0.0.1 from one C process, at moments that were fixed before (an open loop)
or as fast as the answers come (a closed loop), on kept connections or on a new one for each request.

In the open loop every planned request ends in exactly one way, and its latency runs from the moment at which it was
due: a server that stalls is charged with all that would have been asked of it meanwhile (coordinated omission;
Schroeder, Wierman, Harchol-Balter, "Open Versus Closed", NSDI 2006). What fails on this side (descriptors, source
ports, a sender that was late) is told apart, in ``own_failure`` and ``longest_late_ns``, and is never the server's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from c10k_probe import native, stats

ANSWERED: Final = "answered"
OUTCOMES: Final = (ANSWERED, "wrong", "refused", "reset", "timed_out", "unsent")
"""As ``enum outcome`` in http_sender.h has them, in its order."""

Arrivals = Literal["even", "poisson"]

_ARRIVALS: Final = {"even": 0, "poisson": 1}
_PER_KS: Final = 1000.0
_SLACK_S: Final = 30.0  # for connecting before the window, and for printing after it


@dataclass(frozen=True)
class Stage:
    """One rate of a load, for so long (steps of 1 ms). All but the first may be a pause, with a rate of 0."""

    rate_per_s: float
    duration_s: float


@dataclass(frozen=True)
class OpenLoad:
    """Requests that are due on a schedule: ``rate_per_s`` for ``duration_s`` (steps of 1 ms), and then ``further``.

    ``arrivals``: evenly, or a Poisson process by ``seed``. ``burst_count`` more are due at the first moment. What has
    not ended ``wait_s`` after the last stage is given up; None: each request has its whole time-out.
    """

    rate_per_s: float
    duration_s: float
    seed: int
    arrivals: Arrivals = "even"
    burst_count: int = 0
    wait_s: float | None = None
    further: Sequence[Stage] = ()

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All of them, in their order."""
        return (Stage(self.rate_per_s, self.duration_s), *self.further)

    @property
    def whole_s(self) -> float:
        """How long requests are due."""
        return sum(stage.duration_s for stage in self.stages)


@dataclass(frozen=True)
class StageUse:
    """What a stage took of the sender, from the end of the stage before to its own.

    ``longest_late_ns``: how late the sender saw that a request of this stage was due, at most.
    """

    client_cpu_ns: int
    longest_late_ns: int


@dataclass(frozen=True)
class OpenLoop:
    """What became of the requests that were planned for ``duration_ns``.

    Every one of ``intended_count`` is in exactly one of: ``answered_count`` (whole, status 2xx, within the time-out),
    ``wrong_count`` (whole with another status, or not HTTP), ``refused_count``, ``reset_count`` (broken before it was
    whole), ``timed_out_count``, ``unsent_count`` (no connection was free within the time-out, or this side could open
    none). What is given up at the end of a load, ``wait_s`` after ``duration_ns``, is timed out where it had a
    connection, and unsent where it had none. ``sent_count``: those that were given to a connection.
    ``due_ns`` (since ``start_ns``, CLOCK_MONOTONIC), ``latency_ns`` (from the intended moment to the whole answer; -1
    where there is none) and ``outcomes`` are parallel, of one request in ``samples_every``, in the order in which they
    ended. ``longest_late_ns``: how late this sender saw that a request was due, at most.
    ``taken_ns``: from the start to the end of the last request. ``client_cpu_ns``: of the sender in that time.
    ``opened_connections_count``: connect(2) calls. ``stages``: of each stage of the load. ``own_failure``: what kept
    this side from opening a connection, empty where nothing did; the requests that met it are in ``unsent_count``.
    """

    intended_count: int
    sent_count: int
    answered_count: int
    wrong_count: int
    refused_count: int
    reset_count: int
    timed_out_count: int
    unsent_count: int
    due_ns: Sequence[int]
    latency_ns: Sequence[int]
    outcomes: Sequence[str]
    samples_every: int
    longest_late_ns: int
    start_ns: int
    duration_ns: int
    taken_ns: int
    client_cpu_ns: int
    opened_connections_count: int
    own_failure: str = ""
    stages: Sequence[StageUse] = ()

    @property
    def counted(self) -> int:
        """How many samples were kept."""
        return len(self.latency_ns)

    @property
    def client_busy_ratio(self) -> float:
        """The share of one CPU that the sender took: near 1 it was the limit, and not the server."""
        return self.client_cpu_ns / self.taken_ns if self.taken_ns > 0 else 0.0

    def within(self, bound_ns: float) -> tuple[int, int]:
        """How many of the kept samples were answered within ``bound_ns`` of their intended moment, and of how many."""
        return sum(0 <= value <= bound_ns for value in self.latency_ns), self.counted

    def quantile_ns(self, share: float) -> float | None:
        """The latency that ``share`` of all requests did not exceed; a request without an answer took for ever.

        None where that many were not answered, or where the count does not support the quantile (``stats.quantile``).
        """
        answered = [float(value) for value in self.latency_ns if value >= 0]
        if not answered or share * (self.counted - 1) > len(answered) - 1:
            return None
        unanswered_count = self.counted - len(answered)
        return stats.quantile([*answered, *[max(answered)] * unanswered_count], share)


@dataclass(frozen=True)
class ClosedLoopReport:
    """A closed loop: what ended within ``duration_ns``, after the warm-up.

    ``spanned_ns``: from the last answer before that time to the last one in it; ``duration_ns`` where a request failed,
    where the answers stopped before the end, or where there was none before.
    ``requests_count``: whole answers of status 2xx; ``failed_count``: all other ends, of which ``wrong_count`` had
    another status. ``warmup_count`` and ``drained_count``: answers before and after. ``latency_ns``: from just before a
    request was sent (its connection opened) to its whole answer, of one request in ``samples_every``; under a closed
    loop these are the latencies at the rate that the server allowed. ``connections_count``: that were connected at the
    end; ``served_connections_count``: that had an answer in the window. The rest is as in ``OpenLoop``.
    """

    duration_ns: int
    spanned_ns: int
    requests_count: int
    failed_count: int
    wrong_count: int
    warmup_count: int
    drained_count: int
    latency_ns: Sequence[int]
    samples_every: int
    client_cpu_ns: int
    connections_count: int
    served_connections_count: int
    opened_connections_count: int
    own_failure: str = ""

    @property
    def rate_per_s(self) -> float:
        """Answers a second."""
        return self.requests_count * 1e9 / self.duration_ns

    @property
    def steady_rate_per_s(self) -> float:
        """The same, over the time that they took: ``duration_ns`` holds one batch of answers more or less by chance."""
        return self.requests_count * 1e9 / self.spanned_ns

    @property
    def client_busy_ratio(self) -> float:
        """The share of one CPU that the sender took: near 1 it was the limit, and not the server."""
        return self.client_cpu_ns / self.duration_ns


class Sender(native.Helpers):
    """A sender of HTTP requests; a context manager that leaves no process behind. Raises ``native.HelperError``."""

    def __init__(  # noqa: PLR0913 -- how it sends, each by its name
        self,
        port: int,
        connections_count: int,
        *,
        keep_alive: bool,
        timeout_s: float,
        path: str = "/",
        cpus: Sequence[int] | None = None,
        samples_count: int | None = None,
    ) -> None:
        """Start it on ``cpus``, or else on those for clients. It opens nothing yet.

        With ``keep_alive`` requests go over ``connections_count`` kept connections, without it each over a new one, and
        no more than that at a time. A request that is not answered ``timeout_s`` after its moment is given up, and its
        connection closed. One in so many requests is kept as a sample that they are ``samples_count`` at most.
        """
        super().__init__()
        self._timeout_s = timeout_s
        arguments: list[object] = ["--port", port, "--connections", connections_count, "--path", path]
        arguments += ["--keep-alive", int(keep_alive), "--timeout-ms", max(1, round(timeout_s * 1000))]
        if samples_count is not None:
            arguments += ["--samples", samples_count]
        self._start("http_sender", arguments, native.split_cpus()[1] if cpus is None else cpus)
        self._helper = self._helpers[0]

    @property
    def pid(self) -> int:
        """Of the process that sends."""
        return self._helper.pid

    def send(self, load: OpenLoad) -> OpenLoop:
        """An open loop; returns when every request has ended."""
        self.begin_send(load)
        return self.finish_send(load.whole_s + self._timeout_s + _SLACK_S)

    def begin_send(self, load: OpenLoad) -> None:
        """The same, begun: the kept connections are open when it returns, and the first request is due."""
        wait_ms = round(1000 * (self._timeout_s if load.wait_s is None else load.wait_s))
        for stage in load.further:
            self._helper.send(f"stage {_numbers(stage)}")
        first = f"{_numbers(load.stages[0])} {load.seed} {_ARRIVALS[load.arrivals]}"
        self._helper.send(f"send {first} {load.burst_count} {wait_ms}")
        self._helper.expect("began", self._timeout_s + _SLACK_S)

    def finish_send(self, patience_s: float) -> OpenLoop:
        """What became of it; waits so long at most."""
        answer = self._helper.expect("sent", patience_s)
        counts = {f"{name}_count": int(answer[f"{name}_count"]) for name in OUTCOMES}
        return OpenLoop(
            intended_count=int(answer["intended_count"]),
            sent_count=int(answer["sent_count"]),
            **counts,
            due_ns=answer["due_ns"],
            latency_ns=answer["latency_ns"],
            outcomes=[OUTCOMES[number] for number in answer["outcome"]],
            samples_every=int(answer["samples_every"]),
            longest_late_ns=int(answer["longest_late_ns"]),
            start_ns=int(answer["start_ns"]),
            duration_ns=int(answer["duration_ns"]),
            taken_ns=int(answer["taken_ns"]),
            client_cpu_ns=int(answer["client_cpu_ns"]),
            opened_connections_count=int(answer["opened_connections_count"]),
            own_failure=_own_failure(answer),
            stages=_stages(answer),
        )

    def pump(self, duration_s: float, warmup_s: float = 0.0) -> ClosedLoopReport:
        """A closed loop over all connections for ``duration_s`` after ``warmup_s`` (steps of 1 ms)."""
        self.begin_pump(duration_s, warmup_s)
        return self.finish_pump(duration_s + warmup_s)

    def begin_pump(self, duration_s: float, warmup_s: float = 0.0) -> int:
        """The same, begun; when the warm-up will be over (CLOCK_MONOTONIC, ns)."""
        duration_ms, warmup_ms = max(1, round(duration_s * 1000)), round(warmup_s * 1000)
        self._helper.send(f"pump {duration_ms} {warmup_ms}")
        return int(self._helper.expect("began", self._timeout_s + _SLACK_S)["start_ns"])

    def finish_pump(self, patience_s: float) -> ClosedLoopReport:
        """What became of it; waits so long at most, and for what is under way then."""
        answer = self._helper.expect("pumped", patience_s + self._timeout_s + _SLACK_S)
        return ClosedLoopReport(
            duration_ns=int(answer["duration_ns"]),
            spanned_ns=int(answer["spanned_ns"]),
            requests_count=int(answer[f"{ANSWERED}_count"]),
            failed_count=sum(int(answer[f"{name}_count"]) for name in OUTCOMES if name != ANSWERED),
            wrong_count=int(answer["wrong_count"]),
            warmup_count=int(answer["warmup_count"]),
            drained_count=int(answer["drained_count"]),
            latency_ns=answer["latency_ns"],
            samples_every=int(answer["samples_every"]),
            client_cpu_ns=int(answer["client_cpu_ns"]),
            connections_count=int(answer["connections_count"]),
            served_connections_count=int(answer["served_connections_count"]),
            opened_connections_count=int(answer["opened_connections_count"]),
            own_failure=_own_failure(answer),
        )


def _numbers(stage: Stage) -> str:
    """As http_sender takes them: requests in 1000 s, milliseconds."""
    rate_per_ks = max(1, round(stage.rate_per_s * _PER_KS)) if stage.rate_per_s else 0
    return f"{rate_per_ks} {max(1, round(stage.duration_s * 1000))}"


def _stages(answer: dict[str, Any]) -> tuple[StageUse, ...]:
    names = ("stage_cpu_ns", "stage_longest_late_ns")
    return tuple(StageUse(*map(int, values)) for values in zip(*(answer[name] for name in names), strict=True))


def _own_failure(answer: dict[str, Any]) -> str:
    failure = answer["own_failure"]
    return f"{failure['call']}: {failure['name']} ({failure['message']})" if failure else ""
