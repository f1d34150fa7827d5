"""Parameters of an experiment: typed fields that become the command's options by themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from c10k_probe import units
from c10k_probe.exits import UsageError


@dataclass(frozen=True)
class Option:
    """How a parameter is written on the command line; ``dimension``: a key of ``units.SCALES``, text or flag."""

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
