"""Tars that others wrote and a data set took over where they lie: their samples, by the DALI index files beside them.

Such a tar may hold more of a sample than an image and its label, in any order and under headers of any writer. Its
index file names all of it, as DALI's `wds2idx` would; here each entry is held against the header before its data.
"""

import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from tarfile import BLOCKSIZE
from typing import IO, NamedTuple

from alexnet.shards.files import open_regular
from alexnet.shards.tar import TarFaultError, TarSample

IMAGES = ("jpg", "jpeg")
_NAME_BYTES = 100
_LINE_BYTES = 1 << 16
_MOST_BYTES = 1 << 62
_LABEL_BYTES = 1 << 20  # with blanks and zeros around it


class Component(NamedTuple):
    """Say where one file of a sample lies in its tar; `extension`: of its name, behind the key and a dot."""

    extension: str
    offset: int
    length: int
    name: str


def sample_key(name: str) -> str:
    """Return the key of the sample that a file belongs to: its path up to the first dot of its own name."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]


def image_of(components: Iterable[Component]) -> Component:
    """Return the one JPEG, by its extension in any case. Raises ValueError if there is none, or there are more."""
    images = [one for one in components if one.extension.lower() in IMAGES]
    if len(images) != 1:
        raise ValueError(f"has {len(images)} files {' or '.join(IMAGES)}, and must have one")
    return images[0]


def label_of(components: Iterable[Component]) -> Component:
    """Return the one file with the label. Raises ValueError if there is none."""
    labels = [one for one in components if one.extension == "cls"]
    if len(labels) != 1:
        raise ValueError("has no label in a file .cls beside its image")
    return labels[0]


def check_header(block: bytes, component: Component) -> None:
    """Raise ValueError if the block before a file's data is not a plain header that holds all of its name."""
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.TarError as error:
        raise ValueError(f"no header lies before {component.name}: {error}") from None
    name = block[:_NAME_BYTES].split(b"\0", 1)[0]
    if name != os.fsencode(component.name) or (header.isreg(), header.size) != (True, component.length):
        raise ValueError(f"the header before {component.name} has not all of its name, or another kind or length")


def listed_samples(tar: IO[bytes], index: Path) -> Iterator[TarSample]:
    """Yield the samples that a tar's index file lists. Raises OSError, and TarFaultError where the tar has others."""
    with os.fdopen(open_regular(index), "rb") as lines:
        lines.readline(_LINE_BYTES)
        for number, line in enumerate(iter(lambda: lines.readline(_LINE_BYTES), b""), start=2):
            try:
                components = _components(line)
                for component in components:
                    tar.seek(component.offset - BLOCKSIZE)
                    check_header(tar.read(BLOCKSIZE), component)
                image, label = image_of(components), label_of(components)
            except ValueError as error:
                raise TarFaultError(f"does not hold what line {number} of {index.name} says: {error}") from None
            tar.seek(label.offset)
            text = tar.read(min(label.length, _LABEL_BYTES))
            yield TarSample(
                sample_key(image.name),
                image.extension,
                None,
                image.offset,
                image.length,
                label.offset,
                label.length,
                text,
                _number(text),
            )


def _number(text: bytes) -> int | None:
    """Return the number that a label is, as webdataset reads it; None if it is none."""
    try:
        return int(text)
    except ValueError:
        return None


def _components(line: bytes) -> list[Component]:
    fields = os.fsdecode(line).split()
    if not fields or len(fields) % 4:
        raise ValueError("a file is an extension, an offset, a length and a name")
    parts = (fields[at : at + 4] for at in range(0, len(fields), 4))
    components = [Component(extension, int(offset), int(length), name) for extension, offset, length, name in parts]
    if not all(BLOCKSIZE <= one.offset < _MOST_BYTES for one in components):
        raise ValueError("an offset lies before the first header, or beyond any tar")
    return components
