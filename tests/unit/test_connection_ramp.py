"""The order of a step in each state, and why a ramp stops: a made-up server and client that write down what they do."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from c10k_probe.experiments import _connection_ramp as ramp_module
from c10k_probe.experiments import _connection_walls as walls_module
from c10k_probe.experiments._connection_design import ConnectionsParameters
from c10k_probe.experiments._connection_price import Price
from c10k_probe.experiments._connection_ramp import ECHO_ALL_AT_END_UP_TO, ECHO_ALL_UP_TO, Launch
from made_ledger import END, NOTHING

from c10k_probe.experiment import Cell
from c10k_probe.limits import Wall
from c10k_probe.load import Backlogged, Echoes, Failure, Ramped
from c10k_probe.observe import memory


class Both:
    """The server and the client at once; ``log`` holds what was asked of them, in order."""

    session, port, sessions = 7, 80, (8,)

    def __init__(self) -> None:
        self.log: list[str] = []
        self.failure: Failure | None = None
        self.lost = self.unanswered = self.unfilled = 0
        self.hits: list[dict[str, Any]] = []
        self.dead = ""

    def ramp(self, target: int, *, first_echo: bool = True, is_in_vain: Callable[[], bool] | None = None) -> Ramped:
        self.was_in_vain = is_in_vain() if is_in_vain else None
        self.log.append(f"ramp {target}" + ("" if first_echo else " idle"))
        return Ramped(self.failure.at_count if self.failure else target, 1, 0.5, [5], self.failure)

    def echo(self, sample: int, seed: int) -> Echoes:
        self.log.append(f"echo {sample or 'all'}")
        return Echoes(100, 100 - self.lost, self.lost, [7])

    def probe(self, rate: int, duration_s: float, seed: int) -> Any:
        self.log.append(f"probe {rate} {duration_s}")
        return SimpleNamespace(sent_count=50, failed_count=self.unanswered)

    def backlog(self, size: int) -> Backlogged:
        self.log.append(f"backlog {size}")
        return Backlogged(100, 100 * size, self.unfilled, None, None)

    def drain(self) -> None:
        self.log.append("drain")

    def drop(self) -> None:
        self.log.append("drop")

    def wait_until_idle(self) -> None:
        self.log.append("wait")

    def cpu_ns(self) -> int:
        return 0

    def walls(self) -> list[dict[str, Any]]:
        return self.hits

    def death(self) -> str:
        return self.dead


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Both:
    """Readings are noted in the same log."""
    made = Both()

    def read(*_: Any) -> memory.KernelMemory:
        made.log.append("read")
        return memory.KernelMemory(*[None] * 8)

    monkeypatch.setattr(ramp_module, "price_of_one_end", lambda _: Price(END))
    monkeypatch.setattr(ramp_module.tree, "read_tree", lambda _: NOTHING)
    monkeypatch.setattr(ramp_module.tree, "session_pids", lambda _: [])
    monkeypatch.setattr(ramp_module.memory, "read_kernel_memory", read)
    monkeypatch.setattr(ramp_module.sockets, "read_buffers", lambda *_, **__: None)
    monkeypatch.setattr(ramp_module.sockets, "established_count", lambda *_, **__: 100)
    return made


def launch(both: Both, state: str, **options: Any) -> Launch:
    bench: Any = SimpleNamespace(seed=1, remaining_s=lambda: 100.0)
    cell = Cell({"model": "thread", "state": state})
    made: Any = both
    return Launch(cell, made, made, ConnectionsParameters(probe_time=10**9, **options), bench)


SCHEDULE = "probe 1000 1.0"


def test_the_first_connection_and_the_first_reading_come_before_the_ramp(both: Both) -> None:
    launch(both, "used")
    assert both.log == ["ramp 1", "drop", "wait", "read"]


@pytest.mark.parametrize(
    ("state", "first", "last"),
    [
        ("used", ["ramp 10", "echo all", SCHEDULE, "read"], ["ramp 20", "echo all", SCHEDULE, "read"]),
        ("idle", ["ramp 10 idle", "read"], ["ramp 20 idle", "read", "echo all", SCHEDULE]),
        (
            "backlogged",
            ["ramp 10", "echo all", SCHEDULE, "backlog 500", "read"],
            ["drain", "ramp 20", "echo all", SCHEDULE, "backlog 500", "read"],
        ),
    ],
)
def test_the_order_of_two_steps(both: Both, state: str, first: list[str], last: list[str]) -> None:
    """What is read is what the state's name says, and at the end every connection has shown that it lives."""
    ramp = launch(both, state, unread=500)
    assert ramp.ledger.sends == (state == "used")  # a page of each task's own; of the unread ones it holds the data
    both.log.clear()
    steps = [ramp.step(10, is_last=False), ramp.step(20, is_last=True)]
    assert both.log == [*first, *last]
    assert [step.stop for step in steps] == [None, None]
    assert (steps[0].echoes is None) == (state == "idle") and steps[1].echoes is not None
    assert len(ramp.ledger.readings) == 3


@pytest.mark.parametrize(
    ("count", "is_last", "asked"),
    [
        (ECHO_ALL_UP_TO, False, "all"),
        (ECHO_ALL_UP_TO + 1, False, str(ECHO_ALL_UP_TO)),
        (ECHO_ALL_AT_END_UP_TO, True, "all"),
        (ECHO_ALL_AT_END_UP_TO + 1, True, str(ECHO_ALL_UP_TO)),
    ],
)
def test_how_many_are_asked(both: Both, count: int, is_last: bool, asked: str) -> None:
    launch(both, "used").step(count, is_last=is_last)
    assert f"echo {asked}" in both.log


def test_without_a_rate_there_is_no_schedule(both: Both) -> None:
    step = launch(both, "used", probe_rate=0).step(10, is_last=True)
    assert step.probed is None
    assert not any(call.startswith("probe") for call in both.log)


def pid_wall(_: Any = None, **__: Any) -> list[Wall]:
    return [Wall("pids", "administrative", 100, 99, "tasks", "machine", "made up", "lift it")]


def hits(both: Both) -> None:
    both.hits = [{"call": "fork", "name": "EAGAIN", "message": "no more"}]


def dies(both: Both) -> None:
    both.dead = "reference_server was killed by SIGKILL"


def setting_is_full(both: Both) -> None:
    told = {"setting": "worker_connections", "limit": 59, "lift": "--workers N"}
    both.hits = [{"call": "accept", "name": "LIMIT", "message": "59 are not enough", **told}]


def pool_is_full(both: Both) -> None:
    both.hits = [{"call": "worker", "name": "EAGAIN", "message": "all serve"}]


@pytest.mark.parametrize(
    ("happens", "wall", "told"),
    [
        (lambda _: None, None, "client: recv: too late at 60 connections"),
        (hits, "pids", "server: fork: no more at 60 connections"),
        (pool_is_full, "workers", "workers: the limit of 60 workers per process (administrative"),
        (setting_is_full, "worker_connections", "worker_connections: the limit of 59 connections per process (admin"),
        (dies, None, "reference_server was killed by SIGKILL at 60 connections"),
    ],
)
def test_a_ramp_that_stops_says_why(
    both: Both, monkeypatch: pytest.MonkeyPatch, happens: Callable[[Both], None], wall: str | None, told: str
) -> None:
    """What the server ran into, before what the client saw of it; whatever is held is asked for all the same."""
    monkeypatch.setattr(walls_module.limits, "walls", pid_wall)
    ramp = launch(both, "used")
    both.failure = Failure("recv", "ETIMEDOUT", "too late", 60)
    happens(both)
    both.log.clear()
    step = ramp.step(100, is_last=False)
    assert step.stop is not None and told in step.stop.reason
    assert (step.stop.wall.name if step.stop.wall else None) == wall
    assert step.stop.is_death == (happens is dies)
    assert both.was_in_vain == bool(both.hits)
    assert both.log == ["ramp 100", "echo all", SCHEDULE, "read"]
    assert step.now.open_count == 60 and step.is_last


def test_what_does_not_answer_is_not_held(both: Both) -> None:
    ramp = launch(both, "used")
    both.lost = 3
    step = ramp.step(100, is_last=False)
    assert step.now.open_count == 97
    assert step.stop is not None and step.stop.reason == "3 of 100 held connections gave no echo"
    assert step.probed is None
    both.lost, both.unanswered, both.dead = 0, 2, "it was killed"
    step = ramp.step(100, is_last=False)
    assert step.stop is not None
    assert step.stop.reason == "it was killed; 2 of 50 scheduled echoes were not answered in time"
    assert step.now.open_count == 98  # a connection that did not answer is closed
    assert step.stop.is_death


def test_what_a_server_closes_to_make_room_names_its_setting(both: Both) -> None:
    ramp = launch(both, "used")
    both.lost = 3
    setting_is_full(both)
    step = ramp.step(100, is_last=False)
    assert step.stop is not None and step.stop.wall is not None
    assert step.stop.wall.name == "worker_connections"
    assert step.stop.reason.endswith("59 are not enough at 97 connections; 3 of 100 held connections gave no echo")


@pytest.mark.parametrize("selects", [False, True])
def test_the_set_of_select_is_a_limit_of_who_calls_it(*, selects: bool) -> None:
    """Its use is how many descriptors there are, which a loop of epoll may have any number of."""
    watch = walls_module.WallWatch(os.getpid(), selects=selects)
    used = dict(part.split("=") for part in watch.used().split())
    assert ("fd-setsize" in used) == selects
    if selects:
        assert used["fd-setsize"].split("/")[0] == used["descriptors"].split("/")[0]


@pytest.mark.parametrize(("state", "times"), [("used", 0), ("backlogged", 2)])
def test_unread_data_is_asked_for_at_any_count(
    both: Both, monkeypatch: pytest.MonkeyPatch, state: str, times: int
) -> None:
    """Both ends, also of more sockets than are asked where nothing should lie in them."""
    ramp = launch(both, state, probe_rate=0)
    asked: list[int] = []
    monkeypatch.setattr(ramp_module.sockets, "read_buffers", lambda port, **_: asked.append(port))
    assert ramp.ledger.holds_data == (state == "backlogged")
    ramp.step(ramp_module.BUFFERS_UP_TO + 1, is_last=False)
    assert asked == times * [both.port]


def test_what_cannot_be_left_unread_is_told(both: Both) -> None:
    ramp = launch(both, "backlogged")
    both.unfilled = 4
    step = ramp.step(100, is_last=False)
    assert step.stop is not None and step.stop.reason == "4 connections could not be left with answers unread"
    assert step.now.open_count == 96


def test_the_guard_expects_data_where_it_is_left_unread(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    grown: list[float] = []
    monkeypatch.setattr(walls_module.limits, "memory_guard", grown.append)
    for state in ("used", "backlogged"):
        assert launch(both, state, unread=1_000_000).refusal(1_000) is None
    assert grown[1] - grown[0] == pytest.approx(1.25 * 2 * 1_000_000 * 1_000)


def test_a_rest_is_watched_at_the_last_step_alone(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ramp_module.tree, "read_processes", lambda *_, **__: NOTHING)
    ramp = launch(both, "used", rest=1_000_000)
    assert ramp.step(10, is_last=False).rest is None
    rest = ramp.step(20, is_last=True).rest
    assert rest is not None and rest.duration_s >= 0.001
    assert (rest.cpu_run_s, rest.switches_count) == (None, None)
