"""The C reference server in its models: one handler, three ways to wait for the next byte."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from c10k_probe import native
from c10k_probe.limits import Needs
from c10k_probe.servers.base import ServerOptions

_KERNEL_END_BYTES: Final = 5_000  # socket, inode, dentry and file of one end, measured on Linux 6.18
_TASK_FRAG_BYTES: Final = 32_768  # the page for socket data of each task that sends (net/core/sock.c)
_KERNEL_STACK_BYTES: Final = 16_384  # THREAD_SIZE on x86-64 and arm64


@dataclass(frozen=True)
class ReferenceModel:
    """One way of the reference server to serve a connection, and what a connection takes of each limit.

    The figures are for predictions only (``doctor``, the memory guard's first step); a run measures its own.
    """

    name: str
    summary: str
    per_connection: Needs
    fixed: Needs
    takes: frozenset[str] = frozenset()
    missing: str = ""

    def start(self, options: ServerOptions) -> ReferenceServer:
        """A running server; see ``base.ServerModel``."""
        return ReferenceServer(self.name, options)


REFERENCE_MODELS: Final = {
    model.name: model
    for model in (
        ReferenceModel(
            "epoll",
            "one thread, an event loop",
            Needs(descriptors_count=1, system_descriptors_count=1, watches_count=1, memory_bytes=_KERNEL_END_BYTES),
            Needs(descriptors_count=8, system_descriptors_count=8, tasks_count=1),
            frozenset({"edge", "capacity"}),
        ),
        ReferenceModel(
            "thread",
            "one thread per connection",
            Needs(
                descriptors_count=1,
                system_descriptors_count=1,
                tasks_count=1,
                mappings_count=2,  # the stack and its guard
                memory_bytes=_KERNEL_END_BYTES + _KERNEL_STACK_BYTES + _TASK_FRAG_BYTES + 24_000,
                address_space_bytes=8 << 20,
                commit_bytes=8 << 20,
            ),
            Needs(descriptors_count=8, system_descriptors_count=8, tasks_count=1, mappings_count=40),
            frozenset({"stack"}),
        ),
        ReferenceModel(
            "fork",
            "one process per connection",
            Needs(
                # the children share the parent's open files but for their own connection
                system_descriptors_count=1,
                tasks_count=1,
                memory_bytes=_KERNEL_END_BYTES + _KERNEL_STACK_BYTES + _TASK_FRAG_BYTES + 115_000,
                commit_bytes=300_000,
            ),
            Needs(descriptors_count=8, system_descriptors_count=8, tasks_count=1),
        ),
    )
}

_FAREWELL_S: Final = 10.0  # every connection is closed, and every process of `fork` reaped

CLIENT_END: Final = Needs(system_descriptors_count=1, memory_bytes=_KERNEL_END_BYTES)
"""What the client's end of a connection takes; its descriptors are spread over as many processes as that needs."""


class ReferenceServer(native.Helpers):
    """A running reference server. Raises ``native.HelperError`` when it does not come up."""

    def __init__(self, model: str, options: ServerOptions | None = None) -> None:
        super().__init__(_FAREWELL_S)
        self.name = model
        self.cpus, _ = native.split_cpus()
        ready = self._start("reference_server", _arguments(model, options or ServerOptions()), self.cpus, "ready")
        self._helper = self._helpers[0]
        self.port = int(ready["port"])
        self.backlog_count = int(ready["backlog"])
        self.session = self._helper.pid

    def status(self) -> dict[str, Any]:
        """The server's own counts; see ``base.Server``."""
        return self._helper.ask("status", "status")

    def walls(self) -> list[dict[str, Any]]:
        """The limits it ran into; see ``base.Server``."""
        return self._helper.walls()

    def wait_until_idle(self, timeout_s: float = 2.0) -> None:
        """Return when the server holds no connection any more; it hears of a reset a moment after the client."""
        deadline = time.monotonic() + timeout_s
        while self.status()["open_count"] and time.monotonic() < deadline:
            time.sleep(0.001)

    def death(self) -> str:
        """How the server's main process ended; empty while it lives."""
        return self._helper.death()


def _arguments(model: str, options: ServerOptions) -> list[object]:
    """The helper's command line: only what applies to the model."""
    takes = REFERENCE_MODELS[model].takes if model in REFERENCE_MODELS else frozenset()
    arguments: list[object] = ["--model", model, "--backlog", options.backlog_count]
    if options.stack_bytes is not None and "stack" in takes:
        arguments += ["--stack", options.stack_bytes]
    if options.capacity_count is not None and "capacity" in takes:
        arguments += ["--capacity", options.capacity_count]
    if options.is_edge_triggered and "edge" in takes:
        arguments += ["--edge", "on"]
    return arguments
