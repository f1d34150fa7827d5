"""Systems under test behind one interface, ``Server``."""

from c10k_probe.servers.base import Server, ServerModel
from c10k_probe.servers.reference import MODELS, ReferenceModel, ReferenceServer

__all__ = ["MODELS", "ReferenceModel", "ReferenceServer", "Server", "ServerModel"]
