"""What the user may have meant."""

import difflib
from collections.abc import Iterable

LIKELY = 0.5


def nearest(word: str, known: Iterable[str], *, at_least: float = LIKELY) -> str:
    """Return `; did you mean X?`, X the known word most like this one, or nothing if none is at least so much like it.

    Likeness runs from 0 to 1.
    """
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=at_least)
    return f"; did you mean {near[0]}?" if near else ""
