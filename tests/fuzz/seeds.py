"""Write the inputs that fuzzing starts from: the bundled pictures as they are, and small ones in every encoding.

python -m tests.fuzz.seeds FOLDER
"""

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from alexnet.shards.reader import SplitReader
from tests.unit.pipeline.photographs import ENCODINGS, encoded

ROOT = Path(__file__).parents[2]
FRAME = b"\xff\xc0\x00\x11\x08"  # what a baseline picture of three components has before its size
UNWRITTEN = {"440": ("4:2:2", 0x12), "411": ("4:2:0", 0x41), "114": ("4:2:0", 0x14)}
"""Sampling that Pillow does not write: what has as many blocks in a unit, and the factors to put in its place."""


def bundled() -> dict[str, bytes]:
    """Return the JPEGs of ci-100 by name."""
    found: dict[str, bytes] = {}
    for split in ("train", "val"):
        reader = SplitReader(ROOT / "shards" / "ci-100", split)
        found |= {f"{split}-{i}.jpg": reader.stored(i).tobytes() for i in range(len(reader))}
    return found


def small(jpeg: bytes, width: int = 49, height: int = 41) -> dict[str, bytes]:
    """Return a corner of a picture in every encoding, also grey and CMYK, by name."""
    corner = Image.open(io.BytesIO(jpeg)).convert("RGB").crop((100, 100, 100 + width, 100 + height))
    grey, cmyk = corner.convert("L"), corner.convert("CMYK")
    found = {
        f"{name}.jpg": encoded(grey if name == "grey" else corner, quality=75, **options)
        for name, options in ENCODINGS.items()
    }
    found["grey-progressive.jpg"] = encoded(grey, quality=75, progressive=True)
    found["cmyk.jpg"] = encoded(cmyk, quality=75)
    square = corner.resize((64, 64))  # as many units whatever their shape
    for name, (written, factors) in UNWRITTEN.items():
        found[f"{name}.jpg"] = resampled(encoded(square, quality=75, subsampling=written), factors)
    tiny = Image.fromarray(np.asarray(corner)[:1, :1])
    found["one-pixel.jpg"] = encoded(tiny, quality=75, subsampling="4:2:0")
    return found


def resampled(jpeg: bytes, factors: int) -> bytes:
    """Return a JPEG with other sampling factors of its first component; the same blocks then lie elsewhere."""
    place = jpeg.index(FRAME) + len(FRAME) + 6
    return jpeg[:place] + bytes([factors]) + jpeg[place + 1 :]


def main() -> None:
    """Write all seeds into the folder given."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    pictures = bundled()
    for name, data in (pictures | small(pictures["train-0.jpg"])).items():
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
