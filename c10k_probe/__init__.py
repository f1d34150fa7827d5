"""c10k-probe: a command-line laboratory for connection scaling on Linux."""

__version__ = "0.1.0"
