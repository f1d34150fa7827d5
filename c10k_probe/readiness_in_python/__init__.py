"""What one delivered event costs a Python program, by mechanism and load; speaks the helpers' protocol.

    python -m c10k_probe.readiness_in_python --mechanism M --watched N --active LIST [--workload chain|short]
        [--writes W | --pass-us T] [--warmup P] [--passes P] [--budget-ms B] [--seed S] [--placement one-cpu|any-cpu]
        [--cpu C] [--pause]

It does what the helper ``readiness`` does in C, with the same options and messages, by what Python programs use:
``select.select``, ``select.poll``, ``select.epoll``, ``selectors`` (DefaultSelector), ``asyncio`` and ``uvloop``
(add_reader on a loop of each). All of these are level-triggered. Watched are N Unix stream sockets, both ends of each
pair (one end of the last where N is odd), registered in shuffled order. For each number A of LIST, in this order and on
the same sockets, passes are made: warm-ups, then one at least, more while the level's share of the budget lasts.

- ``chain``: A tokens of one byte lie evenly spaced on a shuffled cycle of the watched sockets. All in flight are read,
  then each is written to the peer of the next socket of the cycle, until W writes beyond the first A are made. Reading
  all before writing keeps exactly A sockets ready with one token each: one written at once to a socket that is ready
  already would be delivered together with that one's own.
- ``short``: N sockets stay idle. In each of W / A rounds, rounded up, A pairs are made, one end of each is watched, one
  byte is written to each, all are read, unwatched and closed.

Timed in a pass: from before the first write (``chain``) or the first pair (``short``) until after the last read or
close. ``register_ns`` is the watching and unwatching in ``short`` alone; null for uvloop, whose loop puts the system
calls off. ``setup_ns``: watching all N, with the turn of the loop that it takes in uvloop. Not timed: making the N
sockets, warm-ups, looking after each pass whether anything is still ready (such a pass is dropped). The garbage
collector is off, and what was made before is frozen.

``calls_count`` are the system calls that follow from this program's own calls; it and ``waits_count`` are null for
asyncio and uvloop, whose loops wait out of sight. Clock: ``time.monotonic_ns``, CLOCK_MONOTONIC; unit: ns.

Known bias: every row contains, for each event, one method call, one counter and one list append, and two more calls for
each round: a program that writes its handler out into its loop is a little faster, most of all with one active.
``select.select`` unwatches in constant time here, on a list whose places are known. ``select.poll`` builds its array
anew in the wait that follows a change. An event that never comes ends the launch with an error after ten to fifteen
seconds.

Sources: os, select, selectors, socket and asyncio of the Python library, Modules/selectmodule.c of CPython; uvloop
(loop.pyx, handles/poll.pyx); select(2), poll(2), epoll(7).
"""
