"""The backend that servers under test wait for: a real TCP service that answers after a delay, or never."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from c10k_probe import native

DELAYS: Final = ("fixed", "jittered", "pareto", "never")
"""Kinds of delay: see backend.c."""

FAULTS: Final = ("none", "hang", "reset", "die")
"""What a backend can do wrong from a certain question on."""


@dataclass(frozen=True)
class BackendStatus:
    """``asked_count`` = ``answered_count`` + ``waiting_count`` + ``lost_count`` (the connection was over before the
    answer). ``late_ns`` is the sum, ``longest_late_ns`` the most, by which answers went out after they were due."""

    asked_count: int
    answered_count: int
    waiting_count: int
    lost_count: int
    accepted_count: int
    open_count: int
    late_ns: int
    longest_late_ns: int


class Backend(native.Helpers):
    """A running backend; a context manager that leaves no process behind. Raises ``native.HelperError``."""

    def __init__(
        self,
        delay_ns: int,
        kind: str = "fixed",
        *,
        seed: int = 0,
        fault: str = "none",
        fault_after_count: int = 0,
    ) -> None:
        """Start it on the CPUs for clients. ``delay_ns``: the delay, or its mean; ``kind``: of ``DELAYS``.

        From question number ``fault_after_count`` on it does what ``fault``, of ``FAULTS``, says.
        """
        super().__init__()
        arguments: list[object] = ["--delay-ns", delay_ns, "--delay", kind, "--seed", seed]
        arguments += ["--fault", fault, "--fault-after", fault_after_count]
        ready = self._start("backend", arguments, native.split_cpus()[1], "ready")
        self._helper = self._helpers[0]
        self.port = int(ready["port"])

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._helper.pid

    def status(self) -> BackendStatus:
        """Its own counts so far."""
        return self._told("status")

    def _told(self, command: str) -> BackendStatus:
        answer = self._helper.ask(command, "status")
        return BackendStatus(**{name: int(answer[name]) for name in BackendStatus.__dataclass_fields__})

    def hold(self) -> BackendStatus:
        """Answer nobody until further notice: whoever asks goes on waiting."""
        return self._told("hold")

    def hurry(self) -> BackendStatus:
        """Answer whoever waits, and whoever comes, at once; reset the connection where there would be no answer.

        So that what has queued before a server is gone soon, and every question that it was going to ask is counted.
        """
        return self._told("hurry")

    def resume(self) -> BackendStatus:
        """Go back to the delay."""
        return self._told("resume")

    def death(self) -> str:
        """How it ended; empty while it lives."""
        return self._helper.death()
