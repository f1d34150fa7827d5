"""``servers`` as a user meets it: counts that agree with the servers' own, what is missing, what dies, what errs."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
from command import complaint_of, rows_of, run
from conftest import cannot_run

from c10k_probe import results
from c10k_probe.parts import find_part
from c10k_probe.servers.real import BODY

REQUESTS = 2000
SMALL = ("servers", "--as-article", "--repeats", 1, "--connections", 20, "--requests", REQUESTS, "--csv", "-")
LOADS = ("server", "load", "keep_alive", "rate_pct")
LOST = ("failed_connect", "failed_receive", "wrong_answers", "timed_out", "unsent")
# A server that answers wrongly after its first good answers, or dies of them.
PROGRAM = """
import http.server, os, sys
class Answer(http.server.BaseHTTPRequestHandler):
    wbufsize = -1
    count = 0
    def do_GET(self):
        Answer.count += 1
        late = Answer.count > 100
        if late and sys.argv[2] == "dies":
            os._exit(7)
        if late and sys.argv[2] == "resets":
            self.close_connection = True
            self.connection.setsockopt(__import__("socket").SOL_SOCKET, 13, b"\\1\\0\\0\\0\\0\\0\\0\\0")
            self.connection.close()
            return
        if late and sys.argv[2] == "breaks":
            self.wfile.write(b"HTTP/1.0 200 OK\\r\\nContent-Length: 3\\r\\n\\r\\no")
            self.connection.setsockopt(__import__("socket").SOL_SOCKET, 13, b"\\1\\0\\0\\0\\0\\0\\0\\0")
            self.connection.close()
            self.close_connection = True
            return
        self.send_response(500 if late and sys.argv[2] == "errs" else 200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"ok\\n")
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 64
Server(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


def require(*names: str) -> None:
    for part in map(find_part, names):
        if part.path is None:
            cannot_run(f"{part.name} is not installed; {part.command}")


def test_what_ab_counts_is_what_the_servers_count(tmp_path: Path) -> None:
    """Of every kind of server one; the null server beside them; memory over time is kept, and can be drawn."""
    require("ab", "nginx", "node")
    finished = run(*SMALL, "--server", "nginx,node", cwd=tmp_path)
    assert finished.code == 0, finished.stderr
    rows = {row["server"]: row for row in rows_of(finished.stdout)}
    assert set(rows) == {"nginx", "node", "epoll"}
    for name, row in rows.items():
        assert (row["status"], row["arm"], row["load"], row["keep_alive"]) == ("ok", "article", "ab", "off")
        assert (row["requests_count"], row["failed_count"], row["launches_count"]) == (str(REQUESTS), "0", "1")
        assert int(row["header_bytes"]) > 20
        assert float(row["request_p99_ns"]) >= float(row["request_p50_ns"]) > 0
        assert float(row["load_cpu_pct"]) > 0
        assert float(row["server_cpu_pct"]) > 0
        assert float(row["rest_pss_bytes"]) > 0
        assert int(row["new_processes_count"]) == 0
        if name != "epoll":
            assert (row["told_requests_count"], row["body_bytes"]) == (str(REQUESTS), str(len(BODY)))
    (folder,) = (tmp_path / "results").iterdir()
    stored = results.load(folder)
    assert {len(item["values"]["at_ns"]) == len(item["values"]["pss_bytes"]) for item in stored.samples} == {True}
    assert all(item["values"]["at_ns"] == sorted(item["values"]["at_ns"]) for item in stored.samples)


def test_readings_are_told_as_they_are_kept_and_none_where_nobody_looks(tmp_path: Path) -> None:
    """What a screen and a program are told within a launch is what the run folder keeps, each once and in order."""
    require("ab")
    small = ("--server", "epoll", "--repeats", 1, "--requests", 4 * REQUESTS, "--connections", 20)
    finished = run("servers", "--as-article", "--observe", "on,off", *small, "--json", "-", cwd=tmp_path)
    assert finished.code == 0, finished.stderr
    told: dict[tuple[str, str], list[dict[str, float]]] = {}
    for record in map(json.loads, finished.stdout.splitlines()):
        if record["type"] == "readings":
            key = record["cell"]
            told.setdefault((key["server"], key["observed"]), []).extend(record["readings"])
    assert ("epoll", "on") in told
    assert {observed for _, observed in told} == {"on"}
    names = {"at_s", "served_at_once_count", "queued_count", "tree_pss_bytes", "processes_count", "tree_cpu_pct"}
    assert {name for readings in told.values() for item in readings for name in item} <= names
    (folder,) = (tmp_path / "results").iterdir()
    for item in results.load(folder).samples:
        readings = told.get((item["key"]["server"], item["key"]["observed"]), [])
        assert [reading["at_s"] for reading in readings] == sorted(reading["at_s"] for reading in readings)
        pss = [reading["tree_pss_bytes"] for reading in readings if "tree_pss_bytes" in reading]
        assert pss == item["values"]["pss_bytes"]


def test_the_fair_test_has_closed_and_open_loops_on_the_same_settings(tmp_path: Path) -> None:
    """Every request of the open loop has an outcome, and the server has counted those that were sent."""
    require("wrk", "node")
    small = ("--repeats", 1, "--connections", 20, "--keep-alive", "on", "--open-rate", "30,90", "--csv", "-")
    finished = run("servers", "--fair", "--server", "node", *small, cwd=tmp_path)
    assert finished.code == 0, finished.stderr
    rows = {tuple(row[name] for name in LOADS): row for row in rows_of(finished.stdout)}
    closed = {(name, "wrk", "on", "100") for name in ("node", "epoll")}
    opened = {(name, "open loop", "on", rate) for name in ("node", "epoll") for rate in ("30", "90")}
    assert set(rows) == closed | opened
    for key, row in rows.items():
        requests_count = int(row["requests_count"])
        told_count = int(row["told_requests_count"] or requests_count)  # the null server does not tell
        assert (row["status"], row["connections_count"], row["timed_out_count"] == "") == ("ok", "20", key in closed)
        if key in closed:  # wrk leaves at its end what is under way
            assert 0 <= told_count - requests_count <= 20
            assert len(os.sched_getaffinity(0)) == 1 or 0 <= float(row["server_idle_pct"]) <= 100
            continue
        lost = [int(row[f"{name}_count"]) for name in LOST]
        assert int(row["failed_count"]) == sum(lost)
        if key[0] != "epoll":
            assert told_count == requests_count - int(row["unsent_count"])
        asked = float(row["capacity_per_s"]) * int(row["rate_pct"]) / 100
        assert float(row["intended_per_s"]) == pytest.approx(asked)
        assert requests_count == pytest.approx(asked, rel=0.2)  # of a second, arrivals being random
        assert float(row["request_p50_ns"]) <= float(row["request_p90_ns"])
    (folder,) = (tmp_path / "results").iterdir()
    values = [item["values"] for item in results.load(folder).samples if item["key"]["load"] == "open loop"]
    assert len(values) == len(opened)
    assert all(len(item["share_pct"]) == len(item["latency_ns"]) > 10 for item in values)
    assert all(item["latency_ns"] == sorted(item["latency_ns"]) for item in values)


def test_what_is_inside_apache_and_node(tmp_path: Path) -> None:
    require("apache2", "node", "wrk")
    small = ("--repeats", 1, "--connections", 20, "--csv", "-")
    finished = run("servers", "--inside", *small, cwd=tmp_path, changes={"UV_THREADPOOL_SIZE": None})
    assert finished.code == 0, finished.stderr
    rows = {row["load"]: row for row in rows_of(finished.stdout)}
    assert set(rows) == {"held connections", "worker threads", "files", "wrk"}
    process = rows["held connections"]
    assert float(process["process_private_bytes"]) < float(process["process_bytes"])
    assert float(process["process_bytes"]) < float(process["process_rss_bytes"])
    files = rows["files"]
    assert (files["jobs_count"], files["at_once_count"]) == ("6", "4")  # libuv's threads, when nobody says a number
    assert float(files["wave_ratio"]) > 1.5  # those that are held for 0.3 s, and those that begin only then
    assert files["sockets_count"] == files["nonblocking_sockets_count"] == "4"  # its listener, and three of ours
    assert float(rows["worker threads"]["threads_ratio"] or 1) > 0
    assert 0 <= float(rows["wrk"]["left_pct"]) <= 100


def test_what_is_missing_is_skipped_and_the_others_go_on(tmp_path: Path) -> None:
    require("ab")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "ab").symlink_to(str(find_part("ab").path))
    finished = run(*SMALL, "--server", "node", cwd=tmp_path, changes={"PATH": str(programs)})
    assert finished.code == 3, finished.stderr
    rows = {row["server"]: row for row in rows_of(finished.stdout)}
    assert {name: row["status"] for name, row in rows.items()} == {"node": "skipped", "epoll": "ok"}
    assert "node is not installed; " in rows["node"]["reason"]
    assert rows["node"]["reason"].endswith("apt-get install nodejs")
    assert rows["node"]["requests_count"] == ""


@pytest.mark.parametrize("how", ["errs", "dies", "resets", "breaks"])
def test_a_server_that_fails_under_load_says_so_in_its_row(how: str, tmp_path: Path) -> None:
    require("ab")
    program = tmp_path / "server.py"
    program.write_text(PROGRAM)
    command = f"{sys.executable} {program} {{port}} {how}"
    finished = run(*SMALL, "--server-command", command, cwd=tmp_path)
    rows = {row["server"]: row for row in rows_of(finished.stdout)}
    assert rows["epoll"]["status"] == "ok"
    row = rows["command"]
    if how == "dies":
        assert (finished.code, row["status"]) == (3, "failed")
        assert "ended (exit code 7)" in row["reason"]
        assert row["reason"].endswith("it was under load")
    elif how == "breaks":  # ab counts no more, and would wait for 30 s
        assert (finished.code, row["status"]) == (3, "failed")
        assert "ab waits for answers to requests that it has not sent" in row["reason"]
    else:
        assert (finished.code, row["status"]) == (0, "ok")
        assert int(row["failed_count"]) > REQUESTS / 2
        assert row["wrong_answers_count" if how == "errs" else "failed_receive_count"] != "0"
        assert re.search(r"of 2,000 requests failed|failures in 2,000 requests", row["grade_reason"])


def test_a_server_that_dies_before_the_open_loop_is_a_row_that_says_so(tmp_path: Path) -> None:
    require("wrk")
    program = tmp_path / "server.py"
    program.write_text(PROGRAM)
    command = f"{sys.executable} {program} {{port}} dies"
    small = ("--fair", "--repeats", 1, "--connections", 120, "--keep-alive", "on", "--open-rate", "50", "--csv", "-")
    finished = run("servers", *small, "--server-command", command, cwd=tmp_path)
    assert finished.code == 3, finished.stderr
    rows = [row for row in rows_of(finished.stdout) if row["server"] == "command"]
    assert [row["status"] for row in rows] == ["failed"] * 2
    assert {row["load"] for row in rows} == {"wrk", "open loop"}
    assert all("ended (exit code 7)" in row["reason"] for row in rows)
    others = [row for row in rows_of(finished.stdout) if row["server"] != "command"]
    assert {row["status"] for row in others} == {"ok"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--requests", 10, "--connections", 20), "--requests: 10 are fewer than 20 connections"),
        (("--duration", "1500ms"), "--duration: only whole seconds"),
        (("--server", "command"), "--server command: what is it?"),
        (("--server", "node", "--server-command", "x {port}"), "not among --server"),
        (("--server-command", "python3 x.py"), "{port}"),
        (("--server-command", "no-such-program {port}"), "there is no program 'no-such-program'"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: tuple[object, ...], words: str, tmp_path: Path) -> None:
    finished = run("servers", *arguments, cwd=tmp_path)
    assert finished.code == 2
    assert words in complaint_of(finished)
    assert not (tmp_path / "results").exists()
