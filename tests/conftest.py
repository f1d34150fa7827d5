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
REQUIRE_ALL = os.environ.get("C10K_PROBE_REQUIRE_ALL") == "1"


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
    """Pids of living (not zombie) helpers that descend from this test session, orphans included."""
    names = {*native.HELPERS, "ab", "perf", "strace", "wrk"}
    scripts = (b"/bcc_helper.py\0", b"/janitor.py\0")
    pids = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            program = (
                Path(str((folder / "exe").readlink()))
                .name.removesuffix(" (deleted)")
                .removesuffix("-static-pie")
                .removesuffix("-static")
            )
            environment = (folder / "environ").read_bytes()
            command_line = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        is_script = any(name in command_line for name in scripts) or b"\0-m\0c10k_probe." in command_line
        if (is_script or program in names) and MARK.encode() in environment.split(b"\0"):
            pids.append(int(folder.name))
    return pids
