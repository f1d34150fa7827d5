"""The legend of an image: above the picture, where it hides nothing, in as many columns as its names leave room for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LARGE, _SMALL = 10, 8  # points
_LINE_LETTERS: Final = 850  # across the picture, times their points
_HANDLE_LETTERS: Final = 8  # that a sample takes
_FREE_ROWS: Final = 3  # that a picture of the usual height has room for
_ROW_INCHES: Final = 0.19


@dataclass(frozen=True)
class Legend:
    """How names are set."""

    names: Sequence[str]
    points: int
    columns: int

    @classmethod
    def of(cls, names: Sequence[str]) -> Legend:
        """In small letters when large ones would take many rows."""
        large = cls._set(names, _LARGE)
        return large if large.rows_count <= _FREE_ROWS else cls._set(names, _SMALL)

    @classmethod
    def _set(cls, names: Sequence[str], points: int) -> Legend:
        fitting = _LINE_LETTERS // points // (max(map(len, names)) + _HANDLE_LETTERS)
        return cls(names, points, min(max(1, fitting), len(names)))

    @property
    def rows_count(self) -> int:
        """How many rows the names take."""
        return math.ceil(len(self.names) / self.columns)

    @property
    def extra_inches(self) -> float:
        """How much higher the picture must be."""
        return max(0, self.rows_count - _FREE_ROWS) * _ROW_INCHES

    def write(self, axes: Axes, handles: Sequence[Any], handlelength: float) -> None:
        """Draw it; one handle for each name."""
        axes.legend(
            handles,
            self.names,
            loc="lower left",
            bbox_to_anchor=(0.0, 1.0),
            ncols=self.columns,
            fontsize=self.points,
            frameon=False,
            handlelength=handlelength,
        )
