"""Options that take several values with commas between."""

from collections.abc import Iterable

from alexnet.model.spelling import nearest
from alexnet.shards.errors import InputError


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
