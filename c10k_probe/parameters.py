"""Parameters of an experiment: typed fields that become the command's options by themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from c10k_probe import units
from c10k_probe.exits import UsageError

EVERY_CHOICE = "all"  # where several may be chosen


@dataclass(frozen=True)
class Option:
    """How a parameter is written on the command line.

    ``dimension``: a key of ``units.SCALES``, text, flag, or amount, which is a count or a percentage of another number.
    ``words``: stand for themselves where else a quantity is written.
    ``ranges``: ``A..B`` stands for A, the steps 1, 3, 10, 30 ... between, and B; with ``doubles`` the steps are powers
    of two.
    """

    help: str
    dimension: str = "count"
    minimum: int | None = None
    maximum: int | None = None
    choices: tuple[str, ...] = ()
    many: bool = False
    ranges: bool = False
    doubles: bool = False
    quick: object = None
    words: tuple[str, ...] = ()


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
    if option.many and option.choices and text.strip() == EVERY_CHOICE:
        return option.choices
    parts = [part.strip() for part in text.split(",")] if option.many else [text.strip()]
    values = [value for part in parts for value in _parse_part(name, option, part)]
    if len(set(values)) < len(values):
        raise UsageError(f"{option_name(name)}: {text!r} names the same value twice; name each once")
    return tuple(values) if option.many else values[0]


def _parse_part(name: str, option: Option, text: str) -> list[str | int]:
    """One value, or all of a range."""
    first, dots, last = text.partition("..")
    if not (option.ranges and dots):
        return [_parse_one(name, option, text)]
    if not first.strip() or not last.strip():
        raise UsageError(f"{option_name(name)}: {text!r} has an end missing; write both, such as 100..10k")
    low, high = int(_parse_one(name, option, first)), int(_parse_one(name, option, last))
    if low > high:
        raise UsageError(f"{option_name(name)}: {text!r} runs backwards; write the smaller end first")
    return list(doublings(low, high) if option.doubles else decades(low, high))


def doublings(low: int, high: int) -> Iterator[int]:
    """``low``, the powers of two between, and ``high``."""
    yield low
    yield from (1 << power for power in range(high.bit_length()) if low < 1 << power < high)
    if high > low:
        yield high


def decades(low: int, high: int) -> Iterator[int]:
    """``low``, the steps 1, 3, 10, 30 ... between, and ``high``."""
    yield low
    steps = (digit * 10**power for power in range(len(str(high))) for digit in (1, 3))
    yield from (step for step in steps if low < step < high)
    if high > low:
        yield high


def _parse_amount(flag: str, text: str) -> str:
    """A count or a percentage, spelled so that equal amounts are equal texts."""
    number = text.removesuffix("%").strip()
    try:
        count = None if text.endswith("%") else units.parse(text, "count")
        share = float(number) if count is None else 100.0
    except ValueError:
        raise UsageError(f"{flag}: {text!r} is not an amount such as 100 or 5%") from None
    if not 0 < share <= 100:
        raise UsageError(f"{flag}: {text!r} is out of range; a percentage lies above 0 and at or below 100")
    if count is not None and count < 1:
        raise UsageError(f"{flag}: {text!r} is out of range; the least is 1")
    return f"{share:g}%" if count is None else str(count)


def amount_of(text: str, whole: int) -> int:
    """The count that an amount stands for: of ``whole`` when it is a percentage, then 1 at least."""
    if text.endswith("%"):
        return max(1, round(float(text.removesuffix("%")) / 100 * whole))
    return int(text)


def _parse_one(name: str, option: Option, text: str) -> str | int:
    flag = option_name(name)
    if option.choices:
        if text not in option.choices:
            raise UsageError(f"{flag}: {text!r} is not known; choose from {', '.join(option.choices)}")
        return text
    if option.dimension == "text" or text in option.words:
        return text
    if option.dimension == "amount":
        return _parse_amount(flag, text)
    try:
        value = units.parse(text, option.dimension)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from None
    for bound, breaks, word in ((option.minimum, int.__lt__, "least"), (option.maximum, int.__gt__, "most")):
        if bound is not None and breaks(value, bound):
            allowed = units.format_exact(bound, option.dimension)
            raise UsageError(f"{flag}: {text!r} is out of range; it must be at {word} {allowed}")
    return value


ParametersT = TypeVar("ParametersT", bound=Parameters)


def build_parameters(parameters: type[ParametersT], given: Mapping[str, str | None], *, quick: bool) -> ParametersT:
    """Parameters from command-line texts; what was not given takes its default, or its quick value."""
    values: dict[str, Any] = {}
    for name, default, option in options_of(parameters):
        text = given.get(name)
        if option.dimension == "flag":
            values[name] = bool(text)
        elif text is not None:
            values[name] = parse_option(name, option, text)
        elif quick and option.quick is not None:
            values[name] = option.quick
        else:
            values[name] = default
    return parameters(**values)


def default_text(default: object, option: Option) -> str:
    """A default as a user would type it; nothing for None."""
    if isinstance(default, tuple):
        return ",".join(default_text(part, option) for part in default)
    if default is None:
        return ""
    if isinstance(default, int) and option.dimension in units.SCALES:
        return units.format_exact(default, option.dimension)
    return str(default)
