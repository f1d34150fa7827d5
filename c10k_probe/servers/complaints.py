"""What servers complain of when a limit stops them, and which limit that is.

A program that cannot take one more connection says so in its log or not at all: the patterns here are of the messages
of nginx, httpd, php-fpm, Python and Node.js, and of the C library's texts that others print.

Sources: ngx_event_accept.c, ngx_connection.c; httpd's server/mpm/prefork/prefork.c and event/event.c; Node.js and
Python documentation of errors; strerror(3).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from c10k_probe.limits import Wall

# A server's own setting: how it tells of it, perhaps with the number -> its name.
_SETTINGS: Final = (
    (re.compile(r"(?P<limit>\d+)? ?worker_connections are not enough"), "worker_connections"),
    (re.compile(r"server reached MaxRequestWorkers setting|scoreboard is full"), "MaxRequestWorkers"),
)
# How the failure of a call is told -> the call and the name of its errno.
_CALLS: Final = (
    (re.compile(r"\(24: Too many open files\)|\(24\)Too many open files|Errno 24\]|EMFILE"), "accept", "EMFILE"),
    (re.compile(r"\(23: Too many open files|\(23\)Too many|Errno 23\]|ENFILE"), "accept", "ENFILE"),
    (
        re.compile(r"fork: Unable to fork|fork\(\) failed|can't start new thread|unable to create worker"),
        "fork",
        "EAGAIN",
    ),
    (re.compile(r"Cannot allocate memory|MemoryError|heap out of memory|ENOMEM"), "mmap", "ENOMEM"),
)
_PLACE: Final = re.compile(
    r"^(?:\d{4}/\d\d/\d\d [\d:]+ )?(?:\[[^\]]*\] )+(?:\d+#\d+: )?(?:\*\d+ )?"
)  # when, how bad, who
_SHOWN: Final = 160


def hits(text: str) -> Iterator[dict[str, Any]]:
    """Each kind of complaint once, in the order of the log: ``call, name, message``, and ``setting``, ``limit``."""
    seen: set[str] = set()
    for line in text.splitlines():
        for hit in _in_line(_PLACE.sub("", line.strip())):
            key = str(hit.get("setting", hit["name"]))
            if key not in seen:
                seen.add(key)
                yield hit


def _in_line(line: str) -> Iterator[dict[str, Any]]:
    for pattern, setting in _SETTINGS:
        if found := pattern.search(line):
            limit = found.groupdict().get("limit")
            told = {"setting": setting, "limit": int(limit) if limit else None}
            yield {"call": "accept", "name": "LIMIT", "message": line[:_SHOWN], **told}
    for pattern, call, name in _CALLS:
        if pattern.search(line):
            yield {"call": call, "name": name, "message": line[:_SHOWN]}


def setting_wall(setting: str, limit_count: int | None, lift: str) -> Wall:
    """The wall that a server's own setting is."""
    return Wall(
        setting, "administrative", limit_count, None, "connections", "process", "the server's configuration", lift
    )
