"""What every tracing backend is: it follows a process tree from the moment it is ready, and counts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, Final, Self

from c10k_probe.exits import ExitCode, UserError
from c10k_probe.tracing.launch import Launched
from c10k_probe.tracing.lift import exact
from c10k_probe.tracing.result import Trace

READY_PATIENCE_S: Final = 15.0


class TracerUnavailable(UserError):
    """A backend cannot work here: why, and the command that would help (empty when none would)."""

    def __init__(self, backend: str, reason: str, lift: str = "") -> None:
        lift = exact(lift)
        super().__init__(
            f"{backend} cannot trace here: {reason}{f'; {lift}' if lift else ''}", ExitCode.NOTHING_MEASURED
        )
        self.backend = backend
        self.reason = reason
        self.lift = lift


@dataclass(frozen=True)
class Target:
    """What to trace: the trees of running processes, or a command to start. One of the two.

    pids: the roots; descendants that live already and those to come are followed too.
    output: descriptor for what the command would write to a terminal; None: where ours go.
    """

    pids: Sequence[int] = ()
    command: Sequence[str] = ()
    output: int | None = None


@dataclass(frozen=True)
class Options:
    """How to trace.

    latency: durations of calls and run-queue waits, errors, accepts too; False costs less.
    tasks_count: room for so many tasks at once, 0 for twice those of the machine (bcc).
    calls: names of the calls to count each (perf counts no others by name); () for the backend's choice.
    interval_s: how often a reading is wanted (perf reads by itself).
    """

    latency: bool = True
    tasks_count: int = 0
    calls: Sequence[str] = ()
    interval_s: float = 1.0


class Tracer(ABC):
    """One tracer. Use it as a context manager: inside the block it is ready and counts.

        with open_tracer("auto", Target(pids=[server.pid])) as tracer:
            ...
            trace = tracer.stop()

    Leaving the block ends the tracer however it is left; a command that was started runs on, but under strace.
    """

    name: ClassVar[str]

    def __init__(self, target: Target, options: Options) -> None:
        self.target = target
        self.options = options
        self.launched: Launched | None = None
        self.refused: list[TracerUnavailable] = []  # what better backends lack, when this one was chosen for that

    def begin(self) -> Self:
        """``start``; when that fails nothing of it, nor of the command that it was to trace, is left."""
        try:
            self.start()
        except BaseException:
            self.close()
            if self.launched is not None:
                self.launched.end()
            raise
        return self

    @abstractmethod
    def start(self) -> None:
        """Begin to count; ready when it returns. Raises ``TracerUnavailable``, or ``UserError`` for the target."""

    @property
    def own_pids(self) -> tuple[int, ...]:
        """Processes of the tracer's own, beside this one; none for a backend that looks from here."""
        return ()

    @abstractmethod
    def snapshot(self) -> Trace | None:
        """Everything counted up to now; None when this backend tells at the end only."""

    def _is_reaped(self) -> bool:
        """Whether a command that was started, and all its orphans, have ended and are reaped; true where none was."""
        return self.launched is None or (self.launched.has_ended() and not self.launched.adopted())

    @abstractmethod
    def is_over(self) -> bool:
        """Whether every process of the tree has ended."""

    @abstractmethod
    def stop(self) -> Trace:
        """Count no more; everything that was counted. May be called once."""

    @abstractmethod
    def close(self) -> None:
        """Leave nothing of the tracer behind; may be called at any time and twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if self.launched is not None:
            self.launched.adopted()  # whose ended ones are reaped by that
            self.launched.adopt(wanted=False)
