"""The rooms of the house: who may import whom, read from the imports themselves, so that the picture cannot drift."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import c10k_probe.experiments
import pytest

import c10k_probe

PACKAGE = Path(c10k_probe.__file__).parent
EXPERIMENTS = Path(str(c10k_probe.experiments.__file__)).parent
ROOT = EXPERIMENTS.parent

# Programs that measure from Python: other processes, which nothing imports.
PYTHON_HELPERS = "helper_in_python creation_in_python readiness_in_python servers_in_python"
# Room (a file or a folder of the package) -> the rooms that it must not know. `*` is every room of the project,
# `+name` an exception to it.
ROOMS: dict[str, str] = {
    "experiments": "sinks results runner events interrupts cli charts registry parts __main__",
    "experiment": "runner events interrupts sinks cli results native machine observe servers load tracing registry",
    "parameters": "* +units +exits",
    "pictures": "*",
    "fits": "* +stats",
    "helper_in_python": "*",
    "creation_in_python": "* +native +helper_in_python",
    "readiness_in_python": "* +helper_in_python",
    "servers_in_python": "* +helper_in_python",
    "traced": "* +experiment +stats +units",
    "registry": "* +experiment +experiments +exits",
    "accounts": "* +machine",
    "bench": "* +events +experiment",
    "runner": f"sinks cli charts experiments registry servers load tracing fits {PYTHON_HELPERS}",
    "events": "* +experiment +fits +exits",
    "interrupts": "* +native +exits",
    "results": "* +exits",
    "stats": "*",
    "units": "*",
    "exits": "*",
    "machine": "* +observe",
    "limits": "* +observe +units",
    "parts": "* +exits",
    "helper_errors": "*",
    "native": "* +exits +helper_errors",
    "observe": "* +stats",
    "tracing": "experiments experiment runner events sinks results cli charts stats registry",
    "servers": "load stats experiments experiment runner events sinks results cli charts registry",
    "load": "servers experiments experiment runner events sinks results cli charts registry",
    "sinks": f"runner experiments registry native machine observe servers load tracing cli charts {PYTHON_HELPERS}",
    "charts": f"runner experiments native servers load tracing sinks cli fits {PYTHON_HELPERS}",
    "cli": f"load {PYTHON_HELPERS}",
    "__init__": "*",
    "__main__": "* +cli",
}
# Library -> the rooms that may import it.
LIBRARIES: dict[str, str] = {
    "rich": "sinks cli charts",
    "typer": "cli",
    "click": "",
    "csv": "results charts",
    "numpy": "stats fits charts",
    "matplotlib": "charts",
    "plotext": "charts",
    "jinja2": "charts",
    "bcc": "tracing",
    "tornado": "servers",
    "liburing": "",
}
# Private modules of experiments -> the experiment that may import them; those of one experiment know each other.
# What several of them share knows none of them.
SHARED = "_traced_"
PRIVATE: dict[str, str] = {
    "_creation_": "fork_latency",
    "_connection_": "connections",
    "_readiness_": "readiness",
    "_scheduling_": "scheduling",
    "_servers_": "servers",
    "_blocking_": "blocking",
    "_trace_": "trace_overhead",
    "_short_": "short_connections",
    "_goodput_": "goodput",
    "_demonstration_": "demonstrations",
    "_cores_": "cores",
    "_slow_": "slow_clients",
}
HEAVY = ("numpy", "rich", "matplotlib", "plotext", "jinja2", "psutil")
LATE = ("c10k_probe.sinks", "c10k_probe.cli", "c10k_probe.charts")  # rooms that are themselves imported late
EXPERIMENT_ROOM = "c10k_probe.experiments"
BUILT = {"_bin", "_core", "__pycache__"}  # no Python


class Import(NamedTuple):
    """One imported module, where, and whether importing the file is enough to import it."""

    module: str
    line: int
    at_import: bool


def module_name(path: Path) -> str:
    if path.is_relative_to(EXPERIMENTS):
        parts = ("c10k_probe", "experiments", *path.relative_to(EXPERIMENTS).with_suffix("").parts)
    else:
        parts = ("c10k_probe", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(part for part in parts if part != "__init__")


FILES = {
    module_name(path): path
    for path in sorted([*PACKAGE.rglob("*.py"), *EXPERIMENTS.rglob("*.py")])
    if not BUILT & set(path.parts)
}


def room_of(module: str) -> str:
    """``c10k_probe.sinks.table`` -> ``sinks``; the package itself is ``__init__``."""
    return module.split(".")[1] if "." in module else "__init__"


def statements(node: ast.AST, at_import: bool = True) -> Iterator[tuple[ast.stmt, bool]]:
    """Import statements below a node; those in functions and under TYPE_CHECKING do not happen at import."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child, at_import
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            for item in child.body:
                yield from statements(ast.Module([item], []), False)
            yield from statements(ast.Module(child.orelse, []), at_import)
        else:
            inner = at_import and not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from statements(child, inner)


def absolute(module: str, node: ast.ImportFrom) -> str:
    """The module that names are taken from; only experiments, which may lie in any folder, write ``from . import``."""
    if node.level == 0:
        return node.module or ""
    assert (room_of(module), node.level) == ("experiments", 1), f"{module}:{node.lineno}: a relative import hides"
    return ".".join(part for part in (module.rpartition(".")[0], node.module) if part)


def owner_of(module: str) -> str:
    """The experiment that a module belongs to: itself, unless its name begins like a private part."""
    name = module.rpartition(".")[2]
    if name.startswith(SHARED):
        return SHARED
    return next((owner for prefix, owner in PRIVATE.items() if name.startswith(prefix)), name)


@cache
def imports_of(module: str) -> tuple[Import, ...]:
    found: list[Import] = []
    for node, at_import in statements(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, node.lineno, at_import) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = absolute(module, node)
            names = [f"{base}.{alias.name}" for alias in node.names]
            found += [Import(name if name in FILES else base, node.lineno, at_import) for name in names]
    return tuple(found)


def forbidden(room: str) -> set[str]:
    rules = ROOMS[room].split()
    names = {rule for rule in rules if rule[0] not in "*+"}
    if "*" in rules:
        names |= ROOMS.keys() - {"__init__"}
    return names - {rule[1:] for rule in rules if rule[0] == "+"} - {room}


every_file = pytest.mark.parametrize("module", FILES)


def test_every_room_has_a_row() -> None:
    there = {room_of(module) for module in FILES}
    assert there - ROOMS.keys() == set(), "a new room needs a row in ROOMS, and in the design"
    folders = {item.name for item in PACKAGE.iterdir() if item.is_dir()} - BUILT
    assert folders <= ROOMS.keys() | {"experiments"}


def test_every_rule_names_a_room() -> None:
    named = {rule.lstrip("+") for rules in ROOMS.values() for rule in rules.split()} - {"*"}
    assert named <= ROOMS.keys()
    assert {room for rooms in LIBRARIES.values() for room in rooms.split()} <= ROOMS.keys()


def test_the_reader_of_imports_reads() -> None:
    assert {"runner", "limits"} <= {room_of(item.module) for item in imports_of("c10k_probe.cli.measure")}
    late = [item for item in imports_of("c10k_probe.stats") if item.module == "numpy"]
    assert late
    assert not any(item.at_import for item in late)
    table = [item for item in imports_of("c10k_probe.cli.measure") if item.module == "c10k_probe.sinks.table"]
    assert table
    assert not any(item.at_import for item in table)


@every_file
def test_no_room_knows_what_it_must_not(module: str) -> None:
    banned = forbidden(room_of(module))
    for item in imports_of(module):
        if item.module.split(".")[0] == "c10k_probe":
            assert room_of(item.module) not in banned, f"{FILES[module]}:{item.line} imports {item.module}"


@every_file
def test_libraries_stay_in_their_rooms(module: str) -> None:
    for item in imports_of(module):
        allowed = LIBRARIES.get(item.module.split(".")[0])
        if allowed is not None:
            assert room_of(module) in allowed.split(), f"{FILES[module]}:{item.line} imports {item.module}"


@pytest.mark.parametrize("module", [name for name in FILES if room_of(name) == "experiments"])
def test_experiments_do_not_know_each_other(module: str) -> None:
    """Nor each other's private modules; and no private module is without its experiment."""
    for item in imports_of(module):
        assert item.module.split(".")[0] != "experiments", f"{module}:{item.line}: not its installed name"
        if item.module.startswith(EXPERIMENT_ROOM):
            assert item.module in FILES
            assert item.module.rpartition(".")[2].startswith("_"), f"{module}:{item.line} imports {item.module}"
            assert owner_of(item.module) in (owner_of(module), SHARED), f"{module}:{item.line} imports {item.module}"


def test_private_modules_belong_to_an_experiment() -> None:
    names = {module.rpartition(".")[2] for module in FILES if room_of(module) == "experiments"}
    for name in names:
        assert not name.startswith("_") or owner_of(name) in (names - {name}) | {SHARED}, (
            f"{name} needs a line in PRIVATE"
        )
    assert "_creation_rows" in {
        item.module.rpartition(".")[2] for item in imports_of(f"{EXPERIMENT_ROOM}.fork_latency")
    }


@every_file
def test_heavy_libraries_are_imported_late(module: str) -> None:
    for item in imports_of(module):
        if item.at_import and item.module.split(".")[0] in HEAVY:
            assert module.startswith(LATE), f"{FILES[module]}:{item.line} imports {item.module} at once"


@every_file
def test_modules_that_import_heavy_libraries_at_once_are_imported_late(module: str) -> None:
    heavy = {
        name for name in FILES for item in imports_of(name) if item.at_import and item.module.split(".")[0] in HEAVY
    }
    for item in imports_of(module):
        if item.module in heavy and module not in heavy:
            assert not item.at_import, f"{FILES[module]}:{item.line} imports {item.module} at once"


def test_finding_all_experiments_and_commands_loads_nothing_heavy() -> None:
    code = """
import sys
from c10k_probe.cli.app import invoke
from c10k_probe.registry import find_experiments
find_experiments()
invoke(["list"])
print(*sorted({name.split(".")[0] for name in sys.modules}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.splitlines()[-1].split()) & {"numpy", "matplotlib", "plotext", "jinja2", "psutil"} == set()


def test_no_cycle_of_imports() -> None:
    """At import time; a late import may close a circle."""
    graph = {
        name: {item.module for item in imports_of(name) if item.at_import and item.module in FILES} for name in FILES
    }
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for other in graph[name]:
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_names_that_mean_something_else_on_the_index_are_no_dependencies() -> None:
    """bcc and liburing of the package index are unrelated to the ones that are meant."""
    path = ROOT / "pyproject.toml"
    if not path.exists():
        pytest.skip("not run from the source tree")
    project = tomllib.loads(path.read_text())
    required = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    for extra in project["project"].get("optional-dependencies", {}).values():
        required += extra
    names = {"".join(c if c.isalnum() else " " for c in text).split()[0].lower() for text in required}
    assert names & {"bcc", "liburing", "bpfcc"} == set()
