"""Clients behind one interface: whatever holds, or sends on, connections to a server under test."""

from c10k_probe.load.holder import Echoes, Failure, Holder, Pumped, Ramped

__all__ = ["Echoes", "Failure", "Holder", "Pumped", "Ramped"]
