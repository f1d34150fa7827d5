"""The ways to wait, a class and a row each: how a program watches, and the loop that it writes around the wait."""

from __future__ import annotations

import asyncio
import fcntl
import functools
import importlib
import select
import selectors
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final

from c10k_probe.helper_in_python import unsupported
from c10k_probe.readiness_in_python.workloads import Work

FD_SETSIZE: Final = 1024  # sys/select.h of the C libraries of Linux; select.select raises ValueError from there on


class Mechanism(ABC):
    """One way to wait. Made before anything is watched; one in a process."""

    is_put_off = False  # whether the kernel knows of what is watched only after a further turn

    def __init__(self, work: Work) -> None:
        self.work = work
        self.flags = ""
        self.waits_count: int | None = 0  # of this pass, as the next
        self.controls_count = 0

    @staticmethod
    def room() -> int | None:
        """How many descriptors opened from now on can be watched; None: all of them."""
        return None

    @abstractmethod
    def add(self, numbers: list[int]) -> None:
        """Watch for reading."""

    @abstractmethod
    def remove(self, numbers: list[int]) -> None:
        """Watch no longer."""

    @abstractmethod
    def serve(self) -> None:
        """A pass: begin it, wait and deliver until it is over."""

    @abstractmethod
    def turn(self) -> None:
        """Deliver what is ready now, without waiting."""

    @abstractmethod
    def calls_count(self) -> dict[str, int] | None:
        """System calls of this pass by name, None where they are out of sight."""

    def close(self) -> None:  # noqa: B027  most hold nothing
        """Give back what the kernel holds."""


class Select(Mechanism):
    """``select.select`` on a list; where each stands in it is known, so that unwatching takes constant time."""

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self._numbers: list[int] = []
        self._places: dict[int, int] = {}

    @staticmethod
    def room() -> int:
        """Numbers below FD_SETSIZE that are not in use: new descriptors get the lowest (open(2))."""
        return sum(not _is_open(number) for number in range(FD_SETSIZE))

    def add(self, numbers: list[int]) -> None:
        for number in numbers:
            self._places[number] = len(self._numbers)
            self._numbers.append(number)

    def remove(self, numbers: list[int]) -> None:
        for number in numbers:
            place, last = self._places.pop(number), self._numbers.pop()
            if last != number:
                self._numbers[place] = last
                self._places[last] = place

    def serve(self) -> None:
        work, numbers, wait, waits = self.work, self._numbers, select.select, 0
        deliver = work.deliver
        work.begin()
        while work.left_count > 0:
            for number in wait(numbers, (), ())[0]:
                deliver(number)
            waits += 1
        self.waits_count = waits

    def turn(self) -> None:
        for number in select.select(self._numbers, (), (), 0)[0]:
            self.work.deliver(number)

    def calls_count(self) -> dict[str, int]:
        return {"select": self.waits_count or 0}


class Poll(Mechanism):
    """``select.poll``."""

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self._poller = self._make()

    def _make(self) -> Any:
        return select.poll()

    def _waiter(self) -> Callable[[], Sequence[tuple[int, int]]]:
        waiter: Callable[[], Sequence[tuple[int, int]]] = self._poller.poll
        return waiter

    def add(self, numbers: list[int]) -> None:
        register = self._poller.register
        for number in numbers:
            register(number, select.POLLIN)  # the same bit as EPOLLIN
        self.controls_count += len(numbers)

    def remove(self, numbers: list[int]) -> None:
        unregister = self._poller.unregister
        for number in numbers:
            unregister(number)
        self.controls_count += len(numbers)

    def serve(self) -> None:
        work, wait, waits = self.work, self._waiter(), 0
        self.controls_count = 0
        deliver = work.deliver
        work.begin()
        while work.left_count > 0:
            for number, _ in wait():
                deliver(number)
            waits += 1
        self.waits_count = waits

    def turn(self) -> None:
        for number, _ in self._poller.poll(0):
            self.work.deliver(number)

    def calls_count(self) -> dict[str, int]:
        return {"poll": self.waits_count or 0}


class Epoll(Poll):
    """``select.epoll``, asked for as many events at once as are active."""

    def _make(self) -> Any:
        return select.epoll()

    def _waiter(self) -> Callable[[], Sequence[tuple[int, int]]]:
        return functools.partial(self._poller.poll, None, self.work.active)

    def calls_count(self) -> dict[str, int]:
        return {"epoll_wait": self.waits_count or 0, "epoll_ctl": self.controls_count}

    def close(self) -> None:
        self._poller.close()


class Selectors(Mechanism):
    """``selectors.DefaultSelector``, which is an EpollSelector on Linux."""

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self._selector = selectors.DefaultSelector()
        self.flags = type(self._selector).__name__

    def add(self, numbers: list[int]) -> None:
        register, deliver = self._selector.register, self.work.deliver
        for number in numbers:
            register(number, selectors.EVENT_READ, deliver)
        self.controls_count += len(numbers)

    def remove(self, numbers: list[int]) -> None:
        unregister = self._selector.unregister
        for number in numbers:
            unregister(number)
        self.controls_count += len(numbers)

    def serve(self) -> None:
        work, wait, waits = self.work, self._selector.select, 0
        self.controls_count = 0
        work.begin()
        while work.left_count > 0:
            for key, _ in wait():
                key.data(key.fd)
            waits += 1
        self.waits_count = waits

    def turn(self) -> None:
        for key, _ in self._selector.select(0):
            key.data(key.fd)

    def calls_count(self) -> dict[str, int] | None:
        is_epoll = isinstance(self._selector, selectors.EpollSelector)
        return {"epoll_wait": self.waits_count or 0, "epoll_ctl": self.controls_count} if is_epoll else None

    def close(self) -> None:
        self._selector.close()


class Loop(Mechanism):
    """``add_reader`` on asyncio's default loop."""

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self.waits_count = None
        self._error: BaseException | None = None
        self._loop = self._make()
        self._loop.set_exception_handler(self._break)
        work.on_end = self._loop.stop

    def _make(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        self.flags = type(loop).__name__
        return loop

    def _break(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An error in a callback: the loop would only log it and go on."""
        self._error = context.get("exception") or RuntimeError(context["message"])
        loop.stop()

    def _run(self) -> None:
        self._loop.run_forever()
        if self._error is not None:
            raise self._error

    def add(self, numbers: list[int]) -> None:
        add, deliver = self._loop.add_reader, self.work.deliver
        for number in numbers:
            add(number, deliver, number)

    def remove(self, numbers: list[int]) -> None:
        remove = self._loop.remove_reader
        for number in numbers:
            remove(number)

    def serve(self) -> None:
        """Begins in the second turn: in its first, uvloop watches what it needs for itself."""
        self._loop.call_soon(self._loop.call_soon, self.work.begin)
        self._run()

    def turn(self) -> None:
        self._loop.stop()
        self._run()

    def calls_count(self) -> None:
        return None

    def close(self) -> None:
        self._loop.close()


class Uvloop(Loop):
    """The same on uvloop's loop, whose library tells the kernel of a new watch when it next polls (uv_poll_start)."""

    is_put_off = True

    def _make(self) -> asyncio.AbstractEventLoop:
        try:
            module = importlib.import_module("uvloop")
        except ImportError:
            unsupported("uvloop is not installed: pip install 'c10k-probe[python]'")
        self.flags = f"uvloop {module.__version__}"
        loop: asyncio.AbstractEventLoop = module.new_event_loop()
        return loop


def _is_open(number: int) -> bool:
    try:
        fcntl.fcntl(number, fcntl.F_GETFD)
    except OSError:
        return False
    return True


MECHANISMS: Final[dict[str, type[Mechanism]]] = {
    "select.select": Select,
    "select.poll": Poll,
    "select.epoll": Epoll,
    "selectors": Selectors,
    "asyncio": Loop,
    "uvloop": Uvloop,
}
