"""Systems under test behind one interface, ``Server``."""

from collections.abc import Mapping
from typing import Final

from c10k_probe.servers.base import PROTOCOLS, Server, ServerModel, ServerOptions
from c10k_probe.servers.in_python import PYTHON_MODELS, PythonModel, PythonServer
from c10k_probe.servers.prediction import pool_wall, predict
from c10k_probe.servers.reference import CLIENT_END, POOLS, REFERENCE_MODELS, ReferenceModel, ReferenceServer, to_hold

MODELS: Final[Mapping[str, ServerModel]] = {**REFERENCE_MODELS, **PYTHON_MODELS}
"""Every way to serve a connection that an experiment may choose, by name."""

BASIC_MODELS: Final = ("epoll", "thread", "fork")
"""What is compared when nothing else is asked for."""

__all__ = [
    "BASIC_MODELS",
    "CLIENT_END",
    "MODELS",
    "POOLS",
    "PROTOCOLS",
    "PYTHON_MODELS",
    "REFERENCE_MODELS",
    "PythonModel",
    "PythonServer",
    "ReferenceModel",
    "ReferenceServer",
    "Server",
    "ServerModel",
    "ServerOptions",
    "pool_wall",
    "predict",
    "to_hold",
]
