"""Clients behind one interface: whatever holds, or sends on, connections to a server under test."""

from c10k_probe.load.ab import Ab, AbReport
from c10k_probe.load.generator import find_generator
from c10k_probe.load.holder import Backlogged, Echoes, Failure, Holder, Probed, Pumped, Ramped
from c10k_probe.load.open_loop import ClosedLoopReport, OpenLoad, OpenLoop, Sender, Stage
from c10k_probe.load.slow import Crowd, SlowClients, Work
from c10k_probe.load.wrk import ClosedLoop, Wrk, find_wrk

__all__ = [
    "Ab",
    "AbReport",
    "Backlogged",
    "ClosedLoop",
    "ClosedLoopReport",
    "Crowd",
    "Echoes",
    "Failure",
    "Holder",
    "OpenLoad",
    "OpenLoop",
    "Probed",
    "Pumped",
    "Ramped",
    "Sender",
    "SlowClients",
    "Stage",
    "Work",
    "Wrk",
    "find_generator",
    "find_wrk",
]
