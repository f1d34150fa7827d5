"""Consumers of events: live table, plain lines, CSV, JSON lines, run folder.

Rich is imported only here and in ``cli``.
"""
