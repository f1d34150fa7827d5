"""``predict creation``: what creating one more would cost in a state that was not measured, from a cost model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from c10k_probe import units
from c10k_probe.exits import UsageError, UserError
from c10k_probe.fits import Fit, from_record
from c10k_probe.parameters import Option, parse_option
from c10k_probe.results import StoredRun, load

SUBJECT = "creation"
_SIZES = ("rss", "file_rss")
MIB = 1 << 20


def predict_creation(subject: str, texts: Mapping[str, str], method: str, run: str) -> None:
    """Parse what was typed and print. Raises ``UsageError`` for bad input."""
    if subject != SUBJECT:
        raise UsageError(f"predict: {subject!r} is not known; there is one subject: {SUBJECT}")
    state = {
        name: parse_option(name, Option("", "bytes" if name in _SIZES else "count", minimum=0), text)
        for name, text in texts.items()
    }
    methods = [part.strip() for part in method.split(",") if part.strip()]
    stored = load(Path(run)) if run else newest_with_fits(Path("results"))
    print_prediction(stored, cast("Mapping[str, int]", state), methods)


def print_prediction(stored: StoredRun, state: Mapping[str, int], methods: Sequence[str]) -> None:
    """One line per model of the run, on stdout, with its interval; and what lies beyond what was measured."""
    if not _models(stored):
        raise UserError(f"{stored.path} holds no cost model; make one with: c10k-probe fork-latency --fit")
    models = [model for model in _models(stored) if not methods or model.name.split()[1] in methods]
    if not models:
        known = ", ".join(sorted({model.name.split()[1] for model in _models(stored)}))
        raise UsageError(f"{stored.path}: no cost model of {', '.join(methods)}; it has {known}")
    terms = _terms(state)
    print(f"from {stored.path.name}, in a parent with {_state_text(state)}:")
    for model in models:
        print(f"  {_line(model, terms)}")
    for line in _beyond(models, terms):
        print(line)


def newest_with_fits(base: Path) -> StoredRun:
    """The newest run below ``base`` that holds cost models. Raises ``UserError``."""
    for path in sorted(base.glob("*-fork-latency-*"), reverse=True):
        try:
            stored = load(path)
        except UserError:
            continue
        if _models(stored):
            return stored
    raise UserError(f"no run in {base} holds a cost model; make one with: c10k-probe fork-latency --fit")


def _models(stored: StoredRun) -> list[Fit]:
    """The cost models of creation that a run holds."""
    try:
        made = [from_record(record) for record in stored.facts.get("fits", ())]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{stored.path}: unreadable cost models ({error!r}); measure again with --fit") from None
    return [model for model in made if model.name.split()[0] == SUBJECT]


def _terms(state: Mapping[str, int]) -> dict[str, float]:
    """The state in the terms of the models."""
    scaled = {"rss": "rss_mib", "file_rss": "file_rss_mib"}
    return {scaled.get(name, name): value / MIB if name in scaled else float(value) for name, value in state.items()}


def _state_text(state: Mapping[str, int]) -> str:
    texts = [
        f"{units.format_exact(value, 'bytes')} {name.replace('_', ' ')}" if name in _SIZES else f"{value:,} {name}"
        for name, value in state.items()
        if value
    ]
    return ", ".join(texts) or "nothing special"


def _line(model: Fit, terms: Mapping[str, float]) -> str:
    _, method, linking = model.name.split()
    response = model.response.removesuffix("_ns")
    known = model.predict(terms)
    if known.middle <= 0:
        return f"{method:24} {linking:10} {response:7} the model does not hold there: it gives less than nothing"
    texts = [
        units.format_quantity(max(value or 0.0, 0.0), "duration") for value in (known.middle, known.low, known.high)
    ]
    return f"{method:24} {linking:10} {response:7} {texts[0]:>9}  [{texts[1]}, {texts[2]}]"


def _beyond(models: Sequence[Fit], terms: Mapping[str, float]) -> list[str]:
    """One line per term that lies beyond the measured range of a model that was asked."""
    found: dict[str, float] = {}
    for model in models:
        found |= model.beyond(terms)
    return [
        f"extrapolated: {term} was measured up to {_measured_to(models, term)}, {value:,.0f} is asked; "
        "the interval does not cover what may change beyond"
        for term, value in terms.items()
        if term in found
    ]


def _measured_to(models: Sequence[Fit], term: str) -> str:
    highest = [dict(zip(model.terms, model.highest, strict=True)).get(term, 0.0) for model in models]
    return f"{min(highest):,.0f}" if min(highest) else "0 only"
