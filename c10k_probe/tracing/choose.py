"""Which backend: the one that is named, or the best that works here; and which do, found by trying them."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from c10k_probe.exits import UsageError
from c10k_probe.native import HelperError
from c10k_probe.tracing.base import Options, Target, Tracer, TracerUnavailable
from c10k_probe.tracing.bcc_backend import BccTracer
from c10k_probe.tracing.perf import PerfTracer
from c10k_probe.tracing.proc import ProcTracer
from c10k_probe.tracing.result import Trace
from c10k_probe.tracing.strace import StraceTracer

BACKENDS: Final[Mapping[str, type[Tracer]]] = {
    tracer.name: tracer for tracer in (BccTracer, PerfTracer, StraceTracer, ProcTracer)
}
AUTO: Final = "auto"
OFF: Final = "off"
CHOICES: Final = (AUTO, *BACKENDS, OFF)
# strace is not among them: it stops every task at every call, and nobody should be slowed down by not choosing
_AUTOMATIC: Final = ("bcc", "perf", "proc")
SEES: Final[Mapping[str, str]] = {
    "bcc": "calls, errors, latencies, switches, run-queue waits, forks, faults, TCP",
    "perf": "calls of chosen names, errors, switches, forks, faults",
    "strace": "calls that return and errors, at the end; slows every call down",
    "proc": "switches, faults, CPU, run-queue waits of what lives long enough",
}
_TRIAL: Final = ("/bin/sh", "-c", "exit 0")
_TRIAL_PATIENCE_S: Final = 5.0
# perf leaves each tracepoint for itself, which takes 40 ms; sums are counted without naming calls, but one is needed
_TRIAL_CALLS: Final[Mapping[str, tuple[str, ...]]] = {"perf": ("close",)}


@dataclass(frozen=True)
class Trial:
    """Whether a backend works here, tried on a shell that ends at once; why not, and the command that helps."""

    backend: str
    works: bool
    sees: str
    ready_s: float | None = None
    reason: str = ""
    lift: str = ""


def open_tracer(choice: str, target: Target, options: Options | None = None) -> Tracer:
    """A tracer that counts already; ``refused`` has what the better ones lack. Leave it as a context, or ``close`` it.

    Raises ``UsageError`` for an unknown choice or a target that cannot be, ``TracerUnavailable`` when the named
    backend cannot work here.
    """
    if choice not in (AUTO, *BACKENDS):
        raise UsageError(f"--trace: {choice!r} is not known; choose from {', '.join(CHOICES)}")
    refused: list[TracerUnavailable] = []
    for name in _AUTOMATIC if choice == AUTO else (choice,):
        try:
            tracer = BACKENDS[name](target, options or Options()).begin()
        except TracerUnavailable as error:
            refused.append(error)
        else:
            tracer.refused = refused
            return tracer
    raise refused[-1]


def try_backend(name: str) -> Trial:
    """Trace a shell that ends at once, with this backend."""
    began_s = time.monotonic()
    try:
        tracer = BACKENDS[name](
            Target(command=_TRIAL), Options(interval_s=0.1, calls=_TRIAL_CALLS.get(name, ()))
        ).begin()
    except TracerUnavailable as error:
        return Trial(name, False, SEES[name], reason=error.reason, lift=error.lift)
    ready_s = time.monotonic() - began_s
    try:
        with tracer:
            while not tracer.is_over() and time.monotonic() - began_s < _TRIAL_PATIENCE_S:
                time.sleep(0.01)
            trace = tracer.stop()
    except HelperError as error:
        return Trial(name, False, SEES[name], ready_s, str(error))
    if not _has_counted(trace):
        return Trial(name, False, SEES[name], ready_s, "it counted nothing")
    return Trial(name, True, SEES[name], ready_s)


def _has_counted(trace: Trace) -> bool:
    return trace.backend == "proc" or bool(trace.calls_count)


def try_all() -> list[Trial]:
    """Every backend, in the order of BACKENDS; bcc, which mostly waits for its compiler, while the others are tried."""
    with _tried_apart("bcc") as bcc:
        trials = {name: try_backend(name) for name in BACKENDS if name != "bcc"}
    trials["bcc"] = bcc[0] if bcc else try_backend("bcc")
    return [trials[name] for name in BACKENDS]


@contextmanager
def _tried_apart(name: str) -> Iterator[list[Trial]]:
    """Try a backend in a process of its own meanwhile: tracers know their children, which two would mix up here.

    The list holds the trial after the block, and is empty if that process ended without one.
    """
    trials: list[Trial] = []
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reading)
            os.write(writing, json.dumps(dataclasses.asdict(try_backend(name))).encode())
        finally:
            os._exit(0)
    os.close(writing)
    try:
        yield trials
    finally:
        with open(reading, encoding="utf-8") as pipe:  # noqa: PTH123 -- a descriptor
            said = pipe.read()
        os.waitpid(pid, 0)
    if said:
        trials.append(Trial(**json.loads(said)))
