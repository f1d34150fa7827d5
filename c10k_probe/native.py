"""Find, start, read and kill the C helpers.

A helper speaks JSON lines on stdout: first ``hello``, last ``end``; commands, where it takes any, are lines on stdin.
Every helper leads a session of its own, so that a terminal's Ctrl-C does not reach it, its whole tree is known by the
session id, and one ``killpg`` ends it. It dies with this process by ``PR_SET_PDEATHSIG`` (prctl(2)).
"""

from __future__ import annotations

import collections
import contextlib
import importlib.resources
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from c10k_probe import helper_errors
from c10k_probe.exits import ExitCode

PROTOCOL: Final = 1
LINKINGS: Final = ("dynamic", "static", "static-pie")
PYTHON: Final = "python"  # the "linking" of a helper that is a Python program of this package
HELPERS: Final = (
    "fork_latency",
    "spawn_target",
    "reference_server",
    "connection_holder",
    "http_sender",
    "backend",
    "readiness",
    "scheduling",
    "thread_faults",
    "slow_clients",
)
HELPERS_VARIABLE: Final = "C10K_PROBE_HELPERS"  # a folder to take helpers from instead of the package's own
_SILENCE_S: Final = 30.0
_FAREWELL_S: Final = 5.0
_HELLO_S: Final = 3.0
_DYING_S: Final = 0.3
_READ_BYTES: Final = 1 << 16
_LONGEST_LINE_BYTES: Final = 64 << 20  # a million samples of three intervals; more than that is rubbish

Message = dict[str, Any]
HelperError = helper_errors.HelperError
HelperMissing = helper_errors.HelperMissing
HelperUnsupported = helper_errors.HelperUnsupported
HelperCallFailed = helper_errors.HelperCallFailed


_running: set[Helper] = set()


def folder() -> Path:
    """Where the helpers are: the package's own ``_bin``, or the folder named by ``C10K_PROBE_HELPERS``."""
    if override := os.environ.get(HELPERS_VARIABLE):
        return Path(override)
    return Path(str(importlib.resources.files("c10k_probe") / "_bin"))


def find(name: str, linking: str = "dynamic") -> Path:
    """The executable of a helper. Raises ``HelperMissing``."""
    path = folder() / (name if linking == "dynamic" else f"{name}-{linking}")
    if not os.access(path, os.X_OK):
        raise HelperMissing(f"helper {path.name} is missing in {path.parent}; install c10k-probe again (pip install .)")
    return path


def split_cpus() -> tuple[frozenset[int], frozenset[int]]:
    """CPUs for the system under test, and one apart for its client; the same for both when there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return (frozenset(usable[:-1]) or frozenset(usable), frozenset(usable[-1:]))


def running_pids() -> set[int]:
    """Process ids of the helpers that run, each of which leads a session of its own."""
    return {helper.pid for helper in tuple(_running)}


@contextlib.contextmanager
def _pinned(cpus: Collection[int] | None) -> Iterator[None]:
    """What is started meanwhile has these CPUs from its first instruction on, and so has what it starts in turn."""
    if cpus is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def kill_all() -> None:
    """Kill every running helper with its whole process group; safe in a signal handler."""
    for helper in tuple(_running):
        helper.signal_group()


class Helper:
    """One running helper; a context manager that leaves no process behind."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[object] = (),
        linking: str = "dynamic",
        cpus: Collection[int] | None = None,
        patience_s: float = _SILENCE_S,
    ) -> None:
        """Start ``name``, on ``cpus`` when given, and read its ``hello``. Raises ``HelperError``."""
        self.name = name if linking in ("dynamic", PYTHON) else f"{name}-{linking}"
        self._buffer = bytearray()
        self._ended = False
        self._walls: list[Message] = []
        self._waiting: collections.deque[Message] = collections.deque()
        self._selector = selectors.DefaultSelector()
        self.hello: Message = {}
        command = [*self._program(name, linking), *map(str, arguments)]
        try:
            with _pinned(cpus):
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                    bufsize=0,
                )
        except OSError as error:
            raise HelperMissing(f"helper {self.name} cannot be started: {error.strerror}") from None
        _running.add(self)
        try:
            assert self._process.stdout is not None
            os.set_blocking(self._process.stdout.fileno(), False)
            self._selector.register(self._process.stdout, selectors.EVENT_READ)
            self._meet(patience_s)
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """Process id; also the id of the session that all descendants belong to."""
        return self._process.pid

    def ask(self, command: str, answer: str, timeout_s: float = _SILENCE_S) -> Message:
        """Send one command and wait for the answer of type ``answer``; other messages are returned to nobody."""
        self.send(command)
        return self.expect(answer, timeout_s)

    def send(self, command: str) -> None:
        """Write one command line to the helper. Raises ``HelperError`` when it is gone."""
        self._check_kept()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(command.encode() + b"\n")
        except OSError:
            raise HelperError(self._obituary()) from None

    def expect(self, answer: str, timeout_s: float = _SILENCE_S) -> Message:
        """The next message of type ``answer``; ``wall`` messages before it are kept in ``walls``."""
        deadline = time.monotonic() + timeout_s
        while True:
            message = self.receive(deadline - time.monotonic())
            if message["type"] == answer:
                return message
            self._note(message, answer)

    def has_said(self, timeout_s: float) -> bool:
        """Whether there is something to receive, an end among it, within this time."""
        return bool(self._waiting or b"\n" in self._buffer or self._selector.select(timeout_s))

    def receive(self, timeout_s: float = _SILENCE_S) -> Message:
        """The next message of any type. Raises ``HelperError`` on silence, rubbish, failure or death."""
        if self._waiting:
            return self._known(self._waiting.popleft())
        return self._known(self._decode(self._read_line(max(timeout_s, 0.0), timeout_s)))

    def _known(self, message: Message) -> Message:
        """The message, unless it says that the helper could not do its work."""
        if message["type"] == "error":
            call = f"{message.get('call')}({message.get('arguments', '')})"
            raise HelperCallFailed(f"{self.name}: {call} failed: {message.get('message')}", message)
        if message["type"] == "unsupported":
            raise HelperUnsupported(f"{self.name}: {message.get('reason')}", message)
        return message

    def walls(self) -> list[Message]:
        """The ``wall`` messages seen so far, those already waiting in the pipe included."""
        with contextlib.suppress(HelperError):
            while not self._ended:
                message = self._decode(self._read_line(0.0, 0.0))
                (self._walls if message["type"] == "wall" else self._waiting).append(message)
        return self._walls

    def death(self) -> str:
        """How the helper ended; empty while it lives. A dying one is given a moment to be dead."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_DYING_S)
        return "" if self._process.returncode is None else self._obituary()

    def finish(self, timeout_s: float = _FAREWELL_S) -> Message:
        """Close the helper's stdin, read up to ``end`` and reap it; the ``end`` message."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        end = self.expect("end", timeout_s)
        self._ended = True
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise HelperError(f"{self.name} did not exit {timeout_s:.0f} s after its end message") from None
        if code != 0:
            raise HelperError(f"{self.name} exited with {code} after its end message")
        return end

    def signal_group(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the helper and everything it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def send_signal(self, number: int) -> None:
        """Send a signal to the helper alone."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def kill(self) -> None:
        """Kill the helper and everything it started, reap it, close the pipes; may be called twice."""
        if self not in _running:
            return
        self.signal_group()  # also after a good end: what the helper started must not outlive it
        self._process.wait()
        for stream in filter(None, (self._process.stdin, self._process.stdout, self._process.stderr)):
            with contextlib.suppress(OSError):
                stream.close()
        self._selector.close()
        _running.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @staticmethod
    def _program(name: str, linking: str) -> Sequence[str]:
        """What to execute; another for a helper that is neither C nor run by this interpreter."""
        return [sys.executable, "-m", f"c10k_probe.{name}"] if linking == PYTHON else [str(find(name, linking))]

    def _check_kept(self) -> None:
        """Raise ``HelperError`` once it has been killed: its pipes are closed."""
        if self not in _running:
            raise HelperError(f"{self.name} was killed before it was asked")

    # --- reading --------------------------------------------------------------------------------------------------

    def _note(self, message: Message, awaited: str) -> None:
        """Keep a wall message; anything else out of turn is a broken protocol."""
        if message["type"] != "wall":
            raise HelperError(f"{self.name} sent {message['type']!r} where {awaited!r} was due")
        self._walls.append(message)

    def _meet(self, patience_s: float) -> None:
        """Wait for the first that it says. Raises ``HelperError``."""
        self.hello = self._read_hello(patience_s)

    def _read_hello(self, patience_s: float) -> Message:
        hello = self.expect("hello", patience_s)
        if hello.get("protocol") != PROTOCOL:
            raise HelperError(
                f"helper {self.name} speaks protocol {hello.get('protocol')}, this is {PROTOCOL}; "
                "install c10k-probe again (pip install .)"
            )
        return hello

    def _read_line(self, timeout_s: float, patience_s: float) -> bytes:
        """One line without its newline. Blocks in poll(2) only, so that a signal gets through at once."""
        deadline = time.monotonic() + timeout_s
        while (end := self._buffer.find(b"\n")) < 0:
            self._check_kept()
            if not self._selector.select(max(deadline - time.monotonic(), 0.0)):
                raise HelperError(f"{self.name} said nothing for {max(patience_s, 0):.0f} s and was killed")
            assert self._process.stdout is not None
            piece = os.read(self._process.stdout.fileno(), _READ_BYTES)
            if not piece:
                raise self._death()
            self._buffer += piece
            if len(self._buffer) > _LONGEST_LINE_BYTES:
                raise HelperError(f"{self.name} printed what is not its protocol: a line without an end")
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def _decode(self, line: bytes) -> Message:
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            raise HelperError(f"{self.name} printed what is not its protocol: {helper_errors.shorten(line)}")
        return message

    def _death(self) -> HelperError:
        """The error for a helper whose stdout ended where a message was due."""
        text = self._obituary()
        if self._process.returncode == ExitCode.NOTHING_MEASURED:
            return HelperUnsupported(text)
        return HelperError(text)

    def _obituary(self) -> str:
        """How the helper ended, with the last line of its stderr."""
        self._ended = True
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_FAREWELL_S)
        code = self._process.returncode
        last = self._last_words()
        said = f": {last}" if last else ""
        if code is None:
            return f"{self.name} closed its output and went on running; it was killed{said}"
        if code < 0:
            return f"{self.name} was killed by {signal.Signals(-code).name}{said}"
        return f"{self.name} ended without its end message, exit code {code}{said}"

    def _last_words(self) -> str:
        """The last non-empty line of stderr, without waiting for more."""
        assert self._process.stderr is not None
        os.set_blocking(self._process.stderr.fileno(), False)
        with contextlib.suppress(OSError):
            lines = os.read(self._process.stderr.fileno(), _READ_BYTES).splitlines()
            return helper_errors.shorten(next((line for line in reversed(lines) if line.strip()), b""), quote=False)
        return ""


class Helpers:
    """One helper or several; a context manager that asks them to leave, and kills them where the block failed."""

    def __init__(self, farewell_s: float = _FAREWELL_S) -> None:
        """Start none yet. Each has ``farewell_s`` to leave when it is asked to."""
        self._helpers: list[Helper] = []
        self._farewell_s = farewell_s

    def _start(
        self,
        name: str,
        arguments: Sequence[object],
        cpus: Collection[int] | None,
        first: str = "",
        linking: str = "dynamic",
    ) -> Message:
        """One more helper; its first message, of type ``first``, or else its hello.

        Raises ``HelperError``, and then those before it are killed too.
        """
        try:
            helper = Helper(name, arguments, linking, cpus)
            self._helpers.append(helper)
            return helper.expect(first) if first else helper.hello
        except BaseException:
            self.kill()
            raise

    def close(self) -> None:
        """Ask them to leave, and see to it that they have."""
        with contextlib.suppress(HelperError):
            for helper in self._helpers:
                helper.finish(self._farewell_s)
        self.kill()

    def kill(self) -> None:
        """End them at once; their sockets are closed by the kernel."""
        for helper in self._helpers:
            helper.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.kill()


def build_facts(linkings: Sequence[str] = LINKINGS) -> Mapping[str, Message]:
    """The ``hello`` of every helper build, or why there is none; for ``doctor`` and ``run.json``."""
    found: dict[str, Message] = {}
    for name in HELPERS:
        for linking in linkings:
            try:
                with Helper(name, ["--hello"], linking, patience_s=_HELLO_S) as helper:
                    found[helper.name] = {**helper.hello, "path": str(find(name, linking))}
            except HelperError as error:
                found[name if linking == "dynamic" else f"{name}-{linking}"] = {"error": str(error)}
    return found
