"""Walk the samples of a shard as any tar reader would, trusting neither the index nor the writer.

Offsets and lengths come from the tar's own headers, read by the standard library. Nothing is held but one sample.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

_END_BYTES = 1024  # a tar ends with two blocks of zeros
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


def walk_samples(tar: IO[bytes]) -> Iterator[TarSample]:
    """Yield a tar's samples in order. Raises TarFaultError where it is not pairs of KEY.jpg and KEY.cls to its end."""
    after = "the start"
    jpeg: tarfile.TarInfo | None = None
    try:
        with tarfile.open(fileobj=tar, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # tarfile keeps every header it has seen
                _require_kind(member, jpeg, after)
                after = member.name
                if jpeg is None:
                    jpeg = member
                    continue
                tar.seek(member.offset_data)
                label = tar.read(min(member.size, _LABEL_BYTES))
                key = jpeg.name.removesuffix(".jpg")
                yield TarSample(key, jpeg.offset_data, jpeg.size, member.offset_data, member.size, label)
                jpeg = None
            end = archive.offset
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise TarFaultError(f"cannot be read as a tar after {after}: {error}") from None
    if jpeg is not None:
        raise TarFaultError(f"ends after {after}, without its label")
    _require_end(tar, end, after)


def _require_kind(member: tarfile.TarInfo, jpeg: tarfile.TarInfo | None, after: str) -> None:
    wanted = "a file KEY.jpg" if jpeg is None else f"the file {jpeg.name.removesuffix('.jpg')}.cls"
    fits = member.name.endswith(".jpg") if jpeg is None else wanted == f"the file {member.name}"
    if not (member.isreg() and fits):
        raise TarFaultError(f"has {member.name!r} after {after}, where {wanted} must be")


def _require_end(tar: IO[bytes], end: int, after: str) -> None:
    """Require zeros to the end: tarfile takes a damaged header, and whatever follows it, for the end."""
    tar.seek(end)
    zeros = 0
    while chunk := tar.read(_CHUNK_BYTES):
        if chunk.count(0) != len(chunk):
            raise TarFaultError(f"cannot be read as a tar after {after}: what follows byte {end:,} is no header")
        zeros += len(chunk)
    if zeros < _END_BYTES:
        raise TarFaultError(f"was cut short: has no end mark after {after}")
