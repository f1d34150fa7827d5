"""``watch``: a running server as it is now and was a moment ago, without touching it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from c10k_probe.cli import follow
from c10k_probe.exits import ExitCode, UsageError
from c10k_probe.observe import processes
from c10k_probe.observe.serving import Look, Server
from c10k_probe.parameters import Parameters, parameter

if TYPE_CHECKING:
    from c10k_probe.cli.watch_show import Show


@dataclass(frozen=True)
class WatchParameters(Parameters):
    """The options of ``watch``."""

    port: str = parameter("", "Watch whoever listens on this TCP port.", dimension="text")
    pid: str = parameter(
        "", "Watch these processes, their descendants, and the ports they listen on.", dimension="text"
    )
    interval: int = parameter(
        10**9, "How often to look.", dimension="duration", minimum=2 * 10**8, maximum=3600 * 10**9
    )
    duration: int | None = parameter(
        None, "Stop after this long.", dimension="duration", minimum=2 * 10**8, maximum=follow.MAX_NS
    )
    csv: str = parameter("", "Also write a row for each look as CSV; - is stdout.", dimension="text")
    format: str = parameter("auto", "What is shown.", choices=follow.FORMATS)
    quiet: bool = parameter(False, "Show nothing but errors.", dimension="flag")


def watch_command(texts: Mapping[str, Any]) -> int:
    """Watch until the server ends, the duration or Ctrl-C; the exit code."""
    options: WatchParameters = follow.parse_parameters(WatchParameters, dict(texts))
    if bool(options.pid) == bool(options.port):
        what = "--pid and --port exclude each other" if options.pid else "nothing to watch"
        raise UsageError(f"{what}; give one of --port PORT or --pid PID")
    target = _target(options)
    shows = _shows(options, target)
    try:
        return _watch(Server(target.roots, target.ports), shows, options)
    finally:
        for show in shows:
            show.close()


class _Target(NamedTuple):
    """Whom to watch: processes (none, when this user can only see the port), ports, and what this user cannot see."""

    roots: list[int]
    ports: list[int]
    title: str
    notes: list[str]


def _target(options: WatchParameters) -> _Target:
    """Raises ``UsageError`` when nothing is there."""
    if options.pid:
        roots = follow.find_roots(options.pid, "")
        for pid in roots:
            if (process := processes.process_of(pid)) not in (None, pid):
                raise UsageError(f"--pid: {pid} is a thread of process {process}; give --pid {process}")
        return _Target(roots, [], follow.name_of_tree(roots), [])
    port = follow.parse_port(options.port)
    owners = processes.port_owners(port)
    if not owners.sockets_count:
        raise UsageError(
            f"--port: nobody listens on TCP port {port} here; see ss -ltn, or name a server in a container with --pid"
        )
    if not owners.hidden_count:
        roots = processes.topmost(owners.pids)
        return _Target(roots, [port], follow.name_of_tree(roots), [])
    lift = _lift(options)
    if not owners.pids:
        note = f"this user cannot see who listens on port {port}, only the connections; {lift}"
        return _Target([], [port], f"port {port}", [note])
    note = (
        f"{owners.hidden_count} of {owners.sockets_count} sockets that listen on port {port} are of processes that this"
        f" user cannot see: all connections are counted, processes only in part; {lift}"
    )
    roots = processes.topmost(owners.pids)
    return _Target(roots, [port], follow.name_of_tree(roots), [note])


def _lift(options: WatchParameters) -> str:
    """What shows more."""
    if os.geteuid() == 0:
        return "root may not either: CAP_SYS_PTRACE is missing, or a security module forbids it"
    name = ("--pid", options.pid) if options.pid else ("--port", options.port)
    return f"all is shown by: {follow.as_root('watch', *name)}"


def _watch(server: Server, shows: list[Show], options: WatchParameters) -> int:
    from c10k_probe.interrupts import Interrupted, Interrupts

    interrupts = Interrupts()
    schedule = follow.Schedule(options.interval / 1e9, options.duration / 1e9 if options.duration else None)
    with interrupts.installed():
        try:
            with interrupts.armed():
                ending = _loop(server, shows, schedule)
        except Interrupted:
            ending = "interrupted"
        for show in shows:
            show.end(f"{ending}, after {schedule.elapsed_s:.1f} s")
    if ending == "interrupted":
        return ExitCode.INTERRUPTED
    cut_short = ending == "the server has ended" and schedule.duration_s is not None
    return ExitCode.INCOMPLETE if cut_short else ExitCode.OK


def _loop(server: Server, shows: list[Show], schedule: follow.Schedule) -> str:
    """Look at once and at each interval, until something ends it; what did."""
    schedule.start()
    _look(server, shows)
    while True:
        if schedule.is_over:
            return "time is up"
        if schedule.is_due():
            if server.is_over():
                return "the server has ended"
            _look(server, shows)
        time.sleep(schedule.pause_s())


def _look(server: Server, shows: list[Show]) -> Look:
    look = server.look()
    for show in shows:
        show.look(look)
    return look


def _shows(options: WatchParameters, target: _Target) -> list[Show]:
    """Files are opened, and refused, before anything is looked at."""
    from c10k_probe.cli import watch_show
    from c10k_probe.sinks.exports import Target

    shows: list[Show] = []
    if options.csv:
        shows.append(watch_show.CsvRows(Target("--csv", options.csv)))
    mode = follow.show_mode(options.format, quiet=options.quiet)
    if mode == "plain":
        shows.append(watch_show.PlainLines(sys.stderr, target.title, _lift(options), target.notes))
    elif mode == "live":
        shows.append(watch_show.LiveTable(target.title, _lift(options), target.notes))
    return shows
