"""Whether what a user gave is of the kind that it has to be; each refusal is one line."""

import operator
import reprlib
from collections.abc import Sequence
from numbers import Real
from typing import Any, TypeVar, get_args, get_type_hints

import numpy as np

from alexnet.shards.errors import InputError, one_line

T = TypeVar("T")


def whole(name: str, value: Any, least: int | None = None) -> int:
    """Return a whole number as Python's own: NumPy's overflow in a hash and do not go into JSON."""
    is_whole = isinstance(value, float) and value.is_integer()
    try:
        number = operator.index(int(value) if is_whole else value)
    except TypeError:
        raise refusal(name, value, "a whole number") from None
    if least is not None and number < least:
        raise InputError(f"{name}={number}: must be at least {least}")
    return number


def flag(name: str, value: Any) -> bool:
    """Return True or False, which any text would be: `"False"` as well."""
    if isinstance(value, int | np.generic) and value in (0, 1):
        return bool(value)
    raise refusal(name, value, "True or False")


def choice(name: str, value: Any, allowed: Sequence[T]) -> T:
    """Return what was chosen."""
    if value in allowed:
        return allowed[allowed.index(value)]
    raise refusal(name, value, f"one of {', '.join(map(str, allowed))}")


def check_kinds(settings: object) -> None:
    """Check that the fields of a dataclass hold what they are declared to: numbers, flags, text or a choice."""
    for name, kind in get_type_hints(type(settings)).items():
        value = getattr(settings, name)
        if allowed := get_args(kind):
            choice(name, value, allowed)
        elif kind is int:
            whole(name, value)
        elif kind is bool:
            flag(name, value)
        elif not isinstance(value, Real if kind is float else kind):
            raise refusal(name, value, "a number" if kind is float else "text")


def refusal(name: str, value: object, wanted: str) -> InputError:
    """Return the error that names what was given and what is wanted, to be raised."""
    return InputError(f"{name}={shown(value)}: must be {wanted}")


def shown(value: object) -> str:
    """Return anything as a short text of one line."""
    return one_line(reprlib.repr(value))
