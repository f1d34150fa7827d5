"""Slow clients against real servers: on our own only, seen by innocents, and gone however the run ends."""

from __future__ import annotations

import dataclasses
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from c10k_probe.experiments import _slow_measure
from c10k_probe.experiments._slow_design import SERVERS, Ask, SlowParameters, ask_of, keys_of
from c10k_probe.experiments._slow_rows import rows
from command import complaint_of, rows_of, run, run_inside, started, wait_for
from conftest import cannot_run

from c10k_probe import native
from c10k_probe.experiment import Samples, Scalar
from c10k_probe.load import Crowd, OpenLoad, Sender, SlowClients, Work
from c10k_probe.observe import cgroups, processes
from c10k_probe.servers import REAL_SERVERS, ReferenceServer, Server, ServerOptions

HTTP = ServerOptions(protocol="http")
NS_PER_S = 1_000_000_000
STOPPED_S = 2.0
MANY = 5000
LISTENER = """
import socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
"""


@dataclass
class Elsewhere:
    """A target that says what it likes."""

    port: int
    session: int
    name: str = "elsewhere"


@pytest.fixture
def server() -> Iterator[ReferenceServer]:
    with ReferenceServer("epoll", HTTP) as made:
        yield made


# --- on our own only --------------------------------------------------------------------------------------------------


def test_only_servers_of_this_run_are_targets(server: ReferenceServer) -> None:
    """Neither another's port under our session, nor another's session, nor a port that we hold ourselves."""
    command = [sys.executable, "-c", LISTENER]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, start_new_session=True) as other:
        assert other.stdout is not None
        foreign = int(other.stdout.readline())
        with socket.create_server(("127.0.0.1", 0)) as listener:
            own = int(listener.getsockname()[1])
            for target, words in (
                (Elsewhere(foreign, server.session), "is not listened on by elsewhere alone"),
                (Elsewhere(own, server.session), "is not listened on by elsewhere alone"),
                (Elsewhere(server.port, 1), "process 1, which this run did not start"),
                (Elsewhere(server.port, os.getppid()), "which this run did not start"),
            ):
                for attempt in (lambda: SlowClients(target, "idle", 1.0), lambda: Work(target, "/", 1.0)):  # noqa: B023
                    with pytest.raises(native.HelperError, match=words):
                        attempt()
        other.kill()
    with pytest.raises(native.HelperError, match="has no listener"):
        SlowClients(Elsewhere(own, server.session), "idle", 1.0)


def test_it_is_looked_at_again_before_more_are_let_loose() -> None:
    with ReferenceServer("epoll", HTTP) as server, SlowClients(server, "idle", 1.0) as slow:
        os.killpg(server.session, signal.SIGKILL)
        wait_for(lambda: not processes.is_alive(server.session), "the server's death")
        with pytest.raises(native.HelperError, match=r"which this run did not start|has no listener"):
            slow.set_count(1)
        assert slow.status().connected_count == 0


@pytest.mark.parametrize("option", ["--host", "--port", "--pid", "--address", "--url"])
def test_no_option_leads_elsewhere(option: str, tmp_path: Path) -> None:
    finished = run_inside("slow-clients", option, 80, cwd=tmp_path)
    assert finished.code == 2
    assert option in complaint_of(finished)


# --- what innocents see -----------------------------------------------------------------------------------------------


def test_a_server_that_is_stopped_shows_in_what_innocents_wait(server: ReferenceServer) -> None:
    """Their latency runs from the intended moment, in a process that plays no slow client."""
    with Sender(server.port, 2000, keep_alive=False, timeout_s=5.0) as sender, SlowClients(server, "head", 1.0) as slow:
        assert sender.pid != slow.pid
        slow.set_count(20)
        sender.begin_send(OpenLoad(250, STOPPED_S + 0.3, 1))
        os.killpg(server.session, signal.SIGSTOP)
        threading.Event().wait(STOPPED_S)
        os.killpg(server.session, signal.SIGCONT)
        report = sender.finish_send(30.0)
    assert report.answered_count == report.intended_count
    p99_ns = report.quantile_ns(0.99)
    assert p99_ns is not None
    assert p99_ns > (STOPPED_S - 0.2) * NS_PER_S
    assert report.within(NS_PER_S)[0] < report.intended_count * 0.7


def ask(server: str, clients: int, **changes: object) -> Ask:
    """One launch with small figures."""
    small = {
        "served_within": NS_PER_S,
        "duration": NS_PER_S // 2,
        "workers": 4,
        "innocents": 100,
        "interval": NS_PER_S // 10,
    }
    given: dict[str, object] = {"server": (server,), "kinds": ("head",), "clients": (clients,), "defence": ("off",)}
    parameters = SlowParameters(**{**small, **given, **changes})  # type: ignore[arg-type]
    (key,) = keys_of(parameters)
    return ask_of(parameters, key, 1)


def measured(*asks: Ask) -> list[_slow_measure.Launch]:
    """Launches side by side, none of which fails."""
    launches = []
    for outcome in _slow_measure.outcomes(asks, lambda: 60.0):
        assert isinstance(outcome, _slow_measure.Launch), outcome
        launches.append(outcome)
    return launches


def test_a_pool_starves_and_recovers_and_an_event_loop_serves_on_beside_it() -> None:
    """All of them side by side. The queue of the last one is that of a pool whose backlog is short."""
    crowded = ask("prefork", 40)
    crowded = dataclasses.replace(crowded, options=dataclasses.replace(crowded.options, backlog_count=8))
    asks = [ask("prefork", 12), ask("epoll", 12), ask("prefork", 0), crowded]
    starved, fed, alone, queued = measured(*asks)
    facts = starved.facts
    assert (facts["served_count"], facts["workers_count"], facts["inside_count"]) == (0, 4, 4)
    assert "workers" in str(facts["exhausted"])
    assert facts["starvation_ns"] is not None
    assert (facts["slow_open_count"], facts["death"]) == (12, "")
    assert 0 < int(str(facts["slow_sent_bytes"])) == 12 + int(str(facts["slow_bytes"]))
    assert facts["slow_received_bytes"] == 0
    assert int(str(facts["slow_pss_bytes"])) > 0
    for recovered in (facts, fed.facts):
        took_ns, gap_ns = int(str(recovered["recovery_ns"])), int(str(recovered["recovery_resolution_ns"]))
        assert 0 < took_ns < int(str(recovered["watched_ns"]))
        assert 0 <= gap_ns <= took_ns
    assert fed.facts["served_count"] == fed.facts["innocents_count"] == len(fed.values["latency_ns"])
    assert (fed.facts["exhausted"], fed.facts["starvation_ns"]) == ("", None)
    assert int(str(fed.facts["inside_count"])) in (12, 13), "the last innocent may still be there"
    assert alone.facts["served_count"] == alone.facts["innocents_count"]
    assert "accept queue" in str(queued.facts["exhausted"])
    assert int(str(queued.facts["slow_pending_count"])) > 0
    assert int(str(queued.facts["dropped_count"])) > 0
    assert [launch.facts["dropped_count"] for launch in (starved, fed, alone)] == [0] * 3, "each queue by itself"


def narrow(pid: int, more_count: int) -> None:
    """Let a process have so many descriptors more than it has."""
    few_count = len(os.listdir(f"/proc/{pid}/fd")) + more_count  # noqa: PTH208
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (few_count, few_count))


def test_descriptors_that_run_out_are_told_by_name_on_either_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's are what it had no more of; those of the slow clients make the launch void. Side by side."""
    start, set_count = SERVERS["epoll"].start, SlowClients.set_count

    def start_narrow(options: ServerOptions) -> Server:
        server = start(options)
        narrow(server.session, 20)
        return server

    def set_narrow(slow: SlowClients, count: int) -> Crowd:
        if count == 60:
            narrow(slow.pid, 20)
        return set_count(slow, count)

    monkeypatch.setitem(SERVERS, "narrow", types.SimpleNamespace(start=start_narrow))  # type: ignore[index]
    monkeypatch.setattr(SlowClients, "set_count", set_narrow)
    asks = [dataclasses.replace(ask("epoll", 50), server="narrow"), ask("epoll", 60)]
    theirs, ours = (launch.facts for launch in measured(*asks))
    assert "descriptors" in str(theirs["exhausted"])
    assert theirs["descriptors_count"] == theirs["descriptors_limit_count"]
    assert theirs["slow_failure"] == ""
    assert (ours["slow_open_count"], ours["exhausted"]) == (20, "")
    key: dict[str, str | int] = {"server": "epoll", "kind": "head", "clients_count": 60, "defence": "none"}
    (row,) = rows([Samples(key, 0, {"latency_ns": []}, ours)], 1)
    assert row.grade == "void"
    assert "slow clients ran out of something first: socket: EMFILE" in row.grade_reason


@contextmanager
def little_memory(limit_bytes: int) -> Iterator[Path]:
    """A control group below ours whose processes may have so much memory; version 1 or 2, whichever there is."""
    paths = cgroups.memberships()
    version_1 = Path("/sys/fs/cgroup/memory") / paths.get("memory", "").lstrip("/")
    version_2 = Path("/sys/fs/cgroup") / paths.get("", "").lstrip("/")
    is_first = "memory" in paths
    group = (version_1 if is_first else version_2) / f"c10k-probe-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        cannot_run(f"no control group for memory can be made: {error}")
    try:
        try:
            (group / ("memory.limit_in_bytes" if is_first else "memory.max")).write_text(str(limit_bytes))
        except OSError as error:
            cannot_run(f"no limit of memory can be set in a control group: {error}")
        yield group
        wait_for(lambda: not (group / "cgroup.procs").read_text(), "the group is empty")
    finally:
        group.rmdir()


def test_memory_that_runs_out_is_told_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """2,000 connections take more of the kernel's memory than a group of 1 MiB has: the kernel kills the server."""
    start = SERVERS["epoll"].start
    with little_memory(1 << 20) as group:

        def start_inside(options: ServerOptions) -> Server:
            server = start(options)
            (group / "cgroup.procs").write_text(str(server.session))
            return server

        monkeypatch.setitem(SERVERS, "poor", types.SimpleNamespace(start=start_inside))  # type: ignore[index]
        poor = dataclasses.replace(ask("epoll", 2000, interval=NS_PER_S), server="poor")
        (launch,) = measured(poor)
    assert "SIGKILL" in str(launch.facts["death"])
    assert str(launch.facts["exhausted"]).startswith("memory")
    assert launch.facts["served_count"] == 0


def test_a_server_that_dies_under_slow_clients_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    look = _slow_measure.look

    def kill_and_look(server: Server, room_count: int | None) -> dict[str, Scalar]:
        os.killpg(server.session, signal.SIGKILL)
        wait_for(lambda: not processes.is_alive(server.session), "the server's death")
        return look(server, room_count)

    monkeypatch.setattr(_slow_measure, "look", kill_and_look)
    (launch,) = measured(ask("epoll", 50))
    assert "SIGKILL" in str(launch.facts["death"])
    assert "recovery_ns" not in launch.facts
    assert "memory" not in str(launch.facts["exhausted"])


def test_defences_throw_slow_heads_out() -> None:
    """Of all servers that are there, at the same time."""
    names = ("nginx", "node", "apache-prefork-php")
    present = [name for name in names if not REAL_SERVERS[name].missing]
    with ExitStack() as stack:
        crowds = {}
        for name in present:
            options = ServerOptions(protocol="http", defence_s=1, workers_count=4 if "prefork" in name else None)
            server = stack.enter_context(REAL_SERVERS[name].start(options))
            crowds[name] = server, stack.enter_context(SlowClients(server, "head", 0.1))
            crowds[name][1].set_count(4)
        for name, (server, slow) in crowds.items():
            wait_for(lambda: slow.status().ended_count >= 4, f"{name} throws the slow clients out")  # noqa: B023
            assert slow.status().failure == ""
            if REAL_SERVERS[name].work_path:
                with Work(server, f"{REAL_SERVERS[name].work_path}?ms=20", 10.0) as work:
                    taken_ns = work.wait()
                assert taken_ns is not None
                assert taken_ns >= 20_000_000
    if len(present) < len(names):
        cannot_run("; ".join(str(REAL_SERVERS[name].missing) for name in names if name not in present))


# --- how it ends ------------------------------------------------------------------------------------------------------

LARGE = ("slow-clients", "--server", "epoll", "--kinds", "idle", "--duration", "60s", "--csv", "-", "--clients")


def test_too_many_for_the_descriptors_are_refused_before_anything_is_opened(tmp_path: Path) -> None:
    finished = run(*LARGE, MANY, cwd=tmp_path, wrapper=("prlimit", "--nofile=1000:1000"))
    (row,) = rows_of(finished.stdout)
    assert (row["status"], row["served_pct"]) == ("skipped", "")
    assert "descriptors: " in row["reason"]
    assert finished.code == 77


@pytest.mark.parametrize(
    ("number", "launches"), [(signal.SIGINT, 5), (signal.SIGKILL, 1)], ids=["Ctrl-C, side by side", "kill -9"]
)
def test_nothing_is_left_of_five_thousand(number: signal.Signals, launches: int, tmp_path: Path) -> None:
    clients = MANY // launches
    with started(*LARGE, clients, "--survey-launches", launches, cwd=tmp_path) as command:

        def players() -> list[int]:
            """Processes that play slow clients, once there are all, and hold all of them."""
            found = [pid for pid in command.living() if "slow_clients" in processes.command_line(pid)]
            ready = [pid for pid in found if len(os.listdir(f"/proc/{pid}/fd")) > clients]  # noqa: PTH208
            return ready if len(ready) == launches else []

        found = command.until(players, "all slow clients are there")
        command.signal(number)
        finished = command.finish()
        wait_for(lambda: not command.living() and not any(map(processes.is_alive, found)), "all processes are gone")
    if number == signal.SIGINT:
        assert finished.code == 130
        (row,) = rows_of(finished.stdout)
        assert (row["status"], row["clients_count"]) == ("interrupted", str(clients))
    assert [path.name for path in (tmp_path / "results").iterdir()], "the run folder is kept"
