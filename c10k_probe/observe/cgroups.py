"""Limits of the control groups this process is in: version 1, version 2 and both at once (hybrid).

A limit may sit in any group between one's own and the root, and the tightest counts, so every reader walks
up.
Sources: cgroups(7), Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst; proc_pid_mountinfo(5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from c10k_probe.observe.procfs import PROC, SYS, raw_field, read_int, read_text

# Version 1 writes "no limit" as the largest multiple of a page below 2^63.
_V1_UNLIMITED = 2**62

# controller -> version -> (file of the limit, file of what is used)
_FILES = {
    "memory": {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        2: ("memory.max", "memory.current"),
    },
    "pids": {1: ("pids.max", "pids.current"), 2: ("pids.max", "pids.current")},
}


class CgroupLevel(NamedTuple):
    """The group that binds: limit and use in the controller's unit (bytes, tasks).

    limit is None when no group sets one; path is the file that holds the limit.
    """

    limit: int | None
    used: int | None
    path: Path
    version: int


class _Mount(NamedTuple):
    version: int
    root: str
    point: str
    options: frozenset[str]


def memberships(proc_root: Path = PROC) -> dict[str, str]:
    """Controller -> path of this process's group; the key "" stands for version 2. {} when unknown."""
    found: dict[str, str] = {}
    for line in (read_text(proc_root / "self/cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number.isdigit() and path:
            found.update(dict.fromkeys(controllers.split(","), path))
    return found


def cgroup_version(proc_root: Path = PROC) -> str | None:
    """`v1`, `v2` or `hybrid` (version 1 controllers beside a version 2 tree); None without control groups."""
    found = memberships(proc_root)
    has_v1 = any(name and not name.startswith("name=") for name in found)
    if "" in found:
        return "hybrid" if has_v1 else "v2"
    return "v1" if found else None


def own_path(proc_root: Path = PROC) -> str | None:
    """Path of this process's group, where memory is accounted: the memory controller's, else version 2's."""
    found = memberships(proc_root)
    return found.get("memory", found.get(""))


def _mounts(proc_root: Path) -> list[_Mount]:
    mounts = []
    for line in (read_text(proc_root / "self/mountinfo") or "").splitlines():
        left, _, right = line.partition(" - ")
        fields, tail = left.split(), right.split()
        if len(fields) >= 5 and len(tail) >= 3 and tail[0] in ("cgroup", "cgroup2"):
            version = 2 if tail[0] == "cgroup2" else 1
            mounts.append(_Mount(version, fields[3], fields[4], frozenset(tail[2].split(","))))
    return mounts


def _mount_of(controller: str, version: int, proc_root: Path) -> _Mount:
    """The mount that shows the controller; the usual place when mountinfo does not tell."""
    for mount in _mounts(proc_root):
        if mount.version == version and (version == 2 or controller in mount.options):
            return mount
    point = "/sys/fs/cgroup" if version == 2 else f"/sys/fs/cgroup/{controller}"
    return _Mount(version, "/", point, frozenset())


def _below(root: str, path: str) -> str:
    """`path` as seen from a mount whose root is `root` (a container sees only its own part of the tree)."""
    if root != "/" and (path == root or path.startswith(root + "/")):
        path = path[len(root) :]
    return "" if ".." in path.split("/") else path.strip("/")


def group_directories(controller: str, proc_root: Path = PROC, sys_root: Path = SYS) -> tuple[int, list[Path]] | None:
    """(version, directories from one's own group up to the root as far as it is visible), or None."""
    found = memberships(proc_root)
    if controller not in found and "" not in found:
        return None
    version = 1 if controller in found else 2
    mount = _mount_of(controller, version, proc_root)
    point = Path(mount.point)
    top = sys_root / point.relative_to("/sys") if point.is_relative_to("/sys") else point
    own = top / _below(mount.root, found.get(controller, found.get("", "")))
    return version, [own, *(parent for parent in own.parents if parent.is_relative_to(top))]


def _levels(controller: str, version: int, directories: list[Path]) -> Iterator[CgroupLevel]:
    limit_file, used_file = _FILES[controller][version]
    for directory in directories:
        limit = read_int(directory / limit_file)
        if limit is not None and limit >= _V1_UNLIMITED:
            limit = None
        used = read_int(directory / used_file)
        if used is not None and controller == "memory":
            used = max(0, used - _inactive_file_bytes(directory, version))
        yield CgroupLevel(limit, used, directory / limit_file, version)


def _inactive_file_bytes(directory: Path, version: int) -> int:
    """Page cache that is dropped before anything is killed; counting it as used would cry wolf."""
    key = b"\ninactive_file " if version == 2 else b"\ntotal_inactive_file "
    text = read_text(directory / "memory.stat") or ""
    return raw_field(b"\n" + text.encode(), key) or 0


def tightest(controller: str, proc_root: Path = PROC, sys_root: Path = SYS) -> CgroupLevel | None:
    """The level of `memory` or `pids` with the least room; one's own, unlimited, when none sets a limit.

    None when the controller is not there. Memory in bytes without inactive page cache, pids in tasks.
    """
    found = group_directories(controller, proc_root, sys_root)
    if found is None or not any(directory.is_dir() for directory in found[1]):
        return None
    levels = list(_levels(controller, *found))
    bound = [level for level in levels if level.limit is not None]
    return min(bound, key=_room, default=levels[0])


def _room(level: CgroupLevel) -> int:
    return (level.limit or 0) - (level.used or 0)


def _quota_v2(directory: Path) -> float | None:
    quota, _, period = (read_text(directory / "cpu.max") or "").partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def _quota_v1(directory: Path) -> float | None:
    quota, period = read_int(directory / "cpu.cfs_quota_us"), read_int(directory / "cpu.cfs_period_us")
    return quota / period if quota is not None and quota > 0 and period else None


def cpu_quota(proc_root: Path = PROC, sys_root: Path = SYS) -> float | str | None:
    """CPU time allowed, in CPUs (1.5 = one and a half); "unlimited", or None when it cannot be told."""
    found = group_directories("cpu", proc_root, sys_root)
    if found is None or not any(directory.is_dir() for directory in found[1]):
        return None
    read: Callable[[Path], float | None] = _quota_v1 if found[0] == 1 else _quota_v2
    quotas = [quota for quota in map(read, found[1]) if quota is not None]
    return min(quotas, default="unlimited")
