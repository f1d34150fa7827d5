"""What of ``blocking``'s parameters cannot be measured together: said before anything is."""

from __future__ import annotations

from c10k_probe.exits import UsageError
from c10k_probe.servers import POOLS

from ._blocking_design import NEVER, OPEN, PLATEAU, WITH_WORKERS, BlockingParameters


def check(parameters: BlockingParameters) -> None:
    """Raise ``UsageError`` for what cannot be measured together."""
    if parameters.fault == "none" and parameters.fault_after is not None:
        raise UsageError("--fault-after says when --fault begins; name a --fault, or leave --fault-after out")
    if parameters.delay == NEVER:
        _check_never(parameters)
    if OPEN in parameters.part and not set(parameters.model) & set(WITH_WORKERS) and PLATEAU not in parameters.part:
        raise UsageError(f"--part {OPEN} needs a pool; add one to --model: {', '.join(WITH_WORKERS)}")
    if PLATEAU not in parameters.part:
        for name, usual in (("delay_kind", "fixed"), ("keep_alive", "off"), ("fault", "none")):
            if getattr(parameters, name) != usual:
                option = "--" + name.replace("_", "-")
                raise UsageError(f"{option} is for the plateau alone; add plateau to --part, or leave {option} out")
    if PLATEAU in parameters.part and parameters.keep_alive == "on" and set(parameters.model) & set(POOLS):
        starved = [(w, c) for w in parameters.workers for c in parameters.concurrency if c > w]
        if starved:
            w, c = starved[0]
            raise UsageError(
                f"--keep-alive on: with {w} workers, {c - w} of {c} connections of a pool would never be served; "
                "leave it off, or name only models and --concurrency that fit"
            )


def _check_never(parameters: BlockingParameters) -> None:
    if PLATEAU not in parameters.part:
        raise UsageError(f"--delay {NEVER} is for the plateau alone; add plateau to --part, or name a time")
    for name, usual in (("delay_kind", "fixed"), ("fault", "none")):
        if getattr(parameters, name) != usual:
            option = "--" + name.replace("_", "-")
            raise UsageError(f"--delay {NEVER}: the backend gives no answer, so {option} does nothing; leave it out")
