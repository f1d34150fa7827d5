"""Tornado: one process, asyncio's event loop, under the Python that runs us.

That Python may lie where an unprivileged user may not read (a home directory), so ``tornado_program`` begins as we are,
and becomes that user before it listens.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from c10k_probe import native
from c10k_probe.limits import Needs
from c10k_probe.servers.guarded import Recipe, unprivileged_user
from c10k_probe.servers.real import BODY, Place, RealModel, read_json

_PROGRAM: Final = Path(__file__).with_name("tornado_program.py")


def _find() -> Mapping[str, str]:
    if importlib.util.find_spec("tornado") is None:
        raise native.HelperUnsupported(f"tornado is not installed; {sys.executable} -m pip install tornado")
    return {"python": sys.executable}


def _recipe(paths: Mapping[str, str], place: Place) -> Recipe:
    user = ",".join(map(str, unprivileged_user() or ()))
    arguments = (str(place.port), str(place.backlog_count), place.token, BODY, user)
    return Recipe((paths["python"], "-I", str(_PROGRAM), *arguments), is_own_user=True)


TORNADO: Final = RealModel(
    name="tornado",
    summary="Tornado: an event loop, Python",
    find=_find,
    recipe=_recipe,
    read=read_json,
    per_connection=Needs(descriptors_count=1, system_descriptors_count=1),
    fixed=Needs(descriptors_count=16, system_descriptors_count=64, tasks_count=2, memory_bytes=60 << 20),
)
