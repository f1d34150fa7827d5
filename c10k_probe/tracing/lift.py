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
    """The same with this command's absolute path: root's PATH seldom has it."""
    return lift.replace(BY_ROOT, f"sudo {_this_command()} ...")


def _this_command() -> str:
    path = Path(sys.argv[0])
    if path.name == "c10k-probe" and os.access(path, os.X_OK):
        return shlex.quote(str(path.absolute()))
    return f"{shlex.quote(sys.executable)} -m c10k_probe"
