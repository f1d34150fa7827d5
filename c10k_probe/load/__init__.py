"""Clients behind one interface: whatever holds, or sends on, connections to a server under test."""

from c10k_probe.load.holder import Echoes, Failure, Holder, Ramped
from c10k_probe.load.wrk import HttpLoad, Wrk, find_wrk

__all__ = ["Echoes", "Failure", "Holder", "HttpLoad", "Ramped", "Wrk", "find_wrk"]
