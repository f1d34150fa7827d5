"""``doctor``: what this machine is, every limit, what the limits allow, the helpers, and what is missing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from c10k_probe import __version__, limits, machine, native, parts, servers, units
from c10k_probe.exits import ExitCode, UsageError
from c10k_probe.tracing import choose as tracing

_SHOWN_FACTS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("kernel", (("kernel_release", "{}"), ("architecture", "{}"), ("distribution", "{}"))),
    ("machine", (("cpu_model", "{}"), ("virtualisation", "virtualised by {}"), ("container", "in a container ({})"))),
    ("CPUs", (("cpu_online_count", "{} online"), ("cpu_affinity_count", "{} usable"), ("cpu_governor", "governor {}"))),
    ("scheduling", (("kernel_tick_hz", "tick {} Hz"), ("preemption", "preemption {}"), ("clocksource", "clock {}"))),
    (
        "memory",
        (
            ("memory_total_bytes", "{}"),
            ("memory_available_bytes", "{} available"),
            ("swap_total_bytes", "{} of swap"),
            ("thp_mode", "huge pages {}"),
        ),
    ),
    (
        "control group",
        (
            ("cgroup_version", "{}"),
            ("cgroup_memory_limit_bytes", "memory {}"),
            ("cgroup_pids_limit_count", "tasks {}"),
            ("cgroup_cpu_quota_cpus", "CPUs {}"),
        ),
    ),
    ("software", (("libc", "{}"), ("python_version", "Python {}"))),
    ("mitigations", (("cpu_mitigations", "{}"),)),
)


def doctor_command(*, as_json: bool, install: bool, yes: bool, dry_run: bool) -> int:
    """Look, or install what is missing; the exit code. Raises ``UserError``."""
    if not install:
        for given, option in ((yes, "--yes"), (dry_run, "--dry-run")):
            if given:
                raise UsageError(
                    f"doctor {option}: it belongs to --install; type: c10k-probe doctor --install {option}"
                )
        print_doctor(as_json=as_json)
        return ExitCode.OK
    if as_json:
        raise UsageError("doctor --json: it goes with looking, not with --install; leave one of them out")
    if yes and dry_run:
        raise UsageError("doctor --install: --yes installs and --dry-run does not; leave one of them out")
    from c10k_probe.cli.doctor_install import install_parts

    return install_parts(yes=yes, dry_run=dry_run)


def print_doctor(*, as_json: bool) -> None:
    """Everything on stdout, as tables or as one JSON object."""
    report = examine()
    if as_json:
        print(json.dumps(report, indent=1, ensure_ascii=False))
        return
    console = Console(highlight=False)
    console.print(f"[bold]c10k-probe {__version__}[/bold] on this machine\n")
    _print_facts(console, report["machine"])
    _print_walls(console, report["walls"])
    _print_predictions(console, report["predictions"])
    _print_helpers(console, report["helpers"])
    _print_tracers(console, report["tracers"])
    _print_parts(console, report["parts"])


def examine() -> dict[str, Any]:
    """The whole examination as JSON-able data."""
    walls = limits.walls()
    return {
        "version": __version__,
        "machine": machine.facts(),
        "walls": [dataclasses.asdict(wall) for wall in walls],
        "predictions": [_prediction(model, walls) for model in servers.MODELS.values()],
        "helpers": dict(native.build_facts()),
        "tracers": [dataclasses.asdict(trial) for trial in tracing.try_all()],
        "parts": [dataclasses.asdict(part) for part in parts.find_parts()],
    }


def _prediction(model: servers.ServerModel, walls: Sequence[limits.Wall]) -> dict[str, Any]:
    """Highest count for a model with its clients on the same machine, and the limit that binds."""
    found = servers.predict(model, walls)
    return {
        "model": model.name,
        "count": found.count,
        "wall": found.wall.name if found.wall else None,
        "kind": found.wall.kind if found.wall else None,
        "lift": found.wall.lift if found.wall else None,
    }


# --- tables ---------------------------------------------------------------------------------------------------------


def _print_facts(console: Console, facts: Mapping[str, Any]) -> None:
    table = Table.grid(padding=(0, 2))
    for title, shown in _SHOWN_FACTS:
        texts = [
            phrase.format(units.format_column(name, value))
            for name, phrase in shown
            if (value := facts.get(name)) is not None
        ]
        table.add_row(f"[bold]{title}[/bold]", ", ".join(texts) or "unknown")
    user = (
        "root"
        if facts.get("user_is_root")
        else "not root: slab cannot be read by cache, the ends are told apart less exactly"
    )
    table.add_row("[bold]user[/bold]", user)
    console.print(table)


def _print_walls(console: Console, walls: Sequence[Mapping[str, Any]]) -> None:
    table = _table("Limits", "limit", "number", "in use", "per", "kind")
    for wall in walls:
        number = _amount(wall["limit_count"], wall["unit"]) or "none"
        table.add_row(wall["name"], number, _amount(wall["used_count"], wall["unit"]), wall["scope"], wall["kind"])
    console.print(table)
    _print_commands(console, "To raise a limit", {wall["name"]: wall["lift"] for wall in walls if wall["lift"]})


def _amount(value: int | None, unit: str) -> str:
    if value is None:
        return ""
    return units.format_quantity(value, "bytes") if unit == "bytes" else f"{value:,}"


def _print_predictions(console: Console, predictions: Iterable[Mapping[str, Any]]) -> None:
    table = _table(
        "Connections that these limits allow, client on the same machine", "model", "at most", "bound by", "kind"
    )
    for row in predictions:
        count = "no limit found" if row["count"] is None else f"{row['count']:,}"
        table.add_row(row["model"], count, row["wall"] or "", row["kind"] or "")
    console.print(table)


def _print_helpers(console: Console, helpers: Mapping[str, Mapping[str, Any]]) -> None:
    table = _table("Helpers", "helper", "linking", "compiler", "one clock reading")
    flags: dict[str, str] = {}
    for name, hello in helpers.items():
        if "error" in hello:
            table.add_row(name, f"[red]{hello['error']}[/red]", "", "")
        else:
            clock = units.format_quantity(hello["clock_cost_ns"], "duration")
            table.add_row(name, hello["linking"], hello["compiler"], clock)
            flags[hello["linking"]] = hello["flags"]
    console.print(table)
    _print_commands(console, "Built with", flags)


def _print_tracers(console: Console, trials: Sequence[Mapping[str, Any]]) -> None:
    table = _table("Tracing, each tried on a shell that ends at once", "backend", "sees", "works")
    for trial in trials:
        works = (
            f"yes, ready in {units.format_column('ready_s', trial['ready_s'])}" if trial["works"] else trial["reason"]
        )
        table.add_row(trial["backend"], trial["sees"], works, style="" if trial["works"] else "yellow")
    console.print(table)
    lifts = {trial["backend"]: trial["lift"] for trial in trials if trial["lift"]}
    _print_commands(console, "To make it work", lifts)


def _print_parts(console: Console, found: Sequence[Mapping[str, Any]]) -> None:
    table = _table("Optional parts", "part", "what for", "used by", "found")
    for part in found:
        needed = ", ".join(part["used_by"]) or "not yet"
        table.add_row(part["name"], part["purpose"], needed, part["path"] or "missing")
    console.print(table)
    missing = {part["name"]: part["command"] for part in found if not part["found"]}
    _print_commands(console, "To install what is missing", missing)


def _print_commands(console: Console, title: str, commands: Mapping[str, str]) -> None:
    """Commands in full, each on a line of its own, so that they can be copied."""
    if not commands:
        return
    width = max(map(len, commands))
    console.print(f"[bold]{title}[/bold]")
    for name, command in commands.items():
        console.print(f"  {name:{width}}  {command}", markup=False, soft_wrap=True)
    console.print()


def _table(title: str, *headers: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for header in headers:
        table.add_column(
            header, overflow="fold", justify="right" if header in ("number", "in use", "at most") else "left"
        )
    return table
