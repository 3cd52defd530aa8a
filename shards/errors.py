"""The one exception for what a user gave and can mend, and how what is said stays one line."""

import difflib
from collections.abc import Iterable
from typing import Self


class InputError(ValueError):
    """Say in one line what was given, what is allowed and how to mend it.

    Commands print it and leave with exit code 2; a library user sees an ordinary `ValueError`.
    """


class SampleError(InputError):
    """Say which stored sample cannot be used, and why: one line that names shard and sample.

    `sample_id`: its id within the split.
    """

    def __init__(self, sample_id: int, message: str) -> None:
        super().__init__(message)
        self.sample_id = sample_id

    def __reduce__(self) -> tuple[type[Self], tuple[int, str]]:
        return type(self), (self.sample_id, str(self))  # by default without the id: a pool waits for ever for its error


def reason_of(error: Exception) -> str:
    """Return why a file could not be used, without its name, which the message around it has."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def one_line(text: str) -> str:
    """Return text in which all that would break the line, steer a terminal or not encode, as in names, is escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def nearest(word: str, known: Iterable[str], *, at_least: float = 0.5) -> str:
    """Return `; did you mean X?`, X the known word most like this one; nothing if none is alike enough, from 0 to 1."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=at_least)
    return f"; did you mean {near[0]}?" if near else ""
