"""The commands that measure nothing: help, version, list, show, doctor."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import Finished, environment, on_terminal, run, run_folders, run_here, run_inside, without_escapes
from conftest import cannot_run

import c10k_probe
from c10k_probe import native, parts
from c10k_probe.observe.walls import WALLS
from c10k_probe.registry import find_experiments
from c10k_probe.servers import MODELS, prediction

EXPERIMENTS = find_experiments()
LOOKERS = {"list", "show", "doctor"}


@pytest.fixture(scope="module")
def cwd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all commands, which must stay empty of results."""
    return tmp_path_factory.mktemp("look")


@pytest.fixture(scope="module")
def doctor(cwd: Path) -> Finished:
    """What the doctor says in words."""
    return run("doctor", cwd=cwd)


@pytest.fixture(scope="module")
def report(cwd: Path) -> dict[str, Any]:
    """What the doctor says as JSON."""
    finished = run("doctor", "--json", cwd=cwd)
    assert (finished.code, finished.stderr) == (0, "")
    loaded: dict[str, Any] = json.loads(finished.stdout)
    return loaded


def test_version(cwd: Path) -> None:
    """The package's own version, and that of its metadata, on stdout."""
    finished = run("--version", cwd=cwd)
    assert (finished.code, finished.stdout, finished.stderr) == (0, f"c10k-probe {c10k_probe.__version__}\n", "")


def test_installed_command_is_the_same_as_the_module(cwd: Path) -> None:
    """``c10k-probe`` beside the interpreter does what ``python -m c10k_probe`` does."""
    script = Path(sys.executable).with_name("c10k-probe")
    if not script.exists():
        cannot_run(f"{script} is not installed")
    for arguments in (("list",), ("--help",), ("show", "connections"), ("fork-latency", "--help")):
        own = subprocess.run(
            [script, *arguments], cwd=cwd, env=environment("x"), capture_output=True, text=True, check=True
        )
        assert own.stdout == run(*arguments, cwd=cwd).stdout


def test_help_names_every_command(cwd: Path) -> None:
    """Each experiment with its question, and the commands that look around."""
    finished = run_inside("--help", cwd=cwd)
    assert (finished.code, finished.stderr) == (0, "")
    first_words = {line.split()[0] for line in finished.stdout.splitlines() if line.startswith("  ") and line.split()}
    assert set(EXPERIMENTS) | LOOKERS <= first_words
    flat = " ".join(finished.stdout.split())
    assert all(experiment.question in flat for experiment in EXPERIMENTS.values())


@pytest.mark.parametrize("command", sorted(LOOKERS))
def test_help_of_each_looker(cwd: Path, command: str) -> None:
    """Every command explains itself."""
    finished = run_inside(command, "--help", cwd=cwd)
    assert (finished.code, finished.stderr) == (0, "")
    assert f"c10k-probe {command}" in finished.stdout


def test_list(cwd: Path) -> None:
    """One line for each experiment, its name first."""
    finished = run_inside("list", cwd=cwd)
    assert (finished.code, finished.stderr) == (0, "")
    lines = [line.split(maxsplit=1) for line in finished.stdout.splitlines()]
    assert lines == [[name, experiment.question] for name, experiment in EXPERIMENTS.items()]


def test_looking_measures_nothing(cwd: Path, doctor: Finished) -> None:
    """No run folder comes of it."""
    assert doctor.code == 0
    assert run_folders(cwd) == []


def test_doctor_in_words(doctor: Finished, report: dict[str, Any]) -> None:
    """Every limit, model, helper and part is named; commands stand whole on a line; no escape codes in a pipe."""
    assert (doctor.code, doctor.stderr) == (0, "")
    assert "\x1b" not in doctor.stdout
    assert "…" not in doctor.stdout
    words = set(doctor.stdout.split())
    assert {wall["name"] for wall in report["walls"]} <= words
    assert set(MODELS) | set(report["helpers"]) <= words
    assert all(part["name"] in doctor.stdout for part in report["parts"])
    lines = [line.strip() for line in doctor.stdout.splitlines()]
    for part in report["parts"]:
        if not part["found"]:
            assert any(line.endswith(part["command"]) for line in lines)
    for wall in report["walls"]:
        if wall["lift"]:
            assert any(line.endswith(wall["lift"]) for line in lines)


def test_doctor_fits_80_columns(cwd: Path) -> None:
    """On a terminal of 80 columns only commands that are to be copied may be longer."""
    with on_terminal("doctor", cwd=cwd, width=80) as terminal:
        code, output = terminal.finish()
    assert code == 0
    assert "…" not in output
    long = [line for line in without_escapes(output).splitlines() if len(line) > 80]
    copied = ("sysctl", "apt", "prlimit", "-O", "echo", "tee")
    assert [line for line in long if not any(word in line for word in copied)] == []


def test_doctor_knows_the_machine(report: dict[str, Any]) -> None:
    """Facts that can be read in another way are the same; nothing private is among them."""
    machine = report["machine"]
    assert machine["kernel_release"] == os.uname().release
    assert machine["architecture"] == os.uname().machine
    assert machine["cpu_online_count"] == os.cpu_count()
    assert machine["cpu_affinity_count"] == len(os.sched_getaffinity(0))
    assert machine["rlimit_nofile_hard_count"] == resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert report["version"] == c10k_probe.__version__
    assert os.uname().nodename not in [value for value in machine.values() if isinstance(value, str)]


def test_doctor_knows_every_wall(report: dict[str, Any]) -> None:
    """Walls have all their fields; those that bind this process are there with its own number."""
    walls = {wall["name"]: wall for wall in report["walls"]}
    assert set(walls) <= {row.name for row in WALLS}
    assert {"descriptors", "ports", "pids", "threads", "maps", "backlog", "memory"} <= set(walls)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = int(Path("/proc/sys/fs/nr_open").read_text(encoding="ascii"))
    assert walls["descriptors"]["limit_count"] == (most if hard == resource.RLIM_INFINITY else min(hard, most))
    assert walls["pids"]["limit_count"] <= int(Path("/proc/sys/kernel/pid_max").read_text(encoding="ascii"))
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split())
    assert walls["ports"]["limit_count"] <= high - low + 1
    for wall in walls.values():
        assert wall["kind"] in ("administrative", "architectural")
        assert wall["scope"] in ("process", "user", "cgroup", "machine", "address")
        assert wall["unit"]
        assert wall["source"]


def test_doctor_predicts_for_every_model(report: dict[str, Any]) -> None:
    """A count and the wall that binds, which is one of the walls."""
    assert [row["model"] for row in report["predictions"]] == list(MODELS)
    names = {wall["name"] for wall in report["walls"]} | {prediction.POOL}  # a model may have a wall of its own
    for row in report["predictions"]:
        assert row["count"] > 0
        assert row["wall"] in names
        assert row["kind"] in ("administrative", "architectural")


def test_doctor_knows_the_helpers(report: dict[str, Any]) -> None:
    """Every helper in every build, with what it was built with."""
    helpers = report["helpers"]
    ends = {"": "dynamic", "-static": "static", "-static-pie": "static-pie"}
    linkings = {name + end: linking for name in native.HELPERS for end, linking in ends.items()}
    assert {name: hello["linking"] for name, hello in helpers.items()} == linkings
    for hello in helpers.values():
        assert "-O2" in hello["flags"]
        assert hello["compiler"]
        assert hello["clock_cost_ns"] > 0
        assert Path(hello["path"]).is_file()


def test_doctor_knows_the_parts(report: dict[str, Any]) -> None:
    """Parts are found where the shell finds them; each comes with a command of the distribution, never of PyPI."""
    found = {part["name"]: part for part in report["parts"]}
    assert set(found) == {part.name for part in parts.find_parts()}
    for program in ("strace", "nginx", "wrk"):
        assert bool(shutil.which(program)) <= found[program]["found"]
    for part in found.values():
        assert part["command"]
        assert "pip install" not in part["command"]
        assert part["found"] == (part["path"] is not None)


def test_the_command_may_run_twice_in_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What embeds it calls ``main`` again and again."""
    monkeypatch.chdir(tmp_path)
    arguments = ["fork-latency", "--n", 1, "--repeats", 1, "--method", "vfork", "--quiet"]
    assert [run_here(*arguments) for _ in range(2)] == [0, 0]
    assert len(run_folders(tmp_path)) == 2
