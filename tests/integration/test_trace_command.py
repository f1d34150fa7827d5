"""``trace`` as a user meets it: exports, exit codes, one-line errors, Ctrl-C, a terminal."""

from __future__ import annotations

import csv
import io
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import backends
import pytest
from command import Finished, on_terminal, run, run_inside, started, wait_for, without_escapes

from c10k_probe.observe.processes import is_alive

ECHO_LOOP = "for i in 1 2 3 4 5 6 7 8; do /bin/true; sleep 0.1; done"
# listens on both families, holds what it accepts, and says its port
SERVER = """
import socket, sys
server = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=16)
print(server.getsockname()[1], flush=True)
held = []
while True:
    held.append(server.accept()[0])
"""


@pytest.fixture
def bcc() -> None:
    backends.require("bcc")


@pytest.fixture
def server() -> Iterator[tuple[int, int]]:
    """A server that accepts and holds: its pid and its port."""
    with subprocess.Popen([sys.executable, "-ISc", SERVER], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.pid, int(process.stdout.readline())
        finally:
            process.kill()


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def assert_refused(finished: Finished, code: int, *words: str) -> None:
    """One line, that says what and what to do; nothing else."""
    lines = finished.stderr.splitlines()
    assert finished.code == code, finished.stderr
    assert len(lines) == 1, lines
    assert lines[0].startswith("c10k-probe: ")
    for word in words:
        assert word in lines[0]
    assert finished.stdout == ""


# --- trace ------------------------------------------------------------------------------------------------------------


def test_csv_and_json_of_a_command(bcc: None, tmp_path: Path) -> None:
    out = tmp_path / "trace.jsonl"
    arguments = ("trace", "--interval", "200ms", "--csv", "-", "--json", out, "--", "/bin/sh", "-c", ECHO_LOOP)
    finished = run(*arguments, cwd=tmp_path)
    assert finished.code == 0, finished.stderr
    rows = rows_of(finished.stdout)
    assert {row["backend"] for row in rows} == {"bcc"}
    assert {row["span"] for row in rows} == {"interval", "whole"}
    assert "" not in {row["count"] for row in rows}
    parts = [row for row in rows if row["span"] == "interval" and row["call"] == ""]
    whole = next(row for row in rows if row["span"] == "whole" and row["call"] == "")
    assert len(parts) >= 3
    for name in (
        "count",
        "forks_count",
        "voluntary_switches_count",
    ):  # also of the last part
        assert sum(int(row[name]) for row in parts) == int(whole[name])
    assert all(float(row["interval_s"]) > 0 for row in parts)
    assert int(whole["forks_count"]) == 16
    assert int(whole["exits_count"]) == 17
    assert (whole["dropped_tasks_count"], whole["dropped_events_count"]) == ("0", "0")
    assert whole["cpu_s"] == ""  # bcc does not know
    calls = [row for row in rows if row["span"] == "whole" and row["call"]]
    assert sum(int(row["count"]) for row in calls) == int(whole["count"])
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [record["type"] for record in records] == ["trace", *["interval"] * len(parts), "whole"]
    assert records[-1]["calls_count"] == int(whole["count"])
    assert "all its processes ended, bcc" in finished.stderr
    assert not (tmp_path / "results").exists()


def test_the_commands_own_output_and_exit_code_are_left_alone(bcc: None, tmp_path: Path) -> None:
    """And no row of it is in it; the command's failure is told, and is not ours."""
    finished = run("trace", "--quiet", "--", "/bin/sh", "-c", "echo out; echo err >&2; exit 3", cwd=tmp_path)
    assert (finished.code, finished.stdout, finished.stderr) == (0, "out\n", "err\n")
    finished = run("trace", "--", "/bin/sh", "-c", "exit 3", cwd=tmp_path)
    assert finished.code == 0
    assert "the command ended with exit code 3" in finished.stderr
    finished = run("trace", "--", "/bin/sh", "-c", "kill -9 $$", cwd=tmp_path)
    assert "the command ended by signal 9" in finished.stderr


def test_a_port_is_traced_and_its_server_lives_on(bcc: None, server: tuple[int, int], tmp_path: Path) -> None:
    pid, port = server
    with started("trace", "--port", port, "--duration", "2s", "--csv", "-", cwd=tmp_path) as command:
        command.until(lambda: f"(pid {pid})" in command.stderr, "it is traced")
        clients = [socket.create_connection((host, port)) for host in ("127.0.0.1", "::1", "127.0.0.1")]
        finished = command.finish()
        for client in clients:
            client.close()
    assert finished.code == 0, finished.stderr
    whole = next(row for row in rows_of(finished.stdout) if row["span"] == "whole" and row["call"] == "")
    assert (whole["accepts_count"], whole["tcp_established_count"]) == ("3", "3")
    assert f"(pid {pid})" in finished.stderr
    assert "time is up" in finished.stderr
    assert Path(f"/proc/{pid}").exists()


def test_a_process_that_ends_early_keeps_its_data_and_says_so(bcc: None, tmp_path: Path) -> None:
    for options, code in ((("--duration", "1min"), 3), ((), 0)):
        with (
            subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as reader,
            started("trace", "--pid", reader.pid, *options, "--csv", "-", cwd=tmp_path) as command,
        ):
            command.until(lambda: "(pid " in command.stderr, "it is traced")
            assert reader.stdin is not None
            reader.stdin.close()
            finished = command.finish()
        assert finished.code == code, finished.stderr
        assert "all its processes ended" in finished.stderr
        assert any(row["call"] == "exit_group" for row in rows_of(finished.stdout))


@pytest.mark.parametrize("backend", ["auto", "perf", "strace", "proc"])
def test_ctrl_c_ends_with_a_summary(backend: str, tmp_path: Path) -> None:
    """Also of the command that was started, which nobody would end otherwise."""
    if backend != "auto":
        backends.require(backend)
    arguments = ("trace", "--trace", backend, "--csv", "-", "--", "/bin/sleep", "600")
    with started(*arguments, cwd=tmp_path) as command:
        command.until(lambda: any(is_sleep(pid) for pid in command.living()), "the command runs")
        time.sleep(0.3)
        command.signal(signal.SIGINT)
        finished = command.finish(20)
        assert command.living() == []
    assert finished.code == 130
    assert "interrupted" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert any(row["span"] == "whole" for row in rows_of(finished.stdout))


def is_sleep(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"/bin/sleep\0")
    except OSError:
        return False


def test_a_duration_ends_the_command_too(tmp_path: Path) -> None:
    finished = run("trace", "--trace", "proc", "--duration", "500ms", "--", "/bin/sleep", "600", cwd=tmp_path)
    assert finished.code == 0
    assert "time is up; the command ended by signal 15" in finished.stderr


@pytest.mark.parametrize("backend", ["proc", "strace"])
def test_a_duration_ends_what_the_command_started_too(backend: str, tmp_path: Path) -> None:
    backends.require(backend)
    line = f"sleep 600 & echo $! > {tmp_path / 'pid'}; sleep 600; true"
    finished = run("trace", "--trace", backend, "--duration", "500ms", "--", "sh", "-c", line, cwd=tmp_path)
    assert finished.code == 0
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: not is_alive(pid), "the command's child has ended")


def test_proc_keeps_what_descendants_did_that_nobody_waited_for(tmp_path: Path) -> None:
    program = tmp_path / "sleeper.py"
    program.write_text("import time\nfor _ in range(400): time.sleep(0.002)\n")
    line = f"{sys.executable} {program} & sleep 1.5"
    finished = run(
        "trace", "--trace", "proc", "--interval", "200ms", "--csv", "-", "--", "sh", "-c", line, cwd=tmp_path
    )
    (whole,) = {row["voluntary_switches_count"] for row in rows_of(finished.stdout) if row["span"] == "whole"}
    assert finished.code == 0
    assert int(whole) >= 200  # of 400 sleeps, those that a look met


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("--pid PID", "--port PORT", "-- COMMAND")),
        (("--pid", 4_194_303), ("no process 4194303",)),
        (("--pid", "x"), ("--pid", "whole number")),
        (("--pid", ""), ("--pid", "empty")),
        (("--port", 70_000), ("--port", "at most 65535")),
        (("--pid", 1, "--port", 80), ("exclude each other",)),
        (("--pid", 1, "--", "true"), ("exclude each other",)),
        (("--trace", "off", "--pid", 1), ("--trace", "'off'")),
        (("--", "no-such-program"), ("no-such-program", "cannot start")),
        (("--", "/etc/passwd"), ("/etc/passwd", "cannot start")),
        (("--interval", "0", "--pid", 1), ("--interval",)),
        (("--csv", "/no/such/folder/x.csv", "--pid", 1), ("--csv", "make the folder first")),
        (("--csv", "-", "--json", "-", "--pid", 1), ("both go to stdout",)),
        (("--format", "xml", "--pid", 1), ("--format",)),
    ],
)
def test_bad_input_is_one_line_and_2(arguments: tuple[object, ...], words: tuple[str, ...], tmp_path: Path) -> None:
    assert_refused(run_inside("trace", *arguments, cwd=tmp_path), 2, *words)


def test_a_port_nobody_listens_on(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    assert_refused(run_inside("trace", "--port", port, cwd=tmp_path), 2, f"port {port}", "ss -ltn")


def test_a_table_on_a_terminal_with_the_commands_lines_above(bcc: None, tmp_path: Path) -> None:
    script = "for i in 1 2 3 4; do echo line $i of the command; sleep 0.4; done"
    with on_terminal("trace", "--interval", "300ms", "--", "/bin/sh", "-c", script, cwd=tmp_path) as terminal:
        code, output = terminal.finish()
    text = without_escapes(output)
    assert code == 0, text
    for number in range(1, 5):
        assert f"line {number} of the command" in text
    last = text[text.rindex("voluntary switches") :]
    assert "execve" in last or "openat" in last
    assert "all its processes ended, bcc" in last


# --- doctor -----------------------------------------------------------------------------------------------------------


def test_doctor_tries_every_backend(tmp_path: Path) -> None:
    finished = run("doctor", "--json", cwd=tmp_path)
    trials = {trial["backend"]: trial for trial in json.loads(finished.stdout)["tracers"]}
    assert list(trials) == ["bcc", "perf", "strace", "proc"]
    assert trials["proc"]["works"]
    for trial in trials.values():
        assert trial["works"] or trial["reason"]
        assert trial["works"] == (trial["reason"] == "")
