"""What torchrun tells the processes that it starts, in their environment."""

import os

from alexnet.shards.errors import InputError


def told(name: str) -> int | None:
    """Return a number that torchrun sets, such as RANK; None where it is not set."""
    text, least = os.environ.get(name), 1 if name.endswith("SIZE") else 0
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or int(text) < least:
        raise InputError(f"{name}={text}: must be a number from {least}, as torchrun sets it; or unset it")
    return int(text)
