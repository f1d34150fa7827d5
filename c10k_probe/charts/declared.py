"""The charts that a run's experiment declared, read back from its folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from c10k_probe.exits import UserError
from c10k_probe.experiment import AnyChart, Chart, Stack, WinnerMap
from c10k_probe.results import StoredRun

_KINDS: Final[Mapping[str, type[AnyChart]]] = {Chart.kind: Chart, WinnerMap.kind: WinnerMap, Stack.kind: Stack}
_LISTS: Final = ("series", "parts", "names", "told")  # besides, in a stack, ``x``


def charts_of(run: StoredRun) -> tuple[AnyChart, ...]:
    """The charts of a run, in the order of their declaration. Raises ``UserError`` for a run without any."""
    found = run.facts.get("charts") or []
    if not found:
        raise UserError(f"{run.path} names no charts; its rows are in {run.path / 'rows.csv'}")
    try:
        return tuple(_stored_chart(item) for item in found)
    except (TypeError, ValueError, AttributeError, KeyError):
        raise UserError(f"{run.path / 'run.json'} holds charts that this version cannot read") from None


def printable(text: str) -> str:
    """Text from a file, without what would command a terminal or break an SVG."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _stored_chart(item: Mapping[str, Any]) -> AnyChart:
    """A chart as JSON holds it; what a later version added is left aside, and one without a kind is of lines."""
    kind = _KINDS[item.get("kind", Chart.kind)]
    known = {part.name: item[part.name] for part in dataclasses.fields(kind) if part.init and part.name in item}
    for name in (*_LISTS, *(["x"] if kind is Stack else [])):
        if name in known:
            known[name] = tuple(known[name])
    known["where"] = tuple(
        (str(column), tuple(value) if isinstance(value, list) else value) for column, value in known.get("where", ())
    )
    chart = kind(**known)
    if isinstance(chart, Stack):
        chart = dataclasses.replace(chart, names=tuple(map(printable, chart.names)))
    return dataclasses.replace(chart, name=printable(chart.name), title=printable(chart.title))
