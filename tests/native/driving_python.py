"""How the tests run the helpers that are Python programs."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from native.driving import Outcome


def program(name: str) -> list[str]:
    """What to execute."""
    return [sys.executable, "-m", f"c10k_probe.{name}"]


def run_command(command: list[str], commands: str = "", **options: Any) -> Outcome:
    """One launch to its end with these lines on stdin. ``options`` are Popen's."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True, **options
    ) as process:
        try:
            output, errors = process.communicate(commands, timeout=60)
        except BaseException:
            process.kill()
            raise
    return Outcome(process.returncode, [json.loads(line) for line in output.splitlines()], errors, process.pid)
