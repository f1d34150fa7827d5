"""What every test may use: tools by name, a results folder, and a guard that nothing of a run is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from c10k_probe import native

MARK = f"C10K_PROBE_TEST_SESSION={os.getpid()}"
os.environ.update([MARK.split("=")])
# a test run below nohup or in a shell's background inherits signals that are ignored, and so would what it starts
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

DYING_S = 2.0
HELPER_PROGRAMS = {*native.HELPERS, "ab", "perf", "strace", "wrk"}
HELPER_SCRIPTS = (b"/bcc_helper.py\0", b"/doctor_keeper.py\0", b"/janitor.py\0", b"\0-m\0c10k_probe.")
# Files whose tests may run beside others: they read nothing that all of the machine shares (its memory,
# its counters, its programs of BPF), do not load it, and compare no times that a neighbour changes. A test of such a
# file that does bears the mark ``alone``.
BESIDE = {
    "tests/integration": (
        *("ab_counts", "bad_input", "blocking", "cli", "connections", "connections_on_real_servers", "cores"),
        *("cost_model", "creation", "creation_stall", "demonstrations", "display", "doctor_install"),
        *("every_experiment", "failures", "fork_latency_runs", "full_disk", "interrupted_runs", "nginx"),
        *("pictures_at_end", "plot", "readiness", "real_servers", "scheduling", "servers_command", "servers_truth"),
        *("slow_clients", "trace_command", "trace_overhead", "traced_runs", "traced_servers", "tracing_edges"),
        *("tracing_truth", "walls", "watch_command"),
    ),
}
ALONE = {
    "tests/native": (
        *("descriptor_tables", "http_sender", "scheduling_ring", "scheduling_shares", "scheduling_slice"),
        "slow_clients",
    ),
    "tests/unit": ("limits", "machine", "observe", "observe_memory", "observe_sockets", "serving", "tracing_trees"),
}
REQUIRE_ALL = os.environ.get("C10K_PROBE_REQUIRE_ALL") == "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what may run beside other tests.

    A file that is new in tests/unit or tests/native may run beside others, one in tests/integration not before it is
    named.
    """
    for item in items:
        folder = item.path.parent.relative_to(item.config.rootpath).as_posix()
        if _may_run_beside(item, folder):
            item.add_marker("beside")


def _may_run_beside(item: pytest.Item, folder: str) -> bool:
    if item.get_closest_marker("alone"):
        return False
    name = item.path.stem.removeprefix("test_")
    return name not in ALONE[folder] if folder in ALONE else name in BESIDE.get(folder, ())


def cannot_run(reason: str) -> None:
    """Skip, saying by name what is missing; a failure where everything is required to be there."""
    if REQUIRE_ALL:
        pytest.fail(f"C10K_PROBE_REQUIRE_ALL is set and {reason}")
    pytest.skip(reason)


@pytest.fixture
def require_tool() -> Callable[[str], str]:
    """The path of a program, or the skip that names it."""

    def require(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            cannot_run(f"{name} is not installed")
        return str(path)

    return require


@pytest.fixture
def require_root() -> None:
    """Skip without root."""
    if os.geteuid() != 0:
        cannot_run("root is needed")


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary files go; unlike pytest's own folders it lets an unprivileged user through."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    shutil.rmtree(folder)


def processes_of(marker: str) -> list[str]:
    """Command lines of living processes that contain ``marker``."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if marker in line:
                found.append(line)
    return found


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """No test may leave a helper running; one that is being killed with its parent may take a moment to be gone."""
    before = set(helper_pids())
    yield
    deadline = time.monotonic() + DYING_S
    while (left := set(helper_pids()) - before) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left, f"helpers left running: {left}"


def helper_pids() -> list[int]:
    """Pids of living (not zombie) helpers that descend from this test session, orphans included.

    It is read before and after each test, so what is no helper by its program is passed over at once.
    """
    pids = []
    for pid in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208 -- a Path for each takes longer than all else
        try:
            program = os.path.basename(os.readlink(f"/proc/{pid}/exe")).removesuffix(" (deleted)")  # noqa: PTH115, PTH119
            if not (program.startswith("python") or program.partition("-static")[0] in HELPER_PROGRAMS):
                continue
            command = Path(f"/proc/{pid}/cmdline").read_bytes() if program.startswith("python") else b""
            is_helper = not command or any(name in command for name in HELPER_SCRIPTS)
            if is_helper and MARK.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                pids.append(int(pid))
        except OSError:
            continue
    return pids
