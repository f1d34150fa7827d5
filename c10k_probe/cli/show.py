"""``list`` and ``show``: what there is to measure."""

from __future__ import annotations

import difflib

from c10k_probe.exits import UsageError
from c10k_probe.registry import Entry, documentation, load


def print_list(entries: dict[str, Entry]) -> None:
    """Name and question of each experiment, on stdout."""
    width = max(map(len, entries), default=0)
    for name, entry in entries.items():
        print(f"{name:{width}}  {entry.question}")


def print_experiment(entries: dict[str, Entry], name: str) -> None:
    """The experiment's own documentation, its parameters and its columns. Raises ``UsageError``."""
    from c10k_probe.experiment import columns
    from c10k_probe.parameters import default_text, option_name, options_of

    if name not in entries:
        near = difflib.get_close_matches(name, entries, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"no experiment is named {name!r}; {hint}see c10k-probe list")
    experiment = load(entries[name])
    print(f"{name}, version {experiment.version}, {experiment.repeats} interleaved blocks by default\n")
    print(documentation(experiment))
    print("\nParameters")
    _print_pairs(
        (f"{option_name(field)} {default_text(default, option)}", option.help)
        for field, default, option in options_of(experiment.parameters_type)
    )
    print("\nColumns")
    _print_pairs((column.name, column.help) for column in columns(experiment.row_type))


def _print_pairs(pairs: object) -> None:
    listed = list(pairs)  # type: ignore[call-overload]
    width = min(36, max(len(left) for left, _ in listed))
    for left, right in listed:
        print(f"  {left:{width}}  {right}")
