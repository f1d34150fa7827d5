"""Node.js: its own http module, one process, an event loop with libuv's threads idle beside it.

Time-outs are off, so that idle connections are held; the default closes them after 5 s. The length is given, without
which a client of HTTP/1.0, such as ab, keeps no connection. It counts itself, an addition a request.

``node-jitless`` is the same without V8's compilers (--jitless): every function is interpreted.

Sources: Node.js documentation of cli (--jitless), http (keepAliveTimeout, headersTimeout, requestTimeout) and net
(server.listen).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Final

from c10k_probe.limits import Needs
from c10k_probe.servers.guarded import Recipe
from c10k_probe.servers.real import BODY, Place, RealModel, find_parts, read_json

_DEFENCE: Final = "headersTimeout, requestTimeout, timeout {s} s, looked at every 250 ms"
_WORK_PATH: Final = "/work"
_PROGRAM: Final = """\
"use strict";
const http = require("http");
const [port, backlog, token, defence] = process.argv.slice(2);
const body = Buffer.from(BODY);
let accepted = 0, requests = 0;

const options = Number(defence) ? { connectionsCheckingInterval: 250 } : {};

function work(ms) {
    const start = process.cpuUsage();
    for (let spent = 0; spent < ms * 1000;) {
        const { user, system } = process.cpuUsage(start);
        spent = user + system;
    }
}

const server = http.createServer(options, (request, response) => {
    requests += 1;
    if (request.url.startsWith("WORK")) {
        work(Number(new URL(request.url, "http://localhost").searchParams.get("ms")));
    }
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
server.keepAliveTimeout = 0;
server.headersTimeout = server.requestTimeout = server.timeout = 1000 * Number(defence);
server.listen({ host: "127.0.0.1", port: Number(port), backlog: Number(backlog) });
"""


def _recipe_with(*options: str) -> Callable[[Mapping[str, str], Place], Recipe]:
    """The recipe under these options of Node.js."""

    def recipe(paths: Mapping[str, str], place: Place) -> Recipe:
        numbers = (str(place.port), str(place.backlog_count), place.token, str(place.defence_s or 0))
        program = _PROGRAM.replace("BODY", json.dumps(BODY)).replace("WORK", _WORK_PATH)
        return Recipe((paths["node"], *options, "{folder}/server.js", *numbers), {"server.js": program})

    return recipe


NODE: Final = RealModel(
    name="node",
    summary="Node.js: an event loop, JavaScript",
    find=find_parts("node"),
    recipe=_recipe_with(),
    read=read_json,
    defence=_DEFENCE,
    work_path=_WORK_PATH,
    per_connection=Needs(descriptors_count=1, system_descriptors_count=1),
    fixed=Needs(descriptors_count=32, system_descriptors_count=64, tasks_count=16, memory_bytes=100 << 20),
    settings=("keepAliveTimeout=0", "headersTimeout=0", "requestTimeout=0"),
)
NODE_JITLESS: Final = dataclasses.replace(
    NODE,
    name="node-jitless",
    summary="Node.js with its interpreter alone",
    recipe=_recipe_with("--jitless"),
)
