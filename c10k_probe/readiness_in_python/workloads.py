"""The sockets, and what is done with an event; the same for all mechanisms."""

from __future__ import annotations

import os
import random
import resource
import socket
import time
from collections.abc import Callable
from typing import Final, Protocol

WRITES_LEAST: Final = 1000  # of a pass, unless told otherwise
TOKEN: Final = b"e"
READ_BYTES: Final = 64
_KIND: Final = socket.SOCK_STREAM | socket.SOCK_NONBLOCK


class Refused(Exception):
    """A call of ours failed: its name, its arguments, the number of errno."""


class Watcher(Protocol):
    """What a workload asks of a mechanism."""

    def add(self, numbers: list[int]) -> None:
        """Watch for reading."""

    def remove(self, numbers: list[int]) -> None:
        """Watch no longer."""


def usage() -> tuple[int, int, int, int, int]:
    """This thread's: CPU ns, user and system ns by ticks, voluntary and involuntary switches.

    Sources: clock_gettime(2) (CLOCK_THREAD_CPUTIME_ID), getrusage(2) (RUSAGE_THREAD).
    """
    used = resource.getrusage(resource.RUSAGE_THREAD)
    user_ns, system_ns = round(used.ru_utime * 1e9), round(used.ru_stime * 1e9)
    return time.thread_time_ns(), user_ns, system_ns, used.ru_nvcsw, used.ru_nivcsw


def open_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets that do not block. Raises ``Refused``."""
    try:
        return socket.socketpair(socket.AF_UNIX, _KIND)
    except OSError as error:
        raise Refused("socketpair", "AF_UNIX, SOCK_STREAM", error.errno) from None


class Sockets:
    """What is watched, in the order of registration, and the cycle on which tokens travel: two permutations."""

    def __init__(self, count: int, seed: int) -> None:
        """Raises ``Refused``, leaving nothing open."""
        self.all: list[int] = []
        try:
            for _ in range((count + 1) // 2):
                self.all += [end.detach() for end in open_pair()]
        except Refused:
            self.close()
            raise
        self.chance = random.Random(seed)
        self.watched = self.chance.sample(self.all[:count], count)
        travel = self.chance.sample(self.watched, count)
        peer_of = {number: self.all[place ^ 1] for place, number in enumerate(self.all)}
        self.entrances = [peer_of[number] for number in travel]  # writing there makes this socket of the cycle ready
        self.targets = [-1] * (max(self.all) + 1)  # from a socket to the entrance of the next
        for place, number in enumerate(travel):
            self.targets[number] = self.entrances[(place + 1) % count]

    def close(self) -> None:
        """All of them."""
        for number in self.all:
            os.close(number)
        self.all = []


class Work:
    """One pass after the other. When one is over, ``began`` and ``ended`` are its moments, beside them the usage."""

    watcher: Watcher
    on_end: Callable[[], None] | None = None

    def __init__(self, sockets: Sockets, writes: int | None) -> None:
        self._sockets = sockets
        self._writes_asked = writes
        self._rounds_asked = 0  # instead of writes, where it is not 0
        self.active = 1
        self.events_count = self.rounds_count = 0  # of a pass
        self.began = self.ended = 0  # monotonic ns
        self.used_before = self.used_after = usage()
        self.register_ns = 0
        self.left_count = (
            0  # bytes to be read from this round on, 0 after a good pass; negative: more came than written
        )
        self.flying_count = 0  # of them, those written and not yet read

    def set_level(self, active: int) -> None:
        """From now on this many are active at once."""
        raise NotImplementedError

    def set_rounds(self, active: int, rounds: int) -> None:
        """From now on this many are active at once, and a pass has so many whole rounds."""
        self._rounds_asked = rounds
        self.set_level(active)

    def prepare(self) -> None:
        """Before each pass; not timed."""
        self.register_ns = 0
        self.left_count = self.events_count

    def begin(self) -> None:
        """Take the time, then make the first writes of a pass."""
        self.used_before = usage()
        self.began = time.monotonic_ns()
        self._start()

    def deliver(self, number: int) -> None:
        """This descriptor is ready: read it; after the last one in flight, go on."""
        raise NotImplementedError

    def close(self) -> None:
        """What is open beside the watched sockets."""

    def is_whole(self) -> bool:
        """Whether each byte of the pass was read, once, and where it was written to."""
        return self.left_count == 0

    def calls_count(self) -> dict[str, int]:
        """System calls of a whole pass by name, those of the mechanism aside."""
        return {"read": self.events_count, "write": self.events_count}

    def _start(self) -> None:
        raise NotImplementedError

    def _finish(self) -> None:
        self.ended = time.monotonic_ns()
        self.used_after = usage()
        if self.on_end is not None:
            self.on_end()


class Chain(Work):
    """Tokens that travel along the cycle, all by one socket at a time."""

    def set_level(self, active: int) -> None:
        self.active = active
        self._writes = self._writes_asked or max(active, WRITES_LEAST)
        if self._rounds_asked:
            self._writes = (self._rounds_asked - 1) * active
        self.events_count = active + self._writes
        self.rounds_count = 1 + -(-self._writes // active)
        self._targets = self._sockets.targets

    def prepare(self) -> None:
        """Draw where the first token begins."""
        super().prepare()
        self._first = self._sockets.chance.randrange(len(self._sockets.entrances))
        self._starts = self._places_after(0)
        self._arrived: list[int] = []
        self._to_write = self._writes

    def _places_after(self, rounds: int) -> list[int]:
        """Where the tokens are to be written to after so many rounds."""
        entrances, active = self._sockets.entrances, self.active
        count, first = len(entrances), self._first + rounds
        return [entrances[(first + turn * count // active) % count] for turn in range(active)]

    def _start(self) -> None:
        self._send(self._starts)

    def deliver(self, number: int) -> None:
        self.flying_count -= len(os.read(number, READ_BYTES))
        self._arrived.append(self._targets[number])
        if self.flying_count <= 0:
            self._forward()

    def _forward(self) -> None:
        self.left_count -= self._sent_count - self.flying_count
        if self._to_write > 0:
            arrived, self._arrived = self._arrived[: self._to_write], []
            self._to_write -= len(arrived)
            self._send(arrived)
        else:
            self._finish()

    def _send(self, entrances: list[int]) -> None:
        self.flying_count = self._sent_count = len(entrances)
        for entrance in entrances:
            os.write(entrance, TOKEN)

    def is_whole(self) -> bool:
        """One that was once in a wrong place is in a wrong one at the end, as the cycle is a permutation."""
        last = set(self._arrived)
        expected_count = self._writes - self.active * (self.rounds_count - 2)
        is_complete = len(last) == len(self._arrived) == expected_count
        return super().is_whole() and is_complete and last <= set(self._places_after(self.rounds_count))


class Short(Work):
    """Connections that live for one byte, beside the idle ones."""

    def __init__(self, sockets: Sockets, writes: int | None) -> None:
        super().__init__(sockets, writes)
        self._pairs: list[tuple[socket.socket, socket.socket]] = []

    def set_level(self, active: int) -> None:
        """The order in which they are watched and written to is drawn here."""
        self.active = active
        self.rounds_count = self._rounds_asked or -(-(self._writes_asked or WRITES_LEAST) // active)
        self.events_count = self.rounds_count * active
        self._order = self._sockets.chance.sample(range(active), active)

    def prepare(self) -> None:
        """As long as nothing is astray, both sums of descriptor numbers grow by the same."""
        super().prepare()
        self._written_sum = self._read_sum = 0

    def _start(self) -> None:
        self._open()

    def deliver(self, number: int) -> None:
        self.flying_count -= len(os.read(number, READ_BYTES))
        self._read_sum += number
        if self.flying_count <= 0:
            self._close()

    def close(self) -> None:
        for watched, peer in self._pairs:
            watched.close()
            peer.close()
        self._pairs.clear()

    def is_whole(self) -> bool:
        return super().is_whole() and self._read_sum == self._written_sum

    def calls_count(self) -> dict[str, int]:
        """``socket.socketpair`` makes two socket objects, each of which asks for its name."""
        count = self.events_count
        return {**super().calls_count(), "socketpair": count, "getsockname": 2 * count, "close": 2 * count}

    def _open(self) -> None:
        pairs = self._pairs
        for _ in range(self.active):
            pairs.append(open_pair())
        self._numbers = [pairs[turn][0].fileno() for turn in self._order]
        entrances = [pairs[turn][1].fileno() for turn in self._order]
        before = time.monotonic_ns()
        self.watcher.add(self._numbers)
        self.register_ns += time.monotonic_ns() - before
        self.flying_count = self.active
        self._written_sum += sum(self._numbers)
        for entrance in entrances:
            os.write(entrance, TOKEN)

    def _close(self) -> None:
        self.left_count -= self.active - self.flying_count
        before = time.monotonic_ns()
        self.watcher.remove(self._numbers)
        self.register_ns += time.monotonic_ns() - before
        self._numbers = []
        self.close()
        if self.left_count > 0:
            self._open()
        else:
            self._finish()


WORKLOADS: Final[dict[str, type[Work]]] = {"chain": Chain, "short": Short}
