"""What may go wrong with a helper; each text is one line for the user."""

from __future__ import annotations

from typing import Any


class HelperError(Exception):
    """A helper could not do its work; the text is one line for the user."""


class HelperMissing(HelperError):
    """The executable is not there, or cannot be started."""


class HelperUnsupported(HelperError):
    """The helper said that this machine cannot do it (exit 77); ``message`` is what it said, if anything."""

    def __init__(self, text: str, message: dict[str, Any] | None = None) -> None:
        super().__init__(text)
        self.message = message or {}


class HelperCallFailed(HelperError):
    """A system call in the helper failed; ``message`` holds call, arguments and errno."""

    def __init__(self, text: str, message: dict[str, Any]) -> None:
        super().__init__(text)
        self.message = message

    @property
    def call(self) -> str:
        """The system call's name."""
        return str(self.message.get("call", ""))

    @property
    def errno_name(self) -> str:
        """The error's symbolic name, such as EMFILE."""
        return str(self.message.get("name", ""))


def shorten(line: bytes, *, quote: bool = True) -> str:
    """What a helper printed, short enough for one line."""
    text = line.decode(errors="backslashreplace")[:120]
    return repr(text) if quote else text.strip()
