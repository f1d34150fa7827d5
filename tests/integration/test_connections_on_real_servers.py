"""connections on real servers: rows as of our models, their own limits named, every failure told, nothing left."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from command import complaint_of, rows_of, run, started, wait_for
from conftest import cannot_run, processes_of

from c10k_probe.load import Holder
from c10k_probe.load.holder import Http
from c10k_probe.servers import REAL_SERVERS, ServerOptions
from c10k_probe.servers.real import BODY

BRIEFLY = ("--probe-time", "20ms", "--csv", "-")
SERVERS = ("nginx", "tornado")
Rows = list[dict[str, str]]
# Answers on a kept connection, and ends after so many requests.
MORTAL = """
import http.server, os, sys
class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version, wbufsize, left = "HTTP/1.1", -1, 40
    def do_GET(self):
        Answer.left -= 1
        if Answer.left < 0:
            print("out of breath", file=sys.stderr, flush=True)
            os._exit(7)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *_):
        pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 256
    def handle_error(self, *_):
        pass
Server(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


def require(*names: str) -> None:
    for name in names:
        if REAL_SERVERS[name].missing:
            cannot_run(REAL_SERVERS[name].missing)


def of_server(rows: Rows, name: str) -> Rows:
    return [row for row in rows if row["model"] == name]


def test_rows_are_those_of_a_model(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real servers and a model of ours side by side, and one that is not installed: told, and no more."""
    require(*SERVERS)
    monkeypatch.setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
    is_there = not REAL_SERVERS["cherokee"].missing
    arguments = ("--server", ",".join((*SERVERS, "cherokee")), "--model", "epoll", "--to", 130, "--steps", 3)
    finished = run("connections", *arguments, *BRIEFLY, cwd=tmp_path)
    assert finished.code == (0 if is_there else 3), finished.stderr
    rows = rows_of(finished.stdout)
    for name in (*SERVERS, "epoll"):
        own = of_server(rows, name)
        assert [row["status"] for row in own] == ["ok"] * 3, [row["reason"] for row in own]
        for row in own:
            assert (row["protocol"], bool(row["server_version"])) == ("http", name in SERVERS)
            assert row["open_count"] == row["target_count"] == row["established_count"]
        assert (own[-1]["echo_asked_count"], own[-1]["echo_failed_count"]) == ("130", "0")
        assert (own[-1]["probe_sent_count"], own[-1]["probe_failed_count"]) == ("20", "0")
        assert own[-1]["server_slab_bytes_per_connection"] and own[-1]["server_private_bytes_per_connection"]
    assert "worker_connections=" in of_server(rows, "nginx")[0]["server_settings"]
    if not is_there:
        [missing] = of_server(rows, "cherokee")
        assert missing["status"] == "skipped"
        assert "cherokee is not installed; apt-get install cherokee" in missing["reason"]
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("name", ["nginx", "apache-event"])
def test_connections_that_were_never_used_are_held_and_live(name: str, tmp_path: Path, temporary: Path) -> None:
    """Apache by itself would not even accept them (TCP_DEFER_ACCEPT)."""
    require(name)
    arguments = ("--server", name, "--to", 40, "--steps", 2, "--state", "idle")
    finished = run("connections", *arguments, *BRIEFLY, cwd=tmp_path)
    assert finished.code == 0, finished.stderr
    first, last = rows_of(finished.stdout)
    assert (first["open_count"], first["echo_asked_count"]) == (first["established_count"], "")
    assert (last["open_count"], last["established_count"], last["echo_asked_count"]) == ("40", "40", "40")
    assert last["echo_failed_count"] == "0"
    assert list(temporary.iterdir()) == []


@pytest.mark.alone  # its ledger, and so its grade, is of the machine's memory
def test_workers_that_are_all_taken(tmp_path: Path, temporary: Path) -> None:
    require("apache-prefork-php")
    arguments = ("--server", "apache-prefork-php", "--workers", 5, "--to", 20, "--steps", 2, "--state", "used")
    finished = run("connections", *arguments, *BRIEFLY, cwd=tmp_path)
    assert finished.code == 3, finished.stderr
    last = rows_of(finished.stdout)[-1]
    assert (last["wall"], last["wall_kind"], last["wall_lift"]) == (
        "MaxRequestWorkers",
        "administrative",
        "--workers N",
    )
    assert (last["open_count"], last["predicted_count"], last["predicted_wall"]) == ("5", "5", "workers")
    assert (last["echo_asked_count"], last["echo_failed_count"]) == ("5", "0"), "those that it has live"
    assert "MaxRequestWorkers=5 " in last["server_settings"]
    assert list(temporary.iterdir()) == []


def test_what_nginx_closes_to_make_room_is_told_by_its_setting(temporary: Path) -> None:
    require("nginx")
    with REAL_SERVERS["nginx"].start(ServerOptions(protocol="http", capacity_count=1)) as server:
        slots_count = int(server.settings.partition("worker_connections=")[2].split()[0])
        with Holder(server.port, slots_count, http=Http("/", BODY)) as holder:
            assert holder.ramp(slots_count * 15 // 16 - 20).failure is None
            assert holder.echo(0, 1).failed_count == 0
            assert server.walls() == []
            holder.ramp(slots_count - 20)
            [hit] = wait_for(server.walls, "it has told")
            assert (hit["setting"], hit["limit"], hit["lift"]) == ("worker_connections", slots_count, "--workers N")
            assert holder.echo(0, 1).failed_count > 0


def command_of(tmp_path: Path, program: str) -> str:
    """A server of the user's own."""
    (tmp_path / "own.py").write_text(program)
    return f"{sys.executable} {tmp_path / 'own.py'} {{port}}"


def test_a_server_that_dies_in_mid_ramp(tmp_path: Path, temporary: Path) -> None:
    """Its row is void and says how it ended; the model beside it goes on to the end."""
    command = command_of(tmp_path, MORTAL)
    arguments = ("--server-command", command, "--model", "epoll", "--to", 100, "--steps", 3, "--probe-rate", 0)
    finished = run("connections", *arguments, "--csv", "-", cwd=tmp_path)
    assert finished.code == 3, finished.stderr
    rows = rows_of(finished.stdout)
    last = of_server(rows, "command")[-1]
    assert (last["status"], last["grade"]) == ("failed", "void")
    assert "exit code 7" in last["reason"] and "out of breath" in last["reason"]
    assert [row["status"] for row in of_server(rows, "epoll")] == ["ok"] * 3
    assert list(temporary.iterdir()) == []


def test_a_server_that_does_not_keep_connections(tmp_path: Path) -> None:
    """Python's own answers in HTTP/1.0: right, and no connection is held."""
    command = f"{sys.executable} -m http.server --bind 127.0.0.1 {{port}}"
    arguments = ("--server-command", command, "--to", 10, "--steps", 1, "--probe-rate", 0, "--csv", "-")
    finished = run("connections", *arguments, cwd=tmp_path)
    assert finished.code in (1, 3), finished.stderr
    [row] = rows_of(finished.stdout)
    assert row["open_count"] == "0"
    assert "Answered, and closes the connection" in row["reason"]


def test_killed_in_mid_ramp_nothing_is_left(tmp_path: Path, temporary: Path) -> None:
    require("nginx")
    arguments = ("--server", "nginx", "--to", 10_000, "--steps", 50, "--probe-time", "1s", "--csv", "rows.csv")
    with started("connections", *arguments, cwd=tmp_path) as command:
        wait_for(lambda: processes_of(str(temporary)), "nginx runs")
        wait_for((tmp_path / "rows.csv").exists, "a step is done")
        command.signal(signal.SIGKILL)
        wait_for(lambda: not processes_of(str(temporary)) and not list(temporary.iterdir()), "all is gone")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--server", "nginx", "--protocol", "echo"), "real servers speak http alone"),
        (("--server", "lighttpd"), "choose from nginx"),
        (("--server-command", "serve"), "has no {port}"),
        (("--server", "nginx", "--trace", "strace"), "leave out --server"),
        (("--server", "node", "--state", "backlogged"), "over HTTP choose --state idle,used"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(arguments: tuple[Any, ...], told: str, tmp_path: Path) -> None:
    finished = run("connections", *arguments, cwd=tmp_path)
    assert finished.code == 2
    assert told in complaint_of(finished)
