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
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from c10k_probe import stats, units
from c10k_probe.exits import UsageError
from c10k_probe.limits import Needs

Scalar = str | int | float | None

# --- parameters -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Option:
    """How a parameter is written on the command line; ``dimension`` is a key of ``units.SCALES`` or ``text``."""

    help: str
    dimension: str = "count"
    minimum: int | None = None
    maximum: int | None = None
    choices: tuple[str, ...] = ()
    many: bool = False
    quick: object = None


def parameter(default: object, help: str, **rules: Any) -> Any:
    """Declare one field of a ``Parameters`` dataclass; ``rules`` are the fields of ``Option``."""
    return dataclasses.field(default=default, metadata={"option": Option(help, **rules)})


@dataclass(frozen=True)
class Parameters:
    """Base of every experiment's parameters; its fields become the command's options by themselves."""


def options_of(parameters: type[Parameters]) -> Iterator[tuple[str, object, Option]]:
    """(field name, default, option) of each parameter, in the order they were declared."""
    for item in dataclasses.fields(parameters):
        yield item.name, item.default, item.metadata["option"]


def option_name(field_name: str) -> str:
    """``spawn_rate`` -> ``--spawn-rate``."""
    return "--" + field_name.replace("_", "-")


def parse_option(name: str, option: Option, text: str) -> object:
    """The value of ``text`` for one option. Raises ``UsageError`` with the rule that it breaks and an example."""
    parts = [part.strip() for part in text.split(",")] if option.many else [text.strip()]
    values = [_parse_one(name, option, part) for part in parts]
    if len(set(values)) < len(values):
        raise UsageError(f"{option_name(name)}: {text!r} names the same value twice; name each once")
    return tuple(values) if option.many else values[0]


def _parse_one(name: str, option: Option, text: str) -> str | int:
    flag = option_name(name)
    if option.choices:
        if text not in option.choices:
            raise UsageError(f"{flag}: {text!r} is not known; choose from {', '.join(option.choices)}")
        return text
    if option.dimension == "text":
        return text
    try:
        value = units.parse(text, option.dimension)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from None
    for bound, breaks, word in ((option.minimum, int.__lt__, "least"), (option.maximum, int.__gt__, "most")):
        if bound is not None and breaks(value, bound):
            allowed = units.format_exact(bound, option.dimension)
            raise UsageError(f"{flag}: {text!r} is out of range; it must be at {word} {allowed}")
    return value


def build_parameters(parameters: type[ParametersT], given: Mapping[str, str | None], *, quick: bool) -> ParametersT:
    """Parameters from command-line texts; what was not given takes its default, or its quick value."""
    values: dict[str, Any] = {}
    for name, default, option in options_of(parameters):
        text = given.get(name)
        if text is not None:
            values[name] = parse_option(name, option, text)
        elif quick and option.quick is not None:
            values[name] = option.quick
        else:
            values[name] = default
    return parameters(**values)


def default_text(default: object, option: Option) -> str:
    """A default as a user would type it."""
    if isinstance(default, tuple):
        return ",".join(default_text(part, option) for part in default)
    if isinstance(default, int) and option.dimension in units.SCALES:
        return units.format_exact(default, option.dimension)
    return str(default)


# --- cells and samples ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One thing to measure. ``key`` holds the row's key columns; ``needs`` is checked before anything is started.

    ``weight`` is its share of the work, for the estimate of the time left; ``launches`` how many blocks have work
    for it (None: each).
    """

    key: Mapping[str, str | int]
    needs: Needs = Needs()
    weight: float = 1.0
    launches: int | None = None

    @property
    def name(self) -> str:
        """The key's values, for messages."""
        return " ".join(str(value) for value in self.key.values())


@dataclass(frozen=True)
class Samples:
    """Raw samples of one launch: interval name with unit -> values, and the facts that hold for all of them."""

    key: Mapping[str, str | int]
    block: int
    values: Mapping[str, Sequence[int]]
    facts: Mapping[str, Scalar] = dataclasses.field(default_factory=dict)


# --- rows -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """A column of an experiment's CSV. ``kind`` is ``str``, ``int`` or ``float``."""

    name: str
    kind: str
    help: str
    key: bool = False


def column(help: str, *, key: bool = False) -> Any:
    """Declare a column of a Row; a key column identifies the row, any other is empty unless measured."""
    metadata = {"help": help, "key": key}
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
    return [Column(item.name, _kind(hint), help, bool(item.metadata.get("key")))]


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
    highest ``priority`` number first.
    """

    header: str
    column: str
    low: str = ""
    high: str = ""
    group: str = ""
    priority: int = 1


# --- charts ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chart:
    """One picture of a result, drawn later from the run folder alone.

    ``x`` and ``y`` are columns; their suffix is the unit. A text column as ``x`` gives a row of dots for each of its
    values. ``low`` and ``high`` are the columns of the interval's ends, ``series`` the key columns whose values make
    one line each, ``where`` the (column, value) pairs of the rows to take.
    """

    name: str
    title: str
    x: str
    y: str
    low: str = ""
    high: str = ""
    series: tuple[str, ...] = ()
    log_x: bool = False
    log_y: bool = False
    where: tuple[tuple[str, Scalar], ...] = ()


# --- verdicts -------------------------------------------------------------------------------------------------------


DECISIVE_VERDICTS = ("CONFIRMED", "REFUTED", "PARTLY")


@dataclass(frozen=True)
class Verdict:
    """The judgement of one claim: computed from the rule printed beside it, which was fixed before measuring."""

    claim: str
    restatement: str
    rule: str
    verdict: str
    evidence: str

    def capped(self, noise: str) -> Verdict:
        """This verdict on a noisy machine: a finding becomes INCONCLUSIVE, with the noise as part of the evidence."""
        if self.verdict not in DECISIVE_VERDICTS:
            return self
        evidence = f"{self.evidence}; would be {self.verdict}, but {noise}"
        return dataclasses.replace(self, verdict="INCONCLUSIVE", evidence=evidence)


Judge = Callable[[Sequence[Mapping[str, Scalar]]], Verdict]

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

    def warn(self, seen: str, cause: str, advice: str) -> None:
        """What was seen (with the number), the likely cause, what to type next."""


ParametersT = TypeVar("ParametersT", bound=Parameters)


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
    charts: ClassVar[tuple[Chart, ...]] = ()  # the first that has something to draw is the one shown unasked
    repeats: ClassVar[int] = 1  # interleaved blocks; each cell is launched once per block
    quick_repeats: ClassVar[int] = 1

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        module = sys.modules[cls.__module__]
        cls.name = cls.__dict__.get("name") or Path(module.__file__ or "").stem.replace("_", "-")
        cls.question = cls.__dict__.get("question") or (module.__doc__ or "").strip().partition("\n")[0]

    def check(self, parameters: ParametersT) -> None:
        """Raise ``UsageError`` for parameters that are each allowed but not together."""

    @abstractmethod
    def cells(self, parameters: ParametersT) -> list[Cell]:
        """Everything that is to be measured, in any order: the runner shuffles."""

    @abstractmethod
    def measure(self, parameters: ParametersT, cell: Cell, bench: Bench) -> Iterator[Row | Samples]:
        """Measure one cell once; rows and samples are saved as they are yielded."""

    def summarise(self, parameters: ParametersT, samples: Sequence[Samples], seed: int) -> list[Row]:
        """Rows from all samples so far; called after every block and at the end. Pure."""
        return []


AnyExperiment = Experiment[Any]
