"""What happens during a run, as data. The runner emits these; sinks consume them; neither knows the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from c10k_probe.exits import ExitCode
from c10k_probe.experiment import AnyChart, Cell, Column, Finding, Samples, Scalar, Verdict, View
from c10k_probe.fits import Fit


@dataclass(frozen=True)
class RunStarted:
    """The plan of a run, complete before the first cell is measured. ``expected_s``: about what it takes, if known."""

    run_id: str
    experiment: str
    question: str
    experiment_version: int
    parameters: Mapping[str, object]
    columns: tuple[Column, ...]
    views: tuple[View, ...]
    cells_count: int
    blocks_count: int
    seed: int
    facts: Mapping[str, object] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    charts: tuple[AnyChart, ...] = ()
    expected_s: float | None = None


@dataclass(frozen=True)
class CellStarted:
    """A cell is about to be measured; ``done_share`` of the run's work lies behind, 0 to 1."""

    cell: Cell
    block: int
    done_share: float


@dataclass(frozen=True)
class CellProgressed:
    """A cell reached a stage; sent between timed regions only."""

    cell: Cell
    note: str
    done_share: float


@dataclass(frozen=True)
class Reading:
    """What an observer read at one moment of a launch: column name with its unit -> value. Missing is left out."""

    at_s: float
    values: Mapping[str, float]


@dataclass(frozen=True)
class ReadingsTaken:
    """What was read since this was last sent, in order; at most once a second while a timed region lasts."""

    cell: Cell
    block: int
    readings: tuple[Reading, ...]


@dataclass(frozen=True)
class SamplesTaken:
    """Raw samples of one launch."""

    samples: Samples


@dataclass(frozen=True)
class RowMeasured:
    """A row, new or measured further (same key); ``final`` when it will not change any more. Missing is None.

    ``is_traced``: its times are those of traced launches, never to be shown among the others. ``launches``: how many
    of how many planned ones it comes from, for a row that is made of samples.
    """

    key: tuple[Scalar, ...]
    values: Mapping[str, Scalar]
    final: bool
    is_traced: bool = False
    launches: tuple[int, int] | None = None


@dataclass(frozen=True)
class BlockFinished:
    """All cells of an interleaved block were measured once."""

    block: int
    done_share: float


@dataclass(frozen=True)
class Warned:
    """What was seen (with the number), the likely cause, what to type next."""

    seen: str
    cause: str
    advice: str

    def __str__(self) -> str:
        return "; ".join(part for part in (self.seen, self.cause, self.advice) if part)


@dataclass(frozen=True)
class VerdictReached:
    """A claim was judged."""

    verdict: Verdict


@dataclass(frozen=True)
class FitMade:
    """A cost model was fitted to the whole run."""

    fit: Fit


@dataclass(frozen=True)
class FindingMade:
    """A number was found that no single row shows."""

    finding: Finding


@dataclass(frozen=True)
class RunFinished:
    """The end, whatever the reason; always sent, also after an interruption. ``was_left``: somebody wanted no more."""

    code: ExitCode
    summary: str
    elapsed_s: float
    rows_count: int
    facts: Mapping[str, object] = field(default_factory=dict)
    was_left: bool = False


Event = (
    RunStarted
    | CellStarted
    | CellProgressed
    | ReadingsTaken
    | SamplesTaken
    | RowMeasured
    | BlockFinished
    | Warned
    | FitMade
    | FindingMade
    | VerdictReached
    | RunFinished
)


class Sink(Protocol):
    """A consumer of events."""

    name: str

    def handle(self, event: Event) -> None:
        """Take one event. An ``OSError`` means that this sink can no longer keep what it is given."""

    def close(self) -> None:
        """Give back files and the terminal; may be called twice."""


class Tee:
    """Hands each event to every sink; a sink that can no longer keep what it is given is dropped and said so.

    One whose reader has closed its end of a pipe is dropped and nothing is said: the reader has seen enough.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = list(sinks)
        self.failed: list[tuple[Sink, OSError]] = []
        self.unread: list[Sink] = []

    def emit(self, event: Event) -> None:
        """Deliver to all, then warn of those that failed; a failing sink costs the others nothing."""
        pending = [event]
        while pending:
            event = pending.pop(0)
            for sink in tuple(self._sinks):
                try:
                    sink.handle(event)
                except BrokenPipeError:
                    self._sinks.remove(sink)
                    self.unread.append(sink)
                except OSError as error:
                    self._sinks.remove(sink)
                    self.failed.append((sink, error))
                    pending.append(Warned(f"{sink.name} cannot be written: {error.strerror or error}", *_WRITE_ADVICE))

    def close(self) -> None:
        """Close every sink, also those that failed."""
        for sink in (*self._sinks, *self.unread, *(sink for sink, _ in self.failed)):
            try:
                sink.close()
            except BrokenPipeError:
                continue
            except OSError as error:
                self.failed.append((sink, error))


_WRITE_ADVICE = (
    "what it does not get is in the run folder, or printed at the end",
    "free space or choose another --out or --csv",
)
