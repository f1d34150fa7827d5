"""``predict creation``: what creating one more would cost in a state that was not measured, from a cost model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

from c10k_probe import units
from c10k_probe.exits import UsageError, UserError
from c10k_probe.fits import Fit, from_record
from c10k_probe.parameters import Option, parse_option
from c10k_probe.results import StoredRun, load

SUBJECT = "creation"
PLACEMENTS = ("one-cpu", "any-cpu")
KINDS = ("own", "children", "threads")
_SIZES = ("rss", "file_rss")
_THREADS = "pthread"
MIB = 1 << 20


@dataclass(frozen=True)
class Wanted:
    """Which models are asked: of these methods (none: all), this placement, beside this kind of living tasks."""

    methods: tuple[str, ...] = ()
    placement: str = "one-cpu"
    alive_kind: str = "own"


class _Model(NamedTuple):
    """A model with what its name says it is of."""

    method: str
    linking: str
    placement: str
    alive_kind: str  # none: it was not varied
    fit: Fit


def predict_creation(subject: str, texts: Mapping[str, str], wanted: Wanted, run: str) -> None:
    """Parse what was typed and print. Raises ``UsageError`` for bad input."""
    if subject != SUBJECT:
        raise UsageError(f"predict: {subject!r} is not known; there is one subject: {SUBJECT}")
    for name, value, choices in (
        ("--placement", wanted.placement, PLACEMENTS),
        ("--alive-kind", wanted.alive_kind, KINDS),
    ):
        if value not in choices:
            raise UsageError(f"{name}: {value!r} is not known; choose from {', '.join(choices)}")
    state = {
        name: parse_option(name, Option("", "bytes" if name in _SIZES else "count", minimum=0), text)
        for name, text in texts.items()
    }
    stored = load(Path(run)) if run else newest_with_models(Path("results"), wanted)
    print_prediction(stored, cast("Mapping[str, int]", state), wanted)


def print_prediction(stored: StoredRun, state: Mapping[str, int], wanted: Wanted) -> None:
    """One line per model of the run, on stdout, with its interval; where it comes from; and what lies beyond."""
    known = _models(stored)
    if not known:
        raise UserError(f"{stored.path} holds no cost model; make one with: c10k-probe fork-latency --fit")
    models = _matching(known, wanted)
    if not models:
        raise UsageError(f"{stored.path}: no cost model of {_wanted_text(wanted)}; it has {_known_text(known)}")
    terms = _terms(state)
    print(f"from {stored.path.name}, in a parent with {_state_text(state)}:")
    for model in models:
        print(f"  {_line(model, terms)}")
    for line in (*_source(stored, models), *_beyond([model.fit for model in models], terms)):
        print(line)


# --- the run and its models -------------------------------------------------------------------------------------------


def newest_with_models(base: Path, wanted: Wanted) -> StoredRun:
    """The newest run below ``base`` with a model that is wanted, else the newest with any. Raises ``UserError``."""
    others: list[StoredRun] = []
    for path in sorted(base.glob("*-fork-latency-*"), reverse=True):
        try:
            stored = load(path)
            known = _models(stored)
        except UserError:
            continue
        if _matching(known, wanted):
            return stored
        others += [stored] if known else []
    if others:
        return others[0]
    raise UserError(f"no run in {base} holds a cost model; make one with: c10k-probe fork-latency --fit")


def _models(stored: StoredRun) -> list[_Model]:
    """The cost models of creation that a run holds."""
    try:
        made = [from_record(record) for record in stored.facts.get("fits", ())]
        return [_model_of(fit) for fit in made if fit.name.split()[0] == SUBJECT]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{stored.path}: unreadable cost models ({error!r}); measure again with --fit") from None


def _model_of(fit: Fit) -> _Model:
    """By its name, ``creation METHOD LINKING PLACEMENT KIND``. Raises ``ValueError`` for another."""
    _, method, linking, placement, alive_kind = fit.name.split()
    return _Model(method, linking, placement, alive_kind, fit)


def _matching(models: Sequence[_Model], wanted: Wanted) -> list[_Model]:
    return [
        model
        for model in models
        if (not wanted.methods or model.method in wanted.methods)
        and model.placement == wanted.placement
        and model.alive_kind in ("none", _kind(model.method, wanted.alive_kind))
    ]


def _kind(method: str, alive_kind: str) -> str:
    """Own means threads beside a thread, and children beside a process."""
    own = "threads" if method.startswith(_THREADS) else "children"
    return own if alive_kind == "own" else alive_kind


def _wanted_text(wanted: Wanted) -> str:
    kind = "" if wanted.alive_kind == "own" else f" beside {wanted.alive_kind}"
    return f"{', '.join(wanted.methods) or 'any method'} on {wanted.placement}{kind}"


def _known_text(models: Sequence[_Model]) -> str:
    """Each placement with its methods."""
    methods: dict[str, set[str]] = {}
    for model in models:
        kind = "" if model.alive_kind in ("none", _kind(model.method, "own")) else f" beside {model.alive_kind}"
        methods.setdefault(f"{model.placement}{kind}", set()).add(model.method)
    return "; ".join(f"{', '.join(sorted(names))} on {place}" for place, names in sorted(methods.items()))


# --- what is said -----------------------------------------------------------------------------------------------------


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


def _line(model: _Model, terms: Mapping[str, float]) -> str:
    response = model.fit.response.removesuffix("_ns")
    known = model.fit.predict(terms)
    head = f"{model.method:24} {model.linking:10} {response:7}"
    if known.middle <= 0:
        return f"{head} the model does not hold there: it gives less than nothing"
    texts = [
        units.format_quantity(max(value or 0.0, 0.0), "duration") for value in (known.middle, known.low, known.high)
    ]
    return f"{head} {texts[0]:>9}  [{texts[1]}, {texts[2]}]"


def _source(stored: StoredRun, models: Sequence[_Model]) -> Iterator[str]:
    """How much was measured, how far cells lie off their models, and what speaks against the run."""
    facts = stored.facts
    asked = facts.get("parameters", {}).get("n")
    cells = sorted({model.fit.points_count for model in models})
    counts = f"{cells[0]}" if cells[0] == cells[-1] else f"{cells[0]} to {cells[-1]}"
    parts = [f"{counts} cells", f"{facts.get('blocks')} launches each", f"n = {asked:,} a cell" if asked else ""]
    parts += [models[0].placement, _noise_text(facts)]
    yield "measured: " + ", ".join(part for part in parts if part)
    worst = max(models, key=lambda model: abs(model.fit.worst.share) if model.fit.worst else 0.0)
    if worst.fit.worst is not None:
        cell, share = worst.fit.worst
        name = f"{worst.method} {worst.linking} {worst.fit.response.removesuffix('_ns')}"
        yield f"farthest off its model: {name}, measured {share:+.0%} of the cell {cell}"
    seen = [str(warning.get("seen")) for warning in facts.get("warnings", ())]
    for text in seen:
        if "not quiet" in text:
            yield f"warning: {text}; the intervals do not cover that: measure again"
    if "--quick" in facts.get("command", ()):
        yield "warning: the run was a --quick one, of few samples; measure again without it"
    if stored.state != "finished":
        yield f"warning: the run is {stored.state}"


def _noise_text(facts: Mapping[str, object]) -> str:
    """Steal and foreign CPU during the run, as far as the kernel told."""
    names = {"steal_pct": "steal", "foreign_cpu_pct": "others' CPU"}
    known = {word: facts.get(name) for name, word in names.items()}
    return ", ".join(f"{word} {value:.1f} %" for word, value in known.items() if isinstance(value, (int, float)))


def _beyond(models: Sequence[Fit], terms: Mapping[str, float]) -> Iterator[str]:
    """One line per term that lies beyond the measured range of a model that was asked, and what that means."""
    found: dict[str, float] = {}
    for model in models:
        for term, share in model.beyond(terms).items():
            found[term] = max(share, found.get(term, 0.0))
    for term, value in terms.items():
        if term in found:
            times = "never varied" if found[term] == float("inf") else f"{found[term]:,.1f} times beyond"
            measured = f"{term} was measured up to {_measured_to(models, term)}"
            yield f"extrapolated: {measured}, {value:,.0f} is asked: {times}"
    if found:
        yield "the intervals hold only if the growth stays linear that far, which nothing here has measured"


def _measured_to(models: Sequence[Fit], term: str) -> str:
    highest = [dict(zip(model.terms, model.highest, strict=True)).get(term, 0.0) for model in models]
    return f"{min(highest):,.0f}" if min(highest) else "0 only"
