"""Python's own HTTP server: ``http.server.ThreadingHTTPServer``, a thread for each connection.

It runs under the Python that runs us, which may lie where an unprivileged user may not read; so ``http_server_program``
begins as we are, and becomes that user before it listens. Its parser is the library's (http.client, email.parser),
much of a request's work: ``python-threading`` and ``asyncio`` have one of our own, and the same, to be compared.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from c10k_probe.limits import Needs
from c10k_probe.servers.guarded import Recipe, unprivileged_user
from c10k_probe.servers.real import BODY, Place, RealModel, read_json

_PROGRAM: Final = Path(__file__).with_name("http_server_program.py")


def _find() -> Mapping[str, str]:
    return {"python": sys.executable}


def _recipe(paths: Mapping[str, str], place: Place) -> Recipe:
    user = ",".join(map(str, unprivileged_user() or ()))
    arguments = (str(place.port), str(place.backlog_count), place.token, BODY, user)
    return Recipe((paths["python"], "-I", str(_PROGRAM), *arguments), is_own_user=True)


HTTP_SERVER: Final = RealModel(
    name="python-http-server",
    summary="http.server.ThreadingHTTPServer: a thread per connection, Python",
    find=_find,
    recipe=_recipe,
    read=read_json,
    per_connection=Needs(
        descriptors_count=1,
        system_descriptors_count=1,
        tasks_count=1,
        mappings_count=2,
        memory_bytes=110_000,
        address_space_bytes=8 << 20,
        commit_bytes=8 << 20,
    ),
    fixed=Needs(descriptors_count=8, system_descriptors_count=64, tasks_count=2, memory_bytes=40 << 20),
)
