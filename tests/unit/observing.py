"""What the tests of the readers share: programs that are read, files in place of a kernel's, tools by name."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from conftest import cannot_run

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def require_tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        cannot_run(f"{name} is not installed")
    return str(path)


def output(*command: str) -> str:
    require_tool(command[0])
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def wait_until(is_true: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.01)


@contextlib.contextmanager
def running(program: str) -> Iterator[subprocess.Popen[str]]:
    """A Python program in a session of its own that has said it is ready; all of it is killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", program], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def make_process(proc: Path, pid: int, session: int, *, state: str = "(x) S", threads: int = 1) -> Path:
    """A process made of files; `state` is its name in brackets and its state."""
    numbers = f"1 1 {session} 0 -1 0 0 0 0 0 100 50 30 20 20 0 {threads} 0 5 0 0"
    write(proc / str(pid) / "stat", f"{pid} {state} {numbers}\n")
    return proc / str(pid)
