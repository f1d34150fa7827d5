"""A server program under a janitor: a process beside us that ends it, and removes its folder, when we are gone.

The janitor waits on a pipe from us, which the kernel closes however we end, ``kill -9`` included.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from c10k_probe import native
from c10k_probe.servers import janitor
from c10k_probe.servers.janitor import ERRORS

_START_S: Final = 10.0
_CLEAN_UP_S: Final = 10.0
_LOG_BYTES: Final = 1 << 18
_UNPRIVILEGED: Final = "nobody"
_PLACE: Final = re.compile(r"^.*\[(?:emerg|alert|crit)\] (?:[0-9#]+: )?")  # nginx's: when, how bad, which process
_TELLING: Final = re.compile(
    r"\[(?:emerg|alert|crit)\]|^\w*Error: |\bAH\d{5}: |\bERROR: "
)  # nginx, node, httpd, php-fpm


def unprivileged_user() -> tuple[int, int] | None:
    """User and group id to run a server as when we are root; None when we are not, and it runs as ourselves."""
    if os.geteuid() != 0:
        return None
    try:
        found = pwd.getpwnam(_UNPRIVILEGED)
    except KeyError:
        raise native.HelperUnsupported(f"there is no user {_UNPRIVILEGED!r} to run a server as") from None
    return found.pw_uid, found.pw_gid


@dataclass(frozen=True)
class Recipe:
    """How to start a program. files: name -> text, in a folder of its own; {folder} here and there is its path.

    folder: where it runs, None for the folder of its own. is_own_user: it runs as the user that we are, not as an
    unprivileged one.
    """

    command: Sequence[str]
    files: Mapping[str, str] = field(default_factory=dict)
    folder: str | None = None
    is_own_user: bool = False


class Guarded:
    """One program in a folder of its own. Raises ``native.HelperError``; ``close`` leaves nothing behind."""

    def __init__(self, name: str, recipe: Recipe, cpus: frozenset[int]) -> None:
        """Start it on these CPUs."""
        self.name = name
        self._ended: int | None = None
        self._text = b""
        request = {
            "prefix": f"c10k-probe-{name}-",
            "files": dict(recipe.files),
            "command": list(recipe.command),
            "user": None if recipe.is_own_user else unprivileged_user(),
            "cwd": recipe.folder,
            "cpus": sorted(cpus),
        }
        try:
            self._janitor = subprocess.Popen(
                [sys.executable, "-IS", janitor.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            raise native.HelperError(f"{sys.executable} cannot be started: {error.strerror}") from None
        try:
            self._write(json.dumps(request).encode() + b"\n")
            said = self._read(_START_S)
            if said is None or said["type"] != "started":
                raise native.HelperError(f"{name} cannot be started: {(said or {}).get('message', 'no answer')}")
        except BaseException:
            self.close()
            raise
        self.pid = int(said["pid"])  # also the id of its session
        self.folder = Path(said["folder"])

    def death(self) -> str:
        """How it ended by itself, with what it said; empty while it lives. Of one that is gone it is waited to hear."""
        if self._ended is None:
            said = self._read(0.0 if self._is_alive() else _START_S)
            self._ended = int(said["code"]) if said is not None and said["type"] == "ended" else None
        if self._ended is None:
            return ""
        how = signal.Signals(-self._ended).name if self._ended < 0 else f"exit code {self._ended}"
        return f"{self.name} ended ({how}): {self.complaint()}".removesuffix(": ")

    def complaint(self) -> str:
        """The first line of its stderr that tells of an error, else the last one, without when and where."""
        lines = [line.strip() for line in self.log().splitlines() if line.strip()]
        telling = [line for line in lines if _TELLING.search(line)] or lines[-1:]
        return _PLACE.sub("", telling[0]) if telling else ""

    def log(self) -> str:
        """The beginning of what it has written to stderr: one that complains without end says always the same."""
        with contextlib.suppress(OSError), (self.folder / ERRORS).open("rb") as errors:
            return errors.read(_LOG_BYTES).decode(errors="replace")
        return ""

    def _is_alive(self) -> bool:
        """Whether it runs still, and is not a process that waits to be reaped."""
        with contextlib.suppress(OSError, IndexError):
            state = Path(f"/proc/{self.pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
            return state not in (b"Z", b"X")
        return False

    def begin_close(self) -> None:
        """Have it ended, and do not wait for that: several end at the same time so. ``close`` is to follow."""
        assert self._janitor.stdin is not None
        self._janitor.stdin.close()

    def close(self) -> None:
        """End it and see that it, its descendants and its folder are gone; may be called twice."""
        assert self._janitor.stdout is not None
        self.begin_close()
        try:
            self._janitor.wait(_CLEAN_UP_S)
        except subprocess.TimeoutExpired:
            self._janitor.kill()
            self._janitor.wait()
        self._janitor.stdout.close()

    def _write(self, data: bytes) -> None:
        assert self._janitor.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, and there will be no answer
            self._janitor.stdin.write(data)

    def _read(self, timeout_s: float) -> dict[str, Any] | None:
        """The janitor's next line; None when there is none in time."""
        assert self._janitor.stdout is not None
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._janitor.stdout, selectors.EVENT_READ)
            while b"\n" not in self._text:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return None
                piece = os.read(self._janitor.stdout.fileno(), 4096)
                if not piece:
                    return None
                self._text += piece
        line, _, self._text = self._text.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer
