"""What ``trace`` and ``watch`` share: whom to follow, when to look, and where it is shown."""

from __future__ import annotations

import os
import selectors
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from c10k_probe.exits import ExitCode, UsageError, UserError
from c10k_probe.observe import processes
from c10k_probe.parameters import Option, Parameters, build_parameters, options_of, parse_option

FORMATS: Final = ("auto", "table", "plain")
MAX_NS: Final = 7 * 24 * 3600 * 10**9
_PID: Final = Option("", minimum=1, maximum=2**22, many=True)
_PORT: Final = Option("", minimum=1, maximum=65535)
_READ_BYTES: Final = 1 << 16
_POLL_S: Final = 0.05


def parse_parameters(kind: type[Parameters], texts: dict[str, Any]) -> Any:
    """The command's parameters from what was typed. Raises ``UsageError``."""
    for name, text in texts.items():
        if text == "":
            raise UsageError(f"--{name.replace('_', '-')}: its value is empty; give one, or leave the option out")
    known = {name for name, _, _ in options_of(kind)}
    return build_parameters(kind, {name: text for name, text in texts.items() if name in known}, quick=False)


def find_roots(pid: str, port: str) -> list[int]:
    """The roots of the trees that ``--pid`` or ``--port`` name. Raises ``UsageError`` or ``UserError``."""
    if pid:
        pids = list(cast("tuple[int, ...]", parse_option("pid", _PID, pid)))
        for number in pids:
            if not processes.is_alive(number):
                raise UsageError(f"--pid: there is no process {number}; see ps -e, or use --port")
        return pids
    number = cast("int", parse_option("port", _PORT, port))
    owners, is_open = processes.owners_of_port(number)
    if not is_open:
        raise UsageError(f"--port: nobody listens on TCP port {number} here; see ss -ltn")
    if not owners:
        raise UserError(f"who listens on port {number} cannot be seen by this user; use sudo, or name it with --pid")
    return processes.topmost(owners)


def parse_port(text: str) -> int:
    """The number of ``--port``. Raises ``UsageError``."""
    return cast("int", parse_option("port", _PORT, text))


def as_root(*arguments: str) -> str:
    """The command line that runs this program as root, whose search path may be another."""
    program = Path(sys.argv[0]).absolute()
    is_module = program.name == "__main__.py"  # python -m
    start = (sys.executable, "-m", "c10k_probe") if is_module else (str(program),)
    return shlex.join(("sudo", *start, *arguments))


def name_of_tree(roots: Sequence[int]) -> str:
    """``nginx: master process (pid 123)``; of a program's path the last part."""
    return ", ".join(f"{_without_folder(processes.command_line(pid))} (pid {pid})" for pid in roots)


def _without_folder(line: str) -> str:
    program, space, rest = line.partition(" ")
    return program[program.rfind("/") + 1 :] + space + rest if program.startswith("/") else line


def is_terminal() -> bool:
    """Whether stderr can show a table that is drawn again and again."""
    return sys.stderr.isatty() and (os.environ.get("TERM") or "dumb") != "dumb"


def show_mode(format: str, *, quiet: bool) -> str:
    """``live``, ``plain`` or ``none``."""
    if quiet:
        return "none"
    if format == "table":
        return "live" if is_terminal() else "plain"
    return "plain" if format == "plain" or not is_terminal() else "live"


@dataclass
class Schedule:
    """When to look next: every ``interval_s``, until ``duration_s`` is over (None: until something else ends it)."""

    interval_s: float
    duration_s: float | None
    started_s: float = 0.0
    looks_count: int = 0

    def start(self) -> None:
        """It begins now."""
        self.started_s = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started_s

    @property
    def is_over(self) -> bool:
        """Whether the duration has passed."""
        return self.duration_s is not None and self.elapsed_s >= self.duration_s

    def is_due(self) -> bool:
        """Whether a look is due; if so, the next one is an interval later. Looks that were missed are left out."""
        due_count = int(self.elapsed_s / self.interval_s)
        if due_count <= self.looks_count:
            return False
        self.looks_count = due_count
        return True

    def pause_s(self) -> float:
        """How long nothing needs to be done, but no longer than until the end of the traced is looked for."""
        until_look = (self.looks_count + 1) * self.interval_s - self.elapsed_s
        until_end = until_look if self.duration_s is None else self.duration_s - self.elapsed_s
        return max(0.0, min(until_look, until_end, _POLL_S if self.elapsed_s < 1 else 4 * _POLL_S))


class CommandOutput:
    """Takes what a command writes while a table is on the terminal, to show it line by line above the table."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._rest = b""
        self._read_end, self.write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._read_end, selectors.EVENT_READ)

    def started(self) -> None:
        """The command has the writing end now."""
        os.close(self.write_end)
        self.write_end = -1

    def wait(self, pause_s: float) -> None:
        """Pass on what comes within this time."""
        deadline = time.monotonic() + pause_s
        while True:
            left_s = max(0.0, deadline - time.monotonic())
            if self._read_end < 0:
                time.sleep(left_s)
                return
            if not self._selector.select(left_s) or not self._pass_on():
                return

    def _pass_on(self) -> bool:
        """Whether there may be more."""
        piece = os.read(self._read_end, _READ_BYTES)
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if not piece and self._rest:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            self._show(line.decode(errors="replace"))
        if not piece:
            self.close()
        return bool(piece)

    def close(self) -> None:
        """Close the pipe; may be called twice."""
        for descriptor in (self._read_end, self.write_end):
            if descriptor >= 0:
                os.close(descriptor)
        self._read_end = self.write_end = -1
        self._selector.close()


def incomplete_code(dropped_count: int | None) -> ExitCode:
    """INCOMPLETE when something that happened was not counted."""
    return ExitCode.INCOMPLETE if dropped_count else ExitCode.OK
