"""Runs one program of demonstrations under a janitor, hears what it says, and reads the CPU time that it takes."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, Self

from c10k_probe import native
from c10k_probe.observe import processes, tree
from c10k_probe.observe.procfs import PROC
from c10k_probe.servers.guarded import Guarded, Recipe

_POLL_S: Final = 0.002
_SETTLE_S: Final = 0.05  # a program that takes no CPU for so long has settled
_NOBODY_S: Final = 10.0  # to begin, and to settle
_SAID: Final = "said"
_SHELL: Final = 'unset UV_THREADPOOL_SIZE; exec "$@" > \'{folder}/' + _SAID + "'"


class Child:
    """One program that prints JSON lines; a context manager that leaves nothing of it. Raises ``HelperError``."""

    def __init__(self, name: str, command: Sequence[str], text: str, *, is_own_user: bool) -> None:
        """Start it on every CPU that this process may use; ``text`` is in the file ``{folder}/program``."""
        recipe = Recipe(("/bin/sh", "-c", _SHELL, "sh", *command), {"program": text}, is_own_user=is_own_user)
        self._guarded = Guarded(name, recipe, frozenset(os.sched_getaffinity(0)))
        self._name = name

    def heard(self) -> list[dict[str, Any]]:
        """All that it has said in whole lines so far."""
        try:
            text = (self._guarded.folder / _SAID).read_text(encoding="utf-8")
        except FileNotFoundError:  # the shell has not yet begun it
            return []
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def expect(self, kind: str, patience_s: float, remaining_s: Callable[[], float]) -> dict[str, Any]:
        """The first message of this type."""
        deadline = time.monotonic() + min(patience_s, remaining_s())
        while True:
            death = self._guarded.death()  # first: it may say its last words in between
            for message in self.heard():
                if message["type"] == kind:
                    return message
            if death:
                raise native.HelperError(death)
            if time.monotonic() > deadline:
                raise native.HelperError(f"{self._name} did not say {kind!r} within {patience_s:g} s")
            time.sleep(_POLL_S)

    def cpu_ns(self) -> int:
        """CPU time of the program so far, of all its threads."""
        run_s = tree.read_tree(self._guarded.pid, memory=False).cpu_run_s
        if run_s is None:
            raise native.HelperError(f"the CPU time of {self._name} cannot be read from /proc")
        return round(run_s * 1e9)

    def waited_ns(self) -> int:
        """How long threads of the program were ready and had no CPU so far, by the scheduler's account."""
        found_ns = 0
        for tid in processes.walk_threads(tree.session_pids(self._guarded.pid, PROC)):
            with contextlib.suppress(OSError):  # it has ended
                found_ns += int((PROC / str(tid) / "schedstat").read_bytes().split()[1])
        return found_ns

    def settle(self) -> int:
        """Wait until it takes no CPU, or for 10 s; its CPU time then, ns. Start-up is over."""
        deadline, seen_ns = time.monotonic() + _NOBODY_S, -1
        while seen_ns != (now_ns := self.cpu_ns()) and time.monotonic() < deadline:
            seen_ns = now_ns
            time.sleep(_SETTLE_S)
        return now_ns

    def watch(self, patience_s: float, remaining_s: Callable[[], float]) -> bool:
        """Whether it said ``done`` or ended, watched for so long at most."""
        deadline = time.monotonic() + patience_s
        while (left_s := deadline - time.monotonic()) > 0:
            if remaining_s() <= 0:
                raise native.HelperError("the run's time is over")
            if self._guarded.death() or any(message["type"] == "done" for message in self.heard()):
                return True
            time.sleep(min(left_s, _SETTLE_S))
        return False

    @property
    def threads_count(self) -> int:
        """Threads of the program now."""
        return len(list(processes.walk_threads(tree.session_pids(self._guarded.pid, PROC))))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._guarded.close()
