"""What of ``blocking``'s parameters cannot be measured together: said before anything is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from c10k_probe.exits import UsageError
from c10k_probe.parameters import option_name, options_of
from c10k_probe.servers import POOLS

from ._blocking_design import NEVER, OPEN, PLATEAU, WITH_WORKERS, BlockingParameters

_PART_OF: Final[Mapping[str, str]] = {
    **dict.fromkeys(("delay", "delay_kind", "workers", "concurrency", "keep_alive", "fault"), PLATEAU),
    **dict.fromkeys(("open_workers", "open_delay"), OPEN),
}


def check(parameters: BlockingParameters) -> None:
    """Raise ``UsageError`` for what cannot be measured together."""
    if parameters.fault == "none" and parameters.fault_after is not None:
        raise UsageError("--fault-after says when --fault begins; name a --fault, or leave --fault-after out")
    if OPEN in parameters.part and not set(parameters.model) & set(WITH_WORKERS) and PLATEAU not in parameters.part:
        raise UsageError(f"--part {OPEN} needs a pool; add one to --model: {', '.join(WITH_WORKERS)}")
    _check_parts(parameters)
    if parameters.delay == NEVER:
        _check_never(parameters)
    if PLATEAU in parameters.part and parameters.keep_alive == "on" and set(parameters.model) & set(POOLS):
        starved = [(w, c) for w in parameters.workers for c in parameters.concurrency if c > w]
        if starved:
            w, c = starved[0]
            raise UsageError(
                f"--keep-alive on: with {w} workers, {c - w} of {c} connections of a pool would never be served; "
                "leave it off, or name only models and --concurrency that fit"
            )


def _check_parts(parameters: BlockingParameters) -> None:
    """An option of a part that is not asked for would do nothing."""
    for name, usual, option in options_of(BlockingParameters):
        part = _PART_OF.get(name)
        if part in (None, *parameters.part) or getattr(parameters, name) in (usual, option.quick):
            continue
        flag, instead = option_name(name), ""
        if name == "workers" and OPEN in parameters.part:
            instead = f", --open-workers for the workers of --part {OPEN}"
        raise UsageError(f"{flag} is for --part {part} alone; add {part} to --part, or leave {flag} out{instead}")


def _check_never(parameters: BlockingParameters) -> None:
    for name, usual in (("delay_kind", "fixed"), ("fault", "none")):
        if getattr(parameters, name) != usual:
            option = "--" + name.replace("_", "-")
            raise UsageError(f"--delay {NEVER}: the backend gives no answer, so {option} does nothing; leave it out")
