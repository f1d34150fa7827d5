"""``servers --trace`` against strace alone, and the rows, verdicts and chart of one run."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path

import pytest
from c10k_probe.experiments._servers_traced import counting
from command import only_run_folder, rows_of, run, started, wait_for
from conftest import cannot_run

from c10k_probe import results
from c10k_probe.experiment import Scalar
from c10k_probe.observe import processes, tree
from c10k_probe.observe.procfs import read_status
from c10k_probe.parts import find_part
from c10k_probe.servers import REAL_SERVERS, Server, ServerOptions
from c10k_probe.tracing.choose import try_backend
from c10k_probe.tracing.perf import DEFAULT_CALLS
from c10k_probe.tracing.strace import parse_summary

REQUESTS = 60
# How often a server waits depends on when requests come; a tracer that attaches breaks off a wait.
BY_CHANCE = {"epoll_wait", "restart_syscall", "rt_sigsuspend"}
# nginx for a request on a connection of its own: its access log is written, and it is told of the other end's close
OF_NGINX = {"accept4": 1, "epoll_ctl": 1, "recvfrom": 1, "writev": 1, "write": 1, "close": 1}


@cache
def why_not(backend: str) -> str:
    trial = try_backend(backend)
    return "" if trial.works else f"{backend} does not work here: {trial.reason}; {trial.lift}"


def require(backend: str, *names: str) -> None:
    """Skip, saying what is missing."""
    for part in map(find_part, names):
        if part.path is None:
            cannot_run(f"{part.name} is not installed; {part.command}")
    if why_not(backend):
        cannot_run(why_not(backend))


def ask(server: Server) -> None:
    """So many requests, one after the other, each on a connection of its own."""
    for _ in range(REQUESTS):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        connection.request("GET", "/", headers={"Connection": "close"})
        answer = connection.getresponse()
        assert (answer.status, bool(answer.read())) == (200, True)
        connection.close()


def nginx() -> Server:
    return REAL_SERVERS["nginx"].start(ServerOptions(protocol="http", is_as_installed=True))


def counted_by(backend: str) -> dict[str, Scalar]:
    """What the experiment counts of so many requests."""
    with nginx() as server, counting(backend, server) as facts:
        ask(server)
    return facts


def strace_alone(strace: str, report: Path) -> dict[str, int]:
    """The same by strace, without this project's tracing."""
    with nginx() as server:
        pids = tree.session_pids(server.session)
        words = [word for pid in pids for word in ("-p", str(pid))]
        with subprocess.Popen([strace, "-f", "-c", "-qq", "-o", str(report), *words]) as process:
            try:
                tids = list(processes.walk_threads(pids))
                wait_for(lambda: all(read_status(pid=tid).get("TracerPid", "0") != "0" for tid in tids), "attached")
                ask(server)
                wait_for(lambda: server.status()["open_count"] == 0, "the last connection is closed")
            finally:
                process.send_signal(signal.SIGINT)
    return {name: call.count for name, call in parse_summary(report.read_text()).items()}


def calls_of(facts: Mapping[str, Scalar]) -> dict[str, int]:
    found = {name.removeprefix("call "): count for name, count in facts.items() if name.startswith("call ")}
    return {name: int(count or 0) for name, count in found.items() if name not in BY_CHANCE and count}


def test_every_backend_counts_of_nginx_what_strace_alone_counts(
    require_root: None, require_tool: Callable[[str], str], tmp_path: Path
) -> None:
    """By name, exactly; whatever waits is not among them. The status pages that strace's run asks for are taken off."""
    require("bcc", "nginx")
    alone = strace_alone(require_tool("strace"), tmp_path / "report")
    asked = alone["accept4"] - REQUESTS  # of our own, until the last connection was closed
    assert asked >= 1
    found = {backend: counted_by(backend) for backend in ("bcc", "perf", "strace") if not why_not(backend)}
    exact = {name: each * REQUESTS for name, each in OF_NGINX.items()}
    for backend, facts in found.items():
        assert calls_of(facts) == exact, backend
        assert facts["trace_accepts_count"] == REQUESTS
        assert facts["polls_count"] == 0
        assert int(facts["epoll_waits_count"] or 0) > 0
    assert {name: count for name, count in alone.items() if name in ("accept4", "recvfrom", "writev")} == dict.fromkeys(
        ("accept4", "recvfrom", "writev"), REQUESTS + asked
    )
    assert found["bcc"]["trace_forks_count"] == found["bcc"]["trace_threads_count"] == 0
    assert found["bcc"]["trace_dropped_count"] == 0
    if "perf" in found:
        assert set(OF_NGINX) <= set(DEFAULT_CALLS), "or perf would not tell them by name"


def test_a_run_has_rows_of_both_kinds_its_price_and_its_verdicts(tmp_path: Path) -> None:
    require("bcc", "nginx", "ab")
    sizes = ("--requests", 400, "--connections", 4, "--repeats", 1)
    done = run("servers", "--as-article", "--server", "nginx", *sizes, "--trace", "bcc", "--csv", "-", cwd=tmp_path)
    assert done.code == 0, done.stderr
    rows = {(row["server"], row["traced_by"]): row for row in rows_of(done.stdout)}
    assert set(rows) == {(name, by) for name in ("nginx", "epoll") for by in ("off", "bcc")}
    plain, traced = rows["nginx", "off"], rows["nginx", "bcc"]
    told = int(traced["told_requests_count"])
    assert told == 400
    accepts = int(traced["tree_accepts_count"])  # ab begins some connections more than it needs
    done_calls = dict(part.split("=") for part in traced["done_calls"].split())
    assert {name: float(done_calls[name]) for name in ("writev", "write")} == {"writev": 1, "write": 1}
    assert {float(done_calls[name]) for name in ("accept4", "close", "recvfrom", "epoll_ctl")} == {accepts / told}
    parts = [float(value) for name, value in traced.items() if name.endswith("_calls_per_request")]
    assert sum(parts) == pytest.approx(float(traced["calls_per_request"]))
    assert (traced["tree_forks_count"], traced["polls_count"], traced["forks_per_request"]) == ("0", "0", "0")
    assert float(traced["traced_over_off_ratio"]) > 0
    assert {traced[name] for name in ("throughput_per_s", "request_p50_ns", "peak_bytes", "server_cpu_pct")} == {""}
    assert (plain["calls"], plain["traced_over_off_ratio"], plain["threads_ran_count"]) == ("", "", "1")
    stored = results.load(only_run_folder(tmp_path))
    assert stored.facts["tracing"]["backend"] == "bcc"
    verdicts = {item["claim"]: item for item in stored.facts["verdicts"]}
    assert "epoll_wait was called" in verdicts["C30"]["evidence"]
    assert "nginx: 0 % by poll or select" in verdicts["C37"]["evidence"]
    ratios = [item for item in stored.facts["findings"] if item["column"] == "traced_over_off_ratio"]
    assert len(ratios) == 2, json.dumps(ratios)
    drawn = run("plot", only_run_folder(tmp_path), "--chart", "calls", cwd=tmp_path)
    assert (drawn.code, "wait for events" in drawn.stdout) == (0, True), drawn.stderr


@pytest.mark.alone
def test_after_a_kill_neither_server_nor_tracer_is_left(require_tool: Callable[[str], str], tmp_path: Path) -> None:
    require("bcc", "ab")
    bpftool = require_tool("bpftool")
    before = loaded(bpftool)
    sizes = ("--requests", 8_000, "--connections", 4, "--repeats", 1000, "--article-launches", 1000)
    with started("servers", "--as-article", "--server", "epoll", *sizes, "--trace", "bcc", cwd=tmp_path) as command:
        command.until(lambda: {"bcc_helper", "ab"} <= programs(command.living()), "a traced server is under load")
        command.signal(signal.SIGKILL)
        command.process.wait(20)
        wait_for(lambda: not command.living(), "everything that it started has ended")
    wait_for(lambda: not loaded(bpftool) - before, "no program of ours is loaded")


def loaded(bpftool: str) -> set[int]:
    """Ids of the BPF programs of the whole machine."""
    said = subprocess.run([bpftool, "-j", "prog", "list"], capture_output=True, text=True, check=True).stdout
    return {item["id"] for item in json.loads(said or "[]")}


def programs(pids: Iterable[int]) -> set[str]:
    """File names in the command lines of some processes."""
    lines = (processes.command_line(pid) for pid in pids)
    return {Path(word).name.removesuffix(".py") for line in lines for word in line.split()}
