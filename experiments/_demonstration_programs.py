"""The programs of demonstrations: each a few lines, which print JSON lines. ``{folder}`` is a folder of their own.

``say("began")`` comes where the subject begins; a program of a deadlock says ``done`` if it gets through. The last
argument is ``off`` for the fault and ``on`` for the same program with care. Sources: asyncio's documentation of Lock
and run_in_executor; Node.js documentation of perf_hooks (monitorEventLoopDelay), fs, dns (lookup), crypto.
"""

from __future__ import annotations

from typing import Final

_PYTHON_HEAD: Final = """\
import asyncio, concurrent.futures, json, os, socket, sys, time
is_careful = sys.argv[-1] == "on"
hold_s = int(sys.argv[1]) / 1e9

def say(kind, **fields):
    print(json.dumps({"type": kind, **fields}), flush=True)
"""
PYTHON_DEADLOCK: Final = (
    _PYTHON_HEAD
    + """
async def take(first, second):
    async with first:
        await asyncio.sleep(0)  # the other one's turn
        async with second:
            pass

async def main():
    one, two = asyncio.Lock(), asyncio.Lock()
    say("began")
    await asyncio.gather(take(one, two), take(one, two) if is_careful else take(two, one))
    say("done")

asyncio.run(main())
"""
)
PYTHON_LOST_UPDATE: Final = (
    _PYTHON_HEAD
    + """
counter, each = 0, 10_000

async def add(lock):
    global counter
    for _ in range(each):
        if is_careful:
            await lock.acquire()
        seen = counter
        await asyncio.sleep(0)  # the other one's turn
        counter = seen + 1
        if is_careful:
            lock.release()

async def main():
    lock = asyncio.Lock()
    await asyncio.gather(add(lock), add(lock))
    say("updates", updates_count=2 * each, lost_count=2 * each - counter)

asyncio.run(main())
"""
)
PYTHON_BLOCKED_LOOP: Final = (
    _PYTHON_HEAD
    + """
async def late():
    loop = asyncio.get_running_loop()
    due = loop.time() + 0.001
    await asyncio.sleep(0.001)
    return round((loop.time() - due) * 1e9)

async def main():
    before = max([await late() for _ in range(100)])
    say("began")
    timer = asyncio.ensure_future(late())
    await asyncio.sleep(0)  # it is set
    time.sleep(hold_s)
    say("delay", before_ns=before, delay_ns=await timer)

asyncio.run(main())
"""
)
PYTHON_STARVED_POOL: Final = (
    _PYTHON_HEAD
    + """
async def look_up(loop):
    began = time.monotonic_ns()
    await loop.getaddrinfo("localhost", 80)
    return time.monotonic_ns() - began

async def main():
    loop = asyncio.get_running_loop()
    loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(4))
    await look_up(loop)
    before = await look_up(loop)
    paths = [f"{folder}/fifo{number}" for number in range(4)]
    for path in paths:
        os.mkfifo(path)
    say("began")
    opening = [loop.run_in_executor(None, os.open, path, os.O_RDONLY) for path in paths]
    loop.call_later(hold_s, lambda: [os.open(path, os.O_RDWR | os.O_NONBLOCK) for path in paths])  # a writer comes
    delay = await look_up(loop)
    await asyncio.gather(*opening)
    say("delay", before_ns=before, delay_ns=delay)

asyncio.run(main())
"""
).replace('f"{folder}/', '"{folder}/" f"')

_NODE_HEAD: Final = """\
"use strict";
const fs = require("fs");
const hold = Number(process.argv[2]) / 1e6, isCareful = process.argv[process.argv.length - 1] === "on";
const now = () => process.hrtime.bigint();
const say = (type, fields) => fs.writeSync(1, JSON.stringify({ type, ...fields }) + "\\n");
"""
NODE_DEADLOCK: Final = (
    _NODE_HEAD
    + """
class Mutex {
    tail = Promise.resolve();
    take() {
        const before = this.tail;
        let release;
        this.tail = new Promise((resolve) => { release = resolve; });
        return before.then(() => release);
    }
}
async function work(first, second) {
    const releaseFirst = await first.take();
    await new Promise(setImmediate);  // the other one's turn
    const releaseSecond = await second.take();
    releaseSecond();
    releaseFirst();
}
require("net").createServer().listen(0, "127.0.0.1", async () => {  // a server, as which it does not end by itself
    const one = new Mutex(), two = new Mutex();
    say("began");
    await Promise.all([work(one, two), isCareful ? work(one, two) : work(two, one)]);
    say("done");
    process.exit();
});
"""
)
_NODE_BLOCKED: Final = (
    _NODE_HEAD
    + """
const { execFileSync, spawn } = require("child_process");
const histogram = require("perf_hooks").monitorEventLoopDelay({ resolution: 1 });
const subject = SUBJECT;
histogram.enable();
setTimeout(() => {
    const before = histogram.max;
    const due = now() + 1000000n;
    setTimeout(() => {
        const late = now() - due;
        setTimeout(() => {
            say("delay", { before_ns: before, delay_ns: histogram.max, late_ns: Number(late) });
            process.exit();
        }, 10);
    }, 1);
    say("began");
    subject();
}, 100);
"""
)
_SUBJECTS: Final = {
    "fs.readFileSync of a FIFO": """(() => {
    execFileSync("mkfifo", ["{folder}/fifo"]);
    return () => {
        spawn("/bin/sh", ["-c", `sleep ${hold / 1000}; echo x > {folder}/fifo`]);
        fs.readFileSync("{folder}/fifo");
    };
})()""",
    "crypto.pbkdf2Sync": '() => require("crypto").pbkdf2Sync("word", "salt", 400000, 64, "sha512")',
    "JSON.parse of 50 MB": """(() => {
    const text = "[" + "1234567,".repeat(6250000) + "0]";
    return () => JSON.parse(text);
})()""",
    "a regular expression": '() => /^(a+)+$/.test("a".repeat(23) + "!")',
    "a while loop": "() => { const until = Date.now() + hold; while (Date.now() < until); }",
}
NODE_BLOCKED: Final = {name: _NODE_BLOCKED.replace("SUBJECT", subject) for name, subject in _SUBJECTS.items()}
NODE_STARVED_POOL: Final = (
    _NODE_HEAD
    + """
const { execFileSync } = require("child_process");
const dns = require("dns");
const paths = [0, 1, 2, 3].map((number) => "{folder}/fifo" + number);
const lookUp = (done) => {
    const began = now();
    dns.lookup("localhost", () => done(Number(now() - began)));
};
execFileSync("mkfifo", paths);
lookUp(() => lookUp((before) => {
    let left = paths.length, delay;
    const end = () => {
        if (left === 0 && delay !== undefined) {
            say("delay", { before_ns: before, delay_ns: delay });
            process.exit();
        }
    };
    say("began");
    for (const path of paths) {
        fs.open(path, "r", () => { left -= 1; end(); });
    }
    setTimeout(() => {
        for (const path of paths) {
            fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_NONBLOCK);  // a writer comes
        }
    }, hold);
    lookUp((found) => { delay = found; end(); });
}));
"""
)
