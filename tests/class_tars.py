"""Class tars of any length out of one small file: each is a link to it, and is really walked, header by header."""

import io
import tarfile
from pathlib import Path

from PIL import Image


def write_entries(root: Path, classes: int, entries: int) -> None:
    """Write `classes` tars of `entries` members in all, empty but for the first: a tar without images is no class."""
    image = io.BytesIO()
    Image.new("RGB", (32, 24)).save(image, "JPEG")
    root.mkdir(parents=True)
    target = root.parent / f"{root.name}.tar"
    with tarfile.open(target, "w") as tar:
        for number in range(entries // classes):
            member = tarfile.TarInfo(f"n00000000_{10_000 + number}.JPEG")
            member.size = 0 if number else len(image.getvalue())
            tar.addfile(member, io.BytesIO(image.getvalue()))
    for label in range(classes):
        (root / f"n{label:08d}.tar").symlink_to(target)
