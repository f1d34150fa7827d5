"""A server that runs in a helper: what it says of itself, asked for and kept."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from c10k_probe import native

_FAREWELL_S: Final = 10.0  # every connection is closed, and every process of a server with many reaped


class HelperServer(native.Helpers):
    """A running server; see ``base.Server``. Raises ``native.HelperError`` when it does not come up."""

    def __init__(self, helper: str, model: str, arguments: Sequence[object], linking: str = "dynamic") -> None:
        super().__init__(_FAREWELL_S)
        self.name = model
        self.cpus, _ = native.split_cpus()
        ready = self._start(helper, ["--model", model, *arguments], self.cpus, "ready", linking)
        self._helper = self._helpers[0]
        self.port = int(ready["port"])
        self.backlog_count = int(ready["backlog"])
        self.session = self._helper.pid

    def status(self) -> dict[str, Any]:
        """The server's own counts; see ``base.Server``."""
        return self._helper.ask("status", "status")

    def walls(self) -> list[dict[str, Any]]:
        """The limits it ran into; see ``base.Server``."""
        return self._helper.walls()

    def wait_until_idle(self, timeout_s: float = 2.0) -> None:
        """Return when the server holds no connection any more; it hears of a reset a moment after the client."""
        deadline = time.monotonic() + timeout_s
        while self.status()["open_count"] and time.monotonic() < deadline:
            time.sleep(0.001)

    def death(self) -> str:
        """How the server's main process ended; empty while it lives."""
        return self._helper.death()
