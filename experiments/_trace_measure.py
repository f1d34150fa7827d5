"""One cell of trace-overhead: a server under load, and who traces it meanwhile."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from c10k_probe import native
from c10k_probe.experiment import Scalar
from c10k_probe.load import ClosedLoop
from c10k_probe.observe import tree
from c10k_probe.observe.procfs import read_status
from c10k_probe.tracing.base import Options, Target, Tracer, TracerUnavailable
from c10k_probe.tracing.choose import open_tracer
from c10k_probe.tracing.result import Trace, add_known

from ._trace_load import Ask, serving

OFF = "off"
COUNTS = "bcc-counts"
BACKENDS: Mapping[str, tuple[str, bool]] = {  # name here -> (backend, with latencies)
    "proc": ("proc", True),
    COUNTS: ("bcc", False),
    "bcc": ("bcc", True),
    "perf": ("perf", True),
    "strace": ("strace", True),
}
_READ_EVERY_S = 1.0  # as `trace` does
_FIRST_READING_S = 0.5  # so that a window of n seconds has n readings


@dataclass(frozen=True)
class Traced:
    """A window of load. server_cpu_s: of its tree; tracer_cpu_s: of the tracer's processes, and of reading them."""

    load: ClosedLoop
    server_cpu_s: float | None
    tracer_cpu_s: float | None = None
    tracer_peak_rss_bytes: int | None = None
    ready_s: float | None = None
    trace: Trace | None = None
    answers: Mapping[str, Scalar] = dataclasses.field(default_factory=dict)

    def values(self) -> dict[str, list[int]]:
        """What has an interval over launches; what was not measured is left out."""
        load = self.load
        found = {
            "throughput_per_s": load.requests_per_s,
            "p50_ns": load.latency_p50_ns,
            "p90_ns": load.latency_p90_ns,
            "p99_ns": load.latency_p99_ns,
            "cpu_per_request_ns": self._per_request(self.server_cpu_s, 1e9),
        }
        return {name: [round(value)] for name, value in found.items() if value is not None}

    def facts(self) -> dict[str, Scalar]:
        """What is said of each launch."""
        load, trace = self.load, self.trace
        switches = None
        if trace is not None:
            switches = add_known([trace.voluntary_switches_count, trace.involuntary_switches_count])
        return {
            **self.answers,
            "requests_count": load.requests_count,
            "failed_count": load.failed_count,
            "load_cpu_pct": _share_pct(load.cpu_s, load.elapsed_s),
            "server_cpu_pct": _share_pct(self.server_cpu_s, load.elapsed_s),
            "calls_per_request_count": self._per_request(trace.calls_count if trace else None),
            "switches_per_request_count": self._per_request(switches),
            "dropped_count": trace.dropped_count if trace else None,
            "tracer_cpu_pct": _share_pct(self.tracer_cpu_s, load.elapsed_s),
            "tracer_peak_rss_bytes": self.tracer_peak_rss_bytes,
            "ready_s": self.ready_s,
        }

    def _per_request(self, amount: float | None, scale: float = 1.0) -> float | None:
        return None if amount is None or not self.load.requests_count else amount * scale / self.load.requests_count


def _share_pct(cpu_s: float | None, elapsed_s: float) -> float | None:
    return None if cpu_s is None or elapsed_s <= 0 else cpu_s / elapsed_s * 100


def measure(server: str, traced_by: str, ask: Ask, remaining_s: Callable[[], float]) -> Traced:
    """One window on a fresh server. Raises ``native.HelperError``; ``HelperUnsupported`` for what is missing here."""
    with serving(server, ask, remaining_s) as ready, _traced(traced_by, ready.server.session) as tracing:
        with ready.begin() as load:
            while not load.wait(tracing.until_next_s()):
                tracing.read()
            came_to = load.finish()
        if death := ready.server.death():
            raise native.HelperError(death)
        return dataclasses.replace(tracing.finished(came_to), answers=ready.facts)


@contextlib.contextmanager
def _traced(traced_by: str, session: int) -> Iterator[Tracing]:
    """Inside the block the tracer counts what the server does."""
    if traced_by == OFF:
        yield Tracing(session)
        return
    backend, latency = BACKENDS[traced_by]
    began_s = time.monotonic()
    try:
        tracer = open_tracer(backend, Target(pids=[session]), Options(latency=latency, interval_s=_READ_EVERY_S))
    except TracerUnavailable as error:
        raise native.HelperUnsupported(str(error)) from None
    with tracer:
        yield Tracing(session, tracer, time.monotonic() - began_s)


class Tracing:
    """A window that begins when this is made: readings of the tracer meanwhile, and what both took at the end."""

    def __init__(self, session: int, tracer: Tracer | None = None, ready_s: float | None = None) -> None:
        self._session = session
        self._tracer = tracer
        self._ready_s = ready_s
        self._reading_cpu_s = 0.0
        self._server_cpu_before_s = self._server_cpu_s()
        self._helper_cpu_before_s = self._helper_cpu_s()
        self._next_s = time.monotonic() + _FIRST_READING_S

    def until_next_s(self) -> float:
        """Seconds until a reading is due; there is none without a tracer."""
        return _READ_EVERY_S if self._tracer is None else self._next_s - time.monotonic()

    def read(self) -> None:
        """One reading, as a display would make it."""
        if self._tracer is not None:
            before_s = time.process_time()
            self._tracer.snapshot()
            self._reading_cpu_s += time.process_time() - before_s
            self._next_s += _READ_EVERY_S

    def finished(self, load: ClosedLoop) -> Traced:
        """What the load came to, with what server and tracer took for it."""
        helper_cpu_s = _since(self._helper_cpu_s(), self._helper_cpu_before_s)
        server_cpu_s = _since(self._server_cpu_s(), self._server_cpu_before_s)
        if self._tracer is None:
            return Traced(load, server_cpu_s)
        peak = _peak_rss_bytes(self._tracer.own_pids)
        tracer_cpu_s = self._reading_cpu_s + (helper_cpu_s or 0.0)
        return Traced(load, server_cpu_s, tracer_cpu_s, peak, self._ready_s, self._tracer.stop())

    def _server_cpu_s(self) -> float | None:
        return tree.read_processes(tree.session_pids(self._session), memory=False).cpu_run_s

    def _helper_cpu_s(self) -> float | None:
        own = self._tracer.own_pids if self._tracer is not None else ()
        return tree.read_processes(own, memory=False).cpu_run_s


def _since(now: float | None, before: float | None) -> float | None:
    return None if now is None or before is None else now - before


def _peak_rss_bytes(pids: tuple[int, ...]) -> int | None:
    """The most that these processes ever had in memory (VmHWM); None for no process."""
    texts = [read_status(pid=pid).get("VmHWM", "") for pid in pids]
    return add_known([int(text.split()[0]) * 1024 for text in texts if text])
