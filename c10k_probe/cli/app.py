"""The commands: one per experiment, made from its parameters, and the few that look around."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from c10k_probe import __version__
from c10k_probe.exits import ExitCode, UsageError
from c10k_probe.registry import Entry, load, outline

if TYPE_CHECKING:
    from c10k_probe.parameters import Option

EXPERIMENTS_VARIABLE = "C10K_PROBE_EXPERIMENTS"
_CLICK_ERROR: type[Any] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
_HELP = """A laboratory for connection scaling on Linux: what one more process, thread, connection or watched
descriptor costs on this machine, and which limit breaks first."""


def invoke(arguments: list[str]) -> int:
    """Run one command line. Raises ``UserError``; every complaint of the parser becomes a ``UsageError``."""
    folder, arguments = _take_folder(arguments)
    command = typer.main.get_command(build_app(outline(folder), arguments))
    try:
        result = command.main(arguments or ["--help"], prog_name="c10k-probe", standalone_mode=False)
    except _CLICK_ERROR as error:
        raise UsageError(_one_line(error)) from None
    except typer.Abort:
        raise KeyboardInterrupt from None
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # the parser's own way out of it, with a code of its own
            raise end.__context__ from None
        raise
    return int(result or ExitCode.OK)


def build_app(entries: dict[str, Entry], arguments: list[str]) -> typer.Typer:
    """The whole application. Only the experiments that ``arguments`` name are imported: help stays quick."""
    app = typer.Typer(help=_HELP, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.callback()(_root)
    for name, entry in entries.items():
        command = _experiment_command(entry, arguments) if name in arguments else _unnamed
        app.command(name, help=_command_help(entry), short_help=entry.question)(command)
    _add_lookers(app, entries)
    _add_followers(app, arguments)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"c10k-probe {__version__}")
        raise typer.Exit


_VERSION = typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and leave.")


def _root(version: Annotated[bool, _VERSION] = False) -> None:
    """The command without a command; nothing to do but what its options do."""


def _unnamed() -> None:
    """Stands for a command that this command line does not call."""


def _add_lookers(app: typer.Typer, entries: dict[str, Entry]) -> None:
    """The commands that measure nothing."""

    @app.command("list", help="List the experiments.", rich_help_panel="Look around")
    def list_experiments() -> None:
        from c10k_probe.cli.show import print_list

        print_list(entries)

    @app.command(help="Explain an experiment: what is timed, its parameters, its columns.")
    def show(name: Annotated[str, typer.Argument(help="An experiment's name.")]) -> None:
        from c10k_probe.cli.show import print_experiment

        print_experiment(entries, name)

    @app.command(help="Draw a run: a chart in the terminal, or an image with --save.")
    def plot(
        run: Annotated[str, typer.Argument(help="A run folder, or last: the newest one in results/.")],
        chart: Annotated[str | None, typer.Option("--chart", metavar="NAME", help="Which of its charts.")] = None,
        list_charts: Annotated[bool, typer.Option("--list", help="List its charts instead.")] = False,
        save: Annotated[str | None, typer.Option("--save", metavar="FILE.png|FILE.svg", help="Write an image.")] = None,
    ) -> None:
        from c10k_probe.cli.plot import plot_run

        plot_run(run, chart, save, list_charts=list_charts)

    @app.command(help="What creating one more would cost in a state that was not measured, from a stored cost model.")
    def predict(
        subject: Annotated[str, typer.Argument(help="creation: the model that fork-latency --fit makes.")],
        rss: Annotated[str, typer.Option(metavar="BYTES", help="Anonymous memory of the parent.")] = "0",
        file_rss: Annotated[str, typer.Option("--file-rss", metavar="BYTES", help="Its file mappings.")] = "0",
        mappings: Annotated[str, typer.Option(metavar="COUNT", help="Its further mappings.")] = "0",
        descriptors: Annotated[str, typer.Option(metavar="COUNT", help="Its further descriptors.")] = "0",
        alive: Annotated[str, typer.Option(metavar="COUNT", help="Its live children or threads.")] = "0",
        method: Annotated[str, typer.Option(metavar="NAME,...", help="Only these methods.")] = "",
        placement: Annotated[str, typer.Option(metavar="NAME", help="one-cpu or any-cpu.")] = "one-cpu",
        alive_kind: Annotated[
            str, typer.Option("--alive-kind", metavar="KIND", help="What is alive: own, children or threads.")
        ] = "own",
        run: Annotated[str, typer.Option(metavar="FOLDER", help="The run that holds the model, else the newest.")] = "",
    ) -> None:
        from c10k_probe.cli.predict import Wanted, predict_creation

        texts = {"rss": rss, "file_rss": file_rss, "mappings": mappings, "descriptors": descriptors, "alive": alive}
        methods = tuple(part.strip() for part in method.split(",") if part.strip())
        predict_creation(subject, texts, Wanted(methods, placement, alive_kind), run)

    @app.command(help="This machine: facts, limits, what they allow, helpers, missing parts; installs these if asked.")
    def doctor(
        json: Annotated[bool, typer.Option("--json", help="Print all of it as one JSON object.")] = False,
        install: Annotated[bool, typer.Option("--install", help="Install the missing parts, with apt-get.")] = False,
        yes: Annotated[bool, typer.Option("--yes", help="With --install: do not ask.")] = False,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="With --install: only say what would come.")] = False,
    ) -> None:
        from c10k_probe.cli.doctor import doctor_command

        raise typer.Exit(doctor_command(as_json=json, install=install, yes=yes, dry_run=dry_run))


def _add_followers(app: typer.Typer, arguments: list[str]) -> None:
    """The commands that look at what others run; their options are the fields of their parameters."""
    panel = "Look at a server"
    trace_help = "What a command, or a running server, asks of the kernel: system calls, switches, waits, faults; live."
    trace = _follower("trace", takes_command=True) if "trace" in arguments else _unnamed
    settings = {"allow_interspersed_args": False}  # what follows the command's name is the command's
    app.command("trace", help=trace_help, context_settings=settings, rich_help_panel=panel)(trace)
    watch_help = "A running server, live and untouched: connections, queues, processes, memory, CPU, switches."
    watch = _follower("watch") if "watch" in arguments else _unnamed
    app.command("watch", help=watch_help, rich_help_panel=panel)(watch)


def _follower(name: str, *, takes_command: bool = False) -> Callable[..., None]:
    """A command made of the parameters of ``cli.NAME``; what it returns is the exit code."""
    import importlib

    from c10k_probe.parameters import default_text, options_of

    module = importlib.import_module(f"c10k_probe.cli.{name}")
    kind = getattr(module, f"{name.capitalize()}Parameters")

    def command(**texts: Any) -> None:
        words = (texts.pop("command") or (),) if takes_command else ()
        raise typer.Exit(getattr(module, f"{name}_command")(texts, *words))

    items = [_text_option(name, option, default_text(default, option)) for name, default, option in options_of(kind)]
    if takes_command:
        annotation = Annotated[list[str] | None, typer.Argument(metavar="-- COMMAND...", help="Start and trace this.")]
        items.append(inspect.Parameter("command", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))
    command.__signature__ = inspect.Signature(items)  # type: ignore[attr-defined]
    command.__annotations__ = {item.name: item.annotation for item in items}
    return command


# --- experiments ----------------------------------------------------------------------------------------------------

COMMON_OPTIONS: tuple[tuple[str, str, str, Any], ...] = (
    ("csv", "FILE|-", "Also write the rows as CSV; - is stdout.", None),
    ("json", "FILE|-", "Also write run, rows, warnings and verdicts as JSON lines; - is stdout.", None),
    ("out", "DIR", "Where the run folder is made.", "results"),
    ("format", "auto|table|plain|csv|jsonl", "What is shown; csv and jsonl go to stdout.", "auto"),
    ("repeats", "COUNT", "Interleaved blocks; each cell is launched once in each.", None),
    ("seed", "NUMBER", "Seed of every random choice.", "a new one, recorded"),
    ("timeout", "DURATION", "Stop after this long, keeping what was measured.", "none"),
    ("trace", "auto|bcc|perf|strace|proc|off", "Measure each cell traced too, in turn, and tell the price.", "off"),
    ("experiments", "DIR", "Also take experiments from this folder.", "none"),
)
COMMON_SWITCHES: tuple[tuple[str, str], ...] = (
    ("quick", "Smaller numbers, for a first look; grades say what that costs."),
    ("quiet", "Show nothing but errors."),
)


def _experiment_command(entry: Entry, arguments: list[str]) -> Callable[..., None]:
    """A function whose signature Typer reads as the experiment's options; all values arrive as text.

    Raises ``UsageError`` for a list given twice: the parser would keep the last, and drop the others in silence.
    """
    from c10k_probe.parameters import default_text, options_of

    experiment = load(entry)
    given = [argument.partition("=")[0] for argument in arguments]
    for name, _, option in options_of(experiment.parameters_type):
        if option.many and given.count(_flag(name)) > 1:
            raise UsageError(f"{_flag(name)}: it is given twice; give it once, its values separated by commas")

    def command(**texts: Any) -> None:
        from c10k_probe.cli.measure import run_experiment

        raise typer.Exit(run_experiment(experiment, texts))

    own = [
        _text_option(name, option, default_text(default, option))
        for name, default, option in options_of(experiment.parameters_type)
    ]
    repeats, taken = str(experiment.repeats), {item.name for item in own}
    common = [
        _annotated(name, metavar, help, repeats if name == "repeats" else default)
        for name, metavar, help, default in COMMON_OPTIONS
        if name not in taken  # an experiment about tracing has an option of that name itself
    ]
    switches = [_switch(name, help) for name, help in COMMON_SWITCHES]
    signature = inspect.Signature([*own, *common, *switches])
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {name: item.annotation for name, item in signature.parameters.items()}
    return command


def _text_option(name: str, option: Option, default: str) -> inspect.Parameter:
    if option.dimension == "flag":
        return _switch(name, option.help)
    metavar = option.dimension.upper()
    if option.choices:
        metavar = ",".join(option.choices[:2]) + ",..." if option.many else "NAME"
    help = option.help + (f" From: {', '.join(option.choices)}." if option.choices else "")
    return _annotated(name, metavar, help, default)


def _annotated(name: str, metavar: str, help: str, default: str | None) -> inspect.Parameter:
    help += f" [default: {default}]" if default else ""
    option = typer.Option(_flag(name), metavar=metavar, help=help, show_default=False)
    annotation = Annotated[str | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _switch(name: str, help: str) -> inspect.Parameter:
    annotation = Annotated[bool, typer.Option(_flag(name), help=help)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _command_help(entry: Entry) -> str:
    return f"{entry.question}\n\nMore: c10k-probe show {entry.name}"


def _take_folder(arguments: list[str]) -> tuple[Path | None, list[str]]:
    """The value of ``--experiments``, or of the environment variable, and the arguments without it.

    Every command takes it, and it must be known before there are commands to take it.
    """
    left = list(arguments)
    value = os.environ.get(EXPERIMENTS_VARIABLE)
    for index, argument in enumerate(arguments):
        name, separator, text = argument.partition("=")
        if name == "--experiments":
            if not separator and index + 1 == len(arguments):
                raise UsageError("--experiments: a folder is missing; name one that holds experiment files")
            value = text if separator else arguments[index + 1]
            del left[index : index + (1 if separator else 2)]
            break
    return (Path(value) if value else None), left


def _one_line(error: Any) -> str:
    """The parser's complaint with what to type next."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "c10k-probe"
    message = " ".join(error.format_message().split()).rstrip(".")
    return f"{message}; see {path} --help"
