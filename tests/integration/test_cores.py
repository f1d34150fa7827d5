"""``cores`` on real servers: counts that agree, the herd that epoll_ctl(2) promises, and workers that die."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from c10k_probe.experiments import _cores_measure as subject
from c10k_probe.experiments._cores_design import ARMS, CoresParameters
from command import rows_of, run
from conftest import cannot_run
from native.kernel_view import living_members, wait_until

from c10k_probe import native
from c10k_probe.servers import Server

W = 3
MS = 1_000_000
BASES = ("epoll", "node", "tornado")


def test_each_arm_tells_shares_and_wakeups(tmp_path: Path) -> None:
    if missing := {arm.model.missing for arm in ARMS.values()} - {""}:
        cannot_run("; ".join(sorted(missing)))
    small = ("--repeats", 1, "--workers", W, "--duration", "200ms", "--concurrency", 16, "--load", "short")
    finished = run("cores", *small, "--csv", "-", cwd=tmp_path)

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
        if name == "passed":
            assert max(shares) - min(shares) <= 1, "in turn"
        assert max(shares) <= 2 * min(shares), "Node.js passes to the next one that is free, which is nearly in turn"


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


@pytest.mark.parametrize("name", ["passed", "node-cluster", "nginx-node", "nginx-tornado"])
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
