"""Which tracing backends work here: each is tried once in a test run."""

from __future__ import annotations

from functools import cache

from conftest import cannot_run

from c10k_probe.tracing.choose import Trial, try_backend


@cache
def trial_of(name: str) -> Trial:
    """What trying this backend gave."""
    return try_backend(name)


def require(name: str) -> None:
    """Skip, with the backend's own reason, where it does not work."""
    trial = trial_of(name)
    if not trial.works:
        cannot_run(f"{name} does not work here: {trial.reason}; {trial.lift}")
