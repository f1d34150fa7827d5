"""The C sources compile without a warning, and valgrind finds nothing in small runs."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import cannot_run

from c10k_probe import native
from c10k_probe.servers import REFERENCE_MODELS
from native.driving import Server, echo, few_workers, holding, reset

CORE = Path(__file__).resolve().parents[2] / "c10k_probe" / "_core"
FLAGS = ["-std=gnu17", "-O2", "-Wall", "-Wextra", "-Wshadow", "-Wstrict-prototypes", "-Werror"]
DEFINED = ['-DC10K_LINKING="dynamic"', '-DC10K_FLAGS="none"', "-DC10K_LOADS_LIBRARIES=1"]
VALGRIND = "-q --leak-check=full --errors-for-leak-kinds=definite,indirect --error-exitcode=99"
METHODS = ("fork", "vfork", "posix_spawn", "pthread_create")  # clone3: valgrind does not know the call


def test_the_sources_compile_without_a_warning(require_tool: Callable[[str], str], tmp_path: Path) -> None:
    sources = sorted(map(str, CORE.glob("*.c")))
    assert len(sources) > len(native.HELPERS)

    # Compiled and not only parsed: half of the warnings come from the optimizer's analysis.
    command = [require_tool("gcc"), *FLAGS, *DEFINED, "-c", *sources]
    outcome = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert (outcome.returncode, outcome.stderr) == (0, "")


@pytest.fixture
def under_valgrind(
    require_tool: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Helpers started in the test run under memcheck; afterwards none of them, and no child, has complained."""
    program = require_tool("valgrind")
    if subprocess.run([program, "-q", "true"], capture_output=True, check=False).returncode != 0:
        cannot_run("valgrind does not work here")
    for name in native.HELPERS:
        wrapper = tmp_path / name
        log = f"--log-file={tmp_path}/{name}.%p.log"
        wrapper.write_text(f"#!/bin/sh\nexec '{program}' {VALGRIND} '{log}' '{native.find(name)}' \"$@\"\n")
        wrapper.chmod(0o755)
    monkeypatch.setenv(native.HELPERS_VARIABLE, str(tmp_path))
    yield
    logs = {path.name: path.read_text() for path in tmp_path.glob("*.log")}
    assert logs, "nothing ran under valgrind"
    assert {name: text for name, text in logs.items() if text} == {}


@pytest.mark.usefixtures("under_valgrind")
@pytest.mark.parametrize("method", METHODS)
def test_memcheck_fork_latency(method: str) -> None:
    arguments = ["--method", method, "--samples", 5, "--warmup", 1, "--placement", "one-cpu"]
    with native.Helper("fork_latency", arguments) as helper:
        helper.expect("facts")
        helper.expect("samples")
        assert helper.finish()["samples_count"] == 5  # finish() insists on exit code 0


@pytest.mark.usefixtures("under_valgrind")
@pytest.mark.parametrize("model", REFERENCE_MODELS)
def test_memcheck_server_and_holder(model: str) -> None:
    with Server(model, *few_workers(model)) as server:
        with holding(server.port, "--timeout-ms", 20_000) as holder:
            assert holder.ask("ramp 10", "ramped")["open_count"] == 10
            assert holder.ask("echo", "echoed")["ok_count"] == 10
            assert holder.ask("echo 3 7", "echoed")["ok_count"] == 3
            assert holder.ask("pump 7 100 50", "pumped")["failed_count"] == 0
            assert holder.ask("pairs 5", "paired")["pairs_count"] == 5
            assert holder.ask("ramp 20", "ramped")["open_count"] == 20
            assert holder.ask("close", "closed")["closed_count"] == 20
            server.wait_for_open(0)
            assert holder.ask("ramp 3", "ramped")["open_count"] == 3
            holder.finish()
        mine = server.connect_served(2)
        assert echo(mine[0], bytes(10_000)) == bytes(10_000)
        reset(mine[0])
        server.wait_for_open(1)
        server.helper.send("quit")
        server.helper.finish()
