"""The official archives, as downloaded: a tar of class tars, a tar of validation images and the devkit.

Only the training archive must be there. The devkit is needed where there are validation images to label; it also gives
the words.
"""

from functools import partial
from pathlib import Path, PurePosixPath

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import ClassRecord, Split
from alexnet.tools.convert.known import DEVKIT_TAR, DOGS_TAR, TRAIN_TAR, VAL_TAR, count_notes, size_notes
from alexnet.tools.convert.listing import Listing, Rows, Source, in_name_order, sizes_of
from alexnet.tools.convert.sources.first_bytes import what_is
from alexnet.tools.convert.sources.layout import Layout, Walk
from alexnet.tools.convert.sources.splits import find_splits
from alexnet.tools.convert.sources.tables import (
    ValLabels,
    class_records,
    devkit_files,
    find_devkit,
    read_devkit,
    read_words,
    word_files,
)
from alexnet.tools.convert.sources.tars import Tar, list_tar

KIND = "ilsvrc2012-archives"


def find(root: Path) -> Layout | None:
    """Recognise the official archives by the training archive."""
    if not (root / TRAIN_TAR).is_file():
        return None
    _refuse_compressed(root, VAL_TAR)
    archives = (path for name in (TRAIN_TAR, VAL_TAR, DOGS_TAR) if (path := root / name).is_file())
    kit = find_devkit(root)
    files = (*archives, *word_files(root), *(devkit_files(kit) if kit else ()))
    return Layout(kind=KIND, root=root, files=files, read=partial(_read, root, kit))


def refuse_incomplete(root: Path) -> None:
    """Refuse official archives without the one for training, or with that one compressed as a whole.

    What looks for other tars would take a lone archive for a class tar.
    """
    if find_splits(root):
        return
    _refuse_compressed(root, TRAIN_TAR)
    there = [name for name in (VAL_TAR, DEVKIT_TAR, DOGS_TAR) if (root / name).is_file()]
    if there:
        dogs = f"; {DOGS_TAR} is not the training set: it holds the dogs of task 3 only" if DOGS_TAR in there else ""
        raise InputError(f"{root}: lacks {TRAIN_TAR}, and has {', '.join(there)}{dogs}; put {TRAIN_TAR} there")


def _refuse_compressed(root: Path, name: str) -> None:
    if not (root / name).is_file():
        for path in sorted(root.glob(f"{name.removesuffix('.tar')}.*")):
            if path.is_file() and (what := what_is(path)):
                raise InputError(f"{path}: {what}")


def _read(root: Path, kit: Path | None, walk: Walk) -> Source:
    has_val = (root / VAL_TAR).is_file()
    if has_val and kit is None:
        raise InputError(f"{root}: lacks {DEVKIT_TAR}, and the labels of {VAL_TAR} are in it; put it there")
    labels = read_devkit(kit) if kit else None
    classes, train = _read_train(root, labels, walk)
    wnids = [record.wnid for record in classes]
    val = read_val_tar(root, labels, walk) if has_val and labels else Listing.of()
    members: dict[Split, Listing] = {"train": train, "val": val}
    return Source(
        root=root,
        kind=KIND,
        classes=classes,
        members=members,
        description=f"official ILSVRC-2012 archives, {len(classes):,} classes, {sizes_of(members)} entries",
        notes=(*_notes(root, has_val, kit), *walk.notes(), *count_notes(wnids, train, val)),
        ignored=walk.ignored,
    )


def _read_train(root: Path, labels: ValLabels | None, walk: Walk) -> tuple[tuple[ClassRecord, ...], Listing]:
    """Return the classes, the devkit's if there is one, and the training images of all class tars."""
    whole = Tar.of(root / TRAIN_TAR)
    walk.begin("class tars", "bytes", whole.length)
    class_tars = [
        Tar(path=whole.path, start=at, length=length, name=str(PurePosixPath(name.decode("utf-8", "replace"))))
        for name, at, length in list_tar(whole, walk)
    ]
    stem_of = {tar: PurePosixPath(tar.name).stem for tar in class_tars}
    classes = labels.classes if labels else class_records(set(stem_of.values()), read_words(root))
    label_of = {record.wnid: label for label, record in enumerate(classes)}
    walk.begin("train", "bytes", sum(tar.length for tar in class_tars))
    class_tars.sort(key=lambda tar: (stem_of[tar], tar.start))
    for tar in class_tars:
        if stem_of[tar] not in label_of or not tar.name.endswith(".tar"):
            raise InputError(
                f"{tar.where} is no class tar of the {len(classes):,} classes; the archive and the devkit must belong "
                "together"
            )
    train = Listing.of((label_of[stem_of[tar]], TRAIN_TAR, list_tar(tar, walk)) for tar in class_tars)
    if not len(train):
        raise InputError(f"{whole.path}: holds no class tar with images; download it again")
    return classes, train


def read_val_tar(root: Path, labels: ValLabels, walk: Walk) -> Listing:
    """List the validation archive in the order of file names, labelled.

    Raises InputError if an image has no label or a label no image.
    """
    tar = Tar.of(root / VAL_TAR)
    walk.begin("val", "bytes", tar.length)
    images = list_tar(tar, walk)
    rows: list[Rows] = [
        (labels.label_of(tar.path, entry[0].decode("utf-8", "replace")), VAL_TAR, [entry]) for entry in sorted(images)
    ]
    if len(images) != len(labels.wnids):
        raise InputError(
            f"{tar.path}: holds {len(images):,} images where {labels.where.name} has {len(labels.wnids):,} labels; "
            "download it again"
        )
    return in_name_order(rows)


def _notes(root: Path, has_val: bool, kit: Path | None) -> list[str]:
    notes = size_notes(root)
    if not has_val and (root / "val").is_dir():
        notes.append(f"the folder val is not read: {TRAIN_TAR} is there; unpack that, too, to have both")
    if not has_val:
        notes.append(f"no {VAL_TAR}: there will be no validation images")
    if kit is None:
        notes.append(f"no {DEVKIT_TAR}: classes will have no words")
    if (root / DOGS_TAR).is_file():
        notes.append(f"{DOGS_TAR} is not read: it holds the dogs of task 3 only, which are in {TRAIN_TAR}, too")
    if (root / "train").is_dir():
        notes.append(f"the folder train is not read: {TRAIN_TAR} is there")
    return notes
