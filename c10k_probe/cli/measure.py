"""Runs one experiment: options to parameters, sinks, the run, and what remains to be said after it."""

from __future__ import annotations

import dataclasses
import importlib
import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from c10k_probe.cli.traced import choose_backend
from c10k_probe.events import Sink, Tee
from c10k_probe.exits import UsageError
from c10k_probe.experiment import OFF, AnyExperiment, columns, flatten
from c10k_probe.parameters import Option, build_parameters, option_name, options_of, parse_option
from c10k_probe.results import csv_line
from c10k_probe.runner import Plan, Run
from c10k_probe.sinks.exports import STDOUT, CsvSink, JsonLinesSink, Target
from c10k_probe.sinks.folder import RunFolderSink, check_base

_ON_STDERR = ("terminal", "standard error")  # names of the sinks that write there
FORMATS = ("auto", "table", "plain", "csv", "jsonl")
_REPEATS = Option("", minimum=1, maximum=10_000)
_SEED = Option("", minimum=0, maximum=2**31 - 1)
_TIMEOUT = Option("", dimension="duration", minimum=10**9, maximum=7 * 24 * 3600 * 10**9)


@dataclass(frozen=True)
class Outputs:
    """Where results go, as the user chose."""

    csv: str | None
    json: str | None
    out: Path
    format: str
    quiet: bool


def run_experiment(experiment: AnyExperiment, texts: Mapping[str, Any]) -> int:
    """Run with the options as they were typed; the exit code. Refuses bad input before it measures."""
    for name, text in texts.items():
        if text == "":
            raise UsageError(f"{option_name(name)}: its value is empty; give one, or leave the option out")
    own = {name for name, _, _ in options_of(experiment.parameters_type)}
    given = {name: cast("str | None", text) for name, text in texts.items() if name in own}
    parameters = build_parameters(experiment.parameters_type, given, quick=bool(texts["quick"]))
    experiment.check(parameters)
    chosen = None if "trace" in own else choose_backend(experiment, parameters, texts.get("trace"))
    plan = _plan(experiment, texts, OFF if chosen is None else chosen.backend)
    outputs = _outputs(texts)
    check_base(outputs.out)
    folder, sinks = _sinks(outputs, {} if chosen is None else {"tracing": chosen.facts})
    tee = Tee(sinks)
    run = Run(experiment, parameters, plan, tee)
    try:
        code = run.go(_facts())
    finally:
        tee.close()
    if any(sink.name in _ON_STDERR for sink in tee.unread):
        return int(code)  # nobody would read more
    _say_what_remains(run, tee, folder, outputs)
    return int(code)


def _plan(experiment: AnyExperiment, texts: Mapping[str, Any], trace: str) -> Plan:
    default = experiment.quick_repeats if texts["quick"] else experiment.repeats
    default = default if trace == OFF else experiment.traced_repeats
    repeats = _number("repeats", _REPEATS, texts["repeats"], default)
    seed = _number("seed", _SEED, texts["seed"], secrets.randbelow(2**31))
    timeout_ns = _number("timeout", _TIMEOUT, texts["timeout"], 0)
    command = ("c10k-probe", *sys.argv[1:])
    return Plan(repeats, seed, timeout_ns / 1e9 if timeout_ns else None, command, trace)


def _number(name: str, option: Option, text: str | None, default: int) -> int:
    return default if text is None else cast("int", parse_option(name, option, text))


def _outputs(texts: Mapping[str, Any]) -> Outputs:
    chosen = texts["format"] or "auto"
    if chosen not in FORMATS:
        raise UsageError(f"--format: {chosen!r} is not known; choose from {', '.join(FORMATS)}")
    csv = texts["csv"] or (STDOUT if chosen == "csv" else None)
    json = texts["json"] or (STDOUT if chosen == "jsonl" else None)
    if csv is not None and json is not None and Path(csv).resolve() == Path(json).resolve():
        where = "stdout" if csv == STDOUT else csv
        raise UsageError(f"--csv and --json cannot both go to {where}; give one of them another file")
    return Outputs(csv, json, Path(texts["out"] or "results"), chosen, bool(texts["quiet"]))


def _sinks(outputs: Outputs, further: Mapping[str, object]) -> tuple[RunFolderSink, list[Sink]]:
    """The run folder first: what it keeps must not depend on what another sink does."""
    folder = RunFolderSink(outputs.out, {**_run_facts(outputs), **further})
    sinks: list[Sink] = [folder]
    if outputs.csv is not None:
        sinks.append(CsvSink(Target("--csv", outputs.csv)))
    if outputs.json is not None:
        sinks.append(JsonLinesSink(Target("--json", outputs.json)))
    mode = _display_mode(outputs)
    if mode == "table":
        from c10k_probe.sinks.table import LiveTable

        sinks.append(LiveTable(live=_is_terminal()))
    elif mode == "plain":
        from c10k_probe.sinks.plain import PlainLines

        sinks.append(PlainLines())
    return folder, sinks


def _run_facts(outputs: Outputs) -> dict[str, object]:
    """What ``run.json`` says beside the run itself: how it was shown, every limit in force, the helpers' builds."""
    from c10k_probe import limits, native

    return {
        "display": _display_mode(outputs),
        "limits": [dataclasses.asdict(wall) for wall in limits.walls()],
        "helpers": native.build_facts(),
    }


def _display_mode(outputs: Outputs) -> str:
    """table, plain or none: what the screen shows beside the data."""
    if outputs.quiet:
        return "none"
    if outputs.format in ("table", "plain"):
        return outputs.format
    return "table" if _is_terminal() else "plain"


def _is_terminal() -> bool:
    return sys.stderr.isatty() and (os.environ.get("TERM") or "dumb") != "dumb"


def _facts() -> Mapping[str, object]:
    from c10k_probe import __version__, machine

    return {"c10k_probe": __version__, "git_revision": _git_revision(), **machine.facts()}


def _git_revision() -> str | None:
    """The commit that the running source tree is at; None for an installed package."""
    file = importlib.import_module("c10k_probe.experiments").__file__  # in the source tree when that is installed
    root = Path(file or "").parent.parent / ".git"
    try:
        if root.is_file():  # a worktree names its own folder, which names the common one
            root = Path(root.read_text(encoding="utf-8").partition(": ")[2].strip())
        name = (root / "HEAD").read_text(encoding="ascii").strip().removeprefix("ref: ")
        common = root / "commondir"
        root = root / common.read_text(encoding="utf-8").strip() if common.is_file() else root
        return name if "/" not in name else _commit_of(root, name)
    except OSError:
        return None


def _commit_of(root: Path, name: str) -> str | None:
    """The commit that a branch is at: a file of its own, or a line of packed-refs."""
    if (root / name).is_file():
        return (root / name).read_text(encoding="ascii").strip()
    lines = (root / "packed-refs").read_text(encoding="ascii").splitlines()
    return next((line.split()[0] for line in lines if line.endswith(f" {name}")), None)


def _say_what_remains(run: Run, tee: Tee, folder: RunFolderSink, outputs: Outputs) -> None:
    """Its pictures and where the run is kept; and, when a disk or a pipe refused rows, the rows themselves."""
    kept = folder.path if folder not in [sink for sink, _ in tee.failed] else None
    if tee.failed:
        for sink, error in tee.failed:
            print(
                f"c10k-probe: {sink.name}: {error.strerror or error}; free space or name another target",
                file=sys.stderr,
            )
        if kept is None:
            names = [column.name for column in columns(run.experiment.row_type)]
            rows = (csv_line(flatten(row).values()) for row in run.rows.values())
            sys.stderr.write("c10k-probe: the rows, since they could not be kept:\n" + csv_line(names) + "".join(rows))
    if kept is not None and not outputs.quiet:
        _show_charts(run, kept)
        print(f"kept in {kept}", file=sys.stderr)


def _show_charts(run: Run, kept: Path) -> None:
    """The pictures that an experiment wants to be seen at once."""
    if any(chart.at_end for chart in run.experiment.charts_of(run.parameters)):
        from c10k_probe.cli.plot import show_at_end

        show_at_end(kept)
