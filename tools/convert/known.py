"""What is known of ILSVRC-2012 as published, to tell whether a source is it, and whole, and rightly labelled.

Labels are refused when they contradict the published ones. Everything else (sizes, checksums, counts) becomes a note
for the user, with the explanation where there is one: subsets and repaired copies are legitimate.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from alexnet.shards.errors import InputError
from alexnet.shards.index import OFFICIAL_VAL_LABELS, is_official
from alexnet.shards.manifest import Split
from alexnet.tools.convert.listing import Listing

TRAIN_TAR = "ILSVRC2012_img_train.tar"
VAL_TAR = "ILSVRC2012_img_val.tar"
DEVKIT_TAR = "ILSVRC2012_devkit_t12.tar.gz"
DOGS_TAR = "ILSVRC2012_img_train_t3.tar"

CLASSES, TRAIN_IMAGES, VAL_IMAGES = 1000, 1_281_167, 50_000
_CHUNK_BYTES = 1 << 20
_CLASS_IMAGES = (732, 1300)  # least and most training images of a class
_FIRST_IDS = (490, 361, 171, 822)  # of ILSVRC2012_val_00000001 to 4
# 22 CMYK files and a PNG: what other pipelines cannot read, and copies made with them lack.
_ODD_FILES = (
    "n01739381_1309",
    "n02077923_14822",
    "n02447366_23489",
    "n02492035_15739",
    "n02747177_10752",
    "n03018349_4028",
    "n03062245_4620",
    "n03347037_9675",
    "n03467068_12171",
    "n03529860_11437",
    "n03544143_17228",
    "n03633091_5218",
    "n03710637_5125",
    "n03961711_5286",
    "n04033995_2932",
    "n04258138_17003",
    "n04264628_27969",
    "n04336792_7448",
    "n04371774_5854",
    "n04596742_4225",
    "n07583066_647",
    "n13037406_4650",
    "n02105855_2933",
)


_BYTES = {TRAIN_TAR: 147_897_477_120, VAL_TAR: 6_744_924_160}  # as published; the others' are not on record
_MD5 = {
    TRAIN_TAR: "1d675b47d978889d74fa0da5fadfb00e",
    VAL_TAR: "29b22e2961454d5413ddabcf34fc5622",
    DEVKIT_TAR: "fa75699e90414af021442c21a62c3abf",
    DOGS_TAR: "ccaf1013018ac1037801578038d370da",
}


def check_labels(
    where: Path, wnids: Sequence[str], labels: Mapping[int, int], ids: Mapping[int, int] | None = None
) -> None:
    """Refuse labels that contradict the published ones, where the classes are the official 1,000.

    `labels` and, of a devkit, `ids`: by number of the validation image, 1 for ILSVRC2012_val_00000001. A list of 1,000
    classes that labels 50,000 images is taken for the official one even where a WNID differs: it may be damaged.
    """
    if not (is_official(wnids) or (len(wnids) == CLASSES and len(labels) == VAL_IMAGES)):
        return
    for found, known, what in ((ids or {}, _FIRST_IDS, "ILSVRC2012_ID"), (labels, OFFICIAL_VAL_LABELS, "label")):
        for number, right in enumerate(known, start=1):
            if found.get(number, right) != right:
                raise InputError(
                    f"{where}: gives ILSVRC2012_val_{number:08d} the {what} {found[number]}, where ILSVRC-2012 has "
                    f"{right}; its labels are wrong, so nothing was written; put an original copy in its place"
                )


def check_sorted_labels(where: Path, wnids: Sequence[str], val: Listing) -> None:
    """Refuse a validation set that was sorted into the wrong class folders (see `check_labels`)."""
    if is_official(wnids):
        rows = {number: val.find(f"ILSVRC2012_val_{number:08d}.") for number in range(1, len(OFFICIAL_VAL_LABELS) + 1)}
        check_labels(where, wnids, {number: int(val.labels[row]) for number, row in rows.items() if row is not None})


def size_notes(root: Path) -> list[str]:
    """Say which official archives of a folder have not the size of the published ones; one note, or none."""
    different = []
    for name, published in _BYTES.items():
        path = root / name
        if path.is_file() and path.stat().st_size != published:
            different.append(f"{name} has {path.stat().st_size:,} bytes, published {published:,}")
    return [f"not the published archives: {'; '.join(different)}"] if different else []


def md5_notes(archives: Iterable[Path], on_bytes: Callable[[int], None] = lambda _: None) -> tuple[str, ...]:
    """Read official archives whole and say of each whether it is the published one, by md5."""
    notes = []
    for path in archives:
        md5 = hashlib.md5(usedforsecurity=False)
        with path.open("rb", buffering=0) as file:
            while data := file.read(_CHUNK_BYTES):
                md5.update(data)
                on_bytes(len(data))
        published = _MD5[path.name]
        same = md5.hexdigest() == published
        notes.append(f"{path.name}: md5 {md5.hexdigest()}, {'as published' if same else f'published {published}'}")
    return tuple(notes)


def archives_in(root: Path) -> tuple[Path, ...]:
    """Return the official archives that a folder has."""
    return tuple(root / name for name in _MD5 if (root / name).is_file())


def count_notes(wnids: Sequence[str], train: Listing, val: Listing) -> tuple[str, ...]:
    """Explain counts that differ from ILSVRC-2012's where the classes are its own, and name classes without images."""
    images = np.bincount(train.labels, minlength=len(wnids))
    without = [wnid for wnid, n in zip(wnids, images, strict=True) if n == 0]
    notes = [naming("class has", "classes have", " no training images", without)]
    if is_official(wnids):
        if len(train) != TRAIN_IMAGES:
            notes.append(_difference("training", len(train), TRAIN_IMAGES))
            notes += _explanations(wnids, train)
        if len(val) not in (0, VAL_IMAGES):
            notes.append(_difference("validation", len(val), VAL_IMAGES))
    return tuple(note for note in notes if note)


def published_notes(title: str, members: Mapping[Split, Listing], published: Mapping[Split, int]) -> tuple[str, ...]:
    """Say which splits of a small set have other numbers of images than the published one."""
    return tuple(
        f"{len(members[split]):,} {split} images where {title} has {count:,}"
        for split, count in published.items()
        if len(members[split]) != count
    )


def _difference(what: str, found: int, published: int) -> str:
    more_or_fewer = "more" if found > published else "fewer"
    return f"{found:,} {what} images, {abs(found - published):,} {more_or_fewer} than the published {published:,}"


def _explanations(wnids: Sequence[str], train: Listing) -> list[str]:
    """Say what a difference to the published count consists of, as far as it can be known without the original."""
    images = np.bincount(train.labels, minlength=len(wnids))
    least, most = _CLASS_IMAGES
    few = [f"{wnid} ({n})" for wnid, n in zip(wnids, images, strict=True) if 0 < n < least]
    many = [f"{wnid} ({n})" for wnid, n in zip(wnids, images, strict=True) if n > most]
    odd = [name for name in _ODD_FILES if train.find(f"{name}.") is None]
    return [
        naming("class has", "classes have", f" fewer than {least:,} images, the least as published", few),
        naming("class has", "classes have", f" more than {most:,} images, the most as published", many),
        naming("file is", "files are", " missing that other tools drop for being CMYK or PNG", odd),
    ]


def naming(one: str, many: str, what: str, names: Sequence[str], shown: int = 5) -> str:
    """Count some names and list the first few; an empty string for none."""
    if not names:
        return ""
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return f"{len(names):,} {one if len(names) == 1 else many}{what}: {', '.join(names[:shown])}{more}"
