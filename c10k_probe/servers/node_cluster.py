"""Node.js on several cores: its cluster module, and nginx in front of as many processes; and one process beside them.

One program in all three, with the paths of ``behind_nginx``. In the cluster the primary accepts and passes connections
in turn (``cluster.SCHED_RR``); a worker that ends ends the server, with a line that says so.

Sources: Node.js documentation of cluster, process (cpuUsage, process.send).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from c10k_probe.limits import Needs
from c10k_probe.servers import behind_nginx
from c10k_probe.servers.behind_nginx import DEFAULT_COUNT
from c10k_probe.servers.guarded import Recipe
from c10k_probe.servers.real import BODY, Place, RealModel, find_parts

_PROGRAM: Final = """\
"use strict";
const cluster = require("cluster"), http = require("http");
const [where, backlog, workers] = process.argv.slice(2);
const body = Buffer.from(BODY);
const counts = [0, 0];  // connections, requests
const asked = new Map();
let spun = 0;

const cpuUs = () => { const used = process.cpuUsage(); return used.user + used.system; };
function spin(us) {
    const until = cpuUs() + us;
    do {
        for (let i = 0; i < 2000; i += 1) { spun += i; }
    } while (cpuUs() < until);
}
const tell = (response, found) => response.end(JSON.stringify(found));
function answer(request, response) {
    const [, first, second] = request.url.split("/");
    if (first === "worker") {
        if (!cluster.isWorker) { return tell(response, counts); }
        const id = asked.size;
        asked.set(id, response);
        return process.send({ id, number: Number(second) });
    }
    counts[1] += 1;
    if (first === "spin") { spin(Number(second) / 1000); }
    response.writeHead(200, { "Content-Type": "text/plain", "Content-Length": body.length });
    response.end(body);
}
function lead() {
    const forked = [];
    const ended = (worker, code, signal) => {
        console.error(`Error: worker ${forked.indexOf(worker) + 1} of ${workers} ended: ${signal || code}`);
        process.exit(1);
    };
    const passOn = (from, message) => {  // a question goes to the worker that it is about, its answer goes back
        const to = message.counts ? forked[message.from] : forked[message.number];
        to.send({ ...message, from: message.counts ? message.from : forked.indexOf(from) });
    };
    cluster.on("exit", ended);
    cluster.on("message", passOn);
    for (let i = 0; i < Number(workers); i += 1) { forked.push(cluster.fork()); }
}
if (Number(workers) && cluster.isPrimary) {
    lead();
} else {
    const server = http.createServer(answer);
    server.on("connection", () => { counts[0] += 1; });
    server.keepAliveTimeout = server.headersTimeout = server.requestTimeout = server.timeout = 0;
    const at = where.startsWith("/") ? { path: where } : { host: "127.0.0.1", port: Number(where) };
    server.listen({ ...at, backlog: Number(backlog) });
}
if (cluster.isWorker) {
    process.on("message", (message) => {
        if (!message.counts) { return process.send({ ...message, counts: [...counts] }); }
        tell(asked.get(message.id), message.counts);
        asked.set(message.id, null);
    });
}
"""


def _program() -> str:
    return _PROGRAM.replace("BODY", json.dumps(BODY))


def _recipe(workers_count: int, paths: Mapping[str, str], place: Place) -> Recipe:
    words = (str(place.port), str(place.backlog_count), str(workers_count))
    return Recipe((paths["node"], "{folder}/server.js", *words), {"server.js": _program()})


def _recipe_alone(paths: Mapping[str, str], place: Place) -> Recipe:
    return _recipe(0, paths, place)


def _recipe_cluster(paths: Mapping[str, str], place: Place) -> Recipe:
    return _recipe(place.workers_count or DEFAULT_COUNT, paths, place)


def _recipe_nginx(paths: Mapping[str, str], place: Place) -> Recipe:
    worker = (paths["node"], "{folder}/server.js", behind_nginx.SOCKET, str(place.backlog_count), "0")
    return behind_nginx.recipe(paths, place, worker, {"server.js": _program()}, is_own_user=False)


_ONE_END: Final = Needs(descriptors_count=1, system_descriptors_count=1)
_ONE_NODE: Final = Needs(descriptors_count=32, system_descriptors_count=64, tasks_count=16, memory_bytes=100 << 20)

NODE_ALONE: Final = RealModel(
    name="node-alone",
    summary="Node.js: one event loop, with work for each request",
    find=find_parts("node"),
    recipe=_recipe_alone,
    per_connection=_ONE_END,
    fixed=_ONE_NODE,
)
NODE_CLUSTER: Final = RealModel(
    name="node-cluster",
    summary="Node.js: a primary that accepts and passes connections to processes in turn",
    find=find_parts("node"),
    recipe=_recipe_cluster,
    per_connection=_ONE_END,
    fixed=_ONE_NODE.times(1 + DEFAULT_COUNT),
    takes=frozenset({"workers"}),
)
NGINX_NODE: Final = RealModel(
    name="nginx-node",
    summary="nginx before processes of Node.js, which it gives requests in turn",
    find=find_parts("nginx", "node"),
    recipe=_recipe_nginx,
    per_connection=_ONE_END.times(2),
    fixed=_ONE_NODE.times(1 + DEFAULT_COUNT),
    takes=frozenset({"workers", "capacity"}),
)
