"""nginx as a system under test: it answers, counts, is nobody privileged, and leaves nothing however it or we end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command import PATIENCE_S, Started, started, wait_for

from c10k_probe import native, parts
from c10k_probe.load import Wrk
from c10k_probe.observe import processes, tree
from c10k_probe.servers import RealServer, ServerOptions, nginx, real

PREFIX = "c10k-probe-nginx-"
LONG = ("trace-overhead", "--server", "nginx", "--backend", "off", "--duration", "60s", "--connections", 4)


@pytest.fixture(autouse=True)
def installed(require_tool: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.pathsep.join((os.environ["PATH"], "/usr/sbin")))
    require_tool("nginx")
    require_tool("wrk")


def start(port: int | None = None) -> RealServer:
    return RealServer(nginx.NGINX, ServerOptions(protocol="http"), port)


def processes_of(server: RealServer) -> list[int]:
    return tree.session_pids(server.session)


def nobody_listens(port: int) -> bool:
    return port not in {item.port for item in processes.listeners()}


# --- while it lives ---------------------------------------------------------------------------------------------------


def test_it_answers_apart_from_the_load_and_unprivileged() -> None:
    with start() as server:
        pids = processes_of(server)
        assert len(pids) == server.status()["tasks_count"] == 2
        for pid in pids:
            assert os.sched_getaffinity(pid) == native.split_cpus()[0]
            owner = Path(f"/proc/{pid}").stat().st_uid
            assert owner == (os.geteuid() or owner) != 0
        for path, body in ((nginx.PATH_FILE, nginx.BODY_FILE), (real.PATH, real.BODY)):
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                for _ in range(2):  # on the same connection
                    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                    answer = b""
                    while not answer.endswith(body.encode()):
                        answer += client.recv(1 << 16)
                    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        others = {item.port for item in processes.listeners() if item.port == server.port}
        assert others == {server.port}
        assert server.death() == ""
    assert nobody_listens(server.port)


def test_it_counts_what_wrk_counts() -> None:
    """It may have read as many requests more as there are connections: wrk does not wait for the last answers."""
    with start() as server:
        with Wrk(server.url(nginx.PATH_FILE), 8, 1) as wrk:
            assert not wrk.wait(0.0)
            load = wrk.finish()
        server.wait_until_idle()
        status = server.status()
    assert load.failed_count == 0
    assert load.requests_count > 0
    assert 0 <= status["requests_count"] - load.requests_count <= 8
    assert 8 <= status["accepted_count"] <= 9  # wrk tries the address first
    assert (status["open_count"], status["accept_errors_count"]) == (0, 0)
    assert load.cpu_s > 0
    assert load.elapsed_s >= 1


# --- when it does not start -------------------------------------------------------------------------------------------


def test_a_port_in_use_is_one_line(temporary: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(native.HelperError, match="address already in use") as raised:
            start(port)
    assert str(raised.value) == f"nginx cannot listen on port {port}: address already in use"
    assert list(temporary.iterdir()) == []


def test_a_port_that_was_taken_meanwhile_is_another_port(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken, free = other.getsockname()[1], real._free_port()
        ports = iter([taken, free])
        monkeypatch.setattr(real, "_free_port", lambda: next(ports))
        with start() as server:
            assert server.port == free


@pytest.mark.parametrize(("program", "word"), [("/bin/false", "exit code 1"), ("/etc/passwd", "Permission denied")])
def test_a_program_that_does_not_start_is_one_line(
    program: str, word: str, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "find_part", lambda name: parts.Part(name, "", True, program, "", "", ()))
    with pytest.raises(native.HelperError, match=word) as raised:
        start()
    assert "\n" not in str(raised.value)
    assert list(temporary.iterdir()) == []


def test_a_configuration_that_it_refuses_is_told_in_its_words(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nginx, "configuration", lambda *_: "nonsense on;\n")
    with pytest.raises(native.HelperError, match='unknown directive "nonsense"') as raised:
        start()
    assert "[emerg]" not in str(raised.value)
    assert list(temporary.iterdir()) == []


# --- nothing is left --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [False, True])
def test_a_killed_server_is_told_and_its_workers_do_not_outlive_us(whole: bool, temporary: Path) -> None:
    with start() as server:
        pids = processes_of(server)
        for pid in pids if whole else [server.session]:
            os.kill(pid, signal.SIGKILL)
        assert "SIGKILL" in wait_for(server.death, "it is known to be dead")
        if not whole:
            assert len(processes_of(server)) == 1  # a worker goes on without its master
    assert not any(processes.is_alive(pid) for pid in pids)
    assert list(temporary.iterdir()) == []


def test_a_janitor_that_is_told_to_end_cleans_up_too(temporary: Path) -> None:
    with start() as server:
        pids = processes_of(server)
        server._guarded._janitor.terminate()
        server._guarded._janitor.wait(PATIENCE_S)
        assert not any(processes.is_alive(pid) for pid in pids)
        assert list(temporary.iterdir()) == []


def under_load(command: Started, temporary: Path) -> tuple[list[int], int]:
    """(processes of nginx, its port) once it answers wrk."""

    def found() -> tuple[list[int], int] | None:
        for master in temporary.glob(f"{PREFIX}*/pid"):
            pids = tree.session_pids(int(master.read_text() or 0))
            ports = processes.listening_ports(pids)
            if len(pids) == 2 and len(ports) == 1 and any(_name(pid) == "wrk" for pid in command.living()):
                return pids, ports.pop()
        return None

    told: tuple[list[int], int] = command.until(found, "load on nginx")
    return told


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


@pytest.mark.parametrize("numbers", [(signal.SIGKILL,), (signal.SIGINT,), (signal.SIGINT, signal.SIGINT)])
def test_a_run_that_is_killed_leaves_no_process_no_port_no_folder(
    numbers: tuple[int, ...], temporary: Path, tmp_path: Path
) -> None:
    with started(*LONG, cwd=tmp_path, changes={"TMPDIR": str(temporary)}) as command:
        pids, port = under_load(command, temporary)
        for number in numbers:
            command.signal(number)
        code = command.process.wait(PATIENCE_S)
        assert code == (-signal.SIGKILL if signal.SIGKILL in numbers else 130)
        wait_for(lambda: not command.living(), "what it started is gone")
        assert not any(processes.is_alive(pid) for pid in pids)
        assert nobody_listens(port)
        assert list(temporary.iterdir()) == []


def test_killed_at_any_moment_of_a_start_nothing_is_left(temporary: Path, tmp_path: Path) -> None:
    program = (
        "from c10k_probe.servers import REAL_SERVERS, ServerOptions\n"
        "print(flush=True)\n"
        "REAL_SERVERS['nginx'].start(ServerOptions(protocol='http'))\n"
    )
    environment = {**os.environ, "TMPDIR": str(temporary)}
    for delay_ms in range(0, 100, 10):
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment) as process:
            assert process.stdout is not None
            process.stdout.readline()
            try:
                process.wait(delay_ms / 1000)
            except subprocess.TimeoutExpired:
                process.kill()
        wait_for(lambda: not _janitors(temporary), "its janitor has gone")
        assert list(temporary.iterdir()) == []
        assert not [pid for pid in processes.all_pids() if str(temporary) in processes.command_line(pid)]


def _janitors(temporary: Path) -> list[int]:
    """Janitors whose temporary files go there."""
    found = []
    for pid in processes.all_pids():
        try:
            if f"TMPDIR={temporary}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(pid)
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]
