"""Real servers in what they have in common: the same answer, counts that agree with ab's, nobody privileged, none left.

nginx, of which more is asked, has tests of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command import complaint_of, rows_of, run, run_folders, wait_for
from conftest import cannot_run

from c10k_probe import native
from c10k_probe.observe import processes, tree
from c10k_probe.servers import REAL_SERVERS, RealServer, ServerOptions, command_model, real
from c10k_probe.servers.real import BODY

SYSTEM_PYTHON = "/usr/bin/python3"  # which an unprivileged user may start
HTTP = ServerOptions(protocol="http")
VERSIONS = {
    "cherokee": r"Cherokee/1\.2\.\d+.*",
    "apache-event": r"Apache/2\.\d+\.\d+ PHP/8\.\d+\.\d+",
    "apache-prefork-php": r"Apache/2\.\d+\.\d+ PHP/8\.\d+\.\d+",
    "nginx": r"nginx/1\.\d+\.\d+",
    "nginx-php-fpm": r"nginx/1\.\d+\.\d+ PHP/8\.\d+\.\d+",
    "node": r"Node\.js/\d+\.\d+\.\d+",
    "node-jitless": r"Node\.js/\d+\.\d+\.\d+",
    "python-http-server": r"http\.server CPython/3\.\d+\.\d+",
    "tornado": r"TornadoServer/\d+\.\d+\S* CPython/3\.\d+\.\d+",
}
COUNTLESS = ("cherokee",)
# Few distributions carry Cherokee: this takes its place, and takes no setting that it would not.
STAND_IN = f"""#!{SYSTEM_PYTHON}
import http.server, pathlib, re, sys
KNOWN = (
    r"config!version|server!(bind!1!(port|interface)|listen_queue|keepalive|keepalive_max_requests|timeout|"
    r"server_tokens|pid_file)|vserver!1!(nick|document_root|directory_index|rule!1!(match|handler|handler!iocache))|"
    r"mime!text/plain!extensions"
)
option, path = sys.argv[1:]
lines = pathlib.Path(path).read_text().splitlines()
settings = dict(line.split(" = ", 1) for line in lines)
wrong = [key for key in settings if not re.fullmatch(KNOWN, key)]
if option != "-C" or wrong:
    sys.exit(f"Server parser: Unknown key {{wrong}}")
index = pathlib.Path(settings["vserver!1!document_root"], settings["vserver!1!directory_index"]).read_bytes()
class Answer(http.server.BaseHTTPRequestHandler):
    wbufsize = -1  # headers and body in one segment
    protocol_version, server_version, sys_version = "HTTP/1.1", "Cherokee/1.2.104 (stand-in)", ""
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(index)))
        self.send_header("Connection", "close" if self.close_connection else "keep-alive")
        self.end_headers()
        self.wfile.write(index)
    def log_message(self, *_):
        pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = int(settings["server!listen_queue"])
Server((settings["server!bind!1!interface"], int(settings["server!bind!1!port"])), Answer).serve_forever()
"""
OWN = f"{sys.executable} -m http.server --bind 127.0.0.1 {{port}}"
ANSWERING = """
import http.server, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(sys.argv[2]))
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


@pytest.fixture(autouse=True)
def cherokee(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In PATH, the stand-in where it is not installed."""
    with tempfile.TemporaryDirectory() as folder:
        if REAL_SERVERS["cherokee"].missing and Path(SYSTEM_PYTHON).exists():
            Path(folder).chmod(0o755)
            program = Path(folder, "cherokee")
            program.write_text(STAND_IN)
            program.chmod(0o755)
            monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        yield


@pytest.fixture(params=REAL_SERVERS)
def started(request: pytest.FixtureRequest, temporary: Path) -> RealServer:
    """Each of them, running; gone with the test."""
    model = REAL_SERVERS[request.param]
    if model.missing:
        cannot_run(model.missing)
    server = model.start(HTTP)
    request.addfinalizer(server.close)
    return server


def settled(server: RealServer, requests_count: int) -> dict[str, Any] | None:
    """Its status when nobody is connected and it has counted these: Apache does so a moment after it has answered."""
    status = server.status()
    is_it = status["requests_count"] == requests_count or server.name in COUNTLESS
    return status if is_it and status["open_count"] == 0 else None


def test_every_server_is_tested() -> None:
    assert set(VERSIONS) == set(REAL_SERVERS)
    assert all(model.protocols == {"http"} for model in REAL_SERVERS.values())


def test_it_answers_as_all_do_unprivileged_and_counts_what_ab_counts(
    started: RealServer, require_tool: Callable[[str], str], temporary: Path
) -> None:
    assert re.fullmatch(VERSIONS[started.name], started.version)
    page = started.look()
    assert (page.status, page.body, page.body_bytes) == (200, BODY, len(BODY))
    assert page.header_bytes > len("HTTP/1.1 200 OK\r\n\r\n")
    pids = tree.session_pids(started.session)
    for pid in pids:
        assert os.sched_getaffinity(pid) == native.split_cpus()[0]
        owner = Path(f"/proc/{pid}").stat().st_uid
        assert owner == (os.geteuid() or owner) != 0
    started.warm_up(8)
    before = wait_for(lambda: settled(started, 0), "it has counted our own requests")
    for options in ((), ("-k",)):
        command = [require_tool("ab"), "-q", "-n", "1000", "-c", "5", *options, started.url()]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert re.search(r"^Complete requests: +1000$", report, re.MULTILINE)
        assert re.search(r"^Failed requests: +0$", report, re.MULTILINE)
        assert re.search(rf"^Document Length: +{len(BODY)} bytes$", report, re.MULTILINE)
        assert bool(re.search(r"^Keep-Alive requests: +1000$", report, re.MULTILINE)) == ("-k" in options)
    after = wait_for(lambda: settled(started, 2000), "it has counted as many as ab")
    assert (after["requests_count"] is None) == (started.name in COUNTLESS)
    if started.name.startswith("apache") or started.name in COUNTLESS:
        assert after["accepted_count"] is None
    else:
        assert 1005 <= after["accepted_count"] - before["accepted_count"] <= 1015  # at its end ab opens some more
    assert after["tasks_count"] >= len(pids)
    assert started.death() == ""
    started.close()
    assert not any(processes.is_alive(pid) for pid in pids)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("name", REAL_SERVERS)
def test_killed_with_its_server_running_nothing_is_left(name: str, temporary: Path) -> None:
    if REAL_SERVERS[name].missing:
        cannot_run(REAL_SERVERS[name].missing)
    program = (
        "import sys, time\nfrom c10k_probe.servers import REAL_SERVERS, ServerOptions\n"
        f"server = REAL_SERVERS[{name!r}].start(ServerOptions(protocol='http'))\n"
        "print(server.session, flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        session = int(process.stdout.readline())
        pids = tree.session_pids(session)
        assert pids
        process.kill()
    wait_for(lambda: not any(map(processes.is_alive, pids)) and not list(temporary.iterdir()), "all is gone")


def test_none_speaks_echo() -> None:
    with pytest.raises(native.HelperUnsupported, match=r"does not speak echo|is not installed"):
        REAL_SERVERS["nginx"].start(ServerOptions())


# --- a server of the user's own ---------------------------------------------------------------------------------------


def test_a_command_runs_where_and_as_we_do(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").write_text("mine")
    monkeypatch.chdir(tmp_path)
    with command_model(OWN).start(HTTP) as server:
        assert server.look("/mine").body == "mine"
        assert server.version.startswith("SimpleHTTP/")
        assert Path(f"/proc/{server.session}").stat().st_uid == os.geteuid()
        status = server.status()
        assert (status["accepted_count"], status["requests_count"], status["open_count"]) == (None, None, 0)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import sys; sys.exit('no such thing')", r"ended \(exit code 1\): no such thing"),
        (ANSWERING.replace("sys.argv[2]", "500"), r"was not ready .* within 0.5 s: it answered 500"),
        ("import time; time.sleep(60)", r"was not ready .* within 0.5 s: it did not answer"),
    ],
)
def test_a_command_that_does_not_serve_is_one_line(
    program: str, said: str, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "ended" not in said:
        monkeypatch.setattr(real, "_READY_S", 0.5)
    (tmp_path / "program.py").write_text(program)
    with pytest.raises(native.HelperError, match=said) as raised:
        command_model(f"{sys.executable} {tmp_path / 'program.py'} {{port}}").start(HTTP)
    assert "\n" not in str(raised.value)
    assert list(temporary.iterdir()) == []


def test_a_command_under_load(require_tool: Callable[[str], str], tmp_path: Path) -> None:
    require_tool("wrk")
    arguments = ("--backend", "off", "--repeats", 1, "--connections", 4, "--csv", "-", "--server-command", OWN)
    finished = run("trace-overhead", *arguments, cwd=tmp_path)
    assert finished.code == 0, finished.stderr
    (row,) = rows_of(finished.stdout)
    assert (row["server"], row["status"], row["failed_count"]) == ("command", "ok", "0")
    assert int(row["requests_count"]) > 0
    assert row["server_version"].startswith("SimpleHTTP/")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--server-command", "server 80"), "has no {port}"),
        (("--server-command", "'server {port}"), "cannot be read: no closing quotation"),
        (("--server-command", "no-such-server {port}"), "there is no program 'no-such-server'"),
        (("--server-command", OWN, "--server", "nginx"), "is not among --server"),
        (("--server", "command"), "add --server-command"),
    ],
)
def test_a_wrong_command_is_refused_at_once(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    finished = run("trace-overhead", *arguments, cwd=tmp_path)
    assert finished.code == 2
    assert said in complaint_of(finished)
    assert run_folders(tmp_path) == []
