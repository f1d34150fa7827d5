"""The perf backend: ``perf stat`` on tracepoints, counted in the kernel for each task.

Counts exactly, but by name only the calls that it was told: each has a counter of its own in every task, and a
descriptor with it. The rest is in the sum. No latencies: it does not pair the beginning and the end of a call.
Processes that are forked between the listing of a tree and the attaching are missed.
perf would end with the processes that it was told, whatever they have started: one that does nothing is traced too.
Sources: perf-stat(1), perf_event_open(2).
"""

from __future__ import annotations

import os
import selectors
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Final, NamedTuple

from c10k_probe.exits import UsageError
from c10k_probe.observe import processes
from c10k_probe.tracing import bcc_kernel
from c10k_probe.tracing.base import READY_PATIENCE_S, Options, Target, TracerUnavailable
from c10k_probe.tracing.launch import Launched
from c10k_probe.tracing.lift import lift_by_root
from c10k_probe.tracing.result import Call, Trace
from c10k_probe.tracing.tool import ToolTracer

DEFAULT_CALLS: Final = (
    *("accept", "accept4", "close", "connect", "shutdown"),
    *("read", "write", "readv", "writev", "recvfrom", "sendto", "recvmsg", "sendmsg", "sendfile"),
    *("epoll_wait", "epoll_pwait", "epoll_ctl", "poll", "select"),
    *("futex", "nanosleep", "clock_nanosleep", "sched_yield"),
    *("mmap", "munmap", "openat", "clone", "clone3", "wait4"),
)
# names that the kernel's tracepoints have otherwise (SYSCALL_DEFINE in fs/stat.c, kernel/sys.c, fs/read_write.c)
_EVENT_NAMES: Final = {
    "fstat": "newfstat",
    "stat": "newstat",
    "lstat": "newlstat",
    "uname": "newuname",
    "sendfile": "sendfile64",
    "umount2": "umount",
}
_CLONE_THREAD: Final = 0x10000
_INTERVAL_LEAST_S: Final = 0.1
_POLL_S: Final = 0.002
_SUMMARY: Final = "summary"
_NOTE: Final = "perf counts by name only the calls it was told; all are in the sum"


class _Counter(NamedTuple):
    """One counter of perf: which field of Trace it is, or `call NAME`; its event, and a filter."""

    field: str
    event: str
    filter: str = ""


class PerfTracer(ToolTracer):
    """Counts by perf events."""

    name: ClassVar[str] = "perf"
    package = "linux-perf"
    starts_commands: ClassVar[bool] = False  # with -I it may miss a short one and forgets how it ended

    def __init__(self, target: Target, options: Options) -> None:
        super().__init__(target, options)
        self._counters: list[_Counter] = []
        self._orders, self._answers = os.pipe(), os.pipe()
        self._is_asked = False
        self._idler: Launched | None = None

    def check(self) -> None:
        """perf there, tracefs readable, the events known."""
        super().check()
        try:
            tracefs = bcc_kernel.find_tracefs()
            bcc_kernel.check_tracepoints(tracefs)
        except bcc_kernel.Unsupported as error:
            raise TracerUnavailable(self.name, str(error), error.lift) from None
        if not os.access(tracefs / "events/raw_syscalls/sys_enter/id", os.R_OK):
            raise TracerUnavailable(self.name, "tracepoints cannot be read without root", lift_by_root())
        self._counters = counters(tracefs, self.options.calls)

    def start(self) -> None:
        """Start perf, on an idle process too."""
        self._idler = Launched.idle()
        while processes.is_running(self._idler.pid, self._idler.pid) and not _is_asleep(self._idler.pid):
            time.sleep(_POLL_S)
        super().start()

    def command_line(self) -> Sequence[str]:
        """One counter each, printed at every interval."""
        every_ms = round(max(_INTERVAL_LEAST_S, self.options.interval_s) * 1000)
        words = ["perf", "stat", "-x", ",", "-I", str(every_ms), "--summary", "--log-fd", str(self.report)]
        for counter in self._counters:
            words += ["-e", counter.event, *(["--filter", counter.filter] if counter.filter else [])]
        for descriptor in (self._orders[0], self._answers[1]):
            os.set_inheritable(descriptor, True)
        return [*words, "-D", "-1", "--control", f"fd:{self._orders[0]},{self._answers[1]}"]

    def attach_options(self) -> list[str]:
        """perf takes one list."""
        assert self._idler is not None
        return ["-p", ",".join(map(str, [*self.traced, self._idler.pid]))]

    def is_attached(self) -> bool:
        """Whether perf has said that its counters run, which it is told to say."""
        if not self._is_asked:
            os.write(self._orders[1], b"enable\n")
            self._is_asked = True
        with selectors.DefaultSelector() as selector:
            selector.register(self._answers[0], selectors.EVENT_READ)
            return bool(selector.select(min(0.05, READY_PATIENCE_S)))

    def is_over(self) -> bool:
        """Whether every process of the tree has ended, as /proc tells: perf itself looks at its intervals only."""
        if self._tool is not None and self.has_tool_ended():
            return True
        is_reaped = self._is_reaped()
        return self.tree.is_over() and is_reaped

    def snapshot(self) -> Trace | None:
        """Everything up to the last interval that perf has printed; None before the first."""
        trace = self._trace(self.reported())
        return trace if trace.elapsed_s else None

    def stop(self) -> Trace:
        """Everything, the last part of an interval included."""
        elapsed_s = time.monotonic() - self.started_s
        self._let_it_wait()
        trace = self._trace(self.end_tool(), elapsed_s)
        self.close()
        return trace

    def _let_it_wait(self) -> None:
        """Wait until perf sleeps: the signal that ends it makes it read its counters only if it interrupts a poll(2).

        At any other moment, as before its first wait, it tells what it read last (builtin-stat.c, dispatch_events()).
        """
        deadline = time.monotonic() + READY_PATIENCE_S
        while self._tool is not None and not self._tool.has_ended() and time.monotonic() < deadline:
            if _is_asleep(self._tool.pid):
                return
            time.sleep(_POLL_S)

    def close(self) -> None:
        """End perf and close the pipes to it; the idle process after it, whose end is not counted then."""
        super().close()
        if self._idler is not None:
            self._idler.end(signal.SIGKILL)
            self._idler = None
        for descriptor in (*self._orders, *self._answers):
            if descriptor >= 0:
                os.close(descriptor)
        self._orders = self._answers = (-1, -1)

    def _trace(self, report: str, elapsed_s: float | None = None) -> Trace:
        times, values = read_report(report, len(self._counters))
        by_field = dict(zip((counter.field for counter in self._counters), values, strict=True))
        calls = {
            name: Call(name, count, None)
            for field, count in by_field.items()
            if field.startswith("call ") and count is not None
            for name in [field.removeprefix("call ")]
        }
        tasks, threads = by_field.get("tasks"), by_field.get("threads_count")
        accepts = [by_field[name] for name in ("accept", "accept4") if by_field.get(name) is not None]
        names = (
            *("calls_count", "call_errors_count", "voluntary_switches_count", "involuntary_switches_count"),
            *("threads_count", "exits_count", "page_faults_count"),
        )
        return Trace(
            backend=self.name,
            elapsed_s=times if elapsed_s is None else elapsed_s,
            calls=calls,
            forks_count=None if tasks is None or threads is None else tasks - threads,
            accepts_count=sum(count or 0 for count in accepts) if accepts else None,
            notes=(_NOTE,),
            **{name: by_field.get(name) for name in names},  # type: ignore[arg-type]
        )


def counters(tracefs: Path, calls: Sequence[str]) -> list[_Counter]:
    """What perf is told to count: these calls by name, or for none those of ``DEFAULT_CALLS`` that this kernel has.

    Raises ``UsageError`` for a name that was asked for and is no tracepoint.
    """

    def is_there(counter: _Counter) -> bool:
        return ":" not in counter.event or bcc_kernel.has_tracepoint(tracefs, counter.event.replace(":", "/"))

    named = [_of_call(name) for name in dict.fromkeys(calls or DEFAULT_CALLS)]
    missing = [counter.field.removeprefix("call ") for counter in named if not is_there(counter)] if calls else []
    if missing:
        raise UsageError(f"perf cannot count {', '.join(missing)} by name on this kernel; leave it out, or use bcc")
    return [counter for counter in (*_fixed(bcc_kernel.preempted_state(tracefs)), *named) if is_there(counter)]


def _is_asleep(pid: int) -> bool:
    try:
        return processes.stat_fields(pid)[0] == b"S"
    except OSError:
        return False


def _fixed(preempted_state: int) -> Iterator[_Counter]:
    """The counters that are always there."""
    yield _Counter("calls_count", "raw_syscalls:sys_enter")
    yield _Counter("call_errors_count", "raw_syscalls:sys_exit", "ret < 0 && ret >= -4095")
    runnable = f"prev_state == 0 || prev_state == {preempted_state}"
    sleeping = f"prev_state != 0 && prev_state != {preempted_state}"
    yield _Counter("voluntary_switches_count", "sched:sched_switch", sleeping)
    yield _Counter("involuntary_switches_count", "sched:sched_switch", runnable)
    yield _Counter("tasks", "task:task_newtask")
    yield _Counter("threads_count", "task:task_newtask", f"clone_flags & {_CLONE_THREAD}")
    yield _Counter("exits_count", "sched:sched_process_exit")
    yield _Counter("page_faults_count", "page-faults")
    for name in ("accept", "accept4"):
        yield _Counter(name, f"syscalls:sys_exit_{name}", "ret >= 0")


def _of_call(name: str) -> _Counter:
    return _Counter(f"call {name}", f"syscalls:sys_enter_{_EVENT_NAMES.get(name, name)}")


def read_report(text: str, counters_count: int) -> tuple[float, list[int | None]]:
    """(time of the last complete interval in seconds, count of each counter in the order of the command line).

    Each interval has a line for each counter: time, value, unit, event and more. At the end there is a summary of the
    same shape, which alone is complete: a command that ends at once may have no interval. ``<not counted>`` is a task
    that did not run, ``<not supported>`` unknown.
    """
    lines = [line.split(",") for line in text.splitlines() if line.count(",") > 2 and not line.startswith("#")]
    parts = [words for words in lines if words[0].strip() != _SUMMARY]
    summary = [words for words in lines if words[0].strip() == _SUMMARY]
    complete = len(parts) // counters_count * counters_count if counters_count else 0
    elapsed_s = float(parts[complete - 1][0]) if complete else 0.0
    told = summary if len(summary) == counters_count else parts[:complete]
    sums: list[int | None] = [0 if told else None] * counters_count
    for index, words in enumerate(told):
        known, value = sums[index % counters_count], _value(words[1].strip())
        sums[index % counters_count] = None if known is None or value is None else known + value
    return elapsed_s, sums


def _value(text: str) -> int | None:
    return 0 if text == "<not counted>" else int(text) if text.isdigit() else None
