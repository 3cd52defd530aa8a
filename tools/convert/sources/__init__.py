"""Find every image of a source, in whichever layout it lies there, without extracting or decoding anything.

A source is a list of members: byte ranges in files. The official archives are read as they were downloaded, a tree as
it was extracted; any worker can read any image with one seek. There is one file a layout: `recognise.py` chooses, each
`find` says what its layout consists of, and what it reads becomes a `Source`. What is never looked at here is pixels.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from alexnet.shards.errors import InputError
from alexnet.tools.convert.known import DEVKIT_TAR, TRAIN_TAR, VAL_TAR
from alexnet.tools.convert.listing import Source
from alexnet.tools.convert.sources import image_folder
from alexnet.tools.convert.sources.cache import load_index, save_index
from alexnet.tools.convert.sources.layout import Layout
from alexnet.tools.convert.sources.materialise import materialise
from alexnet.tools.convert.sources.recognise import recognise
from alexnet.tools.convert.sources.sniff import refuse_undecodable
from alexnet.tools.convert.sources.walk import OnWalk, Walk

__all__ = ["DEVKIT_TAR", "TRAIN_TAR", "VAL_TAR", "check_out", "find_layout", "materialise", "open_source"]


def find_layout(root: Path, train: Sequence[str] = (), val: Sequence[str] = ()) -> Layout:
    """Recognise what lies in a folder, or take the folders below it that the user names for those of class folders.

    Raises InputError that names what was found and what is wanted.
    """
    with _readable(root):
        return image_folder.chosen(root, train, val) if train or val else recognise(root)


def open_source(
    root: Path, cache: Path | None = None, on_walk: OnWalk = lambda _: None, layout: Layout | None = None
) -> Source:
    """List a source, in the layout that is recognised unless it is given; nothing in it is changed.

    `cache`: a file in which the list is kept and found again as long as the source's files and folders have the same
    sizes and mtimes. `on_walk` is told how far it is. Raises InputError that says what is missing, damaged or
    wrongly labelled.
    """
    with _readable(root):
        layout, walk = layout or recognise(root), Walk(on_walk)
        key = layout.key(walk) if cache else ""
        source = load_index(cache, key, root) if cache else None
        if source is None:
            source = layout.read(walk)
            if cache:
                save_index(cache, key, source)
        refuse_undecodable(source)
        walk.end()
        return source


def check_out(layout: Layout, out: Path) -> None:
    """Refuse an output folder inside folders that are read for images: its own files would be taken for some."""
    around = [tree for tree in layout.trees if out.resolve().is_relative_to(tree.resolve())]
    if around:
        raise InputError(f"--out {out}: lies in {around[0]}, whose files are taken for images; give one outside of it")


@contextmanager
def _readable(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = f"{error.filename or root}: cannot be read ({error.strerror or error})"
        raise InputError(f"{what}; make it readable, or move it away") from None
