"""Cherokee: threads with an event loop each, as many as it chooses. Few distributions still carry it.

A file of the common answer, which it may keep in memory, as its default configuration has it. Keep-alive is without
end, no log. It tells no counts in a form to rely on.

Sources: Cherokee's documentation (cherokee(1), General and Advanced Configuration), configure_server_property in
cherokee/server.c of 1.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from c10k_probe.limits import Needs
from c10k_probe.servers.guarded import Recipe
from c10k_probe.servers.real import BODY, Place, RealModel, find_parts

_REQUESTS_COUNT: Final = 1_000_000_000
_SECONDS: Final = 3600
_INDEX: Final = "index.txt"


def _recipe(paths: Mapping[str, str], place: Place) -> Recipe:
    settings = {
        "config!version": "001002103",
        "server!bind!1!port": place.port,
        "server!bind!1!interface": "127.0.0.1",
        "server!listen_queue": place.backlog_count,
        "server!keepalive": 1,
        "server!keepalive_max_requests": _REQUESTS_COUNT,
        "server!timeout": _SECONDS,
        "server!server_tokens": "full",
        "server!pid_file": "{folder}/pid",
        "vserver!1!nick": "default",
        "vserver!1!document_root": "{folder}",
        "vserver!1!directory_index": _INDEX,
        "vserver!1!rule!1!match": "default",
        "vserver!1!rule!1!handler": "common",
        "vserver!1!rule!1!handler!iocache": 1,
        "mime!text/plain!extensions": "txt",
    }
    if place.workers_count:
        settings["server!thread_number"] = place.workers_count
    text = "".join(f"{key} = {value}\n" for key, value in settings.items())
    return Recipe((paths["cherokee"], "-C", "{folder}/cherokee.conf"), {"cherokee.conf": text, _INDEX: BODY})


CHEROKEE: Final = RealModel(
    name="cherokee",
    summary="an event loop for each thread",
    find=find_parts("cherokee"),
    recipe=_recipe,
    per_connection=Needs(descriptors_count=1, system_descriptors_count=1),
    fixed=Needs(descriptors_count=32, system_descriptors_count=64, tasks_count=32, memory_bytes=40 << 20),
    takes=frozenset({"workers"}),
)
