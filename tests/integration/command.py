"""The command under test, run as a user would: to its end, step by step, or on a terminal of its own.

Every run carries a mark in its environment, which all its descendants inherit: who of them lives is read from /proc.
"""

from __future__ import annotations

import csv
import errno
import io
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from c10k_probe import cli

COMMAND = (sys.executable, "-m", "c10k_probe")
PATIENCE_S = 60.0
MARK_VARIABLE = "C10K_TEST_MARK"
SESSION_VARIABLE = "C10K_PROBE_TEST_SESSION"  # by which the guard of every test knows what is ours
CURSOR_OFF, CURSOR_ON = "\x1b[?25l", "\x1b[?25h"
_PERSONAL = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# The limits and the controlling terminal are set by a program that then becomes the command: no code after fork.
_LIMITED = (
    "import os, resource, sys; number = int(sys.argv[2]); "
    "resource.setrlimit(getattr(resource, sys.argv[1]), (number, number)); os.execvp(sys.argv[3], sys.argv[3:])"
)
_ON_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
)


@dataclass(frozen=True)
class Finished:
    """How a command ended and what it said."""

    code: int
    stdout: str
    stderr: str


Changes = Mapping[str, str | None]


def environment(mark: str, changes: Changes | None = None) -> dict[str, str]:
    """This environment without what a user may have set for the command or for colours; None takes a name away."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("C10K_PROBE_")}
    for name in _PERSONAL:
        kept.pop(name, None)
    ours = {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8", MARK_VARIABLE: mark, **(changes or {})}
    return {name: value for name, value in {**kept, **ours}.items() if value is not None}


def limited(resource_name: str, number: int) -> tuple[str, ...]:
    """A wrapper that lowers one resource limit, soft and hard."""
    return (sys.executable, "-c", _LIMITED, resource_name, str(number))


def wait_for(condition: Callable[[], Any], what: str, deadline_s: float = PATIENCE_S) -> Any:
    """Poll until ``condition`` is true, and return what it gave; an assertion that names ``what`` after that."""
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.005)
    raise AssertionError(f"{what} did not come within {deadline_s:g} s")


def _while_running(
    process: subprocess.Popen[bytes], condition: Callable[[], Any], what: str, said: Callable[[], str]
) -> Any:
    """``wait_for`` that does not wait for what a command that has ended will never do."""
    value = wait_for(lambda: process.poll() is not None or condition(), what)
    assert process.poll() is None, f"it ended before {what}:\n{said()}"
    return value


class Started:
    """A command that runs; its output goes to files, so that it is never held up and may be read at any moment."""

    def __init__(
        self,
        arguments: Sequence[object],
        cwd: Path,
        *,
        wrapper: Sequence[str] = (),
        changes: Changes | None = None,
        program: Sequence[str] = COMMAND,
    ) -> None:
        self.mark = secrets.token_hex(8)
        self._paths = [cwd / f".{self.mark}-{name}" for name in ("stdout", "stderr")]
        outputs = [path.open("wb") for path in self._paths]
        try:
            self.process = subprocess.Popen(
                [*wrapper, *program, *map(str, arguments)],
                cwd=cwd,
                env=environment(self.mark, changes),
                stdin=subprocess.DEVNULL,
                stdout=outputs[0],
                stderr=outputs[1],
                start_new_session=True,
            )
        finally:
            for output in outputs:
                output.close()

    @property
    def stdout(self) -> str:
        """What it wrote to stdout until now."""
        return self._paths[0].read_text(encoding="utf-8", errors="replace")

    @property
    def stderr(self) -> str:
        """What it wrote to stderr until now."""
        return self._paths[1].read_text(encoding="utf-8", errors="replace")

    def signal(self, number: int) -> None:
        """Send a signal to the command alone."""
        self.process.send_signal(number)

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Poll while it runs until ``condition`` is true, and return what it gave."""
        return _while_running(self.process, condition, what, lambda: self.stderr)

    def finish(self, timeout_s: float = PATIENCE_S) -> Finished:
        """Wait for its end."""
        code = self.process.wait(timeout_s)
        return Finished(code, self.stdout, self.stderr)

    def living(self) -> list[int]:
        """Pids of the command and of everything it started that is still there."""
        return living(self.mark)


@contextmanager
def started(*arguments: object, cwd: Path, **how: Any) -> Iterator[Started]:
    """Start the command; nothing of it outlives the block."""
    command = Started(arguments, cwd, **how)
    try:
        yield command
    finally:
        for pid in (command.process.pid, *command.living()):
            if command.process.returncode is None or pid != command.process.pid:
                _kill(pid)
        command.process.wait(PATIENCE_S)


def run(*arguments: object, cwd: Path, **how: Any) -> Finished:
    """Run the command to its end and see that nothing of it is left."""
    with started(*arguments, cwd=cwd, **how) as command:
        finished = command.finish()
        left = command.living()
        assert not left, f"processes left running: {left}"
        return finished


def run_here(*arguments: object) -> int:
    """Run the command in this process, whose parts may have been changed; its exit code."""
    with pytest.raises(SystemExit) as leaving:
        cli.main([*map(str, arguments)])
    return int(leaving.value.code or 0)


@contextmanager
def _descriptor_redirected(number: int, target: int) -> Iterator[None]:
    """For what is written past Python's own streams."""
    kept = os.dup(number)
    os.dup2(target, number)
    try:
        yield
    finally:
        os.dup2(kept, number)
        os.close(kept)


def run_inside(*arguments: object, cwd: Path, changes: Changes | None = None) -> Finished:
    """As ``run``, in this process: for what a command says, where a new interpreter would take longer than the rest.

    What is of the process itself is not seen here: signals, a terminal, descriptors, the import of what it needs.
    """
    mark = secrets.token_hex(8)
    paths = [cwd / f".{mark}-{name}" for name in ("stdout", "stderr")]
    session = {name: os.environ[name] for name in os.environ if name == SESSION_VARIABLE}
    with (
        paths[0].open("w", encoding="utf-8") as out,
        paths[1].open("w", encoding="utf-8") as err,
        redirect_stdout(out),
        redirect_stderr(err),
        _descriptor_redirected(1, out.fileno()),
        _descriptor_redirected(2, err.fileno()),
        mock.patch.dict(os.environ, {**environment(mark, changes), **session}, clear=True),
        chdir(cwd),
    ):
        code = run_here(*arguments)
    said = [path.read_text(encoding="utf-8") for path in paths]
    for path in paths:
        path.unlink()
    left = living(mark)
    assert not left, f"processes left running: {left}"
    return Finished(code, *said)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def living(mark: str) -> list[int]:
    """Pids of the processes that carry a mark; a zombie has no environment any more and is none."""
    wanted = f"{MARK_VARIABLE}={mark}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if wanted in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


# --- on a terminal ----------------------------------------------------------------------------------------------------


class Terminal:
    """The command on a pseudo-terminal that is its controlling one; everything it writes is collected."""

    def __init__(self, arguments: Sequence[object], cwd: Path, width: int = 80, changes: Changes | None = None) -> None:
        import pty
        import termios

        self.mark = secrets.token_hex(8)
        self.master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (40, width))
        self.modes_before = termios.tcgetattr(slave)
        self._pieces: list[bytes] = []
        self.process = subprocess.Popen(
            [sys.executable, "-c", _ON_TERMINAL, *COMMAND, *map(str, arguments)],
            cwd=cwd,
            env=environment(self.mark, changes),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        """Everything written until now, escape codes included."""
        return b"".join(self._pieces).decode(errors="replace")

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Poll while it runs until ``condition`` is true, and return what it gave."""
        return _while_running(self.process, condition, what, lambda: without_escapes(self.output))

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.master, text.encode())

    def modes(self) -> list[Any]:
        """The terminal's modes as they are now (a master on Linux tells those of its slave)."""
        import termios

        return termios.tcgetattr(self.master)

    def finish(self, timeout_s: float = PATIENCE_S) -> tuple[int, str]:
        """Wait for its end; exit code and all output."""
        code = self.process.wait(timeout_s)
        self._reader.join(timeout_s)
        return code, self.output

    def living(self) -> list[int]:
        """Pids of the command and of everything it started that is still there."""
        return living(self.mark)

    def hang_up(self) -> None:
        """Close the terminal's other side, as a closed window does."""
        os.dup2(os.open(os.devnull, os.O_RDONLY), self.master)

    def close(self) -> None:
        """End it, and everything it started, if it has not ended."""
        if self.process.poll() is None:
            self.process.kill()
        for pid in living(self.mark):
            _kill(pid)
        self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        os.close(self.master)

    def _read(self) -> None:
        while True:
            try:
                piece = os.read(self.master, 1 << 16)
            except OSError as error:
                assert error.errno == errno.EIO  # how Linux says that nobody has the slave open any more
                return
            if not piece:
                return
            self._pieces.append(piece)


@contextmanager
def on_terminal(*arguments: object, cwd: Path, **how: Any) -> Iterator[Terminal]:
    """Start the command on a terminal of its own; nothing of it outlives the block."""
    terminal = Terminal(arguments, cwd, **how)
    try:
        yield terminal
    finally:
        terminal.close()


def without_escapes(text: str) -> str:
    """Text as it stands on a screen that keeps no history: escape codes and carriage returns removed."""
    return _ESCAPE.sub("", text).replace("\r", "")


# --- what a run leaves ------------------------------------------------------------------------------------------------


def rows_of(text: str) -> list[dict[str, str]]:
    """The rows of a CSV text, every value as it was written."""
    return list(csv.DictReader(io.StringIO(text)))


def run_folders(cwd: Path) -> list[Path]:
    """The run folders below the default results folder."""
    return sorted(path for path in (cwd / "results").glob("*") if path.is_dir())


def only_run_folder(cwd: Path) -> Path:
    """The one run folder that a command made."""
    (folder,) = run_folders(cwd)
    return folder


def complaint_of(finished: Finished) -> str:
    """The one line that refused a command: nothing on stdout, and no second line."""
    assert finished.stdout == ""
    lines = finished.stderr.splitlines()
    assert len(lines) == 1, finished.stderr
    assert "Traceback" not in lines[0]
    return lines[0]
