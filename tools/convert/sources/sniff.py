"""Tell images from other files by their first bytes, so that a wrong folder is not taken for a data set.

A few files are looked at, never all: whether an image is whole, only decoding can tell.
"""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import IO, TypeVar

from PIL import Image

from alexnet.shards.errors import InputError
from alexnet.tools.convert.listing import Source
from alexnet.tools.convert.opening import FORMATS, MAX_BYTES, MissingDecoderError, UndecodableError, kind_of, opened

T = TypeVar("T")

LOOKS = 32
"""How many files or classes are looked at before a folder is taken for something else."""
_HEAD_BYTES = 1 << 20


def is_image(file: IO[bytes]) -> bool:
    """Say whether what begins at a file's position is a picture, be it one that Pillow cannot decode here."""
    head = file.read(_HEAD_BYTES)
    if kind_of(head) is not None:
        return True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(head), formats=FORMATS):
                return True
    except Exception:  # Pillow's plugins raise OSError, SyntaxError, struct.error, ValueError and more
        return False


def refuse_undecodable(source: Source) -> None:
    """Raise InputError if a few pictures of a source all need a decoder that is not here, naming it and the mend."""
    why = ""
    for data in _some(source) if source.encoding == "file" else ():
        try:
            with opened(data):
                return
        except MissingDecoderError as error:
            why = str(error)
        except UndecodableError:
            return
    if why:
        raise InputError(f"{source.root}: none of its pictures can be decoded; {why}")


def _some(source: Source) -> Iterator[bytes]:
    """Yield the files of a few members of a source."""
    for members in source.members.values():
        for row in spread(range(len(members))):
            member = members[row]
            with suppress(OSError), (source.root / member.file).open("rb") as file:  # which converting will tell
                file.seek(member.offset)
                yield file.read(min(member.length, MAX_BYTES))


def spread(names: Sequence[T]) -> Sequence[T]:
    """Choose a few names, or the like, evenly."""
    return names[:: max(1, -(-len(names) // LOOKS))]
