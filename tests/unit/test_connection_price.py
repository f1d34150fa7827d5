"""The price of one end: the narrowest of some calibrations, and what is done where one fails."""

from __future__ import annotations

from typing import Any

import pytest
from c10k_probe.experiments import _connection_price as price_module
from c10k_probe.experiments._connection_price import CALIBRATIONS, price_of_one_end

from c10k_probe.load.holder import Failure, Paired
from c10k_probe.observe import memory

EACH = 2_300  # bytes of slab of one end


class Pairs:
    """A client that opens pairs, but not in its first ``failing`` calibrations; slab that grows with them."""

    def __init__(self, failing: int) -> None:
        self.failing, self.open_count, self.unpaired = failing, 0, 0

    def pair(self, count: int) -> Paired:
        if self.unpaired < self.failing:
            return Paired(0, Failure("socket", "EMFILE", "Too many open files", 0))
        self.open_count = count
        return Paired(count, None)

    def unpair(self) -> None:
        self.open_count = 0
        self.unpaired += 1

    def read(self) -> memory.KernelMemory:
        return memory.KernelMemory(10**7 + 2 * EACH * self.open_count, *[None] * 7)


@pytest.mark.parametrize("failing", [0, 1, CALIBRATIONS])
def test_a_calibration_that_fails_is_made_again_and_leaves_no_pair(
    monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    pairs: Any = Pairs(failing)
    monkeypatch.setattr(price_module.memory, "read_kernel_memory", pairs.read)
    monkeypatch.setattr(price_module.memory, "settle", lambda: None)
    price = price_of_one_end(pairs)
    assert (price.end_bytes.middle if price.end_bytes else None) == (None if failing == CALIBRATIONS else EACH)
    why = "the client could not open its own pairs: socket: Too many open files at 0"
    assert price.reason == (why if failing == CALIBRATIONS else "")
    assert pairs.unpaired == min(failing + 1, CALIBRATIONS)
    assert pairs.open_count == 0
