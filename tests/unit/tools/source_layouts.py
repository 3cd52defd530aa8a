"""Sources in a few words: files by their paths, where a mapping is packed into a tar; and what was read of them."""

import re
import tracemalloc
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import SPLITS, Split
from alexnet.tools.convert.listing import Source
from alexnet.tools.convert.source_files import SourceFiles
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


def sketched(text: str) -> dict[str, Any]:
    """Return the files that words say, a path each: `{a,b}` is either, and `x.tar:a/1.jpg` lies in a tar.

    `a/` is a folder with two images, `a.tar:+` a tar with two; their names say its name and that of what it lies in.
    `*` is the folders of two classes, `·` a blank, `⏎` a line break. What is not called an image is a small file.
    """
    files: dict[str, Any] = {}
    for word in text.split():
        for path in _either(word.replace("*", "{cats,dogs}/").replace("·", " ").replace("⏎", "\n")):
            *tars, name = path.split(":")
            inside = files
            for tar in tars:
                inside = inside.setdefault(tar, {})
            if name.endswith(("/", "+")):
                around = ["", *(part.removesuffix(".tar") for part in re.split("[/:]", path) if part.strip(".+"))]
                inside |= {f"{name.strip('+')}{'+'.join(around[-2:])}+{i}.png": PNG for i in range(2)}
            elif name:
                inside[name] = PNG if name.endswith((".jpg", ".png", ".JPEG")) else b"\x1f\x8b" * name.endswith("gz")
    return files


def _either(word: str) -> list[str]:
    found = re.search(r"\{([^{}]*)\}", word)
    if not found:
        return [word]
    return [path for part in found[1].split(",") for path in _either(word.replace(found[0], part, 1))]


def folders(*parents: str, classes: Iterable[str] = CLASSES) -> dict[str, bytes]:
    """Return two images a class below each parent; their names say the parent's name and the class."""
    names = [(parent, Path(parent).name, name, i) for parent in parents for name in classes for i in range(2)]
    return {f"{parent}/{name}/{last}+{name}+{i}.png": PNG for parent, last, name, i in names}


def parents(root: Path, train: tuple[str, ...] = (), val: tuple[str, ...] = ()) -> tuple[dict[str, int], ...]:
    """Read a source; return how many images of which parents are in training and validation.

    Each must have the class that its name says.
    """
    source = open_source(root, layout=find_layout(root, train, val) if train else None)
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
    with SourceFiles(source.root, opener=source.opener) as files:
        return [(source.classes[m.label].wnid, m.name, files.read(m)) for m in source.members[split]]


def table(text: str, cells: int = 2) -> list[list[str]]:
    """Return the cells of the lines of a table, which stand between bars with blanks around; empty at the end."""
    lines = [re.split(r"\s\|(?=\s|$)", line) for line in text.strip("\n").splitlines()]
    return [[cell.strip() for cell in (*line, *[""] * (cells - len(line)))] for line in lines]


def refused(root: Path, said: str) -> str:
    """See a source refused in one line that says so; return the line."""
    with pytest.raises(InputError, match=said) as refusal:
        open_source(root)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@contextmanager
def at_most(more: int) -> Iterator[None]:
    """See that Python allocates no more bytes at a time."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < more
