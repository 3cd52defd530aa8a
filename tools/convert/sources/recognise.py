"""Say which layout a folder has, or what it has instead and what each layout would need."""

from collections.abc import Callable
from pathlib import Path

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import MANIFEST_NAME
from alexnet.tools.convert.known import DEVKIT_TAR, DOGS_TAR, TRAIN_TAR, VAL_TAR
from alexnet.tools.convert.sources import cifar, class_tars, image_folder, kaggle, mnist, official, tree
from alexnet.tools.convert.sources.folders import contents
from alexnet.tools.convert.sources.labels import SOLUTION
from alexnet.tools.convert.sources.layout import Layout
from alexnet.tools.convert.sources.not_a_tar import ARCHIVE_ENDINGS, what_is
from alexnet.tools.convert.sources.split_folders import find_splits

_FIND: tuple[Callable[[Path], Layout | None], ...] = (
    official.find,
    cifar.find,
    mnist.find,
    kaggle.find,
    tree.find,
    official.refuse_compressed,
    class_tars.find,
    image_folder.find,
)
_WANTED = (
    f"{TRAIN_TAR} with {VAL_TAR} and {DEVKIT_TAR}",
    "train/nXXXXXXXX/ and val/ (flat with the devkit, or in class folders)",
    f"Kaggle's {kaggle.BASE}/ with {SOLUTION}",
    "class tars, such as n01440764.tar, or tars of class folders, such as train.tar and val.tar",
    "one sub-folder of images a class, perhaps below train/ and val/ (or folders that --train and --val name)",
    f"{cifar.ARCHIVE} or {cifar.FOLDER}/",
    f"MNIST's {mnist.IMAGES['train']}.gz and its three companions",
)
_NAMES_SHOWN = 4


def recognise(root: Path) -> Layout:
    """Return the layout of a folder. Raises InputError if it has none, naming what was found and what is wanted."""
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "there is no such folder"
        raise InputError(f"{root}: {what}; give the folder that holds the data, such as {TRAIN_TAR}")
    if (root / MANIFEST_NAME).is_file() and (root / "train").is_dir():
        raise InputError(f"{root}: is a data set of alexnet-prep already, and no source; train on it as it is")
    for find in _FIND:
        if find is class_tars.find:
            _refuse_partial(root)  # what comes now would take a lone archive for a class tar
        layout = find(root)
        if layout is not None:
            return layout
    raise InputError(f"{root}: no known layout; found {_found(root)}; give one of: {'; '.join(_WANTED)}")


def _refuse_partial(root: Path) -> None:
    """Refuse official archives without the one for training."""
    there = [name for name in (VAL_TAR, DEVKIT_TAR, DOGS_TAR) if (root / name).is_file()]
    if not there or find_splits(root):
        return
    dogs = f"; {DOGS_TAR} is not the training set: it holds the dogs of task 3 only" if DOGS_TAR in there else ""
    raise InputError(f"{root}: lacks {TRAIN_TAR}, and has {', '.join(there)}{dogs}; put {TRAIN_TAR} there")


def _found(root: Path) -> str:
    inside = contents(root)
    parts = [_some(inside.folders, "folder"), _some(inside.files, "file")]
    text = " and ".join(part for part in parts if part) or "nothing"
    archives = [root / name for name in inside.files if name.endswith(ARCHIVE_ENDINGS)]
    said = next((f"{path.name} {what}" for path in archives if (what := what_is(path))), None)
    return f"{text} ({ascii(said)[1:-1]})" if said else text


def _some(names: tuple[str, ...], what: str) -> str:
    if not names:
        return ""
    listed = ", ".join(ascii(name)[1:-1] for name in names[:_NAMES_SHOWN])
    more = ", ..." if len(names) > _NAMES_SHOWN else ""
    return f"{len(names):,} {what}{'s' if len(names) > 1 else ''} ({listed}{more})"
