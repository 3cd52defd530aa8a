"""Sources in a few words: files by their paths, where a mapping is packed into a tar; and what was read of them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import SPLITS, Split
from alexnet.tools.convert.listing import Source
from alexnet.tools.convert.sources import find_layout, open_source
from alexnet.tools.synth.archives import tar_of
from tests.conftest import encode_picture

PNG = encode_picture(0, 8, 8, "PNG")
CLASSES = ("cats", "dogs")
WORDS = {"n00000003": "crane", "n00000001": "crane", "n00000002": "maillot, tank suit"}
TRAIN = {
    wnid: {f"{wnid}_{i}.JPEG": f"{wnid} {i}".encode() * (i + 1) for i in (1, 10, 2)}
    for wnid in ("n00000002", "n00000003", "n00000001")
}
VAL = [(f"n0000000{k}", f"val {k} {i}".encode()) for i, k in enumerate((3, 1, 1, 2, 3))]
"""ImageNet in small: words, training files by class, validation images with their classes; bytes are no images."""


def write(root: Path, files: Mapping[str, Any]) -> Path:
    """Write files by path; what is a mapping itself is packed into a tar of that name."""
    root.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(packed(data))
    return root


def packed(data: Any) -> bytes:
    return data if isinstance(data, bytes) else tar_of({name: packed(below) for name, below in data.items()})


def folders(*parents: str, classes: Iterable[str] = CLASSES) -> dict[str, bytes]:
    """Return two images a class below each parent; their names say the parent's name and the class."""
    names = [(parent, Path(parent).name, name, i) for parent in parents for name in classes for i in range(2)]
    return {f"{parent}/{name}/{last}+{name}+{i}.png": PNG for parent, last, name, i in names}


def parents(root: Path, train: tuple[str, ...] = (), val: tuple[str, ...] = ()) -> tuple[dict[str, int], ...]:
    """Read a source; return how many images of which parents are in training and validation.

    Each must have the class that its name says.
    """
    source = open_source(root, layout=find_layout(root, train, val))
    counts = []
    for split in SPLITS:
        names = [(*Path(m.name).name.split("+"), source.classes[m.label].wnid) for m in source.members[split]]
        assert all(said == wnid for _, said, _, wnid in names)
        counts.append(dict(Counter(parent for parent, *_ in names)))
    return tuple(counts)


def class_names(source: Source) -> list[str]:
    return [record.wnid for record in source.classes]


def bytes_of(source: Source, split: Split) -> list[tuple[str, str, bytes]]:
    """Return class, name and bytes of a split's images, read as a worker does, in order."""
    return [
        (source.classes[m.label].wnid, m.name, (source.root / m.file).read_bytes()[m.offset : m.offset + m.length])
        for m in source.members[split]
    ]


def refused(root: Path, said: str) -> str:
    """See a source refused in one line that says so; return the line."""
    with pytest.raises(InputError, match=said) as refusal:
        open_source(root)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)
