"""Consumers of events: live table, plain lines, CSV, JSON lines, run folder. Only here and in ``cli`` is Rich imported."""
