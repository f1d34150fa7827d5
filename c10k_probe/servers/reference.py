"""The C reference server in its models: one handler, three ways to wait for the next byte."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from c10k_probe.limits import Needs
from c10k_probe.servers.base import ServerOptions
from c10k_probe.servers.helper import HelperServer

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
    protocols: frozenset[str] = frozenset({"echo"})
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

CLIENT_END: Final = Needs(system_descriptors_count=1, memory_bytes=_KERNEL_END_BYTES)
"""What the client's end of a connection takes; its descriptors are spread over as many processes as that needs."""


class ReferenceServer(HelperServer):
    """A running reference server. Raises ``native.HelperError`` when it does not come up."""

    def __init__(self, model: str, options: ServerOptions | None = None) -> None:
        super().__init__("reference_server", model, _arguments(model, options or ServerOptions()))


def _arguments(model: str, options: ServerOptions) -> list[object]:
    """The helper's command line: only what applies to the model."""
    takes = REFERENCE_MODELS[model].takes if model in REFERENCE_MODELS else frozenset()
    arguments: list[object] = ["--backlog", options.backlog_count]
    if options.stack_bytes is not None and "stack" in takes:
        arguments += ["--stack", options.stack_bytes]
    return arguments
