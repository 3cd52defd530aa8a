"""Options that click has no type for: several values with commas between, and numbers that are finite."""

import math
from collections.abc import Iterable
from typing import Any

import click

from alexnet.shards.errors import InputError, nearest


def words(option: str, text: str, known: Iterable[str]) -> tuple[str, ...]:
    """Return the names in a text, each once. Raises InputError for none, and for one that is not known."""
    allowed = tuple(known)
    found = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in found:
        if name not in allowed:
            raise InputError(f"{option} {name}: must be of {', '.join(allowed)}{nearest(name, allowed)}")
    if not found:
        raise InputError(f"{option} {text}: must name at least one of {', '.join(allowed)}")
    return found


def numbers(option: str, text: str) -> tuple[int, ...]:
    """Return the numbers in a text, each once. Raises InputError for what is none, and below 1."""
    try:
        found = tuple(dict.fromkeys(int(n) for n in text.split(",")))
    except ValueError:
        raise InputError(f"{option} {text}: must be numbers with commas between, such as 1,2") from None
    if min(found) < 1:
        raise InputError(f"{option} {text}: every number must be at least 1")
    return found


class Finite(click.FloatRange):
    """A range of numbers, without nan, which every comparison lets pass, and without infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is no number of this range: {self._describe_range()}.", param, ctx)
        return number


SECONDS = Finite(min=0.05, max=3600)
"""How long a row is measured in one round."""
