"""Systems under test behind one interface, ``Server``."""

from collections.abc import Mapping
from typing import Final

from c10k_probe.servers.apache import EVENT, PREFORK_PHP
from c10k_probe.servers.backend import Backend, BackendStatus
from c10k_probe.servers.base import PROTOCOLS, Server, ServerModel, ServerOptions
from c10k_probe.servers.cherokee import CHEROKEE
from c10k_probe.servers.command import command_model
from c10k_probe.servers.http_server import HTTP_SERVER
from c10k_probe.servers.in_python import ASKING_PYTHON_MODELS, PYTHON_MODELS, PythonModel, PythonServer
from c10k_probe.servers.nginx import NGINX, NGINX_PHP
from c10k_probe.servers.node import NODE, NODE_JITLESS
from c10k_probe.servers.node_inside import NODE_INSIDE
from c10k_probe.servers.prediction import POOL_IS_FULL, pool_wall, predict
from c10k_probe.servers.real import RealModel, RealServer
from c10k_probe.servers.reference import CLIENT_END, POOLS, REFERENCE_MODELS, ReferenceModel, ReferenceServer, to_hold
from c10k_probe.servers.tornado import TORNADO

MODELS: Final[Mapping[str, ServerModel]] = {**REFERENCE_MODELS, **PYTHON_MODELS}
"""Every way to serve a connection that an experiment may choose, by name; each speaks echo."""

REAL_SERVERS: Final[Mapping[str, RealModel]] = {
    model.name: model
    for model in (NGINX, NGINX_PHP, NODE, NODE_JITLESS, TORNADO, HTTP_SERVER, EVENT, PREFORK_PHP, CHEROKEE)
}
"""Programs of others, by name; each speaks HTTP, and no echo."""

BASIC_MODELS: Final = ("epoll", "thread", "fork")
"""What is compared when nothing else is asked for."""

__all__ = [
    "ASKING_PYTHON_MODELS",
    "BASIC_MODELS",
    "CLIENT_END",
    "MODELS",
    "NODE_INSIDE",
    "POOLS",
    "POOL_IS_FULL",
    "PROTOCOLS",
    "PYTHON_MODELS",
    "REAL_SERVERS",
    "REFERENCE_MODELS",
    "Backend",
    "BackendStatus",
    "PythonModel",
    "PythonServer",
    "RealModel",
    "RealServer",
    "ReferenceModel",
    "ReferenceServer",
    "Server",
    "ServerModel",
    "ServerOptions",
    "command_model",
    "pool_wall",
    "predict",
    "to_hold",
]
