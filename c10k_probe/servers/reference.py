"""The C reference server in its models: one handler, and the ways to wait for the next byte."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from c10k_probe.limits import Needs
from c10k_probe.servers.base import ServerOptions
from c10k_probe.servers.helper import HelperModel, HelperServer

_KERNEL_END_BYTES: Final = 5_000  # socket, inode, dentry and file of one end, measured on Linux 6.18
_TASK_FRAG_BYTES: Final = 32_768  # the page for socket data of each task that sends (net/core/sock.c)
_KERNEL_STACK_BYTES: Final = 16_384  # THREAD_SIZE on x86-64 and arm64
_POLLFD_BYTES: Final = 8  # struct pollfd
_REQUEST_BYTES: Final = 400  # struct io_kiocb and struct async_poll, and 20 bytes of the server's
_OWN_DESCRIPTORS: Final = 8  # three streams, the listener, /proc/self/status, what wakes the loop; and some room
_ONE_TASK: Final = Needs(descriptors_count=_OWN_DESCRIPTORS, system_descriptors_count=_OWN_DESCRIPTORS, tasks_count=1)


@dataclass(frozen=True)
class ReferenceModel(HelperModel):
    """One way of the reference server to serve a connection."""

    missing: str = ""

    def start(self, options: ServerOptions) -> ReferenceServer:
        """A running server; see ``base.ServerModel``."""
        return ReferenceServer(self.name, options)

    def room_count(self, options: ServerOptions) -> int | None:
        """Connections of all workers; see ``base.ServerModel``."""
        return (options.workers_count or _POOL_COUNT) if self.name in POOLS else None


_POOL_COUNT: Final = 256  # SERVER_POOL_COUNT in server.h
_BEHIND_LOOP_COUNT: Final = 4  # DEFAULT_WORKERS_COUNT in server_model_epoll_pool.c
_CPUS_COUNT: Final = len(os.sched_getaffinity(0))
_ONE_END: Final = Needs(descriptors_count=1, system_descriptors_count=1, memory_bytes=_KERNEL_END_BYTES)
_THREAD: Final = Needs(
    tasks_count=1,
    mappings_count=2,  # the stack and its guard
    memory_bytes=_KERNEL_STACK_BYTES + _TASK_FRAG_BYTES + 24_000,
    address_space_bytes=8 << 20,
    commit_bytes=8 << 20,
)
_PROCESS: Final = Needs(
    tasks_count=1, memory_bytes=_KERNEL_STACK_BYTES + _TASK_FRAG_BYTES + 115_000, commit_bytes=300_000
)
_OF_ONE_PROCESS: Final = Needs(system_descriptors_count=1, memory_bytes=_KERNEL_END_BYTES)
"""A connection that is alone in its process, which shares the other open files with its parent."""


def _basic_models() -> Iterator[ReferenceModel]:
    yield ReferenceModel(
        "epoll",
        "one thread, an event loop",
        _ONE_END.plus(Needs(watches_count=1)),
        _ONE_TASK,
        frozenset({"edge", "capacity"}),
    )
    yield ReferenceModel(
        "thread",
        "one thread per connection",
        _ONE_END.plus(_THREAD),
        _ONE_TASK.plus(Needs(mappings_count=40)),
        frozenset({"stack"}),
    )
    yield ReferenceModel("fork", "one process per connection", _OF_ONE_PROCESS.plus(_PROCESS), _ONE_TASK)


def _pools() -> Iterator[ReferenceModel]:
    yield ReferenceModel(
        "prefork",
        "a pool of processes, each with one connection at a time",
        _OF_ONE_PROCESS,
        _ONE_TASK.plus(_PROCESS.times(_POOL_COUNT)),
        frozenset({"workers"}),
    )
    yield ReferenceModel(
        "thread-pool",
        "a pool of threads, each with one connection at a time",
        _ONE_END,
        _ONE_TASK.plus(Needs(mappings_count=40)).plus(_THREAD.times(_POOL_COUNT)),
        frozenset({"stack", "workers"}),
    )


def _models_with_one_loop() -> Iterator[ReferenceModel]:
    """That wait in other ways than ``epoll``, or for more."""
    yield ReferenceModel(
        "select",
        "one thread, select on a set of 1,024",
        _ONE_END.plus(Needs(select_count=1)),
        _ONE_TASK.plus(Needs(select_count=_OWN_DESCRIPTORS)),
    )
    yield ReferenceModel(
        "poll", "one thread, poll on an array", _ONE_END.plus(Needs(memory_bytes=_POLLFD_BYTES)), _ONE_TASK
    )
    yield ReferenceModel(
        "io_uring",
        "one thread, requests to the kernel and their completions",
        # kept in the kernel while a connection is idle: the request to receive and what waits for its socket
        _ONE_END.plus(Needs(memory_bytes=_REQUEST_BYTES)),
        _ONE_TASK,
    )
    yield ReferenceModel(
        "epoll-await",
        "one thread, an event loop that also waits for what requests wait for",
        _ONE_END.plus(Needs(watches_count=1)),
        _ONE_TASK.plus(Needs(descriptors_count=2, system_descriptors_count=2)),
    )
    yield ReferenceModel(
        "epoll-pool",
        "an event loop, and a pool of threads that do the work of requests",
        _ONE_END.plus(Needs(watches_count=1)),
        _ONE_TASK.plus(Needs(mappings_count=40)).plus(_THREAD.times(_BEHIND_LOOP_COUNT)),
        frozenset({"stack", "workers"}),
    )


def _models_with_a_loop_per_cpu() -> Iterator[ReferenceModel]:
    for name, summary in (
        ("epoll-reuseport", "a process per CPU, each with its own listener and event loop"),
        ("epoll-exclusive", "a process per CPU with an event loop, one listener for all"),
        ("epoll-inherited", "the same, and a new connection wakes all that wait"),
        ("epoll-passed", "a process per CPU with an event loop, a master that accepts and passes in turn"),
    ):
        yield ReferenceModel(
            name,
            summary,
            _ONE_END.plus(Needs(watches_count=1)),
            _ONE_TASK.plus(_PROCESS.times(_CPUS_COUNT)),
            frozenset({"workers"}),
        )


REFERENCE_MODELS: Final = {
    model.name: model
    for models in (_basic_models, _pools, _models_with_one_loop, _models_with_a_loop_per_cpu)
    for model in models()
}

POOLS: Final[Mapping[str, Needs]] = {"prefork": _PROCESS, "thread-pool": _THREAD}
"""Models whose workers hold one connection each, and what a worker takes: more connections than workers wait."""


def to_hold(model: str, count: int) -> tuple[ServerOptions, Needs]:
    """The options with which a model answers ``count`` connections at once, and what a pool then takes more than by
    default."""
    if model not in POOLS:
        return ServerOptions(), Needs()
    workers_count = max(count, _POOL_COUNT)
    return ServerOptions(workers_count=workers_count), POOLS[model].times(workers_count - _POOL_COUNT)


CLIENT_END: Final = Needs(system_descriptors_count=1, memory_bytes=_KERNEL_END_BYTES)
"""What the client's end of a connection takes; its descriptors are spread over as many processes as that needs."""


class ReferenceServer(HelperServer):
    """A running reference server. Raises ``native.HelperError`` when it does not come up."""

    def __init__(self, model: str, options: ServerOptions | None = None) -> None:
        super().__init__("reference_server", model, _arguments(model, options or ServerOptions()))


def _arguments(model: str, options: ServerOptions) -> list[object]:
    """The helper's command line: only what applies to the model."""
    takes = REFERENCE_MODELS[model].takes if model in REFERENCE_MODELS else frozenset()
    arguments: list[object] = ["--backlog", options.backlog_count, "--protocol", options.protocol]
    if options.stack_bytes is not None and "stack" in takes:
        arguments += ["--stack", options.stack_bytes]
    if options.workers_count is not None and "workers" in takes:
        arguments += ["--workers", options.workers_count]
    if options.is_edge_triggered and "edge" in takes:
        arguments += ["--edge", "on"]
    if options.capacity_count is not None and "capacity" in takes:
        arguments += ["--capacity", options.capacity_count]
    if options.work_cpu_ns is not None:
        arguments += ["--work-cpu-ns", options.work_cpu_ns]
    if options.backend_port is not None:
        arguments += ["--backend-port", options.backend_port]
    if options.backend_timeout_ns is not None:
        arguments += ["--backend-timeout-ns", options.backend_timeout_ns]
    if options.work_sleep_ns is not None:
        arguments += ["--work-sleep-ns", options.work_sleep_ns]
    return arguments
