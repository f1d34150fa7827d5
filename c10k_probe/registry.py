"""Finds experiments: those of the package, and those in a folder of the user's own.

A file's name is the experiment's name, the first line of its docstring is its question: what there is can be told
without importing anything, which keeps ``--help`` quick.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from c10k_probe.exits import ExitCode, UsageError, UserError

if TYPE_CHECKING:
    from c10k_probe.experiment import AnyExperiment

_PACKAGE = "c10k_probe.experiments"
_QUOTES = '"""'


@dataclass(frozen=True)
class Entry:
    """An experiment that was seen, not yet imported; ``packaged`` unless it is in the user's folder."""

    name: str
    question: str
    path: Path
    packaged: bool


def outline(folder: Path | None = None) -> dict[str, Entry]:
    """Name -> entry, sorted by name. Raises ``UserError`` for a missing folder or question, or a name used twice."""
    if folder is not None and not folder.is_dir():
        raise UsageError(f"--experiments: {folder} is not a folder; name one that holds experiment files")
    entries = [*_entries(_package_folders(), packaged=True), *_entries([folder] if folder else [], packaged=False)]
    found: dict[str, Entry] = {}
    for entry in entries:
        if entry.name in found:
            raise UserError(f"two experiments are named {entry.name}; rename the one in {entry.path}")
        found[entry.name] = entry
    return dict(sorted(found.items()))


def load(entry: Entry) -> AnyExperiment:
    """Import one experiment. Raises ``UserError`` with file, line and mistake when that fails."""
    from c10k_probe.experiment import Experiment

    module = importlib.import_module(f"{_PACKAGE}.{entry.path.stem}") if entry.packaged else _import_file(entry.path)
    experiment = getattr(module, "EXPERIMENT", None)
    if not isinstance(experiment, Experiment):
        raise UserError(f"{entry.path} has no EXPERIMENT = ...; every experiment file ends with one")
    return experiment


def find_experiments(folder: Path | None = None) -> dict[str, AnyExperiment]:
    """Every experiment, imported: name -> experiment, sorted by name."""
    return {name: load(entry) for name, entry in outline(folder).items()}


def documentation(experiment: AnyExperiment) -> str:
    """The docstring of the experiment's file."""
    return (sys.modules[type(experiment).__module__].__doc__ or "").strip()


def _package_folders() -> list[Path]:
    return [Path(path) for path in importlib.import_module(_PACKAGE).__path__]


def _entries(folders: Iterable[Path], *, packaged: bool) -> list[Entry]:
    """The experiment files of some folders; a file whose name starts with ``_`` is none."""
    files = [path for folder in folders for path in sorted(folder.glob("*.py")) if not path.name.startswith("_")]
    return [Entry(path.stem.replace("_", "-"), _question(path), path, packaged) for path in files]


def _question(path: Path) -> str:
    """The first line of a file's docstring."""
    with path.open(encoding="utf-8", errors="replace") as file:
        line = file.readline().strip()
    question = line.removeprefix(_QUOTES).removesuffix(_QUOTES).strip()
    if not line.startswith(_QUOTES) or not question:
        raise UserError(f"{path}:1: no question; the file begins with a docstring whose first line is the question")
    return question


def _import_file(path: Path) -> ModuleType:
    name = f"c10k_probe_user_experiments.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a user's file may fail in any way, and each way is one line
        line = _failing_line(error, path)
        what = " ".join(str(error).split())
        message = f"{path}:{line}: {type(error).__name__}: {what}; mend the file or leave out --experiments"
        raise UserError(message, ExitCode.ERROR) from None
    return module


def _failing_line(error: Exception, path: Path) -> int:
    """The last line of ``path`` on the way to the error; that of a syntax error stands in the error itself."""
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return error.lineno
    line, trace = 1, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
