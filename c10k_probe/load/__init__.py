"""Clients behind one interface: whatever holds, or sends on, connections to a server under test."""

from c10k_probe.load.holder import Backlogged, Echoes, Failure, Holder, Probed, Pumped, Ramped

__all__ = ["Backlogged", "Echoes", "Failure", "Holder", "Probed", "Pumped", "Ramped"]
