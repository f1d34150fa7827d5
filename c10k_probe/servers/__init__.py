"""Systems under test behind one interface, ``Server``."""

from c10k_probe.servers.base import PerConnection, Server
from c10k_probe.servers.reference import MODELS, ReferenceServer

__all__ = ["MODELS", "PerConnection", "ReferenceServer", "Server"]
