"""What runs in parallel inside Node.js: a program of its own that is asked over HTTP, and does it when it is asked.

- ``?threads=P``: a loop in JavaScript, all of it on one worker thread, then split over P that run at once. Threads are
  there before the clock starts (performance.now). Answer: ``{alone_ms, split_ms}``.
- ``?open=N``: opens the named pipes ``fifo-0`` to ``fifo-N-1`` of its folder for reading, each of which lasts until
  somebody opens the other end. Answers at once.
- ``?opened``: ``{ms}``, how long each open took by its number, of those that are over.
- ``?versions``: ``process.versions``.

Sources: Node.js documentation of worker_threads, fs, perf_hooks and cli (UV_THREADPOOL_SIZE); fifo(7); libuv's guide to
its thread pool.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from c10k_probe.limits import Needs
from c10k_probe.servers.guarded import Recipe
from c10k_probe.servers.real import BODY, Place, RealModel, find_parts

_PROGRAM: Final = """\
"use strict";
const fs = require("fs");
const http = require("http");
const path = require("path");
const { performance } = require("perf_hooks");
const { Worker, isMainThread, parentPort } = require("worker_threads");
const STEPS = 150000000;

function work(steps) {
    let value = 1;
    for (let step = 0; step < steps; step += 1) { value = (value * 1103515245 + 12345) & 0x7fffffff; }
    return value;
}

if (!isMainThread) {
    parentPort.on("message", (steps) => { parentPort.postMessage(work(steps)); });
} else {
    const [port, backlog, token] = process.argv.slice(2);
    const opened = {};
    const said = (worker) => new Promise((done) => { worker.once("message", done); });

    async function timed(workers, steps) {
        const begun = performance.now();
        const ends = workers.map(said);
        workers.forEach((worker) => { worker.postMessage(steps); });
        await Promise.all(ends);
        return performance.now() - begun;
    }

    async function split(count) {
        const workers = Array.from({ length: count }, () => new Worker(__filename));
        await timed(workers, STEPS / 100);
        const alone_ms = await timed(workers.slice(0, 1), STEPS);
        const split_ms = await timed(workers, STEPS / count);
        await Promise.all(workers.map((worker) => worker.terminate()));
        return { alone_ms, split_ms };
    }

    function open(count) {
        const begun = performance.now();
        for (let number = 0; number < count; number += 1) {
            fs.open(path.join(__dirname, "fifo-" + number), "r", (error, descriptor) => {
                opened[number] = performance.now() - begun;
                if (!error) { fs.close(descriptor, () => {}); }
            });
        }
        return {};
    }

    async function told(query) {
        if (query.has("threads")) { return split(Number(query.get("threads"))); }
        if (query.has("open")) { return open(Number(query.get("open"))); }
        if (query.has("opened")) { return { ms: opened }; }
        return process.versions;
    }

    http.createServer(async (request, response) => {
        const url = new URL(request.url, "http://localhost");
        const text = url.pathname === "/" + token ? JSON.stringify(await told(url.searchParams)) : BODY;
        response.writeHead(200, { "Content-Length": Buffer.byteLength(text) });
        response.end(text);
    }).listen({ host: "127.0.0.1", port: Number(port), backlog: Number(backlog) });
}
"""


def _recipe(paths: Mapping[str, str], place: Place) -> Recipe:
    command = (paths["node"], "{folder}/inside.js", str(place.port), str(place.backlog_count), place.token)
    return Recipe(command, {"inside.js": _PROGRAM.replace("BODY", json.dumps(BODY))})


NODE_INSIDE: Final = RealModel(
    name="node",
    summary="Node.js, asked what runs in parallel inside it",
    find=find_parts("node"),
    recipe=_recipe,
    per_connection=Needs(descriptors_count=1, system_descriptors_count=1),
    fixed=Needs(descriptors_count=32, system_descriptors_count=64, tasks_count=32, memory_bytes=200 << 20),
)
