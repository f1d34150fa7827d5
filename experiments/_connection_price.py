"""What the kernel keeps for one end of a connection, calibrated on connections whose ends are both the client's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from c10k_probe import stats
from c10k_probe.load import Holder
from c10k_probe.load.holder import Paired
from c10k_probe.observe import memory

CALIBRATION_PAIRS = (0, 400, 800, 1200, 1600, 2000)
CALIBRATIONS = 3
GOOD_PRICE = 0.05
NO_PAIR: Final = Paired(0, None)


@dataclass(frozen=True)
class Price:
    """Slab bytes of one end; without it, why there is none."""

    end_bytes: stats.Interval | None
    reason: str = ""


def price_of_one_end(holder: Holder) -> Price:
    """The narrowest of some calibrations; the first that is narrow enough ends the search."""
    best: stats.Interval | None = None
    reason = ""
    for _ in range(CALIBRATIONS):
        price, why = _calibrate(holder)
        reason = why or reason
        width = price.relative_half_width if price else None
        if best is None or (width is not None and width < (best.relative_half_width or float("inf"))):
            best = price
        if width is not None and width <= GOOD_PRICE:
            break
    return Price(best, "" if best else reason)


def _calibrate(holder: Holder) -> tuple[stats.Interval | None, str]:
    """Slab bytes of one end of a connection: half the slope over connections whose ends are both the client's.

    None where no pair could be opened or slab cannot be read, and then why; also why there were fewer pairs.
    """
    reason = ""
    points: list[tuple[int, int]] = []
    first = memory.read_kernel_memory()
    for count in CALIBRATION_PAIRS:
        paired = holder.pair(count) if count else NO_PAIR
        grown = memory.slab_growth(first, memory.read_kernel_memory()).bytes
        if grown is None:
            reason = "slab cannot be read"
            break
        points.append((paired.pairs_count, grown))
        if paired.failure is not None:
            failed = paired.failure
            reason = f"the client could not open its own pairs: {failed.call}: {failed.message} at {failed.at_count:,}"
            break
    holder.unpair()  # also those of a calibration that failed: what they take is no part of the ramp
    memory.settle()
    ends = [(2 * count, grown) for count, grown in points]
    return stats.slope([count for count, _ in ends], [grown for _, grown in ends]), reason
