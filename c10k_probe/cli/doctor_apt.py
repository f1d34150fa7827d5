"""What ``doctor --install`` asks of apt: what packages would come, and then to bring them without their services."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from c10k_probe import parts
from c10k_probe.exits import UserError

POLICY = Path("/usr/sbin/policy-rc.d")
ETC = Path("/etc")
KEEPER = Path(__file__).with_name("doctor_keeper.py")
_OPTIONS = ("--yes", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0", "-o", "Dpkg::Options::=--force-confold")
_UNKNOWN = re.compile(r"^E: (?:Unable to locate package (\S+)|Package '(\S+)' has no installation candidate)", re.M)
_NEW = re.compile(r"^The following NEW packages will be installed:\n((?: .*\n)+)", re.M)
_DOWNLOAD = re.compile(r"^'[^']+' \S+ (\d+) ", re.M)
_DISK = re.compile(r"^After this operation, ([\d.,]+) ([kMG]?)B of additional disk space", re.M)
_SCALE = {"": 1, "k": 1000, "M": 1000**2, "G": 1000**3}


@dataclass(frozen=True)
class Plan:
    """What apt would do. wanted: packages asked for that it has; unknown: those that it has not; new: all that come.

    download_bytes is the sum over the archives still to be fetched, disk_bytes as apt rounds it, None if it told none.
    """

    wanted: tuple[str, ...]
    unknown: tuple[str, ...]
    new: tuple[str, ...] = ()
    download_bytes: int = 0
    disk_bytes: int | None = None


def command_line(packages: Sequence[str]) -> str:
    """What a user types for the same, as root."""
    return f"apt-get install --no-install-recommends {' '.join(packages)}"


def make_plan(packages: Sequence[str]) -> Plan:
    """Ask apt, which changes nothing and needs no root. Raises ``UserError`` if it can make no plan."""
    wanted, unknown = list(packages), list[str]()
    while wanted:
        done = _ask("apt-get", "--print-uris", *_OPTIONS, "install", *wanted)
        said = done.stdout + done.stderr
        if done.returncode == 0:
            return _read_plan(said, wanted, unknown)
        lacking = {name or other for name, other in _UNKNOWN.findall(said)} & set(wanted)
        if not lacking:
            raise _failure("apt-get cannot plan", done.returncode, said, wanted)
        unknown += [name for name in wanted if name in lacking]
        wanted = [name for name in wanted if name not in lacking]
    return Plan((), tuple(unknown))


def _read_plan(said: str, wanted: Sequence[str], unknown: Sequence[str]) -> Plan:
    new = _NEW.search(said)
    disk = _DISK.search(said)
    return Plan(
        tuple(wanted),
        tuple(unknown),
        tuple(new.group(1).split()) if new else (),
        sum(map(int, _DOWNLOAD.findall(said))),
        round(float(disk.group(1).replace(",", "")) * _SCALE[disk.group(2)]) if disk else None,
    )


def update() -> None:
    """Read the lists of packages anew. Raises ``UserError``."""
    done = _ask("apt-get", "-q", "update")
    if done.returncode != 0:
        raise _failure("apt-get update failed", done.returncode, done.stderr or done.stdout, (), "apt-get update")


def install(packages: Sequence[str]) -> list[str]:
    """Bring packages, apt's words on stderr; the services that became enabled by it, and are not any more.

    Raises ``UserError``. After Ctrl-C it waits for apt, which must not be left halfway, and raises again.
    """
    with _services_held() as (pipe, outcome), tempfile.TemporaryFile("w+") as complaints:
        code = _wait(["apt-get", "-q", *_OPTIONS, "install", *packages], pipe, complaints)
        complaints.seek(0)
        said = complaints.read()
    if code != 0:
        raise _failure("apt-get failed", code, said, packages)
    if outcome["troubles"]:
        raise UserError("; ".join(outcome["troubles"]))
    return list(outcome["disabled"])


def _wait(command: Sequence[str], pipe: int, complaints: IO[str]) -> int:
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno(),
        stderr=complaints,
        env=_environment(),
        pass_fds=(pipe,),
    ) as apt:
        try:
            return apt.wait()
        except KeyboardInterrupt:
            apt.wait()
            raise


@contextmanager
def _services_held() -> Iterator[tuple[int, dict[str, Any]]]:
    """Within it no service starts. Gives the pipe that the package tool must hold open, and what came of it, after."""
    outcome: dict[str, Any] = {"disabled": [], "troubles": []}
    reading, writing = os.pipe()
    keeper = subprocess.Popen(
        [sys.executable, "-I", KEEPER, POLICY, ETC],
        stdin=reading,
        stdout=subprocess.PIPE,
        text=True,
        env=_environment(),
        start_new_session=True,
    )
    os.close(reading)
    try:
        ready = json.loads(keeper.stdout.readline() or "{}") if keeper.stdout else {}
        if ready.get("type") != "ready":
            raise UserError(f"services cannot be held back, nothing was installed: {ready.get('message', 'no answer')}")
        yield writing, outcome
    finally:
        os.close(writing)
        said = keeper.communicate()[0]
        outcome.update(json.loads(said) if said else {"troubles": ["services were held back, but not put back"]})


def _ask(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=_environment(), check=False
    )


def _environment() -> dict[str, str]:
    """English words, no questions, no restarts of what runs, and sbin, without which dpkg refuses to work."""
    ours = {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1"}
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *parts.SBIN))
    return {**os.environ, **ours, "PATH": path}


def _failure(what: str, code: int, said: str, packages: Sequence[str], command: str = "") -> UserError:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = lines[-1] if lines else "it said nothing"
    return UserError(f"{what} (exit {code}): {last}; to see all of it: {command or command_line(packages)}")


def has_apt() -> bool:
    """Whether this distribution has Debian's package tool."""
    return shutil.which("apt-get") is not None
