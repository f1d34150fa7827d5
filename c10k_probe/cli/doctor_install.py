"""``doctor --install``: brings every optional part that is missing, after a question; nothing else ever installs."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence

from c10k_probe import parts, units
from c10k_probe.cli import doctor_apt as apt
from c10k_probe.exits import ExitCode, UsageError, UserError
from c10k_probe.tracing.lift import this_command


def install_parts(*, yes: bool, dry_run: bool) -> int:
    """Say what would come, ask, bring it; the exit code. Raises ``UserError``, with nothing changed if refused."""
    missing = [part for part in parts.find_parts() if not part.found]
    if not missing:
        print("every optional part is here; nothing to install")
        return ExitCode.OK
    _check_possible(missing, yes=yes, dry_run=dry_run)
    packages = list(dict.fromkeys(part.package for part in missing))
    plan = apt.make_plan(packages)
    _show(missing, plan)
    if dry_run:
        return ExitCode.OK
    question = "install?" if plan.wanted else "read the package lists anew, and install what they have?"
    if not yes and not _agreed(question):
        print("nothing was changed")
        return ExitCode.OK
    return _bring(missing, packages)


def _check_possible(missing: Sequence[parts.Part], *, yes: bool, dry_run: bool) -> None:
    """Refuse what cannot be done before anything is asked. Raises ``UserError`` and ``UsageError``."""
    if not apt.has_apt():
        names = ", ".join(part.name for part in missing)
        raise UserError(f"doctor --install: there is no apt-get here; install with this system's own tool: {names}")
    if dry_run:
        return
    if os.geteuid() != 0:
        words = "--yes " if yes else ""
        command = f"sudo {shlex.join(this_command())} doctor --install {words}".rstrip()
        raise UserError(f"doctor --install: installing packages needs root; type: {command}")
    if not yes and not sys.stdin.isatty():
        raise UsageError("doctor --install: it asks first, and stdin is no terminal; add --yes, or --dry-run to look")


def _show(missing: Sequence[parts.Part], plan: apt.Plan) -> None:
    width = max(len(part.name) for part in missing)
    print("missing:")
    for part in missing:
        note = "" if part.package in plan.wanted else " (apt has no such package)"
        print(f"  {part.name:{width}}  {part.package}{note}")
    if not plan.wanted:
        print("apt has none of these packages")
        return
    more = [name for name in plan.new if name not in plan.wanted]
    if more:
        print(f"with what they need: {' '.join(more)}")
    print(f"to fetch: {units.format_quantity(plan.download_bytes, 'bytes')}", end="")
    disk = "" if plan.disk_bytes is None else units.format_quantity(plan.disk_bytes, "bytes")
    print(f", on the disk: {disk}" if disk else "")
    print("no service of theirs is started or enabled")


def _agreed(question: str) -> bool:
    """The answer; no answer is no. Raises ``KeyboardInterrupt`` after it has said that nothing was changed."""
    print(f"{question} [y/N] ", end="", flush=True)
    try:
        answer = sys.stdin.readline()
    except KeyboardInterrupt:
        print("\nnothing was changed")
        raise
    if not answer.endswith("\n"):
        print()  # the end of the input has left the cursor behind the question
    return answer.strip().lower() in ("y", "yes")


def _bring(missing: Sequence[parts.Part], packages: Sequence[str]) -> int:
    """Read apt's lists, since a machine may have none yet, install, and look again. Raises ``UserError``."""
    print("reading the package lists", file=sys.stderr)
    apt.update()
    plan = apt.make_plan(packages)
    disabled = apt.install(plan.wanted) if plan.wanted else []
    if disabled:
        print(f"became enabled by it, disabled again: {' '.join(disabled)}")
    after = {part.name: part for part in parts.find_parts()}
    here = [part.name for part in missing if after[part.name].found]
    if here:
        print(f"now here: {', '.join(here)}")
    if plan.unknown:
        print(f"not among this distribution's packages: {' '.join(plan.unknown)}")
    lost = [part.name for part in missing if part.package in plan.wanted and not after[part.name].found]
    if lost:
        raise UserError(f"apt-get installed its packages, but these are still missing: {', '.join(lost)}; see doctor")
    return ExitCode.OK
