"""Write the pixels of packed sources once, raw, so that workers can read any of them by offset.

Only the small sets are packed: 184 MB for CIFAR-10, 55 MB for MNIST. Everything else is read where it is.
"""

import shutil
from dataclasses import replace
from pathlib import Path

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import SPLITS, Split
from alexnet.tools.convert.listing import Listing, Source
from alexnet.tools.convert.sources import cifar, mnist


def materialise(source: Source, scratch: Path) -> Source:
    """Return a source whose members can be read by offset: the same one, or one with its pixels in `scratch`.

    The folder there is named by the files' sizes and mtimes and has its name only when it is whole, so a second call
    writes nothing. Raises InputError if the files are damaged or there is no room.
    """
    if source.packing == "none":
        return source
    layout = (cifar if source.packing == "cifar10" else mnist).find(source.root)
    if layout is None:
        raise InputError(f"{source.root}: its files were there and are gone; put them back")
    folder = scratch / f"pixels-{layout.key()[:16]}"
    if not folder.is_dir():
        try:
            _unpack(source, folder)
        except OSError as error:
            raise InputError(f"{scratch}: its pixels cannot be written there ({error}); make room") from None
    members: dict[Split, Listing] = {}
    for split in SPLITS:
        listing = source.listing(split)
        files = tuple(f"{folder.name}/{Path(container).name}" for container in listing.containers)
        members[split] = replace(listing, containers=files)
    return replace(source, root=scratch, members=members, packing="none")


def _unpack(source: Source, folder: Path) -> None:
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    if source.packing == "cifar10":
        cifar.unpack(source.root, partial)
    else:
        for split in SPLITS:
            mnist.unpack(source.listing(split), source.root, partial)
    partial.rename(folder)
