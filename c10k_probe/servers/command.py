"""A server of the user's own: any command that stays in the foreground and speaks HTTP on the port that it is given.

It runs as the user that we are and in the present folder, as if typed there; the rest is as with every real server. It
tells no counts: what is open is counted by the kernel, and requests by nobody.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping
from typing import Final

from c10k_probe import native
from c10k_probe.limits import Needs
from c10k_probe.servers.guarded import Recipe
from c10k_probe.servers.real import Place, RealModel

PORT: Final = "{port}"


def command_model(text: str) -> RealModel:
    """The model of a command in which {port} stands for the port. Raises ``ValueError`` where it does not."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"{text!r} cannot be read: {str(error).lower()}") from None
    if PORT not in text:
        raise ValueError(f"{text!r} has no {PORT}; write it where the server takes its port")

    def recipe(_: Mapping[str, str], place: Place) -> Recipe:
        command = tuple(word.replace(PORT, str(place.port)) for word in words)
        return Recipe(command, folder=os.getcwd(), is_own_user=True)  # noqa: PTH109

    def find() -> Mapping[str, str]:
        if shutil.which(words[0]) is None:
            raise native.HelperUnsupported(f"there is no program {words[0]!r}")
        return {}

    return RealModel(
        name="command",
        summary="a server of your own",
        find=find,
        recipe=recipe,
        body=None,
        per_connection=Needs(descriptors_count=1, system_descriptors_count=1),
        fixed=Needs(descriptors_count=64, system_descriptors_count=64),
    )
