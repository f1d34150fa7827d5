"""Tracers where it is hard to be right: orphans, 32-bit programs, commands that cannot be executed, tools that die."""

from __future__ import annotations

import csv
import io
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import backends
import pytest
from command import run, started, wait_for
from conftest import cannot_run

import c10k_probe
from c10k_probe.native import HelperError
from c10k_probe.observe import processes
from c10k_probe.observe.procfs import read_status
from c10k_probe.tracing import bcc_backend
from c10k_probe.tracing.base import Options, Target, Tracer
from c10k_probe.tracing.choose import open_tracer
from c10k_probe.tracing.syscalls import COMPAT

TIMES = 23
CALLS_OF_32_BITS = f"""
.globl _start
_start:
    mov ${TIMES}, %esi
1:  mov $64, %eax /* getppid */
    int $0x80
    dec %esi
    jnz 1b
    mov $1, %eax /* exit */
    xor %ebx, %ebx
    int $0x80
"""
LISTENS_WITHOUT_A_PORT = "import signal, socket; server = socket.socket(); server.listen(); signal.pause()"
# the helper meets a new task in /proc before its tracepoint: here by knowing its number beforehand
MET_AT_ONCE = """
import os, sys
from pathlib import Path
sys.path += sys.argv[1:]
from c10k_probe.tracing import bcc_kernel
from c10k_probe.tracing.bcc_programs import Programs
tracefs = bcc_kernel.find_tracefs()
values = bcc_kernel.definitions(tracefs, 1 << 12, latency=False)
programs = Programs(bcc_kernel.find_headers(os.uname().release), values)
programs.follow(os.getpid(), active=True)
os.getppid()
last = Path("/proc/sys/kernel/ns_last_pid")
for _ in range(200):
    expected = int(last.read_text()) + 5
    programs.follow(expected, active=True)
    last.write_text(str(expected - 1))
    pid = os.fork()
    if pid == 0:
        os.getppid()
        os._exit(0)
    os.waitpid(pid, 0)
    if pid == expected:
        break
    programs.forget(expected)
print(pid == expected, programs.living_count(programs.counts.counters()))
"""


@pytest.fixture
def require_backend() -> Callable[[str], None]:
    """Skip, with the backend's own reason, where it does not work."""
    return backends.require


def whole_of(text: str) -> dict[str, str]:
    return next(row for row in csv.DictReader(io.StringIO(text)) if row["span"] == "whole" and row["call"] == "")


@pytest.mark.alone
def test_a_task_that_kernel_and_helper_meet_at_once_is_counted_once(
    require_backend: Callable[[str], None], require_root: None
) -> None:
    require_backend("bcc")
    if not os.access("/proc/sys/kernel/ns_last_pid", os.W_OK):
        cannot_run("this kernel has no /proc/sys/kernel/ns_last_pid (CONFIG_CHECKPOINT_RESTORE)")
    interpreter, *folders = bcc_backend.find_interpreter() or ("",)
    root = Path(c10k_probe.__file__).parent.parent
    command = [interpreter, "-IB", "-c", MET_AT_ONCE, *folders, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[:1] == ["True 1"], done.stdout + done.stderr


@pytest.mark.parametrize("backend", ["bcc", "perf", "strace", "proc"])
def test_a_tree_is_over_with_its_last_orphan(
    backend: str, require_backend: Callable[[str], None], tmp_path: Path
) -> None:
    """Not with its first process, and at once, however long the interval is; all of it is counted."""
    require_backend(backend)
    line = f"(sleep 0.7; echo > {tmp_path / 'mark'}) & exit 3"
    arguments = ("--trace", backend, "--interval", "1h", "--csv", "-", "--", "/bin/sh", "-c", line)
    finished = run("trace", *arguments, cwd=tmp_path)
    assert finished.code == 0, finished.stderr
    assert "all its processes ended; the command ended with exit code 3" in finished.stderr
    assert (tmp_path / "mark").exists()
    whole = whole_of(finished.stdout)
    assert 0.7 <= float(whole["interval_s"]) < 60
    if backend in ("bcc", "perf"):
        assert (whole["forks_count"], whole["exits_count"]) == ("2", "3")
    if backend == "proc":
        assert int(whole["voluntary_switches_count"]) >= 2
        assert whole["runqueue_wait_s"] == ""  # nobody knows it of what has ended


@pytest.mark.parametrize("backend", ["bcc", "perf", "strace", "proc"])
def test_a_command_that_cannot_be_executed_is_one_line_and_2(
    backend: str, require_backend: Callable[[str], None], tmp_path: Path
) -> None:
    require_backend(backend)
    command = tmp_path / "command"
    command.write_text("#!/no/such/interpreter\n")
    command.chmod(0o755)
    finished = run("trace", "--trace", backend, "--csv", "-", "--", command, cwd=tmp_path)
    lines = finished.stderr.splitlines()
    assert finished.code == 2, finished.stderr
    assert len(lines) == 1, lines
    assert "cannot start" in lines[0]
    assert "interpreter" in lines[0]
    assert whole_count(finished.stdout) == 0


def whole_count(text: str) -> int:
    return sum(row["span"] == "whole" for row in csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("backend", ["bcc", "strace"])
def test_calls_of_a_32_bit_program_have_no_64_bit_names(
    backend: str, require_backend: Callable[[str], None], require_tool: Callable[[str], str], tmp_path: Path
) -> None:
    """Number 64 is semget in a 64-bit program and getppid in a 32-bit one; a 64-bit child has its names again."""
    require_backend(backend)
    program, source = tmp_path / "program", tmp_path / "program.S"
    source.write_text(CALLS_OF_32_BITS)
    compile_it = [require_tool("gcc"), "-m32", "-nostdlib", "-static", "-o", str(program), str(source)]
    if os.uname().machine != "x86_64" or subprocess.run(compile_it, capture_output=True, check=False).returncode:
        cannot_run("no 32-bit program can be made here (gcc -m32)")
    try:
        subprocess.run([program], check=True)
    except OSError:
        cannot_run("this kernel runs no 32-bit programs (CONFIG_IA32_EMULATION)")
    command = ("/bin/sh", "-c", f"cd /; {program}; cd /; {program}; cd /")
    with open_tracer(backend, Target(command=command)) as tracer:
        wait_for(tracer.is_over, "the shell's end")
        trace = tracer.stop()
    assert trace.calls is not None
    ends = 2 if backend == "bcc" else 0  # strace -c leaves out calls that never return
    assert trace.calls[COMPAT].count == 2 * TIMES + ends
    assert trace.calls["chdir"].count == 3
    assert "semget" not in trace.calls
    assert "syscall_64" not in trace.calls


@pytest.mark.parametrize("backend", ["perf", "strace"])
def test_a_tool_that_dies_is_not_the_end_of_the_traced(backend: str, require_backend: Callable[[str], None]) -> None:
    require_backend(backend)
    with subprocess.Popen(["/bin/sleep", "600"]) as sleeper:
        try:
            with open_tracer(backend, Target(pids=[sleeper.pid])) as tracer:
                tools = [pid for pid in processes.children_of(os.getpid()) if is_named(pid, backend)]
                assert len(tools) == 1
                os.kill(tools[0], signal.SIGKILL)
                with pytest.raises(HelperError, match=rf"{backend} ended by itself \(signal 9\)"):
                    until = time.monotonic() + 10
                    while time.monotonic() < until:
                        assert not tracer.is_over()
                assert sleeper.poll() is None
        finally:
            sleeper.kill()


def is_named(pid: int, name: str) -> bool:
    return Path(f"/proc/{pid}/comm").read_text().strip() == name


def test_strace_is_ready_when_the_command_is_there(require_backend: Callable[[str], None]) -> None:
    require_backend("strace")
    with open_tracer("strace", Target(command=("/bin/sleep", "600"))) as tracer:
        assert tracer.launched is not None
        assert processes.children_of(tracer.launched.pid)
    assert not processes.is_alive(tracer.launched.pid)


def test_a_killed_run_leaves_its_command_untraced(require_backend: Callable[[str], None], tmp_path: Path) -> None:
    """strace, which started the command and blocks signals, must not hold it on."""
    require_backend("strace")
    told = tmp_path / "pid"
    script = f"echo $$ >{told}.new; mv {told}.new {told}; exec sleep 600"
    with started("trace", "--trace", "strace", "--", "/bin/sh", "-c", script, cwd=tmp_path) as command:
        command.until(told.exists, "the command runs")
        pid = int(told.read_text())
        assert read_status(pid=pid)["TracerPid"] != "0"
        command.signal(signal.SIGKILL)
        wait_for(lambda: read_status(pid=pid).get("TracerPid") == "0", "nobody traces the command")
        wait_for(lambda: set(command.living()) == {pid}, "the command alone lives on")


def test_perf_leaves_nothing_and_counts_nothing_of_its_idle_process(require_backend: Callable[[str], None]) -> None:
    require_backend("perf")
    before = set(processes.children_of(os.getpid()))
    with (
        subprocess.Popen(["/bin/sleep", "600"]) as sleeper,
        open_tracer("perf", Target(pids=[sleeper.pid]), Options(interval_s=0.1)) as tracer,
    ):
        try:
            wait_for(lambda: Path(f"/proc/{sleeper.pid}/stat").read_text().split()[2] == "S", "the sleep")
            trace = tracer.stop()
        finally:
            sleeper.kill()
    assert trace.exits_count == 0
    assert set(processes.children_of(os.getpid())) <= before | {sleeper.pid}


def test_connections_of_strangers_are_not_those_of_a_listener_that_has_no_port_yet(
    require_backend: Callable[[str], None],
) -> None:
    """listen(2) without bind(2) comes before the port, as connect(2) does."""
    require_backend("bcc")
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        open_tracer("bcc", Target(command=("/usr/bin/python3", "-ISc", LISTENS_WITHOUT_A_PORT))) as tracer,
    ):
        assert tracer.launched is not None
        wait_for(lambda: listens(tracer), "the command listens")
        for _ in range(3):
            socket.create_connection(server.getsockname()).close()
        trace = tracer.stop()
        tracer.launched.end()
    assert trace.tcp("CLOSE>LISTEN") == 0
    assert trace.tcp("CLOSE>SYN_SENT") == 0


def listens(tracer: Tracer) -> bool:
    trace = tracer.snapshot()
    return trace is not None and "listen" in (trace.calls or {}) and "pause" in (trace.calls or {})


@pytest.mark.parametrize(
    "arguments",
    [
        ("trace", "--trace", "proc", "--csv", "/dev/full", "--", "/bin/true"),
        ("trace", "--trace", "proc", "--json", "/dev/full", "--", "/bin/true"),
        ("watch", "--pid", os.getpid(), "--duration", "200ms", "--csv", "/dev/full", "--quiet"),
    ],
)
def test_an_export_that_cannot_be_written_is_one_line_and_1(arguments: tuple[object, ...], tmp_path: Path) -> None:
    finished = run(*arguments, cwd=tmp_path)
    lines = finished.stderr.splitlines()
    assert finished.code == 1
    assert len(lines) == 1, lines
    assert lines[0].startswith("c10k-probe: /dev/full cannot be written: No space left on device; ")


def test_a_command_of_many_lines_has_a_title_of_one(tmp_path: Path) -> None:
    finished = run("trace", "--trace", "proc", "--", "/bin/sh", "-c", "true\ntrue", cwd=tmp_path)
    assert finished.code == 0
    assert finished.stderr.splitlines()[0] == r"tracing /bin/sh -c true\ntrue"
    note = "1 ended task: waits for a CPU, and all of what no parent waited for, counted up to the last look"
    assert f"note: {note}\n" in finished.stderr  # the rest is charged to the command by the kernel


def test_calls_that_are_named_are_shown_alone_by_every_backend(
    require_backend: Callable[[str], None], tmp_path: Path
) -> None:
    for backend in ("bcc", "strace"):
        require_backend(backend)
        arguments = ("--trace", backend, "--calls", "chdir, execve", "--csv", "-", "--quiet")
        finished = run("trace", *arguments, "--", "/bin/sh", "-c", "cd /; cd /", cwd=tmp_path)
        rows = [row for row in csv.DictReader(io.StringIO(finished.stdout)) if row["span"] == "whole"]
        assert {row["call"] for row in rows} - {"execve"} == {"", "chdir"}
        assert next(row["count"] for row in rows if row["call"] == "chdir") == "2"
        assert int(whole_of(finished.stdout)["count"]) > 10
    for name, hint in (("cdir", "did you mean chdir?"), ("zzzzzzzzz", "see man syscalls")):
        finished = run("trace", "--calls", f"chdir,{name}", "--", "/bin/true", cwd=tmp_path)
        assert (finished.code, finished.stdout) == (2, "")
        assert finished.stderr == f"c10k-probe: --calls: there is no system call {name}; {hint}\n"
