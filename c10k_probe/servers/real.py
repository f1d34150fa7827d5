"""Real servers: programs of others, each a private instance on loopback with a generated configuration.

What all have in common is here: a free port, the folder and the janitor, an unprivileged user, ready when the right
answer comes, counts without our own requests. What is peculiar to one is in its own file: the ``Recipe`` that starts it
and how it tells its counts. Every one answers ``PATH`` with ``BODY`` over HTTP/1.1, and its headers are counted.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from c10k_probe import limits, native, parts
from c10k_probe.limits import Needs
from c10k_probe.observe import processes, sockets, tree
from c10k_probe.observe.procfs import PROC, read_int, sysctl_path
from c10k_probe.servers.base import ServerOptions
from c10k_probe.servers.complaints import hits
from c10k_probe.servers.guarded import Guarded, Recipe
from c10k_probe.servers.page import Page, read_page

PATH: Final = "/"
BODY: Final = "hello from c10k-probe\n"  # as our own models answer
HTTP_ONLY: Final = frozenset({"http"})
_READY_S: Final = 10.0
_POLL_S: Final = 0.005
_TRIAL_S: Final = 0.5  # somebody else may listen on the port, and not answer
_ANSWER_S: Final = 5.0
_LONG_ANSWER_S: Final = 60.0
_DYING_S: Final = 0.3
_WARM_S: Final = 30.0  # Apache adds processes once a second, at first one
_PORT_TRIALS: Final = 3
_IN_USE: Final = "address already in use"
_FIRST_ERROR: Final = 400
_SHOWN: Final = 40
_PROCESSES_LOOKED_AT: Final = 16  # of a pool with more each has few connections
_KEPT_IN_HAND: Final = 1


@dataclass(frozen=True)
class Place:
    """Where a server is to be and what for. token: the secret path under which it may tell its counts."""

    port: int
    token: str
    backlog_count: int
    takes_silent: bool
    capacity_count: int | None
    workers_count: int | None
    is_as_installed: bool = False
    defence_s: int | None = None


@dataclass(frozen=True)
class Told:
    """What a server tells of itself since its start, our own requests included; None for what it does not tell."""

    accepted_count: int | None = None
    open_count: int | None = None
    requests_count: int | None = None
    accept_errors_count: int | None = None
    version: str = ""


@dataclass(frozen=True)
class RealModel:
    """A real server before it runs; see ``base.ServerModel``.

    find: paths of its programs by part; raises ``native.HelperUnsupported`` with the command that installs one.
    recipe: how it is started. read: its counts out of the page that it shows under the token with ``status_query``;
    None when it has none. runtime: what else answers, and the path under which that tells its version. cache_path: the
    same for whether it keeps compiled scripts.
    body: its answer to ``PATH``; None for any that is not an error.
    defence: the settings that are made, with ``{s}`` for the seconds, where ``ServerOptions.defence_s`` is given; empty
    for one that has none. work_path: asked for with ``?ms=N`` it answers after N ms of CPU time; empty where there is
    none.
    settings: names of those of its configuration that bound connections, or how long one is kept; told as they stand
    there, ``NAME=VALUE`` as it is written here. raised_by_workers: the one of them that more workers raise.
    is_pool: whether each of its workers serves one connection at a time. burst_count: requests at once for which it
    closes no idle connections.
    """

    name: str
    summary: str
    find: Callable[[], Mapping[str, str]]
    recipe: Callable[[Mapping[str, str], Place], Recipe]
    per_connection: Needs
    fixed: Needs
    read: Callable[[Page], Told | None] | None = None
    status_query: str = ""
    runtime: tuple[str, str] | None = None
    cache_path: str = ""
    body: str | None = BODY
    defence: str = ""
    work_path: str = ""
    takes: frozenset[str] = frozenset()
    protocols: frozenset[str] = HTTP_ONLY
    settings: tuple[str, ...] = ()
    is_pool: bool = False
    burst_count: int = 256
    raised_by_workers: str = ""

    @property
    def missing(self) -> str:
        """Why it cannot run here, and what helps; empty when it can."""
        try:
            self.find()
        except native.HelperUnsupported as error:
            return str(error)
        return ""

    def start(self, options: ServerOptions) -> RealServer:
        """A running server that has answered. Raises ``native.HelperError``."""
        if options.protocol not in self.protocols:
            raise native.HelperUnsupported(f"{self.name} does not speak {options.protocol}")
        return RealServer(self, options)

    def room_count(self, options: ServerOptions) -> int | None:
        """Connections that its design can serve at once; see ``base.ServerModel``."""
        return options.workers_count if self.is_pool else None


def find_parts(*names: str) -> Callable[[], Mapping[str, str]]:
    """Finds these system packages' programs."""

    def find() -> Mapping[str, str]:
        found = {}
        for part in map(parts.find_part, names):
            if part.path is None:
                raise native.HelperUnsupported(f"{part.name} is not installed; {part.command}")
            found[part.name] = part.path
        return found

    return find


def settings_in(recipe: Recipe, names: tuple[str, ...]) -> str:
    """``NAME=VALUE`` of each setting, by the configuration that is written; what is not in it is left out."""
    text = "\n".join(recipe.files.values())
    found = ((name, re.search(rf"\b{re.escape(name)}\s+([^\s;]+)", text)) for name in names)
    return " ".join(f"{name}={value[1]}" if value else name for name, value in found if value or "=" in name)


def read_json(page: Page) -> Told | None:
    """Of a page of our own program: an object with ``accepted``, ``open``, ``requests`` and ``version``."""
    try:
        found = json.loads(page.body)
        return Told(int(found["accepted"]), int(found["open"]), int(found["requests"]), version=str(found["version"]))
    except (ValueError, KeyError, TypeError):
        return None


class RealServer:
    """A running real server. Raises ``native.HelperError`` when it does not come up; see ``base.Server``.

    version: what it says it is. settings: see ``RealModel``.
    """

    def __init__(self, model: RealModel, options: ServerOptions, port: int | None = None) -> None:
        """Start it on this port, or on a free one; it answers when this returns."""
        paths = model.find()
        self.name = model.name
        self.cpus, _ = native.split_cpus()
        self.backlog_count = min(
            options.backlog_count, read_int(sysctl_path("net.core.somaxconn")) or options.backlog_count
        )
        self.version = ""
        self.settings = ""
        self._model = model
        self._token = secrets.token_hex(8)
        self._own_count = 0  # requests of ours, each on a connection of its own
        for trial in range(_PORT_TRIALS):
            self.port = port or _free_port()
            try:
                recipe = model.recipe(paths, self._place(options))
                self.settings = settings_in(recipe, model.settings)
                self._start(recipe)
                break
            except native.HelperError as error:  # somebody else may have been quicker: another port
                if port is not None or trial == _PORT_TRIALS - 1 or _IN_USE not in str(error).lower():
                    raise
        self.session = self._guarded.pid

    def _place(self, options: ServerOptions) -> Place:
        return Place(
            port=self.port,
            token=self._token,
            backlog_count=self.backlog_count,
            takes_silent=options.takes_silent,
            capacity_count=options.capacity_count,
            workers_count=options.workers_count,
            is_as_installed=options.is_as_installed,
            defence_s=options.defence_s,
        )

    def _start(self, recipe: Recipe) -> None:
        self._check_port()
        self._guarded = Guarded(self.name, recipe, self.cpus)
        try:
            self._wait_until_ready()
        except BaseException:
            self._guarded.close()
            raise

    def _check_port(self) -> None:
        """Some servers take seconds to find out."""
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", self.port))
            except OSError as error:
                text = f"{self.name} cannot listen on port {self.port}: {(error.strerror or '').lower()}"
                raise native.HelperError(text) from None

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _READY_S
        seen = "it did not answer"
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                page = self._get(PATH, _TRIAL_S, keep=True)
                seen = f"it answered {page.status} with {page.body[:_SHOWN]!r}"
                if page.status < _FIRST_ERROR and self._model.body in (None, page.body):
                    self.version = self._find_version(page)
                    return
            if death := self._guarded.death():
                raise native.HelperError(f"{self.name} did not start on port {self.port}: {death}")
            if time.monotonic() > deadline:
                why = self._guarded.complaint()
                text = f"{self.name} was not ready on port {self.port} within {_READY_S:g} s: {seen}"
                raise native.HelperError(f"{text}: {why}" if why else text)
            time.sleep(_POLL_S)

    def _find_version(self, page: Page) -> str:
        version = self._tell().version or page.version
        if self._model.runtime is None:
            return version
        name, path = self._model.runtime
        return f"{version} {name}/{self._get(path).body}"

    def url(self, path: str = PATH) -> str:
        """Where a load generator asks."""
        return f"http://127.0.0.1:{self.port}{path}"

    def look(self, path: str = PATH, timeout_s: float = _ANSWER_S) -> Page:
        """The answer to one request as a load generator makes it, which would go on. Raises ``native.HelperError``."""
        try:
            return self._get(path, timeout_s, keep=True)
        except (OSError, http.client.HTTPException) as error:
            raise native.HelperError(self.death() or f"{self.name} does not answer: {error}") from None

    @property
    def folder(self) -> Path:
        """A folder of its own, which goes when it does."""
        return self._guarded.folder

    def ask(self, query: str) -> Page:
        """The answer to a query under the secret path, by which only we ask; it may take long.

        Raises ``native.HelperError``.
        """
        return self.look(f"/{self._token}{query}", _LONG_ANSWER_S)

    def script_cache(self) -> str | None:
        """Whether its runtime keeps compiled scripts, as that says: ``on`` or ``off``; None where it has no scripts."""
        return self.look(self._model.cache_path).body if self._model.cache_path else None

    def warm_up(self, connections_count: int) -> None:
        """Hold so many connections at once until each has its answer: a pool grows, code is compiled.

        Raises ``native.HelperError``.
        """
        with self.held(connections_count):
            pass

    @contextlib.contextmanager
    def held(self, connections_count: int) -> Iterator[None]:
        """So many connections at once, each of which has had its answer. Raises ``native.HelperError``."""
        answered_count = 0
        with contextlib.ExitStack() as stack:
            try:
                held = [stack.enter_context(self._ask(PATH, _WARM_S, keep=True)) for _ in range(connections_count)]
                for connection in held:
                    read_page(connection)
                    answered_count += 1
            except (OSError, http.client.HTTPException) as error:
                said = f"{self.name} answered {answered_count} of {connections_count} connections: {error}"
                raise native.HelperError(self._death_if_near() or said) from None
            yield

    def status(self) -> dict[str, Any]:
        """Counts without our own connections and requests, ``requests_count`` besides; None for what nobody tells."""
        told, own = self._tell_or_fail(), self._own_count
        open_count = sockets.established_count(self.port) if told.open_count is None else told.open_count - 1
        return {
            "accepted_count": None if told.accepted_count is None else told.accepted_count - own,
            "open_count": open_count,
            "tasks_count": len(list(processes.walk_threads(tree.session_pids(self.session, PROC)))),
            "accept_errors_count": told.accept_errors_count,
            "requests_count": None if told.requests_count is None else told.requests_count - own,
        }

    def told_requests_count(self) -> int | None:
        """Requests of ``status`` alone, for which nothing else is looked up. Raises ``native.HelperError``."""
        count = self._tell_or_fail().requests_count
        return None if count is None else count - self._own_count

    def _tell_or_fail(self) -> Told:
        """What it says of itself. Raises ``native.HelperError``."""
        try:
            return self._tell()
        except (OSError, http.client.HTTPException) as error:
            raise native.HelperError(self.death() or f"{self.name} does not answer: {error}") from None

    def _tell(self) -> Told:
        """What it says of itself, if it can. Raises ``OSError``."""
        if self._model.read is None:
            return Told()
        told = self._model.read(self._get(f"/{self._token}{self._model.status_query}"))
        if told is None:
            raise native.HelperError(f"{self.name} did not tell its status")
        return told

    def walls(self) -> list[dict[str, Any]]:
        """What its log complains of, and descriptors that are used up, which some servers keep to themselves."""
        found = list(hits(self._guarded.log()))
        if not any(hit["name"] == "EMFILE" for hit in found) and self._has_no_descriptor_left():
            found.append({"call": "accept", "name": "EMFILE", "message": "no descriptor is left"})
        return [self._explained(hit) if "setting" in hit else hit for hit in found]

    def _explained(self, hit: Mapping[str, Any]) -> dict[str, Any]:
        """A setting that it is at, with its number, which some do not tell, and what would raise it."""
        setting = str(hit["setting"])
        known = re.search(rf"\b{setting}=(\d+)", self.settings)
        limit = hit["limit"] if hit["limit"] is not None or known is None else int(known[1])
        lift = "--workers N" if setting == self._model.raised_by_workers else f"a higher {setting}"
        return {**hit, "limit": limit, "lift": lift}

    def _has_no_descriptor_left(self) -> bool:
        """Whether one of its processes has as many as it may; a library may keep one in hand to refuse others with."""
        for pid in tree.session_pids(self.session, PROC)[:_PROCESSES_LOOKED_AT]:
            wall = limits.read_wall("descriptors", pid)
            if wall is not None and wall.room_count is not None and wall.room_count <= _KEPT_IN_HAND:
                return True
        return False

    def wait_until_idle(self, timeout_s: float = 2.0) -> None:
        """Return when nobody but us is connected, or the time is over."""
        deadline = time.monotonic() + timeout_s
        while self.status()["open_count"] and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def death(self) -> str:
        """How its main process ended; empty while it lives."""
        return self._guarded.death()

    def _death_if_near(self) -> str:
        """The same, a moment later as well: connections break before a dying process has ended."""
        deadline = time.monotonic() + _DYING_S
        while not (death := self.death()) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return death

    def begin_close(self) -> None:
        """Have it ended, and do not wait for that; ``close`` is to follow."""
        self._guarded.begin_close()

    def close(self) -> None:
        """End it; nothing of it is left."""
        self._guarded.close()

    def _get(self, path: str, timeout_s: float = _ANSWER_S, *, keep: bool = False) -> Page:
        """The answer to one request on a connection of its own; keep: as asked by a client that would go on.

        Raises ``OSError``, ``http.client.HTTPException``.
        """
        with self._ask(path, timeout_s, keep=keep) as connection:
            return read_page(connection)

    def _ask(self, path: str, timeout_s: float, *, keep: bool) -> socket.socket:
        close = "" if keep else "Connection: close\r\n"
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s)
        try:
            self._own_count += 1
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n{close}\r\n".encode())
        except BaseException:
            connection.close()
            raise
        return connection

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _free_port() -> int:
    """A port that nobody had a moment ago."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])
