"""Choose the folders that hold training and validation images, each with one sub-folder a class; or refuse to guess.

Where names or the shape of a tree leave open what is a split and what a class, the refusal shows the command for either
reading.
"""

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from alexnet.shards.errors import InputError
from alexnet.tools.convert.known import naming
from alexnet.tools.convert.sources.first_bytes import is_image, spread
from alexnet.tools.convert.sources.folders import Contents, contents, folders_in
from alexnet.tools.convert.sources.names import NO_CLASS, few, printed, split_names, split_word
from alexnet.tools.convert.sources.tables import ANNOTATIONS, WORD_FILES

_FIRST = ("train", "val", "valid", "validation", "test")  # of several names for one split, the one that is taken
_FILES_A_CLASS = 3


@dataclass(frozen=True, kw_only=True)
class SplitFolders:
    """Hold the folders whose sub-folders are classes, or loose images of `val`; and names beside them, not read."""

    train: tuple[Path, ...]
    val: tuple[Path, ...] = ()
    others: tuple[str, ...] = ()

    def classes(self) -> list[str]:
        """Return the names of the training folders, sorted."""
        return sorted({name for folder in self.train for name in contents(folder).folders})

    def notes(self) -> list[str]:
        """Say what is read and what is not."""
        notes = []
        if len(self.train) > 1:
            notes.append(f"training images are read from {_names(path.name for path in self.train)}")
        if self.val:
            notes.append(f"validation images are read from {_names(path.name for path in self.val)}")
        if self.others:
            notes.append(f"not read: {_names(self.others)}")
        for folder in (*self.train, *self.val):
            inside = contents(folder)
            loose = set(inside.files if inside.folders else ()) - {*WORD_FILES, ANNOTATIONS}
            where = f" beside the class folders of {printed(folder.name)} and without a class, so not read"
            notes.append(naming("file lies", "files lie", where, sorted(map(printed, loose))))
        return [note for note in notes if note]

    def command(self, root: Path) -> str:
        """Return the command that takes these folders as they are, whatever is in them."""
        train, val = ([str(path.relative_to(root)) for path in paths] for paths in (self.train, self.val))
        return command(root, train, val)

    def ignored(self) -> int:
        """Count what lies beside the class folders and is neither folder nor file, or is junk."""
        return sum(contents(folder).ignored for folder in (*self.train, *self.val))


def find_splits(base: Path) -> SplitFolders | None:
    """Choose among the sub-folders of `base` by their names; None if none of them is a split with class folders.

    A `test` with class folders is taken for validation where there is nothing else for that. Raises InputError where
    several folders could be meant, or where a test set under another name could.
    """
    folders = contents(base).folders
    named = split_names(folders)
    inside = {name: contents(base / name) for name in named}
    train = _one_set(base, [name for name in inside if named[name] == "train" and inside[name].folders])
    if not train:
        return None
    val = [name for name in inside if named[name] == "val" and (inside[name].folders or inside[name].files)]
    test = [name for name in inside if named[name] == "test" and inside[name].folders]
    if not val and "test" in test:
        val = ["test"]
    elif not val and test and train != ["train"]:
        said = [[str(_unwrapped(base / name).relative_to(base)) for name in names] for names in (train, test)]
        raise InputError(
            f"{base}: {_names(test)} may be meant for validation, or for a test later; say so: {command(base, *said)}; "
            "or leave --val out"
        )
    val = _one_set(base, val)
    return SplitFolders(
        train=tuple(_unwrapped(base / name) for name in train),
        val=tuple(_unwrapped(base / name) for name in val),
        others=tuple(name for name in folders if name not in (*train, *val)),
    )


def _one_set(base: Path, names: list[str]) -> list[str]:
    """Return the one folder that is meant, or all where they are numbered parts, such as `train.X1` to `train.X4`."""
    usual = [name for name in _FIRST if name in names]
    if usual or len(names) < 2:
        return usual[:1] or names
    if len({re.sub(r"\d+", "0", name) for name in names}) == 1:
        return names
    raise InputError(
        f"{base}: {_names(names)} may each be the split that is meant; say which: {command(base, names[:1], ['DIR'])}"
    )


def _unwrapped(folder: Path) -> Path:
    """Step into what an archive put around its content: `seg_train/seg_train/`, `train/ILSVRC2012_img_train/`."""
    inside = contents(folder)
    while len(inside.folders) == 1 and not inside.files:
        (name,) = inside.folders
        if name != folder.name and split_word(name) != split_word(folder.name):
            break
        folder = folder / name
        inside = contents(folder)
    return folder


def chosen_splits(root: Path, train: Sequence[str], val: Sequence[str]) -> SplitFolders:
    """Take the folders that the user names, as paths from `root`, for those that hold the class folders.

    Raises InputError for one that is not below `root`, has no class folders or is named twice.
    """
    if not train:
        raise InputError(f"--val {val[0]}: say where the training images are, too, such as --train train")
    options = [("--train", name) for name in train] + [("--val", name) for name in val]
    folders = [root / name for _, name in options]
    for (option, name), folder in zip(options, folders, strict=True):
        if not folder.is_dir():
            raise InputError(f"{option} {name}: there is no folder {folder}; give it as a path from {root}")
        if not folder.resolve().is_relative_to(root.resolve()):
            raise InputError(f"{option} {name}: lies outside of {root}; give a SOURCE that holds all folders")
        if not contents(folder).folders:
            raise InputError(f"{option} {name}: holds no class folders; sort its images into one folder a class")
        others = (other for other in folders if other is not folder)
        if inside := next((other for other in others if other.resolve().is_relative_to(folder.resolve())), None):
            raise InputError(f"{option} {name}: {inside} lies inside it and would be read twice; give folders apart")
    folders = [root / folder.resolve().relative_to(root.resolve()) for folder in folders]
    return SplitFolders(train=tuple(folders[: len(train)]), val=tuple(folders[len(train) :]))


def command(root: Path, train: Sequence[str], val: Sequence[str] = ()) -> str:
    """Return the command that says which folders are which."""
    options = [("--train", name) for name in train] + [("--val", name) for name in val]
    return shlex.join(["alexnet-prep", "shard", str(root), *(part for pair in options for part in pair)])


def refuse_what_is_no_class(root: Path, as_it_is: str) -> None:
    """Refuse sub-folders of `root` that may be splits, or wrap the classes or splits, or hold something beside them.

    Looked at are all names of folders, and images in some. `as_it_is`: the command that takes all for classes.
    """
    folders = contents(root).folders
    inside = {name: contents(root / name) for name in spread(folders)}
    problem = (
        _named_like_splits(root, folders)
        or next((found for name in folders if (found := _wraps(root / name, folders))), "")
        or _repeated(root, inside)
        or _alone_with_images(root, inside)
    )
    if problem:
        raise InputError(f"{problem}; to take each folder of {printed(root.name)} for a class: {as_it_is}")


def _named_like_splits(root: Path, folders: Sequence[str]) -> str:
    named = split_names(folders)
    unlikely = [name for name, word in named.items() if word != "train" and name != "valid"]
    if len(set(named.values())) > 1 or any(holds_images(root / name) for name in unlikely):
        return (
            f"{root}: not taken for classes: {_names(named)}, which are names of splits; and no folder of training "
            "images with class folders is there; sort them into train/CLASS and val/CLASS"
        )
    things = [name for name in folders if NO_CLASS.fullmatch(name)]
    if len(things) > (len(folders) > 1) and any(holds_images(root / name) for name in things):
        return f"{root}: not taken for classes: {_names(things)}, which name none; give the folder of class folders"
    return ""


def _wraps(folder: Path, beside: Sequence[str]) -> str:
    inside = folders_in(folder)
    splits, classes = split_names(inside), set(inside) & (set(beside) - {folder.name})
    if set(splits.values()) - {"train"}:
        return f"{folder}: holds {_names(splits)}; put splits above classes, as train/CLASS, or give {folder}"
    if classes:
        return f"{folder}: its folders ({_names(sorted(classes))}) are called like classes beside it; move it away"
    return ""


def _repeated(root: Path, inside: dict[str, Contents]) -> str:
    """Find folders without images of their own whose sub-folders have the same names: those are the classes."""
    if any(holds_images(root / name, depth=0) for name in inside):
        return ""
    while len({found.folders for found in inside.values()}) == 1 == len(next(iter(inside.values())).folders):
        inside = {path: contents(root / path) for path in (f"{k}/{found.folders[0]}" for k, found in inside.items())}
        if any(found.files for found in inside.values()):  # each class holds one folder, such as `images`
            return ""
    times = Counter(below for found in inside.values() for below in found.folders)
    again = sorted(below for below, n in times.items() if n > 1)
    if len([below for below in again if any(holds_images(root / name / below, depth=0) for name in inside)]) < 2:
        return ""
    names = list(inside)
    return (
        f"{root}: its folders ({_names(names)}) hold no images of their own and sub-folders of the same names "
        f"({_names(again)}); if they are splits: {command(root, names[:1], names[1:2])}"
    )


def _alone_with_images(root: Path, inside: dict[str, Contents]) -> str:
    """Find the one folder with images, all in sub-folders, alone or beside others without: `birds/` beside `meta/`."""
    found = [name for name in inside if holds_images(root / name)]
    if len(found) != 1 or len(inside[found[0]].folders) < min(2, len(inside)) or holds_images(root / found[0], depth=0):
        return ""
    return (
        f"{root}: of its folders only {printed(found[0])} holds images, in folders of its own: give {root / found[0]}"
    )


def holds_images(folder: Path, depth: int = 3) -> bool:
    """Look at the first files of a folder, or of its first sub-folders that have any."""
    if not folder.is_dir():
        return False
    inside = contents(folder)
    for name in inside.files[:_FILES_A_CLASS]:
        try:
            with (folder / name).open("rb") as file:
                if is_image(file):
                    return True
        except PermissionError:
            return True  # to be listed, and so rejected by name, rather than stop all others
    return depth > 0 and any(holds_images(folder / name, depth - 1) for name in inside.folders[:_FILES_A_CLASS])


def _names(names: Iterable[str]) -> str:
    return few([printed(name) for name in names])
