"""Node.js: its own http module, one process, an event loop with libuv's threads idle beside it.

Time-outs are off, so that idle connections are held; the default closes them after 5 s. The length is given, without
which a client of HTTP/1.0, such as ab, keeps no connection. It counts itself, an addition a request.

Sources: Node.js documentation of http (keepAliveTimeout, headersTimeout, requestTimeout) and net (server.listen).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from c10k_probe.limits import Needs
from c10k_probe.servers.guarded import Recipe
from c10k_probe.servers.real import BODY, Place, RealModel, find_parts, read_json

_PROGRAM: Final = """\
"use strict";
const http = require("http");
const [port, backlog, token] = process.argv.slice(2);
const body = Buffer.from(BODY);
let accepted = 0, requests = 0;

const server = http.createServer((request, response) => {
    requests += 1;
    if (request.url === "/" + token) {
        server.getConnections((error, open) => {
            response.end(JSON.stringify({ accepted, open, requests, version: "Node.js/" + process.version.slice(1) }));
        });
        return;
    }
    response.writeHead(200, { "Content-Type": "text/plain", "Content-Length": body.length });
    response.end(body);
});
server.on("connection", () => { accepted += 1; });
server.keepAliveTimeout = server.headersTimeout = server.requestTimeout = server.timeout = 0;
server.listen({ host: "127.0.0.1", port: Number(port), backlog: Number(backlog) });
"""


def _recipe(paths: Mapping[str, str], place: Place) -> Recipe:
    command = (paths["node"], "{folder}/server.js", str(place.port), str(place.backlog_count), place.token)
    return Recipe(command, {"server.js": _PROGRAM.replace("BODY", json.dumps(BODY))})


NODE: Final = RealModel(
    name="node",
    summary="Node.js: an event loop, JavaScript",
    find=find_parts("node"),
    recipe=_recipe,
    read=read_json,
    per_connection=Needs(descriptors_count=1, system_descriptors_count=1),
    fixed=Needs(descriptors_count=32, system_descriptors_count=64, tasks_count=16, memory_bytes=100 << 20),
    settings=("keepAliveTimeout=0", "headersTimeout=0", "requestTimeout=0"),
)
