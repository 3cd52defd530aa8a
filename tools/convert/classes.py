"""Take some classes of a source, in an order that the user gives: ImageNet-100, or classes called 0 to 100."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import SPLITS, ClassRecord
from alexnet.tools.convert.listing import Listing, Source, sizes_of
from alexnet.tools.convert.sources.names import WNID, printed
from alexnet.tools.convert.sources.tables import table_text

_WNID = re.compile(rf"{WNID.pattern}\b")


def select_classes(source: Source, path: Path) -> Source:
    """Return a source with the classes that a file names, one a line; the first has label 0. Raises InputError."""
    chosen = chosen_labels(source.classes, path)
    new_label = np.full(len(source.classes), -1, np.int32)
    new_label[chosen] = np.arange(len(chosen))
    members = {split: _of_classes(source.members[split], new_label, sort=split == "train") for split in SPLITS}
    if not len(members["train"]):
        raise InputError(f"--classes {path}: none of its classes has training images")
    return replace(
        source,
        classes=tuple(source.classes[label] for label in chosen),
        members=members,
        label_order=f"place of the class in {path.name}",
        description=f"{source.description}; chosen: {len(chosen):,} of the classes, {sizes_of(members)}",
    )


def chosen_labels(classes: Sequence[ClassRecord], path: Path) -> list[int]:
    """Return the labels of the classes that a file names, in its order.

    A line is a class's name, or a WNID with words behind it. Raises InputError for a name that no class has, or that
    stands there twice.
    """
    label_of = {record.wnid: label for label, record in enumerate(classes)}
    chosen: dict[int, int] = {}
    try:
        lines = table_text(path).splitlines()
    except OSError as error:
        raise InputError(f"--classes {path}: cannot be read ({error.strerror})") from None
    for number, line in enumerate(lines, start=1):
        name = printed(line.strip())
        if not name:
            continue
        wnid = _WNID.match(name)
        label = label_of.get(name, label_of.get(wnid[0]) if wnid else None)
        if label is None or label in chosen:
            what = (
                "is no class of the source" if label is None else f"is named a second time, after line {chosen[label]}"
            )
            raise InputError(f"--classes {path}: line {number}: {name[:80]} {what}")
        chosen[label] = number
    if not chosen:
        raise InputError(f"--classes {path}: names no class; give one name a line")
    return list(chosen)


def order_notes(source: Source) -> tuple[str, ...]:
    """Say where numbers that are sorted as text give labels that people do not expect."""
    names = [record.wnid for record in source.classes]
    if not all(name.isdecimal() for name in names) or names == sorted(names, key=int):
        return ()
    at = next(label for label, name in enumerate(names) if int(name) != label)
    return (
        f"class names are sorted as text, as everywhere: {', '.join(names[:4])}, ...; so label {at} is class "
        f"{names[at]}; for another order list the names in a file, one a line, and give --classes FILE",
    )


def _of_classes(listing: Listing, new_label: npt.NDArray[np.int32], *, sort: bool) -> Listing:
    """Return the members whose class has a new label, not -1; `sort`: by that label, else in the order they are in."""
    labels = new_label[listing.labels]
    rows = np.flatnonzero(labels >= 0)
    if sort:
        rows = rows[np.argsort(labels[rows], kind="stable")]
    return replace(listing.take(rows), labels=labels[rows])
