"""How many connections the limits of a machine allow a model, with its clients on the same machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from c10k_probe import limits
from c10k_probe.limits import Needs, Prediction, Wall
from c10k_probe.servers.base import ServerModel, ServerOptions
from c10k_probe.servers.real import RealModel
from c10k_probe.servers.reference import CLIENT_END

POOL: Final = "workers"


def predict(
    model: ServerModel, now: Sequence[Wall], options: ServerOptions | None = None, more: Needs | None = None
) -> Prediction:
    """The highest count for which neither a limit nor the model's own pool of workers is exceeded, and what binds.

    ``more``: what each connection takes besides, as by what lies in it. A model that takes a capacity spreads its
    descriptors over as many tables as that needs.
    """
    each = model.per_connection.plus(CLIENT_END).plus(more or Needs())
    if "capacity" in model.takes and not isinstance(model, RealModel):  # whose capacity is a setting
        each = each.plus(Needs(descriptors_count=-each.descriptors_count))
    found = limits.predict(each, model.fixed, now)
    room = model.room_count(options or ServerOptions())
    if room is not None and (found.count is None or room < found.count):
        return Prediction(room, pool_wall(room))
    return found


POOL_IS_FULL = ("worker", "EAGAIN")  # call and name by which a C model tells that its workers are all taken


def pool_wall(count: int) -> Wall:
    """The wall of a model whose workers serve one connection at a time."""
    return Wall(POOL, "administrative", count, None, "workers", "process", "the model's pool", "--workers N")
