"""Systems under test behind one interface, ``Server``."""

from c10k_probe.servers.base import Server, ServerModel
from c10k_probe.servers.nginx import NginxServer
from c10k_probe.servers.reference import CLIENT_END, MODELS, ReferenceModel, ReferenceServer

__all__ = ["CLIENT_END", "MODELS", "NginxServer", "ReferenceModel", "ReferenceServer", "Server", "ServerModel"]
