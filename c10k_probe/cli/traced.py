"""``--trace`` of an experiment: which backend, found by tracing a process with it before anything is measured."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from c10k_probe.exits import UsageError
from c10k_probe.experiment import OFF, AnyExperiment
from c10k_probe.parameters import Parameters
from c10k_probe.tracing.base import Options, Target, Tracer
from c10k_probe.tracing.bcc_backend import find_interpreter
from c10k_probe.tracing.choose import CHOICES, SEES, open_tracer

_VERSION_PATIENCE_S: Final = 10
_BCC_VERSION: Final = "import sys; sys.path += sys.argv[1:]; import bcc; print(bcc.__version__)"


@dataclass(frozen=True)
class Chosen:
    """The backend of a run, and what ``run.json`` says of it."""

    backend: str
    facts: Mapping[str, object]


def choose_backend(experiment: AnyExperiment, parameters: Parameters, choice: str | None) -> Chosen | None:
    """The backend for ``--trace``; None without. It has traced a waiting process here, as it will trace launches.

    Raises ``UsageError`` for an unknown choice and for what cannot be traced, ``TracerUnavailable`` (exit 77) where
    the backend does not work here.
    """
    if choice is None or choice == OFF:
        return None
    if choice not in CHOICES:
        raise UsageError(f"--trace: {choice!r} is not known; choose from {', '.join(CHOICES)}")
    why = experiment.untraceable(parameters)
    if why:
        raise UsageError(f"--trace: {experiment.name} cannot be traced so: {why}; leave --trace out")
    with subprocess.Popen(["/bin/sh", "-c", "read -r _"], stdin=subprocess.PIPE) as process:
        try:
            with open_tracer(choice, Target(pids=[process.pid]), Options(interval_s=0.1)) as tracer:
                return Chosen(tracer.name, _facts(choice, tracer))
        finally:
            process.kill()


def _facts(choice: str, tracer: Tracer) -> dict[str, object]:
    return {
        "asked": choice,
        "backend": tracer.name,
        "version": _version(tracer.name),
        "sees": SEES[tracer.name],
        "passed_over": [str(error) for error in tracer.refused],
    }


def _version(backend: str) -> str | None:
    """What the backend's program says of itself; None of /proc, which is the kernel's."""
    if backend == "bcc":
        interpreter, *folders = find_interpreter() or ("",)
        return _said([interpreter, "-IB", "-c", _BCC_VERSION, *folders])
    commands = {"perf": ["perf", "--version"], "strace": ["strace", "-V"]}
    return _said(commands[backend]) if backend in commands else None


def _said(command: Sequence[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_VERSION_PATIENCE_S, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.splitlines()), "").strip() or None
