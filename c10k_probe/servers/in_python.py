"""Servers as Python programs are written: socketserver's two ways, asyncio, uvloop; each in a process of its own."""

from __future__ import annotations

import dataclasses
import importlib.util
from dataclasses import dataclass
from typing import Final

from c10k_probe import native
from c10k_probe.limits import Needs
from c10k_probe.servers.base import ServerOptions
from c10k_probe.servers.helper import HelperModel, HelperServer


@dataclass(frozen=True)
class PythonModel(HelperModel):
    """One way of a Python program to serve a connection.

    ``module``: what it needs besides the standard library. ``asks``: how an event loop asks a backend (see
    ``servers_in_python``), of the model ``base``.
    """

    module: str = ""
    asks: str = ""
    base: str = ""

    @property
    def missing(self) -> str:
        """Empty when it can run here; see ``base.ServerModel``."""
        if self.module and importlib.util.find_spec(self.module) is None:
            return f"{self.module} is not installed: pip install 'c10k-probe[python]'"
        return ""

    def start(self, options: ServerOptions) -> PythonServer:
        """A running server; see ``base.ServerModel``. Raises ``native.HelperUnsupported`` when something is missing."""
        if self.missing:
            raise native.HelperUnsupported(self.missing)
        return PythonServer(self, options)

    def room_count(self, options: ServerOptions) -> int | None:
        """As many as come; see ``base.ServerModel``."""
        return None


# Memory: measured by `connections --to 1000` with CPython 3.11, uvloop 0.23 and Linux 6.18 on x86-64.
PYTHON_MODELS: Final = {
    model.name: model
    for model in (
        PythonModel(
            "python-forking",
            "socketserver.ForkingTCPServer: one process per connection",
            Needs(system_descriptors_count=1, tasks_count=1, memory_bytes=1_460_000, commit_bytes=9_000_000),
            Needs(descriptors_count=8, system_descriptors_count=8, tasks_count=1),
        ),
        PythonModel(
            "python-threading",
            "socketserver.ThreadingTCPServer: one thread per connection",
            Needs(
                descriptors_count=1,
                system_descriptors_count=1,
                tasks_count=1,
                mappings_count=2,  # the stack and its guard
                memory_bytes=92_000,
                address_space_bytes=8 << 20,
                commit_bytes=8 << 20,
            ),
            Needs(descriptors_count=8, system_descriptors_count=8, tasks_count=1, mappings_count=200),
            frozenset({"stack"}),
        ),
        PythonModel(
            "asyncio",
            "asyncio.start_server: one thread, a coroutine per connection",
            Needs(descriptors_count=1, system_descriptors_count=1, watches_count=1, memory_bytes=9_200),
            Needs(descriptors_count=10, system_descriptors_count=10, tasks_count=1),
        ),
        PythonModel(
            "uvloop",
            "the same program on uvloop's loop",
            Needs(descriptors_count=1, system_descriptors_count=1, watches_count=1, memory_bytes=8_900),
            Needs(descriptors_count=20, system_descriptors_count=20, tasks_count=5),  # with libuv's pool
            module="uvloop",
        ),
    )
}


ASKING_PYTHON_MODELS: Final = {
    model.name: model
    for model in (
        PYTHON_MODELS["asyncio"],
        PYTHON_MODELS["uvloop"],
        dataclasses.replace(
            PYTHON_MODELS["asyncio"],
            name="asyncio-blocking",
            summary="asyncio that makes the backend's call itself, and serves nobody else meanwhile",
            asks="block",
            base="asyncio",
        ),
        dataclasses.replace(
            PYTHON_MODELS["asyncio"],
            name="asyncio-pool",
            summary="asyncio with a pool of threads that wait for the backend (run_in_executor)",
            asks="pool",
            base="asyncio",
            takes=frozenset({"workers"}),
        ),
        PYTHON_MODELS["python-threading"],
    )
}
"""Those that can have a backend, each in its own way."""


class PythonServer(HelperServer):
    """A running Python server. Raises ``native.HelperError`` when it does not come up."""

    def __init__(self, model: PythonModel, options: ServerOptions | None = None) -> None:
        options = options or ServerOptions()
        arguments: list[object] = ["--backlog", options.backlog_count, "--protocol", options.protocol]
        if options.stack_bytes is not None and "stack" in model.takes:
            arguments += ["--stack", options.stack_bytes]
        if options.backend_port is not None:
            arguments += ["--backend-port", options.backend_port]
            if options.backend_timeout_ns is not None:
                arguments += ["--backend-timeout-ns", options.backend_timeout_ns]
            if model.asks:
                arguments += ["--asks", model.asks]
            if options.workers_count is not None and "workers" in model.takes:
                arguments += ["--workers", options.workers_count]
        super().__init__("servers_in_python", model.base or model.name, arguments, native.PYTHON)
        self.name = model.name
