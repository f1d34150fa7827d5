"""``cores`` on real servers: counts that agree, the herd that epoll_ctl(2) promises, and workers that die."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from c10k_probe.experiments import _cores_measure as subject
from c10k_probe.experiments._cores_design import ARMS, CoresParameters
from command import Started, rows_of, run, started, wait_for
from conftest import cannot_run
from native.kernel_view import living_members, wait_until

from c10k_probe import native
from c10k_probe.observe import processes
from c10k_probe.servers import Server, ServerOptions

W = 3
MS = 1_000_000
SEED = 5  # of an order in which what is before several processes comes first
BASES = ("epoll", "node", "tornado")


@pytest.mark.alone
def test_each_arm_tells_shares_and_wakeups(tmp_path: Path) -> None:
    if missing := {arm.model.missing for arm in ARMS.values()} - {""}:
        cannot_run("; ".join(sorted(missing)))
    small = ("--repeats", 1, "--workers", W, "--duration", "100ms", "--concurrency", 16, "--load", "short")
    finished = run("cores", *small, "--work", "20us", "--utilisation", 90, "--csv", "-", cwd=tmp_path)

    assert finished.code == 0, finished.stderr
    rows = rows_of(finished.stdout)
    assert len(rows) == len(ARMS)
    for row in rows:
        shares = [int(word) for word in row["worker_shares"].split()]
        assert (row["status"], row["failed_count"]) == ("ok", "0")
        assert len(shares) == int(row["workers_count"]) == (1 if row["arm"] in BASES else W)
        assert sum(shares) == int(row["intended_count"]), "every request is some worker's"
        assert (row["max_to_mean_ratio"] == "") == (len(shares) == 1)
        assert int(row["accepted_count"]) == sum(shares), "a connection for each"
        assert int(row["sparse_count"]) == 20
        has_p99 = row["request_p99_ns"] != ""
        assert has_p99 == (int(row["intended_count"]) >= 500), (
            "there, but on a machine that gives less than a quarter of its CPU"
        )
        assert not has_p99 or 0 < float(row["request_p50_ns"]) <= float(row["request_p99_ns"])
        assert 0 < float(row["utilisation_pct"]) <= 101, "of the CPUs that the workers can have"
        if row["arm"] in BASES:
            assert (row["p99_over_single_ratio"], row["p99_reason"]) == ("", "")
        else:
            assert (row["p99_over_single_ratio"] == "") == bool(row["p99_reason"])
        assert (row["binomial_ratio"] != "") <= (row["arm"] == "reuseport")
        if len(os.sched_getaffinity(0)) < 4 and len(shares) > 1:
            assert (row["speed_up_ratio"], row["speed_up_grade"]) == ("", "void")
            assert "CPUs" in row["speed_up_reason"]
    short = {row["arm"]: row for row in rows}
    woken = {name: float(row["wakeups_per_accept_ratio"]) for name, row in short.items()}
    assert woken["inherited"] > 2 > woken["exclusive"], "all that wait are woken, or one"
    assert max(woken["reuseport"], woken["passed"]) < 2
    for name in ("passed", "node-cluster", "nginx-node", "nginx-tornado"):
        shares = [int(word) for word in short[name]["worker_shares"].split()]
        if name == "node-cluster":
            assert max(shares) <= 2 * min(shares), "a worker that is busy is passed over: nearly in turn"
        else:
            assert max(shares) - min(shares) <= 1, "in turn"


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """An open loop that is not for a p99."""
    monkeypatch.setattr(subject, "OPEN_COUNT", 20)


@pytest.mark.usefixtures("few")
def test_kept_connections_are_shared_too() -> None:
    ask = subject.Ask(CoresParameters(duration=100 * MS, concurrency=8, connections=60), "passed", W, "long", 1)
    launch = subject.measure(ask)
    assert launch.facts["accepted_count"] == 60
    assert (len(launch.worker_requests), sum(launch.worker_requests)) == (W, launch.facts["intended_count"])
    assert "wakeups" not in launch.facts, "no connection comes alone"


def workers_of(server: Server) -> set[int]:
    """Behind nginx they are those that listen at a socket file; else all but the first process."""
    members = living_members(server.session) - {server.session}
    return {pid for pid in members if b".socket" in Path(f"/proc/{pid}/cmdline").read_bytes()} or members


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("name", ["passed", "node-cluster", "nginx-node"])
def test_a_worker_that_dies_fails_the_launch_and_nothing_is_left(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if ARMS[name].model.missing:
        cannot_run(ARMS[name].model.missing)
    sessions: list[int] = []

    def kill_one(ask: subject.Ask, server: Server) -> dict[str, Any]:
        sessions.append(server.session)
        workers = workers_of(server)
        assert len(workers) == W
        victim = max(workers)
        os.kill(victim, signal.SIGKILL)
        ended = victim if name == "passed" else server.session  # the others end as a whole
        wait_until(lambda: ended not in living_members(server.session), "it has died")
        return {}

    monkeypatch.setattr(subject, "_sparse", kill_one)
    parameters = CoresParameters(duration=100 * MS, concurrency=8, connections=8)
    said = {"passed": "killed by SIGKILL.*fewer than its 3 workers", "node-cluster": "worker . of 3 ended: SIGKILL"}
    with pytest.raises(native.HelperError, match=said.get(name, "worker 3 of 3 ended: SIGKILL.*under load")):
        subject.measure(subject.Ask(parameters, name, W, "short", 1))
    assert living_members(sessions[0]) == set()


@contextlib.contextmanager
def sleeps_counted_by_the_kernel(pids: set[int], found: list[int]) -> Iterator[None]:
    """How often these processes gave up a CPU to sleep, by the kernel's tracepoint; it is known after the block."""
    if shutil.which("perf") is None:
        cannot_run("perf is not installed; apt-get install linux-perf")
    asked = ("-e", "sched:sched_switch", "--filter", "prev_state & 3", "-p", ",".join(map(str, sorted(pids))))
    command = ["perf", "stat", "-x", ",", *asked, "sh", "-c", "echo counting; read -r end"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as perf:
        assert perf.stdout is not None
        is_counting = perf.stdout.readline() == "counting\n"
        if is_counting:
            yield
        _, said = perf.communicate("end\n")
    if not is_counting:
        cannot_run(f"perf cannot count sched:sched_switch here: {said.strip().splitlines()[0]}")
    found.append(int(said.split(",")[0]))


@pytest.mark.alone
@pytest.mark.parametrize("name", ["inherited", "exclusive"])
def test_wakeups_agree_with_the_kernels_own_count(name: str) -> None:
    ask, found = subject.Ask(CoresParameters(), name, W, "short", 1), []
    options = ServerOptions(protocol="http", workers_count=W, work_cpu_ns=100_000)
    with ARMS[name].model.start(options) as server:
        pids = workers_of(server)
        with sleeps_counted_by_the_kernel(pids, found):
            facts = subject._sparse(ask, server)
    ours_count = round(float(facts["wakeups"] or 0) * int(facts["sparse_count"] or 0))
    assert facts["sparse_count"] == 20
    assert ours_count <= found[0] <= ours_count + W, "those before and after the two readings are perf's alone"
    assert (ours_count > 20 * 2) == (name == "inherited")


# --- nothing is left --------------------------------------------------------------------------------------------------


def members_of(command: Started) -> dict[int, str]:
    """What runs under the command, by name; nginx, which writes over its environment, by the session of the others."""
    pids = set(command.living())
    for session in {os.getsid(pid) for pid in pids if processes.is_alive(pid)}:
        pids |= living_members(session)
    found = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            is_worker = b".socket" in Path(f"/proc/{pid}/cmdline").read_bytes()
            found[pid] = "worker" if is_worker else Path(f"/proc/{pid}/comm").read_text().strip()
    return found


def under_load(command: Started) -> dict[int, str] | None:
    """nginx and its worker, all that stand behind them, the client: all of them, or None."""
    found = members_of(command)
    count = Counter(found.values())
    return found if (count["worker"], count["nginx"], count["http_sender"]) == (W, 2, 1) else None


@pytest.mark.parametrize(("name", "number"), [("nginx-tornado", signal.SIGINT), ("nginx-node", signal.SIGKILL)])
def test_ended_under_load_it_leaves_nothing(name: str, number: int, tmp_path: Path, temporary: Path) -> None:
    if ARMS[name].model.missing:
        cannot_run(ARMS[name].model.missing)
    endless = ("--arm", name, "--workers", W, "--load", "short", "--repeats", 1000, "--seed", SEED)
    with started("cores", *endless, cwd=tmp_path) as command:
        members = command.until(lambda: under_load(command), "it is under load")
        command.signal(number)
        code = command.process.wait(30)
        assert code == (130 if number == signal.SIGINT else -number)
        wait_for(lambda: not any(map(processes.is_alive, members)), "all of it has ended")
        wait_for(lambda: not command.living() and not list(temporary.iterdir()), "its files are gone")
