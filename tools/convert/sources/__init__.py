"""Find every image of a source, in whichever layout it lies there, without extracting or decoding anything.

A source is a list of members: byte ranges in files. The official archives are read as they were downloaded, a tree as
it was extracted; any worker can read any image with one seek. There is one file a layout: `recognise.py` chooses, each
`find` says what its layout consists of, and what it reads becomes a `Source`. What is never looked at here is pixels.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alexnet.shards.errors import InputError
from alexnet.tools.convert.known import DEVKIT_TAR, TRAIN_TAR, VAL_TAR
from alexnet.tools.convert.listing import Source
from alexnet.tools.convert.sources.cache import load_index, save_index
from alexnet.tools.convert.sources.materialise import materialise
from alexnet.tools.convert.sources.recognise import recognise
from alexnet.tools.convert.sources.walk import OnWalk, Walk

__all__ = ["DEVKIT_TAR", "TRAIN_TAR", "VAL_TAR", "check_out", "materialise", "native_size_px", "open_source"]


def open_source(root: Path, cache: Path | None = None, on_walk: OnWalk = lambda _: None) -> Source:
    """Recognise a source and list it; nothing in it is changed.

    `cache`: a file in which the list is kept and found again as long as the source's files and folders have the same
    sizes and mtimes. `on_walk` is told how far it is. Raises InputError that says what is missing, damaged or
    wrongly labelled.
    """
    with _readable(root):
        layout, walk = recognise(root), Walk(on_walk)
        key = layout.key(walk) if cache else ""
        source = load_index(cache, key, root) if cache else None
        if source is None:
            source = layout.read(walk)
            if cache:
                save_index(cache, key, source)
        walk.end()
        return source


def native_size_px(root: Path) -> int | None:
    """Return the size that all images of a source have, None if they differ, without listing it."""
    with _readable(root):
        return recognise(root).size_px


def check_out(root: Path, out: Path) -> None:
    """Refuse an output folder inside folders that are read for images: its own files would be taken for some."""
    with _readable(root):
        around = [tree for tree in recognise(root).trees if out.resolve().is_relative_to(tree.resolve())]
    if around:
        raise InputError(f"--out {out}: lies in {around[0]}, whose files are taken for images; give one outside of it")


@contextmanager
def _readable(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = f"{error.filename or root}: cannot be read ({error.strerror or error})"
        raise InputError(f"{what}; make it readable, or move it away") from None
