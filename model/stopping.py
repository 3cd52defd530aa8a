"""A run that is asked to stop: how it is asked, and how whoever is at work says that it did."""

from collections.abc import Callable

Stop = Callable[[], bool]
"""Say whether to stop; asked often, so it must be cheap."""


class StopRequestedError(Exception):
    """Say that work was left because it was asked to be, at a point from which a checkpoint goes on."""


def nobody_asks() -> bool:
    """Go on."""
    return False
