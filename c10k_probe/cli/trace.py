"""``trace``: what a command, or a running server, asks of the kernel, live."""

from __future__ import annotations

import dataclasses
import difflib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from c10k_probe.cli import follow
from c10k_probe.exits import ExitCode, UsageError, UserError
from c10k_probe.parameters import Parameters, parameter
from c10k_probe.tracing import syscalls
from c10k_probe.tracing.choose import AUTO, CHOICES, open_tracer
from c10k_probe.tracing.launch import find_program

if TYPE_CHECKING:
    from c10k_probe.cli.trace_show import Show
    from c10k_probe.tracing.base import Target, Tracer
    from c10k_probe.tracing.result import Trace

_GRACE_S: Final = 1.0
ENDED, TIME_UP, INTERRUPTED, LOST = "all its processes ended", "time is up", "interrupted", "the tracer was lost"


@dataclass(frozen=True)
class TraceParameters(Parameters):
    """The options of ``trace``."""

    pid: str = parameter("", "Trace these running processes and all their descendants.", dimension="text")
    port: str = parameter("", "Trace whoever listens on this TCP port.", dimension="text")
    trace: str = parameter(AUTO, "How to count; auto takes the best that works.", choices=CHOICES[:-1])
    interval: int = parameter(
        10**9, "How often to show and export.", dimension="duration", minimum=10**8, maximum=3600 * 10**9
    )
    duration: int | None = parameter(
        None, "Stop after this long.", dimension="duration", minimum=10**8, maximum=follow.MAX_NS
    )
    top: int = parameter(12, "How many calls to show.", minimum=1, maximum=500)
    calls: str = parameter("", "Show and export these calls alone; perf counts them by name.", dimension="text")
    tasks: int | None = parameter(
        None, "Room for so many tasks at once, else by the machine.", minimum=1, maximum=1 << 22
    )
    counts_only: bool = parameter(False, "No latencies, errors or accepts: costs less.", dimension="flag")
    csv: str = parameter("", "Also write rows as CSV; - is stdout.", dimension="text")
    json: str = parameter("", "Also write JSON lines; - is stdout.", dimension="text")
    format: str = parameter("auto", "What is shown.", choices=follow.FORMATS)
    quiet: bool = parameter(False, "Show nothing but errors.", dimension="flag")


def trace_command(texts: Mapping[str, Any], command: Sequence[str]) -> int:
    """Trace until its end, the duration or Ctrl-C; the exit code."""
    options: TraceParameters = follow.parse_parameters(TraceParameters, dict(texts))
    given = [
        name for name, value in (("--pid", options.pid), ("--port", options.port), ("-- COMMAND", command)) if value
    ]
    if len(given) != 1:
        what = " and ".join(given) + " exclude each other" if given else "nothing to trace"
        raise UsageError(f"{what}; give one of --pid PID, --port PORT, or -- COMMAND...")
    if command:
        find_program(command[0])
    _check_calls(options.calls)
    if command:
        return _Session(options, [], command).run()
    return _Session(options, follow.find_roots(options.pid, options.port), ()).run()


def _check_calls(text: str) -> tuple[str, ...]:
    """The calls that ``--calls`` names. Raises ``UsageError`` for one that this machine does not have."""
    names = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    unknown = [name for name in names if syscalls.number_of(name) is None]
    if unknown:
        near = difflib.get_close_matches(unknown[0], syscalls.names().values(), 1)
        hint = f"did you mean {near[0]}?" if near else "see man syscalls"
        raise UsageError(f"--calls: there is no system call {follow.one_line(unknown[0])}; {hint}")
    return names


class _Session:
    """One trace from its start to its summary."""

    def __init__(self, options: TraceParameters, roots: Sequence[int], command: Sequence[str]) -> None:
        self._options, self._roots, self._command = options, roots, command
        duration_s = options.duration / 1e9 if options.duration else None
        self._schedule = follow.Schedule(options.interval / 1e9, duration_s)
        self._mode = follow.show_mode(options.format, quiet=options.quiet)
        self._title = follow.one_line(" ".join(command)) if command else follow.name_of_tree(roots)
        self._calls = _check_calls(options.calls)
        self._shows: list[Show] = []
        self._output: follow.CommandOutput | None = None
        self._last: Trace | None = None
        self._is_cut = False  # an export could not be written to the end

    def run(self) -> int:
        """The exit code."""
        from c10k_probe.interrupts import Interrupted, Interrupts

        interrupts = Interrupts()
        with interrupts.installed():
            self._open_shows()
            try:
                with interrupts.armed():
                    tracer = open_tracer(self._options.trace, self._target(), self._tracer_options())
                return self._follow(tracer, interrupts)
            except Interrupted:
                return self._finish(None, INTERRUPTED)
            finally:
                for show in self._shows:
                    show.close()
                if self._output is not None:
                    self._output.close()

    def _follow(self, tracer: Tracer, interrupts: Any) -> int:
        from c10k_probe.interrupts import Interrupted
        from c10k_probe.native import HelperError

        with tracer:
            self._tell(lambda show: show.start())
            if self._output is not None:
                self._output.started()
            self._say_what_was_refused(tracer)
            self._schedule.start()
            try:
                with interrupts.armed():
                    ending = self._loop(tracer)
            except Interrupted:
                ending = INTERRUPTED
                self._let_it_end(tracer)
            except HelperError as error:
                print(f"c10k-probe: {error}", file=sys.stderr)
                ending = LOST
            try:
                whole = None if ending == LOST else tracer.stop()
            except HelperError as error:
                print(f"c10k-probe: {error}", file=sys.stderr)
                whole, ending = None, LOST
            if tracer.launched is not None and ending != ENDED:
                tracer.launched.end()
            if self._output is not None:
                self._output.wait(0.0)
            return self._finish(whole or self._last, ending, tracer)

    def _loop(self, tracer: Tracer) -> str:
        """Look at each interval until something ends it; what did."""
        while True:
            if tracer.is_over():
                return ENDED
            if self._schedule.is_over:
                return TIME_UP
            if self._schedule.is_due() and (whole := tracer.snapshot()) is not None:
                self._show_interval(whole)
            if self._output is not None:
                self._output.wait(self._schedule.pause_s())
            else:
                time.sleep(self._schedule.pause_s())

    def _show_interval(self, whole: Trace, *, is_last: bool = False) -> None:
        whole = self._named(whole)
        part = whole if self._last is None else whole.minus(self._last)
        if part.elapsed_s > 0:  # a backend may have read nothing since
            is_all = is_last and self._last is None
            self._tell(lambda show: None if is_all and show.is_screen else show.interval(part, whole))
            self._last = whole

    def _tell(self, tell: Callable[[Show], None]) -> None:
        """Tell each show; one that cannot be written to any more is told no more, and the others go on."""
        for show in tuple(self._shows):
            try:
                tell(show)
            except UserError as error:
                print(f"c10k-probe: {error}", file=sys.stderr)
                self._shows.remove(show)
                self._is_cut = True
                show.close()

    def _named(self, whole: Trace) -> Trace:
        """With the calls that ``--calls`` names and no others; the sum stays that of all."""
        if not self._calls or whole.calls is None:
            return whole
        return dataclasses.replace(whole, calls={n: call for n, call in whole.calls.items() if n in self._calls})

    def _let_it_end(self, tracer: Tracer) -> None:
        """Ctrl-C is for the command too: what it does then is still counted."""
        deadline = time.monotonic() + _GRACE_S
        while self._command and not tracer.is_over() and time.monotonic() < deadline:
            time.sleep(0.02)

    def _finish(self, whole: Trace | None, ending: str, tracer: Tracer | None = None) -> int:
        if whole is not None:
            self._show_interval(whole, is_last=True)  # what the last look has not met
            self._tell(lambda show: show.summary(self._named(whole), self._ending_text(ending, tracer)))
        elif self._mode != "none":
            print(f"c10k-probe: {ending} before anything was counted", file=sys.stderr)
        if self._is_cut:
            return ExitCode.ERROR
        if ending == INTERRUPTED:
            return ExitCode.INTERRUPTED
        cut_short = ending == ENDED and not self._command and self._schedule.duration_s is not None
        if ending == LOST or whole is None or cut_short:
            return ExitCode.INCOMPLETE
        return follow.incomplete_code(whole.dropped_count)

    def _ending_text(self, ending: str, tracer: Tracer | None) -> str:
        launched = None if tracer is None else tracer.launched
        code = None if launched is None else launched.exit_code
        if code:
            how = f"with exit code {code}" if code > 0 else f"by signal {-code}"
            return f"{ending}; the command ended {how}"
        return ending

    # --- before ---------------------------------------------------------------------------------------------------

    def _open_shows(self) -> None:
        """Targets are opened, and refused, before anything is traced."""
        from c10k_probe.cli import trace_export, trace_show
        from c10k_probe.sinks.exports import STDOUT, Target

        if self._options.csv and self._options.csv == self._options.json:
            where = "stdout" if self._options.csv == STDOUT else self._options.csv
            raise UsageError(f"--csv and --json cannot both go to {where}; give one of them another file")
        if self._options.csv:
            self._shows.append(trace_export.CsvRows(Target("--csv", self._options.csv)))
        if self._options.json:
            facts = {"traced": self._title, "pids": list(self._roots), "options": dataclasses.asdict(self._options)}
            self._shows.append(trace_export.JsonRows(Target("--json", self._options.json), facts))
        if self._mode == "plain":
            self._shows.append(trace_show.PlainLines(sys.stderr, f"tracing {self._title}", self._options.top))
        elif self._mode == "live":
            table = trace_show.LiveTable(self._title, self._options.top)
            self._shows.append(table)
            self._output = follow.CommandOutput(table.say) if self._command else None

    def _target(self) -> Target:
        from c10k_probe.tracing.base import Target

        output = None if self._output is None else self._output.write_end
        return Target(pids=self._roots, command=self._command, output=output)

    def _tracer_options(self) -> Any:
        from c10k_probe.tracing.base import Options

        latency = not self._options.counts_only
        return Options(latency, self._options.tasks or 0, self._calls, self._options.interval / 1e9)

    def _say_what_was_refused(self, tracer: Tracer) -> None:
        if self._mode != "none":
            for error in tracer.refused:
                print(f"c10k-probe: {error}; taking {tracer.name}", file=sys.stderr)
