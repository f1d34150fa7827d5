"""Starts several processes of one program, then nginx, and ends when one of them does: a program by itself (``python -I
behind_nginx_program.py PLAN``) that nothing imports.

PLAN is a file with a JSON object: ``folder`` of all files; ``user``: [user id, group id] to run them as, or null;
``workers``: a command for each; ``is_own_user``: they begin as we are, and become that user by themselves;
``sockets``: the file of each, at which it listens before ``front``, the command of nginx, is started.

It stays the first process of all of them, which does nothing but wait. Whoever is told to end it ends its children.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_POLL_S = 0.005


def main() -> None:
    """Start them in this order; say who ended first."""
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    user = plan["user"]
    if user:
        for path in (Path(plan["folder"]), *Path(plan["folder"]).iterdir()):
            os.chown(path, *user)
    as_user: dict[str, Any] = {"user": user[0], "group": user[1], "extra_groups": [user[1]]} if user else {}
    names = {}
    for number, command in enumerate(plan["workers"], start=1):
        worker = subprocess.Popen(command, **({} if plan["is_own_user"] else as_user))
        names[worker.pid] = f"worker {number} of {len(plan['workers'])}"
    while not all(map(os.path.exists, plan["sockets"])):
        tell_if_one_has_ended(names, os.WNOHANG)
        time.sleep(_POLL_S)
    names[subprocess.Popen(plan["front"], **as_user).pid] = "nginx"
    while True:
        tell_if_one_has_ended(names, 0)


def tell_if_one_has_ended(names: dict[int, str], options: int) -> None:
    """Exit with a line that says how; its own complaints are above it."""
    pid, status = os.waitpid(-1, options)
    if pid in names:
        code = os.waitstatus_to_exitcode(status)
        sys.exit(f"Error: {names[pid]} ended: {signal.Signals(-code).name if code < 0 else f'exit code {code}'}")


if __name__ == "__main__":
    main()
