"""``trace-overhead`` as a user meets it: at its smallest, without tools, without root, with a wrong option."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command import complaint_of, rows_of, run
from conftest import cannot_run

from c10k_probe.parts import find_part
from c10k_probe.tracing.choose import try_backend

SMALL = ("trace-overhead", "--repeats", 1, "--seed", 3, "--connections", 4, "--csv", "-")
TRACERS = ("proc", "bcc-counts", "bcc", "perf", "strace")


@pytest.fixture
def require_parts() -> Callable[..., None]:
    def require(*names: str) -> None:
        for part in map(find_part, names):
            if part.path is None:
                cannot_run(f"{part.name} is not installed; {part.command}")

    return require


@pytest.fixture(scope="module")
def every_backend() -> None:
    for name in ("bcc", "perf", "strace"):
        trial = try_backend(name)
        if not trial.works:
            cannot_run(f"{name} does not work here: {trial.reason}; {trial.lift}")


def test_every_backend_once(every_backend: None, require_parts: Callable[..., None], tmp_path: Path) -> None:
    """All count the same calls for a request, and each says what it took; what nobody knows is empty."""
    require_parts("nginx", "wrk")
    out = tmp_path / "run.jsonl"
    finished = run(*SMALL, "--server", "nginx", "--json", out, cwd=tmp_path)
    assert finished.code == 0, finished.stderr
    rows = {row["tracer"]: row for row in rows_of(finished.stdout)}
    assert set(rows) == {"off", *TRACERS}
    for name, row in rows.items():
        assert (row["server"], row["status"], row["launches_count"], row["failed_count"]) == ("nginx", "ok", "1", "0")
        assert re.fullmatch(r"nginx/\d+\.\d+\.\d+", row["server_version"])
        assert (row["body_bytes"], 100 < int(row["header_bytes"]) < 1000) == ("4096", True)
        assert int(row["requests_count"]) > 0
        assert float(row["traced_p50_ns"]) > 0
        assert float(row["throughput_over_off_ratio"]) > 0
        counts = name not in ("off", "proc")
        assert bool(row["calls_per_request_count"]) == counts
        if counts:  # recvfrom, openat, fstat, pread64 or sendfile, writev, close, and a share of epoll_wait
            assert 5 < float(row["calls_per_request_count"]) < 8
        assert (row["dropped_count"] == "0") == name.startswith("bcc")
        assert bool(row["ready_s"]) == (name != "off")
        assert bool(row["tracer_peak_rss_bytes"]) == counts
    records = [json.loads(line) for line in out.read_text().splitlines()]
    subjects = [record["subject"] for record in records if record["type"] == "finding"]
    void = {name for name, row in rows.items() if row["grade"] == "void"}
    expected = [] if "off" in void else [f"nginx traced by {name}" for name in TRACERS if name not in void]
    assert subjects == expected


def test_the_reference_models(tmp_path: Path) -> None:
    """Two calls an echo, and with a worker of its own for each connection a switch at most for each call."""
    tracer = "bcc-counts" if try_backend("bcc").works else "proc"
    servers = "epoll,fork"
    finished = run(*SMALL, "--server", servers, "--backend", tracer, cwd=tmp_path)
    assert finished.code == 0, finished.stderr
    rows = {(row["server"], row["tracer"]): row for row in rows_of(finished.stdout)}
    assert set(rows) == {(server, name) for server in servers.split(",") for name in ("off", tracer)}
    for (_, name), row in rows.items():
        assert (row["status"], row["failed_count"]) == ("ok", "0")
        assert int(row["requests_count"]) > 0
        if name == "bcc-counts":
            assert 2 <= float(row["calls_per_request_count"]) < 3.5
            assert float(row["switches_per_request_count"]) < 3.5


# --- what is missing --------------------------------------------------------------------------------------------------


def path_with(folder: Path, *names: str) -> dict[str, str]:
    """A PATH that has these programs only; nginx is found where it lies in any case."""
    folder.mkdir()
    for name in names:
        (folder / name).symlink_to(str(find_part(name).path))
    return {"PATH": str(folder)}


def test_a_missing_backend_is_a_skipped_row_that_names_its_package(
    require_parts: Callable[..., None], tmp_path: Path
) -> None:
    require_parts("nginx", "wrk")
    changes = path_with(tmp_path / "bin", "wrk")
    finished = run(*SMALL, "--server", "nginx", "--backend", "perf,strace", cwd=tmp_path, changes=changes)
    assert finished.code == 0, finished.stderr
    rows = {row["tracer"]: row for row in rows_of(finished.stdout)}
    assert {name: row["status"] for name, row in rows.items()} == {
        "off": "ok",
        "perf": "skipped",
        "strace": "skipped",
    }
    for name, package in (("perf", "linux-perf"), ("strace", "strace")):
        assert f"{name} is not installed" in rows[name]["reason"]
        assert f"apt-get install {package}" in rows[name]["reason"]


def test_without_a_load_generator_nothing_can_be_measured(require_parts: Callable[..., None], tmp_path: Path) -> None:
    require_parts("nginx")
    changes = path_with(tmp_path / "bin")
    finished = run(*SMALL, "--server", "nginx", "--backend", "proc", cwd=tmp_path, changes=changes)
    assert finished.code == 77, finished.stderr
    rows = rows_of(finished.stdout)
    assert [row["status"] for row in rows] == ["skipped"] * 2
    for row in rows:
        assert row["reason"].startswith("wrk is not installed; ")
        assert row["reason"].endswith("apt-get install wrk")


def test_without_a_load_generator_the_reference_model_stands_in(tmp_path: Path) -> None:
    finished = run(*SMALL, "--backend", "off", cwd=tmp_path, changes=path_with(tmp_path / "bin"))
    assert finished.code == 0, finished.stderr
    statuses = {row["server"]: row["status"] for row in rows_of(finished.stdout)}
    assert statuses == {"nginx": "skipped", "epoll": "ok"}


def test_without_root_what_needs_it_is_skipped(
    require_root: None,
    require_parts: Callable[..., None],
    require_tool: Callable[[str], str],
    tmp_path: Path,
) -> None:
    require_parts("nginx", "wrk")
    wrapper = (require_tool("setpriv"), "--reuid", "65534", "--regid", "65534", "--clear-groups")
    again = "import subprocess, sys; subprocess.run([sys.executable, '-c', ''], check=True)"
    if subprocess.run([*wrapper, sys.executable, "-c", again], capture_output=True, check=False).returncode:
        cannot_run(f"the Python in {Path(sys.executable).resolve()} cannot be started by another user")
    tmp_path.chmod(0o777)
    finished = run(*SMALL, "--server", "nginx", "--backend", "proc,bcc", cwd=tmp_path, wrapper=wrapper)
    assert finished.code == 0, finished.stderr
    rows = {row["tracer"]: row for row in rows_of(finished.stdout)}
    assert {name: row["status"] for name, row in rows.items()} == {"off": "ok", "proc": "ok", "bcc": "skipped"}
    assert "sudo" in rows["bcc"]["reason"]


def test_a_part_of_a_second_is_refused(tmp_path: Path) -> None:
    finished = run("trace-overhead", "--duration", "1500ms", cwd=tmp_path)
    assert finished.code == 2
    assert "--duration: only whole seconds" in complaint_of(finished)
