"""Finds experiments: those of the package, and those in a folder of the user's own."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from pathlib import Path
from types import ModuleType

from c10k_probe.exits import ExitCode, UsageError, UserError
from c10k_probe.experiment import AnyExperiment, Experiment

_PACKAGE = "c10k_probe.experiments"


def find_experiments(folder: Path | None = None) -> dict[str, AnyExperiment]:
    """Name -> experiment, sorted by name. Raises ``UserError`` for a file that holds none, or a name used twice."""
    found: dict[str, AnyExperiment] = {}
    for module in [*_packaged_modules(), *(_modules_of(folder) if folder else [])]:
        experiment = _experiment_of(module)
        if experiment.name in found:
            raise UserError(f"two experiments are named {experiment.name}; rename the one in {module.__file__}")
        found[experiment.name] = experiment
    return dict(sorted(found.items()))


def documentation(experiment: AnyExperiment) -> str:
    """The docstring of the experiment's file."""
    return (sys.modules[type(experiment).__module__].__doc__ or "").strip()


def _packaged_modules() -> list[ModuleType]:
    package = importlib.import_module(_PACKAGE)
    return [importlib.import_module(f"{_PACKAGE}.{item.name}") for item in pkgutil.iter_modules(package.__path__)]


def _modules_of(folder: Path) -> list[ModuleType]:
    if not folder.is_dir():
        raise UsageError(f"--experiments: {folder} is not a folder; name one that holds experiment files")
    return [_load(path) for path in sorted(folder.glob("*.py")) if not path.name.startswith("_")]


def _load(path: Path) -> ModuleType:
    """Import one file under a name of its own. Raises ``UserError`` with the file, line and mistake."""
    name = f"c10k_probe_user_experiments.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a user's file may fail in any way, and each way is one line
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        line = trace.tb_lineno if trace is not None else 0
        message = f"{path}:{line}: {type(error).__name__}: {error}; mend the file or leave out --experiments"
        raise UserError(message, ExitCode.ERROR) from None
    return module


def _experiment_of(module: ModuleType) -> AnyExperiment:
    experiment = getattr(module, "EXPERIMENT", None)
    if not isinstance(experiment, Experiment):
        raise UserError(f"{module.__file__} has no EXPERIMENT = ...; every experiment file ends with one")
    return experiment
