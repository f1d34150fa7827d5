"""How a server program of our own in Python is started: under the Python that runs us.

That Python may lie where an unprivileged user may not read (a home directory), so such a program begins as we are, and
becomes that user before it serves. Its arguments: where it listens, backlog, secret path of its counts, body, and
``UID,GID`` to become or an empty word.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from c10k_probe.servers.guarded import Recipe, unprivileged_user
from c10k_probe.servers.real import BODY, Place


def find() -> Mapping[str, str]:
    """The interpreter."""
    return {"python": sys.executable}


def command(program: Path, where: str | int, place: Place, *more: str) -> tuple[str, ...]:
    """Of a program that listens at ``where``; more: arguments of its own."""
    user = ",".join(map(str, unprivileged_user() or ()))
    return (
        sys.executable, "-I", str(program), str(where), str(place.backlog_count), place.token, BODY, user, *more
    )  # fmt: skip


def recipe(program: Path, *more: str) -> Callable[[Mapping[str, str], Place], Recipe]:
    """The recipe of one process of it, at the port."""

    def made(_: Mapping[str, str], place: Place) -> Recipe:
        return Recipe(command(program, place.port, place, *more), is_own_user=True)

    return made
