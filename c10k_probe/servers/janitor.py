"""Runs a program in a folder of its own and leaves nothing of either behind, however its asker ends.

A program by itself (``python -IS janitor.py``) that nothing imports, in a session of its own, which neither Ctrl-C nor
the asker's end reaches. From stdin it reads one line, a JSON object:

    prefix   how the folder's name begins; it is made where temporary files go
    files    name -> text, written into the folder
    command  what to run; {folder} stands for the folder's path in it and in the texts
    cwd      where to run it, or null for the folder
    user     [user id, group id] to run it as, or null
    cpus     CPUs that it may use

On stdout it says ``started`` (pid, folder) or ``failed`` (message), and ``ended`` (code, negative for a signal) if the
program ends by itself. When stdin ends, which it also does when the asker is killed, everything that the program
started is killed, orphans included, and the folder is removed.

Sources: prctl(2) (PR_SET_CHILD_SUBREAPER), pidfd_open(2), proc_tid_children(5).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

ERRORS = "stderr"  # the file in the folder that holds what the program complained about; it may open it, too
_PR_SET_CHILD_SUBREAPER = 36
_PATIENCE_S = 5.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def say(kind: str, **fields: object) -> None:
    """One line for the asker, who may be gone."""
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps({"type": kind, **fields}).encode() + b"\n")


def main() -> None:
    """Run, wait for the end of stdin, clean up."""
    line = sys.stdin.buffer.readline()
    if not line:
        return
    request, usable = json.loads(line), os.sched_getaffinity(0)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    for number in _SIGNALS:
        signal.signal(number, lambda *_: sys.exit(1))
    folder = Path(tempfile.mkdtemp(prefix=request["prefix"]))
    try:
        watch(start(request, folder), folder)
    except OSError as error:
        say("failed", message=str(error))
    finally:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, usable)
        end_descendants(usable)
        shutil.rmtree(folder, ignore_errors=True)


def start(request: dict[str, Any], folder: Path) -> subprocess.Popen[bytes]:
    """The program, in a session of its own. Raises ``OSError``."""
    paths = [folder]
    for name, text in request["files"].items():
        paths.append(folder / name)
        paths[-1].write_text(text.replace("{folder}", str(folder)), encoding="utf-8")
    paths.append(folder / ERRORS)
    paths[-1].touch()
    user = group = groups = None
    if request["user"]:
        user, group = request["user"]
        groups = [group]
        for path in paths:
            os.chown(path, user, group)
    os.sched_setaffinity(0, request["cpus"])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with (folder / ERRORS).open("ab") as errors:
        return subprocess.Popen(
            [word.replace("{folder}", str(folder)) for word in request["command"]],
            cwd=request["cwd"] or folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
            user=user,
            group=group,
            extra_groups=groups,
        )


def watch(program: subprocess.Popen[bytes], folder: Path) -> None:
    """Return when stdin ends; say when the program does."""
    say("started", pid=program.pid, folder=str(folder))
    descriptor = os.pidfd_open(program.pid)
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(descriptor, select.POLLIN)
    while True:
        ready = {number for number, _ in poll.poll()}
        if descriptor in ready:
            poll.unregister(descriptor)
            say("ended", code=program.wait())
        if 0 in ready and not os.read(0, 4096):
            return


def end_descendants(cpus: Collection[int]) -> None:
    """Kill every child and reap it; the children of those that die become ours, and are next.

    They die on all ``cpus``: a thousand processes of PHP that were kept to one CPU take more than a second there.
    """
    deadline = time.monotonic() + _PATIENCE_S
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            for pid in children():
                with contextlib.suppress(OSError):
                    os.sched_setaffinity(pid, cpus)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            time.sleep(0.001)


def children() -> list[int]:
    """Children of this process, found by their parent's id: not every kernel lists them (CONFIG_PROC_CHILDREN)."""
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                stat = Path("/proc", name, "stat").read_bytes()
                if int(stat[stat.rfind(b")") + 2 :].split()[1]) == os.getpid():
                    found.append(int(name))
    return found


if __name__ == "__main__":
    main()
