"""Find every image of a source, in whichever layout it lies there, without extracting or decoding anything.

A source is a list of members: byte ranges in files. The official archives are read as they were downloaded, a tree as
it was extracted; any worker can read any image with one seek. A layout is a function that looks at a folder and, if it
knows what lies there, says what that consists of and how it is listed; to add one, add it to `_LAYOUTS`.
"""

import functools
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import MANIFEST_NAME
from alexnet.tools.convert.known import DEVKIT_TAR, TRAIN_TAR, VAL_TAR
from alexnet.tools.convert.listing import Source
from alexnet.tools.convert.source_files import open_file
from alexnet.tools.convert.sources import cifar, mnist, official, parquet, sample_tars, tar_sets, trees
from alexnet.tools.convert.sources.first_bytes import ARCHIVES, COMPRESSED, refuse_undecodable, what_is
from alexnet.tools.convert.sources.folders import contents
from alexnet.tools.convert.sources.layout import Layout, OnWalk, Walk, load_index, save_index, unpacked_name
from alexnet.tools.convert.sources.names import few
from alexnet.tools.convert.sources.tables import SOLUTION
from alexnet.tools.progress import Amount

__all__ = [
    "DEVKIT_TAR",
    "TRAIN_TAR",
    "VAL_TAR",
    "check_out",
    "find_layout",
    "materialise",
    "open_source",
    "packed_bytes",
]

_LAYOUTS: tuple[tuple[Callable[[Path], Layout | None], str], ...] = (
    (official.find, f"{TRAIN_TAR} with {VAL_TAR} and {DEVKIT_TAR}"),
    (cifar.find, f"{cifar.ARCHIVE} or {cifar.FOLDER}/"),
    (mnist.find, f"MNIST's {mnist.IMAGES['train']}.gz and its three companions"),
    (
        trees.find_imagenet,
        "train/nXXXXXXXX/ and val/ (flat with the devkit, or in class folders); "
        f"Kaggle's {trees.KAGGLE}/ with {SOLUTION}",
    ),
    (official.refuse_incomplete, ""),
    (sample_tars.find, "WebDataset tars of images and labels, such as train-0000.tar with KEY.jpg and KEY.cls"),
    (tar_sets.find, "class tars, such as n01440764.tar, or tars of class folders, such as train.tar and val.tar"),
    (
        trees.find_folders,
        "one sub-folder of images a class, perhaps below train/ and val/ (or folders that --train and --val name)",
    ),
    (parquet.find, "Hugging Face's parquet files of images and labels, such as data/train-00000-of-00294.parquet"),
)
"""What is asked, in this order: what is more certain comes first; and what a user would have to give for it."""


def find_layout(root: Path, train: Sequence[str] = (), val: Sequence[str] = ()) -> Layout:
    """Recognise what lies in a folder, or take the folders below it that the user names for those of class folders.

    Raises InputError that names what was found and what is wanted.
    """
    with _readable(root):
        return trees.chosen(root, train, val) if train or val else _recognise(root)


def open_source(
    root: Path, cache: Path | None = None, on_walk: OnWalk = lambda _: None, layout: Layout | None = None
) -> Source:
    """List a source, in the layout that is recognised unless it is given; nothing in it is changed.

    `cache`: a file in which the list is kept and found again as long as the source's files and folders have the same
    sizes and mtimes. `on_walk` is told how far it is. Raises InputError that says what is missing, damaged or
    wrongly labelled.
    """
    with _readable(root):
        since_ns, layout, walk = time.time_ns(), layout or _recognise(root), Walk(on_walk)
        key = layout.key(walk) if cache else ""
        source = load_index(cache, key, root) if cache else None
        if source is None:
            source = layout.read(walk)
            if cache:
                save_index(cache, key, source)
        refuse_undecodable(source)
        walk.end()
        return replace(source, since_ns=since_ns)


def check_out(layout: Layout, out: Path) -> None:
    """Refuse an output folder inside folders that are read for images: its own files would be taken for some."""
    around = [tree for tree in layout.trees if out.resolve().is_relative_to(tree.resolve())]
    if around:
        raise InputError(f"--out {out}: lies in {around[0]}, whose files are taken for images; give one outside of it")


def materialise(source: Source, scratch: Path, on_progress: Callable[[Amount], None] = lambda _: None) -> Source:
    """Return a source whose members can be read by offset: the same one, or one that reads its images from `scratch`.

    Their folder is named by the files' sizes and mtimes and by what is listed of them, and has its name only when it is
    whole: a second call writes nothing, and one after a kill what is missing. `on_progress` is told of bytes. Raises
    InputError if the files are damaged, there is no room, or no image can be decoded here.
    """
    if not source.packed:
        return source
    layout = _layout_of(source.root)
    if layout is None or layout.unpack is None:
        raise InputError(f"{source.root}: its files were there and are gone; put them back")
    folder = scratch.absolute() / f"pixels-{layout.key()[:16]}{source.digest()[:16]}"
    partial = folder.with_suffix(".partial")
    if not folder.is_dir():
        try:
            for other in set(scratch.glob("pixels-*")) - {scratch / partial.name}:  # of the source as it was before
                shutil.rmtree(other)
            partial.mkdir(parents=True, exist_ok=True)
            layout.unpack(source, partial, _unpacking(packed_bytes(source), on_progress))
            partial.rename(folder)
        except OSError as error:
            raise InputError(
                f"{scratch}: its images cannot be written there ({error}); make room, and give the same command again"
            ) from None
    unpacked = replace(source, packed=False, opener=functools.partial(_open_unpacked, source.root, folder))
    refuse_undecodable(unpacked)
    return unpacked


def packed_bytes(source: Source) -> int:
    """Return how much room the images of a source take that has to be unpacked; 0 for any other."""
    listings = source.members.values() if source.packed else ()
    return sum(int(listing.lengths.sum(dtype=np.int64)) for listing in listings)


def _open_unpacked(root: Path, folder: Path, path: Path) -> BinaryIO:
    """Open the images of a packed file of the source."""
    return open_file(folder / unpacked_name(path.relative_to(root).as_posix()))


def _unpacking(total: int, on_progress: Callable[[Amount], None]) -> Callable[[int], None]:
    """Return what is told of bytes that were unpacked, and tells of their sum."""
    done = 0

    def on_bytes(more: int) -> None:
        nonlocal done
        done += more
        on_progress(Amount(event="unpack", stage="unpack", done=done, total=total, unit="bytes"))

    on_bytes(0)
    return on_bytes


def _recognise(root: Path) -> Layout:
    """Return the layout of a folder. Raises InputError if it has none, naming what was found and what is wanted."""
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "there is no such folder"
        raise InputError(f"{root}: {what}; give the folder that holds the data, such as {TRAIN_TAR}")
    if (root / MANIFEST_NAME).is_file() and (root / "train").is_dir():
        raise InputError(f"{root}: is a data set of alexnet-prep already, and no source; train on it as it is")
    layout = _layout_of(root)
    if layout is None:
        wanted = "; ".join(filter(None, (text for _, text in _LAYOUTS)))
        raise InputError(f"{root}: no known layout; found {_found(root)}; give one of: {wanted}")
    return layout


def _layout_of(root: Path) -> Layout | None:
    return next((found for find, _ in _LAYOUTS if (found := find(root))), None)


def _found(root: Path) -> str:
    inside = contents(root)
    parts = [_some(inside.folders, "folder"), _some(inside.files, "file")]
    text = " and ".join(part for part in parts if part) or "nothing"
    archives = [root / name for name in inside.files if name.endswith((*ARCHIVES, *COMPRESSED))]
    said = next((f"{path.name} {what}" for path in archives if (what := what_is(path))), None)
    return f"{text} ({ascii(said)[1:-1]})" if said else text


def _some(names: tuple[str, ...], what: str) -> str:
    listed = few([ascii(name)[1:-1] for name in names], 4)
    return f"{len(names):,} {what}{'s' if len(names) > 1 else ''} ({listed})" if names else ""


@contextmanager
def _readable(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = f"{error.filename or root}: cannot be read ({error.strerror or error})"
        raise InputError(f"{what}; make it readable, or move it away") from None
