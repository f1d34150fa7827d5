"""Small text files below /proc and /sys: a missing or unreadable one is None, never an exception.

Sources: proc(5), Documentation/filesystems/proc.rst.
"""

from __future__ import annotations

import os
from pathlib import Path

PROC = Path("/proc")
SYS = Path("/sys")

# Name in /proc/PID/limits (fs/proc/base.c, lnames) of each resource that is of interest here.
RLIMIT_TITLES = {
    "nofile": "Max open files",
    "nproc": "Max processes",
    "stack": "Max stack size",
    "as": "Max address space",
    "memlock": "Max locked memory",
}


def read_text(path: Path) -> str | None:
    """Content of a small file without white space at its ends; None when it cannot be read or is empty."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace").strip()
    except (OSError, ValueError):
        return None
    return text or None


def read_int(path: Path) -> int | None:
    """A file that holds one decimal integer; None when missing or anything else (such as `max`)."""
    return to_int(read_text(path))


def to_int(text: str | None) -> int | None:
    """Decimal text as an integer, None when it is not one."""
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


def read_raw(path: bytes, size_bytes: int = 8192) -> bytes:
    """First `size_bytes` of a file with three system calls and no more, for files read by the thousand.

    Raises OSError: ENOENT or ESRCH when the process has gone.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, size_bytes)
    finally:
        os.close(descriptor)


def raw_field(data: bytes, key: bytes) -> int | None:
    """First integer after `key` in a status-like file; None when the key is not there.

    Pass the key with the line break before it, so that `voluntary` is not found in `nonvoluntary`.
    """
    start = data.find(key)
    if start < 0:
        return None
    start += len(key)
    end = data.find(b"\n", start)
    words = data[start : end if end >= 0 else len(data)].split(None, 1)
    try:
        return int(words[0])
    except (ValueError, IndexError):
        return None


def selected_word(text: str | None) -> str | None:
    """The choice in force of a file such as `always [madvise] never`; the whole text without brackets."""
    if text is None or "[" not in text:
        return text
    return text[text.index("[") + 1 :].partition("]")[0]


def read_meminfo(proc_root: Path = PROC) -> dict[str, int]:
    """/proc/meminfo as name -> bytes (page counts such as HugePages_Total are left out); {} if missing."""
    sizes: dict[str, int] = {}
    for line in (read_text(proc_root / "meminfo") or "").splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB" and words[0].isdigit():
            sizes[name] = int(words[0]) * 1024
    return sizes


def read_status(proc_root: Path = PROC, pid: int | str = "self") -> dict[str, str]:
    """/proc/PID/status as name -> text; {} when it cannot be read."""
    lines = (read_text(proc_root / str(pid) / "status") or "").splitlines()
    pairs = (line.partition(":") for line in lines)
    return {name: value.strip() for name, _, value in pairs}


def read_rlimits(proc_root: Path = PROC, pid: int | str = "self") -> dict[str, tuple[int | None, int | None]]:
    """Resource limits as name -> (soft, hard), None for unlimited; a name that is not there is unknown.

    Unit: the resource's own (descriptors, processes, bytes). Source: /proc/PID/limits, getrlimit(2).
    """
    lines = (read_text(proc_root / str(pid) / "limits") or "").splitlines()
    limits: dict[str, tuple[int | None, int | None]] = {}
    for name, title in RLIMIT_TITLES.items():
        words = next((line[len(title) :].split() for line in lines if line.startswith(title)), [])
        if len(words) >= 2:
            limits[name] = (to_int(words[0]), to_int(words[1]))
    return limits


def sysctl_path(name: str, proc_root: Path = PROC) -> Path:
    """Where a sysctl such as `net.core.somaxconn` can be read."""
    return proc_root / "sys" / name.replace(".", "/")


def read_ints(path: Path) -> list[int]:
    """All integers of a file such as tcp_mem; [] when it is missing or holds anything else."""
    try:
        return [int(word) for word in (read_text(path) or "").split()]
    except ValueError:
        return []
