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

def words(path):
    with open(path) as file:
        return file.read().split()

def disturbed_ns():  # what others took, at most: own threads ready without a CPU, and steal of all CPUs
    waited = sum(int(words(f"/proc/self/task/{thread}/schedstat")[1]) for thread in os.listdir("/proc/self/task"))
    return waited + 10_000_000 * int(words("/proc/stat")[8])
"""
PYTHON_DEADLOCK: Final = (
    _PYTHON_HEAD
    + """
holder_of, wanted_by = {}, {}

async def take(task, name):
    wanted_by[task] = name
    await locks[name].acquire()
    holder_of[name] = task
    del wanted_by[task]

async def work(task, first, second):
    await take(task, first)
    await asyncio.sleep(0)  # the other one's turn
    await take(task, second)
    locks[second].release()
    locks[first].release()

def tell():
    say("waits", waits=[[task, name, holder_of[name]] for task, name in wanted_by.items()])

async def main():
    global locks
    locks = {"lock 1": asyncio.Lock(), "lock 2": asyncio.Lock()}
    order = list(locks)
    say("began")
    asyncio.get_running_loop().call_later(0.01, tell)
    await asyncio.gather(work("task 1", *order), work("task 2", *(order if is_careful else order[::-1])))
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
    disturbed = disturbed_ns()
    timer = asyncio.ensure_future(late())
    await asyncio.sleep(0)  # it is set
    time.sleep(hold_s)
    say("delay", before_ns=before, delay_ns=await timer, disturbed_ns=disturbed_ns() - disturbed)

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
    disturbed = disturbed_ns()
    opening = [loop.run_in_executor(None, os.open, path, os.O_RDONLY) for path in paths]
    loop.call_later(hold_s, lambda: [os.open(path, os.O_RDWR | os.O_NONBLOCK) for path in paths])  # a writer comes
    delay = await look_up(loop)
    disturbed = disturbed_ns() - disturbed
    await asyncio.gather(*opening)
    say("delay", before_ns=before, delay_ns=delay, disturbed_ns=disturbed)

asyncio.run(main())
"""
).replace('f"{folder}/', '"{folder}/" f"')

_NODE_HEAD: Final = """\
"use strict";
const fs = require("fs");
const hold = Number(process.argv[2]) / 1e6, isCareful = process.argv[process.argv.length - 1] === "on";
const now = () => process.hrtime.bigint();
const say = (type, fields) => fs.writeSync(1, JSON.stringify({ type, ...fields }) + "\\n");
const words = (path) => fs.readFileSync(path, "utf8").split(/\\s+/);
const waited = (thread) => Number(words(`/proc/self/task/${thread}/schedstat`)[1]);
// what others took, at most: these threads ready without a CPU, and steal of all CPUs
const disturbed = (threads = [process.pid]) =>
    threads.map(waited).reduce((sum, each) => sum + each) + 1e7 * Number(words("/proc/stat")[8]);
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
const mutexes = { "mutex 1": new Mutex(), "mutex 2": new Mutex() };
const holderOf = {}, wantedBy = {};
async function take(task, name) {
    wantedBy[task] = name;
    const release = await mutexes[name].take();
    holderOf[name] = task;
    delete wantedBy[task];
    return release;
}
async function work(task, first, second) {
    const releaseFirst = await take(task, first);
    await new Promise(setImmediate);  // the other one's turn
    const releaseSecond = await take(task, second);
    releaseSecond();
    releaseFirst();
}
const tell = () => {
    say("waits", { waits: Object.entries(wantedBy).map(([task, name]) => [task, name, holderOf[name]]) });
};
require("net").createServer().listen(0, "127.0.0.1", async () => {  // a server, as which it does not end by itself
    const order = Object.keys(mutexes);
    say("began");
    setTimeout(tell, 10);
    await Promise.all([work("task 1", ...order), work("task 2", ...(isCareful ? order : order.reverse()))]);
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
    const before = histogram.max, taken = disturbed();
    const due = now() + 1000000n;
    setTimeout(() => {
        const late = Number(now() - due), disturbed_ns = disturbed() - taken;
        setTimeout(() => {
            say("delay", { before_ns: before, delay_ns: histogram.max, late_ns: late, disturbed_ns });
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
    let left = paths.length, delay, disturbed_ns;
    const all = () => disturbed(fs.readdirSync("/proc/self/task"));
    const end = () => {
        if (left === 0 && delay !== undefined) {
            say("delay", { before_ns: before, delay_ns: delay, disturbed_ns });
            process.exit();
        }
    };
    say("began");
    const taken = all();
    for (const path of paths) {
        fs.open(path, "r", () => { left -= 1; end(); });
    }
    setTimeout(() => {
        for (const path of paths) {
            fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_NONBLOCK);  // a writer comes
        }
    }, hold);
    lookUp((found) => {
        delay = found;
        disturbed_ns = all() - taken;
        end();
    });
}));
"""
)
HEADS: Final = {"asyncio": _PYTHON_HEAD, "node": _NODE_HEAD}
"""What all programs of a runtime begin with."""
