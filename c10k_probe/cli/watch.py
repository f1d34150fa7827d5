"""``watch``: a running server as it is now and was a moment ago, without touching it."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from c10k_probe.cli import follow
from c10k_probe.exits import ExitCode, UsageError, UserError
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
    roots = _roots(options)
    ports = [int(options.port)] if options.port else []
    title = follow.name_of_tree(roots) if roots else f"port {ports[0]}, whose processes this user cannot see"
    shows = _shows(options, title)
    try:
        return _watch(Server(roots, ports), shows, options)
    finally:
        for show in shows:
            show.close()


def _roots(options: WatchParameters) -> list[int]:
    """Whom to watch; nobody, when only the port of another user's server can be seen."""
    try:
        return follow.find_roots(options.pid, options.port)
    except UsageError:
        raise
    except UserError:
        return []


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


def _shows(options: WatchParameters, title: str) -> list[Show]:
    """Targets are opened, and refused, before anything is looked at."""
    from c10k_probe.cli import watch_show
    from c10k_probe.sinks.exports import Target

    shows: list[Show] = []
    if options.csv:
        shows.append(watch_show.CsvRows(Target("--csv", options.csv)))
    mode = follow.show_mode(options.format, quiet=options.quiet)
    if mode == "plain":
        shows.append(watch_show.PlainLines(sys.stderr, title))
    elif mode == "live":
        shows.append(watch_show.LiveTable(title))
    return shows
