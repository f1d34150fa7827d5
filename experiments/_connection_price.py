"""What the kernel keeps for one end of a connection, calibrated on connections whose ends are both the client's."""

from __future__ import annotations

from c10k_probe import stats
from c10k_probe.load import Holder
from c10k_probe.observe import memory

CALIBRATION_PAIRS = (0, 400, 800, 1200, 1600, 2000)
CALIBRATIONS = 3
GOOD_PRICE = 0.05


def price_of_one_end(holder: Holder) -> stats.Interval | None:
    """The narrowest of some calibrations; the first that is narrow enough ends the search."""
    best: stats.Interval | None = None
    for _ in range(CALIBRATIONS):
        price = _calibrate(holder)
        width = price.relative_half_width if price else None
        if best is None or (width is not None and width < (best.relative_half_width or float("inf"))):
            best = price
        if width is not None and width <= GOOD_PRICE:
            break
    return best


def _calibrate(holder: Holder) -> stats.Interval | None:
    """Slab bytes of one end of a connection: half the slope over connections whose ends are both the client's.

    None where no pair could be opened or slab cannot be read.
    """
    points: list[tuple[int, int]] = []
    first = memory.read_kernel_memory()
    for count in CALIBRATION_PAIRS:
        held = holder.pair(count) if count else 0
        grown = memory.slab_growth(first, memory.read_kernel_memory()).bytes
        if grown is None:
            break
        points.append((held, grown))
        if held < count:
            break
    holder.unpair()  # also those of a calibration that failed: what they take is no part of the ramp
    memory.settle()
    ends = [(2 * count, grown) for count, grown in points]
    return stats.slope([count for count, _ in ends], [grown for _, grown in ends])
