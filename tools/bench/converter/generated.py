"""Make sources of any length out of a few files: class tars that are links to one tar.

The index pass walks each link's tar, header by header, and finds other members by other names of classes. So 14 million
entries that are really walked take 0.3 MB of disk.
"""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH_PX, HEIGHT_PX = 500, 375
_DISTINCT = 100  # pictures in a class tar of pictures
_GRAIN = 10  # grey levels: the 256 px JPEGs take 22 kB, as ImageNet's do


def write_entries(root: Path, classes: int, entries: int) -> int:
    """Write class tars of empty files; return how many entries they have: as many in each, so at most `entries`.

    Names are as long as ImageNet's. The first member is a picture, or nobody would take the tar for a class.
    """
    a_class = max(1, entries // classes)
    picture = _picture(0, 32, 24)
    files = [(f"n00000000_{10_000 + i}.JPEG", picture if i == 0 else b"") for i in range(a_class)]
    _write(root, classes, files)
    return classes * a_class


def write_pictures(root: Path, images: int) -> int:
    """Write class tars of photograph-like JPEGs of 500x375 px; return how many images they have, at least as asked."""
    distinct = min(_DISTINCT, images)
    classes = -(-images // distinct)
    _write(root, classes, [(f"n00000000_{i}.JPEG", _picture(i, WIDTH_PX, HEIGHT_PX)) for i in range(distinct)])
    return classes * distinct


def _write(root: Path, classes: int, files: list[tuple[str, bytes]]) -> None:
    root.mkdir(parents=True)
    target = root.parent / f"{root.name}.tar"
    with tarfile.open(target, "w") as tar:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    for label in range(classes):
        (root / f"n{label:08d}.tar").symlink_to(target)


def _picture(seed: int, width_px: int, height_px: int) -> bytes:
    """Return a JPEG of a smooth random picture with grain; of 500x375 px it has 79 kB."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    smooth = Image.fromarray(small).resize((width_px, height_px), Image.Resampling.BICUBIC)
    grain = rng.normal(0, _GRAIN, (height_px, width_px, 1))
    pixels = np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
