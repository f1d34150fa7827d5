"""Python's own HTTP server: ``http.server.ThreadingHTTPServer``, a thread for each connection.

Its parser is the library's (http.client, email.parser), much of a request's work: ``python-threading`` and ``asyncio``
have one of our own, and the same, to be compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from c10k_probe.limits import Needs
from c10k_probe.servers import python_program
from c10k_probe.servers.real import RealModel, read_json

_PROGRAM: Final = Path(__file__).with_name("http_server_program.py")


HTTP_SERVER: Final = RealModel(
    name="python-http-server",
    summary="http.server.ThreadingHTTPServer: a thread per connection, Python",
    find=python_program.find,
    recipe=python_program.recipe(_PROGRAM),
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
