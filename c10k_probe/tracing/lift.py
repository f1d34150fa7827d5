"""What to type when a backend needs more rights: a command that works as it stands."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Final

BY_ROOT: Final = "sudo c10k-probe ..."  # as the eBPF helper says it, which does not know how this command was started


def lift_by_root() -> str:
    """This command as root; empty for root, whom that would not help."""
    return "" if os.geteuid() == 0 else exact(BY_ROOT)


def exact(lift: str) -> str:
    """The same with this command as it was typed, its program by absolute path: root's PATH seldom has it."""
    return lift.replace(BY_ROOT, shlex.join(("sudo", *this_command(), *sys.argv[1:])))


def this_command() -> tuple[str, ...]:
    """The words that start this program: its own file, or a module of the interpreter."""
    program = Path(sys.argv[0]).absolute()
    if program.name == "__main__.py" or not os.access(program, os.X_OK):  # python -m
        return (sys.executable, "-m", "c10k_probe")
    return (str(program),)
