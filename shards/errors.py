"""The one exception for what a user gave and can mend, and how what is said stays one line."""

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
