"""What a server under slow clients has no more of: workers, accept queue, descriptors, memory, a setting of its own."""

from __future__ import annotations

import os
from collections.abc import Sequence

from c10k_probe import limits
from c10k_probe.experiment import Scalar
from c10k_probe.observe import processes, sockets, tree
from c10k_probe.observe.procfs import PROC, raw_field, read_rlimits, read_text
from c10k_probe.observe.series import read_memory
from c10k_probe.servers import POOL_IS_FULL, Server

MEMORY = "memory"
_LOOKED_AT = 64  # processes whose descriptors are counted
Facts = dict[str, Scalar]


def look(server: Server, room_count: int | None) -> Facts:
    """The server at the end of the schedule: connections, queue, descriptors, tasks, memory, and what is used up."""
    queue = sockets.listen_queue(server.port)
    pids = tree.session_pids(server.session)
    memory = read_memory(server.session)
    descriptors_count, descriptors_limit = _descriptors(pids)
    facts: Facts = {
        "inside_count": sockets.accepted_count(server.port),
        "queued_count": queue.queued_count if queue else None,
        "backlog_count": server.backlog_count,
        "dropped_count": sockets.listen_drops(server.port),
        "descriptors_count": descriptors_count,
        "descriptors_limit_count": descriptors_limit,
        "processes_count": len(pids),
        "threads_count": len(list(processes.walk_threads(pids))),
        "pss_bytes": memory.pss_bytes if memory else None,
    }
    return facts | {"exhausted": ", ".join(exhausted(server, room_count, facts))}


def killed_for_memory_count() -> int:
    """Processes that the kernel has killed since boot as a control group, or the machine, had no more memory."""
    text = read_text(PROC / "vmstat") or ""
    return raw_field(f"\n{text}".encode(), b"\noom_kill ") or 0


def _descriptors(pids: Sequence[int]) -> tuple[int | None, int | None]:
    """Descriptors of the process that has most of them, and its limit; of a large tree the first ones are looked at."""
    most: tuple[int, int | None] | None = None
    for pid in pids[:_LOOKED_AT]:
        try:
            count = len(os.listdir(PROC / str(pid) / "fd"))  # noqa: PTH208 -- thousands of names
        except OSError:
            continue
        if most is None or count > most[0]:
            most = count, read_rlimits(pid=pid).get("nofile", (None, None))[0]
    return most or (None, None)


def exhausted(server: Server, room_count: int | None, facts: Facts) -> list[str]:
    """What the server had no more of."""
    found = []
    inside, queued = facts["inside_count"], facts["queued_count"]
    if room_count is not None and isinstance(inside, int) and inside >= room_count:
        found.append("workers")
    if isinstance(queued, int) and queued >= server.backlog_count:
        found.append("accept queue")
    used, limit = facts["descriptors_count"], facts["descriptors_limit_count"]
    if isinstance(used, int) and isinstance(limit, int) and used >= limit - 1:
        found.append("descriptors")
    for hit in server.walls() if processes.is_alive(server.session) else ():
        if (hit["call"], hit["name"]) == POOL_IS_FULL or "setting" in hit:
            found.append(str(hit.get("setting", "workers")))
            continue
        wall = limits.diagnose(str(hit["call"]), str(hit["name"]), walls=limits.walls())
        found.append(wall.name if wall else f"{hit['call']}: {hit['name']}")
    return list(dict.fromkeys(found))
