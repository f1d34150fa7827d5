"""Words around a picture in a terminal, wrapped to its width."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Final

SMALLEST_WIDTH: Final = 40
_GAP: Final = "   "


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most ``width`` columns."""
    return textwrap.wrap(text, width, break_on_hyphens=False) if text else []


def flow(entries: Iterable[str], width: int) -> list[str]:
    """Entries side by side; one is not broken if it fits a line."""
    joined = _GAP.join(entry.replace(" ", "\0") for entry in entries)
    return [line.replace("\0", " ") for line in wrap(joined, width)]
