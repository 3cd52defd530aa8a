"""Walk the samples of a shard as any tar reader would, trusting neither the index nor the writer.

Offsets and lengths come from the tar's own headers, read by the standard library one block at a time: what is no plain
member, such as a long name of gigabytes, is refused before it is read. Nothing is held but one sample.
"""

import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

from alexnet.shards.writer import member_header

_BLOCK = tarfile.BLOCKSIZE
_END_BYTES = 2 * _BLOCK  # a tar ends with two blocks of zeros
_CHUNK_BYTES = 1 << 20
_LABEL_BYTES = 16  # more than any label has: a longer one is cut, and is wrong either way


@dataclass(frozen=True, slots=True)
class TarSample:
    """Hold one pair of members: where KEY.jpg and KEY.cls have their data, and what KEY.cls holds."""

    key: str
    offset: int
    length: int
    label_offset: int
    label_length: int
    label: bytes


class TarFaultError(Exception):
    """Say why a tar cannot be walked any further."""


def walk_samples(tar: IO[bytes], on_oddity: Callable[[str], None]) -> Iterator[TarSample]:
    """Yield a tar's samples in order. Raises TarFaultError where it is not pairs of KEY.jpg and KEY.cls to its end.

    `on_oddity` is told of bytes that no reader looks at and that are not as the format has them.
    """
    after, end = "the start", 0
    jpeg: tarfile.TarInfo | None = None
    try:
        while (member := _member(tar, end, after, on_oddity)) is not None:
            _require_kind(member, jpeg, after)
            after, end = member.name, member.offset_data + member.size
            if jpeg is None:
                jpeg = member
                continue
            tar.seek(member.offset_data)
            label = tar.read(min(member.size, _LABEL_BYTES))
            key = jpeg.name.removesuffix(".jpg")
            yield TarSample(key, jpeg.offset_data, jpeg.size, member.offset_data, member.size, label)
            jpeg = None
    except (tarfile.TarError, OSError, ValueError) as error:
        raise TarFaultError(f"cannot be read as a tar after {after}: {error}") from None
    if jpeg is not None:
        raise TarFaultError(f"ends after {after}, without its label")
    _require_end(tar, end + -end % _BLOCK, after, on_oddity)


def _member(tar: IO[bytes], end: int, after: str, on_oddity: Callable[[str], None]) -> tarfile.TarInfo | None:
    """Read the header that follows the data that end at a byte; None where the tar ends."""
    padding = -end % _BLOCK
    tar.seek(end)
    between = tar.read(padding + _BLOCK)
    filling, block = between[:padding], between[padding:]
    if filling.strip(b"\0"):
        on_oddity(f"what fills the last block of {after} is not zeros")
    if not block.strip(b"\0"):
        return None
    member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    member.offset_data = end + padding + _BLOCK
    if not 0 <= member.size <= tar.seek(0, 2) - member.offset_data:
        raise TarFaultError(f"was cut short: {member.name!r} after {after} would have {member.size:,} bytes")
    if block != member_header(member.name.encode("utf-8", "surrogateescape"), member.size):
        on_oddity(f"the header of {member.name!r} is not as the format has it")
    return member


def _require_kind(member: tarfile.TarInfo, jpeg: tarfile.TarInfo | None, after: str) -> None:
    wanted = "a file KEY.jpg" if jpeg is None else f"the file {jpeg.name.removesuffix('.jpg')}.cls"
    fits = member.name.endswith(".jpg") if jpeg is None else wanted == f"the file {member.name}"
    if not (member.type == tarfile.REGTYPE and fits):
        raise TarFaultError(f"has {member.name!r} after {after}, where {wanted} must be")


def _require_end(tar: IO[bytes], end: int, after: str, on_oddity: Callable[[str], None]) -> None:
    """Require zeros to the end, which fill the last record."""
    tar.seek(end)
    zeros = 0
    while chunk := tar.read(_CHUNK_BYTES):
        if chunk.count(0) != len(chunk):
            raise TarFaultError(f"cannot be read as a tar after {after}: what follows byte {end:,} is no header")
        zeros += len(chunk)
    if zeros < _END_BYTES:
        raise TarFaultError(f"was cut short: has no end mark after {after}")
    if zeros != _END_BYTES + -(end + _END_BYTES) % tarfile.RECORDSIZE:
        on_oddity(f"has {zeros:,} bytes of zeros after {after}, which do not fill the last record")
