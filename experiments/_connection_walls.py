"""What broke first: the limit that bound, the use of every limit before and after, and what was predicted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from c10k_probe import limits
from c10k_probe.limits import Wall
from c10k_probe.load import Failure
from c10k_probe.observe import counters
from c10k_probe.servers import POOL_IS_FULL, Server, pool_wall
from c10k_probe.servers.complaints import setting_wall

MEMORY_GUARD = "memory guard"


@dataclass(frozen=True)
class Stop:
    """Why a ramp ended before its target: what was seen, and the limit behind it where there is one."""

    reason: str
    wall: Wall | None = None
    is_death: bool = False  # of the server


def guarded(growth_bytes: float) -> Stop | None:
    """The stop of a step whose growth would endanger the machine."""
    refusal = limits.memory_guard(growth_bytes)
    if refusal is None:
        return None
    name = "cgroup-memory" if "control group" in refusal else "memory"
    wall = next((wall for wall in limits.walls() if wall.name == name), None)
    return Stop(f"{MEMORY_GUARD}: {refusal}", wall)


def stop_of(server: Server, client_pid: int, failure: Failure) -> Stop:
    """Which limit broke: what the server ran into, else what the client did; read while everything is still held."""
    hits = server.walls()
    death = server.death()
    if death:
        return Stop(f"{death} at {failure.at_count:,} connections", is_death=True)
    if hits:
        return _named(hits[0], server.session, "server", failure)
    seen = {"call": failure.call, "name": failure.errno_name, "message": failure.message}
    return _named(seen, client_pid, "client", failure)


def stop_of_loss(server: Server, lost: str, open_count: int) -> Stop:
    """Why held connections were lost: the server died, or closed them as a limit told it to, or nobody knows."""
    death = server.death()
    if death:
        return Stop(f"{death}; {lost}", is_death=True)
    hits = server.walls()
    if not hits:
        return Stop(lost)
    failure = Failure(str(hits[0]["call"]), str(hits[0]["name"]), str(hits[0]["message"]), open_count)
    stop = _named(hits[0], server.session, "server", failure)
    return Stop(f"{stop.reason}; {lost}", stop.wall)


def _named(hit: dict[str, Any], pid: int, side: str, failure: Failure) -> Stop:
    wall = pool_wall(failure.at_count) if (hit["call"], hit["name"]) == POOL_IS_FULL else None
    if "setting" in hit:
        wall = setting_wall(str(hit["setting"]), hit["limit"], str(hit["lift"]))
    wall = wall or limits.diagnose(str(hit["call"]), str(hit["name"]), walls=limits.walls(pid=pid))
    seen = f"{side}: {hit['call']}: {hit['message']} at {failure.at_count:,} connections"
    return Stop(f"{limits.describe(wall)}; {seen}" if wall else seen, wall)


class WallWatch:
    """The use of every limit and the kernel's counters of refusals, before the ramp and later."""

    def __init__(self, server_pid: int, *, selects: bool) -> None:
        """Of a server that does not call select(2), its set of descriptors is no limit."""
        self._pid = server_pid
        self._no_limits = () if selects else ("fd-setsize",)
        self._before = {wall.name: wall.used_count for wall in limits.walls(pid=server_pid)}
        self._refusals = counters.read_netstat()

    def used(self) -> str:
        """``descriptors=9..10009/20000 pids=..``: before, now and the limit, of each limit that has a use.

        Descriptors are those of the fullest table that a thread of the server has: the limit is of each table.
        """
        texts = [
            f"{wall.name}={self._before[wall.name]}..{wall.used_count}/{wall.limit_count or 'none'}"
            for wall in limits.walls(pid=self._pid)
            if wall.used_count is not None and self._before.get(wall.name) is not None
            if wall.name not in self._no_limits
        ]
        return " ".join(texts)

    def refused(self, name: str) -> int | None:
        """Growth of a TcpExt counter since the ramp began; None when the kernel does not have it."""
        now, before = counters.read_netstat().get(name), self._refusals.get(name)
        return None if now is None or before is None else now - before
