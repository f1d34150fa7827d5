"""The contract of an experiment: parameters, cells, samples, rows, views, verdicts, and the registry that finds them.

An experiment is one file with one instance of a subclass of ``Experiment`` named ``EXPERIMENT``. It says what is asked,
which cells there are, how one cell is measured and how rows are judged; the runner does the rest. Nothing here knows
the runner, a sink or the command line.
"""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol

from c10k_probe import fits, stats, units
from c10k_probe.limits import Needs
from c10k_probe.parameters import ParametersT
from c10k_probe.pictures import AnyChart, Chart, Stack, WinnerMap

__all__ = [
    "DECISIVE_VERDICTS",
    "NOT_MEASURED",
    "AnyChart",
    "AnyExperiment",
    "Bench",
    "Cell",
    "Chart",
    "Column",
    "Experiment",
    "Finding",
    "FlatRow",
    "Judge",
    "Made",
    "Row",
    "Samples",
    "Scalar",
    "Stack",
    "Verdict",
    "View",
    "WinnerMap",
    "column",
    "columns",
    "estimate",
    "flatten",
    "key_of",
    "spread",
]

Scalar = str | int | float | None
OFF = "off"  # in place of a tracing backend: nothing traced
TRACED_BY = "traced_by"

# --- cells and samples ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One thing to measure. ``key`` holds the row's key columns; ``needs`` is checked before anything is started.

    ``weight`` is its share of the work, for the estimate of the time left; ``launches`` how many blocks have work
    for it (None: each). ``is_traceable``: whether ``--trace`` measures it a second time.
    """

    key: Mapping[str, str | int]
    needs: Needs = Needs()
    weight: float = 1.0
    launches: int | None = None
    is_traceable: bool = True

    @property
    def traced_by(self) -> str:
        """The tracing backend of its launches, or ``off``."""
        return str(self.key.get(TRACED_BY, OFF))

    @property
    def name(self) -> str:
        """The key's values: what tells a cell from every other."""
        return " ".join(str(value) for value in self.key.values())

    @property
    def label(self) -> str:
        """The cell in words, for messages."""
        first, *others = self.key.items()
        return " ".join(filter(None, (str(first[1]), *(units.label(name, value) for name, value in others))))


@dataclass(frozen=True)
class Samples:
    """Raw samples of one launch: interval name with unit -> values, and the facts that hold for all of them."""

    key: Mapping[str, str | int]
    block: int
    values: Mapping[str, Sequence[int]]
    facts: Mapping[str, Scalar] = dataclasses.field(default_factory=dict)

    @property
    def traced_by(self) -> str:
        """The tracing backend of this launch, or ``off``."""
        return str(self.key.get(TRACED_BY, OFF))


# --- rows -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """A column of an experiment's CSV. ``kind`` is ``str``, ``int`` or ``float``."""

    name: str
    kind: str
    help: str
    key: bool = False
    ramp: bool = False  # rows that differ only here are steps of one ramp


def column(help: str, *, key: bool = False, ramp: bool = False) -> Any:
    """Declare a column of a Row; a key column identifies the row, any other is empty unless measured."""
    metadata = {"help": help, "key": key, "ramp": ramp}
    return dataclasses.field(metadata=metadata) if key else dataclasses.field(default=None, metadata=metadata)


def spread(prefix: str, help: str) -> Any:
    """Declare the columns ``prefix_p50_ns, _p50_lo_ns, _p50_hi_ns, _p90_ns, _p99_ns, _min_ns, _max_ns`` (a Summary)."""
    return dataclasses.field(default=None, metadata={"help": help, "spread": prefix})


def estimate(name: str, help: str) -> Any:
    """Declare the columns ``name``, and its interval's ends with ``lo``/``hi`` before the unit (an Interval)."""
    return dataclasses.field(default=None, metadata={"help": help, "estimate": name})


@dataclass(frozen=True, kw_only=True)
class Row:
    """Base of every row. Its four columns come last; ``status`` is ok, skipped, failed or interrupted."""

    status: str = "ok"
    reason: str = ""
    grade: str = "ok"
    grade_reason: str = ""


_STATE_COLUMNS = (
    Column("status", "str", "ok, skipped, failed or interrupted"),
    Column("reason", "str", "why the row is not ok"),
    Column("grade", "str", "ok, shaky (shown with care) or void (never ranked)"),
    Column("grade_reason", "str", "why the grade is not ok"),
)


def columns(row_type: type[Row]) -> tuple[Column, ...]:
    """The flat columns of a row type, in CSV order."""
    hints = typing.get_type_hints(row_type)
    own: list[Column] = []
    for item in dataclasses.fields(row_type):
        if "help" in item.metadata:
            own += _field_columns(item, hints[item.name])
    return (*own, *_STATE_COLUMNS)


def flatten(row: Row) -> dict[str, Scalar]:
    """A row as column name -> value, in CSV order; what was not measured is None."""
    flat: dict[str, Scalar] = {}
    for item in dataclasses.fields(row):
        if "help" in item.metadata:
            flat.update(_field_values(item, getattr(row, item.name)))
    return flat | {name: getattr(row, name) for name in ("status", "reason", "grade", "grade_reason")}


def key_of(row: Row) -> tuple[Scalar, ...]:
    """The values of the key columns: rows with the same key are the same row, measured further."""
    return tuple(getattr(row, item.name) for item in dataclasses.fields(row) if item.metadata.get("key"))


def _estimate_names(name: str) -> tuple[str, str, str]:
    """``cycle_ratio`` -> itself, ``cycle_lo_ratio``, ``cycle_hi_ratio``."""
    suffix = units.column_suffix(name) or ""
    stem = name.removesuffix(suffix)
    return name, f"{stem}_lo{suffix}", f"{stem}_hi{suffix}"


def _field_columns(item: dataclasses.Field[Any], hint: object) -> list[Column]:
    help = item.metadata["help"]
    if "spread" in item.metadata:
        return [Column(name, "float", f"{help}: {part}") for name, part in _spread_names(item).items()]
    if "estimate" in item.metadata:
        parts = ("", ", low end of the 95 % interval", ", high end of the 95 % interval")
        names = _estimate_names(item.metadata["estimate"])
        return [Column(name, "float", help + part) for name, part in zip(names, parts, strict=True)]
    key, ramp = bool(item.metadata.get("key")), bool(item.metadata.get("ramp"))
    return [Column(item.name, _kind(hint), help, key, ramp)]


def _field_values(item: dataclasses.Field[Any], value: Any) -> dict[str, Scalar]:
    if "spread" in item.metadata:
        return dict(zip(_spread_names(item), _spread_values(value), strict=True))
    if "estimate" in item.metadata:
        ends = (value.middle, value.low, value.high) if value else (None, None, None)
        return dict(zip(_estimate_names(item.metadata["estimate"]), ends, strict=True))
    return {item.name: value}


def _spread_names(item: dataclasses.Field[Any]) -> dict[str, str]:
    prefix = item.metadata["spread"]
    return {
        f"{prefix}_p50_ns": "median of the launches' medians",
        f"{prefix}_p50_lo_ns": "low end of the median's 95 % interval",
        f"{prefix}_p50_hi_ns": "high end of the median's 95 % interval",
        f"{prefix}_p90_ns": "90th percentile of all samples",
        f"{prefix}_p99_ns": "99th percentile of all samples",
        f"{prefix}_min_ns": "smallest sample",
        f"{prefix}_max_ns": "largest sample",
    }


def _spread_values(summary: stats.Summary | None) -> tuple[float | None, ...]:
    if summary is None:
        return (None,) * 7
    p50 = summary.p50
    return (p50.middle, p50.low, p50.high, summary.p90, summary.p99, summary.minimum, summary.maximum)


def _kind(hint: object) -> str:
    """``int | None`` -> ``int``."""
    arguments = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return next(kind.__name__ for kind in (str, int, float) if kind in arguments)


# --- views ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class View:
    """One column of a table on a screen: which value, and the ends of its interval when it has one.

    ``group`` names the table it belongs to, when a result is too wide for one. A narrow terminal drops the views of the
    highest ``priority`` number first. A ``traced`` view is of rows of traced launches, any other of untraced ones only.
    """

    header: str
    column: str
    low: str = ""
    high: str = ""
    group: str = ""
    priority: int = 1
    traced: bool = False


# --- verdicts -------------------------------------------------------------------------------------------------------


NOT_MEASURED = "NOT-MEASURED"
DECISIVE_VERDICTS = ("CONFIRMED", "REFUTED", "PARTLY")


@dataclass(frozen=True)
class Verdict:
    """The judgement of one claim: computed from the rule printed beside it, which was fixed before measuring."""

    claim: str
    restatement: str
    rule: str
    verdict: str
    evidence: str
    is_measured: bool = True  # False: noise cannot change it: settled by reading, or by what noise cannot do

    def capped(self, doubt: str) -> Verdict:
        """This verdict of a noisy or unfinished run: a finding becomes INCONCLUSIVE, with the doubt in the evidence."""
        if self.verdict not in DECISIVE_VERDICTS or not self.is_measured:
            return self
        evidence = f"{self.evidence}; would be {self.verdict}, but {doubt}"
        return dataclasses.replace(self, verdict="INCONCLUSIVE", evidence=evidence)


# --- findings -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """A number that no single row shows, such as the count at which one thing overtakes another.

    ``subject`` and ``column`` name it; the column's suffix is its unit. Without a value, ``note`` says why.
    """

    subject: str
    column: str
    value: stats.Interval | None
    note: str = ""


Made = fits.Fit | Finding
FlatRow = Mapping[str, Scalar]
Judge = Callable[[Sequence[FlatRow], Sequence[Made]], Verdict]

# --- the experiment -------------------------------------------------------------------------------------------------


class Bench(Protocol):
    """What the runner lends to a measurement."""

    @property
    def seed(self) -> int:
        """Seed of this launch, derived from the run's."""

    @property
    def block(self) -> int:
        """Number of the interleaved block, from 0."""

    @property
    def blocks_count(self) -> int:
        """How many blocks the run has."""

    def remaining_s(self) -> float:
        """Seconds until the run's time-out."""

    def progress(self, done: float, total: float, note: str) -> None:
        """Say how far the cell is; shown between timed regions only."""

    def reading(self, at_s: float, values: Mapping[str, float]) -> None:
        """What an observer, which is part of what is measured, read at a moment of the launch; see ``bench``."""

    def warn(self, seen: str, cause: str, advice: str) -> None:
        """What was seen (with the number), the likely cause, what to type next."""


class Experiment(ABC, Generic[ParametersT]):
    """One question. See the module's docstring of any experiment for what it times and what it does not.

    ``name`` and ``question`` come from the file: its name, and the first line of its docstring.
    """

    name: ClassVar[str] = ""
    question: ClassVar[str] = ""
    version: ClassVar[int]  # raised when numbers before and after may not be compared
    parameters_type: type[ParametersT]
    row_type: ClassVar[type[Row]]
    views: ClassVar[tuple[View, ...]]
    judges: ClassVar[tuple[Judge, ...]] = ()
    charts: ClassVar[tuple[AnyChart, ...]] = ()  # the first that has something to draw is the one shown unasked
    repeats: ClassVar[int] = 1  # interleaved blocks; each cell is launched once per block
    quick_repeats: ClassVar[int] = 1
    traced_repeats: ClassVar[int] = stats.MINIMUM_LAUNCHES  # blocks with --trace, each cell once traced and once not
    traced_weight: ClassVar[float] = 0.0  # what tracing adds to the weight of a cell, beside doubling it
    traced_values: ClassVar[tuple[str, ...]] = ()  # names of the samples' values whose slowdown by tracing is told
    traced_columns: ClassVar[tuple[str, ...]] = ()  # the same of an experiment that gives rows and no samples
    judges_traced_rows: ClassVar[bool] = False  # whether judges get rows of traced launches, too: counts, never times
    is_incomplete_when_skipped: ClassVar[bool] = False  # whether a skipped cell is one that was wanted
    weights_are_s: ClassVar[bool] = False  # whether a cell's weight is about what a launch takes, in seconds

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        module = sys.modules[cls.__module__]
        cls.name = cls.__dict__.get("name") or Path(module.__file__ or "").stem.replace("_", "-")
        cls.question = cls.__dict__.get("question") or (module.__doc__ or "").strip().partition("\n")[0]

    def check(self, parameters: ParametersT) -> None:
        """Raise ``UsageError`` for parameters that are each allowed but not together."""

    def untraceable(self, parameters: ParametersT) -> str:
        """Why these launches cannot be traced; empty where they can. An experiment with ``--trace`` says so here.

        Its cells are then measured traced too, each with the backend as ``traced_by`` in its key, in the same blocks.
        """
        return "it has no traced launches"

    def charts_of(self, parameters: ParametersT) -> tuple[AnyChart, ...]:
        """The charts of a run with these parameters."""
        return self.charts

    @abstractmethod
    def cells(self, parameters: ParametersT) -> list[Cell]:
        """Everything that is to be measured, in any order: the runner shuffles."""

    @abstractmethod
    def measure(self, parameters: ParametersT, cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        """Measure one cell once; rows and samples are saved as they are yielded."""

    def summarise(self, parameters: ParametersT, samples: Sequence[Samples], seed: int) -> list[Row]:
        """Rows from all samples so far; called after launches and at the end. Pure."""
        return []

    def refine(self, parameters: ParametersT, samples: Sequence[Samples], seed: int) -> list[Cell]:
        """Further cells, from what was found so far; asked again after each of its answers was measured. Pure."""
        return []

    def fit(self, parameters: ParametersT, samples: Sequence[Samples], seed: int) -> Sequence[Made]:
        """Cost models and findings from all samples; called once, at the end of a complete run. Pure."""
        return []

    def find(self, parameters: ParametersT, rows: Sequence[FlatRow], seed: int) -> Sequence[Finding]:
        """Findings from all rows, void ones too, where rows are not made of samples; called once, as ``fit``. Pure."""
        return []


AnyExperiment = Experiment[Any]
