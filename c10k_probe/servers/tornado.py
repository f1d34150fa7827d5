"""Tornado: one process, asyncio's event loop, under the Python that runs us; and nginx in front of several of them.

With work for each request (``tornado-alone``, ``nginx-tornado``) its program has two more paths, those of
``behind_nginx``; the one without is as its manual has it.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from c10k_probe import native
from c10k_probe.limits import Needs
from c10k_probe.servers import behind_nginx, python_program
from c10k_probe.servers.behind_nginx import DEFAULT_COUNT
from c10k_probe.servers.guarded import Recipe
from c10k_probe.servers.real import Place, RealModel, find_parts, read_json

_PROGRAM: Final = Path(__file__).with_name("tornado_program.py")
_WITH_WORK: Final = "work"


def _find(*parts: str) -> Callable[[], Mapping[str, str]]:
    """Finds Tornado, and these system packages' programs."""

    def find() -> Mapping[str, str]:
        if importlib.util.find_spec("tornado") is None:
            raise native.HelperUnsupported(f"tornado is not installed; {sys.executable} -m pip install tornado")
        return {**python_program.find(), **find_parts(*parts)()}

    return find


def _recipe_nginx(paths: Mapping[str, str], place: Place) -> Recipe:
    worker = python_program.command(_PROGRAM, behind_nginx.SOCKET, place, _WITH_WORK)
    return behind_nginx.recipe(paths, place, worker, {}, is_own_user=True)


TORNADO: Final = RealModel(
    name="tornado",
    summary="Tornado: an event loop, Python",
    find=_find(),
    recipe=python_program.recipe(_PROGRAM),
    read=read_json,
    per_connection=Needs(descriptors_count=1, system_descriptors_count=1),
    fixed=Needs(descriptors_count=16, system_descriptors_count=64, tasks_count=2, memory_bytes=60 << 20),
)
TORNADO_ALONE: Final = dataclasses.replace(
    TORNADO,
    name="tornado-alone",
    summary="Tornado: one event loop, with work for each request",
    recipe=python_program.recipe(_PROGRAM, _WITH_WORK),
    read=None,  # to be asked for its counts would be counted
)
NGINX_TORNADO: Final = dataclasses.replace(
    TORNADO,
    name="nginx-tornado",
    summary="nginx before processes of Tornado, which it gives requests in turn",
    find=_find("nginx"),
    recipe=_recipe_nginx,
    read=None,
    per_connection=TORNADO.per_connection.times(2),
    fixed=TORNADO.fixed.times(1 + DEFAULT_COUNT),
    takes=frozenset({"workers", "capacity"}),
)
