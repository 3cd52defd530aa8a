"""The official archives, as downloaded: a tar of class tars, a tar of validation images and the devkit.

Only the training archive must be there. The devkit is needed where there are validation images to label; it also gives
the words.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import ClassRecord, Split
from alexnet.tools.convert.devkit import devkit_files, find_devkit, read_devkit
from alexnet.tools.convert.known import DEVKIT_TAR, DOGS_TAR, TRAIN_TAR, VAL_TAR, count_notes, size_notes
from alexnet.tools.convert.listing import Listing, ListingBuilder, Source, sizes_of
from alexnet.tools.convert.sources.labels import WORD_FILES, ValLabels, class_records, devkit_labels, read_words
from alexnet.tools.convert.sources.layout import Layout
from alexnet.tools.convert.sources.not_a_tar import what_is
from alexnet.tools.convert.sources.split_folders import find_splits
from alexnet.tools.convert.sources.tars import Passed, list_tar
from alexnet.tools.convert.sources.walk import Walk

KIND = "ilsvrc2012-archives"


def find(root: Path) -> Layout | None:
    """Recognise the official archives by the training archive."""
    if not (root / TRAIN_TAR).is_file():
        return None
    _refuse_compressed(root, VAL_TAR)
    kit = find_devkit(root)
    names = (TRAIN_TAR, VAL_TAR, DOGS_TAR, *WORD_FILES)
    files = (*(root / name for name in names if (root / name).is_file()), *(devkit_files(kit) if kit else ()))
    return Layout(kind=KIND, root=root, files=files, read=partial(_read, root, kit))


def refuse_compressed(root: Path) -> None:
    """Refuse a folder whose training archive is there, and cannot be read for being compressed as a whole."""
    if not find_splits(root):
        _refuse_compressed(root, TRAIN_TAR)


def _refuse_compressed(root: Path, name: str) -> None:
    if not (root / name).is_file():
        for path in sorted(root.glob(f"{name.removesuffix('.tar')}.*")):
            if path.is_file() and (what := what_is(path)):
                raise InputError(f"{path}: {what}")


def _read(root: Path, kit: Path | None, walk: Walk) -> Source:
    has_val = (root / VAL_TAR).is_file()
    if has_val and kit is None:
        raise InputError(f"{root}: lacks {DEVKIT_TAR}, and the labels of {VAL_TAR} are in it; put it there")
    labels = devkit_labels(kit, read_devkit(kit)) if kit else None
    passed = Passed()
    classes, train = _read_train(root, labels, passed, walk)
    val = Listing.of(())
    if has_val and labels is not None:
        label_of = {record.wnid: label for label, record in enumerate(classes)}
        val = read_val_tar(root, labels, label_of, passed, walk)
    members: dict[Split, Listing] = {"train": train, "val": val}
    return Source(
        root=root,
        kind=KIND,
        classes=classes,
        members=members,
        description=f"official ILSVRC-2012 archives, {len(classes):,} classes, {sizes_of(members)} entries",
        notes=(*_notes(root, has_val, kit), *passed.notes(), *count_notes([c.wnid for c in classes], train, val)),
        ignored=passed.ignored,
    )


def _read_train(
    root: Path, labels: ValLabels | None, passed: Passed, walk: Walk
) -> tuple[tuple[ClassRecord, ...], Listing]:
    path = root / TRAIN_TAR
    builder = ListingBuilder()
    with path.open("rb") as file:
        walk.begin("class tars", "bytes", path.stat().st_size)
        outer = list_tar(path, file, TRAIN_TAR, passed, on_entries=walk.advance)
        class_tars = [(PurePosixPath(name.decode("utf-8", "replace")), at, n) for name, at, n in outer]
        classes = (
            labels.classes if labels else class_records({name.stem for name, _, _ in class_tars}, read_words(root))
        )
        label_of = {record.wnid: label for label, record in enumerate(classes)}
        walk.begin("train", "bytes", sum(length for _, _, length in class_tars))
        for name, at, length in sorted(class_tars, key=lambda tar: (tar[0].stem, tar[1])):
            if name.stem not in label_of or name.suffix != ".tar":
                raise InputError(
                    f"{path}: {name} is no class tar of the {len(classes):,} classes; the archive and the devkit must "
                    "belong together"
                )
            images = list_tar(path, file, str(name), passed, at, length, walk.advance)
            builder.add(TRAIN_TAR, label_of[name.stem], images)
    train = builder.finish()
    if not len(train):
        raise InputError(f"{path}: holds no class tar with images; download it again")
    return classes, train


def read_val_tar(root: Path, labels: ValLabels, label_of: Mapping[str, int], passed: Passed, walk: Walk) -> Listing:
    """List the validation archive in the order of file names, labelled.

    Raises InputError if an image has no label or a label no image.
    """
    path = root / VAL_TAR
    builder = ListingBuilder()
    walk.begin("val", "bytes", path.stat().st_size)
    with path.open("rb") as file:
        images = list_tar(path, file, VAL_TAR, passed, on_entries=walk.advance)
    for entry in sorted(images):
        wnid = labels.wnid_of(path, entry[0].decode("utf-8", "replace"))
        builder.add(VAL_TAR, label_of[wnid], [entry])
    if len(images) != len(labels.wnids):
        raise InputError(
            f"{path}: holds {len(images):,} images where {labels.where.name} has {len(labels.wnids):,} labels; "
            "download it again"
        )
    return builder.finish()


def _notes(root: Path, has_val: bool, kit: Path | None) -> tuple[str, ...]:
    notes = [*size_notes(root)]
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
    return tuple(notes)
