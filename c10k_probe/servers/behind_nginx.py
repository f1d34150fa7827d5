"""nginx in front of several processes of one program, each of which listens on a socket file of its own.

Such a program answers ``WORK_PATH``, with so many ns of its CPU time, and tells ``[connections, requests]`` so far
under ``/worker/N``, a question that nginx passes to worker N and that counts for nobody. nginx gives the other requests
to the workers in turn, over connections that it keeps. ``behind_nginx_program`` starts all of them; a worker that ends
ends the server, with a line that says so.

Sources: nginx's documentation of ngx_http_upstream_module (keepalive), ngx_http_proxy_module.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from c10k_probe import native
from c10k_probe.servers import nginx
from c10k_probe.servers.guarded import Recipe, unprivileged_user
from c10k_probe.servers.real import Place, RealServer

WORK_PATH: Final = "/spin/{ns}"
SOCKET: Final = "{folder}/NUMBER.socket"
DEFAULT_COUNT: Final = 2
_PROGRAM: Final = Path(__file__).with_name("behind_nginx_program.py")
_WORKER_PATH: Final = "/worker/{number}"
_LOCATIONS: Final = """\
location ~ ^/worker/(?<number>[0-9]+)$ { proxy_pass http://unix:{folder}/$number.socket:$uri; }
        location / {
            proxy_pass http://backends;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }"""
_UPSTREAM: Final = """\
upstream backends {
        SERVERS
        keepalive 64;
    }
    server {"""


def recipe(
    paths: Mapping[str, str], place: Place, worker: Sequence[str], files: Mapping[str, str], *, is_own_user: bool
) -> Recipe:
    """How nginx and ``place.workers_count`` processes are started, ``NUMBER`` in ``worker`` being the number of each.

    is_own_user: a worker begins as the user that we are, and becomes the unprivileged one by itself.
    """
    count = place.workers_count or DEFAULT_COUNT
    sockets = [SOCKET.replace("NUMBER", str(number)) for number in range(count)]
    servers = "\n        ".join(f"server unix:{socket};" for socket in sockets)
    text = nginx.configuration(nginx.one_worker(place), _LOCATIONS)
    plan = {
        "folder": "{folder}",
        "user": unprivileged_user(),
        "workers": [[word.replace("NUMBER", str(number)) for word in worker] for number in range(count)],
        "is_own_user": is_own_user,
        "sockets": sockets,
        "front": nginx.command(paths),
    }
    every = {
        **files,
        "nginx.conf": text.replace("server {", _UPSTREAM.replace("SERVERS", servers), 1),
        "plan": json.dumps(plan),
    }
    return Recipe((sys.executable, "-I", str(_PROGRAM), "{folder}/plan"), every, is_own_user=True)


def shares(server: RealServer, workers_count: int) -> list[tuple[int, int]]:
    """Connections and requests of each worker, as it counts them. Raises ``native.HelperError``."""
    found = []
    for number in range(workers_count):
        page = server.look(_WORKER_PATH.format(number=number))
        try:
            accepted_count, requests_count = json.loads(page.body)
        except ValueError:
            raise native.HelperError(f"{server.name}: worker {number + 1} does not tell its counts") from None
        found.append((int(accepted_count), int(requests_count)))
    return found
