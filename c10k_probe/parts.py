"""Optional parts of the system: what each is for, whether it is here, and the command that brings it.

One table, PARTS. Only system packages stand here; what the Python package needs is in its own dependencies.
Package names are Debian's; where Ubuntu has another name, Ubuntu's too.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_SYSTEM_PYTHON = "/usr/bin/python3"
_IMPORT_TIMEOUT_S = 10
# Servers live in sbin, which is not in the PATH of an ordinary user on Debian.
SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")
# Debian's names of architectures that differ from the kernel's.
_DEBIAN_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "686", "ppc64le": "powerpc64le"}


@dataclass(frozen=True)
class Part:
    """One optional part. path: where it was found; note: what to know about the one that was found.

    package: the one that brings it here. command: the shell command that installs it. used_by: what in this version
    uses it, () for nothing yet.
    """

    name: str
    purpose: str
    found: bool
    path: str | None
    package: str
    command: str
    used_by: tuple[str, ...]
    note: str | None = None


class _Place(NamedTuple):
    path: str
    note: str | None = None


Finder = Callable[[], _Place | None]


def _executable(*names: str) -> Finder:
    """Find the first of these programs in PATH or in sbin."""

    def find() -> _Place | None:
        import shutil

        search = os.pathsep.join((os.environ.get("PATH", os.defpath), *SBIN))
        paths = (shutil.which(name, path=search) for name in names)
        return next((_Place(path) for path in paths if path), None)

    return find


def _file(pattern: str) -> Finder:
    """Find the first file below / that matches a pattern."""

    def find() -> _Place | None:
        path = next(iter(sorted(Path("/").glob(pattern))), None)
        return None if path is None else _Place(str(path))

    return find


def _system_module(name: str, proof: str) -> Finder:
    """Find a module of Debian's Python that has a file `proof`: the name alone may be another package.

    Isolated (-I): neither the user's packages nor those of an environment count.
    """
    program = f"import importlib.util as u; s = u.find_spec({name!r}); print(s.origin if s else '')"

    def find() -> _Place | None:
        import subprocess

        try:
            done = subprocess.run(
                [_SYSTEM_PYTHON, "-I", "-c", program],
                capture_output=True,
                text=True,
                timeout=_IMPORT_TIMEOUT_S,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None  # no system Python, or it is broken
        origin = Path(done.stdout.strip())
        return _Place(str(origin.parent)) if (origin.parent / proof).is_file() else None

    return find


def _kernel_headers() -> _Place | None:
    """Headers of the running kernel; else its own archive of them, else those of any kernel."""
    release = os.uname().release
    build = Path(f"/lib/modules/{release}/build")
    if build.is_dir():
        return _Place(str(build), "of the running kernel")
    archive = Path("/sys/kernel/kheaders.tar.xz")
    if archive.exists():
        return _Place(str(archive), "of the running kernel, as an archive in the kernel")
    other = next(iter(sorted(Path("/usr/src").glob("linux-headers-*"), reverse=True)), None)
    return None if other is None else _Place(str(other), f"of another kernel, which does; running: {release}")


def _is_ubuntu() -> bool:
    """Whether packages have Ubuntu's names; one made from Ubuntu says so in ID_LIKE (os-release(5))."""
    try:
        lines = platform.freedesktop_os_release()
    except OSError:
        return False
    return "ubuntu" in (lines.get("ID", ""), *lines.get("ID_LIKE", "").split())


def _linux_headers() -> str:
    """Debian has one package for each architecture, Ubuntu one for all."""
    if _is_ubuntu():
        return "linux-headers-generic"
    return f"linux-headers-{_DEBIAN_ARCHITECTURES.get(os.uname().machine, os.uname().machine)}"


def _linux_perf() -> str:
    return "linux-tools-generic" if _is_ubuntu() else "linux-perf"


class _Row(NamedTuple):
    name: str
    purpose: str
    package: str | Callable[[], str]
    find: Finder
    used_by: tuple[str, ...] = ()


_OF_SERVERS = ("experiments with --server",)

PARTS: tuple[_Row, ...] = (
    _Row("strace", "lists system calls", "strace", _executable("strace"), ("trace", "the project's truth checks")),
    _Row("ss", "lists sockets", "iproute2", _executable("ss"), ("the project's truth checks",)),
    _Row("perf", "counts events of CPU and kernel", _linux_perf, _executable("perf"), ("trace",)),
    _Row("bcc", "counts in the kernel (eBPF)", "python3-bpfcc", _system_module("bcc", "libbcc.py"), ("trace",)),
    _Row("kernel headers", "compiles what bcc counts with", _linux_headers, _kernel_headers, ("trace",)),
    _Row("apache2", "server under test", "apache2-bin", _executable("apache2"), _OF_SERVERS),
    _Row(
        "mod_php",
        "PHP in apache2, a process per connection",
        "libapache2-mod-php",
        _file("usr/lib/apache2/modules/libphp*.so"),
        _OF_SERVERS,
    ),
    _Row("php-fpm", "PHP in processes of its own", "php-fpm", _file("usr/sbin/php-fpm*"), _OF_SERVERS),
    _Row("nginx", "server under test", "nginx", _executable("nginx"), (*_OF_SERVERS, "cores")),
    _Row("cherokee", "server under test, rarely packaged", "cherokee", _executable("cherokee"), _OF_SERVERS),
    _Row(
        "node", "server under test", "nodejs", _executable("node", "nodejs"), (*_OF_SERVERS, "cores", "demonstrations")
    ),
    _Row("ab", "HTTP load, closed loop", "apache2-utils", _executable("ab"), ("servers", "the project's truth checks")),
    _Row("wrk", "HTTP load, several threads", "wrk", _executable("wrk"), ("servers", "trace-overhead")),
)


def _part(row: _Row) -> Part:
    place = row.find()
    package = row.package if isinstance(row.package, str) else row.package()
    sudo = "" if os.geteuid() == 0 else "sudo "
    return Part(
        name=row.name,
        purpose=row.purpose,
        found=place is not None,
        path=None if place is None else place.path,
        package=package,
        command=f"{sudo}apt-get install {package}",
        used_by=row.used_by,
        note=None if place is None else place.note,
    )


def find_part(name: str) -> Part:
    """Look for the one part of this name."""
    return _part(next(row for row in PARTS if row.name == name))


def find_parts() -> list[Part]:
    """Look for every part, in the order of PARTS; some 30 ms, most of it the start of the system's Python."""
    return [_part(row) for row in PARTS]
