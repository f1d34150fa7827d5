"""quickstart keeps services that come with packages from being started and enabled, on a machine made for the test."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import cannot_run

QUICKSTART = Path(__file__).parents[2] / "quickstart"
# What stands for the package tool asks as its scripts would, enables two services and fails with 7.
PROGRAM = """
as_root() {{ "$@"; }}
systemctl() {{ if [ "$1" = list-unit-files ]; then cat {enabled}; else echo "$*" >> {asked}; fi; }}
tool() {{
    printf '%s enabled enabled\\n' a.service nginx.service ssh.service > {enabled}
    {policy} nginx start
    echo "answer $?"
    cp {policy} {kept}
    return 7
}}
without_services tool || echo "code $?"
"""


@pytest.fixture
def run_functions(tmp_path: Path) -> Callable[[], list[str]]:
    def run() -> list[str]:
        functions, found, _ = QUICKSTART.read_text().partition('\ncase "${1:-}" in\n')
        assert found
        paths = {name: tmp_path / name for name in ("policy", "enabled", "asked", "kept")}
        for real, made in (("/usr/sbin/policy-rc.d", paths["policy"]), ("/run/systemd/system", tmp_path)):
            assert real in functions
            functions = functions.replace(real, str(made))
        text = functions.replace('cd "$(dirname "$0")"', "") + PROGRAM.format(**paths)
        finished = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True)
        assert finished.stderr == ""
        return finished.stdout.split("\n")

    if not QUICKSTART.exists():
        cannot_run("there is no quickstart beside the tests")
    (tmp_path / "enabled").write_text("ssh.service enabled enabled\n")
    return run


def test_nothing_is_started_and_what_was_enabled_is_not(run_functions: Callable[[], list[str]], tmp_path: Path) -> None:
    assert run_functions() == ["answer 101", "code 7", ""]
    assert (tmp_path / "asked").read_text().splitlines() == [
        "--quiet disable a.service",
        "--quiet disable nginx.service",
    ]
    assert not (tmp_path / "policy").exists()
    # one that a killed quickstart has left forbids nothing
    assert subprocess.run([tmp_path / "kept", "nginx", "start"], check=False).returncode == 0


def test_a_policy_of_the_machines_own_stays(run_functions: Callable[[], list[str]], tmp_path: Path) -> None:
    policy = tmp_path / "policy"
    policy.write_text("#!/bin/sh\nexit 104\n")
    policy.chmod(0o755)
    assert run_functions() == ["answer 104", "code 7", ""]
    assert policy.read_text() == "#!/bin/sh\nexit 104\n"
