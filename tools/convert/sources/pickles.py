"""Read CIFAR-10's pickles without giving them the power that pickles have.

A pickle can call any function there is. These files need five names: NumPy's array and dtype, what rebuilds them, and
the encoding of bytes. Each is answered by a harmless stand-in from this file; any other name is refused, so that a
hostile file can build dictionaries, lists, numbers and strings, and nothing else.
"""

import io
import pickle
import pickletools
from typing import Any

import numpy as np
import numpy.typing as npt

_MOST_STEPS = 1_000_000
"""Of a pickle's program: a batch of CIFAR-10 takes 40,000, or 100,000 as newer Pythons write it; each can make an empty
dictionary, or double what is remembered."""


class _DType:
    """Stand for numpy.dtype: note which type is wanted."""

    def __init__(self, code: object, *_: object) -> None:
        self.code = code

    def __setstate__(self, _: object) -> None:
        """Take byte order and the like, which bytes do not have."""


class _Array:
    """Stand for a NumPy array that is being rebuilt: note its shape and bytes."""

    def __init__(self, *_: object) -> None:
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state

    def to_numpy(self) -> npt.NDArray[np.uint8]:
        """Return the array. Raises UnpicklingError if it is not one of plain bytes in C order."""
        match self.state:
            case (int(), (int(rows), int(columns)), _DType(code="u1" | b"u1"), False | 0, bytes(data)) if (
                rows >= 0 and columns >= 0 and rows * columns == len(data)
            ):
                return np.frombuffer(data, np.uint8).reshape(rows, columns)
        raise pickle.UnpicklingError("an array that is not of rows of bytes")


class _Latin1:
    """Stand for _codecs.encode, by which newer Pythons write bytes for older ones; `left`: characters of a pickle."""

    left = 0

    def __new__(cls, text: object, encoding: object) -> bytes:  # type: ignore[misc]
        """Return the bytes themselves; an instance is never made."""
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r}")
        _Latin1.left -= len(text)
        if _Latin1.left < 0:
            raise pickle.UnpicklingError("one text is made bytes again and again")
        return text.encode("latin1")

    def __setstate__(self, _: object) -> None:
        """Be here, so that a pickle cannot set attributes of the class."""


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): None,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _Latin1,
}


_REMEMBER = ("PUT", "BINPUT", "LONG_BINPUT")  # under a number, as in a list


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"asks for {module}.{name}")
        return _ALLOWED[module, name]


def load_plain(data: bytes) -> object:
    """Return what a pickle holds: dictionaries, lists, numbers, strings (as bytes) and arrays of bytes.

    Raises pickle.UnpicklingError if it asks for anything else or is damaged.
    """
    try:
        _check_steps(data)
        _Latin1.left = len(data)
        return _plain(_Unpickler(io.BytesIO(data), encoding="bytes").load())
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # a damaged pickle raises whatever it trips over
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from None


def _check_steps(data: bytes) -> None:
    """Raise UnpicklingError for a pickle whose program takes much more memory than it has bytes."""
    for number, (step, argument, _) in enumerate(pickletools.genops(data)):
        if number > _MOST_STEPS or (step.name in _REMEMBER and int(argument or 0) > _MOST_STEPS):
            raise pickle.UnpicklingError(f"more than {_MOST_STEPS:,} steps")


def _plain(value: object) -> object:
    """Turn the arrays of a dictionary's values into NumPy's, and its keys into text."""
    if isinstance(value, dict):
        return {
            key.decode("latin1") if isinstance(key, bytes) else key: item.to_numpy()
            if isinstance(item, _Array)
            else item
            for key, item in value.items()
        }
    return value
