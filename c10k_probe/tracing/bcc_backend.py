"""The eBPF backend: counts in the kernel, for each CPU apart, through a helper under an interpreter that has bcc.

bcc comes from the distribution (``python3-bpfcc``) and is seen by the system's Python only; the package of that name on
the package index is another one. Sees everything that ``Trace`` has but CPU time. Wakes nobody: a reading is made
through shared memory.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Final

from c10k_probe.native import Helper, HelperError, HelperUnsupported
from c10k_probe.tracing import syscalls
from c10k_probe.tracing.base import READY_PATIENCE_S, Options, Target, Tracer, TracerUnavailable
from c10k_probe.tracing.bcc_kernel import CALLS_COUNT
from c10k_probe.tracing.launch import Launched
from c10k_probe.tracing.result import TCP_STATES, Call, Histogram, Trace

HELPER: Final = Path(__file__).with_name("bcc_helper.py")
_SYSTEM_PACKAGES: Final = "/usr/lib/python3/dist-packages"
_PROBE: Final = (
    "import sys; sys.path += sys.argv[1:]; import bcc.libbcc; sys.exit(sys.version_info < (3, 11))"  # ours needs 3.11
)
_PROBE_PATIENCE_S: Final = 10
# what is counted together: numbers beyond the table, calls of 32-bit programs (OTHER_CALLS, COMPAT_CALLS)
_TOGETHER: Final = {CALLS_COUNT - 1: "other", CALLS_COUNT - 2: syscalls.COMPAT}


def _interpreters() -> Iterator[tuple[str, ...]]:
    """Interpreters that may have bcc, each with the folders to add to its path."""
    yield ("/usr/bin/python3",)
    yield (sys.executable,)
    yield from ((str(path),) for path in sorted(Path("/usr/bin").glob("python3.[0-9][0-9]")))
    yield (sys.executable, _SYSTEM_PACKAGES)


@cache
def find_interpreter() -> tuple[str, ...] | None:
    """The first interpreter that can import bcc, and the folder to add to its path if it needs one; None without any.

    ``bcc.libbcc`` is asked for: the package of that name on the package index has none.
    """
    for interpreter, *folders in _interpreters():
        command = [interpreter, "-IB", "-c", _PROBE, *folders]
        try:
            done = subprocess.run(command, capture_output=True, timeout=_PROBE_PATIENCE_S, check=False)
        except (OSError, subprocess.SubprocessError):
            continue
        if done.returncode == 0:
            return (interpreter, *folders)
    return None


class _BccHelper(Helper):
    """The helper under the interpreter that has bcc. Raises ``TracerUnavailable`` when none has."""

    @staticmethod
    def _program(name: str, linking: str) -> Sequence[str]:
        found = find_interpreter()
        if found is None:
            lift = f"{_sudo()}apt-get install python3-bpfcc"
            raise TracerUnavailable("bcc", "no interpreter here can import bcc", lift)
        interpreter, *folders = found
        return [interpreter, "-IB", str(HELPER), *(f"--path={folder}" for folder in folders)]


class BccTracer(Tracer):
    """Counts by eBPF."""

    name: ClassVar[str] = "bcc"

    def __init__(self, target: Target, options: Options) -> None:
        super().__init__(target, options)
        self._helper: Helper | None = None
        self._ready: Mapping[str, Any] = {}
        self._baseline: Trace | None = None

    def start(self) -> None:
        """Start the helper, attach, follow the target."""
        self._helper = self._attach()
        if self.target.command:
            self.launched = Launched.suspended(self.target.command, self.target.output)
            whom = f"launch {self.launched.pid}"
        else:
            whom = "follow " + " ".join(map(str, self.target.pids))
        try:
            following = self._ask(whom, "following")
        except HelperError as error:
            raise _unavailable(error) from None
        # what was counted while other tasks were not followed yet belongs to no time: it is taken off all readings
        self._baseline = self._trace(following)
        if self.launched is not None:
            self.launched.release()

    def _attach(self) -> Helper:
        arguments = ["--tasks", str(self.options.tasks_count)]
        arguments += [] if self.options.latency else ["--counts-only"]
        helper = None
        try:
            helper = _BccHelper("bcc_helper", arguments)
            self._ready = helper.expect("ready", READY_PATIENCE_S)
        except HelperError as error:
            if helper is not None:
                helper.kill()
            raise _unavailable(error) from None
        return helper

    @property
    def own_pids(self) -> tuple[int, ...]:
        """The helper."""
        return () if self._helper is None else (self._helper.pid,)

    def snapshot(self) -> Trace | None:
        """Everything counted up to now."""
        return self._reading()

    def _reading(self) -> Trace:
        assert self._baseline is not None
        whole = self._trace(self._ask("snapshot", "snapshot"))
        dropped = {name: getattr(whole, name) for name in ("dropped_tasks_count", "dropped_events_count")}
        return dataclasses.replace(whole.minus(self._baseline), **dropped)  # what was dropped then is lacking still

    def is_over(self) -> bool:
        """Whether every followed task has ended."""
        is_reaped = self._is_reaped()  # each time, or it would stay a zombie
        return int(self._ask("alive", "alive")["tasks_count"]) <= 0 and is_reaped

    def stop(self) -> Trace:
        """The last reading, and the end of the helper."""
        last = self._reading()
        assert self._helper is not None
        self._helper.finish()
        self.close()
        return last

    def close(self) -> None:
        """End the helper, and with it every program and map."""
        if self._helper is not None:
            self._helper.kill()
            self._helper = None

    def _ask(self, command: str, answer: str) -> Mapping[str, Any]:
        assert self._helper is not None
        return self._helper.ask(command, answer, READY_PATIENCE_S)

    def _trace(self, said: Mapping[str, Any]) -> Trace:
        counters, latency = said["counters"], bool(self._ready["latency"])
        calls = _calls(said["calls"], latency=latency)
        errors = sum(call.errors_count or 0 for call in calls.values())
        return Trace(
            backend=self.name,
            elapsed_s=said["time_ns"] / 1e9,  # of the clock; a reading is a difference
            calls=calls,
            calls_count=sum(call.count for call in calls.values()),
            call_errors_count=errors if latency else None,
            voluntary_switches_count=counters["voluntary_switches"],
            involuntary_switches_count=counters["involuntary_switches"],
            runqueue=Histogram(tuple(said["runqueue"]), counters["runqueue_ns"]) if latency else None,
            runqueue_wait_s=counters["runqueue_ns"] / 1e9 if latency else None,
            forks_count=counters["forks"],
            threads_count=counters["threads"],
            exits_count=counters["exits"],
            page_faults_count=counters["page_faults"] if self._ready["faults"] else None,
            accepts_count=counters["accepts"] if self._ready["accepts"] else None,
            tcp_changes=_tcp(said["tcp"]) if self._ready["tcp"] else None,
            tasks_count=max(0, said["tasks_count"]),
            dropped_tasks_count=said["dropped_tasks"],
            dropped_events_count=said["dropped_events"],
            notes=_notes(said, calls),
        )


def _sudo() -> str:
    return "" if os.geteuid() == 0 else "sudo "


def _unavailable(error: HelperError) -> TracerUnavailable:
    if isinstance(error, HelperUnsupported):
        return TracerUnavailable("bcc", error.message.get("reason") or str(error), error.message.get("lift", ""))
    return TracerUnavailable("bcc", str(error))


def _notes(said: Mapping[str, Any], calls: Mapping[str, Call]) -> tuple[str, ...]:
    missed, notes = said["missed_wakeups"], []
    if missed:
        notes.append(
            f"{missed} wake-ups or TCP changes of the whole machine were missed: so many waits or changes may lack"
        )
    if syscalls.COMPAT in calls:
        notes.append(f"{syscalls.COMPAT} have other numbers: they are counted together, accepts among them not at all")
    return tuple(notes)


def _calls(said: Mapping[str, Sequence[Any]], *, latency: bool) -> dict[str, Call]:
    calls = {}
    for number, (count, errors, total_ns, slots) in said.items():
        name = _TOGETHER.get(int(number)) or syscalls.name_of(int(number))
        histogram = Histogram(tuple(slots), total_ns) if latency else None
        calls[name] = Call(name, count, errors if latency else None, histogram)
    return calls


def _tcp(said: Mapping[str, int]) -> dict[str, int]:
    """``3>1`` -> ``SYN_RECV>ESTABLISHED``."""
    changes = {}
    for change, count in said.items():
        old, new = (TCP_STATES.get(int(number), number) for number in change.split(">"))
        changes[f"{old}>{new}"] = count
    return changes
