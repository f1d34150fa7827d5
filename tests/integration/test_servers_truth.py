"""What ``servers`` measures, against what others say: CPU, memory, connections served, settings, nothing left."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from command import started, wait_for
from conftest import cannot_run

from c10k_probe.load import Ab
from c10k_probe.observe import processes, tree
from c10k_probe.observe.series import Series, read_memory
from c10k_probe.parts import find_part
from c10k_probe.servers import MODELS, REAL_SERVERS, RealServer, ServerOptions

WORKERS = 12
REQUESTS = 200
FAIR = ServerOptions(protocol="http", workers_count=WORKERS, capacity_count=WORKERS)
AS_INSTALLED = ServerOptions(protocol="http", is_as_installed=True)
STRAY_BYTES = 128 << 10  # others begin and end meanwhile, and share pages with it
TICKS_S = 0.03  # of what is told in clock ticks: before, after, and of the last children


def require(*names: str) -> None:
    for part in map(find_part, names):
        if part.path is None:
            cannot_run(f"{part.name} is not installed; {part.command}")


def start(name: str, options: ServerOptions) -> RealServer:
    model = REAL_SERVERS[name]
    if model.missing:
        cannot_run(model.missing)
    return model.start(options)


def waited_for_s() -> float:
    """CPU time of all processes that this one has waited for, and of those that they have waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize("name", ["python-forking", "fork", "epoll"])
def test_cpu_of_a_tree_is_what_the_kernel_accounts_at_its_end(name: str) -> None:
    """A process for each connection, all ended by then: getrusage(2) of the parent, after it, knows them too."""
    require("ab")
    before_s = waited_for_s()
    with MODELS[name].start(ServerOptions(protocol="http")) as server:
        with Ab(f"http://127.0.0.1:{server.port}/", REQUESTS, 4) as load:
            assert load.finish(60).complete_count == REQUESTS
        server.wait_until_idle()
        told = tree.read_tree(server.session, memory=False).cpu_run_s
    accounted_s = waited_for_s() - before_s - load.cpu_s
    assert told is not None
    assert told == pytest.approx(accounted_s, rel=0.1, abs=TICKS_S)
    if name == "python-forking":
        assert accounted_s > 0.1  # else this shows nothing


def test_memory_of_a_tree_is_the_sum_of_its_mappings() -> None:
    """PSS and RSS of each mapping of each process of the session as ps lists it, and not the kernel's own sum."""
    with start("apache-prefork-php", FAIR) as server:
        server.warm_up(WORKERS)
        wait_for(lambda: len(tree.session_pids(server.session)) == WORKERS + 1, "all its processes")
        memory = read_memory(server.session)
        listed = subprocess.run(
            ["ps", "-o", "pid=", "-s", str(server.session)], capture_output=True, text=True, check=True
        )
        texts = [Path(f"/proc/{pid}/smaps").read_text() for pid in listed.stdout.split()]
    sums = {name: sum(1024 * int(kib) for text in texts for kib in found(name, text)) for name in ("Pss", "Rss")}
    assert memory is not None
    assert memory.processes_count == len(texts) == WORKERS + 1
    mappings = sum(len(found("Pss", text)) for text in texts)
    assert -STRAY_BYTES <= memory.pss_bytes - sums["Pss"] <= 1024 * mappings + STRAY_BYTES  # each is cut to whole KiB
    assert memory.rss_bytes == pytest.approx(sums["Rss"], abs=STRAY_BYTES)
    assert memory.rss_bytes > 2 * memory.pss_bytes


def found(name: str, text: str) -> list[str]:
    return re.findall(rf"^{name}: +(\d+) kB$", text, re.MULTILINE)


def test_served_is_what_workers_hold_and_queued_what_waits() -> None:
    """A pool of five and twelve clients: five are served, seven wait, however long it is looked at."""
    with (
        MODELS["prefork"].start(ServerOptions(protocol="http", workers_count=5)) as server,
        contextlib.ExitStack() as stack,
    ):
        series = Series(server.session, server.port)
        for _ in range(12):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        wait_for(lambda: server.status()["open_count"] == 5, "a connection for each worker")

        def has_three() -> bool:
            series.take()
            return len(series.sockets) >= 3

        wait_for(has_three, "three readings")
        assert {(item.accepted_count, item.queued_count) for item in series.sockets} == {(5, 7)}


# --- settings ---------------------------------------------------------------------------------------------------------


def scoreboard(server: RealServer) -> tuple[int, int]:
    """Workers that mod_status tells of: there now, and that there may be."""
    page = server.ask("?auto").body
    counts = {name: int(re.findall(rf"^{name}Workers: (\d+)$", page, re.MULTILINE)[0]) for name in ("Busy", "Idle")}
    return sum(counts.values()), len(re.findall(r"^Scoreboard: (\S+)$", page, re.MULTILINE)[0])


def test_a_fair_apache_has_a_process_for_each_connection_and_keeps_it() -> None:
    with start("apache-prefork-php", FAIR) as server:
        wait_for(lambda: scoreboard(server) == (WORKERS, WORKERS), "all its processes are ready")
        text = (server.folder / "apache.conf").read_text()
        for name in ("StartServers", "MinSpareServers", "MaxSpareServers", "ServerLimit", "MaxRequestWorkers"):
            assert f"\n{name} {WORKERS}\n" in text
        assert "AllowOverride None" in text
        assert "CustomLog" not in text
        server.warm_up(WORKERS)
        assert server.script_cache() == "on"
        assert not (server.folder / "access.log").exists()
        assert len(tree.session_pids(server.session)) == WORKERS + 1


def test_a_fair_event_apache_has_threads_and_processes_of_php_for_all() -> None:
    """Threads come in dozens and one, so there are some more of them."""
    with start("apache-event", FAIR) as server:
        wait_for(lambda: scoreboard(server)[0] == 25, "all its threads are ready")
        text = (server.folder / "apache.conf").read_text()
        assert "\nMaxRequestWorkers 25\n" in text
        assert "AllowOverride None" in text
        assert "CustomLog" not in text
        assert server.script_cache() == "on"
        pool = (server.folder / "fpm.conf").read_text()
        assert f"\npm = static\npm.max_children = {WORKERS}\n" in pool
        assert "access.log" not in pool
        names = [Path(f"/proc/{pid}/comm").read_text() for pid in tree.session_pids(server.session)]
        assert sum(name.startswith("php-fpm") for name in names) == WORKERS + 1


def test_as_installed_it_logs_looks_for_htaccess_and_keeps_no_scripts() -> None:
    with start("apache-prefork-php", AS_INSTALLED) as server:
        text = (server.folder / "apache.conf").read_text()
        assert "\nMaxRequestWorkers 150\n" in text
        assert "\nStartServers 5\nMinSpareServers 5\nMaxSpareServers 10\n" in text
        assert "AllowOverride All" in text
        assert server.script_cache() == "off"
        log = server.folder / "access.log"  # Apache answers first, and writes its line then
        wait_for(lambda: '"GET / HTTP/1.1" 200' in log.read_text(), "its line in the log")


# --- nothing left -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", ["node", "apache-prefork-php"])
def test_killed_under_ab_nothing_is_left(server: str, tmp_path: Path, temporary: Path) -> None:
    require("ab")
    if REAL_SERVERS[server].missing:
        cannot_run(REAL_SERVERS[server].missing)
    arguments = ("servers", "--as-article", "--server", server, "--requests", "100m", "--repeats", 1)
    with started(*arguments, cwd=tmp_path) as command:
        command.until(lambda: "ab" in map(program_of, command.living()), "ab runs")
        pids = command.living()
        command.signal(signal.SIGKILL)
        command.process.wait()
        wait_for(lambda: not any(map(processes.is_alive, pids)) and not command.living(), "all is gone")
        assert list(temporary.iterdir()) == []


def program_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return os.path.basename(os.readlink(f"/proc/{pid}/exe"))  # noqa: PTH115, PTH119 -- as conftest does
    return ""
