"""Holds back the services that packages bring: none is started or enabled while it lives, and all is put back after.

A program by itself (``python -I doctor_keeper.py POLICY ETC``) that nothing imports, in a session of its own, which
neither Ctrl-C nor the asker's end reaches. It notes what is enabled, forbids starts, says ``ready`` (or ``failed`` and
why) on stdout and waits for the end of its stdin. That pipe is also open in the package tool, so that its end means
that both have ended, however they did. Then it puts POLICY back as it was, disables what became enabled meanwhile, and
says what that was.

POLICY (/usr/sbin/policy-rc.d) is asked before every start by the scripts of a package. One of the machine's own is
kept beside ours and comes back. Ours forbids nothing once this process is gone, should it be killed, too.
ETC (/etc) has the links by which init scripts are enabled.

Sources: invoke-rc.d(8), deb-systemd-invoke(1p), systemctl(1), update-rc.d(8).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

MARK = "# of c10k-probe doctor --install"
_KEPT = ".before-c10k-probe"
_POLICY = """#!/bin/sh
{mark}: nothing is started while its process {pid} lives
grep -qs doctor_keeper /proc/{pid}/cmdline && exit 101
[ -x {kept} ] && exec {kept} "$@"
exit 0
"""


def say(kind: str, **fields: object) -> None:
    """One line for the asker, who may be gone."""
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps({"type": kind, **fields}).encode() + b"\n")


def main() -> None:
    """Hold back, wait for the end of stdin, put back."""
    policy, etc = Path(sys.argv[1]), Path(sys.argv[2])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    units, scripts = enabled_units(), enabled_scripts(etc)
    try:
        forbid(policy)
    except OSError as error:
        say("failed", message=f"{error.strerror}: {error.filename}")
        return
    say("ready")
    while os.read(0, 4096):
        pass
    troubles = []
    try:
        put_back(policy)
    except OSError as error:
        troubles.append(f"{policy} could not be put back: {error.strerror}")
    disabled, failed = disable(units, scripts, etc)
    say("done", disabled=disabled, troubles=troubles + failed)


# --- starts ---------------------------------------------------------------------------------------------------------


def forbid(policy: Path) -> None:
    """Put our policy in place in one step; the machine's own is linked to another name first. Raises ``OSError``."""
    kept = Path(f"{policy}{_KEPT}")
    if os.path.lexists(policy) and not is_ours(policy):
        kept.unlink(missing_ok=True)
        os.link(policy, kept, follow_symlinks=False)
    made = Path(f"{policy}.of-c10k-probe")
    try:
        made.write_text(_POLICY.format(mark=MARK, pid=os.getpid(), kept=kept), encoding="utf-8")
        made.chmod(0o755)
        made.rename(policy)
    except OSError:
        made.unlink(missing_ok=True)
        if not is_ours(policy):
            kept.unlink(missing_ok=True)
        raise


def put_back(policy: Path) -> None:
    """The machine's own policy, or none; one that somebody wrote meanwhile stays. Raises ``OSError``."""
    kept = Path(f"{policy}{_KEPT}")
    if not is_ours(policy):
        kept.unlink(missing_ok=True)
    elif os.path.lexists(kept):
        kept.rename(policy)
    else:
        policy.unlink()


def is_ours(policy: Path) -> bool:
    """Also true for one that a killed run has left."""
    try:
        return MARK in policy.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


# --- what starts at boot --------------------------------------------------------------------------------------------


def enabled_units() -> set[str]:
    """Units that systemd starts by itself; it need not run for that. None where it is not installed."""
    code, said = run("systemctl", "list-unit-files", "--state=enabled", "--no-legend", "--plain")
    return {line.split()[0] for line in said.splitlines() if line.strip()} if code == 0 else set()


def enabled_scripts(etc: Path) -> set[str]:
    """Init scripts that are started at boot: S and two digits before the name."""
    return {link.name[3:] for link in etc.glob("rc[2-5].d/S[0-9][0-9]*")}


def disable(units: set[str], scripts: set[str], etc: Path) -> tuple[list[str], list[str]]:
    """Disable what is enabled now and was not; the names, and what went wrong."""
    new = sorted(enabled_units() - units)
    failed = []
    for unit in new:
        failed += complaint("systemctl", "--quiet", "disable", unit)
        if Path("/run/systemd/system").is_dir():  # it runs, so that it may have started the unit, too
            failed += complaint("systemctl", "--quiet", "stop", unit)
    rest = sorted(enabled_scripts(etc) - scripts)  # disabling a unit disables its script
    for script in rest:
        failed += complaint("update-rc.d", script, "disable")
    return new + [script for script in rest if f"{script}.service" not in new], failed


def complaint(*command: str) -> list[str]:
    """Run a command; what it said, in one line, if it failed."""
    code, said = run(*command)
    return [] if code == 0 else [f"{' '.join(command)}: {' '.join(said.split()) or f'exit {code}'}"]


def run(*command: str) -> tuple[int, str]:
    """The exit code and the output of a command; 127 where there is none of its name."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
    except OSError as error:
        return 127, str(error)
    return done.returncode, done.stdout


if __name__ == "__main__":
    main()
