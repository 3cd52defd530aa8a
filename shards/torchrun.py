"""What torchrun tells the processes that it starts, in their environment."""

import os

from alexnet.shards.errors import InputError


def told(name: str) -> int | None:
    """Return a number that torchrun sets, such as RANK; None where it is not set, or empty."""
    text = os.environ.get(name)
    try:
        return int(text) if text else None
    except ValueError:
        raise InputError(
            f"{name}={text}: must be a number, as torchrun sets it; or unset WORLD_SIZE and RANK"
        ) from None
